"""`microemo synthesize`: makes dialogues with known truth, for training and tests.

microemo synthesize dialogues --clips 1200 --seed 0 --num-workers 2
microemo synthesize dialogues --clips 150 --seed 0 --split dev
microemo synthesize people --clips 1000 --photographs faces --recordings voices --num-workers 2
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from .shared_options import load_libraries


def synthesize(
    folder: Annotated[Path, typer.Argument(help="The folder of the clips and the table.", show_default=False)],
    clips: Annotated[int, typer.Option(help="The number of clips.", min=1, show_default=False)],
    photographs: Annotated[
        Path | None,
        typer.Option(
            help="A folder of photographs of people, who act in place of the astronaut. A CSV file in it with the columns "
            "file, person, split, kind (neutral or smiling), gender tells who they are.",
            show_default=False,
        ),
    ] = None,
    recordings: Annotated[
        Path | None,
        typer.Option(
            help="A folder of recordings of emotional speech, with which these people speak: a CSV file in it or beside "
            "it has the columns file, speaker, emotion and perhaps gender, split, text, language; or the files are named "
            "as those of RAVDESS are.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="The seed. Different seeds give different clips.", min=0)] = 0,
    split: Annotated[
        Literal["train", "dev", "test"],
        typer.Option(help="The split. Splits have no clip, no person and no speaker in common."),
    ] = "train",
    num_workers: Annotated[int, typer.Option(help="The number of processes.", min=1)] = 1,
    size: Annotated[
        int | None,
        typer.Option(
            help="The side length of the square picture in pixels, an even number; 224 by default. Clips of people have "
            "many sizes.",
            min=96,
            show_default=False,
        ),
    ] = None,
):
    """Make dialogues of an animated photograph that speaks, with questions and answers.

    FOLDER gets videos with sound, SRT files, dialogues.jsonl to train on and truth.jsonl to check against. With
    --photographs and --recordings real people act and speak, and LICENSES.md names them. An interrupted run resumes
    where it was; a finished one makes questions and answers anew.
    """
    if (photographs is None) != (recordings is None):
        raise typer.BadParameter("--photographs and --recordings go together: a face and a voice make a dialogue")
    if photographs is not None and size is not None:
        raise typer.BadParameter("--size is for clips of the astronaut; clips of people have many sizes")
    load_libraries()
    if photographs is not None and recordings is not None:
        from ..training.synthetic.people_dialogues import write_people

        print(write_people(folder, clips, photographs, recordings, seed, split, num_workers))
        return
    from ..training.synthetic.synthetic_dialogues import write_dialogues

    print(write_dialogues(folder, clips, seed=seed, split=split, num_workers=num_workers, size=size or 224))
