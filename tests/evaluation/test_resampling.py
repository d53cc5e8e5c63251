"""Intervals and significance against closed forms and brute force."""

from itertools import product

import numpy as np
import pytest

from microemo.evaluation.resampling import bootstrap, paired_p_values
from microemo.evaluation.score_sheet import ScoreSheet, overlap


def sheet(precision, recall=None, metric="S"):
    precision = np.asarray(precision, dtype=float)
    recall = precision if recall is None else np.asarray(recall, dtype=float)
    names = tuple(f"n{i}" for i in range(len(precision)))
    return ScoreSheet(names, (metric,), precision[:, None], recall[:, None], {"labels": precision})


def test_overlap_rules():
    precision, recall = overlap([{"a", "b"}, {"a"}, set(), {"a"}], [{"a", "c", "d"}, set(), {"a"}, {"b"}])
    np.testing.assert_allclose(precision, [1 / 3, 0, np.nan, 0])
    np.testing.assert_allclose(recall, [1 / 2, 0, np.nan, 0])


def test_interval_of_a_mean_has_the_width_of_its_standard_error():
    values = np.random.default_rng(1).uniform(size=400)
    estimate = bootstrap(sheet(values), draws=4000)["S/precision"]
    standard_error = values.std() / np.sqrt(len(values))
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.low == pytest.approx(values.mean() - 1.96 * standard_error, abs=0.1 * standard_error)
    assert estimate.high == pytest.approx(values.mean() + 1.96 * standard_error, abs=0.1 * standard_error)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(200):
        estimate = bootstrap(sheet(rng.uniform(size=60)), draws=300)["S/precision"]
        covered += estimate.low <= 0.5 <= estimate.high
    assert 0.88 <= covered / 200 <= 0.99


def test_f_is_of_the_means_in_every_draw_and_unscored_samples_stay_out():
    precision, recall = [1.0, 0.0, np.nan], [0.5, 0.0, np.nan]
    estimate = bootstrap(sheet(precision, recall), draws=500)["S/f"]
    assert estimate.value == pytest.approx(2 * 0.5 * 0.25 / 0.75)
    assert estimate.low == 0.0  # draws of the second sample alone
    assert estimate.high == pytest.approx(2 * 1 * 0.5 / 1.5)  # draws of the first alone


def test_one_sample_and_none_scored():
    one = bootstrap(sheet([0.25]), draws=10)["S/precision"]
    assert (one.value, one.low, one.high) == (0.25, 0.25, 0.25)
    assert np.isnan(bootstrap(sheet([np.nan]), draws=10)["S/precision"].low)


def test_the_same_seed_gives_the_same_interval_and_chunks_do_not_matter(monkeypatch):
    values = np.random.default_rng(3).uniform(size=50)
    first = bootstrap(sheet(values), draws=64, seed=5)["S/f"]
    monkeypatch.setattr("microemo.evaluation.resampling.CHUNK", 16 * 50)
    assert bootstrap(sheet(values), draws=64, seed=5)["S/f"] == first
    assert bootstrap(sheet(values), draws=64, seed=6)["S/f"] != first


def test_p_agrees_with_every_possible_swap():
    """With 8 samples all 2^8 swaps can be tried; the random estimate must come near that exact p."""
    rng = np.random.default_rng(4)
    a, b = rng.uniform(size=(2, 8))
    p_exact = {}
    for figure, value in {
        "S/precision": lambda x: x.mean(),
        "S/f": lambda x: 2 * x.mean() * (x**2).mean() / (x.mean() + (x**2).mean()),
    }.items():
        seen = abs(value(a) - value(b))
        swaps = [np.array(swap) for swap in product([True, False], repeat=8)]
        differences = [abs(value(np.where(s, a, b)) - value(np.where(s, b, a))) for s in swaps]
        p_exact[figure] = np.mean(np.array(differences) >= seen - 1e-12)
    found = paired_p_values(sheet(a, a**2), sheet(b, b**2), draws=20_000)
    for figure, p in p_exact.items():
        assert found[figure] == pytest.approx(p, abs=0.015)


def test_p_of_equal_and_of_very_different_systems():
    values = np.random.default_rng(5).uniform(size=100)
    assert paired_p_values(sheet(values), sheet(values), draws=200)["S/f"] == 1.0
    assert paired_p_values(sheet(values), sheet(values * 0.5), draws=200)["S/f"] == pytest.approx(1 / 201)


def test_pairing_is_by_name_not_by_position():
    a = sheet([0.1, 0.5, 0.9])
    shuffled = a.select(["n2", "n0", "n1"])
    assert shuffled.precision[:, 0].tolist() == [0.9, 0.1, 0.5]
    assert paired_p_values(a, shuffled, draws=100)["S/precision"] == 1.0
    with pytest.raises(ValueError, match="3 and 2 names, 2 in common"):
        paired_p_values(a, a.select(["n0", "n1"]))


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="draws=0, level=0.95"):
        bootstrap(sheet([1.0]), draws=0)
    with pytest.raises(ValueError, match="sheets of different samples: 1 and 2 names"):
        sheet([1.0]).join(sheet([1.0, 2.0], metric="M1"))
