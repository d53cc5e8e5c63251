"""MicroEmo's processor: from a clip and a question to the tensors that the model reads."""

import difflib
import inspect
import re
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from transformers import BatchFeature
from transformers.processing_utils import ProcessorMixin
from transformers.utils.chat_template_utils import _get_template_variables, render_jinja_template
from transformers.video_processing_utils import VideoProcessorMixin

from ..configuration.configuration_microemo import MicroEmoConfig
from ..utils.keywords import LOADING_KEYWORDS, refuse_unknown
from .face_regions import find_regions
from .feature_extraction_microemo import MicroEmoFeatureExtractor, as_samples
from .media import AudioTrack, Clip, load_audio
from .utterances import (
    Utterance,
    clip_windows,
    frame_windows,
    merge_utterances,
    read_utterances,
    sliding_windows,
    transcribe,
)
from .video_processing_microemo import FIELDS, FIXED, MicroEmoVideoProcessor

SYSTEM_TEXT = (
    "You are an expert in human emotions. You watch a video dialogue and say what the speaker feels and why: "
    "from the face, the tone of voice and the words."
)

# The prompt (paper 3.4): system text, video tokens, audio tokens, transcript, instruction, answer. Besides the
# messages the template sees `clip`, made by `_template_clip`, and `system_text`; `part` asks for the text of one medium
# alone. Text pipelines, TRL and servers render the template without any of these: it has a default for each.
CHAT_TEMPLATE = """\
{%- if system_text is not defined -%}{%- set system_text = "SYSTEM_TEXT" -%}{%- endif -%}
{%- if clip is not defined -%}{%- set clip = {"video_tokens": "<video>", "audio_tokens": "<audio>"} -%}{%- endif -%}
{%- macro times(window) -%}
({{ "%.1f" | format(window.start) }}-{{ "%.1f" | format(window.end) }}s)
{%- endmacro -%}
{%- macro marker(unit, window) -%}
{{ unit }} {{ window.index }} {{ times(window) }}
{%- endmacro -%}
{%- macro media(name, tokens, unit, windows, window_tokens) -%}
{%- if tokens -%}{{ (name + ": " if clip.unit else "") + tokens + "\\n" }}{%- endif -%}
{%- if window_tokens and not (clip.interleaved and unit == "utterance") -%}
{%- for window in windows -%}
{%- if loop.first and not tokens -%}{{ name + ":\\n" }}{%- endif -%}
{{ marker(unit, window) }}: {{ window_tokens + "\\n" }}
{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{%- macro speech(utterance, tokens) -%}
utterance {{ utterance.index }} {{ tokens + " " if tokens }}{{ times(utterance) }}
{{- " " + utterance.speaker if utterance.speaker }}:{{ " " + utterance.text if utterance.text }}
{%- endmacro -%}
{%- macro transcript() -%}
{%- if clip.interleaved -%}
{%- set tokens = (clip.window_video_tokens if clip.unit == "utterance" and clip.windows else "") -%}
{%- set tokens = tokens + clip.window_audio_tokens -%}
{%- for utterance in clip.utterances if utterance.text or tokens -%}
{{ speech(utterance, tokens) + "\\n" }}
{%- endfor -%}
{%- else -%}
{%- for utterance in clip.utterances if utterance.text -%}
{%- if loop.first -%}{{ "Transcript:\\n" }}{%- endif -%}
{{ speech(utterance, "") + "\\n" }}
{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{%- macro part_of_content(item) -%}
{%- if item is string -%}{{ item }}
{%- elif item.type == "text" -%}{{ item.text }}
{%- elif item.type == "video" -%}
{{ media("Video", clip.video_tokens, clip.unit, clip.windows, clip.window_video_tokens) }}
{%- elif item.type == "audio" -%}
{{ media("Audio", clip.audio_tokens, "utterance", clip.utterances, clip.window_audio_tokens) }}
{%- elif item.type == "transcript" -%}{{ transcript() }}
{%- elif item.type == "utterance" and clip.windows -%}
{{ marker("utterance", clip.windows[item.index - 1]) }}: {{ clip.window_video_tokens + clip.window_audio_tokens }}
{%- elif item.type == "utterance" -%}
{{ raise_exception("an utterance can only be cited where the processor has read its clip") }}
{%- else -%}
{{ raise_exception("content of a message must be text, video, audio or utterance, got " + item.type | string) }}
{%- endif -%}
{%- endmacro -%}
{%- macro content(items) -%}
{%- if items is string -%}{{ items }}
{%- else -%}
{%- for item in items or [] if item.type in ("video", "audio", "transcript") -%}{{ part_of_content(item) }}
{%- endfor -%}
{%- for item in items or [] if item.type not in ("video", "audio", "transcript") -%}{{ part_of_content(item) }}
{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{%- if part is defined -%}
{{ content([{"type": part}]) }}
{%- else -%}
{{ bos_token }}
{%- if system_text and messages[0].role != "system" -%}{{ system_text + "\\n\\n" }}{%- endif -%}
{%- for message in messages -%}
{%- if message.role == "system" -%}{{ content(message.content) + "\\n\\n" }}
{%- elif message.role == "assistant" -%}{{ "Assistant:\\n" }}
{%- generation -%}{{ content(message.content) + eos_token }}{%- endgeneration -%}{{ "\\n" }}
{%- else -%}{{ "User:\\n" + content(message.content) + "\\n" }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ "Assistant:\\n" }}{%- endif -%}
{%- endif -%}
""".replace("SYSTEM_TEXT", SYSTEM_TEXT)

# What a clip brings into its message, in this order.
MEDIA = [{"type": "video"}, {"type": "audio"}, {"type": "transcript"}]


# Keywords of a call that go to the tokenizer, the chat item keys by type, and what other libraries call ours.
TEXT_KEYWORDS = frozenset(("padding", "padding_side", "pad_to_multiple_of", "max_length"))
VIDEO_KEYWORDS = frozenset((*FIELDS, *FIXED))
_SOURCES = ("path", "url")
_ABOUT_A_CLIP = ("utterances", "landmarks", "video_metadata", "sampling_rate")
ITEM_KEYS = {
    "text": ("type", "text"),
    "video": ("type", "video", *_SOURCES, *_ABOUT_A_CLIP),
    "audio": ("type", "audio", *_SOURCES, *_ABOUT_A_CLIP),
    "utterance": ("type", "index"),
}
_OF_THE_CALL = "an argument of the call, for all its clips"
OTHER_NAMES = {
    "video": "videos",
    "image": "videos",
    "images": "videos",
    "frames": "videos",
    "audios": "audio",
    "subtitle": "utterances",
    "subtitles": "utterances",
    "transcript": "utterances",
    "nframes": "num_frames",
    "texts": "text",
}
# What the processor and the model must agree on, by one name in both.
SWITCHES = (
    "num_query_tokens",
    "num_video_query_tokens",
    "num_audio_query_tokens",
    "windows",
    "window_size",
    "window_stride",
    "window_unit",
    "use_global_window",
    "use_utterance_audio",
    "use_frame_timestamps",
)


@dataclass
class _Given:
    """What the user gives for one row of the batch."""

    video: object = None
    audio: object = None  # None: the video's own sound; False: no sound
    sampling_rate: int | None = None
    utterances: object = None
    landmarks: object = None
    video_metadata: object = None


@dataclass
class ClipPrompt:
    """What the prompt says of one clip.

    Attributes:
        has_video, has_audio (`bool`): Whether there are pictures, and sound.
        utterances (`list[Utterance]`): The lines of the transcript, and the windows of sound.
        spans (`np.ndarray`):
            Start and end of each window of frames in seconds, (K, 2): the utterances, or sliding windows.
        cited (`list[int]`): 0-based windows that the prompt cites, in the order of the citations.
    """

    has_video: bool = False
    has_audio: bool = False
    utterances: list[Utterance] = field(default_factory=list)
    spans: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    cited: list[int] = field(default_factory=list)


class MicroEmoProcessor(ProcessorMixin):
    r"""
    Bundles a [`MicroEmoVideoProcessor`], a [`MicroEmoFeatureExtractor`] and the tokenizers of the language model and
    of the image Q-Former, and owns the prompt.

    The switches below change the prompt and must agree with the model's configuration: take them from there with
    [`~MicroEmoProcessor.from_config`].

    Args:
        video_processor ([`MicroEmoVideoProcessor`]): Clips to frames and clue regions.
        feature_extractor ([`MicroEmoFeatureExtractor`]): Sound to mel clips.
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
        video_processor,
        feature_extractor,
        tokenizer,
        qformer_tokenizer,
        num_query_tokens=32,
        num_video_query_tokens=32,
        num_audio_query_tokens=8,
        windows="utterance",
        window_size=32,
        window_stride=32,
        window_unit="frames",
        use_global_window=True,
        use_utterance_audio=False,
        use_frame_timestamps=True,
        prompt_layout="concatenated",
        timestamp_format="This frame is sampled at {:.1f}s.",
        max_utterances=32,
        system_text=SYSTEM_TEXT,
        chat_template=None,
    ):
        for name, value, known in (
            ("windows", windows, ("utterance", "sliding", "none")),
            ("window_unit", window_unit, ("frames", "seconds")),
            ("prompt_layout", prompt_layout, ("concatenated", "interleaved")),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
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
        # Subtitles and messages that spell one of these must not become it.
        control = sorted((t for t in tokenizer.get_added_vocab() if len(t) > 1 and not t.isspace()), key=len)
        self._control_tokens = re.compile("|".join(map(re.escape, reversed(control))))

    @classmethod
    def from_config(cls, config: MicroEmoConfig, tokenizer, qformer_tokenizer, **overrides) -> "MicroEmoProcessor":
        """The processor that fits a model.

        Args:
            config ([`MicroEmoConfig`]): The switches, the sizes and the ids of `<video>` and `<audio>`.
            tokenizer, qformer_tokenizer (`PreTrainedTokenizerBase`):
                See the class. `<video>` and `<audio>` are added to the first where it lacks them.
            overrides: Arguments of the class; `video_processor` and `feature_extractor` among them.

        Raises:
            ValueError: if the tokenizer gives `<video>` or `<audio>` another id than the configuration.
        """
        tokenizer.add_special_tokens(
            {"extra_special_tokens": [cls.video_token, cls.audio_token]}, replace_extra_special_tokens=False
        )
        for token, expected in ((cls.video_token, config.video_token_id), (cls.audio_token, config.audio_token_id)):
            actual = tokenizer.convert_tokens_to_ids(token)
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
                num_clips=config.max_audio_clips,
                clip_duration=config.audio_config.clip_duration,
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
        pairs["clip_duration"] = (feature_extractor.clip_duration, sound.clip_duration)
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
        text=None,
        videos=None,
        audio=None,
        utterances=None,
        landmarks=None,
        video_metadata=None,
        sampling_rate=None,
        asr=None,
        return_tensors=None,
        return_metadata=False,
        **kwargs,
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
            asr (`Callable`, *optional*):
                Speech-recognition pipeline that makes the utterances of clips without subtitles.
            return_tensors (`str`, *optional*): `"pt"` or `"np"`.
            return_metadata (`bool`, *optional*, defaults to `False`):
                Add lists with an entry for each clip: `video_metadata`, `utterances`, `audio_clip_times` and `prompts`.
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
            - `utterance_windows` (B, K, 2): frames [start, end) of each window, -1 where padded
            - `input_features` (B, C, 1, num_mel_bins, num_mel_frames), `audio_clip_mask` (B, C), `audio_windows`
              (B, U, 2): if any clip has sound; clips [start, end) of each utterance, read with `use_utterance_audio`

        Raises:
            ValueError: if texts and clips differ in number, placeholders in a text and tokens of its clip differ in
                number, or a prompt is longer than the language model's context.
            MediaError: for a file that cannot be used.
            TypeError: for a keyword that nobody reads.
        """
        texts = [text] if isinstance(text, str) else text
        text_kwargs, video_kwargs = self._split_keywords(kwargs)
        clips = self._as_clips(videos, audio, utterances, landmarks, video_metadata, sampling_rate, texts)
        if texts is not None and len(texts) != len(clips):
            raise ValueError(f"{len(texts)} texts, but {len(clips)} clips")
        features, prompts, metadata = self._encode_clips(clips, asr, video_kwargs)
        if texts is not None:
            rendered = [self._render_text(row, *pair) for row, pair in enumerate(zip(texts, prompts, strict=True))]
            features |= self._tokenize(rendered, prompts, **text_kwargs)
            metadata["prompts"] = rendered
        return self._gather(features, prompts, metadata if return_metadata else {}, return_tensors)

    def apply_chat_template(
        self,
        conversation,
        chat_template=None,
        add_generation_prompt=False,
        continue_final_message=False,
        return_assistant_tokens_mask=False,
        tokenize=False,
        return_tensors=None,
        return_dict=False,
        processor_kwargs=None,
        **kwargs,
    ):
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
        kwargs = {**(processor_kwargs or {}), **kwargs}
        asr, return_metadata = kwargs.pop("asr", None), kwargs.pop("return_metadata", False)
        variables = _get_template_variables(self._resolve_chat_template(chat_template)) - {"messages", "clip", "part"}
        variables |= {"system_text"}
        template_kwargs = {name: kwargs.pop(name) for name in variables & kwargs.keys()}
        text_kwargs, video_kwargs = self._split_keywords(kwargs)

        clips, messages = zip(*(self.read_conversation(c, tokenize) for c in conversations), strict=True)
        known = [clip for clip in clips if clip is not None]
        features, prompts, metadata = self._encode_clips(known, asr, video_kwargs)
        filled = iter(prompts)
        prompts = [None if clip is None else next(filled) for clip in clips]
        rendered, answers = [], []
        for row, prompt in zip(messages, prompts, strict=True):
            text, spans = self._render(
                row,
                prompt,
                chat_template=chat_template,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
                return_assistant_tokens_mask=return_assistant_tokens_mask,
                **template_kwargs,
            )
            rendered.append(text)
            answers.append(spans)
        if not tokenize:
            return rendered if is_batched else rendered[0]

        features |= self._tokenize(rendered, prompts, answers if return_assistant_tokens_mask else None, **text_kwargs)
        metadata["prompts"] = rendered
        output = self._gather(features, prompts, metadata if return_metadata else {}, return_tensors)
        return output if return_dict else output["input_ids"]

    def _split_keywords(self, kwargs: dict) -> tuple[dict, dict]:
        """The tokenizer's arguments, and the video processor's."""
        named = inspect.signature(self.__call__).parameters.keys() - {"kwargs"}
        refuse_unknown(kwargs, TEXT_KEYWORDS | VIDEO_KEYWORDS | named, type(self).__name__, OTHER_NAMES)
        text_kwargs = {name: kwargs[name] for name in TEXT_KEYWORDS & kwargs.keys()}
        return text_kwargs, {name: kwargs[name] for name in kwargs.keys() - TEXT_KEYWORDS}

    # --- clips -----------------------------------------------------------------------------------------------------

    def _as_clips(self, videos, audio, utterances, landmarks, video_metadata, sampling_rate, texts) -> list[_Given]:
        """The rows of the batch; every argument is for one clip, or a list as long as the others."""
        belongings = {"utterances": utterances, "landmarks": landmarks, "video_metadata": video_metadata}
        if videos is None and (audio is None or audio is False):
            if texts is None:
                raise ValueError("nothing to process: pass text, videos or audio")
            for name, value in belongings.items():
                if value is not None:
                    raise ValueError(f"{name} belong to a clip: pass videos or audio")
            return [_Given() for _ in texts]
        clips = audio if videos is None else videos
        if not isinstance(clips, (list, tuple)) or _is_frames(clips):
            return [_Given(videos, audio, sampling_rate, **belongings)]

        columns = {"video": videos, "audio": audio, **belongings}
        for name, value in columns.items():
            if value is None or value is False:
                columns[name] = [value] * len(clips)
            elif not isinstance(value, (list, tuple)):
                raise ValueError(f"{len(clips)} clips, but {name} for one")
            elif len(value) != len(clips):
                raise ValueError(f"{len(clips)} clips, but {len(value)} {name}")
            elif name == "utterances" and any(isinstance(u, Utterance) or _has_times(u) for u in value):
                raise ValueError(
                    f"utterances of a batch of {len(clips)} clips must be a list with a list for each clip"
                )
        rows = zip(*columns.values(), strict=True)
        return [_Given(**dict(zip(columns, row, strict=True)), sampling_rate=sampling_rate) for row in rows]

    def _encode_clips(self, clips: Sequence[_Given], asr, video_kwargs: dict) -> tuple[dict, list[ClipPrompt], dict]:
        """Features of all media, what the prompts say of them, and the metadata. A clip is read once, however many rows
        are about it."""
        different, number = _different(clips)
        features, prompts, metadata = self.read_clips(different, asr, video_kwargs)
        if len(different) < len(clips):
            features = {name: value[number] for name, value in features.items()}
            prompts = [replace(prompts[index]) for index in number]
            metadata = {name: [values[index] for index in number] for name, values in metadata.items()}
        features |= self._place_windows(prompts, metadata)
        if self.use_frame_timestamps and "frame_mask" in features:
            features |= self.read_timestamps(metadata["video_metadata"], features["frame_mask"].shape[1])
        return features, prompts, metadata

    def read_clips(self, clips: Sequence[_Given], asr=None, video_kwargs: dict | None = None):
        """All that takes files, and time: frames, clue regions and mels of clips.

        Returns:
            `tuple[dict, list[ClipPrompt], dict]`: the arrays `(B, ...)`; for each clip what the prompt says of it,
            windows left out; and lists with an entry for each clip, `video_metadata` ([`ClipMetadata`] or `None`),
            `utterances` and `audio_clip_times` ((C, 2) in seconds, or `None`).
        """
        prompts, sources, tracks = [], [], []
        with ExitStack() as files:
            for clip in clips:
                source, info, duration = clip.video, None, None
                if source is not None and not _is_frames(source):
                    source = files.enter_context(Clip(source))
                    info = source.info
                    duration = info.duration
                elif clip.video_metadata is not None:
                    duration = dict(clip.video_metadata).get("duration")
                track = self._sound(clip, has_own=info is not None and info.has_audio)
                has_video = source is not None if info is None else info.has_video
                if source is None and track is not None:
                    duration = track.samples.shape[1] / track.rate
                said = self._find_utterances(clip, track, duration, asr)
                prompts.append(ClipPrompt(has_video, track is not None, said))
                sources.append(source)
                tracks.append(track)
            features, video_metadata = self._see(clips, sources, prompts, video_kwargs or {})
        sound, clip_times = self._hear(tracks)
        metadata = {
            "video_metadata": video_metadata,
            "utterances": [prompt.utterances for prompt in prompts],
            "audio_clip_times": clip_times,
        }
        return features | sound, prompts, metadata

    def _find_utterances(self, clip: _Given, track: AudioTrack | None, duration: float | None, asr) -> list[Utterance]:
        if clip.utterances is not None:
            said = read_utterances(clip.utterances, duration)
        elif asr is not None and track is not None:
            said = transcribe(asr, track, duration)
        else:
            said = []
        if len(said) > self.max_utterances:
            warnings.warn(
                f"{len(said)} utterances, but max_utterances is {self.max_utterances}: short neighbours were merged",
                stacklevel=4,
            )
        return merge_utterances(said, self.max_utterances)

    def _sound(self, clip: _Given, has_own: bool) -> AudioTrack | None:
        if clip.audio is False:
            return None
        if clip.audio is None:
            return load_audio(clip.video) if has_own else None
        if isinstance(clip.audio, AudioTrack):
            return clip.audio
        rate, samples = clip.sampling_rate, clip.audio
        if isinstance(samples, dict):  # as the `datasets` library gives it
            rate, samples = samples["sampling_rate"], samples["array"]
        if hasattr(samples, "ndim"):
            return AudioTrack(as_samples(samples, rate).numpy(), int(rate))
        return load_audio(samples)

    def _see(self, clips, sources, prompts, video_kwargs) -> tuple[dict, list]:
        """Frames and clue regions of the clips that have pictures."""
        rows = [row for row, prompt in enumerate(prompts) if prompt.has_video]
        metadata: list = [None] * len(clips)
        if not rows:
            return {}, metadata
        seen = self.video_processor(
            [sources[row] for row in rows],
            spans=[_spans(prompts[row].utterances if self.windows == "utterance" else []) for row in rows],
            landmarks=[clips[row].landmarks for row in rows],
            video_metadata=[clips[row].video_metadata for row in rows],
            return_metadata=True,
            return_tensors="np",
            **video_kwargs,
        )
        for row, of_clip in zip(rows, seen.pop("video_metadata"), strict=True):
            metadata[row] = of_clip
        return {name: _scatter(value, rows, len(clips)) for name, value in seen.items()}, metadata

    def _hear(self, tracks) -> tuple[dict, list]:
        """Mel clips of the clips that have sound."""
        times = [
            self.feature_extractor.clip_times(track.samples.shape[1], track.rate) if track is not None else None
            for track in tracks
        ]
        if all(track is None for track in tracks):
            return {}, times
        features = self.feature_extractor(
            [None if track is None else track.samples for track in tracks],
            sampling_rate=[None if track is None else track.rate for track in tracks],
        )
        return dict(features), times

    def _place_windows(self, prompts: list[ClipPrompt], metadata: dict) -> dict:
        """Which frames and which mel clips each window holds. Gives the prompts their `spans`."""
        no_windows = np.zeros((0, 2), np.int64)
        frames, sound, sound_spans = [], [], []
        for prompt, of_clip, clip_times in zip(
            prompts, metadata["video_metadata"], metadata["audio_clip_times"], strict=True
        ):
            prompt.spans = _spans(prompt.utterances if self.windows == "utterance" else [])
            windows = no_windows
            if of_clip is not None and self.windows == "sliding":
                windows, prompt.spans = sliding_windows(
                    of_clip.frame_times, self.window_size, self.window_stride, self.window_unit, of_clip.duration
                )
            elif of_clip is not None:
                windows = frame_windows(of_clip.frame_times, prompt.spans)
            if of_clip is not None and not self.use_global_window and not len(windows):
                raise ValueError(f"{of_clip.source}: no utterances, and use_global_window=False: no window is left")
            frames.append(windows)
            # Without windows of its own the sound has the frames', which the model passes over.
            sound_spans.append(_spans(prompt.utterances) if self.use_utterance_audio else prompt.spans)
            sound.append(no_windows if clip_times is None else clip_windows(clip_times, sound_spans[-1]))
        features = {"utterance_windows": _pad(frames, [prompt.spans for prompt in prompts])}
        if any(clip_times is not None for clip_times in metadata["audio_clip_times"]):
            features["audio_windows"] = _pad(sound, sound_spans)
        return features

    def read_timestamps(self, metadata, num_frames: int) -> dict:
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

    def timestamp_sentences(self, metadata) -> list[str]:
        """The sentence about each frame of a clip, from its `video_metadata`."""
        if self.timestamp_format == "timechat":
            times = np.asarray(metadata.frame_indices) / metadata.fps
            return [f"This frame is sampled at {time:.1f} second." for time in times]
        return [self.timestamp_format.format(time) for time in metadata.frame_times]

    # --- prompts ---------------------------------------------------------------------------------------------------

    def _escape(self, text: str) -> str:
        """Text in which no special token is one any more: "<video>" becomes "< video>"."""
        return self._control_tokens.sub(lambda token: f"{token[0][0]} {token[0][1:]}", text)

    def _count_placeholders(self, prompt: ClipPrompt) -> tuple[int, int]:
        """`<video>` and `<audio>` placeholders of a clip, citations included."""
        video = self.num_video_query_tokens * prompt.has_video
        audio = self.num_audio_query_tokens * prompt.has_audio
        video *= self.use_global_window + len(prompt.spans) + len(prompt.cited)
        audio *= 1 + (len(prompt.utterances) + len(prompt.cited)) * self.use_utterance_audio
        return video, audio

    def _template_clip(self, prompt: ClipPrompt | None) -> dict:
        """`clip`, as the chat template sees it."""
        if prompt is None:  # media of which nothing is known yet
            return {"video_tokens": self.video_token, "audio_tokens": self.audio_token}
        video = self.video_token * self.num_video_query_tokens * prompt.has_video
        audio = self.audio_token * self.num_audio_query_tokens * prompt.has_audio
        lines = [
            {
                "index": index,
                "start": said.start,
                "end": said.end,
                "text": self._escape(said.text),
                "speaker": self._escape(said.speaker or ""),
            }
            for index, said in enumerate(prompt.utterances, start=1)
        ]
        by_utterance = self.windows == "utterance"
        return {
            "unit": "utterance" if self.windows != "sliding" else "window",
            "video_tokens": video if self.use_global_window else "",
            "audio_tokens": audio,
            "window_video_tokens": video,
            "window_audio_tokens": audio if self.use_utterance_audio else "",
            "utterances": lines,
            "windows": lines
            if by_utterance
            else [
                {"index": index, "start": start, "end": end}
                for index, (start, end) in enumerate(prompt.spans.tolist(), start=1)
            ],
            "interleaved": self.prompt_layout == "interleaved" and (by_utterance or self.use_utterance_audio),
        }

    def read_conversation(self, conversation, with_media: bool) -> tuple[_Given | None, list[dict]]:
        """The clip of a conversation, and its messages in the template's terms.

        The clip is `None` where media without a source stand in the messages, which only a text prompt may have.
        """
        clip, messages, seen = _Given(), [], set()
        for message in conversation:
            refuse_unknown(_present(message), ("role", "content"), "a message")
            items = message.get("content") or []
            media, rest = [], []
            for item in [{"type": "text", "text": items}] if isinstance(items, str) else items:
                item = self._check_item(item)
                kind = item["type"]
                if kind == "text":
                    # Neighbours are joined before they are escaped: two halves must not make a special token.
                    if rest and rest[-1]["type"] == "text":
                        rest[-1]["text"] += item["text"]
                    else:
                        rest.append({"type": "text", "text": item["text"]})
                elif kind == "utterance":
                    rest.append({"type": "utterance", "index": item.get("index")})
                else:
                    if kind in seen:
                        raise ValueError(f"a conversation holds one clip, but a second {kind} was given")
                    seen.add(kind)
                    media.append({"type": kind})
                    setattr(clip, kind, next((item[key] for key in (kind, *_SOURCES) if key in item), None))
                    for name in _ABOUT_A_CLIP:
                        if name in item:
                            setattr(clip, name, item[name])
            for item in rest:
                if item["type"] == "text":
                    item["text"] = self._escape(item["text"])
            messages.append({"role": message["role"], "content": media + rest})
        if not seen:
            return clip, messages
        # Audio without a source beside a video is the video's own sound.
        if (clip.video if "video" in seen else clip.audio) is None:
            if with_media:
                raise ValueError("a video or audio item has no source: give it a path, url, video or audio")
            return None, messages
        # All of the clip stands where its first medium does: frames, sound (the video's own, too), transcript.
        for message in messages:
            rest = [item for item in message["content"] if item["type"] not in ("video", "audio")]
            if seen and len(rest) < len(message["content"]):
                seen, rest = None, MEDIA + rest
            message["content"] = rest
        return clip, messages

    @staticmethod
    def _check_item(item) -> dict:
        """An item of a message's content without the keys that are `None`: rows of a table share their keys."""
        if isinstance(item, str):
            return {"type": "text", "text": item}
        item = _present(item)
        kind = item.get("type")
        if kind not in ITEM_KEYS:
            raise ValueError(f"content of a message must be {', '.join(ITEM_KEYS)}, got {kind!r}")
        of_the_call = dict.fromkeys(VIDEO_KEYWORDS | TEXT_KEYWORDS, _OF_THE_CALL)
        refuse_unknown(item, ITEM_KEYS[kind], f"{kind!r} content of a message", of_the_call | OTHER_NAMES)
        sources = [key for key in (kind, *_SOURCES) if key in item]
        if len(sources) > 1:
            raise ValueError(f"{kind!r} content of a message has one source, got {' and '.join(sources)}")
        if kind == "text" and not isinstance(item.get("text"), str):
            raise ValueError(f"text of a message must be a string, got {item.get('text')!r}")
        return item

    def _render(self, messages: list[dict], prompt: ClipPrompt | None, chat_template=None, **options):
        """The prompt of a conversation, and the characters [start, end) of its answers. Notes what is cited."""
        cited = [i["index"] for message in messages for i in message["content"] if i["type"] == "utterance"]
        if cited:
            windows = 0 if prompt is None or self.windows != "utterance" else len(prompt.spans)
            for index in cited:
                if not isinstance(index, int) or not 1 <= index <= windows:
                    raise ValueError(f"utterance {index} is cited, but the clip has {windows} windows of utterances")
            prompt.cited = [index - 1 for index in cited]
        rendered, answers = render_jinja_template(
            conversations=[messages],
            chat_template=self._resolve_chat_template(chat_template),
            clip=self._template_clip(prompt),
            **{"system_text": self.system_text, **self.tokenizer.special_tokens_map, **options},
        )
        return rendered[0], answers[0] if answers else []

    def _render_text(self, row: int, text: str, prompt: ClipPrompt) -> str:
        """The prompt of `text`: a question for the chat template, or a prompt with its own placeholders."""
        found = text.count(self.video_token), text.count(self.audio_token)
        if found == (0, 0):
            question = [{"type": "text", "text": self._escape(text)}]
            messages = [{"role": "user", "content": MEDIA + question}]
            return self._render(messages, prompt, add_generation_prompt=True)[0]

        expected = self._count_placeholders(prompt)
        if found != expected:
            text = self._expand(row, text, prompt, found, expected)
        bos = self.tokenizer.bos_token or ""
        return text if text.startswith(bos) else bos + text

    def _expand(self, row: int, text: str, prompt: ClipPrompt, found, expected) -> str:
        """Each placeholder of `text` stands for a whole medium; the transcript follows the last of them.

        Sound that has no placeholder of its own follows the video's.
        """
        single = int(prompt.has_video), int(prompt.has_audio)
        if found not in (single, (single[0], 0)):
            raise ValueError(
                f"text {row} holds {found[0]} {self.video_token} and {found[1]} {self.audio_token}, but its clip "
                f"needs {expected[0]} and {expected[1]} (or {single[0]} and {single[1]}, to be expanded)"
            )
        part = {item["type"]: self._render([], prompt, part=item["type"])[0].removesuffix("\n") for item in MEDIA}
        if not found[1]:
            part["video"] = "\n".join(filter(None, (part["video"], part["audio"])))
        before, last, after = re.fullmatch(
            f"(.*)({self.video_token}|{self.audio_token})(.*)", text, re.DOTALL
        ).groups()
        before = before.replace(self.video_token, part["video"]).replace(self.audio_token, part["audio"])
        last = part["video"] if last == self.video_token else part["audio"]
        return before + "\n".join(filter(None, (last, part["transcript"]))) + after

    def _tokenize(
        self, texts: list[str], prompts: list[ClipPrompt], answers=None, padding=True, padding_side="left", **kwargs
    ) -> dict:
        """Token ids of finished prompts, checked against the clips and the language model's context."""
        tokens = self.tokenizer(
            texts,
            add_special_tokens=False,
            padding=padding,
            padding_side=padding_side,
            return_attention_mask=True,
            return_token_type_ids=False,
            return_offsets_mapping=answers is not None,
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
            expected = self._count_placeholders(prompt)
            if found != expected:
                raise ValueError(
                    f"prompt {row} holds {found[0]} {self.video_token} and {found[1]} {self.audio_token}, "
                    f"but its clip needs {expected[0]} and {expected[1]}"
                )
        features = {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]}
        if answers is not None:
            features["assistant_masks"] = [
                [int(any(start < stop and end > first for first, stop in spans)) for start, end in offsets]
                for offsets, spans in zip(tokens["offset_mapping"], answers, strict=True)
            ]
        return features

    def _gather(self, features: dict, prompts, metadata: dict, return_tensors) -> BatchFeature:
        if any(prompt.cited for prompt in prompts):
            cited = np.full((len(prompts), max(len(prompt.cited) for prompt in prompts)), -1, dtype=np.int64)
            for row, prompt in enumerate(prompts):
                cited[row, : len(prompt.cited)] = prompt.cited
            features["cited_utterances"] = cited
        output = BatchFeature(features, tensor_type=return_tensors)
        output.update(metadata)
        return output

    # --- saving and loading ----------------------------------------------------------------------------------------

    @property
    def model_input_names(self) -> list[str]:
        return [
            "input_ids",
            "attention_mask",
            *self.video_processor.model_input_names,
            "qformer_input_ids",
            "qformer_attention_mask",
            "utterance_windows",
            *self.feature_extractor.model_input_names,
            "audio_windows",
            "cited_utterances",
        ]

    def check_argument_for_proper_class(self, argument_name, argument):
        # Transformers hides this class behind a stand-in where torchvision is absent.
        if argument_name != "video_processor":
            return super().check_argument_for_proper_class(argument_name, argument)
        if not isinstance(argument, VideoProcessorMixin):
            raise TypeError(f"video_processor must be a VideoProcessorMixin, got {type(argument).__name__}")
        return VideoProcessorMixin

    @classmethod
    def _get_arguments_from_pretrained(cls, pretrained_model_name_or_path, processor_dict=None, **kwargs):
        # The automatic class for video processors needs torchvision, too. The tokenizers get all the rest: pipelines hand
        # the model's arguments on to its processor, so that only a word that is nearly ours can be told to be a mistake.
        own = inspect.signature(cls.__init__).parameters.keys() - {"self"}
        sound = inspect.signature(MicroEmoFeatureExtractor.__init__).parameters.keys() - {"self", "kwargs"}
        known = own | sound | VIDEO_KEYWORDS
        mistaken = [
            n for n in kwargs.keys() - known if n in OTHER_NAMES or difflib.get_close_matches(n, known, 1, 0.8)
        ]
        refuse_unknown(mistaken, known, f"{cls.__name__}.from_pretrained", OTHER_NAMES)
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


def _present(fields: dict) -> dict:
    """The fields that are not `None`."""
    if not isinstance(fields, dict):
        raise ValueError(f"messages and the items of their contents are dictionaries, got {fields!r}")
    return {name: value for name, value in fields.items() if value is not None}


def _is_frames(video) -> bool:
    """Whether a clip is given as decoded frames: (T, H, W, 3), or a list of (H, W, 3) or of pictures."""
    if isinstance(video, (list, tuple)):
        return len(video) > 0 and (getattr(video[0], "ndim", None) == 3 or hasattr(video[0], "convert"))
    return hasattr(video, "ndim")


def _different(clips: Sequence[_Given]) -> tuple[list[_Given], list[int]]:
    """The clips without those that are the very same as an earlier one, and which of these each is."""
    keys = [
        tuple(value if isinstance(value, (str, Path)) else id(value) for value in vars(clip).values())
        for clip in clips
    ]
    first = {key: row for row, key in reversed(list(enumerate(keys)))}
    places = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    return [clips[first[key]] for key in places], [places[key] for key in keys]


def _has_times(entry) -> bool:
    return isinstance(entry, dict) and ("start" in entry or "timestamp" in entry)


def _scatter(values, rows: list[int], count: int) -> np.ndarray:
    """Values of some rows of a batch as those of all `count`, 0 elsewhere."""
    if len(rows) == count:
        return values
    scattered = np.zeros((count, *values.shape[1:]), dtype=values.dtype)
    scattered[rows] = values
    return scattered


def _spans(utterances: list[Utterance]) -> np.ndarray:
    """Start and end of each utterance in seconds, (K, 2)."""
    return np.array([(said.start, said.end) for said in utterances]).reshape(-1, 2)


def _pad(windows: list[np.ndarray], spans: list[np.ndarray]) -> np.ndarray:
    """Windows of each clip (k, 2) as one (B, K, 2), -1 where padded, and where a clip with spans lacks the medium."""
    padded = np.full((len(windows), max(map(len, spans), default=0), 2), -1, dtype=np.int64)
    for row, of_clip in enumerate(windows):
        padded[row, : len(of_clip)] = of_clip
    return padded


__all__ = ["ClipPrompt", "MicroEmoProcessor"]
