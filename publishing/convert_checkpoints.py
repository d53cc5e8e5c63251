"""Conversion of the originals' weights to a folder that `from_pretrained` loads: `microemo convert`.

It is the case of [`assemble`] in which every source is named.
"""

from pathlib import Path
from typing import Any

import torch

from ..configuration.configuration_microemo import MicroEmoConfig
from ..utils.atomic_files import check_new_folder
from .assemble import as_dtype, assemble, plan_assembly
from .checkpoint_folder import SHARD_SIZE

FileName = str | Path


def convert_checkpoints(
    output: FileName,
    vision: FileName,
    qformer: FileName,
    video_branch: FileName,
    llm: FileName,
    qformer_tokenizer: FileName,
    audio_branch: FileName | None = None,
    imagebind: FileName | None = None,
    checkpoint: FileName | None = None,
    preset: str = "microemo",
    base_config: MicroEmoConfig | FileName | None = None,
    dtype: str | torch.dtype = "bfloat16",
    max_shard_size: int = SHARD_SIZE,
    lora_alpha: float | None = None,
    seed: int = 0,
    **overrides: Any,
) -> dict[str, Any]:
    """Converts original weight files to a checkpoint folder with model, processor and a report.

    Args:
        output (`str` or `Path`): The new folder, which appears when all of its files are written.
        vision (`str` or `Path`):
            The EVA-CLIP ViT-g. As the other sources it is whatever [`plan_assembly`] takes: a file, a folder, or a Hub id.
        qformer (`str` or `Path`): The image Q-Former and `ln_vision`, of InstructBLIP or BLIP-2.
        video_branch (`str` or `Path`):
            The video branch of Video-LLaMA, or a fine-tuned checkpoint of TimeChat or AffectGPT. The files of the two
            branches may be exchanged.
        llm (`str` or `Path`): The folder or Hub id of the language model with its tokenizer.
        qformer_tokenizer (`str` or `Path`): The folder or Hub id of BERT's tokenizer.
        audio_branch (`str` or `Path`, *optional*):
            The audio branch of Video-LLaMA. Only the preset `"timechat"` does not need it.
        imagebind (`str` or `Path`, *optional*): ImageBind. Only the preset `"timechat"` does not need it.
        checkpoint (`str` or `Path`, *optional*):
            A fine-tuned checkpoint, whose weights take precedence over those of the other files.
        preset (`str`, *optional*, defaults to `"microemo"`): A name of `SOURCE_PRESETS`.
        base_config ([`MicroEmoConfig`], `str` or `Path`, *optional*):
            The configuration of the sizes, or its folder or file. By default the sizes are those of the paper.
        dtype (`str` or `torch.dtype`, *optional*, defaults to `"bfloat16"`): The type of the weights that are written.
        max_shard_size (`int`, *optional*, defaults to 1000000000): The largest size of a file of weights in bytes.
        lora_alpha (`float`, *optional*): The scale of LoRA weights whose checkpoint does not state it.
        seed (`int`, *optional*, defaults to 0): The seed of the new parameters.
        overrides (`Any`, *optional*): Fields of [`MicroEmoConfig`], such as `max_frames`.

    Returns:
        `dict[str, Any]`: The report, which is also saved as `conversion_report.json` in the folder.

    Raises:
        ConversionError: if the sources cannot be read, or do not give a complete model.
        FileExistsError: if the folder holds files.
        NoSpaceError: if the disk has not enough space.
    """
    as_dtype(dtype)
    check_new_folder(output)
    plan = plan_assembly(
        preset,
        base_config,
        overrides=overrides,
        vision=vision,
        qformer=qformer,
        video_branch=video_branch,
        audio_branch=audio_branch,
        imagebind=imagebind,
        checkpoint=checkpoint,
        llm=llm,
        qformer_tokenizer=qformer_tokenizer,
    )
    return assemble(plan, output, dtype, max_shard_size, lora_alpha, seed)


def source_rows(report: dict) -> list[tuple[str, str, int, int, str]]:
    """Lists the sources of a conversion, for a table.

    Args:
        report (`dict`): The report of [`convert_checkpoints`].

    Returns:
        `list[tuple[str, str, int, int, str]]`: For each source its file, its contents (in lines), the number of its
        tensors, the number of those that are used, and the number of ignored ones for each reason (in lines).
    """
    rows = []
    for source in report["sources"]:
        ignored = "\n".join(f"{len(keys)} {reason}" for reason, keys in source["ignored"].items())
        rows.append((source["file"], "\n".join(source["holds"]), source["tensors"], len(source["used"]), ignored))
    return rows


def parameter_rows(report: dict) -> list[tuple[str, int, str]]:
    """Lists the parameters of a converted model that do not come unchanged from a source, for a table.

    Args:
        report (`dict`): The report of [`convert_checkpoints`].

    Returns:
        `list[tuple[str, int, str]]`: For each group of parameters its name, the number of its tensors, and their origin.
    """
    groups: dict[str, int] = {}
    for name in report["new"]:
        group = ".".join(name.split(".")[1:3])
        groups[group] = groups.get(group, 0) + 1
    rows = [(group, count, "new, initialised") for group, count in groups.items()]
    if report["copied"]:
        rows.append(("video_qformer.global_qformer", len(report["copied"]), "copied from the windows' Q-Former"))
    rows += [(name.removeprefix("model."), 1, change) for name, change in report["changed"].items()]
    if "adapter" in report:
        adapter = report["adapter"]
        source = f"LoRA, r {adapter['r']}, alpha {adapter['lora_alpha']}: a PEFT adapter"
        rows.append(("adapter/", adapter["tensors"], source))
    return rows
