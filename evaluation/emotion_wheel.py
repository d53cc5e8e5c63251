"""Emotion-wheel (EW) metrics of OV-MER and AffectGPT (Lian et al., 2024 and 2025).

Three tables map a free label to names that can be compared: f maps a word form to words ("happily" to "happy"), g maps a
word to labels that stand on an emotion wheel ("cheery" to "cheerful"), and h maps a wheel label to its cluster. M1
compares labels after f, M2 after g, and M3-Wk-Ll after h of wheel k at level l (1: the root, 2: the middle ring).
"""

from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from pathlib import Path

import numpy as np

from ..utils.files import read_table
from .emotion_labels import AFFECTGPT, RawLabels, check_compat, parse_labels
from .score_sheet import ScoreSheet, overlap

DEFAULT_FOLDER = Path(__file__).parent / "vocabulary"
"""The vocabulary of the package: the wheels of Plutchik, Parrott, Geneva, the Atlas of Emotions, and GoEmotions."""

NEUTRAL = "neutral"
"""A label outside the wheels, which is a group of its own."""


class EmotionWheels:
    """Holds the three tables of a vocabulary and maps labels to clusters of emotion wheels.

    Args:
        forms (`dict[str, list[str]]`): The table f, from a word form to words.
        synonyms (`dict[str, list[str]]`): The table g, from a word to wheel labels.
        wheels (`list[list[tuple[str, str, str]]]`): The rows of each wheel (level 1, level 2, level 3), lower-case.
        source (`str`): The name of the vocabulary, for tables and error messages.

    Attributes:
        metrics (`tuple[str, ...]`): The names of the metrics: `"M1"`, `"M2"`, `"M3-W1-L1"`, `"M3-W1-L2"`, ...
        clusters (`dict[str, dict[str, str]]`): For each M3 metric the table h, from a wheel label to its cluster.

    Example:

    ```python
    >>> from microemo.evaluation.emotion_wheel import EmotionWheels

    >>> wheels = EmotionWheels.default()
    >>> wheels.cluster("happily", "M1"), wheels.cluster("furious", "M3-W1-L1")
    ('happy', 'anger')
    ```"""

    def __init__(
        self,
        forms: dict[str, list[str]],
        synonyms: dict[str, list[str]],
        wheels: list[list[tuple[str, str, str]]],
        source: str,
    ):
        self.forms, self.synonyms, self.wheels, self.source = forms, synonyms, wheels, source
        self.clusters = {
            f"M3-W{number}-L{level}": clusters
            for number, rows in enumerate(wheels, start=1)
            for level, clusters in enumerate(_clusters(rows), start=1)
        }
        self.metrics = ("M1", "M2", *self.clusters)
        self._cached_cluster = lru_cache(maxsize=None)(self._find_cluster)

    @classmethod
    def from_folder(cls, folder: str | Path, format_file: str = "format.csv") -> "EmotionWheels":
        """Reads a vocabulary folder in the layout of AffectGPT and OV-MER.

        Args:
            folder (`str` or `Path`):
                A folder with the .csv or .xlsx files `wheel1`, `wheel2`, ... (columns level1, level2, level3; an empty
                cell repeats the one above), `synonym` (columns word_runN, synonym_runN) and `format_file` (columns name,
                format).
            format_file (`str`, *optional*, defaults to `"format.csv"`): The name of the file of word forms.

        Returns:
            [`EmotionWheels`]: The vocabulary, named after the folder.

        Raises:
            FileNotFoundError: if the folder lacks one of the files.
            ValueError: if a file lacks a column or has none of the rows it needs, or if a word stands on no wheel.
        """
        folder = Path(folder)
        wheels: list[list[tuple[str, str, str]]] = []
        while (path := _find(folder, f"wheel{len(wheels) + 1}")) is not None:
            wheels.append(_read_wheel(path))
        if not wheels:
            raise FileNotFoundError(f"{folder}: holds no wheel1.csv or wheel1.xlsx")
        labels = {label for rows in wheels for row in rows for label in row}
        synonyms = _read_synonyms(_require(folder, "synonym"), labels)
        forms = _read_forms(_require(folder, Path(format_file).stem, Path(format_file).suffix), synonyms)
        return cls(forms, synonyms, wheels, source=folder.name)

    @classmethod
    def default(cls) -> "EmotionWheels":
        """Returns the vocabulary that ships with the package.

        Returns:
            [`EmotionWheels`]: The same object at each call.
        """
        return _default_wheels()

    def knows(self, label: str) -> bool:
        """Returns whether a label is in the vocabulary.

        Args:
            label (`str`): A label, lower-case.

        Returns:
            `bool`: Whether the label is a word form of the vocabulary, or "neutral".
        """
        return label in self.forms or label == NEUTRAL

    def cluster(self, label: str, metric: str, compat: str | None = None) -> str | None:
        """Returns the name under which a metric compares a label.

        By default no label vanishes: a label outside the vocabulary is a group of its own ("neutral" too), a word that is
        not on the wheel is compared as under M2, and a label that stands on the wheel itself means itself, not the
        alphabetically first of its synonyms.

        Args:
            label (`str`): A label, lower-case.
            metric (`str`): One of `metrics`.
            compat (`str`, *optional*): `"affectgpt"` reproduces the published code.

        Returns:
            `str` or `None`: The name. With `compat="affectgpt"` it is `None` for a label that is outside the vocabulary
            or not on the wheel of the metric.

        Raises:
            ValueError: if the vocabulary has no such metric.
        """
        return self._cached_cluster(label, metric, compat)

    def _find_cluster(self, label: str, metric: str, compat: str | None) -> str | None:
        if metric not in self.metrics:
            raise ValueError(f"metric {metric!r}: the vocabulary {self.source} has {', '.join(self.metrics)}")
        exact = compat == AFFECTGPT
        words = self.forms.get(label)
        if words is None:
            return None if exact else label
        if metric == "M1":
            return min(words)
        if metric == "M2":
            return min(self.synonyms[min(words)])
        clusters = self.clusters[metric]
        candidates = sorted(wheel_label for word in words for wheel_label in self.synonyms[word])
        if not exact:
            candidates = [label, *sorted(words), *candidates]
        for candidate in candidates:
            if candidate in clusters:
                return clusters[candidate]
        return None if exact else min(self.synonyms[min(words)])


def wheel_scores(
    names: Sequence[str],
    truth: Sequence[RawLabels],
    predicted: Sequence[RawLabels],
    wheels: EmotionWheels | None = None,
    compat: str | None = None,
) -> ScoreSheet:
    """Computes precision and recall of every sample under the emotion-wheel metrics M1, M2 and M3-Wk-Ll.

    Args:
        names (`Sequence[str]`): N sample names.
        truth (`Sequence`): N reference answers, lists of labels or their text.
        predicted (`Sequence`): N predicted answers, lists of labels or their text.
        wheels ([`EmotionWheels`], *optional*): The vocabulary. By default the one that ships with the package.
        compat (`str`, *optional*):
            `"affectgpt"` removes labels outside the vocabulary on both sides, as the published code does.

    Returns:
        [`ScoreSheet`]: N samples with `wheels.metrics`. The notes `out_of_vocabulary_truth` and
        `out_of_vocabulary_predicted` are shares (0 to 1) of the label occurrences; the value `labels` is the number of
        labels in each predicted answer.

    Raises:
        ValueError: if `compat` is neither `None` nor `"affectgpt"`, or if the lengths differ.

    Example:

    ```python
    >>> from microemo.evaluation.emotion_wheel import wheel_scores

    >>> sheet = wheel_scores(["clip_1"], truth=[["furious"]], predicted=[["angry", "calm"]])
    >>> sheet.summary()["M3-W1-L1/precision"], sheet.summary()["M3-W1-L1/recall"]
    (0.5, 1.0)
    ```"""
    check_compat(compat)
    wheels = wheels or EmotionWheels.default()
    truth_labels = [parse_labels(answer, compat) for answer in truth]
    predicted_labels = [parse_labels(answer, compat) for answer in predicted]
    columns = [
        overlap(_groups(truth_labels, wheels, metric, compat), _groups(predicted_labels, wheels, metric, compat))
        for metric in wheels.metrics
    ]
    precision, recall = (np.stack(side, axis=1) for side in zip(*columns, strict=True))
    notes = {
        "wheels": wheels.source,
        "out_of_vocabulary_truth": out_of_vocabulary_share(truth_labels, wheels),
        "out_of_vocabulary_predicted": out_of_vocabulary_share(predicted_labels, wheels),
    }
    values = {"labels": np.array([len(set(labels)) for labels in predicted_labels], dtype=float)}
    return ScoreSheet(tuple(names), wheels.metrics, precision, recall, values, notes)


def hit_rates(
    names: Sequence[str],
    truth: Sequence[RawLabels],
    predicted: Sequence[RawLabels],
    wheels: EmotionWheels | None = None,
    compat: str | None = None,
) -> ScoreSheet:
    """Computes the hit rate of MER-UniBench: whether a true label is among the predicted ones, on level 1 of each wheel.

    Args:
        names (`Sequence[str]`): N sample names.
        truth (`Sequence`): N reference answers, lists of labels or their text, usually of one label each.
        predicted (`Sequence`): N predicted answers, lists of labels or their text.
        wheels ([`EmotionWheels`], *optional*): The vocabulary. By default the one that ships with the package.
        compat (`str`, *optional*):
            `"affectgpt"` removes labels outside the vocabulary on both sides, as the published code does.

    Returns:
        [`ScoreSheet`]: N samples without metrics. The values `hit/W1`, `hit/W2`, ... are 0, 1, or NaN where no true label
        is on the wheel; [`hit_rate`] makes the published score of them.

    Raises:
        ValueError: if `compat` is neither `None` nor `"affectgpt"`, or if the lengths differ.

    Example:

    ```python
    >>> from microemo.evaluation.emotion_wheel import hit_rate, hit_rates

    >>> hit_rate(hit_rates(["clip_1", "clip_2"], truth=["happy", "sad"], predicted=["joyful, calm", "furious"]))
    0.5
    ```"""
    check_compat(compat)
    wheels = wheels or EmotionWheels.default()
    level1 = [metric for metric in wheels.clusters if metric.endswith("-L1")]
    truth_labels = [parse_labels(answer, compat) for answer in truth]
    predicted_labels = [parse_labels(answer, compat) for answer in predicted]
    hits = {}
    for metric in level1:
        truth_groups = _groups(truth_labels, wheels, metric, compat)
        predicted_groups = _groups(predicted_labels, wheels, metric, compat)
        hits[f"hit/{metric[3:5]}"] = np.array(
            [float(bool(a & b)) if a else np.nan for a, b in zip(truth_groups, predicted_groups, strict=True)]
        )
    no_metric = np.empty((len(names), 0))
    return ScoreSheet(tuple(names), (), no_metric, no_metric, hits)


def hit_rate(sheet: ScoreSheet) -> float:
    """Computes the published hit rate: the mean over the wheels of each wheel's mean over its samples.

    Args:
        sheet ([`ScoreSheet`]): The sheet that [`hit_rates`] returns.

    Returns:
        `float`: The hit rate, from 0 to 1.
    """
    return float(np.mean([value for name, value in sheet.summary().items() if name.startswith("hit/")]))


def out_of_vocabulary_share(answers: Iterable[Iterable[str]], wheels: EmotionWheels) -> float:
    """Computes the share of the label occurrences that are outside a vocabulary.

    Args:
        answers (`Iterable[Iterable[str]]`): The labels of each answer, lower-case.
        wheels ([`EmotionWheels`]): The vocabulary.

    Returns:
        `float`: The share, from 0 to 1; 0 if there is no label at all.
    """
    in_vocabulary = [wheels.knows(label) for answer in answers for label in answer]
    return 1.0 - sum(in_vocabulary) / len(in_vocabulary) if in_vocabulary else 0.0


def _groups(answers: list[list[str]], wheels: EmotionWheels, metric: str, compat: str | None) -> list[set[str]]:
    clusters = [[wheels.cluster(label, metric, compat) for label in answer] for answer in answers]
    return [{cluster for cluster in answer if cluster is not None} for answer in clusters]


@cache
def _default_wheels() -> EmotionWheels:
    return EmotionWheels.from_folder(DEFAULT_FOLDER)


def _find(folder: Path, stem: str, suffix: str = "") -> Path | None:
    for candidate in [suffix] if suffix else [".csv", ".xlsx"]:
        if (path := folder / f"{stem}{candidate}").is_file():
            return path
    return None


def _require(folder: Path, stem: str, suffix: str = "") -> Path:
    path = _find(folder, stem, suffix)
    if path is None:
        raise FileNotFoundError(f"{folder}: holds no {stem}{suffix or '.csv or ' + stem + '.xlsx'}")
    return path


def _columns(path: Path, rows: list[dict], *wanted: str) -> None:
    if not rows or any(column not in rows[0] for column in wanted):
        raise ValueError(
            f"{path}: expected rows with the columns {', '.join(wanted)}, found {list(rows[0]) if rows else 'no rows'}"
        )


def _read_wheel(path: Path) -> list[tuple[str, str, str]]:
    table = read_table(path)
    _columns(path, table, "level1", "level2", "level3")
    rows, above = [], ("", "", "")
    for line in table:
        first, second, third = (line[f"level{level}"].strip().lower() or above[level - 1] for level in (1, 2, 3))
        above = (first, second, third)
        rows.append(above)
    return rows


def _clusters(rows: list[tuple[str, str, str]]) -> tuple[dict[str, str], dict[str, str]]:
    """Returns label to cluster at level 1 and level 2. A word under two roots belongs to the last row that names it."""
    middle: dict[str, dict[str, list[str]]] = {}
    for root, ring, leaf in rows:
        middle.setdefault(root, {}).setdefault(ring, []).append(leaf)
    level1: dict[str, str] = {}
    level2: dict[str, str] = {}
    for root, rings in middle.items():
        level1[root], level2[root] = root, min(rings)
        for ring, leaves in rings.items():
            level1 |= dict.fromkeys([ring, *leaves], root)
            level2 |= dict.fromkeys([ring, *leaves], ring)
    return level1, level2


def _read_synonyms(path: Path, labels: set[str]) -> dict[str, list[str]]:
    table = read_table(path)
    _columns(path, table, "word_run1", "synonym_run1")
    synonyms: dict[str, set[str]] = {}
    for column in table[0]:
        if not column.startswith("word_"):
            continue
        for row in table:
            label = row[column].strip().lower()
            if label not in labels:
                raise ValueError(f"{path}: {column} holds {label!r}, which stands on none of the wheels")
            for word in [label, *parse_labels(row[column.replace("word_", "synonym_")], AFFECTGPT)]:
                synonyms.setdefault(word, set()).add(label)
    return {word: sorted(wheel_labels) for word, wheel_labels in synonyms.items()}


def _read_forms(path: Path, synonyms: dict[str, list[str]]) -> dict[str, list[str]]:
    table = read_table(path)
    _columns(path, table, "name", "format")
    forms: dict[str, list[str]] = {}
    for row in table:
        word = row["name"]
        if word not in synonyms:
            raise ValueError(f"{path}: {word!r} is neither a wheel label nor a synonym of one")
        for form in [*parse_labels(row["format"], AFFECTGPT), word]:
            forms.setdefault(form, []).append(word)
    return forms
