"""Adapters: a model with LoRA that is saved whole, loaded again, and merged."""

import copy
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, PeftModelForCausalLM
from safetensors.torch import load_file, save_file
from transformers.utils import CONFIG_NAME, PROCESSOR_NAME

from ..configuration.configuration_microemo import MicroEmoConfig
from ..modeling_microemo.modeling_microemo import MicroEmoForConditionalGeneration
from ..processing.processing_microemo import MicroEmoProcessor
from ..utils.atomic_files import atomic_file, atomic_folder, check_new_folder
from ..utils.checkpoint_files import ADAPTER_CONFIG, ADAPTER_MODEL_CONFIG, ADAPTER_WEIGHTS, IMAGE_QUERIES
from ..utils.files import read_json


class MicroEmoPeftModel(PeftModelForCausalLM):
    """A model with LoRA, whose adapter holds also the image queries and the overridden configuration.

    Any trainer that saves its model with `save_pretrained` saves all that was trained: that of Transformers as well as
    TRL's.
    """

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:  # type: ignore[override]
        """Saves the adapter.

        Args:
            save_directory (`str` or `Path`): The folder.
            kwargs (`Any`, *optional*): The keyword arguments of PEFT's `save_pretrained`, such as `state_dict`.
        """
        super().save_pretrained(str(save_directory), **kwargs)
        if not kwargs.get("is_main_process", True):
            return
        # PEFT saves modules only. A parameter is saved under its own name, as PEFT's resized embeddings are.
        queries = {
            name: (kwargs.get("state_dict") or {}).get(name, parameter).detach().cpu().contiguous()
            for name, parameter in self.named_parameters()
            if name.endswith(IMAGE_QUERIES) and parameter.requires_grad
        }
        file = Path(save_directory, ADAPTER_WEIGHTS)
        with atomic_file(file) as part:
            save_file(load_file(file) | queries, part, metadata={"format": "pt"})
        config = copy.deepcopy(self.get_base_model().config)
        config.__dict__.pop("quantization_config", None)  # the base model's weights are on the disk in full
        config.to_json_file(Path(save_directory, ADAPTER_MODEL_CONFIG), use_diff=False)


def load_adapter(
    folder: str | Path, dtype: str | torch.dtype = "auto", base: str | None = None
) -> tuple[PeftModel, MicroEmoProcessor]:
    """Loads a trained adapter on its base model, and its processor.

    Args:
        folder (`str` or `Path`):
            The folder that a run with LoRA wrote, or PEFT's own `save_pretrained`. Where it holds no configuration of
            the model or no processor, those of the base model are taken.
        dtype (`str` or `torch.dtype`, *optional*, defaults to `"auto"`): The type of the weights of the base model.
        base (`str`, *optional*):
            The base model. By default the one that the adapter was trained on, where it was then.

    Returns:
        `tuple[PeftModel, MicroEmoProcessor]`: The model and the processor.

    Raises:
        FileNotFoundError: if `folder` holds no adapter.
        OSError: if the base model is not where the adapter says.
        ValueError:
            if the adapter names no base model, one that is no MicroEmo, or another one than it was trained on, or if its
            processor has other settings.
    """
    folder = Path(folder)
    base = base or _named_base(folder)
    if Path(base, ADAPTER_CONFIG).is_file() and not Path(base, CONFIG_NAME).is_file():
        raise ValueError(
            f"{folder}: its base {base} is an adapter; merge that first, and pass the result as `base` (--base)"
        )
    # An adapter that PEFT alone saved, as TRL does too, was trained on the base as it is, often without its processor.
    file = folder / ADAPTER_MODEL_CONFIG
    config = MicroEmoConfig.from_json_file(file) if file.is_file() else _base_config(folder, base)
    model = MicroEmoForConditionalGeneration.from_pretrained(base, config=config, dtype=dtype)
    processor = MicroEmoProcessor.from_pretrained(folder if (folder / PROCESSOR_NAME).is_file() else base)
    processor.check_config(config)
    try:
        return PeftModel.from_pretrained(model, folder), processor
    except RuntimeError as error:  # of torch, whose message lists all weights of another shape
        example = " ".join(str(error).split("\n\t")[:2])
        raise ValueError(f"{folder}: an adapter of another model than {base}: {example}") from error


def _base_config(folder: Path, base: str) -> MicroEmoConfig:
    """The configuration of the base model of an adapter that has none of its own."""
    try:
        model_type = MicroEmoConfig.get_config_dict(base)[0].get("model_type")
    except OSError as error:
        raise OSError(
            f"{folder}: its base model {base} cannot be read; pass `base` (--base), where it is now ({error})"
        ) from error
    if model_type != MicroEmoConfig.model_type:
        raise ValueError(
            f"{folder}: its base model {base} is of type {model_type!r}, expected {MicroEmoConfig.model_type!r}"
        )
    return MicroEmoConfig.from_pretrained(base)


def _named_base(folder: Path) -> str:
    """The base model that the adapter was trained on, as PEFT wrote it down."""
    file = folder / ADAPTER_CONFIG
    if not file.is_file():
        inside = sorted(path.parent.name for path in folder.glob(f"*/{ADAPTER_CONFIG}"))
        hint = f"; there are some in {', '.join(inside)}" if inside else ""
        raise FileNotFoundError(f"{folder}: no {ADAPTER_CONFIG} in it, so no adapter{hint}")
    base = read_json(file).get("base_model_name_or_path")
    if not base:
        raise ValueError(
            f"{file}: base_model_name_or_path is {base!r}, expected the folder or Hub id of the model that the adapter was "
            "trained on; write it there, or pass `base`"
        )
    return str(base)


def merge_adapter(folder: str | Path, output: str | Path, base: str | None = None) -> Path:
    """Merges an adapter into its base model, and saves a checkpoint that does not need PEFT.

    Args:
        folder (`str` or `Path`): The folder of the adapter.
        output (`str` or `Path`): The new checkpoint folder.
        base (`str`, *optional*):
            The base model. By default the one that the adapter was trained on, where it was then.

    Returns:
        `Path`: The checkpoint folder.

    Raises:
        FileExistsError: if `output` holds files.
        FileNotFoundError: if `folder` holds no adapter.
    """
    folder, output = Path(folder), Path(output)
    base = base or _named_base(folder)
    check_new_folder(output)
    model, processor = load_adapter(folder, base=base)
    merged = model.merge_and_unload()
    with atomic_folder(output, merged.get_memory_footprint()) as part:
        merged.save_pretrained(part)
        processor.save_pretrained(part)
    return output
