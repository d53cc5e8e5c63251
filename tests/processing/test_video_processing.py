"""The video processor: which frames, what of them, and in what form."""

import csv
import json
import pickle
import struct
import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from transformers.video_utils import VideoMetadata

from microemo.processing.faces.face_regions import region_masks
from microemo.processing.frame_sampling import add_span_frames, fps_indices, uniform_indices
from microemo.processing.media import Clip, MediaError, probe
from microemo.processing.video_processing_microemo import MicroEmoVideoProcessor
from microemo.training.synthetic.media_writer import astronaut


@pytest.fixture(scope="module")
def processor() -> MicroEmoVideoProcessor:
    return MicroEmoVideoProcessor()


def to_grey_levels(pixels, processor) -> np.ndarray:
    """(..., H, W, 3) floats of 0..255 out of normalised (..., 3, H, W)."""
    mean, std = (np.array(value)[:, None, None] for value in (processor.image_mean, processor.image_std))
    return np.moveaxis((np.asarray(pixels) * std + mean) * 255, -3, -1)


class TestSampling:
    def test_goldens(self, shared):
        cases = 0
        for golden in (shared / "goldens" / "io").glob("f_sampling_*.json"):
            for case in json.loads(golden.read_text()):
                ours = uniform_indices(case["vlen"], case["n_frms"]).tolist()
                for source in {"agpt", "vl", "timechat"} & case.keys():
                    expected = case[source]["indices"]
                    if (
                        source == "agpt"
                    ):  # it repeats the last frame of a short clip; the model here takes fewer frames
                        assert set(expected[len(ours) :]) <= {case["vlen"] - 1}
                        expected = expected[: len(ours)]
                    assert ours == expected, (golden.name, case["vlen"], case["n_frms"], source)
                    cases += 1
        assert cases

    def test_uniform(self):
        for total in (1, 2, 7, 8, 9, 15, 100, 2101):
            for count in (1, 8, 13, 32, 96):
                indices = uniform_indices(total, count)
                step = total / min(count, total)
                assert indices.tolist() == np.arange(0, total, step).astype(int).tolist()
                assert (np.diff(indices) > 0).all() and indices[0] == 0 and indices[-1] < total

    def test_fps(self):
        times = np.array([0, 0.1, 0.9, 1.0, 1.7, 2.4])
        assert fps_indices(times, 3.0, 1).tolist() == [0, 3, 4]  # shown at 2.0 s: the frame of 1.7 s
        assert fps_indices(times, 3.0, 100).tolist() == list(range(6))
        assert fps_indices(times, 3.0, 1e15).tolist() == list(range(6))  # without a list of all those moments
        assert fps_indices(np.zeros(1), 0.0, 2).tolist() == [0]

    def test_an_empty_span_gets_its_middle_frame(self):
        times = np.arange(100) / 10
        indices = np.array([0, 50])
        chosen = add_span_frames(indices, times, np.array([[4.0, 6.0], [7.0, 8.0], [2.0, 2.06]]), 32)
        assert chosen.tolist() == [0, 20, 50, 75]

    def test_uniform_frames_make_room(self):
        times = np.arange(100) / 10
        indices = uniform_indices(100, 8)
        spans = np.array([[0.1, 0.3], [0.4, 0.6], [2.0, 3.0]])
        chosen = add_span_frames(indices, times, spans, 6)
        assert len(chosen) == 6
        assert {2, 5, 25} <= set(chosen.tolist()), "each span keeps a frame"
        assert set(chosen.tolist()) - {2, 5} < set(indices.tolist())

    def test_no_span_is_empty_at_random(self):
        rng = np.random.default_rng(0)
        for _ in range(200):
            total = int(rng.integers(1, 300))
            times = np.cumsum(rng.uniform(0.01, 0.2, total))
            times -= times[0]
            starts = rng.uniform(0, times[-1], rng.integers(1, 8))
            spans = np.stack([starts, starts + rng.uniform(0.25, 2, len(starts))], 1)
            max_frames = 8 + len(spans)
            chosen = add_span_frames(uniform_indices(total, 8), times, spans, max_frames)
            assert len(chosen) <= max_frames and (np.diff(chosen) > 0).all()
            for start, end in spans:
                sampled = times[chosen]
                # A frame is inside, or the one on the screen in the middle is there (a span after the last frame).
                middle = np.searchsorted(times, (start + end) / 2, "right") - 1
                assert ((sampled >= start) & (sampled < end)).any() or middle in chosen

    def test_more_spans_than_frames(self):
        spans = np.stack([np.arange(9), np.arange(9) + 0.5], 1)
        with pytest.warns(UserWarning, match="9 utterances need 9 frames, but max_frames is 4"):
            chosen = add_span_frames(np.array([0]), np.arange(100) / 10, spans, 4)
        assert len(chosen) == 4


class TestOutput:
    def test_shapes(self, processor, demo_clip):
        features = processor(demo_clip, return_tensors="pt")
        assert features["pixel_values_videos"].shape == (1, 8, 3, 224, 224)
        assert features["pixel_values_videos"].dtype == torch.float32
        assert features["frame_mask"].dtype == features["region_masks"].dtype == torch.bool
        assert features["region_masks"].shape == (1, 8, 11, 256)
        assert features["region_masks"].any(-1).all()
        (seen,) = features["video_metadata"]
        info = probe(demo_clip)
        np.testing.assert_allclose(seen.frame_times, info.frame_times[seen.frames_indices])
        assert seen.frames_indices == uniform_indices(len(info.frame_times), 8).tolist()
        assert (seen.faces_found, seen.landmarks.shape, seen.has_audio) == ([1] * 8, (8, 478, 3), True)
        assert seen.duration == info.duration and seen.total_num_frames == len(info.frame_times)

    def test_pixels_are_the_frames(self, processor, demo_clip):
        features = processor(demo_clip, num_frames=3)
        with Clip(demo_clip) as clip:
            indices = features["video_metadata"][0].frames_indices
            _, _, frames = clip.read(lambda _: np.array(indices), lambda frame: frame.to_image())
        for ours, frame in zip(to_grey_levels(features["pixel_values_videos"][0], processor), frames, strict=True):
            resized = np.asarray(frame.resize((224, 224), Image.Resampling.BILINEAR), float)
            assert np.abs(ours - resized).mean() < 1

    def test_masks_are_those_of_the_landmarks(self, processor, demo_clip):
        features = processor(demo_clip)
        landmarks = features["video_metadata"][0].landmarks
        np.testing.assert_array_equal(features["region_masks"][0], region_masks(landmarks))

    @pytest.mark.parametrize("view", ["frame", "face_crop"])
    def test_the_whole_face_as_one_region(self, processor, demo_clip, view):
        parts = processor(demo_clip, num_frames=4, local_view=view)
        whole = processor(demo_clip, num_frames=4, local_view=view, clue_regions="whole_face")
        assert whole["region_masks"].shape == (1, 4, 1, 256)
        landmarks = whole["video_metadata"][0].landmarks
        if view == "frame":
            expected = region_masks(landmarks, clue_regions="whole_face")
            np.testing.assert_array_equal(whole["region_masks"][0], expected)
        assert whole["region_masks"].sum() > parts["region_masks"].any(2).sum() * 0.9
        for key in parts.keys() - {"region_masks", "video_metadata"}:
            np.testing.assert_array_equal(parts[key], whole[key])

    def test_a_batch_is_padded(self, processor, demo_clip, make_clip):
        short = make_clip("five.mp4", np.arange(5) / 25)
        both = processor([short, demo_clip], spans=[None, [[0.1, 0.2]]])
        assert both["frame_mask"].sum(1).tolist() == [5, 9]
        assert not both["pixel_values_videos"][0, 5:].any() and not both["region_masks"][0, 5:].any()
        for row, alone in enumerate((processor(short), processor(demo_clip, spans=[[0.1, 0.2]]))):
            frames = alone["frame_mask"].shape[1]
            for key in ("pixel_values_videos", "region_masks"):
                np.testing.assert_array_equal(both[key][row, :frames], alone[key][0])

    def test_face_crop(self, processor, demo_clip):
        features = processor(demo_clip, local_view="face_crop", num_frames=4)
        faces = features["pixel_values_faces"]
        assert faces.shape == (1, 4, 3, 224, 224)
        with Clip(demo_clip) as clip:
            indices = features["video_metadata"][0].frames_indices
            _, _, frames = clip.read(lambda _: np.array(indices), lambda frame: frame.to_image())
        for ours, frame, landmarks in zip(
            to_grey_levels(faces[0], processor), frames, features["video_metadata"][0].landmarks, strict=True
        ):
            points = landmarks[:, :2] * frame.size
            half = np.ptp(points, axis=0).max() * 1.3 / 2
            center = (points.min(0) + points.max(0)) / 2
            crop = frame.resize((224, 224), Image.Resampling.BILINEAR, box=(*(center - half), *(center + half)))
            assert np.abs(ours - np.asarray(crop, float)).mean() < 3
        # In the crop every region has patches of its own; on the frame it has not.
        alone = features["region_masks"][0] & (features["region_masks"][0].sum(1, keepdims=True) == 1)
        assert alone.any(-1).all()
        assert features["region_masks"].sum() > 3 * processor(demo_clip, num_frames=4)["region_masks"].sum()

    def test_an_upright_crop_follows_the_roll_of_the_head(self, processor):
        level = Image.fromarray(astronaut())
        rolled = np.asarray(level.rotate(-20, Image.Resampling.BILINEAR, center=(225, 120), fillcolor=(90, 90, 90)))
        plain, fixed, upright = (
            processor(picture[None], num_frames=1, local_view="face_crop", **chosen)
            for picture, chosen in (
                (np.asarray(level), {}),
                (rolled, {}),
                (rolled, {"face_crop_upright": True}),
            )
        )

        def differences(features):
            crops = (to_grey_levels(each["pixel_values_faces"][0, 0], processor) for each in (features, plain))
            middle = [crop[40:184, 40:184].mean(-1) for crop in crops]
            masks = [each["region_masks"][0, 0] for each in (features, plain)]
            return np.abs(middle[0] - middle[1]).mean(), (masks[0] != masks[1]).sum() / masks[1].sum()

        # The pixels and the regions' patches are those of the head that is not rolled.
        for of_upright, of_fixed in zip(differences(upright), differences(fixed), strict=True):
            assert of_upright < 0.6 * of_fixed
        # Landmarks and the frame stay as they are.
        np.testing.assert_array_equal(upright["pixel_values_videos"], fixed["pixel_values_videos"])
        np.testing.assert_array_equal(*(each["video_metadata"][0].landmarks for each in (upright, fixed)))

    def test_crop_at_the_edge_is_black_outside(self, processor):
        photograph = astronaut()[80:, 190:]  # the face cut by the frame's corner
        landmarks = processor(astronaut()[None], num_frames=1)["video_metadata"][0].landmarks
        moved = (landmarks * [512, 512, 1] - [190, 80, 0]) / [photograph.shape[1], photograph.shape[0], 1]
        features = processor(photograph[None], landmarks=moved, local_view="face_crop")
        crop = to_grey_levels(features["pixel_values_faces"][0, 0], processor)
        assert np.abs(crop[:20]).max() < 1e-3 and np.abs(crop[:, :20]).max() < 1e-3
        assert crop[112:, 112:].mean() > 50

    def test_no_face(self, processor, make_clip):
        path = make_clip("grey.mp4", np.arange(10) / 10, picture=np.full((120, 160, 3), 90, np.uint8))
        for view in ("frame", "face_crop"):
            features = processor(path, local_view=view)
            assert not features["region_masks"].any()
            assert features["video_metadata"][0].faces_found == [0] * 8
            assert np.isnan(features["video_metadata"][0].landmarks).all()
        assert not features["pixel_values_faces"].any()

    def test_turned_frames_stand_upright(self, processor, make_clip):
        turned, upright = make_clip("turned.mp4", turned=True), make_clip("upright.mp4")
        for view in ("frame", "face_crop"):
            ours, expected = (processor(path, local_view=view, num_frames=2) for path in (turned, upright))
            for key in expected:
                if key.startswith("pixel_values"):
                    assert np.abs(ours[key] - expected[key]).mean() < 0.1, key
            np.testing.assert_allclose(
                ours["video_metadata"][0].landmarks[..., :2],
                expected["video_metadata"][0].landmarks[..., :2],
                atol=0.03,
            )

    @pytest.mark.parametrize("aspect", [Fraction(64, 45), Fraction(2), Fraction(5, 2), Fraction(8, 9), Fraction(1, 2)])
    def test_pixels_that_are_not_square(self, processor, make_clip, aspect):
        self.check_squeezed(processor, make_clip, f"squeezed{float(aspect):.2f}.mp4", aspect)

    def test_turned_frames_of_pixels_that_are_not_square(self, processor, make_clip):
        self.check_squeezed(processor, make_clip, "squeezed_and_turned.mp4", Fraction(2), turned=True)

    def check_squeezed(self, processor, make_clip, name, aspect, turned=False):
        """A photograph stored narrower (or lower, where the frame lies on its side) and shown as it was."""
        photograph = Image.fromarray(astronaut()).crop((60, 0, 460, 300))
        width, height = photograph.size
        stored = (width, round(height / aspect / 2) * 2) if turned else (round(width / aspect / 2) * 2, height)
        times = [0.0, 0.5]
        plain = make_clip("square_pixels.mp4", times, picture=np.asarray(photograph), sound=None)
        picture = np.asarray(photograph.resize(stored, Image.Resampling.BICUBIC))
        squeezed = make_clip(name, times, picture=picture, sound=None, pixel_aspect=aspect, turned=turned)
        for view in ("frame", "face_crop"):
            ours, expected = (processor(path, local_view=view, num_frames=1) for path in (squeezed, plain))
            seen, meant = ours["video_metadata"][0], expected["video_metadata"][0]
            assert seen.faces_found == [1]
            assert np.abs(np.subtract(seen.frame_size, (width, height))).max() <= aspect
            pixels = np.abs((seen.landmarks - meant.landmarks)[..., :2] * (width, height))
            assert pixels.mean() < 1.5
            for key in expected:
                if key.startswith("pixel_values"):
                    assert np.abs(ours[key] - expected[key]).mean() < 0.2, key
            agree = ours["region_masks"] == expected["region_masks"]
            assert agree.mean() > 0.97

    @pytest.mark.parametrize("stated", [(1000, 1), (1, 1000), (0, 1), (2**31 - 1, 1)])
    def test_pixels_that_cannot_be_count_as_square(self, processor, make_clip, tmp_path, stated):
        source = make_clip("wide_pixels.mp4", [0.0, 0.5], sound=None, pixel_aspect=Fraction(2))
        data = bytearray(source.read_bytes())
        place = data.index(b"pasp") + 4
        data[place : place + 8] = struct.pack(">II", *stated)
        broken = tmp_path / "broken.mp4"
        broken.write_bytes(data)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            seen = processor(broken, local_view="face_crop", num_frames=1)["video_metadata"][0]
        # Where the container says nothing, the codec's own word may count.
        assert seen.frame_size == (320, 240) or (stated[0] == 0 and seen.frame_size == (640, 240))
        assert ["pixel aspect" in str(one.message) for one in said] == ([] if stated[0] == 0 else [True])

    def test_another_size(self, demo_clip):
        small = MicroEmoVideoProcessor(size={"height": 112, "width": 112}, local_view="face_crop")
        features = small(demo_clip, num_frames=2)
        assert features["pixel_values_faces"].shape == (1, 2, 3, 112, 112)
        assert features["region_masks"].shape == (1, 2, 11, 64)


class TestDecodedFrames:
    def test_pictures_equal_the_file(self, processor, demo_clip):
        with Clip(demo_clip) as clip:
            _, times, frames = clip.read(lambda _: np.arange(150)[::10], lambda frame: frame.to_image())
        from_file = processor(demo_clip, do_sample_frames=True, num_frames=15)
        assert from_file["video_metadata"][0].frame_times == pytest.approx(times)
        arrays = np.stack([np.asarray(frame) for frame in frames])
        metadata = {"frame_times": times}
        for videos in (frames, arrays, torch.tensor(arrays).permute(0, 3, 1, 2), list(arrays), arrays / 255.0):
            features = processor(videos, num_frames=15, video_metadata=metadata)
            assert np.abs(features["pixel_values_videos"] - from_file["pixel_values_videos"]).mean() < 0.02
            assert features["video_metadata"][0].frame_times == pytest.approx(times)
            assert features["video_metadata"][0].faces_found == [1] * 15
            assert not features["video_metadata"][0].has_audio

    def test_times(self, processor):
        frames = np.zeros((20, 32, 48, 3), np.uint8)
        for metadata, times in (
            ({"fps": 10}, [0, 0.5, 1.0, 1.5]),
            (VideoMetadata(total_num_frames=200, fps=10, frames_indices=list(range(0, 200, 10))), [0, 5, 10, 15]),
            ({"frame_times": np.arange(20) ** 2}, [0, 25, 100, 225]),
            (None, [0, 5 / 24, 10 / 24, 15 / 24]),
        ):
            seen = processor(frames, num_frames=4, video_metadata=metadata)["video_metadata"][0]
            assert seen.frame_times == pytest.approx(times)
        assert processor([frames, frames], video_metadata=[{"fps": 5}, None])["video_metadata"][0].fps == 5

    @pytest.mark.parametrize(
        ("frames", "error", "wrong"),
        [
            (np.zeros((4, 8, 8, 3), np.int64), TypeError, "uint8, or floats in 0..1, got int64"),
            (np.full((4, 8, 8, 3), 200.0), ValueError, r"0..1, got 200.0..200.0"),
            (np.full((4, 8, 8, 3), np.nan), ValueError, "0..1, got nan"),
            (np.full((4, 8, 8, 3), None), TypeError, "got object"),
            (np.zeros((4, 8, 8, 5), np.uint8), ValueError, r"\(H, W, 3\) or \(3, H, W\), got \(8, 8, 5\)"),
            (np.zeros((0, 8, 8, 3), np.uint8), MediaError, "empty"),
            (np.zeros((8, 8), np.uint8), ValueError, r"got \(8,\)"),
        ],
    )
    def test_bad_frames(self, processor, frames, error, wrong):
        with pytest.raises(error, match=wrong):
            processor(frames, video_metadata={"fps": 5})

    def test_bad_times(self, processor):
        frames = np.zeros((3, 8, 8, 3), np.uint8)
        for times in ([0, 1], [0, 2, 1]):
            with pytest.raises(ValueError, match="3 decoded frames need as many increasing times"):
                processor(frames, video_metadata={"frame_times": times})


class TestLandmarksGiven:
    def test_they_replace_the_mesh(self, processor, demo_clip, monkeypatch):
        expected = processor(demo_clip)
        found = expected["video_metadata"][0]
        everywhere = np.full((found.total_num_frames, 478, 3), np.nan, np.float32)
        everywhere[found.frames_indices] = found.landmarks
        monkeypatch.setattr("microemo.processing.faces.face_mesh.FaceMesh.faces", None)
        for landmarks in (found.landmarks, everywhere, found.landmarks[..., :2].astype(float)):
            features = processor(demo_clip, landmarks=landmarks)
            np.testing.assert_array_equal(features["region_masks"], expected["region_masks"])
            assert features["video_metadata"][0].faces_found == [1] * 8
        landmarks[3] = np.nan
        features = processor([demo_clip], landmarks=[landmarks])
        assert features["region_masks"][0].any((1, 2)).tolist() == [True] * 3 + [False] + [True] * 4
        assert features["video_metadata"][0].faces_found[3] == 0

    def test_wrong_number(self, processor, demo_clip):
        with pytest.raises(ValueError, match=r"landmarks for 5 frames, but the clip has 150 frames, of which 8 are"):
            processor(demo_clip, landmarks=np.zeros((5, 478, 3)))
        with pytest.raises(ValueError, match=r"\(n, 478, 2 or 3\), got \(8, 68, 2\)"):
            processor(demo_clip, landmarks=np.zeros((8, 68, 2)))
        with pytest.raises(ValueError, match="2 clips, but landmarks for 1"):
            processor([demo_clip, demo_clip], landmarks=[None])


class TestSettings:
    def test_round_trip(self, tmp_path):
        processor = MicroEmoVideoProcessor(
            num_frames=5, size={"height": 112, "width": 112}, local_view="face_crop", clue_regions="whole_face"
        )
        processor.save_pretrained(tmp_path)
        again = MicroEmoVideoProcessor.from_pretrained(tmp_path)
        assert again.to_dict() == processor.to_dict()
        assert str(tmp_path) not in json.dumps(again.to_dict())
        assert MicroEmoVideoProcessor.from_pretrained(tmp_path, num_frames=7).num_frames == 7
        assert pickle.loads(pickle.dumps(again)).to_dict() == processor.to_dict()

    @pytest.mark.parametrize(
        ("fields", "wrong"),
        [
            ({"size": {"height": 200, "width": 200}}, "whole 14 pixel patches"),
            ({"size": {"height": 224, "width": 112}}, "square"),
            ({"local_view": "face"}, "local_view"),
            ({"clue_regions": "face"}, "clue_regions"),
            ({"num_frames": 40}, "num_frames 40 is more than max_frames 32"),
            ({"num_frames": 0}, "num_frames"),
            ({"num_frames": 4, "fps": 2}, "exclude each other"),
            ({"fps": 0}, "fps must be positive, got 0"),
            ({"fps": float("inf")}, "fps must be positive, got inf"),
            ({"do_center_crop": True}, "do_center_crop=False alone"),
        ],
    )
    def test_bad_fields(self, processor, demo_clip, fields, wrong):
        with pytest.raises((ValueError, TypeError), match=wrong):
            processor(demo_clip, **fields)

    def test_bad_regions_of_the_processor(self):
        with pytest.raises(ValueError, match='clue_regions must be "facial" or "whole_face", got .face'):
            MicroEmoVideoProcessor(clue_regions="face")

    def test_fps(self, processor, demo_clip):
        assert processor(demo_clip, fps=5)["video_metadata"][0].frame_times == pytest.approx(np.arange(30) / 5)
        assert len(processor(demo_clip, fps=25)["video_metadata"][0].frame_times) == processor.max_frames

    def test_every_frame(self, processor, demo_clip, make_clip):
        short = make_clip("five.mp4", np.arange(5) / 25)
        assert processor(short, do_sample_frames=False)["video_metadata"][0].frames_indices == list(range(5))
        with pytest.raises(ValueError, match="has 150 frames, more than max_frames 32"):
            processor(demo_clip, do_sample_frames=False)

    def test_nested_batches_and_bad_ones(self, processor, demo_clip, make_clip):
        assert processor([[demo_clip], [str(demo_clip)]], num_frames=1)["frame_mask"].shape == (2, 1)
        with pytest.raises(ValueError, match="videos is empty"):
            processor([])
        with pytest.raises(MediaError, match="tone.m4a has no video stream"):
            processor(make_clip("tone.m4a", []))


@pytest.mark.slow  # test_processing.py has workers of the whole processor, this one included
def test_workers(demo_clip, run_fresh):
    """Workers of a parent that has not used the face mesh, both in torch and in datasets."""
    code = f"""
import numpy as np
from datasets import Dataset
from torch.utils.data import DataLoader
from microemo.processing.video_processing_microemo import MicroEmoVideoProcessor
processor = MicroEmoVideoProcessor(num_frames=2)
class Clips(list):
    def __getitem__(self, index):
        return processor({str(demo_clip)!r})["region_masks"].sum()
print(len(set(np.concatenate(list(DataLoader(Clips(range(4)), num_workers=2))).tolist())))
rows = Dataset.from_list([{{"clip": {str(demo_clip)!r}}}] * 4)
look = lambda row: {{"faces": processor(row["clip"])["video_metadata"][0].faces_found}}
print(rows.map(look, num_proc=2)["faces"][:])
"""
    done = run_fresh(code)
    assert done.stdout == f"1\n{[[1, 1]] * 4}\n", done.stderr


class TestSharedClips:
    def test_every_clip(self, shared):
        """Faces at least as often as MediaPipe's short-range mesh alone finds them on the full frames."""
        folder = shared / "data" / "clips"
        processor = MicroEmoVideoProcessor()
        with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert rows
        for row in rows:
            path = folder / row["file"]
            if row["opens"] == "no" or not row["frames"]:
                with pytest.raises(MediaError, match=path.name):
                    processor(path)
                continue
            with warnings.catch_warnings(record=True) as said, pytest.MonkeyPatch.context() as patch:
                warnings.simplefilter("always")
                patch.setattr(
                    "microemo.processing.video_processing_microemo.uniform_indices",
                    lambda total, _: np.unique(np.round(np.linspace(0, total - 1, 24)).astype(int)),
                )
                seen = processor(path)["video_metadata"][0]
            damage = [warning for warning in said if f"{seen.total_num_frames} of" in str(warning.message)]
            assert len(damage) == bool(row["error"]), row["file"]
            assert seen.frames_indices[-1] == seen.total_num_frames - 1
            found = sum(count > 0 for count in seen.faces_found)
            # The pictures of corrupt_bytes.mp4 are mostly what lay in the decoder's memory: no two programs agree.
            if path.name != "corrupt_bytes.mp4":
                assert found >= int(row["mesh_static_found"]), row["file"]

    def test_frames_equal_the_goldens(self, shared, processor):
        folder = shared / "goldens" / "io"
        golden = load_file(folder / "f_frames_agpt.safetensors")
        compared = 0
        for name, clip in json.loads((folder / "f_frames_agpt.json").read_text()).items():
            with Clip(shared / "data" / "clips" / "free" / name) as file:
                features = processor(file)
                every = processor(file, do_sample_frames=False, max_frames=len(file.info.frame_times))
            indices = features["video_metadata"][0].frames_indices
            assert indices == clip["n8.agpt"]["indices"]
            pixels = to_grey_levels(every["pixel_values_videos"][0], processor)
            for picture, expected in zip((0, 3, 7), golden[f"{name}.frames_u8_0_3_7"], strict=True):
                difference = np.abs(pixels - expected).mean((1, 2, 3))
                # decord misses its target in MPEG program streams; its picture is one of the clip's all the same.
                assert difference[indices[picture]] < 0.3 if name.endswith(".mp4") else difference.min() < 0.3, name
            compared += 1
        assert compared
