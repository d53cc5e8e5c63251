"""Emotion labels and synonym groups, read from whatever systems and language models write."""

import ast
import json
import math
import re
import warnings
from collections.abc import Callable, Iterable
from typing import Any

from .raw_output import final_answer

RawLabels = str | Iterable[str] | None
"""The labels of one answer as they stand in a file: their text, a list of labels, or `None` for none."""

AFFECTGPT = "affectgpt"
"""The value of `compat` that reproduces the published code of MER2024, OV-MER and AffectGPT with its oddities."""

LONGEST_LABEL = 60
"""The length of the longest label, in characters. A longer piece of text is a sentence, not a label."""

_BRACKETED = re.compile(r"\[([^\[\]]*)(?:\]|$)")  # a list that was cut off counts
_BRACKETS = str.maketrans("【】［］", "[][]")
_SEPARATORS = re.compile(r"[,，、،;；؛/|。！\n\r\t]|\s[-–—•·*+]\s|(?<=[」』”»])\s?(?=[「『“«])")
_QUOTES_AND_SPACE = " \t\r\n\"'`´“”„‘’‚«»‹›「」『』＂＇《》<>{}…。.!！?？：:*•·–—-#~"

# "happy (0.9)", "happy (90 %)", "happy (9/10)", "happy: 0.9"
_SCORE = re.compile(
    r"\s?[（(]\s?\d{1,3}(?:[.,]\d{1,9})?\s?%?(?:\s?/\s?\d{1,3})?\s?[)）]|\s?[:：=]\s?\d{1,3}(?:\.\d{1,9})?\s?%?(?=\W|$)"
)
_NUMBER_OF_ITEM = re.compile(r"(?:^|(?<=\s))(?:\(?\d{1,2}[.)、]\)?(?!\d)|[①-⑳])")
# "Emotions:", "Here are the labels:", "Secondary emotion:", "The labels are"
_INTRODUCTION = re.compile(
    r"(?:^|(?<=[;；]))[^:：;；\n]{0,120}(?:\b(?:emotion(?:s|al)?|feelings?|labels?|answer|output|list|result)\b|情绪|情感|标签|答案|输出|结果)[^:：\n]{0,40}[:：]"
    r"|^(?:the|his|her|their|my)[^,:：\n]{0,40}\b(?:emotions?|feelings?|labels?)\b[^,:：\n]{0,40}\b(?:are|is|include)\b",
    re.IGNORECASE | re.MULTILINE,
)
_AND = re.compile(r"(?:^|\s)and\s|\s?&\s?", re.IGNORECASE)
_TWO_WORDS = re.compile(r"([^\W\d]+)\s(?:and|&)\s([^\W\d]+)", re.IGNORECASE)
# 和 and 与 where they part two words, not inside one (平和, 和谐, 参与)
_CHINESE_AND = re.compile(
    r"(?<=[^\W平温缓祥随柔附谦亲调饱共中])和(?=[^\W谐善蔼气睦平解缓])|(?<=[^\W参给赋])与(?=[^\W众世])|(?<=\w)以及(?=\w)"
)
_NO_LABEL = re.compile(
    r"no|none(?: (?:of|detected|identified|found|given|expressed|present|visible|mentioned)\b.*)?|n/?a|null|nil|nan|not applicable"
    r"|no (?:\w+ ){0,2}(?:emotions?|labels?|feelings?|emotional states?)(?: \w+){0,4}"
    r"|无|没有|不适用|(?:无|没有)(?:明显的?)?(?:情绪|情感|标签)"
)
_LABEL_KEYS = re.compile(
    r"(?:emotion(?:al)?|label)s?(?:[ _](?:labels?|states?|list))?|openset|answers?|output|results?|predictions?|tags|情绪|情感|标签",
    re.IGNORECASE,
)


def check_compat(compat: str | None) -> None:
    """Checks the argument `compat` of the scoring functions.

    Args:
        compat (`str` or `None`): The value to check.

    Raises:
        ValueError: if it is neither `None` nor `"affectgpt"`.
    """
    if compat not in (None, AFFECTGPT):
        raise ValueError(f'compat={compat!r}: expected None or "{AFFECTGPT}"')


def parse_labels(value: RawLabels, compat: str | None = None) -> list[str]:
    """Returns the emotion labels of one answer: lower-case, in order, without repeats.

    In a text, only the final answer counts (see [`final_answer`]). Every bracketed list in it counts ("[]",
    '["a", "b"]', "Output: [a]"), nested ones and those in a JSON object too; without any, the whole answer is the list.
    Commas (Chinese ones too), semicolons, slashes, line ends, numbers ("1. a 2. b"), "and", "&", "和" and "与" separate
    labels. In brackets "and" separates single words only, and an item in quotes is one label. Quotes, a score after a
    label ("happy (0.9)") and words before a colon ("The labels are:") are removed. "none", "N/A" and "no emotion" are no
    labels, and a piece longer than `LONGEST_LABEL` characters is prose.

    With `compat="affectgpt"` the text loses one bracket at each end and is split at commas and quotes (so "don't believe"
    becomes "don" and "t believe"), and repeats stay, as in the code that made the published scores.

    Args:
        value (`str`, `Iterable[str]` or `None`):
            The text of an answer, or a list in which each string is one label. `None` and NaN (an empty cell) have no
            labels.
        compat (`str`, *optional*): `"affectgpt"` reproduces the published code.

    Returns:
        `list[str]`: The labels; an empty list if there are none.

    Raises:
        ValueError: if `compat` is neither `None` nor `"affectgpt"`.

    Example:

    ```python
    >>> from microemo.evaluation.emotion_labels import parse_labels

    >>> parse_labels('["Angry", "upset"]')
    ['angry', 'upset']
    >>> parse_labels("<think>Sad?</think>Emotions: happy and proud")
    ['happy', 'proud']
    ```"""
    check_compat(compat)
    if compat == AFFECTGPT:
        return _published_labels(value)
    labels = map(_tidy, _pieces(final_answer(value)) if isinstance(value, str) else _flat(value))
    return list(dict.fromkeys(label for label in labels if label and len(label) <= LONGEST_LABEL))


def _published_labels(value: RawLabels) -> list[str]:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return []
    if isinstance(value, str):
        pieces = re.split("['\",]", value.removeprefix("[").removesuffix("]"))
    else:
        pieces = [str(piece) for piece in value]
    return [label for piece in pieces if (label := piece.strip().lower())]


def _tidy(piece: str) -> str:
    """Returns a piece of text as a label, or "" if it is none."""
    label, before = " ".join(piece.replace("_", " ").lower().split()), None
    while label != before:
        before, label = label, label.strip(_QUOTES_AND_SPACE)
        if re.fullmatch(r"[(（][^()（）]*[)）]?|[^()（）]*[)）]", label):  # of "(happy, sad)" too
            label = label.strip("()（）")
    if _NO_LABEL.fullmatch(label) or (label.isascii() and not any(map(str.isalpha, label))):
        return ""
    return label


def _pieces(text: str) -> list[str]:
    if isinstance(literal := _literal(text), (list, tuple, set, dict)):
        return _flat(literal)
    start, end = text.find("{"), text.rfind("}")
    if isinstance(literal := _literal(text[start : end + 1]) if 0 <= start < end else None, dict):
        return _flat(literal)
    text = text.translate(_BRACKETS)
    if bracketed := _BRACKETED.findall(text):
        return [piece for inside in bracketed for piece in _quoted(inside) or _split(inside, _in_two)]
    return _split(_INTRODUCTION.sub("", text), _AND.split)


def _split(text: str, at_and: Callable[[str], list[str]]) -> list[str]:
    text = re.sub(r"\bn/a\b", "none", text, flags=re.IGNORECASE)
    text = _SCORE.sub("", _NUMBER_OF_ITEM.sub("\n", text))
    parts = [part for piece in _SEPARATORS.split(text) for part in at_and(piece)]
    return [word for part in parts for word in _CHINESE_AND.split(part)]


def _in_two(item: str) -> list[str]:
    """Splits an item of a list at "and": "sad and angry" is two labels, "physically and mentally healthy" is one."""
    item = re.sub(r"^\s*(?:and|&)\s", "", item, flags=re.IGNORECASE)
    both = _TWO_WORDS.fullmatch(item.strip(_QUOTES_AND_SPACE))
    return list(both.groups()) if both else [item]


def _flat(value: object) -> list[str]:
    """Returns the texts in a value as JSON or Python gives it, nested or not."""
    texts: list[str] = []
    waiting: list[object] = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            texts.append(item)
        elif isinstance(item, dict):
            waiting += reversed(_values(item))
        elif isinstance(item, (set, frozenset)):
            waiting += sorted(map(str, item), reverse=True)
        elif isinstance(item, Iterable) and not isinstance(item, bytes):
            waiting += reversed(list(item))
    return texts


def _values(item: dict) -> list:
    """Returns what of an object names labels: the values of label keys, or keys with a score, or else all values."""
    labels = [value for key, value in item.items() if _LABEL_KEYS.fullmatch(str(key).strip())]
    if not labels and all(isinstance(value, (int, float)) for value in item.values()):
        return [str(key) for key, score in item.items() if score]
    return [_split(value, _AND.split) if isinstance(value, str) else value for value in labels or item.values()]


def _quoted(inside: str) -> list[str] | None:
    literal = _literal(f"[{inside}]")
    if isinstance(literal, list) and all(isinstance(piece, str) for piece in literal):
        return literal
    return None


def _literal(text: str) -> Any:
    """Returns the value of JSON or Python text, or None if it is neither."""
    text = re.sub(r"(['\"])\s+(['\"])", r"\1, \2", text.strip())  # numpy writes its arrays without commas
    try:
        with warnings.catch_warnings(action="ignore"):  # a backslash in the text is no mistake of ours
            return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        pass
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def parse_groups(value: Any, labels: Iterable[str] | None = None) -> list[list[str]]:
    """Returns the synonym groups of an answer, such as `"[['a', 'b'], ['c']]"`.

    Args:
        value (`str` or `list`):
            A list of lists of labels, or its text with JSON or Python quotes. Other text around the list is passed over.
        labels (`Iterable[str]`, *optional*): The labels that were to be grouped.

    Returns:
        `list[list[str]]`: The groups that hold at least one label.

    Raises:
        ValueError: if there is no list of lists of strings in it, or if the groups hold none of `labels`.

    Example:

    ```python
    >>> from microemo.evaluation.emotion_labels import parse_groups

    >>> parse_groups("The groups are [['happy', 'glad'], ['sad']].")
    [['happy', 'glad'], ['sad']]
    ```"""
    groups = value
    if isinstance(value, str):
        start, end = value.find("["), value.rfind("]")
        groups = _literal(value[start : end + 1]) if 0 <= start < end else None
    if isinstance(groups, (list, tuple)) and groups and all(isinstance(group, str) for group in groups):
        groups = [groups]  # one group, written without the outer brackets
    if not isinstance(groups, (list, tuple)) or not all(
        isinstance(group, (list, tuple)) and all(isinstance(word, str) for word in group) for group in groups
    ):
        raise ValueError(f"expected a list of lists of labels, found {str(value)[:120]!r}")
    groups = [list(group) for group in groups if group]
    if labels is not None:
        expected = {label.lower() for label in labels}
        if expected and not expected & {word.strip().lower() for group in groups for word in group}:
            raise ValueError(f"groups none of the labels {sorted(expected)}: {str(value)[:120]!r}")
    return groups
