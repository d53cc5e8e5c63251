"""`microemo convert`: converts the original weights to a folder that `from_pretrained` loads.

microemo convert --vision eva_vit_g.pth --qformer instruct_blip_vicuna7b_trimmed.pth \
    --video-branch VL_LLaMA_2_7B_Finetuned.pth --audio-branch AL_LLaMA_2_7B_Finetuned.pth \
    --imagebind imagebind_huge.pth --llm meta-llama/Llama-2-7b-chat-hf \
    --qformer-tokenizer google-bert/bert-base-uncased --output microemo-7b
microemo convert --preset timechat --vision eva_vit_g.pth --qformer instruct_blip_vicuna7b_trimmed.pth \
    --video-branch timechat_7b.pth --llm meta-llama/Llama-2-7b-chat-hf \
    --qformer-tokenizer google-bert/bert-base-uncased --output timechat-7b
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from .shared_options import (
    BaseConfig,
    Dtype,
    LoraAlpha,
    MaxFrames,
    MaxShardSize,
    Seed,
    check_sources,
    load_libraries,
)


def convert(
    vision: Annotated[str, typer.Option(help="The weights of EVA-CLIP ViT-g (eva_vit_g.pth).", show_default=False)],
    qformer: Annotated[
        str,
        typer.Option(
            help="The image Q-Former of InstructBLIP, or of BLIP-2 (without timestamps).", show_default=False
        ),
    ],
    video_branch: Annotated[
        str, typer.Option(help="The video branch of Video-LLaMA, or the checkpoint of TimeChat.", show_default=False)
    ],
    llm: Annotated[str, typer.Option(help="The language model, a folder or Hub id.", show_default=False)],
    qformer_tokenizer: Annotated[
        str, typer.Option(help="The tokenizer of BERT, a folder or Hub id.", show_default=False)
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The new checkpoint folder.", show_default=False)],
    audio_branch: Annotated[
        str | None, typer.Option(help="The audio branch of Video-LLaMA. It is not needed with --preset timechat.")
    ] = None,
    imagebind: Annotated[
        str | None, typer.Option(help="The weights of ImageBind. They are not needed with --preset timechat.")
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(help="A fine-tuned checkpoint of AffectGPT or TimeChat, which overrides the other files."),
    ] = None,
    preset: Annotated[
        str, typer.Option(help="The family of the sources: microemo, affectgpt or timechat.")
    ] = "microemo",
    dtype: Dtype = "bfloat16",
    max_frames: MaxFrames = None,
    lora_alpha: LoraAlpha = None,
    base_config: BaseConfig = None,
    max_shard_size: MaxShardSize = 1.0,
    seed: Seed = 0,
):
    """Convert the original weights to a checkpoint folder.

    Each source is a file, a folder or Hub id in Transformers' format, or ORG/NAME:FILE on the Hub. The content of a file is recognised by its
    tensors, never by its name. A report of every tensor is printed and saved in the folder.
    """
    named = (vision, qformer, video_branch, audio_branch, imagebind, checkpoint, llm, qformer_tokenizer, base_config)
    check_sources(*(name for name in named if not {":", "@"} & set(name or "")))  # ORG/NAME@REVISION:FILE comes later
    load_libraries()
    from ..publishing.convert_checkpoints import convert_checkpoints

    overrides = {} if max_frames is None else {"max_frames": max_frames}
    report = convert_checkpoints(
        output,
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
    print(output)


def print_report(report: dict) -> None:
    """Prints the report of a conversion as tables on the terminal.

    Args:
        report (`dict`): The report of [`convert_checkpoints`] or [`assemble`].
    """
    from ..publishing.convert_checkpoints import parameter_rows, source_rows

    console = Console()
    table = Table("source", "holds", "tensors", "used", "ignored", title=f"Converted: {report['preset']}")
    for row in source_rows(report):
        table.add_row(*map(str, row))
    console.print(table)
    table = Table("parameters", "tensors", "from")
    for parameters in parameter_rows(report):
        table.add_row(*map(str, parameters))
    if table.row_count:
        console.print(table)
    if any(name.startswith("model.audio_branch.") for name in report["new"]):
        console.print(
            "[yellow]No audio branch was given: its weights are untrained. Pass audio=False to the processor."
        )
