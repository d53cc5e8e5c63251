"""Files through the real processor into the model."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForMultimodalLM, AutoProcessor

from microemo import MicroEmoConfig, MicroEmoForConditionalGeneration, MicroEmoProcessor
from microemo.inference.emotion_pipeline import EmotionPipeline
from microemo.publishing.initialize import initialize, tiny_qformer_tokenizer, tiny_tokenizer

SWITCHES = [
    {},
    {"use_global_window": False},
    {"windows": "none", "use_utterance_audio": False},
    {"windows": "sliding", "window_size": 3, "window_stride": 2, "use_utterance_audio": False},
    {"use_utterance_audio": False},
    {"keep_timestamp_tokens": True},
    {"use_frame_timestamps": False, "use_local_clue_attention": False},
    {"local_view": "frame", "share_video_qformer": True},
    {"windows": "none"},
    {"windows": "sliding", "window_size": 2.0, "window_stride": 2.0, "window_unit": "seconds"},
    {"num_regions": 1},
]
MADE = {}


def pair(index: int, layout: str = "concatenated") -> tuple[MicroEmoProcessor, MicroEmoForConditionalGeneration]:
    """Processor and model of one configuration."""
    if (index, layout) not in MADE:
        config = MicroEmoConfig.from_preset("microemo-tiny", **SWITCHES[index])
        torch.manual_seed(0)
        processor = MicroEmoProcessor.from_config(
            config, tiny_tokenizer(), tiny_qformer_tokenizer(), prompt_layout=layout
        )
        MADE[index, layout] = processor, MicroEmoForConditionalGeneration(config).eval()
    return MADE[index, layout]


@st.composite
def clips(draw):
    """Decoded frames, precomputed landmarks (a face in some frames) and utterances of one clip."""
    count = draw(st.integers(1, 12))
    cuts = sorted(draw(st.sets(st.integers(0, 40), max_size=8)))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    landmarks = rng.uniform(0.3, 0.7, (count, 478, 3)).astype(np.float32)
    landmarks[rng.random(count) < 0.3] = np.nan
    return {
        "video": rng.integers(0, 255, (count, 48, 64, 3), dtype=np.uint8),
        "landmarks": landmarks,
        "utterances": [
            {"start": start / 10, "end": end / 10, "text": "well"} for start, end in itertools.pairwise(cuts)
        ],
        "audio": rng.standard_normal(draw(st.integers(1, 40000))).astype(np.float32) * 0.1,
    }


@settings(max_examples=40, deadline=None)
@given(
    batch=st.lists(clips(), min_size=1, max_size=3),
    index=st.integers(0, len(SWITCHES) - 1),
    layout=st.sampled_from(["concatenated", "interleaved"]),
    data=st.data(),
)
@pytest.mark.filterwarnings("ignore")
def test_token_counts_match_the_features(batch, index, layout, data):
    """The model itself refuses any other number, row by row."""
    if not SWITCHES[index].get("use_global_window", True):
        batch = [clip for clip in batch if clip["utterances"]]
        if not batch:
            return
    processor, model = pair(index, layout)
    conversations = []
    for clip in batch:
        content = [
            {
                "type": "video",
                "video": clip["video"],
                "landmarks": clip["landmarks"],
                "utterances": clip["utterances"],
            },
            {"type": "audio", "audio": clip["audio"], "sampling_rate": 16000},
            {"type": "text", "text": "And what of "},
        ]
        if processor.windows == "utterance" and clip["utterances"] and data.draw(st.booleans()):
            content.append({"type": "utterance", "index": len(clip["utterances"])})
        conversations.append([{"role": "user", "content": content}])
    try:
        inputs = processor.apply_chat_template(
            conversations, tokenize=True, return_dict=True, add_generation_prompt=True, return_tensors="pt"
        )
    except ValueError as error:
        assert "no window is left" in str(error)
        return
    with torch.no_grad():
        outputs = model(**inputs)
    assert outputs.logits.isfinite().all()
    for token_id, features in ((3, outputs.video_hidden_states), (4, outputs.audio_hidden_states)):
        assert [len(row) for row in features] == (inputs["input_ids"] == token_id).sum(dim=1).tolist()


@pytest.mark.filterwarnings("ignore")
@torch.no_grad()
def test_a_clip_alone_and_in_a_batch_gives_the_same_logits(demo_clip, make_clip):
    processor, model = pair(0)
    files = [
        (str(demo_clip), str(demo_clip.with_suffix(".srt"))),
        (str(make_clip("short.mp4", times=np.arange(5) / 10, sound=None)), None),
        (str(make_clip("wide.mp4", sound=1.5)), [{"start": 0.2, "end": 0.6, "text": "Oh."}]),
        (str(make_clip("tone.mka", times=[], sound=2.5)), [{"start": 0.5, "end": 1.0, "text": "Hm."}]),
    ]
    text = "What does the speaker feel, and why?"
    together = processor(
        text=[text] * len(files),
        videos=[video for video, _ in files],
        utterances=[said for _, said in files],
        return_tensors="pt",
    )
    assert together["frame_mask"].any(dim=1).tolist() == [True, True, True, False]
    assert together["audio_segment_mask"].any(dim=1).tolist() == [True, False, True, True]
    logits = model(**together).logits
    for row, (video, said) in enumerate(files):
        alone = model(**processor(text=text, videos=video, utterances=said, return_tensors="pt")).logits[0]
        torch.testing.assert_close(logits[row, -len(alone) :], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("index, seen", [(8, [0, 0, 0]), (9, [3, 1, 1])], ids=["none", "sliding"])
@torch.no_grad()
def test_sound_has_windows_of_its_own(demo_clip, make_clip, index, seen):
    """Utterances over the sound whatever the frames' windows are: of a whole clip, a silent one, one without words."""
    processor, model = pair(index)
    said = str(demo_clip.with_suffix(".srt"))
    arguments = {
        "text": ["Why?"] * 3,
        "videos": [str(demo_clip), str(make_clip("silent.mp4", sound=None)), str(make_clip("wordless.mp4"))],
        "utterances": [said, [{"start": 0.1, "end": 0.6, "text": "Oh."}], None],
    }
    inputs = processor(**arguments, return_tensors="pt", return_metadata=True)
    count = len(inputs.pop("utterances")[0])
    for name in ("video_metadata", "audio_segment_times", "prompts"):
        inputs.pop(name)
    assert count > 1
    assert inputs["utterance_windows"].shape == (3, max(seen), 2) and inputs["audio_windows"].shape == (3, count, 2)
    assert (inputs["utterance_windows"] >= 0).all(-1).sum(1).tolist() == seen
    assert (inputs["audio_windows"] >= 0).all(-1).sum(1).tolist() == [count, 0, 0]
    n, m = processor.num_video_query_tokens, processor.num_audio_query_tokens
    assert (inputs["input_ids"] == 3).sum(1).tolist() == [n * (1 + windows) for windows in seen]
    assert (inputs["input_ids"] == 4).sum(1).tolist() == [m * (1 + count), 0, m]

    outputs = model(**inputs)
    assert [len(row) for row in outputs.audio_hidden_states] == [m * (1 + count), 0, m]
    for row in range(3):
        alone = model(**processor(**{name: values[row] for name, values in arguments.items()}, return_tensors="pt"))
        length = alone.logits.shape[1]
        torch.testing.assert_close(outputs.logits[row, -length:], alone.logits[0], atol=1e-5, rtol=0)
    assert model.generate(**inputs, max_new_tokens=2, min_new_tokens=2).shape == (3, inputs["input_ids"].shape[1] + 2)


def test_a_processor_of_other_switches_is_refused(demo_clip):
    """By counts in the model's forward, by name in `check_config`, which the pipeline calls."""
    said = str(demo_clip.with_suffix(".srt"))
    for ours, its, counts_differ in ((4, 0, True), (0, 4, True), (2, 0, False), (3, 0, False), (7, 0, False)):
        processor, model = pair(ours)[0], pair(its)[1]
        processor.check_config(pair(ours)[1].config)
        changed = (SWITCHES[ours] | SWITCHES[its]).keys() - {"share_video_qformer", "window_size", "window_stride"}
        with pytest.raises(ValueError, match="the processor does not fit the model") as error:
            EmotionPipeline(model, processor)
        assert all(f"{name} is" in str(error.value) for name in changed), error.value
        if counts_differ:
            inputs = processor(text="Why?", videos=str(demo_clip), utterances=said, return_tensors="pt")
            with pytest.raises(ValueError, match="Audio features and audio tokens do not match"):
                model(**inputs)


@torch.no_grad()
def test_the_readme_example(demo_clip, tmp_path):
    checkpoint = initialize("microemo-tiny", tmp_path / "checkpoint")
    processor = MicroEmoProcessor.from_pretrained(checkpoint)
    model = MicroEmoForConditionalGeneration.from_pretrained(checkpoint, dtype="auto", device_map="auto")
    inputs = processor(
        text="What does the speaker feel, and why?",
        videos=str(demo_clip),
        utterances=str(demo_clip.with_suffix(".srt")),
        return_tensors="pt",
    )
    answer = processor.batch_decode(
        model.generate(**inputs.to(model.device), max_new_tokens=8), skip_special_tokens=True
    )[0]
    assert isinstance(answer, str)

    # The same through the Auto classes, saved again on the way.
    processor.save_pretrained(tmp_path / "again")
    model.save_pretrained(tmp_path / "again")
    auto = AutoModelForMultimodalLM.from_pretrained(tmp_path / "again")
    again = AutoProcessor.from_pretrained(tmp_path / "again")(
        text="What does the speaker feel, and why?",
        videos=str(demo_clip),
        utterances=str(demo_clip.with_suffix(".srt")),
        return_tensors="pt",
    )
    assert inputs.keys() == again.keys()
    assert all(torch.equal(inputs[name].cpu(), again[name]) for name in inputs)
    torch.testing.assert_close(auto(**again).logits, model(**inputs).logits.cpu(), atol=1e-6, rtol=0)


@torch.no_grad()
def test_generate_from_files_with_every_way_of_decoding(demo_clip):
    processor, model = pair(0)
    inputs = processor(
        text=["Why?", "What?"],
        videos=[str(demo_clip)] * 2,
        utterances=[str(demo_clip.with_suffix(".srt"))] * 2,
        return_tensors="pt",
    )
    for options in ({"do_sample": False}, {"do_sample": True}, {"num_beams": 2}):
        output = model.generate(**inputs, max_new_tokens=4, min_new_tokens=4, **options)
        assert output.shape == (2, inputs["input_ids"].shape[1] + 4)
