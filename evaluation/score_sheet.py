"""Per-sample scores of one system, and the corpus figures made from them."""

from dataclasses import dataclass, field

import numpy as np

SET_LEVEL = "S"
"""Name of the set-level metric: its precision is the paper's Accuracy_S, its recall Recall_S."""


@dataclass(frozen=True)
class ScoreSheet:
    """What means, intervals and significance are computed from: N samples, M metrics.

    Attributes:
        names: N sample names.
        metrics: M metric names: "S" (set level), "M1", "M2", "M3-W1-L1", ...
        precision, recall: (N, M), in 0..1; NaN where the metric leaves the sample out (no truth left to score).
        values: other per-sample figures whose mean is reported, (N,) each, such as "labels" (labels per answer).
        notes: what a reader must know beside the figures (grouping, samples left out, out-of-vocabulary shares).
    """

    names: tuple[str, ...]
    metrics: tuple[str, ...]
    precision: np.ndarray
    recall: np.ndarray
    values: dict[str, np.ndarray] = field(default_factory=dict)
    notes: dict[str, object] = field(default_factory=dict)

    def corpus(self, weights: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Corpus figures: means over samples, F = 2PR / (P + R) of the means (0 where both are 0).

        Args:
            weights: (D, N) how often each sample counts in each of D draws; None counts each once (D = 1).
        Returns:
            (D,) for each of "METRIC/precision", "METRIC/recall", "METRIC/avg", "METRIC/f", the names in `values`,
            and, when the wheel metrics are there, "M-avg" (mean F of all) and "EW/precision", "EW/recall", "EW/f" (means
            over the level-1 wheels; "EW/f" is the published EW score); NaN where no sample is scored.
        """
        weights = np.ones((1, len(self.names))) if weights is None else weights
        precision, recall = _weighted_mean(self.precision, weights), _weighted_mean(self.recall, weights)
        return self._figures(precision, recall, {name: _weighted_mean(v, weights) for name, v in self.values.items()})

    def _figures(self, precision, recall, values):
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
        """`corpus()` as plain floats."""
        return {name: float(value[0]) for name, value in self.corpus().items()}

    def join(self, other: "ScoreSheet") -> "ScoreSheet":
        """The metrics of both sheets, which must hold the same samples in the same order."""
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

    def select(self, names: list[str] | tuple[str, ...]) -> "ScoreSheet":
        """The same sheet for `names`, in that order. Raises KeyError for a name it does not hold."""
        position = {name: index for index, name in enumerate(self.names)}
        rows = [position[name] for name in names]
        values = {name: value[rows] for name, value in self.values.items()}
        return ScoreSheet(tuple(names), self.metrics, self.precision[rows], self.recall[rows], values, self.notes)


def overlap(truth: list[set], predicted: list[set]) -> tuple[np.ndarray, np.ndarray]:
    """|A∩B| / |B| and |A∩B| / |A| of each sample (design section 6; the paper's Accuracy_S and Recall_S).

    Args:
        truth, predicted: N sets A and B of group names.
    Returns:
        precision, recall: (N,); (0, 0) for an empty prediction, NaN for an empty truth.
    """
    sizes = np.array([[len(a & b), len(a), len(b)] for a, b in zip(truth, predicted, strict=True)], dtype=float)
    hits, in_truth, in_predicted = sizes.reshape(-1, 3).T
    scored = np.where(in_truth == 0, np.nan, 1.0)
    precision = hits / np.maximum(in_predicted, 1) * scored
    recall = hits / np.maximum(in_truth, 1) * scored
    return precision, recall


def _weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(N,) or (N, M) and (D, N) -> (D,) or (D, M): means over the samples that are not NaN."""
    there = ~np.isnan(values)
    count = weights @ there.astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count > 0, (weights @ np.where(there, values, 0.0)) / count, np.nan)
