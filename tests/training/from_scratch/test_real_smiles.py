"""Real smiles: clips of photographs, what is asked about them, and the figures of the answers."""

import numpy as np
import pytest
from PIL import Image

from microemo.processing.media import probe
from microemo.training.from_scratch.real_smiles import answer_smiles, score_smiles_said, write_smile_clips
from microemo.training.synthetic.media_writer import astronaut


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """One person of the split test with two photographs, and one who never smiles."""
    folder = tmp_path_factory.mktemp("photographs")
    for name in ("rest", "smile", "other"):
        Image.fromarray(astronaut()[:300, 80:400]).save(folder / f"{name}.png")
    (folder / "faces.csv").write_text(
        "file,person,split,kind\nrest.png,she,test,neutral\nsmile.png,she,test,smiling\nother.png,he,train,neutral\n"
    )
    return folder


@pytest.fixture(scope="module")
def rows(photographs, tmp_path_factory):
    return write_smile_clips(tmp_path_factory.mktemp("clips"), photographs, "test")


def test_a_clip_of_two_seconds_for_each_photograph_of_who_smiles(rows):
    assert [(row["person"], row["smiles"]) for row in rows] == [("she", False), ("she", True)]
    for row in rows:
        facts = probe(row["video"])
        assert facts.duration == pytest.approx(2, abs=0.1)
        (utterance,) = row["utterances"]
        assert 0 < utterance["start"] < utterance["end"] < 2 and not utterance["text"]


def test_people_without_a_smile_are_no_test_of_smiles(photographs, tmp_path):
    with pytest.raises(ValueError, match="nobody of the split 'train' has a smiling photograph"):
        write_smile_clips(tmp_path, photographs, "train")


def test_answers_have_a_probability_of_the_smile(rows, world):
    records = answer_smiles(world.model, world.processor, rows)
    assert [record["name"] for record in records] == ["she-neutral", "she-smiling"]
    assert all(0 < record["smile"] < 1 for record in records)
    # The same picture from the same camera.
    assert records[0]["smile"] == pytest.approx(records[1]["smile"])
    assert records[0]["answer"] == records[1]["answer"] and not records[0]["said"]


def test_figures_of_smiles():
    def answers(person, at_rest, smiling):
        return [
            {"person": person, "smiles": kind, "smile": value, "said": value > 0.5}
            for kind, value in ((False, at_rest), (True, smiling))
        ]

    scores = score_smiles_said([*answers("a", 0.1, 0.9), *answers("b", 0.6, 0.4), *answers("c", 0.2, 0.8)], draws=200)
    # Of nine pairs only those of the rest of b with the smile of b are in the wrong order.
    assert scores["auc"]["value"] == pytest.approx(8 / 9)
    assert scores["said"]["value"] == pytest.approx(2 / 3) and scores["false"]["value"] == pytest.approx(1 / 3)
    assert all(score["low"] <= score["value"] <= score["high"] for score in scores.values())
    assert np.isfinite([score[key] for score in scores.values() for key in ("low", "high")]).all()
