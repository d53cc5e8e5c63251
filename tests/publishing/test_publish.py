"""Checkpoints sent to the Hub: the real client, and a stand-in for the Hub on this machine."""

import json
import logging
import resource
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi, _commit_api, constants, snapshot_download
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMultimodalLM, pipeline

from microemo import MicroEmoForConditionalGeneration, MicroEmoProcessor
from microemo.inference.emotion_pipeline import TASK
from microemo.publishing.model_card_file import PIPELINE_TAG
from microemo.publishing.publish import (
    IncompleteFolderError,
    PublishError,
    PublishPlan,
    make_plan,
    merged_folder,
    publish,
)
from microemo.training.adapter import load_adapter, merge_adapter
from microemo.utils.atomic_files import NoSpaceError

LICENSE = "apache-2.0"
BASE = "lab/microemo-tiny"


def contents(folder: str | Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()
    }


def sent(plan: PublishPlan) -> dict[str, bytes]:
    return {name: file if isinstance(file, bytes) else file.read_bytes() for name, file in plan.files.items()}


@pytest.fixture(scope="module")
def plan(published_model) -> PublishPlan:
    return make_plan(published_model, "ada/tiny", license=LICENSE)


def test_a_checkpoint_comes_back_byte_for_byte(hub, published_model, plan):
    before = contents(published_model)
    published = publish(plan, hub.token)
    assert published.address == f"{hub.url}/ada/tiny" and not published.is_private
    folder = snapshot_download("ada/tiny")
    got = contents(folder)
    assert {name: content for name, content in got.items() if name != ".gitattributes"} == sent(plan)
    # the two that name the code
    assert {name for name in before if got.get(name) != before[name]} <= {"config.json", "processor_config.json"}
    assert contents(published_model) == before
    assert hub.commits("ada/tiny") == ["Upload a MicroEmo model", "initial commit"]
    model = AutoModelForMultimodalLM.from_pretrained("ada/tiny")
    assert type(model) is MicroEmoForConditionalGeneration
    MicroEmoProcessor.from_pretrained("ada/tiny").check_config(model.config)
    assert pipeline(model="ada/tiny").task == TASK
    assert HfApi().model_info("ada/tiny").pipeline_tag == PIPELINE_TAG


def test_a_folder_without_its_code_is_published_with_it(checkpoint):
    for path in checkpoint.glob("*.py"):
        path.unlink()
    config = json.loads((checkpoint / "config.json").read_text())
    config.pop("auto_map", None)
    (checkpoint / "config.json").write_text(json.dumps(config))
    files = sent(make_plan(checkpoint, "ada/tiny", license=LICENSE))
    module = json.loads(files["config.json"])["auto_map"]["AutoModelForMultimodalLM"].split(".")[0]
    assert f"{module}.py" in files and "configuration_microemo.py" in files
    assert not list(checkpoint.glob("*.py"))


def test_an_upload_that_broke_off_goes_on_with_what_is_missing(hub, plan):
    hub.cut_uploads_after = 9_000_000
    with pytest.raises(PublishError, match=r"broke off .*model-.*safetensors.*Run the same command again"):
        publish(plan, hub.token)
    assert hub.commits("ada/tiny") == ["initial commit"]  # nothing half-published
    there = set(hub.repos["ada/tiny"].large)
    assert len(there) == 2
    hub.cut_uploads_after = None
    before = dict(hub.received)
    publish(plan, hub.token)
    assert all(hub.received[oid] == before[oid] == len(hub.repos["ada/tiny"].large[oid]) for oid in there)
    assert hub.files("ada/tiny").items() >= sent(plan).items()


def test_an_interrupted_upload_says_how_to_go_on(hub, plan, monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("microemo"), "propagate", True)
    upload = _commit_api.lfs_upload
    started = []

    def interrupted(*args, **options):
        started.append(1)
        if len(started) > 1:
            raise KeyboardInterrupt
        return upload(*args, **options)

    monkeypatch.setattr(_commit_api, "lfs_upload", interrupted)
    with pytest.raises(KeyboardInterrupt):
        publish(plan, hub.token)
    assert "as a whole or not at all. Run the same command again" in caplog.text
    assert hub.commits("ada/tiny") == ["initial commit"]


def test_a_hub_that_stumbles_is_asked_again(hub, plan):
    hub.refuse("POST .*/preupload/", 503, "Service Unavailable", times=2)
    hub.refuse("PUT /store/", 500, "Internal Error", times=2)
    publish(plan, hub.token)
    assert hub.files("ada/tiny").items() >= sent(plan).items()


def test_the_second_upload_of_the_same_makes_no_commit(hub, plan):
    first = publish(plan, hub.token)
    before = dict(hub.received)
    assert publish(plan, hub.token).commit == first.commit
    assert hub.received == before


def test_weights_that_the_new_ones_do_not_name_are_removed(hub, plan, checkpoint):
    publish(plan, hub.token)
    shards = sorted(checkpoint.glob("model-*.safetensors"))
    assert shards[-1].name in hub.files("ada/tiny")
    save_file(
        {name: value for shard in shards for name, value in load_file(shard).items()}, checkpoint / "model.safetensors"
    )
    for path in (*shards, checkpoint / "model.safetensors.index.json"):
        path.unlink()
    publish(make_plan(checkpoint, "ada/tiny", license=LICENSE), hub.token)
    assert [name for name in hub.files("ada/tiny") if "safetensors" in name] == ["model.safetensors"]


# --- who may, and where --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "repo_id", "message"),
    [
        (None, "ada/tiny", "no access token: run `hf auth login`"),
        ("hf_wrong", "ada/tiny", "refused the access token"),
        ("hf_ada_read", "ada/tiny", "may only read"),
        ("hf_ada", "meta/new", "no right to write to meta/new"),
        ("hf_ada", "meta/open", "no right to write to meta/open"),
        ("hf_ada", "ada/llama", "holds a model of type llama"),
        ("hf_ada", "ada/adapter", "holds an adapter"),
    ],
)
def test_a_refusal_says_what_to_do_and_sends_nothing(hub, plan, token, repo_id, message):
    hub.add_repo("meta/open", {"README.md": b"Theirs"})
    hub.add_repo("ada/llama", {"config.json": b'{"model_type": "llama"}'})
    hub.add_repo("ada/adapter", {"adapter_config.json": b"{}"})
    before = {repo_id: hub.files(repo_id) for repo_id in hub.repos}
    with pytest.raises(PublishError, match=message) as raised:
        publish(replace(plan, repo_id=repo_id), token)
    assert "hf_" not in str(raised.value)
    assert {repo_id: hub.files(repo_id) for repo_id in hub.repos} == before
    assert not hub.received


@pytest.mark.parametrize(
    ("status", "message"),
    [(412, "changed by somebody else"), (429, "asks for a pause"), (507, "answered 507 .*Storage is full")],
)
def test_what_the_hub_answers_to_the_commit_is_passed_on(hub, plan, status, message):
    hub.refuse("POST .*/commit/", status, "Storage is full" if status == 507 else "No")
    with pytest.raises(PublishError, match=message):
        publish(plan, hub.token)
    assert hub.commits("ada/tiny") == ["initial commit"]


def test_a_hub_that_is_not_there_is_an_error_with_its_address(hub, plan, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(PublishError, match=r"http://127\.0\.0\.1:9 cannot be reached"):
        publish(plan, hub.token)


def test_a_server_without_the_store_that_the_client_expects_is_told_apart(hub, plan, monkeypatch):
    pytest.importorskip("hf_xet")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    with pytest.raises(PublishError, match=r"404 .*set HF_HUB_DISABLE_XET=1"):
        publish(plan, hub.token)
    assert hub.commits("ada/tiny") == ["initial commit"]


def test_a_private_repository_is_private_and_a_public_one_is_not_used_for_it(hub, plan):
    published = publish(plan, hub.token, private=True)
    assert published.is_private and hub.repos["ada/tiny"].private
    assert snapshot_download("ada/tiny", token=hub.token)
    hub.add_repo("ada/open", {})
    before = dict(hub.received)
    with pytest.raises(PublishError, match="ada/open exists and is public; nothing was sent"):
        publish(replace(plan, repo_id="ada/open"), hub.token, private=True)
    assert hub.files("ada/open") == {} and hub.received == before


def test_a_branch_is_made_and_main_stays(hub, plan):
    publish(plan, hub.token, revision="v1")
    publish(plan, hub.token, revision="v1")
    assert hub.files("ada/tiny", "v1").items() >= sent(plan).items()
    assert hub.files("ada/tiny").keys() == {".gitattributes"}


def test_a_file_that_does_not_arrive_is_found_out(hub, plan):
    hub.add_repo("ada/tiny", {".gitignore": b"*.jinja\n"})
    with pytest.raises(PublishError, match=r"chat_template\.jinja did not arrive as on this disk"):
        publish(plan, hub.token)


def test_a_file_that_arrives_changed_is_found_out(hub, plan, monkeypatch):
    hub.add_repo("ada/tiny", {})
    repo = hub.repos["ada/tiny"]
    honest: Callable = repo.commit

    def damaged(branch, message, files):
        files["generation_config.json"].content += b" "
        return honest(branch, message, files)

    monkeypatch.setattr(repo, "commit", damaged)
    with pytest.raises(PublishError, match=r": generation_config\.json did not arrive"):
        publish(plan, hub.token)


# --- adapters ------------------------------------------------------------------------------------------------------


def test_an_adapter_is_sent_alone_and_names_its_base(hub, published_model, adapter):
    hub.add_repo(BASE, published_model)
    shutil.copy(published_model / "config.json", adapter)  # of the base, by mistake
    shutil.copy(published_model / "model-00001-of-00004.safetensors", adapter)
    plan = make_plan(adapter, "ada/adapter", license=LICENSE, base_model=BASE)
    publish(plan, hub.token)
    files = hub.files("ada/adapter")
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == BASE
    assert f"base_model: {BASE}" in files["README.md"].decode()
    assert [name for name in files if "safetensors" in name] == ["adapter_model.safetensors"]
    assert "config.json" not in files and not any(name.endswith(".py") for name in files)
    assert plan.left_out["checkpoint-7/"] == "a checkpoint of the training run"
    assert plan.left_out["training_run.json"].startswith("state of the training run")
    model, processor = load_adapter(snapshot_download("ada/adapter"))  # its base comes from the Hub
    assert type(processor) is MicroEmoProcessor
    there = load_file(adapter / "adapter_model.safetensors")
    name = next(name for name in there if "lora_A" in name)
    assert torch.equal(model.state_dict()[name.replace(".weight", ".default.weight")], there[name])


def test_an_adapter_needs_a_base_that_others_have(hub, published_adapter):
    with pytest.raises(IncompleteFolderError, match="names the base model by .*which nobody else has"):
        make_plan(published_adapter, "ada/adapter", license=LICENSE)
    plan = make_plan(published_adapter, "ada/adapter", license=LICENSE, base_model="ada/nowhere")
    with pytest.raises(PublishError, match="ada/nowhere, the base model of the adapter, is not on the Hub"):
        publish(plan, hub.token)
    assert "ada/adapter" not in hub.repos


def test_a_merged_adapter_is_a_whole_model(hub, published_model, adapter, tmp_path):
    with merged_folder(adapter, merge_adapter) as folder:
        publish(make_plan(folder, "ada/merged", license=LICENSE, base_model=BASE), hub.token)
        merged = load_file(folder / "model.safetensors")
        assert hub.files("ada/merged")["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
    base = {name: value for shard in published_model.glob("*.safetensors") for name, value in load_file(shard).items()}
    changed = {name for name, value in base.items() if not torch.equal(value, merged[name])}
    assert changed and all("q_proj" in name and "language_model" in name for name in changed)
    card = hub.files("ada/merged")["README.md"].decode()
    assert f"made from {BASE}" in card and "train.jsonl, 4 rows" in card
    assert "adapter_config.json" not in hub.files("ada/merged")


def test_a_full_disk_ends_merging_and_leaves_nothing(published_adapter):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    beside = set(published_adapter.parent.iterdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, hard))
    try:
        with (
            pytest.raises(NoSpaceError, match="no space left to write it"),
            merged_folder(published_adapter, merge_adapter),
        ):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert set(published_adapter.parent.iterdir()) == beside
