"""Emotion labels found in a description by rule: a lexicon of emotion words, without those that the text denies.

The rule works offline and is the same for every system. A language model ([`extract_labels`]) is
more accurate and is the published way. Chinese descriptions need the language model, since the lexicon is English.
"""

import re
from collections.abc import Sequence
from typing import Any

from .chat import Chat
from .emotion_labels import parse_labels
from .emotion_wheel import NEUTRAL, EmotionWheels
from .language_model_judge import extract_labels
from .prediction_files import Answers
from .raw_output import final_answer

# forms that in running prose are rarely a feeling ("the attention of", "this suggests care", "a firm voice")
NOT_IN_PROSE: frozenset[str] = frozenset(
    [
        "alert",
        "alerts",
        "attention",
        "care",
        "cared",
        "cares",
        "cheers",
        "close",
        "concentration",
        "concern",
        "concerns",
        "contents",
        "critical",
        "determine",
        "ease",
        "easing",
        "expectation",
        "expectations",
        "expecting",
        "expressionless",
        "firm",
        "focus",
        "focuses",
        "focusing",
        "hope",
        "hopes",
        "interest",
        "interesting",
        "interests",
        "please",
        "pleases",
        "realise",
        "realised",
        "realises",
        "realising",
        "realize",
        "realized",
        "realizes",
        "realizing",
        "reflective",
        "resolve",
        "resolved",
        "resolves",
        "respect",
        "respects",
        "suspect",
        "suspects",
        "thinking",
        "trust",
        "warm",
        "wonder",
        "wonders",
    ]
)

# "determined", "content" and "focused" are feelings or not by what stands next to them
_PLAIN_USES = re.compile(
    r"\b(?:can|could|cannot|may|might|must|be|been|being|to be) (?:\w+ )?determined\b|\bdetermined (?:that|by|from)\b"
    r"|\b(?:subtitle|subtitles|text|video|audio|the|its|specific|this|that|of) content\b|\bcontent of\b"
    r"|\bfocused on the\b|\bmoved (?:to|from|his|her|their|away|closer)\b|\bstressed (?:that|by the speaker)\b"
)
_NEGATORS = frozenset(
    [
        "not",
        "no",
        "never",
        "none",
        "neither",
        "nor",
        "without",
        "hardly",
        "barely",
        "scarcely",
        "lack",
        "lacks",
        "lacking",
        "cannot",
        "absent",
        "nothing",
        "free",
    ]
)
_TOKEN = re.compile(r"[a-z]+(?:['’-][a-z]+)*|[.,;:!?\n]")
_CLAUSE_ENDS = frozenset(".;:!?\n") | {"but", "however", "although", "though", "yet", "instead", "rather", "because"}
_LONGEST_PHRASE = 3


LABELS = "Labels:"


def labels_of_answer(answer: str) -> list[str]:
    """Extracts the labels that an answer lists behind its last "Labels:".

    Args:
        answer (`str`): The answer.

    Returns:
        `list[str]`: The labels; empty if the answer has no such list.
    """
    _, marker, listed = answer.rpartition(LABELS)
    return [label.strip() for label in listed.split(",")] if marker else []


def rule_labels(text: str, wheels: EmotionWheels | None = None) -> list[str]:
    """Returns the emotion labels that a description affirms.

    Only the final answer in the text counts (see [`final_answer`]). A negator ("not", "no sign
    of", "isn't", "without") denies what follows it up to the end of its clause. In a list ("no anger, sadness or fear")
    it denies every item. "Not only" and "not just" deny nothing.

    Args:
        text (`str`): An English description.
        wheels ([`EmotionWheels`], *optional*):
            The vocabulary whose word forms are looked for. By default the one that ships with the package, which is the
            better lexicon for prose (AffectGPT's, with words such as "open" and "present", finds 14 labels an answer).

    Returns:
        `list[str]`: The labels as the text spells them, lower-case, in order, without a second word form of the same word
        (M1).

    Example:

    ```python
    >>> from microemo.evaluation.label_extraction import rule_labels

    >>> rule_labels("She is not angry but worried, without any trace of joy.")
    ['worried']
    ```"""
    wheels = wheels or EmotionWheels.default()
    text = _PLAIN_USES.sub(" ; ", final_answer(text).lower().replace("’", "'"))
    tokens = _TOKEN.findall(text)
    labels: dict[str, str] = {}  # by the word that each is a form of
    position, denied = 0, False
    while position < len(tokens):
        token = tokens[position]
        if token in _CLAUSE_ENDS or (token == "," and not _goes_on_as_list(tokens, position)):
            denied = False
        elif token in _NEGATORS or token.endswith("n't"):
            denied = tokens[position + 1 : position + 2] not in (["only"], ["just"], ["merely"])
        else:
            phrase = _longest_form(tokens, position, wheels)
            if phrase and not denied:
                label = " ".join(phrase)
                labels.setdefault(wheels.cluster(label, "M1") or label, label)
            position += max(0, len(phrase) - 1)
        position += 1
    return list(labels.values())


def labels_of(answers: Answers, chat: Chat | None = None) -> tuple[dict[str, list[str]], dict[str, Any]]:
    """Returns the emotion labels of each clip, whether the answers are label lists or free text.

    Args:
        answers ([`Answers`]): The answers of one file.
        chat ([`Chat`], *optional*): A language model that extracts labels from free text. `None` uses [`rule_labels`].

    Returns:
        `tuple[dict[str, list[str]], dict[str, Any]]`: The labels by name, and notes. The note `extraction` says how
        the labels were found (`"as listed"`, `"rule"`, or `"model NAME"`); `unreadable` holds the names for which the
        model gave no readable answer, which count as answers without labels.

    Raises:
        ChatError: if the model cannot be reached or does not answer.

    Example:

    ```python
    >>> from pathlib import Path
    >>> from microemo.evaluation.label_extraction import labels_of
    >>> from microemo.evaluation.prediction_files import Answers

    >>> labels, notes = labels_of(Answers(Path("answers.jsonl"), "text", {"clip_1": "He sounds tired and sad."}))
    >>> labels, notes["extraction"]
    ({'clip_1': ['tired', 'sad']}, 'rule')
    ```"""
    if answers.kind == "labels":
        return {name: parse_labels(answer) for name, answer in answers.items.items()}, {"extraction": "as listed"}
    texts = ["" if text is None else final_answer(str(text)) for text in answers.items.values()]
    if chat is None:
        extracted: Sequence[list[str] | None] = [rule_labels(text) for text in texts]
        extraction = "rule"
    else:
        extracted = extract_labels(chat, texts)
        extraction = f"model {chat.model}"
    by_name = dict(zip(answers.items, extracted, strict=True))
    unreadable = tuple(name for name, labels in by_name.items() if labels is None)
    return (
        {name: labels or [] for name, labels in by_name.items()},
        {"extraction": extraction, "unreadable": unreadable},
    )


def _longest_form(tokens: list[str], position: int, wheels: EmotionWheels) -> list[str]:
    for length in range(_LONGEST_PHRASE, 0, -1):
        phrase = tokens[position : position + length]
        label = " ".join(phrase)
        if (label in wheels.forms or label == NEUTRAL) and label not in NOT_IN_PROSE:
            return phrase
    return []


def _goes_on_as_list(tokens: list[str], comma: int) -> bool:
    """Returns whether a comma separates items of one list: at most two words to the next comma, or "or"/"nor" after it."""
    following = tokens[comma + 1 : comma + 4]
    return following[:1] in (["or"], ["nor"]) or any(
        token in (",", "or", "nor", "and", ".") for token in following[1:]
    )
