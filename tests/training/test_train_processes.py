"""Runs in processes of their own: two at once, and one that is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.slow
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def arguments(world, output: Path, **options) -> list[str]:
    options = {
        "model_name_or_path": world.checkpoint,
        "train_data": world.table_file,
        "feature_cache": world.cache_folder,
        "output_dir": output,
        "use_cpu": True,
        "report_to": "none",
        "check_clips": False,
        "disable_tqdm": True,
        **options,
    }
    return [text for name, value in options.items() for text in (f"--{name}", str(value))]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def test_two_processes_are_one(world, tmp_path):
    """Clips without sound, faces or utterances on one process meet others on the second."""
    learned = {}
    for name, processes, rows in (("one", 1, 2), ("two", 2, 1)):
        options = arguments(
            world,
            tmp_path / name,
            max_steps=4,
            per_device_train_batch_size=rows,
            optim="sgd",
            learning_rate=1e-2,
            warmup_steps=0,
            lora_dropout=0,
            save_strategy="no",
            **({"ddp_backend": "gloo"} if processes == 2 else {}),
        )
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"] if processes == 2 else []
        command = [sys.executable, *launch, "-m", "microemo.training.train", *options]
        subprocess.run(command, env=ENVIRONMENT, check=True, timeout=300, cwd=tmp_path)
        learned[name] = weights(tmp_path / name)
    assert learned["one"].keys() == learned["two"].keys()
    for name, value in learned["one"].items():
        torch.testing.assert_close(learned["two"][name], value, atol=1e-5, rtol=1e-4, msg=name)


def test_a_killed_run_goes_on_as_if_nothing_had_happened(world, tmp_path):
    """Dropout on, so that random numbers must go on where they were, too; killed in the middle of an epoch of four."""

    def command(folder: str, **options) -> list[str]:
        options = {"max_steps": 30, "save_steps": 3, "learning_rate": 1e-3, "lora_dropout": 0.1, **options}
        return [sys.executable, "-m", "microemo.training.train", *arguments(world, tmp_path / folder, **options)]

    subprocess.run(command("whole"), env=ENVIRONMENT, check=True, timeout=300, cwd=tmp_path)
    state = tmp_path / "killed" / "checkpoint-6" / "trainer_state.json"
    with subprocess.Popen(command("killed"), env=ENVIRONMENT, cwd=tmp_path) as process:
        while not state.is_file():
            assert process.poll() is None, "ended before it could be killed"
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "adapter_model.safetensors").exists()

    resume = command("killed", resume_from_checkpoint=True)
    subprocess.run(resume, env=ENVIRONMENT, check=True, timeout=300, cwd=tmp_path)
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        assert torch.equal(resumed[name], value), name
