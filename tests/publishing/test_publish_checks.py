"""What a folder lacks is told before anything is sent, and what does not belong to a checkpoint stays at home."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from microemo.publishing.completeness import read_folder
from microemo.publishing.publish import IncompleteFolderError, make_plan

LICENSE = "apache-2.0"
SHARD = "model-00002-of-00004.safetensors"


def edit_json(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def drop_tensor(path: Path) -> None:
    weights = load_file(path)
    weights.popitem()
    save_file(weights, path)


def drop_from_index(folder: Path) -> None:
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    index["weight_map"].popitem()
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def reshape(path: Path) -> None:
    weights = load_file(path)
    name = next(name for name, value in weights.items() if value.ndim > 1)
    save_file(weights | {name: torch.zeros(1, 2)}, path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / SHARD).unlink(), f"{SHARD} is missing, which model.safetensors.index.json names"),
        (lambda folder: cut(folder / SHARD), f"{SHARD} cannot be read as safetensors .*may be cut short"),
        (lambda folder: drop_tensor(folder / SHARD), f"{SHARD} lacks weights that the index places there: 1 "),
        (drop_from_index, "holds weights that the index does not name: 1 "),
        (lambda folder: (folder / "model.safetensors.index.json").unlink(), r"model\.safetensors is missing"),
        (lambda folder: (folder / "model.safetensors").touch(), "are both there; remove the older"),
        (lambda folder: reshape(folder / SHARD), r"another shape than config\.json gives them: 1 "),
        (lambda folder: edit_json(folder / "config.json", model_type="llama"), "is 'llama', expected \"microemo\""),
        (lambda folder: (folder / "config.json").write_text("{"), r"config\.json: not JSON"),
        (lambda folder: (folder / "config.json").unlink(), r"config\.json is missing"),
        (lambda folder: (folder / "generation_config.json").unlink(), r"generation_config\.json is missing"),
        (lambda folder: (folder / "processor_config.json").unlink(), r"processor_config\.json is missing"),
        (lambda folder: (folder / "chat_template.jinja").unlink(), r"chat_template\.jinja is missing"),
        (lambda folder: (folder / "tokenizer.json").unlink(), r"- tokenizer\.json is missing"),
        (lambda folder: shutil.rmtree(folder / "qformer_tokenizer"), r"qformer_tokenizer/tokenizer\.json is missing"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "cannot be loaded: "),
        (
            lambda folder: edit_json(folder / "processor_config.json", num_video_query_tokens=5),
            "cannot be loaded: .*num_video_query_tokens",
        ),
        (
            lambda folder: (folder / "NOTICE").write_text("token: hf_" + "aB3" * 12),
            "NOTICE holds what looks like an access token",
        ),
    ],
)
def test_whatever_is_missing_or_damaged_is_named(checkpoint, damage, message):
    damage(checkpoint)
    with pytest.raises(IncompleteFolderError, match=message):
        make_plan(checkpoint, "ada/tiny", license=LICENSE)


def test_all_that_is_missing_is_told_at_once(checkpoint):
    for name in ("generation_config.json", "chat_template.jinja", SHARD):
        (checkpoint / name).unlink()
    with pytest.raises(IncompleteFolderError) as raised:
        make_plan(checkpoint, "ada/tiny")
    assert [line.split()[1] for line in str(raised.value).splitlines()[1:]] == [
        "chat_template.jinja",
        "generation_config.json",
        SHARD,
        "the",  # licence is not stated
    ]


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "tokenizer_config.json"])
def test_an_adapter_is_checked_as_an_adapter(adapter, name):
    assert not read_folder(adapter).problems
    (adapter / name).unlink()
    assert read_folder(adapter).problems == [f"{name} is missing"]


def test_an_adapter_of_peft_alone_is_complete_without_configuration_and_processor(adapter):
    kept = {"adapter_config.json", "adapter_model.safetensors", "README.md"}
    for path in adapter.iterdir():
        if path.is_file() and path.name not in kept:
            path.unlink()
    shutil.rmtree(adapter / "qformer_tokenizer")
    plan = make_plan(adapter, "ada/adapter", license="mit", base_model="ada/base")
    assert set(plan.files) == kept
    assert b"layers of width not stated" not in plan.files["README.md"]  # its base tells it


def test_what_is_no_part_of_a_checkpoint_is_left_out_with_its_reason(checkpoint):
    shutil.copy(checkpoint / SHARD, checkpoint / "model-00009-of-00009.safetensors")
    for name in (
        ".env",
        ".git/config",
        ".cache/huggingface/token",
        "checkpoint-500/model.safetensors",
        "optimizer.pt",
        "rng_state_0.pth",
        "training_args.bin",
        "trainer_state.json",
        "pytorch_model.bin",
        "runs/events.out.tfevents.1",
        "token",
        "notes.txt",
        "images/face.png",
        "images/.hidden.png",
        "__pycache__/x.pyc",
        "train.py",
    ):
        (checkpoint / name).parent.mkdir(parents=True, exist_ok=True)
        (checkpoint / name).write_bytes(b"x")
    plan = make_plan(checkpoint, "ada/tiny", license=LICENSE)
    assert plan.left_out == {
        ".cache/": "hidden",
        ".env": "hidden",
        ".git/": "hidden",
        "__pycache__/": "a cache",
        "checkpoint-500/": "a checkpoint of the training run",
        "images/": "not part of a checkpoint; --include sends it",
        "model-00009-of-00009.safetensors": "weights that this checkpoint does not name",
        "notes.txt": "not part of a checkpoint; --include sends it",
        "optimizer.pt": "state of the training run",
        "pytorch_model.bin": "pickled, so that opening it runs code",
        "rng_state_0.pth": "state of the training run",
        "runs/": "logs",
        "token": "may hold a secret",
        "train.py": "not part of a checkpoint; --include sends it",
        "trainer_state.json": "state of the training run",
        "training_args.bin": "state of the training run",
    }
    asked_for = read_folder(checkpoint, include=["images/*", "*.txt", "token", ".env"])
    assert set(asked_for.files) - set(plan.files) == {"images/face.png", "notes.txt"}


def test_a_folder_of_links_is_published_as_what_they_point_to(published_model, tmp_path):
    (tmp_path / "qformer_tokenizer").mkdir()
    for path in published_model.rglob("*"):
        if path.is_file():
            os.symlink(path, tmp_path / path.relative_to(published_model))
    plan = make_plan(tmp_path, "ada/tiny", license=LICENSE)
    assert plan.sizes()[SHARD] == (published_model / SHARD).stat().st_size
    (tmp_path / SHARD).unlink()
    os.symlink("/nowhere/at/all", tmp_path / SHARD)
    with pytest.raises(IncompleteFolderError, match=f"{SHARD} is a link to a file that is not there"):
        make_plan(tmp_path, "ada/tiny", license=LICENSE)


@pytest.mark.parametrize("name", ["tiny", "ada/tiny/more", "ada/ti ny", "ada/tiny.git", "/tmp/x", "ada/a--b"])
def test_a_name_that_the_hub_refuses_is_refused_here(published_model, name):
    with pytest.raises(ValueError, match="repo_id"):
        make_plan(published_model, name, license=LICENSE)


def test_no_folder_is_an_error_of_its_own(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        make_plan(tmp_path / "nothing", "ada/tiny")
