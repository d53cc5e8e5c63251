"""`microemo predict` where it analyses: formats, files, the terminal, and what is refused before a model is loaded."""

import json

import numpy as np
import pytest

from microemo.inference.emotion_analysis import EmotionAnalysis
from microemo.inference.formats import FORMATS
from microemo.publishing.initialize import SHIPPED

VOCABULARY = ("--vocabulary", "joy,anger", "--max-new-tokens", 3)


@pytest.fixture(scope="module")
def clip(make_clip):
    """A clip whose subtitles look like markup of the terminal."""
    path = make_clip("grey.mp4", times=np.arange(5) / 5, sound=1.0, picture=np.full((96, 128, 3), 128, np.uint8))
    words = "[red]Stop[/red] [/] [bold " + "word " * 30 + "你好"
    path.with_suffix(".srt").write_text(f"1\n00:00:00,000 --> 00:00:00,800\n{words}\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def predict(microemo, clip):
    def run(*options):
        return microemo("predict", clip, "--subtitles", clip.with_suffix(".srt"), "--model", SHIPPED, *options)

    return run


@pytest.fixture
def no_model(monkeypatch):
    """Fails where a model is loaded."""
    from microemo.commands import predict_command

    def load(*_):
        raise AssertionError("the model is loaded")

    monkeypatch.setattr(predict_command, "load_pipeline", load)


def test_the_terminal_shows_words_as_they_are_in_80_columns(predict, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    done = predict("--evidence", *VOCABULARY)
    assert done.returncode == 0, done.stderr
    shown = " ".join(done.stdout.split())
    assert '"[red]Stop[/red] [/] [bold word' in shown and "你好" in shown
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    assert "1 0.0-0.8 s" in shown and "The whole clip" in shown and "Note: No face is found" in shown
    assert "joy" in shown and " %" in shown


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_printed_and_written(name, predict, tmp_path):
    suffix, _ = FORMATS[name]
    printed, path = predict("--format", name, *VOCABULARY), tmp_path / "new folder" / f"a{suffix}"
    assert printed.returncode == 0, printed.stderr
    done = predict("--output", path, *VOCABULARY)
    assert done.returncode == 0 and done.stdout == f"{path}\n", done.stderr
    assert printed.stdout and path.read_text(encoding="utf-8").strip()


def test_several_files_at_once(predict, tmp_path):
    paths = [tmp_path / name for name in ("a.json", "ä b.CSV", "a.png", "a.svg")]
    done = predict(*(word for path in paths for word in ("-o", path)), "--evidence", *VOCABULARY)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(path) for path in paths]
    analysis = EmotionAnalysis.from_json(paths[0])
    assert analysis.vocabulary == ["joy", "anger"] and analysis.utterances[0].evidence
    assert paths[2].read_bytes().startswith(b"\x89PNG") and "<svg" in paths[3].read_text(encoding="utf-8")
    assert sorted(tmp_path.iterdir()) == sorted(paths)


def test_a_format_for_a_file_of_any_name(predict, tmp_path):
    done = predict("--format", "json", "-o", tmp_path / "analysis.txt", *VOCABULARY)
    assert done.returncode == 0, done.stderr
    assert EmotionAnalysis.from_json(tmp_path / "analysis.txt").is_complete


def test_observations_only_have_no_labels(predict):
    done = predict("--observations-only", "--format", "json", "--max-new-tokens", 3)
    assert done.returncode == 0, done.stderr
    analysis = json.loads(done.stdout)
    assert analysis["observations_only"] and analysis["labels"] == analysis["vocabulary"] == []
    assert analysis["utterances"][0]["labels"] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-o", "a.docx"), "a.docx: expected one of the suffixes"),
        (("-o", "a"), "a: expected one of the suffixes"),
        (("-o", "a.json", "-o", "b.xyz"), "b.xyz: expected one of the suffixes"),
        (("-o", "."), "is a directory"),
        (("--format", "docx"), "--format docx: expected one of json, csv"),
        (("--format", "JSON"), "--format JSON: expected one of json, csv"),
        (("--format", "json", "-o", "a.json", "-o", "b.json"), "is for one --output, got 2"),
        (("--json", "--evidence"), "take --format json"),
        (("--json", "--observations-only"), "take --format json"),
        (("--json", "-o", "a.json"), "take --format json"),
    ],
)
def test_what_cannot_be_is_named_before_the_model_is_loaded(
    options, message, predict, no_model, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    done = predict(*options)
    assert done.returncode == 2 and message in " ".join(done.stderr.split()), (done.returncode, done.stderr)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_vocabulary_is_refused(predict):
    for words in ("", "joy,,anger"):
        done = predict("--vocabulary", words)
        assert done.returncode == 2 and "vocabulary: expected emotion words" in done.stderr, done.stderr
