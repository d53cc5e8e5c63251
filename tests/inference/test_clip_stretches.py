"""A long clip is read in stretches: every utterance once, with frames and sound of its own."""

import numpy as np
import pytest

from microemo.inference.clip_stretches import MOST_SECONDS, MOST_UTTERANCES, group_utterances, in_stretches
from microemo.processing.media import Clip, shown_size
from microemo.processing.utterances import Utterance
from microemo.training.synthetic.media_writer import SOUND_RATE, write_media

SECONDS, FPS = 180, 4
LINES = [Utterance(4.5 * n + 0.5, 4.5 * n + 3.5, f"line {n + 1}") for n in range(40)]


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory):
    """Three minutes in which the brightness of the picture and the pitch rise."""
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    times = np.arange(SECONDS * FPS) / FPS
    pictures = (np.full((48, 64, 3), round(30 + time), np.uint8) for time in times)
    seconds = np.arange(SECONDS * SOUND_RATE) / SOUND_RATE
    write_media(path, pictures, times, (0.3 * np.sin(2 * np.pi * (100 + seconds) * seconds)).astype(np.float32))
    return path


def test_groups_hold_at_most_so_many_utterances_and_seconds():
    groups = group_utterances(LINES)
    assert [one for group in groups for one in group] == LINES
    assert all(len(group) <= MOST_UTTERANCES for group in groups)
    assert all(group[-1].end - group[0].start <= MOST_SECONDS for group in groups)
    assert group_utterances([]) == []
    lengthy = [Utterance(0, 300, "long"), Utterance(300, 301, "short")]
    assert group_utterances(lengthy) == [[lengthy[0]], [lengthy[1]]]


def test_a_short_clip_is_one_stretch_as_it_is(tiny, long_clip):
    for lines in ([], LINES[:3]):
        (stretch,) = in_stretches(str(long_clip), lines, tiny.processor)
        assert (stretch.clip.video, stretch.clip.utterances) == (str(long_clip), lines)
        assert (stretch.start, stretch.first) == (0.0, 0)


def test_stretches_have_the_frames_and_the_sound_of_their_times(tiny, long_clip):
    stretches = list(in_stretches(str(long_clip), LINES, tiny.processor))
    assert [stretch.first for stretch in stretches] == [0, 12, 24, 36]
    with Clip(str(long_clip)) as clip:
        track = clip.load_audio()
    for stretch in stretches:
        own = stretch.clip.utterances
        lines = LINES[stretch.first : stretch.first + len(own)]
        assert [one.text for one in own] == [one.text for one in lines]
        shown = [(one.start + stretch.start, one.end + stretch.start) for one in own]
        assert np.allclose(shown, [(one.start, one.end) for one in lines])
        times = stretch.clip.video_metadata["frame_times"]
        assert len(times) == len(stretch.clip.video) <= tiny.processor.video_processor.max_frames
        assert all(any(one.start <= time < one.end for time in times) for one in own)
        # The brightness tells the second of the clip that a frame is of.
        brightness = np.array([frame.mean() for frame in stretch.clip.video])
        assert np.abs(brightness - (30 + np.array(times) + stretch.start)).max() < 4
        first = round(stretch.start * track.rate)
        sound = stretch.clip.audio
        assert np.array_equal(sound.samples, track.samples[:, first : first + sound.samples.shape[1]])
        length = own[-1].end + 0.5
        assert sound.samples.shape[1] / sound.rate == pytest.approx(length, abs=0.6 if stretch.first == 36 else 1e-3)


def test_frames_are_those_that_are_decoded_directly(tiny, long_clip):
    stretch = list(in_stretches(str(long_clip), LINES, tiny.processor))[1]
    times = np.array(stretch.clip.video_metadata["frame_times"]) + stretch.start
    with Clip(str(long_clip)) as clip:
        _, read, frames = clip.read(
            lambda every: np.flatnonzero(np.isclose(every[:, None], times, atol=1e-3).any(axis=1)),
            lambda frame: frame.to_ndarray(format="rgb24"),
        )
        assert shown_size(frame_of(clip)) == (64, 48, 0)
    assert np.allclose(read, times, atol=1e-6)
    assert np.abs(np.array(frames, int) - np.array(stretch.clip.video, int)).max() <= 2


def frame_of(clip):
    return clip.read(lambda every: np.array([0]), lambda frame: frame)[2][0]


def test_other_sound_is_cut_in_place_of_the_clips_own(tiny, long_clip, make_clip):
    other = make_clip("other.mka", times=[], sound=100.0)
    stretches = list(in_stretches(str(long_clip), LINES, tiny.processor, audio=str(other)))
    lengths = [one.clip.audio and one.clip.audio.samples.shape[1] / one.clip.audio.rate for one in stretches]
    assert lengths[0] == pytest.approx(53.5, abs=0.1) and 45 < lengths[1] < 50  # where it ends
    assert lengths[2:] == [False, False]


def test_a_sound_file_in_stretches(tiny, make_clip):
    sound = make_clip("sound.mka", times=[], sound=100.0)
    stretches = list(in_stretches(str(sound), LINES[:20], tiny.processor))
    assert [stretch.clip.video for stretch in stretches] == [None, None]
    assert all(stretch.clip.has_media for stretch in stretches)


def test_utterances_that_overlap_stay_together_or_apart(tiny, long_clip):
    lines = [Utterance(2.0 * n, 2.0 * n + 5, f"line {n}") for n in range(20)]
    stretches = list(in_stretches(str(long_clip), lines, tiny.processor))
    assert [one.text for stretch in stretches for one in stretch.clip.utterances] == [one.text for one in lines]
    assert all(one.start >= 0 for stretch in stretches for one in stretch.clip.utterances)


def test_each_utterance_is_analysed_once_at_its_time(tiny, long_clip):
    subtitles = [{"start": one.start, "end": one.end, "text": one.text} for one in LINES]
    seen = [
        (len(analysis.utterances), analysis.is_complete)
        for analysis in tiny.stream_analysis(
            str(long_clip), subtitles, observations_only=True, asr=False, max_new_tokens=2
        )
    ]
    assert [count for count, _ in seen] == [*range(1, 41), 40]
    analysis = tiny.analyze(str(long_clip), subtitles[:26], observations_only=True, max_new_tokens=2)
    assert [one.number for one in analysis.utterances] == list(range(1, 27))
    assert [(one.start, one.end, one.text) for one in analysis.utterances] == [
        (one.start, one.end, one.text) for one in LINES[:26]
    ]
    assert all(one.frames for one in analysis.utterances)
    assert [frame.time for frame in analysis.frames] == sorted(frame.time for frame in analysis.frames)
