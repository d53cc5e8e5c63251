"""Wheel metrics on a small vocabulary worked by hand, and the vocabulary that ships."""

import numpy as np
import pytest
from openpyxl import Workbook

from microemo.evaluation.build_vocabulary import format_table
from microemo.evaluation.emotion_wheel import (
    DEFAULT_FOLDER,
    EmotionWheels,
    hit_rate,
    hit_rates,
    out_of_vocabulary_share,
    wheel_scores,
)
from microemo.utils.files import read_table

# wheel 1: joy > {cheerful > merry, glee; calm > serene}, anger > {mad > cross; hate > merry}   ("merry" under two roots)
WHEEL1 = "level1,level2,level3\n Joy ,Cheerful,Merry\n,,Glee\n,Calm,Serene\nAnger,Mad,Cross\n,Hate,Merry\n"
# wheel 2 knows joy only
WHEEL2 = "level1,level2,level3\nGood,Joy,Glee\n"
SYNONYM = (
    "word_run1,synonym_run1,word_run2,synonym_run2\n"
    'cheerful,"happy, glad",Cheerful,jolly\nmad,"furious",mad,\ncalm,,calm,happy\nserene,,serene,\nglee,,glee,\n'
)
FORMAT = (
    'name,format\nhappy,"happy,happily,happiness"\nglad,"glad,gladly"\nfurious,"furious,fury"\nmad,"mad,madly,fury"\n'
    'serene,serene\ncheerful,cheerful\nglee,glee\ncalm,"calm,calmly"\n'
)


@pytest.fixture
def folder(tmp_path):
    for name, text in {"wheel1": WHEEL1, "wheel2": WHEEL2, "synonym": SYNONYM, "format": FORMAT}.items():
        (tmp_path / f"{name}.csv").write_text(text)
    return tmp_path


@pytest.fixture
def wheels(folder):
    return EmotionWheels.from_folder(folder)


def test_metrics_follow_the_wheels(wheels):
    assert wheels.metrics == ("M1", "M2", "M3-W1-L1", "M3-W1-L2", "M3-W2-L1", "M3-W2-L2")


@pytest.mark.parametrize(
    ("label", "metric", "published", "ours"),
    [
        # M1: the alphabetically first word of the form: fury is a form of furious and of mad
        ("happily", "M1", "happy", "happy"),
        ("fury", "M1", "furious", "furious"),
        # M2: the alphabetically first wheel label of that word: happy is a synonym of cheerful (run 1) and calm (run 2)
        ("happiness", "M2", "calm", "calm"),
        ("fury", "M2", "mad", "mad"),
        # M3: all wheel labels of all words, sorted, the first on the wheel; happy -> calm (before cheerful) -> joy
        ("happy", "M3-W1-L1", "joy", "joy"),
        ("happy", "M3-W1-L2", "calm", "calm"),
        ("serene", "M3-W1-L1", "joy", "joy"),
        ("serene", "M3-W1-L2", "calm", "calm"),
        # not on wheel 2: removed by the published code, its own M2 label by ours
        ("serene", "M3-W2-L1", None, "serene"),
        ("glee", "M3-W2-L1", "good", "good"),
        ("glee", "M3-W2-L2", "joy", "joy"),
        # outside the vocabulary
        ("odd", "M1", None, "odd"),
        ("odd", "M3-W1-L1", None, "odd"),
        ("neutral", "M2", None, "neutral"),
    ],
)
def test_clusters(wheels, label, metric, published, ours):
    assert wheels.cluster(label, metric, "affectgpt") == published
    assert wheels.cluster(label, metric) == ours


def test_inner_roots_and_words_under_two_roots(wheels):
    level1, level2 = wheels.clusters["M3-W1-L1"], wheels.clusters["M3-W1-L2"]
    assert level1["joy"] == "joy"
    assert level2["joy"] == "calm"  # the alphabetically first middle child
    assert level2["anger"] == "hate"
    assert level1["merry"] == "anger"  # the last row that names it wins
    assert level2["merry"] == "hate"


def test_ours_takes_a_word_that_stands_on_the_wheel_for_itself(folder):
    (folder / "synonym.csv").write_text(SYNONYM + "cross,serene,cross,\n")
    wheels = EmotionWheels.from_folder(folder)
    # serene has the wheel labels cross and serene; the published rule takes the first, which lies under anger
    assert wheels.cluster("serene", "M3-W1-L1", "affectgpt") == "anger"
    assert wheels.cluster("serene", "M3-W1-L1") == "joy"


def test_scores_worked_by_hand(wheels):
    truth = ["[happy, serene]", "[furious]", "[odd]", "[glad]"]
    predicted = ["[jolly, mad, happiness]", "[]", "[odd]", "[mad, odd]"]
    names = ["a", "b", "c", "d"]
    published = wheel_scores(names, truth, predicted, wheels, compat="affectgpt")
    column = published.metrics.index("M3-W1-L1")
    # a: {joy} against {joy, anger} (jolly has no word form: removed) -> 1/2, 1; b: empty prediction -> 0, 0;
    # c: no truth left -> skipped; d: {joy} against {anger} (odd removed) -> 0, 0
    np.testing.assert_array_equal(published.precision[:, column], [0.5, 0, np.nan, 0])
    np.testing.assert_array_equal(published.recall[:, column], [1, 0, np.nan, 0])
    summary = published.summary()
    p, r = 0.5 / 3, 1 / 3
    assert summary["M3-W1-L1/f"] == pytest.approx(2 * p * r / (p + r))
    ours = wheel_scores(names, truth, predicted, wheels)
    # a: {joy} against {jolly, anger, joy}: 1/3; c: odd = odd: 1; d: {anger, odd}: 0
    np.testing.assert_allclose(ours.precision[:, column], [1 / 3, 0, 1, 0])
    np.testing.assert_allclose(ours.recall[:, column], [1, 0, 1, 0])
    # truth: 1 of 5 labels unknown; predicted: jolly and odd, odd of 6
    assert ours.notes["out_of_vocabulary_truth"] == pytest.approx(1 / 5)
    assert ours.notes["out_of_vocabulary_predicted"] == pytest.approx(3 / 6)
    assert summary["labels"] == pytest.approx(6 / 4)


def test_averages_are_of_the_f_scores(wheels):
    summary = wheel_scores(["a"], ["[happy]"], ["[glee, mad]"], wheels).summary()
    f = [summary[f"{metric}/f"] for metric in wheels.metrics]
    # M1, M2: nothing shared. W1-L1: {joy} / {joy, anger}: P 1/2, R 1. W1-L2: {calm} / {cheerful, mad}: 0.
    # W2: happy is on neither: {calm} against {good, mad}: 0
    assert f == pytest.approx([0, 0, 2 / 3, 0, 0, 0])
    assert summary["M-avg"] == pytest.approx(2 / 3 / 6)
    assert summary["EW/f"] == pytest.approx((2 / 3 + 0) / 2)
    assert summary["EW/precision"] == pytest.approx(0.25)
    assert summary["EW/recall"] == pytest.approx(0.5)


def test_hit_rate(wheels):
    sheet = hit_rates("abc", ["happy", "furious", "odd"], ["[mad, serene]", "[calm]", "[happy]"], wheels, "affectgpt")
    # wheel 1: a hits (joy), b does not, c is skipped: 1/2. Wheel 2: no truth label stands on it: no score
    np.testing.assert_array_equal(sheet.values["hit/W1"], [1, 0, np.nan])
    assert np.isnan(sheet.values["hit/W2"]).all()
    ours = hit_rates("abc", ["happy", "furious", "odd"], ["[mad, serene]", "[calm]", "[odd]"], wheels)
    np.testing.assert_array_equal(ours.values["hit/W1"], [1, 0, 1])
    # wheel 2 (ours): happy -> its M2 calm, serene -> its M2 serene, not calm: no hit; odd = odd
    np.testing.assert_array_equal(ours.values["hit/W2"], [0, 0, 1])
    assert hit_rate(ours) == pytest.approx((2 / 3 + 1 / 3) / 2)


def test_xlsx_reads_as_csv(folder, tmp_path):
    for stem in ("wheel1", "wheel2", "synonym"):
        book = Workbook()
        rows = read_table(folder / f"{stem}.csv")
        book.active.append(list(rows[0]))
        for row in rows:
            book.active.append([value or None for value in row.values()])
        book.save(folder / f"{stem}.xlsx")
    before = EmotionWheels.from_folder(folder)
    for stem in ("wheel1", "wheel2", "synonym"):
        (folder / f"{stem}.csv").unlink()
    after = EmotionWheels.from_folder(folder)
    assert (after.forms, after.synonyms, after.wheels) == (before.forms, before.synonyms, before.wheels)


def test_errors_name_the_file(folder, wheels):
    with pytest.raises(ValueError, match=r"metric 'M4': the vocabulary .* has M1, M2"):
        wheels.cluster("happy", "M4")
    (folder / "format.csv").write_text("name,format\nghost,ghosts\n")
    with pytest.raises(ValueError, match=r"format\.csv: 'ghost' is neither a wheel label nor a synonym"):
        EmotionWheels.from_folder(folder)
    (folder / "synonym.csv").write_text("word_run1,synonym_run1\nghost,spirit\n")
    with pytest.raises(ValueError, match=r"synonym\.csv: word_run1 holds 'ghost', which stands on none of the wheels"):
        EmotionWheels.from_folder(folder)
    (folder / "synonym.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no synonym\.csv or synonym\.xlsx"):
        EmotionWheels.from_folder(folder)
    (folder / "wheel1.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"wheel1\.csv: expected rows with the columns level1, level2, level3"):
        EmotionWheels.from_folder(folder)
    (folder / "wheel1.csv").unlink()
    with pytest.raises(FileNotFoundError, match="holds no wheel1"):
        EmotionWheels.from_folder(folder)


def test_the_shipped_vocabulary_is_whole():
    wheels = EmotionWheels.default()
    assert len(wheels.wheels) == 5
    words = {row["name"] for row in read_table(DEFAULT_FOLDER / "families.csv")} - {"neutral"}
    assert {word for found in wheels.forms.values() for word in found} == words
    level1 = [clusters for metric, clusters in wheels.clusters.items() if metric.endswith("-L1")]
    assert all(any(word in clusters for clusters in level1) for word in words)
    assert all(sum(word in clusters for word in words) > 0.85 * len(words) for clusters in level1)
    assert out_of_vocabulary_share([["happily", "neutral", "unheard-of", "angrier"]], wheels) == 0.25


def test_the_shipped_word_forms_are_what_the_builder_writes():
    assert (DEFAULT_FOLDER / "format.csv").read_text() == format_table()


@pytest.mark.parametrize(
    ("one", "other", "metric"),
    [
        ("happiness", "happily", "M1"),
        ("angrier", "angry", "M1"),
        ("worries", "worriedly", "M1"),
        ("joyful", "cheerful", "M2"),
        ("nervousness", "worry", "M2"),
        ("furious", "irritated", "M3-W1-L1"),
        ("grief", "disappointment", "M3-W2-L1"),
        ("proud", "thrilled", "M3-W3-L1"),
        ("terrified", "anxious", "M3-W4-L1"),
        ("grateful", "amused", "M3-W5-L1"),
    ],
)
def test_the_shipped_vocabulary_brings_near_words_together(one, other, metric):
    wheels = EmotionWheels.default()
    assert wheels.cluster(one, metric) == wheels.cluster(other, metric)
    assert wheels.cluster(one, metric) != wheels.cluster("neutral", metric)


def test_one_and_ten_thousand_samples():
    names = [f"clip_{i}" for i in range(10_000)]
    truth = [["happy", "calm"] if i % 2 else ["angry"] for i in range(10_000)]
    predicted = [["glad"] if i % 4 == 1 else ["mad", "bored"] for i in range(10_000)]
    summary = wheel_scores(names, truth, predicted).summary()
    # M2: 1/4 of the samples meet happy ~ glad (1/1, 1/2); of the even half angry is not mad? mad is a form of angry: 1/2, 1
    assert summary["M2/precision"] == pytest.approx(0.25 * 1 + 0.5 * 0.5)
    assert summary["M2/recall"] == pytest.approx(0.25 * 0.5 + 0.5 * 1)
    assert wheel_scores(names[:1], truth[:1], predicted[:1]).summary()["M2/precision"] == 0.5
