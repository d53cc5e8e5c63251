"""Files and folders that are written as a whole or not at all. This module travels with a published checkpoint."""

import contextlib
import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _beside(path: Path) -> Path:
    """Returns a hidden name in the folder of `path`. The suffix stays, since writers of pictures and clips choose by it."""
    return path.with_name(f".{path.stem[:40]}.{secrets.token_hex(4)}.tmp{path.suffix}")


class NoSpaceError(OSError):
    """Raised when there is no room on the disk for what is to be written."""


@contextlib.contextmanager
def _telling_a_full_disk(path: Path, size: int = 0) -> Iterator[None]:
    """Raises errors of a full disk as one kind: safetensors and tokenizers raise exceptions of their own there."""
    try:
        yield
    except NoSpaceError:
        raise
    except Exception as error:
        if getattr(error, "errno", None) not in _NO_SPACE and not re.search(
            rf"\bos error ({'|'.join(map(str, _NO_SPACE))})\b", str(error)
        ):
            raise
        needed = f"; {size / 1e6:.0f} MB are needed" if size else ""
        raise NoSpaceError(f"{path}: no space left to write it ({error}){needed}. Nothing was kept") from error


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike) -> Iterator[Path]:
    """Writes a file as a whole or not at all.

    Args:
        path (`str` or `Path`):
            The file to make or to replace; its folder is made. A link is followed: what it points to is replaced.

    Yields:
        `Path`: A name in the same folder to write to. When the block ends, that file is renamed to `path`; when the block
        raises, it is removed, and `path` is as it was.

    Raises:
        IsADirectoryError: if `path` is a folder.
        NoSpaceError: if the disk is full.

    Example:

    ```python
    >>> from microemo.utils.atomic_files import atomic_file

    >>> with atomic_file("scores.csv") as part:
    ...     _ = part.write_text("name,score")
    ```"""
    path = Path(os.path.realpath(path))
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _beside(path)
    try:
        with _telling_a_full_disk(path):
            yield part
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike, size: int = 0) -> Iterator[Path]:
    """Makes a folder as a whole or not at all.

    Args:
        path (`str` or `Path`): The folder to make. An empty one may be there already; its parents are made.
        size (`int`, *optional*, defaults to 0): The number of bytes that will be written, if it is known.

    Yields:
        `Path`: A new folder beside it to fill. When the block ends, that folder is renamed to `path`; when the block
        raises, it is removed with all that is in it.

    Raises:
        FileExistsError: if `path` is a file or a folder that holds something. Nothing is made then.
        NoSpaceError: if fewer than `size` bytes are free, or if the disk is full.

    Example:

    ```python
    >>> from microemo.utils.atomic_files import atomic_folder

    >>> with atomic_folder("results") as part:
    ...     _ = (part / "scores.csv").write_text("name,score")
    ```"""
    path = check_new_folder(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(path.parent).free
    if free < size:
        raise NoSpaceError(
            f"{path.parent}: no space left: {size / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free"
        )
    part = _beside(path)
    try:
        with _telling_a_full_disk(path, size):
            part.mkdir()
            yield part
            if path.is_dir():
                path.rmdir()
            part.replace(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def check_new_folder(path: str | os.PathLike) -> Path:
    """Checks, before any long work, that a folder can be made by [`atomic_folder`].

    Args:
        path (`str` or `Path`): The folder to make.

    Returns:
        `Path`: The same path.

    Raises:
        FileExistsError: if `path` is a file or a folder that holds something.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(f"{path} exists and is not empty; name a new folder")
    return path


def write_text(path: str | os.PathLike, text: str) -> Path:
    """Writes a UTF-8 file as a whole or not at all.

    Args:
        path (`str` or `Path`): The file to make or to replace; its folder is made.
        text (`str`): Its content, whose line ends are kept.

    Returns:
        `Path`: The file.

    Raises:
        IsADirectoryError: if `path` is a folder.
        NoSpaceError: if the disk is full.
    """
    with atomic_file(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")
    return Path(path)
