"""Run a model over a data set: progress, batches, resume after a kill, one JSON line a clip."""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..utils.files import JsonLinesLog, read_json_lines, read_table

MEDIA_FIELDS = ("video", "audio", "subtitles", "utterances")
ANSWER_KEYS = ("name", "answer", "system")


class Answerer(Protocol):
    """Whatever answers clips: MicroEmo, a baseline, or a function in a class of one's own.

    Attributes:
        name: what tables call it; written on every line, so that a file never mixes two systems.
    """

    name: str

    def answer(self, samples: list[dict]) -> list[str]:
        """One answer a sample.

        Args:
            samples: a batch of rows of the data set: "name", and what the model needs of "video", "audio",
                "subtitles" (a file), "subtitle" (a sentence), "instruction".
        """
        ...


@dataclass
class RunReport:
    """What a run did: names answered now, how many an earlier run had answered, and name -> error of the clips that failed."""

    output: Path
    answered: list[str] = field(default_factory=list)
    resumed: int = 0
    failed: dict[str, str] = field(default_factory=dict)


def read_samples(path: str | Path) -> list[dict]:
    """Rows of a .jsonl or .csv data set; the file names in `MEDIA_FIELDS` are taken relative to its folder.

    A row without "name" is named by its video's (or sound's) file name without the ending.

    Raises:
        ValueError: another kind of file, or a row that names no clip.
    """
    path = Path(path)
    readers = {".jsonl": read_json_lines, ".csv": read_table}
    suffix = path.suffix.lower()
    if suffix not in readers:
        raise ValueError(f"{path}: expected {' or '.join(readers)}, found {path.suffix or 'no suffix'!r}")
    samples = []
    for number, row in enumerate(readers[suffix](path), start=1):
        sample = {key: value for key, value in row.items() if value not in ("", None)}
        for key, value in sample.items():
            kinds = {"name": (str, int), "utterances": (str, list)}.get(key, str)
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


def open_answers(path: str | os.PathLike, system: str) -> JsonLinesLog:
    """The log of one system's answers, to go on with; a new file where there is none.

    Raises:
        ValueError: if the file is not such a log, or another system's. It is left as it is.
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
    """Answer every sample that `output` does not hold yet.

    Each batch is on the disk (appended, forced out) before the next one starts: a kill loses the batch under way, and the
    next run with the same arguments goes on there. The lines read as a prediction file:
    {"name": ..., "answer": ..., "system": ...}.

    Args:
        samples: rows with distinct "name"s; any sequence, a `datasets.Dataset` too.
        output: a .jsonl file, made with its folder if it is not there.
        batch_size: samples answered together.
        skip_errors: when a batch fails, answer its samples one by one, leave out those that fail and go on; they are
            in the report, and the next run tries them again. By default the first error ends the run.
        progress: show a bar on stderr.
    Raises:
        ValueError: names that come twice, or an `output` that is another system's or no such file; it is left as it is.
    """
    samples = list(samples)
    twice = [name for name, count in Counter(str(sample["name"]) for sample in samples).items() if count > 1]
    if twice:
        raise ValueError(f"{len(twice)} names come more than once: {', '.join(twice[:10])}")
    with open_answers(output, answerer.name) as log:
        log.append([])  # cuts off the half line of a killed run
        done = {str(row["name"]) for row in log.rows}
        waiting = [sample for sample in samples if str(sample["name"]) not in done]
        report = RunReport(log.path, resumed=len(samples) - len(waiting))
        with _bar(progress) as bar:
            task = bar.add_task(answerer.name, total=len(samples), completed=report.resumed)
            for start in range(0, len(waiting), batch_size):
                batch = waiting[start : start + batch_size]
                answered = _answer(answerer, batch, skip_errors, report)
                log.append(
                    [
                        {"name": str(sample["name"]), "answer": answer, "system": answerer.name}
                        for sample, answer in answered
                    ]
                )
                report.answered += [str(sample["name"]) for sample, _ in answered]
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


def _bar(visible: bool):
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
