"""Writer of checkpoint folders with random weights, tokenizers and processor: `microemo init PRESET DIR`.

microemo init microemo-tiny ./tiny
microemo init microemo-7b ./7b --llm-tokenizer meta-llama/Llama-2-7b-hf --qformer-tokenizer google-bert/bert-base-uncased
"""

from pathlib import Path

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ..configuration.configuration_microemo import MicroEmoConfig
from ..modeling_microemo.modeling_microemo import MicroEmoForConditionalGeneration
from ..processing.processing_microemo import MicroEmoProcessor
from ..utils.files import atomic_folder, check_new_folder
from .checkpoint_folder import SHARD_SIZE, fit_tokenizer, initial_weights, write_shards
from .code_bundle import write_code_bundle

SHIPPED = Path(__file__).parents[1] / "checkpoints" / "microemo-tiny"


def initialize(
    preset: str,
    folder: str | Path,
    llm_tokenizer: str | None = None,
    qformer_tokenizer: str | None = None,
    seed: int = 0,
    max_shard_size: int = SHARD_SIZE,
) -> Path:
    """Writes a checkpoint folder with random weights.

    Memory holds one module and one shard at a time, whatever the size of the model.

    Args:
        preset (`str`): `"microemo-tiny"` (float32, with tokenizers of its own) or `"microemo-7b"` (bfloat16).
        folder (`str` or `Path`):
            The folder, which must not exist or be empty. It appears when all of its files are written.
        llm_tokenizer (`str`, *optional*):
            The folder or Hub id of the tokenizer of the language model. Only the tiny preset does not need it.
        qformer_tokenizer (`str`, *optional*):
            The folder or Hub id of the tokenizer of the image Q-Former, which is BERT's. Only the tiny preset does not
            need it.
        seed (`int`, *optional*, defaults to 0): The seed of the random weights.
        max_shard_size (`int`, *optional*, defaults to 1000000000): The largest size of a file of weights in bytes.

    Returns:
        `Path`: The folder.

    Raises:
        ValueError: if the preset is unknown or a tokenizer is missing.
        FileExistsError: if the folder holds files.
        NoSpaceError: if the disk has not enough space.
    """
    config = MicroEmoConfig.from_preset(preset)
    folder = check_new_folder(folder)
    is_tiny = preset == "microemo-tiny"
    if not is_tiny and (llm_tokenizer is None or qformer_tokenizer is None):
        raise ValueError(
            f"{preset} needs two tokenizers, each a folder or a Hub id: --llm-tokenizer (the language model's, "
            "such as meta-llama/Llama-2-7b-hf) and --qformer-tokenizer (such as google-bert/bert-base-uncased)"
        )
    tokenizer = AutoTokenizer.from_pretrained(llm_tokenizer) if llm_tokenizer else tiny_tokenizer()
    qformer = AutoTokenizer.from_pretrained(qformer_tokenizer) if qformer_tokenizer else tiny_qformer_tokenizer()
    for name, token_id in fit_tokenizer(tokenizer, config.text_config).items():
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
    with atomic_folder(folder, size) as part:
        processor.save_pretrained(part)
        config.save_pretrained(part)
        model.generation_config.save_pretrained(part)
        weights = ((name, weight.to(config.dtype)) for name, weight in initial_weights(model, shapes, seed))
        write_shards(part, weights, max_shard_size)
        write_code_bundle(part)
    return folder


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
