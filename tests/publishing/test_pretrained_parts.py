"""Pretrained encoders out of checkpoints of larger models, as `microemo init` and `microemo assemble` take them."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file

from microemo import MicroEmoConfig, MicroEmoForConditionalGeneration, MicroEmoProcessor
from microemo.modeling_microemo.convert_original import ConversionError
from microemo.publishing.assemble import assemble, plan_assembly
from microemo.publishing.initialize import initialize
from microemo.publishing.pretrained_parts import PLACES, find_parts
from microemo.tests.modeling_microemo.conftest import bert_tokenizer, language_model  # noqa: F401
from microemo.tests.modeling_microemo.test_convert_original import (  # noqa: F401
    MICROEMO,
    base_config,
    sources,
)
from microemo.tests.modeling_microemo.test_towers import AUDIO, PICTURES

TEXT = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 40}
QWEN = {**TEXT, "num_key_value_heads": 2, "vocab_size": 160}


def two_towers(name: str, vision: str) -> transformers.PreTrainedModel:
    """CLIP and its relatives: an encoder of words beside that of pictures."""
    config = getattr(transformers, f"{name}Config")(text_config=TEXT, vision_config=PICTURES[vision])
    return getattr(transformers, f"{name}Model")(config)


def alone(name: str, model_type: str, **fields) -> transformers.PreTrainedModel:
    sizes = {**AUDIO, **PICTURES}[model_type]
    config = transformers.CONFIG_MAPPING[model_type](**{**sizes, **fields})
    return getattr(transformers, name)(config)


WHISPER = {"decoder_attention_heads": 2, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
MODELS = {
    "clip_vision_model": lambda: two_towers("CLIP", "clip_vision_model"),
    "siglip_vision_model": lambda: two_towers("Siglip", "siglip_vision_model"),
    "siglip2_vision_model": lambda: two_towers("Siglip2", "siglip2_vision_model"),
    "dinov2": lambda: alone("Dinov2ForImageClassification", "dinov2"),
    "dinov2_with_registers": lambda: alone("Dinov2WithRegistersModel", "dinov2_with_registers"),
    "dinov3_vit": lambda: alone("DINOv3ViTModel", "dinov3_vit"),
    "whisper": lambda: alone("WhisperForConditionalGeneration", "whisper", **WHISPER),
    "hubert": lambda: alone("HubertForCTC", "hubert"),
    "wavlm": lambda: alone("WavLMForSequenceClassification", "wavlm"),
    "wav2vec2": lambda: alone("Wav2Vec2ForCTC", "wav2vec2"),
    "qwen2_audio_encoder": lambda: transformers.Qwen2AudioForConditionalGeneration(
        transformers.Qwen2AudioConfig(
            audio_config=AUDIO["qwen2_audio_encoder"], text_config={"model_type": "qwen2", **QWEN}, audio_token_id=3
        )
    ),
    "qwen3_asr_encoder": lambda: transformers.Qwen3ASRForConditionalGeneration(
        transformers.Qwen3ASRConfig(
            audio_config={"model_type": "qwen3_asr_encoder", **AUDIO["qwen3_asr_encoder"]},
            text_config={"model_type": "qwen3", "head_dim": 16, **QWEN},
            **{"pad_token_id": 0, "eos_token_id": 1, "audio_token_id": 2, "timestamp_token_id": 3},
        )
    ),
}


@pytest.mark.parametrize("model_type", [name for name in MODELS if name in {**AUDIO, **PICTURES}])
def test_the_encoder_of_a_larger_model(model_type, tmp_path):
    model = MODELS[model_type]()
    with torch.no_grad():  # of other values than a new model has
        for parameter in model.parameters():
            parameter.add_(0.25)
    model.half().save_pretrained(tmp_path)
    option = "audio" if model_type in AUDIO else "vision"
    (part,) = find_parts(**{option: tmp_path}).values()
    assert part.config.model_type == model_type
    loaded, report = part.load(torch.float32)
    prefix, _ = PLACES[option]
    held = {name: weight for name, weight in model.state_dict().items() if not name.endswith("position_ids")}
    for name, weight in loaded.items():
        endings = [
            given for given in held if given == (rest := name.removeprefix(prefix)) or given.endswith("." + rest)
        ]
        assert any(torch.equal(weight, held[given].float()) for given in endings), name
    assert sorted(loaded) == report["used"]


# --- microemo init ---------------------------------------------------------------------------------------------------


def save_dinov2(folder, side: int = 56):
    model = alone("Dinov2Model", "dinov2")
    model.save_pretrained(folder)
    statistics = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7]}
    sizes = {"size": {"shortest_edge": 64}, "crop_size": {"height": side, "width": side}, "do_center_crop": True}
    (folder / "preprocessor_config.json").write_text(json.dumps({**statistics, **sizes}))
    return model


def test_an_image_encoder_with_its_own_processor(tmp_path):
    """DINOv2's configuration has the size of its last training, 518, and its processor that of its use, 224."""
    (tmp_path / "dino").mkdir()
    theirs = save_dinov2(tmp_path / "dino")
    folder = initialize("microemo-tiny", tmp_path / "tiny", vision=tmp_path / "dino")
    model = MicroEmoForConditionalGeneration.from_pretrained(folder)
    assert (model.config.frame_size, model.config.num_patches, model.config.vision_config.image_size) == (56, 16, 112)
    assert all(torch.equal(model.get_encoder("video").state_dict()[n], w) for n, w in theirs.state_dict().items())
    processor = MicroEmoProcessor.from_pretrained(folder)
    processor.check_config(model.config)
    assert processor.video_processor.size == {"height": 56, "width": 56}
    assert list(processor.video_processor.image_mean) == [0.1, 0.2, 0.3]


def test_the_pooling_head_of_siglip_is_left_out(tmp_path):
    two_towers("Siglip", "siglip_vision_model").save_pretrained(tmp_path / "siglip")
    folder = initialize("microemo-tiny", tmp_path / "tiny", vision=tmp_path / "siglip")
    assert not any(".vision_model.head." in name for name in load_file(folder / "model.safetensors"))
    assert MicroEmoConfig.from_pretrained(folder).image_size == 112


# --- microemo assemble -----------------------------------------------------------------------------------------------


def test_other_encoders_beside_the_papers_qformers(sources, tmp_path):  # noqa: F811
    """What read the paper's encoders at another width is new; all else comes from the files as before."""
    (tmp_path / "dino").mkdir()
    theirs = save_dinov2(tmp_path / "dino", side=56)
    alone("WhisperForConditionalGeneration", "whisper", **WHISPER).save_pretrained(tmp_path / "whisper")
    given = {name: sources[name] for name in MICROEMO if name != "imagebind"}
    given |= {"vision": tmp_path / "dino", "audio": tmp_path / "whisper"}
    plan = plan_assembly("microemo", base_config(), **given)
    assert {option for file in plan.files for option in file.options} >= {"vision", "audio", "qformer", "llm"}
    report = assemble(plan, tmp_path / "out", dtype="float32")
    model, loading = MicroEmoForConditionalGeneration.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(loading.values())
    assert all(torch.equal(model.get_encoder("video").state_dict()[n], w) for n, w in theirs.state_dict().items())
    MicroEmoProcessor.from_pretrained(tmp_path / "out").check_config(model.config)
    new = [name for name in report["new"] if not name.startswith("model.visual_encoder.local_clue")]
    for part in ("image_qformer", "audio_qformer"):
        readers = [name for name in new if part in name]
        assert readers and all(".crossattention." in name and ("key" in name or "value" in name) for name in readers)
    assert [source["holds"] for source in report["sources"][-2:]] == [["image encoder"], ["audio tower"]]
    assert model.config.max_audio_segments == 30  # 60 s in segments of 2 s


def test_a_source_without_an_audio_encoder(sources):  # noqa: F811
    given = {name: sources[name] for name in MICROEMO if name != "imagebind"}
    with pytest.raises(ConversionError, match="--audio.*'llama'.*no audio tower"):
        plan_assembly("microemo", base_config(), **given, audio=sources["llm"])
