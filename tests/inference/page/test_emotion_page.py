"""The page of `microemo app` without a browser: what its handlers answer, what it keeps, and how it is served."""

import json
import os
import socket
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import httpx
import pytest
from matplotlib.figure import Figure

from microemo.inference import time_line
from microemo.inference.emotion_analysis import EmotionAnalysis, UtteranceAnalysis
from microemo.inference.emotion_pipeline import EXAMPLE
from microemo.inference.formats.analysis_files import FORMATS
from microemo.inference.page import page_texts as texts
from microemo.inference.page.emotion_page import EmotionPage
from microemo.inference.page.utterance_list import utterance_details, utterance_list
from microemo.inference.page.visitors import Visitors


@pytest.fixture(autouse=True)
def quick_time_line(monkeypatch):
    """A small picture in place of the time line, which has tests of its own and is drawn in those of the browser."""

    def draw(analysis, clip=None, path=None):
        figure = Figure(figsize=(1, 1))
        if path is not None:
            figure.savefig(path)
        return figure

    monkeypatch.setattr(time_line, "draw_time_line", draw)


def describe(page, visitor, clip, subtitles=None, recogniser="none", evidence=True, observations_only=False) -> list:
    page.begin(visitor)
    return list(page.describe(clip, subtitles, recogniser, evidence, observations_only, visitor))


def text(status: str) -> str:
    return status.replace("<p>", "").replace("</p>", "")


def test_the_list_grows_and_every_format_is_offered(page, visitor):
    clip, subtitles = page.take_example(visitor)
    steps = describe(page, visitor, clip, subtitles)
    assert [step[1].count("<button") for step in steps] == [0, 1, 2, 3, 3, 3]
    assert text(steps[0][0]) == texts.READING and "1 of 3 utterances" in steps[1][0]
    status, _, _, files = steps[-1]
    assert "Somebody is seen." in files
    assert "All 3 utterances are described" in status
    folder = page.visitors.find("ada").folder
    for suffix, _ in FORMATS.values():
        assert f'download="two_people{suffix}"' in files and (folder / f"two_people{suffix}").stat().st_size
    written = json.loads((folder / "two_people.json").read_text())
    assert written["clip"] == "two_people.mp4"  # not where it lay on the server
    assert (folder / "time line.png").is_file()


def test_an_utterance_is_shown_with_its_evidence(page, visitor):
    clip, subtitles = page.take_example(visitor)
    describe(page, visitor, clip, subtitles)
    html = page.show(SimpleNamespace(number=2), visitor)
    for part in (
        "Utterance 2",
        "Dogs are sitting",
        "60 % surprise",
        "in 3 of 4 frames",
        "-20 dBFS",
        "✓ supported",
        "not calibrated",
    ):
        assert part in html
    assert "evidence%202.png" in html and 'alt="Utterance 2 of two_people.mp4' in html
    assert (page.visitors.find("ada").folder / "evidence 2.png").is_file()


def test_without_evidence_there_is_no_picture_of_it(page, visitor):
    clip, subtitles = page.take_example(visitor)
    describe(page, visitor, clip, subtitles, evidence=False)
    assert "<img" not in page.show(SimpleNamespace(number=1), visitor)


def test_one_question_is_answered(page, visitor):
    clip, subtitles = page.take_example(visitor)
    status, answer = page.ask(clip, subtitles, "none", "Who is glad?", False, visitor)
    assert answer["value"] == "An answer to: Who is glad?" and text(status) == texts.ANSWERED
    assert page.ask(clip, subtitles, "none", "  ", False, visitor)[1]["value"].endswith(
        "What does the speaker feel, and why?"
    )


def test_observations_only_reaches_the_model_and_closes_the_questions(page, pipeline, visitor):
    clip, subtitles = page.take_example(visitor)
    steps = describe(page, visitor, clip, subtitles, observations_only=True)
    assert pipeline.asked[-1]["observations_only"] and "surprise" not in steps[-1][1]
    status, answer = page.ask(clip, subtitles, "none", "Is she glad?", True, visitor)
    assert texts.NO_QUESTIONS in status and not answer["visible"]


def test_whoever_runs_the_page_decides_on_observations_for_all(pipeline, visitor, tmp_path):
    page = EmotionPage(pipeline, Visitors(tmp_path), observations_only=True)
    clip, subtitles = page.take_example(visitor)
    describe(page, visitor, clip, subtitles, observations_only=False)
    assert pipeline.asked[-1]["observations_only"]
    assert texts.NO_QUESTIONS in page.ask(clip, subtitles, "none", "Is she glad?", False, visitor)[0]


def test_the_chosen_recogniser_is_asked(pipeline, visitor, tmp_path):
    page = EmotionPage(pipeline, Visitors(tmp_path), {"whisper": "reader"})
    clip, _ = page.take_example(visitor)
    for name, reader in (("whisper", "reader"), ("none", None)):
        describe(page, visitor, clip, recogniser=name)
        assert pipeline.asked[-1]["asr"] == reader


def test_what_is_wrong_is_said_in_a_sentence(page, visitor, broken_clip, tmp_path):
    clip, _ = page.take_example(visitor)
    wrong = tmp_path / "wrong.srt"
    wrong.write_bytes(b"\x00\x01")
    gone = str(tmp_path / "gone.mp4")
    for arguments, message in (
        ((None,), texts.NO_CLIP),
        ((gone,), texts.GONE),
        ((str(broken_clip),), "This cannot be used. broken.mp4"),
        ((clip, str(wrong)), "This cannot be used. wrong.srt"),
        ((clip,), texts.NOBODY_SPEAKS),
    ):
        (*_, last) = describe(page, visitor, *arguments)
        assert message in last[0] and str(tmp_path) not in last[0], last[0]
    for clip, message in (
        (None, texts.NO_CLIP),
        (gone, texts.GONE),
        (str(broken_clip), "This cannot be used. broken"),
    ):
        assert message in page.ask(clip, None, "none", "?", False, visitor)[0]


def test_a_clip_without_sound_is_told(page, visitor, make_clip):
    (*_, last) = describe(page, visitor, str(make_clip("silent.mp4", sound=None)))
    assert "The clip has no sound." in last[0]


def test_another_clip_clears_what_was_found(page, visitor):
    clip, subtitles = page.take_example(visitor)
    describe(page, visitor, clip, subtitles)
    status, listing, details, files, answer, _ = page.take(clip, None, visitor)
    assert text(status) == texts.READY and not (listing or details or files) and not answer["visible"]
    assert page.show(SimpleNamespace(number=1), visitor) == f"<p>{texts.GONE}</p>"


def test_visitors_are_apart_and_leave_nothing(page, visitor, tmp_path):
    other = SimpleNamespace(session_hash="eve")
    clip, subtitles = page.take_example(visitor)
    describe(page, visitor, clip, subtitles)
    assert texts.GONE in page.show(SimpleNamespace(number=1), other)
    shared = tmp_path / "same.mp4"
    shared.write_bytes(b"both sent it")
    for one in (visitor, other):
        page.take(str(shared), None, one)
    page.leave(visitor)
    assert not (tmp_path / "visitor-ada").exists() and shared.is_file()
    page.leave(other)
    page.leave(other)
    assert not list(tmp_path.iterdir())


def test_a_description_is_stopped_while_it_waits_and_while_it_runs(page, pipeline, visitor):
    clip, subtitles = page.take_example(visitor)
    page.begin(visitor)
    page.stop(visitor)
    assert list(page.describe(clip, subtitles, "none", False, False, visitor)) == [(gr.skip(),) * 4]
    assert not pipeline.asked
    page.begin(visitor)
    running = page.describe(clip, subtitles, "none", False, False, visitor)
    assert [next(running)[1].count("<button") for _ in range(2)] == [0, 1]
    page.stop(visitor)
    assert list(running) == [(gr.skip(),) * 4]


def test_who_leaves_in_the_middle_leaves_nothing(page, visitor, tmp_path):
    for steps in (2, 5):  # while utterances come, and before the files are written
        clip, subtitles = page.take_example(visitor)
        page.begin(visitor)
        running = page.describe(clip, subtitles, "none", True, False, visitor)
        for _ in range(steps):
            next(running)
        page.leave(visitor)
        list(running)
        assert not list(tmp_path.iterdir())


def test_a_reader_who_stops_ends_the_analysis(page, pipeline, visitor):
    ended = []

    def stream(*_, **__):
        try:
            yield EmotionAnalysis("clip", "quick", "0", utterances_found=2)
            yield EmotionAnalysis("clip", "quick", "0", utterances_found=2)
        finally:
            ended.append(1)

    pipeline.stream_analysis = stream
    clip, _ = page.take_example(visitor)
    page.begin(visitor)
    running = page.describe(clip, None, "none", False, False, visitor)
    next(running), next(running)
    running.close()
    page._thread.submit(lambda: None).result()
    assert ended == [1]


def test_texts_are_escaped_and_odd_characters_are_none():
    evil = '<img src=x onerror=alert(1)> "quotes" & \ud800 \x00'
    of = UtteranceAnalysis(1, 0.0, 0.0, evil, speaker=evil, description=evil, observation=evil)
    analysis = EmotionAnalysis("clip", "m", "0", utterances=[of])
    for html in (utterance_list(analysis), utterance_details(analysis, 1)):
        assert "<img" not in html and "&lt;img" in html and html.encode()


def test_the_notice_is_that_of_the_model_card():
    assert texts.notice().startswith("Here, a computer program analyses video") and "[CONTACT" in texts.notice()


def test_the_page_is_served_with_limits_and_without_traces(serve, pipeline):
    with serve(pipeline, port=None, max_size=1 << 20) as page:
        folder = Path(os.environ["GRADIO_TEMP_DIR"])
        assert isinstance(page, gr.Blocks) and not page.analytics_enabled and page.share_url is None
        assert page.local_url.startswith("http://127.0.0.1:") and folder.is_dir()
        config = httpx.get(f"{page.local_url}config").json()
        assert config["max_file_size"] == 1 << 20 and not config["footer_links"]
        assert all(
            fn["api_visibility"] != "public" for fn in config["dependencies"] if fn["targets"][0][1] != "unload"
        )
        with EXAMPLE.open("rb") as file:
            files = {"files": ("large.mp4", file.read() + b"0" * (1 << 20))}
        assert httpx.post(f"{page.local_url}gradio_api/upload", files=files).status_code == 413
        assert texts.STAYS_HERE in json.dumps(config)
    assert not folder.exists()


def test_a_page_that_others_reach_says_that_clips_are_sent(serve, pipeline, monkeypatch):
    monkeypatch.setenv("GRADIO_SERVER_NAME", "0.0.0.0")  # as on a Space
    with serve(pipeline) as page:
        assert texts.GOES_TO_SERVER in json.dumps(page.config)


def test_a_port_in_use_is_told(serve, pipeline):
    other = socket.create_server(("127.0.0.1", 0))
    with other, pytest.raises(OSError, match="port"), serve(pipeline, port=other.getsockname()[1]):
        pass
