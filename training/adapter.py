"""Adapters: a model with LoRA that is saved whole, loaded again, and merged."""

import copy
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, PeftModelForCausalLM
from safetensors.torch import load_file, save_file

from ..configuration.configuration_microemo import MicroEmoConfig
from ..modeling_microemo.modeling_microemo import MicroEmoForConditionalGeneration
from ..processing.processing_microemo import MicroEmoProcessor
from ..utils.checkpoint_files import ADAPTER_CONFIG, ADAPTER_MODEL_CONFIG, ADAPTER_WEIGHTS
from ..utils.files import atomic_file, atomic_folder, check_new_folder, read_json

# The image Q-Former's queries are a parameter of the visual encoder, which holds the frozen image encoder, too.
IMAGE_QUERIES = "visual_encoder.query_tokens"


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
        folder (`str` or `Path`): The folder that a run with LoRA wrote.
        dtype (`str` or `torch.dtype`, *optional*, defaults to `"auto"`): The type of the weights of the base model.
        base (`str`, *optional*):
            The base model. By default the one that the adapter was trained on, where it was then.

    Returns:
        `tuple[PeftModel, MicroEmoProcessor]`: The model and the processor.
    """
    base = base or read_json(Path(folder, ADAPTER_CONFIG))["base_model_name_or_path"]
    # An adapter that PEFT alone saved was trained on the base as it is.
    file = Path(folder, ADAPTER_MODEL_CONFIG)
    config = MicroEmoConfig.from_json_file(file) if file.is_file() else None
    model = MicroEmoForConditionalGeneration.from_pretrained(base, config=config, dtype=dtype)
    return PeftModel.from_pretrained(model, folder), MicroEmoProcessor.from_pretrained(folder)


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
    if not (folder / ADAPTER_CONFIG).is_file():
        raise FileNotFoundError(f"{folder}: no {ADAPTER_CONFIG} in it, so no adapter")
    check_new_folder(output)
    model, processor = load_adapter(folder, base=base)
    merged = model.merge_and_unload()
    with atomic_folder(output, merged.get_memory_footprint()) as part:
        merged.save_pretrained(part)
        processor.save_pretrained(part)
    return output
