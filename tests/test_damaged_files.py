"""Damaged files go through `predict` and `evaluate`: an answer, a score, or an error of ours in one line.

Every file is a good one, damaged by a seed: bits flipped, cut, blocks spliced, repeated or inserted. A few seeds run in
every test run; the 3,000 of `SEEDS` with `pytest -m slow`.
"""

import json
import resource
import signal
import warnings
from contextlib import contextmanager

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from microemo.commands.main import app
from microemo.inference.emotion_pipeline import EmotionPipeline
from microemo.publishing.initialize import SHIPPED

SEEDS = {
    "media": range(1200),
    "subtitles": range(1200, 1800),
    "evaluate": range(1800, 3000),
}
# What the command line turns into one line on stderr and exit code 2.
OURS = (ValueError, OSError)
LONGEST = 20  # seconds
GROWTH = 400 * 2**20  # bytes of memory between the hundredth file and the last

SRT = "1\n00:00:00,100 --> 00:00:00,500\nI know.\n\n2\n00:00:00,500 --> 00:00:00,900\n<i>Anna</i>: And you?\n\n"
VTT = "WEBVTT\n\na\n00:00.100 --> 00:00.500 align:start\n<v Anna>I know.\n\n00:00.500 --> 00:00.900\nAnd you?\n"
ASS = (
    "[Script Info]\nScriptType: v4.00+\n\n[V4+ Styles]\nFormat: Name, Fontname\nStyle: Default,Arial\n\n[Events]\n"
    "Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
    "Dialogue: 0,0:00:00.10,0:00:00.50,Default,Anna,0,0,0,,I {\\b1}know.\n"
)
WORDS = [{"word": "I", "start": 0.1, "end": 0.3}, {"word": "know.", "start": 0.3, "end": 0.5}]
WHISPER = json.dumps({"segments": [{"start": 0.1, "end": 0.5, "text": "I know.", "words": WORDS}]})
LRC = "[ti:Song]\n[00:00.10]I know\n[00:00.50]And you?\n"
SUBTITLES = {"a.srt": SRT, "a.vtt": VTT, "a.ass": ASS, "a.json": WHISPER, "a.lrc": LRC}


def misspell(data: bytes, seed: int) -> bytes:
    """Good text in which a few characters are others, missing, or come twice."""
    rng = np.random.default_rng(seed)
    letters = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        place, kind = int(rng.integers(len(letters))), rng.integers(3)
        letter = int(rng.choice(np.frombuffer(b" ,;:\"'[]{}\n\t-0a>\\", np.uint8)))
        letters[place : place + int(kind != 1)] = bytes([letter] * int(kind != 2))
    return bytes(letters)


def damage(data: bytes, seed: int) -> bytes:
    """Good bytes after one to three injuries."""
    rng = np.random.default_rng(seed)
    for _ in range(rng.integers(1, 4)):
        size = len(data)
        if not size:
            break
        start, length = int(rng.integers(size)), int(rng.integers(1, max(2, size // 4)))
        kind = rng.integers(6)
        if kind == 0:  # bits flipped
            mutable = np.frombuffer(data, np.uint8).copy()
            places = rng.integers(size, size=rng.integers(1, 40))
            mutable[places] ^= (1 << rng.integers(8, size=len(places))).astype(np.uint8)
            data = mutable.tobytes()
        elif kind == 1:  # cut at the end
            data = data[:start]
        elif kind == 2:  # cut at the start
            data = data[start:]
        elif kind == 3:  # a block spliced out
            data = data[:start] + data[start + length :]
        elif kind == 4:  # a block that comes twice
            data = data[:start] + data[start : start + length] + data[start:]
        else:  # noise inserted
            data = data[:start] + rng.bytes(min(length, 2000)) + data[start:]
    return data


@contextmanager
def no_hang():
    def too_long(*_):
        raise AssertionError(f"longer than {LONGEST} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(LONGEST)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def pipeline():
    return EmotionPipeline.from_pretrained(SHIPPED)


@pytest.fixture(scope="module")
def media(make_clip):
    """Good clips of one second, small, in several containers."""
    options = {"size": (96, 72), "face_width": 34, "times": np.arange(10) / 10}
    clips = [make_clip(f"good.{suffix}", **options) for suffix in ("mp4", "mkv", "avi", "ts", "mov")]
    return [*clips, make_clip("good.mka", times=[], sound=1.0), make_clip("good.wav", times=[], sound=1.0)]


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Good files of answers and labels."""
    folder = tmp_path_factory.mktemp("answers")
    names, labels = [f"clip_{i}" for i in range(12)], ["happy", "sad, angry", "worried"] * 4
    rows = list(zip(names, labels, strict=True))
    (folder / "p.jsonl").write_text("".join(json.dumps({"name": n, "labels": x.split(", ")}) + "\n" for n, x in rows))
    (folder / "t.jsonl").write_text("".join(json.dumps({"name": n, "answer": f"She is {x}."}) + "\n" for n, x in rows))
    (folder / "p.json").write_text(json.dumps(dict(rows)))
    (folder / "p.csv").write_text("name,openset\n" + "".join(f'{n},"[{x}]"\n' for n, x in rows))
    np.savez(folder / "p.npz", filenames=np.array(names), fileitems=np.array([f"[{x}]" for x in labels]))
    np.savez_compressed(folder / "z.npz", filenames=np.array(names), fileitems=np.array([f"[{x}]" for x in labels]))
    return sorted(folder.iterdir())


def predict(pipeline, seed, media, folder):
    good = media[seed % len(media)]
    clip = folder / f"{seed}{good.suffix}"
    clip.write_bytes(damage(good.read_bytes(), seed))
    try:
        answer = pipeline(str(clip), max_new_tokens=1)
        assert isinstance(answer["description"], str)
        json.dumps(answer)
    finally:
        clip.unlink()


def predict_with_subtitles(pipeline, seed, media, folder):
    name = sorted(SUBTITLES)[seed % len(SUBTITLES)]
    subtitles = folder / f"{seed}-{name}"
    subtitles.write_bytes((damage if seed % 3 else misspell)(SUBTITLES[name].encode(), seed))
    try:
        if seed % 2:
            pipeline(str(media[0]), utterances=str(subtitles), max_new_tokens=1)
        else:
            pipeline.by_utterance(str(media[0]), str(subtitles), max_new_tokens=1)
    finally:
        subtitles.unlink()


def evaluate(_pipeline, seed, answers, folder):
    good = answers[seed % len(answers)]
    bad = folder / f"{seed}{good.suffix}"
    is_text = good.suffix != ".npz"
    bad.write_bytes((misspell if is_text and seed % 2 else damage)(good.read_bytes(), seed))
    truth = next(path for path in answers if path.name == "p.csv")
    roles = (bad, truth) if seed % 3 else (truth, bad)
    command = ["evaluate", "score", str(roles[0]), "-r", str(roles[1]), "--common", "--draws", "2", "--json"]
    outcome = CliRunner().invoke(app, command)
    bad.unlink()
    if outcome.exception is not None and not isinstance(outcome.exception, SystemExit | typer.Exit):
        raise outcome.exception


def run(way, seeds, pipeline, files, folder):
    """Every seed's file through `way`; returns how many were read, and how many refused."""
    read = refused = 0
    start_memory = None
    for number, seed in enumerate(seeds):
        if number == 100:
            start_memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        with warnings.catch_warnings(), no_hang():
            warnings.simplefilter("ignore")
            try:
                way(pipeline, seed, files, folder)
                read += 1
            except OURS as error:
                assert str(error), f"seed {seed}: an error without a word"
                refused += 1
            except BaseException as error:
                error.add_note(f"seed {seed}")
                raise
    if start_memory is not None:
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - start_memory < GROWTH
    assert not list(folder.iterdir()), "something was left behind"
    return read, refused


WAYS = {"media": predict, "subtitles": predict_with_subtitles, "evaluate": evaluate}


@pytest.mark.parametrize("what", SEEDS)
def test_damaged_files_are_answered_or_refused(what, pipeline, media, answers, tmp_path):
    files = answers if what == "evaluate" else media
    run(WAYS[what], SEEDS[what][:25], pipeline, files, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("what", SEEDS)
def test_damaged_files_are_answered_or_refused_all(what, pipeline, media, answers, tmp_path, capsys):
    files = answers if what == "evaluate" else media
    read, refused = run(WAYS[what], SEEDS[what], pipeline, files, tmp_path)
    with capsys.disabled():
        print(f" {what}: {read} read, {refused} refused")
    assert read > 50 and refused > 50
