"""The files of a corpus of synthetic clips: its lists, and clips made by several processes."""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from ...utils.files import read_json_lines, write_json_lines

try:
    import av
except ImportError:
    av = None  # type: ignore[assignment]

TABLE, TRUTH = "dialogues.jsonl", "truth.jsonl"

T = TypeVar("T")


def read_list(path: Path) -> dict[str, dict]:
    """Reads a list of clips.

    Args:
        path (`Path`): A file of JSON lines, of which each has a `name`.

    Returns:
        `dict[str, dict]`: The rows by name; none if there is no file.
    """
    return {row["name"]: row for row in read_json_lines(path)} if path.is_file() else {}


def write_list(path: Path, rows: Iterable[dict]) -> Path:
    """Adds rows to those of a list. Rows of the same name are replaced.

    Args:
        path (`Path`): The file.
        rows (`Iterable[dict]`): The rows, of which each has a `name`.

    Returns:
        `Path`: The file, whose rows are sorted by name.
    """
    listed = read_list(path) | {row["name"]: row for row in rows}
    return write_json_lines(path, (listed[name] for name in sorted(listed)))


def comment_of(path: Path) -> str | None:
    """Reads the comment in the metadata of a clip.

    Args:
        path (`Path`): The clip.

    Returns:
        `str`, *optional*: The comment, or `None` if there is no such clip or no comment, or if the clip is damaged.
    """
    if not path.is_file():
        return None
    try:
        with av.open(str(path)) as container:
            return container.metadata.get("comment")
    except av.FFmpegError:
        return None


def in_processes(
    make: Callable[[Any], T],
    jobs: list,
    num_workers: int,
    prepare: Callable[..., None],
    *arguments: Any,
    chunksize: int = 1,
) -> Iterator[T]:
    """Does jobs in several processes, each of which is prepared once.

    Args:
        make (`Callable`): What is called with each job, a function of a module.
        jobs (`list`): The jobs.
        num_workers (`int`): The number of processes; 1 does the jobs in this one.
        prepare (`Callable`): What is called in each process before its first job.
        arguments (`Any`): The arguments of `prepare`.
        chunksize (`int`, *optional*, defaults to 1): The number of neighbouring jobs that a process is given at once.

    Yields:
        `Any`: What `make` returns, in the order of the jobs.
    """
    if not jobs:
        return
    if num_workers == 1:
        prepare(*arguments)
        yield from map(make, jobs)
        return
    # Neither MediaPipe nor PyAV survives a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(num_workers, len(jobs)), context, prepare, arguments) as pool:
        yield from pool.map(make, jobs, chunksize=chunksize)
