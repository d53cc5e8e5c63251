"""The converter's mechanics, on small files in the originals' formats that are made here, and on the shared list of the
originals' real keys."""

import ctypes
import json
import os
import pickle
import re
import resource
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    LlamaForCausalLM,
)
from typer.testing import CliRunner

from microemo import MicroEmoConfig, MicroEmoForConditionalGeneration, MicroEmoProcessor
from microemo.commands.convert_command import convert
from microemo.modeling_microemo.convert_original import (
    SOURCE_PRESETS,
    Conversion,
    ConversionError,
    WeightFile,
    open_sources,
    original_config,
)
from microemo.publishing.convert_checkpoints import convert_checkpoints

SHARED = Path(os.environ.get("MICROEMO_SHARED", Path(__file__).parents[3] / "shared"))
WIDTH, DEPTH, HIDDEN, LAYERS, INNER, LLM, AUDIO, JOINT = 32, 2, 16, 4, 24, 32, 16, 24
VOCABULARY, FRAMES, CLIPS = 35, 10, 8


def base_config(**switches) -> MicroEmoConfig:
    qformer = {"hidden_size": HIDDEN, "num_attention_heads": 2, "intermediate_size": INNER}
    sizes = {
        "vision_config": {
            "hidden_size": WIDTH,
            "intermediate_size": 48,
            "num_hidden_layers": DEPTH,
            "num_attention_heads": 2,
            "image_size": 28,
        },
        "image_qformer_config": {
            **qformer,
            "num_hidden_layers": LAYERS,
            "vocab_size": VOCABULARY,
            "max_position_embeddings": 24,
        },
        "video_qformer_config": qformer,
        "audio_qformer_config": qformer,
        "audio_config": {
            "hidden_size": AUDIO,
            "intermediate_size": 4 * AUDIO,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "projection_dim": JOINT,
        },
        "num_query_tokens": 4,
        "num_video_query_tokens": 3,
        "num_audio_query_tokens": 2,
        "local_clue_num_attention_heads": 2,
    }
    return MicroEmoConfig(**{**sizes, **switches})


# --- the originals' formats ----------------------------------------------------------------------------------------


def linear(name, out, inner):
    return {f"{name}.weight": (out, inner), f"{name}.bias": (out,)}


def norm(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def eva_clip():
    shapes = {"cls_token": (1, 1, WIDTH), "pos_embed": (1, 5, WIDTH), "patch_embed.proj.weight": (WIDTH, 3, 14, 14)}
    shapes |= {"patch_embed.proj.bias": (WIDTH,)}
    for block in (f"blocks.{i}" for i in range(DEPTH + 1)):  # one more than runs
        shapes |= (
            norm(f"{block}.norm1", WIDTH) | norm(f"{block}.norm2", WIDTH) | linear(f"{block}.attn.proj", WIDTH, WIDTH)
        )
        shapes |= {f"{block}.attn.q_bias": (WIDTH,), f"{block}.attn.v_bias": (WIDTH,)}
        shapes |= {f"{block}.attn.qkv.weight": (3 * WIDTH, WIDTH)}
        shapes |= linear(f"{block}.mlp.fc1", 48, WIDTH) | linear(f"{block}.mlp.fc2", WIDTH, 48)
    return shapes | norm("norm", WIDTH) | linear("head", 10, WIDTH)


def bert(module, layers, cross_every, cross_width, text=False):
    shapes = norm(f"{module}.bert.embeddings.LayerNorm", HIDDEN)
    if text:
        shapes[f"{module}.bert.embeddings.word_embeddings.weight"] = (VOCABULARY, HIDDEN)
        shapes[f"{module}.bert.embeddings.position_embeddings.weight"] = (24, HIDDEN)
    for i in range(layers):
        layer = f"{module}.bert.encoder.layer.{i}"
        widths = {"attention": HIDDEN} | ({"crossattention": cross_width} if i % cross_every == 0 else {})
        for attention, width in widths.items():
            shapes |= linear(f"{layer}.{attention}.self.query", HIDDEN, HIDDEN)
            shapes |= linear(f"{layer}.{attention}.self.key", HIDDEN, width)
            shapes |= linear(f"{layer}.{attention}.self.value", HIDDEN, width)
            shapes |= linear(f"{layer}.{attention}.output.dense", HIDDEN, HIDDEN)
            shapes |= norm(f"{layer}.{attention}.output.LayerNorm", HIDDEN)
        for half in ("_query", "") if text else ("_query",):
            shapes |= linear(f"{layer}.intermediate{half}.dense", INNER, HIDDEN)
            shapes |= linear(f"{layer}.output{half}.dense", HIDDEN, INNER) | norm(
                f"{layer}.output{half}.LayerNorm", HIDDEN
            )
    return shapes


def image_qformer(text):
    return bert("Qformer", LAYERS, 2, WIDTH, text) | {"query_tokens": (1, 4, HIDDEN)}


def video_branch(rows=FRAMES):
    shapes = {"video_query_tokens": (1, 3, HIDDEN), "video_frame_position_embedding.weight": (rows, HIDDEN)}
    return shapes | bert("video_Qformer", 2, 1, HIDDEN) | linear("llama_proj", LLM, HIDDEN)


def audio_branch(rows=CLIPS):
    shapes = {"audio_query_tokens": (1, 2, HIDDEN), "audio_position_embedding.weight": (rows, JOINT)}
    return shapes | bert("audio_Qformer", 2, 1, JOINT) | linear("audio_llama_proj", LLM, HIDDEN)


def imagebind():
    shapes = {}
    for modality, width in (("audio", AUDIO), ("vision", 8)):
        stem, trunk, head = (f"modality_{part}.{modality}" for part in ("preprocessors", "trunks", "heads"))
        shapes |= {f"{stem}.cls_token": (1, 1, width), f"{stem}.rgbt_stem.proj.weight": (width, 1, 16, 16)}
        shapes |= norm(f"{stem}.rgbt_stem.norm_layer", width)
        shapes |= {f"{stem}.pos_embedding_helper.pos_embed": (1, 229, width)}
        for block in (f"{trunk}.blocks.{i}" for i in range(2)):
            shapes |= {f"{block}.attn.in_proj_weight": (3 * width, width), f"{block}.attn.in_proj_bias": (3 * width,)}
            shapes |= {f"{block}.attn.bias_k": (1, 1, width), f"{block}.attn.bias_v": (1, 1, width)}
            shapes |= linear(f"{block}.attn.out_proj", width, width)
            shapes |= norm(f"{block}.norm_1", width) | norm(f"{block}.norm_2", width)
            shapes |= linear(f"{block}.mlp.fc1", 4 * width, width) | linear(f"{block}.mlp.fc2", width, 4 * width)
        shapes |= norm(f"{head}.0", width) | {f"{head}.2.weight": (JOINT, width)}
        shapes |= {f"modality_postprocessors.{modality}.1.log_logit_scale": ()}
    return shapes | {"modality_preprocessors.text.mask": (77, 77)}


def stray():
    """Buffers that fine-tuning scripts saved along."""
    return {
        "Qformer.bert.embeddings.position_ids": (1, 24),
        "llama_model.model.layers.0.self_attn.rotary_emb.inv_freq": (4,),
    }


def lora(layers=2, rank=2):
    shapes = {}
    for i in range(layers):
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            side = f"llama_model.base_model.model.model.layers.{i}.self_attn.{name}.lora_{{}}.default.weight"
            shapes |= {side.format("A"): (rank, LLM), side.format("B"): (LLM, rank)}
    return shapes


def fill(shapes, seed):
    generator = torch.Generator().manual_seed(seed)
    return {name: 0.2 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@pytest.fixture(scope="session")
def sources(tmp_path_factory, language_model, bert_tokenizer):
    """Original files by option, and two more: BLIP-2's Q-Former and a checkpoint like TimeChat's."""
    folder = tmp_path_factory.mktemp("sources")
    content = {
        "vision": {key: tensor.half() for key, tensor in fill(eva_clip(), 1).items()},
        "qformer": {"model": fill(image_qformer(True) | norm("ln_vision", WIDTH) | linear("llm_proj", 7, HIDDEN), 2)},
        "video_branch": {"model": fill(video_branch() | stray(), 3), "config": {"run": {"lr": 1e-5}}, "epoch": 3},
        "audio_branch": {
            "model": fill(audio_branch() | stray(), 4)
            | fill({"audio_encoder.modality_postprocessors.audio.1.log_logit_scale": ()}, 9)
        },
        "imagebind": fill(imagebind(), 5),
        "blip2": {"model": fill(image_qformer(False) | norm("ln_vision", WIDTH) | linear("t5_proj", 7, HIDDEN), 6)},
        "timechat": {
            "model": fill(image_qformer(True) | video_branch(12) | lora(), 7),
            "config": {"model": {"lora_alpha": 20}},
        },
    }
    paths = {}
    for name, tensors in content.items():
        paths[name] = folder / f"{name}.pth"
        torch.save(tensors, paths[name])
    return paths | {"llm": language_model(folder / "llm", LLM), "qformer_tokenizer": bert_tokenizer}


MICROEMO = ("vision", "qformer", "video_branch", "audio_branch", "imagebind", "llm", "qformer_tokenizer")


def run(out, sources, base=None, **options):
    """A conversion of the small sources; options replace files and the rest."""
    given = {name: sources[name] for name in MICROEMO} | {"dtype": "float32", "base_config": base or base_config()}
    return convert_checkpoints(out, **(given | options))


@pytest.fixture(scope="session")
def converted(sources, tmp_path_factory):
    out = tmp_path_factory.mktemp("converted") / "model"
    report = run(out, sources)
    return out, report


def weights(folder):
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(path)
    return tensors


def original(path):
    content = torch.load(path, weights_only=True)
    return content.get("model", content)


def same(first, second):
    assert first.keys() == second.keys()
    return all(torch.equal(tensor, second[name]) for name, tensor in first.items())


# --- what comes out ------------------------------------------------------------------------------------------------


def test_every_part_is_where_it_belongs(converted, sources):
    ours = weights(converted[0])
    eva, qformer, video, audio, bind = (original(sources[name]) for name in MICROEMO[:5])
    vision = "model.visual_encoder.vision_model."
    layer = vision + "encoder.layers.1."
    bias = torch.cat([eva["blocks.1.attn.q_bias"], torch.zeros(WIDTH), eva["blocks.1.attn.v_bias"]])
    cross = "encoder.layer.2.crossattention."
    expected = {
        vision + "embeddings.class_embedding": eva["cls_token"],
        vision + "embeddings.position_embedding": eva["pos_embed"],
        vision + "embeddings.patch_embedding.weight": eva["patch_embed.proj.weight"],
        layer + "self_attn.qkv.weight": eva["blocks.1.attn.qkv.weight"],
        layer + "self_attn.qkv.bias": bias,
        layer + "self_attn.projection.weight": eva["blocks.1.attn.proj.weight"],
        layer + "layer_norm1.weight": eva["blocks.1.norm1.weight"],
        layer + "layer_norm2.weight": eva["blocks.1.norm2.weight"],
        layer + "mlp.fc2.bias": eva["blocks.1.mlp.fc2.bias"],
        vision + "post_layernorm.weight": qformer["ln_vision.weight"],
        "model.visual_encoder.query_tokens": qformer["query_tokens"],
        f"model.visual_encoder.image_qformer.{cross}attention.key.weight": qformer[f"Qformer.bert.{cross}self.key.weight"],
        "model.visual_encoder.image_qformer.embeddings.layernorm.bias": qformer["Qformer.bert.embeddings.LayerNorm.bias"],
        "model.video_qformer.frame_positions.weight": video["video_frame_position_embedding.weight"],
        "model.video_projection.weight": video["llama_proj.weight"],
        "model.audio_branch.segment_positions.weight": audio["audio_position_embedding.weight"],
        "model.audio_branch.audio_qformer.query_tokens": audio["audio_query_tokens"],
        "model.audio_projection.bias": audio["audio_llama_proj.bias"],
        "model.audio_branch.audio_tower.head.weight": bind["modality_heads.audio.2.weight"],
        "model.audio_branch.audio_tower.post_layernorm.weight": bind["modality_heads.audio.0.weight"],
        "model.audio_branch.audio_tower.layers.1.attention.bias_k": bind["modality_trunks.audio.blocks.1.attn.bias_k"],
        "model.audio_branch.audio_tower.layers.0.attention.qkv.bias": bind["modality_trunks.audio.blocks.0.attn.in_proj_bias"],
        "model.audio_branch.audio_tower.log_logit_scale": bind["modality_postprocessors.audio.1.log_logit_scale"],
    }  # fmt: skip
    for name, tensor in expected.items():
        assert torch.equal(ours[name], tensor.float()), name
    for branch in ("global_qformer", "window_qformer"):
        name = f"model.video_qformer.{branch}.qformer.encoder.layer.1.attention.attention.value.weight"
        assert torch.equal(ours[name], video["video_Qformer.bert.encoder.layer.1.attention.self.value.weight"])


def test_language_model_keeps_its_numbers_and_gains_two_tokens(converted, sources):
    model = MicroEmoForConditionalGeneration.from_pretrained(converted[0]).eval()
    processor = MicroEmoProcessor.from_pretrained(converted[0])
    llm = AutoModelForCausalLM.from_pretrained(sources["llm"]).eval()
    rows = llm.config.vocab_size
    assert model.config.video_token_id == processor.video_token_id == rows
    assert model.config.text_config.vocab_size == rows + 2 == len(processor.tokenizer)
    for table, old in ((model.get_input_embeddings(), llm.get_input_embeddings()), (model.lm_head, llm.lm_head)):
        assert torch.equal(table.weight[:rows], old.weight)
        assert torch.allclose(table.weight[rows:], old.weight.mean(dim=0).expand(2, -1), atol=1e-6)
    ids = torch.tensor([[1, 60, 70, 80]])
    with torch.no_grad():
        assert torch.allclose(model(input_ids=ids).logits[..., :rows], llm(ids).logits, atol=1e-5)


def test_converted_folder_answers(converted):
    model = MicroEmoForConditionalGeneration.from_pretrained(converted[0]).eval()
    processor = MicroEmoProcessor.from_pretrained(converted[0])
    sound = np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    frames = np.random.default_rng(0).integers(0, 255, (6, 28, 28, 3), np.uint8)
    inputs = processor(
        text="what does the speaker feel?",
        videos=frames,
        audio=sound,
        sampling_rate=16_000,
        utterances=[{"start": 0.0, "end": 0.1, "text": "well"}],
        landmarks=np.full((6, 478, 2), np.nan, np.float32),
        num_frames=4,
        return_tensors="pt",
    )
    answer = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert answer.shape == (1, inputs["input_ids"].shape[1] + 3)


def test_report_accounts_for_every_tensor(converted, sources):
    out, report = converted
    assert json.loads((out / "conversion_report.json").read_text()) == report
    by_option = dict(zip(MICROEMO, report["sources"], strict=False))
    for option, source in by_option.items():
        told = source["used"] + [key for keys in source["ignored"].values() for key in keys]
        assert source["tensors"] == len(told) == len(set(told)), option
        assert str(sources["llm"].parent.parent) not in json.dumps(source)
    eva = by_option["vision"]["ignored"]
    assert sum(map(len, eva.values())) == 13 + 4  # a block, the norm and the head
    assert by_option["video_branch"]["beside_the_weights"] == ["config", "epoch"]
    assert by_option["audio_branch"]["ignored"]["stray copy of an ImageBind buffer"]
    assert by_option["imagebind"]["holds"] == ["ImageBind audio tower"]

    new = {name.split(".")[2] for name in report["new"]}
    assert new == {"local_clue_attention", "fusion"}
    assert report["copied"] and all(".global_qformer." in name for name in report["copied"])
    tensors = weights(out)
    assert tensors["model.visual_encoder.fusion.gate"].item() == 0
    assert tensors["model.visual_encoder.local_clue_attention.qkv.weight"].std() > 0.01
    filled = {key for source in report["sources"] for key in source["used"]}
    assert len(tensors) < len(filled) + len(report["new"]) + len(report["copied"]) + 1
    assert tensors.keys() == MicroEmoForConditionalGeneration.from_pretrained(out).state_dict().keys()


def test_names_of_files_say_nothing(converted, sources, tmp_path):
    swapped = run(tmp_path / "a", sources, video_branch=sources["audio_branch"], audio_branch=sources["video_branch"])
    assert same(weights(tmp_path / "a"), weights(converted[0]))
    assert swapped["sources"][2]["holds"] == ["audio branch"]
    renamed = {name: tmp_path / f"{number}.bin" for number, name in enumerate(MICROEMO[:5])}
    for name, path in renamed.items():
        shutil.copy(sources[name], path)
    run(tmp_path / "b", sources, **renamed)
    assert same(weights(tmp_path / "b"), weights(converted[0]))


def test_formats_of_files(converted, sources, tmp_path):
    """safetensors, torch's old format without zip, and a language model in pickled and in sharded files."""
    save_file(original(sources["vision"]), tmp_path / "eva.pth")
    torch.save(torch.load(sources["qformer"]), tmp_path / "qformer.pth", _use_new_zipfile_serialization=False)
    llm = tmp_path / "llm"
    shutil.copytree(sources["llm"], llm)
    state = load_file(llm / "model.safetensors")
    (llm / "model.safetensors").unlink()
    torch.save(state, llm / "pytorch_model.bin")
    run(tmp_path / "a", sources, vision=tmp_path / "eva.pth", qformer=tmp_path / "qformer.pth", llm=llm)
    assert same(weights(tmp_path / "a"), weights(converted[0]))

    sharded = tmp_path / "sharded"
    shutil.copytree(sources["llm"], sharded)
    (sharded / "model.safetensors").unlink()
    LlamaForCausalLM.from_pretrained(sources["llm"]).save_pretrained(sharded, max_shard_size="20KB")
    assert len(list(sharded.glob("*.safetensors"))) > 2
    report = run(tmp_path / "b", sources, llm=sharded)
    assert same(weights(tmp_path / "b"), weights(converted[0]))
    assert len(report["sources"]) == 5 + len(list(sharded.glob("*.safetensors")))


def test_shards_and_dtype(converted, sources, tmp_path):
    whole = weights(converted[0])
    run(tmp_path / "a", sources, max_shard_size=50_000, dtype="bfloat16")
    shards = sorted((tmp_path / "a").glob("model-*.safetensors"))
    assert len(shards) > 3
    assert max(path.stat().st_size for path in shards) < 80_000
    halved = weights(tmp_path / "a")
    scale = "model.audio_branch.audio_tower.log_logit_scale"  # which bfloat16 would round to a scale of 20.125
    assert torch.equal(halved.pop(scale), whole[scale])
    assert all(torch.equal(tensor, whole[name].bfloat16()) for name, tensor in halved.items())
    model = MicroEmoForConditionalGeneration.from_pretrained(tmp_path / "a", dtype="auto")
    assert model.dtype == torch.bfloat16
    assert "_name_or_path" not in (tmp_path / "a" / "config.json").read_text()


@pytest.mark.parametrize("max_shard_size", ["1GB", "50KB"])
@torch.no_grad()
def test_features_survive_save_and_load(converted, tmp_path, max_shard_size, tiny):
    model = MicroEmoForConditionalGeneration.from_pretrained(converted[0]).eval()
    assert model.model.visual_encoder.fusion.gate.item() == 0
    inputs = tiny.inputs(model.config, frames=[4, 3], windows=[[(0, 2), (2, 4)], [(0, 3)]])
    inputs["qformer_input_ids"] %= VOCABULARY
    model.save_pretrained(tmp_path, max_shard_size=max_shard_size)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (max_shard_size == "50KB")
    again = MicroEmoForConditionalGeneration.from_pretrained(tmp_path).eval()
    for method, given in (("get_video_features", tiny.video(inputs)), ("get_audio_features", tiny.audio(inputs))):
        before, after = (getattr(m, method)(**given).pooler_output for m in (model, again))
        assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))
    without = {**tiny.video(inputs), "region_masks": torch.zeros_like(inputs["region_masks"])}
    before, after = model.get_video_features(**tiny.video(inputs)), model.get_video_features(**without)
    assert torch.equal(before.last_hidden_state, after.last_hidden_state)


def test_positions_are_resized(converted, sources, tmp_path):
    report = run(tmp_path / "a", sources, max_frames=14, max_audio_segments=12)
    ours, old = weights(tmp_path / "a"), weights(converted[0])
    for name, rows in (
        ("model.video_qformer.frame_positions.weight", 14),
        ("model.audio_branch.segment_positions.weight", 12),
    ):
        nearest = torch.arange(rows) * len(old[name]) // rows
        assert torch.equal(ours[name], old[name][nearest])
        assert f"{len(old[name])} rows to {rows}" in report["changed"][name]


# --- Transformers' InstructBLIP ------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def instructblip(tmp_path_factory):
    config = InstructBlipConfig(
        vision_config={
            "hidden_size": WIDTH,
            "intermediate_size": 48,
            "num_hidden_layers": DEPTH,
            "num_attention_heads": 2,
            "image_size": 28,
            "layer_norm_eps": 1e-6,
        },
        qformer_config={
            "hidden_size": HIDDEN,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": 2,
            "intermediate_size": INNER,
            "vocab_size": VOCABULARY,
            "max_position_embeddings": 24,
            "encoder_hidden_size": WIDTH,
        },
        text_config={
            "model_type": "llama",
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "vocab_size": 50,
        },
        num_query_tokens=4,
    )
    torch.manual_seed(0)
    model = InstructBlipForConditionalGeneration(config).eval()
    for parameter in model.parameters():
        parameter.data.normal_(std=0.2)
    folder = tmp_path_factory.mktemp("instructblip")
    model.save_pretrained(folder, max_shard_size="30KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder, model


@torch.no_grad()
@pytest.mark.parametrize("both", [True, False])
def test_instructblip_folder(sources, instructblip, tmp_path, both):
    folder, theirs = instructblip
    report = run(tmp_path / "a", sources, qformer=folder, **({"vision": folder} if both else {}))
    ours = MicroEmoForConditionalGeneration.from_pretrained(tmp_path / "a").eval().model.visual_encoder
    pixels, text = torch.randn(2, 3, 28, 28), torch.randint(1, VOCABULARY, (2, 5))
    if both:
        expected = theirs.vision_model(pixels).last_hidden_state
        assert torch.allclose(ours.vision_model(pixels).last_hidden_state, expected, atol=1e-3)  # two epsilons differ
        assert torch.equal(
            ours.vision_model.encoder.layers[1].self_attn.qkv.bias,
            theirs.vision_model.encoder.layers[1].self_attn.qkv.bias,
        )
    else:  # the file that --vision names comes before the folder's own
        eva = original(sources["vision"])
        assert torch.equal(ours.vision_model.embeddings.class_embedding, eva["cls_token"].float())
        assert any("superseded" in reason for source in report["sources"] for reason in source["ignored"])
    features = torch.randn(2, 5, WIDTH)
    queries = theirs.query_tokens.expand(2, -1, -1)
    mask = torch.ones(2, 4 + text.shape[1], dtype=torch.long)
    inputs = {"input_ids": text, "attention_mask": mask, "query_embeds": queries, "encoder_hidden_states": features}
    assert torch.equal(ours.query_tokens, theirs.query_tokens)
    assert torch.allclose(
        ours.image_qformer(**inputs).last_hidden_state, theirs.qformer(**inputs).last_hidden_state, atol=1e-5
    )

    run(tmp_path / "b", sources, qformer=folder, preset="affectgpt")
    ours = MicroEmoForConditionalGeneration.from_pretrained(tmp_path / "b").eval().model.visual_encoder
    del inputs["input_ids"]
    inputs["attention_mask"] = torch.ones(2, 4)
    expected = theirs.qformer(input_ids=None, **inputs).last_hidden_state
    assert torch.allclose(
        ours.image_qformer(query_embeds=queries, encoder_hidden_states=features).last_hidden_state, expected, atol=1e-5
    )


# --- presets and fine-tuned checkpoints ----------------------------------------------------------------------------


def test_presets_set_configuration_and_processor(converted, sources, tmp_path):
    folders = {"microemo": converted[0], "affectgpt": tmp_path / "a", "timechat": tmp_path / "t"}
    run(folders["affectgpt"], sources, preset="affectgpt", qformer=sources["blip2"])
    run(folders["timechat"], sources, preset="timechat", video_branch=sources["timechat"])
    fields = {
        "microemo": ("utterance", True, True, True, False, "This frame is sampled at {:.1f}s.", "waveform", FRAMES),
        "affectgpt": ("none", True, False, False, False, "This frame is sampled at {:.1f}s.", "waveform", FRAMES),
        "timechat": ("sliding", False, True, False, True, "timechat", "mel", 12),
    }
    assert fields.keys() == SOURCE_PRESETS.keys()
    for preset, (windows, whole, timestamps, local, kept, wording, padding, frames) in fields.items():
        config = MicroEmoConfig.from_pretrained(folders[preset])
        processor = MicroEmoProcessor.from_pretrained(folders[preset])
        assert (config.windows, config.use_global_window) == (windows, whole)
        assert (processor.windows, processor.use_global_window) == (windows, whole)
        assert config.use_frame_timestamps == processor.use_frame_timestamps == timestamps
        assert (config.use_local_clue_attention, config.keep_timestamp_tokens) == (local, kept)
        assert processor.timestamp_format == wording
        assert processor.feature_extractor.short_audio_padding == padding
        assert config.max_frames == processor.video_processor.max_frames == frames
        assert processor.video_processor.num_frames == (12 if preset == "timechat" else 8)
        assert processor.video_processor.repeat_last_frame == (preset == "affectgpt")
    assert (config.window_size, config.window_stride, config.window_unit) == (32, 32, "frames")
    # BERT's tokenizer as the originals set it up: [DEC] is the last of InstructBLIP's rows.
    bert = processor.qformer_tokenizer
    assert (bert.convert_tokens_to_ids("[DEC]"), bert.truncation_side) == (VOCABULARY - 1, "left")


def test_timechat_brings_its_own_qformers_and_needs_no_sound(sources, tmp_path):
    options = {"preset": "timechat", "video_branch": sources["timechat"], "audio_branch": None, "imagebind": None}
    report = run(tmp_path / "a", sources, **options)
    ours, timechat = weights(tmp_path / "a"), original(sources["timechat"])
    assert torch.equal(ours["model.visual_encoder.query_tokens"], timechat["query_tokens"])
    assert torch.equal(
        ours["model.video_qformer.frame_positions.weight"], timechat["video_frame_position_embedding.weight"]
    )
    superseded = next(keys for reason, keys in report["sources"][1]["ignored"].items() if "superseded" in reason)
    assert "query_tokens" in superseded and "ln_vision.weight" not in superseded
    assert {name.split(".")[1] for name in report["new"]} == {"audio_branch", "audio_projection"}
    assert ours["model.audio_branch.audio_tower.head.weight"].std() > 0.01
    MicroEmoForConditionalGeneration.from_pretrained(tmp_path / "a")
    with pytest.raises(ConversionError, match="no file holds the ImageBind audio tower.*--imagebind"):
        run(tmp_path / "b", sources, audio_branch=None, imagebind=None)


@torch.no_grad()
def test_lora_becomes_an_adapter(sources, tmp_path):
    peft = pytest.importorskip("peft")
    report = run(tmp_path / "a", sources, preset="timechat", video_branch=sources["timechat"])
    assert report["adapter"] == {"folder": "adapter", "tensors": 16, "r": 2, "lora_alpha": 20}
    plain = MicroEmoForConditionalGeneration.from_pretrained(tmp_path / "a").eval()
    adapted = MicroEmoForConditionalGeneration.from_pretrained(tmp_path / "a").eval()
    adapted = peft.PeftModel.from_pretrained(adapted, tmp_path / "a" / "adapter").merge_and_unload()
    source = original(sources["timechat"])
    for i, layer in enumerate(plain.model.language_model.layers):
        for name in ("q_proj", "o_proj"):
            key = f"llama_model.base_model.model.model.layers.{i}.self_attn.{name}.lora_{{}}.default.weight"
            expected = (
                getattr(layer.self_attn, name).weight + 20 / 2 * source[key.format("B")] @ source[key.format("A")]
            )
            actual = getattr(adapted.model.language_model.layers[i].self_attn, name).weight
            assert torch.allclose(actual, expected, atol=1e-5)
    assert torch.equal(adapted.model.language_model.norm.weight, plain.model.language_model.norm.weight)


def test_fine_tuned_checkpoint_lies_over_the_others(converted, sources, tmp_path):
    tuned = fill(linear("llama_proj", LLM, HIDDEN) | lora() | stray(), 11)
    torch.save({"model": tuned}, tmp_path / "affectgpt.pth")
    run(tmp_path / "a", sources, checkpoint=tmp_path / "affectgpt.pth", lora_alpha=16)
    ours, base = weights(tmp_path / "a"), weights(converted[0])
    changed = {name for name in ours if not torch.equal(ours[name], base[name])}
    assert changed == {"model.video_projection.weight", "model.video_projection.bias"}
    assert torch.equal(ours["model.video_projection.weight"], tuned["llama_proj.weight"])
    assert json.loads((tmp_path / "a" / "adapter" / "adapter_config.json").read_text())["lora_alpha"] == 16


# --- damage --------------------------------------------------------------------------------------------------------


def damaged(sources, tmp_path, option, change):
    """A copy of a source with its tensors changed in place."""
    content = torch.load(sources[option], weights_only=True)
    change(content.get("model", content))
    torch.save(content, tmp_path / "damaged.pth")
    return {option: tmp_path / "damaged.pth"}


DAMAGE = {
    "missing": (
        "vision",
        lambda tensors: tensors.pop("blocks.1.norm2.weight"),
        r"image encoder \(--vision\) is incomplete: no file holds blocks\.1\.norm2\.weight .*of shape \(32,\).*layer_norm2",
    ),
    "half a bias": (
        "vision",
        lambda tensors: tensors.pop("blocks.0.attn.v_bias"),
        r"damaged\.pth: blocks\.0\.attn\.v_bias is missing",
    ),
    "shape": (
        "qformer",
        lambda tensors: tensors.update({"query_tokens": torch.zeros(1, 5, HIDDEN)}),
        r"damaged\.pth: query_tokens has shape \(1, 5, 16\), but model\.visual_encoder\.query_tokens takes \(1, 4, 16\)",
    ),
    "turned": (
        "imagebind",
        lambda tensors: tensors.update({"modality_heads.audio.2.weight": torch.zeros(AUDIO, JOINT)}),
        r"modality_heads\.audio\.2\.weight has shape \(16, 24\), but .*head\.weight takes \(24, 16\)",
    ),
    "position width": (
        "video_branch",
        lambda tensors: tensors.update({"video_frame_position_embedding.weight": torch.zeros(FRAMES, 3)}),
        r"video_frame_position_embedding\.weight has shape \(10, 3\), but .* takes \(10, 16\)",
    ),
    "unknown": (
        "audio_branch",
        lambda tensors: tensors.update({"audio_gate": torch.zeros(3)}),
        r"damaged\.pth: audio_gate of shape \(3,\) is neither used nor on the ignore list",
    ),
    "language of another width": (
        "video_branch",
        lambda tensors: tensors.update({"llama_proj.weight": torch.zeros(48, HIDDEN)}),
        r"llama_proj\.weight has shape \(48, 16\), but model\.video_projection\.weight takes \(32, 16\)",
    ),
    "another model": (
        "video_branch",
        lambda tensors: [tensors.clear(), tensors.update({"conv1.weight": torch.zeros(3)})],
        r"damaged\.pth: none of the known sources; it holds conv1\.weight",
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named(sources, tmp_path, damage):
    option, change, message = DAMAGE[damage]
    with pytest.raises(ConversionError, match=message):
        run(tmp_path / "out", sources, **damaged(sources, tmp_path, option, change))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged.pth"]


def test_wrong_qformer_for_timestamps(sources, tmp_path):
    with pytest.raises(ConversionError, match="no file holds the text half of the image Q-Former.*InstructBLIP"):
        run(tmp_path / "out", sources, qformer=sources["blip2"])
    assert not list(tmp_path.iterdir())


def test_wrong_lora(sources, tmp_path):
    def check(message, **options):
        with pytest.raises(ConversionError, match=message):
            run(tmp_path / "out", sources, preset="timechat", **options)

    name = "llama_model.base_model.model.model.layers.1.self_attn.q_proj.lora_{}.default.weight"
    check(
        r"LoRA weights B of model\.language_model\.layers\.1\.self_attn\.q_proj are missing",
        video_branch=damaged(sources, tmp_path, "timechat", lambda t: t.pop(name.format("B")))["timechat"],
    )
    check(
        r"lora_A\.default\.weight has shape \(2, 5\), but .* of shape \(32, 32\) takes \(2, 32\)",
        video_branch=damaged(sources, tmp_path, "timechat", lambda t: t.update({name.format("A"): torch.zeros(2, 5)}))[
            "timechat"
        ],
    )
    check(
        "is for a layer that the language model",
        video_branch=damaged(sources, tmp_path, "timechat", lambda t: t.update(fill(lora(3), 0)))["timechat"],
    )


def test_two_files_for_one_part(sources, tmp_path):
    shutil.copy(sources["video_branch"], tmp_path / "copy.pth")
    with pytest.raises(ConversionError, match="no file holds the audio branch"):
        run(tmp_path / "out", sources, audio_branch=tmp_path / "copy.pth")
    shutil.copy(sources["timechat"], tmp_path / "copy.pth")
    with pytest.raises(ConversionError, match="both hold query_tokens; give one of them"):
        run(tmp_path / "out", sources, video_branch=sources["timechat"], checkpoint=tmp_path / "copy.pth")


@pytest.mark.parametrize("option", ["vision", "imagebind"])
@pytest.mark.parametrize("kept", [0, 5, 0.3, 0.99])
def test_cut_off_files(sources, tmp_path, option, kept):
    content = sources[option].read_bytes()
    (tmp_path / "cut.pth").write_bytes(content[: int(len(content) * kept) if isinstance(kept, float) else kept])
    with pytest.raises(ConversionError, match=r"cut\.pth: (cut off|no checkpoint, or a damaged one)"):
        run(tmp_path / "out", sources, **{option: tmp_path / "cut.pth"})
    save_file(original(sources[option]), tmp_path / "whole")
    content = (tmp_path / "whole").read_bytes()
    (tmp_path / "cut.pth").write_bytes(content[: max(9, int(len(content) * 0.9))])
    with pytest.raises(ConversionError, match=r"cut\.pth: damaged or cut off"):
        run(tmp_path / "out", sources, **{option: tmp_path / "cut.pth"})
    assert not (tmp_path / "out").exists()


class Trap:
    """Unpickled, it would leave a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.system, (f"touch {self.path}",))


@pytest.mark.parametrize("protocol", [None, 2, 4])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_code_in_a_pickle_is_not_run(sources, tmp_path, protocol):
    """In torch's format, and in bare pickles, of which the newer ones are not even read so far."""
    content = {"model": {"query_tokens": torch.zeros(1)}, "config": Trap(tmp_path / "ran")}
    if protocol is None:
        torch.save(content, tmp_path / "trap.pth")
    else:
        (tmp_path / "trap.pth").write_bytes(pickle.dumps(content["config"], protocol=protocol))
    reason = "no checkpoint, or a damaged one" if protocol == 4 else r"asks to run Python code \(\w+\.system\)"
    with pytest.raises(ConversionError, match=rf"trap\.pth: {reason}"):
        run(tmp_path / "out", sources, qformer=tmp_path / "trap.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["trap.pth"]


def test_sources_that_are_not_there(sources, tmp_path):
    with pytest.raises(ConversionError, match=r"nothing\.pth: no such file or folder"):
        run(tmp_path / "out", sources, vision=tmp_path / "nothing.pth")
    with pytest.raises(ConversionError, match=r"holds no weights \(model\.safetensors"):
        run(tmp_path / "out", sources, vision=tmp_path)
    broken = tmp_path / "llm"
    shutil.copytree(sources["llm"], broken)
    (broken / "model.safetensors").unlink()
    index = {"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}
    (broken / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ConversionError, match=r"lists model-00001-of-00002\.safetensors, which is not there"):
        run(tmp_path / "out", sources, llm=broken)
    with pytest.raises(ConversionError, match="no preset of sources named 'other'.*microemo, affectgpt, timechat"):
        run(tmp_path / "out", sources, preset="other")
    with pytest.raises(ConversionError, match="dtype must be .*'int8'"):
        run(tmp_path / "out", sources, dtype="int8")


def test_a_folder_with_something_in_it_is_left_alone(sources, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("mine")
    with pytest.raises(FileExistsError, match="is not empty"):
        run(tmp_path / "out", sources)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["precious"]
    (tmp_path / "out" / "precious").unlink()
    run(tmp_path / "out", sources)
    assert (tmp_path / "out" / "model.safetensors").is_file()


def run_on_a_full_disk(output, sources, limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    run(output, sources, dtype="bfloat16")


@pytest.mark.parametrize("limit", [1000, 100_000])
def test_no_space_left_while_writing(in_fork, sources, tmp_path, limit):
    """A limit on the size of files stands for the full disk: writing fails part-way, with the same path of errors."""
    code, error = in_fork(run_on_a_full_disk, tmp_path / "out", sources, limit)
    assert code == 1 and error.startswith("NoSpaceError") and "no space left to write it" in error, error
    assert not list(tmp_path.iterdir())


def run_on_a_small_disk(disk, size, sources):
    maps = {"setgroups": "deny", "uid_map": f"0 {os.getuid()} 1", "gid_map": f"0 {os.getgid()} 1"}
    assert ctypes.CDLL(None).unshare(0x10020000) == 0  # users and mounts of its own, as `unshare -r -m`
    for name, content in maps.items():
        Path("/proc/self", name).write_text(content)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", disk], check=True)
    try:
        run(disk / "out", sources, dtype="bfloat16")
    finally:
        assert not list(disk.iterdir())


@pytest.mark.parametrize(
    "room, message", [(-50_000, r"no space left: \d+ MB are needed"), (9_000, "no space left to write it")]
)
def test_no_space_left_on_a_small_disk(in_fork, sources, converted, tmp_path, room, message):
    """Found before anything is written, or, where the weights just fit, on the way."""
    if subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", tmp_path], capture_output=True).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    size = (converted[0] / "model.safetensors").stat().st_size // 2 + room  # bfloat16
    code, error = in_fork(run_on_a_small_disk, tmp_path, size, sources)
    assert code == 1 and re.match(f"NoSpaceError: .*{message}", error), error


# --- the command ---------------------------------------------------------------------------------------------------


def test_command(sources, tmp_path):
    import typer

    app = typer.Typer()
    app.command()(convert)
    base_config().save_pretrained(tmp_path / "sizes")
    arguments = [f"--{name.replace('_', '-')}={sources[name]}" for name in MICROEMO if name != "video_branch"]
    arguments += [f"--video-branch={sources['timechat']}", "--preset=timechat", "--max-frames=15", "--dtype=float16"]
    arguments += [f"--base-config={tmp_path / 'sizes'}", f"--output={tmp_path / 'out'}"]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"}, catch_exceptions=False)
    assert result.exit_code == 0
    for word in ("timechat.pth", "superseded by", "LoRA, r 2, alpha 20", "12 rows to 15", "block after the last"):
        assert word in result.stdout, result.stdout
    model = MicroEmoForConditionalGeneration.from_pretrained(tmp_path / "out", dtype="auto")
    assert (model.config.max_frames, model.dtype) == (15, torch.float16)


# --- real size -----------------------------------------------------------------------------------------------------


def real_files() -> dict[str, tuple[int, dict[str, torch.Size]]]:
    """Number of tensors and shapes of each original, by the title of its section in the shared list."""
    files = {}
    for line in (SHARED / "goldens" / "real_keys.txt").read_text().splitlines():
        if line.startswith("## "):
            title, count = re.fullmatch(r"## (.+): (\d+) tensors, .*", line).groups()
            files[title] = (int(count), shapes := {})
        elif line.strip():
            key, shape, numbers = re.fullmatch(r"(\S+)\s+(\[.*?\])\s*(.*)", line).groups()
            indices = [None]
            if match := re.search(r"\(([\d,]+)\)", numbers):
                indices = match[1].split(",")
            elif match := re.fullmatch(r"i=(\d+)\.\.(\d+)", numbers):
                indices = range(int(match[1]), int(match[2]) + 1)
            shapes |= {key.replace("{i}", str(index)): torch.Size(json.loads(shape)) for index in indices}
    return files


REAL_PRESETS = {
    "microemo": ("eva_vit_g", "instruct_blip", "VL branch", "AL branch", "imagebind"),
    "affectgpt": ("eva_vit_g", "blip2", "VL branch", "AL branch", "imagebind"),
    "timechat": ("eva_vit_g", "instruct_blip", "timechat", "AL branch", "imagebind"),
}


@pytest.mark.skipif(
    not (SHARED / "goldens" / "real_keys.txt").is_file(), reason="no shared folder: set MICROEMO_SHARED"
)
@pytest.mark.parametrize("preset", REAL_PRESETS)
def test_golden_real_keys(preset):
    """On shapes alone: every key of the originals is used or ignored, every parameter of the 7b preset is filled."""
    originals = real_files()
    files = []
    for title, option in zip(REAL_PRESETS[preset], MICROEMO, strict=False):
        ((count, shapes),) = (content for name, content in originals.items() if title in name)
        assert len(shapes) == count
        files.append(WeightFile(Path(title), title, {option}, shapes))
    text_config = MicroEmoConfig.from_preset("microemo-7b").text_config
    text_config.vocab_size -= 2
    with torch.device("meta"):
        llama = LlamaForCausalLM(text_config)
    files.append(WeightFile(Path("llm"), "llm", {"llm"}, {name: t.shape for name, t in llama.state_dict().items()}))
    text_config.vocab_size += 2
    config = original_config(files, text_config, preset=preset)
    if preset == "microemo":
        sevenb = MicroEmoConfig.from_preset("microemo-7b").to_dict()
        assert config.to_dict() == sevenb

    conversion = Conversion(files, config, text_config.vocab_size - 2)
    with torch.device("meta"):
        parameters = MicroEmoForConditionalGeneration(config).state_dict().keys()
    assert conversion.fillings.keys() | set(conversion.new) == parameters
    new = {name.split(".")[2] for name in conversion.new}
    assert new == ({"local_clue_attention", "fusion"} if preset == "microemo" else set())
    for file, source in zip(files, conversion.report()["sources"], strict=True):
        told = source["used"] + [key for keys in source["ignored"].values() for key in keys]
        assert sorted(told) == sorted(file.shapes)
    # Nothing that the model could use stands on the ignore list: ImageBind's sound is used to the last tensor.
    bind = conversion.report()["sources"][4]
    assert not [key for keys in bind["ignored"].values() for key in keys if ".audio." in key]


def test_planning_takes_no_memory_for_weights(sources):
    """Names and shapes are read, not tensors: files stay on the disk."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    files = open_sources(vision={sources["vision"]: "eva.pth"}, llm={sources["llm"] / "model.safetensors": "llm"})
    assert all(isinstance(shape, torch.Size) for file in files for shape in file.shapes.values())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000
