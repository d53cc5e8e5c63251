"""MicroEmo's processor: from a clip and a question to the tensors that the model reads."""

from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np
from transformers import AutoTokenizer, BatchFeature, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.processing_utils import MultiModalData, ProcessorMixin
from transformers.video_processing_utils import VideoProcessorMixin

from ..configuration.configuration_microemo import MicroEmoConfig
from ..configuration.model_inputs import MODEL_INPUTS, inputs_of
from .batch_layout import give_to_clips, lay_out, mute_video
from .call_keywords import CALL_KEYWORDS, CallKeywords, MicroEmoProcessorKwargs, read_keywords, split_loading_keywords
from .clip_reader import ClipInput, ClipReader, deduplicate
from .clip_windows import as_joinable, place_windows, timestamp_tokens
from .feature_extraction_microemo import MicroEmoFeatureExtractor
from .model_switches import arguments_from_model, differences_from_model
from .prompt_microemo import AUDIO_TOKEN, CHAT_TEMPLATE, SYSTEM_TEXT, VIDEO_TOKEN, ClipPrompt, PromptBuilder
from .prompt_tokens import count_video_tokens, tokenize_prompts
from .video_processing_microemo import MicroEmoVideoProcessor

try:
    from transformers.processing_utils import OmniModalProcessorMixin
except ImportError:  # Transformers before 5.23 has no class for processors of video and sound.
    OmniModalProcessorMixin = ProcessorMixin

# The arguments of a call besides its keywords, and those of them that belong to a clip.
_OF_CLIPS = ("utterances", "landmarks", "audio_track")
_CALL_ARGUMENTS = frozenset(("text", "videos", "audio", "audio_from_video_indices", "asr", *_OF_CLIPS))


class MicroEmoProcessor(OmniModalProcessorMixin):
    r"""Bundles a video processor, a feature extractor and two tokenizers, and owns the prompt.

    The switches below change the prompt and must agree with the model's configuration: take them from there with
    [`~MicroEmoProcessor.from_config`].

    Args:
        video_processor ([`MicroEmoVideoProcessor`]): What turns clips into frames and clue regions.
        feature_extractor ([`MicroEmoFeatureExtractor`]): What turns sound into mel segments.
        tokenizer (`PreTrainedTokenizerBase`): The tokenizer of the language model, with the tokens `<video>` and `<audio>`.
        qformer_tokenizer (`PreTrainedTokenizerBase`): The tokenizer of the image Q-Former (BERT's), for the timestamps.
        num_query_tokens (`int`, *optional*, defaults to 32):
            The number of queries of the image Q-Former; no placeholder stands for them.
        num_video_query_tokens (`int`, *optional*, defaults to 32): The number n of placeholders of a window of frames.
        num_audio_query_tokens (`int`, *optional*, defaults to 8): The number m of placeholders of a window of sound.
        windows (`str`, *optional*, defaults to `"utterance"`):
            What the windows of frames are: `"utterance"`, `"sliding"` or `"none"`, as in [`MicroEmoConfig`].
        window_size (`float`, *optional*, defaults to 32): The length of a sliding window in `window_unit`.
        window_stride (`float`, *optional*, defaults to 32): The distance of sliding windows in `window_unit`.
        window_unit (`str`, *optional*, defaults to `"frames"`): `"frames"` or `"seconds"`.
        use_global_window (`bool`, *optional*, defaults to `True`): Whether n placeholders stand for the whole clip.
        use_utterance_audio (`bool`, *optional*, defaults to `False`): Whether each utterance has m placeholders.
        use_frame_timestamps (`bool`, *optional*, defaults to `True`): Whether the image Q-Former reads timestamps.
        prompt_layout (`str`, *optional*, defaults to `"concatenated"`):
            `"concatenated"` puts all windows before the transcript (paper 3.4). `"interleaved"` puts each utterance's
            tokens behind its number in its line of the transcript, where a small model finds them most easily. Windows of
            frames that are no utterances always come before it.
        timestamp_format (`str`, *optional*, defaults to `"This frame is sampled at {:.1f}s."`):
            The sentence that is filled with the frame's presentation time in seconds (paper 3.2). `"timechat"` stands for
            TimeChat's sentence, whose time is the frame's index by the frame rate.
        max_utterances (`int`, *optional*, defaults to 32):
            The largest number of utterances. Above it short neighbours are merged, with a warning.
        system_text (`str`, *optional*): The first words of a prompt without a system message.
        chat_template (`str`, *optional*): The Jinja template of the prompt in place of [`CHAT_TEMPLATE`].

    Raises:
        ValueError: If a switch has an unknown value, or if the tokenizer lacks `<video>` or `<audio>`.
    """

    valid_processor_kwargs = MicroEmoProcessorKwargs
    video_token = VIDEO_TOKEN
    audio_token = AUDIO_TOKEN
    text_kwargs = {"padding": True, "padding_side": "left"}
    load_audio_from_video = True
    return_mm_token_type_ids = False
    return_text_replacement_offsets = False

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
        """The object that reads clips: a [`ClipReader`], or another one with its `read`, such as a [`FeatureCache`]."""
        return self._clip_reader or ClipReader(self)

    @clip_reader.setter
    def clip_reader(self, reader: ClipReader | None) -> None:
        self._clip_reader = reader

    @classmethod
    def add_media_tokens(cls, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """Adds `<video>` and `<audio>` to a tokenizer that lacks them.

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
        """Makes the processor that fits a model.

        Args:
            config ([`MicroEmoConfig`]): The switches, the sizes and the ids of `<video>` and `<audio>`.
            tokenizer (`PreTrainedTokenizerBase`):
                The tokenizer of the language model. `<video>` and `<audio>` are added where it lacks them.
            qformer_tokenizer (`PreTrainedTokenizerBase`): The tokenizer of the image Q-Former.
            overrides (`Any`, *optional*): Arguments of the class, `video_processor` and `feature_extractor` among them.

        Returns:
            `MicroEmoProcessor`: The processor.

        Raises:
            ValueError: If the tokenizer gives `<video>` or `<audio>` another id than the configuration.
        """
        expected_ids = (config.video_token_id, config.audio_token_id)
        ids = cls.add_media_tokens(tokenizer)
        for token, actual, expected in zip((cls.video_token, cls.audio_token), ids, expected_ids, strict=True):
            if actual != expected:
                raise ValueError(f"the tokenizer gives {token} the id {actual}, the configuration says {expected}")
        context = getattr(config.text_config, "max_position_embeddings", tokenizer.model_max_length)
        tokenizer.model_max_length = min(tokenizer.model_max_length, context)

        arguments = {**arguments_from_model(config), **overrides}
        return cls(tokenizer=tokenizer, qformer_tokenizer=qformer_tokenizer, **arguments)

    def check_config(self, config: MicroEmoConfig) -> None:
        """Refuses a model made with other switches.

        Where the numbers of placeholders differ the model refuses the prompt itself; windows of another kind, but as many,
        it cannot tell.

        Args:
            config ([`MicroEmoConfig`]): The configuration of the model.

        Raises:
            ValueError: If a field differs; the error names each of them with both values.
        """
        wrong = differences_from_model(self, config)
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
        audio_track: int | str | list | None = None,
        audio_from_video_indices: list[int | None] | None = None,
        asr: Any = None,
        **kwargs: Unpack[MicroEmoProcessorKwargs],  # type: ignore[misc]
    ) -> BatchFeature:
        """Makes all that the model reads from clips and texts.

        Args:
            text (`str` or `list[str]`, *optional*):
                A question for each clip, which the chat template wraps, or a whole prompt. A prompt is known by its
                `<video>` and `<audio>` placeholders: it has one for each medium of the clip, or already as many as there
                are tokens. Without text there are no `input_ids`.
            videos (`Any`, *optional*):
                A clip or a list of clips: path, URL, bytes, file object, a row of a video column of the `datasets`
                library, decoded frames, or in a list a list of image files, as [`MicroEmoVideoProcessor`] takes them. A
                sound file counts as a clip without pictures. `None` in the list stands for a row without a clip. A list with a list for each row is
                taken, too, and so are as many clips as there are texts with a `<video>` placeholder.
            audio (`Any`, *optional*):
                Sound in place of the videos' own: a path, a waveform `(samples,)` or `(channels, samples)`, or a row of an
                audio column of the `datasets` library; or a list with one for each clip. `None` stands for the clip's own
                sound, and `False` for no sound.
            utterances (`Any`, *optional*): Subtitles as [`read_utterances`] takes them, or a list with those of each clip.
            landmarks (`Any`, *optional*):
                Precomputed face landmarks as [`MicroEmoVideoProcessor`] takes them, or a list with those of each clip.
            audio_track (`int`, `str` or a list of them, *optional*):
                The sound track of a file that is read, by its number (from 0) or its language (`"eng"`), of all clips or
                of each. By default FFmpeg's choice is read.
            audio_from_video_indices (`list[int | None]`, *optional*):
                Where each sound comes from, as in [`OmniModalProcessorMixin`]: the index of the video whose own sound it
                is, or `None` for an entry of `audio`. If `audio` has an entry for each index, the sound of a video is taken
                from there. Videos that are not named have no sound.
            asr (`SpeechReader`, `Callable` or `str`, *optional*):
                A [`SpeechReader`], speech-recognition pipeline or model, for clips with sound and without subtitles.
            kwargs (`Any`, *optional*):
                Keywords of the tokenizer (`padding`, which is `True` by default, `padding_side`, which is `"left"` as
                generation needs it, `truncation`, `max_length`, ...), of the video processor (`num_frames`, `fps`,
                `video_metadata`, ...), of sound (`sampling_rate`) and of the processor ([`MicroEmoProcessorKwargs`]), by
                themselves or in `text_kwargs`, `videos_kwargs` and `audio_kwargs`. `return_tensors` is `"pt"` or `"np"`.
                `return_metadata` adds lists with an entry for each row: `video_metadata`, `utterances`,
                `audio_segment_times` and `prompts`. `device` is where the tensors of the media are put.

        Returns:
            `BatchFeature`: B clips, T frames, R clue regions, P patches, K windows of frames, U of sound, C audio
            segments, L timestamp tokens.

            - `input_ids`, `attention_mask` (B, S)
            - `pixel_values_videos` (B, T, 3, H, W), `frame_mask` (B, T), `region_masks` (B, T, R, P),
              `pixel_values_faces` (B, T, 3, H, W) with `local_view="face_crop"`: if any clip has pictures
            - `qformer_input_ids`, `qformer_attention_mask` (B, T, L): likewise, with `use_frame_timestamps`
            - `clip_index` (rows,): the clip of each text, only where several texts are about one clip: B then counts the
              different clips
            - `utterance_windows` (B, K, 2): frames [start, end) of each window, -1 where padded
            - `input_features` (B, C, 1, num_mel_bins, num_mel_frames), `audio_segment_mask` (B, C), `audio_windows`
              (B, U, 2): if any clip has sound; segments [start, end) of each utterance, read with `use_utterance_audio`

        Raises:
            ValueError: If texts and clips differ in number, if the placeholders in a text and the tokens of its clip
                differ in number, if a keyword has a wrong value or is given twice, or if a prompt is longer than the
                language model's context.
            MediaError: If a file cannot be used.
            TypeError: If a keyword is unknown.
        """
        keywords = read_keywords(self, kwargs, _CALL_ARGUMENTS)
        texts = [text] if isinstance(text, str) else text
        belongings = {"utterances": utterances, "landmarks": landmarks, "audio_track": audio_track}
        belongings["video_metadata"] = keywords.video_metadata
        clips = lay_out(
            texts,
            videos,
            audio,
            belongings,
            sampling_rate=keywords.sampling_rate,
            audio_from_video_indices=audio_from_video_indices,
            load_audio_from_video=keywords.load_audio_from_video,
        )
        features, prompts, metadata = self._encode_clips(clips, asr, keywords.video)
        if texts is not None:
            builder = PromptBuilder(self)
            begin = keywords.text.pop("add_special_tokens", True)
            rendered = [
                builder.render_text(row, *pair, keywords.return_text_replacement_offsets, begin)
                for row, pair in enumerate(zip(texts, prompts, strict=True))
            ]
            features |= tokenize_prompts(self, rendered, prompts, builder, **keywords.text)
            metadata["prompts"] = [prompt.text for prompt in rendered]
            if keywords.return_text_replacement_offsets:
                features["text_replacement_offsets"] = [prompt.replacements for prompt in rendered]
        elif "clip_index" in features:  # without prompts the clips themselves are the rows
            clip_index = features.pop("clip_index")
            features = {name: value[clip_index] for name, value in features.items()}
        return self._output(features, metadata, keywords)

    def apply_chat_template(
        self,
        conversation: list[dict] | list[list[dict]],
        chat_template: str | None = None,
        tools: list[dict] | None = None,
        documents: list[dict[str, str]] | None = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool | str = False,
        return_assistant_tokens_mask: bool = False,
        tokenize: bool = False,
        return_tensors: str | None = None,
        return_dict: bool = False,
        load_audio_from_video: bool | None = None,
        processor_kwargs: dict[str, Any] | None = None,
        chat_template_kwargs: dict[str, Any] | None = None,
        sanitize_control_tokens: bool = True,
        **kwargs: Any,
    ) -> Any:
        """Makes the prompt of a conversation, or of a list of conversations, and with `tokenize` all that the model reads.

        A conversation holds at most one clip, as content of a user's message: `{"type": "video", "path": ...}` (or
        `url`, or `video` for frames; perhaps with `utterances` and `landmarks`) and `{"type": "audio", "path": ...}`
        (or `audio` for a waveform, with `sampling_rate`) in place of the video's own sound. `{"type": "utterance",
        "index": k}` cites utterance k, counted from 1 as in the prompt: its window's tokens stand there once more.
        In a message media come first. All text is escaped: no word of it becomes a special token.

        Args:
            conversation (`list[dict]` or `list[list[dict]]`): The messages with `role` and `content`.
            chat_template (`str`, *optional*): A Jinja template, or the name of one, in place of the processor's own.
            tools (`list[dict]`, *optional*): Tools for templates that read them; the processor's own does not.
            documents (`list[dict]`, *optional*): Documents for templates that read them; the processor's own does not.
            add_generation_prompt (`bool`, *optional*, defaults to `False`): Whether the prompt ends in the opening of an answer.
            continue_final_message (`bool` or `str`, *optional*, defaults to `False`): Whether the last message stays open.
            return_assistant_tokens_mask (`bool`, *optional*, defaults to `False`):
                Whether `assistant_masks` (B, S) are returned, 1 on the tokens of answers, which training learns.
            tokenize (`bool`, *optional*, defaults to `False`):
                Whether token ids are returned and not text. The text is the whole prompt, so media are read for it, too; in
                text alone media may be without a source: a single placeholder each, which
                `processor(text=..., videos=...)` expands.
            return_tensors (`str`, *optional*): `"pt"` or `"np"`.
            return_dict (`bool`, *optional*, defaults to `False`): Whether the whole `BatchFeature` is returned.
            load_audio_from_video (`bool`, *optional*):
                Whether the sound of a video is read where the conversation has no other; by default it is.
            processor_kwargs (`dict`, *optional*): Keywords of `__call__`.
            chat_template_kwargs (`dict`, *optional*): Keywords of this method, as servers pass them on.
            sanitize_control_tokens (`bool`, *optional*, defaults to `True`): Special tokens in texts are always escaped.
            kwargs (`Any`, *optional*):
                Variables that the template reads (`system_text`), keywords of `__call__`, and what belongs to the clip of
                the conversation, or in a list to that of each: `utterances`, `landmarks`, `audio_track`, `video_metadata`.

        Returns:
            `str`, `list` or `BatchFeature`: Text, token ids, or with `return_dict` the `BatchFeature` of `__call__`, with
            `cited_utterances` (B, N) added where an utterance is cited: 0-based window indices in the order of the
            citations, -1 where padded. The tensors of a single conversation whose clip has no sound or no window have
            padding for them, so that Transformers' pipelines can join them with those of others.

        Raises:
            TypeError: If a keyword, or a key of a message or of its content, is unknown.
            ValueError: As `__call__` does, and if a conversation holds more than one clip.
        """
        if not conversation:
            raise ValueError("an empty conversation has no prompt")
        is_batched = not isinstance(conversation[0], dict)
        conversations: list[Any] = conversation if is_batched else [conversation]
        builder = PromptBuilder(self)
        repeated = (chat_template_kwargs or {}).keys() & kwargs.keys()
        if repeated:
            raise ValueError(f"{', '.join(sorted(repeated))}: passed two times, in chat_template_kwargs and by itself")
        kwargs = {**(processor_kwargs or {}), **(chat_template_kwargs or {}), **kwargs}
        kwargs |= {"return_tensors": None if return_tensors == "auto" else return_tensors}
        if load_audio_from_video is not None:
            kwargs["load_audio_from_video"] = load_audio_from_video
        asr = kwargs.pop("asr", None)
        variables = builder.template_variables(chat_template) - set(_OF_CLIPS)
        template_kwargs = {name: kwargs.pop(name) for name in variables & kwargs.keys()}
        template_kwargs |= {name: value for name, value in (("tools", tools), ("documents", documents)) if value}
        template_kwargs |= {
            "chat_template": chat_template,
            "add_generation_prompt": add_generation_prompt,
            "continue_final_message": continue_final_message,
        }
        belongings = {name: kwargs.pop(name) for name in _OF_CLIPS if kwargs.get(name) is not None}
        keywords = read_keywords(self, kwargs, _CALL_ARGUMENTS)
        belongings |= {
            name: value
            for name in ("video_metadata", "sampling_rate")
            if (value := getattr(keywords, name)) is not None
        }

        pairs = [builder.read_conversation(messages, tokenize, CALL_KEYWORDS) for messages in conversations]
        give_to_clips([clip for clip, _ in pairs], belongings, is_batched)
        clips = [clip for clip, _ in pairs if clip is not None]
        if not keywords.load_audio_from_video:
            clips = [mute_video(clip) for clip in clips]
        features, found, metadata = self._encode_clips(clips, asr, keywords.video)
        remaining = iter(found)
        prompts = [None if clip is None else next(remaining) for clip, _ in pairs]
        rendered = [
            builder.render(
                messages, prompt, return_assistant_tokens_mask=return_assistant_tokens_mask, **template_kwargs
            )
            for (_, messages), prompt in zip(pairs, prompts, strict=True)
        ]
        if keywords.return_text_replacement_offsets and tokenize:
            for row, ((_, messages), prompt, finished) in enumerate(zip(pairs, found, rendered, strict=True)):
                finished.replacements = builder.find_replacements(row, messages, prompt, finished, **template_kwargs)
            features["text_replacement_offsets"] = [finished.replacements for finished in rendered]
        if keywords.text.pop("add_special_tokens", False):
            for finished in rendered:
                finished.begin_with(self.tokenizer.bos_token or "")
        metadata["prompts"] = texts = [finished.text for finished in rendered]
        if not tokenize:
            return texts if is_batched else texts[0]

        features |= tokenize_prompts(self, rendered, found, builder, return_assistant_tokens_mask, **keywords.text)
        if not is_batched and keywords.return_tensors == "pt":
            features = as_joinable(self, features)
        output = self._output(features, metadata, keywords)
        return output if return_dict else output["input_ids"]

    def _encode_clips(
        self, clips: Sequence[ClipInput], asr: Any, video_kwargs: dict[str, Any]
    ) -> tuple[dict[str, Any], list[ClipPrompt], dict[str, list]]:
        """Computes the features of all media, what each row's prompt says of its clip, and the metadata of each row.

        A clip is read and held once, however many rows are about it; `clip_index` then names the clip of each row.
        """
        unique, clip_index = deduplicate(clips)
        features, contents = self.clip_reader.read(unique, asr, video_kwargs) if unique else ({}, [])
        windows, spans = place_windows(self, contents)
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
        metadata: dict[str, list] = {
            "video_metadata": [contents[index].video_metadata for index in clip_index],
            "utterances": [contents[index].utterances for index in clip_index],
            "audio_segment_times": [contents[index].segment_times for index in clip_index],
        }
        return features, [prompts[index] for index in clip_index], metadata

    def _output(self, features: dict[str, Any], metadata: dict[str, list], keywords: CallKeywords) -> BatchFeature:
        """Makes what a call returns: tensors of the kind and on the devices that were asked for, and metadata."""
        if keywords.return_mm_token_type_ids and "input_ids" in features:
            features["mm_token_type_ids"] = self.create_mm_token_type_ids(features["input_ids"])
        output = BatchFeature(
            features, tensor_type=keywords.return_tensors, skip_tensor_conversion=["text_replacement_offsets"]
        )
        for modality, device in keywords.devices.items():
            for name in inputs_of(modality) if keywords.return_tensors == "pt" else ():
                if name in output:
                    output[name] = output[name].to(device)
        output.update(metadata if keywords.return_metadata else {})
        return output

    # --- what Transformers and servers ask of a processor --------------------------------------------------------------

    def replace_video_token(self, video_inputs: dict[str, Any], video_idx: int, **kwargs: Any) -> str:
        """Returns what stands in a prompt for the `<video>` placeholder of a clip.

        Args:
            video_inputs (`dict`): The descriptions of the clips, a list of [`ClipPrompt`], as `prompts`.
            video_idx (`int`): The index of the clip.
            kwargs (`Any`, *optional*): What Transformers passes besides is not needed.

        Returns:
            `str`: The placeholders of all tokens of the frames, with the markers of their windows.
        """
        return PromptBuilder(self).render_medium(video_inputs["prompts"][video_idx], "video")

    def replace_audio_token(self, audio_inputs: dict[str, Any], audio_idx: int, **kwargs: Any) -> str:
        """Returns what stands in a prompt for the `<audio>` placeholder of a clip.

        Args:
            audio_inputs (`dict`): The descriptions of the clips, a list of [`ClipPrompt`], as `prompts`.
            audio_idx (`int`): The index of the clip.
            kwargs (`Any`, *optional*): What Transformers passes besides is not needed.

        Returns:
            `str`: The placeholders of all tokens of the sound, with the markers of their windows.
        """
        return PromptBuilder(self).render_medium(audio_inputs["prompts"][audio_idx], "audio")

    def _get_num_multimodal_tokens(
        self,
        image_sizes: Sequence[Sequence[int]] | None = None,
        video_sizes: Sequence[Sequence[int]] | None = None,
        audio_lengths: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> MultiModalData:
        """Counts the placeholders of clips without utterances, which servers ask before they read any.

        Sizes are frames, height and width; lengths are samples. Frames without times are 1/24 s apart, as in a call.
        """
        if image_sizes is not None:
            raise ValueError("image_sizes: pictures are not read")
        video = [count_video_tokens(self, num_frames) for num_frames, *_ in video_sizes or ()]
        audio = [self.num_audio_query_tokens for _ in audio_lengths or ()]
        return MultiModalData(num_video_tokens=video or None, num_audio_tokens=audio or None)

    @property
    def image_token_id(self) -> int:
        """The id of `<video>`, by the name under which libraries ask for the tokens of what is seen."""
        return self.video_token_id

    def read_timestamps(self, metadata: Sequence[Any], num_frames: int) -> dict[str, np.ndarray]:
        """Tokenizes "This frame is sampled at 2.0s." for each frame of a batch.

        Args:
            metadata (`Sequence[ClipMetadata]`): The metadata of each clip, `None` for one without pictures.
            num_frames (`int`): The number T of frames to which clips are padded.

        Returns:
            `dict[str, np.ndarray]`: `qformer_input_ids` and `qformer_attention_mask` of shape `(B, T, L)`.
        """
        sentences = [[] if of_clip is None else self.timestamp_sentences(of_clip) for of_clip in metadata]
        return timestamp_tokens(sentences, num_frames, self.qformer_tokenizer)

    def timestamp_sentences(self, metadata: Any) -> list[str]:
        """Writes the sentence about each frame of a clip.

        Args:
            metadata (`ClipMetadata`): The metadata of the clip.

        Returns:
            `list[str]`: The sentences.
        """
        if self.timestamp_format == "timechat":
            times = np.asarray(metadata.frames_indices) / metadata.fps
            return [f"This frame is sampled at {time:.1f} second." for time in times]
        return [self.timestamp_format.format(time) for time in metadata.frame_times]

    # --- saving and loading ----------------------------------------------------------------------------------------

    @property
    def model_input_names(self) -> list[str]:
        """The names of all tensors that a call may return and the model reads."""
        return [name for name, model_input in MODEL_INPUTS.items() if model_input.computed_from is None]

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
        """Checks the class of a part, as the base class does.

        Transformers hides the class of video processors behind a stand-in where torchvision is absent.

        Args:
            argument_name (`str`): The name of the part.
            argument (`Any`): The part.

        Returns:
            `type`: The class that was expected.

        Raises:
            TypeError: If the part has another class.
        """
        if argument_name != "video_processor":
            return super().check_argument_for_proper_class(argument_name, argument)
        if not isinstance(argument, VideoProcessorMixin):
            raise TypeError(f"video_processor must be a VideoProcessorMixin, got {type(argument).__name__}")
        return VideoProcessorMixin

    @classmethod
    def _get_arguments_from_pretrained(
        cls, pretrained_model_name_or_path: Any, processor_dict: dict | None = None, **kwargs: Any
    ) -> list[Any]:
        # The automatic class for video processors needs torchvision, too.
        video, audio, rest = split_loading_keywords(cls, kwargs)
        # Without a configuration the second tokenizer's folder cannot be told from a missing one offline.
        second = {"subfolder": "/".join(filter(None, (rest.get("subfolder"), "qformer_tokenizer")))}
        return [
            MicroEmoVideoProcessor.from_pretrained(pretrained_model_name_or_path, **video),
            MicroEmoFeatureExtractor.from_pretrained(pretrained_model_name_or_path, **audio),
            AutoTokenizer.from_pretrained(pretrained_model_name_or_path, **rest),
            AutoTokenizer.from_pretrained(pretrained_model_name_or_path, **rest | second, config=PreTrainedConfig()),
        ]


__all__ = ["ClipPrompt", "MicroEmoProcessor", "MicroEmoProcessorKwargs"]
