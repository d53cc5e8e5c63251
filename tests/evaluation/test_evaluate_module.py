"""`evaluate.load` of the metric's folder, offline."""

from pathlib import Path

import evaluate
import pytest

import microemo.evaluation

FOLDER = Path(microemo.evaluation.__file__).parent / "open_vocabulary_emotion"


@pytest.fixture(scope="module")
def metric(tmp_path_factory):
    return evaluate.load(str(FOLDER), cache_dir=str(tmp_path_factory.mktemp("evaluate")))


def test_label_lists(metric):
    # happy ~ joyful by the vocabulary; proud is missed: precision 1/1, recall 1/2; then 0 and 0
    scores = metric.compute(predictions=[["joyful"], []], references=[["happy", "proud"], ["sad"]])
    assert scores["accuracy_s"] == 0.5
    assert scores["recall_s"] == 0.25
    assert scores["avg_s"] == 0.375
    assert scores["f_s"] == pytest.approx(2 * 0.5 * 0.25 / 0.75)
    assert scores["labels_per_answer"] == 0.5
    assert scores["M1 f"] == 0.0  # "joyful" and "happy" are different words
    assert (scores["ungrouped"], scores["out_of_vocabulary"]) == (0, 0.0)


def test_texts_and_replayed_groups(metric, tmp_path):
    groups = tmp_path / "groups.json"
    groups.write_text("{\"a\": \"[['glum', 'sad']]\"}")
    scores = metric.compute(
        predictions=["[glum]", "[zest]"], references=["['sad']", "['sad']"], names=["a", "b"], groups=str(groups)
    )
    assert (scores["accuracy_s"], scores["ungrouped"]) == (0.5, 1)
    published = metric.compute(
        predictions=["[glum]", "[zest]"],
        references=["['sad']", "['sad']"],
        names=["a", "b"],
        groups=str(groups),
        compat="affectgpt",
    )
    assert published["accuracy_s"] == 1.0  # sample b, which has no groups, is dropped


def test_added_in_batches(metric):
    metric.add_batch(predictions=[["happy"]], references=[["happy"]])
    metric.add_batch(predictions=[["sad"]], references=[["angry"]])
    assert metric.compute()["accuracy_s"] == 0.5
