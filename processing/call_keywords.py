"""The keywords of the processor's calls, merged the way Transformers merges them."""

import difflib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from huggingface_hub.errors import StrictDataclassError
from transformers.processing_utils import AudioKwargs, ProcessingKwargs, TextKwargs

from ..utils.keywords import LOADING_KEYWORDS, refuse_unknown
from .feature_extraction_microemo import MicroEmoFeatureExtractor
from .prompt_microemo import OTHER_NAMES
from .video_processing_microemo import FIELDS, FIXED, MicroEmoVideoProcessorKwargs

if TYPE_CHECKING:
    from .processing_microemo import MicroEmoProcessor

# The keywords of each part that a call reads. Transformers knows more of them, for tables of text pairs, for pictures and
# for waveforms that are padded; they would have no effect here and are refused.
TEXT_KEYWORDS = frozenset(
    (
        *("padding", "padding_side", "pad_to_multiple_of", "max_length", "truncation", "add_special_tokens"),
        *("return_attention_mask", "return_token_type_ids", "return_offsets_mapping", "return_special_tokens_mask"),
        *("return_length", "verbose", "return_tensors"),
    )
)
VIDEO_KEYWORDS = frozenset((*FIELDS, *FIXED, "video_metadata", "device", "return_tensors"))
AUDIO_KEYWORDS = frozenset(("sampling_rate", "device", "return_tensors", "load_audio_backend"))
# The keywords of the processor itself. Older callers give the last two in `text_kwargs` and the first in `videos_kwargs`.
PROCESSOR_KEYWORDS = {
    "load_audio_from_video": "videos_kwargs",
    "return_mm_token_type_ids": "text_kwargs",
    "return_text_replacement_offsets": "text_kwargs",
}
_BY_PART = {"text_kwargs": TEXT_KEYWORDS, "videos_kwargs": VIDEO_KEYWORDS, "audio_kwargs": AUDIO_KEYWORDS}
# What belongs to the clips and not to the way they are processed: Transformers' checks know another form of it.
_ABOUT_CLIPS = {"video_metadata": "videos_kwargs", "sampling_rate": "audio_kwargs", "return_metadata": "videos_kwargs"}
CALL_KEYWORDS = frozenset((*TEXT_KEYWORDS, *VIDEO_KEYWORDS, *AUDIO_KEYWORDS, *PROCESSOR_KEYWORDS))


class MicroEmoPartKwargs(ProcessingKwargs, total=False):  # type: ignore[call-arg]
    """The keywords of the processor's parts, which Transformers merges."""

    _defaults = {}  # type: ignore[var-annotated]  # Transformers before 5.23 looks for it.

    text_kwargs: TextKwargs
    videos_kwargs: MicroEmoVideoProcessorKwargs
    audio_kwargs: AudioKwargs


class MicroEmoProcessorKwargs(MicroEmoPartKwargs, total=False):  # type: ignore[call-arg]
    """
    load_audio_from_video (`bool`, *optional*, defaults to `True`):
        Whether the sound of a video is read where no other sound is given for it.
    return_mm_token_type_ids (`bool`, *optional*, defaults to `False`):
        Whether `mm_token_type_ids` are returned: 0 for text, 2 for video tokens, 3 for audio tokens.
    return_text_replacement_offsets (`bool`, *optional*, defaults to `False`):
        Whether `text_replacement_offsets` are returned: where each placeholder of a text stood, and where what
        replaced it stands in the prompt.
    """

    load_audio_from_video: bool
    return_mm_token_type_ids: bool
    return_text_replacement_offsets: bool


@dataclass
class CallKeywords:
    """Holds the keywords of a call, each where it is read.

    Attributes:
        text (`dict[str, Any]`): The keywords of the tokenizer.
        video (`dict[str, Any]`): The keywords of the video processor.
        video_metadata (`Any`): The times of decoded frames, of one clip or a list.
        sampling_rate (`Any`): The number of samples per second of the waveforms.
        return_metadata (`bool`): Whether what was found in the clips is returned.
        return_tensors (`str`): The kind of the returned tensors; `None` stands for lists and arrays.
        devices (`dict[str, Any]`): The device of the tensors of each modality, of those that were chosen.
        load_audio_from_video (`bool`): Whether the sound of videos is read.
        return_mm_token_type_ids (`bool`): Whether the modality of each token is returned.
        return_text_replacement_offsets (`bool`): Whether the places of replaced placeholders are returned.
    """

    text: dict[str, Any]
    video: dict[str, Any]
    video_metadata: Any
    sampling_rate: Any
    return_metadata: bool
    return_tensors: str | None
    devices: dict[str, Any]
    load_audio_from_video: bool
    return_mm_token_type_ids: bool
    return_text_replacement_offsets: bool


def read_keywords(
    processor: "MicroEmoProcessor", kwargs: Mapping[str, Any], arguments: frozenset[str] = frozenset()
) -> CallKeywords:
    """Merges the keywords of a call with the defaults of the processor and its tokenizer.

    A keyword is given by itself or in the dictionary of its part (`text_kwargs`, `videos_kwargs`, `audio_kwargs`);
    `None` stands for the default.

    Args:
        processor ([`MicroEmoProcessor`]): The processor that is called.
        kwargs (`Mapping[str, Any]`): The keywords of the call.
        arguments (`frozenset[str]`, *optional*): The names of the call's own arguments, which the error suggests.

    Returns:
        `CallKeywords`: The keywords, each where it is read.

    Raises:
        TypeError: If a keyword is unknown.
        ValueError: If a keyword is given twice or has a value that its part does not take.
    """
    owner = type(processor).__name__
    given = dict(kwargs)
    # Transformers' pipelines pass the pictures of every model, also where there are none.
    if given.get("images", ()) is None:
        del given["images"]
    parts = {part: _as_dict(part, given.pop(part, None)) for part in (*_BY_PART, "common_kwargs")}
    refuse_unknown(given, CALL_KEYWORDS | arguments | parts.keys(), owner, OTHER_NAMES)
    refuse_unknown(parts["common_kwargs"], CALL_KEYWORDS, f"common_kwargs of {owner}", OTHER_NAMES)
    for part, known in _BY_PART.items():
        moved = {name for name, place in PROCESSOR_KEYWORDS.items() if place == part}
        refuse_unknown(parts[part], known | moved, f"{part} of {owner}", OTHER_NAMES)
    given = _without_none(given)
    parts = {part: _without_none(keywords) for part, keywords in parts.items()}

    apart = {name: _take(name, part, given, parts) for name, part in {**_ABOUT_CLIPS, **PROCESSOR_KEYWORDS}.items()}
    flags = {name: getattr(processor, name) if apart[name] is None else apart[name] for name in PROCESSOR_KEYWORDS}
    for name, value in (*flags.items(), ("return_metadata", apart["return_metadata"] or False)):
        if not isinstance(value, bool):
            raise ValueError(f"{name} must be True or False, got {value!r}")
    # The side on which a tokenizer was padded in training is no choice for generation.
    init_kwargs = getattr(processor.tokenizer, "init_kwargs", {})
    defaults = {name: init_kwargs[name] for name in TEXT_KEYWORDS - {"padding_side"} if name in init_kwargs}
    try:
        merged = processor._merge_kwargs(
            MicroEmoPartKwargs, tokenizer_init_kwargs=defaults, **given, **{k: v for k, v in parts.items() if v}
        )
    except StrictDataclassError as error:
        raise ValueError(f"{error}: {error.__cause__}") from error
    text, video, audio = (
        {name: value for name, value in merged[part].items() if name in known and value is not None}
        for part, known in _BY_PART.items()
    )
    text = {**processor.text_kwargs, **text}  # Transformers before 5.23 does not read them.
    if audio.get("load_audio_backend", "auto") not in ("auto", "pyav"):
        raise ValueError(f"load_audio_backend: sound is decoded by PyAV, not by {audio['load_audio_backend']!r}")
    tensors = [part.pop("return_tensors", None) for part in (text, video, audio)]
    devices = {name: part.pop("device", None) for name, part in (("video", video), ("audio", audio))}
    return CallKeywords(
        text=text,
        video=video,
        video_metadata=apart["video_metadata"],
        sampling_rate=apart["sampling_rate"],
        return_metadata=bool(apart["return_metadata"]),
        return_tensors=next((kind for kind in tensors if kind is not None), None),
        devices={name: device for name, device in devices.items() if device is not None},
        **flags,
    )


def split_loading_keywords(
    processor_class: type["MicroEmoProcessor"], kwargs: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Sorts the keywords of `from_pretrained` by the part of the processor that takes them.

    Pipelines hand the model's arguments on to its processor, so that only a word that is nearly one of ours can be told to be
    a mistake; the tokenizers get all the rest.

    Args:
        processor_class (`type`): The class that is loaded.
        kwargs (`Mapping[str, Any]`): The keywords.

    Returns:
        `tuple[dict, dict, dict]`: The keywords of the video processor, the feature extractor and the tokenizers.

    Raises:
        TypeError: If a keyword is nearly one of ours.
    """
    video, sound = frozenset((*FIELDS, *FIXED)), MicroEmoFeatureExtractor.fields()
    accepted = (inspect.signature(processor_class.__init__).parameters.keys() - {"self"}) | sound | video
    mistaken = [
        name
        for name in kwargs.keys() - accepted
        if name in OTHER_NAMES or difflib.get_close_matches(name, accepted, 1, 0.8)
    ]
    refuse_unknown(mistaken, accepted, f"{processor_class.__name__}.from_pretrained", OTHER_NAMES)
    return (
        {name: kwargs[name] for name in (video | LOADING_KEYWORDS) & kwargs.keys()},
        {name: kwargs[name] for name in (sound | LOADING_KEYWORDS) & kwargs.keys()},
        {name: kwargs[name] for name in kwargs.keys() - video - sound},
    )


def _as_dict(part: str, keywords: Any) -> dict[str, Any]:
    if not isinstance(keywords, Mapping | None):
        raise ValueError(f"{part} must be a dictionary of keywords, got {keywords!r}")
    return dict(keywords or {})


def _without_none(keywords: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in keywords.items() if value is not None}


def _take(name: str, part: str, given: dict[str, Any], parts: dict[str, dict[str, Any]]) -> Any:
    """Takes a keyword out of the two places where it may stand."""
    places = [place for place in (given, parts[part], parts["common_kwargs"]) if name in place]
    if len(places) > 1:
        raise ValueError(f"keyword {name} was passed two times: in a dictionary ({part}) and by itself")
    return places[0].pop(name) if places else None
