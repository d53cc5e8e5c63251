"""Sentiment of open-vocabulary answers, and the WAF / ACC scores of MER-UniBench (AffectGPT, 2025)."""

from collections.abc import Iterable, Sequence
from functools import cache

import numpy as np

from ..utils.files import read_table
from .emotion_wheel import DEFAULT_FOLDER, EmotionWheels


def label_sentiment(labels: Iterable[str]) -> str:
    """ "positive", "negative" or "neutral" by the majority of the labels' polarities (our vocabulary's `polarity`).

    Labels outside the vocabulary have no say, except that "positive" and "negative" name themselves; a tie or no
    polar label at all is "neutral".
    """
    polarity = _polarity()
    votes = [polarity.get(label) for label in labels]
    balance = votes.count("positive") - votes.count("negative")
    return "positive" if balance > 0 else "negative" if balance < 0 else "neutral"


def valence_sentiment(valence: float) -> str:
    """The sentiment of an annotated valence: its sign (0 is "neutral")."""
    return "positive" if valence > 0 else "negative" if valence < 0 else "neutral"


def sentiment_scores(truth: Sequence[str], predicted: Sequence[str | None]) -> dict[str, float]:
    """Accuracy and weighted F1 over the samples whose truth is not "neutral" (as MER-UniBench scores them).

    Args:
        truth: N of "positive", "negative", "neutral".
        predicted: N of the same; None (no readable answer) and "neutral" are wrong.
    Returns:
        {"ACC", "WAF"} in 0..1 and "n", the number of samples scored; NaN where n is 0.
    """
    for sentiment in truth:
        if sentiment not in ("positive", "negative", "neutral"):
            raise ValueError(f"sentiment {sentiment!r}: expected positive, negative or neutral")
    pairs = [(t, p) for t, p in zip(truth, predicted, strict=True) if t != "neutral"]
    if not pairs:
        return {"ACC": np.nan, "WAF": np.nan, "n": 0}
    wanted, found = (np.array(side, dtype=object) for side in zip(*pairs, strict=True))
    weighted = 0.0
    for sentiment in ("positive", "negative"):
        hits = np.sum((wanted == sentiment) & (found == sentiment))
        support = np.sum(wanted == sentiment)
        named = np.sum(found == sentiment)
        weighted += support * (2 * hits / (support + named) if support + named else 0.0)
    return {"ACC": float(np.mean(wanted == found)), "WAF": float(weighted / len(wanted)), "n": len(wanted)}


@cache
def _polarity() -> dict[str, str]:
    by_name = {row["name"]: row["polarity"] for row in read_table(DEFAULT_FOLDER / "families.csv")}
    forms = {form: by_name[words[0]] for form, words in EmotionWheels.default().forms.items()}
    return forms | {"positive": "positive", "negative": "negative", "neutral": "neutral"}
