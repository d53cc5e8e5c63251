"""Plots of results, made with matplotlib: confidence intervals, confusion matrix, recall of each emotion, ablation."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..utils.atomic_files import atomic_file
from .emotion_labels import RawLabels, parse_labels
from .emotion_wheel import EmotionWheels
from .result_tables import ResultTable

ELSEWHERE = "not on the wheel"
"""The name of the row and column of labels outside the wheel, and of empty predictions."""


def plot_intervals(table: ResultTable, column: str, path: str | Path) -> Path:
    """Plots the values and confidence intervals of one column of a table, with published values as open diamonds.

    Args:
        table ([`ResultTable`]): The table.
        column (`str`): One of its columns.
        path (`str` or `Path`): The .png, .svg or .pdf file to write.

    Returns:
        `Path`: The file.

    Raises:
        ValueError: if the table has no such column.
        ImportError: if matplotlib is not installed.
    """
    if column not in table.columns:
        raise ValueError(f"column {column!r}: the table has {', '.join(table.columns)}")
    index = table.columns.index(column)
    rows = [
        (system, cells[index]) for system, _, cells in table.rows if cells[index].estimate or cells[index].published
    ]
    figure, axes = _figure(8, 1.2 + 0.35 * len(rows))
    for position, (_, cell) in enumerate(reversed(rows)):
        if cell.estimate is not None:
            below, above = cell.estimate.value - cell.estimate.low, cell.estimate.high - cell.estimate.value
            axes.errorbar(cell.estimate.value, position, xerr=[[below], [above]], fmt="o", color="C0", capsize=3)
        if cell.published:
            axes.plot(cell.published.value, position, "D", mfc="none", color="C1", zorder=3)
    axes.plot([], [], "o-", color="C0", label="ours, 95 % interval")
    if any(cell.published for _, cell in rows):
        axes.plot([], [], "D", mfc="none", color="C1", label="published (see the table for split and grouper)")
    axes.set_yticks(range(len(rows)), [system for system, _ in reversed(rows)])
    axes.set_xlabel(column if column == "Labels per answer" else f"{column} (per cent)")
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return _save(figure, path)


def wheel_confusion(
    truth: Sequence[RawLabels],
    predicted: Sequence[RawLabels],
    wheels: EmotionWheels | None = None,
    metric: str = "M3-W1-L1",
) -> tuple[list[str], np.ndarray]:
    """Computes the confusion matrix of the clusters of an emotion wheel.

    Each true cluster of a sample spreads a weight of one evenly over the sample's predicted clusters. A predicted cluster
    that is also true for the sample counts for that cluster alone.

    Args:
        truth (`Sequence`): N reference answers, lists of labels or their text.
        predicted (`Sequence`): N predicted answers, lists of labels or their text.
        wheels ([`EmotionWheels`], *optional*): The vocabulary. By default the one that ships with the package.
        metric (`str`, *optional*, defaults to `"M3-W1-L1"`): The M3 metric, which says which wheel at which level.

    Returns:
        `tuple[list[str], np.ndarray]`: The names of K clusters and [`ELSEWHERE`], and a matrix of shape (K + 1, K + 1)
        with the true clusters in rows and the predicted ones in columns.

    Raises:
        KeyError: if the vocabulary has no such wheel.
        ValueError: if the lengths differ.

    Example:

    ```python
    >>> from microemo.evaluation.result_plots import wheel_confusion

    >>> names, matrix = wheel_confusion(truth=["furious"], predicted=["angry, sad"])
    >>> float(matrix[names.index("anger"), names.index("anger")])
    1.0
    ```"""
    wheels = wheels or EmotionWheels.default()
    roots = sorted(set(wheels.clusters[metric].values()))
    position = {root: index for index, root in enumerate(roots)}
    names, matrix = [*roots, ELSEWHERE], np.zeros((len(roots) + 1, len(roots) + 1))

    def clusters(answer: RawLabels) -> set[int]:
        names = (str(wheels.cluster(label, metric)) for label in parse_labels(answer))
        return {position.get(name, len(roots)) for name in names}

    for true_answer, predicted_answer in zip(truth, predicted, strict=True):
        rows, columns = clusters(true_answer), clusters(predicted_answer) or {len(roots)}
        for row in rows:
            hit = [row] if row in columns else sorted(columns - rows) or sorted(columns)
            matrix[row, hit] += 1 / len(hit)
    return names, matrix


def plot_confusion(names: Sequence[str], matrix: np.ndarray, title: str, path: str | Path) -> Path:
    """Plots a confusion matrix with each row as shares of the true occurrences.

    Args:
        names (`Sequence[str]`): The K names of rows and columns, from [`wheel_confusion`].
        matrix (`np.ndarray` of shape `(K, K)`): The confusion matrix, true clusters in rows.
        title (`str`): The title of the plot.
        path (`str` or `Path`): The .png, .svg or .pdf file to write.

    Returns:
        `Path`: The file.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    totals = matrix.sum(axis=1, keepdims=True)
    shares = matrix / np.where(totals == 0, 1, totals)
    size = 2.5 + 0.6 * len(names)
    figure, axes = _figure(size, size)
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    for row, column in np.ndindex(*shares.shape):
        if matrix[row, column]:
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{shares[row, column]:.2f}", ha="center", va="center", color=colour, fontsize=8)
    labels = [f"{name} ({total:.0f})" for name, total in zip(names, totals[:, 0], strict=True)]
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), labels)
    axes.set_xlabel("predicted")
    axes.set_ylabel("truth (occurrences)")
    axes.set_title(title)
    figure.colorbar(image, shrink=0.7, label="share of the truth")
    return _save(figure, path)


def emotion_recall(
    truth: Sequence[RawLabels],
    predicted: Sequence[RawLabels],
    wheels: EmotionWheels | None = None,
    metric: str = "M2",
) -> dict[str, tuple[int, int]]:
    """Counts for each emotion the samples in which it is true, and those of them in which it is predicted.

    Args:
        truth (`Sequence`): N reference answers, lists of labels or their text.
        predicted (`Sequence`): N predicted answers, lists of labels or their text.
        wheels ([`EmotionWheels`], *optional*): The vocabulary. By default the one that ships with the package.
        metric (`str`, *optional*, defaults to `"M2"`): The metric under whose names emotions are compared.

    Returns:
        `dict[str, tuple[int, int]]`: For each emotion the two counts, the most frequent emotion first.

    Raises:
        ValueError: if the vocabulary has no such metric, or if the lengths differ.

    Example:

    ```python
    >>> from microemo.evaluation.result_plots import emotion_recall

    >>> emotion_recall(truth=["joyful", "happy"], predicted=["happy", "sad"])
    {'cheerful': (2, 1)}
    ```"""
    wheels = wheels or EmotionWheels.default()
    occurrences: Counter[str] = Counter()
    hits: Counter[str] = Counter()
    for answers in zip(truth, predicted, strict=True):
        true_names, predicted_names = (
            {str(wheels.cluster(label, metric)) for label in parse_labels(answer)} for answer in answers
        )
        occurrences.update(true_names)
        hits.update(true_names & predicted_names)
    return {emotion: (count, hits[emotion]) for emotion, count in occurrences.most_common()}


def plot_emotion_recall(recall: dict[str, tuple[int, int]], title: str, path: str | Path, most: int = 30) -> Path:
    """Plots the recall of the most frequent emotions, with their counts.

    Args:
        recall (`dict[str, tuple[int, int]]`): The counts that [`emotion_recall`] returns.
        title (`str`): The title of the plot.
        path (`str` or `Path`): The .png, .svg or .pdf file to write.
        most (`int`, *optional*, defaults to 30): The largest number of emotions in the plot.

    Returns:
        `Path`: The file.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    shown = list(recall.items())[:most]
    figure, axes = _figure(8, 1.2 + 0.28 * len(shown))
    axes.barh(range(len(shown)), [100 * hits / count for _, (count, hits) in reversed(shown)], color="C0")
    axes.set_yticks(range(len(shown)), [f"{emotion} ({count})" for emotion, (count, _) in reversed(shown)])
    axes.set_xlim(0, 100)
    axes.set_xlabel("recall (per cent of the clips that show it)")
    axes.set_title(title)
    return _save(figure, path)


def plot_arms(
    bars: Mapping[str, Sequence[tuple[float, float]]], groups: Sequence[str], title: str, path: str | Path
) -> Path:
    """Plots mean and standard deviation of each arm of an ablation, with a bar in every group.

    Args:
        bars (`Mapping[str, Sequence[tuple[float, float]]]`):
            For each arm the mean and the standard deviation in each of G groups, in per cent.
        groups (`Sequence[str]`): The names of the G groups.
        title (`str`): The name of the figure that is plotted.
        path (`str` or `Path`): The .png, .svg or .pdf file to write.

    Returns:
        `Path`: The file.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    figure, axes = _figure(8, 1.2 + 0.5 * len(bars))
    height = 0.8 / len(groups)
    for number, group in enumerate(groups):
        places = [place + (number - (len(groups) - 1) / 2) * height for place in range(len(bars))]
        means, deviations = zip(*(of_arm[number] for of_arm in bars.values()), strict=True)
        axes.barh(places, means, height, xerr=deviations, label=group, color=f"C{number}", capsize=2)
        for place, mean in zip(places, means, strict=True):
            beside = mean < 10  # a bar too short to write on
            at, color = (mean + 1, "black") if beside else (1, "white")
            axes.text(at, place, f"{mean:.1f}", va="center", color=color, fontsize=8)
    axes.set_yticks(range(len(bars)), list(bars))
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel(f"{title} (per cent)")
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=len(groups), frameon=False)
    return _save(figure, path)


def plot_curves(
    curves: Mapping[str, Sequence[Sequence[tuple[float, float]]]], axis_names: tuple[str, str], path: str | Path
) -> Path:
    """Plots for each arm a line through the mean of its runs, and a thin line for each run.

    Args:
        curves (`Mapping[str, Sequence[Sequence[tuple[float, float]]]]`):
            For each arm its runs, each a list of points (x, y) at the same x, with y from 0 to 1.
        axis_names (`tuple[str, str]`): The names of the x and the y axis.
        path (`str` or `Path`): The .png, .svg or .pdf file to write.

    Returns:
        `Path`: The file.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    figure, axes = _figure(8, 4.5)
    for number, (name, runs) in enumerate(curves.items()):
        places, values = np.array(runs, dtype=float).transpose(2, 0, 1)
        axes.plot(places[0], values.mean(axis=0), "o-", color=f"C{number}", label=name, markersize=3)
        axes.plot(places[0], values.T, color=f"C{number}", linewidth=0.8, alpha=0.5)
    axes.set_ylim(0, 1)
    axes.set_xlabel(axis_names[0])
    axes.set_ylabel(axis_names[1])
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False)
    return _save(figure, path)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _save(figure: Any, path: str | Path) -> Path:
    with atomic_file(path) as part:
        figure.savefig(part, dpi=150)
    return Path(path)
