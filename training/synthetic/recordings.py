"""Reader of recordings of acted emotional speech: a folder with a table of them, or one whose files are named as those
of RAVDESS are.

A table is a CSV file in the folder or beside it, with the columns `file` (relative to the table), `speaker` and
`emotion`, and perhaps `corpus`, `gender`, `split`, `text` and `language`. No speaker is in two splits. The silence
before and after the speech does not count as speech.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from ...processing.feature_extraction_microemo import resample
from ...processing.media import load_audio
from ...utils.files import read_table
from .dialogue_plan import SPLITS
from .voice import SOUND_RATE

# Emotions that are heard, and other words for them in tables.
HEARD = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised", "bored")
_OTHER_WORDS = {
    "happiness": "happy",
    "joy": "happy",
    "sadness": "sad",
    "anger": "angry",
    "fear": "fearful",
    "anxiety": "fearful",
    "disgusted": "disgust",
    "surprise": "surprised",
    "pleasant surprise": "surprised",
    "boredom": "bored",
}
_RAVDESS_EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
_RAVDESS_TEXTS = ("Kids are talking by the door.", "Dogs are sitting by the door.")
_SUFFIXES = {".flac", ".wav", ".mp3", ".m4a", ".ogg", ".opus", ".mp4", ".mkv", ".webm", ".avi", ".mov"}

_HOP = 0.01  # seconds between two measurements of loudness
_SILENCE = 26.0  # decibels below the loud parts of a recording
_BREATH = 14.0  # in the same unit: what stays below, and stands apart by a pause, is a breath or a noise
_PAUSE = 0.3  # seconds
_MARGIN = 0.04  # seconds kept around the speech: consonants are soft
_FADE = 0.008  # seconds in which a recording fades in and out


@dataclass(frozen=True)
class Recording:
    """One recording of one speaker.

    Attributes:
        path (`Path`): The file.
        speaker (`str`): The name of the speaker.
        split (`str`): One of `SPLITS`.
        emotion (`str`): One of [`HEARD`].
        corpus (`str`): The name of the corpus; empty where it is not known.
        gender (`str`): `"female"`, `"male"` or another word; empty where it is not known.
        text (`str`): The words; empty where they are not known.
        language (`str`): The code of the language; empty where it is not known.
        start (`float`): The time at which the speech begins, in seconds.
        end (`float`): The time at which the speech ends, in seconds.
        level (`float`): The largest absolute sample of what this speaker says in all recordings.
    """

    path: Path = field(repr=False)  # the plan of a clip is the same wherever the files lie
    speaker: str
    split: str
    emotion: str
    corpus: str = ""
    gender: str = ""
    text: str = ""
    language: str = ""
    start: float = 0.0
    end: float = 0.0
    level: float = 1.0


def read_recordings(folder: str | Path, split: str) -> list[Recording]:
    """Reads the recordings of a split.

    Where the table has no splits, and for files with RAVDESS's names, a speaker's place among all decides: two thirds
    of them are in `"train"`, a twelfth (at least one) in `"dev"`, and the others in `"test"`.

    Args:
        folder (`str` or `Path`): The folder; see this module.
        split (`str`): One of `SPLITS`.

    Returns:
        `list[Recording]`: The recordings in the order of the table, with start and end of the speech in them.

    Raises:
        FileNotFoundError: if there is no such folder, or a file that the table names is missing.
        ValueError: if there are no recordings of the split, if the table lacks a column or has an unknown emotion or
            split, if a speaker is in two splits, or if nothing is heard in a recording.
        MediaError: if a recording cannot be decoded.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of recordings at {folder}")
    table = find_table(folder, ("file", "speaker", "emotion"))
    found = list(_of_table(table, folder) if table else _of_names(folder))
    if not found:
        raise ValueError(
            f"{folder}: no recordings; expected a CSV file with the columns file, speaker and emotion in it or beside "
            "it, or files named as RAVDESS's are, such as 03-01-05-01-02-01-12.wav"
        )
    found = divide(found, str(table or folder))
    here = [recording for recording in found if recording.split == split]
    if not here:
        raise ValueError(f"{table or folder}: no recordings of split {split!r}")
    measured = [_measure(recording) for recording in here]
    levels: dict[str, float] = defaultdict(float)
    for recording in measured:
        levels[recording.speaker] = max(levels[recording.speaker], recording.level)
    return [replace(recording, level=levels[recording.speaker]) for recording in measured]


def load_speech(recording: Recording) -> np.ndarray:
    """Loads the speech of a recording, without the silence around it.

    Args:
        recording ([`Recording`]): The recording, of [`read_recordings`].

    Returns:
        `np.ndarray` of shape `(n,)`: The float32 samples at 16 kHz, of which 1 is the speaker's loudest.
    """
    samples = _load(recording.path)
    first, last = (round(time * SOUND_RATE) for time in (recording.start, recording.end))
    speech = samples[first:last] / recording.level
    ramp = min(round(_FADE * SOUND_RATE), len(speech) // 2)
    fade = np.ones(len(speech), np.float32)
    fade[:ramp] = np.linspace(0, 1, ramp)
    fade[len(fade) - ramp :] = np.linspace(1, 0, ramp)
    return speech * fade


def speech_edges(samples: np.ndarray) -> tuple[float, float] | None:
    """Finds where the speech of a recording begins and ends.

    Args:
        samples (`np.ndarray` of shape `(n,)`): The float32 samples at 16 kHz.

    Returns:
        `tuple[float, float]`, *optional*: The times in seconds, or `None` if nothing is heard.
    """
    hop = round(_HOP * SOUND_RATE)
    power = np.square(samples[: len(samples) // hop * hop], dtype=np.float64).reshape(-1, hop).mean(1)
    if len(power) < 5 or power.max() < 1e-9:
        return None
    # Five hops are a syllable's core: a click is shorter.
    decibels = 10 * np.log10(np.convolve(power, np.ones(5) / 5, "same") + 1e-12)
    peak = np.percentile(decibels, 95)
    loud = np.flatnonzero(decibels > peak - _SILENCE)
    stretches = np.split(loud, np.flatnonzero(np.diff(loud) > _PAUSE / _HOP) + 1)
    spoken = [stretch for stretch in stretches if decibels[stretch].max() > peak - _BREATH]
    length = len(samples) / SOUND_RATE
    start, end = spoken[0][0] * _HOP - _MARGIN, (spoken[-1][-1] + 1) * _HOP + _MARGIN
    return round(max(0.0, float(start)), 3), round(min(length, float(end)), 3)


def find_table(folder: Path, columns: Sequence[str]) -> Path | None:
    """Finds the table that describes the files of a folder.

    Args:
        folder (`Path`): The folder.
        columns (`Sequence[str]`): The columns that the table must have.

    Returns:
        `Path`, *optional*: A CSV file in the folder or, named as the folder is, beside it; `None` without one.
    """
    beside = folder.resolve().parent / f"{folder.resolve().name}.csv"  # a folder's name may have dots
    for path in [*sorted(folder.glob("*.csv")), *([beside] if beside.is_file() else [])]:
        rows = read_table(path)
        if rows and set(columns) <= set(rows[0]):
            return path
    return None


def divide(recordings: Iterable[Recording], source: str) -> list[Recording]:
    """Gives a split to recordings that have none, by their speakers.

    Args:
        recordings (`Iterable[Recording]`): The recordings.
        source (`str`): The name of the table or folder for messages.

    Returns:
        `list[Recording]`: The recordings, each with a split.

    Raises:
        ValueError: if a speaker is in two splits, or if some have a split and others none.
    """
    recordings = list(recordings)
    splits: dict[str, str] = {}
    for recording in recordings:
        if splits.setdefault(recording.speaker, recording.split) != recording.split:
            raise ValueError(
                f"{source}: speaker {recording.speaker!r} is in two splits, {splits[recording.speaker]!r} and "
                f"{recording.split!r}; give all recordings of a speaker the same one"
            )
    without = sorted(speaker for speaker, split in splits.items() if not split)
    if without and len(without) < len(splits):
        raise ValueError(f"{source}: speaker {without[0]!r} has no split, and others have one")
    for place, speaker in enumerate(without):
        train = round(2 / 3 * len(without))
        dev = train + max(1, round(len(without) / 12))
        splits[speaker] = "train" if place < train else "dev" if place < dev else "test"
    return [replace(recording, split=splits[recording.speaker]) for recording in recordings]


def _of_table(table: Path, folder: Path) -> Iterator[Recording]:
    inside = folder.resolve()
    for number, row in enumerate(read_table(table), start=1):
        path = table.parent / row["file"]
        if inside not in path.resolve().parents:
            continue  # a table beside the folder may describe others, too
        if not path.is_file():
            raise FileNotFoundError(f"{table}, row {number}: no file {path}")
        emotion = row["emotion"].strip().lower()
        emotion = _OTHER_WORDS.get(emotion, emotion)
        if emotion not in HEARD:
            raise ValueError(
                f"{table}, row {number}: emotion {row['emotion']!r} is unknown; expected one of {', '.join(HEARD)}"
            )
        if row.get("split", "") not in ("", *SPLITS):
            raise ValueError(f"{table}, row {number}: split must be one of {', '.join(SPLITS)}, got {row['split']!r}")
        corpus, gender, text, language = (
            row.get(name, "").strip() for name in ("corpus", "gender", "text", "language")
        )
        if not row["speaker"].strip():
            raise ValueError(f"{table}, row {number}: no speaker")
        speaker, split = row["speaker"].strip(), row.get("split", "")
        yield Recording(path, speaker, split, emotion, corpus, gender, text, language)


def _of_names(folder: Path) -> Iterator[Recording]:
    """Yields the files of a folder that are named as those of RAVDESS: modality, vocal channel, emotion, intensity,
    statement, repetition, actor. Films without sound and songs are left out.
    """
    for path in sorted(folder.rglob("*")):
        parts = path.stem.split("-")
        if path.suffix.lower() not in _SUFFIXES or len(parts) != 7 or not all(part.isdigit() for part in parts):
            continue
        modality, channel, emotion, _, statement, _, actor = map(int, parts)
        if modality == 2 or channel != 1:
            continue
        if not (1 <= emotion <= len(_RAVDESS_EMOTIONS) and 1 <= statement <= len(_RAVDESS_TEXTS)):
            raise ValueError(f"{path}: not a name of RAVDESS: emotion {emotion}, statement {statement}")
        yield Recording(
            path,
            f"ravdess-{actor:02d}",
            "",
            _RAVDESS_EMOTIONS[emotion - 1],
            "ravdess",
            "male" if actor % 2 else "female",
            _RAVDESS_TEXTS[statement - 1],
            "en",
        )


def _measure(recording: Recording) -> Recording:
    samples = _load(recording.path)
    edges = speech_edges(samples)
    if edges is None:
        raise ValueError(f"{recording.path}: nothing is heard in this recording")
    return replace(recording, start=edges[0], end=edges[1], level=float(np.abs(samples).max()))


def _load(path: Path) -> np.ndarray:
    """Returns the (n,) float32 samples of a file at 16 kHz."""
    track = load_audio(path)
    if track is None:
        raise ValueError(f"{path}: no sound in this file")
    samples = torch.from_numpy(track.samples.mean(0, dtype=np.float32))
    return resample(samples, track.rate, SOUND_RATE).numpy()
