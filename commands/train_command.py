"""`microemo train`, `microemo precompute`, `microemo merge`.

microemo train stage2 --model-name-or-path ./tiny --train-data train.jsonl --output-dir run
microemo precompute train.jsonl dev.jsonl --model ./tiny --cache features --num-workers 2
microemo merge run merged
"""

from pathlib import Path
from typing import Annotated

import typer

from .shared_options import NumWorkers, check_folders, check_sources, load_libraries

# How `train` is to be mounted: all that typer does not know goes on to the recipe's parser.
TRAIN_CONTEXT = {"allow_extra_args": True, "ignore_unknown_options": True}


def train(
    context: typer.Context,
    recipe: Annotated[
        str | None, typer.Argument(help="YAML file, or the name of a shipped recipe (stage1, stage2, ...).")
    ] = None,
    list_options: Annotated[bool, typer.Option("--list-options", help="Print every option and end.")] = False,
):
    """Fine-tune a model: RECIPE, then any of its options as --option value (see --list-options). Their words may be
    parted by dashes as well as by underscores.

    Several GPUs: accelerate launch --config_file training/accelerate/fsdp2.yaml -m microemo.training.train RECIPE ...
    """
    from ..training.recipe_files import find_recipe

    if recipe is not None and not recipe.startswith("-"):
        find_recipe(recipe)
    load_libraries()
    from transformers.utils import logging

    from ..training.train import main

    logging.enable_progress_bar()
    main(["--help"] if list_options else [*([] if recipe is None else [recipe]), *context.args])


def merge(
    adapter: Annotated[Path, typer.Argument(help="Folder of an adapter, as training wrote it.", show_default=False)],
    output: Annotated[Path, typer.Argument(help="New checkpoint folder.", show_default=False)],
    base: Annotated[str | None, typer.Option(help="The base model, if it has moved since.")] = None,
):
    """Fold ADAPTER into its base model: a checkpoint that needs PEFT no more."""
    check_folders(adapter)
    check_sources(base)
    load_libraries()
    from ..training.train import merge_adapter

    print(merge_adapter(adapter, output, base))


def precompute(
    tables: Annotated[list[str], typer.Argument(help="Tables, folders or Hub ids, as for training.")],
    model: Annotated[str, typer.Option(help="Checkpoint folder or Hub id that will be trained.")],
    cache: Annotated[Path, typer.Option(help="Folder of the features; made where it is not there.")],
    media_folder: Annotated[str | None, typer.Option(help="Where relative file names start.")] = None,
    emer_subtitles: Annotated[str | None, typer.Option(help="Subtitle table for EMER annotation files.")] = None,
    num_workers: NumWorkers = 0,
    on_error: Annotated[str, typer.Option(help="fail, or skip clips that cannot be used.")] = "fail",
    dtype: Annotated[str, typer.Option(help="As in training: auto, bfloat16, float16, float32.")] = "auto",
    config_overrides: Annotated[str | None, typer.Option(help="As in training, JSON.")] = None,
    frame_tokens: Annotated[
        bool, typer.Option("--frame-tokens", help="The visual encoder's output, where all of it will be frozen.")
    ] = False,
):
    """Compute once what never changes in training: face masks, and the frozen towers' features of frames and sound."""
    if on_error not in ("fail", "skip"):
        raise ValueError(f"--on-error must be fail or skip, got {on_error!r}")
    check_sources(*tables, model, emer_subtitles)
    load_libraries()
    import torch

    from ..training.data import load_table
    from ..training.feature_cache import precompute as fill
    from ..training.train import ModelArguments, load_model_and_processor

    rows = [load_table(table, None, media_folder, emer_subtitles) for table in tables]
    arguments = ModelArguments(model_name_or_path=model, dtype=dtype, config_overrides=config_overrides)
    loaded, processor = load_model_and_processor(arguments)
    if torch.cuda.is_available():
        for part in (loaded.model.visual_encoder, loaded.model.audio_branch.audio_tower):
            part.to("cuda")
    fill(rows, cache, processor, loaded, num_workers, on_error, frame_tokens=frame_tokens or None)
    print(cache)
