"""Who says what, when: subtitles of any kind to utterances, and utterances to the windows of the Q-Formers."""

import html
import json
import math
import re
import warnings
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from .feature_extraction_microemo import resample


@dataclass(frozen=True)
class Utterance:
    """What one speaker says without a break (paper 3.3).

    Args:
        start, end (`float`): Seconds from the start of the clip.
        text (`str`): The words; may be empty where someone makes a sound without words.
        speaker (`str`, *optional*): Who says it.
    """

    start: float
    end: float
    text: str = ""
    speaker: str | None = None


def read_utterances(source, duration: float | None = None) -> list[Utterance]:
    """Utterances from subtitles, in order of time and inside the clip.

    Args:
        source (`str`, `Path`, `list` or `dict`):
            A file or its text: SubRip (.srt), WebVTT (.vtt), JSON of Whisper, WhisperX or a Transformers
            speech-recognition pipeline; what such JSON holds; or a list of [`Utterance`] or of dictionaries with
            `start`, `end`, `text` and perhaps `speaker`. The content decides, not the name of the file.
        duration (`float`, *optional*): Length of the clip in seconds. Utterances that reach over it are cut there.

    Returns:
        `list[Utterance]`: Overlapping ones stay as they are: two people may talk at once. Whatever had to be sorted,
        cut or dropped is told in one warning, as is a file without any utterance.

    Raises:
        FileNotFoundError, IsADirectoryError: if `source` names no file.
        ValueError: for malformed timestamps or text that is no subtitles, with file and line.
    """
    name, content = _load(source)
    found = _parse_text(name, content) if isinstance(content, str) else _parse_entries(name, content)
    if not found:
        if not isinstance(source, list):
            warnings.warn(f"{name}: no utterances in it", stacklevel=2)
        return []
    return _tidy(name, found, duration)


def transcribe(asr, audio, duration: float | None = None) -> list[Utterance]:
    """Utterances by speech recognition, for a clip that has no subtitles.

    Args:
        asr (`Callable`): A Transformers `automatic-speech-recognition` pipeline that can return timestamps.
        audio (`AudioTrack`): The sound of the clip: `samples` (channels, n) float32 and `rate`.
        duration (`float`, *optional*): Length of the clip in seconds.

    Returns:
        `list[Utterance]`: One for each chunk the pipeline returns.
    """
    # The pipeline itself resamples with torchaudio only.
    rate = asr.feature_extractor.sampling_rate
    mono = resample(torch.as_tensor(audio.samples).mean(0), audio.rate, rate)
    # Whisper refuses more than 30 s unless it is asked for timestamps.
    spoken = asr({"raw": mono.numpy(), "sampling_rate": rate}, return_timestamps=True)
    found = _parse_entries("speech recognition", spoken)
    heard = audio.samples.shape[-1] / audio.rate
    return _tidy("speech recognition", found, heard if duration is None else duration)


def merge_utterances(utterances: list[Utterance], max_utterances: int) -> list[Utterance]:
    """At most `max_utterances` utterances: the two neighbours that are shortest together become one, until it fits."""
    merged = list(utterances)
    while len(merged) > max_utterances:
        lengths = [max(a.end, b.end) - a.start for a, b in pairwise(merged)]
        index = lengths.index(min(lengths))
        one, other = merged[index : index + 2]
        if one.speaker == other.speaker:
            speaker, parts = one.speaker, [one.text, other.text]
        else:  # the names move into the text
            speaker = None
            parts = [f"{u.speaker}: {u.text}" if u.speaker and u.text else u.text for u in (one, other)]
        text = " ".join(part for part in parts if part)
        merged[index : index + 2] = [Utterance(one.start, max(one.end, other.end), text, speaker)]
    return merged


def frame_windows(frame_times, spans) -> np.ndarray:
    """The sampled frames of each utterance.

    Args:
        frame_times: Seconds of the sampled frames, (T,), ascending.
        spans: Start and end of each utterance in seconds, (K, 2).

    Returns:
        `np.ndarray`: (K, 2) int64, frame indices [start, end) of the frames with start <= time < end. Where there is
        none, the frame on screen at the middle of the utterance, so that no window is empty.
    """
    times = np.asarray(frame_times, dtype=np.float64)
    spans = np.asarray(spans, dtype=np.float64).reshape(-1, 2)
    start, end = np.searchsorted(times, spans[:, 0]), np.searchsorted(times, spans[:, 1])
    on_screen = np.maximum(np.searchsorted(times, spans.mean(1), side="right") - 1, 0)
    empty = start >= end
    return np.stack([np.where(empty, on_screen, start), np.where(empty, on_screen + 1, end)], axis=1).astype(np.int64)


def sliding_windows(frame_times, size: float, stride: float, unit: str, duration: float | None = None):
    """Windows of equal length instead of utterances (TimeChat); a last, shorter one is kept.

    Args:
        frame_times: Seconds of the sampled frames, (T,), ascending.
        size, stride (`float`): Length of a window and distance between starts, in `unit`.
        unit (`"frames"` or `"seconds"`): Sampled frames, or seconds of the clip.
        duration (`float`, *optional*): Length of the clip in seconds; the time of its last frame if not given.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: frame indices [start, end) (K, 2) int64, and their seconds (K, 2).
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


def clip_windows(clip_times, spans) -> np.ndarray:
    """The audio clips of each utterance.

    Args:
        clip_times: Start and end of each clip in seconds, (C, 2), starts ascending, all equally long.
        spans: Start and end of each utterance in seconds, (K, 2).

    Returns:
        `np.ndarray`: (K, 2) int64, clip indices [start, end) of the clips that overlap the utterance; where there is
        none, the nearest one.
    """
    clips = np.asarray(clip_times, dtype=np.float64).reshape(-1, 2)
    spans = np.asarray(spans, dtype=np.float64).reshape(-1, 2)
    start = np.searchsorted(clips[:, 1], spans[:, 0], side="right")  # first clip that ends after the utterance begins
    end = np.searchsorted(clips[:, 0], spans[:, 1], side="left")  # first clip that begins after it has ended
    nearest = np.abs(clips.mean(1) - spans.mean(1)[:, None]).argmin(1) if len(spans) else start
    empty = start >= end
    return np.stack([np.where(empty, nearest, start), np.where(empty, nearest + 1, end)], axis=1).astype(np.int64)


# --- reading -------------------------------------------------------------------------------------------------------

_TIME = r"-?(?:\d+:)?\d+:\d+(?:[.,]\d+)?"
_TIMING = re.compile(rf"\s*({_TIME})\s*-->\s*({_TIME})(?:\s.*)?")
_TAG = re.compile(r"</?(?:i|b|u|em|strong|font|span|c|lang|ruby|rt|v)(?:[\s.][^<>]*)?>|<\d[\d:.]*>|\{\\[^{}]*\}", re.I)
_VOICE = re.compile(r"<v(?:\.[^\s<>]*)*\s+([^<>]+)>", re.I)


def _load(source) -> tuple[str, object]:
    """A name for messages, and the text or the decoded JSON."""
    if not isinstance(source, (str, Path)):
        return "utterances", source
    if isinstance(source, str) and ("-->" in source or "\n" in source or source.lstrip()[:1] in ("[", "{")):
        name, text = "utterances", source
    else:
        path = Path(source)
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a directory; a subtitle file (SRT, WebVTT, JSON) was expected")
        if not path.exists():
            raise FileNotFoundError(f"no subtitle file {path}")
        name, data = str(path), path.read_bytes()
        try:
            text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"{name}: subtitles must be UTF-8 text ({error})") from None
    text = text.removeprefix("\ufeff")
    if text.lstrip()[:1] in ("[", "{") and "-->" not in text.lstrip().splitlines()[0]:
        try:
            return name, json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{name}, line {error.lineno}: not valid JSON ({error.msg})") from None
    return name, text


def _parse_entries(name: str, content) -> list[Utterance]:
    """The lists and dictionaries of Whisper, WhisperX, Transformers and of users."""
    if isinstance(content, dict):
        for key in ("segments", "chunks", "utterances"):
            if key in content:
                content = content[key]
                break
        else:
            raise ValueError(f"{name}: expected one of the keys segments, chunks, utterances, got {sorted(content)}")
    if not isinstance(content, (list, tuple)):
        raise ValueError(f"{name}: expected a list of utterances, got {type(content).__name__}")

    found = []
    for number, entry in enumerate(content, start=1):
        where = f"{name}, entry {number}"
        if isinstance(entry, Utterance):
            start, end, text, speaker = entry.start, entry.end, entry.text, entry.speaker
        elif isinstance(entry, dict):
            start, end = entry["timestamp"] if "timestamp" in entry else (entry.get("start"), entry.get("end"))
            text, speaker = entry.get("text"), entry.get("speaker")
            if end is None and "timestamp" in entry:
                end = math.inf  # speech that goes on to the end of the clip
        else:
            raise ValueError(f"{where}: expected a dictionary with start, end and text, got {type(entry).__name__}")
        for key, value in (("start", start), ("end", end)):
            if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or math.isnan(value):
                raise ValueError(f"{where}: {key} must be a number of seconds, got {value!r}")
        if not isinstance(text, (str, type(None))) or not isinstance(speaker, (str, type(None))):
            raise ValueError(f"{where}: text and speaker must be strings, got {text!r} and {speaker!r}")
        found.append(Utterance(float(start), float(end), " ".join((text or "").split()), speaker or None))
    return found


def _parse_text(name: str, text: str) -> list[Utterance]:
    """SubRip and WebVTT."""
    lines = text.splitlines()
    is_vtt = bool(lines) and lines[0].startswith("WEBVTT")
    timings = [index for index, line in enumerate(lines) if "-->" in line]
    if not timings:
        if text.strip() and not is_vtt:
            raise ValueError(f"{name}, line 1: neither SRT, WebVTT nor JSON subtitles: {text.strip()[:40]!r}")
        return []

    found = []
    for timing, following in zip(timings, [*timings[1:], None], strict=True):
        match = _TIMING.fullmatch(lines[timing])
        if match is None:
            raise ValueError(
                f"{name}, line {timing + 1}: expected 'hours:minutes:seconds --> hours:minutes:seconds', "
                f"got {lines[timing].strip()!r}"
            )
        words = [line.strip() for line in lines[timing + 1 : following]]
        if is_vtt and "" in words:
            words = words[: words.index("")]  # what follows is a name, a comment or a style
        elif following is not None:
            # The number of the next entry, with or without the blank line that should stand before it.
            while words and not words[-1]:
                words.pop()
            if words and words[-1].isdecimal():
                words.pop()
        spoken, speaker = _clean(" ".join(words), is_vtt)
        found.append(Utterance(_seconds(match[1]), _seconds(match[2]), spoken, speaker))
    return found


def _clean(text: str, is_vtt: bool) -> tuple[str, str | None]:
    """Words without mark-up, and the speaker where a WebVTT voice tag names one."""
    voices = list(dict.fromkeys(_VOICE.findall(text)))
    if len(voices) > 1:  # several voices in one entry: their names stay in the text
        text = _VOICE.sub(r"\1: ", text)
    text = _TAG.sub("", text)
    if is_vtt:
        text = html.unescape(text)
    speaker = html.unescape(voices[0]).strip() if len(voices) == 1 else None
    return " ".join(text.split()), speaker


def _seconds(timestamp: str) -> float:
    sign = -1.0 if timestamp.startswith("-") else 1.0
    seconds = 0.0
    for part in timestamp.lstrip("-").replace(",", ".").split(":"):
        seconds = 60 * seconds + float(part)
    return sign * seconds


def _tidy(name: str, found: list[Utterance], duration: float | None) -> list[Utterance]:
    """In order, inside the clip, and one warning for all that was not so."""
    limit = math.inf if duration is None else duration
    notes = []
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
        warnings.warn(f"{name}: of {len(found)} utterances " + "; ".join(notes), stacklevel=3)
    return kept


__all__ = ["Utterance", "read_utterances"]
