"""Synthetic dialogues: what is decided, what is written about it, and the files, through our own processor."""

import json
from collections import Counter
from itertools import pairwise

import av
import numpy as np
import pytest

pytest.importorskip("skimage", reason="the photograph comes with scikit-image")
pytest.importorskip("datasets", reason="the table is read with datasets")

from microemo.evaluation.emotion_wheel import EmotionWheels
from microemo.processing.faces.face_regions import REGIONS
from microemo.processing.media import load_audio, probe
from microemo.processing.processing_microemo import MicroEmoProcessor
from microemo.processing.utterances import read_utterances
from microemo.publishing.initialize import initialize
from microemo.training.collator import MicroEmoCollator
from microemo.training.data import load_table
from microemo.training.data_checks import check_table
from microemo.training.synthetic import synthetic_dialogues as module
from microemo.training.synthetic.dialogue_plan import (
    CLUES,
    EMOTIONS,
    SEEN_PAIRS,
    SENTENCES,
    UNSEEN_PAIRS,
    plan_dialogue,
)
from microemo.training.synthetic.face_acting import ACTIONS, TO_REST, FaceActor
from microemo.training.synthetic.media_writer import astronaut
from microemo.training.synthetic.synthetic_dialogues import (
    CITATIONS,
    TABLE,
    TRUTH,
    cite_as,
    dialogue_row,
    dialogue_truth,
    read_truth,
    write_demo,
    write_dialogue,
    write_dialogues,
)

CLIPS = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three test clips, the last of them with an unseen pair."""
    folder = tmp_path_factory.mktemp("dialogues")
    path = write_dialogues(folder, CLIPS, seed=5, split="test", size=128, progress=False)
    assert path == folder / TABLE
    return folder


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    return MicroEmoProcessor.from_pretrained(initialize("microemo-tiny", tmp_path_factory.mktemp("tiny") / "model"))


@pytest.fixture(scope="module")
def plans():
    return [plan_dialogue(0, split, index) for split in ("train", "dev", "test") for index in range(300)]


def text_of(message):
    return "".join(item.get("text", f"<{item.get('index')}>") for item in message["content"])


# --- what is decided -----------------------------------------------------------------------------------------------


def test_the_table_of_emotions():
    assert EMOTIONS.keys() == {(clue, prosody) for clue in CLUES for prosody in ("lively", "flat")}
    assert len(set(EMOTIONS.values())) == len(EMOTIONS), "each pair tells something else"
    assert CLUES.keys() - {"neutral"} == ACTIONS.keys() - {"jaw", "blink"}
    wheels = EmotionWheels.default()
    assert [emotion for emotion in EMOTIONS.values() if not wheels.knows(emotion)] == ["politeness"]
    assert {clue for clue, _ in SEEN_PAIRS} == set(CLUES), "every clue is seen, in one company or another"
    for region, _ in CLUES.values():
        assert region == "face" or any(name.startswith(region.rstrip("s")) for name in REGIONS)


def test_time(plans):
    gaps = []
    for plan in plans:
        said = plan.utterances
        assert 3 <= len(said) <= 6
        assert all(0.6 <= round(one.end - one.start, 3) <= 3.5 for one in said)
        assert said[0].start > 0 and said[-1].end < plan.seconds and 12 <= plan.fps <= 25
        gaps += [after.start - before.end for before, after in pairwise(said)]
        for one, seen in zip(said, plan.clues, strict=True):
            assert (seen is None) == (one.clue == "neutral")
            if seen is not None:
                assert seen.action == one.clue and seen.strength >= 0.65
                assert one.start <= seen.onset < seen.apex < (one.start + one.end) / 2 < seen.decline < seen.end
                assert seen.end <= one.end
        for seen in plan.distractors:
            assert all(seen.end <= one.start or seen.onset >= one.end for one in said), "only between utterances"
    assert min(gaps) == 0 and np.mean(np.array(gaps) == 0) == pytest.approx(0.5, abs=0.04)


def test_words_tell_nothing(plans):
    """Sentences are as common with each emotion as with all: the chi-square statistic is near its expectation."""
    said = [one for plan in plans for one in plan.utterances]
    table = np.zeros((len(SENTENCES), len(EMOTIONS)))
    emotions = list(EMOTIONS.values())
    for one in said:
        table[SENTENCES.index(one.text), emotions.index(one.emotion)] += 1
    assert (table.sum(1) > 0).all()
    expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
    freedom = (table.shape[0] - 1) * (table.shape[1] - 1)
    assert ((table - expected) ** 2 / expected).sum() < freedom + 4 * (2 * freedom) ** 0.5


def test_splits(plans):
    """No clip is in two splits, and pairs that training never shows are in the marked rows of the test only."""
    starts = Counter(tuple((one.start, one.end) for one in plan.utterances) for plan in plans)
    assert max(starts.values()) == 1
    for plan in plans:
        unseen = [(one.clue, one.prosody) in UNSEEN_PAIRS for one in plan.utterances]
        assert any(unseen) == (plan.split == "test_unseen")
    assert Counter(plan.split for plan in plans) == {"train": 300, "dev": 300, "test": 200, "test_unseen": 100}
    pairs = Counter((one.clue, one.prosody) for plan in plans for one in plan.utterances if plan.split == "train")
    assert pairs.keys() == set(SEEN_PAIRS) and max(pairs.values()) < 2 * min(pairs.values())
    with pytest.raises(ValueError, match="split must be one of train, dev, test, got 'valid'"):
        plan_dialogue(0, "valid", 0)


def test_amplitudes(plans):
    names = list(ACTIONS)
    for plan in plans[:40]:
        values = plan.amplitudes() - plan.habit
        assert values.shape == (len(plan.times), len(ACTIONS)) and np.abs(plan.habit).max() <= 0.1
        for one, seen in zip(plan.utterances, plan.clues, strict=True):
            here = (plan.times >= one.start) & (plan.times < one.end)
            mimic = values[here][:, [names.index(clue) for clue in CLUES if clue != "neutral"]]
            if seen is None:
                assert np.abs(mimic).max() < 1e-9
            else:
                at_apex = (plan.times[here] >= seen.apex) & (plan.times[here] <= seen.decline)
                assert at_apex.any() and np.allclose(mimic[at_apex].sum(1), seen.strength)


# --- what is written about it --------------------------------------------------------------------------------------


def test_questions_and_answers(plans):
    first = Counter()
    for plan in plans:
        row, truth = dialogue_row(plan), dialogue_truth(plan)
        said = truth["utterances"]
        assert [message["role"] for message in row["messages"]] == ["user", "assistant"] * len(truth["turns"])
        first[truth["turns"][0]["kind"]] += 1
        kinds = Counter(turn["kind"] for turn in truth["turns"])
        assert kinds["whole"] == kinds["change"] == 1 and kinds["utterance"] == len(said)
        assert kinds["general"] <= (plan.split == "train")
        assert row["emotions"] == list(dict.fromkeys(one["emotion"] for one in said))
        for turn, question, answer in zip(truth["turns"], row["messages"][::2], row["messages"][1::2], strict=True):
            answer = text_of(answer)
            if turn["kind"] != "change":
                assert answer.split("Labels: ")[1].split(", ") == turn["emotions"]
            if turn["kind"] == "utterance":
                one = said[turn["utterance"] - 1]
                assert question["content"][-1] == {"type": "utterance", "index": turn["utterance"]}
                assert all(part in answer for part in (CLUES[one["clue"]][1], f"({one['region']})", one["prosody"]))
            if turn["kind"] == "whole":
                assert turn["emotions"] == row["emotions"] and all(
                    f"utterance {k + 1} " in answer for k in range(len(said))
                )
            if turn["kind"] == "change":
                changes = [b for a, b in pairwise(said) if a["emotion"] != b["emotion"]]
                assert all(f"({one['start']:.1f}s)" in answer for one in changes)
                assert ("does not change" in answer) == (not changes) and answer.count(" from ") == len(changes)
    assert first["whole"] > 350 and first["utterance"] > 350
    general = {
        text_of(message) for plan in plans if plan.split == "train" for message in dialogue_row(plan)["messages"]
    }
    for clue, prosody in UNSEEN_PAIRS:
        assert any(
            CLUES[clue][1] in text and f"the voice is {prosody}" in text and "In general" in text for text in general
        )


def test_citations_in_words(plans):
    row, said = dialogue_row(plans[0]), dialogue_truth(plans[0])["utterances"]
    asked = [turn["utterance"] for turn in dialogue_truth(plans[0])["turns"] if turn["kind"] == "utterance"]
    assert CITATIONS == ("tokens", "times", "index") and cite_as(row["messages"], said, "tokens") == row["messages"]
    for form in ("times", "index"):
        messages = cite_as(row["messages"], said, form)
        questions = [text_of(m) for m in messages if m["role"] == "user"]
        for index in asked:
            one = said[index - 1]
            times = f" ({one['start']:.1f}-{one['end']:.1f}s)" if form == "times" else ""
            assert any(question.endswith(f"\nutterance {index}{times}") for question in questions)
        assert {item["type"] for message in messages for item in message["content"]} == {"text"}
        assert [m for m in messages if m["role"] != "user"] == [m for m in row["messages"] if m["role"] != "user"]
    with pytest.raises(ValueError, match="form must be one of tokens, times, index, got 'window'"):
        cite_as(row["messages"], said, "window")


# --- files ---------------------------------------------------------------------------------------------------------


def test_files_and_table(folder):
    names = [f"test-5-{index:05d}" for index in range(CLIPS)]
    files = {path.name for path in folder.iterdir()}
    assert files == {TABLE, TRUTH, *(name + suffix for name in names for suffix in (".mp4", ".srt"))}
    rows = [json.loads(line) for line in (folder / TABLE).read_text().splitlines()]
    truth = read_truth(folder)
    assert [row["name"] for row in rows] == names == list(truth)
    assert [row["split"] for row in rows] == ["test", "test", "test_unseen"]
    assert [truth[name]["has_unseen_pair"] for name in names] == [False, False, True]
    for index, row in enumerate(rows):
        plan = plan_dialogue(5, "test", index)
        assert row == dialogue_row(plan)
        said = read_utterances(folder / row["subtitles"])
        assert [(one.start, one.end, one.text) for one in said] == [(u.start, u.end, u.text) for u in plan.utterances]
        info = probe(folder / row["video"])
        np.testing.assert_allclose(info.frame_times, truth[row["name"]]["times"], atol=1e-3)
        assert info.duration == pytest.approx(plan.seconds, abs=0.15)
        for values in truth[row["name"]]["amplitudes"].values():
            assert len(values) == len(info.frame_times)
        with av.open(str(folder / row["video"])) as container:
            assert container.streams.audio[0].codec_context.name == "aac"
            assert container.streams.video[0].codec_context.name in ("h264", "mpeg4")
            assert (container.streams.video[0].width, container.streams.video[0].height) == (128, 128)


def test_the_voice_lies_where_the_subtitles_do(folder):
    track = load_audio(folder / "test-5-00000.mp4")
    power = track.samples.mean(0) ** 2
    plan = plan_dialogue(5, "test", 0)
    lead = power[: round((plan.utterances[0].start - 0.1) * track.rate)].mean()
    for one in plan.utterances:
        assert power[round((one.start + 0.1) * track.rate) : round((one.end - 0.1) * track.rate)].mean() > 30 * lead


def test_our_loader_takes_the_table(folder):
    table = load_table(folder / TABLE, split="test")
    assert len(check_table(table)) == 2
    assert len(load_table(folder / TABLE, split="test_unseen")) == 1


def test_our_processor_sees_faces_windows_and_answers(folder, processor):
    rows = list(load_table(folder / TABLE, split="test"))
    seen = processor.video_processor([row["video"] for row in rows])["video_metadata"]
    assert all(min(clip.faces_found) >= 1 for clip in seen)
    widths = np.concatenate([np.ptp(clip.landmarks[..., 0], axis=1) for clip in seen])
    assert widths.min() > 0.35 and widths.max() < 0.7, "the largest face is the speaker's"
    batch = MicroEmoCollator(processor)(rows)
    counts = [len(plan_dialogue(5, "test", index).utterances) for index in range(2)]
    assert (batch["utterance_windows"][..., 0] >= 0).sum(1).tolist() == counts
    assert (batch["cited_utterances"] >= 0).sum(1).tolist() == counts
    for index, labels in enumerate(batch["labels"]):
        answers = processor.tokenizer.decode(labels[labels >= 0])
        for message in rows[index]["messages"]:
            if message["role"] == "assistant":
                assert text_of(message) in answers


def test_what_is_finished_is_kept(folder):
    def stamps():
        return {path.name: path.stat().st_mtime_ns for path in folder.glob("test-*.mp4")}

    before, rows = stamps(), (folder / TABLE).read_text()
    missing, damaged = folder / "test-5-00000.mp4", folder / "test-5-00001.mp4"
    whole = missing.read_bytes(), damaged.read_bytes()
    damaged.write_bytes(b"cut off")
    write_dialogues(folder, CLIPS, seed=5, split="test", size=128, progress=False)
    missing.unlink()
    write_dialogues(folder, CLIPS, seed=5, split="test", num_workers=2, size=128, progress=False)
    assert (missing.read_bytes(), damaged.read_bytes()) == whole, "the same clips, whatever the number of processes"
    after = stamps()
    assert after["test-5-00002.mp4"] == before["test-5-00002.mp4"] and (folder / TABLE).read_text() == rows
    assert not list(folder.glob("*.part*"))


def test_other_questions_need_no_other_clips(folder, monkeypatch):
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.mp4")}
    table, truth = (folder / TABLE).read_text(), (folder / TRUTH).read_text()
    monkeypatch.setattr(module, "_ASK_WHOLE", ("Who feels what?",) * 3)
    write_dialogues(folder, CLIPS, seed=5, split="test", size=128, progress=False)
    assert {path.name: path.stat().st_mtime_ns for path in folder.glob("*.mp4")} == before
    assert (folder / TABLE).read_text().count("Who feels what?") == CLIPS and (folder / TRUTH).read_text() == truth
    monkeypatch.undo()
    write_dialogues(folder, CLIPS, seed=5, split="test", size=128, progress=False)
    assert (folder / TABLE).read_text() == table


def test_other_runs_stay_listed(tmp_path):
    write_dialogues(tmp_path, 1, seed=1, split="dev", size=96, progress=False)
    write_dialogues(tmp_path, 1, seed=1, split="train", size=96, progress=False)
    assert list(read_truth(tmp_path)) == ["dev-1-00000", "train-1-00000"]
    old = (tmp_path / "dev-1-00000.mp4").read_bytes()
    write_dialogues(tmp_path, 1, seed=1, split="dev", size=112, progress=False)
    assert (tmp_path / "dev-1-00000.mp4").read_bytes() != old, "a clip of another size is made anew"


def test_the_demo_is_in_no_split(tmp_path, plans):
    clip, felt = write_demo(tmp_path / "demo")
    said = read_utterances(clip.with_suffix(".srt"))
    assert len(felt) == len(said) and set(felt) <= set(EMOTIONS.values())
    assert probe(clip).duration == pytest.approx(said[-1].end, abs=1.1)
    spans = [(one.start, one.end) for one in said]
    assert all(spans != [(one.start, one.end) for one in plan.utterances] for plan in plans)
    assert clip.stem not in {plan.name for plan in plans} and not list(clip.parent.glob("*.part*"))


def test_a_failed_clip_leaves_no_file(tmp_path, monkeypatch):
    plan, actor = plan_dialogue(1, "dev", 0), FaceActor(astronaut(), rest=TO_REST)

    def act(*_):
        yield np.zeros((96, 96, 3), np.uint8)
        raise RuntimeError("no light")

    monkeypatch.setattr(actor, "act", act)
    with pytest.raises(RuntimeError, match="no light"):
        write_dialogue(tmp_path, plan, actor, size=96)
    assert not (tmp_path / f"{plan.name}.mp4").exists()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"clips": 0}, "clips must be at least 1, got 0"),
        ({"clips": 1, "num_workers": 0}, "num_workers must be at least 1, got 0"),
        ({"clips": 1, "size": 95}, "size must be at least 96, got 95"),
        ({"clips": 1, "size": 101}, "size must be even, got 101"),
        ({"clips": 1, "split": "all"}, "split must be one of train, dev, test, got 'all'"),
    ],
)
def test_bad_options(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        write_dialogues(tmp_path, **options)
