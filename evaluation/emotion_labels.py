"""Reading label lists and group lists as systems and language models really write them."""

import ast
import json
import math
import re
import warnings
from collections.abc import Callable, Iterable

from .raw_output import final_answer

AFFECTGPT = "affectgpt"
"""`compat` value that reproduces the published code of MER2024, OV-MER and AffectGPT with its oddities."""

LONGEST_LABEL = 60
"""Characters: what is longer is a sentence, not a label."""

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
    """Raise ValueError unless `compat` is None or "affectgpt"."""
    if compat not in (None, AFFECTGPT):
        raise ValueError(f'compat={compat!r}: expected None or "{AFFECTGPT}"')


def parse_labels(value: str | Iterable[str] | None, compat: str | None = None) -> list[str]:
    """Read one answer's labels: lower-case, in order, without repeats.

    Of a text, the answer alone is read (see `raw_output.final_answer`). Every bracketed list in it counts ("[]",
    '["a", "b"]', "Output: [a]"), nested ones and those in a JSON object too; without any, the whole answer is the list.
    Labels are parted by commas (Chinese ones too), semicolons, slashes, lines, numbers ("1. a 2. b") and by "and", "&",
    "和", "与"; in brackets "and" parts single words only, and an item in quotes is one label. Quotes, a score behind a
    label ("happy (0.9)") and words before a colon ("The labels are:") do not count; "none", "N/A" or "no emotion" is no
    label, and a piece longer than `LONGEST_LABEL` characters is prose.

    With `compat="affectgpt"` the text loses one bracket at each end and is split at commas and quotes (so "don't believe"
    becomes "don" and "t believe"), as the published scores were made; repeats stay.

    Args:
        value: a string, a list of strings (each one label), None, or NaN (an empty cell).
    Returns:
        The labels; an empty list when there are none or the text holds none.
    Example:
        >>> parse_labels('["Angry", "upset"]')
        ['angry', 'upset']
        >>> parse_labels("<think>Sad?</think>Emotions: happy and proud")
        ['happy', 'proud']
    """
    check_compat(compat)
    if compat == AFFECTGPT:
        return _published_labels(value)
    labels = map(_tidy, _pieces(final_answer(value)) if isinstance(value, str) else _flat(value))
    return list(dict.fromkeys(label for label in labels if label and len(label) <= LONGEST_LABEL))


def _published_labels(value: str | Iterable[str] | None) -> list[str]:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return []
    if isinstance(value, str):
        pieces = re.split("['\",]", value.removeprefix("[").removesuffix("]"))
    else:
        pieces = [str(piece) for piece in value]
    return [label for piece in pieces if (label := piece.strip().lower())]


def _tidy(piece: str) -> str:
    """A piece as a label; "" where it is none."""
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
    """An item of a list: "sad and angry" is two labels, "physically and mentally healthy" one."""
    item = re.sub(r"^\s*(?:and|&)\s", "", item, flags=re.IGNORECASE)
    both = _TWO_WORDS.fullmatch(item.strip(_QUOTES_AND_SPACE))
    return list(both.groups()) if both else [item]


def _flat(value) -> list[str]:
    """The texts in a value as JSON or Python gives it, nested or not."""
    found, waiting = [], [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            found.append(item)
        elif isinstance(item, dict):
            waiting += reversed(_values(item))
        elif isinstance(item, (set, frozenset)):
            waiting += sorted(map(str, item), reverse=True)
        elif isinstance(item, Iterable) and not isinstance(item, bytes):
            waiting += reversed(list(item))
    return found


def _values(item: dict) -> list:
    """What of an object names labels: known keys, or keys with a score, or else all values."""
    known = [value for key, value in item.items() if _LABEL_KEYS.fullmatch(str(key).strip())]
    if not known and all(isinstance(value, (int, float)) for value in item.values()):
        return [str(key) for key, score in item.items() if score]
    return [_split(value, _AND.split) if isinstance(value, str) else value for value in known or item.values()]


def _quoted(inside: str) -> list[str] | None:
    literal = _literal(f"[{inside}]")
    if isinstance(literal, list) and all(isinstance(piece, str) for piece in literal):
        return literal
    return None


def _literal(text: str):
    """The value of JSON or Python text; None where it is neither."""
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


def parse_groups(value: str | list, labels: Iterable[str] | None = None) -> list[list[str]]:
    """Read synonym groups, "[['a', 'b'], ['c']]" (JSON or Python quotes, a Markdown fence around it allowed).

    Args:
        labels: when given, the labels that were asked about: an answer that groups none of them is refused.
    Raises:
        ValueError: there is no list of lists of strings in it.
    """
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
        labels = {label.lower() for label in labels}
        if labels and not labels & {word.strip().lower() for group in groups for word in group}:
            raise ValueError(f"groups none of the labels {sorted(labels)}: {str(value)[:120]!r}")
    return groups
