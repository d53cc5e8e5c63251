"""MicroEmo's processor: from a clip and a question to the tensors that the model reads."""

import difflib
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from transformers import BatchFeature, PreTrainedTokenizerBase
from transformers.processing_utils import ProcessorMixin
from transformers.video_processing_utils import VideoProcessorMixin

from ..configuration.configuration_microemo import MicroEmoConfig
from ..configuration.model_inputs import MODEL_INPUTS
from ..utils.keywords import LOADING_KEYWORDS, refuse_unknown
from .clip_reader import ClipContent, ClipInput, ClipReader, as_clip_inputs, deduplicate, utterance_spans
from .faces.face_regions import find_regions
from .feature_extraction_microemo import MicroEmoFeatureExtractor
from .prompt_microemo import CHAT_TEMPLATE, OTHER_NAMES, SYSTEM_TEXT, ClipPrompt, PromptBuilder, RenderedPrompt
from .utterances import frame_windows, segment_windows, sliding_windows
from .video_processing_microemo import FIELDS, FIXED, MicroEmoVideoProcessor

# Keywords of a call that go to the tokenizer, and to the video processor.
TEXT_KEYWORDS = frozenset(("padding", "padding_side", "pad_to_multiple_of", "max_length"))
VIDEO_KEYWORDS = frozenset((*FIELDS, *FIXED))
# What the processor and the model must agree on, by one name in both.
SWITCHES = (
    *("num_query_tokens", "num_video_query_tokens", "num_audio_query_tokens"),
    *("windows", "window_size", "window_stride", "window_unit"),
    *("use_global_window", "use_utterance_audio", "use_frame_timestamps"),
)


class MicroEmoProcessor(ProcessorMixin):
    r"""
    Bundles a [`MicroEmoVideoProcessor`], a [`MicroEmoFeatureExtractor`] and the tokenizers of the language model and
    of the image Q-Former, and owns the prompt.

    The switches below change the prompt and must agree with the model's configuration: take them from there with
    [`~MicroEmoProcessor.from_config`].

    Args:
        video_processor ([`MicroEmoVideoProcessor`]): Clips to frames and clue regions.
        feature_extractor ([`MicroEmoFeatureExtractor`]): Sound to log-mel segments.
        tokenizer (`PreTrainedTokenizerBase`): Of the language model, with the tokens `<video>` and `<audio>`.
        qformer_tokenizer (`PreTrainedTokenizerBase`): Of the image Q-Former (BERT's), for the timestamps.
        num_query_tokens (`int`, *optional*, defaults to 32): Queries of the image Q-Former; in no count of the prompt.
        num_video_query_tokens (`int`, *optional*, defaults to 32): Placeholders n of a window of frames.
        num_audio_query_tokens (`int`, *optional*, defaults to 8): Placeholders m of a window of sound.
        windows (`"utterance"`, `"sliding"` or `"none"`, *optional*, defaults to `"utterance"`): See [`MicroEmoConfig`].
        window_size, window_stride (`float`, *optional*, default to 32): Of sliding windows, in `window_unit`.
        window_unit (`"frames"` or `"seconds"`, *optional*, defaults to `"frames"`): Their unit.
        use_global_window (`bool`, *optional*, defaults to `True`): Whether n placeholders stand for the whole clip.
        use_utterance_audio (`bool`, *optional*, defaults to `False`): Whether each utterance has m placeholders.
        use_frame_timestamps (`bool`, *optional*, defaults to `True`): Whether the image Q-Former reads timestamps.
        prompt_layout (`"concatenated"` or `"interleaved"`, *optional*, defaults to `"concatenated"`):
            All windows before the transcript (paper 3.4), or each utterance's tokens behind its number in its transcript
            line, where a small model finds them most easily. Windows of frames that are no utterances always come before it.
        timestamp_format (`str`, *optional*, defaults to `"This frame is sampled at {:.1f}s."`):
            Filled with the frame's presentation time in seconds (paper 3.2). `"timechat"` stands for TimeChat's
            sentence, whose time is frame index by frame rate.
        max_utterances (`int`, *optional*, defaults to 32): Above it, short neighbours are merged, with a warning.
        system_text (`str`, *optional*): First words of a prompt without a system message.
        chat_template (`str`, *optional*): Jinja template of the prompt in place of [`CHAT_TEMPLATE`].

    Raises:
        ValueError: if a switch has an unknown value, or the tokenizer lacks `<video>` or `<audio>`.
    """

    video_token = "<video>"
    audio_token = "<audio>"

    def __init__(
        self,
        video_processor: MicroEmoVideoProcessor,
        feature_extractor: MicroEmoFeatureExtractor,
        tokenizer: PreTrainedTokenizerBase,
        qformer_tokenizer: PreTrainedTokenizerBase,
        num_query_tokens: int = 32,
        num_video_query_tokens: int = 32,
        num_audio_query_tokens: int = 8,
        windows: str = "utterance",
        window_size: float = 32,
        window_stride: float = 32,
        window_unit: str = "frames",
        use_global_window: bool = True,
        use_utterance_audio: bool = False,
        use_frame_timestamps: bool = True,
        prompt_layout: str = "concatenated",
        timestamp_format: str = "This frame is sampled at {:.1f}s.",
        max_utterances: int = 32,
        system_text: str = SYSTEM_TEXT,
        chat_template: str | None = None,
    ) -> None:
        for name, value, choices in (
            ("windows", windows, ("utterance", "sliding", "none")),
            ("window_unit", window_unit, ("frames", "seconds")),
            ("prompt_layout", prompt_layout, ("concatenated", "interleaved")),
        ):
            if value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
        missing = {self.video_token, self.audio_token} - set(tokenizer.get_added_vocab())
        if missing:
            raise ValueError(
                f"the tokenizer lacks {' and '.join(sorted(missing))}; from_config adds them, "
                "and the model's token embeddings must then be resized"
            )
        self.num_query_tokens = num_query_tokens
        self.num_video_query_tokens = num_video_query_tokens
        self.num_audio_query_tokens = num_audio_query_tokens
        self.windows = windows
        self.window_size = window_size
        self.window_stride = window_stride
        self.window_unit = window_unit
        self.use_global_window = use_global_window
        self.use_utterance_audio = use_utterance_audio
        self.use_frame_timestamps = use_frame_timestamps
        self.prompt_layout = prompt_layout
        self.timestamp_format = timestamp_format
        self.max_utterances = max_utterances
        self.system_text = system_text
        super().__init__(
            video_processor,
            feature_extractor,
            tokenizer,
            qformer_tokenizer,
            chat_template=CHAT_TEMPLATE if chat_template is None else chat_template,
        )
        # Whoever has the tokenizer alone reads the same template, not that of the language model's makers.
        tokenizer.chat_template = self.chat_template
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        self.audio_token_id = tokenizer.convert_tokens_to_ids(self.audio_token)
        self._clip_reader: ClipReader | None = None

    @property
    def clip_reader(self) -> ClipReader:
        """What reads clips: a [`ClipReader`], or whatever else has its `read`, such as a [`FeatureCache`]."""
        return self._clip_reader or ClipReader(self)

    @clip_reader.setter
    def clip_reader(self, reader: ClipReader | None) -> None:
        self._clip_reader = reader

    @classmethod
    def add_media_tokens(cls, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """Add `<video>` and `<audio>` to a tokenizer that lacks them.

        Args:
            tokenizer (`PreTrainedTokenizerBase`): The tokenizer of the language model; it is changed in place.

        Returns:
            `list[int]`: The ids of `<video>` and `<audio>`.
        """
        tokens = [cls.video_token, cls.audio_token]
        tokenizer.add_special_tokens({"extra_special_tokens": tokens}, replace_extra_special_tokens=False)
        return tokenizer.convert_tokens_to_ids(tokens)

    @classmethod
    def from_config(
        cls,
        config: MicroEmoConfig,
        tokenizer: PreTrainedTokenizerBase,
        qformer_tokenizer: PreTrainedTokenizerBase,
        **overrides: Any,
    ) -> "MicroEmoProcessor":
        """The processor that fits a model.

        Args:
            config ([`MicroEmoConfig`]): The switches, the sizes and the ids of `<video>` and `<audio>`.
            tokenizer, qformer_tokenizer (`PreTrainedTokenizerBase`):
                See the class. `<video>` and `<audio>` are added to the first where it lacks them.
            overrides: Arguments of the class; `video_processor` and `feature_extractor` among them.

        Raises:
            ValueError: if the tokenizer gives `<video>` or `<audio>` another id than the configuration.
        """
        expected_ids = (config.video_token_id, config.audio_token_id)
        ids = cls.add_media_tokens(tokenizer)
        for token, actual, expected in zip((cls.video_token, cls.audio_token), ids, expected_ids, strict=True):
            if actual != expected:
                raise ValueError(f"the tokenizer gives {token} the id {actual}, the configuration says {expected}")
        context = getattr(config.text_config, "max_position_embeddings", tokenizer.model_max_length)
        tokenizer.model_max_length = min(tokenizer.model_max_length, context)

        switches = {name: getattr(config, name) for name in SWITCHES}
        parts = {}
        if "video_processor" not in overrides:
            side = config.vision_config.image_size
            parts["video_processor"] = MicroEmoVideoProcessor(
                num_frames=min(MicroEmoVideoProcessor.num_frames, config.max_frames),
                size={"height": side, "width": side},
                patch_size=config.vision_config.patch_size,
                local_view=config.local_view,
                clue_regions="whole_face" if config.num_regions == 1 else "facial",
                max_frames=config.max_frames,
            )
        if "feature_extractor" not in overrides:
            parts["feature_extractor"] = MicroEmoFeatureExtractor(
                num_segments=config.max_audio_segments,
                segment_duration=config.audio_config.segment_duration,
                num_mel_bins=config.audio_config.num_mel_bins,
                num_mel_frames=config.audio_config.num_mel_frames,
            )
        return cls(tokenizer=tokenizer, qformer_tokenizer=qformer_tokenizer, **{**parts, **switches, **overrides})

    def check_config(self, config: MicroEmoConfig) -> None:
        """Refuse a model made with other switches. Where the numbers of placeholders differ the model refuses the
        prompt itself; windows of another kind, but as many, it cannot tell.

        Raises:
            ValueError: naming every field that differs, with both values.
        """
        vision, video_processor = config.vision_config, self.video_processor
        sound, feature_extractor = config.audio_config, self.feature_extractor
        pairs = {name: (getattr(self, name), getattr(config, name)) for name in SWITCHES}
        if config.windows != "sliding":
            pairs = {name: pair for name, pair in pairs.items() if not name.startswith("window_")}
        if config.use_local_clue_attention:
            pairs["local_view"] = (video_processor.local_view, config.local_view)
            pairs["num_regions"] = (len(find_regions(video_processor.clue_regions)), config.num_regions)
        pairs["size"] = (video_processor.size["height"], vision.image_size)
        pairs["patch_size"] = (video_processor.patch_size, vision.patch_size)
        pairs["segment_duration"] = (feature_extractor.segment_duration, sound.segment_duration)
        pairs["num_mel_frames"] = (feature_extractor.num_mel_frames, sound.num_mel_frames)
        pairs["video_token_id"] = (self.video_token_id, config.video_token_id)
        pairs["audio_token_id"] = (self.audio_token_id, config.audio_token_id)
        wrong = [f"{name} is {ours!r}, the model's {its!r}" for name, (ours, its) in pairs.items() if ours != its]
        if video_processor.max_frames > config.max_frames:
            wrong.append(f"max_frames is {video_processor.max_frames}, the model has {config.max_frames} positions")
        if wrong:
            raise ValueError("the processor does not fit the model: " + "; ".join(wrong))

    # --- the two ways in -------------------------------------------------------------------------------------------

    def __call__(
        self,
        text: str | list[str] | None = None,
        videos: Any = None,
        audio: Any = None,
        utterances: Any = None,
        landmarks: Any = None,
        video_metadata: Any = None,
        sampling_rate: int | None = None,
        audio_track: int | str | list | None = None,
        asr: Callable | None = None,
        return_tensors: str | None = None,
        return_metadata: bool = False,
        **kwargs: Any,
    ) -> BatchFeature:
        """
        Args:
            text (`str` or `list[str]`, *optional*):
                A question for each clip, which the chat template wraps; or a whole prompt, known by its `<video>` and
                `<audio>` placeholders: one for each medium of the clip, or already as many as there are tokens.
                Without text there are no `input_ids`.
            videos (*optional*):
                A clip or a list of clips: path, URL, bytes, file object, or decoded frames, as
                [`MicroEmoVideoProcessor`] takes them. A sound file counts as a clip without pictures. `None` in the
                list stands for a row without a clip.
            audio (*optional*):
                Sound in place of the videos' own: path or waveform (samples,) or (channels, samples), or a list with
                one for each clip, `None` in it for the clip's own; `False` mutes.
            utterances (*optional*):
                Subtitles as [`read_utterances`] takes them, or a list with those of each clip.
            landmarks, video_metadata (*optional*):
                Precomputed face landmarks, and times of decoded frames, see [`MicroEmoVideoProcessor`]; or lists.
            sampling_rate (`int`, *optional*): Of the waveforms in `audio`.
            audio_track (`int` or `str`, *optional*):
                Which sound track of a file is heard, by its number (from 0) or its language (`"eng"`), of all clips or a
                list with that of each; by default FFmpeg's best.
            asr (`Callable`, *optional*):
                Speech-recognition pipeline that makes the utterances of clips without subtitles.
            return_tensors (`str`, *optional*): `"pt"` or `"np"`.
            return_metadata (`bool`, *optional*, defaults to `False`):
                Add lists with an entry for each clip: `video_metadata`, `utterances`, `audio_segment_times` and `prompts`.
            kwargs:
                `padding` (defaults to `True`), `padding_side` (`"left"`, as generation needs), `pad_to_multiple_of`,
                `max_length` go to the tokenizer, the rest to the video processor (`num_frames`, `fps`, ...).

        Returns:
            `BatchFeature`: B clips, T frames, R clue regions, P patches, K windows of frames, U of sound, C audio
            clips, L timestamp tokens.

            - `input_ids`, `attention_mask` (B, S)
            - `pixel_values_videos` (B, T, 3, H, W), `frame_mask` (B, T), `region_masks` (B, T, R, P),
              `pixel_values_faces` (B, T, 3, H, W) with `local_view="face_crop"`: if any clip has pictures
            - `qformer_input_ids`, `qformer_attention_mask` (B, T, L): likewise, with `use_frame_timestamps`
            - `clip_index` (rows,): the clip of each text, only where several texts are about one clip: B then counts the
              different clips
            - `utterance_windows` (B, K, 2): frames [start, end) of each window, -1 where padded
            - `input_features` (B, C, 1, num_mel_bins, num_mel_frames), `audio_segment_mask` (B, C), `audio_windows`
              (B, U, 2): if any clip has sound; clips [start, end) of each utterance, read with `use_utterance_audio`

        Raises:
            ValueError: if texts and clips differ in number, placeholders in a text and tokens of its clip differ in
                number, or a prompt is longer than the language model's context.
            MediaError: for a file that cannot be used.
            TypeError: for a keyword that nobody reads.
        """
        texts = [text] if isinstance(text, str) else text
        text_kwargs, video_kwargs = self._split_keywords(kwargs)
        clips = as_clip_inputs(videos, audio, utterances, landmarks, video_metadata, sampling_rate, texts, audio_track)
        if texts is not None and len(texts) != len(clips):
            raise ValueError(f"{len(texts)} texts, but {len(clips)} clips")
        features, prompts, metadata = self._encode_clips(clips, asr, video_kwargs)
        if texts is not None:
            builder = PromptBuilder(self)
            rendered = [builder.render_text(row, *pair) for row, pair in enumerate(zip(texts, prompts, strict=True))]
            features |= self._tokenize(builder, rendered, prompts, **text_kwargs)
            metadata["prompts"] = [prompt.text for prompt in rendered]
        elif "clip_index" in features:  # without prompts the clips themselves are the rows
            clip_index = features.pop("clip_index")
            features = {name: value[clip_index] for name, value in features.items()}
        output = BatchFeature(features, tensor_type=return_tensors)
        output.update(metadata if return_metadata else {})
        return output

    def apply_chat_template(
        self,
        conversation: list[dict] | list[list[dict]],
        chat_template: str | None = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        return_assistant_tokens_mask: bool = False,
        tokenize: bool = False,
        return_tensors: str | None = None,
        return_dict: bool = False,
        processor_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """
        The prompt of a conversation, or of a list of conversations, and with `tokenize` all that the model reads.

        A conversation holds at most one clip, as content of a user's message: `{"type": "video", "path": ...}` (or
        `url`, or `video` for frames; perhaps with `utterances` and `landmarks`) and `{"type": "audio", "path": ...}`
        (or `audio` for a waveform, with `sampling_rate`) in place of the video's own sound. `{"type": "utterance",
        "index": k}` cites utterance k, counted from 1 as in the prompt: its window's tokens stand there once more.
        In a message media come first. All text is escaped: no word of it becomes a special token.

        Args:
            conversation (`list[dict]` or `list[list[dict]]`): Messages with `role` and `content`.
            chat_template (`str`, *optional*): In place of the processor's own.
            add_generation_prompt (`bool`, *optional*, defaults to `False`): End with the opening of an answer.
            continue_final_message (`bool`, *optional*, defaults to `False`): Leave the last message open.
            return_assistant_tokens_mask (`bool`, *optional*, defaults to `False`):
                Add `assistant_masks` (B, S), 1 on the answers' tokens: training learns those.
            tokenize (`bool`, *optional*, defaults to `False`):
                Return token ids, not text. The text is the whole prompt, so media are read for it, too; in text alone
                media may be without a source: a single placeholder each, which `processor(text=..., videos=...)` expands.
            return_tensors, return_dict: As in Transformers.
            processor_kwargs (`dict`, *optional*), kwargs:
                Arguments of `__call__` other than media and text, and variables that the template reads
                (`system_text`).

        Returns:
            Text, token ids, or with `return_dict` the `BatchFeature` of `__call__`, with `cited_utterances` (B, N)
            added where an utterance is cited: 0-based window indices in the order of the citations, -1 where padded.

        Raises:
            TypeError: for a keyword, or a key of a message or of its content, that nobody reads.
            ValueError: as `__call__`, and for a conversation that holds more than one clip.
        """
        is_batched = not isinstance(conversation[0], dict)
        conversations = conversation if is_batched else [conversation]
        builder = PromptBuilder(self)
        kwargs = {**(processor_kwargs or {}), **kwargs}
        asr, return_metadata = kwargs.pop("asr", None), kwargs.pop("return_metadata", False)
        variables = builder.template_variables(chat_template)
        template_kwargs = {name: kwargs.pop(name) for name in variables & kwargs.keys()}
        text_kwargs, video_kwargs = self._split_keywords(kwargs)

        pairs = [
            builder.read_conversation(messages, tokenize, TEXT_KEYWORDS | VIDEO_KEYWORDS) for messages in conversations
        ]
        features, found, metadata = self._encode_clips([c for c, _ in pairs if c is not None], asr, video_kwargs)
        remaining = iter(found)
        prompts = [None if clip is None else next(remaining) for clip, _ in pairs]
        rendered = [
            builder.render(
                messages,
                prompt,
                chat_template=chat_template,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
                return_assistant_tokens_mask=return_assistant_tokens_mask,
                **template_kwargs,
            )
            for (_, messages), prompt in zip(pairs, prompts, strict=True)
        ]
        texts = [prompt.text for prompt in rendered]
        if not tokenize:
            return texts if is_batched else texts[0]

        features |= self._tokenize(builder, rendered, prompts, return_assistant_tokens_mask, **text_kwargs)
        metadata["prompts"] = texts
        output = BatchFeature(features, tensor_type=return_tensors)
        output.update(metadata if return_metadata else {})
        return output if return_dict else output["input_ids"]

    def _split_keywords(self, kwargs: dict) -> tuple[dict, dict]:
        """The tokenizer's arguments, and the video processor's."""
        named = inspect.signature(self.__call__).parameters.keys() - {"kwargs"}
        refuse_unknown(kwargs, TEXT_KEYWORDS | VIDEO_KEYWORDS | named, type(self).__name__, OTHER_NAMES)
        text_kwargs = {name: kwargs[name] for name in TEXT_KEYWORDS & kwargs.keys()}
        return text_kwargs, {name: kwargs[name] for name in kwargs.keys() - TEXT_KEYWORDS}

    def _encode_clips(
        self, clips: Sequence[ClipInput], asr: Callable | None, video_kwargs: dict[str, Any]
    ) -> tuple[dict[str, np.ndarray], list[ClipPrompt], dict[str, list]]:
        """The features of all media, what each row's prompt says of its clip, and the metadata of each row.

        A clip is read and held once, however many rows are about it; `clip_index` then names the clip of each row.
        """
        unique, clip_index = deduplicate(clips)
        features, contents = self.clip_reader.read(unique, asr, video_kwargs) if unique else ({}, [])
        windows, spans = self._place_windows(contents)
        features |= windows
        if self.use_frame_timestamps and "frame_mask" in features:
            features |= self.read_timestamps(
                [content.video_metadata for content in contents], features["frame_mask"].shape[1]
            )
        if len(unique) < len(clips):
            features["clip_index"] = np.array(clip_index, dtype=np.int64)
        prompts = [
            ClipPrompt(content.has_video, content.has_audio, content.utterances, of_clip)
            for content, of_clip in zip(contents, spans, strict=True)
        ]
        metadata = {
            "video_metadata": [contents[index].video_metadata for index in clip_index],
            "utterances": [contents[index].utterances for index in clip_index],
            "audio_segment_times": [contents[index].segment_times for index in clip_index],
        }
        return features, [prompts[index] for index in clip_index], metadata

    def _place_windows(self, contents: Sequence[ClipContent]) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
        """Which frames and which mel segments each window holds, and the seconds `(K, 2)` of each clip's windows."""
        no_windows = np.zeros((0, 2), np.int64)
        frames, sound, spans, sound_spans = [], [], [], []
        for content in contents:
            video_metadata, windows = content.video_metadata, no_windows
            spans.append(utterance_spans(content.utterances if self.windows == "utterance" else []))
            if video_metadata is not None and self.windows == "sliding":
                windows, spans[-1] = sliding_windows(
                    video_metadata.frame_times,
                    self.window_size,
                    self.window_stride,
                    self.window_unit,
                    video_metadata.duration,
                )
            elif video_metadata is not None:
                windows = frame_windows(video_metadata.frame_times, spans[-1])
            if video_metadata is not None and not self.use_global_window and not len(windows):
                raise ValueError(
                    f"{video_metadata.source}: no utterances, and use_global_window=False: no window is left"
                )
            frames.append(windows)
            # Without windows of its own the sound has the frames', which the model passes over.
            sound_spans.append(utterance_spans(content.utterances) if self.use_utterance_audio else spans[-1])
            has_sound = content.segment_times is not None
            sound.append(segment_windows(content.segment_times, sound_spans[-1]) if has_sound else no_windows)
        features = {"utterance_windows": _pad(frames, spans)}
        if any(content.segment_times is not None for content in contents):
            features["audio_windows"] = _pad(sound, sound_spans)
        return features, spans

    def read_timestamps(self, metadata: Sequence[Any], num_frames: int) -> dict:
        """Tokens of "This frame is sampled at 2.0s." for each frame, all of the batch in one call.

        Args:
            metadata: `video_metadata` of each clip, `None` for one without pictures.
            num_frames (`int`): T, to which clips are padded.

        Returns:
            `dict`: `qformer_input_ids` and `qformer_attention_mask` (B, T, L).
        """
        sentences = [[] if of_clip is None else self.timestamp_sentences(of_clip) for of_clip in metadata]
        different = list(dict.fromkeys(sentence for of_clip in sentences for sentence in of_clip))
        # Whole multiples: whoever batches clips that were processed one by one finds them equally wide.
        tokens = self.qformer_tokenizer(
            different,
            padding=True,
            padding_side="right",
            pad_to_multiple_of=16,
            return_attention_mask=True,
            return_token_type_ids=False,
        )
        number = {sentence: index for index, sentence in enumerate(different)}
        features = {}
        for name, padding in (("input_ids", self.qformer_tokenizer.pad_token_id or 0), ("attention_mask", 0)):
            table = np.array(tokens[name], dtype=np.int64)
            values = np.full((len(metadata), num_frames, table.shape[1]), padding, dtype=np.int64)
            for row, of_clip in enumerate(sentences):
                values[row, : len(of_clip)] = table[[number[sentence] for sentence in of_clip]]
            features[f"qformer_{name}"] = values
        return features

    def timestamp_sentences(self, metadata: Any) -> list[str]:
        """The sentence about each frame of a clip, from its `video_metadata`."""
        if self.timestamp_format == "timechat":
            times = np.asarray(metadata.frame_indices) / metadata.fps
            return [f"This frame is sampled at {time:.1f} second." for time in times]
        return [self.timestamp_format.format(time) for time in metadata.frame_times]

    def _tokenize(
        self,
        builder: PromptBuilder,
        rendered: Sequence[RenderedPrompt],
        prompts: Sequence[ClipPrompt],
        with_assistant_masks: bool = False,
        padding: bool | str = True,
        padding_side: str = "left",
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Token ids of finished prompts, checked against the clips and the language model's context."""
        tokens = self.tokenizer(
            [prompt.text for prompt in rendered],
            add_special_tokens=False,
            padding=padding,
            padding_side=padding_side,
            return_attention_mask=True,
            return_token_type_ids=False,
            return_offsets_mapping=with_assistant_masks,
            verbose=False,
            **kwargs,
        )
        for row, (ids, prompt) in enumerate(zip(tokens["input_ids"], prompts, strict=True)):
            length, context = sum(tokens["attention_mask"][row]), self.tokenizer.model_max_length
            if length > context:
                raise ValueError(
                    f"prompt {row} is {length} tokens long, but the language model's context holds {context}"
                )
            found = ids.count(self.video_token_id), ids.count(self.audio_token_id)
            expected = builder.count_placeholders(prompt, len(rendered[row].cited))
            if found != expected:
                raise ValueError(
                    f"prompt {row} holds {found[0]} {self.video_token} and {found[1]} {self.audio_token}, "
                    f"but its clip needs {expected[0]} and {expected[1]}"
                )
        features = {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]}
        if with_assistant_masks:
            features["assistant_masks"] = [
                [int(any(start < stop and end > first for first, stop in prompt.answers)) for start, end in offsets]
                for offsets, prompt in zip(tokens["offset_mapping"], rendered, strict=True)
            ]
        if any(prompt.cited for prompt in rendered):
            cited = np.full((len(rendered), max(len(prompt.cited) for prompt in rendered)), -1, dtype=np.int64)
            for row, prompt in enumerate(rendered):
                cited[row, : len(prompt.cited)] = prompt.cited
            features["cited_utterances"] = cited
        return features

    # --- saving and loading ----------------------------------------------------------------------------------------

    @property
    def model_input_names(self) -> list[str]:
        return [name for name, model_input in MODEL_INPUTS.items() if model_input.computed_from is None]

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
        # Transformers hides this class behind a stand-in where torchvision is absent.
        if argument_name != "video_processor":
            return super().check_argument_for_proper_class(argument_name, argument)
        if not isinstance(argument, VideoProcessorMixin):
            raise TypeError(f"video_processor must be a VideoProcessorMixin, got {type(argument).__name__}")
        return VideoProcessorMixin

    @classmethod
    def _get_arguments_from_pretrained(
        cls, pretrained_model_name_or_path: Any, processor_dict: dict | None = None, **kwargs: Any
    ) -> list[Any]:
        # The automatic class for video processors needs torchvision, too. The tokenizers get all the rest: pipelines hand
        # the model's arguments on to its processor, so that only a word that is nearly ours can be told to be a mistake.
        own = inspect.signature(cls.__init__).parameters.keys() - {"self"}
        sound = MicroEmoFeatureExtractor.fields()
        accepted = own | sound | VIDEO_KEYWORDS
        mistaken = [
            n for n in kwargs.keys() - accepted if n in OTHER_NAMES or difflib.get_close_matches(n, accepted, 1, 0.8)
        ]
        refuse_unknown(mistaken, accepted, f"{cls.__name__}.from_pretrained", OTHER_NAMES)
        video = {name: kwargs[name] for name in (VIDEO_KEYWORDS | LOADING_KEYWORDS) & kwargs.keys()}
        audio = {name: kwargs[name] for name in (sound | LOADING_KEYWORDS) & kwargs.keys()}
        rest = {name: kwargs[name] for name in kwargs.keys() - VIDEO_KEYWORDS - sound}
        return [
            MicroEmoVideoProcessor.from_pretrained(pretrained_model_name_or_path, **video),
            MicroEmoFeatureExtractor.from_pretrained(pretrained_model_name_or_path, **audio),
            *(
                cls._load_tokenizer_from_pretrained(name, pretrained_model_name_or_path, **rest)
                for name in ("tokenizer", "qformer_tokenizer")
            ),
        ]


def _pad(windows: list[np.ndarray], spans: list[np.ndarray]) -> np.ndarray:
    """Windows of each clip (k, 2) as one (B, K, 2), -1 where padded, and where a clip with spans lacks the medium."""
    padded = np.full((len(windows), max(map(len, spans), default=0), 2), -1, dtype=np.int64)
    for row, of_clip in enumerate(windows):
        padded[row, : len(of_clip)] = of_clip
    return padded


__all__ = ["ClipPrompt", "MicroEmoProcessor"]
