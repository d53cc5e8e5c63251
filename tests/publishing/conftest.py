"""A checkpoint in several files, and an adapter on it, as PEFT and training leave them."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

from microemo import MicroEmoForConditionalGeneration, MicroEmoProcessor
from microemo.publishing.initialize import initialize

BASE = "lab/microemo-tiny"


@pytest.fixture(scope="session")
def published_model(tmp_path_factory) -> Path:
    """A checkpoint of random weights in four files. Tests do not change it; see `checkpoint`."""
    folder = tmp_path_factory.mktemp("publishing") / "tiny"
    return initialize("microemo-tiny", folder, max_shard_size=4_000_000)


@pytest.fixture
def checkpoint(published_model, tmp_path) -> Path:
    """A copy of the checkpoint, to change."""
    return Path(shutil.copytree(published_model, tmp_path / "checkpoint"))


@pytest.fixture(scope="session")
def published_adapter(published_model, tmp_path_factory) -> Path:
    """An adapter that names its base by a folder, with the card that PEFT writes and what a run leaves beside it."""
    folder = tmp_path_factory.mktemp("publishing") / "adapter"
    model = MicroEmoForConditionalGeneration.from_pretrained(published_model)
    torch.manual_seed(0)
    lora = LoraConfig(r=2, target_modules=r".*language_model.*q_proj", init_lora_weights=False)
    get_peft_model(model, lora).save_pretrained(folder)
    model.config.to_json_file(folder / "microemo_config.json", use_diff=False)
    MicroEmoProcessor.from_pretrained(published_model).save_pretrained(folder)
    (folder / "training_run.json").write_text(json.dumps({"steps": 7, "training data": "train.jsonl, 4 rows"}))
    (folder / "checkpoint-7").mkdir()
    (folder / "checkpoint-7" / "optimizer.pt").write_bytes(b"state")
    return folder


@pytest.fixture
def adapter(published_adapter, tmp_path) -> Path:
    """A copy of the adapter, to change."""
    return Path(shutil.copytree(published_adapter, tmp_path / "adapter"))
