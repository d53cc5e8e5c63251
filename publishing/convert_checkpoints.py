"""The originals' weights as a folder that `from_pretrained` loads: what `microemo convert` does."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

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

REPORT_NAME = "conversion_report.json"


def convert_checkpoints(
    output,
    vision,
    qformer,
    video_branch,
    llm,
    qformer_tokenizer,
    audio_branch=None,
    imagebind=None,
    checkpoint=None,
    preset="microemo",
    base_config=None,
    dtype="bfloat16",
    max_shard_size=SHARD_SIZE,
    lora_alpha=None,
    seed=0,
    **overrides,
) -> dict:
    """Turn original weight files into a checkpoint folder with model, processor and a report.

    Args:
        output (`str` or `Path`): New folder. It appears when all of it is written.
        vision (`str` or `Path`): EVA-CLIP ViT-g; a file, or as all of these a folder or Hub id in Transformers' format.
        qformer (`str` or `Path`): Image Q-Former and `ln_vision`, of InstructBLIP or BLIP-2.
        video_branch, audio_branch (`str` or `Path`): Video-LLaMA's branches. They may stand for each other. In place
            of the first a fine-tuned checkpoint of TimeChat or AffectGPT will do.
        llm (`str` or `Path`): The language model with its tokenizer, folder or Hub id.
        qformer_tokenizer (`str` or `Path`): BERT's tokenizer, folder or Hub id.
        imagebind (`str` or `Path`): ImageBind. It and the audio branch may be left out with the preset "timechat".
        checkpoint (`str` or `Path`, *optional*): A fine-tuned checkpoint that lies over the other files.
        preset (`str`, *optional*, defaults to `"microemo"`): A name of `SOURCE_PRESETS`.
        base_config ([`MicroEmoConfig`] or `str`, *optional*): Sizes other than the paper's; or its folder or file.
        dtype (`str` or `torch.dtype`, *optional*, defaults to `"bfloat16"`): Of the weights written.
        max_shard_size (`int`, *optional*, defaults to 10**9): Bytes of a shard.
        lora_alpha (`float`, *optional*): Of LoRA weights, where their checkpoint does not say.
        seed (`int`, *optional*, defaults to 0): Of the new parameters.
        overrides: Fields of [`MicroEmoConfig`], such as `max_frames`.

    Returns:
        `dict`: The report, which is saved as `conversion_report.json` in the folder too.

    Raises:
        ConversionError: if the sources do not make a model, or cannot be read.
        FileExistsError: if the folder holds something.
        NoSpaceError: if there is no room for it.
    """
    if not isinstance(dtype, torch.dtype):
        if dtype not in ("float32", "float16", "bfloat16"):
            raise ConversionError(f"dtype must be float32, float16 or bfloat16, got {dtype!r}")
        dtype = getattr(torch, dtype)
    if preset not in SOURCE_PRESETS:
        raise ConversionError(f"no preset of sources named {preset!r}; there are: {', '.join(SOURCE_PRESETS)}")
    source_preset = SOURCE_PRESETS[preset]
    if isinstance(base_config, (str, Path)):
        base_config = MicroEmoConfig.from_pretrained(base_config)
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
    config = original_config(files, text_config, preset=preset, base=base_config, **overrides)
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
        _generation_config(conversion.model.generation_config, llm, tokenizer).save_pretrained(folder)
        if conversion.lora:
            adapter = folder / "adapter"
            adapter.mkdir()
            save_file(conversion.lora_weights(), adapter / "adapter_model.safetensors", metadata={"format": "pt"})
            _write_json(adapter / "adapter_config.json", conversion.lora_config(base=str(output)))
        _write_json(folder / REPORT_NAME, report)
    return report


def _weights(conversion: Conversion, dtype: torch.dtype, seed: int):
    """Names and values: those of the files, then the new ones."""
    yield from conversion.filled_weights(dtype)
    for name, weight in initial_weights(conversion.model, set(conversion.new), seed):
        yield name, weight.to(dtype)


def _fit_qformer_tokenizer(tokenizer, config: MicroEmoConfig) -> None:
    """One more token, [DEC], as in the originals: the last row of InstructBLIP's table."""
    rows = config.image_qformer_config.vocab_size
    if config.use_frame_timestamps and len(tokenizer) + 1 == rows:
        tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    if config.use_frame_timestamps and len(tokenizer) > rows:
        raise ConversionError(
            f"the image Q-Former's tokenizer has {len(tokenizer)} tokens, its weights have rows for {rows}; "
            "InstructBLIP's is google-bert/bert-base-uncased"
        )


def _generation_config(config: GenerationConfig, llm, tokenizer) -> GenerationConfig:
    """The model's own, with the ends of texts that the language model states for itself."""
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
    """The sources of a conversion, for a table.

    Args:
        report (`dict`): What [`convert_checkpoints`] returns.

    Returns:
        `list[tuple]`: For each source its file, what it holds (lines), how many tensors it has, how many of them are used,
        and how many are ignored for which reason (lines).
    """
    rows = []
    for source in report["sources"]:
        ignored = "\n".join(f"{len(keys)} {reason}" for reason, keys in source["ignored"].items())
        rows.append((source["file"], "\n".join(source["holds"]), source["tensors"], len(source["used"]), ignored))
    return rows


def parameter_rows(report: dict) -> list[tuple[str, int, str]]:
    """The parameters of a converted model that are not simply those of a source, for a table.

    Args:
        report (`dict`): What [`convert_checkpoints`] returns.

    Returns:
        `list[tuple]`: For each group of parameters its name, how many tensors it has, and where they come from.
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
