"""The files that an analysis can be written as, for other tools.

```python
>>> from microemo.inference.emotion_analysis import EmotionAnalysis
>>> from microemo.inference.formats.analysis_files import write_analysis

>>> write_analysis(EmotionAnalysis("clip.mp4", "microemo-small", "0.1.0"), "clip.csv").name
'clip.csv'
```
"""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...utils.atomic_files import write_text
from ..emotion_analysis import EmotionAnalysis
from .annotation_tiers import format_eaf, format_textgrid
from .emotion_subtitles import format_srt, format_vtt
from .emotionml import format_emotionml
from .html_report import format_html
from .utterance_table import format_csv

# Each format's name, its suffix, and what makes its text, given the analysis and the folder of the file.
FORMATS: dict[str, tuple[str, Callable[[EmotionAnalysis, Path], str]]] = {
    "json": (".json", lambda analysis, folder: analysis.to_json()),
    "csv": (".csv", format_csv),
    "srt": (".srt", format_srt),
    "vtt": (".vtt", format_vtt),
    "textgrid": (".TextGrid", format_textgrid),
    "eaf": (".eaf", format_eaf),
    "emotionml": (".emotionml", format_emotionml),
    "html": (".html", format_html),
}
# What XML cannot hold, escaped or not: control characters, halves of a surrogate pair, and what is no character.
_NO_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def format_analysis(analysis: EmotionAnalysis, format: str, folder: str | Path = ".") -> str:
    """Makes the text of a file out of an analysis.

    Args:
        analysis ([`EmotionAnalysis`]): The analysis.
        format (`str`): The name of the format, a key of `FORMATS`.
        folder (`str` or `Path`, *optional*, defaults to `"."`):
            The folder in which the file will lie. EAF and EmotionML state the way from there to the clip.

    Returns:
        `str`: The text, to be written in UTF-8. Control characters are replaced by U+FFFD.

    Raises:
        ValueError: if the format is not known. The message names those that are.
        ImportError: if a library that the format needs is not installed.
    """
    if format not in FORMATS:
        raise ValueError(f"unknown format {format!r}; known are {_known()}")
    return FORMATS[format][1](_readable(analysis), Path(folder))


def write_analysis(analysis: EmotionAnalysis, path: str | Path, format: str | None = None) -> Path:
    """Writes an analysis as a file for another tool.

    Args:
        analysis ([`EmotionAnalysis`]): The analysis.
        path (`str` or `Path`): The file to make or to replace.
        format (`str`, *optional*): The name of the format, a key of `FORMATS`. By default the suffix of the file decides.

    Returns:
        `Path`: The file.

    Raises:
        ValueError: if the format is not known. The message names those that are.
        ImportError: if a library that the format needs is not installed.
    """
    path = Path(path)
    if format is None:
        by_suffix = {suffix.lower(): name for name, (suffix, _) in FORMATS.items()}
        if path.suffix.lower() not in by_suffix:
            raise ValueError(f"{path}: no format has the suffix {path.suffix!r}; known are {_known()}")
        format = by_suffix[path.suffix.lower()]
    return write_text(path, format_analysis(analysis, format, path.parent))


def _known() -> str:
    return ", ".join(f"{name} ({suffix})" for name, (suffix, _) in FORMATS.items())


def _readable(value: Any) -> Any:
    """Returns a copy whose texts can stand in any of the formats."""
    if isinstance(value, str):
        return _NO_TEXT.sub("\ufffd", re.sub(r"\r\n?", "\n", value))
    if isinstance(value, list):
        return [_readable(one) for one in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.replace(value, **{name: _readable(field) for name, field in vars(value).items()})
    return value
