"""Files of answers: JSONL, CSV, Excel, JSON and npz files with one answer for each named clip."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..utils.files import read_json, read_json_lines, read_table
from .raw_output import final_answer

NAME_FIELDS = ("name", "names", "filename", "video", "id")
"""The fields that may hold the name of a clip; the first one that a file has is taken."""
LABEL_FIELDS = ("labels", "openset", "emotions", "emotion", "engemos", "emo")
"""The fields that may hold emotion labels."""
TEXT_FIELDS = ("answer", "text", "reason", "reasons", "description", "english", "chi_reasons")
"""The fields that may hold free text, from which labels are extracted."""


RawAnswer = str | list[str] | None
"""One answer as it stands in a file: a text, a list of labels, or nothing."""


@dataclass(frozen=True)
class Answers:
    """Holds the answers of one file.

    Attributes:
        source (`Path`): The file.
        kind (`str`):
            `"labels"` (lists of labels, or their text) or `"text"` (free text, from which labels must be extracted).
        items (`dict[str, str | list[str] | None]`): The answer to each clip, by the name of the clip.
    """

    source: Path
    kind: str
    items: Mapping[str, RawAnswer]


NamedAnswers = tuple[str, list[tuple[str, RawAnswer]]]
"""The kind of a file's answers, and each name with its answer."""


class NameMismatchError(ValueError):
    """Raised when two files hold answers to different clips."""


def read_answers(path: str | Path, field: str | None = None) -> Answers:
    r"""Reads a file of predictions or references.

    Args:
        path (`str` or `Path`):
            A .jsonl file (an object in each line), a .csv or .xlsx file (with a header), a .json file (an object with the
            answer of each name, or a list of objects), or an .npz file (the arrays `filenames` and `fileitems`, read
            without unpickling).
        field (`str`, *optional*):
            The column or key that holds the answer. By default the first of `LABEL_FIELDS` that the file has, otherwise
            the first of `TEXT_FIELDS`. Texts that are lists without exception ("[happy, sad]") are label lists, whatever
            their field is called.

    Returns:
        [`Answers`]: The answers by name.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is of another kind or cannot be read in full, if it lacks the field or a name, if an answer
            is neither text nor a list of labels, or if a name comes twice.

    Example:

    ```python
    >>> from pathlib import Path
    >>> from microemo.evaluation.prediction_files import read_answers

    >>> _ = Path("predictions.csv").write_text('name,labels\nclip_1,"[happy, proud]"\n')
    >>> answers = read_answers("predictions.csv")
    >>> answers.kind, answers.items
    ('labels', {'clip_1': '[happy, proud]'})
    ```"""
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


def match(
    references: Answers, predictions: Answers, common: bool = False
) -> tuple[list[str], list[RawAnswer], list[RawAnswer]]:
    """Pairs the answers of two files by the names of the clips, in the order of the references.

    Args:
        references ([`Answers`]): The true answers.
        predictions ([`Answers`]): The answers of a system.
        common (`bool`, *optional*, defaults to `False`):
            Whether to take the names that both files hold. Otherwise the two must hold the same names.

    Returns:
        `tuple[list[str], list, list]`: N names, N true answers and N predicted answers.

    Raises:
        NameMismatchError: if the two files hold different names and `common` is not set, or if they have no name in
            common.

    Example:

    ```python
    >>> from pathlib import Path
    >>> from microemo.evaluation.prediction_files import Answers, match

    >>> references = Answers(Path("references.csv"), "labels", {"clip_1": ["sad"], "clip_2": ["happy"]})
    >>> predictions = Answers(Path("predictions.csv"), "labels", {"clip_2": ["joyful"]})
    >>> match(references, predictions, common=True)
    (['clip_2'], [['happy']], [['joyful']])
    ```"""
    names = [name for name in references.items if name in predictions.items]
    if not common and (len(names) < len(references.items) or len(names) < len(predictions.items)):
        without_prediction = [name for name in references.items if name not in predictions.items]
        without_reference = [name for name in predictions.items if name not in references.items]
        raise NameMismatchError(
            f"{predictions.source} and {references.source} hold different names; "
            f"without a prediction: {len(without_prediction)} ({_some(without_prediction)}); "
            f"without a reference: {len(without_reference)} ({_some(without_reference)})"
        )
    if not names:
        raise NameMismatchError(f"{predictions.source} and {references.source} have no name in common")
    return names, [references.items[name] for name in names], [predictions.items[name] for name in names]


def _some(names: Iterable[str], most: int = 10) -> str:
    names = list(names)
    return (", ".join(names[:most]) + (", ..." if len(names) > most else "")) or "none"


def _field(path: Path, available: Iterable[str], field: str | None) -> tuple[str, str]:
    """Returns the column that holds the answer, and its kind."""
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


def _from_rows(path: Path, rows: list[dict], field: str | None) -> NamedAnswers:
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


def _check_answer(where: str, value: object) -> None:
    words = [word for word in value if word is not None] if isinstance(value, list) else []
    if not isinstance(value, (str, list, type(None))) or not all(isinstance(word, (str, list)) for word in words):
        raise ValueError(f"{where}: expected a text or a list of labels, found {type(value).__name__} {value!r:.80}")
    for word in words:
        if isinstance(word, list):
            _check_answer(where, word)


def _kind(kind: str, values: list) -> str:
    """Returns the kind of the answers: texts that are lists without exception are labels."""
    lists = all(not isinstance(value, str) or final_answer(value).startswith("[") for value in values)
    return "labels" if lists else kind


def _from_jsonl(path: Path, field: str | None) -> NamedAnswers:
    return _from_rows(path, read_json_lines(path), field)


def _from_table(path: Path, field: str | None) -> NamedAnswers:
    rows: list[dict] = [*read_table(path)]
    return _from_rows(path, rows, field)


def _from_json(path: Path, field: str | None) -> NamedAnswers:
    content = read_json(path)
    if isinstance(content, list):
        return _from_rows(path, content, field)
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path}: expected an object name -> answer, found {type(content).__name__}")
    for name, value in content.items():
        _check_answer(f"{path}, {name}", value)
    return _kind("text", list(content.values())), list(content.items())


def _from_npz(path: Path, field: str | None) -> NamedAnswers:
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
