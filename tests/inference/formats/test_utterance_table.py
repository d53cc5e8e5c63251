"""The table, read back by Python's own reader and by pandas."""

import csv
import io
import math

import pandas as pd
import pytest

from microemo.inference.emotion_analysis import EmotionAnalysis, UtteranceAnalysis
from microemo.inference.formats.analysis_files import format_analysis, write_analysis
from microemo.tests.inference.formats.analyses import empty, observations, odd, usual


def said(*texts: str) -> str:
    utterances = [UtteranceAnalysis(number, 0.0, 1.0, text) for number, text in enumerate(texts, 1)]
    return format_analysis(EmotionAnalysis("clip.mp4", "m", "0", utterances=utterances), "csv")


def test_pandas_reads_the_same_table(tmp_path):
    table = pd.read_csv(write_analysis(usual(), tmp_path / "clip.csv"))
    expected = usual().to_pandas().replace({"": math.nan, None: math.nan})
    assert list(table.columns) == list(expected.columns)
    pd.testing.assert_frame_equal(table, expected, check_dtype=False)


def test_what_is_not_known_is_missing_and_na_is_a_word(tmp_path):
    path = write_analysis(odd(), tmp_path / "clip.csv")
    table = pd.read_csv(path, keep_default_na=False, na_values=[""])
    assert table.speaker[5] == "NA" and table.text[5] == "{\\an8}{smile} NA"
    assert table.speaker.isna().tolist() == [False, False, False, True, False, False, True]
    assert table.loudness.isna().all() and math.isnan(table.pitch[0])
    assert table.top_score.dtype == float


def test_lines_end_as_the_standard_says_and_every_row_has_all_columns(tmp_path):
    data = write_analysis(odd(), tmp_path / "clip.csv").read_bytes()
    assert data.startswith(b"clip,number,start,end,speaker,text,emotions,") and data.endswith(b"\r\n")
    rows = list(csv.reader(io.StringIO(data.decode("utf-8"), newline=""), strict=True))
    assert {len(row) for row in rows} == {len(rows[0])} and len(rows) == 8
    assert rows[1][5] == 'He said "no" --> & <b>so</b>;\n\nnew, line'
    assert rows[3][5] == "مرحبا، كيف حالك؟ 😀"


@pytest.mark.parametrize(
    "formula",
    ["=1+1", "=cmd|' /C calc'!A0", "@SUM(A1)", "+1", "-1+cmd|' /C calc'!A0", '-HYPERLINK("x")', "\t=1", " =1"],
)
def test_no_cell_is_run_as_a_formula(formula):
    (row,) = csv.DictReader(io.StringIO(said(formula)))
    assert row["text"] == f"'{formula}"


@pytest.mark.parametrize("text", ["- Yes!", "-Yes.", "—", "1 = 1", "a@b", "'quoted'", "(- what?)"])
def test_other_words_stay_as_they_are(text):
    (row,) = csv.DictReader(io.StringIO(said(text)))
    assert row["text"] == text


def test_numbers_below_zero_stay_numbers(tmp_path):
    table = pd.read_csv(write_analysis(usual(), tmp_path / "clip.csv"))
    assert table.loudness[0] == -21.5


def test_without_utterances_there_are_the_usual_columns():
    (line,) = format_analysis(empty(), "csv").splitlines()
    assert format_analysis(observations(), "csv").splitlines()[0] == line


def test_observations_have_no_emotions():
    rows = list(csv.DictReader(io.StringIO(format_analysis(observations(), "csv"))))
    assert {row["emotions"] + row["top_label"] + row["top_score"] for row in rows} == {""}
    assert {row["observation"] for row in rows} == {"The brows are raised."}
