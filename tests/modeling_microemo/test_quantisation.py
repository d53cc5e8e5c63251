"""Quantised loading: towers and language model are converted, what joins them stays in full precision."""

import pytest
import torch
from torch import nn

from microemo import MicroEmoForConditionalGeneration

LARGE = ("visual_encoder.vision_model.", "audio_branch.audio_tower.", "language_model.")


def is_large(name: str) -> bool:
    return name.removeprefix("model.").startswith(LARGE)


@pytest.mark.parametrize(
    "switches", [{}, {"use_local_clue_attention": False, "windows": "none"}, {"share_video_qformer": True}]
)
@pytest.mark.parametrize("whole", [True, False], ids=["with the head", "without the head"])
def test_exactly_towers_and_language_model_are_converted(tiny, switches, whole):
    """By the rule of Transformers' quantisers, for each linear layer of a model."""
    from transformers.quantizers.base import HfQuantizer
    from transformers.quantizers.quantizers_utils import should_convert_module

    model = tiny.model(**switches)
    model = model if whole else model.model
    kept = HfQuantizer.get_modules_to_not_convert(model, None, model._keep_in_fp32_modules)
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    converted = {name for name in layers if should_convert_module(name, kept)}
    assert converted == {name for name in layers if is_large(name)}
    assert {name.removeprefix("model.").split(".")[0] for name in converted} == {
        "visual_encoder",
        "audio_branch",
        "language_model",
    }


@torch.no_grad()
def test_half_precision_keeps_the_parts_between_in_float32(tiny, tmp_path):
    model = tiny.model()
    model.save_pretrained(tmp_path)
    half = MicroEmoForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float16)
    assert half.dtype == half.model.dtype == torch.float16
    for name, value in half.named_parameters():
        expected = torch.float16 if is_large(name) or name.startswith("lm_head") else torch.float32
        assert value.dtype == expected, name
    inputs = tiny.inputs(model.config)
    difference = (half(**inputs).logits - model(**inputs).logits)[inputs["attention_mask"].bool()]
    assert difference.abs().max() < 0.05
    for way in ({}, {"cache_implementation": "static"}):
        assert half.generate(**inputs, max_new_tokens=2, **way).shape[0] == 2


def bitsandbytes(**options):
    pytest.importorskip("bitsandbytes")
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(**options)


def torchao():
    quantization = pytest.importorskip("torchao.quantization")
    from transformers import TorchAoConfig

    return TorchAoConfig(quantization.Int8WeightOnlyConfig())


@torch.no_grad()
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make_config", "tolerance"),
    [
        (lambda: bitsandbytes(load_in_8bit=True), 0.5),
        (lambda: bitsandbytes(load_in_4bit=True, bnb_4bit_quant_type="nf4"), 1.5),
        (torchao, 0.5),
    ],
    ids=["int8", "nf4", "torchao int8"],
)
def test_quantised_models_run(tiny, tmp_path, make_config, tolerance):
    quantization_config = make_config()
    # bitsandbytes packs 4-bit weights on the CPU in blocks of 64.
    audio_config = tiny.config().audio_config.to_dict() | {"hidden_size": 128}
    model = tiny.model(audio_config=audio_config)
    model.save_pretrained(tmp_path)
    inputs = tiny.inputs(model.config)
    quantised = MicroEmoForConditionalGeneration.from_pretrained(
        tmp_path, quantization_config=quantization_config, device_map="cpu"
    )
    plain = {name: type(module.weight.data) is torch.Tensor and module.weight.is_floating_point()
             for name, module in quantised.named_modules() if isinstance(module, nn.Linear)}  # fmt: skip
    assert plain == {name: not is_large(name) for name in plain}
    difference = (quantised(**inputs).logits - model(**inputs).logits)[inputs["attention_mask"].bool()]
    assert 0 < difference.abs().max() < tolerance
    answer = quantised.generate(**inputs, max_new_tokens=3, min_new_tokens=3)
    assert answer.shape[1] == inputs["input_ids"].shape[1] + 3
