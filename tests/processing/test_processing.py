"""MicroEmoProcessor as a whole: files, frames and sound in; a BatchFeature out."""

import csv
import functools
import json
import os
import pickle
import warnings
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from transformers import AutoProcessor, BatchFeature

from microemo import MicroEmoConfig, MicroEmoProcessor
from microemo.processing.media import MediaError, load_audio
from microemo.processing.video_processing_microemo import MicroEmoVideoProcessor
from microemo.publishing.initialize import tiny_qformer_tokenizer, tiny_tokenizer

SHARED = Path(os.environ.get("MICROEMO_SHARED", Path(__file__).parents[2] / ".." / "shared"))
CLIPS = SHARED / "data" / "clips"
needs_shared = pytest.mark.skipif(not CLIPS.is_dir(), reason="no shared folder: set MICROEMO_SHARED to it")

QUESTION = "What does the speaker feel, and why?"
SAID = [{"start": 0.0, "end": 0.5, "text": "Hi."}, {"start": 1.0, "end": 1.9, "text": "Well?", "speaker": "Bo"}]

TEXT_KEYS = {"input_ids", "attention_mask"}
VIDEO_KEYS = {"pixel_values_videos", "frame_mask", "region_masks", "qformer_input_ids", "qformer_attention_mask"}
AUDIO_KEYS = {"input_features", "audio_segment_mask", "audio_windows"}
WINDOWS = {"utterance_windows"}


def make(preset="microemo-tiny", config=None, **overrides) -> MicroEmoProcessor:
    config = config or {}
    config = MicroEmoConfig.from_preset(preset, **({"local_view": "frame"} | config))
    return MicroEmoProcessor.from_config(config, tiny_tokenizer(), tiny_qformer_tokenizer(), **overrides)


@functools.cache
def processor() -> MicroEmoProcessor:
    return make()


TIMES = np.arange(20) / 10


@pytest.fixture(scope="module")
def clip(make_clip):
    """Two seconds of a face and a tone."""
    return make_clip("clip.mp4", times=TIMES, sound=2.0)


@pytest.fixture(scope="module")
def silent_clip(make_clip):
    return make_clip("silent.mp4", times=TIMES, sound=None)


@pytest.fixture(scope="module")
def sound_file(make_clip):
    return make_clip("sound.mka", times=[], sound=3.0)


# --- keys and shapes -----------------------------------------------------------------------------------------------


def test_a_clip_and_a_question(clip):
    output = processor()(text=QUESTION, videos=clip, utterances=SAID, num_frames=6, return_tensors="pt")
    assert isinstance(output, BatchFeature)
    assert set(output) == TEXT_KEYS | VIDEO_KEYS | AUDIO_KEYS | WINDOWS
    t = output["frame_mask"].shape[1]
    assert t >= 6 and output["frame_mask"].all()
    side, patches = 112, 64
    assert output["pixel_values_videos"].shape == (1, t, 3, side, side)
    assert output["region_masks"].shape == (1, t, 11, patches)
    assert output["qformer_input_ids"].shape == output["qformer_attention_mask"].shape
    assert output["qformer_input_ids"].shape[:2] == (1, t)
    assert output["utterance_windows"].shape == output["audio_windows"].shape == (1, 2, 2)
    assert output["input_features"].shape == (1, 32, 1, 128, 48) and output["audio_segment_mask"].all()
    kinds = {name: output[name].dtype for name in output}
    assert kinds["pixel_values_videos"] == kinds["input_features"] == torch.float32
    assert all(kinds[name] == torch.bool for name in ("frame_mask", "region_masks", "audio_segment_mask"))
    assert all(
        kinds[name] == torch.int64 for name in kinds if "ids" in name or "windows" in name or "attention" in name
    )


def test_windows_hold_the_frames_of_their_utterances(clip):
    output = processor()(text=QUESTION, videos=clip, utterances=SAID, num_frames=6, return_metadata=True)
    times = np.array(output["video_metadata"][0].frame_times)
    for said, (start, end) in zip(SAID, output["utterance_windows"][0], strict=True):
        inside = np.flatnonzero((times >= said["start"]) & (times < said["end"]))
        assert len(inside) and inside.tolist() == list(range(start, end))
    assert [u.text for u in output["utterances"][0]] == ["Hi.", "Well?"]
    assert output["audio_segment_times"][0].shape == (32, 2) and QUESTION in output["prompts"][0]


def test_no_utterance_is_without_a_frame(clip):
    said = [{"start": index / 4, "end": index / 4 + 0.2, "text": "a"} for index in range(8)]
    output = processor()(text=QUESTION, videos=clip, utterances=said, num_frames=2, return_metadata=True)
    times = output["video_metadata"][0].frame_times
    windows = output["utterance_windows"][0]
    assert all(
        u["start"] <= times[start] < u["end"] for u, (start, end) in zip(said, windows, strict=True) if start < end
    )
    assert (windows[:, 0] < windows[:, 1]).all()


def test_faces_are_cropped_when_the_model_looks_at_crops(clip):
    output = make(config={"local_view": "face_crop"})(text=QUESTION, videos=clip, num_frames=3, return_tensors="pt")
    assert set(output) == TEXT_KEYS | VIDEO_KEYS | AUDIO_KEYS | WINDOWS | {"pixel_values_faces"}
    assert output["pixel_values_faces"].shape == output["pixel_values_videos"].shape
    assert output["region_masks"].any(-1).all() and output["pixel_values_faces"].abs().amax((2, 3, 4)).all()


def test_the_whole_face_as_one_region(clip):
    """As many regions as the model has embeddings for, by `from_config` or set in both by name."""
    arguments = {"text": QUESTION, "videos": clip, "num_frames": 3}
    config = MicroEmoConfig.from_preset("microemo-tiny", num_regions=1)
    control = make(config={"num_regions": 1, "local_view": config.local_view})
    output = control(**arguments)
    assert output["region_masks"].shape == (1, 3, 1, 64) and output["region_masks"].any(-1).all()
    control.check_config(config)

    switched = make(config={"local_view": config.local_view})
    with pytest.raises(ValueError, match="num_regions is 11, the model's 1"):
        switched.check_config(config)
    switched.video_processor.clue_regions = "whole_face"
    switched.check_config(config)
    same(switched(**arguments), output)
    without = MicroEmoConfig.from_preset("microemo-tiny", use_local_clue_attention=False)
    switched.check_config(without)  # whose model looks at no region


def test_without_timestamps_the_qformer_gets_no_text(clip):
    output = make(config={"use_frame_timestamps": False})(text=QUESTION, videos=clip, num_frames=3)
    assert not any("qformer" in name for name in output)


def test_mixed_batch(clip, silent_clip, sound_file):
    videos = [clip, silent_clip, sound_file, None]
    batch = processor()(
        text=[QUESTION, "Who?", QUESTION, "Hello?"],
        videos=videos,
        utterances=[SAID, None, SAID[:1], None],
        num_frames=4,
        return_tensors="pt",
    )
    assert batch["frame_mask"].any(1).tolist() == [True, True, False, False]
    assert batch["audio_segment_mask"].any(1).tolist() == [True, False, True, False]
    assert (batch["utterance_windows"] >= 0).all(-1).sum(1).tolist() == [2, 0, 0, 0]
    assert (batch["audio_windows"] >= 0).all(-1).sum(1).tolist() == [2, 0, 1, 0]
    for row, (text, video, said) in enumerate(
        zip([QUESTION, "Who?", QUESTION, "Hello?"], videos, [SAID, None, SAID[:1], None], strict=True)
    ):
        alone = processor()(text=text, videos=video, utterances=said, num_frames=4, return_tensors="pt")
        picked = batch["attention_mask"][row].bool()
        assert torch.equal(batch["input_ids"][row][picked], alone["input_ids"][0])
        has_pictures, has_sound = row < 2, row in (0, 2)
        assert set(alone) == TEXT_KEYS | WINDOWS | (VIDEO_KEYS if has_pictures else set()) | (
            AUDIO_KEYS if has_sound else set()
        )
        if has_pictures:
            frames = batch["frame_mask"][row]
            assert torch.equal(batch["pixel_values_videos"][row][frames], alone["pixel_values_videos"][0])
            tokens, real = batch["qformer_input_ids"][row][frames], batch["qformer_attention_mask"][row][frames].bool()
            expected = alone["qformer_input_ids"][0][alone["qformer_attention_mask"][0].bool()]
            assert torch.equal(tokens[real], expected)
            assert not batch["qformer_attention_mask"][row][~frames].any()
        if has_sound:
            torch.testing.assert_close(batch["input_features"][row], alone["input_features"][0])


def test_words_alone():
    output = processor()(text=["Hello?", "Who is there?"], return_tensors="pt")
    assert set(output) == TEXT_KEYS | WINDOWS and output["utterance_windows"].shape == (2, 0, 2)


def test_clips_alone(clip):
    output = processor()(videos=[clip, clip], num_frames=2, return_tensors="pt")
    assert set(output) == VIDEO_KEYS | AUDIO_KEYS | WINDOWS and output["frame_mask"].shape == (2, 2)


def test_kinds_of_output(clip):
    arguments = {"text": QUESTION, "videos": clip, "utterances": SAID, "num_frames": 2}
    plain, arrays = processor()(**arguments), processor()(**arguments, return_tensors="np")
    tensors = processor()(**arguments, return_tensors="pt")
    assert isinstance(plain["input_ids"], list) and isinstance(plain["input_ids"][0], list)
    assert isinstance(plain["pixel_values_videos"], np.ndarray)
    for name in tensors:
        assert isinstance(arrays[name], np.ndarray) and isinstance(tensors[name], torch.Tensor)
        assert np.array_equal(np.asarray(plain[name]), arrays[name]) and np.array_equal(arrays[name], tensors[name])


def decoded(clip):
    with av.open(str(clip)) as container:
        return [frame.to_image() for frame in container.decode(video=0)]


def test_decoded_frames_and_landmarks(clip):
    pictures = decoded(clip)
    metadata = {"fps": 10, "duration": 2.0}
    random = np.random.default_rng(0)
    landmarks = random.uniform(0.3, 0.7, (len(pictures), 478, 3)).astype(np.float32)
    landmarks[3] = np.nan
    said = [*SAID, {"start": 5.0, "end": 6.0, "text": "late"}]
    with pytest.warns(UserWarning, match=r"1 had nothing left in the clip \(0 to 2.0 s\)"):
        outputs = [
            processor()(
                text=QUESTION, videos=video, utterances=said, landmarks=landmarks, num_frames=20, return_tensors="pt",
                **kwargs,
            )
            for video, kwargs in [
                (pictures, {"video_metadata": metadata}),
                (np.stack([np.asarray(picture) for picture in pictures]), {"video_metadata": metadata}),
                (clip, {"audio": False}),
            ]
        ]  # fmt: skip
    assert set(outputs[0]) == TEXT_KEYS | VIDEO_KEYS | WINDOWS
    faces = outputs[0]["region_masks"].any(-1).all(-1)
    assert faces.tolist() == [[frame != 3 for frame in range(20)]]
    for other in outputs[1:]:
        for name in set(outputs[0]) - {"pixel_values_videos"}:
            assert torch.equal(outputs[0][name], other[name]), name
    batch = processor()(
        text=["a", "b"], videos=[pictures, clip], landmarks=[landmarks, None], video_metadata=[metadata, None],
        num_frames=20,
    )  # fmt: skip
    # Given for the first clip only; in the second the face mesh finds the photograph's face in frame 3, too.
    assert np.array_equal(batch["region_masks"][0], outputs[0]["region_masks"][0])
    assert batch["region_masks"][1].any(-1).all()


# --- sound ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset, seconds", [("microemo-7b", 2.0), ("microemo-tiny", 0.5)])
def test_clips_of_sound_are_as_long_as_the_models(preset, seconds):
    config = MicroEmoConfig.from_preset(preset, video_token_id=3, audio_token_id=4)
    made = MicroEmoProcessor.from_config(config, tiny_tokenizer(), tiny_qformer_tokenizer())
    wave = np.random.default_rng(0).normal(size=16_000 * 4).astype(np.float32)
    output = made(audio=wave, sampling_rate=16_000, return_metadata=True)
    times, mels = output["audio_segment_times"][0], output["input_features"]
    assert mels.shape[1] == len(times) == config.max_audio_segments
    np.testing.assert_allclose(times[:, 1] - times[:, 0], seconds)
    assert mels.shape[-1] == config.audio_config.num_mel_frames
    made.check_config(config)
    config.audio_config.segment_duration = 1.0
    with pytest.raises(ValueError, match=f"segment_duration is {seconds}, the model's 1.0"):
        made.check_config(config)


def test_muted(clip):
    output = processor()(text=QUESTION, videos=clip, audio=False, num_frames=2)
    assert set(output) == TEXT_KEYS | VIDEO_KEYS | WINDOWS
    assert processor().audio_token_id not in output["input_ids"][0]


def test_sound_of_its_own(clip, silent_clip, sound_file):
    track = load_audio(sound_file)
    wave, rate = track.samples, {"sampling_rate": track.rate}
    outputs = [
        processor()(text=QUESTION, videos=video, audio=audio, num_frames=2, **kwargs)["input_features"]
        for video, audio, kwargs in [
            (silent_clip, sound_file, {}),
            (clip, str(sound_file), {}),
            (clip, wave, rate),
            (clip, wave[0], rate),
            (clip, torch.from_numpy(wave), rate),
            (clip, {"array": wave[0], **rate}, {}),
            (clip, track, {}),
        ]
    ]
    for other in outputs[1:]:
        np.testing.assert_allclose(outputs[0], other, atol=1e-5)
    assert np.abs(processor()(text=QUESTION, videos=clip, num_frames=2)["input_features"] - outputs[0]).max() > 0.1


def test_sound_for_some_of_a_batch(clip, silent_clip, sound_file):
    batch = processor()(
        text=[QUESTION] * 4,
        videos=[clip, silent_clip, clip, silent_clip],
        audio=[None, sound_file, False, None],
        num_frames=2,
    )
    assert batch["audio_segment_mask"].any(1).tolist() == [True, True, False, False]


def test_own_sound_in_a_conversation(clip):
    """`{"type": "audio"}` beside a video asks for its own sound, as in Transformers; it is there without asking, too."""
    video, question = {"type": "video", "path": str(clip)}, {"type": "text", "text": QUESTION}
    outputs = [
        processor().apply_chat_template(
            [{"role": "user", "content": content}],
            tokenize=True,
            return_dict=True,
            add_generation_prompt=True,
            processor_kwargs={"num_frames": 2},
        )
        for content in ([video, {"type": "audio"}, question], [video, question])
    ]
    expected = processor()(text=QUESTION, videos=clip, num_frames=2)
    same(outputs[0], expected)
    same(outputs[1], expected)


def test_waveform_without_a_rate(clip):
    with pytest.raises(ValueError, match="sampling rate"):
        processor()(text=QUESTION, videos=clip, audio=np.zeros(16_000, np.float32))


def test_speech_recognition_makes_the_utterances(clip, silent_clip):
    class Pipeline:
        class feature_extractor:
            sampling_rate = 16_000

        def __call__(self, inputs, return_timestamps):
            assert inputs["raw"].shape[0] == pytest.approx(32_000, abs=2_000)
            return {
                "chunks": [{"timestamp": (0.2, 0.9), "text": " Hello"}, {"timestamp": (1.0, None), "text": " you"}]
            }

    output = processor()(
        text=[QUESTION] * 3,
        videos=[clip, silent_clip, clip],
        utterances=[None, None, SAID[:1]],
        asr=Pipeline(),
        num_frames=4,
        return_metadata=True,
    )
    assert [[u.text for u in said] for said in output["utterances"]] == [["Hello", "you"], [], ["Hi."]]
    assert "Transcript:\nutterance 1 (0.2-0.9s): Hello\n" in output["prompts"][0]


# --- time ----------------------------------------------------------------------------------------------------------


def test_timestamps_are_presentation_times(clip):
    output = processor()(text=QUESTION, videos=clip, num_frames=4, return_metadata=True)
    sentences = processor().qformer_tokenizer.batch_decode(output["qformer_input_ids"][0], skip_special_tokens=True)
    times = output["video_metadata"][0].frame_times
    expected = [f"this frame is sampled at {time:.1f}s." for time in times]
    assert [s.replace(" ", "") for s in sentences] == [s.replace(" ", "") for s in expected]


@needs_shared
def test_golden_timestamps():
    facts = json.loads((SHARED / "goldens" / "io" / "f_frames_agpt.json").read_text())
    timechat = make(timestamp_format="timechat")
    compared = 0
    for clip in facts.values():
        for case in (value for value in clip.values() if isinstance(value, dict)):
            metadata = SimpleNamespace(frames_indices=case["indices"], fps=clip["fps"], frame_times=None)
            sentences, expected = timechat.timestamp_sentences(metadata), case["timestamp_sentences"]
            if len(expected) < len(sentences):  # only the first ones and the last are on file
                sentences = [*sentences[: len(expected) - 1], sentences[-1]]
            assert sentences == expected
            compared += len(expected)
    assert compared


def test_sliding_windows(clip):
    sliding = make(
        config={"windows": "sliding", "window_size": 3, "window_stride": 2},
    )
    output = sliding(text=QUESTION, videos=clip, utterances=SAID, num_frames=6)
    assert output["utterance_windows"].tolist() == [[[0, 3], [2, 5], [4, 6]]]
    expected = processor()(text=QUESTION, videos=clip, utterances=SAID, num_frames=6)
    assert output["audio_windows"].tolist() == expected["audio_windows"].tolist()
    by_seconds = make(
        config={"windows": "sliding", "window_size": 1.0, "window_stride": 1.0, "window_unit": "seconds",
                "use_global_window": False},
    )  # fmt: skip
    output = by_seconds(text=QUESTION, videos=clip, num_frames=4)
    assert output["utterance_windows"].tolist() == [[[0, 2], [2, 4]]]
    assert output["input_ids"][0].count(by_seconds.video_token_id) == 2 * by_seconds.num_video_query_tokens


def test_no_window_left(clip):
    strict = make(config={"use_global_window": False})
    with pytest.raises(ValueError, match=r"clip\.mp4.*no utterances.*use_global_window=False"):
        strict(text=QUESTION, videos=clip, num_frames=2)


def test_too_many_utterances(clip):
    said = [{"start": index / 5, "end": index / 5 + 0.2, "text": str(index)} for index in range(9)]
    with pytest.warns(UserWarning, match="9 utterances, but max_utterances is 4"):
        output = make(max_utterances=4)(text=QUESTION, videos=clip, utterances=said, return_metadata=True)
    assert output["utterance_windows"].shape[1] == len(output["utterances"][0]) == 4
    assert " ".join(u.text for u in output["utterances"][0]) == " ".join(map(str, range(9)))


def test_utterances_beyond_the_clip(clip):
    said = [*SAID, {"start": -1, "end": 0.4, "text": "early"}, {"start": 36_000, "end": 36_001, "text": "late"}]
    with pytest.warns(UserWarning, match="sorted.*cut.*dropped.*overlap") as caught:
        output = processor()(text=QUESTION, videos=clip, utterances=said, num_frames=4, return_metadata=True)
    assert len(caught) == 1 and [u.text for u in output["utterances"][0]] == ["early", "Hi.", "Well?"]


# --- wrong input ---------------------------------------------------------------------------------------------------


def test_numbers_that_differ(clip):
    with pytest.raises(ValueError, match="2 texts, but 3 clips"):
        processor()(text=["a", "b"], videos=[clip] * 3)
    with pytest.raises(ValueError, match="2 texts, but 1 clips"):
        processor()(text=["a", "b"], videos=clip)
    for name, value in (("utterances", [SAID]), ("audio", [None]), ("landmarks", [None])):
        with pytest.raises(ValueError, match=f"2 clips, but 1 {name}"):
            processor()(text=["a", "b"], videos=[clip] * 2, **{name: value})
    for name, value in (
        ("utterances", Path("clip.srt")),
        ("audio", np.zeros((2, 9))),
        ("landmarks", np.zeros((2, 9))),
    ):
        with pytest.raises(ValueError, match=f"2 clips, but {name} for one"):
            processor()(text=["a", "b"], videos=[clip] * 2, **{name: value})
    with pytest.raises(ValueError, match="a list for each clip"):
        processor()(text=["a", "b"], videos=[clip] * 2, utterances=SAID)


def test_nothing_at_all():
    with pytest.raises(ValueError, match="nothing to process"):
        processor()()
    with pytest.raises(ValueError, match="utterances belong to a clip"):
        processor()(text="a", utterances=SAID)


def test_missing_file_and_directory(tmp_path):
    for path in (tmp_path / "nothing.mp4", tmp_path):
        with pytest.raises((MediaError, OSError), match=path.name):
            processor()(text=QUESTION, videos=path)


@pytest.mark.parametrize("name, value", [("windows", "frames"), ("window_unit", "hours"), ("prompt_layout", "mixed")])
def test_unknown_switches(name, value):
    with pytest.raises(ValueError, match=f"{name} must be one of .* got '{value}'"):
        make(**{name: value})


def test_tokenizers_that_do_not_fit():
    config = MicroEmoConfig.from_preset("microemo-tiny", video_token_id=9)
    with pytest.raises(ValueError, match="<video> the id 3, the configuration says 9"):
        MicroEmoProcessor.from_config(config, tiny_tokenizer(), tiny_qformer_tokenizer())
    fitting = processor()
    with pytest.raises(ValueError, match="lacks <audio> and <video>"):
        MicroEmoProcessor(
            fitting.video_processor, fitting.feature_extractor, tiny_qformer_tokenizer(), tiny_qformer_tokenizer()
        )
    with pytest.raises(TypeError, match="video_processor"):
        MicroEmoProcessor(
            fitting.feature_extractor, fitting.feature_extractor, fitting.tokenizer, fitting.qformer_tokenizer
        )


# --- saving, loading, workers --------------------------------------------------------------------------------------


def same(one, other):
    assert set(one) == set(other)
    for name in one:
        assert np.array_equal(np.asarray(one[name]), np.asarray(other[name])), name


def test_round_trip(clip, tmp_path):
    switches = {
        "prompt_layout": "interleaved",
        "timestamp_format": "timechat",
        "max_utterances": 5,
        "system_text": "Look.",
        "chat_template": processor().chat_template.replace("Transcript", "Words"),
    }
    saved = make(config={"num_video_query_tokens": 3, "windows": "utterance"}, **switches)
    saved.save_pretrained(tmp_path)
    assert (tmp_path / "chat_template.jinja").read_text() == switches["chat_template"]
    arguments = {"text": QUESTION, "videos": clip, "utterances": SAID, "num_frames": 3}
    for loaded in (MicroEmoProcessor.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)):
        assert type(loaded) is MicroEmoProcessor
        assert loaded.to_dict() == saved.to_dict() and loaded.chat_template == saved.chat_template
        assert loaded.model_input_names == saved.model_input_names
        same(loaded(**arguments), saved(**arguments))
    changed = MicroEmoProcessor.from_pretrained(tmp_path, prompt_layout="concatenated")
    assert changed.prompt_layout == "concatenated" and changed.timestamp_format == "timechat"


def test_names_of_the_outputs(clip):
    output = processor()(text=QUESTION, videos=clip, num_frames=2)
    assert set(output) <= set(processor().model_input_names)


def test_pickle(clip):
    arguments = {"text": QUESTION, "videos": clip, "utterances": SAID, "num_frames": 3}
    used = make()
    expected = used(**arguments)
    same(pickle.loads(pickle.dumps(used))(**arguments), expected)


WORKERS = """
import sys

import numpy as np
import torch
from datasets import Dataset
from microemo import MicroEmoProcessor

folder, clip, cache = sys.argv[1:]
processor = MicroEmoProcessor.from_pretrained(folder)


class Clips(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        inputs = processor(text=f"Question {index}?", videos=clip, num_frames=2, padding="max_length", max_length=200,
                           return_tensors="pt")
        return {name: value[0] for name, value in inputs.items()}


def encode(row):
    output = processor(text=row["question"], videos=row["video"], num_frames=2)
    return {"input_ids": output["input_ids"][0], "frames": output["frame_mask"].shape[1]}


loaded = list(torch.utils.data.DataLoader(Clips(), batch_size=2, num_workers=2))
rows = Dataset.from_dict({"question": [f"Question {index}?" for index in range(4)], "video": [clip] * 4})
mapped = rows.map(encode, num_proc=2, cache_file_name=cache)
# The parent comes last: a face mesh that it had used could not go on in its children.
for index in range(4):
    expected = Clips()[index]
    for name, value in expected.items():
        assert torch.equal(loaded[index // 2][name][index % 2], value), name
    real = expected["input_ids"][expected["attention_mask"].bool()]
    assert mapped["input_ids"][index] == real.tolist() and mapped["frames"][index] == 2
print("all the same")
"""


def test_workers(clip, run_fresh, tmp_path):
    """`DataLoader(num_workers=2)` and `datasets.map(num_proc=2)`, in a process of their own."""
    pytest.importorskip("datasets")
    make().save_pretrained(tmp_path / "processor")
    done = run_fresh(WORKERS, tmp_path / "processor", clip, tmp_path / "cache.arrow")
    assert done.returncode == 0 and "all the same" in done.stdout, done.stderr


# --- every file of the shared folder -------------------------------------------------------------------------------


def manifest():
    path = CLIPS / "manifest.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@needs_shared
@pytest.mark.parametrize("row", manifest(), ids=lambda row: row["file"])
def test_every_shared_file(row):
    path = CLIPS / row["file"]
    if row["opens"] == "no":
        with pytest.raises(MediaError, match=path.name):
            processor()(text=QUESTION, videos=path)
        return
    subtitles = path.with_suffix(".srt")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        output = processor()(
            text=QUESTION, videos=path, utterances=subtitles if subtitles.exists() else None, num_frames=3
        )
    assert not row["error"] or any("decoded" in str(warning.message) for warning in caught)
    assert ("pixel_values_videos" in output) == bool(row["video_codec"])
    if row["audio"] in ("", "none"):
        assert "input_features" not in output
    elif not row["error"]:
        assert output["audio_segment_mask"].all()
    windows = output["utterance_windows"][0]
    if subtitles.exists():
        assert len(windows) == min(subtitles.read_text().count("-->"), processor().max_utterances)
    assert (windows[:, 0] < windows[:, 1]).all()


def test_a_model_of_few_positions_gets_few_frames():
    assert make(config={"max_frames": 4}).video_processor.num_frames == 4
    assert (
        make(preset="microemo-7b", config={"video_token_id": 3, "audio_token_id": 4}).video_processor.num_frames == 8
    )


def test_a_clip_is_read_once_however_many_rows_are_about_it(clip, silent_clip, monkeypatch):
    read, look = [], MicroEmoVideoProcessor.preprocess

    def counted(self, videos, **kwargs):
        read.extend(videos)
        return look(self, videos, **kwargs)

    monkeypatch.setattr(MicroEmoVideoProcessor, "preprocess", counted)
    clips, texts = [str(clip), str(silent_clip), str(clip)], ["One?", "Two?", "Three?"]
    together = processor()(text=texts, videos=clips, return_tensors="pt")
    assert len(read) == 2
    alone = processor()(text=texts[2], videos=clips[2], return_tensors="pt")
    assert together["clip_index"].tolist() == [0, 1, 0]
    assert together["pixel_values_videos"].shape[0] == 2  # held once, too
    assert "clip_index" not in alone
    for name in ("pixel_values_videos", "region_masks", "input_features"):
        assert torch.equal(together[name][0], alone[name][0]), name
    assert together["audio_segment_mask"].any(1).tolist() == [True, False]
    # Other subtitles make another clip of it.
    said = [[{"start": 0.0, "end": 1.0, "text": "a"}], [{"start": 0.0, "end": 2.0, "text": "b"}]]
    both = processor()(text=texts[:2], videos=clips[::2], utterances=said, return_tensors="pt")
    assert not torch.equal(both["utterance_windows"][0], both["utterance_windows"][1])
