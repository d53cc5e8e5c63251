"""The `microemo` command as a person runs it: its exit code and its two streams."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from microemo.commands import main
from microemo.inference.emotion_pipeline import EmotionPipeline


@pytest.fixture(scope="module")
def checkpoint(microemo, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("init") / "tiny"
    done = microemo("init", "microemo-tiny", folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(folder)
    return folder


def test_predict_json(microemo, demo_clip, checkpoint):
    done = microemo(
        "predict",
        demo_clip,
        "--subtitles",
        demo_clip.with_suffix(".srt"),
        "--model",
        checkpoint,
        "--json",
        "--max-new-tokens",
        5,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["clip"] == str(demo_clip)
    assert answer["utterances"] and all(u["end"] > u["start"] for u in answer["utterances"])
    assert 0 < answer["faces_found"] <= len(answer["frames"])
    assert answer["has_audio"] and answer["new_tokens"] == 5
    assert set(answer["timings"]) == {"processor", "generate"}
    assert "No --model given" not in done.stderr


def test_predict_without_a_model_says_in_one_line_which_one_answers(microemo, demo_clip):
    done = microemo("predict", demo_clip, "--max-new-tokens", 5)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "No --model given" in line]
    assert "shipped microemo-small" in line and "non-commercial" in line


def test_demo_makes_a_dialogue_asks_and_draws(microemo, checkpoint, tmp_path):
    done = microemo("demo", "--output", tmp_path / "demo", "--model", checkpoint, "--max-new-tokens", 3)
    assert done.returncode == 0, done.stderr
    made, question, *_, seen = done.stdout.splitlines()
    clip = Path(made.split(": ")[1].split(", ")[0])
    assert clip.parent == tmp_path / "demo" and clip.is_file() and clip.with_suffix(".srt").is_file()
    assert question.startswith("Question: What does the speaker feel")
    utterances = clip.with_suffix(".srt").read_text().count(" --> ")
    played = [line.split("[it plays: ")[1].rstrip("]") for line in done.stdout.splitlines() if "[it plays: " in line]
    assert len(played) == utterances == 3 and len(set(played)) == 3
    pictures = [Path(path) for path in seen.removeprefix("What the model saw: ").split(", ")]
    assert len(pictures) == 3 and all(path.is_file() for path in pictures)


def test_predict_by_utterance(microemo, demo_clip, checkpoint):
    subtitles = demo_clip.with_suffix(".srt")
    options = ("--model", checkpoint, "--max-new-tokens", 3, "--by-utterance")
    done = microemo("predict", demo_clip, "--subtitles", subtitles, *options)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 3 and lines[0].startswith('0.4-2.0s "This picture is an old photograph."')
    # Without subtitles the utterances are those of the voice, without words.
    done = microemo("predict", demo_clip, *options)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) >= 2 and '"' not in done.stdout.splitlines()[0][:9]
    done = microemo("predict", demo_clip, "--subtitles", subtitles, "--keep-utterances", *options)
    assert done.returncode == 2 and "--keep-utterances is for clips without subtitles" in done.stderr


@pytest.mark.parametrize("content", ["", "WEBVTT\n", "01:00:00,000 --> 01:00:01,000\nlate\n", "[]"])
def test_predict_by_utterance_without_an_utterance_in_the_clip(microemo, content, demo_clip, checkpoint, tmp_path):
    subtitles = tmp_path / "none.srt"
    subtitles.write_text(content)
    done = microemo("predict", demo_clip, "--subtitles", subtitles, "--model", checkpoint, "--by-utterance")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr and "none.srt: no utterance in the clip" in done.stderr.replace("\n", " ")


def test_predict_on_a_sound_file(microemo, make_clip, checkpoint):
    sound = make_clip("sound.mka", times=[], sound=3.0)
    done = microemo("predict", sound, "--model", checkpoint, "--json", "--max-new-tokens", 3)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["has_video"], answer["has_audio"], answer["frames"]) == (False, True, [])


@pytest.mark.parametrize("bad", ["missing", "folder", "text", "empty", "subtitles", "no model"])
def test_bad_input_is_one_error_and_exit_code_2(microemo, bad, demo_clip, checkpoint, tmp_path):
    text, empty = tmp_path / "text.mp4", tmp_path / "empty.mp4"
    text.write_text("no video")
    empty.touch()
    broken = tmp_path / "broken.srt"
    broken.write_text("1\n00:00:01,000 -> soon\nHello\n")
    arguments = {
        "missing": [tmp_path / "no-such.mp4"],
        "folder": [tmp_path],
        "text": [text],
        "empty": [empty],
        "subtitles": [demo_clip, "--subtitles", broken],
        "no model": [demo_clip, "--model", tmp_path / "no-model"],
    }[bad]
    model = [] if bad == "no model" else ["--model", checkpoint]
    done = microemo("predict", *arguments, *model)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.count("Error:") == 1
    name = {"subtitles": "broken.srt", "no model": "no-model"}.get(bad, str(Path(arguments[0]).name))
    assert name in done.stderr


def test_inspect_writes_two_pictures_and_the_numbers(microemo, demo_clip, tmp_path, monkeypatch):
    """It needs no language model."""
    monkeypatch.setattr(main, "load_pipeline", None)
    subtitles = demo_clip.with_suffix(".srt")
    done = microemo("inspect", demo_clip, "--subtitles", subtitles, "--output", tmp_path / "seen")
    assert done.returncode == 0 and "answers" not in done.stderr, done.stderr
    track, *lines = done.stdout.splitlines()
    assert track.startswith("sound track 0: aac") and track.endswith("(heard)")
    paths = [Path(line) for line in lines]
    assert sorted(path.suffix for path in paths) == [".json", ".png", ".png"]
    assert all(path.stat().st_size > 1000 for path in paths)


def test_init_refuses_what_it_cannot_make(microemo, checkpoint, tmp_path):
    taken = microemo("init", "microemo-tiny", checkpoint)
    assert taken.returncode == 2 and str(checkpoint) in taken.stderr
    unknown = microemo("init", "microemo-13b", tmp_path / "new")
    assert unknown.returncode == 2 and "microemo-7b" in unknown.stderr
    tokenizers = microemo("init", "microemo-7b", tmp_path / "new")
    assert tokenizers.returncode == 2 and "--llm-tokenizer" in tokenizers.stderr
    assert not (tmp_path / "new").exists()


def manifest(shared: Path) -> dict[Path, dict]:
    folder = shared / "data" / "clips"
    with open(folder / "manifest.csv", newline="", encoding="utf-8") as file:
        return {folder / row["file"]: row for row in csv.DictReader(file)}


def test_damaged_shared_files(microemo, shared, checkpoint):
    """Those that do not open end in an error; of those that break off the frames that decode are counted."""
    rows = manifest(shared)
    for path in (path for path, row in rows.items() if row["opens"] == "no"):
        done = microemo("predict", path, "--model", checkpoint)
        assert (done.returncode, done.stderr.count("Error:"), "Traceback" in done.stderr) == (2, 1, False), done.stderr
        assert path.name in done.stderr
    for path in (path for path, row in rows.items() if row["opens"] == "yes" and row["error"]):
        done = microemo("predict", path, "--model", checkpoint, "--json", "--max-new-tokens", 3)
        assert done.returncode == 0, done.stderr
        assert f" {rows[path]['frames']} " in done.stderr and done.stderr.startswith("Warning:"), done.stderr
        assert json.loads(done.stdout)["frames"]


@pytest.mark.slow
def test_every_shared_clip_gets_an_answer(shared, checkpoint):
    pipeline = EmotionPipeline.from_pretrained(checkpoint, max_new_tokens=3)
    for path, row in manifest(shared).items():
        if row["opens"] == "no":
            continue
        subtitles = path.with_suffix(".srt")
        answer = pipeline(str(path), utterances=str(subtitles) if subtitles.exists() else None)
        assert answer["has_video"] == bool(row["video_codec"]), path
        assert answer["has_audio"] == (row["audio"] not in ("", "none")) or row["error"], path
        assert bool(answer["utterances"]) == subtitles.exists(), path


def test_old_names_go_on_working_with_a_word_on_stderr(microemo, make_clip, checkpoint, tmp_path):
    sound = make_clip("old-names.wav", times=[], sound=1.0)
    done = microemo("inspect", sound, "--model", checkpoint, f"--out={tmp_path / 'seen'}")
    assert done.returncode == 0 and len(list((tmp_path / "seen").iterdir())) == 2, done.stderr
    assert "--out is now called --output" in done.stderr
    made = microemo("synthesize", tmp_path / "corpus", "--clips", 1, "--split", "test", "--num-proc", 1, "--size", 112)
    assert made.returncode == 0 and "--num-proc is now called --num-workers" in made.stderr, made.stderr
    options = ("--split", "test", "--seed", 0, "--out", tmp_path / "answers.jsonl")
    done = microemo("score", checkpoint, tmp_path / "corpus", *options)
    assert done.returncode == 0, done.stderr
    assert "score is now called score-dialogues" in done.stderr and "answered right" in done.stdout
    assert all(json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines())
    shown = microemo("--help").stdout
    assert "score-dialogues" in shown and "│ score " not in shown
    shown = microemo("synthesize", "--help").stdout
    assert "--num-workers" in shown and "--num-proc" not in shown


def test_a_command_prints_its_answer_and_no_noise(demo_clip, checkpoint):
    """A process of its own: of libraries, neither what a kernel or a data loader would like to have nor bars of loading."""
    command = [sys.executable, "-m", "microemo.commands.main", "predict", demo_clip, "--model", checkpoint]
    done = subprocess.run([*command, "--max-new-tokens", "2"], capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.strip()
