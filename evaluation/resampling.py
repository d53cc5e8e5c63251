"""Bootstrap confidence intervals and paired significance tests, computed as matrix products.

For a confidence interval, samples are drawn with replacement (Efron's percentile bootstrap). For a significance test, the
two systems' answers to a sample are swapped at random (approximate randomisation; Noreen, 1989), which is valid for any
corpus figure, also for those that are no mean over samples, such as F.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .score_sheet import ScoreSheet

CHUNK = 4_000_000
"""The number of entries of a (draws, samples) matrix that are held at once: 32 MB."""


@dataclass(frozen=True)
class Estimate:
    """A corpus figure with its confidence interval, all in the unit of the figure.

    Attributes:
        value (`float`): The figure.
        low (`float`): The lower end of the interval.
        high (`float`): The upper end of the interval.
    """

    value: float
    low: float
    high: float


def bootstrap(sheet: ScoreSheet, draws: int = 1000, seed: int = 0, level: float = 0.95) -> dict[str, Estimate]:
    """Computes a bootstrap confidence interval of every corpus figure of a sheet.

    Args:
        sheet ([`ScoreSheet`]): The scores of N samples.
        draws (`int`, *optional*, defaults to 1000): The number of resamples of the N samples.
        seed (`int`, *optional*, defaults to 0):
            The seed of the draws. The same seed and N give the same resamples to every system.
        level (`float`, *optional*, defaults to 0.95): The confidence level of the interval.

    Returns:
        `dict[str, Estimate]`: Each figure of [`ScoreSheet.summary`] with its interval; NaN where no sample is scored.

    Raises:
        ValueError: if `draws` is less than 1, or if `level` is not between 0 and 1.

    Example:

    ```python
    >>> from microemo.evaluation.emotion_wheel import wheel_scores
    >>> from microemo.evaluation.resampling import bootstrap

    >>> sheet = wheel_scores(["clip_1", "clip_2"], truth=["happy", "sad"], predicted=["joyful", "angry"])
    >>> bootstrap(sheet)["M3-W1-L1/f"]
    Estimate(value=0.5, low=0.0, high=1.0)
    ```"""
    if draws < 1 or not 0 < level < 1:
        raise ValueError(f"draws={draws}, level={level}: expected at least one draw and a level between 0 and 1")
    n = len(sheet.names)
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[np.ndarray]] = {}
    for size in _chunks(draws, n):
        picked = rng.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        weights = np.bincount(picked.ravel(), minlength=size * n).reshape(size, n).astype(float)
        for name, values in sheet.corpus(weights).items():
            drawn.setdefault(name, []).append(values)
    tails = [(1 - level) / 2, (1 + level) / 2]
    estimates = {}
    for name, value in sheet.summary().items():
        values = np.concatenate(drawn[name])
        values = values[~np.isnan(values)]  # a draw that holds no scored sample has no figure
        low, high = np.quantile(values, tails) if len(values) else (np.nan, np.nan)
        estimates[name] = Estimate(value, float(low), float(high))
    return estimates


def paired_p_values(a: ScoreSheet, b: ScoreSheet, draws: int = 1000, seed: int = 0) -> dict[str, float]:
    """Computes two-sided p-values of the difference of two systems by paired approximate randomisation.

    Args:
        a ([`ScoreSheet`]): The scores of one system.
        b ([`ScoreSheet`]): The scores of the other system, for the same N samples (in any order) and metrics.
        draws (`int`, *optional*, defaults to 1000): The number of random swaps.
        seed (`int`, *optional*, defaults to 0): The seed of the swaps.

    Returns:
        `dict[str, float]`: For each corpus figure that both sheets have, (1 + the number of swaps whose difference is at
        least the observed one) / (1 + `draws`); NaN where no sample is scored.

    Raises:
        ValueError: if the sheets hold different names or metrics.

    Example:

    ```python
    >>> from microemo.evaluation.emotion_wheel import wheel_scores
    >>> from microemo.evaluation.resampling import paired_p_values

    >>> names, truth = ["clip_1", "clip_2"], ["happy", "sad"]
    >>> sheet = wheel_scores(names, truth, predicted=["joyful", "angry"])
    >>> paired_p_values(sheet, sheet)["M3-W1-L1/f"]
    1.0
    ```"""
    if set(a.names) != set(b.names) or a.metrics != b.metrics:
        raise ValueError(
            f"pairing needs the same samples and metrics: {len(a.names)} and {len(b.names)} names, "
            f"{len(set(a.names) & set(b.names))} in common; metrics {a.metrics} and {b.metrics}"
        )
    b = b.select(a.names)
    n = len(a.names)
    # one sheet of 2N samples: a draw's weights pick, for each sample, whose answer counts for whom
    values = {name: np.concatenate([a.values[name], b.values[name]]) for name in a.values if name in b.values}
    both = ScoreSheet(
        a.names + b.names,
        a.metrics,
        np.concatenate([a.precision, b.precision]),
        np.concatenate([a.recall, b.recall]),
        values,
    )
    observed = {name: abs(a.summary()[name] - b.summary()[name]) for name in both.summary()}
    as_large = dict.fromkeys(observed, 0)
    rng = np.random.default_rng(seed)
    for size in _chunks(draws, 2 * n):
        keep = rng.integers(2, size=(size, n)).astype(float)
        first = both.corpus(np.concatenate([keep, 1 - keep], axis=1))
        second = both.corpus(np.concatenate([1 - keep, keep], axis=1))
        for name, difference in observed.items():
            as_large[name] += int(np.sum(np.abs(first[name] - second[name]) >= difference - 1e-12))
    return {
        name: np.nan if np.isnan(observed[name]) else (1 + count) / (1 + draws) for name, count in as_large.items()
    }


def _chunks(draws: int, n: int) -> Iterator[int]:
    size = max(1, CHUNK // max(1, n))
    yield from (min(size, draws - start) for start in range(0, draws, size))
