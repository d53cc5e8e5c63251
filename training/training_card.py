"""The model card of a training run."""

import json
from pathlib import Path

from huggingface_hub import ModelCardData
from peft import PeftModel
from transformers import Trainer

from ..utils.files import write_text
from .arguments import DataArguments, ModelArguments


def write_model_card(trainer: Trainer, model_args: ModelArguments, data_args: DataArguments) -> None:
    """Writes the model card, `README.md`: how to use the model, how it was trained, and its last metrics.

    Args:
        trainer (`Trainer`): The trainer after the run.
        model_args ([`ModelArguments`]): The arguments of the model.
        data_args ([`DataArguments`]): The arguments of the data.
    """
    if not trainer.is_world_process_zero():
        return
    args, folder = trainer.args, Path(trainer.args.output_dir)
    base_model = str(model_args.model_name_or_path)
    is_adapter = isinstance(trainer.model, PeftModel)
    use = f"""\
from microemo import MicroEmoForConditionalGeneration, MicroEmoProcessor

processor = MicroEmoProcessor.from_pretrained("{folder.name}")
model = MicroEmoForConditionalGeneration.from_pretrained("{folder.name}")"""
    settings = {
        "training data": f"{Path(str(data_args.train_data)).name}, {len(trainer.train_dataset)} rows"
        + (f" (split {data_args.train_split})" if data_args.train_split else ""),
        "steps": trainer.state.global_step,
        "rows a step": args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
        "learning rate": f"{args.learning_rate} ({args.lr_scheduler_type.value}, warm-up {args.warmup_steps})",
        "weight decay": args.weight_decay,
        "seed": args.seed,
        "trained": ", ".join(model_args.modules_to_train)
        + (f"; LoRA of rank {model_args.lora_r} on the language model" if is_adapter else ""),
        "config_overrides": json.dumps(model_args.config_overrides),
    }
    figures = [{**log} for log in trainer.state.log_history if "eval_loss" in log or "train_loss" in log]
    settings |= {name: log[name] for log in figures for name in ("train_loss", "eval_loss") if name in log}
    data = ModelCardData(
        library_name="peft" if is_adapter else "transformers",
        base_model=base_model if not Path(base_model).exists() else None,
        pipeline_tag="video-text-to-text",
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
        *(f"| {name} | {value} |" for name, value in settings.items()),
    ]
    write_text(folder / "README.md", "\n".join(lines) + "\n")
