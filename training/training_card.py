"""The model card of a training run, and its facts for the card of a published model."""

import hashlib
import json
import platform
from pathlib import Path

import torch
from huggingface_hub import ModelCardData
from peft import PeftModel
from transformers import Trainer

from ..utils.atomic_files import write_text
from ..utils.checkpoint_files import CARD, RUN_FACTS
from .arguments import DataArguments, ModelArguments


def write_model_card(trainer: Trainer, model_args: ModelArguments, data_args: DataArguments) -> None:
    """Writes the model card, `README.md`: how to use the model, how it was trained, and its last metrics.

    The same facts stand in `training_run.json`, from which `microemo publish` fills the card of a published model.

    Args:
        trainer (`Trainer`): The trainer after the run.
        model_args ([`ModelArguments`]): The arguments of the model.
        data_args ([`DataArguments`]): The arguments of the data.
    """
    if not trainer.is_world_process_zero():
        return
    folder = Path(trainer.args.output_dir)
    base_model = str(model_args.model_name_or_path)
    is_adapter = isinstance(trainer.model, PeftModel)
    use = f"""\
from microemo import MicroEmoForConditionalGeneration, MicroEmoProcessor

processor = MicroEmoProcessor.from_pretrained("{folder.name}")
model = MicroEmoForConditionalGeneration.from_pretrained("{folder.name}")"""
    facts = run_facts(trainer, model_args, data_args)
    data = ModelCardData(
        library_name="peft" if is_adapter else "transformers",
        base_model=base_model if not Path(base_model).exists() else None,
        pipeline_tag="image-text-to-text",  # which the Hub and Transformers know
        tags=["microemo", "emotion-recognition"],
    )
    about = "An adapter on" if is_adapter else "Trained from"
    lines = [
        f"---\n{data.to_yaml()}\n---\n",
        f"# {folder.name}\n",
        f"{about} {Path(base_model).name}, a MicroEmo model: it says what the speaker of a clip feels,",
        "and why.\n",
        f"```python\n{use}\n```\n",
        "| | |\n|---|---|",
        *(f"| {name} | {value} |" for name, value in facts.items() if name != "training data set"),
    ]
    card = "\n".join(lines) + "\n"
    write_text(folder / CARD, card)
    facts["card_sha256"] = hashlib.sha256(card.encode()).hexdigest()  # tells a card that nobody has edited
    write_text(folder / RUN_FACTS, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")


def run_facts(trainer: Trainer, model_args: ModelArguments, data_args: DataArguments) -> dict:
    """Collects what a model card says of a training run: base, data, budget, hardware, settings and last metrics.

    No folder of this machine is named: a local table or base model stands there with its last name.

    Args:
        trainer (`Trainer`): The trainer after the run.
        model_args ([`ModelArguments`]): The arguments of the model.
        data_args ([`DataArguments`]): The arguments of the data.

    Returns:
        `dict`: The facts, ready for JSON.
    """
    args = trainer.args
    is_adapter = isinstance(trainer.model, PeftModel)
    logs = {name: value for log in trainer.state.log_history for name, value in log.items()}  # the last of each
    device = (
        torch.cuda.get_device_name() if args.device.type == "cuda" else f"{args.device.type}, {platform.machine()}"
    )
    facts = {
        "base model": _shareable(str(model_args.model_name_or_path)),
        "training data": f"{_shareable(str(data_args.train_data))}, {len(trainer.train_dataset)} rows"
        + (f" (split {data_args.train_split})" if data_args.train_split else ""),
        "steps": trainer.state.global_step,
        "rows a step": args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
        "learning rate": f"{args.learning_rate} ({args.lr_scheduler_type.value}, warm-up {args.warmup_steps})",
        "weight decay": args.weight_decay,
        "seed": args.seed,
        "trained": ", ".join(model_args.modules_to_train)
        + (f"; LoRA of rank {model_args.lora_r} on the language model" if is_adapter else ""),
        "config_overrides": json.dumps(model_args.config_overrides),
        "hardware": f"{args.world_size} x {device}",
    }
    if not Path(str(data_args.train_data)).exists():
        facts["training data set"] = str(data_args.train_data)  # of the Hub
    if "train_runtime" in logs:
        facts["duration"] = f"{logs['train_runtime'] / 3600:.2f} h, since the run was last started"
    return facts | {name: logs[name] for name in ("train_loss", "eval_loss") if name in logs}


def _shareable(name: str) -> str:
    return Path(name).name if Path(name).exists() else name
