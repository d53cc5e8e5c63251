"""Evidence is the change of the answer's probability when a part of the clip is taken away."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from microemo.evaluation.label_extraction import LABELS
from microemo.inference.evidence import PARTS, find_claims, find_evidence
from microemo.inference.held_clip import HeldClip
from microemo.inference.pipeline_inputs import UTTERANCE_QUESTION
from microemo.processing.clip_reader import ClipInput

ANSWER = f"The brows go up, and the voice sounds flat\n{LABELS} joy"
# Sentences of MicroEmo and of other models, and what their claims are about.
SENTENCES = {
    "The brows go up, and the voice is lively.": ["brows", "sound"],
    "In utterance 2 the corners of the mouth go up (mouth).": ["mouth"],
    "In the video, the man's eyebrows are furrowed.": ["brows"],
    "His eyes are wide open. His lips are pressed together.": ["eyes", "mouth"],
    "She smiles while the voice trembles.": ["mouth", "sound"],
    "She smiles, but the tone is cold.": ["mouth", "sound"],
    "The facial expression of the speaker shows a frown.": ["brows"],
    "The facial expression is tense.": ["picture"],
    "Her gaze wanders; her nostrils flare.": ["eyes", "nose"],
    "The cheeks are raised.": ["cheeks"],
    "The chin trembles.": ["mouth"],
    "Wrinkles appear on the forehead.": ["brows"],
    "A wrinkle between brows and eyes deepens.": ["brows"],
    "The speaker says that he is tired.": ["words"],
    "The subtitle content reads: thank you.": ["words"],
    "The pitch rises and falls.": ["sound"],
    "One hears laughter.": ["sound"],
    "Face and voice both are calm.": [],
    "The speaker feels joy.": [],
    "labels: joy, anger": [],
    "": [],
    "   ": [],
    "...": [],
    "Er lächelt 😀, und die Stimme ist laut.": [],
    "THE LIPS ARE PRESSED!": ["mouth"],
    "The eyes look away\nThe voice is loud\nlabels: fear": ["eyes", "sound"],
    "He raised the eyelids , and the jaw drops .": ["eyes", "mouth"],
}


@pytest.mark.parametrize("sentence", SENTENCES)
def test_claims_are_clauses_about_one_part(sentence):
    claims = find_claims(sentence)
    assert [about for *_, about in claims] == SENTENCES[sentence]
    assert all(0 <= start < end <= len(sentence) and sentence[start:end].strip() for start, end, _ in claims)
    assert all(one[1] <= other[0] for one, other in pairwise(claims))


def test_a_claim_begins_behind_the_name_of_its_utterance():
    text = "In utterance 12, the brows go up. At the clip the lips part"
    assert [text[start:end] for start, end, _ in find_claims(text)] == ["the brows go up.", "the lips part"]


def hold(pipeline, clip, utterances=None) -> HeldClip:
    return HeldClip(pipeline.model, pipeline.processor, ClipInput(str(clip), utterances=utterances))


def lines(count: int, text: str = "Oh.", seconds: float = 1.8) -> list[dict]:
    length = seconds / count
    return [{"start": length * number, "end": length * (number + 1), "text": text} for number in range(count)]


def ask(number: int | None) -> list[dict]:
    cited = [] if number is None else [{"type": "utterance", "index": number}]
    return [{"type": "text", "text": f"{UTTERANCE_QUESTION}\n"}, *cited]


def look(pipeline, held: HeldClip, answer: str = ANSWER, number: int | None = 1, emotions=("joy",)):
    return find_evidence(pipeline.model, pipeline.processor, held, ask(number), answer, number, emotions)


def kinds(found) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for one in found.evidence:
        names.setdefault(one.kind, []).append(one.name)
    return {kind: sorted(of_kind) for kind, of_kind in names.items()}


@pytest.fixture(scope="module")
def demo(tiny, demo_clip) -> HeldClip:
    return hold(tiny, demo_clip, str(demo_clip.with_suffix(".srt")))


def test_a_clip_with_everything_has_every_kind_of_evidence(tiny, demo):
    found = look(tiny, demo, number=2)
    of_kind = kinds(found)
    assert of_kind["modality"] == ["picture", "sound", "words"] and of_kind["window"] == ["1", "2", "3"]
    assert of_kind["region"] and set(of_kind["region"]) <= set(PARTS)
    weights = [one.weight for one in found.evidence]
    assert np.isfinite(weights).all() and any(weights)
    for kind in of_kind:
        of_this = [one.weight for one in found.evidence if one.kind == kind]
        assert of_this == sorted(of_this, reverse=True)
    assert {claim.about for claim in found.claims} <= {"brows", "sound"}
    assert all(claim.text in ANSWER for claim in found.claims)


@pytest.mark.parametrize("without", ["picture", "sound", "words"])
def test_a_weight_is_the_difference_of_two_forwards(tiny, demo, without):
    """The same number, of one variant in a batch of its own without padding."""
    weights = {one.name: one.weight for one in look(tiny, demo, answer="She feels joy.", number=2).evidence}
    scores = []
    for given in (demo.given(), replace(demo.given(), **{without: False})):
        inputs = demo.prompts([(given, ask(2))], ["She feels joy."])
        is_answer = inputs.pop("assistant_masks")[0].bool()
        tokens = inputs["input_ids"][0]
        with torch.inference_mode():
            logits = tiny.model(**inputs).logits[0].log_softmax(dim=-1)
        of_tokens = logits[:-1].gather(-1, tokens[1:, None])[:, 0][is_answer[1:]]
        texts = [tiny.processor.decode(tokens[is_answer][: end + 1]) for end in range(int(is_answer.sum()))]
        # The tokens that add to the text what lies in the word "joy".
        ends = [len(text) for text in texts]
        start = texts[-1].index("joy")
        counts = [end > start and before < start + len("joy") for before, end in zip([0, *ends], ends, strict=False)]
        scores.append(float(of_tokens[torch.tensor(counts)].sum()))
    assert weights[without] == pytest.approx(scores[0] - scores[1], abs=1e-3)


def test_a_clip_without_sound(tiny, silent_clip):
    found = look(tiny, hold(tiny, silent_clip, lines(2)))
    assert kinds(found) == {"modality": ["words"], "window": ["1", "2"]}
    assert found.claims == []  # neither the brows nor the voice can be taken away


def test_a_clip_of_sound_alone(tiny, sound_clip):
    found = look(tiny, hold(tiny, sound_clip, lines(2)))
    assert kinds(found) == {"modality": ["words"], "window": ["1", "2"]}
    assert found.claims == []
    assert look(tiny, hold(tiny, sound_clip, []), number=None).evidence == []


def test_a_clip_without_a_face_has_no_regions(tiny, faceless_clip):
    found = look(tiny, hold(tiny, faceless_clip, lines(2)))
    assert kinds(found) == {"modality": ["picture", "sound", "words"], "window": ["1", "2"]}
    assert [claim.about for claim in found.claims] == ["sound"]


def test_a_clip_without_words(tiny, faceless_clip):
    assert kinds(look(tiny, hold(tiny, faceless_clip, lines(2, ""))))["modality"] == ["picture", "sound"]
    found = look(tiny, hold(tiny, faceless_clip, []), number=None)
    assert kinds(found) == {"modality": ["picture", "sound"]}


def test_one_utterance_alone_has_no_window(tiny, faceless_clip):
    assert "window" not in kinds(look(tiny, hold(tiny, faceless_clip, lines(1))))


def test_the_window_of_another_utterance_counts_for_itself(tiny, demo):
    """The asked utterance stands in the prompt twice; that of another one only once."""
    of_first = {one.name: one.weight for one in look(tiny, demo, number=1).evidence if one.kind == "window"}
    of_third = {one.name: one.weight for one in look(tiny, demo, number=3).evidence if one.kind == "window"}
    assert set(of_first) == {"1", "2"} and set(of_third) == {"2", "3"}, "it and its neighbours"
    assert of_first["2"] != of_third["2"]


@pytest.mark.parametrize("answer", ["", " ", "joy", "Ünïcödé 😀 joy", "\njoy\n\n", "joy, joyful, Joy! " * 20])
def test_odd_answers(tiny, faceless_clip, answer):
    found = look(tiny, hold(tiny, faceless_clip, lines(2)), answer)
    weights = [one.weight for one in found.evidence]
    assert len(weights) == 5 and np.isfinite(weights).all()
    assert any(weights) == ("joy" in answer)


def test_without_emotions_and_claims_nothing_is_moved(tiny, faceless_clip):
    found = look(tiny, hold(tiny, faceless_clip, lines(2)), "Nobody is there.", emotions=())
    assert found.claims == [] and not any(one.weight for one in found.evidence)


def test_an_emotion_is_a_whole_word_and_may_hold_signs(tiny, faceless_clip):
    held = hold(tiny, faceless_clip, lines(2))
    assert not any(one.weight for one in look(tiny, held, "joyful", emotions=["joy"]).evidence)
    assert any(one.weight for one in look(tiny, held, "self-pity (a.b)", emotions=["self-pity", "a.b"]).evidence)
