"""The parts of every new checkpoint folder: initial values, weights in shards, a tokenizer with the media tokens."""

import json
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from ..processing.processing_microemo import MicroEmoProcessor
from ..utils.atomic_files import write_text

SHARD_SIZE = 10**9  # bytes


def fit_tokenizer(tokenizer: PreTrainedTokenizerBase, text_config: PreTrainedConfig, rows: int = 0) -> dict[str, int]:
    """Adds the media tokens to the tokenizer of a language model, and adjusts the model's configuration to it.

    Args:
        tokenizer (`PreTrainedTokenizerBase`):
            The tokenizer, which is changed in place. If it has no padding token, its end token becomes one.
        text_config (`PreTrainedConfig`): The configuration of the language model, which is changed in place.
        rows (`int`, *optional*, defaults to 0):
            The number of rows of the language model's embeddings, which can be larger than the number of tokens.

    Returns:
        `dict[str, int]`: `video_token_id` and `audio_token_id`, as [`MicroEmoConfig`] takes them.
    """
    video_token_id, audio_token_id = MicroEmoProcessor.add_media_tokens(tokenizer)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    text_config.vocab_size = max(rows, len(tokenizer))
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(text_config, name, getattr(tokenizer, name))
    return {"video_token_id": video_token_id, "audio_token_id": audio_token_id}


def initial_weights(model: PreTrainedModel, names: Collection[str], seed: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Computes the initial values of parameters, each by the rule of the model that it is a part of.

    Args:
        model (`PreTrainedModel`):
            A model on the meta device. At most one of its modules is in memory at a time.
        names (`Collection[str]`): The parameters and buffers whose values are wanted.
        seed (`int`): The seed of the values. The state of torch's own generator does not change.

    Returns:
        `Iterator[tuple[str, torch.Tensor]]`: The names and values, in the order of the modules of the model, children
        first.
    """
    generator_state = torch.Generator().manual_seed(seed).get_state()
    for prefix, module, owner in _modules_with_tensors(model, model):
        wanted = [name for name in _own_tensors(module) if prefix + name in names]
        if not wanted:
            continue
        with torch.random.fork_rng(devices=[]):  # not while the values are with the caller
            torch.set_rng_state(generator_state)
            module.to_empty(device="cpu", recurse=False)
            owner._init_weights(module)
            generator_state = torch.get_rng_state()
        for name in wanted:
            yield prefix + name, _own_tensors(module)[name].detach()
        module.to_empty(device="meta", recurse=False)


def _modules_with_tensors(
    module: nn.Module, owner: PreTrainedModel, prefix: str = ""
) -> Iterator[tuple[str, nn.Module, PreTrainedModel]]:
    """Yields every module that has tensors of its own, children first, with the model whose rule initialises it."""
    if isinstance(module, PreTrainedModel):
        owner = module
    for name, child in module.named_children():
        yield from _modules_with_tensors(child, owner, f"{prefix}{name}.")
    if _own_tensors(module):
        yield prefix, module, owner


def _own_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    return dict([*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)])


def write_shards(folder: Path, weights: Iterable[tuple[str, torch.Tensor]], max_shard_size: int = SHARD_SIZE) -> None:
    """Writes weights as safetensors files, with an index if there are several. One shard is in memory at a time.

    Args:
        folder (`Path`): An existing folder.
        weights (`Iterable[tuple[str, torch.Tensor]]`): The names and values, of which no two share their memory.
        max_shard_size (`int`, *optional*, defaults to 1000000000):
            The largest size of a file in bytes. A single tensor may exceed it.
    """
    files: list[tuple[Path, list[str]]] = []
    shard: dict[str, torch.Tensor] = {}
    room, parameters, size = max_shard_size, 0, 0

    def write() -> None:
        files.append((folder / f"{len(files) + 1}.safetensors", list(shard)))
        save_file(shard, files[-1][0], metadata={"format": "pt"})
        shard.clear()

    for name, weight in weights:
        if shard and weight.nbytes > room:
            write()
            room = max_shard_size
        shard[name] = weight
        room -= weight.nbytes
        parameters, size = parameters + weight.numel(), size + weight.nbytes
        del weight  # or it would be in memory twice, once for the shard to come
    write()
    if len(files) == 1:
        files[0][0].rename(folder / SAFE_WEIGHTS_NAME)
        return
    weight_map: dict[str, str] = {}
    for number, (file, names) in enumerate(files, start=1):
        final = file.rename(folder / f"model-{number:05d}-of-{len(files):05d}.safetensors")
        weight_map |= dict.fromkeys(names, final.name)
    index = {
        "metadata": {"total_parameters": parameters, "total_size": size},
        "weight_map": dict(sorted(weight_map.items())),
    }
    write_text(folder / SAFE_WEIGHTS_INDEX_NAME, json.dumps(index, indent=2) + "\n")
