"""Dialogues in words say what the truth says, in the prompt that clips have."""

import re
from dataclasses import replace

import numpy as np
import pytest

from microemo import MicroEmoProcessor
from microemo.training.collator import IGNORED, MicroEmoCollator
from microemo.training.data import to_conversation
from microemo.training.synthetic.described_dialogues import (
    FIRST_SEED,
    LAYOUTS,
    WINDOW_SECONDS,
    DescribedDialogues,
    Dictations,
    describe,
)
from microemo.training.synthetic.dialogue_plan import CLUES, plan_dialogue
from microemo.training.synthetic.synthetic_dialogues import CITATIONS, cite_as, dialogue_row, dialogue_truth

PLANS = [plan_dialogue(FIRST_SEED, "train", index) for index in range(6)]


def text_of(message) -> str:
    assert {item["type"] for item in message["content"]} == {"text"}
    return "".join(item["text"] for item in message["content"])


def times(said) -> str:
    return f"({said['start']:.1f}-{said['end']:.1f}s)"


def marker(index, said) -> str:
    return f"utterance {index} {times(said)}"


@pytest.mark.parametrize("citation", CITATIONS)
@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.name)
def test_prompt_questions_and_answers(plan, citation):
    truth, row = dialogue_truth(plan), describe(plan, citation, turns=99)
    said = truth["utterances"]
    lines = text_of(row["messages"][0]).splitlines()
    assert lines[:2] == ["Video: a face", "Audio: a voice"]
    assert lines[2 : 2 + len(said)] == [
        f"utterance {index} {CLUES[one['clue']][1]} {one['prosody']} {times(one)}: {one['text']}"
        for index, one in enumerate(said, start=1)
    ]

    assert [message["role"] for message in row["messages"]] == ["user", "assistant"] * len(truth["turns"])
    row["messages"][0]["content"] = row["messages"][0]["content"][1:]
    asked = {text_of(a): text_of(q) for q, a in zip(row["messages"][::2], row["messages"][1::2], strict=True)}
    of_clip = cite_as(dialogue_row(plan)["messages"], said, citation)
    assert asked.keys() == {text_of(message) for message in of_clip[1::2]}, "the answers are those of the clip"
    for turn, question, answer in zip(truth["turns"], of_clip[::2], of_clip[1::2], strict=True):
        here = asked[text_of(answer)]
        if turn["kind"] != "utterance":
            assert here == text_of(question)
            continue
        index, one = turn["utterance"], said[turn["utterance"] - 1]
        shown = f"{CLUES[one['clue']][1]} {one['prosody']}"
        cited = {
            "tokens": f"{marker(index, one)}: {shown}",
            "times": marker(index, one),
            "index": f"utterance {index}",
        }
        assert here.endswith(f"\n{cited[citation]}") and (shown in here) == (citation == "tokens")


def test_turns_are_some_of_the_questions():
    for plan in PLANS:
        whole, some = (describe(plan, "index", turns)["messages"] for turns in (99, 3))
        assert len(some) == 6 and [message["role"] for message in some] == ["user", "assistant"] * 3
        assert {text_of(message) for message in some[1::2]} <= {text_of(message) for message in whole[1::2]}
        assert len({text_of(message) for message in some[1::2]}) == 3
        assert text_of(some[0]).startswith("Video: a face\n")
        assert not any("a face" in text_of(message) for message in some[1:])


def test_as_many_as_it_takes_each_time_the_same():
    data = DescribedDialogues(30)
    rows = list(data)
    assert len(data) == len(rows) == 30 and rows == [data[index] for index in range(30)] == list(
        DescribedDialogues(30)
    )
    assert len({text_of(row["messages"][0]) for row in rows}) == 30
    with pytest.raises(IndexError):
        data[30]
    for index, row in enumerate(rows):
        assert row == describe(plan_dialogue(FIRST_SEED, "train", index), CITATIONS[index % 3], data.turns)


def test_no_clip_is_of_their_seeds():
    spans = {
        tuple((one.start, one.end) for one in plan_dialogue(FIRST_SEED, "train", i).utterances) for i in range(60)
    }
    for split in ("train", "dev", "test"):
        clips = {tuple((one.start, one.end) for one in plan_dialogue(0, split, i).utterances) for i in range(60)}
        assert not spans & clips and not any("1000000" in plan_dialogue(0, split, i).name for i in range(3))


def test_learned_as_any_other_row(world):
    rows = [DescribedDialogues(3)[index] for index in range(3)]
    batch = MicroEmoCollator(world.processor)(rows)
    assert not {"pixel_values_videos", "input_features"} & batch.keys()
    tokenizer = world.processor.tokenizer
    for row, ids, labels in zip(rows, batch["input_ids"], batch["labels"], strict=True):
        answers = tokenizer.decode(labels[labels != IGNORED])
        assert answers == "".join(text_of(message) + tokenizer.eos_token for message in row["messages"][1::2])
        assert not {world.processor.video_token_id, world.processor.audio_token_id} & set(ids.tolist())
    assert world.model(**batch).loss > 0


def clip_of(plan, frames=4) -> list[dict]:
    """What a conversation holds of a clip of this plan, without a face."""
    said = dialogue_truth(plan)["utterances"]
    return [
        {
            "type": "video",
            "video": np.zeros((frames, 48, 64, 3), np.uint8),
            "video_metadata": {
                "frame_times": np.linspace(0, plan.seconds, frames, endpoint=False),
                "duration": plan.seconds,
            },
            "utterances": [{name: one[name] for name in ("start", "end", "text")} for one in said],
        },
        {"type": "audio", "audio": np.ones(round(16_000 * plan.seconds), np.float32) / 9, "sampling_rate": 16_000},
    ]


@pytest.mark.parametrize("citation", CITATIONS)
def test_the_prompt_is_that_of_a_clip_with_words_for_tokens(world, citation):
    """Interleaved, as the tiny preset has it: what is learned here holds there."""
    plan = PLANS[0]
    said = dialogue_truth(plan)["utterances"]
    question, answer = describe(plan, citation, turns=1)["messages"]
    messages = cite_as(dialogue_row(plan)["messages"], said, citation)
    (number,) = [number for number, message in enumerate(messages) if message == answer]
    asked = messages[number - 1]
    with_tokens = world.processor.apply_chat_template(
        [{**asked, "content": clip_of(plan) + asked["content"]}, answer], tokenize=False
    )
    with_words = world.processor.apply_chat_template(to_conversation({"messages": [question, answer]}))
    with_tokens = re.sub("(<video>)+(<audio>)+", "what is seen and heard", with_tokens)
    with_tokens = re.sub("(<video>)+", "a face", re.sub("(<audio>)+", "a voice", with_tokens))
    for one in said:
        with_words = with_words.replace(f"{CLUES[one['clue']][1]} {one['prosody']}", "what is seen and heard")
    assert with_words == with_tokens


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_seen_stands_where_the_tokens_of_the_windows_do(world, layout):
    # Where the clip ends with a window; in others the last one is shorter than in words, or there is one more.
    windows = np.ceil(PLANS[0].utterances[-1].end / WINDOW_SECONDS)
    plan = replace(PLANS[0], seconds=windows * WINDOW_SECONDS)
    processor = MicroEmoProcessor.from_pretrained(world.checkpoint)
    processor.windows, processor.window_unit = layout, "seconds"
    processor.window_size = processor.window_stride = WINDOW_SECONDS
    processor.video_processor.num_frames = 32
    told = describe(plan, "times", turns=1, layout=layout)["messages"][0]
    clip = [{"role": "user", "content": clip_of(plan, frames=32)}]
    with_words = processor.apply_chat_template(to_conversation({"messages": [told]}))
    with_tokens = re.sub("(<audio>)+", "heard", re.sub("(<video>)+", "seen ", processor.apply_chat_template(clip)))
    for motion in ("a face", *{motion for _, motion in CLUES.values()}):
        with_words = with_words.replace(motion, "seen")
    with_words = re.sub(r"\b(lively|flat|a voice)\b", "heard", with_words)
    with_words = re.sub("seen( seen)+", "seen", with_words)  # clues of several utterances in one window
    assert with_words.startswith(with_tokens.replace("seen \n", "seen\n").rstrip("\n") + "\n")


def test_layouts_in_turn_tell_what_is_seen_in_the_place_of_their_windows():
    rows = [DescribedDialogues(9, layouts=LAYOUTS)[index] for index in range(9)]
    assert ["window 1 (0.0-2.0s): " in text_of(row["messages"][0]) for row in rows] == [False] * 6 + [True] * 3
    for plan in PLANS:
        said = dialogue_truth(plan)["utterances"]
        motions = [CLUES[one["clue"]][1] for one in said]
        none, sliding = (text_of(describe(plan, "index", 1, one)["messages"][0]).splitlines() for one in LAYOUTS[1:])
        assert none[:2] == [f"Video: {' '.join(motions)}", "Audio: a voice"]
        spoken = [f"utterance {k} {one['prosody']} {times(one)}: {one['text']}" for k, one in enumerate(said, start=1)]
        assert none[2 : 2 + len(said)] == spoken
        windows = [line for line in sliding if line.startswith("window ")]
        assert sliding[: 2 + len(windows) + len(said)] == ["Video: a face", *windows, "Audio: a voice", *spoken]
        assert 2 * (len(windows) - 1) < said[-1]["end"] <= 2 * len(windows)
        for number, line in enumerate(windows, start=1):
            start, end = 2.0 * (number - 1), 2.0 * number
            seen = [
                motion for motion, one in zip(motions, said, strict=True) if one["start"] < end and start < one["end"]
            ]
            assert line == f"window {number} ({start:.1f}-{end:.1f}s): {' '.join(seen) or 'a face'}"
    dictations = [text_of(row["messages"][0]) for row in Dictations(6, ["word"], LAYOUTS)]
    assert ["window 1" in text for text in dictations] == [False] * 4 + [True] * 2
    assert all("Video: word word word word" in text for text in dictations[2:4])


def test_a_dictation_is_asked_for_utterance_by_utterance():
    words = [f"word{number}" for number in range(99)]
    data = Dictations(4, words)
    for index, citation in enumerate(("times", "index", "times", "index")):
        row, plan = data[index], dialogue_truth(plan_dialogue(FIRST_SEED, "train", index))["utterances"]
        first, *_ = row["messages"][0]["content"]
        told = re.findall(r"^utterance (\d+) (.+) (\w+) (\(.+s\)): (.+)$", first["text"], re.MULTILINE)
        assert [(said, text) for *_, said, text in told] == [(times(said), said["text"]) for said in plan]
        row["messages"][0]["content"].remove(first)
        asked = {text_of(q): text_of(a) for q, a in zip(row["messages"][::2], row["messages"][1::2], strict=True)}
        assert asked == {
            f"utterance {number}{f' {said}' if citation == 'times' else ''}": (
                f"In utterance {number} {clue}, and the voice is {voice}."
            )
            for number, clue, voice, said, _ in told
        }
        assert {*" ".join(clue for _, clue, *_ in told).split()} <= {*words}
    assert [row["messages"] for row in data] == [data[index]["messages"] for index in range(len(data))]
    assert data[0] != data[2]
    with pytest.raises(IndexError):
        data[4]
