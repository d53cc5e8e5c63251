"""Utterances that were recognised are kept in files, so that the next run need not recognise them again."""

import functools
import hashlib
import json
import os
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..utils.atomic_files import write_text
from ..utils.files import JsonLinesLog, read_json, read_json_lines
from .speech import UtteranceStore
from .utterances import Utterance, read_utterances

_MADE_BY = "microemo"
_KEYS = ("clip", "sha256", "audio_track", "recogniser", "utterances")


class UtterancesBesideClips(UtteranceStore):
    """Keeps utterances beside the clips: those of `clip.mp4` in `clip.mp4.utterances.json`.

    The file names the clip by its content, the sound track and the recogniser. It is read where all three agree; where no
    recogniser is asked for, that of the file counts. [`read_utterances`] reads it, too. A file that was not written here, or
    that somebody has edited, is never overwritten: where utterances cannot be kept, a warning says so.

    Args:
        writes (`bool`, *optional*, defaults to `True`): Whether utterances are kept, or only those that are there are read.
    """

    def __init__(self, writes: bool = True) -> None:
        self.writes = writes

    def find(
        self, source: Path | bytes, audio_track: int | str | None, recogniser: str | None
    ) -> list[Utterance] | None:
        if isinstance(source, bytes):
            return None
        path = utterance_file(source)
        kept = _read(path) if path.is_file() else None
        if kept is None or kept["audio_track"] != audio_track or kept["sha256"] != digest(source):
            return None
        if recogniser not in (None, kept["recogniser"]):
            return None
        if recogniser is None and kept["recogniser"] is not None:
            warnings.warn(f"{source}: its words are those of {path.name} ({kept['recogniser']})", stacklevel=3)
        return _to_utterances(kept)

    def keep(
        self, source: Path | bytes, audio_track: int | str | None, recogniser: str | None, utterances: list[Utterance]
    ) -> None:
        if not self.writes or isinstance(source, bytes):
            return
        path = utterance_file(source)
        if path.exists():
            kept = _read(path) if path.is_file() else None
            if kept is None or kept.get("digest") != _digest_of(kept["utterances"]):
                whose = "is no file of utterances that was written here" if kept is None else "has been edited"
                warnings.warn(f"{path} {whose}: it stays as it is, and the utterances are not kept", stacklevel=3)
                return
        row = _row(source, audio_track, recogniser, utterances)
        content = {"made_by": _MADE_BY, **row, "digest": _digest_of(row["utterances"])}
        try:
            write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        except OSError as error:
            warnings.warn(f"{path}: the utterances are not kept ({error})", stacklevel=3)


class UtteranceTable(UtteranceStore):
    """Keeps the utterances of many clips in one JSON-lines file, each as soon as it is known: a run that was stopped goes on.

    Args:
        path (`str` or `Path`): The file, which is made if it does not exist.
        writes (`bool`, *optional*, defaults to `True`):
            Whether utterances are kept, or only those that are there are read. One process at a time may write.

    Raises:
        ValueError: If the file is no table of utterances; it is left as it is.
        OSError: If another process writes the file.
    """

    def __init__(self, path: str | Path, writes: bool = True) -> None:
        self._log = JsonLinesLog(path, _KEYS) if writes else None
        if self._log is not None:
            self._log.append([])  # cuts off the half line of a killed run
        rows = read_json_lines(path) if self._log is None else self._log.rows
        self._rows = {(row["sha256"], row["audio_track"], row["recogniser"]): row for row in rows}

    def __enter__(self) -> "UtteranceTable":
        return self

    def __exit__(self, *_: object) -> None:
        if self._log is not None:
            self._log.close()

    def find(
        self, source: Path | bytes, audio_track: int | str | None, recogniser: str | None
    ) -> list[Utterance] | None:
        kept = self._rows.get((digest(source), audio_track, recogniser))
        return None if kept is None else _to_utterances(kept)

    def keep(
        self, source: Path | bytes, audio_track: int | str | None, recogniser: str | None, utterances: list[Utterance]
    ) -> None:
        if self._log is None:
            return
        row = _row(source, audio_track, recogniser, utterances)
        self._log.append([row])
        self._rows[row["sha256"], audio_track, recogniser] = row


def utterance_file(source: str | Path) -> Path:
    """Names the file that keeps the utterances of a clip.

    Args:
        source (`str` or `Path`): The clip.

    Returns:
        `Path`: `CLIP.utterances.json`.
    """
    return Path(f"{source}.utterances.json")


def digest(source: str | Path | bytes) -> str:
    """Computes the SHA-256 of a file.

    Args:
        source (`str`, `Path` or `bytes`): The file, or its content.

    Returns:
        `str`: The digest in hexadecimal digits.
    """
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    stat = os.stat(source)
    return _digest_of_file(os.fspath(source), stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=1)  # a clip is looked up, and kept right after
def _digest_of_file(path: str, size: int, modified: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _row(
    source: Path | bytes, audio_track: int | str | None, recogniser: str | None, utterances: list[Utterance]
) -> dict:
    entries = [{key: value for key, value in asdict(utterance).items() if value} for utterance in utterances]
    entries = [{"start": 0.0, "end": 0.0, "text": ""} | entry for entry in entries]
    values = ("" if isinstance(source, bytes) else source.name, digest(source), audio_track, recogniser, entries)
    return dict(zip(_KEYS, values, strict=True))


def _read(path: Path) -> dict[str, Any] | None:
    """Returns the content of a file that was written here, or `None` for another one."""
    try:
        content = read_json(path)
    except (ValueError, OSError):
        return None
    is_ours = isinstance(content, dict) and content.get("made_by") == _MADE_BY and set(_KEYS) <= content.keys()
    return content if is_ours else None


def _to_utterances(kept: dict) -> list[Utterance]:
    return read_utterances(kept["utterances"])


def _digest_of(entries: Any) -> str:
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()[:16]
