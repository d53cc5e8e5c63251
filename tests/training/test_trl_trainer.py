"""TRL's `SFTTrainer` fine-tunes the model with our collator: from objects, from a path, with PEFT, and saves all of it."""

import json

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from trl import SFTConfig, SFTTrainer

from microemo import MicroEmoForConditionalGeneration, MicroEmoProcessor
from microemo.publishing.initialize import SHIPPED
from microemo.training.adapter import load_adapter, merge_adapter
from microemo.training.arguments import LORA_TARGETS, MODULES_TO_TRAIN, ModelArguments
from microemo.training.collator import MicroEmoCollator
from microemo.training.train import prepare_model
from microemo.utils.checkpoint_files import IMAGE_QUERIES

# As docs/training.md shows them.
SETTINGS = {"remove_unused_columns": False, "dataset_kwargs": {"skip_prepare_dataset": True}}


@pytest.fixture
def sft(world, tmp_path):
    """Makes an `SFTTrainer` on the rows of the cache, four in a batch."""

    def make(model, rows=None, **options) -> SFTTrainer:
        table = Dataset.from_list(world.rows if rows is None else rows, on_mixed_types="use_json")
        collator = options.pop("data_collator", MicroEmoCollator(world.cache.reader()))
        peft_config = options.pop("peft_config", None)
        settings = {"max_steps": 1, "per_device_train_batch_size": 4, "learning_rate": 1e-3, "bf16": False}
        arguments = SFTConfig(
            str(tmp_path / "sft"), use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True,
            logging_steps=1, **SETTINGS | settings | options,
        )  # fmt: skip
        has_evaluation = arguments.eval_strategy != "no"
        return SFTTrainer(
            model, arguments, collator, table, table if has_evaluation else None, peft_config=peft_config,
            processing_class=None if isinstance(model, str) else world.processor,
        )  # fmt: skip

    return make


def first_loss(trainer) -> float:
    return next(log["loss"] for log in trainer.state.log_history if "loss" in log)


def test_its_loss_is_that_of_our_own_run_and_its_adapter_is_whole(sft, world, run_training, tmp_path):
    torch.manual_seed(0)
    model = prepare_model(
        MicroEmoForConditionalGeneration.from_pretrained(world.checkpoint), ModelArguments(lora_dropout=0.0)
    )
    trainer = sft(model, warmup_steps=0)
    trainer.train()
    ours = run_training(max_steps=1, per_device_train_batch_size=4, logging_steps=1)
    assert first_loss(trainer) == pytest.approx(first_loss(ours), rel=1e-4)

    trainer.save_model()
    loaded, _ = load_adapter(tmp_path / "sft")
    saved, initial = dict(loaded.named_parameters(remove_duplicate=False)), dict(world.model.named_parameters())
    trained = {
        name: parameter
        for name, parameter in trainer.model.named_parameters(remove_duplicate=False)
        if parameter.requires_grad and ".original_module." not in name
    }
    for name, parameter in trained.items():
        assert torch.equal(saved[name], parameter), name
    (queries,) = [name for name in trained if name.endswith(IMAGE_QUERIES)]
    assert not torch.equal(trained[queries], initial[queries.removeprefix("base_model.model.")])


def test_a_path_with_lora_of_its_own_and_evaluation(sft, world, tmp_path):
    lora = LoraConfig(target_modules=LORA_TARGETS, modules_to_save=MODULES_TO_TRAIN, task_type="CAUSAL_LM")
    trainer = sft(str(world.checkpoint), peft_config=lora, eval_strategy="steps", eval_steps=1, warmup_steps=0)
    assert type(trainer.processing_class) is MicroEmoProcessor
    trainer.train()
    with torch.no_grad():
        expected = world.model(**MicroEmoCollator(world.cache.reader())(world.rows)).loss.item()
    assert first_loss(trainer) == pytest.approx(expected, rel=1e-4)
    (evaluated,) = [log["eval_loss"] for log in trainer.state.log_history if "eval_loss" in log]
    assert evaluated < expected  # of the same rows, after a step on them
    trainer.save_model()
    reloaded, _ = load_adapter(tmp_path / "sft")  # as PEFT alone saves it
    with torch.no_grad():
        batch = MicroEmoCollator(world.cache.reader())(world.rows)
        assert reloaded.eval()(**batch).loss.item() == pytest.approx(evaluated, rel=1e-4)


def test_an_adapter_of_peft_alone_takes_configuration_and_processor_of_its_base(world, tmp_path):
    base = MicroEmoForConditionalGeneration.from_pretrained(world.checkpoint)
    lora = LoraConfig(target_modules=LORA_TARGETS, init_lora_weights=False)  # no zeros: it changes the loss
    model = get_peft_model(base, lora)
    model.save_pretrained(tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_config.json"
    assert {path.suffix for path in file.parent.iterdir()} == {".md", ".json", ".safetensors"}
    assert not (file.parent / "processor_config.json").exists()

    merged = merge_adapter(tmp_path / "adapter", tmp_path / "merged")
    batch = MicroEmoCollator(world.cache.reader())(world.rows)
    with torch.no_grad():
        expected = model.eval()(**batch).loss.item()
        found = MicroEmoForConditionalGeneration.from_pretrained(merged).eval()(**batch).loss.item()
    assert found == pytest.approx(expected, rel=1e-4)
    assert MicroEmoProcessor.from_pretrained(merged).to_dict() == world.processor.to_dict()

    fields = json.loads(file.read_text())
    file.write_text(json.dumps(fields | {"base_model_name_or_path": None}))
    with pytest.raises(
        ValueError, match=r"adapter_config\.json: base_model_name_or_path is None, expected the folder"
    ):
        load_adapter(file.parent)
    load_adapter(file.parent, base=str(world.checkpoint))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ValueError, match="is of type 'llama', expected 'microemo'"):
        load_adapter(file.parent, base=str(tmp_path / "other"))


def test_conversations_with_assistant_only_loss(sft, world):
    rows = [
        {
            "video": row["video"],
            "utterances": row["utterances"],
            "messages": [
                {"role": "user", "content": row["instruction"]},
                {"role": "assistant", "content": row["response"]},
            ],
        }
        for row in world.rows
    ]
    model = MicroEmoForConditionalGeneration.from_pretrained(world.checkpoint)
    trainer = sft(model, rows, assistant_only_loss=True, packing=False, max_length=None, learning_rate=0.0)
    trainer.train()
    with torch.no_grad():
        expected = world.model(**MicroEmoCollator(world.cache.reader())(rows)).loss.item()
    assert first_loss(trainer) == pytest.approx(expected, rel=1e-4)


def test_rows_that_a_trainer_has_changed_are_refused_with_the_settings_to_use(world):
    with pytest.raises(ValueError, match=r"found input_ids, labels\. .*'skip_prepare_dataset': True"):
        MicroEmoCollator(world.processor)([{"input_ids": [1, 2], "labels": [1, 2]}])


@pytest.mark.slow
def test_the_shipped_checkpoint_learns_from_clips(sft, world):
    """No cache: the collator decodes, and the settings are TRL's own (bfloat16, gradient checkpointing)."""
    checkpoint = MicroEmoForConditionalGeneration.from_pretrained(SHIPPED)
    processor = MicroEmoProcessor.from_pretrained(SHIPPED)
    processor.video_processor.num_frames = 4
    trainer = sft(checkpoint, data_collator=MicroEmoCollator(processor), max_steps=4, bf16=True, warmup_steps=0)
    trainer.train()
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    assert len(losses) == 4 and losses[-1] < 0.9 * losses[0]
