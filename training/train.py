"""Fine-tuning: Transformers' `Trainer`, PEFT's LoRA on the language model, YAML recipes.

microemo train stage2 --model_name_or_path microemo-7b --train_data train.jsonl --output_dir run
microemo train my_recipe.yaml --learning_rate 1e-4 --config_overrides '{"windows": "none"}'
accelerate launch --config_file training/accelerate/fsdp2.yaml -m microemo.training.train stage2 --train_data ...

A recipe is a YAML file with the fields of the three classes in `training/arguments.py`; the command line takes precedence.
"""

import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import PartialState
from datasets import Dataset
from peft import LoraConfig, PeftModel
from peft.utils import ModulesToSaveWrapper
from torch import nn
from transformers import (
    BitsAndBytesConfig,
    EvalPrediction,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.utils import logging
from trl import get_peft_config, get_quantization_config

from ..configuration.configuration_microemo import MicroEmoConfig
from ..modeling_microemo.modeling_microemo import MicroEmoForConditionalGeneration
from ..processing.processing_microemo import MicroEmoProcessor
from ..utils.news import show_news
from .adapter import IMAGE_QUERIES, MicroEmoPeftModel
from .arguments import MODULES_TO_TRAIN, DataArguments, MicroEmoTrainingArguments, ModelArguments, parse_arguments
from .collator import IGNORED, MicroEmoCollator, PromptCollator, one_by_one, question_of, try_rows
from .corpora.corpus_list import CorpusOptions
from .data import corpus_of, load_table, to_conversation
from .data_checks import check_table
from .feature_cache import FeatureCache
from .label_tables import LabelColumns, split_off
from .recognised_speech import UTTERANCES, add_utterances
from .training_card import write_model_card

# Also where this module is a program: `accelerate launch -m microemo.training.train`.
logger = logging.get_logger("microemo.training.train")

TOWERS = ("vision_model", "audio_tower")


# --- the model -----------------------------------------------------------------------------------------------------


def load_config_and_processor(args: ModelArguments) -> tuple[MicroEmoConfig, MicroEmoProcessor]:
    """Loads the configuration and the processor of a checkpoint, and sets `args.config_overrides` in both.

    Args:
        args ([`ModelArguments`]): The arguments of the model.

    Returns:
        `tuple[MicroEmoConfig, MicroEmoProcessor]`: The configuration and the processor.

    Raises:
        ValueError: if neither of the two has a field of that name, or if they do not agree.
    """
    name, config_overrides = args.model_name_or_path, cast(dict[str, Any], args.config_overrides)
    processor = MicroEmoProcessor.from_pretrained(name, revision=args.model_revision)
    in_config = {
        key: value for key, value in config_overrides.items() if key in {f.name for f in fields(MicroEmoConfig)}
    }
    config = MicroEmoConfig.from_pretrained(name, revision=args.model_revision, **in_config)
    for key, value in config_overrides.items():
        parts = [
            part for part in (processor, processor.video_processor, processor.feature_extractor) if hasattr(part, key)
        ]
        if not parts and key not in in_config:
            raise ValueError(f"config_overrides: {key!r} is no field of MicroEmoConfig or of the processor")
        for part in parts:
            setattr(part, key, value)
    processor.check_config(config)
    return config, processor


def load_model_and_processor(args: ModelArguments) -> tuple[MicroEmoForConditionalGeneration, MicroEmoProcessor]:
    """Loads a checkpoint and its processor, and sets `args.config_overrides` in both.

    Args:
        args ([`ModelArguments`]): The arguments of the model.

    Returns:
        `tuple[MicroEmoForConditionalGeneration, MicroEmoProcessor]`: The model and the processor.

    Raises:
        ValueError: if neither of the two has a field of that name, or if they do not agree.
    """
    config, processor = load_config_and_processor(args)
    quantization = load_quantization_config(args)
    model = MicroEmoForConditionalGeneration.from_pretrained(
        args.model_name_or_path,
        config=config,
        revision=args.model_revision,
        dtype=args.dtype if args.dtype in (None, "auto") else getattr(torch, args.dtype),
        attn_implementation=args.attn_implementation,
        quantization_config=quantization,
        device_map={"": PartialState().device} if quantization is not None else None,
    )
    return model, processor


def load_quantization_config(args: ModelArguments) -> BitsAndBytesConfig | None:
    """Builds the quantization config of TRL for the frozen language model alone; the other modules are small or
    trained.

    Args:
        args ([`ModelArguments`]): The arguments of the model.

    Returns:
        `BitsAndBytesConfig` or `None`: The config for four or eight bits; `None` without quantization.
    """
    quantization = get_quantization_config(args)
    if quantization is not None:
        # Transformers takes a plain name for a module of the first level.
        in_full = (*TOWERS, *args.modules_to_train, "lm_head")
        quantization.llm_int8_skip_modules = [rf"(.*\.)?{name}" for name in in_full]
        quantization.bnb_4bit_compute_dtype = torch.bfloat16
    return quantization


def prepare_model(
    model: MicroEmoForConditionalGeneration, args: ModelArguments, mixed_precision: bool = False
) -> PeftModel | MicroEmoForConditionalGeneration:
    """Freezes all parameters but those that are trained, and puts LoRA on the language model.

    Args:
        model ([`MicroEmoForConditionalGeneration`]): The model, which is changed in place.
        args ([`ModelArguments`]): The arguments of the model.
        mixed_precision (`bool`, *optional*, defaults to `False`):
            Whether to convert the trained parameters to float32, since bfloat16 loses small updates.

    Returns:
        `PeftModel` or [`MicroEmoForConditionalGeneration`]: The model with LoRA, or with `use_peft=False` the model
        itself.

    Raises:
        ValueError: if `modules_to_train` names a module that the model does not have.
    """
    names = [name for name, _ in model.named_modules()]
    present = [part for part in args.modules_to_train if any(name.split(".")[-1] == part for name in names)]
    unknown = set(args.modules_to_train) - set(present) - set(MODULES_TO_TRAIN) - {"all"}
    if unknown:
        raise ValueError(f"modules_to_train: the model has no module named {', '.join(sorted(unknown))}")
    model.requires_grad_(False)
    if args.use_peft:
        config = cast(LoraConfig, get_peft_config(args))
        config.modules_to_save = present
        config.base_model_name_or_path = model.name_or_path
        trained = MicroEmoPeftModel(model, config)
        _drop_originals(trained)
    else:
        trained = model
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(
                "all" in args.modules_to_train or any(part in name.split(".") for part in present)
            )
    if "image_qformer" in present:
        model.get_parameter(f"model.{IMAGE_QUERIES}").requires_grad_(True)
    for parameter in trained.parameters():
        if parameter.requires_grad and mixed_precision:
            parameter.data = parameter.data.float()
    for name, module in model.named_modules():
        if name.split(".")[-1] in TOWERS and not any(p.requires_grad for p in module.parameters()):
            module.eval()  # and stays so, see `EvalWhenFrozenMixin`
    model.register_forward_hook(ensure_gradients)
    return trained


def _drop_originals(model: PeftModel) -> None:
    """Drops the untrained copies of saved modules that PEFT keeps. They are not used here, and take as much memory."""
    for module in model.modules():
        if isinstance(module, ModulesToSaveWrapper):
            module.original_module = module.modules_to_save[module.active_adapters[0]]


def ensure_gradients(model: MicroEmoForConditionalGeneration, args: tuple, output: Any) -> Any:
    """Gives every trained parameter a gradient at every step, which is 0 where the batch does not use the parameter.

    Clips without a face, utterances or sound leave modules unused, and not the same ones in all processes; gradients
    that are summed over processes must exist in all of them. The function is a forward hook.

    Args:
        model ([`MicroEmoForConditionalGeneration`]): The model.
        args (`tuple`): The positional arguments of the forward pass.
        output (`ModelOutput`): The output of the forward pass.

    Returns:
        `ModelOutput`: The output, whose loss depends on all trained parameters.
    """
    if output.loss is not None and torch.is_grad_enabled():
        idle = (parameter for name, parameter in trained_parameters(model) if ".language_model." not in f".{name}")
        output.loss = _WithZeroGradients.apply(output.loss, *idle)
    return output


class _WithZeroGradients(torch.autograd.Function):
    """Returns a loss unchanged, and gives parameters a gradient of 0: one broadcast 0, whatever their size."""

    @staticmethod
    def forward(ctx: Any, loss: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        ctx.parameters = parameters
        return loss.clone()  # the Trainer scales it in place

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, ...]:
        zeros = {(p.dtype, p.device): gradient.new_zeros((), dtype=p.dtype, device=p.device) for p in ctx.parameters}
        return gradient, *(zeros[p.dtype, p.device].expand_as(p) for p in ctx.parameters)


def trained_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Iterates over the trained parameters.

    Args:
        model (`nn.Module`): A module.

    Returns:
        `Iterator[tuple[str, nn.Parameter]]`: The names and the parameters that require a gradient.
    """
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


# --- the run -------------------------------------------------------------------------------------------------------


class SampleGenerationCallback(TrainerCallback):
    """Generates answers to the first questions of some rows at each evaluation.

    The answers go to the log and to `samples.jsonl` in the output folder.

    Args:
        rows (`list[dict]`): Rows of the data set.
        processor ([`MicroEmoProcessor`]): The processor of the model.
        max_new_tokens (`int`): The maximum length of an answer.
        num_workers (`int`):
            The number of data loader processes of the run. With 0 the prompts are made in this process.
    """

    def __init__(self, rows: list[dict], processor: MicroEmoProcessor, max_new_tokens: int, num_workers: int):
        self.rows, self.processor, self.max_new_tokens, self.num_workers = rows, processor, max_new_tokens, num_workers
        self.prompts: list | None = None

    @torch.inference_mode()
    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """Generates the answers, logs them, and appends them to `samples.jsonl`.

        Args:
            args (`TrainingArguments`): The arguments of the `Trainer`.
            state (`TrainerState`): The state of the `Trainer`.
            control (`TrainerControl`): The control of the `Trainer`, which is not changed.
            model (`nn.Module`, *optional*): The model in training.
            kwargs (`Any`, *optional*): Other objects of the `Trainer`, which are not read.
        """
        if not state.is_world_process_zero or args.fsdp or os.environ.get("ACCELERATE_USE_FSDP") == "true":
            return  # a sharded model answers on all processes or on none
        if self.prompts is None:
            # Not in this process where training has others: a face mesh that started here would break their forks.
            self.prompts = list(one_by_one(self.rows, PromptCollator(self.processor), min(self.num_workers, 1)))
        was_training = model.training
        model.eval()
        dtype = torch.bfloat16 if args.bf16 else torch.float16
        lines = []
        with torch.autocast(args.device.type, dtype=dtype, enabled=args.bf16 or args.fp16):
            for row, inputs in zip(self.rows, self.prompts, strict=True):
                tokens = model.generate(**inputs.to(args.device), max_new_tokens=self.max_new_tokens, do_sample=False)
                answer = self.processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
                lines.append({"step": state.global_step, **_question_and_answer(row), "answer": answer.strip()})
        model.train(was_training)
        with open(Path(args.output_dir, "samples.jsonl"), "a", encoding="utf-8") as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        for line in lines:
            logger.info(f"step {line['step']}, {line['clip']}: {line['question']}\n    {line['answer']}")


def _question_and_answer(row: dict) -> dict:
    conversation = to_conversation(row)
    before = question_of(conversation)
    question, expected = (
        "".join(item.get("text", "") for item in message["content"])
        for message in (before[-1], conversation[len(before)])
    )
    clip = row.get("name") or row.get("video") or row.get("audio")
    return {"clip": Path(clip).name if isinstance(clip, str) else "clip", "question": question, "expected": expected}


def predicted_token_ids(logits: torch.Tensor | tuple, labels: torch.Tensor) -> torch.Tensor:
    """Reduces the logits to the token ids that [`compute_metrics`] needs.

    Args:
        logits (`torch.Tensor` of shape `(B, S, V)`, or a tuple whose first entry is one): The logits.
        labels (`torch.Tensor` of shape `(B, S)`): The labels, which are not read.

    Returns:
        `torch.Tensor` of shape `(B, S)`: The most likely token ids.
    """
    return (logits[0] if isinstance(logits, tuple) else logits).argmax(dim=-1)


def compute_metrics(evaluated: EvalPrediction) -> dict[str, float]:
    """Computes the metrics of an evaluation with `prediction_loss_only: false`.

    Args:
        evaluated (`EvalPrediction`): The token ids of [`predicted_token_ids`] and the labels.

    Returns:
        `dict[str, float]`: `token_accuracy`, the share of the answers' tokens that are the most likely ones; and
        `answer_accuracy`, the share of answers in which all tokens are: greedy generation gives these answers word for
        word if the answers before them in the conversation are the true ones.
    """
    labels = evaluated.label_ids[:, 1:]
    is_answer = labels != IGNORED
    right = (evaluated.predictions[:, :-1] == labels)[is_answer]
    begins = is_answer.copy()
    begins[:, 1:] &= ~is_answer[:, :-1]
    wrong = np.unique(begins.cumsum()[is_answer.flatten()][~right])
    return {"token_accuracy": right.mean().item(), "answer_accuracy": 1 - len(wrong) / begins.sum().item()}


@contextmanager
def _quiet_data_loaders() -> Iterator[None]:
    """Silences a warning of torch: the number of workers in the recipes is chosen for large machines, and too high for
    others.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        yield


@_quiet_data_loaders()
def train(
    model_args: ModelArguments,
    data_args: DataArguments,
    args: MicroEmoTrainingArguments,
    callbacks: Sequence[TrainerCallback] = (),
) -> Trainer:
    """Runs a training from tables to a saved adapter or checkpoint, with its processor and model card.

    Args:
        model_args ([`ModelArguments`]): The arguments of the model.
        data_args ([`DataArguments`]): The arguments of the data.
        args ([`MicroEmoTrainingArguments`]): The arguments of the `Trainer`.
        callbacks (`Sequence[TrainerCallback]`, *optional*): Further callbacks of the `Trainer`.

    Returns:
        `Trainer`: The trainer after the run.

    Raises:
        ValueError: if the data, `config_overrides` or the feature cache cannot be used. The error is raised before the
            first step.
    """
    if model_args.model_name_or_path is None or data_args.train_data is None:
        raise ValueError("a run needs model_name_or_path and train_data, in the recipe or on the command line")
    if args.n_gpu > 1:
        raise ValueError(f"{args.n_gpu} GPUs are used with `accelerate launch -m microemo.training.train ...`")
    if args.eval_strategy != "no" and data_args.eval_data is None and data_args.eval_share is None:
        raise ValueError(f"eval_strategy is {str(args.eval_strategy)!r}, but there is no eval_data and no eval_share")
    torch.manual_seed(args.seed)  # LoRA starts at random
    tables = load_tables(data_args)
    if data_args.asr is not None:
        tables = add_utterances(tables, data_args.asr, Path(data_args.feature_cache or args.output_dir) / UTTERANCES)
    model, processor = load_model_and_processor(model_args)
    cache = FeatureCache(data_args.feature_cache, processor, model) if data_args.feature_cache else None
    reader = processor if cache is None else cache.reader()
    collator = MicroEmoCollator(reader, return_attention_mask=False)
    tables = {name: check(table, name, data_args, collator, args) for name, table in tables.items()}

    mixed_precision = args.bf16 or args.fp16
    if model.dtype in (torch.bfloat16, torch.float16) and not mixed_precision:
        raise ValueError(f"a model in {model.dtype} trains with bf16: true (what learns is kept in float32)")
    trained = prepare_model(model, model_args, mixed_precision)
    if cache is not None:
        cached = ("visual_encoder", "audio_tower") if cache.frame_tokens else TOWERS
        idle = {part for name, _ in trained_parameters(trained) for part in cached if part in name.split(".")}
        if idle:
            raise ValueError(
                f"{cache.folder} holds what {' and '.join(sorted(idle))} gave, so it cannot be trained on it"
            )
    learning = sum(parameter.numel() for _, parameter in trained_parameters(trained))
    logger.info(f"{learning:,} of {sum(p.numel() for p in trained.parameters()):,} parameters learn")

    callbacks = list(callbacks)
    if "eval" in tables and data_args.num_samples:
        rows = list(tables["eval"].select(range(min(data_args.num_samples, len(tables["eval"])))))
        callbacks.append(SampleGenerationCallback(rows, reader, data_args.sample_tokens, args.dataloader_num_workers))
    trainer = Trainer(
        model=trained,
        args=args,
        data_collator=collator,
        train_dataset=tables["train"],
        eval_dataset=tables.get("eval"),
        processing_class=processor,
        callbacks=callbacks,
        compute_metrics=None if args.prediction_loss_only else compute_metrics,
        preprocess_logits_for_metrics=predicted_token_ids,
    )
    trainer.train(resume_from_checkpoint=find_checkpoint(args))
    trainer.save_model()
    trainer.save_state()
    write_model_card(trainer, model_args, data_args)
    return trainer


def load_tables(args: DataArguments) -> dict[str, Dataset]:
    """Loads the tables that the arguments name.

    Args:
        args ([`DataArguments`]): The arguments of the data.

    Returns:
        `dict[str, Dataset]`: The tables by "train" and "eval".
    """
    sources = {"train": (args.train_data, args.train_split), "eval": (args.eval_data, args.eval_split)}
    columns = None
    if args.label_columns:
        columns = LabelColumns(tuple(args.label_columns), args.video_column, args.speaker_column)
    emer = (args.emer_subtitles, args.emer_labels, args.emer_language)
    options = CorpusOptions(args.corpus, args.fold, args.corpus_clips)
    corpora = {
        name: corpus_of(source, options)
        for name, (source, _) in sources.items()
        if source is not None and columns is None
    }
    if (args.corpus or args.fold) and not any(corpora.values()):
        raise ValueError("corpus and fold are those of a corpus, and the data are rows for training")
    tables = {}
    for name, (source, split) in sources.items():
        if source is not None:
            if split is None and corpora.get(name) is not None:
                split = "train" if name == "train" else "dev"
            with PartialState().local_main_process_first():  # which writes the clips of a corpus, if it has to
                tables[name] = load_table(source, split, args.media_folder, *emer, columns, options)
    if args.eval_share is not None:
        tables["train"], tables["eval"] = split_off(tables["train"], args.eval_share, str(args.train_data))
    return tables


def check(
    table: Dataset, name: str, data_args: DataArguments, collator: MicroEmoCollator, args: TrainingArguments
) -> Dataset:
    """Checks a table with [`check_table`]. Only the first process warns; all leave out the same rows.

    Args:
        table (`Dataset`): The rows.
        name (`str`): The name of the table, "train" or "eval".
        data_args ([`DataArguments`]): The arguments of the data.
        collator ([`MicroEmoCollator`]): The collator of the run.
        args (`TrainingArguments`): The arguments of the `Trainer`.

    Returns:
        `Dataset`: The rows that can be used.

    Raises:
        DataError: as [`check_table`] does.
    """

    def tried(rows: Dataset) -> Iterator[str | None]:
        return try_rows(rows, collator, args.dataloader_num_workers)

    with warnings.catch_warnings():
        if not args.should_log:
            warnings.simplefilter("ignore")
        try_row = tried if data_args.check_clips else None
        return check_table(table, try_row, data_args.on_error, data_args.allowed_labels, name=f"{name}_data")


def find_checkpoint(args: TrainingArguments) -> str | None:
    """Resolves `resume_from_checkpoint`: a folder, or with `true` the last checkpoint that was saved completely.

    Args:
        args (`TrainingArguments`): The arguments of the `Trainer`.

    Returns:
        `str` or `None`: The folder of the checkpoint; `None` if the run starts from the beginning.
    """
    value = args.resume_from_checkpoint
    if value is None or str(value).lower() in ("false", "none", ""):
        return None
    if str(value).lower() != "true":
        return str(value)
    # The state is written last: a folder without it comes from a run that was killed.
    complete = [path.parent for path in Path(args.output_dir).glob("checkpoint-*/trainer_state.json")]
    return str(max(complete, key=lambda path: int(path.name.split("-")[-1]))) if complete else None


# --- the command ---------------------------------------------------------------------------------------------------


def main(argv: list[str] | None = None, callbacks: Sequence[TrainerCallback] = ()) -> Trainer:
    """Trains with `RECIPE [--option value ...]`; `--help` lists all options.

    Args:
        argv (`list[str]`, *optional*): The arguments. By default those of the command line.
        callbacks (`Sequence[TrainerCallback]`, *optional*): Further callbacks of the `Trainer`.

    Returns:
        `Trainer`: The trainer after the run.
    """
    return train(*parse_arguments(sys.argv[1:] if argv is None else list(argv)), callbacks=callbacks)


if __name__ == "__main__":
    show_news()
    main()
