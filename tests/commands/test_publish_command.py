"""`microemo publish` and `microemo card` as they are typed."""

import json
import shutil

import pytest
from peft import LoraConfig, get_peft_model

from microemo import MicroEmoForConditionalGeneration, MicroEmoProcessor
from microemo.publishing.initialize import initialize


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return initialize("microemo-tiny", tmp_path_factory.mktemp("publish") / "tiny")


def test_a_dry_run_tells_files_and_sizes_without_network_and_token(microemo, hub, monkeypatch, folder):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (folder / "optimizer.pt").write_bytes(b"state")
    answer = microemo("publish", folder, "--repo-id", "ada/tiny", "--license", "apache-2.0", "--dry-run")
    assert answer.returncode == 0 and answer.stderr == ""
    lines = [line.split() for line in answer.stdout.splitlines()]
    size = (folder / "model.safetensors").stat().st_size
    assert [f"{size / 1e6:.3f}", "MB", "model.safetensors"] in lines
    assert "Left out: optimizer.pt (state of the training run)" in answer.stdout
    assert "Nothing was sent to ada/tiny: this was a dry run." in answer.stdout
    assert hub.requests == []
    answer = microemo("publish", folder, "--repo-id", "ada/tiny", "--license", "apache-2.0", "--token", hub.token)
    assert answer.returncode == 2 and "HF_HUB_OFFLINE is set" in answer.stderr


def test_publish_prints_the_address(microemo, hub, monkeypatch, folder):
    monkeypatch.setenv("HF_TOKEN", hub.token)
    answer = microemo("publish", folder, "--repo-id", "lab/tiny", "--license", "apache-2.0", "--private")
    assert answer.stdout.splitlines()[-1] == f"{hub.url}/lab/tiny" and "(private)" in answer.stdout
    assert hub.repos["lab/tiny"].private and "model.safetensors" in hub.files("lab/tiny")


def test_errors_are_one_message_and_exit_code_2(microemo, hub, folder, tmp_path):
    publish = ("publish", folder, "--repo-id", "ada/tiny")
    for arguments, message in (
        ((*publish,), "the licence is not stated; pass --license"),
        ((*publish, "--license", "apache-2.0"), "no access token: run `hf auth login`"),
        ((*publish, "--license", "apache-2.0", "--token", "hf_wrong"), "refused the access token"),
        ((*publish, "--merge"), "no adapter_config.json in it, so no adapter"),
        ((*publish, "--merge", "--adapter"), "exclude each other"),
        ((*publish, "--evaluation", "nothing.jsonl"), "nothing.jsonl: no such file"),
        (("publish", tmp_path / "nothing", "--repo-id", "ada/tiny"), "no such folder"),
    ):
        answer = microemo(*arguments)
        assert answer.returncode == 2 and message in " ".join(answer.stderr.split()), answer
        assert "Traceback" not in answer.stderr


def test_an_adapter_is_sent_or_merged(microemo, hub, monkeypatch, folder, tmp_path):
    monkeypatch.setenv("HF_TOKEN", hub.token)
    hub.add_repo("lab/tiny", folder)
    adapter = tmp_path / "adapter"
    model = MicroEmoForConditionalGeneration.from_pretrained(folder)
    get_peft_model(model, LoraConfig(r=2, target_modules=r".*language_model.*q_proj")).save_pretrained(adapter)
    model.config.to_json_file(adapter / "microemo_config.json", use_diff=False)
    MicroEmoProcessor.from_pretrained(folder).save_pretrained(adapter)
    options = ("--license", "apache-2.0", "--base-model", "lab/tiny")
    answer = microemo("publish", adapter, "--repo-id", "ada/adapter", *options)
    assert "Base model, which is not sent: lab/tiny" in answer.stdout and answer.returncode == 0
    answer = microemo("publish", adapter, "--repo-id", "ada/merged", "--merge", *options)
    assert "a whole model in" in answer.stdout and answer.returncode == 0
    assert json.loads(hub.files("ada/adapter")["adapter_config.json"])["base_model_name_or_path"] == "lab/tiny"
    assert {"config.json", "model.safetensors"} <= set(hub.files("ada/merged"))
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_card_writes_the_card_and_keeps_what_was_written(microemo, folder, tmp_path):
    checkpoint = shutil.copytree(folder, tmp_path / "checkpoint")
    answer = microemo("card", checkpoint, "--repo-id", "ada/tiny", "--license", "mit")
    path = checkpoint / "README.md"
    assert answer.stdout == f"{path}\n" and "license: mit" in path.read_text()
    path.write_text(path.read_text().replace("# tiny\n", "# Ours\n"))
    assert microemo("card", checkpoint, "--repo-id", "ada/tiny").returncode == 0
    assert "# Ours\n" in path.read_text() and "license: mit" in path.read_text()
