"""Files: tables and JSON lines read without loss, and a crash-safe log.

Users' files are read with tolerance for their form (a byte-order mark, UTF-16, CRLF, no final newline, semicolons) and
none for loss: whatever cannot be read in full is an error that names the file and the line. [`JsonLinesLog`] is the one
file that is appended to, and it appends to nothing but its own.
"""

import codecs
import csv
import io
import json
import os
import re
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .atomic_files import atomic_file

try:
    import fcntl
except ImportError:  # Windows: no advisory locks, so two writers are not detected there
    fcntl = None  # type: ignore[assignment]


def write_json_lines(path: str | os.PathLike, rows: Iterable[dict]) -> Path:
    """Writes a file with one JSON object in each line, as a whole or not at all.

    Args:
        path (`str` or `Path`): The file to make or to replace; its folder is made.
        rows (`Iterable[dict]`): The objects.

    Returns:
        `Path`: The file.

    Raises:
        IsADirectoryError: if `path` is a folder.
        NoSpaceError: if the disk is full.
        TypeError: if a row holds what JSON cannot.

    Example:

    ```python
    >>> from microemo.utils.files import read_json_lines, write_json_lines

    >>> read_json_lines(write_json_lines("answers.jsonl", [{"name": "clip_1", "answer": "happy"}]))
    [{'name': 'clip_1', 'answer': 'happy'}]
    ```"""
    with atomic_file(path) as part:
        part.write_bytes(b"".join(map(_json_line, rows)))
    return Path(path)


def _json_line(row: dict) -> bytes:
    # "replace": half a surrogate pair has no UTF-8, and one odd character must not end a run
    return json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


# --- reading what users wrote --------------------------------------------------------------------------------------


def read_text(path: str | os.PathLike, fallback: str | None = None) -> str:
    """Reads the text of a UTF-8 file, or of a UTF-16 file that begins with a byte-order mark.

    Args:
        path (`str` or `Path`): The file.
        fallback (`str`, *optional*):
            The encoding of those lines that are not UTF-8, where it is known. By default there may be none.

    Returns:
        `str`: Its text without the byte-order mark; line ends are kept.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is neither, or if it holds a NUL character. The message names the line.
    """
    data = Path(path).read_bytes()
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        text = data.decode(encoding) if fallback is None else _decode_lines(data, encoding, fallback)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path}, line {line}: not {'UTF-16' if encoding == 'utf-16' else 'UTF-8'} text (byte "
            f"{data[error.start]:#04x}); save it as UTF-8 (in Excel: CSV UTF-8)"
        ) from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise ValueError(
            f"{path}, line {line}: a NUL character; not a text file, or one in another encoding than UTF-8"
        )
    return text


def _decode_lines(data: bytes, encoding: str, fallback: str) -> str:
    """Decodes a file whose lines may be in two encodings, as where a table was put together from several."""
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        lines = data.removeprefix(codecs.BOM_UTF8).splitlines(keepends=True)
        try:
            return "".join(line.decode("utf-8" if _is_utf8(line) else fallback) for line in lines)
        except UnicodeDecodeError:
            raise error from None


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def read_json(path: str | os.PathLike) -> Any:
    """Reads a JSON file. NaN, which Python and pandas write for a missing value, is read as `None`.

    Args:
        path (`str` or `Path`): The file.

    Returns:
        `Any`: Its content.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not JSON, or if an object has a key twice (one of the two values would be lost).
    """
    text = read_text(path)
    try:
        return _parse(text)
    except ValueError as error:
        hint = "; a file with an object a line is named .jsonl" if _is_json(text.strip().split("\n")[0]) else ""
        raise ValueError(f"{path}: not JSON ({error}){hint}") from None


def read_json_lines(path: str | os.PathLike) -> list[dict]:
    """Reads a file with one JSON object in each line. Blank lines and a missing final newline do not matter.

    Args:
        path (`str` or `Path`): The file.

    Returns:
        `list[dict]`: The objects.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a line is not a JSON object, or has a key twice. The message names the file and the line.
    """
    text = read_text(path)
    rows = []
    # not splitlines(): JSON strings may hold other line separators, such as U+2028
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                rows.append(_json_object(line))
            except ValueError as error:
                hint = "; the file is one JSON document: name it .json" if not rows and _is_json(text) else ""
                raise ValueError(f"{path}, line {number}: {error}{hint}") from None
    return rows


def _json_object(line: str) -> dict:
    try:
        row = _parse(line)
    except ValueError as error:
        raise ValueError(f"not JSON ({error}): {line.strip()[:80]!r}") from None
    if not isinstance(row, dict):
        raise ValueError(f"expected a JSON object, found {line.strip()[:80]!r}")
    return row


def _parse(text: str) -> Any:
    try:
        value = json.loads(text, object_pairs_hook=_pairs, parse_constant=_constant)
        if "\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair, which is no character") from None
    except RecursionError:
        raise ValueError("nested too deep") from None
    return value


def _pairs(pairs: list[tuple[str, object]]) -> dict:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError(f"key {_twice(key for key, _ in pairs)} comes twice")
    return row


def _constant(name: str) -> None:
    if name != "NaN":
        raise ValueError(f"{name} is no value")


def _is_json(text: str) -> bool:
    try:
        _parse(text)
    except ValueError:
        return False
    return True


def _twice(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name, count in Counter(names).items() if count > 1)


def read_table(path: str | os.PathLike, fallback: str | None = None) -> list[dict[str, str]]:
    r"""Reads a table: a .csv file, whose cells are separated by commas, semicolons or tabs, or an .xlsx file.

    Rows without any content are passed over.

    Args:
        path (`str` or `Path`): The file. A file that does not end in .xlsx is read as CSV.
        fallback (`str`, *optional*): The encoding of those lines of a CSV file that are not UTF-8, see [`read_text`].

    Returns:
        `list[dict[str, str]]`: For each row a dictionary from column to cell. Every cell is a string, an empty one `""`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file cannot be read in full: a row has more or fewer cells than the header, a quote is never
            closed, or a column has no name or that of another. The message names the file and the line.
        ImportError: if the file is an .xlsx file and openpyxl is not installed.

    Example:

    ```python
    >>> from microemo.utils.atomic_files import write_text
    >>> from microemo.utils.files import read_table

    >>> read_table(write_text("scores.csv", "name;score\nclip_1;0,5"))
    [{'name': 'clip_1', 'score': '0,5'}]
    ```"""
    path = Path(path)
    lines = _read_xlsx(path) if path.suffix.lower() == ".xlsx" else _read_csv(path, fallback)
    number, header = next(lines, (0, []))
    header = [name.strip() for name in header]
    if not any(header):
        raise ValueError(f"{path}: no header; the first line must name the columns")
    rows = []
    for number, cells in lines:
        if any(cell.strip() for cell in cells):
            if len(cells) != len(header):
                raise ValueError(
                    f"{path}, line {number}: {len(cells)} cells for {len(header)} columns ({', '.join(header)}): "
                    f"{cells!r:.300}; a cell that holds the separator stands in quotes"
                )
            rows.append(cells)
    named = [column for column, name in enumerate(header) if name or any(cells[column] for cells in rows)]
    for column in named:
        if not header[column] or header[column].startswith("Unnamed: "):
            raise ValueError(
                f"{path}: column {column + 1} has no name ({header[column]!r}); where it is the index of a pandas table, "
                "write the file with to_csv(index=False)"
            )
    if twice := _twice(header[column] for column in named):
        raise ValueError(f"{path}: column {twice} comes twice")
    return [{header[column]: cells[column] for column in named} for cells in rows]


def _read_csv(path: Path, fallback: str | None = None) -> Iterator[tuple[int, list[str]]]:
    """Yields each row with the number of its first line."""
    text = read_text(path, fallback)
    first = re.split(r"[\r\n]", text.lstrip("\r\n"), maxsplit=1)[0]
    # the separator that makes most cells of the header; a comma where there is nothing to choose
    separator = max(",;\t", key=lambda separator: len(next(csv.reader([first], delimiter=separator), [])))
    stated = re.fullmatch(r'"?sep=(.)"?', first)  # Excel's own first line
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=stated[1] if stated else separator, strict=True)
    number = 1
    try:
        if stated:
            next(reader)
        for cells in reader:
            if cells:
                yield number, cells
            number = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{path}, line {number}: a row that cannot be read, perhaps for a quote ({error})") from None


def _read_xlsx(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        from openpyxl import load_workbook
    except ImportError:
        raise ImportError(f"{path}: .xlsx files need openpyxl; pip install 'microemo[evaluation]'") from None
    try:
        book = load_workbook(path, read_only=True, data_only=True)
        rows = [["" if cell is None else str(cell) for cell in row] for row in book.active.iter_rows(values_only=True)]
        book.close()
    except OSError:
        raise
    except Exception as error:  # of zipfile, zlib, the XML parser and openpyxl, a dozen kinds for a damaged file
        raise ValueError(f"{path}: not an .xlsx file that can be read ({type(error).__name__}: {error})") from None
    width = max(map(len, rows), default=0)
    yield from enumerate((row + [""] * (width - len(row)) for row in rows), start=1)


# --- our own log ---------------------------------------------------------------------------------------------------


_NOT_OURS = "the file is left as it is, since this program did not write it; name another"


class JsonLinesLog:
    """Opens a crash-safe log of JSON lines: it reads the rows that are there and appends others.

    `append` writes whole lines and returns when they are on the disk. The file stays locked while it is open, because two
    writers would compute the same answers twice.

    A file that holds anything but lines of such a log is refused, before it is opened for writing. Nothing but `append`
    changes it: the first call cuts off the half line of a killed writer, where there is one.

    Args:
        path (`str` or `Path`): The file, made with its folder if it is not there.
        keys (`Iterable[str]`, *optional*):
            The keys of every row, in order; the first holds a text. By default those of the rows already there.

    Attributes:
        rows (`list[dict]`): The rows that the log holds.

    Raises:
        ValueError: if the file is not such a log; it is left as it is.
        OSError: if another process has the log open.

    Example:

    ```python
    >>> from microemo.utils.files import JsonLinesLog

    >>> with JsonLinesLog("answers.jsonl", ("name", "answer")) as log:
    ...     done = {row["name"] for row in log.rows}
    ...     log.append([{"name": "clip_1", "answer": "happy"}])
    ```"""

    def __init__(self, path: str | os.PathLike, keys: Iterable[str] | None = None):
        self.path = Path(path)
        self._keys = None if keys is None else tuple(keys)
        self._threads = threading.Lock()
        if self.path.exists():
            if not self.path.is_file():
                raise ValueError(f"{self.path}: is no ordinary file; name another")
            self._read()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "ab")  # noqa: SIM115 (held for the life of the log)
        try:
            if fcntl is not None:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.rows, self._mended = self._read()  # once more: another writer may have had it in between
        except BlockingIOError:
            self._file.close()
            raise OSError(f"{self.path}: another process is writing to it; wait for it or name another file") from None
        except BaseException:
            self._file.close()
            raise

    def _read(self) -> tuple[list[dict], tuple[int, bytes] | None]:
        """Returns the rows and, if the last line has no end, the bytes to keep and what is to follow them."""
        *lines, last = self.path.read_bytes().split(b"\n")
        rows = [self._row(line, number) for number, line in enumerate(lines, start=1) if line.strip()]
        if not last.strip():
            return rows, None
        try:
            return [*rows, self._row(last, len(lines) + 1)], (self.path.stat().st_size, b"\n")
        except ValueError:
            # The line that a kill cut short begins as every line does; anything else was written by somebody else.
            start = f"{{{json.dumps(self._keys[0])}: ".encode() if self._keys else b""
            if not start or last[: len(start)] != start[: len(last)] or _is_json(last.decode("utf-8", "replace")):
                raise
        return rows, (sum(len(line) + 1 for line in lines), b"")

    def _row(self, line: bytes, number: int) -> dict:
        try:
            row = _json_object(line.decode("utf-8-sig"))
        except ValueError as error:
            raise ValueError(f"{self.path}, line {number}: {error}; {_NOT_OURS}") from None
        if not self._fits(row):
            expected = ", ".join(self._keys or ["some key"])
            raise ValueError(
                f"{self.path}, line {number}: expected an object with {expected}, found {', '.join(row)}; {_NOT_OURS}"
            )
        return row

    def _fits(self, row: dict) -> bool:
        if self._keys is None and row:
            self._keys = tuple(row)
        return set(row) == set(self._keys or ())

    def append(self, rows: list[dict]) -> None:
        """Writes rows, one line each, in one write, and forces them to the disk.

        Args:
            rows (`list[dict]`): The rows.

        Raises:
            ValueError: if a row has other keys than those of the log; nothing is written then.
        """
        for row in rows:
            if not self._fits(row):
                raise ValueError(
                    f"{self.path}: its rows have {', '.join(self._keys or ())}; cannot append one with {', '.join(row)}"
                )
        data = b"".join(map(_json_line, rows))
        with self._threads:
            if self._mended is not None:
                kept, separator = self._mended
                self._file.truncate(kept)
                data, self._mended = separator + data, None
            self._file.write(data)
            self._file.flush()
            os.fsync(self._file.fileno())
            self.rows.extend(rows)

    def close(self) -> None:
        """Closes the file, so that another process may open it."""
        self._file.close()

    def __enter__(self) -> "JsonLinesLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
