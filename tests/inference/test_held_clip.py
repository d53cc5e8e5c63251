"""A held clip stands for its file: prompts, features and answers are those of the file."""

from dataclasses import replace

import pytest
import torch

from microemo.inference.held_clip import Given, HeldClip
from microemo.inference.pipeline_inputs import UTTERANCE_QUESTION
from microemo.processing.clip_reader import ClipInput, ClipReader

QUESTION = [{"type": "text", "text": f"{UTTERANCE_QUESTION}\n"}, {"type": "utterance", "index": 1}]
ASK_CLIP = [{"type": "text", "text": "Why?"}]
LINES = [{"start": 0.0, "end": 1.0, "text": 'ünï <b>"quoted"</b>, 你好'}, {"start": 1.0, "end": 1.8, "text": "No."}]


def hold(pipeline, clip, utterances=None, **others) -> HeldClip:
    return HeldClip(pipeline.model, pipeline.processor, ClipInput(clip, utterances=utterances, **others))


def process(pipeline, media: list[dict], question: list[dict]):
    return pipeline.processor.apply_chat_template(
        [[{"role": "user", "content": [*media, *question]}]],
        tokenize=True,
        return_dict=True,
        add_generation_prompt=True,
        return_tensors="pt",
    )


@pytest.fixture(scope="module")
def demo(tiny, demo_clip) -> HeldClip:
    return hold(tiny, str(demo_clip), str(demo_clip.with_suffix(".srt")))


def test_answers_are_those_of_by_utterance(tiny, demo, demo_clip):
    questions = [[QUESTION[0], {"type": "utterance", "index": number}] for number in (1, 2, 3)]
    answers = tiny.generate_texts(demo.prompts([(demo.given(), items) for items in questions]), do_sample=False)
    expected = tiny.by_utterance(str(demo_clip), str(demo_clip.with_suffix(".srt")), do_sample=False)
    assert answers == [one["description"] for one in expected]


@pytest.mark.parametrize("lacks", ["nothing", "picture", "sound", "words", "picture and words"])
def test_a_prompt_without_a_part_is_that_of_a_clip_processed_without_it(tiny, demo, demo_clip, lacks):
    given = Given(picture="picture" not in lacks, sound=lacks != "sound", words="words" not in lacks)
    utterances = [
        {"start": one.start, "end": one.end, "text": one.text if given.words else ""} for one in demo.utterances
    ]
    name = "video" if given.picture else "audio"
    media = [{"type": name, "path": str(demo_clip), "utterances": utterances}]
    media += [] if given.sound else [{"type": "audio", "audio": False}]
    inputs, expected = demo.prompts([(given, QUESTION)]), process(tiny, media, QUESTION)
    assert inputs["input_ids"].tolist() == expected["input_ids"].tolist()
    assert ("vision_features" in inputs) == given.picture and ("audio_features" in inputs) == given.sound
    with torch.inference_mode():
        logits = tiny.model(**inputs).logits
        torch.testing.assert_close(logits, tiny.model(**expected).logits, atol=1e-4, rtol=1e-4)


def test_prompts_of_a_batch_are_those_of_single_rows(tiny, demo):
    variants = [demo.given(), replace(demo.given(), sound=False), replace(demo.given(), picture=False)]
    with torch.inference_mode():
        together = tiny.model(**demo.prompts([(given, QUESTION) for given in variants])).logits[:, -1]
        alone = [tiny.model(**demo.prompts([(given, QUESTION)])).logits[0, -1] for given in variants]
    torch.testing.assert_close(together, torch.stack(alone), atol=1e-4, rtol=1e-4)


def test_features_are_those_that_the_model_computes_itself(tiny, faceless_clip, sound_clip, silent_clip):
    for clip in (faceless_clip, sound_clip, silent_clip):
        held = hold(tiny, str(clip), LINES)
        name = "audio" if clip == sound_clip else "video"
        expected = process(tiny, [{"type": name, "path": str(clip), "utterances": LINES}], ASK_CLIP)
        inputs = held.prompts([(held.given(), ASK_CLIP)])
        text = ("input_ids", "attention_mask")
        media = [{key: value for key, value in one.items() if key not in text} for one in (inputs, expected)]
        with torch.inference_mode():
            ours, theirs = (tiny.model.model.encode_media(**one) for one in media)
        assert ours.keys() == theirs.keys() != set()
        for modality, output in ours.items():
            for one, other in zip(output.pooler_output, theirs[modality].pooler_output, strict=True):
                torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_sound_alone_has_no_picture_and_needs_its_sound(tiny, sound_clip):
    held = hold(tiny, str(sound_clip), LINES)
    assert held.given() == Given(picture=False)
    assert "vision_features" not in held.prompts([(held.given(), ASK_CLIP)])
    with pytest.raises(ValueError, match="needs the picture or the sound"):
        held.prompts([(Given(sound=False), ASK_CLIP)])


def test_a_silent_clip_without_utterances(tiny, silent_clip):
    held = hold(tiny, str(silent_clip), [])
    assert held.utterances == [] and held.given() == Given(sound=False, words=False)
    assert len(tiny.generate_texts(held.prompts([(held.given(), ASK_CLIP)]), do_sample=False)) == 1
    with pytest.raises(ValueError, match="needs the picture or the sound"):
        held.prompts([(Given(picture=False), ASK_CLIP)])


def test_utterances_without_words_are_no_words(tiny, faceless_clip):
    held = hold(tiny, str(faceless_clip), [{"start": 0.0, "end": 1.0, "text": ""}])
    assert held.given() == Given(words=False)


def test_answers_in_a_prompt_are_marked(tiny, faceless_clip):
    held = hold(tiny, str(faceless_clip), LINES)
    inputs = held.prompts([(held.given(), QUESTION)] * 2, ["Glad.", "Not glad at all."])
    marked = [ids[mask.bool()] for ids, mask in zip(inputs["input_ids"], inputs["assistant_masks"], strict=True)]
    texts = [tiny.processor.decode(ids, skip_special_tokens=True).strip() for ids in marked]
    assert texts == ["Glad.", "Not glad at all."]


def test_the_processor_keeps_its_own_reader(tiny, faceless_clip):
    hold(tiny, str(faceless_clip)).prompts([(Given(words=False), ASK_CLIP)])
    assert type(tiny.processor.clip_reader) is ClipReader
