"""The old name of `utils/files.py`, kept for code that imports these from here."""

from ..utils.atomic_files import write_text
from ..utils.files import JsonLinesLog, read_json_lines, read_table

__all__ = ["JsonLinesLog", "read_json_lines", "read_table", "write_text"]
