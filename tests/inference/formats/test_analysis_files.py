import sys

import pytest
from hypothesis import given, settings

from microemo.commands.main import EXTRAS
from microemo.inference.emotion_analysis import EmotionAnalysis
from microemo.inference.formats import analysis_files
from microemo.inference.formats.analysis_files import FORMATS, format_analysis, write_analysis
from microemo.tests.inference.formats.analyses import ANALYSES, any_analysis, odd, usual


@pytest.fixture(autouse=True)
def no_time_line(monkeypatch):
    """The picture of the report takes a second; `test_html_report.py` has it."""
    monkeypatch.setattr(EmotionAnalysis, "plot", lambda self: (_ for _ in ()).throw(ImportError("no matplotlib")))


@pytest.mark.parametrize("which", ANALYSES)
@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_written_by_its_suffix_in_any_case(name, which, tmp_path):
    suffix = FORMATS[name][0]
    assert suffix.lower() in (f".{name}", ".textgrid")
    path = write_analysis(ANALYSES[which](), tmp_path / "new" / f"clip.v2{suffix.upper()}")
    assert path == tmp_path / "new" / f"clip.v2{suffix.upper()}"
    written = path.read_bytes().decode("utf-8")
    if name != "eaf":  # which has the time
        assert written == format_analysis(ANALYSES[which](), name, path.parent)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_named_format_goes_before_the_suffix(tmp_path):
    path = write_analysis(usual(), tmp_path / "clip.txt", "srt")
    assert path.read_text(encoding="utf-8").startswith("1\n00:00:00,500 --> 00:00:02,000\n")


@pytest.mark.parametrize("name", ["clip.xyz", "clip", "clip.json.bak"])
def test_an_unknown_suffix_is_refused_by_name_with_those_that_are_known(name, tmp_path):
    with pytest.raises(
        ValueError, match=rf"{name}: no format has the suffix .*json \(\.json\).*textgrid \(\.TextGrid\)"
    ):
        write_analysis(usual(), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_an_unknown_format_is_refused_by_name_with_those_that_are_known(tmp_path):
    with pytest.raises(ValueError, match=r"unknown format 'xlsx'; known are json \(\.json\), csv \(\.csv\)"):
        write_analysis(usual(), tmp_path / "clip.csv", "xlsx")
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_where_a_writer_fails(tmp_path, monkeypatch):
    def fail(analysis, folder):
        raise RuntimeError("no")

    monkeypatch.setitem(analysis_files.FORMATS, "csv", (".csv", fail))
    old = tmp_path / "clip.csv"
    old.write_text("old")
    with pytest.raises(RuntimeError):
        write_analysis(usual(), old)
    assert old.read_text() == "old" and list(tmp_path.iterdir()) == [old]


@pytest.mark.parametrize("name", ["eaf", "textgrid"])
def test_without_pympi_the_error_names_what_to_install(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pympi", None)
    with pytest.raises(ImportError, match="pip install pympi-ling") as error:
        write_analysis(usual(), tmp_path / "clip", name)
    assert EXTRAS[error.value.name] == "formats"
    assert not list(tmp_path.iterdir())


def test_the_analysis_stays_as_it_is():
    analysis = odd()
    for name in FORMATS:
        format_analysis(analysis, name)
    assert analysis == odd()


def test_json_reads_back():
    assert EmotionAnalysis.from_json(format_analysis(usual(), "json")) == usual()
    assert (
        EmotionAnalysis.from_json(format_analysis(odd(), "json")).utterances[3].text
        == "\ufffd\ufffd\ufffd control\nend"
    )


@settings(max_examples=40, deadline=None)
@given(any_analysis())
def test_any_analysis_can_be_written_in_every_format(analysis):
    for name in FORMATS:
        text = format_analysis(analysis, name)
        text.encode("utf-8")
        assert not set(text) & {chr(code) for code in (*range(9), 11, 12, *range(14, 32), 0xFFFE, 0xFFFF)}
