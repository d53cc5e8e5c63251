"""`microemo init PRESET DIR`: a checkpoint folder with random weights, tokenizers and processor.

microemo init microemo-tiny ./tiny
microemo init microemo-7b ./7b --llm-tokenizer meta-llama/Llama-2-7b-hf --qformer-tokenizer google-bert/bert-base-uncased
"""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from ..configuration.configuration_microemo import MicroEmoConfig
from ..modeling_microemo.modeling_microemo import MicroEmoForConditionalGeneration
from ..processing.processing_microemo import MicroEmoProcessor

SHIPPED = Path(__file__).parents[1] / "checkpoints" / "microemo-tiny"
SHARD_SIZE = 10**9  # bytes


def initialize(preset, folder, llm_tokenizer=None, qformer_tokenizer=None, seed=0) -> Path:
    """Make a checkpoint folder that everything else accepts.

    Args:
        preset (`str`): `"microemo-tiny"` (float32, with tokenizers of its own) or `"microemo-7b"` (bfloat16).
        folder (`str` or `Path`): Where to; it must not exist, or be empty. It appears when all of it is written.
        llm_tokenizer, qformer_tokenizer (`str`, *optional*):
            Folder or Hub id of the tokenizers of the language model and of the image Q-Former (a BERT one).
            Needed for every preset but the tiny one.
        seed (`int`, *optional*, defaults to 0): Of the random weights.

    Returns:
        `Path`: The folder. Memory stays at a module and a shard (1 GB), whatever the model's size.

    Raises:
        ValueError: for an unknown preset or missing tokenizers.
        FileExistsError: if the folder holds something.
    """
    config = MicroEmoConfig.from_preset(preset)
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists and is not empty; name a new folder")

    is_tiny = preset == "microemo-tiny"
    if not is_tiny and (llm_tokenizer is None or qformer_tokenizer is None):
        raise ValueError(
            f"{preset} needs two tokenizers, each a folder or a Hub id: --llm-tokenizer (the language model's, "
            "such as meta-llama/Llama-2-7b-hf) and --qformer-tokenizer (such as google-bert/bert-base-uncased)"
        )
    tokenizer = AutoTokenizer.from_pretrained(llm_tokenizer) if llm_tokenizer else tiny_tokenizer()
    qformer = AutoTokenizer.from_pretrained(qformer_tokenizer) if qformer_tokenizer else tiny_qformer_tokenizer()
    _fit(config, tokenizer, qformer)
    config.architectures = [MicroEmoForConditionalGeneration.__name__]
    config.dtype = torch.float32 if is_tiny else torch.bfloat16

    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        processor = MicroEmoProcessor.from_config(config, tokenizer, qformer)
        # The paper's sources look at 8 frames; a small model affords the three a second that fleeting clues need.
        processor.video_processor.num_frames = 24 if is_tiny else 8
        # Nor does it find what belongs together in three places of a prompt.
        processor.prompt_layout = "interleaved" if is_tiny else "concatenated"
        processor.save_pretrained(partial)
        with torch.device("meta"):
            model = MicroEmoForConditionalGeneration(config)
        config.save_pretrained(partial)
        model.generation_config.save_pretrained(partial)
        _write_weights(model, partial, config.dtype, seed)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _fit(config: MicroEmoConfig, tokenizer, qformer_tokenizer) -> None:
    """Bring the configuration's vocabulary sizes and token ids in line with the tokenizers."""
    tokens = [MicroEmoProcessor.video_token, MicroEmoProcessor.audio_token]
    tokenizer.add_special_tokens({"extra_special_tokens": tokens}, replace_extra_special_tokens=False)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    config.video_token_id, config.audio_token_id = tokenizer.convert_tokens_to_ids(tokens)
    text_config = config.text_config
    text_config.vocab_size = len(tokenizer)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(text_config, name, getattr(tokenizer, name))
    # BERT's own tokenizer is one short of the table, which has a row for the lineage's [DEC].
    qformer_config = config.image_qformer_config
    qformer_config.vocab_size = max(qformer_config.vocab_size, len(qformer_tokenizer))


# --- weights -------------------------------------------------------------------------------------------------------


def _write_weights(model: PreTrainedModel, folder: Path, dtype: torch.dtype, seed: int) -> None:
    """Random weights of a model on the meta device, as safetensors shards: at most one shard is in memory."""
    kept = model.state_dict().keys() - model.all_tied_weights_keys.keys()
    shards, size = [[]], 0
    for prefix, module, owner in _own_parts(model, model):
        names = [name for name in _tensors(module) if prefix + name in kept]
        length = sum(_tensors(module)[name].numel() for name in names) * dtype.itemsize
        if shards[-1] and size + length > SHARD_SIZE:
            shards.append([])
            size = 0
        shards[-1].append((prefix, module, owner, names))
        size += length

    weight_map, total = {}, 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for number, shard in enumerate(shards, start=1):
            weights = {}
            for prefix, module, owner, names in shard:
                module.to_empty(device="cpu", recurse=False)
                owner._init_weights(module)
                weights |= {prefix + name: _tensors(module)[name].detach().to(dtype) for name in names}
                module.to_empty(device="meta", recurse=False)
            file = f"model-{number:05d}-of-{len(shards):05d}.safetensors" if len(shards) > 1 else "model.safetensors"
            save_file(weights, folder / file, metadata={"format": "pt"})
            weight_map |= dict.fromkeys(weights, file)
            total += sum(weight.numel() for weight in weights.values())
    if len(shards) > 1:
        metadata = {"total_parameters": total, "total_size": total * dtype.itemsize}
        index = json.dumps({"metadata": metadata, "weight_map": weight_map}, indent=2, sort_keys=True)
        (folder / "model.safetensors.index.json").write_text(index + "\n")


def _own_parts(module, owner, prefix="") -> Iterator[tuple[str, torch.nn.Module, PreTrainedModel]]:
    """Every module that has tensors of its own, children first, with the model whose rule initialises it."""
    if isinstance(module, PreTrainedModel):
        owner = module
    for name, child in module.named_children():
        yield from _own_parts(child, owner, f"{prefix}{name}.")
    if _tensors(module):
        yield prefix, module, owner


def _tensors(module) -> dict[str, torch.Tensor]:
    return dict([*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)])


# --- the tiny preset's tokenizers ----------------------------------------------------------------------------------


def tiny_tokenizer() -> PreTrainedTokenizerBase:
    """The tokenizer of the tiny language model, as it was learned once: byte-level BPE with 1024 tokens from a few
    hundred sentences about emotions, with each of "utterance 1" to "utterance 32" in one piece."""
    return AutoTokenizer.from_pretrained(SHIPPED)


def tiny_qformer_tokenizer() -> PreTrainedTokenizerBase:
    """The tokenizer of the tiny image Q-Former: BERT's rules with the words of the timestamp sentence and all digits."""
    return AutoTokenizer.from_pretrained(SHIPPED / "qformer_tokenizer")
