"""Utterances: they are read from subtitles of any kind, and turned into the windows of the Q-Formers."""

import json
import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from .feature_extraction_microemo import resample
from .utterance_formats.subtitles import Utterance, read_subtitles
from .utterance_formats.transcripts import read_entries


def read_utterances(
    source: Any, duration: float | None = None, fps: float | None = None, encoding: str | None = None
) -> list[Utterance]:
    """Reads utterances from subtitles.

    Whatever has to be sorted, cut or dropped is named in one warning, as is a file without any utterance.

    Args:
        source (`str`, `Path`, `list` or `dict`):
            A file or its text: SubRip (.srt), WebVTT (.vtt, automatic captions of YouTube too), SBV, LRC, with pysubs2
            also ASS, SSA, MicroDVD and TTML; JSON of Whisper, WhisperX, whisper.cpp, Deepgram, AssemblyAI or a
            Transformers speech-recognition pipeline, with utterances or words alone; what such JSON holds; or a list
            of [`Utterance`] or of dictionaries with `start`, `end`, `text` and perhaps `speaker`. The content decides,
            not the name of the file.
        duration (`float`, *optional*):
            The length of the clip in seconds. Utterances that reach over it are cut there.
        fps (`float`, *optional*): The number of frames per second, for a MicroDVD file that does not begin with it.
        encoding (`str`, *optional*):
            The encoding of a file that is neither UTF-8 nor UTF-16, such as `"cp1252"` or `"gb18030"`.

    Returns:
        `list[Utterance]`: The utterances in order of time and inside the clip. Overlapping ones stay as they are, since
        two people may talk at once. Words that rolling captions repeat are there once.

    Raises:
        FileNotFoundError: If `source` names no file.
        IsADirectoryError: If `source` is a folder.
        ValueError: If timestamps are malformed, if keys are unknown, or if the text is no subtitles. The message has the
            file and the line.
        ImportError: If pysubs2 is needed for the format and is not installed.

    Example:

    ```python
    >>> from microemo import read_utterances

    >>> read_utterances("1\\n00:00:00,500 --> 00:00:01,250\\nHello <i>there</i>")
    [Utterance(start=0.5, end=1.25, text='Hello there', speaker=None)]
    ```"""
    name, content = _load(source, encoding)
    found, notes = (
        read_subtitles(name, content, fps) if isinstance(content, str) else (read_entries(name, content), [])
    )
    if not found and not isinstance(source, list):
        notes.insert(0, "no utterances in it")
    return tidy_utterances(name, found, duration, notes)


def transcribe(asr: Any, audio: Any, duration: float | None = None) -> list[Utterance]:
    """Recognises the speech of a clip that has no subtitles, in one go; see [`SpeechReader`] for one that divides it.

    Args:
        asr (`Callable`):
            A function that takes the sound and returns what a Transformers `automatic-speech-recognition` pipeline returns.
        audio (`AudioTrack`): The sound of the clip: `samples` `(channels, n)` float32 and `rate`.
        duration (`float`, *optional*): The length of the clip in seconds.

    Returns:
        `list[Utterance]`: An utterance for each chunk that the pipeline returns.
    """
    # The pipeline itself resamples with torchaudio only.
    rate = asr.feature_extractor.sampling_rate
    mono = resample(torch.as_tensor(audio.samples).mean(0), audio.rate, rate)
    # Whisper refuses more than 30 s unless it is asked for timestamps.
    spoken = asr({"raw": mono.numpy(), "sampling_rate": rate}, return_timestamps=True)
    found = read_entries("speech recognition", spoken)
    audio_duration = audio.samples.shape[-1] / audio.rate
    return tidy_utterances("speech recognition", found, audio_duration if duration is None else duration)


def tidy_utterances(
    name: str, found: list[Utterance], duration: float | None, notes: Sequence[str] = ()
) -> list[Utterance]:
    """Sorts utterances and cuts them to the clip, with one warning for all that is changed.

    Args:
        name (`str`): The name of their source for the warning.
        found (`list[Utterance]`): The utterances.
        duration (`float` or `None`): The length of the clip in seconds.
        notes (`Sequence[str]`, *optional*): What the warning says besides.

    Returns:
        `list[Utterance]`: The utterances in order of time and inside the clip.

    Raises:
        ValueError: If an utterance has no end, and the length of the clip is not known.
    """
    notes = list(notes)
    limit = math.inf if duration is None else duration
    ordered = sorted(found, key=lambda u: (u.start, u.end))
    if ordered != found:
        notes.append("they were out of order and have been sorted")
    inside = [replace(u, start=max(u.start, 0.0), end=min(u.end, limit)) for u in ordered]
    kept = [u for u in inside if u.start < u.end]
    if any(math.isinf(u.end) for u in kept):
        raise ValueError(f"{name}: an utterance has no end, and the length of the clip is not known")
    # An end at infinity stands for "to the end of the clip": cutting it is no news.
    cut = sum(
        u.start < u.end and (v.start < 0 or limit < v.end < math.inf) for u, v in zip(inside, ordered, strict=True)
    )
    if cut:
        notes.append(f"{cut} reached over the clip (0 to {limit:.1f} s) and were cut")
    if len(kept) < len(inside):
        notes.append(f"{len(inside) - len(kept)} had nothing left in the clip (0 to {limit:.1f} s) and were dropped")
    overlaps = sum(a.end > b.start + 1e-3 for a, b in pairwise(kept))
    if overlaps:
        notes.append(f"{overlaps} overlap the one after them")
    if notes:
        count = f" {len(found)} utterances," if found else ""
        warnings.warn(f"{name}:{count} {'; '.join(notes)}", stacklevel=3)
    return kept


def merge_utterances(utterances: list[Utterance], max_utterances: int) -> list[Utterance]:
    """Merges utterances until there are at most `max_utterances`.

    The two neighbours that are shortest together are merged first.

    Args:
        utterances (`list[Utterance]`): The utterances in order of time.
        max_utterances (`int`): The largest number of utterances.

    Returns:
        `list[Utterance]`: The utterances. Speakers who differ are named in the text of a merged utterance.
    """
    merged = list(utterances)
    while len(merged) > max_utterances:
        lengths = [max(a.end, b.end) - a.start for a, b in pairwise(merged)]
        index = lengths.index(min(lengths))
        first, second = merged[index : index + 2]
        if first.speaker == second.speaker:
            speaker, parts = first.speaker, [first.text, second.text]
        else:  # the names move into the text
            speaker = None
            parts = [f"{u.speaker}: {u.text}" if u.speaker and u.text else u.text for u in (first, second)]
        text = " ".join(part for part in parts if part)
        end, words = max(first.end, second.end), [*first.words, *second.words]
        merged[index : index + 2] = [Utterance(first.start, end, text, speaker, words)]
    return merged


def frame_windows(frame_times: ArrayLike, spans: ArrayLike) -> np.ndarray:
    """Finds the sampled frames of each utterance.

    Args:
        frame_times (`np.ndarray` of shape `(T,)`): The ascending seconds of the sampled frames.
        spans (`np.ndarray` of shape `(K, 2)`): The start and end of each utterance in seconds.

    Returns:
        `np.ndarray` of shape `(K, 2)`: The int64 frame indices [start, end) of the frames with start <= time < end. An
        utterance without such a frame gets the frame on screen at its middle, so that no window is empty.
    """
    times = np.asarray(frame_times, dtype=np.float64)
    spans = np.asarray(spans, dtype=np.float64).reshape(-1, 2)
    start, end = np.searchsorted(times, spans[:, 0]), np.searchsorted(times, spans[:, 1])
    on_screen = np.maximum(np.searchsorted(times, spans.mean(1), side="right") - 1, 0)
    empty = start >= end
    return np.stack([np.where(empty, on_screen, start), np.where(empty, on_screen + 1, end)], axis=1).astype(np.int64)


def sliding_windows(
    frame_times: ArrayLike, size: float, stride: float, unit: str, duration: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Makes windows of equal length instead of utterances (TimeChat). A last, shorter window is kept.

    Args:
        frame_times (`np.ndarray` of shape `(T,)`): The ascending seconds of the sampled frames.
        size (`float`): The length of a window in `unit`.
        stride (`float`): The distance between the starts of windows in `unit`.
        unit (`"frames"` or `"seconds"`): Whether lengths count sampled frames or seconds of the clip.
        duration (`float`, *optional*): The length of the clip in seconds, by default the time of its last frame.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: The int64 frame indices [start, end) of the windows, `(K, 2)`, and their seconds,
        `(K, 2)`.
    """
    times = np.asarray(frame_times, dtype=np.float64)
    end_of_clip = max(times[-1], duration or 0.0)
    if unit == "frames":
        starts = np.arange(0, len(times), int(stride))
        windows = np.stack([starts, np.minimum(starts + int(size), len(times))], axis=1)
        return windows, np.append(times, end_of_clip)[windows]
    # Up to the last frame: sound that goes on without pictures needs no window of frames.
    starts = np.arange(0, times[-1] + 1e-9, stride)
    spans = np.stack([starts, np.minimum(starts + size, max(end_of_clip, 1e-9))], axis=1)
    return frame_windows(times, spans), spans


def segment_windows(segment_times: ArrayLike, spans: ArrayLike) -> np.ndarray:
    """Finds the audio segments of each utterance.

    Args:
        segment_times (`np.ndarray` of shape `(C, 2)`):
            The start and end of each segment in seconds; the starts ascend and all segments are equally long.
        spans (`np.ndarray` of shape `(K, 2)`): The start and end of each utterance in seconds.

    Returns:
        `np.ndarray` of shape `(K, 2)`: The int64 indices [start, end) of the segments that overlap the utterance, or of
        the nearest segment if there is none.
    """
    segments = np.asarray(segment_times, dtype=np.float64).reshape(-1, 2)
    spans = np.asarray(spans, dtype=np.float64).reshape(-1, 2)
    # From the first segment that ends after the utterance begins to the first that begins after it has ended.
    start = np.searchsorted(segments[:, 1], spans[:, 0], side="right")
    end = np.searchsorted(segments[:, 0], spans[:, 1], side="left")
    nearest = np.abs(segments.mean(1) - spans.mean(1)[:, None]).argmin(1) if len(spans) else start
    empty = start >= end
    return np.stack([np.where(empty, nearest, start), np.where(empty, nearest + 1, end)], axis=1).astype(np.int64)


# --- reading -------------------------------------------------------------------------------------------------------

_LARGEST = 2**28  # bytes; above it somebody gave a video in place of its subtitles


def _load(source: Any, encoding: str | None) -> tuple[str, object]:
    """Returns a name for messages, and the text or the decoded JSON."""
    if not isinstance(source, (str, Path)):
        return "utterances", source
    if isinstance(source, str) and not _is_file(source) and re.search(r"-->|[\n\r]|^\s*[\[{]", source):
        name, text = "utterances", source
    else:
        path = Path(source)
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a directory; a subtitle file (SRT, WebVTT, JSON) was expected")
        if not path.exists():
            raise FileNotFoundError(f"no subtitle file {path}")
        if path.stat().st_size > _LARGEST:
            raise ValueError(f"{path}: {path.stat().st_size >> 20} MiB, too large for subtitles")
        name, text = str(path), _decode(str(path), path.read_bytes(), encoding)
    text = text.removeprefix("\ufeff")
    if not _begins_as_json(text):
        return name, text
    try:
        return name, json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{name}, line {error.lineno}: not valid JSON ({error.msg})") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, a thousand lists in each other
        raise ValueError(f"{name}: not valid JSON ({error})") from None


def _is_file(source: str) -> bool:
    """Tells whether a text names a file, whose name may begin with a bracket."""
    try:
        return Path(source).is_file()
    except (OSError, ValueError):
        return False


def _decode(name: str, data: bytes, encoding: str | None) -> str:
    """Decodes UTF-8, UTF-16 or UTF-32 by its mark, UTF-16 without a mark, or the encoding that the user names."""
    if encoding is None:
        marks = {b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
        detected = next((codec for mark, codec in marks.items() if data.startswith(mark)), None)
        if detected is None and data[:2].count(0) == 1:  # every second byte of the first letters is zero
            detected = "utf-16-be" if data[0] == 0 else "utf-16-le"
    try:
        return data.decode(encoding or detected or "utf-8-sig")
    except LookupError:
        raise ValueError(f"{name}: unknown encoding {encoding!r}") from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{name}, line {line}: subtitles must be UTF-8 or UTF-16 text, got {error.object[error.start : error.end]!r}. "
            f"Text in another encoding can be converted (iconv -f gb18030 -t utf-8) or read with "
            "read_utterances(..., encoding='cp1252')"
        ) from None


def _begins_as_json(text: str) -> bool:
    """Tells whether a text is a list or an object, and none of the formats whose lines begin with a bracket."""
    first = text.lstrip().partition("\n")[0]
    return first[:1] in ("[", "{") and not re.match(r"\[\s*[A-Za-z#]|\[\d+:|\{\s*\d*\s*\}\s*\{", first)


__all__ = ["Utterance", "read_utterances"]
