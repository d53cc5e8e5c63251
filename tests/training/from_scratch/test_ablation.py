"""The arms of the ablation: what differs between them, one of them from training to scores, and the table."""

import copy
import csv
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from microemo import MicroEmoConfig, MicroEmoForConditionalGeneration, MicroEmoProcessor
from microemo.training.collator import MicroEmoCollator
from microemo.training.data import load_table
from microemo.training.feature_cache import FeatureCache, StaleCacheError
from microemo.training.from_scratch.ablation import ARMS, run_ablation, write_results
from microemo.training.from_scratch.stages import Run
from microemo.training.synthetic.synthetic_dialogues import TABLE, cite_as, read_truth
from microemo.training.train import ModelArguments, load_config_and_processor

SEED = 370  # of the clips of the corpus

# --- the arms ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def asked(corpus):
    """A row with questions in words."""
    row = load_table(corpus / TABLE, "dev")[0]
    said = read_truth(corpus)[row["name"]]["utterances"]
    return {**row, "messages": cite_as(row["messages"], said, "times")}, said


@pytest.mark.parametrize("name", ARMS)
def test_an_arm_differs_in_its_switches_alone(tiny, asked, name):
    arm, (row, said) = ARMS[name], asked
    full = MicroEmoConfig.from_pretrained(tiny).to_dict()
    config, processor = load_config_and_processor(
        ModelArguments(model_name_or_path=str(tiny), config_overrides=arm.config_overrides)
    )
    in_config = {key: value for key, value in arm.config_overrides.items() if key != "clue_regions"}
    assert config.to_dict() == {**full, **in_config}
    torch.manual_seed(0)
    model = MicroEmoForConditionalGeneration(config)
    batch = MicroEmoCollator(processor)([row])
    model(**batch).loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)

    assert batch["audio_windows"].shape[1] == len(said), "the sound has its windows in every arm"
    windows = {"utterance": len(said), "none": 0, "sliding": 1 + last_frame(processor, row) // 2}[config.windows]
    assert batch["utterance_windows"].shape[1] == windows
    assert ("qformer_input_ids" in batch) == ("timestamps" not in name and name != "without-all")
    assert batch["region_masks"].shape[2] == (1 if name == "whole-face" else 11)
    has_local = any("local_clue_attention" in part for part, _ in model.named_parameters())
    assert has_local == (config.use_local_clue_attention is True) == ("local" not in name and name != "without-all")


def last_frame(processor, row) -> float:
    """Its time in seconds."""
    metadata = processor(videos=row["video"], utterances=row["subtitles"], return_metadata=True)["video_metadata"]
    return metadata[0].frame_times[-1]


def test_arms_that_see_alike_share_what_they_learned_to_see():
    assert ARMS["full"].visual == ARMS["without-windows"].visual == ARMS["sliding"].visual == {}
    assert ARMS["without-all"].visual == ARMS["without-local-timestamps"].visual != ARMS["without-local"].visual
    assert ARMS["whole-face"].visual == ARMS["whole-face"].config_overrides
    assert len({arm.name for arm in ARMS.values()}) == len(ARMS) == 7


def test_a_language_model_for_all_arms(scratch):
    """It has read about dialogues in all layouts; the towers are as they were."""
    work = scratch.run.work
    run_ablation(scratch.run, work / "start", ["without-windows"], seeds=1, test_seed=SEED)  # done above, or now
    before, after = (
        load_file(folder / "model.safetensors") for folder in (work / "towers", work / "ablation/language")
    )
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all("language_model" in name for name in changed)
    instruction_tuning = MicroEmoForConditionalGeneration.from_pretrained(
        work / "ablation/alignment-without-windows-0"
    )
    learned = instruction_tuning.state_dict()
    assert all(torch.equal(learned[name], after[name]) for name in changed)


# --- one arm -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["without-windows", pytest.param("whole-face", marks=pytest.mark.slow)])
def test_an_arm_from_training_to_scores(scratch, corpus, name):
    run = scratch.run
    (result,) = run_ablation(run, run.work / "start", [name], seeds=1, test_seed=SEED)
    assert json.loads((run.work / "ablation" / f"{name}-0-2-steps-test-{SEED}.json").read_text()) == result
    assert (result["arm"], result["seed"], result["config_overrides"]) == (name, 0, ARMS[name].config_overrides)
    truth = read_truth(corpus)
    count = sum(len(known["utterances"]) for known in truth.values() if known["split"] == "test")
    for form in ("times", "index"):
        score = result["scores"][form]
        assert score["questions"] == count > 0 and 0 <= score["accuracy"] <= 1
    assert [step for step, score in result["dev_scores"] if 0 <= score <= 1] == [1, 2]

    trained = run.work / "ablation" / f"instruction_tuning-{name}-0-2-steps"
    model, processor = (
        MicroEmoForConditionalGeneration.from_pretrained(trained),
        MicroEmoProcessor.from_pretrained(trained),
    )
    processor.check_config(model.config)
    assert all(
        getattr(model.config, key) == value
        for key, value in ARMS[name].config_overrides.items()
        if key != "clue_regions"
    )
    row = load_table(corpus / TABLE, "test")[0]
    inputs = processor(text="Why?", videos=row["video"], utterances=row["subtitles"], return_tensors="pt")
    assert model.generate(**inputs, max_new_tokens=2, min_new_tokens=2).shape[1] == inputs["input_ids"].shape[1] + 2
    assert inputs["region_masks"].shape[2] == (1 if name == "whole-face" else 11)
    # Other regions are looked for anew, in caches of their own.
    suffix = "-whole-face" if name == "whole-face" else ""
    clips = {path.name for path in (run.work / f"clips{suffix}").glob("*.safetensors")}
    assert clips == {path.name for path in (run.work / f"features{suffix}").glob("*.safetensors")}
    crops = {path.name for path in (run.work / f"features{suffix}-crops").glob("*.safetensors")}
    assert clips == crops
    with pytest.raises(StaleCacheError):  # its frames are crops
        FeatureCache(run.work / f"features{suffix}", processor, model)
    seen = f"frame_tokens-{ARMS[name].visual_name}-0"
    tokens = FeatureCache(run.work / "ablation" / seen, processor, model)
    read = tokens.reader()(videos=row["video"], utterances=row["subtitles"], return_tensors="pt")
    assert tokens.frame_tokens and not {"vision_features", "face_features", "pixel_values_videos"} & read.keys()
    assert clips == {path.name for path in tokens.folder.glob("*.safetensors")}
    assert len(clips) == sum(known["split"] != "test_unseen" for known in truth.values()) > 0

    before = {path: path.stat().st_mtime_ns for path in run.work.rglob("*") if path.is_file()}
    assert run_ablation(run, run.work / "start", [name], seeds=1, test_seed=SEED) == [result]
    assert {path: path.stat().st_mtime_ns for path in run.work.rglob("*") if path.is_file()} == before
    assert not list(run.work.rglob("*.part"))
    # Another number of steps begins where instruction tuning does.
    (shorter,) = run_ablation(run, run.work / "start", [name], seeds=1, test_seed=SEED, steps=1)
    assert [step for step, _ in shorter["dev_scores"]] == [1]
    kept = before.keys() - {run.work / "ablation.jsonl"}
    assert all(path.stat().st_mtime_ns == before[path] for path in kept)


def test_frames_and_crops_of_the_ablation_are_one_picture(scratch):
    """What was kept of the face crops stands where that of the frames stood, to the last bit."""
    work = scratch.run.work
    run_ablation(scratch.run, work / "start", ["without-windows"], seeds=1, test_seed=SEED)  # done above, or now
    for file in (work / "features").glob("*.safetensors"):
        kept, crops = load_file(file), load_file(work / "features-crops" / file.name)
        assert kept["face_features"].any() and torch.equal(crops.pop("vision_features"), kept.pop("face_features"))
        kept.pop("vision_features")
        assert crops.keys() == kept.keys() and all(torch.equal(crops[key], kept[key]) for key in kept)


@pytest.mark.slow
def test_arms_at_once_score_as_one_after_the_other(scratch, corpus, tiny, tmp_path):
    names, scores = ["without-windows", "sliding", "without-all"], []
    for num_workers in (1, 2):
        run = Run(corpus, tmp_path / str(num_workers), scratch.run.recipe)
        shutil.copytree(scratch.run.work / "start", run.work / "start")
        scores.append(run_ablation(run, run.work / "start", names, seeds=1, num_workers=num_workers, test_seed=SEED))
    assert [one["arm"] for one in scores[0]] == names and scores[0] == scores[1]


def test_questions_of_the_ablation_are_in_words(scratch, corpus):
    """A cited utterance would hand over the place of the answer."""
    run_ablation(
        scratch.run, scratch.run.work / "start", ["without-windows"], seeds=1, test_seed=SEED
    )  # done above, or now
    rows, truth = load_table(scratch.run.work / "ablation.jsonl").to_list(), read_truth(corpus)
    for row in rows:
        assert len(row["messages"]) == 2 * min(6, len(truth[row["name"]]["utterances"]))
        assert {item["type"] for message in row["messages"] for item in message["content"]} == {"text"}
        assert all("utterance " in message["content"][-1]["text"] for message in row["messages"][::2])


# --- the table -----------------------------------------------------------------------------------------------------


def result_of(arm, seed, times, index):
    scores = {form: {"accuracy": value, "questions": 9} for form, value in (("times", times), ("index", index))}
    return {"arm": arm, "seed": seed, "scores": scores, "dev_scores": [[2, 0.5], [4, 0.25 + index / 8]]}


def test_the_table(tmp_path):
    results = [
        result_of("without-local", 0, 0.5, 0.25),
        result_of("full", 0, 0.9, 0.7),
        result_of("full", 1, 0.8, 0.6),
    ]
    assert write_results(copy.deepcopy(results), tmp_path / "out") == tmp_path / "out" / "ablation.md"
    assert (tmp_path / "out" / "ablation.md").read_text().splitlines() == [
        "| | times in the question | number only | seeds |",
        "|---|---|---|---|",
        "| MicroEmo | 85.0 ± 7.1 | 65.0 ± 7.1 | 2 |",
        "| w/o local clue attention | 50.0 ± 0.0 | 25.0 ± 0.0 | 1 |",
    ]
    with open(tmp_path / "out" / "ablation.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["arm"], row["seeds"]) for row in rows] == [("MicroEmo", "2"), ("w/o local clue attention", "1")]
    assert (rows[0]["times mean"], rows[0]["times deviation"], rows[0]["index mean"]) == ("85.00", "7.07", "65.00")
    assert (tmp_path / "out" / "ablation.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "out" / "learning.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "out").iterdir())) == 4
