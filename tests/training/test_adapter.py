"""Adapters that PEFT alone saved: no configuration of the model, no processor, and a base that may be elsewhere."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model

from microemo import MicroEmoForConditionalGeneration, MicroEmoProcessor
from microemo.training.adapter import load_adapter, merge_adapter
from microemo.training.collator import MicroEmoCollator

LORA = LoraConfig(r=2, target_modules=r".*language_model.*q_proj", init_lora_weights=False)


@pytest.fixture(scope="module")
def saved(world, tmp_path_factory):
    """The folder of an adapter, and the model with it."""
    torch.manual_seed(0)
    model = get_peft_model(MicroEmoForConditionalGeneration.from_pretrained(world.checkpoint), LORA).eval()
    folder = tmp_path_factory.mktemp("peft") / "adapter"
    model.save_pretrained(folder)
    return folder, model


@pytest.fixture
def adapter(saved, tmp_path):
    """A copy of the folder, to change."""
    return shutil.copytree(saved[0], tmp_path / "adapter")


def name_base(folder, base) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": base}))


@torch.no_grad()
def test_it_is_loaded_and_merged_with_configuration_and_processor_of_its_base(world, saved, tmp_path):
    folder, model = saved
    assert {path.suffix for path in folder.iterdir()} == {".json", ".safetensors", ".md"}
    batch = MicroEmoCollator(world.cache.reader())(world.rows[:2])
    loaded, processor = load_adapter(folder)
    assert torch.equal(loaded.eval()(**batch).logits, model(**batch).logits)
    assert processor.video_processor.num_frames == world.processor.video_processor.num_frames == 6
    merged = merge_adapter(folder, tmp_path / "merged")
    whole = MicroEmoForConditionalGeneration.from_pretrained(merged).eval()
    torch.testing.assert_close(whole(**batch).logits, model(**batch).logits, atol=1e-5, rtol=1e-5)
    assert MicroEmoProcessor.from_pretrained(merged).video_processor.num_frames == 6


def test_a_base_that_has_moved_is_named_by_the_caller(world, adapter, tmp_path):
    name_base(adapter, str(tmp_path / "gone"))
    with pytest.raises(OSError, match=r"adapter: its base model .*gone cannot be read; pass `base` \(--base\)"):
        load_adapter(adapter)
    load_adapter(adapter, base=str(world.checkpoint))


@pytest.mark.parametrize("base", [None, ""])
def test_a_model_made_in_memory_is_no_base_that_can_be_found(adapter, tmp_path, base):
    name_base(adapter, base)
    for load in (load_adapter, lambda folder: merge_adapter(folder, tmp_path / "merged")):
        with pytest.raises(ValueError, match=r"base_model_name_or_path is .*, or pass `base`"):
            load(adapter)


def test_an_adapter_on_an_adapter_is_merged_one_by_one(saved, adapter):
    name_base(adapter, str(saved[0]))
    with pytest.raises(ValueError, match=r"its base .*adapter is an adapter; merge that first"):
        load_adapter(adapter)


def test_a_base_of_another_kind_is_refused(adapter, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ValueError, match=r"its base model .*other is of type 'llama', expected 'microemo'"):
        load_adapter(adapter, base=str(other))


def test_a_processor_with_other_settings_than_the_base_is_refused(world, adapter):
    """As where a model was loaded with other settings for training, which PEFT does not write down."""
    processor = MicroEmoProcessor.from_pretrained(world.checkpoint)
    processor.windows = "clip"
    processor.save_pretrained(adapter)
    with pytest.raises(ValueError, match="windows"):
        load_adapter(adapter)


def test_an_adapter_of_another_size_is_refused_by_name(world, adapter, tmp_path):
    config = MicroEmoForConditionalGeneration.config_class.from_pretrained(world.checkpoint)
    config.text_config.num_attention_heads *= 2
    config.text_config.head_dim = 2 * (config.text_config.head_dim or 1)
    other = tmp_path / "other"
    MicroEmoForConditionalGeneration(config).save_pretrained(other)
    world.processor.save_pretrained(other)
    with pytest.raises(ValueError, match=r"adapter: an adapter of another model than .*other: .*q_proj"):
        load_adapter(adapter, base=str(other))


def test_a_folder_of_named_adapters_says_where_they_are(saved, tmp_path):
    shutil.copytree(saved[0], tmp_path / "run" / "warm")
    with pytest.raises(
        FileNotFoundError, match=r"run: no adapter_config.json in it, so no adapter; there are some in warm"
    ):
        load_adapter(tmp_path / "run")
