"""`microemo synthesize`: makes dialogues with known truth, for training and tests.

microemo synthesize dialogues --clips 1200 --seed 0 --num-workers 2
microemo synthesize dialogues --clips 150 --seed 0 --split dev
microemo synthesize dialogues --clips 150 --seed 0 --split test
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from .shared_options import load_libraries


def synthesize(
    folder: Annotated[Path, typer.Argument(help="The folder of the clips and the table.", show_default=False)],
    clips: Annotated[int, typer.Option(help="The number of clips.", min=1, show_default=False)],
    seed: Annotated[int, typer.Option(help="The seed. Different seeds give different clips.", min=0)] = 0,
    split: Annotated[
        Literal["train", "dev", "test"], typer.Option(help="The split. Splits have no clip in common.")
    ] = "train",
    num_workers: Annotated[int, typer.Option(help="The number of processes.", min=1)] = 1,
    size: Annotated[
        int, typer.Option(help="The side length of the square picture in pixels, an even number.", min=96)
    ] = 224,
):
    """Make dialogues of an animated photograph that speaks, with questions and answers.

    FOLDER gets videos with sound, SRT files, dialogues.jsonl to train on and truth.jsonl to check against. An
    interrupted run resumes where it was.
    """
    load_libraries()
    from ..training.synthetic.synthetic_dialogues import write_dialogues

    print(write_dialogues(folder, clips, seed=seed, split=split, num_workers=num_workers, size=size))
