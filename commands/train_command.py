"""The commands `microemo train`, `microemo precompute` and `microemo merge`.

microemo train stage2 --model-name-or-path ./tiny --train-data train.jsonl --output-dir run
microemo precompute train.jsonl dev.jsonl --model ./tiny --cache features --num-workers 2
microemo merge run merged
"""

from pathlib import Path
from typing import Annotated

import typer

from .shared_options import NumWorkers, check_folders, check_sources, load_libraries

# Settings of the command `train`: options that typer does not know are passed to the recipe's parser.
TRAIN_CONTEXT = {"allow_extra_args": True, "ignore_unknown_options": True}


def train(
    context: typer.Context,
    recipe: Annotated[
        str | None, typer.Argument(help="A YAML file, or the name of a recipe of the package (stage1, stage2, ...).")
    ] = None,
    list_options: Annotated[bool, typer.Option("--list-options", help="Print every option and exit.")] = False,
):
    """Fine-tune a model with RECIPE and any of its options as --option value (see --list-options).

    The words of an option may be separated by dashes or underscores.

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
    adapter: Annotated[Path, typer.Argument(help="The folder of an adapter that training wrote.", show_default=False)],
    output: Annotated[Path, typer.Argument(help="The new checkpoint folder.", show_default=False)],
    base: Annotated[str | None, typer.Option(help="The base model, if it has moved since the training.")] = None,
):
    """Merge ADAPTER into its base model, and save a checkpoint that does not need PEFT and carries its code."""
    check_folders(adapter)
    check_sources(base)
    load_libraries()
    from ..publishing.code_bundle import write_code_bundle
    from ..training.adapter import merge_adapter

    merged = merge_adapter(adapter, output, base)
    write_code_bundle(merged)
    print(merged)


def precompute(
    tables: Annotated[list[str], typer.Argument(help="The tables, folders or Hub ids, as for training.")],
    model: Annotated[str, typer.Option(help="The checkpoint folder or Hub id of the model to train.")],
    cache: Annotated[Path, typer.Option(help="The folder of the features, which is made if it does not exist.")],
    media_folder: Annotated[str | None, typer.Option(help="The folder that relative file names start from.")] = None,
    corpus: Annotated[
        str | None, typer.Option(help="The corpus that the tables are, as in training; by default the layout tells.")
    ] = None,
    corpus_clips: Annotated[
        str | None, typer.Option(help="The folder for clips that are cut out of a corpus, as in training.")
    ] = None,
    label_columns: Annotated[
        list[str] | None, typer.Option(help="A column of labels, as in training; the option can be repeated.")
    ] = None,
    video_column: Annotated[
        str | None, typer.Option(help="With --label-columns, the column of the clips' files.")
    ] = None,
    emer_subtitles: Annotated[str | None, typer.Option(help="The subtitle table of an EMER annotation file.")] = None,
    asr: Annotated[
        str | None,
        typer.Option(
            help="A model for speech recognition for clips without subtitles, or voice-activity, as in training."
        ),
    ] = None,
    num_workers: NumWorkers = 0,
    on_error: Annotated[
        str, typer.Option(help="Whether to fail at clips that cannot be used, or to skip them.")
    ] = "fail",
    dtype: Annotated[
        str, typer.Option(help="The type of the weights, as in training: auto, bfloat16, float16 or float32.")
    ] = "auto",
    config_overrides: Annotated[
        str | None, typer.Option(help="The configuration fields to change, as JSON, as in training.")
    ] = None,
    frame_tokens: Annotated[
        bool,
        typer.Option("--frame-tokens", help="Compute the output of the whole visual encoder, if it will be frozen."),
    ] = False,
):
    """Compute face masks and the frozen towers' features of frames and sound once, since training does not change them."""
    if on_error not in ("fail", "skip"):
        raise ValueError(f"--on-error must be fail or skip, got {on_error!r}")
    check_sources(*tables, model, emer_subtitles, None if asr == "voice-activity" else asr)
    load_libraries()
    import torch

    from ..training.corpora.corpus_list import CorpusOptions
    from ..training.data import load_table
    from ..training.feature_cache import precompute as fill
    from ..training.label_tables import LabelColumns
    from ..training.recognised_speech import UTTERANCES, add_utterances
    from ..training.train import ModelArguments, load_model_and_processor

    columns = LabelColumns(tuple(label_columns), video_column) if label_columns else None
    options = CorpusOptions(corpus, clips=corpus_clips)
    rows = [load_table(table, None, media_folder, emer_subtitles, columns=columns, corpus=options) for table in tables]
    if asr is not None:
        rows = list(add_utterances(dict(enumerate(rows)), asr, cache / UTTERANCES).values())
    arguments = ModelArguments(model_name_or_path=model, dtype=dtype, config_overrides=config_overrides)
    loaded, processor = load_model_and_processor(arguments)
    if torch.cuda.is_available():
        for part in (loaded.model.visual_encoder, loaded.model.audio_branch.audio_tower):
            part.to("cuda")
    fill(rows, cache, processor, loaded, num_workers, on_error, frame_tokens=frame_tokens or None)
    print(cache)
