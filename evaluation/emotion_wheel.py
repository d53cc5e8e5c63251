"""Emotion-wheel (EW) metrics of OV-MER and AffectGPT (Lian et al., 2024 and 2025; design section 6).

Three tables turn a free label into a few comparable names: f maps a word form to words ("happily" -> "happy"), g maps a
word to labels that stand on a wheel ("cheery" -> "cheerful"), and h maps a wheel label to its cluster. M1 compares after
f, M2 after g, M3-Wk-Ll after h of wheel k at level l (1: the root, 2: the middle ring).
"""

from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from pathlib import Path

import numpy as np

from ..utils.files import read_table
from .emotion_labels import AFFECTGPT, check_compat, parse_labels
from .score_sheet import ScoreSheet, overlap

DEFAULT_FOLDER = Path(__file__).parent / "vocabulary"
"""Our own small vocabulary: Plutchik, Parrott, Geneva, the Atlas of Emotions and GoEmotions' grouping."""

NEUTRAL = "neutral"


class EmotionWheels:
    """The three tables of one vocabulary folder.

    Args:
        forms: f, word form -> words.
        synonyms: g, word -> wheel labels.
        wheels: for each wheel its rows (level1, level2, level3), lower-case.
        source: where it came from, for tables and error messages.
    """

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
        self.cluster = lru_cache(maxsize=None)(self._cluster)

    @classmethod
    def from_folder(cls, folder: str | Path, format_file: str = "format.csv") -> "EmotionWheels":
        """Read a folder in the AffectGPT / OV-MER layout.

        Args:
            folder: holds `wheel1`, `wheel2`, ... (columns level1, level2, level3; an empty cell repeats the one above),
                `synonym` (columns word_runN, synonym_runN) and `format_file` (columns name, format); .csv or .xlsx.
        Raises:
            FileNotFoundError, ValueError: naming the file and what is missing in it.
        """
        folder = Path(folder)
        wheels = []
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
        """The vocabulary that ships with the package."""
        return _default_wheels()

    def knows(self, label: str) -> bool:
        """Whether `label` (lower-case) is a word form of the vocabulary; "neutral" is a label of its own."""
        return label in self.forms or label == NEUTRAL

    def _cluster(self, label: str, metric: str, compat: str | None = None) -> str | None:
        """The name under which `metric` compares `label`.

        With `compat="affectgpt"`, None where the label is outside the vocabulary or not on the metric's wheel. By
        default no label vanishes: outside the vocabulary it is a group of its own ("neutral" too), a word that is not
        on this wheel is compared as under M2, and a label that stands on the wheel itself means itself, not the
        alphabetically first of its synonyms.
        """
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
    truth: Sequence,
    predicted: Sequence,
    wheels: EmotionWheels | None = None,
    compat: str | None = None,
) -> ScoreSheet:
    """M1, M2 and M3-Wk-Ll of every sample.

    Args:
        names: N sample names.
        truth, predicted: N answers each, lists of labels or their text.
        wheels: the vocabulary; None takes the package's own.
        compat: "affectgpt" removes labels outside the vocabulary on both sides, as the published code does.
    Returns:
        A sheet of N samples and `wheels.metrics`; notes hold the out-of-vocabulary share of the label occurrences, and
        values "labels", the labels per answer.
    """
    check_compat(compat)
    wheels = wheels or EmotionWheels.default()
    truth = [parse_labels(answer, compat) for answer in truth]
    predicted = [parse_labels(answer, compat) for answer in predicted]
    columns = [
        overlap(_groups(truth, wheels, metric, compat), _groups(predicted, wheels, metric, compat))
        for metric in wheels.metrics
    ]
    precision, recall = (np.stack(side, axis=1) for side in zip(*columns, strict=True))
    notes = {
        "wheels": wheels.source,
        "out_of_vocabulary_truth": out_of_vocabulary_share(truth, wheels),
        "out_of_vocabulary_predicted": out_of_vocabulary_share(predicted, wheels),
    }
    values = {"labels": np.array([len(set(answer)) for answer in predicted], dtype=float)}
    return ScoreSheet(tuple(names), wheels.metrics, precision, recall, values, notes)


def hit_rates(
    names: Sequence[str],
    truth: Sequence,
    predicted: Sequence,
    wheels: EmotionWheels | None = None,
    compat: str | None = None,
) -> ScoreSheet:
    """Hit rate of MER-UniBench: is a truth label among the predictions, on level 1 of each wheel.

    Args: as for `wheel_scores`; truth usually holds one label a sample ("happy").
    Returns:
        A sheet without metrics whose values "hit/W1", "hit/W2", ... are 0, 1, or NaN where no truth label is on the
        wheel; "hit" is their mean over the wheels, so that its corpus mean is the published score where no wheel skips.
    """
    check_compat(compat)
    wheels = wheels or EmotionWheels.default()
    level1 = [metric for metric in wheels.clusters if metric.endswith("-L1")]
    truth = [parse_labels(answer, compat) for answer in truth]
    predicted = [parse_labels(answer, compat) for answer in predicted]
    hits = {}
    for metric in level1:
        wanted, found = (_groups(side, wheels, metric, compat) for side in (truth, predicted))
        hits[f"hit/{metric[3:5]}"] = np.array(
            [float(bool(a & b)) if a else np.nan for a, b in zip(wanted, found, strict=True)]
        )
    return ScoreSheet(tuple(names), (), *np.empty((2, len(names), 0)), hits)


def hit_rate(sheet: ScoreSheet) -> float:
    """The published hit rate: the mean over the wheels of each wheel's mean over its samples."""
    return float(np.mean([value for name, value in sheet.summary().items() if name.startswith("hit/")]))


def out_of_vocabulary_share(answers: Iterable[Iterable[str]], wheels: EmotionWheels) -> float:
    """Share (0..1) of the label occurrences that the vocabulary does not know; 0 when there is no label at all."""
    known = [wheels.knows(label) for answer in answers for label in answer]
    return 1.0 - sum(known) / len(known) if known else 0.0


def _groups(answers, wheels, metric, compat) -> list[set[str]]:
    return [{wheels.cluster(label, metric, compat) for label in answer} - {None} for answer in answers]


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
    rows, above = [], ["", "", ""]
    for line in table:
        above = [line[f"level{level}"].strip().lower() or above[level - 1] for level in (1, 2, 3)]
        rows.append(tuple(above))
    return rows


def _clusters(rows: list[tuple[str, str, str]]) -> tuple[dict[str, str], dict[str, str]]:
    """Label -> cluster at level 1 and level 2. A word under two roots belongs to the last row that names it."""
    middle: dict[str, dict[str, list[str]]] = {}
    for root, ring, leaf in rows:
        middle.setdefault(root, {}).setdefault(ring, []).append(leaf)
    level1, level2 = {}, {}
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
    return {word: sorted(found) for word, found in synonyms.items()}


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
