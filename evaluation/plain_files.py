"""Plain files: tables, safe writes, and a JSON-lines log that survives a kill (no half line is ever read)."""

import contextlib
import csv
import json
import os
import threading
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: no advisory locks, so two writers are not detected there
    fcntl = None


def read_json_lines(path: str | os.PathLike) -> list[dict]:
    """Read every whole line. A last line without its newline is what a kill left behind, and is passed over.

    Raises:
        ValueError: a whole line is not a JSON object; names the file and the line.
    """
    rows = []
    whole, _, _ = Path(path).read_bytes().rpartition(b"\n")
    for number, line in enumerate(whole.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: not JSON ({error}): {line[:80]!r}") from None
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number}: expected a JSON object, found {line[:80]!r}")
        rows.append(row)
    return rows


class JsonLinesLog:
    """One process's hold on a JSON-lines file: the rows already there, and a safe way to add more.

    Opening cuts off the half line of a killed writer; `append` writes whole lines and returns when they are on the disk.
    The file stays locked while open, because two writers would pay for the same answers twice.

    Example:
        >>> with JsonLinesLog("answers.jsonl") as log:
        ...     done = {row["name"] for row in log.rows}
        ...     log.append([{"name": "clip_1", "answer": "happy"}])
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._threads = threading.Lock()
        self._file = open(self.path, "ab")  # noqa: SIM115 (held for the life of the log)
        try:
            if fcntl is not None:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            content = self.path.read_bytes()
            os.truncate(self.path, content.rfind(b"\n") + 1)
            self.rows = read_json_lines(self.path)
        except BlockingIOError:
            self._file.close()
            raise OSError(f"{self.path}: another process is writing to it; wait for it or name another file") from None
        except BaseException:
            self._file.close()
            raise

    def append(self, rows: list[dict]) -> None:
        """Write `rows`, one line each, in one write, and force them to the disk."""
        data = b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
        with self._threads:
            self._file.write(data)
            self._file.flush()
            os.fsync(self._file.fileno())
            self.rows.extend(rows)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> "JsonLinesLog":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def write_text(path: str | os.PathLike, text: str) -> Path:
    """Write `text` under a temporary name beside `path`, then rename: a reader sees the old file or the new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
    return path


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a .csv (UTF-8, a BOM allowed) or .xlsx file; every cell a string, an empty one ""."""
    if path.suffix == ".xlsx":
        from openpyxl import load_workbook

        book = load_workbook(path, read_only=True, data_only=True)
        rows = [["" if cell is None else str(cell) for cell in row] for row in book.active.iter_rows(values_only=True)]
        book.close()
        return [dict(zip(rows[0], row, strict=True)) for row in rows[1:]] if rows else []
    with path.open(encoding="utf-8-sig", newline="") as file:
        return [{key: value or "" for key, value in row.items() if key is not None} for row in csv.DictReader(file)]
