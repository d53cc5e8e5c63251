"""`microemo train`, `precompute` and `merge`, from the command line to files."""

import runpy

import pytest
import typer
from safetensors.torch import load_file
from typer.testing import CliRunner

from microemo.commands.train_command import TRAIN_CONTEXT, merge, precompute, train


@pytest.fixture(scope="module")
def command():
    app = typer.Typer()
    app.command(context_settings=TRAIN_CONTEXT)(train)
    app.command()(precompute)
    app.command()(merge)
    return lambda *argv: CliRunner().invoke(app, [str(value) for value in argv])


def test_features_then_training_then_a_checkpoint(command, world, tmp_path):
    cache, run, merged = (tmp_path / name for name in ("cache", "run", "merged"))
    result = command("precompute", world.table_file, "--model", world.checkpoint, "--cache", cache)
    assert result.exit_code == 0, result.output
    assert len(list(cache.glob("*.safetensors"))) == len(world.rows)
    options = {
        "model_name_or_path": world.checkpoint, "train_data": world.table_file, "feature_cache": cache, "dtype": "float32",
        "bf16": False, "dataloader_num_workers": 0, "use_cpu": True, "max_steps": 1, "output_dir": run,
    }  # fmt: skip
    argv = [text for name, value in options.items() for text in (f"--{name}", value)]
    result = command("train", "stage2", *argv)
    assert result.exit_code == 0, result.exception
    result = command("merge", run, merged)
    assert (
        result.exit_code == 0 and (merged / "model.safetensors").is_file() and result.output.strip().endswith("merged")
    )


def test_frame_tokens_for_a_visual_encoder_that_stays_as_it_is(command, world, tmp_path):
    argv = ["precompute", world.table_file, "--model", world.checkpoint, "--cache", tmp_path / "cache"]
    result = command(*argv, "--frame-tokens")
    assert result.exit_code == 0, result.output
    files = list((tmp_path / "cache").glob("*.safetensors"))
    kept = [load_file(file) for file in files]
    assert len(files) == len(world.rows)
    assert all("frame_tokens" in one and "vision_features" not in one for one in kept)
    before = {file: file.stat().st_mtime_ns for file in files}
    assert command(*argv).exit_code == 0, "a folder that is there knows what it holds"
    assert {file: file.stat().st_mtime_ns for file in files} == before


def test_options_are_listed(command):
    result = command("train", "--list-options")
    assert "--feature_cache" in result.output and "--learning_rate" in result.output and "--lora_r" in result.output


def test_unknown_things_are_told(command, world, tmp_path):
    assert "no such recipe" in str(command("train", "stage9").exception)
    assert "needs model_name_or_path and train_data" in str(command("train", "--use_cpu", "true").exception)
    result = command("precompute", "a.jsonl", "--model", "m", "--cache", tmp_path, "--on-error", "maybe")
    assert "--on-error must be" in str(result.exception)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the module is imported already
def test_arguments_saved_by_a_run_of_the_module_as_a_program_can_be_read_elsewhere():
    """`training_args.bin` names the class by its module, which must not be `__main__`."""
    program = runpy.run_module("microemo.training.train", run_name="program")
    for name in ("ModelArguments", "DataArguments", "MicroEmoTrainingArguments"):
        assert program[name].__module__ == "microemo.training.arguments"
