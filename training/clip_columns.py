"""Columns of clips: file names, media as the library `datasets` stores or decodes them, and what is in memory."""

from pathlib import Path
from typing import Any

from datasets import Audio, Dataset, Video

from ..processing.feature_extraction_microemo import as_samples
from ..processing.media import AudioTrack
from .data_checks import is_empty


def without_decoding(table: Dataset) -> Dataset:
    """Makes a data set give the files of its clips, which the processor decodes with exact times and their sound.

    The library `datasets` decodes the columns `Video()` and `Audio()` as soon as a row is read, and needs torchcodec for it.

    Args:
        table (`Dataset`): A data set, also one that is streamed.

    Returns:
        `Dataset`: The same rows, with `decode=False` in the columns of clips.

    Example:

    ```python
    >>> from datasets import Dataset, Video
    >>> from microemo.training.clip_columns import without_decoding

    >>> table = Dataset.from_dict({"video": ["clip.mp4"]}).cast_column("video", Video())
    >>> without_decoding(table)[0]["video"]
    {'bytes': None, 'path': 'clip.mp4'}
    ```"""
    for name, feature in (table.features or {}).items():
        if isinstance(feature, (Audio, Video)):
            table = table.cast_column(name, type(feature)(decode=False))
    return table


def media_source(value: Any) -> tuple[str, Any]:
    """Finds the source of a `video` or `audio` cell, which is a file name, or media as `datasets` stores or decodes them.

    Args:
        value (`Any`):
            The cell: a file name, a dictionary with `path` and `bytes`, a decoder of torchcodec, or what is in memory.

    Returns:
        `tuple[str, Any]`: What the source is, `"path"`, `"bytes"` or `"decoded"`, and the source.

    Raises:
        ValueError: if a dictionary has neither a path nor bytes.
    """
    value = getattr(value, "_hf_encoded", value)  # the file that a decoder reads
    if isinstance(value, (str, Path)):
        return "path", str(value)
    if not isinstance(value, dict) or "array" in value:
        return "decoded", value
    key = next((key for key in ("bytes", "path") if value.get(key)), None)
    if key is None:
        raise ValueError(f"a clip of a data set has neither `path` nor `bytes`, but {', '.join(value) or 'nothing'}")
    return key, value[key]


def first_medium(row: dict, *columns: str) -> tuple[str, Any] | None:
    """Finds the first of some columns that holds a clip or a sound.

    Args:
        row (`dict`): A row of a data set.
        columns (`str`): The names of the columns, the best first.

    Returns:
        `tuple[str, Any]` or `None`: The source as [`media_source`] returns it, where sound in memory is `"track"` and an
        [`AudioTrack`]; `None` if all columns are empty.

    Raises:
        ValueError: if a dictionary has neither a path nor bytes, or if sound in memory cannot be used.
    """
    for column in columns:
        if not is_empty(row.get(column)):
            kind, source = media_source(row[column])
            if kind == "decoded" and column == "audio":
                samples, rate = as_samples(source)
                return "track", AudioTrack(samples.numpy(), rate)
            return kind, source
    return None
