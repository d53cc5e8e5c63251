"""Labels from prose: what is affirmed, and what is denied."""

from pathlib import Path

import pytest

from microemo.evaluation.label_extraction import labels_of, rule_labels
from microemo.evaluation.prediction_files import Answers
from microemo.evaluation.sentiment import label_sentiment, sentiment_scores, valence_sentiment


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("He is happy.", ["happy"]),
        ("She is not angry but worried, without any trace of joy.", ["worried"]),
        ("He isn’t happy. He is sad.", ["sad"]),
        ("There is no anger, sadness, or fear, and she seems calm.", ["calm"]),
        ("Neither joy nor surprise shows; only grief.", ["grief"]),
        ("He is not only excited but also proud.", ["excited", "proud"]),
        ("I do not see sadness, he smiles happily.", ["happily"]),
        ("She cannot hide her nervousness", []),  # a limit of the rule: it takes the denial of hiding for a denial
        ("Joy, joyful, joyfully: one word.", ["joy"]),
        ("It can be determined that the subtitle content is about work.", []),
        ("He feels content, determined and focused.", ["content", "determined", "focused"]),
        ("They are looking forward to it.", ["looking forward to"]),
        ("His mood is neutral.", ["neutral"]),
        ("", []),
        ("他很开心。", []),
    ],
)
def test_rule(text, labels):
    assert rule_labels(text) == labels


def test_answers_of_either_kind():
    listed = Answers(Path("x"), "labels", {"a": "[Happy]", "b": ["sad"]})
    assert labels_of(listed) == ({"a": ["happy"], "b": ["sad"]}, {"extraction": "as listed"})
    prose = Answers(Path("x"), "text", {"a": "He is happy.", "b": None})
    labels, notes = labels_of(prose)
    assert labels == {"a": ["happy"], "b": []}
    assert notes == {"extraction": "rule", "unreadable": ()}


@pytest.mark.parametrize(
    ("labels", "sentiment"),
    [
        (["happy", "proud", "sad"], "positive"),
        (["happy", "sad"], "neutral"),
        (["furious"], "negative"),
        (["surprised"], "neutral"),
        (["unheard-of"], "neutral"),
        (["positive"], "positive"),
        ([], "neutral"),
    ],
)
def test_sentiment_by_majority(labels, sentiment):
    assert label_sentiment(labels) == sentiment


def test_sentiment_scores_worked_by_hand():
    truth = ["positive", "positive", "positive", "negative", "neutral"]
    predicted = ["positive", "negative", None, "negative", "positive"]
    # neutral truth is left out. ACC 2/4. positive: 1 hit, 3 true, 1 named: F 2/4; negative: 1 hit, 1 true, 2 named: F 2/3.
    # WAF = 3/4 * 1/2 + 1/4 * 2/3
    assert sentiment_scores(truth, predicted) == {"ACC": 0.5, "WAF": pytest.approx(3 / 8 + 1 / 6), "n": 4}
    assert [valence_sentiment(value) for value in (2.25, -0.5, 0)] == ["positive", "negative", "neutral"]
    with pytest.raises(ValueError, match="sentiment 'glad': expected positive"):
        sentiment_scores(["glad"], ["positive"])
    assert sentiment_scores(["neutral"], ["neutral"])["n"] == 0
