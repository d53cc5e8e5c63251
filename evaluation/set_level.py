"""Set-level Accuracy_S and Recall_S, the metric of EMER and MicroEmo (paper section 4.2; design section 6)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from ..utils.files import read_json
from .emotion_labels import AFFECTGPT, check_compat, parse_groups, parse_labels
from .emotion_wheel import EmotionWheels
from .score_sheet import SET_LEVEL, ScoreSheet, overlap


class Grouper(Protocol):
    """Says which labels of a sample mean the same.

    Attributes:
        name: how tables name this grouping.
    """

    name: str

    def group(self, names: Sequence[str], labels: Sequence[Sequence[str]]) -> list[list[list[str]] | None]:
        """Group the labels of each of N samples.

        Args:
            names: N sample names.
            labels: N lists of distinct lower-case labels, truth and prediction together.
        Returns:
            N lists of groups, the first word of a group standing for it; None where there is no usable answer.
        """
        ...


class ReplayGrouper:
    """Groups that were made once and kept: exact, offline.

    Args:
        groups: sample name -> groups.
    """

    def __init__(self, groups: dict[str, list[list[str]]], name: str = "replay"):
        self.groups, self.name = groups, name

    @classmethod
    def from_file(cls, path: str | Path) -> "ReplayGrouper":
        """Read a JSON object: sample name -> groups, as lists or as the text "[['a', 'b'], ['c']]"."""
        content = read_json(path)
        if not isinstance(content, dict):
            raise ValueError(f"{path}: expected an object name -> groups, found {type(content).__name__}")
        groups = {}
        for name, value in content.items():
            try:
                groups[name] = parse_groups(value)
            except ValueError as error:
                raise ValueError(f"{path}, {name}: {error}") from None
        return cls(groups, name=f"replay {Path(path).name}")

    def group(self, names, labels):
        return [self.groups.get(name) for name in names]


class WheelGrouper:
    """Labels that an emotion-wheel metric takes for the same are synonyms: offline, the same for every system.

    Args:
        wheels: the vocabulary; None takes the package's own.
        metric: "M1" (word forms), "M2" (synonyms; the default) or a wheel, "M3-W1-L1".
    """

    def __init__(self, wheels: EmotionWheels | None = None, metric: str = "M2"):
        self.wheels, self.metric = wheels or EmotionWheels.default(), metric
        self.name = f"wheels {self.wheels.source} {metric}"

    def group(self, names, labels):
        return [self._group(sample) for sample in labels]

    def _group(self, sample):
        groups: dict[str, list[str]] = {}
        for label in sample:
            groups.setdefault(self.wheels.cluster(label, self.metric), []).append(label)
        return list(groups.values())


def set_level_scores(
    names: Sequence[str],
    truth: Sequence,
    predicted: Sequence,
    grouper: Grouper,
    compat: str | None = None,
) -> ScoreSheet:
    """Accuracy_S (precision) and Recall_S of every sample.

    For truth Y and prediction P the synonyms of Y ∪ P are grouped and each label becomes the first word of its group:
    A from Y, B from P; accuracy = |A∩B| / |B|, recall = |A∩B| / |A|. An empty B gives 0 and 0, an unlisted label is its
    own group, a label in two groups takes the last.

    Args:
        names: N sample names.
        truth, predicted: N answers each, lists of labels or their text.
        grouper: the synonym grouping.
        compat: "affectgpt" leaves a sample without a grouping answer out, as the published code does; by default its
            labels are compared as they are, so that no sample vanishes.
    Returns:
        A sheet with the one metric "S" (`score_sheet.SET_LEVEL`); notes: "grouping", "ungrouped" (names without a
        grouping answer), "alone" (share of the labels that their sample's groups do not list: each is its own group),
        "empty_truth" (names without a label to find: not scored); values: "labels" per answer.
    """
    check_compat(compat)
    truth = [parse_labels(answer, compat) for answer in truth]
    predicted = [parse_labels(answer, compat) for answer in predicted]
    together = [list(dict.fromkeys(a + b)) for a, b in zip(truth, predicted, strict=True)]
    answers = grouper.group(names, together)
    if len(answers) != len(names):
        raise ValueError(f"grouping {grouper.name}: {len(answers)} answers for {len(names)} samples")
    first_words = [_first_words(groups, compat) for groups in answers]
    sets = [
        [{first.get(label, label) for label in answer} for answer, first in zip(side, first_words, strict=True)]
        for side in (truth, predicted)
    ]
    precision, recall = overlap(*sets)
    ungrouped = tuple(name for name, groups in zip(names, answers, strict=True) if groups is None)
    if compat == AFFECTGPT:
        left_out = np.array([groups is None for groups in answers], dtype=bool)
        precision[left_out] = recall[left_out] = np.nan
    listed = [label in first for first, labels in zip(first_words, together, strict=True) for label in labels]
    notes = {
        "grouping": grouper.name,
        "alone": 1.0 - sum(listed) / len(listed) if listed else 0.0,
        "ungrouped": ungrouped,
        "empty_truth": tuple(name for name, answer in zip(names, truth, strict=True) if not answer),
    }
    values = {"labels": np.array([len(set(answer)) for answer in predicted], dtype=float)}
    return ScoreSheet(tuple(names), (SET_LEVEL,), precision[:, None], recall[:, None], values, notes)


def _first_words(groups: list[list[str]] | None, compat: str | None) -> dict[str, str]:
    if compat != AFFECTGPT:  # labels were lower-cased, the groups' words perhaps not
        groups = [[word.strip().lower() for word in group] for group in groups or []]
    return {word: group[0] for group in groups or [] for word in group}
