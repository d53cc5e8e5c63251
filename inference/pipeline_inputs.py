"""What the emotion pipeline is given, and what its workers make of it: clips to queries, queries to inputs of the model."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.data import Dataset

from ..processing.clip_reader import ClipInput, as_clip_inputs, clip_duration
from ..processing.decoded_clip import is_frames
from ..processing.decoding.container import MediaError, source_name
from ..processing.frame_files import as_frame_files
from ..processing.processing_microemo import MicroEmoProcessor
from ..processing.speech import SpeechReader
from ..utils.keywords import refuse_unknown

QUESTION = "What does the speaker feel, and why?"
UTTERANCE_QUESTION = "What does the speaker feel in this utterance, and why?"

# The keys of an input that is a dictionary; the last three are those of the rows of data sets.
CLIP_KEYS = ("video", "audio", "utterances", "landmarks", "video_metadata", "sampling_rate", "audio_track")
INPUT_KEYS = (*CLIP_KEYS, "question", "instruction", "subtitles", "subtitle")
_OTHER_NAMES = {"videos": "video", "text": "question", "prompt": "question", "srt": "subtitles"}
# What stands where a row of a batch is shorter than others, if not 0.
_PADDING = {"utterance_windows": -1, "audio_windows": -1, "cited_utterances": -1}


@dataclass
class Query:
    """Holds one input of a call, as it was given.

    Attributes:
        item (`Any`): The input as [`read_item`] takes it.
        arguments (`dict`): What the call gives for this clip beside it: `utterances`, `audio`, `audio_track`.
        number (`int`, *optional*): The place of the input among those of the call, counted from 0.
    """

    item: Any
    arguments: dict[str, Any] = field(default_factory=dict)
    number: int | None = None

    @property
    def name(self) -> str:
        """The path or URL of the clip, or what it consists of."""
        source = self.item
        if isinstance(source, Mapping) and not _is_row_of_datasets(source):
            source = next((source[key] for key in ("video", "audio") if source.get(key) is not None), source)
        if isinstance(source, Mapping):
            return str(source.get("path") or f"<{', '.join(source)}>")
        return f"<{type(source).__name__}>" if is_frames(source) else source_name(as_frame_files(source))


class QueryDataset(Dataset):
    """Shows the rows of a data set as queries, read when they are asked for.

    Args:
        rows (`Sequence`): A `torch.utils.data.Dataset` or a `datasets.Dataset` with an input in each row.
    """

    def __init__(self, rows: Sequence[Any]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Query:
        return Query(self.rows[index], number=index)


def read_item(item: Any) -> tuple[ClipInput, str | None]:
    """Reads one input of the pipeline.

    Args:
        item (`Any`):
            A clip as [`MicroEmoProcessor`] takes it, a clip as the library `datasets` gives it (`path` and `bytes`, or
            `array` and `sampling_rate`), or a dictionary with keys of `INPUT_KEYS`.

    Returns:
        `tuple[ClipInput, str]`: The clip with what belongs to it, and its question, or `None`.

    Raises:
        TypeError: if the dictionary has other keys.
        ValueError: if it has neither `video` nor `audio`, or two keys for one thing.
    """
    if not isinstance(item, Mapping):
        return ClipInput(video=item), None
    if _is_row_of_datasets(item):
        item = {"audio" if "array" in item else "video": item}
    refuse_unknown(item, INPUT_KEYS, "the emotion pipeline", _OTHER_NAMES)
    fields = {
        key: value for key, value in item.items() if not (value is None or (isinstance(value, str) and not value))
    }
    for names in (("question", "instruction"), ("utterances", "subtitles", "subtitle")):
        given = [name for name in names if name in fields]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} stand for the same thing, expected one of them")
    clip = ClipInput(**{key: fields[key] for key in CLIP_KEYS if key in fields})
    if not clip.has_media:
        raise ValueError(f"expected a video or an audio, got {', '.join(item) or 'an empty dictionary'}")
    if "subtitles" in fields:
        clip.utterances = fields["subtitles"]
    if "subtitle" in fields:  # a sentence without times, which lasts as long as the clip
        clip.utterances = [{"start": 0.0, "end": clip_duration(clip), "text": fields["subtitle"]}]
    return clip, fields.get("question", fields.get("instruction"))


def _is_row_of_datasets(item: Mapping) -> bool:
    """Whether a dictionary is a clip itself, as `Video(decode=False)` and `Audio` of the library `datasets` give it."""
    return bool(item.keys() & {"path", "bytes", "array"}) and not item.keys() & {"video", "audio"}


def as_queries(inputs: Any, **arguments: Any) -> Query | list[Query] | QueryDataset | Iterator[Query]:
    """Makes queries of what a call of the pipeline is given.

    Args:
        inputs (`Any`):
            One input as [`read_item`] takes it, a list of them, a data set (of torch or of the library `datasets`), or a
            generator. A list of pictures is one clip of decoded frames, and in a list a list of image files is one clip.
        arguments (`Any`, *optional*):
            `utterances`, `audio` and `audio_track` of the clip, or lists with those of each clip; of a track one for all.

    Returns:
        `Query`, `list[Query]`, `QueryDataset` or `Iterator[Query]`: The queries in the form of the inputs.

    Raises:
        ValueError: if the lists differ in length, or if arguments stand beside a data set or a generator.
    """
    arguments = {name: value for name, value in arguments.items() if value is not None}
    is_rows = isinstance(inputs, Dataset) or hasattr(inputs, "column_names")  # of torch, of `datasets`
    is_stream = isinstance(inputs, Iterator) and not hasattr(inputs, "read")
    if (is_rows or is_stream) and arguments:
        raise ValueError(f"{', '.join(arguments)}: of a data set or generator, give them in each row, as a dictionary")
    if is_stream or (is_rows and not hasattr(inputs, "__len__")):
        return (Query(item, number=number) for number, item in enumerate(inputs))
    if is_rows:
        return QueryDataset(inputs)
    if not isinstance(inputs, list | tuple) or is_frames(inputs):
        return Query(inputs, arguments)
    columns = dict.fromkeys(("utterances", "audio", "audio_track")) | arguments
    clips = as_clip_inputs(inputs, landmarks=None, video_metadata=None, sampling_rate=None, texts=None, **columns)
    return [
        Query(item, {name: getattr(clip, name) for name in arguments}, number)
        for number, (item, clip) in enumerate(zip(inputs, clips, strict=True))
    ]


class QueryReader:
    """Turns queries into inputs of the model. Workers hold this and not the model.

    Args:
        processor ([`MicroEmoProcessor`]): The processor of the model.
    """

    def __init__(self, processor: MicroEmoProcessor) -> None:
        self.processor = processor

    def __call__(self, item: Any, question: str = QUESTION, asr: Any = None) -> dict[str, dict]:
        """Reads one clip.

        Args:
            item (`Any`): A query, or an input as [`read_item`] takes it.
            question (`str`, *optional*, defaults to `"What does the speaker feel, and why?"`):
                The question about clips that have none of their own.
            asr (`SpeechReader`, `Callable`, `str` or `False`, *optional*):
                What makes the utterances of clips without subtitles, as [`MicroEmoProcessor`] takes it. By default a
                [`SpeechReader`] without a recogniser: utterances without words. `False` makes none.

        Returns:
            `dict[str, dict]`: `inputs`, the tensors for `generate`, and `about`, what was found in the clip.

        Raises:
            TypeError: if a dictionary has an unknown key.
            ValueError: if the clip cannot be used. Of several clips the message names the one.
        """
        query = item if isinstance(item, Query) else Query(item)
        try:
            clip, own_question = read_item(query.item)
            for name, value in query.arguments.items():
                if value is not None and getattr(clip, name) is not None:
                    raise ValueError(f"{name} is given in the input and beside it")
                setattr(clip, name, getattr(clip, name) if value is None else value)
            return self._read(clip, query.name, own_question or question, asr)
        except (ValueError, TypeError, OSError) as error:
            if query.number is None:
                raise
            kind = next(kind for kind in (MediaError, ValueError, TypeError, OSError) if isinstance(error, kind))
            where = "" if query.name in str(error) else f" ({query.name})"
            raise kind(f"inputs[{query.number}]{where}: {error}") from error

    def _read(self, clip: ClipInput, name: str, question: str, asr: Any) -> dict[str, dict]:
        started = time.perf_counter()
        inputs = self.processor(
            text=[question],
            videos=[clip.video],
            audio=[clip.audio],
            utterances=[clip.utterances],
            landmarks=[clip.landmarks],
            video_metadata=[clip.video_metadata],
            sampling_rate=clip.sampling_rate,
            audio_track=[clip.audio_track],
            asr=SpeechReader() if asr is None else asr,
            return_tensors="pt",
            return_metadata=True,
        )
        metadata, utterances = inputs.pop("video_metadata")[0], inputs.pop("utterances")[0]
        inputs.pop("audio_segment_times")
        frames = []
        if metadata is not None:
            frames = [
                {"time": round(float(seconds), 3), "faces": int(faces)}
                for seconds, faces in zip(metadata.frame_times, metadata.faces_found, strict=True)
            ]
        about = {
            "clip": name if metadata is None else metadata.source,
            "question": question,
            "prompt": inputs.pop("prompts")[0],
            "duration": None if metadata is None else round(float(metadata.duration), 3),
            "utterances": [
                {"start": round(of.start, 3), "end": round(of.end, 3), "text": of.text, "speaker": of.speaker}
                | ({"words": of.words} if of.words else {})
                for of in utterances
            ],
            "frames": frames,
            "faces_found": sum(frame["faces"] > 0 for frame in frames),
            "has_video": metadata is not None,
            "has_audio": "input_features" in inputs,
            "seconds": round(time.perf_counter() - started, 3),
        }
        return {"inputs": dict(inputs), "about": about}


class QueryCollator:
    """Joins what a [`QueryReader`] returns for several clips into one batch.

    Clips may lack what others have: one without sound has segments that are all masked, as in a batch of the processor.

    Args:
        pad_token_id (`int`): The token that fills prompts up, on the left.
    """

    def __init__(self, pad_token_id: int) -> None:
        self.padding = _PADDING | {"input_ids": pad_token_id}

    def __call__(self, rows: list[dict[str, dict]]) -> dict[str, Any]:
        """Joins the rows.

        Args:
            rows (`list[dict]`): B rows, each for one clip.

        Returns:
            `dict`: `inputs`, the tensors with B rows, and `about`, a list of B dictionaries.
        """
        inputs = [row["inputs"] for row in rows]
        names = dict.fromkeys(name for of_row in inputs for name in of_row)
        joined = {name: self._join(name, [of_row.get(name) for of_row in inputs]) for name in names}
        return {"inputs": joined, "about": [row["about"] for row in rows]}

    def _join(self, name: str, values: list[torch.Tensor | None]) -> torch.Tensor:
        """One tensor for all rows, as long as the longest in each dimension."""
        present = [value for value in values if value is not None]
        shape = [max(sizes) for sizes in zip(*(value.shape[1:] for value in present), strict=True)]
        joined = present[0].new_full((len(values), *shape), self.padding.get(name, 0))
        for row, value in enumerate(values):
            if value is None:
                continue
            places = [slice(0, size) for size in value.shape[1:]]
            if name in ("input_ids", "attention_mask"):
                places[0] = slice(shape[0] - value.shape[1], None)
            joined[(row, *places)] = value[0]
        return joined


def first_of(rows: Iterable[dict]) -> dict:
    """Returns the only row of a batch of one.

    Args:
        rows (`Iterable[dict]`): One row.

    Returns:
        `dict`: The row, as it is.
    """
    (row,) = rows
    return row
