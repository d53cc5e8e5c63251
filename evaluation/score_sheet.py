"""Scores of each sample of one system, and the corpus figures computed from them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

SET_LEVEL = "S"
"""The name of the set-level metric: its precision is the paper's Accuracy_S, its recall the paper's Recall_S."""


@dataclass(frozen=True)
class ScoreSheet:
    """Holds the scores of N samples under M metrics, from which means, intervals and significance are computed.

    Attributes:
        names (`tuple[str, ...]`): N sample names.
        metrics (`tuple[str, ...]`): M metric names: `"S"` (set level), `"M1"`, `"M2"`, `"M3-W1-L1"`, ...
        precision (`np.ndarray` of shape `(N, M)`):
            The precision, from 0 to 1; NaN where a metric leaves a sample out (no true label to score).
        recall (`np.ndarray` of shape `(N, M)`): The recall, from 0 to 1 or NaN.
        values (`dict[str, np.ndarray]`):
            Other figures of each sample, of shape `(N,)`, whose mean is reported, such as `labels` (labels per answer).
        notes (`dict[str, Any]`):
            What a reader must know beside the figures (grouping, samples left out, out-of-vocabulary shares).

    Example:

    ```python
    >>> import numpy as np
    >>> from microemo.evaluation.score_sheet import ScoreSheet

    >>> sheet = ScoreSheet(("clip_1", "clip_2"), ("S",), np.array([[1.0], [0.0]]), np.array([[0.5], [0.5]]))
    >>> sheet.summary()
    {'S/precision': 0.5, 'S/recall': 0.5, 'S/avg': 0.5, 'S/f': 0.5}
    ```"""

    names: tuple[str, ...]
    metrics: tuple[str, ...]
    precision: np.ndarray
    recall: np.ndarray
    values: dict[str, np.ndarray] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    def corpus(self, weights: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Computes the corpus figures: means over samples, and F = 2PR / (P + R) of the means (0 where both are 0).

        Args:
            weights (`np.ndarray` of shape `(D, N)`, *optional*):
                How often each sample counts in each of D draws. By default each counts once, in a single draw.

        Returns:
            `dict[str, np.ndarray]`: An array of shape `(D,)` for each of `METRIC/precision`, `METRIC/recall`, `METRIC/avg`
            (the mean of both), `METRIC/f`, and each name in `values`. With wheel metrics also `M-avg` (the mean F of all
            of them) and `EW/precision`, `EW/recall` and `EW/f` (means over the level-1 wheels; `EW/f` is the published EW
            score). NaN where no sample is scored.
        """
        weights = np.ones((1, len(self.names))) if weights is None else weights
        precision, recall = _weighted_mean(self.precision, weights), _weighted_mean(self.recall, weights)
        return self._figures(precision, recall, {name: _weighted_mean(v, weights) for name, v in self.values.items()})

    def _figures(
        self, precision: np.ndarray, recall: np.ndarray, values: dict[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        with np.errstate(invalid="ignore"):
            total = precision + recall
            f = np.where(total == 0, 0.0, 2 * precision * recall / np.where(total == 0, 1.0, total))
        figures = {}
        for column, metric in enumerate(self.metrics):
            figures[f"{metric}/precision"] = precision[:, column]
            figures[f"{metric}/recall"] = recall[:, column]
            figures[f"{metric}/avg"] = total[:, column] / 2
            figures[f"{metric}/f"] = f[:, column]
        wheels = [column for column, metric in enumerate(self.metrics) if metric != SET_LEVEL]
        if wheels:
            figures["M-avg"] = f[:, wheels].mean(axis=1)
        if level1 := [column for column in wheels if self.metrics[column].endswith("-L1")]:
            for name, side in (("precision", precision), ("recall", recall), ("f", f)):
                figures[f"EW/{name}"] = side[:, level1].mean(axis=1)
        return figures | values

    def summary(self) -> dict[str, float]:
        """Returns the corpus figures of all samples.

        Returns:
            `dict[str, float]`: The figures that [`ScoreSheet.corpus`] describes.
        """
        return {name: float(value[0]) for name, value in self.corpus().items()}

    def join(self, other: "ScoreSheet") -> "ScoreSheet":
        """Returns a sheet with the metrics, values and notes of two sheets.

        Args:
            other ([`ScoreSheet`]): A sheet of the same samples in the same order.

        Returns:
            [`ScoreSheet`]: The joined sheet; of a value or a note that both have, the other sheet's.

        Raises:
            ValueError: if the samples differ.
        """
        if self.names != other.names:
            raise ValueError(f"sheets of different samples: {len(self.names)} and {len(other.names)} names")
        return ScoreSheet(
            self.names,
            self.metrics + other.metrics,
            np.concatenate([self.precision, other.precision], axis=1),
            np.concatenate([self.recall, other.recall], axis=1),
            self.values | other.values,
            self.notes | other.notes,
        )

    def select(self, names: Sequence[str]) -> "ScoreSheet":
        """Returns the sheet of some samples.

        Args:
            names (`Sequence[str]`): The names of the samples, in the order wanted.

        Returns:
            [`ScoreSheet`]: Their scores.

        Raises:
            KeyError: if the sheet does not hold one of the names.
        """
        position = {name: index for index, name in enumerate(self.names)}
        rows = [position[name] for name in names]
        values = {name: value[rows] for name, value in self.values.items()}
        return ScoreSheet(tuple(names), self.metrics, self.precision[rows], self.recall[rows], values, self.notes)


def overlap(truth: Sequence[set[str]], predicted: Sequence[set[str]]) -> tuple[np.ndarray, np.ndarray]:
    """Computes the precision |A∩B| / |B| and the recall |A∩B| / |A| of each sample (the paper's Accuracy_S and Recall_S).

    Args:
        truth (`Sequence[set[str]]`): N sets A of true group names.
        predicted (`Sequence[set[str]]`): N sets B of predicted group names.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: Precision and recall, both of shape `(N,)`; 0 and 0 for an empty prediction, NaN
        for an empty truth.

    Raises:
        ValueError: if the lengths differ.

    Example:

    ```python
    >>> from microemo.evaluation.score_sheet import overlap

    >>> precision, recall = overlap([{"happy"}], [{"happy", "calm"}])
    >>> float(precision[0]), float(recall[0])
    (0.5, 1.0)
    ```"""
    sizes = np.array([[len(a & b), len(a), len(b)] for a, b in zip(truth, predicted, strict=True)], dtype=float)
    hits, in_truth, in_predicted = sizes.reshape(-1, 3).T
    scored = np.where(in_truth == 0, np.nan, 1.0)
    precision = hits / np.maximum(in_predicted, 1) * scored
    recall = hits / np.maximum(in_truth, 1) * scored
    return precision, recall


def _weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Computes means over the samples that are not NaN: (N,) or (N, M) and (D, N) to (D,) or (D, M)."""
    scored = ~np.isnan(values)
    count = weights @ scored.astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count > 0, (weights @ np.where(scored, values, 0.0)) / count, np.nan)
