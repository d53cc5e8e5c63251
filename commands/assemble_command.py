"""`microemo assemble`: downloads public weights and makes a folder of them that `from_pretrained` loads.

microemo assemble --preset paper --dry-run
microemo assemble --preset paper --output microemo-7b
microemo assemble --preset paper --llm lmsys/vicuna-7b-v1.5 --output microemo-vicuna
microemo assemble --vision Salesforce/instructblip-vicuna-7b --qformer Salesforce/instructblip-vicuna-7b \
    --video-branch DAMO-NLP-SG/Video-LLaMA-2-7B-Finetuned:VL_LLaMA_2_7B_Finetuned.pth \
    --audio-branch AL_LLaMA_2_7B_Finetuned.pth --imagebind imagebind_huge.pth --llm ./llama-2-7b-chat --output microemo-7b
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from .convert_command import print_report
from .shared_options import (
    BaseConfig,
    Dtype,
    LoraAlpha,
    MaxFrames,
    MaxShardSize,
    Seed,
    Token,
    errors,
    load_libraries,
)

if TYPE_CHECKING:
    from ..publishing.assemble import AssemblyPlan

ASKED_FROM = 10**9  # bytes


def assemble(
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The new checkpoint folder. It is not needed with --dry-run."),
    ] = None,
    preset: Annotated[
        str,
        typer.Option(
            help="paper: all sources that the paper starts from; or a family without sources: microemo, affectgpt, timechat."
        ),
    ] = "microemo",
    vision: Annotated[
        str | None,
        typer.Option(
            help="The ViT-g, such as Salesforce/instructblip-vicuna-7b or eva_vit_g.pth; or another image encoder, such as "
            "google/siglip2-so400m-patch14-384."
        ),
    ] = None,
    audio: Annotated[
        str | None,
        typer.Option(help="An audio encoder in place of ImageBind's, such as openai/whisper-large-v3."),
    ] = None,
    qformer: Annotated[
        str | None, typer.Option(help="The image Q-Former, such as Salesforce/instructblip-vicuna-7b.")
    ] = None,
    video_branch: Annotated[
        str | None, typer.Option(help="The video branch of Video-LLaMA: a file, or ORG/NAME:FILE on the Hub.")
    ] = None,
    audio_branch: Annotated[str | None, typer.Option(help="The audio branch of Video-LLaMA, likewise.")] = None,
    imagebind: Annotated[str | None, typer.Option(help="The weights of ImageBind, likewise.")] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="A fine-tuned checkpoint of AffectGPT or TimeChat, likewise.")
    ] = None,
    llm: Annotated[
        str | None, typer.Option(help="The language model: a folder, a Hub id, or ORG/NAME:FOLDER/.")
    ] = None,
    qformer_tokenizer: Annotated[
        str | None, typer.Option(help="The tokenizer of BERT. By default the one beside the image Q-Former.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print files, sizes and licences, and download no weights.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Download gigabytes without asking.")] = False,
    token: Token = None,
    dtype: Dtype = "bfloat16",
    max_frames: MaxFrames = None,
    lora_alpha: LoraAlpha = None,
    base_config: BaseConfig = None,
    max_shard_size: MaxShardSize = 1.0,
    seed: Seed = 0,
):
    """Assemble a checkpoint folder from public weights.

    A source is a file, a folder in Transformers' format, or on the Hub ORG/NAME, ORG/NAME:FILE or ORG/NAME:FOLDER/, with a
    revision as ORG/NAME@REVISION. Files, sizes and licences are printed before anything large is downloaded. A run that
    broke off can be started again: files that have arrived are not downloaded twice.
    """
    if output is None and not dry_run:
        raise ValueError("--output is missing: name the new checkpoint folder, or pass --dry-run")
    load_libraries()
    from huggingface_hub.utils import enable_progress_bars

    from ..publishing.assemble import as_dtype, plan_assembly
    from ..publishing.assemble import assemble as build
    from ..utils.atomic_files import check_new_folder

    as_dtype(dtype)
    if output is not None:
        check_new_folder(output)
    plan = plan_assembly(
        preset,
        base_config,
        token,
        overrides={} if max_frames is None else {"max_frames": max_frames},
        vision=vision,
        audio=audio,
        qformer=qformer,
        video_branch=video_branch,
        audio_branch=audio_branch,
        imagebind=imagebind,
        checkpoint=checkpoint,
        llm=llm,
        qformer_tokenizer=qformer_tokenizer,
    )
    _print_plan(plan, dtype)
    if dry_run:
        print("No weights were downloaded: this was a dry run.")
        return
    if plan.download_size >= ASKED_FROM and not yes:
        _ask(plan.download_size)
    enable_progress_bars()
    report = build(plan, str(output), dtype, int(max_shard_size * 10**9), lora_alpha, seed)
    print_report(report)
    print(output)


def _print_plan(plan: "AssemblyPlan", dtype: str) -> None:
    console = Console()
    table = Table("file", "for", "size", "licence", title="Sources")
    for file in plan.files:
        place = "here" if file.is_here else "to download"
        options = ", ".join(f"--{option.replace('_', '-')}" for option in file.options)
        licence = "\n".join(file.licences) or "not stated"
        table.add_row(file.title, options, f"{_gigabytes(file.size)}, {place}", licence)
    console.print(table)
    for repository, commit in sorted(
        {(file.source.place.repo_id, file.source.place.commit) for file in plan.files if file.source.place.commit}
    ):
        print(f"{repository} at commit {commit}")
    print(
        f"To download: {_gigabytes(plan.download_size)}. The new folder: {_gigabytes(plan.output_size(dtype))} in {dtype}."
    )


def _ask(size: int) -> None:
    """Asks whether to download, where somebody can answer."""
    if not sys.stdin.isatty():
        raise ValueError(f"{_gigabytes(size)} are to be downloaded; pass --yes, since nobody can be asked here")
    if not typer.confirm(f"Download {_gigabytes(size)}?", default=False):
        errors.print("Nothing was downloaded.")
        raise typer.Exit(1)


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 10**8 else f"{size / 1e6:.2f} MB"
