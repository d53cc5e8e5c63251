"""Accuracy_S and Recall_S on cases worked by hand."""

import json

import numpy as np
import pytest

from microemo.evaluation.set_level import ReplayGrouper, WheelGrouper, set_level_scores

NONE = ReplayGrouper({})


def scores(truth, predicted, groups=None, compat=None):
    grouper = ReplayGrouper({"x": groups}) if groups is not None else NONE
    sheet = set_level_scores(["x"], [truth], [predicted], grouper, compat)
    return sheet.precision[0, 0], sheet.recall[0, 0]


def test_groups_map_labels_to_their_first_word():
    # groups: happy = glad = joyful, angry = mad. Y = {happy, angry, calm} -> A = {happy, angry, calm};
    # P = {joyful, glad, mad, bored} -> B = {happy, angry, bored}; A∩B = 2, so 2/3 and 2/3
    groups = [["happy", "glad", "joyful"], ["angry", "mad"]]
    assert scores("[happy, angry, calm]", "[joyful, glad, mad, bored]", groups) == (2 / 3, 2 / 3)


def test_precision_and_recall_are_not_swapped():
    # A = {happy}, B = {happy, sad}: half of what was said is right, all that is true was said
    assert scores("[happy]", "[happy, sad]", [["happy"]]) == (0.5, 1.0)


def test_an_empty_prediction_scores_zero_and_zero():
    assert scores("[happy]", "[]", [["happy"]]) == (0.0, 0.0)


def test_duplicates_and_case_vanish():
    assert scores("[Happy, happy]", "[HAPPY, happy, happy]", [["happy"]]) == (1.0, 1.0)


def test_an_unlisted_label_is_its_own_group():
    assert scores("[happy, odd]", "[odd]", [["happy"]]) == (1.0, 0.5)


def test_a_label_in_two_groups_takes_the_last():
    # sad is in the groups of blue and of low: it becomes low, so it meets low and not blue
    groups = [["blue", "sad"], ["low", "sad"]]
    assert scores("[sad]", "[low]", groups) == (1.0, 1.0)
    assert scores("[sad]", "[blue]", groups) == (0.0, 0.0)


def test_group_words_are_lower_cased_only_by_default():
    assert scores("[sad]", "[blue]", [["Blue", "Sad"]]) == (1.0, 1.0)
    assert scores("[sad]", "[blue]", [["Blue", "Sad"]], compat="affectgpt") == (0.0, 0.0)


def test_a_sample_without_groups_counts_by_default_and_is_dropped_in_the_published_code():
    names, truth, predicted = ["a", "b"], ["[happy]", "[sad]"], ["[happy]", "[angry]"]
    grouper = ReplayGrouper({"a": [["happy"]]})
    ours = set_level_scores(names, truth, predicted, grouper)
    published = set_level_scores(names, truth, predicted, grouper, compat="affectgpt")
    assert ours.summary()["S/avg"] == 0.5
    assert published.summary()["S/avg"] == 1.0
    assert ours.notes["ungrouped"] == published.notes["ungrouped"] == ("b",)


def test_a_sample_without_truth_is_not_scored_but_named():
    sheet = set_level_scores(["a", "b"], ["[happy]", "[]"], ["[happy]", "[sad]"], NONE)
    assert np.isnan(sheet.precision[1, 0])
    assert sheet.summary()["S/precision"] == 1.0
    assert sheet.notes["empty_truth"] == ("b",)


def test_corpus_figures_are_of_the_means():
    # a: 1/1 and 1/2; b: 0 and 0. P = 0.5, R = 0.25, Avg = 0.375, F = 2 * 0.5 * 0.25 / 0.75 = 1/3 (mean of F would be 1/3 too
    # only by chance: a's own F is 2/3, b's 0), so c: 1/2 and 1 parts them: P = 0.5, R = 0.5, F = 0.5; mean of F = 4/9
    truth = ["[happy, calm]", "[sad]", "[angry]"]
    predicted = ["[happy]", "[]", "[angry, mean]"]
    found = set_level_scores(["a", "b", "c"], truth, predicted, NONE).summary()
    assert found["S/precision"] == pytest.approx(0.5)
    assert found["S/recall"] == pytest.approx(0.5)
    assert found["S/avg"] == pytest.approx(0.5)
    assert found["S/f"] == pytest.approx(0.5)
    assert found["labels"] == pytest.approx(1.0)


def test_wheel_grouping_puts_synonyms_together():
    grouper = WheelGrouper()
    assert grouper.group(["a"], [["happily", "joyful", "angry", "unheard-of"]]) == [
        [["happily", "joyful"], ["angry"], ["unheard-of"]]
    ]
    sheet = set_level_scores(["a"], ["[happy]"], ["[joyful, furious]"], grouper)
    assert (sheet.precision[0, 0], sheet.recall[0, 0]) == (0.5, 1.0)
    assert sheet.notes["grouping"] == "wheels vocabulary M2"


def test_replay_files(tmp_path):
    path = tmp_path / "groups.json"
    path.write_text(json.dumps({"a": "[['glad', 'happy']]", "b": [["sad"]]}))
    assert ReplayGrouper.from_file(path).group(["a", "b", "c"], [[], [], []]) == [[["glad", "happy"]], [["sad"]], None]
    path.write_text(json.dumps({"a": "[['glad'"}))
    with pytest.raises(ValueError, match=r"groups\.json, a: expected a list of lists"):
        ReplayGrouper.from_file(path)
    path.write_text("[]")
    with pytest.raises(ValueError, match="expected an object name -> groups, found list"):
        ReplayGrouper.from_file(path)


def test_a_grouper_that_answers_too_little_is_an_error():
    class Short:
        name = "short"

        def group(self, names, labels):
            return []

    with pytest.raises(ValueError, match="grouping short: 0 answers for 1 samples"):
        set_level_scores(["a"], ["[happy]"], ["[happy]"], Short())
