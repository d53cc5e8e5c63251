"""Scores of generated answers: the same answers as one question at a time gives, and an exact idea of right."""

import copy

import pytest
import torch
from transformers import GenerationConfig

from microemo import MicroEmoConfig, MicroEmoForConditionalGeneration
from microemo.evaluation.label_extraction import labels_of_answer
from microemo.training.data import load_table, to_conversation
from microemo.training.feature_cache import FeatureCache
from microemo.training.from_scratch.dialogue_scores import accuracy, answer_utterance_questions
from microemo.training.synthetic.synthetic_dialogues import CITATIONS, TABLE, cite_as, read_truth

EMOTION = "joy"


@pytest.mark.parametrize(
    "answer, labels",
    [
        ("In utterance 1 the brows draw together (glabella): anger.\nLabels: anger", ["anger"]),
        ("Labels: joy, sadness ,  calm ", ["joy", "sadness", "calm"]),
        ("Labels: joy\nIt changes. Labels: calm", ["calm"]),
        ("Labels: ", [""]),
        ("joy", []),
        ("labels: joy", []),
        ("", []),
    ],
)
def test_labels_of_an_answer(answer, labels):
    assert labels_of_answer(answer) == labels


@pytest.fixture(scope="module")
def rows(corpus):
    return load_table(corpus / TABLE, "dev").to_list() + load_table(corpus / TABLE, "test_unseen").to_list()


@pytest.fixture(scope="module")
def cache(world, rows, tmp_path_factory):
    cache = FeatureCache(tmp_path_factory.mktemp("clips"), world.processor)
    assert cache.add(rows, progress=False) == {}
    return cache


def random_model(checkpoint, **config_overrides) -> MicroEmoForConditionalGeneration:
    """Weights so wide that other tokens get other answers; with tied embeddings it would say one word for ever."""
    config = MicroEmoConfig.from_pretrained(checkpoint, **config_overrides)
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = False
    for part in ("text_config", "video_qformer_config", "audio_qformer_config", "image_qformer_config"):
        getattr(config, part).initializer_range = 0.15
    torch.manual_seed(0)
    return MicroEmoForConditionalGeneration(config).eval()


@pytest.fixture(scope="module")
def model(world):
    return random_model(world.checkpoint)


def asked_alone(model, processor, rows, truth, citation, length):
    """The plain way: each question with its clip through the chat template and `generate`."""
    answers = []
    for row in rows:
        known = truth[row["name"]]
        messages = cite_as(row["messages"], known["utterances"], citation)
        for turn, question in zip(known["turns"], messages[::2], strict=True):
            if turn["kind"] == "utterance":
                inputs = processor.apply_chat_template(
                    to_conversation({**row, "messages": [question]}),
                    tokenize=True,
                    return_dict=True,
                    add_generation_prompt=True,
                    return_tensors="pt",
                )
                tokens = model.generate(**inputs, max_new_tokens=length, do_sample=False)
                answer = processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
                answers.append((row["name"], turn["utterance"], answer.strip()))
    return answers


@pytest.mark.parametrize("citation", CITATIONS)
def test_answers_are_those_of_one_question_at_a_time(model, world, cache, corpus, rows, citation):
    truth = read_truth(corpus)
    answered = answer_utterance_questions(
        model, cache.reader(), rows, truth, citation, clips_at_once=2, max_new_tokens=6, progress=False
    )
    expected = asked_alone(model, world.processor, rows, truth, citation, 6)
    assert [(one["clip"], one["utterance"], one["answer"]) for one in answered] == expected
    answers = [answer for *_, answer in expected]
    assert len(set(answers)) > len(answers) / 2, "random weights tell the questions apart"
    assert len(answered) == sum(len(truth[row["name"]]["utterances"]) for row in rows)
    for one in answered:
        said = truth[one["clip"]]["utterances"][one["utterance"] - 1]
        assert (one["expected"], one["unseen"]) == (said["emotion"], said["unseen"])
        assert one["split"] == truth[one["clip"]]["split"] and one["right"] is False
    assert any(one["unseen"] for one in answered) and not all(one["unseen"] for one in answered)


@pytest.mark.parametrize(
    "config_overrides, citation",
    [
        ({"use_global_window": False}, "tokens"),
        ({"use_utterance_audio": False}, "tokens"),
        ({"windows": "none"}, "index"),
        ({"windows": "sliding", "window_size": 2.0, "window_stride": 2.0, "window_unit": "seconds"}, "times"),
    ],
    ids=lambda value: value if isinstance(value, str) else ", ".join(map(str, value.values())),
)
def test_other_windows(world, cache, corpus, rows, config_overrides, citation):
    """Cited tokens are found in whatever windows there are."""
    processor = copy.copy(world.processor)
    for name, value in config_overrides.items():
        setattr(processor, name, value)
    reader = FeatureCache(cache.folder, processor).reader()
    model, truth = random_model(world.checkpoint, **config_overrides), read_truth(corpus)
    processor.check_config(model.config)
    answered = answer_utterance_questions(model, reader, rows[:1], truth, citation, max_new_tokens=4, progress=False)
    expected = asked_alone(model, processor, rows[:1], truth, citation, 4)
    assert [(one["clip"], one["utterance"], one["answer"]) for one in answered] == expected


def say(model, tokenizer, text: str) -> None:
    """Have a model answer every question with these words, by the biases of its generation configuration."""
    tokens = [*tokenizer(text, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    # The longer the beginning that is there, the stronger the call for what follows it.
    biases = [[tokens[: end + 1], 1e3 * (end + 1)] for end in range(len(tokens))]
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, sequence_bias=biases
    )


@pytest.mark.parametrize(
    "text, may_be_right",
    [
        (f"It is {EMOTION}.\nLabels: {EMOTION}", True),
        (f"Labels: {EMOTION}, calm", False),
        (f"Labels: {EMOTION} and more", False),
        (f"It is {EMOTION}.", False),
        ("Labels: ", False),
    ],
)
def test_right_is_this_label_and_no_other(world, cache, corpus, rows, text, may_be_right):
    model, truth = random_model(world.checkpoint), read_truth(corpus)
    emotion = truth[rows[0]["name"]]["utterances"][0]["emotion"]
    text = text.replace(EMOTION, emotion)
    say(model, world.processor.tokenizer, text)
    answered = answer_utterance_questions(model, cache.reader(), rows, truth, progress=False)
    assert {one["answer"] for one in answered} == {text.strip()}
    right = [one["right"] for one in answered]
    assert right == [may_be_right and one["expected"] == emotion for one in answered]
    assert accuracy(answered) == sum(right) / len(right)
    assert 0 < accuracy(answered) < 1 if may_be_right else accuracy(answered) == 0
