"""Reading label lists and group lists as systems and language models really write them."""

import ast
import math
import re
from collections.abc import Iterable

AFFECTGPT = "affectgpt"
"""`compat` value that reproduces the published code of MER2024, OV-MER and AffectGPT with its oddities."""

LONGEST_LABEL = 60
"""Characters: what is longer is a sentence, not a label."""

_BRACKETED = re.compile(r"\[([^\[\]]*)\]")
_SEPARATORS = re.compile(r"[,，、;；/|\n]")
_QUOTES_AND_SPACE = " \t\r\n\"'`“”‘’《》。.!?：:*-"


def check_compat(compat: str | None) -> None:
    """Raise ValueError unless `compat` is None or "affectgpt"."""
    if compat not in (None, AFFECTGPT):
        raise ValueError(f'compat={compat!r}: expected None or "{AFFECTGPT}"')


def parse_labels(value: str | Iterable[str] | None, compat: str | None = None) -> list[str]:
    """Read one answer's labels: lower-case, in order, without repeats.

    Default: every bracketed list in the text counts ("[]", '["a", "b"]', "Output: [a]"), labels are parted by commas
    (Chinese ones too), semicolons, slashes or lines, and a piece longer than `LONGEST_LABEL` characters is prose, so
    not a label. With `compat="affectgpt"` the text loses one bracket at each end and is split at commas and quotes
    (so "don't believe" becomes "don" and "t believe"), as the published scores were made; repeats stay.

    Args:
        value: a string, a list of strings, None, or NaN (an empty cell).
    Returns:
        The labels; an empty list when there are none or the text holds none.
    Example:
        >>> parse_labels('["Angry", "upset"]')
        ['angry', 'upset']
    """
    check_compat(compat)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return []
    if not isinstance(value, str):
        pieces = [str(piece) for piece in value]
    elif compat == AFFECTGPT:
        pieces = re.split("['\",]", value.removeprefix("[").removesuffix("]"))
    else:
        pieces = _pieces(value)
    if compat == AFFECTGPT:
        return [label for piece in pieces if (label := piece.strip().lower())]
    labels = (piece.strip(_QUOTES_AND_SPACE).replace("_", " ").lower() for piece in pieces)
    return list(dict.fromkeys(" ".join(label.split()) for label in labels if label and len(label) <= LONGEST_LABEL))


def _pieces(text: str) -> list[str]:
    literal = _literal(text)
    if isinstance(literal, (list, tuple, set)) and all(isinstance(piece, str) for piece in literal):
        return list(literal)
    text = text.replace("【", "[").replace("】", "]").replace("［", "[").replace("］", "]")
    if bracketed := _BRACKETED.findall(text):
        return [piece for inside in bracketed for piece in _quoted(inside) or _SEPARATORS.split(inside)]
    return _SEPARATORS.split(text.replace("[", "").replace("]", ""))


def _quoted(inside: str) -> list[str] | None:
    literal = _literal(f"[{inside}]")
    if isinstance(literal, list) and all(isinstance(piece, str) for piece in literal):
        return literal
    return None


def _literal(text: str):
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
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
