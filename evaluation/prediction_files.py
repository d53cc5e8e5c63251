"""Reading what systems answered: JSONL, CSV, JSON and npz files, one answer for each named clip."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..utils.files import read_json, read_json_lines, read_table
from .raw_output import final_answer

NAME_FIELDS = ("name", "names", "filename", "video", "id")
LABEL_FIELDS = ("labels", "openset", "emotions", "emotion", "engemos", "emo")
TEXT_FIELDS = ("answer", "text", "reason", "reasons", "description", "english", "chi_reasons")


@dataclass(frozen=True)
class Answers:
    """One file's answers.

    Attributes:
        source: the file.
        kind: "labels" (lists, or their text) or "text" (free answers, from which labels must be extracted first).
        items: name -> answer.
    """

    source: Path
    kind: str
    items: dict[str, str | list[str]]


class NameMismatchError(ValueError):
    """Two files speak of different clips."""


def read_answers(path: str | Path, field: str | None = None) -> Answers:
    """Read predictions or references.

    Args:
        path: .jsonl (an object a line), .csv or .xlsx (a header), .json (name -> answer), or .npz (`filenames` and
            `fileitems`, read without unpickling).
        field: the column or key that holds the answer; by default the first of `LABEL_FIELDS`, else of `TEXT_FIELDS`.
            Texts that are lists without exception ("[happy, sad]") are label lists, whatever their field is called.
    Raises:
        ValueError: names the file and what was expected in it; also for a name that comes twice.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    readers = {
        ".jsonl": _from_jsonl,
        ".csv": _from_table,
        ".xlsx": _from_table,
        ".json": _from_json,
        ".npz": _from_npz,
    }
    suffix = path.suffix.lower()
    if suffix not in readers:
        raise ValueError(f"{path}: expected one of {', '.join(readers)}, found {path.suffix or 'no suffix'!r}")
    kind, pairs = readers[suffix](path, field)
    twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if twice:
        raise ValueError(f"{path}: {len(twice)} names come more than once: {_some(twice)}")
    return Answers(path, kind, dict(pairs))


def match(references: Answers, predictions: Answers, common: bool = False) -> tuple[list[str], list, list]:
    """Pair the answers of two files by name, in the references' order.

    Args:
        common: score the names that both hold; otherwise the two must hold the same names.
    Returns:
        names, truth, predicted.
    Raises:
        NameMismatchError: lists the names that only one of them holds.
    """
    names = [name for name in references.items if name in predictions.items]
    if not common and (len(names) < len(references.items) or len(names) < len(predictions.items)):
        without = [name for name in references.items if name not in predictions.items]
        unknown = [name for name in predictions.items if name not in references.items]
        raise NameMismatchError(
            f"{predictions.source} and {references.source} hold different names; "
            f"without a prediction: {len(without)} ({_some(without)}); without a reference: {len(unknown)} ({_some(unknown)})"
        )
    if not names:
        raise NameMismatchError(f"{predictions.source} and {references.source} have no name in common")
    return names, [references.items[name] for name in names], [predictions.items[name] for name in names]


def _some(names: Iterable[str], most: int = 10) -> str:
    names = list(names)
    return (", ".join(names[:most]) + (", ..." if len(names) > most else "")) or "none"


def _field(path: Path, available: Iterable[str], field: str | None) -> tuple[str, str]:
    """The column that holds the answer, and its kind."""
    available = list(available)
    if field is not None and field not in available:
        raise ValueError(f"{path}: has no field {field!r}, only {', '.join(available)}")
    for kind, fields in (("labels", LABEL_FIELDS), ("text", TEXT_FIELDS)):
        for candidate in fields if field is None else [field] if field in fields else []:
            if candidate in available:
                return candidate, kind
    if field is not None:
        return field, "text"
    raise ValueError(
        f"{path}: expected a field among {', '.join(LABEL_FIELDS + TEXT_FIELDS)}, found {', '.join(available)}"
    )


def _from_rows(path: Path, rows: list[dict], field: str | None):
    if not rows:
        raise ValueError(f"{path}: holds no row")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise ValueError(f"{path}, row {number}: expected an object, found {row!r:.120}")
    answer, kind = _field(path, rows[0], field)
    name = next((candidate for candidate in NAME_FIELDS if candidate in rows[0]), None)
    if name is None:
        raise ValueError(f"{path}: expected a field among {', '.join(NAME_FIELDS)}, found {', '.join(rows[0])}")
    for number, row in enumerate(rows, start=1):
        is_name = isinstance(row.get(name), (str, int)) and not isinstance(row[name], bool) and row[name] != ""
        if not is_name or answer not in row:
            raise ValueError(f"{path}, row {number}: expected {name!r} and {answer!r}, found {row!r:.120}")
        is_number = isinstance(row[answer], (int, float)) and not isinstance(row[answer], bool)
        if not (is_number and field is not None):  # a valence, say; labels are words
            _check_answer(f"{path}, row {number}, {answer}", row[answer])
    return _kind(kind, [row[answer] for row in rows]), [(str(row[name]), row[answer]) for row in rows]


def _check_answer(where: str, value) -> None:
    words = [word for word in value if word is not None] if isinstance(value, list) else []
    if not isinstance(value, (str, list, type(None))) or not all(isinstance(word, (str, list)) for word in words):
        raise ValueError(f"{where}: expected a text or a list of labels, found {type(value).__name__} {value!r:.80}")
    for word in words:
        if isinstance(word, list):
            _check_answer(where, word)


def _kind(kind: str, values: list) -> str:
    """Texts that are lists without exception are labels."""
    lists = all(not isinstance(value, str) or final_answer(value).startswith("[") for value in values)
    return "labels" if lists else kind


def _from_jsonl(path: Path, field: str | None):
    return _from_rows(path, read_json_lines(path), field)


def _from_table(path: Path, field: str | None):
    return _from_rows(path, read_table(path), field)


def _from_json(path: Path, field: str | None):
    content = read_json(path)
    if isinstance(content, list):
        return _from_rows(path, content, field)
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path}: expected an object name -> answer, found {type(content).__name__}")
    for name, value in content.items():
        _check_answer(f"{path}, {name}", value)
    return _kind("text", list(content.values())), list(content.items())


def _from_npz(path: Path, field: str | None):
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if field is not None or not {"filenames", "fileitems"} <= set(arrays.files):
                raise ValueError(f"expected the arrays filenames and fileitems, found {', '.join(arrays.files)}")
            names, items = arrays["filenames"], arrays["fileitems"]
        if names.dtype.kind != "U" or names.ndim != 1 or items.dtype.kind != "U" or items.ndim != 1:
            raise ValueError(
                f"expected two lists of texts, found {names.dtype} {names.shape}, {items.dtype} {items.shape}"
            )
        names, items = names.tolist(), items.tolist()
    except Exception as error:  # of numpy, zipfile, zlib and the array's own header: a dozen kinds for a damaged file
        raise ValueError(f"{path}: {error}") from None
    if len(names) != len(items):
        raise ValueError(f"{path}: {len(names)} filenames and {len(items)} fileitems")
    return "labels", list(zip(names, items, strict=True))
