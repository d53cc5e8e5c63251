"""From answer files to scored systems: the rows of tables and plots."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .chat import Chat
from .checkpoint_choice import checkpoint_step, choose_checkpoint
from .combination import combine
from .emotion_wheel import EmotionWheels, wheel_scores
from .label_extraction import labels_of
from .prediction_files import Answers, match, read_answers
from .score_sheet import ScoreSheet
from .set_level import Grouper, ReplayGrouper, set_level_scores

SETTINGS = ("nosubtitle-addsub", "nosubtitle", "subtitle")
"""The prompts of the published files; only the first corresponds to the OV-MER table (the subtitle reaches the label
extraction, not the system)."""


@dataclass(frozen=True)
class SystemFile:
    """One file of answers and what its row is called.

    Attributes:
        system: the row's name.
        setting: one of `SETTINGS`, or "-".
        path: the file.
        mark: words that the row must carry, such as how a checkpoint was chosen.
    """

    system: str
    setting: str
    path: Path
    mark: str = ""


@dataclass(frozen=True)
class ScoredSystem:
    """A row: the system, its setting, its sample set, its scores and the words it must carry."""

    system: str
    setting: str
    samples: str
    sheet: ScoreSheet
    mark: str = ""


def find_system_files(
    arguments: Iterable[str], setting: str | None = SETTINGS[0], answers: str = "openset"
) -> list[SystemFile]:
    """Answer files named by a user: NAME=FILE, a file, or a folder to search.

    A folder is searched for `*-openset.npz` (or `*-reason.json`, with `answers="reason"`) and for `.jsonl` files. In the
    published layout MODEL/SETTING-openset.npz the folder names the system; `checkpoint_000050_...` adds its step.

    Args:
        setting: keep this setting only, and the files that have none; None keeps all.
    Raises:
        FileNotFoundError: an argument does not exist, or a folder holds no answers.
    """
    patterns = {"openset": "*-openset.npz", "reason": "*-reason.json"}
    if answers not in patterns:
        raise ValueError(f"answers={answers!r}: expected one of {', '.join(patterns)}")
    found = []
    for argument in arguments:
        name, _, path = argument.rpartition("=")
        path = Path(path)
        if path.is_dir():
            files = sorted([*path.rglob(patterns[answers]), *path.rglob("*.jsonl")])
            if not files:
                raise FileNotFoundError(f"{path}: holds neither {patterns[answers]} nor .jsonl files")
        elif path.is_file():
            files = [path]
        else:
            raise FileNotFoundError(f"{path}: no such file or folder")
        found += [_system_file(file, name) for file in files]
    return [file for file in found if setting is None or file.setting in (setting, "-")]


def _system_file(path: Path, name: str) -> SystemFile:
    stem = path.stem.removesuffix("-openset").removesuffix("-reason")
    step = checkpoint_step(path)
    if step is not None:
        run = name or path.parent.name.removesuffix("_predictions")
        known = {"affectgpt": "AffectGPT"}  # as the papers spell it
        return SystemFile(f"{known.get(run, run)} checkpoint {step}", "-", path)
    if stem in SETTINGS:
        return SystemFile(name or path.parent.name, stem, path)
    return SystemFile(name or stem, "-", path)


def fix_checkpoints(
    files: Sequence[SystemFile],
    rule: str | None = None,
    scores: dict[Path, float] | None = None,
    allow_test_selection: bool = False,
) -> list[SystemFile]:
    """Reduce each run with several checkpoints to one, or mark each of them as one of several.

    Args:
        rule: a rule of `checkpoint_choice.choose_checkpoint`; None keeps all, marked, and picks none.
        scores: for the "best" rules, each file's score on the named split.
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
    """Set-level and wheel scores of one file of answers.

    Args:
        grouper: synonym groups for the set-level metric.
        wheels: vocabulary of the wheel metrics; None takes the package's own.
        compat: None or "affectgpt".
        chat: extracts the labels of free text; None uses the rule.
        common: score the names that both files hold, instead of requiring the same names.
    Raises:
        ValueError: the references are free text; NameMismatchError: the two hold different names.
    """
    if references.kind != "labels":
        raise ValueError(
            f"{references.source}: holds descriptions; references must be label lists (extract them first)"
        )
    wheels = wheels or EmotionWheels.default()
    names, truth, predicted = match(references, predictions, common)
    unpaired = len(references.items.keys() ^ predictions.items.keys())
    notes = {"extraction": "as listed", "unreadable": ()}
    if predictions.kind == "text":
        labels, notes = labels_of(replace(predictions, items=dict(zip(names, predicted, strict=True))), chat)
        predicted = list(labels.values())
    set_level = set_level_scores(names, truth, predicted, grouper, compat)
    sheet = set_level.join(wheel_scores(names, truth, predicted, wheels, compat))
    rules = "affectgpt rules" if compat else "fixed rules"
    sheet = replace(sheet, notes=sheet.notes | notes | {"wheels": f"wheels {wheels.source}, {rules}"})
    published_wheels = compat is not None and wheels is not EmotionWheels.default()
    return replace(sheet, notes=sheet.notes | {"differs": _differences(sheet, grouper, published_wheels, unpaired)})


def _differences(sheet: ScoreSheet, grouper: Grouper, published_wheels: bool, unpaired: int) -> tuple[str, ...]:
    """How these scores were made otherwise than the published ones, in sentences."""
    notes, said = sheet.notes, []
    if not isinstance(grouper, ReplayGrouper):
        said.append(
            f"The set level groups synonyms by {grouper.name}, published figures by GPT-3.5's groups (--grouping "
            "openset-synonym.json): Accuracy_S, Recall_S, Avg and F_S cannot be compared with them."
        )
    elif notes["alone"]:
        said.append(
            f"{notes['alone']:.1%} of the labels are in no replayed group: the groups were made for other answers."
        )
    if not published_wheels:
        said.append(
            f"The wheel metrics use {notes['wheels']}, published figures AffectGPT's vocabulary and rules (--wheels FOLDER "
            "--affectgpt): they cannot be compared with them."
        )
    if notes["extraction"] == "rule":
        said.append("The labels were found in texts by rule, those of published figures by a language model.")
    if unpaired:
        said.append(f"{unpaired} clips that only one of the two files holds are left out.")
    return tuple(said)


def score_systems(
    references: Answers,
    files: Sequence[SystemFile],
    grouper: Grouper,
    combinations: Iterable[str] = (),
    merger: Chat | None = None,
    **options,
) -> list[ScoredSystem]:
    """Score every file, then every combination.

    Args:
        combinations: "A + B" for systems among `files`, A the audio-only one; A and B must be one file each.
        merger: merges their texts; None takes the union of their labels.
        options: of `score_answers`.
    """
    answers = {file: read_answers(file.path) for file in files}
    rows: list[tuple[SystemFile, Answers, tuple]] = [(file, answers[file], ()) for file in files]
    for combination in combinations:
        audio, video = (_one(files, name.strip()) for name in _two(combination))
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


def _two(combination: str) -> tuple[str, str]:
    parts = combination.split("+")
    if len(parts) != 2:
        raise ValueError(f"combination {combination!r}: expected two systems, as in 'SALMONN + Chat-UniVi'")
    return parts[0], parts[1]


def _one(files: Sequence[SystemFile], name: str) -> SystemFile:
    found = [file for file in files if file.system.lower() == name.lower()]
    if len(found) != 1:
        systems = ", ".join(sorted({file.system for file in files}))
        raise ValueError(f"combination: {len(found)} files for {name!r}, expected one; there are {systems}")
    return found[0]
