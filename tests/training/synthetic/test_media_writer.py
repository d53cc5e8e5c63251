"""The demo clip is a real file with a face, a voice and subtitles that fit together."""

import av
import numpy as np
import pytest

from microemo.processing.media import load_audio, probe
from microemo.processing.utterances import read_utterances
from microemo.processing.video_processing_microemo import MicroEmoVideoProcessor
from microemo.training.synthetic.media_writer import DEMO_LINES, write_demo_dialogue


def test_demo_dialogue(demo_clip):
    info = probe(demo_clip)
    assert info.duration == pytest.approx(6, abs=0.1) and len(info.frame_times) == 150
    with av.open(str(demo_clip)) as container:
        assert container.streams.video[0].codec_context.name in ("h264", "mpeg4")
        assert container.streams.audio[0].codec_context.name == "aac"
    seen = MicroEmoVideoProcessor(num_frames=12)(demo_clip)["video_metadata"][0]
    assert seen.faces_found == [1] * 12
    width = np.ptp(seen.landmarks[..., 0], axis=1) * 640
    assert width.min() > 120 and width.max() < 300
    assert np.ptp(seen.landmarks[:, 4, 0]) * 640 > 5, "the picture moves"


def test_the_voice_is_heard_where_the_subtitles_say(demo_clip):
    said = read_utterances(demo_clip.with_suffix(".srt"))
    assert [(line.start, line.end, line.text) for line in said] == [(x.start, x.end, x.text) for x in DEMO_LINES]
    track = load_audio(demo_clip)
    power = track.samples[0] ** 2

    def loudness(start, end):
        return power[round(start * track.rate) : round(end * track.rate)].mean()

    for line in said:
        assert loudness(line.start + 0.2, line.end) > 100 * loudness(line.start - 0.25, line.start - 0.05)


def test_the_seed_decides(tmp_path):
    one, same, other = (
        write_demo_dialogue(tmp_path / name, seed).read_bytes() for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert one == same and one != other
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["astronaut.mp4", "astronaut.srt"]
