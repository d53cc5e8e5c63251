"""All stages on a corpus of a few clips: what each leaves behind, and what a second run does not do again."""

import json
from collections import Counter

import pytest
import torch

from microemo import MicroEmoForConditionalGeneration, MicroEmoProcessor
from microemo.training.data import load_table, row_problems
from microemo.training.feature_cache import StaleCacheError
from microemo.training.from_scratch import stages as module
from microemo.training.from_scratch.stages import (
    RECIPE,
    Run,
    from_scratch,
    pretrain,
    pretrain_visual_encoder,
    write_questions,
)
from microemo.training.synthetic.synthetic_dialogues import TABLE, read_truth

STAGES = ("language", "towers", "visual_pretraining", "alignment", "instruction_tuning")


def weights(folder) -> dict[str, torch.Tensor]:
    return MicroEmoForConditionalGeneration.from_pretrained(folder).state_dict()


def changed_parts(before, after) -> set[str]:
    """The first parts of the names of weights that differ."""
    assert before.keys() == after.keys()
    parts = ["vision_model", "audio_tower", "language_model", "image_qformer", "local_clue_attention", "fusion"]
    parts += ["video_qformer", "audio_qformer", "segment_positions", "video_projection", "audio_projection"]
    parts += ["visual_encoder"]  # what is its own: the queries
    names = [name for name in before if not torch.equal(before[name], after[name])]
    found = [next((part for part in parts if part in name.split(".")), name) for name in names]
    return set(found) - {"lm_head.weight"}  # tied to the language model's words


# --- stages as folders ---------------------------------------------------------------------------------------------


def test_a_finished_stage_is_not_done_again(corpus, tmp_path):
    run, done = Run(corpus, tmp_path / "work"), []

    def make(folder):
        done.append(folder)
        (folder / "weights").write_text("learned")

    for _ in range(2):
        folder = run.stage("ablation/first", make)
        assert folder == tmp_path / "work" / "ablation" / "first" and (folder / "weights").read_text() == "learned"
    assert len(done) == 1 and [path.name for path in folder.parent.iterdir()] == ["first"]


def test_a_stage_that_was_broken_off_leaves_nothing_and_is_redone_from_its_beginning(corpus, tmp_path):
    run = Run(corpus, tmp_path)

    def killed(folder):
        (folder / "half").write_text("learned")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.stage("first", killed)
    assert not list(tmp_path.iterdir())
    folder = run.stage("first", lambda folder: (folder / "whole").write_text("learned"))
    assert [path.name for path in folder.iterdir()] == ["whole"] and list(tmp_path.iterdir()) == [folder]


def test_stages_of_another_recipe_are_refused(scratch):
    recipe = {**scratch.run.recipe, "visual_pretraining": {**scratch.run.recipe["visual_pretraining"], "max_steps": 3}}
    told = f"^{scratch.run.work} is stale: visual_pretraining was {{.*'max_steps': 2.*}}, is {{.*'max_steps': 3.*}}. Name another folder$"
    with pytest.raises(StaleCacheError, match=told):
        from_scratch(Run(scratch.run.corpus, scratch.run.work, recipe), scratch.run.work / "start")


def test_the_recipe_is_one_of_the_trainers(corpus, tmp_path):
    run = Run(corpus, tmp_path)
    stages = [
        "copying",
        "language",
        "image_encoder",
        "audio_tower",
        "visual_pretraining",
        "alignment",
        "instruction_tuning",
    ]
    assert list(run.recipe) == [
        *stages,
        "ablation_language",
        "ablation_visual_pretraining",
        "ablation_alignment",
        "ablation",
    ]
    own = {"citations", "kinds", "questions", "rounds"}
    for stage, numbers in run.recipe.items():
        assert (own & numbers.keys()) == (own if stage in ("instruction_tuning", "ablation") else set())
        arguments = run.arguments({k: v for k, v in numbers.items() if k not in own}, tmp_path / stage)
        assert arguments.max_steps == numbers["max_steps"]
        assert arguments.save_strategy == "no"
    assert run.recipe["ablation"]["citations"] == ["times", "index"], "a cited utterance would hand over the answer"
    assert RECIPE.is_file()


# --- the table of questions ----------------------------------------------------------------------------------------


def test_short_conversations_about_the_clips(corpus, tmp_path):
    write_questions(corpus, tmp_path / "q.jsonl", ["times", "index"], ["utterance"], questions=2, rounds=3)
    rows, truth = load_table(tmp_path / "q.jsonl", media_folder=corpus).to_list(), read_truth(corpus)
    counts = Counter(row["name"] for row in rows)
    assert counts == {name: 3 if known["split"] == "train" else 1 for name, known in truth.items()}
    assert not any(row_problems(row) for row in rows)
    forms = Counter()
    for row in rows:
        answers = {"".join(i["text"] for i in m["content"]) for m in row["messages"][1::2]}
        said = truth[row["name"]]["utterances"]
        assert len(row["messages"]) == 4 and len(answers) == 2
        for message in row["messages"][::2]:
            cited = message["content"][-1]["text"]
            index = int(cited.split()[1])
            times = f" ({said[index - 1]['start']:.1f}-{said[index - 1]['end']:.1f}s)"
            assert cited in (f"utterance {index}", f"utterance {index}{times}")
            forms["times" if times in cited else "index"] += 1
    assert abs(forms["times"] - forms["index"]) <= 2

    write_questions(corpus, tmp_path / "again.jsonl", ["times", "index"], ["utterance"], questions=2, rounds=3)
    assert (tmp_path / "again.jsonl").read_text() == (tmp_path / "q.jsonl").read_text()


def test_all_kinds_of_questions(corpus, tmp_path):
    write_questions(corpus, tmp_path / "q.jsonl", ["tokens"], ["whole", "change"], questions=9, rounds=1)
    of_clips = {row["name"]: row["messages"] for row in load_table(corpus / TABLE).to_list()}
    for row in load_table(tmp_path / "q.jsonl").to_list():
        kinds = [turn["kind"] for turn in read_truth(corpus)[row["name"]]["turns"]]
        expected = [
            m for n in (kinds.index("whole"), kinds.index("change")) for m in of_clips[row["name"]][2 * n : 2 * n + 2]
        ]
        assert sorted(map(json.dumps, texts_of(row["messages"]))) == sorted(map(json.dumps, texts_of(expected)))


def texts_of(messages) -> list[tuple[str, list]]:
    return [(message["role"], [item["text"] for item in message["content"]]) for message in messages]


# --- a whole run ---------------------------------------------------------------------------------------------------


def test_each_stage_learns_its_part(scratch):
    work = scratch.run.work
    assert scratch.trained == work / "instruction_tuning" and not list(work.glob("*.part"))
    # The ablation's tests go on in the same folder.
    assert {"start", "clips", "features", "instruction_tuning.jsonl", *STAGES} <= {
        path.name for path in work.iterdir()
    }
    seen = {name: weights(work / name) for name in ("start", *STAGES)}
    assert changed_parts(seen["start"], seen["language"]) == {"language_model"}
    assert changed_parts(seen["language"], seen["towers"]) == {"vision_model", "audio_tower"}
    # All that is not pretrained starts anew.
    pretrained = {"vision_model", "audio_tower", "language_model"}
    assert not changed_parts(seen["towers"], seen["visual_pretraining"]) & pretrained
    assert {"image_qformer", "local_clue_attention", "video_qformer"} <= changed_parts(
        seen["towers"], seen["visual_pretraining"]
    )
    windows = {"video_qformer", "audio_qformer", "segment_positions", "video_projection", "audio_projection"}
    assert changed_parts(seen["visual_pretraining"], seen["alignment"]) == windows
    assert changed_parts(seen["alignment"], seen["instruction_tuning"]) == {*windows, "language_model"}
    assert all(value.isfinite().all() for value in seen["instruction_tuning"].values())


def test_seeing_starts_anew_with_each_seed_and_learns_to_see(scratch, tmp_path):
    run = Run(scratch.run.corpus, tmp_path, scratch.run.recipe)
    towers, features = pretrain(scratch.run, scratch.run.work / "start")
    learned = []
    for seed in (0, 0, 1):
        folder = tmp_path / str(len(learned))
        pretrain_visual_encoder(run, "visual_pretraining", towers, features, {}, seed, folder)
        learned.append(weights(folder))
    assert not changed_parts(*learned[:2]) and not changed_parts(
        learned[0], weights(scratch.run.work / "visual_pretraining")
    )
    assert {"image_qformer", "video_qformer"} <= changed_parts(learned[0], learned[2])


def test_the_run_told_how_it_went(scratch):
    state = json.loads((scratch.trained / "trainer_state.json").read_text())
    assert [log["step"] for log in state["log_history"] if log.get("eval_loss", 0) > 0] == [2]
    card = (scratch.trained / "README.md").read_text()
    assert "split train" in card and str(scratch.run.work) not in card
    rows = sum(1 for line in (scratch.run.work / "instruction_tuning.jsonl").read_text().splitlines())
    assert rows == 4 * scratch.run.recipe["instruction_tuning"]["rounds"] + 2 + 3


def test_the_checkpoint_answers(scratch, corpus):
    model = MicroEmoForConditionalGeneration.from_pretrained(scratch.trained)
    processor = MicroEmoProcessor.from_pretrained(scratch.trained)
    processor.check_config(model.config)
    row = load_table(corpus / TABLE, "test")[0]
    inputs = processor(text="Why?", videos=row["video"], utterances=row["subtitles"], return_tensors="pt")
    assert model.generate(**inputs, max_new_tokens=3, min_new_tokens=3).shape[1] == inputs["input_ids"].shape[1] + 3


def test_a_second_run_does_nothing_again(scratch):
    work = scratch.run.work
    before = {path: path.stat().st_mtime_ns for path in work.rglob("*") if path.is_file()}
    assert from_scratch(scratch.run, work / "start") == scratch.trained
    assert {path: path.stat().st_mtime_ns for path in work.rglob("*") if path.is_file()} == before


def test_a_run_goes_on_with_the_stage_that_it_was_killed_in(scratch, monkeypatch):
    """The stages before it stay as they are; what it had done itself is gone."""
    work = scratch.run.work
    expected, kept = (
        weights(work / "instruction_tuning"),
        (work / "visual_pretraining" / "model.safetensors").stat().st_mtime_ns,
    )
    (work / "instruction_tuning").rename(work / "aside")
    train = module.train

    def killed(model_args, data_args, args):
        train(model_args, data_args, args)
        raise KeyboardInterrupt

    try:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(module, "train", killed)
            from_scratch(scratch.run, work / "start")
        assert not list(work.glob("*instruction_tuning*.tmp")) and not (work / "instruction_tuning").exists()
        from_scratch(scratch.run, work / "start")
        assert not changed_parts(expected, weights(work / "instruction_tuning"))
        assert (work / "visual_pretraining" / "model.safetensors").stat().st_mtime_ns == kept
    finally:
        if not (work / "instruction_tuning").exists():
            (work / "aside").rename(work / "instruction_tuning")


def test_a_corpus_that_is_not_there(tmp_path, tiny, two_steps):
    run = Run(tmp_path / "nowhere", tmp_path / "work", two_steps)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        run.rows("train")
