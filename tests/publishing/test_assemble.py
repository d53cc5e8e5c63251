"""`microemo assemble`: small checkpoints in the true formats, served by a stand-in for the Hub on this machine."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import typer
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from microemo import MicroEmoForConditionalGeneration, MicroEmoProcessor
from microemo.commands import assemble_command
from microemo.commands.convert_command import convert
from microemo.modeling_microemo.convert_original import ConversionError
from microemo.publishing.assemble import assemble, plan_assembly
from microemo.publishing.completeness import read_folder
from microemo.publishing.convert_checkpoints import convert_checkpoints
from microemo.publishing.model_card_file import make_card
from microemo.publishing.source_manifest import MANIFEST
from microemo.tests.modeling_microemo.conftest import bert_tokenizer, language_model  # noqa: F401
from microemo.tests.modeling_microemo.test_convert_original import (  # noqa: F401
    DEPTH,
    MICROEMO,
    base_config,
    instructblip,
    sources,
    weights,
)
from microemo.utils.atomic_files import NoSpaceError

BLIP = "Salesforce/instructblip-vicuna-7b"
LLAMA = "DAMO-NLP-SG/Video-LLaMA-2-7B-Finetuned"
BRANCHES = {
    "video_branch": "VL_LLaMA_2_7B_Finetuned.pth",
    "audio_branch": "AL_LLaMA_2_7B_Finetuned.pth",
    "imagebind": "imagebind_huge.pth",
}


@pytest.fixture(scope="module")
def repositories(sources, instructblip, tmp_path_factory) -> dict[str, Path]:  # noqa: F811
    """The two repositories that the paper starts from, small."""
    root = tmp_path_factory.mktemp("repositories")
    _, model = instructblip
    for layer in model.vision_model.encoder.layers:  # the originals' keys have no bias
        width = len(layer.self_attn.qkv.bias) // 3
        layer.self_attn.qkv.bias.data[width : 2 * width] = 0
    model.save_pretrained(root / "blip", max_shard_size="9KB")
    (root / "blip" / "README.md").write_text("---\nlicense: other\nlicense_name: theirs\nlicense_link: here\n---\n")
    shutil.copytree(sources["qformer_tokenizer"], root / "blip" / "qformer_tokenizer")
    (root / "llama").mkdir()
    for option, name in BRANCHES.items():
        shutil.copy(sources[option], root / "llama" / name)
    shutil.copytree(sources["llm"], root / "llama" / "llama-2-7b-chat-hf")
    return {BLIP: root / "blip", LLAMA: root / "llama"}


@pytest.fixture
def paper(hub, repositories):
    """The stand-in with both repositories, and `plan`: a plan by the preset with the small sizes."""
    hub.commit_of = {repo_id: hub.add_repo(repo_id, folder) for repo_id, folder in repositories.items()}
    hub.plan = lambda **options: plan_assembly("paper", base_config(), **options)
    return hub


def downloads(hub, suffix: str = ".safetensors") -> list[str]:
    """The files whose content was sent."""
    names = {file.sha256: path for repo in hub.repos.values() for path, file in repo.at("main").files.items()}
    found = []
    for request in hub.requests:
        if request.method == "GET" and request.path.startswith("/store/"):
            found.append(names[request.path.rpartition("/")[2]])
        elif request.method == "GET" and "/resolve/" in request.path:
            found.append(request.path.split("/resolve/")[1].partition("/")[2])
    return [name for name in found if name.endswith(suffix)]


def original_names_of(repositories: dict[str, Path], folder: Path) -> dict[str, Path]:
    """InstructBLIP's tensors in the files of EVA-CLIP and LAVIS, renamed by a table of the test's own."""
    state = {}
    for path in repositories[BLIP].glob("*.safetensors"):
        state |= load_file(path)
    eva, qformer = {}, {"query_tokens": state["query_tokens"]}
    for key, tensor in state.items():
        if match := re.fullmatch(r"vision_model\.post_layernorm\.(\w+)", key):
            qformer[f"ln_vision.{match[1]}"] = tensor
        elif key.startswith("vision_model."):
            name = key.removeprefix("vision_model.").replace("encoder.layers.", "blocks.")
            for ours, theirs in {
                "embeddings.class_embedding": "cls_token",
                "embeddings.position_embedding": "pos_embed",
                "embeddings.patch_embedding": "patch_embed.proj",
                "self_attn.projection": "attn.proj",
                "self_attn.qkv": "attn.qkv",
                "layer_norm": "norm",
            }.items():
                name = name.replace(ours, theirs)
            if name.endswith("qkv.bias"):
                query, _, value = tensor.chunk(3)
                eva |= {name.replace("qkv.", "q_"): query.clone(), name.replace("qkv.", "v_"): value.clone()}
            else:
                eva[name] = tensor
        elif key.startswith("qformer."):
            name = "Qformer.bert." + key.removeprefix("qformer.")
            name = name.replace("attention.attention.", "attention.self.").replace("layernorm", "LayerNorm")
            qformer[name] = tensor
    torch.save(eva, folder / "eva.pth")
    torch.save({"model": qformer}, folder / "blip.pth")
    return {"vision": folder / "eva.pth", "qformer": folder / "blip.pth"}


def check_report(folder: Path, report: dict, commit_of: dict[str, str], repositories: dict[str, Path]) -> None:
    """It pins revisions and hashes, and the model card reads the licences from it."""
    assert json.loads((folder / "conversion_report.json").read_text()) == report
    for source in report["sources"]:
        repo_id = source["repository"]
        path = repositories[repo_id] / source["file"].removeprefix(repo_id + "/")
        assert source["revision"] == commit_of[repo_id]
        assert source["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert source["bytes"] == path.stat().st_size
        assert source["licence"]
        told = source["used"] + [key for keys in source["ignored"].values() for key in keys]
        assert len(told) == len(set(told)) == source["tensors"]
    assert report["tokenizers"] == {
        "llm": f"{LLAMA}@{commit_of[LLAMA]}:llama-2-7b-chat-hf/",
        "qformer_tokenizer": f"{BLIP}@{commit_of[BLIP]}:qformer_tokenizer/",
    }
    card = make_card(read_folder(folder), "ada/mine", license="other")
    assert "CC-BY-NC-SA 4.0" in card and "Llama 2 Community License" in card


def test_the_preset_makes_the_model_that_convert_makes_of_the_originals(paper, repositories, sources, tmp_path):  # noqa: F811
    report = assemble(paper.plan(), tmp_path / "assembled", dtype="float32")
    given = {option: sources[option] for option in MICROEMO} | original_names_of(repositories, tmp_path)
    convert_checkpoints(tmp_path / "converted", **given, base_config=base_config(), dtype="float32")
    ours, theirs = weights(tmp_path / "assembled"), weights(tmp_path / "converted")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())

    names = {"config.json", "processor_config.json", "tokenizer.json", "qformer_tokenizer/tokenizer.json"}
    for name in names | {"generation_config.json", "chat_template.jinja", "modeling_microemo.py"}:
        assert (tmp_path / "assembled" / name).read_bytes() == (tmp_path / "converted" / name).read_bytes(), name
    processor = MicroEmoProcessor.from_pretrained(tmp_path / "assembled")
    assert {"<video>", "<audio>"} <= processor.tokenizer.get_vocab().keys()
    model = MicroEmoForConditionalGeneration.from_pretrained(tmp_path / "assembled")
    assert model.model.visual_encoder.local_clue_attention is not None
    assert any(".local_clue_attention." in name for name in report["new"])
    for path in (tmp_path / "assembled").rglob("*.json"):
        assert str(constants.HF_HUB_CACHE) not in path.read_text(), path
    check_report(tmp_path / "assembled", report, paper.commit_of, repositories)


def test_only_shards_with_wanted_keys_are_downloaded(paper, repositories, tmp_path):
    index = json.loads((repositories[BLIP] / "model.safetensors.index.json").read_text())["weight_map"]
    unwanted = set(index.values()) - {
        shard for key, shard in index.items() if not key.startswith(("language_model.", "language_projection."))
    }
    assert unwanted
    plan = paper.plan()
    assert downloads(paper) == [] and downloads(paper, ".pth") == []  # a plan downloads no weights
    assemble(plan, tmp_path / "out")
    sent = downloads(paper)
    assert set(sent) == set(index.values()) - unwanted | {"llama-2-7b-chat-hf/model.safetensors"}
    assert len(sent) == len(set(sent))

    # The same of a folder, and the language model that lies in InstructBLIP.
    folder = repositories[BLIP]
    local = plan_assembly("paper", base_config(), vision=folder, qformer=folder)
    assert {file.name for file in local.files if file.source.place.address is None} == set(index.values()) - unwanted


def test_the_language_model_of_instructblip_can_be_chosen(paper, repositories, sources, tmp_path):  # noqa: F811
    """Its tensors are named `language_model.`; they are taken only where --llm names the repository."""
    llm = load_file(sources["llm"] / "model.safetensors")
    folder = shutil.copytree(repositories[BLIP], tmp_path / "blip")
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    state = {}
    for path in repositories[BLIP].glob("*.safetensors"):
        state |= {key: tensor for key, tensor in load_file(path).items() if not key.startswith("language_model.")}
    save_file(state | {f"language_model.{key}": tensor for key, tensor in llm.items()}, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] = json.loads((sources["llm"] / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(sources["llm"] / name, folder)
    report = assemble(paper.plan(vision=folder, qformer=folder, llm=folder), tmp_path / "out", dtype="float32")
    assert {"image encoder", "image Q-Former", "language model"} <= set(report["sources"][0]["holds"])
    ours = weights(tmp_path / "out")
    key = "model.layers.1.mlp.up_proj.weight"
    assert torch.equal(ours["model.language_model." + key.removeprefix("model.")], llm[key])


def test_an_interrupted_download_is_taken_up_again(paper, tmp_path):
    bind = paper.repos[LLAMA].at("main").files["imagebind_huge.pth"].sha256
    paper.refuse(f"GET /store/.*{bind}", 500, "broken")
    with pytest.raises(ConversionError, match=r"imagebind_huge\.pth.*Run the same command again"):
        assemble(paper.plan(), tmp_path / "out")
    assert not list(tmp_path.iterdir())
    before = {*downloads(paper), *downloads(paper, ".pth")} - {"imagebind_huge.pth"}
    assert before
    paper.requests.clear()
    paper._refusals.clear()
    plan = paper.plan()
    assert [file.name for file in plan.files if file.is_here]
    paper.cut_downloads_after = 40_000  # within one run the client goes on where the line broke
    assemble(plan, tmp_path / "out")
    assert not before & {*downloads(paper), *downloads(paper, ".pth")}
    MicroEmoForConditionalGeneration.from_pretrained(tmp_path / "out")

    # A finished download is all that is needed, without the Hub as well.
    paper.requests.clear()
    paper.refuse(".*", 500, "gone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        again = assemble(paper.plan(), tmp_path / "again")
    assert again["sources"][0]["revision"] == paper.commit_of[BLIP] and not paper.requests


WRONG = {
    "repository": ({"vision": "lab/nothing"}, r"lab/nothing \(--vision\).*no such repository"),
    "file": (
        {"imagebind": f"{LLAMA}:imagebind.pth"},
        r"imagebind\.pth \(--imagebind\): the repository .* has no imagebind\.pth .*imagebind_huge\.pth",
    ),
    "folder": ({"llm": f"{LLAMA}:llama/"}, r"\(--llm\): the repository .* has no llama/"),
    "revision": ({"vision": f"{BLIP}@v9"}, r"\(--vision\).*no revision 'v9'"),
    "folder for a file": (
        {"imagebind": LLAMA},
        r"\(--imagebind\): holds no weights .*It holds .*imagebind_huge\.pth.*name the file",
    ),
    "token": ({"token": "hf_wrong"}, rf"{BLIP}.*refused the access token"),
    "gated": ({"llm": "lab/llama"}, r"lab/llama/.*access is restricted.*/lab/llama"),
    "gated file": ({"imagebind": "lab/llama:bind.pth"}, r"lab/llama/bind\.pth: access is restricted"),
    "preset's word": ({"llm": "a/b/c"}, r"a/b/c: no such file or folder, .*\(--llm\)"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_errors_name_the_source(paper, wrong):
    options, message = WRONG[wrong]
    paper.add_repo(
        "lab/llama", {"config.json": b"{}", "bind.pth": b"\0" * 9000, "model.safetensors": b"\0" * 9000}, gated=True
    )
    with pytest.raises(ConversionError, match=message):
        paper.plan(**options)
    assert not downloads(paper) and not downloads(paper, ".pth")


def test_a_wrong_hash_is_refused(paper, tmp_path):
    manifest = json.loads(MANIFEST.read_text())
    manifest["paper"]["sources"]["imagebind"]["sha256"] = {"imagebind_huge.pth": "0" * 64}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(
        ConversionError, match=r"imagebind_huge\.pth: its SHA-256 is \w{64}, but the manifest demands 0{64}"
    ):
        assemble(paper.plan(manifest=tmp_path / "manifest.json"), tmp_path / "out")
    assert not (tmp_path / "out").exists()

    # A copy in the cache that is not what the Hub states is removed, and comes again.
    plan = paper.plan()
    file = next(file for file in plan.files if file.name == "imagebind_huge.pth")
    blob = file.source.place.fetch(file.name).resolve()
    good = blob.read_bytes()
    blob.write_bytes(good[:-1] + b"?")
    with pytest.raises(ConversionError, match="but the Hub states .*removed from the cache"):
        assemble(plan, tmp_path / "out")
    assert not (tmp_path / "out").exists() and not blob.exists()
    assert paper.plan().files[-2].fetch()[0].read_bytes() == good


def test_a_full_disk_is_told_before_the_download(paper, tmp_path, monkeypatch):
    plan = paper.plan()
    usage = shutil.disk_usage(tmp_path)
    room = plan.download_size + plan.output_size("bfloat16")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=room - 1))
    with pytest.raises(NoSpaceError, match=r"no space left: \d+ MB are needed for the download"):
        assemble(plan, tmp_path / "out")
    assert not downloads(paper) and not list(tmp_path.iterdir())


def test_what_is_missing_is_named(paper):
    with pytest.raises(ConversionError, match="needs --vision, --qformer, --video-branch, --llm, --qformer-tokenizer"):
        plan_assembly()
    with pytest.raises(ConversionError, match="no preset of sources named 'papers'; there are: .*paper"):
        plan_assembly("papers")
    with pytest.raises(TypeError, match="no sources are named visions"):
        plan_assembly("paper", visions=BLIP)


@pytest.fixture
def command(tmp_path) -> Callable:
    app = typer.Typer()
    app.command()(assemble_command.assemble)
    base_config().save_pretrained(tmp_path / "sizes")
    options = ["--preset=paper", f"--base-config={tmp_path / 'sizes'}"]
    return lambda *more: CliRunner().invoke(app, [*options, *more], env={"COLUMNS": "250"})


def test_command_prints_sizes_and_licences_and_asks(paper, command, tmp_path, monkeypatch):
    result = command("--dry-run")
    assert result.exit_code == 0, result.output
    for told in (
        "imagebind_huge.pth",
        "CC-BY-NC-SA 4.0",
        "--vision, --qformer",
        "to download",
        paper.commit_of[LLAMA],
    ):
        assert told in result.output
    output = f"--output={tmp_path / 'out'}"
    monkeypatch.setattr(assemble_command, "ASKED_FROM", 1000)  # these files are small
    result = command(output)
    assert isinstance(result.exception, ValueError) and "MB are to be downloaded; pass --yes" in str(result.exception)
    assert not downloads(paper) and not downloads(paper, ".pth")
    result = command(output, "--yes", "--dtype=float16", "--max-frames=12")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert "fusion" in result.output and "12 rows" in result.output.replace("rows to 12", "12 rows")
    assert isinstance(command("--yes").exception, ValueError)


def test_convert_takes_the_same_addresses(paper, sources, tmp_path):  # noqa: F811
    app = typer.Typer()
    app.command()(convert)
    given = {option: sources[option] for option in MICROEMO} | {"imagebind": f"{LLAMA}:imagebind.pth"}
    arguments = [f"--{option.replace('_', '-')}={source}" for option, source in given.items()]
    result = CliRunner().invoke(app, [*arguments, f"--output={tmp_path / 'out'}"])
    assert isinstance(result.exception, ConversionError) and "its files of weights are" in str(result.exception)
