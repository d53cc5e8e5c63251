"""MELD and IEMOCAP: dialogues whose utterances are labelled."""

import re
from pathlib import Path

from transformers.utils import logging

from ...utils.files import read_table, read_text
from ..data_checks import DataError
from .clip_files import ClipCutter
from .corpus_reading import ClipFinder, CorpusRequest, CorpusRows, walk
from .corpus_words import IEMOCAP, MELD

MELD_TABLE = re.compile(r"(train|dev|test)_sent_emo\.csv", re.IGNORECASE)
MELD_COLUMNS = {"Utterance", "Emotion", "Dialogue_ID", "Utterance_ID"}
_MELD_CLIP = re.compile(r"dia\d+_utt\d+")
# Characters that Windows has where ISO 8859-1 has control characters.
_WINDOWS = {code: bytes([code]).decode("cp1252", "ignore") or chr(code) for code in range(0x80, 0xA0)}

IEMOCAP_SESSIONS = 5
# [6.2901 - 8.2357]	Ses01F_impro01_F000	neu	[2.5000, 2.5000, 2.5000]
_TURN = re.compile(r"\[\s*([\d.]+)\s*-\s*([\d.]+)\s*\]\s+(\S+_([FM])\w+)\s+(\w+)\s+\[")
# Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.
_SPOKEN = re.compile(r"(\S+_[FM]\w+)\s+\[[\d.\s-]+\]:\s*(.*)")
_DIALOGUE = re.compile(r"Ses0?(\d)([FM])_\w+")


# --- MELD ----------------------------------------------------------------------------------------------------------


def mend_text(text: str) -> str:
    """Mends text that was read in another encoding than it was written in, once or twice.

    Args:
        text (`str`): The text.

    Returns:
        `str`: The text, where possible with the characters that were written.

    Example:

    ```python
    >>> from microemo.training.corpora.dialogue_corpora import mend_text

    >>> mend_text("It\\x92s"), mend_text("heâ€™s")
    ('It’s', 'he’s')
    ```"""
    text = text.translate(_WINDOWS).replace("\xa0", " ")
    if re.search("[Ãâ]", text):
        try:
            return text.encode("cp1252").decode("utf-8")
        except UnicodeError:
            return text
    return text


def read_meld(request: CorpusRequest) -> CorpusRows:
    """Reads MELD, `train_sent_emo.csv` with `train_splits/dia0_utt0.mp4`; each utterance is a clip.

    Args:
        request ([`CorpusRequest`]): The folder, or one of its tables.

    Returns:
        [`CorpusRows`]: A row for each utterance in the official splits, whose main speakers are in all of them.

    Raises:
        DataError: if there is no table, or one lacks a column.
    """
    files = [request.path] if request.path.is_file() else walk(request.root)
    tables = {match[1].lower(): file for file in files if (match := MELD_TABLE.fullmatch(file.name))}
    if not tables:
        raise DataError(f"{request.path}: no train_sent_emo.csv, dev_sent_emo.csv or test_sent_emo.csv of MELD")
    media, found = request.media, CorpusRows()
    folders = {
        file.parent for stem, clips in media.files.items() if _MELD_CLIP.fullmatch(stem) for file in clips
    }  # of clips
    for split, table in sorted(tables.items()):
        rows = read_table(table, fallback="cp1252")
        if not rows or not rows[0].keys() >= MELD_COLUMNS:
            raise DataError(f"{table}: expected columns {', '.join(sorted(MELD_COLUMNS))}, found {', '.join(rows[0])}")
        folder = _folder_of(split, folders, media.folder, alone=len(tables) == 1)
        for row in rows:
            name = f"dia{int(row['Dialogue_ID'])}_utt{int(row['Utterance_ID'])}"
            found.add(
                MELD,
                row["Emotion"],
                _find_in(media, name, folder),
                name=f"{split}_{name}",
                split=split,
                speaker=mend_text(row.get("Speaker", "")) or None,
                subtitle=mend_text(row["Utterance"]) or None,
            )
    return found


def _folder_of(split: str, folders: set[Path], root: Path, alone: bool) -> Path | None:
    """Finds the folder of the clips of a split: `train_splits`, `dev_splits_complete`, `output_repeated_splits_test`."""
    named = [folder for folder in folders if any(split in part.lower() for part in folder.relative_to(root).parts)]
    if not named and alone and len(folders) == 1:
        return next(iter(folders))
    return min(named, key=lambda folder: (split not in folder.name.lower(), len(folder.parts), folder), default=None)


def _find_in(media: ClipFinder, name: str, folder: Path | None) -> Path | None:
    """Finds a clip in one folder, since the names of MELD come again in every split."""
    files = [file for file in media.files.get(name, ()) if file.parent == folder]
    return min(files).absolute() if files else None


# --- IEMOCAP -------------------------------------------------------------------------------------------------------


def read_iemocap(request: CorpusRequest) -> CorpusRows:
    """Reads IEMOCAP, `Session1/dialog/EmoEvaluation/Ses01F_impro01.txt`.

    A video shows a whole dialogue with both speakers side by side. Each utterance is cut out of it, with the speaker's
    half of the picture: on the left is the one whose letter is in the dialogue's name. An utterance after the end of the
    video keeps its sound alone (`sentences/wav`).

    Args:
        request ([`CorpusRequest`]): The folder; fold `k` tests on session `k` and keeps the session before for dev.

    Returns:
        [`CorpusRows`]: A row for each utterance on whose emotion the raters agreed.

    Raises:
        DataError: if there is no evaluation.
    """
    evaluations: list[Path] = []
    spoken: dict[str, str] = {}
    for file in walk(request.root):
        if file.suffix.lower() == ".txt" and _DIALOGUE.fullmatch(file.stem):
            if file.parent.name == "EmoEvaluation":
                evaluations.append(file)
            elif file.parent.name == "transcriptions":
                lines = read_text(file, fallback="cp1252").splitlines()
                spoken |= {match[1]: match[2].strip() for line in lines if (match := _SPOKEN.match(line.strip()))}
    if not evaluations:
        raise DataError(f"{request.path}: no Session1/dialog/EmoEvaluation/Ses01F_impro01.txt of IEMOCAP")
    media, found = request.media, CorpusRows()
    for file in logging.tqdm(evaluations, desc="Reading dialogues", leave=False):
        _read_dialogue(file, media, spoken, request, found)
    return found


def _read_dialogue(
    file: Path, media: ClipFinder, spoken: dict[str, str], request: CorpusRequest, found: CorpusRows
) -> None:
    session, on_the_left = _DIALOGUE.fullmatch(file.stem).groups()  # type: ignore[union-attr]
    video = media.find(file.stem)
    # `dialog/wav` has a sound file of the same name, from which no picture can be cut
    cutter = ClipCutter(video, request.clips) if video and video.suffix.lower() != ".wav" else None
    try:
        for line in read_text(file, fallback="cp1252").splitlines():
            if (turn := _TURN.match(line)) is None:
                continue
            start, end, name, letter, label = turn.groups()
            clip = None
            if cutter is not None and IEMOCAP.get(label.lower()):
                half = "left" if letter == on_the_left else "right"
                clip = cutter.cut(name, float(start), float(end), half)
            found.add(
                IEMOCAP,
                label,
                clip or media.find(name),
                name=name,
                split=_session_part(int(session), request.fold),
                speaker=f"session {session} {letter}",
                subtitle=spoken.get(name) or None,
            )
    finally:
        if cutter is not None:
            cutter.__exit__()


def _session_part(session: int, fold: int) -> str:
    dev = (fold - 2) % IEMOCAP_SESSIONS + 1
    return "test" if session == fold else "dev" if session == dev else "train"
