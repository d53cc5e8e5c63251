"""From a description to emotion labels by rule: a lexicon, and what the description denies left out.

The rule is offline and the same for every system; a language model (`language_model_judge.extract_labels`) reads better
and is the published way. Chinese descriptions need the latter: the lexicon is English.
"""

import re
from collections.abc import Sequence

from .chat import Chat
from .emotion_labels import parse_labels
from .emotion_wheel import NEUTRAL, EmotionWheels
from .language_model_judge import extract_labels
from .prediction_files import Answers
from .raw_output import final_answer

# forms that in running prose are rarely a feeling ("the attention of", "this suggests care", "a firm voice")
NOT_IN_PROSE = frozenset(
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


def rule_labels(text: str, wheels: EmotionWheels | None = None) -> list[str]:
    """Emotion labels that the answer in `text` affirms (see `raw_output.final_answer`).

    A negator ("not", "no sign of", "isn't", "without") denies what follows it up to the end of its clause; in a list
    ("no anger, sadness or fear") it denies every item; "not only" and "not just" deny nothing.

    Args:
        wheels: the vocabulary whose word forms are looked for; None takes the package's own, which is the better
            lexicon for prose (AffectGPT's, with words such as "open" and "present", finds 14 labels an answer).
    Returns:
        Labels as the text spells them, lower-case, in order, each meaning (M1) once.
    Example:
        >>> rule_labels("She is not angry but worried, without any trace of joy.")
        ['worried']
    """
    wheels = wheels or EmotionWheels.default()
    text = _PLAIN_USES.sub(" ; ", final_answer(text).lower().replace("’", "'"))
    tokens = _TOKEN.findall(text)
    found: dict[str, str] = {}
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
                found.setdefault(wheels.cluster(label, "M1"), label)
            position += max(0, len(phrase) - 1)
        position += 1
    return list(found.values())


def labels_of(answers: Answers, chat: Chat | None = None) -> tuple[dict[str, list[str]], dict[str, object]]:
    """Each name's labels, whatever form the file has.

    Args:
        answers: label lists are parsed; free text goes through `chat` when given, through `rule_labels` otherwise.
    Returns:
        name -> labels, and notes: "extraction" (how), "unreadable" (names whose answer the model left unreadable; they
        count as empty answers).
    """
    if answers.kind == "labels":
        return {name: parse_labels(answer) for name, answer in answers.items.items()}, {"extraction": "as listed"}
    texts = ["" if text is None else final_answer(str(text)) for text in answers.items.values()]
    if chat is None:
        labels: Sequence = [rule_labels(text) for text in texts]
        how = "rule"
    else:
        labels = extract_labels(chat, texts)
        how = f"model {chat.model}"
    unreadable = tuple(name for name, found in zip(answers.items, labels, strict=True) if found is None)
    return (
        {name: found or [] for name, found in zip(answers.items, labels, strict=True)},
        {"extraction": how, "unreadable": unreadable},
    )


def _longest_form(tokens: list[str], position: int, wheels: EmotionWheels) -> list[str]:
    for length in range(_LONGEST_PHRASE, 0, -1):
        phrase = tokens[position : position + length]
        label = " ".join(phrase)
        if (label in wheels.forms or label == NEUTRAL) and label not in NOT_IN_PROSE:
            return phrase
    return []


def _goes_on_as_list(tokens: list[str], comma: int) -> bool:
    """Whether the comma parts items of one list: at most two words to the next comma, or "or"/"nor"/"and" right after."""
    following = tokens[comma + 1 : comma + 4]
    return following[:1] in (["or"], ["nor"]) or any(
        token in (",", "or", "nor", "and", ".") for token in following[1:]
    )
