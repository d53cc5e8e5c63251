"""The check of a table before the first step: every broken row of it is reported at once."""

import difflib
import math
import numbers
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from datasets import Dataset

from ..evaluation.emotion_wheel import EmotionWheels
from ..processing.prompt_microemo import ITEM_KEYS
from ..utils.keywords import suggestion

COLUMNS = (
    *("name", "split", "speaker", "video", "audio", "subtitles", "utterances", "subtitle"),
    *("messages", "instruction", "response", "emotions"),
)
FILE_COLUMNS = ("video", "audio", "subtitles")
ROLES = ("system", "user", "assistant")
# The keys of the items of a message, as in a call of the processor; but clips stand in the columns of the row.
CLIP_KEYS = ("path", "url", "video", "audio")
ROW_ITEM_KEYS = {kind: ("type",) if kind in FILE_COLUMNS else keys for kind, keys in ITEM_KEYS.items()}


class DataError(ValueError):
    """Signals a data set that training cannot use. The message has a line for each error."""


def row_problems(row: dict, allowed_labels: Iterable[str] | None = None) -> list[str]:
    """Lists the errors of a row, column by column, without decoding its clip.

    Args:
        row (`dict`): The cells by column, whatever they hold.
        allowed_labels (`Iterable[str]`, *optional*):
            The only labels that `emotions` may hold. By default any label is allowed.

    Returns:
        `list[str]`: The errors; empty for a row without errors.
    """
    problems = []
    if is_empty(row.get("video")) and is_empty(row.get("audio")):
        problems.append("no video and no audio")
    for name in FILE_COLUMNS:
        problems += _file_problems(name, row.get(name))
    if not is_empty(row.get("subtitles")) and not is_empty(row.get("utterances")):
        problems.append("both subtitles and utterances")
    for name in ("split", "subtitle", "instruction", "response"):
        if not isinstance(row.get(name), (str, type(None))):
            problems.append(f"{name}: expected text, found {_found(row[name])}")
    for name in ("name", "speaker"):
        if not isinstance(row.get(name), (str, int, type(None))):
            problems.append(f"{name}: expected text, found {_found(row[name])}")
    problems += _utterance_problems(row.get("utterances"))
    problems += _turn_problems(row)
    problems += _label_problems(row.get("emotions"), None if allowed_labels is None else list(allowed_labels))
    return problems


def is_empty(value: object) -> bool:
    """Tells whether a cell of a table holds nothing.

    Args:
        value (`object`): The cell.

    Returns:
        `bool`: Whether it is `None`, or an empty text, list or dictionary.
    """
    return value is None or (isinstance(value, (str, bytes, list, tuple, dict)) and not value)


def _found(value: object) -> str:
    return f"{type(value).__name__} {value!r:.60}"


def _file_problems(name: str, value: Any) -> list[str]:
    if is_empty(value):
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
    if is_empty(utterances):
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
    if is_empty(labels):
        return []
    if not isinstance(labels, (list, tuple)):
        return [f"emotions: expected a list of labels, found {_found(labels)}"]
    problems = []
    for label in labels:
        if not isinstance(label, str):
            problems.append(f"emotions: expected text, found {_found(label)}")
        elif re.fullmatch(r"[\d.+-]+", label):
            problems.append(f"emotions: expected a word, found {label!r}; write the name of the class")
        elif allowed is not None and label not in allowed:
            near = difflib.get_close_matches(label, allowed, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(allowed)}"
            problems.append(f"emotions: unknown label {label!r}; {hint}")
    return problems


def _turn_problems(row: dict) -> list[str]:
    turns, utterances = row.get("messages"), row.get("utterances")
    single = [row.get(name) for name in ("instruction", "response")]
    if is_empty(turns):
        empty = (is_empty(value) or (isinstance(value, str) and not value.strip()) for value in single)
        no_label = " (there is no label)" if "emotions" in row and is_empty(row["emotions"]) else ""
        names = ("instruction", f"response{no_label}")
        return [f"empty {name}" for name, is_empty in zip(names, empty, strict=True) if is_empty]
    if not all(map(is_empty, single)):
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
        if not isinstance(kind, str) or kind not in ROW_ITEM_KEYS:
            problems.append(f"{item_name}: type must be {', '.join(ROW_ITEM_KEYS)}, found {_found(kind)}")
            continue
        if any(not is_empty(item.get(key)) for key in CLIP_KEYS):
            problems.append(f"{where} names a file; files stand in the columns video and audio")
            continue
        problems += _unknown_keys(item_name, item, (*ROW_ITEM_KEYS[kind], *CLIP_KEYS))
        if kind == "text" and not isinstance(item.get("text"), str):
            problems.append(f"{item_name}: text: expected text, found {_found(item.get('text'))}")
        index: Any = item.get("index")
        if kind == "utterance" and (isinstance(index, bool) or not isinstance(index, numbers.Integral) or index < 1):
            problems.append(f"{item_name}: index must be a whole number from 1, found {_found(index)}")
        elif kind == "utterance" and isinstance(utterances, (list, tuple)) and 0 < len(utterances) < index:
            problems.append(f"{where} cites utterance {index} of {len(utterances)}")
    return problems


def _unknown_keys(where: str, item: dict, known_keys: tuple[str, ...]) -> list[str]:
    """Reports the keys that nothing reads. The rows of a table share their keys: those of other rows are None here."""
    return [
        f"{where}: unknown key {key!r}{suggestion(str(key), known_keys)}"
        for key, value in item.items()
        if key not in known_keys and value is not None
    ]


def doubtful_labels(table: Dataset) -> dict[str, str]:
    """Finds labels that are no emotion words but are very similar to one, so that they may be typing errors.

    Args:
        table (`Dataset`): The rows.

    Returns:
        `dict[str, str]`: The similar emotion word of each such label.
    """
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
    """Checks every row before the first step, and reports all errors at once.

    Args:
        table (`Dataset`): The rows from [`load_table`].
        try_row (`Callable`, *optional*):
            A function that takes the rows without errors and yields the error message, or `None`, of each.
            [`microemo.training.collator.try_rows`] passes each row once through decoding, face mesh and chat template.
        on_error (`str`, *optional*, defaults to `"fail"`):
            Whether broken rows end the run (`"fail"`) or are left out with a warning (`"skip"`).
        allowed_labels (`Iterable[str]`, *optional*):
            The only labels that `emotions` may hold. By default any label is allowed.
        name (`str`, *optional*, defaults to `"data"`): The name of the table in messages.

    Returns:
        `Dataset`: The rows without errors.

    Raises:
        DataError: if rows are broken and `on_error` is `"fail"`, with a line for each of them, or if no row is left.
        ValueError: if `on_error` has another value.
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
        report = report_problems(table, broken, name)
        if on_error == "fail" or not good:
            raise DataError(report + ("" if good else "\nNo row can be used."))
        warnings.warn(report + f"\nThey are left out; {len(good)} rows remain.", stacklevel=2)
    elif not good:
        raise DataError(f"{name}: no rows in it")
    return table.select(good)


def report_problems(table: Dataset | list[dict], broken: dict[int, list[str]], name: str) -> str:
    """Formats the errors of the rows of a table.

    Args:
        table (`Dataset` or `list[dict]`): The rows.
        broken (`dict[int, list[str]]`): The errors of each broken row, by its index.
        name (`str`): The name of the table.

    Returns:
        `str`: One line for each broken row, below two lines of heading.
    """
    lines = [f"{name}: {len(broken)} of {len(table)} rows cannot be used:", f"{'row':>6} | clip | what is wrong"]
    for number, row_errors in broken.items():
        row = table[number]
        clip = row.get("name") or row.get("video") or row.get("audio")
        clip = Path(clip).name if isinstance(clip, str) else "-"
        lines.append(f"{number + 1:>6} | {clip} | {'; '.join(row_errors)}")
    return "\n".join(lines)
