"""The published scores, reproduced from the published predictions under compat="affectgpt".

The material may not be copied into this repository, so the tests read file names and numbers from the shared folder.
"""

import json
import os
from pathlib import Path

import pytest

from microemo.evaluation.emotion_wheel import EmotionWheels, wheel_scores
from microemo.evaluation.prediction_files import match, read_answers
from microemo.evaluation.set_level import ReplayGrouper, set_level_scores

SHARED = Path(os.environ.get("MICROEMO_SHARED", Path(__file__).parents[2] / ".." / "shared")).resolve()
TEXT = SHARED / "data" / "emer_text"
EXPECTED_FILE = TEXT / "expected_scores.json"
EXPECTED = json.loads(EXPECTED_FILE.read_text())["scores"] if EXPECTED_FILE.is_file() else {}
WITHOUT = "no shared folder: set MICROEMO_SHARED to the folder that holds data/emer_text/expected_scores.json"

OVMERD = {f"{row}-openset.npz": row for row in EXPECTED.get("ew_ovmerd", {})}
OVMERD_PLUS = {f"{row}-openset.npz": row for row in EXPECTED.get("ew_ovmerd_plus_affectgpt", {})}


def our_name(metric: str) -> str:
    """case3_wheel2_level1 -> M3-W2-L1."""
    if metric.startswith("case3"):
        _, wheel, level = metric.split("_")
        return f"M3-W{wheel.removeprefix('wheel')}-L{level.removeprefix('level')}"
    return {"case1": "M1", "case2": "M2", "L1-mean": "EW", "M-avg": "M-avg"}[metric]


def flat(expected: dict) -> dict[str, float]:
    return {
        f"{our_name(metric)}/{side}" if side else our_name(metric): score
        for metric, scores in expected.items()
        for side, score in (scores.items() if isinstance(scores, dict) else [("", scores)])
    }


@pytest.fixture(scope="module")
def wheels():
    return EmotionWheels.from_folder(SHARED / "data" / "emotion_wheel")


def wheel_summary(references: str, predictions: str, wheels) -> dict[str, float]:
    truth, predicted = read_answers(TEXT / references), read_answers(TEXT / predictions)
    return wheel_scores(*match(truth, predicted), wheels, compat="affectgpt").summary()


def assert_scores(found: dict, expected: dict):
    wanted = flat(expected)
    assert len(wanted) >= 12 * 3 + 1
    assert {name: found[name] for name in wanted} == pytest.approx(wanted, abs=1e-6)


@pytest.mark.skipif(not EXPECTED, reason=WITHOUT)
def test_expected_scores_set_level():
    expected = EXPECTED["set_level_gpt_grouping"]
    folder = TEXT / "ov_mer2024"
    names, truth, predicted = match(
        read_answers(folder / "check-openset.csv"), read_answers(folder / "predict-openset.csv")
    )
    grouper = ReplayGrouper.from_file(folder / "openset-synonym.json")
    sheet = set_level_scores(names, truth, predicted, grouper, compat="affectgpt")
    found = sheet.summary()
    assert len(names) == expected["n"]
    assert found["S/precision"] == pytest.approx(expected["accuracy_s"], abs=1e-6)
    assert found["S/recall"] == pytest.approx(expected["recall_s"], abs=1e-6)
    assert found["S/avg"] == pytest.approx(expected["avg"], abs=1e-6)


@pytest.mark.skipif(not EXPECTED, reason=WITHOUT)
def test_expected_scores_mer2024_example(wheels):
    found = wheel_summary("ov_mer2024/check-openset.csv", "ov_mer2024/predict-openset.csv", wheels)
    assert_scores(found, EXPECTED["ew_mer2024_predict_openset"])


@pytest.mark.skipif(not EXPECTED, reason=WITHOUT)
@pytest.mark.parametrize("file", OVMERD or ["no file"])
def test_expected_scores_ovmerd(file, wheels):
    found = wheel_summary("ov_mer2024/check-openset.csv", f"ovmerd_predictions/{file}", wheels)
    assert_scores(found, EXPECTED["ew_ovmerd"][OVMERD[file]])


@pytest.mark.skipif(not EXPECTED, reason=WITHOUT)
@pytest.mark.parametrize("file", OVMERD_PLUS or ["no file"])
def test_expected_scores_ovmerd_plus(file, wheels):
    found = wheel_summary("ovmerd_plus/check-openset.csv", f"ovmerd_plus/affectgpt_predictions/{file}", wheels)
    assert_scores(found, EXPECTED["ew_ovmerd_plus_affectgpt"][OVMERD_PLUS[file]])


@pytest.mark.skipif(not EXPECTED, reason=WITHOUT)
def test_expected_scores_name_every_prediction_file():
    """The three tests above cover the folder: no prediction file is without its expected score."""
    there = {path.relative_to(TEXT).as_posix() for path in TEXT.glob("ovmerd*/*/*-openset.npz")}
    assert there == {f"ovmerd_predictions/{f}" for f in OVMERD} | {
        f"ovmerd_plus/affectgpt_predictions/{f}" for f in OVMERD_PLUS
    }
