"""Observations only: what is seen and heard stays, and no emotion word does, whatever the answer is."""

import csv
import json
import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from microemo.evaluation.emotion_wheel import EmotionWheels
from microemo.evaluation.label_extraction import rule_labels
from microemo.inference.observations import _OBSERVATION_WORDS, has_emotion_words, without_emotions
from microemo.training.synthetic.described_dialogues import DescribedDialogues
from microemo.training.synthetic.dialogue_plan import CLUES, EMOTIONS
from microemo.training.synthetic.people_answers import (
    CLUE_NAMES,
    FELT,
    NO_FACE,
    RELATIONS,
    STILL,
    VOICES,
    people_turns,
)

FORMS = sorted(EmotionWheels.default().forms)
SEEN = {clue: STILL if clue == "neutral" else f"{CLUES[clue][1]} ({CLUES[clue][0]})" for clue in CLUES}
# Words for feelings that stand in no table of the package.
STRANGERS = ["grumpy", "stern", "positive", "miffed", "giddy", "sulky", "ebullient", "crestfallen", "peeved", "polite"]


def assert_free_of_emotions(text: str) -> None:
    kept = without_emotions(text)
    assert not has_emotion_words(kept) and not rule_labels(kept)
    assert set(re.findall(r"[^\W\d_]+", kept.lower())) <= _OBSERVATION_WORDS | {
        "isn",
        "doesn",
        "aren",
        "wasn",
        "couldn",
        "don",
        "t",
    }
    assert without_emotions(kept) == kept


@pytest.mark.parametrize(("clue", "heard"), FELT)
@pytest.mark.parametrize("relation", RELATIONS.values())
def test_of_an_answer_about_people_the_clue_stays(clue, heard, relation):
    labels = ", ".join(FELT[clue, heard][1])
    answer = (
        f"In utterance 2 {SEEN[clue]}, and the voice sounds {VOICES[heard]}. {relation}: {labels}.\nLabels: {labels}"
    )
    assert without_emotions(answer) == f"In utterance 2 {SEEN[clue]}."
    voice = f"{'an' if VOICES[heard][0] in 'aeiou' else 'a'} {VOICES[heard]} voice"
    line = f"In utterance 2 {CLUE_NAMES[clue]} and {voice}: {FELT[clue, heard][1][0]}."
    assert without_emotions(line) == f"In utterance 2 {CLUE_NAMES[clue]}."
    assert without_emotions(f"In the clip one hears {voice}.") == ""


TRUTHS = st.fixed_dictionaries(
    {
        "split": st.just("train"),
        "has_face": st.booleans(),
        "has_sound": st.booleans(),
        "has_words": st.booleans(),
        "utterances": st.lists(
            st.fixed_dictionaries(
                {
                    "clue": st.sampled_from(list(CLUES)),
                    "heard": st.sampled_from(list(VOICES)),
                    "seen": st.booleans(),
                    "start": st.floats(0, 99),
                }
            ),
            max_size=14,
        ),
    }
)


@settings(max_examples=100, deadline=None)
@given(TRUTHS, st.integers(0, 2**32), st.sampled_from([None, "words", "times", "none"]))
def test_no_answer_about_people_keeps_an_emotion(truth, seed, given):
    for about, question, answer in people_turns(truth, np.random.default_rng(seed), given):
        text = answer["content"][0]["text"]
        assert_free_of_emotions(text)
        kept = without_emotions(text)
        if about["kind"] == "clue" or (about["kind"] == "missing"):  # nothing but observations
            assert kept == text
        elif about["kind"] in ("general", "change"):
            assert kept == ""
        elif about["kind"] == "utterance":
            clue = about["clue"]
            assert (NO_FACE if clue is None else SEEN[clue]) in kept
        assert_free_of_emotions(question["content"][0]["text"])


def test_no_answer_of_described_dialogues_keeps_an_emotion():
    answers = {
        item["text"]
        for row in DescribedDialogues(60, turns=99)
        for message in row["messages"]
        for item in message["content"]
        if message["role"] == "assistant"
    }
    assert all(any(emotion in answer for answer in answers) for emotion in EMOTIONS.values())
    for answer in answers:
        assert_free_of_emotions(answer)
        if answer.startswith("In utterance 1 "):
            assert without_emotions(answer).startswith("In utterance 1 ")


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ("The brows go up at 1.5 s. She is sad.", "The brows go up at 1.5 s."),
        ("the brows go up. she is sad. the eyes close.", "the brows go up."),
        ("The mouth opens at approx. 1.5 s, e.g. out of fear.", "The mouth opens at approx. 1.5 s."),
        (
            "The lips part (1.2-3.4s) and her voice, at -20 dB, is low; he is angry.",
            "The lips part (1.2-3.4s) and her voice, at -20 dB, is low.",
        ),
        ("She is not angry, but the brows draw together. The eyes open wide.", "The eyes open wide."),
        ("The face shows no sign of joy.", ""),
        ("The corners of the mouth do not go up.", "The corners of the mouth do not go up."),
        ("The brows go up (in surprise, or fear), and the mouth opens.", ""),
        ("The eyes (both) close, and he is sad.", "The eyes (both) close."),
        (
            "1. **Face:** the brows go up\n2. **Emotion:** joy\n- The lips are pressed together.",
            "Face: the brows go up\nThe lips are pressed together.",
        ),
        ("<think>She is sad.</think>The eyes close.", "The eyes close."),
        ("In the video, she is happy.", ""),
        ("With raised brows, he sounds surprised.", "With raised brows."),
        ("The face and the voice agree: joy.", ""),
        ("The tone of her voice, and her smile, show joy.", ""),
        ("Her raised brows show surprise. She frowns, which shows anger.", "She frowns."),
        ("Her gaze goes up — calmly.", "Her gaze goes up."),
        ("The voice sounds, frankly, angry.", ""),
        ("The mouth opens, she is, in a word, sad.", "The mouth opens."),
        ('The subtitle says "I am so happy". The eyes close.', "The eyes close."),
        ("The speaker's head isn’t still…", "The speaker's head isn’t still…"),
        ("The brows go up :(", ""),
        ("He smiles 😀", ""),
        ("The man is down, with his head low.", ""),
        ("Her head is down.", "Her head is down."),
        ("She is looking forward to the camera.", ""),
        ("She is sad-looking, her eyes are wet.", ""),
        ("Her face is up-set.", ""),
        ("Her face is s\u200dad.", ""),
        ("Her face is ｓａｄ.", ""),
        ("Labels:\n- joy\n- politeness", ""),
        ("In utterance 1 hebt die Person die Brauen, und die Stimme klingt traurig.", ""),
        ("Die Augen sind offen. Er ist wütend.", ""),
        ("她的眉头紧皱，显得很生气。", ""),
        ("Elle a les yeux ouverts, elle est triste.", ""),
        ("", ""),
        (" \n. , ;\n\n", ""),
        ("No.", ""),
    ],
)
def test_what_is_kept_of_an_answer(answer, kept):
    assert without_emotions(answer) == kept
    assert_free_of_emotions(answer)


@pytest.mark.parametrize(
    "sentence", ["The voice sounds {}.", "Her {} eyes open.", "He smiles ({}).", "The face is not {}-ish"]
)
def test_no_form_of_the_vocabulary_and_no_unknown_word_stays(sentence):
    for word in [*FORMS, "neutral", *STRANGERS]:
        for written in (word, word.upper(), f"*{word}*", f"un{word}"):
            assert without_emotions(sentence.format(written)) == "", written


def test_every_form_of_the_vocabulary_is_an_emotion_word():
    for word in [*FORMS, "neutral", "neutrality", "feels", "Feeling", "mood", "emotional", "Labels", "affect"]:
        for text in (word, f"the {word.upper()}, not", f"({word}-looking)", f"{word}'s", f"no{chr(0x2019)}{word}"):
            assert has_emotion_words(text), text
    assert not any(map(has_emotion_words, ["", "1.5 s", "The brows go up.", "In looking, forward", *SEEN.values()]))


def test_the_words_for_observations_name_no_emotion():
    # "moved" is both: a brow is moved, and so is a person; it is left out with the vocabulary.
    assert {word for word in _OBSERVATION_WORDS if has_emotion_words(word)} == {"moved"}


WORDS = st.sampled_from(
    [*FORMS, *STRANGERS, *sorted(_OBSERVATION_WORDS), "neutral", "feels", "labels", "joie", "Freude", "怒", "😢"]
)
MARKS = st.sampled_from(
    [
        " ",
        " ",
        " ",
        ", ",
        ". ",
        ": ",
        "; ",
        " (",
        ") ",
        "-",
        "'",
        "’",
        " and ",
        "\n",
        "\n- ",
        "*",
        "1.5 s",
        '"',
        "!",
        "/",
        ":-(",
        "\u200d",
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(WORDS, MARKS), max_size=25))
@example([("looking", "\n"), ("forward", "")])
def test_no_mixture_of_words_keeps_an_emotion(pieces):
    assert_free_of_emotions("".join(word + mark for word, mark in pieces))


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_any_text_is_taken(text):
    assert_free_of_emotions(text)
    has_emotion_words(text)


def test_long_answers_are_read_in_time():
    for text in (" " * 50000, "(" * 20000, "a, " * 20000, "a.\n" * 20000, "the brows go up, " * 2000, "-" * 50000):
        assert_free_of_emotions(text)


def test_descriptions_of_people_keep_no_emotion(shared):
    folder = shared / "data" / "emer_text"
    if not folder.is_dir():
        pytest.skip("the shared folder has no descriptions")
    texts = []
    for file in ("emer_v1/gt-eng.csv", "emer_v2/final-EMER-reason.csv", "emer_v1/gt-chi.csv"):
        with open(folder / file, encoding="utf-8-sig", newline="") as table:
            texts += [row.get("english") or row["reasons"] for row in csv.DictReader(table)]
    for file in sorted(folder.glob("ovmerd_predictions/*/subtitle-reason.json"))[:3]:
        texts += json.loads(file.read_text("utf-8")).values()
    for text in texts:
        assert_free_of_emotions(text)
    kept = list(map(without_emotions, texts))
    assert sum(map(bool, kept)) > 0.3 * len(texts)
