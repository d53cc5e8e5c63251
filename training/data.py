"""Data sets for training: a table is read, and each of its rows becomes a conversation.

A row holds a clip and a conversation about it:

| column | content |
|---|---|
| `video` | the clip's file, relative to the table or to `media_folder` (or a `datasets` video) |
| `audio` | a sound file in place of the clip's own, or without a clip |
| `subtitles` | an SRT, WebVTT or Whisper JSON file; or `utterances`, a list of `{start, end, text, speaker?}`; or `subtitle`, one sentence without times |
| `messages` | a conversation, whose answers are all learned; or `instruction` and `response` |
| `emotions` | open-vocabulary labels; without a conversation they are asked for, see `training/label_tables.py` |
| `name`, `split`, `speaker` | optional |

{"video": "a.mp4", "subtitles": "a.srt", "instruction": "What does the speaker feel, and why?", "response": "...", "emotions": ["sad"]}

The answer about one utterance may cite it: `{"type": "utterance", "index": 2}` in a message's list of contents.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset, load_dataset, load_from_disk
from datasets.exceptions import DatasetGenerationError

from ..evaluation.emotion_labels import parse_labels
from ..processing.clip_reader import ClipInput, clip_duration
from ..utils.files import read_json, read_json_lines, read_table
from ..utils.keywords import suggestion
from .clip_columns import media_source, without_decoding
from .corpora.corpus_list import CORPORA, Corpus, CorpusOptions, find_corpus, read_corpus
from .data_checks import COLUMNS, FILE_COLUMNS, DataError, is_empty, report_problems, row_problems
from .label_tables import (
    CONVERSATION_COLUMNS,
    LABELS_INSTRUCTION,
    VIDEO_SUFFIXES,
    LabelColumns,
    labels_answer,
    read_label_table,
)

READERS: dict[str, Any] = {".jsonl": read_json_lines, ".json": read_json, ".parquet": None, ".csv": read_table}

# The EMER annotators named the emotions, and the clues for them (EMER, AffectGPT).
EMER_INSTRUCTION = "What does the speaker feel, and which clues in the face, the voice and the words tell so?"


FileName = str | Path


# --- tables --------------------------------------------------------------------------------------------------------


def load_table(
    source: FileName,
    split: str | None = None,
    media_folder: FileName | None = None,
    subtitles: FileName | None = None,
    labels: FileName | None = None,
    language: str = "english",
    columns: LabelColumns | None = None,
    corpus: CorpusOptions | None = None,
) -> Dataset:
    """Loads the rows of a data set, with absolute file names.

    Args:
        source (`str` or `Path`):
            A .jsonl, .json, .csv or .parquet file; a folder with `metadata.jsonl`, `.csv` or `.parquet` beside the
            clips (`file_name` may name the clip), or one that `Dataset.save_to_disk` wrote; or a Hub id. An annotation
            file of EMER or OV-MERD is recognised by its columns, see [`import_emer`], and a corpus such as RAVDESS by its
            layout, see [`read_corpus`].
        split (`str`, *optional*):
            The value of the `split` column in the rows that are kept. For a Hub id, the split to load, by default
            `"train"`.
        media_folder (`str` or `Path`, *optional*):
            The folder that relative file names start from. By default the folder of the table.
        subtitles (`str` or `Path`, *optional*): The subtitle table of an annotation file, see [`import_emer`].
        labels (`str` or `Path`, *optional*): The label table of an annotation file, see [`import_emer`].
        language (`str`, *optional*, defaults to `"english"`): The language of an annotation file, see [`import_emer`].
        columns ([`LabelColumns`], *optional*):
            The columns of a table of labels, see [`read_label_table`]. A table with `emotions` and without a conversation
            is one by itself.
        corpus ([`CorpusOptions`], *optional*): How a corpus is read. By default it is recognised, if it is one.

    Returns:
        `Dataset`: The rows.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if there is no such corpus or fold.
        DataError: if a file cannot be read, a column is unknown, or the split has no rows.
    """
    path = Path(source)
    known = None if columns is not None else corpus_of(source, corpus)
    if path.is_dir() and known is None and not (path / "state.json").is_file():
        metadata_files = _metadata(path)
        if not metadata_files:
            raise FileNotFoundError(
                f"{path}: a folder without metadata.jsonl, metadata.csv or metadata.parquet, and its layout is that of no "
                f"corpus ({', '.join(CORPORA)})"
            )
        path = metadata_files[0]
    if known is not None:
        table = read_corpus(source, known, corpus, media_folder, language)
    elif path.is_dir():
        table = load_from_disk(str(path))
    elif path.is_file():
        if columns is None and is_emer(path):
            table = import_emer(path, media_folder or path.parent, subtitles, labels, language)
        else:
            table = _read_file(path)
    elif re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)) and not path.suffix:
        table, split = load_dataset(str(source), split=split or "train"), None
    else:
        raise FileNotFoundError(f"{source}: no such file or folder, and no Hub id")

    if columns is None and "file_name" in table.column_names and "video" not in table.column_names:
        table = table.rename_column("file_name", "video")
    table = without_decoding(table)
    root = Path(media_folder) if media_folder else path.parent
    if columns is None:
        _check_columns(table.column_names, source)
        if "emotions" in table.column_names and not set(CONVERSATION_COLUMNS) & set(table.column_names):
            columns = LabelColumns(("emotions",))
    if columns is not None:
        table = read_label_table(table, columns, root, str(source))
    if split is not None:
        if "split" not in table.column_names:
            raise DataError(f"{source}: split {split!r} was asked for, but there is no column `split`")
        selected = [row for row, value in enumerate(table["split"]) if value == split]
        if not selected:
            splits = ", ".join(sorted({str(value) for value in table["split"]}))
            raise DataError(f"{source}: no rows of split {split!r}; there are {splits}")
        table = table.select(selected)
    return table.map(lambda row: _resolve(row, root), desc="Reading rows") if path.exists() else table


def corpus_of(source: FileName, options: CorpusOptions | None = None) -> Corpus | None:
    """Finds out whether data are a corpus that [`read_corpus`] reads. JSON rows are none, nor is a folder with `metadata`.

    Args:
        source (`str` or `Path`): A file, a folder or a Hub id, see [`load_table`].
        options ([`CorpusOptions`], *optional*): The options, of which the name decides.

    Returns:
        [`Corpus`], *optional*: The corpus, or `None`.

    Raises:
        ValueError: if there is no such corpus, or a fold is named and the data are no corpus.
    """
    name = options.name if options else None
    path = Path(source)
    if path.suffix.lower() in (".jsonl", ".json"):
        return None  # rows for training, perhaps beside a corpus
    is_table = path.is_dir() and ((path / "state.json").is_file() or _metadata(path))
    corpus = None if is_table and name is None else find_corpus(source, name)
    if corpus is None and options is not None and options.fold is not None:
        raise ValueError(f"{source}: a fold is named, but the layout is that of no corpus ({', '.join(CORPORA)})")
    return corpus


def _metadata(folder: Path) -> list[Path]:
    return [folder / f"metadata{suffix}" for suffix in READERS if (folder / f"metadata{suffix}").is_file()]


def _read_file(path: Path) -> Dataset:
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise DataError(f"{path}: expected {', '.join(READERS)}, found {path.suffix or 'no suffix'!r}")
    if suffix == ".parquet":
        try:
            return load_dataset("parquet", data_files=str(path), split="train")
        except DatasetGenerationError as error:
            raise DataError(f"{path}: {error.__cause__}") from None
    rows = _read_rows(path, READERS[suffix])
    if not rows:
        raise DataError(f"{path}: no rows in it")
    if suffix == ".csv":
        rows = [
            {name: _cell(name, value, f"{path}, row {number}") for name, value in row.items()}
            for number, row in enumerate(rows, start=1)
        ]
    names = list(dict.fromkeys(name for row in rows for name in row))
    try:
        return Dataset.from_list([{name: row.get(name) for name in names} for row in rows], on_mixed_types="use_json")
    except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:  # cells that no column can hold
        problems = {number: row_errors for number, row in enumerate(rows) if (row_errors := row_problems(row))}
        raise DataError(report_problems(rows, problems, path.name) if problems else f"{path}: {error}") from None


def _read_rows(path: Path, reader: Callable[[Path], Any]) -> list[dict]:
    try:
        rows = reader(path)
    except ValueError as error:
        raise DataError(str(error)) from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path}: expected a list of rows (objects), found {rows!r:.80}")
    return rows


def _cell(name: str, value: str, where: str) -> Any:
    """Parses a cell of a CSV file; `messages` and `utterances` hold JSON."""
    if name == "emotions":
        return parse_labels(value)
    if name in ("messages", "utterances"):
        try:
            return json.loads(value) if value else None
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: {name} must hold JSON ({error}), found {value[:80]!r}") from None
    return value or None


def _check_columns(names: Iterable[str], source: FileName) -> None:
    unknown = [name for name in names if name not in COLUMNS]
    if unknown:
        hints = []
        for name in unknown:
            if name.startswith("__index_level_"):
                hints.append(f"{name!r} (the index of a pandas table: write the file with index=False)")
            else:
                hints.append(repr(name) + suggestion(name, COLUMNS))
        raise DataError(f"{source}: unknown column {', '.join(hints)}; a row may have {', '.join(COLUMNS)}")


def _resolve(row: dict, root: Path) -> dict:
    for name in FILE_COLUMNS:
        value = row.get(name)
        if isinstance(value, str) and value and "://" not in value:
            row[name] = str((root / value).absolute())
    return row


# --- EMER, OV-MERD -------------------------------------------------------------------------------------------------


def is_emer(path: str | Path) -> bool:
    """Checks whether a .csv file is an annotation file that [`import_emer`] reads.

    Args:
        path (`str` or `Path`): The file.

    Returns:
        `bool`: Whether it has the columns of such a file.

    Raises:
        DataError: if the .csv file cannot be read.
    """
    if Path(path).suffix.lower() != ".csv":
        return False
    columns = {name for row in _read_rows(Path(path), read_table)[:1] for name in row}
    return any(
        required <= columns
        for required in (
            *({"names", "reasons"}, {"name", "english", "chinese"}),
            *({"name", "openset"}, {"name", "reason"}),
        )
    )


def import_emer(
    annotation: FileName,
    media_folder: FileName,
    subtitles: FileName | None = None,
    labels: FileName | None = None,
    language: str = "english",
) -> Dataset:
    """Imports the rows of a published annotation file.

    The videos are available from MER2023 and MER2024 under their licence.

    Args:
        annotation (`str` or `Path`):
            EMER-V1 `gt-eng.csv` or `gt-chi.csv` (names, emotions, subtitles, reasons), EMER-V2 `final-EMER-reason.csv`
            (name, chinese, english), or the labels of OV-MERD and OV-MERD+, `check-openset.csv` (name, openset), whose
            answers are the labels themselves. MER2025 has both kinds: `track2_train_ovmerd.csv` (name, openset) and
            `track3_train_ovmerd.csv` (name, reason), and the same for MER-Caption+.
        media_folder (`str` or `Path`): The folder that holds NAME.mp4 (or .avi, .mkv, ...).
        subtitles (`str` or `Path`, *optional*):
            The table `transcription-engchi-polish.csv` of MER2023 (name, chinese, english), which has one sentence
            without times for each clip.
        labels (`str` or `Path`, *optional*): A `check-openset.csv` whose labels fill `emotions`.
        language (`str`, *optional*, defaults to `"english"`):
            The language of EMER-V2 and of the subtitles, `"english"` or `"chinese"`.

    Returns:
        `Dataset`: Rows with name, split (see [`emer_split`]), video, subtitle, instruction, response and emotions.

    Raises:
        DataError: if a file lacks the columns. The message names those that it has.
    """
    if language not in ("english", "chinese"):
        raise DataError(f"language must be english or chinese, got {language!r}")
    rows = _read_rows(Path(annotation), read_table)
    sentences = _by_name(subtitles, language) if subtitles else {}
    labels_by_name = (
        {name: parse_labels(value) for name, value in _by_name(labels, "openset").items()} if labels else {}
    )
    columns = set(rows[0]) if rows else set()
    imported = []
    for row in rows:
        if {"names", "reasons"} <= columns:
            name, answer, own_labels = row["names"], row["reasons"], parse_labels(row.get("emotions"))
            sentence = row.get("subtitles")
        elif {"name", "english", "chinese"} <= columns:
            name, answer, own_labels, sentence = row["name"], row[language], [], None
        elif {"name", "reason"} <= columns:
            name, answer, own_labels, sentence = row["name"], row["reason"], [], None
        elif {"name", "openset"} <= columns:
            name, own_labels, sentence = row["name"], parse_labels(row["openset"]), None
            answer = labels_answer(own_labels)
        else:
            raise DataError(
                f"{annotation}: no annotation file of EMER or OV-MERD, columns {', '.join(sorted(columns))}"
            )
        imported.append(
            {
                "name": name,
                "video": str(_find_video(Path(media_folder), name)),
                "subtitle": sentence or sentences.get(name) or None,
                "instruction": LABELS_INSTRUCTION if "openset" in columns else EMER_INSTRUCTION,
                "response": answer,
                "emotions": labels_by_name.get(name, own_labels),
            }
        )
    if not imported:
        raise DataError(f"{annotation}: no rows in it")
    parts = emer_split(row["name"] for row in imported)
    return Dataset.from_list([{**row, "split": parts[row["name"]]} for row in imported])


def _by_name(path: FileName, column: str) -> dict[str, str]:
    rows = _read_rows(Path(path), read_table)
    if not rows or not {"name", column} <= rows[0].keys():
        raise DataError(
            f"{path}: expected columns name and {column}, found {', '.join(rows[0]) if rows else 'no rows'}"
        )
    return {row["name"]: row[column] for row in rows}


def _find_video(folder: Path, name: str) -> Path:
    paths = [folder / f"{name}{suffix}" for suffix in VIDEO_SUFFIXES]
    return next((path for path in paths if path.is_file()), paths[0]).absolute()


def emer_split(names: Iterable[str]) -> dict[str, str]:
    """Assigns each EMER name to a fixed split, since the split of the paper is unpublished.

    The names are sorted by the SHA-256 of their UTF-8 bytes (as hexadecimal text). The first fifth, rounded down, is
    `"test"`, and the rest is `"train"`. The 332 clips of EMER-V2 (= EMER-Fine = OV-MERD) give 66 and 266.

    Args:
        names (`Iterable[str]`): The names of all clips.

    Returns:
        `dict[str, str]`: The split of each name.

    Example:

    ```python
    >>> from microemo.training.data import emer_split

    >>> emer_split(["sample_00000000", "sample_00000007"])
    {'sample_00000000': 'train', 'sample_00000007': 'train'}
    ```
    """
    names = list(dict.fromkeys(names))
    first = sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())[: len(names) // 5]
    return {name: "test" if name in set(first) else "train" for name in names}


# --- rows to conversations -----------------------------------------------------------------------------------------


def to_conversation(row: dict) -> list[dict]:
    """Converts a row to the messages that `apply_chat_template` takes.

    Args:
        row (`dict`): A row of the data set.

    Returns:
        `list[dict]`: The messages of the row, with its clip in the first message of the user.
    """
    turns = row.get("messages") or [
        {"role": "user", "content": row["instruction"]},
        {"role": "assistant", "content": row["response"]},
    ]
    clip, messages = _clip_items(row), []
    for turn in turns:
        content = turn["content"]
        items = [{"type": "text", "text": content}] if isinstance(content, str) else content
        # A table's rows share their keys: those of other rows are None here.
        items = [{key: value for key, value in item.items() if value is not None} for item in items]
        items = [item for item in items if item["type"] not in ("video", "audio")]
        if turn["role"] == "user":
            clip, items = [], clip + items
        messages.append({"role": turn["role"], "content": items})
    return messages


def _clip_items(row: dict) -> list[dict]:
    speech: dict[str, Any] = {}
    sources = {kind: media_source(row[kind]) for kind in ("video", "audio") if not is_empty(row.get(kind))}
    for name in ("subtitles", "utterances"):
        if row.get(name):
            speech = {"utterances": _without_none(row[name])}
    if row.get("subtitle") and not speech:
        # A sentence without times: somebody says it somewhere in the clip.
        end = clip_duration(ClipInput(**{kind: source for kind, (_, source) in sources.items()}))
        speech = {"utterances": [{"start": 0.0, "end": end, "text": row["subtitle"]}]}
    items = [{"type": kind, key if key == "path" else kind: source} for kind, (key, source) in sources.items()]
    if items:
        items[0] |= speech
    return items


def _without_none(utterances: str | list[dict]) -> str | list[dict]:
    if isinstance(utterances, str):
        return utterances
    return [{key: value for key, value in utterance.items() if value is not None} for utterance in utterances]
