"""Systems, checkpoints, combinations, tables and plots, on small files laid out as the published ones."""

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from microemo.evaluation.checkpoint_choice import TestSetSelectionError, checkpoint_step, choose_checkpoint
from microemo.evaluation.combination import combine
from microemo.evaluation.language_model_judge import ChatGrouper
from microemo.evaluation.prediction_files import Answers, read_answers
from microemo.evaluation.result_plots import (
    ELSEWHERE,
    emotion_recall,
    plot_arms,
    plot_confusion,
    plot_curves,
    plot_emotion_recall,
    plot_intervals,
    wheel_confusion,
)
from microemo.evaluation.result_tables import Published, read_published, result_table
from microemo.evaluation.set_level import WheelGrouper
from microemo.evaluation.systems import find_system_files, fix_checkpoints, score_systems

NAMES = [f"clip_{i}" for i in range(40)]
TRUTH = ["[happy, calm]" if i % 2 else "[angry]" for i in range(40)]


def write(path: Path, answers: list[str]):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, filenames=np.array(NAMES), fileitems=np.array(answers))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "truth.csv").write_text(
        "name,openset\n" + "".join(f'{n},"{t}"\n' for n, t in zip(NAMES, TRUTH, strict=True))
    )
    write(
        tmp_path / "runs/Good/nosubtitle-addsub-openset.npz",
        ["[joyful, serene]" if i % 2 else "[mad]" for i in range(40)],
    )
    write(tmp_path / "runs/Good/subtitle-openset.npz", ["[joyful]"] * 40)
    write(tmp_path / "runs/Poor/nosubtitle-addsub-openset.npz", ["[bored, sad]"] * 40)
    for step, answer in ((10, "[happy]"), (20, "[angry, sad]"), (30, "[]")):
        write(tmp_path / f"runs/affectgpt_predictions/checkpoint_0000{step}_loss_0.5-openset.npz", [answer] * 40)
    return tmp_path


def rows(folder, *arguments, **options):
    files = fix_checkpoints(find_system_files(list(arguments) or [str(folder / "runs")]), **options)
    truth = read_answers(folder / "truth.csv")
    return score_systems(truth, files, WheelGrouper(), ["Good + Poor"] if not arguments else [])


def test_files_are_found_and_named_in_the_published_layout(folder):
    found = [(file.system, file.setting) for file in find_system_files([str(folder / "runs")])]
    checkpoints = [(f"AffectGPT checkpoint {step}", "-") for step in (10, 20, 30)]
    assert found == [("Good", "nosubtitle-addsub"), ("Poor", "nosubtitle-addsub"), *checkpoints]
    assert len(find_system_files([str(folder / "runs")], setting=None)) == 6
    (folder / "mine.jsonl").write_text('{"name": "clip_0", "answer": "He is happy."}\n')
    assert find_system_files([f"Ours={folder / 'mine.jsonl'}"])[0].system == "Ours"
    with pytest.raises(FileNotFoundError, match="nowhere: no such file or folder"):
        find_system_files(["nowhere"])
    (folder / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"holds neither \*-reason\.json nor \.jsonl files"):
        find_system_files([str(folder / "empty")], answers="reason")


def test_hidden_files_are_no_answers(folder):
    """What a run that was killed leaves under a temporary name, and what editors keep."""
    expected = find_system_files([str(folder / "runs")], setting=None)
    hidden = folder / "runs" / ".answers.0a1b2c3d.tmp"
    write(hidden / "Good" / "subtitle-openset.npz", ["[joyful]"] * 40)
    write(folder / "runs" / "Good" / ".subtitle.0a1b2c3d.tmp-openset.npz", ["[joyful]"] * 40)
    for place in (hidden, folder / "runs"):
        (place / ".answers.0a1b2c3d.tmp.jsonl").write_text('{"name": "clip_0", "answer": "He is')
        (place / ".answers.0a1b2c3d.tmp-reason.json").write_text("{")
    assert find_system_files([str(folder / "runs")], setting=None) == expected
    with pytest.raises(FileNotFoundError, match="holds neither"):
        find_system_files([str(folder / "runs")], answers="reason")
    assert len(find_system_files([str(hidden)], setting=None)) == 1  # the user's own folder may have any name


def test_no_checkpoint_is_chosen_silently(folder):
    files = find_system_files([str(folder / "runs" / "affectgpt_predictions")])
    assert {file.mark for file in fix_checkpoints(files)} == {"one of 3 checkpoints, none chosen"}
    (last,) = fix_checkpoints(files, "last")
    assert (checkpoint_step(last.path), last.mark) == (30, "last of 3 checkpoints")
    scores = {file.path: score for file, score in zip(files, (0.2, 0.9, 0.1), strict=True)}
    (dev,) = fix_checkpoints(files, "best-on-dev", scores)
    assert (checkpoint_step(dev.path), dev.mark) == (20, "best of 3 checkpoints on the dev split")
    with pytest.raises(TestSetSelectionError, match="refusing to pick the best of 3 checkpoints"):
        fix_checkpoints(files, "best-on-test", scores)
    (test,) = fix_checkpoints(files, "best-on-test", scores, allow_test_selection=True)
    assert test.mark == "BEST OF 3 CHECKPOINTS ON THE TEST SET"


def test_checkpoint_rules():
    assert choose_checkpoint(["checkpoint-9", "checkpoint-10"]).checkpoint == Path("checkpoint-10")  # by number
    assert choose_checkpoint(["checkpoint-9", "checkpoint-10"], "best-on-dev", [1.0, 1.0]).checkpoint == Path(
        "checkpoint-9"
    )
    with pytest.raises(ValueError, match="rule 'best': expected one of last, best-on-dev, best-on-test"):
        choose_checkpoint(["checkpoint-1"], "best")
    with pytest.raises(ValueError, match=r"a step in their names, found model\.npz"):
        choose_checkpoint(["checkpoint-1", "model.npz"])
    with pytest.raises(ValueError, match="needs one score a checkpoint: 2 and 1"):
        choose_checkpoint(["checkpoint-1", "checkpoint-2"], "best-on-dev", [1.0])


def test_union_of_two_systems(folder):
    good, poor = (read_answers(folder / f"runs/{name}/nosubtitle-addsub-openset.npz") for name in ("Good", "Poor"))
    combined, notes = combine(good, poor)
    assert combined.items["clip_1"] == ["joyful", "serene", "bored", "sad"]
    assert notes["combination"] == "union of labels as listed"
    prose = Answers(Path("p"), "text", dict.fromkeys(NAMES, "He is not happy but sad."))
    mixed, notes = combine(prose, good)
    assert mixed.items["clip_0"] == ["sad", "mad"]
    assert notes["combination"] == "union of labels as listed and rule"
    with pytest.raises(ValueError, match="a model merges descriptions, and this file holds label lists"):
        combine(good, poor, chat=object())
    with pytest.raises(ValueError, match="hold different names"):
        combine(good, replace(poor, items={"other": "[]"}))


def test_table_figures_marks_and_published_numbers(folder):
    published = [
        Published("Good", "Avg", 61.75, "a paper", None, "GPT-3.5 synonym groups", "", ""),
        Published("Good", "EW", 50.0, "a paper", 40, "wheels vocabulary, fixed rules", "nosubtitle-addsub", "a note"),
        Published("Good", "F_S", 9.0, "a paper", 40, "x", "subtitle", ""),
        Published("Famous", "Avg", 66.21, "a paper", None, "GPT-3.5 synonym groups", "", ""),
    ]
    table = result_table(rows(folder), against="poor", published=published, draws=200)
    cells = {system: dict(zip(table.columns, row, strict=True)) for system, _, row in table.rows}
    good = cells["Good"]
    # joyful ~ happy and serene ~ calm by M2 of the vocabulary; mad is a form of angry: all right
    assert (good["Avg"].estimate.value, good["Avg"].estimate.low) == (100.0, 100.0)
    assert good["Labels per answer"].estimate.value == 1.5
    assert good["Avg"].p == pytest.approx(1 / 201)
    assert cells["Poor"]["Avg"].p is None
    assert good["Avg"].context == ("wheels vocabulary M2", "nosubtitle-addsub", f"{folder.name}/truth.csv, 40 clips")
    assert good["Avg"].difference == "other split and grouper"
    assert good["EW"].difference == "same split and grouper"
    assert good["F_S"].published is None  # another setting
    assert cells["Famous"]["Avg"].estimate is None
    assert cells["Famous"]["Avg"].difference == "other split and grouper"
    # union: {happy, calm, bored, sad} against {happy, calm}: 2/4 and 1; {angry, bored, sad} against {angry}: 1/3 and 1
    assert cells["Good + Poor"]["Accuracy_S"].estimate.value == pytest.approx(100 * (1 / 2 + 1 / 3) / 2)
    assert cells["Good + Poor"]["Recall_S"].estimate.value == 100.0
    marks = {system: mark for system, mark, _ in table.rows}
    assert marks["Good + Poor"] == "union of labels as listed"
    assert marks["AffectGPT checkpoint 10"] == "one of 3 checkpoints, none chosen"


def test_written_forms(folder):
    published = [Published("Good", "Avg", 61.75, "a paper", None, "GPT-3.5 synonym groups", "", "50 % of it")]
    systems = [replace(row, system=row.system.replace("Poor", "Po_or")) for row in rows(folder)]
    table = result_table(systems, against="Po_or", published=published, draws=50)
    markdown = table.render("markdown").splitlines()
    assert markdown[0].startswith(r"| System | Accuracy\_S | Recall\_S | Avg | Avg, published |")
    assert len({line.replace(r"\|", "").count("|") for line in markdown[: 2 + len(table.rows)]}) == 1
    assert r"100.0 [100.0, 100.0]\*" in markdown[2]
    assert "61.75 other split and grouper (" in markdown[2]
    assert any("grouping wheels vocabulary M2; setting nosubtitle-addsub; sample set" in line for line in markdown)
    assert any(
        "published: a paper; GPT-3.5 synonym groups; setting not stated; split unpublished" in line
        for line in markdown
    )
    assert any("outside the vocabulary" in line for line in markdown)
    latex = table.render("latex")
    assert r"Po\_or" in latex
    assert r"50 \% of it" in latex
    assert latex.count(r"\\") == 1 + len(table.rows)
    lines = list(csv.DictReader(io.StringIO(table.render("csv"))))
    assert len(lines) == 6 * 7
    assert all(line["grouping"] and line["setting"] and line["samples"] for line in lines)
    good = next(line for line in lines if (line["system"], line["metric"]) == ("Good", "Avg"))
    assert (good["value"], good["against"], good["published"]) == ("100.000000", "Po_or", "61.75")
    assert good["difference"] == "other split and grouper"
    with pytest.raises(ValueError, match="form 'html': expected one of markdown, latex, csv"):
        table.render("html")


class Silent:
    """A judge that never gives what was asked for."""

    model = "silent"

    def complete(self, conversations):
        return ["..." for _ in conversations]


def test_what_a_judge_leaves_unread_is_counted_in_the_table(folder):
    for name in ("Good", "Poor"):
        (folder / f"{name}.jsonl").write_text("".join(f'{{"name": "{n}", "answer": "He is happy."}}\n' for n in NAMES))
    files = find_system_files([str(folder / "Good.jsonl"), str(folder / "Poor.jsonl")])
    judge, truth = Silent(), read_answers(folder / "truth.csv")
    systems = score_systems(truth, files, ChatGrouper(judge), ["Good + Poor"], judge, chat=judge)
    table = result_table(systems, draws=10)
    assert "Good (-): 40 answers without readable labels from the model, taken as empty" in table.warnings
    assert "Good + Poor (-): 40 pairs of answers without a readable merged text, taken as empty" in table.warnings
    # the truth has one label in half of the clips (nothing to ask) and two in the others
    assert "Good (-): 20 samples without a readable grouping answer" in table.warnings
    with pytest.raises(ValueError, match=r"Good\.jsonl: holds descriptions; references must be label lists"):
        score_systems(read_answers(folder / "Good.jsonl"), files, WheelGrouper())


def test_table_arguments_are_checked(folder):
    systems = rows(folder)
    with pytest.raises(ValueError, match="against 'Best': 0 rows have that name"):
        result_table(systems, against="Best")
    with pytest.raises(ValueError, match="columns Accuracy: expected some of Accuracy_S"):
        result_table(systems, columns=["Accuracy"])
    truth = read_answers(folder / "truth.csv")
    files = find_system_files([str(folder / "runs")])
    with pytest.raises(ValueError, match="0 files for 'Best', expected one; there are .*Good, Poor"):
        score_systems(truth, files, WheelGrouper(), ["Good + Best"])
    with pytest.raises(ValueError, match="combination 'Good': expected two systems"):
        score_systems(truth, files, WheelGrouper(), ["Good"])


def test_rows_of_other_clips_are_not_tested(folder):
    systems = rows(folder)
    fewer = replace(systems[1], system="Fewer", sheet=systems[1].sheet.select(NAMES[:10]))
    table = result_table([systems[0], fewer], against="Good", draws=20)
    assert all(cell.p is None for cell in table.rows[1][2])
    assert "Fewer: not the clips of Good, so no significance" in table.warnings
    assert table.rows[1][2][0].context[2].endswith("10 clips")


def test_the_published_numbers_are_consistent():
    table1 = {(entry.system, entry.metric): entry for entry in read_published(table=1)}
    for system in ("MicroEmo", "AffectGPT", "SALMONN", "Qwen-Audio"):
        mean = (table1[system, "Accuracy_S"].value + table1[system, "Recall_S"].value) / 2
        assert table1[system, "Avg"].value == pytest.approx(mean, abs=0.011), system
    ours = [entry for entry in table1.values() if entry.metric == "M-avg"]
    assert len(ours) == 10
    assert {entry.setting for entry in ours} == {"nosubtitle-addsub"}
    (without,) = (entry for entry in read_published(table=2) if entry.system == "w/o all")
    assert "does not add up" in without.note


def test_confusion_worked_by_hand():
    # wheel 3 (Geneva) level 1. happy+sad against happy: "positive and in control" is found; "negative and yielding" is
    # answered by what was said instead of it. angry against nothing: elsewhere. odd (unknown) against odd: elsewhere.
    names, matrix = wheel_confusion(
        ["[happy, sad]", "[angry]", "[odd]"], ["[happy]", "[]", "[odd]"], metric="M3-W3-L1"
    )
    control, yielding, anger = (names.index(f"{side}") for side in (
        "positive and in control", "negative and yielding", "negative and in control",
    ))  # fmt: skip
    wanted = np.zeros((len(names), len(names)))
    wanted[control, control] = wanted[yielding, control] = wanted[anger, -1] = wanted[-1, -1] = 1
    np.testing.assert_array_equal(matrix, wanted)
    assert names[-1] == ELSEWHERE
    # one true cluster, two wrong ones said: half each
    _, matrix = wheel_confusion(["[angry]"], ["[happy, sad]"], metric="M3-W3-L1")
    assert (matrix[anger, control], matrix[anger, yielding]) == (0.5, 0.5)


def test_emotion_recall_worked_by_hand():
    recall = emotion_recall(["[happy]", "[joyful, sad]", "[sad]"], ["[glad]", "[sad]", "[]"])
    # M2 names a group of synonyms by its alphabetically first word: happy and glad are cheerful, sad is depressed
    assert recall == {"cheerful": (2, 1), "depressed": (2, 1)}


def test_plots_are_pictures(folder):
    table = result_table(rows(folder), published=read_published(table=1), draws=20)
    pictures = [
        plot_intervals(table, "EW", folder / "plots/intervals.png"),
        plot_confusion(*wheel_confusion(TRUTH, TRUTH), "truth", folder / "plots/confusion.png"),
        plot_emotion_recall(emotion_recall(TRUTH, TRUTH), "truth", folder / "plots/recall.png"),
        plot_arms(
            {"full": [(80, 2), (70, 5)], "without": [(40, 0), (7, 1)]}, ["a", "b"], "right", folder / "plots/arms.png"
        ),
        plot_curves(
            {"full": [[(1, 0.5), (2, 0.1)], [(1, 0.4), (2, 0.2)]], "without": [[(1, 0.9), (2, 0.8)]]},
            ("step", "loss"),
            folder / "plots/curves.png",
        ),
    ]
    for picture in pictures:
        pixels = np.asarray(Image.open(picture).convert("L"))
        assert pixels.shape[0] > 150
        assert pixels.std() > 10  # something is drawn
    assert sorted(path.name for path in (folder / "plots").iterdir()) == [
        "arms.png",
        "confusion.png",
        "curves.png",
        "intervals.png",
        "recall.png",
    ]
    assert plot_intervals(table, "Avg", folder / "plots/intervals.svg").read_text().startswith("<?xml")
    with pytest.raises(ValueError, match="column 'F1': the table has"):
        plot_intervals(table, "F1", folder / "x.png")


def test_bars_of_arms_are_as_long_as_their_means(tmp_path):
    def inked(mean):
        picture = plot_arms({"full": [(mean, 0.0)]}, ["a"], "right", tmp_path / f"{mean}.png")
        pixels = np.asarray(Image.open(picture).convert("RGB"))
        in_first_colour = (pixels == (31, 119, 180)).all(-1)
        return in_first_colour[len(pixels) // 3 :].any(0).sum()  # below the legend

    assert inked(80) == pytest.approx(2 * inked(40), rel=0.03)
