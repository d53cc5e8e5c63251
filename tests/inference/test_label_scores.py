"""Scores of emotion words: sequence probabilities, shares over the vocabulary, and the calibration file."""

import json

import numpy as np
import pytest
import torch

from microemo.evaluation.label_extraction import LABELS
from microemo.inference import label_scores
from microemo.inference.held_clip import HeldClip
from microemo.inference.label_scores import (
    CALIBRATION,
    MOST,
    Calibration,
    label_log_probabilities,
    labels_said,
    open_vocabulary,
    score_labels,
)
from microemo.inference.pipeline_inputs import UTTERANCE_QUESTION
from microemo.processing.clip_reader import ClipInput

# Words of several tokens, and one that is the beginning of another.
WORDS = ["interest", "interested", "joy", "joyfulness", "self-consciousness", "naïveté"]
DESCRIPTION = "The brows go up\n"


@pytest.fixture(scope="module")
def inputs(tiny, faceless_clip):
    lines = [{"start": 0.0, "end": 2.0, "text": "Oh."}]
    held = HeldClip(tiny.model, tiny.processor, ClipInput(str(faceless_clip), utterances=lines))
    question = [{"type": "text", "text": f"{UTTERANCE_QUESTION}\n"}, {"type": "utterance", "index": 1}]
    return held.prompts([(held.given(), question)])


def ids(pipeline, text: str) -> list[int]:
    return pipeline.processor.tokenizer(text, add_special_tokens=False)["input_ids"]


def teacher_forced(pipeline, inputs, description: str, word: str) -> float:
    """The log-probability of a word and of its end, by one forward over the whole text without a cache."""
    before = ids(pipeline, f"{description}{LABELS}")
    of_word = ids(pipeline, f"{description}{LABELS} {word}")[len(before) :]
    comma = ids(pipeline, f"{description}{LABELS} {word},")[len(before) + len(of_word)]
    text = torch.cat([inputs["input_ids"], torch.tensor([[*before, *of_word]])], dim=1)
    media = {name: value for name, value in inputs.items() if name not in ("input_ids", "attention_mask")}
    with torch.inference_mode():
        logits = pipeline.model(input_ids=text, use_cache=False, **media).logits[0].double().log_softmax(dim=-1)
    count = len(of_word)
    of_tokens = sum(float(logits[place - count - 1, token]) for place, token in enumerate(of_word))
    end = torch.logsumexp(logits[-1, [pipeline.processor.tokenizer.eos_token_id, comma]], dim=0)
    return of_tokens + float(end)


def test_the_words_have_several_tokens_and_one_begins_another(tiny):
    sizes = [len(ids(tiny, f" {word}")) for word in WORDS]
    assert max(sizes) > 2 and len(set(sizes)) > 1


def test_log_probabilities_are_those_of_a_forward_over_the_whole_text(tiny, inputs, monkeypatch):
    monkeypatch.setattr(label_scores, "_descriptions", lambda *_: {DESCRIPTION: 0.0})
    found = label_log_probabilities(tiny.model, tiny.processor, inputs, WORDS)
    expected = torch.tensor([teacher_forced(tiny, inputs, DESCRIPTION, word) for word in WORDS])
    torch.testing.assert_close(found.float(), expected, atol=1e-4, rtol=0)


def test_descriptions_count_by_their_probability(tiny, inputs, monkeypatch):
    shares = {DESCRIPTION: np.log(0.75), "The voice is flat\n": np.log(0.25)}
    monkeypatch.setattr(label_scores, "_descriptions", lambda *_: shares)
    found = label_log_probabilities(tiny.model, tiny.processor, inputs, WORDS).exp()
    expected = [
        sum(np.exp(weight + teacher_forced(tiny, inputs, text, word)) for text, weight in shares.items())
        for word in WORDS
    ]
    torch.testing.assert_close(found.double(), torch.tensor(expected), atol=1e-6, rtol=1e-4)


def test_a_word_scores_the_same_in_any_vocabulary(tiny, inputs):
    together = label_log_probabilities(tiny.model, tiny.processor, inputs, WORDS, max_new_tokens=4)
    backwards = label_log_probabilities(tiny.model, tiny.processor, inputs, WORDS[::-1], max_new_tokens=4)
    alone = label_log_probabilities(tiny.model, tiny.processor, inputs, WORDS[:1], max_new_tokens=4)
    torch.testing.assert_close(together, backwards.flip(0), atol=1e-4, rtol=0)
    torch.testing.assert_close(together[:1], alone, atol=1e-4, rtol=0)
    assert (together <= 0).all()


def test_descriptions_are_a_distribution(tiny, inputs):
    inputs = inputs.to(tiny.model.device)
    media = {name: value for name, value in inputs.items() if name not in ("input_ids", "attention_mask")}
    with torch.inference_mode():
        encodings = tiny.model.model.encode_media(**media)
        found = label_scores._descriptions(tiny.model, tiny.processor, inputs, encodings, {"max_new_tokens": 4})
    assert sum(np.exp(list(found.values()))) == pytest.approx(1)
    assert all(text.endswith("\n") for text in found)


def test_the_description_is_what_stands_before_the_labels():
    before = label_scores._before_labels
    assert before(f"The brows go up\n{LABELS} joy, hope") == "The brows go up\n"
    assert before("No list.  ") == "No list.\n"
    assert before("") == "\n"


def test_shares_add_up_and_the_labels_that_are_said_stay():
    words = [f"word{number}" for number in range(8)] + ["joy"]
    scores = torch.linspace(0, -8, 9)
    labels = score_labels(scores, words, f"She smiles\n{LABELS} joy")
    assert [one.label for one in labels] == [*words[:MOST], "joy"]
    assert [one.said for one in labels] == [False] * MOST + [True]
    every = score_labels(scores, words, f"{LABELS} {', '.join(words)}")
    assert sum(one.score for one in every) == pytest.approx(1, abs=1e-5)
    assert [one.score for one in every] == sorted((one.score for one in every), reverse=True)


def test_a_higher_temperature_is_less_sure():
    scores, words = torch.tensor([-1.0, -2.0]), ["joy", "anger"]
    best = [score_labels(scores, words, "", temperature)[0].score for temperature in (0.5, 1.0, 4.0)]
    assert best == sorted(best, reverse=True)
    assert best[1] == pytest.approx(1 / (1 + np.exp(-1)), abs=1e-6)


def test_very_improbable_words_give_numbers():
    labels = score_labels(torch.tensor([-1e4, -2e4]), ["joy", "anger"], "")
    assert [one.score for one in labels] == [1.0, 0.0]


def test_what_an_answer_says():
    assert labels_said(f"The brows go up\n{LABELS} joy, doubt") == ["joy", "doubt"]
    assert labels_said("She is sad and not angry.") == ["sad"]
    assert labels_said("") == []


def test_the_open_vocabulary_has_each_word_once():
    words = open_vocabulary()
    assert len(words) == len(set(words)) > 100 and all(words) and "joy" in words


def test_a_calibration_is_read_from_the_folder(tmp_path):
    assert Calibration.of(tmp_path) is None and Calibration.of("") is None
    (tmp_path / CALIBRATION).write_text(json.dumps({"vocabulary": ["joy", "naïveté"], "temperature": 2}))
    assert Calibration.of(tmp_path) == Calibration(("joy", "naïveté"), 2.0)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", "{", '{"vocabulary": ["joy"]}', '{"vocabulary": [], "temperature": 1}']
    + [
        f'{{"vocabulary": ["joy"], "temperature": {value}}}'
        for value in ("0", "-1", '"warm"', "null", "NaN", "Infinity")
    ]
    + ['{"vocabulary": "joy", "temperature": 1}', '{"vocabulary": [""], "temperature": 1}'],
)
def test_a_broken_calibration_is_named(content, tmp_path):
    (tmp_path / CALIBRATION).write_text(content)
    with pytest.raises(ValueError, match=CALIBRATION):
        Calibration.of(tmp_path)


def test_a_calibration_with_a_byte_order_mark(tmp_path):
    (tmp_path / CALIBRATION).write_text('{"vocabulary": ["joy"], "temperature": 1}', encoding="utf-8-sig")
    assert Calibration.of(tmp_path) == Calibration(("joy",), 1.0)
