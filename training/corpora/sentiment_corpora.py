"""CMU-MOSEI, and the tables of the MER challenges of 2023, 2024 and 2025."""

import re
from pathlib import Path
from typing import Any

from transformers.utils import logging

from ...utils.files import read_table
from ..data_checks import DataError
from .clip_files import ClipCutter
from .corpus_reading import CorpusRequest, CorpusRows, part_of, sentences, tenths_by_share, walk
from .corpus_words import MER, MOSEI_EMOTIONS, SENTIMENTS, sentiment_word

SENTIMENT_INSTRUCTION = "What is the speaker's sentiment?"
MOSEI_COLUMNS = {"video_id", "clip_id", "text", "label", "mode"}
MOSEI_LABELS = re.compile(r"cmu_mosei_labels?\.csd", re.IGNORECASE)
MER_COLUMNS = {"name", "discrete"}
_MER_SPLIT = re.compile(r"train|test\d*|dev|val|semi", re.IGNORECASE)
_MODES = {"train": "train", "valid": "dev", "val": "dev", "dev": "dev", "test": "test"}
_SUBTITLES = ("label-transcription.csv", "subtitle_chieng.csv", "transcription-engchi-polish.csv")


# --- CMU-MOSEI -----------------------------------------------------------------------------------------------------


def read_mosei(request: CorpusRequest) -> CorpusRows:
    """Reads CMU-MOSEI: the table of MMSA, `label.csv` with `Raw/VIDEO/3.mp4`, or `CMU_MOSEI_Labels.csd` with `VIDEO.mp4`.

    The table has sentiments, in the official splits. The file of the CMU-MultimodalSDK has emotions, and segments that
    are cut out of whole videos; its splits share no video.

    Args:
        request ([`CorpusRequest`]): The folder or the file, and for the second the fold.

    Returns:
        [`CorpusRows`]: A row for each segment. The speaker is the video: one person is in each.

    Raises:
        DataError: if there is neither, or a label cannot be used.
        ImportError: if the second is there and h5py is not installed.
    """
    files = [request.path] if request.path.is_file() else list(walk(request.root))
    table = next((file for file in files if file.name.lower() == "label.csv"), None)
    if table is not None:
        return _read_sentiments(table, request)
    if labels := next((file for file in files if MOSEI_LABELS.fullmatch(file.name)), None):
        return _read_segments(labels, request)
    raise DataError(f"{request.path}: neither label.csv nor CMU_MOSEI_Labels.csd of CMU-MOSEI")


def _read_sentiments(table: Path, request: CorpusRequest) -> CorpusRows:
    rows = read_table(table, fallback="cp1252")
    if not rows or not rows[0].keys() >= MOSEI_COLUMNS:
        raise DataError(f"{table}: expected columns {', '.join(sorted(MOSEI_COLUMNS))}")
    labels = [_number(row["label"], table) for row in rows]
    if max(map(abs, labels)) <= 1:
        raise DataError(f"{table}: all labels are from -1 to 1, as of CH-SIMS; those of CMU-MOSEI are from -3 to 3")
    media, found = request.media, CorpusRows()
    words = {word: word for word in SENTIMENTS}
    for row, label in zip(rows, labels, strict=True):
        video, clip = row["video_id"].strip(), row["clip_id"].strip().removesuffix(".0")
        try:
            word, split = sentiment_word(label), _MODES[row["mode"].strip().lower()]
        except (ValueError, KeyError) as error:
            raise DataError(f"{table}: {video}, segment {clip}: {error}") from None
        found.add(
            words,
            word,
            media.find(clip, video) or media.find(f"{video}_{clip}"),
            name=f"{video}_{clip}",
            split=split,
            speaker=video,
            subtitle=row["text"].strip() or None,
            instruction=SENTIMENT_INSTRUCTION,
            response=f"The speaker's sentiment is {word}.",
        )
    return found


def _number(cell: str, table: Path) -> float:
    try:
        return float(cell)
    except ValueError:
        raise DataError(f"{table}: expected a number as label, found {cell!r}") from None


def _read_segments(labels: Path, request: CorpusRequest) -> CorpusRows:
    segments = _read_csd(labels)
    tenths = tenths_by_share(video for video, times, _ in segments for _ in times)
    words = {word: word for word in (*MOSEI_EMOTIONS, "neutral")}
    media, found = request.media, CorpusRows()
    for video, times, values in logging.tqdm(segments, desc="Reading videos", leave=False):
        file = media.find(video)
        cutter = ClipCutter(file, request.clips) if file else None
        try:
            for number, ((start, end), row) in enumerate(zip(times, values, strict=True)):
                emotions = [word for value, word in zip(row[1:], MOSEI_EMOTIONS, strict=True) if value > 0]
                emotions.sort(key=lambda word, row=row: -row[1 + MOSEI_EMOTIONS.index(word)])  # type: ignore[misc]
                name = f"{video}_{number}"
                clip = cutter.cut(name, float(start), float(end)) if cutter else None
                split = part_of(tenths[video], request.fold)
                found.add(words, emotions or ["neutral"], clip, name=name, split=split, speaker=video)
        finally:
            if cutter is not None:
                cutter.__exit__()
    return found


def _read_csd(path: Path) -> list[tuple[str, Any, Any]]:
    """Reads the segments (seconds) and the sentiment and six emotions of each video."""
    try:
        import h5py
    except ImportError:
        raise ImportError(f"{path}: .csd files need h5py; pip install 'microemo[corpora]'") from None
    try:
        with h5py.File(path) as file:
            (sequence,) = file.values()
            videos = {name: (part["intervals"][:], part["features"][:]) for name, part in sequence["data"].items()}
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{path}: not the labels of CMU-MOSEI ({error})") from None
    for name, (times, values) in videos.items():
        if times.shape[1:] != (2,) or values.shape != (len(times), 1 + len(MOSEI_EMOTIONS)):
            raise DataError(
                f"{path}: {name}: expected a start, an end and 7 labels, found {times.shape}, {values.shape}"
            )
    return [(name, *parts) for name, parts in sorted(videos.items())]


# --- MER -----------------------------------------------------------------------------------------------------------


def read_mer(request: CorpusRequest) -> CorpusRows:
    """Reads the labels of MER2023 (`train-label.csv`), MER2024 (`label-disdim.csv`) or MER2025 (`track1_train_disdim.csv`).

    Subtitles are those of `label-transcription.csv`, `subtitle_chieng.csv` or `transcription-engchi-polish.csv`.

    Args:
        request ([`CorpusRequest`]): The folder or one table, and the language of the subtitles.

    Returns:
        [`CorpusRows`]: A row for each clip in the official splits. There are no speakers.

    Raises:
        DataError: if there is no table, or a label is unknown.
    """
    files = list(walk(request.root))
    candidates = [request.path] if request.path.is_file() else [file for file in files if file.suffix == ".csv"]
    tables = [(file, rows) for file in candidates if (rows := _mer_rows(file))]
    if not tables:
        raise DataError(f"{request.path}: no table of MER with the columns name and discrete")
    spoken: dict[str, str] = {}
    for file in files:
        if file.name.lower() in _SUBTITLES:
            spoken |= sentences(read_table(file, fallback="gb18030"), request.language)
    media, found = request.media, CorpusRows()
    for file, rows in tables:
        split = _MER_SPLIT.search(file.stem)
        for row in rows:
            name = row["name"].strip()
            found.add(
                MER,
                row["discrete"],
                media.find(name),
                name=name,
                split=_MODES.get(split[0].lower(), split[0].lower()) if split else "train",
                subtitle=spoken.get(name),
            )
    return found


def _mer_rows(file: Path) -> list[dict[str, str]]:
    rows = read_table(file, fallback="gb18030")
    return rows if rows and rows[0].keys() >= MER_COLUMNS else []
