"""Systems and their files of answers, scored as the rows of tables and plots."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .chat import Chat
from .checkpoint_choice import checkpoint_step, choose_checkpoint
from .combination import combine
from .emotion_wheel import EmotionWheels, wheel_scores
from .label_extraction import labels_of
from .prediction_files import Answers, match, read_answers
from .score_sheet import ScoreSheet
from .set_level import Grouper, ReplayGrouper, set_level_scores

SETTINGS = ("nosubtitle-addsub", "nosubtitle", "subtitle")
"""The prompts of the published files. Only the first is that of the OV-MER table, where the label extraction is given the
subtitle and the system is not."""


@dataclass(frozen=True)
class SystemFile:
    """Describes one file of answers.

    Attributes:
        system (`str`): The name of the system, and of its row.
        setting (`str`): One of [`SETTINGS`], or `"-"`.
        path (`Path`): The file.
        mark (`str`): What the row must say, such as how a checkpoint was chosen.
    """

    system: str
    setting: str
    path: Path
    mark: str = ""


@dataclass(frozen=True)
class ScoredSystem:
    """Holds the scores of one system, which are a row of a table.

    Attributes:
        system (`str`): The name of the system.
        setting (`str`): One of [`SETTINGS`], or `"-"`.
        samples (`str`): The name of the sample set.
        sheet ([`ScoreSheet`]): The scores.
        mark (`str`): What the row must say, such as how a checkpoint was chosen.
    """

    system: str
    setting: str
    samples: str
    sheet: ScoreSheet
    mark: str = ""


def find_system_files(
    arguments: Iterable[str], setting: str | None = SETTINGS[0], answers: str = "openset"
) -> list[SystemFile]:
    r"""Finds the files of answers that a user names.

    In the published layout `MODEL/SETTING-openset.npz` the folder names the system; `checkpoint_000050_...` adds its step.

    Args:
        arguments (`Iterable[str]`):
            Each a file, `NAME=FILE`, or a folder, which is searched for .jsonl files and for those that `answers` names.
            Hidden files and folders are passed over.
        setting (`str`, *optional*, defaults to `"nosubtitle-addsub"`):
            The setting to keep, along with files that have none. `None` keeps all.
        answers (`str`, *optional*, defaults to `"openset"`):
            `"openset"` looks in folders for `*-openset.npz` (label lists), `"reason"` for `*-reason.json` (descriptions).

    Returns:
        `list[SystemFile]`: The files, in the order of the arguments.

    Raises:
        FileNotFoundError: if an argument does not exist, or if a folder holds no answers.
        ValueError: if `answers` is neither `"openset"` nor `"reason"`.

    Example:

    ```python
    >>> from pathlib import Path
    >>> from microemo.evaluation.systems import find_system_files

    >>> _ = Path("answers.jsonl").write_text('{"name": "clip_1", "labels": ["happy"]}\n')
    >>> [(file.system, file.setting) for file in find_system_files(["My model=answers.jsonl"])]
    [('My model', '-')]
    ```"""
    patterns = {"openset": "*-openset.npz", "reason": "*-reason.json"}
    if answers not in patterns:
        raise ValueError(f"answers={answers!r}: expected one of {', '.join(patterns)}")
    found: list[SystemFile] = []
    for argument in arguments:
        name, _, file_name = argument.rpartition("=")
        path = Path(file_name)
        if path.is_dir():
            files = sorted(
                file for pattern in (patterns[answers], "*.jsonl") for file in _visible_files(path, pattern)
            )
            if not files:
                raise FileNotFoundError(f"{path}: holds neither {patterns[answers]} nor .jsonl files")
        elif path.is_file():
            files = [path]
        else:
            raise FileNotFoundError(f"{path}: no such file or folder")
        found += [_system_file(file, name) for file in files]
    return [file for file in found if setting is None or file.setting in (setting, "-")]


def _visible_files(folder: Path, pattern: str) -> Iterator[Path]:
    """Yields the files below a folder. Hidden ones may be unfinished: temporary names begin with a dot."""
    for path in folder.rglob(pattern):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path


def _system_file(path: Path, name: str) -> SystemFile:
    stem = path.stem.removesuffix("-openset").removesuffix("-reason")
    step = checkpoint_step(path)
    if step is not None:
        run = name or path.parent.name.removesuffix("_predictions")
        spelling = {"affectgpt": "AffectGPT"}  # as the papers spell it
        return SystemFile(f"{spelling.get(run, run)} checkpoint {step}", "-", path)
    if stem in SETTINGS:
        return SystemFile(name or path.parent.name, stem, path)
    return SystemFile(name or stem, "-", path)


def fix_checkpoints(
    files: Sequence[SystemFile],
    rule: str | None = None,
    scores: Mapping[Path, float] | None = None,
    allow_test_selection: bool = False,
) -> list[SystemFile]:
    """Chooses one checkpoint of each run that has several, or marks each of them as one of several.

    Args:
        files (`Sequence[SystemFile]`): The files of answers.
        rule (`str`, *optional*): A rule of [`choose_checkpoint`]. `None` keeps all checkpoints, marked.
        scores (`Mapping[Path, float]`, *optional*): The score of each file on the named split, for the "best" rules.
        allow_test_selection (`bool`, *optional*, defaults to `False`): Whether the rule `"best-on-test"` is allowed.

    Returns:
        `list[SystemFile]`: The files that are kept, with their marks.

    Raises:
        TestSetSelectionError: if the rule is `"best-on-test"` and `allow_test_selection` is not set.
        ValueError: if the rule is unknown, or if a "best" rule has no scores.
        KeyError: if `scores` lacks a file.
    """
    runs: dict[tuple[str, Path], list[SystemFile]] = {}
    for file in files:
        step = checkpoint_step(file.path)
        key = file.system.removesuffix(f" checkpoint {step}") if step is not None else file.system
        runs.setdefault((key, file.path.parent if step is not None else file.path), []).append(file)
    kept = []
    for run in runs.values():
        if len(run) == 1:
            kept += run
        elif rule is None:
            kept += [replace(file, mark=f"one of {len(run)} checkpoints, none chosen") for file in run]
        else:
            paths = [file.path for file in run]
            ordered = None if scores is None else [scores[path] for path in paths]
            choice = choose_checkpoint(paths, rule, ordered, allow_test_selection)
            kept += [replace(file, mark=choice.mark) for file in run if file.path == choice.checkpoint]
    return kept


def score_answers(
    references: Answers,
    predictions: Answers,
    grouper: Grouper,
    wheels: EmotionWheels | None = None,
    compat: str | None = None,
    chat: Chat | None = None,
    common: bool = False,
) -> ScoreSheet:
    """Computes the set-level and the emotion-wheel scores of one file of answers.

    Args:
        references ([`Answers`]): The true labels.
        predictions ([`Answers`]): The answers of a system, labels or free text.
        grouper ([`Grouper`]): The grouping of synonyms for the set-level metric.
        wheels ([`EmotionWheels`], *optional*):
            The vocabulary of the wheel metrics. By default the one that ships with the package.
        compat (`str`, *optional*): `"affectgpt"` reproduces the published code.
        chat ([`Chat`], *optional*):
            A language model that extracts the labels of free text. `None` uses [`rule_labels`].
        common (`bool`, *optional*, defaults to `False`):
            Whether to score the names that both files hold. Otherwise the two must hold the same names.

    Returns:
        [`ScoreSheet`]: The scores, with the metric `"S"` first. The note `differs` says in sentences how the scores were
        made otherwise than the published ones.

    Raises:
        NameMismatchError: if the two files hold different names and `common` is not set, or if they have none in common.
        ValueError: if the references are free text, or if `compat` is neither `None` nor `"affectgpt"`.
        ChatError: if the model cannot be reached or does not answer.

    Example:

    ```python
    >>> from pathlib import Path
    >>> from microemo.evaluation.prediction_files import Answers
    >>> from microemo.evaluation.set_level import WheelGrouper
    >>> from microemo.evaluation.systems import score_answers

    >>> references = Answers(Path("references.csv"), "labels", {"clip_1": ["happy"]})
    >>> predictions = Answers(Path("predictions.jsonl"), "text", {"clip_1": "She looks joyful, not sad."})
    >>> score_answers(references, predictions, WheelGrouper()).summary()["S/f"]
    1.0
    ```"""
    if references.kind != "labels":
        raise ValueError(
            f"{references.source}: holds descriptions; references must be label lists (extract them first)"
        )
    wheels = wheels or EmotionWheels.default()
    names, truth, predicted = match(references, predictions, common)
    unpaired = len(references.items.keys() ^ predictions.items.keys())
    notes: dict[str, Any] = {"extraction": "as listed", "unreadable": ()}
    if predictions.kind == "text":
        labels, notes = labels_of(replace(predictions, items=dict(zip(names, predicted, strict=True))), chat)
        predicted = [*labels.values()]
    set_level = set_level_scores(names, truth, predicted, grouper, compat)
    sheet = set_level.join(wheel_scores(names, truth, predicted, wheels, compat))
    rules = "affectgpt rules" if compat else "fixed rules"
    sheet = replace(sheet, notes=sheet.notes | notes | {"wheels": f"wheels {wheels.source}, {rules}"})
    published_wheels = compat is not None and wheels is not EmotionWheels.default()
    return replace(sheet, notes=sheet.notes | {"differs": _differences(sheet, grouper, published_wheels, unpaired)})


def _differences(sheet: ScoreSheet, grouper: Grouper, published_wheels: bool, unpaired: int) -> tuple[str, ...]:
    """Returns sentences that say how these scores were made otherwise than the published ones."""
    notes, sentences = sheet.notes, []
    if not isinstance(grouper, ReplayGrouper):
        sentences.append(
            f"The set level groups synonyms by {grouper.name}, published figures by GPT-3.5's groups (--grouping "
            "openset-synonym.json): Accuracy_S, Recall_S, Avg and F_S cannot be compared with them."
        )
    elif notes["alone"]:
        sentences.append(
            f"{notes['alone']:.1%} of the labels are in no replayed group: the groups were made for other answers."
        )
    if not published_wheels:
        sentences.append(
            f"The wheel metrics use {notes['wheels']}, published figures AffectGPT's vocabulary and rules (--wheels FOLDER "
            "--affectgpt): they cannot be compared with them."
        )
    if notes["extraction"] == "rule":
        sentences.append("The labels were found in texts by rule, those of published figures by a language model.")
    if unpaired:
        sentences.append(f"{unpaired} clips that only one of the two files holds are left out.")
    return tuple(sentences)


def score_systems(
    references: Answers,
    files: Sequence[SystemFile],
    grouper: Grouper,
    combinations: Iterable[str] = (),
    merger: Chat | None = None,
    **options: Any,
) -> list[ScoredSystem]:
    """Scores every file of answers, then every combination of two systems.

    Args:
        references ([`Answers`]): The true labels.
        files (`Sequence[SystemFile]`): The files of answers.
        grouper ([`Grouper`]): The grouping of synonyms for the set-level metric.
        combinations (`Iterable[str]`, *optional*):
            Combinations `"A + B"` of an audio-only system A and a video-only system B, each of which has one file.
        merger ([`Chat`], *optional*):
            A language model that merges the texts of a combination. `None` takes the union of their labels.
        options (`Any`, *optional*): Further arguments of [`score_answers`].

    Returns:
        `list[ScoredSystem]`: The rows, in the order of the files and the combinations.

    Raises:
        NameMismatchError: if two files hold different names.
        ValueError: if a file cannot be read, if the references are free text, or if a combination does not name two
            systems of one file each with the same setting.
        ChatError: if the model cannot be reached or does not answer.
    """
    answers = {file: read_answers(file.path) for file in files}
    rows: list[tuple[SystemFile, Answers, object]] = [(file, answers[file], ()) for file in files]
    for combination in combinations:
        audio, video = (_find_file(files, name.strip()) for name in _split_combination(combination))
        if audio.setting != video.setting:
            raise ValueError(f"{combination}: settings differ, {audio.setting} and {video.setting}")
        combined, notes = combine(answers[audio], answers[video], merger)
        row = SystemFile(f"{audio.system} + {video.system}", audio.setting, combined.source, str(notes["combination"]))
        rows.append((row, combined, notes["unreadable"]))
    scored = []
    for file, predictions, unmerged in rows:
        sheet = score_answers(references, predictions, grouper, **options)
        sheet = replace(sheet, notes=sheet.notes | {"unmerged": unmerged})
        samples = f"{references.source.parent.name}/{references.source.name}"
        scored.append(ScoredSystem(file.system, file.setting, samples, sheet, file.mark))
    return scored


def _split_combination(combination: str) -> tuple[str, str]:
    parts = combination.split("+")
    if len(parts) != 2:
        raise ValueError(f"combination {combination!r}: expected two systems, as in 'SALMONN + Chat-UniVi'")
    return parts[0], parts[1]


def _find_file(files: Sequence[SystemFile], name: str) -> SystemFile:
    found = [file for file in files if file.system.lower() == name.lower()]
    if len(found) != 1:
        systems = ", ".join(sorted({file.system for file in files}))
        raise ValueError(f"combination: {len(found)} files for {name!r}, expected one; there are {systems}")
    return found[0]
