"""DFEW and MAFW: short clips of films and broadcasts, in five official folds without speakers."""

import re
from pathlib import Path

from ...utils.files import read_table, read_text
from ..data_checks import DataError
from .corpus_reading import CorpusRequest, CorpusRows, walk
from .corpus_words import DFEW, MAFW

OFFICIAL_FOLDS = 5
DFEW_SPLIT = re.compile(r"(train|test).*single.?label", re.IGNORECASE)
_MAFW_SPLIT = re.compile(r"(train|test)\.(txt|csv)", re.IGNORECASE)


def read_dfew(request: CorpusRequest) -> CorpusRows:
    """Reads DFEW, `EmoLabel_DataSplit/train(single-labeled)/set_1.csv` with `Clip/original/.../00001.mp4`.

    Args:
        request ([`CorpusRequest`]): The folder and the official fold.

    Returns:
        [`CorpusRows`]: A row for each clip with a single label, in the splits train and test.

    Raises:
        DataError: if there are no tables of the fold, or they lack a column.
    """
    tables = [
        (match[1].lower(), file)
        for file in walk(request.root)
        if file.name.lower() == f"set_{request.fold}.csv" and (match := DFEW_SPLIT.search(file.parent.name))
    ]
    if not tables:
        raise DataError(f"{request.path}: no train(single-labeled)/set_{request.fold}.csv of DFEW")
    media, found = request.media, CorpusRows()
    for split, table in tables:
        for row in read_table(table):
            if not {"video_name", "label"} <= row.keys():
                raise DataError(f"{table}: expected columns video_name and label, found {', '.join(row)}")
            number = row["video_name"].strip().removesuffix(".mp4").removesuffix(".0").zfill(5)
            found.add(
                DFEW,
                row["label"].strip().removesuffix(".0"),
                media.find(number) or media.find(str(int(number))),
                name=number,
                split=split,
            )
    return found


def read_mafw(request: CorpusRequest) -> CorpusRows:
    """Reads the single labels of MAFW, `single/no_caption/set_1/train.txt` with lines such as "00025.mp4 sadness".

    Args:
        request ([`CorpusRequest`]): The folder and the official fold.

    Returns:
        [`CorpusRows`]: A row for each clip. Without split files, `single-set.xlsx` is read, and all of it is train.

    Raises:
        DataError: if there is neither.
    """
    return _read_mafw(request, "single")


def read_mafw_compound(request: CorpusRequest) -> CorpusRows:
    """Reads the compound labels of MAFW, as "00025.mp4 sadness_helplessness" in `compound/no_caption/set_1/train.txt`.

    Args:
        request ([`CorpusRequest`]): The folder and the official fold.

    Returns:
        [`CorpusRows`]: A row for each clip. Without split files, `multi-set.xlsx` is read, and all of it is train.

    Raises:
        DataError: if there is neither.
    """
    return _read_mafw(request, "compound")


def _read_mafw(request: CorpusRequest, kind: str) -> CorpusRows:
    files = list(walk(request.root))
    labelled = [
        (match[1].lower(), clip, label)
        for file in files
        if (match := _MAFW_SPLIT.fullmatch(file.name))
        and {kind, "no_caption", f"set_{request.fold}"} <= {part.lower() for part in file.parts}
        for clip, label in _mafw_lines(file)
    ]
    table = "single-set.xlsx" if kind == "single" else "multi-set.xlsx"
    if not labelled:
        labelled = [
            ("train", clip, label) for file in files if file.name.lower() == table for clip, label in _mafw_cells(file)
        ]
    if not labelled:
        raise DataError(f"{request.path}: neither {kind}/no_caption/set_{request.fold}/train.txt nor {table} of MAFW")
    media, found = request.media, CorpusRows()
    for split, clip, label in labelled:
        parts = [part for part in re.split(r"[_,;\s]+", label.strip()) if part]
        name = Path(clip).stem
        found.add(MAFW, parts, media.find(clip), name=name, split=split)
    return found


def _mafw_lines(file: Path) -> list[tuple[str, str]]:
    lines = [line.strip() for line in read_text(file).splitlines() if line.strip()]
    cells = [re.split(r"[\s,]+", line, maxsplit=1) for line in lines]
    for line, pair in zip(lines, cells, strict=True):
        if len(pair) != 2:
            raise DataError(f"{file}: expected a clip and its label, found {line!r}")
    return [(clip, label) for clip, label in cells if clip.lower().endswith(".mp4") or clip.isdigit()]


def _mafw_cells(file: Path) -> list[tuple[str, str]]:
    rows = read_table(file)
    first, *_, last = rows[0] if rows else ("", "")
    return [(row[first], re.sub(r"\.0\b", "", row[last])) for row in rows if row[first].strip()]
