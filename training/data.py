"""Data sets for training: one table in, one conversation a row out, and every broken row told before the first step.

A row is a clip and what is said about it:

| column | content |
|---|---|
| `video` | the clip's file, relative to the table or to `media_folder` (or a `datasets` video) |
| `audio` | a sound file in place of the clip's own, or without a clip |
| `subtitles` | an SRT, WebVTT or Whisper JSON file; or `utterances`, a list of `{start, end, text, speaker?}`; or `subtitle`, one sentence without times |
| `messages` | a conversation, all answers of which are learned; or `instruction` and `response` |
| `emotions` | open-vocabulary labels |
| `name`, `split` | optional |

{"video": "a.mp4", "subtitles": "a.srt", "instruction": "What does the speaker feel, and why?", "response": "...", "emotions": ["sad"]}

The answer about one utterance may cite it: `{"type": "utterance", "index": 2}` in a message's list of contents.
"""

import difflib
import hashlib
import json
import math
import numbers
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset, Video, load_dataset, load_from_disk
from datasets.exceptions import DatasetGenerationError

from ..evaluation.emotion_labels import parse_labels
from ..evaluation.emotion_wheel import EmotionWheels
from ..processing.media import probe
from ..utils.files import read_json, read_json_lines, read_table

COLUMNS = (
    *("name", "split", "video", "audio", "subtitles", "utterances", "subtitle"),
    *("messages", "instruction", "response", "emotions"),
)
FILE_COLUMNS = ("video", "audio", "subtitles")
ROLES = ("system", "user", "assistant")
ITEM_KEYS = {"text": ("text",), "utterance": ("index",), "video": (), "audio": ()}
READERS: dict[str, Any] = {".jsonl": read_json_lines, ".json": read_json, ".parquet": None, ".csv": read_table}
VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".mpg")

# What the EMER annotators did (EMER, AffectGPT): say the emotions, and the clues for them.
EMER_INSTRUCTION = "What does the speaker feel, and which clues in the face, the voice and the words tell so?"
LABELS_INSTRUCTION = "Which emotions does the speaker show? Name all that fit."


FileName = str | Path


class DataError(ValueError):
    """A data set that training cannot use; the message has a line for each thing that is wrong."""


# --- tables --------------------------------------------------------------------------------------------------------


def load_table(
    source: FileName,
    split: str | None = None,
    media_folder: FileName | None = None,
    subtitles: FileName | None = None,
    labels: FileName | None = None,
    language: str = "english",
) -> Dataset:
    """The rows of a data set, with absolute file names.

    Args:
        source (`str` or `Path`):
            A .jsonl, .json, .csv or .parquet file; a folder with `metadata.jsonl`, `.csv` or `.parquet` beside the
            clips (`file_name` may name the clip), or one that `Dataset.save_to_disk` wrote; or a Hub id. An annotation
            file of EMER or OV-MERD is known by its columns, see [`import_emer`].
        split (`str`, *optional*): Rows whose `split` column says so; of a Hub id its split (default `"train"`).
        media_folder (`str` or `Path`, *optional*): Where relative file names start; the table's folder by default.
        subtitles, labels, language: For annotation files, see [`import_emer`].

    Raises:
        FileNotFoundError: if there is no such file.
        DataError: for a file that cannot be read, an unknown column, or a split without rows.
    """
    path = Path(source)
    if path.is_dir() and not (path / "state.json").is_file():
        metadata_files = [path / f"metadata{suffix}" for suffix in READERS if (path / f"metadata{suffix}").is_file()]
        if not metadata_files:
            raise FileNotFoundError(f"{path}: a folder without metadata.jsonl, metadata.csv or metadata.parquet")
        path = metadata_files[0]
    if path.is_dir():
        table = load_from_disk(str(path))
    elif path.is_file():
        if is_emer(path):
            table = import_emer(path, media_folder or path.parent, subtitles, labels, language)
        else:
            table = _read_file(path)
    elif re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)) and not path.suffix:
        table, split = load_dataset(str(source), split=split or "train"), None
    else:
        raise FileNotFoundError(f"{source}: no such file or folder, and no Hub id")

    if "file_name" in table.column_names and "video" not in table.column_names:
        table = table.rename_column("file_name", "video")
    for name, feature in table.features.items():
        if isinstance(feature, Video):
            table = table.cast_column(name, Video(decode=False))
    _check_columns(table.column_names, source)
    if split is not None:
        if "split" not in table.column_names:
            raise DataError(f"{source}: split {split!r} was asked for, but there is no column `split`")
        selected = [row for row, value in enumerate(table["split"]) if value == split]
        if not selected:
            splits = ", ".join(sorted({str(value) for value in table["split"]}))
            raise DataError(f"{source}: no rows of split {split!r}; there are {splits}")
        table = table.select(selected)
    root = Path(media_folder) if media_folder else path.parent
    return table.map(lambda row: _resolve(row, root), desc="Reading rows") if path.exists() else table


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
        raise DataError(_report(rows, problems, path.name) if problems else f"{path}: {error}") from None


def _read_rows(path: Path, reader: Callable[[Path], Any]) -> list[dict]:
    try:
        rows = reader(path)
    except ValueError as error:
        raise DataError(str(error)) from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path}: expected a list of rows (objects), found {rows!r:.80}")
    return rows


def _cell(name: str, value: str, where: str) -> Any:
    """A cell of a CSV file; those of `messages` and `utterances` hold JSON."""
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
                hints.append(repr(name) + _near(name, COLUMNS))
        raise DataError(f"{source}: unknown column {', '.join(hints)}; a row may have {', '.join(COLUMNS)}")


def _near(word: str, choices: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, choices, 1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _resolve(row: dict, root: Path) -> dict:
    for name in FILE_COLUMNS:
        value = row.get(name)
        if isinstance(value, str) and value and "://" not in value:
            row[name] = str((root / value).absolute())
    return row


# --- EMER, OV-MERD -------------------------------------------------------------------------------------------------


def is_emer(path: str | Path) -> bool:
    """Whether a .csv file is an annotation file that [`import_emer`] reads."""
    if Path(path).suffix.lower() != ".csv":
        return False
    columns = {name for row in _read_rows(Path(path), read_table)[:1] for name in row}
    return any(
        required <= columns for required in ({"names", "reasons"}, {"name", "english", "chinese"}, {"name", "openset"})
    )


def import_emer(
    annotation: FileName,
    media_folder: FileName,
    subtitles: FileName | None = None,
    labels: FileName | None = None,
    language: str = "english",
) -> Dataset:
    """The rows of a published annotation file. Its videos are to be had from MER2023 and MER2024 under their licence.

    Args:
        annotation (`str` or `Path`):
            EMER-V1 `gt-eng.csv` or `gt-chi.csv` (names, emotions, subtitles, reasons), EMER-V2 `final-EMER-reason.csv`
            (name, chinese, english), or the labels of OV-MERD and OV-MERD+, `check-openset.csv` (name, openset), for
            which the labels themselves are the answer.
        media_folder (`str` or `Path`): Holds NAME.mp4 (or .avi, .mkv, ...).
        subtitles (`str` or `Path`, *optional*):
            MER2023's `transcription-engchi-polish.csv` (name, chinese, english): a sentence without times each.
        labels (`str` or `Path`, *optional*): A `check-openset.csv` whose labels go into `emotions`.
        language (`"english"` or `"chinese"`, *optional*, defaults to `"english"`): Of EMER-V2 and of the subtitles.

    Returns:
        `Dataset`: name, split (see [`emer_split`]), video, subtitle, instruction, response, emotions.

    Raises:
        DataError: if a file lacks the columns, naming those it has.
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
        elif {"name", "openset"} <= columns:
            name, own_labels, sentence = row["name"], parse_labels(row["openset"]), None
            answer = f"The speaker feels {', '.join(own_labels)}." if own_labels else ""
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
    """A fixed split of the EMER names, since the paper's is unpublished.

    The rule: the names sorted by the SHA-256 of their UTF-8 bytes (as hexadecimal text); the first fifth, rounded
    down, is `"test"`, the rest `"train"`. The 332 clips of EMER-V2 (= EMER-Fine = OV-MERD) so give 66 and 266.

    Example:
        >>> emer_split(["sample_00000000", "sample_00000007"])
        {'sample_00000000': 'train', 'sample_00000007': 'train'}
    """
    names = list(dict.fromkeys(names))
    first = sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())[: len(names) // 5]
    return {name: "test" if name in set(first) else "train" for name in names}


# --- rows to conversations -----------------------------------------------------------------------------------------


def to_conversation(row: dict) -> list[dict]:
    """The messages of a row, its clip in the first message of the user: what `apply_chat_template` takes."""
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
    speech = {}
    for name in ("subtitles", "utterances"):
        if row.get(name):
            speech = {"utterances": _without_none(row[name])}
    if row.get("subtitle") and not speech:
        # A sentence without times: somebody says it somewhere in the clip.
        end = probe(_source(row["video"] or row["audio"])[1]).duration
        speech = {"utterances": [{"start": 0.0, "end": end, "text": row["subtitle"]}]}
    items = []
    for kind in ("video", "audio"):
        if row.get(kind):
            key, source = _source(row[kind])
            items.append({"type": kind, key if key == "path" else kind: source})
    if items:
        items[0] |= speech
    return items


def _source(value: Any) -> tuple[str, Any]:
    """A cell of `video` or `audio`: a file name, or as `datasets` keeps media."""
    if isinstance(value, dict):
        return ("bytes", value["bytes"]) if value.get("bytes") else ("path", value["path"])
    return "path", value


def _without_none(utterances: str | list[dict]) -> str | list[dict]:
    if isinstance(utterances, str):
        return utterances
    return [{key: value for key, value in utterance.items() if value is not None} for utterance in utterances]


# --- the check before the first step -------------------------------------------------------------------------------


def row_problems(row: dict, allowed_labels: Iterable[str] | None = None) -> list[str]:
    """What is wrong with a row, column by column, without decoding its clip; empty when nothing is.

    Args:
        row (`dict`): Column to cell, whatever the cells hold.
        allowed_labels (`list[str]`, *optional*): The only labels that `emotions` may hold.
    """
    problems = []
    if _is_empty(row.get("video")) and _is_empty(row.get("audio")):
        problems.append("no video and no audio")
    for name in FILE_COLUMNS:
        problems += _file_problems(name, row.get(name))
    if not _is_empty(row.get("subtitles")) and not _is_empty(row.get("utterances")):
        problems.append("both subtitles and utterances")
    for name in ("split", "subtitle", "instruction", "response"):
        if not isinstance(row.get(name), (str, type(None))):
            problems.append(f"{name}: expected text, found {_found(row[name])}")
    if not isinstance(row.get("name"), (str, int, type(None))):
        problems.append(f"name: expected text, found {_found(row['name'])}")
    problems += _utterance_problems(row.get("utterances"))
    problems += _turn_problems(row)
    problems += _label_problems(row.get("emotions"), None if allowed_labels is None else list(allowed_labels))
    return problems


def _is_empty(value: object) -> bool:
    return value is None or (isinstance(value, (str, bytes, list, tuple, dict)) and not value)


def _found(value: object) -> str:
    return f"{type(value).__name__} {value!r:.60}"


def _file_problems(name: str, value: Any) -> list[str]:
    if _is_empty(value):
        return []
    if isinstance(value, (list, tuple)):
        return [f"{len(value)} files in {name}; a row holds one clip"]
    if isinstance(value, dict) and name != "subtitles":  # as `datasets` keeps media
        if isinstance(value.get("bytes"), bytes) and value["bytes"]:
            return []
        value = value.get("path")
    if not isinstance(value, str):
        return [f"{name}: expected a file name, found {_found(value)}"]
    if "://" not in value and not os.path.isfile(value):
        return [f"{name}: no such file: {value}"]
    return []


def _utterance_problems(utterances: Any) -> list[str]:
    if _is_empty(utterances):
        return []
    if not isinstance(utterances, (list, tuple)):
        return [f"utterances: expected a list of utterances, found {_found(utterances)}"]
    problems = []
    for number, utterance in enumerate(utterances, start=1):
        where = f"utterances: utterance {number}"
        if not isinstance(utterance, dict):
            problems.append(f"{where}: expected start, end and text, found {_found(utterance)}")
            continue
        times = utterance.get("timestamp")
        if times is None:
            times = [utterance.get("start"), utterance.get("end")]
        elif isinstance(times, (list, tuple)) and len(times) == 2 and times[1] is None:
            times = times[:1]  # speech that goes on to the end of the clip
        if not isinstance(times, (list, tuple)) or not all(map(_is_time, times)):
            problems.append(f"{where}: start and end must be seconds, found {_found(times)}")
        problems += [
            f"{where}: {key}: expected text, found {_found(utterance[key])}"
            for key in ("text", "speaker")
            if not isinstance(utterance.get(key), (str, type(None)))
        ]
    return problems


def _is_time(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and -math.inf < value < math.inf  # type: ignore[operator]


def _label_problems(labels: Any, allowed: list[str] | None) -> list[str]:
    if _is_empty(labels):
        return []
    if not isinstance(labels, (list, tuple)):
        return [f"emotions: expected a list of labels, found {_found(labels)}"]
    problems = []
    for label in labels:
        if not isinstance(label, str):
            problems.append(f"emotions: expected text, found {_found(label)}")
        elif allowed is not None and label not in allowed:
            near = difflib.get_close_matches(label, allowed, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(allowed)}"
            problems.append(f"emotions: unknown label {label!r}; {hint}")
    return problems


def _turn_problems(row: dict) -> list[str]:
    turns, utterances = row.get("messages"), row.get("utterances")
    single = [row.get(name) for name in ("instruction", "response")]
    if _is_empty(turns):
        empty = (_is_empty(value) or (isinstance(value, str) and not value.strip()) for value in single)
        return [f"empty {name}" for name, is_empty in zip(("instruction", "response"), empty, strict=True) if is_empty]
    if not all(map(_is_empty, single)):
        return ["both messages and instruction/response"]
    if not isinstance(turns, (list, tuple)):
        return [f"messages: expected a list of messages, found {_found(turns)}"]
    problems: list[str] = []
    media: Counter[str] = Counter()
    roles: list[str] = []
    for number, turn in enumerate(turns, start=1):
        where = f"messages: message {number}"
        if not isinstance(turn, dict):
            problems.append(f"{where}: expected role and content, found {_found(turn)}")
            continue
        problems += _unknown_keys(where, turn, ("role", "content"))
        role, content = turn.get("role"), turn.get("content")
        if not isinstance(role, str) or role not in ROLES:
            problems.append(f"{where}: role must be {', '.join(ROLES)}, found {_found(role)}")
        else:
            roles.append(role)
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        if not isinstance(content, (list, tuple, type(None))):
            problems.append(f"{where}: content must be text or a list of items, found {_found(content)}")
            continue
        content_problems = _content_problems(where, content or [], utterances)
        if not content_problems:
            kinds = Counter(item["type"] for item in content or [])
            media += Counter({kind: kinds[kind] for kind in ("video", "audio")})
            words = "".join(item["text"] for item in content or [] if item["type"] == "text")
            # a question may be the clip or an utterance alone; an answer is words
            if not words.strip() and (role == "assistant" or not kinds.keys() - {"text"}):
                content_problems = [f"{where}: empty {'response' if role == 'assistant' else 'content'}"]
        problems += content_problems
    problems += [
        f"{count} {kind}s in the messages; a row holds one clip" for kind, count in media.items() if count > 1
    ]
    dialogue_roles = roles[1:] if roles[:1] == ["system"] else roles
    if len(roles) == len(turns) and (
        not dialogue_roles or dialogue_roles != ["user", "assistant"] * (len(dialogue_roles) // 2)
    ):
        problems.append(f"messages: roles must be user, assistant, ... in turn, got {', '.join(roles)}")
    return problems


def _content_problems(where: str, items: Any, utterances: Any) -> list[str]:
    problems = []
    for number, item in enumerate(items, start=1):
        item_name = f"{where}, item {number}"
        if not isinstance(item, dict):
            problems.append(f"{item_name}: expected an object with a type, found {_found(item)}")
            continue
        kind = item.get("type")
        if not isinstance(kind, str) or kind not in ITEM_KEYS:
            problems.append(f"{item_name}: type must be {', '.join(ITEM_KEYS)}, found {_found(kind)}")
            continue
        if any(not _is_empty(item.get(key)) for key in ("path", "url", "video", "audio")):
            problems.append(f"{where} names a file; files stand in the columns video and audio")
            continue
        problems += _unknown_keys(item_name, item, ("type", *ITEM_KEYS[kind], "path", "url", "video", "audio"))
        if kind == "text" and not isinstance(item.get("text"), str):
            problems.append(f"{item_name}: text: expected text, found {_found(item.get('text'))}")
        index: Any = item.get("index")
        if kind == "utterance" and (isinstance(index, bool) or not isinstance(index, numbers.Integral) or index < 1):
            problems.append(f"{item_name}: index must be a whole number from 1, found {_found(index)}")
        elif kind == "utterance" and isinstance(utterances, (list, tuple)) and 0 < len(utterances) < index:
            problems.append(f"{where} cites utterance {index} of {len(utterances)}")
    return problems


def _unknown_keys(where: str, item: dict, known_keys: tuple[str, ...]) -> list[str]:
    """Keys that nothing reads. A table's rows share their keys: those of other rows are None here."""
    return [
        f"{where}: unknown key {key!r}{_near(str(key), known_keys)}"
        for key, value in item.items()
        if key not in known_keys and value is not None
    ]


def doubtful_labels(table: Dataset) -> dict[str, str]:
    """Labels that are no emotion words but very near to one, with that word: perhaps typing errors."""
    if "emotions" not in table.column_names:
        return {}
    vocabulary = EmotionWheels.default()
    used = {
        label
        for labels in table["emotions"]
        if isinstance(labels, (list, tuple))
        for label in labels
        if isinstance(label, str)
    }
    near = {
        label: difflib.get_close_matches(label, vocabulary.forms, 1, cutoff=0.8)
        for label in sorted(used)
        if not vocabulary.knows(label)
    }
    return {label: words[0] for label, words in near.items() if words}


def check_table(
    table: Dataset,
    try_row: Callable[[Dataset], Iterable[str | None]] | None = None,
    on_error: str = "fail",
    allowed_labels: Iterable[str] | None = None,
    name: str = "data",
) -> Dataset:
    """Look at every row before the first step, and tell all that is wrong at once.

    Args:
        table (`Dataset`): From [`load_table`].
        try_row (`Callable`, *optional*):
            Called with an iterable of the rows that look right, gives for each row `None` or what went wrong with it:
            [`microemo.training.collator.try_rows`] puts each once through decoding, face mesh and chat template.
        on_error (`"fail"` or `"skip"`): Whether broken rows end the run or are left out, with a warning.
        allowed_labels (`list[str]`, *optional*): The only labels that `emotions` may hold.
        name (`str`): What messages call the table.

    Returns:
        `Dataset`: The rows that can be used.

    Raises:
        DataError: with a line for each broken row; also where no row is left.
    """
    if on_error not in ("fail", "skip"):
        raise ValueError(f"on_error must be fail or skip, got {on_error!r}")
    if doubtful := doubtful_labels(table):
        pairs = ", ".join(f"{label!r} (near {word!r})" for label, word in doubtful.items())
        warnings.warn(f"{name}: {len(doubtful)} labels may be typing errors: {pairs}", stacklevel=2)
    problems = {number: row_problems(row, allowed_labels) for number, row in enumerate(table)}
    sound = [number for number, row_errors in problems.items() if not row_errors]
    if try_row is not None:
        for number, problem in zip(sound, try_row(table.select(sound)), strict=True):
            if problem is not None:
                problems[number].append(problem)
    broken = {number: row_errors for number, row_errors in problems.items() if row_errors}
    good = [number for number in problems if number not in broken]
    if broken:
        report = _report(table, broken, name)
        if on_error == "fail" or not good:
            raise DataError(report + ("" if good else "\nNo row can be used."))
        warnings.warn(report + f"\nThey are left out; {len(good)} rows remain.", stacklevel=2)
    elif not good:
        raise DataError(f"{name}: no rows in it")
    return table.select(good)


def _report(table: Dataset | list[dict], broken: dict[int, list[str]], name: str) -> str:
    lines = [f"{name}: {len(broken)} of {len(table)} rows cannot be used:", f"{'row':>6} | clip | what is wrong"]
    for number, row_errors in broken.items():
        row = table[number]
        clip = row.get("name") or row.get("video") or row.get("audio")
        clip = Path(clip).name if isinstance(clip, str) else "-"
        lines.append(f"{number + 1:>6} | {clip} | {'; '.join(row_errors)}")
    return "\n".join(lines)
