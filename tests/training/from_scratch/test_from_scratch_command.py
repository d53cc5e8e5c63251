"""`microemo from-scratch`, `ablation` and `score-dialogues`, from the command line to files."""

import json
import shutil

import pytest
import typer
import yaml
from typer.testing import CliRunner

from microemo.commands.from_scratch_command import ablation, from_scratch, score_dialogues
from microemo.inference.emotion_pipeline import EmotionPipeline
from microemo.training.data import load_table
from microemo.training.from_scratch import stages as module
from microemo.training.from_scratch.dialogue_scores import answer_utterance_questions
from microemo.training.synthetic.synthetic_dialogues import TABLE, read_truth, write_dialogues


@pytest.fixture(scope="module")
def command():
    app = typer.Typer()
    for function in (from_scratch, ablation, score_dialogues):
        app.command()(function)
    return lambda *argv: CliRunner().invoke(app, [str(value) for value in argv])


@pytest.fixture
def short(two_steps, tmp_path, monkeypatch):
    """The recipe that the commands follow, with two steps a stage."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(two_steps))
    monkeypatch.setattr(module, "RECIPE", recipe)


def test_from_scratch_gives_a_checkpoint_without_what_only_training_needs(command, scratch, corpus, tmp_path, short):
    out = tmp_path / "new" / "microemo-tiny"
    result = command("from-scratch", corpus, out, "--work", scratch.run.work)
    assert result.exit_code == 0, result.exception
    assert result.output.strip().endswith(str(out))
    files = {path.name for path in out.iterdir()}
    assert {"config.json", "model.safetensors", "processor_config.json", "tokenizer.json"} <= files
    assert not {"training_args.bin", "trainer_state.json", "README.md"} & files and list(out.parent.iterdir()) == [out]
    assert (out / "model.safetensors").read_bytes() == (scratch.trained / "model.safetensors").read_bytes()
    EmotionPipeline.from_pretrained(out)

    again = command("from-scratch", corpus, out, "--work", scratch.run.work)
    assert isinstance(again.exception, FileExistsError) and "name a new folder" in str(again.exception)


@pytest.mark.slow
def test_from_scratch_makes_what_it_begins_with(command, corpus, tmp_path, short):
    result = command("from-scratch", corpus, tmp_path / "out", "--work", tmp_path / "work", "--num-workers", 1)
    assert result.exit_code == 0, result.exception
    assert {"start", "language", "instruction_tuning"} <= {path.name for path in (tmp_path / "work").iterdir()}
    assert EmotionPipeline.from_pretrained(tmp_path / "out").processor.video_processor.num_frames == 24


def test_a_corpus_that_is_not_there(command, tmp_path):
    shutil.rmtree(tmp_path / "nowhere", ignore_errors=True)
    result = command("score-dialogues", tmp_path / "checkpoint", tmp_path / "nowhere")
    assert isinstance(result.exception, OSError)


def test_arms_that_are_not_there(command, tmp_path):
    result = command("ablation", tmp_path, tmp_path / "out", "--arms", "full", "--arms", "without-eyes")
    assert isinstance(result.exception, ValueError)
    assert "no arm named without-eyes; there are: full, without-windows" in str(result.exception)
    assert not (tmp_path / "out").exists()
    assert command("ablation", tmp_path, tmp_path / "out", "--seeds", 0).exit_code == 2


def test_clips_that_are_to_count_are_looked_for_first(command, corpus, tmp_path):
    result = command("ablation", corpus, tmp_path / "out", "--work", tmp_path / "work")
    assert isinstance(result.exception, ValueError)
    assert f"microemo synthesize {corpus} --clips 60 --split test --seed 3" in str(result.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["work"] and not (tmp_path / "work" / "language").exists()


@pytest.mark.slow
def test_ablation_gives_the_table(command, scratch, corpus, tmp_path, short):
    options = ["--work", scratch.run.work, "--seeds", 2, "--test-seed", 370]
    options += ["--arms", "without-windows", "--arms", "full"]
    result = command("ablation", corpus, tmp_path / "table", *options)
    assert result.exit_code == 0, result.exception
    made = {"ablation.md", "ablation.csv", "ablation.png", "learning.png"}
    assert {path.name for path in (tmp_path / "table").iterdir()} == made
    lines = (tmp_path / "table" / "ablation.md").read_text().splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| MicroEmo", "| w/o utterance windows"]
    assert all(line.endswith("| 2 |") for line in lines[2:])


@pytest.mark.parametrize("citation", ["tokens", "index"])
def test_score_asks_about_each_utterance(command, scratch, corpus, tmp_path, citation):
    options = ["--split", "dev", "--citation", citation, "--output", tmp_path / "answers.jsonl"]
    result = command("score-dialogues", scratch.trained, corpus, *options)
    assert result.exit_code == 0, result.exception
    answers = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    truth, rows = read_truth(corpus), load_table(corpus / TABLE, "dev").to_list()
    pipeline = EmotionPipeline.from_pretrained(scratch.trained)
    assert answers == answer_utterance_questions(
        pipeline.model, pipeline.processor, rows, truth, citation, progress=False
    )
    right = sum(one["right"] for one in answers)
    assert f"{100 * right / len(answers):.1f} % of {len(answers)} questions about 2 clips" in result.output


def test_score_of_one_seed(command, scratch, corpus, tmp_path):
    both = tmp_path / "both"
    shutil.copytree(corpus, both)
    write_dialogues(both, 1, seed=371, split="dev", size=112, progress=False)
    result = command("score-dialogues", scratch.trained, both, "--split", "dev", "--seed", 371)
    assert result.exit_code == 0, result.exception
    assert "about 1 clips answered right" in result.output
    result = command("score-dialogues", scratch.trained, both, "--split", "dev", "--seed", 372)
    assert "has no clips of the split dev and seed 372" in str(result.exception)


def test_score_of_what_is_not_there(command, scratch, corpus):
    result = command("score-dialogues", scratch.trained, corpus, "--split", "valid")
    assert isinstance(result.exception, ValueError) and "there are dev, test, test_unseen, train" in str(
        result.exception
    )
    assert command("score-dialogues", scratch.trained, corpus, "--citation", "pages").exit_code == 2
