"""RAVDESS and MELD on the Hub, as `mteb/RAVDESS_AV` and `mteb/MELD`: clips in the rows of Parquet files.

Columns of the first: video_id, video, audio, gender, emotion, transcription; of the second: video_id, video, audio, utterance,
speaker, emotion, sentiment. Each has the split `test` alone, which is divided here by speaker.
"""

from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset, concatenate_datasets, load_dataset
from transformers.utils import logging

from ...processing.media import probe
from ..clip_columns import without_decoding
from ..data_checks import DataError
from ..label_tables import SOUND_SUFFIXES, VIDEO_SUFFIXES
from .acted_corpora import RAVDESS_NAME, ravdess_part
from .clip_files import store_clip
from .corpus_reading import CorpusRequest, CorpusRows, part_of, tenths_by_share, walk
from .corpus_words import MELD, RAVDESS
from .dialogue_corpora import mend_text

# The columns by which each is recognised in Parquet files.
RAVDESS_COLUMNS = {"video_id", "video", "emotion", "transcription"}
MELD_HUB_COLUMNS = {"video_id", "video", "emotion", "utterance", "speaker"}


def read_hub_ravdess(request: CorpusRequest) -> CorpusRows:
    """Reads `mteb/RAVDESS_AV` or a folder with its Parquet files.

    Args:
        request ([`CorpusRequest`]): The id or folder, and the fold, see [`ravdess_part`].

    Returns:
        [`CorpusRows`]: A row for each clip.

    Raises:
        DataError: if a column is missing, or a clip is not named as in RAVDESS.
    """
    table = _load(request, RAVDESS_COLUMNS)
    found, audio = CorpusRows(), _takes_audio(table)
    for row in logging.tqdm(table, desc="Reading clips", leave=False):
        stem = Path(row["video_id"]).stem
        if not RAVDESS_NAME.fullmatch(stem):
            raise DataError(
                f"{request.path}: expected a video_id as 01-01-06-01-02-01-12.mp4, found {row['video_id']!r}"
            )
        actor = stem[-2:]
        found.add(
            RAVDESS,
            _text(table, row, "emotion"),
            _store(row, "video", request.clips),
            name=stem,
            split=ravdess_part(int(actor), request.fold),
            speaker=f"actor {actor}",
            subtitle=row["transcription"] or None,
            audio=str(_store(row, "audio", request.clips)) if audio else None,
        )
    return found


def read_hub_meld(request: CorpusRequest) -> CorpusRows:
    """Reads `mteb/MELD` or a folder with its Parquet files. They are the official test split, divided by speaker.

    Args:
        request ([`CorpusRequest`]): The id or folder, and the fold.

    Returns:
        [`CorpusRows`]: A row for each utterance.

    Raises:
        DataError: if a column is missing.
    """
    table = _load(request, MELD_HUB_COLUMNS)
    speakers = table.remove_columns([name for name in table.column_names if name != "speaker"])
    tenths = tenths_by_share(_text(table, row, "speaker") for row in speakers)
    found, audio = CorpusRows(), _takes_audio(table)
    for row in logging.tqdm(table, desc="Reading clips", leave=False):
        speaker = _text(table, row, "speaker")
        found.add(
            MELD,
            _text(table, row, "emotion"),
            _store(row, "video", request.clips),
            name=Path(row["video_id"]).stem,
            split=part_of(tenths[speaker], request.fold),
            speaker=speaker,
            subtitle=mend_text(row["utterance"] or "") or None,
            audio=str(_store(row, "audio", request.clips)) if audio else None,
        )
    return found


def _load(request: CorpusRequest, columns: set[str]) -> Dataset:
    if request.path.is_dir():
        files = [str(file) for file in walk(request.path) if file.suffix == ".parquet"]
        if not files:
            raise DataError(f"{request.path}: no .parquet files in it")
        table = load_dataset("parquet", data_files=files, split="train")
    else:
        table = concatenate_datasets(list(load_dataset(request.path.as_posix()).values()))
    if not columns <= set(table.column_names):
        missing = ", ".join(sorted(columns - set(table.column_names)))
        raise DataError(f"{request.path}: no column {missing}; there are {', '.join(table.column_names)}")
    return without_decoding(table)


def _text(table: Dataset, row: dict, column: str) -> str:
    feature, value = table.features[column], row[column]
    if isinstance(feature, ClassLabel):
        return feature.int2str(value)
    return str(value)


def _takes_audio(table: Dataset) -> bool:
    """Returns whether sound stands in a column of its own alone. The clips of both data sets have theirs in the video."""
    if "audio" not in table.column_names or not len(table):
        return False
    video = table[0]["video"]
    return not probe(video["bytes"] or video["path"]).has_audio


def _store(row: dict[str, Any], column: str, folder: Path) -> Path | None:
    media = row[column]
    if not media or not media.get("bytes"):
        path = Path((media or {}).get("path") or "")
        return path.absolute() if path.is_file() else None
    suffix = Path(media.get("path") or row["video_id"]).suffix.lower()
    if column == "video":
        suffix = suffix if suffix in VIDEO_SUFFIXES else ".mp4"
    elif suffix not in SOUND_SUFFIXES:
        suffix = ".wav"
    return store_clip(media["bytes"], folder, Path(row["video_id"]).stem + suffix)
