"""An analysis as comma-separated values by RFC 4180, with a row for each utterance, for R, pandas and spreadsheets."""

import csv
import io
import re
from pathlib import Path
from typing import Any

from ..emotion_analysis import EmotionAnalysis, UtteranceAnalysis

# What a spreadsheet runs when it opens the file. A dash alone begins what somebody says ("- Yes!").
_FORMULA = re.compile(r"\s*(?:[=+@]|-.*[(|])", re.DOTALL)


def format_csv(analysis: EmotionAnalysis, folder: Path) -> str:
    """Writes an analysis as comma-separated values.

    What is not known is an empty field, which R and pandas read as missing; the text "NA" stays a text. A text that
    spreadsheets would run as a formula gets an apostrophe before it.

    Args:
        analysis ([`EmotionAnalysis`]): The analysis.
        folder (`Path`): The folder of the file, which is not stated in it.

    Returns:
        `str`: The text, with the columns of [`~EmotionAnalysis.rows`] and CR LF at the ends of lines.
    """
    rows = analysis.rows()
    # An analysis without utterances has the columns of one that has some.
    like = rows or EmotionAnalysis("", "", "", utterances=[UtteranceAnalysis(number=1, start=0.0, end=0.0)]).rows()
    text = io.StringIO()
    writer = csv.DictWriter(text, list(like[0]), lineterminator="\r\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value
