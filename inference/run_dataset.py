"""Inference over a data set in batches, with a progress bar and one JSON line for each clip, resumed after a kill."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ..processing.speech import SpeechReader
from ..utils.files import JsonLinesLog, read_json_lines, read_table

if TYPE_CHECKING:
    from rich.progress import Progress

MEDIA_FIELDS = ("video", "audio", "subtitles", "utterances")
"""The fields of a sample that hold a file."""
ANSWER_KEYS = ("name", "answer", "system")
"""The keys of each line of a file of answers."""


class Answerer(Protocol):
    """A system that answers questions about clips: MicroEmo, a [`Baseline`], or a class of your own.

    Attributes:
        name (`str`): The name of the system, written on every line, so that a file never mixes two systems.
    """

    name: str

    def answer(self, samples: list[dict]) -> list[str]:
        """Answers a batch of samples.

        Args:
            samples (`list[dict]`):
                N rows of the data set: `name`, and what the system needs of `video`, `audio`, `subtitles` (a file),
                `subtitle` (a sentence) and `instruction`.

        Returns:
            `list[str]`: N answers, in the order of the samples.
        """
        ...


@dataclass
class RunReport:
    """Says what a run over a data set did.

    Attributes:
        output (`Path`): The file of answers.
        answered (`list[str]`): The names of the samples that this run answered.
        resumed (`int`): The number of samples that an earlier run had answered.
        failed (`dict[str, str]`): The error of each sample that failed, by its name.
    """

    output: Path
    answered: list[str] = field(default_factory=list)
    resumed: int = 0
    failed: dict[str, str] = field(default_factory=dict)


def read_samples(path: str | Path) -> list[dict]:
    r"""Reads the samples of a data set.

    A row without `name` is named after its video (or sound) file, without the suffix.

    Args:
        path (`str` or `Path`):
            A .jsonl or .csv file. The file names in [`MEDIA_FIELDS`] are taken relative to its folder.

    Returns:
        `list[dict]`: The rows, without their empty cells.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is of another kind or cannot be read in full, if a row names neither a video nor an audio
            file, or if a cell is not text. The message names the file and the row.

    Example:

    ```python
    >>> from pathlib import Path
    >>> from microemo.inference.run_dataset import read_samples

    >>> _ = Path("data.csv").write_text("video,instruction\nhttps://host/a.mp4,What does the speaker feel?\n")
    >>> read_samples("data.csv")
    [{'name': 'a', 'video': 'https://host/a.mp4', 'instruction': 'What does the speaker feel?'}]
    ```"""
    path = Path(path)
    readers: dict[str, Callable[[Path], Sequence[dict]]] = {".jsonl": read_json_lines, ".csv": read_table}
    suffix = path.suffix.lower()
    if suffix not in readers:
        raise ValueError(f"{path}: expected {' or '.join(readers)}, found {path.suffix or 'no suffix'!r}")
    samples = []
    for number, row in enumerate(readers[suffix](path), start=1):
        sample = {key: value for key, value in row.items() if value not in ("", None)}
        for key, value in sample.items():
            kinds = {"name": (str, int), "utterances": (str, list)}.get(key, (str,))
            if key in (*MEDIA_FIELDS, "name", "subtitle", "instruction") and not isinstance(value, kinds):
                raise ValueError(
                    f"{path}, row {number}, {key}: expected text, found {type(value).__name__} {value!r:.80}"
                )
        for key in MEDIA_FIELDS:
            value = sample.get(key)
            if isinstance(value, str) and "://" not in value and value.lstrip()[:1] not in ("[", "{"):
                sample[key] = str(path.parent / value)
        clip = sample.get("video") or sample.get("audio")
        if clip is None:
            raise ValueError(
                f"{path}, row {number}: expected a video or an audio, found {', '.join(sample) or 'nothing'}"
            )
        samples.append({"name": Path(clip).stem} | sample)
    return samples


class WithSpeech:
    """Lets a system answer with the words of a speech recogniser about clips that have no subtitles.

    Args:
        answerer ([`Answerer`]): The system.
        speech ([`SpeechReader`]): What makes the utterances.

    Attributes:
        name (`str`): The name of the system.
    """

    def __init__(self, answerer: Answerer, speech: SpeechReader) -> None:
        self.answerer, self.speech = answerer, speech
        self.name = answerer.name
        self._found: dict[str, list] = {}  # of each clip, about which there may be many questions

    def answer(self, samples: list[dict]) -> list[str]:
        """Answers a batch of samples.

        Args:
            samples (`list[dict]`): N rows of the data set, see [`Answerer`].

        Returns:
            `list[str]`: N answers, in the order of the samples.
        """
        return self.answerer.answer([self._with_speech(sample) for sample in samples])

    def _with_speech(self, sample: dict) -> dict:
        """Adds `utterances`, which MicroEmo reads, and their words as `subtitle`, which others read."""
        if any(sample.get(name) for name in ("utterances", "subtitles", "subtitle")):
            return sample
        clip = str(sample.get("audio") or sample["video"])
        if clip not in self._found:
            self._found[clip] = self.speech.read_file(clip)
        found = self._found[clip]
        words = " ".join(utterance.text for utterance in found if utterance.text)
        return sample | {"utterances": found} | ({"subtitle": words} if words else {})


def open_answers(path: str | os.PathLike, system: str) -> JsonLinesLog:
    """Opens the file of one system's answers to append to it, and makes it if there is none.

    Args:
        path (`str` or `Path`): A .jsonl file.
        system (`str`): The name of the system.

    Returns:
        [`JsonLinesLog`]: The open file, with the answers that it holds.

    Raises:
        ValueError: if the file is no file of answers, or holds those of another system; it is left as it is.
        OSError: if another process has the file open.
    """
    log = JsonLinesLog(path, ANSWER_KEYS)
    if others := {str(row["system"]) for row in log.rows} - {system}:
        log.close()
        raise ValueError(f"{path}: holds answers of {', '.join(sorted(others))}, not of {system}; name another file")
    return log


def run_dataset(
    answerer: Answerer,
    samples: Iterable[dict],
    output: str | os.PathLike,
    batch_size: int = 1,
    skip_errors: bool = False,
    progress: bool = True,
) -> RunReport:
    """Answers every sample for which the output file does not hold an answer yet.

    Each batch is on the disk before the next one starts: a kill loses the current batch, and the next run with the same
    arguments resumes there. The lines `{"name": ..., "answer": ..., "system": ...}` are a file of predictions that
    [`read_answers`] reads.

    Args:
        answerer ([`Answerer`]): The system.
        samples (`Iterable[dict]`): Rows with distinct names, from [`read_samples`] or a `datasets.Dataset`.
        output (`str` or `Path`): A .jsonl file, made with its folder if it is not there.
        batch_size (`int`, *optional*, defaults to 1): The number of samples answered together.
        skip_errors (`bool`, *optional*, defaults to `False`):
            Whether to answer the samples of a failed batch one by one, leave out those that fail and continue. They are in
            the report, and the next run tries them again. By default the first error ends the run.
        progress (`bool`, *optional*, defaults to `True`): Whether to show a progress bar on the standard error stream.

    Returns:
        [`RunReport`]: What the run did.

    Raises:
        ValueError: if names come more than once, or if `output` is no file of answers or holds those of another system;
            it is left as it is.
        OSError: if another process has `output` open.
        RuntimeError: if the system returns another number of answers than samples.

    Example:

    ```python
    >>> from microemo.evaluation.prediction_files import read_answers
    >>> from microemo.inference.run_dataset import run_dataset

    >>> class AlwaysNeutral:
    ...     name = "always-neutral"
    ...
    ...     def answer(self, samples):
    ...         return ["The speaker is calm." for _ in samples]

    >>> report = run_dataset(AlwaysNeutral(), [{"name": "a", "video": "a.mp4"}], "answers.jsonl", progress=False)
    >>> report.answered, read_answers("answers.jsonl").items
    (['a'], {'a': 'The speaker is calm.'})
    ```"""
    samples = list(samples)
    twice = [name for name, count in Counter(str(sample["name"]) for sample in samples).items() if count > 1]
    if twice:
        raise ValueError(f"{len(twice)} names come more than once: {', '.join(twice[:10])}")
    with open_answers(output, answerer.name) as log:
        log.append([])  # cuts off the half line of a killed run
        answered_names = {str(row["name"]) for row in log.rows}
        unanswered = [sample for sample in samples if str(sample["name"]) not in answered_names]
        report = RunReport(log.path, resumed=len(samples) - len(unanswered))
        with _bar(progress) as bar:
            task = bar.add_task(answerer.name, total=len(samples), completed=report.resumed)
            for start in range(0, len(unanswered), batch_size):
                batch = unanswered[start : start + batch_size]
                pairs = _answer(answerer, batch, skip_errors, report)
                log.append(
                    [
                        {"name": str(sample["name"]), "answer": answer, "system": answerer.name}
                        for sample, answer in pairs
                    ]
                )
                report.answered += [str(sample["name"]) for sample, _ in pairs]
                bar.advance(task, len(batch))
    return report


def _answer(answerer: Answerer, batch: list[dict], skip_errors: bool, report: RunReport) -> list[tuple[dict, str]]:
    try:
        answers = answerer.answer(batch)
        if len(answers) != len(batch):
            raise RuntimeError(f"{answerer.name}: {len(answers)} answers for {len(batch)} samples")
        return list(zip(batch, answers, strict=True))
    except Exception as error:
        if not skip_errors:
            error.add_note(f"in the batch {', '.join(str(sample['name']) for sample in batch)}")
            raise
        if len(batch) == 1:
            report.failed[str(batch[0]["name"])] = f"{type(error).__name__}: {error}"
            return []
    return [pair for sample in batch for pair in _answer(answerer, [sample], True, report)]


def _bar(visible: bool) -> "Progress":
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), disable=not visible)
