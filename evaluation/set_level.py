"""Set-level Accuracy_S and Recall_S, the open-vocabulary metric of EMER and MicroEmo (section 4.2 of the paper)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from ..utils.files import read_json
from .emotion_labels import AFFECTGPT, RawLabels, check_compat, parse_groups, parse_labels
from .emotion_wheel import EmotionWheels
from .score_sheet import SET_LEVEL, ScoreSheet, overlap


class Grouper(Protocol):
    """Groups the labels of each sample that mean the same: a [`ReplayGrouper`], a [`WheelGrouper`], a [`ChatGrouper`],
    or a class of your own.

    Attributes:
        name (`str`): How tables name this grouping.
    """

    name: str

    def group(self, names: Sequence[str], labels: Sequence[Sequence[str]]) -> list[list[list[str]] | None]:
        """Groups the labels of each sample.

        Args:
            names (`Sequence[str]`): N sample names.
            labels (`Sequence[Sequence[str]]`): N lists of distinct lower-case labels, true and predicted ones together.

        Returns:
            `list[list[list[str]] | None]`: N lists of groups, each represented by its first word; `None` for a sample
            without a usable answer.
        """
        ...


class ReplayGrouper:
    """Replays groups that were made before, for example by the language model of a published table.

    Args:
        groups (`dict[str, list[list[str]]]`): The groups of each sample, by its name.
        name (`str`, *optional*, defaults to `"replay"`): How tables name this grouping.

    Example:

    ```python
    >>> from microemo.evaluation.set_level import ReplayGrouper

    >>> grouper = ReplayGrouper({"clip_1": [["happy", "joyful"]]})
    >>> grouper.group(["clip_1", "clip_2"], [["happy", "joyful"], ["sad"]])
    [[['happy', 'joyful']], None]
    ```"""

    def __init__(self, groups: dict[str, list[list[str]]], name: str = "replay"):
        self.groups, self.name = groups, name

    @classmethod
    def from_file(cls, path: str | Path) -> "ReplayGrouper":
        """Reads a file of groups, such as AffectGPT's `openset-synonym.json`.

        Args:
            path (`str` or `Path`):
                A JSON file with an object from sample name to groups, as lists or as the text `"[['a', 'b'], ['c']]"`.

        Returns:
            [`ReplayGrouper`]: The groups, named after the file.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the file is no such JSON object, or if a value holds no groups.
        """
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

    def group(self, names: Sequence[str], labels: Sequence[Sequence[str]]) -> list[list[list[str]] | None]:
        """Returns the groups of each sample.

        Args:
            names (`Sequence[str]`): N sample names.
            labels (`Sequence[Sequence[str]]`): N lists of labels, which are not read.

        Returns:
            `list[list[list[str]] | None]`: N lists of groups; `None` for a sample without groups.
        """
        return [self.groups.get(name) for name in names]


class WheelGrouper:
    """Groups labels that are equal under an emotion-wheel metric, offline and in the same way for every system.

    Args:
        wheels ([`EmotionWheels`], *optional*): The vocabulary. By default the one that ships with the package.
        metric (`str`, *optional*, defaults to `"M2"`):
            `"M1"` (word forms), `"M2"` (synonyms), or a cluster of a wheel such as `"M3-W1-L1"`.

    Example:

    ```python
    >>> from microemo.evaluation.set_level import WheelGrouper

    >>> WheelGrouper().group(["clip_1"], [["happy", "joyful", "sad"]])
    [[['happy', 'joyful'], ['sad']]]
    ```"""

    def __init__(self, wheels: EmotionWheels | None = None, metric: str = "M2"):
        self.wheels, self.metric = wheels or EmotionWheels.default(), metric
        self.name = f"wheels {self.wheels.source} {metric}"

    def group(self, names: Sequence[str], labels: Sequence[Sequence[str]]) -> list[list[list[str]] | None]:
        """Groups the labels of each sample.

        Args:
            names (`Sequence[str]`): N sample names.
            labels (`Sequence[Sequence[str]]`): N lists of lower-case labels.

        Returns:
            `list[list[list[str]] | None]`: N lists of groups.

        Raises:
            ValueError: if the vocabulary has no such metric.
        """
        return [self._group(sample) for sample in labels]

    def _group(self, sample: Sequence[str]) -> list[list[str]]:
        groups: dict[str, list[str]] = {}
        for label in sample:
            groups.setdefault(self.wheels.cluster(label, self.metric) or label, []).append(label)
        return list(groups.values())


def set_level_scores(
    names: Sequence[str],
    truth: Sequence[RawLabels],
    predicted: Sequence[RawLabels],
    grouper: Grouper,
    compat: str | None = None,
) -> ScoreSheet:
    """Computes Accuracy_S (precision) and Recall_S of every sample.

    For the true labels Y and the predicted labels P, the synonyms of Y ∪ P are grouped, and each label becomes the first
    word of its group: A from Y, B from P. Then accuracy = |A∩B| / |B| and recall = |A∩B| / |A|. An empty B gives 0 and 0,
    a label in no group is a group of its own, and a label in two groups belongs to the last.

    Args:
        names (`Sequence[str]`): N sample names.
        truth (`Sequence`): N reference answers, lists of labels or their text.
        predicted (`Sequence`): N predicted answers, lists of labels or their text.
        grouper ([`Grouper`]): The grouping of synonyms.
        compat (`str`, *optional*):
            `"affectgpt"` leaves out samples without groups, as the published code does. By default their labels are
            compared as they are, so that no sample vanishes.

    Returns:
        [`ScoreSheet`]: N samples with the single metric `"S"`. Notes: `grouping`, `ungrouped` (names of samples without
        groups), `alone` (the share of labels that are in no group of their sample), and `empty_truth` (names of samples
        without a true label, which are not scored). Value: `labels`, the number of labels in each predicted answer.

    Raises:
        ValueError: if `compat` is neither `None` nor `"affectgpt"`, if the lengths differ, or if the grouper returns
            another number of answers than samples.

    Example:

    ```python
    >>> from microemo.evaluation.set_level import WheelGrouper, set_level_scores

    >>> sheet = set_level_scores(["clip_1"], truth=["happy, proud"], predicted=["joyful"], grouper=WheelGrouper())
    >>> sheet.summary()["S/precision"], sheet.summary()["S/recall"]
    (1.0, 0.5)
    ```"""
    check_compat(compat)
    truth_labels = [parse_labels(answer, compat) for answer in truth]
    predicted_labels = [parse_labels(answer, compat) for answer in predicted]
    together = [list(dict.fromkeys(a + b)) for a, b in zip(truth_labels, predicted_labels, strict=True)]
    answers = grouper.group(names, together)
    if len(answers) != len(names):
        raise ValueError(f"grouping {grouper.name}: {len(answers)} answers for {len(names)} samples")
    first_words = [_first_words(groups, compat) for groups in answers]
    truth_groups, predicted_groups = (
        [{first.get(label, label) for label in labels} for labels, first in zip(side, first_words, strict=True)]
        for side in (truth_labels, predicted_labels)
    )
    precision, recall = overlap(truth_groups, predicted_groups)
    ungrouped = tuple(name for name, groups in zip(names, answers, strict=True) if groups is None)
    if compat == AFFECTGPT:
        left_out = np.array([groups is None for groups in answers], dtype=bool)
        precision[left_out] = recall[left_out] = np.nan
    listed = [label in first for first, labels in zip(first_words, together, strict=True) for label in labels]
    notes = {
        "grouping": grouper.name,
        "alone": 1.0 - sum(listed) / len(listed) if listed else 0.0,
        "ungrouped": ungrouped,
        "empty_truth": tuple(name for name, labels in zip(names, truth_labels, strict=True) if not labels),
    }
    values = {"labels": np.array([len(set(labels)) for labels in predicted_labels], dtype=float)}
    return ScoreSheet(tuple(names), (SET_LEVEL,), precision[:, None], recall[:, None], values, notes)


def _first_words(groups: list[list[str]] | None, compat: str | None) -> dict[str, str]:
    if compat != AFFECTGPT:  # labels were lower-cased, the groups' words perhaps not
        groups = [[word.strip().lower() for word in group] for group in groups or []]
    return {word: group[0] for group in groups or [] for word in group}
