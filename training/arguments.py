"""The options of a training run, in a recipe and on the command line."""

import json
from dataclasses import dataclass, field

import torch
from transformers import TrainingArguments
from trl import ModelConfig, TrlParser

from .recipe_files import find_recipe

# As in the paper (3.4, 4.1), all modules between the frozen towers and the language model are trained.
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


@dataclass
class ModelArguments(ModelConfig):
    """Arguments that choose the model and the parts of it that are trained.

    `use_peft: false` trains the model in place and saves whole checkpoints. The fields are documented by their `help`.
    """

    use_peft: bool = field(
        default=True,
        metadata={"help": "Whether to put LoRA on the language model. Without it the language model stays frozen."},
    )
    lora_r: int = field(default=32, metadata={"help": "The rank of LoRA."})
    lora_alpha: int = field(default=32, metadata={"help": "The scale of LoRA, which is divided by its rank."})
    lora_target_modules: list[str] | None = field(
        default_factory=lambda: [LORA_TARGETS], metadata={"help": "The names of the modules with LoRA, or one regex."}
    )
    modules_to_train: list[str] = field(
        default_factory=lambda: list(MODULES_TO_TRAIN),
        metadata={
            "help": "The last names of the modules that are trained in full; 'all' (without LoRA) trains every module."
        },
    )
    config_overrides: dict | str | None = field(
        default=None,
        metadata={
            "help": 'The fields of MicroEmoConfig and of the processor to change, as JSON: \'{"windows": "none"}\'.'
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.config_overrides = _as_dict(self.config_overrides, "config_overrides")
        if self.use_peft and "all" in self.modules_to_train:
            raise ValueError("modules_to_train: all needs use_peft: false")


@dataclass
class DataArguments:
    """Arguments that choose the data. `training/data.py` describes the columns of a table.

    The fields are documented by their `help`.
    """

    train_data: str | None = field(
        default=None, metadata={"help": "The table, folder or Hub id of the training data."}
    )
    train_split: str | None = field(
        default=None, metadata={"help": "The `split` of the rows to train on. By default all; of a corpus, train."}
    )
    eval_data: str | None = field(
        default=None, metadata={"help": "The table, folder or Hub id of the evaluation data."}
    )
    eval_split: str | None = field(
        default=None, metadata={"help": "The `split` of the rows to evaluate on. By default all; of a corpus, dev."}
    )
    media_folder: str | None = field(
        default=None, metadata={"help": "The folder that relative file names start from."}
    )
    corpus: str | None = field(
        default=None,
        metadata={"help": "The corpus that the data are, as ravdess or meld. By default its layout tells."},
    )
    fold: int | None = field(default=None, metadata={"help": "The fold of a corpus that has folds, from 1 on."})
    corpus_clips: str | None = field(
        default=None,
        metadata={
            "help": "The folder for clips that are cut out of a corpus's videos or Parquet rows. By default below HF_HOME."
        },
    )
    label_columns: list[str] | None = field(
        default=None,
        metadata={"help": "The columns of the labels, for a table of clips with labels and no conversation."},
    )
    video_column: str | None = field(
        default=None,
        metadata={"help": "With label_columns, the column of the clips' files. By default video or file_name."},
    )
    speaker_column: str | None = field(
        default=None, metadata={"help": "With label_columns, the column of the speakers. By default speaker, if any."}
    )
    eval_share: float | None = field(
        default=None,
        metadata={
            "help": "The share of train_data to evaluate on in place of eval_data. No speaker is in both parts."
        },
    )
    emer_subtitles: str | None = field(
        default=None, metadata={"help": "The subtitle table of an EMER annotation file."}
    )
    emer_labels: str | None = field(
        default=None, metadata={"help": "The label table (check-openset.csv) of an EMER annotation file."}
    )
    emer_language: str = field(
        default="english",
        metadata={"help": "The language of an EMER annotation file or of MER's subtitles, english or chinese."},
    )
    asr: str | None = field(
        default=None,
        metadata={
            "help": "A model for Transformers' speech recognition (folder or Hub id, such as openai/whisper-tiny.en) for "
            "clips without subtitles, or voice-activity for utterances without words. What it finds is kept in "
            "utterances.jsonl in the output folder, or in that of feature_cache."
        },
    )
    allowed_labels: list[str] | None = field(
        default=None, metadata={"help": "The only labels that `emotions` may hold."}
    )
    on_error: str = field(
        default="fail", metadata={"help": "Whether to fail at rows that cannot be used, or to skip them."}
    )
    check_clips: bool = field(
        default=True,
        metadata={"help": "Whether to decode every clip and to render every prompt before the first step."},
    )
    feature_cache: str | None = field(default=None, metadata={"help": "The folder that `microemo precompute` filled."})
    num_samples: int = field(
        default=4, metadata={"help": "The number of rows of eval_data for which each evaluation generates an answer."}
    )
    sample_tokens: int = field(default=128, metadata={"help": "The maximum length of these answers, in tokens."})

    def __post_init__(self) -> None:
        if self.label_columns is None and (self.video_column or self.speaker_column):
            raise ValueError("video_column and speaker_column belong to label_columns, which are missing")
        if self.label_columns is not None and self.corpus is not None:
            raise ValueError("label_columns are those of a table, and corpus names another layout; give one of them")
        if self.eval_share is not None and self.eval_data is not None:
            raise ValueError("eval_share takes its rows from train_data, so there can be no eval_data")


@dataclass
class MicroEmoTrainingArguments(TrainingArguments):
    """`TrainingArguments` with the values of the paper as defaults: batch size 1, 3 epochs, AdamW at 2e-5, cosine
    schedule.

    The fields are documented by their `help`.
    """

    learning_rate: float = field(default=2e-5, metadata={"help": "The peak learning rate."})
    weight_decay: float = field(default=0.05, metadata={"help": "The weight decay of AdamW."})
    warmup_steps: float = field(
        default=0.05, metadata={"help": "The number of warm-up steps, or, below 1, their share of all steps."}
    )
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "The schedule of the learning rate."})
    num_train_epochs: float = field(default=3.0, metadata={"help": "The number of epochs."})
    per_device_train_batch_size: int = field(
        default=1, metadata={"help": "The number of rows of a step on each device."}
    )
    per_device_eval_batch_size: int = field(
        default=1, metadata={"help": "The number of rows of an evaluation step on each device."}
    )
    remove_unused_columns: bool = field(
        default=False,
        metadata={
            "help": "Whether to remove columns that the model does not read. The collator reads them, so they stay."
        },
    )
    prediction_loss_only: bool = field(
        default=True,
        metadata={"help": "Whether evaluation returns the loss only. Otherwise it also returns accuracies."},
    )
    # `ensure_gradients` leaves no parameter without a gradient.
    ddp_find_unused_parameters: bool | None = field(
        default=False, metadata={"help": "The argument of DistributedDataParallel, see Transformers."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not torch.accelerator.is_available():
            self.dataloader_pin_memory = False  # torch warns that pinned memory has no effect there


def parse_arguments(argv: list[str]) -> tuple[ModelArguments, DataArguments, MicroEmoTrainingArguments]:
    """Parses RECIPE and options into the three classes of arguments.

    The command line takes precedence over the recipe.

    Args:
        argv (`list[str]`): The name of a recipe, which may be left out, and options.

    Returns:
        `tuple[ModelArguments, DataArguments, MicroEmoTrainingArguments]`: The arguments.

    Raises:
        FileNotFoundError: if there is no such recipe.
        ValueError: if an option does not exist.
    """
    # `--learning_rat` must not pass for its beginning.
    classes = (ModelArguments, DataArguments, MicroEmoTrainingArguments)
    parser = TrlParser(classes, allow_abbrev=False)  # type: ignore[arg-type]
    if argv and not argv[0].startswith("-"):
        argv = ["--config", str(find_recipe(argv[0])), *argv[1:]]
    return parser.parse_args_and_config(argv)  # type: ignore[return-value]


def _as_dict(value: dict | str | None, name: str) -> dict:
    try:
        value = json.loads(value) if isinstance(value, str) else value or {}
    except json.JSONDecodeError as error:
        raise ValueError(f"{name} must be JSON ({error}), got {value!r}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{name} must be a JSON object, got {value!r}")
    return value
