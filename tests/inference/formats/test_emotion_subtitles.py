"""Subtitles, read back by `srt`, webvtt-py, FFmpeg and the readers of this package."""

import io
from datetime import timedelta
from pathlib import Path

import av
import pytest
import srt
import webvtt
from hypothesis import given, settings
from webvtt.models import Timestamp

from microemo.inference.emotion_analysis import EmotionAnalysis
from microemo.inference.formats.analysis_files import format_analysis, write_analysis
from microemo.inference.formats.clip_place import milliseconds
from microemo.processing.utterance_formats.subtitles import read_subtitles
from microemo.tests.inference.formats.analyses import any_analysis, empty, observations, odd, usual


def events(path: Path) -> list[tuple[int, int, str]]:
    """Start and end in milliseconds and the words of each caption, as FFmpeg reads them."""
    found = []
    with av.open(str(path)) as container:
        for packet in container.demux(subtitles=0):
            for subtitle in packet.decode():
                start = round(1000 * packet.pts * packet.time_base)
                end = start + round(1000 * packet.duration * packet.time_base)
                found.append((start, end, subtitle.ass.decode("utf-8").split(",", 8)[-1]))
    return found


def in_milliseconds(time: Timestamp) -> int:
    hours, minutes, seconds, milliseconds = time.to_tuple()
    return ((hours * 60 + minutes) * 60 + seconds) * 1000 + milliseconds


def spoken(analysis: EmotionAnalysis) -> list[tuple[int, int]]:
    """The times of the utterances that have something to show."""
    return sorted(milliseconds(of) for of in analysis.utterances if (of.text + of.observation).split() or of.emotions)


def test_srt_says_who_speaks_what_and_how():
    captions = list(srt.parse(format_analysis(usual(), "srt")))
    assert [caption.index for caption in captions] == [1, 2, 3]
    assert captions[0].start == timedelta(seconds=0.5) and captions[1].end == timedelta(seconds=4.25)
    assert [caption.content for caption in captions] == [
        "Ann: I am glad, really.\n[joy, mixed feelings]",
        "Bob: I am not.\n[sadness]",
        "Ann: Oh.\n[joy]",
    ]


def test_vtt_has_the_speaker_as_a_voice():
    captions = list(webvtt.from_buffer(io.StringIO(format_analysis(usual(), "vtt"))))
    assert [(caption.voice, caption.text) for caption in captions] == [
        ("Ann", "I am glad, really.\n[joy, mixed feelings]"),
        ("Bob", "I am not.\n[sadness]"),
        ("Ann", "Oh.\n[joy]"),
    ]
    assert (captions[0].start, captions[1].end) == ("00:00:00.500", "00:00:04.250")


def test_words_that_look_like_the_format_break_neither(tmp_path):
    expected = spoken(odd())
    captions = list(srt.parse(format_analysis(odd(), "srt"), ignore_errors=False))
    assert [(caption.start, caption.end) for caption in captions] == [
        (timedelta(milliseconds=start), timedelta(milliseconds=end)) for start, end in expected
    ]
    assert captions[0].content == (
        'Bob: "the" <one>: He said "no" → & <b>so</b>; new, line\n[mixed feelings, mixed-feelings]'.replace(
            ", mixed-feelings", ""
        )
    )
    assert captions[4].content.startswith("A → B C: 42\n[")
    for name in ("srt", "vtt"):
        found = events(write_analysis(odd(), tmp_path / f"clip.{name}"))
        assert [(start, end) for start, end, _ in found] == expected, name
    (first, *_), _ = read_subtitles("clip.vtt", format_analysis(odd(), "vtt"))
    assert first.speaker == 'Bob: "the" <one>'
    assert first.text == 'He said "no" --> & <b>so</b>; new, line [mixed feelings]'


def test_captions_are_in_order_of_time_whatever_the_order_of_the_analysis():
    analysis = usual()
    analysis.utterances.reverse()
    assert format_analysis(analysis, "vtt") == format_analysis(usual(), "vtt")


def test_the_hours_go_on_beyond_a_day():
    analysis = usual()
    analysis.utterances[2].start, analysis.utterances[2].end = 360_000.0, 361_800.0
    assert "\n100:00:00,000 --> 100:30:00,000\n" in format_analysis(analysis, "srt")


def test_observations_stand_in_the_place_of_emotions():
    captions = list(srt.parse(format_analysis(observations(), "srt")))
    assert [caption.content for caption in captions] == ["Hello.\n[The brows are raised.]", "[The brows are raised.]"]


def test_without_utterances_there_is_no_caption():
    assert format_analysis(empty(), "srt") == ""
    assert list(webvtt.from_buffer(io.StringIO(format_analysis(empty(), "vtt")))) == []


@pytest.mark.parametrize("name", ["srt", "vtt"])
@settings(max_examples=60, deadline=None)
@given(any_analysis())
def test_every_caption_of_any_analysis_reads_back(name, analysis):
    text = format_analysis(analysis, name)
    expected = spoken(EmotionAnalysis.from_json(format_analysis(analysis, "json")))
    if name == "srt":
        one = timedelta(milliseconds=1)
        assert [(caption.start / one, caption.end / one) for caption in srt.parse(text)] == expected
    else:
        found = [(caption.start_time, caption.end_time) for caption in webvtt.from_buffer(io.StringIO(text))]
        assert [tuple(map(in_milliseconds, times)) for times in found] == expected
