"""Writer of checkpoint folders with tokenizers, processor and random weights, but for parts that come from checkpoints of
their own: `microemo init PRESET DIR`.

microemo init microemo-tiny ./tiny
microemo init microemo-small ./small --audio openai/whisper-tiny.en
microemo init microemo-7b ./7b --llm-tokenizer meta-llama/Llama-2-7b-hf --qformer-tokenizer google-bert/bert-base-uncased
"""

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ..configuration.configuration_microemo import MicroEmoConfig
from ..modeling_microemo.modeling_microemo import MicroEmoForConditionalGeneration
from ..processing.processing_microemo import MicroEmoProcessor
from ..utils.atomic_files import atomic_folder, check_new_folder, write_text
from ..utils.checkpoint_files import CONVERSION_REPORT
from .checkpoint_folder import SHARD_SIZE, fit_tokenizer, initial_weights, write_shards
from .code_bundle import write_code_bundle
from .pretrained_parts import PretrainedPart, find_parts, fit_processor, with_parts

# The presets that are small enough to be trained from scratch, with tokenizers of their own.
SMALL = ("microemo-tiny", "microemo-small")
SHIPPED = Path(__file__).parents[1] / "checkpoints" / "microemo-tiny"


def initialize(
    preset: str,
    folder: str | Path,
    llm_tokenizer: str | None = None,
    qformer_tokenizer: str | None = None,
    seed: int = 0,
    max_shard_size: int = SHARD_SIZE,
    vision: str | Path | None = None,
    audio: str | Path | None = None,
    llm: str | Path | None = None,
    token: str | None = None,
) -> Path:
    """Writes a checkpoint folder with random weights, and with those of the parts that are named.

    Memory holds one module, one shard and one named part at a time.

    Args:
        preset (`str`):
            `"microemo-tiny"` or `"microemo-small"` (float32, with tokenizers of their own), `"microemo-modern"` or
            `"microemo-7b"` (bfloat16).
        folder (`str` or `Path`):
            The folder, which must not exist or be empty. It appears when all of its files are written.
        llm_tokenizer (`str`, *optional*):
            The folder or Hub id of the tokenizer of the language model. Small presets do not need it, and by default it is
            that of `llm`.
        qformer_tokenizer (`str`, *optional*):
            The folder or Hub id of the tokenizer of the image Q-Former, which is BERT's. Small presets do not need it.
        seed (`int`, *optional*, defaults to 0): The seed of the random weights.
        max_shard_size (`int`, *optional*, defaults to 1000000000): The largest size of a file of weights in bytes.
        vision (`str` or `Path`, *optional*):
            The folder or Hub id of a pretrained image encoder, or of a model that holds one.
        audio (`str` or `Path`, *optional*): The folder or Hub id of a pretrained audio encoder, likewise.
        llm (`str` or `Path`, *optional*): The folder or Hub id of a pretrained language model.
        token (`str`, *optional*): The access token for the Hub, by default that of `hf auth login` or HF_TOKEN.

    Returns:
        `Path`: The folder. `conversion_report.json` in it says which weights came from where.

    Raises:
        ConversionError: if a part cannot be fetched or does not hold all of its weights.
        ValueError: if the preset is unknown, a tokenizer is missing, or a part is of a kind that is not read.
        FileExistsError: if the folder holds files.
        NoSpaceError: if the disk has not enough space.
    """
    config = MicroEmoConfig.from_preset(preset)
    folder = check_new_folder(folder)
    is_tiny = preset in SMALL
    parts = find_parts(token, vision=vision, audio=audio, llm=llm)
    config = with_parts(config, parts)
    if llm_tokenizer is None and llm is not None:
        llm_tokenizer = str(parts["llm"].source.folder())
    if not is_tiny and (llm_tokenizer is None or qformer_tokenizer is None):
        raise ValueError(
            f"{preset} needs two tokenizers, each a folder or a Hub id: --llm-tokenizer (the language model's, "
            "such as meta-llama/Llama-2-7b-hf) and --qformer-tokenizer (such as google-bert/bert-base-uncased)"
        )
    tokenizer = AutoTokenizer.from_pretrained(llm_tokenizer) if llm_tokenizer else tiny_tokenizer()
    qformer = AutoTokenizer.from_pretrained(qformer_tokenizer) if qformer_tokenizer else tiny_qformer_tokenizer()
    rows = config.text_config.vocab_size if llm is not None else 0
    for name, token_id in fit_tokenizer(tokenizer, config.text_config, rows).items():
        setattr(config, name, token_id)
    # BERT's own tokenizer is one short of the table, which has a row for the lineage's [DEC].
    config.image_qformer_config.vocab_size = max(config.image_qformer_config.vocab_size, len(qformer))
    config.architectures = [MicroEmoForConditionalGeneration.__name__]
    config.dtype = torch.float32 if is_tiny else torch.bfloat16
    with torch.device("meta"):
        model = MicroEmoForConditionalGeneration(config)
    shapes = {name: t.shape for name, t in model.state_dict().items() if name not in model.all_tied_weights_keys}
    size = sum(shape.numel() for shape in shapes.values()) * config.dtype.itemsize

    processor = MicroEmoProcessor.from_config(config, tokenizer, qformer)
    # The paper's sources look at 8 frames; a small model affords the three a second that fleeting clues need.
    processor.video_processor.num_frames = 24 if is_tiny else 8
    # Nor does it find what belongs together in three places of a prompt.
    processor.prompt_layout = "interleaved" if is_tiny else "concatenated"
    fit_processor(processor, config, parts)
    report: dict = {"preset": preset, "dtype": str(config.dtype).removeprefix("torch."), "sources": [], "new": []}
    with atomic_folder(folder, size) as part:
        processor.save_pretrained(part)
        config.save_pretrained(part)
        model.generation_config.save_pretrained(part)
        write_shards(part, _weights(model, shapes, parts, seed, report), max_shard_size)
        if parts:
            write_text(part / CONVERSION_REPORT, json.dumps(report, indent=2) + "\n")
        write_code_bundle(part)
    return folder


def _weights(
    model: MicroEmoForConditionalGeneration,
    shapes: dict[str, torch.Size],
    parts: dict[str, PretrainedPart],
    seed: int,
    report: dict,
) -> Iterator[tuple[str, torch.Tensor]]:
    """The weights of the parts, then the initial ones of all else, in the model's type. It fills the report."""
    dtype = model.config.dtype
    found: set[str] = set()
    for pretrained in parts.values():
        weights, facts = pretrained.load(dtype)
        report["sources"].append(facts)
        found |= weights.keys()
        for name in list(weights):
            weight = weights.pop(name)
            yield name, weight if weight.shape == shapes[name] else add_rows(weight, shapes[name][0])
    report["new"] = [name for name in shapes if name not in found]
    for name, weight in initial_weights(model, report["new"], seed):
        yield name, weight.to(dtype)


def add_rows(table: torch.Tensor, rows: int) -> torch.Tensor:
    """Adds rows for new tokens to a table of a language model. Each is the mean of the old ones.

    Args:
        table (`torch.Tensor` of shape `(old rows, width)`): The table.
        rows (`int`): The new number of rows.

    Returns:
        `torch.Tensor` of shape `(rows, width)`: The new table.
    """
    mean = table.mean(dim=0, keepdim=True, dtype=torch.float32).to(table.dtype)
    return torch.cat([table, mean.expand(rows - len(table), -1)])


# --- the tiny preset's tokenizers ----------------------------------------------------------------------------------


def tiny_tokenizer() -> PreTrainedTokenizerBase:
    """Loads the tokenizer of the tiny language model.

    It is a byte-level BPE with 1024 tokens, trained on a few hundred sentences about emotions. Each of "utterance 1" to
    "utterance 32" is one token.

    Returns:
        `PreTrainedTokenizerBase`: The tokenizer.
    """
    return AutoTokenizer.from_pretrained(SHIPPED)


def tiny_qformer_tokenizer() -> PreTrainedTokenizerBase:
    """Loads the tokenizer of the tiny image Q-Former.

    It follows BERT's rules, and its vocabulary consists of the words of the timestamp sentence and all digits.

    Returns:
        `PreTrainedTokenizerBase`: The tokenizer.
    """
    return AutoTokenizer.from_pretrained(SHIPPED / "qformer_tokenizer")
