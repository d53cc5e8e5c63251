"""`microemo convert`: the originals' weights as a folder that `from_pretrained` loads.

microemo convert --vision eva_vit_g.pth --qformer instruct_blip_vicuna7b_trimmed.pth \
    --video-branch VL_LLaMA_2_7B_Finetuned.pth --audio-branch AL_LLaMA_2_7B_Finetuned.pth \
    --imagebind imagebind_huge.pth --llm meta-llama/Llama-2-7b-chat-hf \
    --qformer-tokenizer google-bert/bert-base-uncased --out microemo-7b
microemo convert --preset timechat --vision eva_vit_g.pth --qformer instruct_blip_vicuna7b_trimmed.pth \
    --video-branch timechat_7b.pth --llm meta-llama/Llama-2-7b-chat-hf \
    --qformer-tokenizer google-bert/bert-base-uncased --out timechat-7b
"""

import json
from pathlib import Path
from typing import Annotated

import typer

REPORT_NAME = "conversion_report.json"


def convert_checkpoints(
    out,
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
    max_shard_size=10**9,
    lora_alpha=None,
    seed=0,
    **overrides,
) -> dict:
    """Turn original weight files into a checkpoint folder with model, processor and a report.

    Args:
        out (`str` or `Path`): New folder. It appears when all of it is written.
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
        ConversionError: if the sources do not make a model, or cannot be read, or there is no room.
        FileExistsError: if the folder holds something.
    """
    import torch
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    from ..configuration.configuration_microemo import MicroEmoConfig
    from ..modeling_microemo.convert_original import (
        SOURCE_PRESETS,
        Conversion,
        ConversionError,
        check_new_folder,
        new_folder,
        open_sources,
        original_config,
    )
    from ..processing.processing_microemo import MicroEmoProcessor

    if not isinstance(dtype, torch.dtype):
        if dtype not in ("float32", "float16", "bfloat16"):
            raise ConversionError(f"dtype must be float32, float16 or bfloat16, got {dtype!r}")
        dtype = getattr(torch, dtype)
    if preset not in SOURCE_PRESETS:
        raise ConversionError(f"no preset of sources named {preset!r}; there are: {', '.join(SOURCE_PRESETS)}")
    source_preset = SOURCE_PRESETS[preset]
    if isinstance(base_config, (str, Path)):
        base_config = MicroEmoConfig.from_pretrained(base_config)
    check_new_folder(out)
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
    media_tokens = _fit_tokenizer(
        tokenizer, text_config, [MicroEmoProcessor.video_token, MicroEmoProcessor.audio_token]
    )
    overrides = {"video_token_id": media_tokens[0], "audio_token_id": media_tokens[1], **overrides}
    config = original_config(files, text_config, preset=preset, base=base_config, **overrides)
    _fit_qformer_tokenizer(bert_tokenizer, config)
    conversion = Conversion(files, config, old_vocab_size, source_preset.needs_audio, lora_alpha)

    with new_folder(out, conversion.size(dtype)) as folder:
        conversion.write(folder, dtype, max_shard_size, seed, name=str(out))
        processor = MicroEmoProcessor.from_config(
            config, tokenizer, bert_tokenizer, timestamp_format=source_preset.timestamp_format
        )
        processor.feature_extractor.short_audio_padding = source_preset.short_audio_padding
        processor.video_processor.num_frames = min(source_preset.num_frames or config.max_frames, config.max_frames)
        processor.video_processor.repeat_last_frame = source_preset.repeat_last_frame
        processor.save_pretrained(folder)
        generation_config = conversion.model.generation_config
        try:
            own = GenerationConfig.from_pretrained(llm)
            generation_config.update(
                **{
                    name: getattr(own, name)
                    for name in ("bos_token_id", "eos_token_id")
                    if getattr(own, name) is not None
                }
            )
        except OSError:  # there is none
            pass
        generation_config.pad_token_id = tokenizer.pad_token_id
        generation_config.save_pretrained(folder)
        report = {"preset": preset, "dtype": str(dtype).removeprefix("torch."), **conversion.report()}
        (folder / REPORT_NAME).write_text(json.dumps(report, indent=2) + "\n")
    return report


def _fit_tokenizer(tokenizer, text_config, media_tokens: list[str]) -> list[int]:
    """Add the placeholders to the tokenizer and to the vocabulary; their ids."""
    tokenizer.add_special_tokens({"extra_special_tokens": media_tokens}, replace_extra_special_tokens=False)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    # Some tables have more rows than the tokenizer has tokens.
    text_config.vocab_size = max(text_config.vocab_size, len(tokenizer))
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(text_config, name, getattr(tokenizer, name))
    return tokenizer.convert_tokens_to_ids(media_tokens)


def _fit_qformer_tokenizer(tokenizer, config) -> None:
    """One more token, [DEC], as in the originals: the last row of InstructBLIP's table."""
    from ..modeling_microemo.convert_original import ConversionError

    rows = config.image_qformer_config.vocab_size
    if config.use_frame_timestamps and len(tokenizer) + 1 == rows:
        tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    if config.use_frame_timestamps and len(tokenizer) > rows:
        raise ConversionError(
            f"the image Q-Former's tokenizer has {len(tokenizer)} tokens, its weights have rows for {rows}; "
            "InstructBLIP's is google-bert/bert-base-uncased"
        )


def convert(
    vision: Annotated[str, typer.Option(help="EVA-CLIP ViT-g (eva_vit_g.pth).", show_default=False)],
    qformer: Annotated[
        str, typer.Option(help="Image Q-Former of InstructBLIP, or of BLIP-2 (no timestamps).", show_default=False)
    ],
    video_branch: Annotated[
        str, typer.Option(help="Video-LLaMA's video branch, or TimeChat's checkpoint.", show_default=False)
    ],
    llm: Annotated[str, typer.Option(help="Language model: folder or Hub id.", show_default=False)],
    qformer_tokenizer: Annotated[str, typer.Option(help="BERT's tokenizer: folder or Hub id.", show_default=False)],
    out: Annotated[Path, typer.Option(help="New checkpoint folder.", show_default=False)],
    audio_branch: Annotated[
        str | None, typer.Option(help="Video-LLaMA's audio branch; not needed with --preset timechat.")
    ] = None,
    imagebind: Annotated[str | None, typer.Option(help="ImageBind; not needed with --preset timechat.")] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="Fine-tuned checkpoint of AffectGPT or TimeChat, over the other files.")
    ] = None,
    preset: Annotated[str, typer.Option(help="Family of the sources: microemo, affectgpt or timechat.")] = "microemo",
    dtype: Annotated[str, typer.Option(help="float32, float16 or bfloat16.")] = "bfloat16",
    max_frames: Annotated[
        int | None, typer.Option(help="Frame positions; the file's own by default, others are resized.", min=1)
    ] = None,
    lora_alpha: Annotated[
        float | None, typer.Option(help="Of LoRA weights whose checkpoint does not say (32).")
    ] = None,
    base_config: Annotated[str | None, typer.Option(help="config.json with sizes other than the paper's.")] = None,
    max_shard_size: Annotated[float, typer.Option(help="Gigabytes of a shard.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of the new parameters.")] = 0,
):
    """Turn the originals' weights into a checkpoint folder.

    Each source is a file, or a folder or Hub id in Transformers' format. What a file holds is read from its tensors,
    never from its name. A report of every tensor is printed and saved in the folder.
    """
    overrides = {} if max_frames is None else {"max_frames": max_frames}
    report = convert_checkpoints(
        out,
        vision=vision,
        qformer=qformer,
        video_branch=video_branch,
        audio_branch=audio_branch,
        imagebind=imagebind,
        checkpoint=checkpoint,
        llm=llm,
        qformer_tokenizer=qformer_tokenizer,
        preset=preset,
        dtype=dtype,
        lora_alpha=lora_alpha,
        base_config=base_config,
        max_shard_size=int(max_shard_size * 10**9),
        seed=seed,
        **overrides,
    )
    print_report(report)
    print(out)


def print_report(report: dict) -> None:
    """The report as tables on the terminal."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("source", "holds", "tensors", "used", "ignored", title=f"Converted: {report['preset']}")
    for source in report["sources"]:
        ignored = "\n".join(f"{len(keys)} {reason}" for reason, keys in source["ignored"].items())
        table.add_row(
            source["file"], "\n".join(source["holds"]), str(source["tensors"]), str(len(source["used"])), ignored
        )
    console.print(table)

    table = Table("parameters", "tensors", "from")
    groups = {}
    for name in report["new"]:
        groups.setdefault(".".join(name.split(".")[1:3]), []).append(name)
    for prefix, names in groups.items():
        table.add_row(prefix, str(len(names)), "new, initialised")
    if report["copied"]:
        table.add_row("video_qformer.global_qformer", str(len(report["copied"])), "copied from the windows' Q-Former")
    for name, change in report["changed"].items():
        table.add_row(name.removeprefix("model."), "1", change)
    if "adapter" in report:
        adapter = report["adapter"]
        table.add_row(
            "adapter/",
            str(adapter["tensors"]),
            f"LoRA, r {adapter['r']}, alpha {adapter['lora_alpha']}: a PEFT adapter",
        )
    if table.row_count:
        console.print(table)
    if any(name.startswith("model.audio_branch.") for name in report["new"]):
        console.print(
            "[yellow]No audio branch was given: its weights are untrained. Pass audio=False to the processor."
        )
