"""Conversion of the originals' weights to a folder that `from_pretrained` loads: `microemo convert`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from ..configuration.configuration_microemo import MicroEmoConfig
from ..modeling_microemo.convert_original import (
    SOURCE_PRESETS,
    Conversion,
    ConversionError,
    open_sources,
    original_config,
)
from ..modeling_microemo.modeling_microemo import MicroEmoForConditionalGeneration
from ..processing.processing_microemo import MicroEmoProcessor
from ..utils.files import atomic_folder, check_new_folder, write_text
from .checkpoint_folder import SHARD_SIZE, fit_tokenizer, initial_weights, write_shards
from .code_bundle import write_code_bundle

REPORT_NAME = "conversion_report.json"

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
            The EVA-CLIP ViT-g. As the other sources it is a file, or a folder or Hub id in the format of Transformers.
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
    if not isinstance(dtype, torch.dtype):
        if dtype not in ("float32", "float16", "bfloat16"):
            raise ConversionError(f"dtype must be float32, float16 or bfloat16, got {dtype!r}")
        dtype = getattr(torch, dtype)
    if preset not in SOURCE_PRESETS:
        raise ConversionError(f"no preset of sources named {preset!r}; there are: {', '.join(SOURCE_PRESETS)}")
    source_preset = SOURCE_PRESETS[preset]
    base = MicroEmoConfig.from_pretrained(base_config) if isinstance(base_config, (str, Path)) else base_config
    check_new_folder(output)
    files = open_sources(
        vision=vision,
        qformer=qformer,
        video_branch=video_branch,
        audio_branch=audio_branch,
        imagebind=imagebind,
        checkpoint=checkpoint,
        llm=llm,
    )
    text_config = AutoConfig.from_pretrained(llm)
    tokenizer = AutoTokenizer.from_pretrained(llm)
    bert_tokenizer = AutoTokenizer.from_pretrained(qformer_tokenizer, truncation_side="left")
    old_vocab_size = text_config.vocab_size
    overrides = fit_tokenizer(tokenizer, text_config, old_vocab_size) | overrides
    config = original_config(files, text_config, preset=preset, base=base, **overrides)
    _fit_qformer_tokenizer(bert_tokenizer, config)
    conversion = Conversion(files, config, old_vocab_size, source_preset.needs_audio, lora_alpha)
    processor = MicroEmoProcessor.from_config(
        config, tokenizer, bert_tokenizer, timestamp_format=source_preset.timestamp_format
    )
    processor.feature_extractor.short_audio_padding = source_preset.short_audio_padding
    processor.video_processor.num_frames = min(source_preset.num_frames or config.max_frames, config.max_frames)
    processor.video_processor.repeat_last_frame = source_preset.repeat_last_frame
    report = {"preset": preset, "dtype": str(dtype).removeprefix("torch."), **conversion.report()}

    with atomic_folder(output, conversion.size(dtype)) as folder:
        write_shards(folder, _weights(conversion, dtype, seed), max_shard_size)
        config.architectures = [MicroEmoForConditionalGeneration.__name__]
        config.dtype = config.text_config.dtype = dtype
        config.save_pretrained(folder)
        processor.save_pretrained(folder)
        write_code_bundle(folder)
        _generation_config(conversion.model.generation_config, llm, tokenizer).save_pretrained(folder)
        if conversion.lora:
            adapter = folder / "adapter"
            adapter.mkdir()
            save_file(conversion.lora_weights(), adapter / "adapter_model.safetensors", metadata={"format": "pt"})
            _write_json(adapter / "adapter_config.json", conversion.lora_config(base=str(output)))
        _write_json(folder / REPORT_NAME, report)
    return report


def _weights(conversion: Conversion, dtype: torch.dtype, seed: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Yields names and values, first those of the files and then the new ones."""
    yield from conversion.filled_weights(dtype)
    for name, weight in initial_weights(conversion.model, set(conversion.new), seed):
        yield name, weight.to(dtype)


def _fit_qformer_tokenizer(tokenizer: PreTrainedTokenizerBase, config: MicroEmoConfig) -> None:
    """Adds the token [DEC], as in the originals, whose row is the last one of InstructBLIP's table."""
    rows = config.image_qformer_config.vocab_size
    if config.use_frame_timestamps and len(tokenizer) + 1 == rows:
        tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    if config.use_frame_timestamps and len(tokenizer) > rows:
        raise ConversionError(
            f"the image Q-Former's tokenizer has {len(tokenizer)} tokens, its weights have rows for {rows}; "
            "InstructBLIP's is google-bert/bert-base-uncased"
        )


def _generation_config(
    config: GenerationConfig, llm: FileName, tokenizer: PreTrainedTokenizerBase
) -> GenerationConfig:
    """Returns the generation config of the model, with the begin and end tokens that the language model's own states."""
    try:
        stated = GenerationConfig.from_pretrained(llm)
    except OSError:  # there is none
        stated = GenerationConfig()
    for name in ("bos_token_id", "eos_token_id"):
        if getattr(stated, name) is not None:
            setattr(config, name, getattr(stated, name))
    config.pad_token_id = tokenizer.pad_token_id
    return config


def _write_json(path: Path, content: dict) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")


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
