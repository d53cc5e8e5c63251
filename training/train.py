"""Fine-tuning: Transformers' `Trainer`, PEFT's LoRA on the language model, YAML recipes.

microemo train stage2 --model_name_or_path microemo-7b --train_data train.jsonl --output_dir run
microemo train my_recipe.yaml --learning_rate 1e-4 --config_overrides '{"windows": "none"}'
accelerate launch --config_file training/accelerate/fsdp2.yaml -m microemo.training.train stage2 --train_data ...

A recipe is a YAML file with the fields of the three classes below; the command line goes before it.
"""

import copy
import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from huggingface_hub import ModelCardData
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import ModulesToSaveWrapper
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import EvalPrediction, Trainer, TrainerCallback, TrainingArguments
from transformers.utils import logging
from trl import ModelConfig, TrlParser, get_peft_config, get_quantization_config

from ..configuration.configuration_microemo import MicroEmoConfig
from ..modeling_microemo.modeling_microemo import MicroEmoForConditionalGeneration
from ..processing.processing_microemo import MicroEmoProcessor
from ..utils.files import atomic_file, atomic_folder, check_new_folder, write_text
from ..utils.news import show_news
from .collator import IGNORED, MicroEmoCollator, PromptCollator, one_by_one, question_of, try_rows
from .data import check_table, load_table, to_conversation
from .feature_cache import FeatureCache
from .recipe_files import find_recipe

# Also where this module is a program: `accelerate launch -m microemo.training.train`.
logger = logging.get_logger("microemo.training.train")

# The paper (3.4, 4.1): all that lies between the frozen towers and the language model is trained.
MODULES_TO_TRAIN = [
    "image_qformer",
    "local_clue_attention",
    "fusion",
    "video_qformer",
    "audio_qformer",
    "segment_positions",
    "video_projection",
    "audio_projection",
]
LORA_TARGETS = r".*\.language_model\..*\.(q_proj|k_proj|v_proj|o_proj)"
TOWERS = ("vision_model", "audio_tower")
# The image Q-Former's queries are a parameter of the visual encoder, which holds the frozen image encoder, too.
IMAGE_QUERIES = "visual_encoder.query_tokens"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
# Beside an adapter, the configuration with its config_overrides. As `config.json` it would pass for a whole checkpoint's.
ADAPTER_MODEL_CONFIG = "microemo_config.json"


@dataclass
class ModelArguments(ModelConfig):
    """Which model, and what of it learns. `use_peft: false` trains in place and saves whole checkpoints."""

    use_peft: bool = field(default=True, metadata={"help": "LoRA on the language model; off, it stays as it is."})
    lora_r: int = field(default=32, metadata={"help": "Rank of LoRA."})
    lora_alpha: int = field(default=32, metadata={"help": "Scale of LoRA, over its rank."})
    lora_target_modules: list[str] | None = field(
        default_factory=lambda: [LORA_TARGETS], metadata={"help": "Names, or one regex, of the modules with LoRA."}
    )
    modules_to_train: list[str] = field(
        default_factory=lambda: list(MODULES_TO_TRAIN),
        metadata={"help": "Last names of the modules that are trained whole; 'all' (without LoRA) for every one."},
    )
    config_overrides: dict | str | None = field(
        default=None,
        metadata={
            "help": 'Fields of MicroEmoConfig and of the processor to change, as JSON: \'{"windows": "none"}\'.'
        },
    )

    def __post_init__(self):
        super().__post_init__()
        self.config_overrides = _as_dict(self.config_overrides, "config_overrides")
        if self.use_peft and "all" in self.modules_to_train:
            raise ValueError("modules_to_train: all needs use_peft: false")


@dataclass
class DataArguments:
    """Which data. See `training/data.py` for the columns of a table."""

    train_data: str | None = field(default=None, metadata={"help": "Table, folder or Hub id to learn from."})
    train_split: str | None = field(default=None, metadata={"help": "Its rows with this `split`."})
    eval_data: str | None = field(default=None, metadata={"help": "Table, folder or Hub id to evaluate on."})
    eval_split: str | None = field(default=None, metadata={"help": "Its rows with this `split`."})
    media_folder: str | None = field(default=None, metadata={"help": "Where relative file names start."})
    emer_subtitles: str | None = field(default=None, metadata={"help": "Subtitle table for EMER annotation files."})
    emer_labels: str | None = field(default=None, metadata={"help": "check-openset.csv for EMER annotation files."})
    emer_language: str = field(default="english", metadata={"help": "english or chinese, of EMER annotation files."})
    allowed_labels: list[str] | None = field(default=None, metadata={"help": "The only labels `emotions` may hold."})
    on_error: str = field(default="fail", metadata={"help": "fail, or skip rows that cannot be used."})
    check_clips: bool = field(
        default=True, metadata={"help": "Put every row through decoding and chat template before the first step."}
    )
    feature_cache: str | None = field(default=None, metadata={"help": "Folder that `microemo precompute` filled."})
    num_samples: int = field(default=4, metadata={"help": "Rows of eval_data answered aloud at each evaluation."})
    sample_tokens: int = field(default=128, metadata={"help": "Longest of those answers, in tokens."})


@dataclass
class MicroEmoTrainingArguments(TrainingArguments):
    """Transformers' arguments with the paper's values as defaults: batch 1, 3 epochs, AdamW 2e-5, cosine."""

    learning_rate: float = field(default=2e-5, metadata={"help": "Highest learning rate."})
    weight_decay: float = field(default=0.05, metadata={"help": "Of AdamW."})
    warmup_steps: float = field(default=0.05, metadata={"help": "Steps, or below 1 the share of all steps."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Course of the learning rate."})
    num_train_epochs: float = field(default=3.0, metadata={"help": "Epochs."})
    per_device_train_batch_size: int = field(default=1, metadata={"help": "Rows of a step on each device."})
    per_device_eval_batch_size: int = field(default=1, metadata={"help": "Rows of an evaluation step."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "The collator reads the columns."})
    prediction_loss_only: bool = field(
        default=True, metadata={"help": "Evaluation gives the loss alone; off, accuracies too."}
    )
    # `ensure_gradients` leaves no parameter without a gradient.
    ddp_find_unused_parameters: bool | None = field(default=False, metadata={"help": "See Transformers."})

    def __post_init__(self):
        super().__post_init__()
        if not torch.accelerator.is_available():
            self.dataloader_pin_memory = False  # torch warns that it means nothing there


# --- the model -----------------------------------------------------------------------------------------------------


def load_config_and_processor(args: ModelArguments) -> tuple[MicroEmoConfig, MicroEmoProcessor]:
    """A checkpoint's configuration and processor, with `args.config_overrides` set in both.

    Raises:
        ValueError: for a switch that neither has, or where the two do not agree.
    """
    name, config_overrides = args.model_name_or_path, args.config_overrides
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
    """A checkpoint and its processor, with `args.config_overrides` set in both.

    Raises:
        ValueError: for a switch that neither has, or where the two do not agree.
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


def load_quantization_config(args: ModelArguments):
    """Four or eight bits, as TRL has it, for the frozen language model alone: the rest is small, or learns."""
    quantization = get_quantization_config(args)
    if quantization is not None:
        # Transformers takes a plain name for a module of the first level.
        in_full = (*TOWERS, *args.modules_to_train, "lm_head")
        quantization.llm_int8_skip_modules = [rf"(.*\.)?{name}" for name in in_full]
        quantization.bnb_4bit_compute_dtype = torch.bfloat16
    return quantization


def prepare_model(model: MicroEmoForConditionalGeneration, args: ModelArguments, mixed_precision: bool = False):
    """Freeze all but what learns, and put LoRA on the language model.

    Args:
        mixed_precision (`bool`): Keep what learns in float32, since bfloat16 loses small steps.

    Returns:
        A `PeftModel`, or with `use_peft=False` the model itself.
    """
    names = [name for name, _ in model.named_modules()]
    present = [part for part in args.modules_to_train if any(name.split(".")[-1] == part for name in names)]
    unknown = set(args.modules_to_train) - set(present) - set(MODULES_TO_TRAIN) - {"all"}
    if unknown:
        raise ValueError(f"modules_to_train: the model has no module named {', '.join(sorted(unknown))}")
    model.requires_grad_(False)
    if args.use_peft:
        config: LoraConfig = get_peft_config(args)
        config.modules_to_save = present
        trained = get_peft_model(model, config)
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
    """PEFT keeps the untrained copy of a module that it saves; nobody asks for it here, and it is as large."""
    for module in model.modules():
        if isinstance(module, ModulesToSaveWrapper):
            module.original_module = module.modules_to_save[module.active_adapters[0]]


def ensure_gradients(model: MicroEmoForConditionalGeneration, args, output):
    """Forward hook: every trained part has a gradient at every step, 0 where the batch had nothing for it.

    Clips without a face, utterances or sound leave parts unused, others on one process than on the next; gradients
    that are summed over processes must exist on all of them.
    """
    if output.loss is not None and torch.is_grad_enabled():
        idle = (parameter for name, parameter in trained_parameters(model) if ".language_model." not in f".{name}")
        output.loss = _WithZeroGradients.apply(output.loss, *idle)
    return output


class _WithZeroGradients(torch.autograd.Function):
    """A loss as it is, on which parameters depend with a gradient of 0: one broadcast 0, whatever their size."""

    @staticmethod
    def forward(ctx, loss, *parameters):
        ctx.parameters = parameters
        return loss.clone()  # the Trainer scales it in place

    @staticmethod
    def backward(ctx, gradient):
        zeros = {(p.dtype, p.device): gradient.new_zeros((), dtype=p.dtype, device=p.device) for p in ctx.parameters}
        return gradient, *(zeros[p.dtype, p.device].expand_as(p) for p in ctx.parameters)


def trained_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Names and parameters that learn."""
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


class MicroEmoTrainer(Trainer):
    """Transformers' own, except that an adapter takes the image queries and the model's config_overrides with it."""

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        super()._save(output_dir, state_dict)
        if self.args.should_save and isinstance(self.model, PeftModel):
            output_dir = output_dir or self.args.output_dir
            _add_image_queries(self.model, output_dir, state_dict)
            config = copy.deepcopy(self.model.get_base_model().config)
            config.__dict__.pop("quantization_config", None)  # the base model's weights are on the disk in full
            config.to_json_file(Path(output_dir, ADAPTER_MODEL_CONFIG), use_diff=False)


def _add_image_queries(model: PeftModel, folder: str, state_dict: dict | None) -> None:
    """PEFT saves modules only; a parameter travels under its own name, as PEFT's resized embeddings do."""
    for name, parameter in trained_parameters(model):
        if name.endswith(IMAGE_QUERIES):
            value = (state_dict or {}).get(name, parameter)
            file = Path(folder, ADAPTER_WEIGHTS)
            weights = load_file(file) | {name: value.detach().cpu().contiguous()}
            with atomic_file(file) as part:
                save_file(weights, part, metadata={"format": "pt"})


def load_adapter(folder, dtype="auto", base=None) -> tuple[PeftModel, MicroEmoProcessor]:
    """A trained adapter on its base model, and its processor.

    Args:
        folder (`str` or `Path`): What a run with LoRA wrote.
        base (`str`, *optional*): Where the base model is, if not where it was at training.
    """
    adapter = json.loads(Path(folder, "adapter_config.json").read_text(encoding="utf-8"))
    model = MicroEmoForConditionalGeneration.from_pretrained(
        base or adapter["base_model_name_or_path"],
        config=MicroEmoConfig.from_json_file(Path(folder, ADAPTER_MODEL_CONFIG)),
        dtype=dtype,
    )
    return PeftModel.from_pretrained(model, folder), MicroEmoProcessor.from_pretrained(folder)


def merge_adapter(folder, output, base=None) -> Path:
    """Fold an adapter into its base model: a checkpoint that needs PEFT no more.

    Raises:
        FileExistsError: if `output` holds something.
        FileNotFoundError: if `folder` is no adapter.
    """
    folder, output = Path(folder), Path(output)
    if not (folder / "adapter_config.json").is_file():
        raise FileNotFoundError(f"{folder}: no adapter_config.json in it, so no adapter")
    check_new_folder(output)
    model, processor = load_adapter(folder, base=base)
    merged = model.merge_and_unload()
    with atomic_folder(output, merged.get_memory_footprint()) as part:
        merged.save_pretrained(part)
        processor.save_pretrained(part)
    return output


# --- the run -------------------------------------------------------------------------------------------------------


class SampleGenerationCallback(TrainerCallback):
    """Answers the first questions of some rows at each evaluation: in the log, and in `samples.jsonl` of the run."""

    def __init__(self, rows: list[dict], processor: MicroEmoProcessor, max_new_tokens: int, num_workers: int):
        self.rows, self.processor, self.max_new_tokens, self.num_workers = rows, processor, max_new_tokens, num_workers
        self.prompts: list | None = None

    @torch.inference_mode()
    def on_evaluate(self, args, state, control, model=None, **kwargs):
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
    """All that [`compute_metrics`] needs of the logits (B, S, V): ids (B, S)."""
    return (logits[0] if isinstance(logits, tuple) else logits).argmax(dim=-1)


def compute_metrics(evaluated: EvalPrediction) -> dict[str, float]:
    """What evaluation gives with `prediction_loss_only: false`.

    Returns:
        `dict`: `token_accuracy`, the share of the answers' tokens that are the most likely ones; `answer_accuracy`, the share
        of answers all of whose tokens are: greedy generation would give them word for word, where the answers before them
        in the conversation are the right ones.
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
    """The recipes' number of workers is one for large machines; torch says on others that it is too high."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        yield


@_quiet_data_loaders()
def train(
    model_args: ModelArguments,
    data_args: DataArguments,
    args: MicroEmoTrainingArguments,
    callbacks: Sequence[TrainerCallback] = (),
) -> MicroEmoTrainer:
    """One training run, from tables to a saved adapter or checkpoint with processor and model card.

    Raises:
        ValueError: for data, config_overrides or a cache that cannot be used; before the first step.
    """
    if model_args.model_name_or_path is None or data_args.train_data is None:
        raise ValueError("a run needs model_name_or_path and train_data, in the recipe or on the command line")
    if args.n_gpu > 1:
        raise ValueError(f"{args.n_gpu} GPUs are used with `accelerate launch -m microemo.training.train ...`")
    if args.eval_strategy != "no" and data_args.eval_data is None:
        raise ValueError(f"eval_strategy is {str(args.eval_strategy)!r}, but there is no eval_data")
    torch.manual_seed(args.seed)  # LoRA starts at random
    tables = load_tables(data_args)
    model, processor = load_model_and_processor(model_args)
    cache = FeatureCache(data_args.feature_cache, processor, model) if data_args.feature_cache else None
    reader = processor if cache is None else cache.reader()
    collator = MicroEmoCollator(reader)
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
    trainer = MicroEmoTrainer(
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


def load_tables(args: DataArguments) -> dict:
    """The tables that are named: "train", "eval"."""
    sources = {"train": (args.train_data, args.train_split), "eval": (args.eval_data, args.eval_split)}
    return {
        name: load_table(source, split, args.media_folder, args.emer_subtitles, args.emer_labels, args.emer_language)
        for name, (source, split) in sources.items()
        if source is not None
    }


def check(table, name: str, data_args: DataArguments, collator: MicroEmoCollator, args: TrainingArguments):
    """See [`check_table`]; the first process speaks, all leave out the same rows."""

    def tried(rows):
        return try_rows(rows, collator, args.dataloader_num_workers)

    with warnings.catch_warnings():
        if not args.should_log:
            warnings.simplefilter("ignore")
        try_row = tried if data_args.check_clips else None
        return check_table(table, try_row, data_args.on_error, data_args.allowed_labels, name=f"{name}_data")


def find_checkpoint(args: TrainingArguments) -> str | None:
    """What `resume_from_checkpoint` means: a folder, or with `true` the last one that was written to its end."""
    value = args.resume_from_checkpoint
    if value is None or str(value).lower() in ("false", "none", ""):
        return None
    if str(value).lower() != "true":
        return str(value)
    # The state is written last: a folder without it is what a kill left behind.
    complete = [path.parent for path in Path(args.output_dir).glob("checkpoint-*/trainer_state.json")]
    return str(max(complete, key=lambda path: int(path.name.split("-")[-1]))) if complete else None


def write_model_card(trainer: Trainer, model_args: ModelArguments, data_args: DataArguments) -> None:
    """`README.md` of what was trained: how to use it, from what and how it was made, and its last figures."""
    if not trainer.is_world_process_zero():
        return
    args, folder = trainer.args, Path(trainer.args.output_dir)
    is_adapter = isinstance(trainer.model, PeftModel)
    use = f"""\
from microemo import MicroEmoForConditionalGeneration, MicroEmoProcessor

processor = MicroEmoProcessor.from_pretrained("{folder.name}")
model = MicroEmoForConditionalGeneration.from_pretrained("{folder.name}")"""
    settings = {
        "training data": f"{Path(data_args.train_data).name}, {len(trainer.train_dataset)} rows"
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
        base_model=model_args.model_name_or_path if not Path(model_args.model_name_or_path).exists() else None,
        pipeline_tag="video-text-to-text",
        tags=["microemo", "emotion-recognition"],
    )
    about = "An adapter on" if is_adapter else "Trained from"
    lines = [
        f"---\n{data.to_yaml()}\n---\n",
        f"# {folder.name}\n",
        f"{about} {Path(model_args.model_name_or_path).name}, a MicroEmo model: it says what the speaker of a clip feels,",
        "and why.\n",
        f"```python\n{use}\n```\n",
        "| | |\n|---|---|",
        *(f"| {name} | {value} |" for name, value in settings.items()),
    ]
    write_text(folder / "README.md", "\n".join(lines) + "\n")


# --- the command ---------------------------------------------------------------------------------------------------


def parse_arguments(argv: list[str]) -> tuple[ModelArguments, DataArguments, MicroEmoTrainingArguments]:
    """RECIPE and options to the three classes; the command line goes before the recipe.

    Raises:
        ValueError: for options that do not exist.
    """
    # `--learning_rat` must not pass for its beginning.
    parser = TrlParser((ModelArguments, DataArguments, MicroEmoTrainingArguments), allow_abbrev=False)
    if argv and not argv[0].startswith("-"):
        argv = ["--config", str(find_recipe(argv[0])), *argv[1:]]
    return parser.parse_args_and_config(argv)


def _as_dict(value: dict | str | None, name: str) -> dict:
    try:
        value = json.loads(value) if isinstance(value, str) else value or {}
    except json.JSONDecodeError as error:
        raise ValueError(f"{name} must be JSON ({error}), got {value!r}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{name} must be a JSON object, got {value!r}")
    return value


def main(argv: list[str] | None = None, callbacks: Sequence[TrainerCallback] = ()) -> MicroEmoTrainer:
    """`RECIPE [--option value ...]`; `--help` lists all options."""
    return train(*parse_arguments(sys.argv[1:] if argv is None else list(argv)), callbacks=callbacks)


if __name__ == "__main__":
    show_news()
    main()
