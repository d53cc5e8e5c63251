"""The inspection's pictures and numbers are what the processor made, not what it should have made."""

import json

import av
import numpy as np
import pytest
from PIL import Image

from microemo import MicroEmoConfig, MicroEmoProcessor
from microemo.inference.inspection import _COLORS, _time_line, inspect_clip
from microemo.processing.faces.face_regions import REGIONS
from microemo.publishing.initialize import tiny_qformer_tokenizer, tiny_tokenizer

BOTH_VIEWS = pytest.mark.parametrize("processor", ["frame", "face_crop"], indirect=True)


@pytest.fixture(scope="module")
def processor(request) -> MicroEmoProcessor:
    """Its local view is that of the preset, the face crop, where a test does not name another."""
    config = MicroEmoConfig.from_preset("microemo-tiny", local_view=getattr(request, "param", "face_crop"))
    return MicroEmoProcessor.from_config(config, tiny_tokenizer(), tiny_qformer_tokenizer())


@BOTH_VIEWS
def test_numbers_are_the_features(processor, demo_clip, tmp_path):
    subtitles = demo_clip.with_suffix(".srt")
    report = inspect_clip(processor, demo_clip, utterances=subtitles, output=tmp_path / "new", num_frames=4)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(path.name for path in report["files"])
    assert sorted(path.suffix for path in report["files"]) == [".json", ".png", ".png"]

    features = processor(
        videos=[demo_clip], utterances=[subtitles], num_frames=4, return_tensors="np", return_metadata=True
    )
    written = json.loads(next(path for path in report["files"] if path.suffix == ".json").read_text())
    seen = features["video_metadata"][0]
    assert [frame["time"] for frame in written["frames"]] == pytest.approx(seen.frame_times)
    for number, frame in enumerate(written["frames"]):
        assert frame["patches"] == dict(
            zip(REGIONS, features["region_masks"][0, number].sum(-1).tolist(), strict=True)
        )
    assert [said["frames"] for said in written["utterances"]] == features["utterance_windows"][0].tolist()
    assert [said["audio_segments"] for said in written["utterances"]] == features["audio_windows"][0].tolist()
    assert written["shapes"]["region_masks"] == list(features["region_masks"].shape)


@BOTH_VIEWS
def test_the_sheet_shows_the_patches(processor, demo_clip, tmp_path):
    """Patches of one region only are tinted with its colour; with no landmarks no patch is."""
    nobody = [np.full((4, 478, 3), np.nan, np.float32)]

    def sheet(**kwargs):
        report = inspect_clip(processor, demo_clip, output=tmp_path, num_frames=4, **kwargs)
        return np.asarray(Image.open(report["files"][0]), float), report

    with_face, report = sheet()
    without, _ = sheet(landmarks=nobody)
    assert with_face.shape == without.shape
    side, caption = 336, 22
    if processor.video_processor.local_view == "frame":
        grid = 8
        masks = processor(videos=[demo_clip], num_frames=4, return_tensors="np")["region_masks"][0, 0]
        cell = side // grid
        left, top = side, caption  # the local view of the first frame
        for patch in range(grid * grid):
            y, x = top + patch // grid * cell, left + patch % grid * cell
            inner = np.s_[y + 5 : y + cell - 5, x + 5 : x + cell - 5]
            changed = np.abs(with_face[inner] - without[inner]).max(-1) > 4
            if not masks[:, patch].any():
                assert changed.mean() < 0.5, "only an outline may cross a patch outside every region"
            else:
                assert changed.mean() > 0.5
                if masks[:, patch].sum() == 1:
                    color = np.array(_COLORS[list(REGIONS)[int(masks[:, patch].argmax())]])
                    expected = (without[inner] + color) / 2
                    assert np.median(np.abs(with_face[inner] - expected)) < 3
    assert report["frames"][0]["faces"] == 1


@pytest.mark.parametrize("given", ["in the call", "in the processor"])
def test_the_whole_face_as_one_region(processor, demo_clip, tmp_path, given, monkeypatch):
    if given == "in the processor":
        monkeypatch.setattr(processor.video_processor, "clue_regions", "whole_face")
    kwargs = {"clue_regions": "whole_face"} if given == "in the call" else {}
    report = inspect_clip(processor, demo_clip, output=tmp_path, asr=False, num_frames=2, **kwargs)
    masks = processor(videos=[demo_clip], num_frames=2, clue_regions="whole_face")["region_masks"][0]
    assert [frame["patches"] for frame in report["frames"]] == [{"face": count} for count in masks[:, 0].sum(-1)]
    assert all(path.stat().st_size for path in report["files"])


@pytest.mark.parametrize("preset", ["microemo-tiny", "microemo-small"])
def test_windows_of_sound_and_mel_pictures_lie_where_the_sound_is(make_clip, tmp_path, preset):
    """Whisper's encoder has one segment of 30 s with ten steps a second: its padding is not drawn."""
    config = MicroEmoConfig.from_preset(preset)
    processor = MicroEmoProcessor.from_config(config, tiny_tokenizer(), tiny_qformer_tokenizer())
    clip = make_clip("tone.m4a", [], sound=4.0)
    utterances = [{"start": 0.55, "end": 2.31, "text": "One."}, {"start": 2.35, "end": 3.9, "text": "Two."}]
    given = {"videos": [clip], "utterances": [utterances], "return_tensors": "np", "return_metadata": True}
    features = processor(**given)
    report = inspect_clip(processor, clip, utterances=utterances, output=tmp_path)
    times = features["audio_segment_times"][0]
    for entry, (first, end) in zip(report["utterances"], features["audio_windows"][0], strict=True):
        assert entry["sound"] == {"start": times[first, 0], "end": times[end - 1, 1]}
        assert entry["sound"]["start"] <= entry["start"] < entry["end"] <= entry["sound"]["end"]
    steps = report["audio_steps" if preset == "microemo-small" else "audio_segments"]
    assert [list(step.values()) for step in steps] == times.tolist()

    upper, picture = _time_line(features, report, processor.feature_extractor.segment_duration).axes
    assert upper.get_xlim() == picture.get_xlim()
    extents = [tuple(image.get_extent()[:2]) for image in picture.images]
    assert extents == [(segment["start"], segment["end"]) for segment in report["audio_segments"]]
    if preset == "microemo-small":
        assert extents == [(0, pytest.approx(4, abs=0.2))]
        assert picture.images[0].get_array().shape == (80, round(extents[0][1] * 100))


def test_sound_only(processor, make_clip, tmp_path):
    report = inspect_clip(processor, make_clip("tone.m4a", []), output=tmp_path)
    assert report["frames"] == [] and len(report["audio_segments"]) > 0
    assert [path.suffix for path in report["files"]] == [".png", ".json"]


@pytest.mark.parametrize("preset", ["microemo-tiny", "microemo-small"])
def test_pictures_only(make_clip, tmp_path, preset):
    config = MicroEmoConfig.from_preset(preset)
    processor = MicroEmoProcessor.from_config(config, tiny_tokenizer(), tiny_qformer_tokenizer())
    utterances = [{"start": 0.2, "end": 0.7, "text": "One."}]
    report = inspect_clip(processor, make_clip("mute.mp4", sound=None), utterances=utterances, output=tmp_path)
    assert report["audio_segments"] == [] and len(report["frames"]) > 0
    assert "audio_steps" not in report and "sound" not in report["utterances"][0]
    assert all(path.stat().st_size for path in report["files"])


def test_sound_tracks_are_listed_and_chosen(processor, tmp_path):
    clip = tmp_path / "two.mkv"
    with av.open(str(clip), "w") as container:
        streams = [container.add_stream("aac", rate=16_000, layout="mono") for _ in range(2)]
        for stream, tone in zip(streams, (440, 3000), strict=True):
            stream.metadata["language"] = {440: "deu", 3000: "eng"}[tone]
        for stream, tone in zip(streams, (440, 3000), strict=True):
            wave = 0.5 * np.sin(2 * np.pi * tone * np.arange(32_000) / 16_000)
            frame = av.AudioFrame.from_ndarray(wave[None].astype(np.float32), "fltp", "mono")
            frame.rate = 16_000
            container.mux([*stream.encode(frame), *stream.encode()])
    loudest = {}
    for choice, index in ((0, 0), ("eng", 1)):
        report = inspect_clip(processor, clip, audio_track=choice, output=tmp_path)
        assert report["audio_track"] == index
        assert [track["language"] for track in report["sound_tracks"]] == ["deu", "eng"]
        item = {"type": "video", "path": str(clip), "audio_track": choice}
        features = processor.apply_chat_template(
            [{"role": "user", "content": [item]}], tokenize=True, return_dict=True, return_tensors="np"
        )
        called = processor(text=["What?"], videos=[str(clip)], audio_track=[choice], return_tensors="np")
        np.testing.assert_array_equal(features["input_features"], called["input_features"])
        loudest[index] = features["input_features"][0, 0, 0, :, 5].argmax()
    assert loudest[1] > loudest[0] + 20
    with pytest.raises(ValueError, match="two.mkv has no sound track 2; it has 0: aac, deu"):
        processor(text=["What?"], videos=[str(clip)], audio_track=2)
    with pytest.raises(ValueError, match="audio_track=0 chooses among the sound tracks of a file"):
        processor(text=["What?"], videos=[str(clip)], audio=[np.zeros(16_000)], sampling_rate=16_000, audio_track=0)
