"""Questions and answers about people's dialogues: what is said follows the truth, and nothing is invented."""

import re

import numpy as np
import pytest

from microemo.inference.emotion_pipeline import UTTERANCE_QUESTION
from microemo.inference.pipeline_inputs import QUESTION
from microemo.training.synthetic.dialogue_plan import CLUES
from microemo.training.synthetic.people_answers import (
    ASK_UTTERANCE,
    ASK_WHOLE,
    FELT,
    KINDS,
    NO_FACE,
    NO_SOUND,
    NO_WORDS,
    RELATIONS,
    UNCLEAR,
    VOICES,
    felt,
    people_turns,
)


def truth_of(count: int, split: str = "train", **more) -> dict:
    clues, voices = list(CLUES), list(VOICES)
    utterances = [
        {
            "start": index + 0.1,
            "end": index + 0.9,
            "clue": clues[index % len(clues)],
            "heard": voices[index % len(voices)],
            "seen": index % 3 != 1,
        }
        for index in range(count)
    ]
    return {
        "split": split,
        "has_face": True,
        "has_sound": True,
        "has_words": True,
        "utterances": utterances,
        **more,
    }


def conversations(truth: dict, given: str | None = None) -> list[tuple[dict, str, str]]:
    turns = [turn for seed in range(8) for turn in people_turns(truth, np.random.default_rng(seed), given)]
    return [(about, question["content"], answer["content"][0]["text"]) for about, question, answer in turns]


def test_every_clue_and_voice_has_a_meaning():
    assert set(FELT) == {(clue, heard) for clue in CLUES for heard in VOICES}
    assert {relation for relation, _ in FELT.values()} <= set(RELATIONS)
    assert all(1 <= len(labels) == len(set(labels)) for _, labels in FELT.values())


def test_pipelines_own_questions_are_asked_the_most():
    assert ASK_WHOLE[0] == QUESTION
    assert ASK_UTTERANCE[0] == UTTERANCE_QUESTION
    asked = [
        content[0]["text"].strip() for about, content, _ in conversations(truth_of(4)) if about["kind"] == "whole"
    ]
    assert asked.count(QUESTION) >= len(asked) / 3


@pytest.mark.parametrize("count", [0, 1, 3, 4, 12, 20])
@pytest.mark.parametrize("given", ["words", "times", "none"])
def test_answers_name_only_utterances_of_the_prompt(count: int, given: str):
    listed = 0 if given == "none" else count
    kinds = set()
    for about, _, answer in conversations(truth_of(count), given):
        kinds.add(about["kind"])
        named = {int(number) for number in re.findall(r"utterance (\d+)", answer)}
        if about["kind"] == "missing":
            assert min(named) > listed
        else:
            assert all(1 <= number <= listed for number in named)
        if about["kind"] == "whole" and listed:
            assert named == set(range(1, min(listed, 12) + 1))
            assert (f"The clip has {listed} utterances." in answer) == (listed > 12)
    assert kinds == set(KINDS) - (set() if listed else {"utterance", "change"})


def test_labels_are_those_of_the_turn_and_of_the_table():
    truth = truth_of(5)
    for about, _, answer in conversations(truth):
        labels = answer.rpartition("Labels: ")[2].split(", ") if "Labels:" in answer else []
        assert labels == about["emotions"]
        if about["kind"] == "utterance":
            utterance = truth["utterances"][about["utterance"] - 1]
            clue = utterance["clue"] if utterance["seen"] else None
            assert labels == list(felt(clue, utterance["heard"])[1])


def test_what_is_not_there_is_said_and_not_elsewhere():
    for lacks, phrase in (("has_face", NO_FACE), ("has_sound", NO_SOUND)):
        truth = truth_of(3, **{lacks: False})
        for about, _, answer in conversations(truth):
            if about["kind"] == "utterance":
                assert phrase in answer
    everything = truth_of(3)
    for utterance in everything["utterances"]:
        utterance["seen"] = True
    said = " ".join(answer for _, _, answer in conversations(everything))
    assert not any(phrase in said for phrase in (NO_FACE, NO_SOUND, NO_WORDS, UNCLEAR))


def test_words_that_are_not_given_are_not_understood():
    for given, is_said in (("words", False), ("times", True), ("none", True)):
        for about, _, answer in conversations(truth_of(2), given):
            if about["kind"] in ("utterance", "whole"):
                assert answer.startswith(NO_WORDS) == is_said
    without_subtitles = truth_of(2, has_words=False)
    assert conversations(without_subtitles) == conversations(without_subtitles, "none")


def test_clip_that_shows_and_sounds_nothing_is_unclear():
    truth = truth_of(1, has_face=False, has_sound=False, has_words=False)
    (answer,) = {answer for about, _, answer in conversations(truth) if about["kind"] == "whole"}
    assert answer == f"In the clip {NO_FACE}, and {NO_SOUND}. Neither tells: {UNCLEAR}.\nLabels: {UNCLEAR}"


def test_general_questions_are_asked_in_training_only():
    kinds = {split: {about["kind"] for about, *_ in conversations(truth_of(2, split))} for split in ("train", "dev")}
    assert kinds["train"] - kinds["dev"] == {"general"}


def test_same_generator_gives_the_same_turns():
    assert conversations(truth_of(6)) == conversations(truth_of(6))


def test_unknown_way_of_giving_utterances_is_refused():
    with pytest.raises(ValueError, match="'words', 'times' or 'none', got 'subtitles'"):
        people_turns(truth_of(1), np.random.default_rng(0), "subtitles")
