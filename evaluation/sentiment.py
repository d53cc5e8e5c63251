"""Sentiment of open-vocabulary answers, and the WAF / ACC scores of MER-UniBench (AffectGPT, 2025)."""

from collections.abc import Iterable, Sequence
from functools import cache

import numpy as np

from ..utils.files import read_table
from .emotion_wheel import DEFAULT_FOLDER, EmotionWheels


def label_sentiment(labels: Iterable[str]) -> str:
    """Returns the sentiment of emotion labels by the majority of their polarities.

    The polarities are those of the package's vocabulary, with "positive" and "negative" as labels of their own. Labels
    outside the vocabulary do not count. A tie is "neutral", and so are labels without any polarity.

    Args:
        labels (`Iterable[str]`): Labels, lower-case.

    Returns:
        `str`: One of `"positive"`, `"negative"` and `"neutral"`.

    Example:

    ```python
    >>> from microemo.evaluation.sentiment import label_sentiment

    >>> label_sentiment(["happy", "proud", "worried"])
    'positive'
    ```"""
    polarity = _polarity()
    votes = [polarity.get(label) for label in labels]
    balance = votes.count("positive") - votes.count("negative")
    return "positive" if balance > 0 else "negative" if balance < 0 else "neutral"


def valence_sentiment(valence: float) -> str:
    """Returns the sentiment of an annotated valence, which is its sign.

    Args:
        valence (`float`): The valence, of any scale around 0.

    Returns:
        `str`: `"positive"`, `"negative"`, or `"neutral"` for 0.

    Example:

    ```python
    >>> from microemo.evaluation.sentiment import valence_sentiment

    >>> valence_sentiment(-0.4)
    'negative'
    ```"""
    return "positive" if valence > 0 else "negative" if valence < 0 else "neutral"


def sentiment_scores(truth: Sequence[str], predicted: Sequence[str | None]) -> dict[str, float]:
    """Computes accuracy and weighted F1 over the samples whose truth is not "neutral", as MER-UniBench does.

    Args:
        truth (`Sequence[str]`): N of `"positive"`, `"negative"` and `"neutral"`.
        predicted (`Sequence[str | None]`): N of the same. `None` (no readable answer) and `"neutral"` are wrong.

    Returns:
        `dict[str, float]`: `ACC` (accuracy) and `WAF` (weighted F1), from 0 to 1, and `n`, the number of samples scored.
        Both scores are NaN if `n` is 0.

    Raises:
        ValueError: if a true sentiment is none of the three, or if the lengths differ.

    Example:

    ```python
    >>> from microemo.evaluation.sentiment import sentiment_scores

    >>> sentiment_scores(["positive", "negative", "neutral"], ["positive", "positive", "negative"])["ACC"]
    0.5
    ```"""
    for sentiment in truth:
        if sentiment not in ("positive", "negative", "neutral"):
            raise ValueError(f"sentiment {sentiment!r}: expected positive, negative or neutral")
    pairs = [(t, p) for t, p in zip(truth, predicted, strict=True) if t != "neutral"]
    if not pairs:
        return {"ACC": np.nan, "WAF": np.nan, "n": 0}
    true, answered = (np.array(side, dtype=object) for side in zip(*pairs, strict=True))
    weighted = 0.0
    for sentiment in ("positive", "negative"):
        hits = np.sum((true == sentiment) & (answered == sentiment))
        support = np.sum(true == sentiment)
        answers = np.sum(answered == sentiment)
        weighted += support * (2 * hits / (support + answers) if support + answers else 0.0)
    return {"ACC": float(np.mean(true == answered)), "WAF": float(weighted / len(true)), "n": len(true)}


@cache
def _polarity() -> dict[str, str]:
    by_name = {row["name"]: row["polarity"] for row in read_table(DEFAULT_FOLDER / "families.csv")}
    forms = {form: by_name[words[0]] for form, words in EmotionWheels.default().forms.items()}
    return forms | {"positive": "positive", "negative": "negative", "neutral": "neutral"}
