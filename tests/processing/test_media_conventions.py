"""Video processor and feature extractor keep Transformers' conventions, and take rows of the `datasets` library."""

import json
from types import SimpleNamespace

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image
from transformers.image_utils import ChannelDimension
from transformers.video_utils import VideoMetadata

from microemo import MicroEmoFeatureExtractor, MicroEmoVideoProcessor
from microemo.processing.clip_metadata import ClipMetadata
from microemo.processing.clip_reader import ClipInput, ClipReader, as_clip_inputs
from microemo.processing.decoded_clip import open_clip, to_rgb
from microemo.processing.media import Clip, MediaError, load_audio, probe

SMALL = {"size": {"height": 28, "width": 28}, "num_frames": 4}
PICTURE = np.stack(np.broadcast_arrays(*np.ogrid[0:96:48j, 30:220:64j], 128), axis=-1).astype(np.uint8)
FRAMES = np.random.default_rng(1).integers(0, 256, (6, 28, 28, 3), dtype=np.uint8)
FPS = VideoMetadata(total_num_frames=6, fps=3.0, duration=2.0)


@pytest.fixture(scope="module")
def processor() -> MicroEmoVideoProcessor:
    return MicroEmoVideoProcessor(**SMALL)


@pytest.fixture(scope="module")
def clip(make_clip):
    return make_clip("conventions.mp4", picture=PICTURE)


def pixels(processor, videos=FRAMES, **kwargs) -> np.ndarray:
    kwargs = {"video_metadata": FPS, "do_sample_frames": False} | kwargs
    return processor(videos, **kwargs)["pixel_values_videos"][0]


class TestPixels:
    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            ({"do_normalize": False}, lambda x: x / 255),
            ({"do_normalize": False, "do_rescale": False}, lambda x: x),
            ({"do_normalize": False, "rescale_factor": -1.0}, lambda x: -x),
            ({"image_mean": 0.5, "image_std": 0.25}, lambda x: (x / 255 - 0.5) / 0.25),
            ({"do_rescale": False, "image_mean": 100.0, "image_std": 50.0}, lambda x: (x - 100) / 50),
        ],
    )
    def test_rescaling_and_normalising_are_choices(self, processor, fields, expected):
        wanted = expected(FRAMES.transpose(0, 3, 1, 2).astype(np.float64))
        np.testing.assert_allclose(pixels(processor, **fields), wanted, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(pixels(MicroEmoVideoProcessor(**SMALL, **fields)), pixels(processor, **fields))

    def test_the_default_is_that_of_the_paper_s_sources(self, processor):
        mean, std = (np.float32(value)[:, None, None] for value in (processor.image_mean, processor.image_std))
        wanted = FRAMES.transpose(0, 3, 1, 2) * (1 / (255 * std)) - mean / std
        np.testing.assert_array_equal(pixels(processor), wanted)

    def test_frames_that_are_not_resized_have_the_size(self, processor):
        np.testing.assert_array_equal(pixels(processor, do_resize=False), pixels(processor))
        with pytest.raises(ValueError, match="do_resize=False needs frames of 28x28 pixels, got 30x20"):
            pixels(processor, np.zeros((6, 20, 30, 3), np.uint8), do_resize=False)

    def test_a_factor_of_zero_is_refused(self):
        with pytest.raises(ValueError, match="rescale_factor must not be 0"):
            MicroEmoVideoProcessor(rescale_factor=0.0)


class TestForms:
    def test_every_form_of_decoded_frames_gives_the_same(self, processor):
        first = FRAMES.transpose(0, 3, 1, 2)
        forms = [
            list(FRAMES),
            list(first),
            first,
            torch.from_numpy(FRAMES),
            torch.from_numpy(first.copy()),
            list(torch.from_numpy(FRAMES)),
            [Image.fromarray(frame) for frame in FRAMES],
            [Image.fromarray(frame).convert("RGBA") for frame in FRAMES],
            FRAMES / 255,
            FRAMES[None],
            [FRAMES],
            [[FRAMES]],
        ]
        for form in forms:
            np.testing.assert_array_equal(pixels(processor, form, video_metadata=None), pixels(processor))

    @pytest.mark.parametrize("order", ["channels_first", ChannelDimension.FIRST])
    def test_the_place_of_the_channels_may_be_said(self, processor, order):
        ambiguous = FRAMES[:, :3, :, :]  # three lines, and three channels
        last, first = pixels(processor, ambiguous), pixels(processor, ambiguous, input_data_format=order)
        assert (last != first).any()
        np.testing.assert_array_equal(first, pixels(processor, ambiguous.transpose(0, 2, 3, 1)))
        with pytest.raises(ValueError, match=r"must be \(3, H, W\), got \(28, 28, 3\)"):
            pixels(processor, input_data_format=order)
        with pytest.raises(ValueError, match="input_data_format must be"):
            pixels(processor, input_data_format="HWC")

    def test_metadata_may_stand_in_lists(self, processor):
        for metadata in (FPS, [FPS], [[FPS]], dict(FPS), [[dict(FPS)]]):
            sampled = processor(FRAMES, fps=1, video_metadata=metadata)
            assert sampled["video_metadata"][0].frames_indices == [0, 3]
        batch = processor([FRAMES] * 2, fps=1, video_metadata=[[FPS], [FPS]])
        assert batch["frame_mask"].shape == (2, 2)

    def test_the_device_of_the_output(self, processor):
        output = processor(FRAMES, device="meta", return_tensors="pt")
        assert output["pixel_values_videos"].device.type == output["frame_mask"].device.type == "meta"
        assert isinstance(output["video_metadata"][0], ClipMetadata)
        assert isinstance(processor(FRAMES, device="cpu")["frame_mask"], np.ndarray)
        with pytest.raises(ValueError, match="device='meta' needs return_tensors"):
            processor(FRAMES, device="meta")

    def test_the_output_can_be_cast(self, processor):
        output = processor(FRAMES, return_tensors="pt").to(torch.bfloat16)
        assert output["pixel_values_videos"].dtype == torch.bfloat16
        assert output["region_masks"].dtype == torch.bool

    def test_every_field_survives_saving(self, tmp_path):
        fields = {"do_normalize": False, "rescale_factor": 0.5, "do_resize": False, "fps": 2.0, "image_mean": 0.1}
        first = MicroEmoVideoProcessor(**SMALL, **fields)
        first.save_pretrained(tmp_path / "saved")
        first.to_json_file(tmp_path / "one.json")
        for second in (
            MicroEmoVideoProcessor.from_pretrained(tmp_path / "saved"),
            MicroEmoVideoProcessor.from_json_file(tmp_path / "one.json"),
            MicroEmoVideoProcessor.from_dict(json.loads(first.to_json_string())),
        ):
            assert second.to_dict() == first.to_dict()
            assert {name: getattr(second, name) for name in fields} == fields


class TestMetadata:
    def test_it_is_transformers_own(self, processor, clip):
        (metadata,) = processor(clip)["video_metadata"]
        assert isinstance(metadata, VideoMetadata)
        assert (metadata.total_num_frames, metadata.fps, metadata.video_backend) == (25, 25.0, "pyav")
        assert (metadata.width, metadata.height) == metadata.frame_size == (64, 48)
        assert metadata.timestamps == metadata["frame_times"] == pytest.approx([0, 0.24, 0.48, 0.72], abs=0.01)
        assert metadata.sampled_fps == pytest.approx(4.0)
        assert set(dict(metadata)) > {"frames_indices", "duration", "landmarks"}

    def test_frames_are_sampled_for_metadata_alone(self, processor):
        assert processor.sample_frames(FPS).tolist() == [0, 1, 3, 4]
        assert processor.sample_frames(FPS, num_frames=2).tolist() == [0, 3]
        assert processor.sample_frames(FPS, fps=1).tolist() == [0, 3]
        by_length = VideoMetadata(total_num_frames=6, duration=2.0)
        assert processor.sample_frames(by_length, fps=1).tolist() == [0, 3]
        with pytest.raises(ValueError, match="needs the fps or the duration"):
            processor.sample_frames(VideoMetadata(total_num_frames=6), fps=1)

    def test_frames_that_were_sampled_before_keep_their_places(self, processor):
        """Frames 0, 30, ... of a clip of 300 frames (modelscope/ms-swift#10168, ByteDance-Seed/VeOmni#1165)."""
        source = VideoMetadata(total_num_frames=300, fps=30.0, duration=10.0, frames_indices=list(range(0, 180, 30)))
        (metadata,) = processor(FRAMES, video_metadata=source)["video_metadata"]
        assert metadata.frames_indices == [0, 30, 90, 120] and metadata.total_num_frames == 300
        assert metadata.timestamps == pytest.approx(np.array(metadata.frames_indices) / metadata.fps)
        (again,) = processor(FRAMES[[0, 1, 3, 4]], video_metadata=metadata)["video_metadata"]
        assert (again.frames_indices, again.frame_times) == (metadata.frames_indices, metadata.frame_times)
        source.frames_indices = [0, 1]
        with pytest.raises(ValueError, match="6 decoded frames, but frames_indices for 2"):
            processor(FRAMES, video_metadata=source)

    def test_copies_of_the_last_frame_may_come_again(self):
        filling = MicroEmoVideoProcessor(**SMALL | {"num_frames": 8}, repeat_last_frame=True)
        (metadata,) = filling(FRAMES, video_metadata=FPS)["video_metadata"]
        assert metadata.frames_indices == [0, 1, 2, 3, 4, 5, 5, 5]
        (again,) = filling(FRAMES[metadata.frames_indices], video_metadata=metadata)["video_metadata"]
        assert again.frame_times == metadata.frame_times
        still = filling([PICTURE] * 3, video_metadata={"frame_times": [0.0] * 3})["video_metadata"][0]
        assert still.fps == 24

    def test_fetched_frames_are_those_of_the_file(self, processor, clip):
        frames, metadata = processor.fetch_videos(str(clip), sample_indices_fn=processor.sample_frames)
        assert frames.shape == (4, 48, 64, 3) and metadata.frames_indices == [0, 6, 12, 18]
        expected = processor(clip)
        output = processor(frames, video_metadata=metadata)
        np.testing.assert_allclose(output["pixel_values_videos"], expected["pixel_values_videos"], atol=0.1)
        assert output["video_metadata"][0].frame_times == expected["video_metadata"][0].frame_times
        everything, of_all = processor.fetch_videos([str(clip)])
        assert everything[0].shape == (25, 48, 64, 3) and of_all[0].total_num_frames == 25


class Decoder:
    """The part of torchcodec's `VideoDecoder` that is read."""

    def __init__(self, frames, times, begin=0.0):
        self.frames, self.times = frames, np.asarray(times) + begin
        step = float(np.diff(times).mean())
        self.metadata = SimpleNamespace(
            num_frames=len(frames),
            average_fps=1 / step,
            duration_seconds=len(frames) * step,
            begin_stream_seconds=begin,
            path=None,
        )

    def get_frames_at(self, indices):
        data = torch.from_numpy(self.frames[indices].transpose(0, 3, 1, 2).copy())
        return SimpleNamespace(data=data, pts_seconds=torch.from_numpy(self.times[indices]))


class SoundDecoder:
    """The part of torchcodec's `AudioDecoder` that is read."""

    def __init__(self, samples, rate):
        self.samples = SimpleNamespace(data=torch.from_numpy(samples), sample_rate=rate)

    def get_all_samples(self):
        return self.samples


class TestRows:
    @pytest.fixture(scope="class")
    def table(self, clip):
        datasets = pytest.importorskip("datasets")
        entries = [
            str(clip),
            {"path": None, "bytes": clip.read_bytes()},
            {"path": "x/y.mp4", "bytes": clip.read_bytes()},
        ]
        table = datasets.Dataset.from_dict(
            {"clip": entries}, datasets.Features({"clip": datasets.Video(decode=False)})
        )
        # A column of sounds has rows of the same form, but torchcodec alone can write it.
        return list(table["clip"])

    def test_rows_that_are_not_decoded_are_clips(self, processor, clip, table):
        expected, sound = processor(clip), load_audio(clip)
        assert all(row.keys() == {"path", "bytes"} for row in table)
        for row in table:
            output = processor(row)
            np.testing.assert_array_equal(output["pixel_values_videos"], expected["pixel_values_videos"])
            np.testing.assert_array_equal(load_audio(row).samples, sound.samples)
            assert probe(row).duration == probe(clip).duration
        assert processor(table)["frame_mask"].shape == (3, 4)
        assert processor(table[2])["video_metadata"][0].source == "x/y.mp4"

    def test_a_row_of_nothing_is_an_error(self, processor):
        with pytest.raises(MediaError, match="neither a path nor bytes"):
            processor({"path": None, "bytes": None})
        with pytest.raises(MediaError, match=r"gone\.mp4"):
            processor({"path": "gone.mp4", "bytes": None})

    def test_a_decoder_of_a_data_set_reads_its_own_file(self, processor, clip):
        decoder = Decoder(FRAMES, np.arange(6) / 3)
        decoder._hf_encoded = {"path": str(clip), "bytes": None}
        output = processor(decoder)["video_metadata"][0]
        assert output.source == str(clip) and output.has_audio and output.total_num_frames == 25

    def test_a_decoder_alone_gives_frames_with_its_times(self, processor):
        times = np.array([0.0, 0.3, 0.7, 1.0, 1.3, 1.7])
        decoder = Decoder(FRAMES, times, begin=5.0)
        output = processor([decoder, FRAMES], video_metadata=[None, {"frame_times": times}])
        np.testing.assert_array_equal(output["pixel_values_videos"][0], output["pixel_values_videos"][1])
        of_decoder, of_frames = output["video_metadata"]
        assert of_decoder.frames_indices == of_frames.frames_indices
        assert of_decoder.frame_times == pytest.approx(of_frames.frame_times)

    def test_streamed_files_are_read_where_they_are(self, clip):
        with fsspec.open("memory://bucket/clip.mp4", "wb") as file:
            file.write(clip.read_bytes())
        assert probe({"path": "memory://bucket/clip.mp4", "bytes": None}).duration == probe(clip).duration
        with pytest.raises(MediaError, match="Protocol not known: nowhere"):
            probe("nowhere://bucket/clip.mp4")
        with pytest.raises(MediaError, match="gone.mp4"):
            probe("memory://bucket/gone.mp4")

    def test_the_reader_of_clips_takes_rows(self, clip, processor):
        track = load_audio(clip)
        reader = ClipReader(
            SimpleNamespace(
                max_utterances=4,
                windows="utterance",
                video_processor=processor,
                feature_extractor=MicroEmoFeatureExtractor(),
            )
        )
        row = {"path": str(clip), "bytes": None}
        decoded = {"array": track.samples[0], "sampling_rate": track.rate, "path": str(clip)}
        sounds = [None, str(clip), row, decoded, SoundDecoder(track.samples, track.rate)]
        features, contents = reader.read([ClipInput(video=row, audio=sound) for sound in sounds])
        assert all(content.has_video and content.has_audio for content in contents)
        for output in features["input_features"][1:]:
            np.testing.assert_allclose(output, features["input_features"][0], atol=1e-4)
        inputs = as_clip_inputs([row] * 2, [row] * 2, None, None, None, None, None, None)
        assert [entry.video for entry in inputs] == [row, row]
        assert len(as_clip_inputs(None, [0.0] * 400, None, None, None, 16_000, None, None)) == 1

    def test_an_open_clip_is_used_as_it_is(self, clip):
        with Clip({"path": str(clip), "bytes": None}) as opened, open_clip(opened) as same:
            assert same is opened


class TestFeatureExtractor:
    WAVE = np.sin(np.arange(40_000) / 9).astype(np.float32)

    def test_every_form_of_a_waveform_gives_the_same(self):
        extractor = MicroEmoFeatureExtractor()
        expected = extractor(self.WAVE, 16_000)["input_features"]
        assert expected.shape == (1, 8, 1, extractor.feature_size, 204)
        rate = {"sampling_rate": 16_000}
        for form, kwargs in (
            (self.WAVE.tolist(), rate),
            (tuple(self.WAVE.tolist()), rate),
            ([self.WAVE.tolist()], rate),
            ([self.WAVE], rate),
            (self.WAVE[None], rate),
            (torch.from_numpy(self.WAVE), rate),
            ({"array": self.WAVE, **rate, "path": None}, {}),
            ([{"array": self.WAVE, **rate}], {}),
            (SoundDecoder(self.WAVE[None], 16_000), {}),
        ):
            output = extractor(form, **kwargs)["input_features"]
            np.testing.assert_allclose(output, expected, atol=1e-4)

    def test_tensors_types_and_devices(self):
        extractor = MicroEmoFeatureExtractor()
        output = extractor(self.WAVE, sampling_rate=16_000, return_tensors="pt", device="meta")
        assert output["input_features"].device.type == "meta"
        output = extractor(self.WAVE, sampling_rate=16_000, return_tensors="pt").to(torch.float16)
        assert (output["input_features"].dtype, output["audio_segment_mask"].dtype) == (torch.float16, torch.bool)

    def test_arguments_of_other_extractors(self):
        extractor = MicroEmoFeatureExtractor()
        harmless = {"padding": True, "truncation": False, "max_length": None, "return_attention_mask": None}
        assert extractor(self.WAVE, 16_000, **harmless)["audio_segment_mask"].all()
        for name, value in (("truncation", True), ("max_length", 100), ("return_attention_mask", True)):
            with pytest.raises(ValueError, match=f"{name}={value}.*fixed length"):
                extractor(self.WAVE, 16_000, **{name: value})
        with pytest.raises(TypeError, match="'paddings'.*'padding'"):
            extractor(self.WAVE, 16_000, paddings=True)
        with pytest.raises(ValueError, match="sampling rate"):
            extractor(self.WAVE)
        with pytest.raises(ValueError, match="floats or 16-bit integers, got <U"):
            extractor("clip.wav", 16_000)


def test_a_picture_on_another_device_is_fetched():
    picture = torch.from_numpy(FRAMES[0]).requires_grad_(False)
    np.testing.assert_array_equal(to_rgb(picture), FRAMES[0])
