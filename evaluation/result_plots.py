"""Plots of the results: intervals per system, confusion on wheel level 1, recall of each emotion. Needs matplotlib."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..utils.files import atomic_file
from .emotion_labels import parse_labels
from .emotion_wheel import EmotionWheels
from .result_tables import ResultTable

ELSEWHERE = "not on the wheel"


def plot_intervals(table: ResultTable, column: str, path: str | Path) -> Path:
    """Each row's value and 95 % interval of one column, published values as open diamonds.

    Args:
        path: .png, .svg or .pdf.
    """
    if column not in table.columns:
        raise ValueError(f"column {column!r}: the table has {', '.join(table.columns)}")
    index = table.columns.index(column)
    rows = [
        (system, cells[index]) for system, _, cells in table.rows if cells[index].estimate or cells[index].published
    ]
    figure, axes = _figure(8, 1.2 + 0.35 * len(rows))
    for position, (_, cell) in enumerate(reversed(rows)):
        if cell.estimate:
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
    truth: Sequence, predicted: Sequence, wheels: EmotionWheels | None = None, metric: str = "M3-W1-L1"
) -> tuple[list[str], np.ndarray]:
    """How truth clusters are answered on level 1 of a wheel.

    Each truth cluster of a sample spreads a weight of one evenly over the sample's predicted clusters; a predicted
    cluster that is also true for the sample counts for that cluster alone.

    Args:
        truth, predicted: N answers each, lists of labels or their text.
    Returns:
        K + 1 cluster names (the last: labels outside the wheel, and empty predictions), and a (K + 1, K + 1) matrix,
        rows truth, columns predicted.
    """
    wheels = wheels or EmotionWheels.default()
    roots = sorted(set(wheels.clusters[metric].values()))
    position = {root: index for index, root in enumerate(roots)}
    names, matrix = [*roots, ELSEWHERE], np.zeros((len(roots) + 1, len(roots) + 1))

    def clusters(answer) -> set[int]:
        found = (wheels.cluster(label, metric) for label in parse_labels(answer))
        return {position.get(cluster, len(roots)) for cluster in found}

    for wanted, found in ((clusters(t), clusters(p) or {len(roots)}) for t, p in zip(truth, predicted, strict=True)):
        for row in wanted:
            columns = [row] if row in found else sorted(found - wanted) or sorted(found)
            matrix[row, columns] += 1 / len(columns)
    return names, matrix


def plot_confusion(names: Sequence[str], matrix: np.ndarray, title: str, path: str | Path) -> Path:
    """The matrix of `wheel_confusion`, each row as shares of its truth."""
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
    truth: Sequence, predicted: Sequence, wheels: EmotionWheels | None = None, metric: str = "M2"
) -> dict[str, tuple[int, int]]:
    """For each emotion (a name under `metric`): in how many samples it is true, and in how many of those it is found."""
    wheels = wheels or EmotionWheels.default()
    true, found = Counter(), Counter()
    for t, p in zip(truth, predicted, strict=True):
        wanted, answered = ({wheels.cluster(label, metric) for label in parse_labels(side)} for side in (t, p))
        true.update(wanted)
        found.update(wanted & answered)
    return {emotion: (count, found[emotion]) for emotion, count in true.most_common()}


def plot_emotion_recall(recall: dict[str, tuple[int, int]], title: str, path: str | Path, most: int = 30) -> Path:
    """Recall of the `most` frequent emotions of `emotion_recall`, with their counts."""
    shown = list(recall.items())[:most]
    figure, axes = _figure(8, 1.2 + 0.28 * len(shown))
    axes.barh(range(len(shown)), [100 * found / count for _, (count, found) in reversed(shown)], color="C0")
    axes.set_yticks(range(len(shown)), [f"{emotion} ({count})" for emotion, (count, _) in reversed(shown)])
    axes.set_xlim(0, 100)
    axes.set_xlabel("recall (per cent of the clips that show it)")
    axes.set_title(title)
    return _save(figure, path)


def plot_arms(
    bars: dict[str, Sequence[tuple[float, float]]], groups: Sequence[str], title: str, path: str | Path
) -> Path:
    """Mean and deviation of each arm of an ablation, a bar in every group.

    Args:
        bars: By the name of the arm (mean, deviation) in each group, in percent.
        groups: Their names.
        path: .png, .svg or .pdf.
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
    curves: dict[str, Sequence[Sequence[tuple[float, float]]]], axis_names: tuple[str, str], path: str | Path
) -> Path:
    """A line through the mean of several runs for each arm, and a thin one for each run.

    Args:
        curves: By the name of the arm its runs, each (x, y) at the same places, y from 0 to 1.
        axis_names: Of x and y.
        path: .png, .svg or .pdf.
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


def _figure(width: float, height: float):
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _save(figure, path: str | Path) -> Path:
    with atomic_file(path) as part:
        figure.savefig(part, dpi=150)
    return Path(path)
