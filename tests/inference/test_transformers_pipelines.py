"""Transformers' own pipelines on a MicroEmo checkpoint: batched equals single."""

import numpy as np
import pytest
import torch
from transformers import pipeline
from transformers.pipelines.base import pad_collate_fn

from microemo import MicroEmoForConditionalGeneration, MicroEmoProcessor
from microemo.publishing.initialize import SHIPPED

QUESTION = {"type": "text", "text": "What does the speaker feel, and why?"}


@pytest.fixture(scope="module")
def shipped():
    return MicroEmoForConditionalGeneration.from_pretrained(SHIPPED).eval(), MicroEmoProcessor.from_pretrained(SHIPPED)


def conversation(clip, *spans, **item) -> list[dict]:
    said = [{"start": start, "end": end, "text": "I know."} for start, end in spans]
    return [{"role": "user", "content": [{"type": "video", "path": str(clip), "utterances": said, **item}, QUESTION]}]


@pytest.fixture(scope="module")
def conversations(make_clip):
    """Clips of different length, with different numbers of utterances; timestamps of different length, too."""

    def make(sound):
        long = make_clip(f"long-{sound}.mp4", times=np.arange(130) / 10, sound=13.0 if sound else None)
        short = make_clip(f"short-{sound}.mp4", times=np.arange(9) / 10, sound=0.9 if sound else None)
        return [conversation(long, (0.5, 4.0), (4.0, 12.5)), conversation(short, (0.1, 0.8))]

    return make


@torch.no_grad()
@pytest.mark.parametrize("sound", [True, False], ids=["with sound", "without sound"])
def test_what_a_pipeline_batches_is_read_as_if_alone(shipped, conversations, sound):
    model, processor = shipped
    options = {"tokenize": True, "return_dict": True, "add_generation_prompt": True, "return_tensors": "pt"}
    alone = [processor.apply_chat_template(one, **options) for one in conversations(sound)]
    assert alone[0]["frame_mask"].shape != alone[1]["frame_mask"].shape
    batch = pad_collate_fn(processor.tokenizer, processor.feature_extractor)([dict(one) for one in alone])
    assert not batch["frame_mask"][1, 0]  # padded on the left
    together = model.generate(
        **batch, max_new_tokens=3, do_sample=False, output_logits=True, return_dict_in_generate=True
    )
    for row, inputs in enumerate(alone):
        single = model.generate(
            **inputs, max_new_tokens=3, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
        for step, logits in enumerate(single.logits):
            torch.testing.assert_close(together.logits[step][row : row + 1], logits, atol=2e-3, rtol=0)


@pytest.mark.parametrize("sound", [True, False], ids=["with sound", "without sound"])
def test_pipelines_answer_in_batches_as_one_by_one(conversations, sound):
    asked = conversations(sound)
    options = {"generate_kwargs": {"max_new_tokens": 8, "do_sample": False}, "return_full_text": False}
    answerer = pipeline("image-text-to-text", model=str(SHIPPED), device="cpu")
    single = [answerer(text=one, **options)[0]["generated_text"] for one in asked]
    batched = [answers[0]["generated_text"] for answers in answerer(text=asked, batch_size=2, **options)]
    assert batched == single


def test_a_clip_with_utterances_and_one_without_are_answered_in_one_batch(conversations):
    with_utterances, other = conversations(True)
    without = [{"role": "user", "content": [{**other[0]["content"][0], "utterances": []}, QUESTION]}]
    options = {"generate_kwargs": {"max_new_tokens": 8, "do_sample": False}, "return_full_text": False}
    answerer = pipeline("image-text-to-text", model=str(SHIPPED), device="cpu")
    asked = [with_utterances, without]
    single = [answerer(text=one, **options)[0]["generated_text"] for one in asked]
    for step in (1, -1):  # what is padded depends on which of them comes first
        batched = answerer(text=asked[::step], batch_size=2, **options)
        assert [answers[0]["generated_text"] for answers in batched] == single[::step]


@torch.no_grad()
@pytest.mark.parametrize("checkpoint", [SHIPPED, SHIPPED.with_name("microemo-small")], ids=lambda folder: folder.name)
def test_clips_with_sound_without_it_and_with_more_of_it_are_batched(make_clip, checkpoint):
    """Whisper's segments of 30 s are as many as the sound needs, and its features have four dimensions."""
    heard = make_clip("heard.mp4", times=np.arange(12) / 10, sound=1.2)
    mute = make_clip("mute.mp4", times=np.arange(12) / 10, sound=None)
    asked = [conversation(heard, (0.2, 0.9)), conversation(mute, (0.3, 0.8)), conversation(mute), conversation(heard)]
    tone = np.sin(np.arange(31 * 16_000) / 20).astype(np.float32) / 4
    asked[3][0]["content"].append({"type": "audio", "audio": tone, "sampling_rate": 16_000})
    model = MicroEmoForConditionalGeneration.from_pretrained(checkpoint).eval()
    processor = MicroEmoProcessor.from_pretrained(checkpoint)
    options = {"tokenize": True, "return_dict": True, "add_generation_prompt": True, "return_tensors": "pt"}
    alone = [dict(processor.apply_chat_template(one, **options)) for one in asked]
    assert not alone[1]["audio_segment_mask"].any() and len({frozenset(one) for one in alone}) == 1
    # As many as there can be: the model reads those that are real.
    assert {len(one["audio_segment_mask"][0]) for one in alone} == {processor.feature_extractor.num_segments}
    expected = torch.cat([model(**one).logits[:, -1] for one in alone])
    together = model(**processor.apply_chat_template(asked, **options)).logits[:, -1]
    torch.testing.assert_close(together, expected, atol=2e-3, rtol=0)
    for order in ([0, 1, 2, 3], [2, 3, 1, 0]):
        join = pad_collate_fn(processor.tokenizer, processor.feature_extractor)
        logits = model(**join([alone[row] for row in order])).logits[:, -1]
        torch.testing.assert_close(logits, expected[order], atol=2e-3, rtol=0)
