"""Scores of answers about people, and what a model is given of their clips."""

import numpy as np
import pytest
import torch

from microemo import MicroEmoConfig
from microemo.modeling_microemo.audio_branch import AudioBranch
from microemo.training.from_scratch.heard_voices import (
    HeardProbe,
    HeardVoice,
    HeardVoices,
    centre_inputs,
    pad_voices,
    read_voices,
    scale_inputs,
    score_voices,
    write_voices,
)
from microemo.training.from_scratch.people_probes import seen_amplitudes
from microemo.training.from_scratch.people_scores import is_well_formed, score_people
from microemo.training.from_scratch.people_stages import given_of, people_recipe, write_rows
from microemo.training.synthetic.corpus_files import TABLE, TRUTH, read_list
from microemo.training.synthetic.face_acting import ACTIONS
from microemo.utils.files import write_json_lines


@pytest.mark.parametrize(
    ("answer", "has_ended", "count", "expected"),
    [
        ("In utterance 2 the face is still.\nLabels: calm", True, 2, True),
        ("In utterance 3 the face is still.", True, 2, False),
        ("In utterance 0 the face is still.", True, 2, False),
        ("the corners of the mouth mouth Mouth", True, 0, False),
        ("In the clip no face is seen", False, 0, False),
        ("", True, 0, False),
    ],
)
def test_an_answer_is_well_formed(answer, has_ended, count, expected):
    assert is_well_formed(answer, has_ended, count) is expected


def record(clip, clue, said, heard="sad", said_heard="sad", **more):
    return {
        "kind": "utterance",
        "clip": clip,
        "clue": clue,
        "said_clue": said,
        "heard": heard,
        "said_heard": said_heard,
        "corpus": "ravdess",
        "labels": ["sadness"],
        "said_labels": ["sadness"] if clue == said else [],
        "unseen": False,
        "real_smile": False,
        "well_formed": True,
    } | more


def test_figures_of_answers():
    records = [
        record("a", "smile", "smile", real_smile=True),
        record("a", "frown", "smile"),
        record("b", "neutral", "neutral", heard="happy", said_heard="sad"),
        record("b", "nothing", "nothing", heard="nothing", said_heard="nothing"),
        record("c", "smile", "nothing", heard="happy", said_heard="happy"),
        {"kind": "whole", "clip": "c", "well_formed": False},
    ]
    scores = score_people(records, draws=50)
    values = {name: round(score["value"], 3) for name, score in scores.items()}
    assert (
        values["facial clue, of those that move"] == 0.333 and scores["facial clue, of those that move"]["count"] == 3
    )
    assert values["facial clue or still face"] == 0.5
    assert scores["facial clue or still face"]["majority"] == 0.5
    assert values["no face said where none is seen"] == 1 and values["no face said where one is seen"] == 0.25
    assert values["voice, ravdess, recall of 2 emotions"] == 0.75  # 2 of 2 sad, 1 of 2 happy
    assert values["well-formed"] == round(5 / 6, 3) and values["real smiles"] == 1
    for score in scores.values():
        assert score["low"] <= score["value"] <= score["high"]


def test_amplitudes_are_none_where_nobody_is_shown():
    truth = {
        "times": [0.0, 1.0, 2.0],
        "shown": [0, None, 1],
        "has_face": True,
        "amplitudes": {action: [0.1, 0.2, 0.3] for action in ACTIONS},
    }
    np.testing.assert_allclose(seen_amplitudes(truth, np.array([0.1, 1.1, 1.9]))[:, 0], [0.1, 0.0, 0.3])
    assert not seen_amplitudes(truth | {"has_face": False}, np.array([0.0])).any()


def test_a_clip_is_given_what_it_has():
    def draw(**truth):
        truths = {"utterances": [{}], "has_words": True, "has_sound": True} | truth
        return {given_of(truths, np.random.default_rng(seed)) for seed in range(40)}

    assert draw() == {"words", "times"}
    assert draw(has_words=False) == {"times", "none"}
    # Without sound the times, and the words, can be known to who asks, or not.
    assert draw(has_words=False, has_sound=False) == {"times", "none"}
    assert draw(has_sound=False) == {"words", "none"}
    assert draw(utterances=[]) == draw(utterances=[], has_words=False, has_sound=False) == {"none"}


def test_rows_hold_what_the_model_is_given_of_each_clip(tmp_path):
    said = {"start": 0.5, "end": 2.0, "text": "Well.", "clue": "smile", "heard": "sad", "seen": True}
    truths = [
        {"name": f"clip-{index:02d}", "split": "dev", "seed": 0, "index": index, "utterances": [said]}
        | {"has_face": True, "has_sound": True, "has_words": index < 20}
        for index in range(40)
    ]
    write_json_lines(tmp_path / "corpus" / TRUTH, truths)
    write_rows(tmp_path / "corpus", tmp_path)
    rows, known = read_list(tmp_path / TABLE), read_list(tmp_path / TRUTH)
    assert list(rows) == list(known) == [truth["name"] for truth in truths]
    kinds = set()
    for truth in truths:
        row, turns = rows[truth["name"]], known[truth["name"]]["turns"]
        path = tmp_path / "corpus" / truth["name"]
        assert row["video"] == f"{path}.mp4" and len(row["messages"]) == 2 * len(turns)
        assert row["emotions"] == ["sadness", "politeness"]
        assert row.get("subtitles") in (None, f"{path}.srt")
        assert row.get("utterances") in (None, [{"start": 0.5, "end": 2.0, "text": ""}])
        given = row.keys() & {"subtitles", "utterances"}
        kinds.add((truth["has_words"], *given))
        cited = [item for message in row["messages"] for item in message["content"] if item["type"] == "utterance"]
        assert bool(cited) == bool(given), "an utterance that is not given is not cited"
    assert kinds == {(True, "subtitles"), (True, "utterances"), (False, "utterances"), (False,)}


def test_the_audio_qformer_learns_emotions_from_recordings(tmp_path):
    """Two emotions that differ in the mean of one dimension, which is small beside the others."""
    config = MicroEmoConfig.from_preset("microemo-small")
    torch.manual_seed(0)
    scale = torch.logspace(-2, 2, config.audio_width)
    voices = []
    for index in range(48):
        features = torch.randn(12, config.audio_width) * scale
        features[:, 3] += scale[3] * (6 if index % 2 else -6)
        voices.append(HeardVoice(features.half(), index % 2, "ravdess", "one"))
    voices = read_voices(write_voices(tmp_path / "voices.safetensors", voices))
    branch = AudioBranch(config)
    deviations = centre_inputs(branch, voices)
    probe = HeardProbe(branch, dropout=0.1)
    batches = [pad_voices([HeardVoices(voices, is_cut=False)[index] for index in range(len(voices))])]
    with scale_inputs(branch, deviations):
        optimizer = torch.optim.AdamW([*branch.audio_qformer.parameters(), *probe.head.parameters()], lr=2e-3)
        for _ in range(12):
            loss = probe.train()(**batches[0])["loss"]
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        inside = score_voices(probe, batches, voices)
    assert inside == score_voices(probe, batches, voices) == {"ravdess": 1.0}, "the same outside of the context"


def test_the_recipe_has_an_entry_for_each_stage():
    stages = {
        "copying",
        "language",
        "voices",
        "image_encoder",
        "visual_pretraining",
        "alignment",
        "instruction_tuning",
    }
    assert set(people_recipe()) == stages
