"""Bootstrap intervals and paired significance, all metrics and draws in matrix products.

Samples are drawn with replacement for an interval (Efron's percentile bootstrap). For significance, the two systems'
answers to a sample are swapped at random (approximate randomisation; Noreen, 1989), which holds for any corpus figure,
F included, that is not a mean over samples.
"""

from dataclasses import dataclass

import numpy as np

from .score_sheet import ScoreSheet

CHUNK = 4_000_000
"""Entries of a (draws, samples) matrix held at once: 32 MB."""


@dataclass(frozen=True)
class Estimate:
    """A corpus figure with its 95 % interval; all in the figure's own unit."""

    value: float
    low: float
    high: float


def bootstrap(sheet: ScoreSheet, draws: int = 1000, seed: int = 0, level: float = 0.95) -> dict[str, Estimate]:
    """Percentile intervals of every corpus figure of `sheet`.

    Args:
        draws: resamples of the N samples; the same `seed` and N give the same resamples to every system.
        level: mass of the interval.
    """
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
    """Two-sided p that systems `a` and `b` differ in each corpus figure that both have.

    Args:
        a, b: sheets that hold the same names (in any order) and metrics.
    Returns:
        (1 + number of random swaps whose difference is at least the one seen) / (1 + draws).
    Raises:
        ValueError: the sheets hold different names or metrics.
    """
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
    seen = {name: abs(a.summary()[name] - b.summary()[name]) for name in both.summary()}
    as_large = dict.fromkeys(seen, 0)
    rng = np.random.default_rng(seed)
    for size in _chunks(draws, 2 * n):
        keep = rng.integers(2, size=(size, n)).astype(float)
        first = both.corpus(np.concatenate([keep, 1 - keep], axis=1))
        second = both.corpus(np.concatenate([1 - keep, keep], axis=1))
        for name, difference in seen.items():
            as_large[name] += int(np.sum(np.abs(first[name] - second[name]) >= difference - 1e-12))
    return {name: np.nan if np.isnan(seen[name]) else (1 + count) / (1 + draws) for name, count in as_large.items()}


def _chunks(draws: int, n: int):
    size = max(1, CHUNK // max(1, n))
    yield from (min(size, draws - start) for start in range(0, draws, size))
