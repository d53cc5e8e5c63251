"""The corpora that training reads as their users have them, recognised by their layout or named.

microemo train stage2 --model_name_or_path microemo-7b --train_data RAVDESS --eval_data RAVDESS --output_dir run
microemo train stage2 --model_name_or_path microemo-7b --train_data IEMOCAP_full_release --corpus iemocap --fold 1 --output_dir run
"""

import csv
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset
from huggingface_hub.constants import HF_HOME
from transformers.utils import logging

from ..data_checks import DataError
from ..label_tables import SOUND_SUFFIXES, VIDEO_SUFFIXES, LabelColumns, read_label_table
from .acted_corpora import CREMA_D_NAME, RAVDESS_FOLDS, RAVDESS_NAME, read_crema_d, read_ravdess
from .corpus_reading import CorpusRequest, CorpusRows
from .dialogue_corpora import IEMOCAP_SESSIONS, MELD_TABLE, read_iemocap, read_meld
from .film_corpora import DFEW_SPLIT, OFFICIAL_FOLDS, read_dfew, read_mafw, read_mafw_compound
from .hub_corpora import MELD_HUB_COLUMNS, RAVDESS_COLUMNS, read_hub_meld, read_hub_ravdess
from .sentiment_corpora import MER_COLUMNS, MOSEI_COLUMNS, MOSEI_LABELS, read_mer, read_mosei

logger = logging.get_logger("microemo.training.corpora.corpus_list")

_MOST_NAMED = 5  # in a message
_DEPTH = 4  # folders below the first in which a layout shows
_SOME_FILES, _SOME_FOLDERS = 20, 200  # looked at in each folder
_TABLES = (".csv", ".xlsx", ".txt", ".csd", ".parquet")


@dataclass(frozen=True)
class CorpusOptions:
    """How a corpus is read.

    Attributes:
        name (`str`, *optional*): The name of the corpus. By default it is recognised by its layout.
        fold (`int`, *optional*): The fold of a corpus that has folds. By default that of the corpus.
        clips (`str` or `Path`, *optional*):
            The folder for clips that are cut out of longer videos or stored out of Parquet rows. By default a folder
            below that of the Hub's files.
    """

    name: str | None = None
    fold: int | None = None
    clips: str | Path | None = None


@dataclass(frozen=True)
class Corpus:
    """A corpus that training reads.

    Attributes:
        name (`str`): Its name as an option.
        read (`Callable`): The reader.
        shows (`Callable`): A function that tells from the files of a folder, relative to it, whether it is the corpus.
        folds (`int`): The number of folds; 0 if it has none.
        fold (`int`, *optional*, defaults to 1): The fold that is read by default.
        hub_id (`str`, *optional*): Its id on the Hub.
        shared_speakers (`str`, *optional*): Why its parts may have speakers in common, if they may.
    """

    name: str
    read: Callable[[CorpusRequest], CorpusRows]
    shows: Callable[[Path, list[Path]], bool]
    folds: int = 0
    fold: int = 1
    hub_id: str | None = None
    shared_speakers: str | None = None


def _named(pattern: re.Pattern) -> Callable[[Path, list[Path]], bool]:
    return lambda root, files: any(_is_media(file) and pattern.fullmatch(file.stem) for file in files)


def _with_columns(
    columns: set[str], suffix: str = ".csv", name: str | None = None
) -> Callable[[Path, list[Path]], bool]:
    return lambda root, files: any(
        columns <= _columns(root / file)
        for file in files
        if file.suffix.lower() == suffix and name in (None, file.name.lower())
    )


def _mafw(kind: str) -> Callable[[Path, list[Path]], bool]:
    table = "single-set.xlsx" if kind == "single" else "multi-set.xlsx"
    return lambda root, files: any(
        file.name.lower() == table or {kind, "no_caption"} <= {part.lower() for part in file.parts} for file in files
    )


def _mosei(root: Path, files: list[Path]) -> bool:
    return any(MOSEI_LABELS.fullmatch(file.name) for file in files) or _with_columns(MOSEI_COLUMNS, name="label.csv")(
        root, files
    )


CORPORA = {
    corpus.name: corpus
    for corpus in (
        Corpus("ravdess", read_ravdess, _named(RAVDESS_NAME), RAVDESS_FOLDS),
        Corpus("crema-d", read_crema_d, _named(CREMA_D_NAME), 5),
        Corpus(
            "meld",
            read_meld,
            lambda root, files: any(MELD_TABLE.fullmatch(file.name) for file in files),
            shared_speakers="the six main speakers of the series are in all official splits",
        ),
        Corpus(
            "iemocap",
            read_iemocap,
            lambda root, files: any("EmoEvaluation" in file.parts for file in files),
            IEMOCAP_SESSIONS,
            fold=IEMOCAP_SESSIONS,
        ),
        Corpus(
            "mafw",
            read_mafw,
            _mafw("single"),
            OFFICIAL_FOLDS,
            shared_speakers="the official folds are divided by clip, and no speaker is named",
        ),
        Corpus(
            "mafw-compound",
            read_mafw_compound,
            _mafw("compound"),
            OFFICIAL_FOLDS,
            shared_speakers="the official folds are divided by clip, and no speaker is named",
        ),
        Corpus(
            "dfew",
            read_dfew,
            lambda root, files: any(
                re.fullmatch(r"set_\d\.csv", file.name.lower()) and DFEW_SPLIT.search(file.parent.name)
                for file in files
            ),
            OFFICIAL_FOLDS,
            shared_speakers="the official folds are divided by clip, and no speaker is named",
        ),
        Corpus(
            "mosei",
            read_mosei,
            _mosei,
            5,
            shared_speakers="one person is in a video, but who is in several videos is not known",
        ),
        Corpus("mer", read_mer, _with_columns(MER_COLUMNS), shared_speakers="no speaker is named"),
        Corpus(
            "ravdess-hub",
            read_hub_ravdess,
            _with_columns(RAVDESS_COLUMNS, ".parquet"),
            RAVDESS_FOLDS,
            hub_id="mteb/RAVDESS_AV",
        ),
        Corpus("meld-hub", read_hub_meld, _with_columns(MELD_HUB_COLUMNS, ".parquet"), 5, hub_id="mteb/MELD"),
    )
}


def find_corpus(source: str | Path, name: str | None = None) -> Corpus | None:
    """Finds out which corpus a folder, a table or a Hub id is.

    Args:
        source (`str` or `Path`): The folder, the table or the Hub id.
        name (`str`, *optional*): The name of the corpus, where it is known.

    Returns:
        [`Corpus`], *optional*: The corpus, or `None` if the layout is that of no corpus.

    Raises:
        ValueError: if there is no corpus of that name.
    """
    if name is not None:
        if name not in CORPORA:
            raise ValueError(f"corpus must be {', '.join(CORPORA)}, got {name!r}")
        return CORPORA[name]
    path = Path(source)
    if path.is_dir():
        root, files = path, _glimpse(path)
    elif path.is_file():
        root, files = path.parent, [Path(path.name)] if path.suffix.lower() != ".parquet" else []
    else:
        same = (
            corpus for corpus in CORPORA.values() if corpus.hub_id and corpus.hub_id.lower() == str(source).lower()
        )
        return next(same, None)
    return next((corpus for corpus in CORPORA.values() if corpus.shows(root, files)), None)


def read_corpus(
    source: str | Path,
    corpus: Corpus,
    options: CorpusOptions | None = None,
    media_folder: str | Path | None = None,
    language: str = "english",
) -> Dataset:
    """Reads a corpus as rows for training, and logs what is in it.

    Args:
        source (`str` or `Path`): The folder, a table of it, or the Hub id.
        corpus ([`Corpus`]): The corpus.
        options ([`CorpusOptions`], *optional*): How it is read.
        media_folder (`str` or `Path`, *optional*): The folder of the clips. By default they are found in that of the corpus.
        language (`str`, *optional*, defaults to `"english"`): The language of subtitles that are there in several.

    Returns:
        `Dataset`: Rows with name, split, speaker where it is known, clip, emotions, instruction and response.

    Raises:
        FileNotFoundError: if there is no such file or folder.
        ValueError: if the corpus has no such fold.
        DataError: if the layout is another, a label is unknown, or not one clip is there.
    """
    options = options or CorpusOptions()
    fold = corpus.fold if options.fold is None else options.fold
    if options.fold is not None and not 1 <= fold <= corpus.folds:
        has = f"has folds 1 to {corpus.folds}" if corpus.folds else "has no folds"
        raise ValueError(f"fold {fold} of {corpus.name}, which {has}")
    path = Path(source)
    if not path.exists() and str(source).lower() != (corpus.hub_id or "").lower():
        raise FileNotFoundError(f"{source}: no such file or folder")
    clips = Path(options.clips or Path(HF_HOME, "microemo", "clips")) / corpus.name
    request = CorpusRequest(path, fold, clips, Path(media_folder) if media_folder else None, language)
    found = corpus.read(request)
    _report(f"{source} ({corpus.name})", corpus, found)
    if not found.rows:
        raise DataError(
            f"{source}: no clip of {corpus.name} in {request.media_folder or request.root}"
            + (f"; its tables name {len(found.missing)}, as {_some(found.missing)}" if found.missing else "")
        )
    names = list(dict.fromkeys(name for row in found.rows for name in row if row[name] is not None))
    rows = [{name: row.get(name) for name in names} for row in found.rows]
    return read_label_table(Dataset.from_list(rows), LabelColumns(("emotions",)), path.parent, str(source))


def _report(name: str, corpus: Corpus, found: CorpusRows) -> None:
    if found.dropped:
        labels = ", ".join(f"{label} {count}" for label, count in found.dropped.most_common())
        logger.warning(f"{name}: {found.dropped.total()} rows without an emotion are left out: {labels}")
    if found.missing and found.rows:
        listed = len(found.missing) + len(found.rows)
        logger.warning(f"{name}: {len(found.missing)} of {listed} clips are missing: {_some(found.missing)}")
    if corpus.shared_speakers:
        logger.warning(f"{name}: the splits may have speakers in common: {corpus.shared_speakers}")


def _some(names: list[str]) -> str:
    return ", ".join(names[:_MOST_NAMED]) + (", ..." if len(names) > _MOST_NAMED else "")


def _glimpse(folder: Path) -> list[Path]:
    """Lists files down to a depth: all tables, and some clips of each folder. There may be a folder for each clip."""
    files, folders = [], [(folder, 0)]
    while folders:
        here, depth = folders.pop()
        with os.scandir(here) as scanned:
            entries = sorted((entry for entry in scanned if not entry.name.startswith(".")), key=lambda e: e.name)
        inner = [Path(entry.path) for entry in entries if entry.is_dir()]
        found = [Path(entry.path) for entry in entries if not entry.is_dir()]
        tables = [file for file in found if file.suffix.lower() in _TABLES]
        media = [file for file in found if _is_media(file)]
        files += [*tables, *media[:_SOME_FILES]]
        if depth < _DEPTH:
            folders += [(path, depth + 1) for path in inner[:_SOME_FOLDERS]]
    return sorted(file.relative_to(folder) for file in files)


def _is_media(file: Path) -> bool:
    return file.suffix.lower() in (*VIDEO_SUFFIXES, *SOUND_SUFFIXES)


def _columns(file: Path) -> set[str]:
    """Reads the names of the columns, and none of a file that cannot be read: then it is of no corpus."""
    try:
        if file.suffix.lower() == ".parquet":
            return set(pq.read_schema(file).names)
        with open(file, encoding="utf-8-sig", errors="replace", newline="") as text:
            return {name.strip() for name in next(csv.reader(text), [])}
    except (OSError, csv.Error, pa.ArrowException):
        return set()
