"""`microemo calibrate`: the scores of labels are fitted on people of a dev split."""

from pathlib import Path
from typing import Annotated

import typer

from .shared_options import check_files, check_folders, load_libraries


def calibrate(
    checkpoint: Annotated[
        Path, typer.Argument(help="The checkpoint folder, which gets label_calibration.json.", show_default=False)
    ],
    data: Annotated[
        Path,
        typer.Argument(
            help="A table of clips with conversations, as for training, whose answers list labels.", show_default=False
        ),
    ],
    split: Annotated[str, typer.Option(help="The split of the table: people that no training has seen.")] = "dev",
):
    """Fit how sure the label scores of CHECKPOINT are to how often they are right, on DATA."""
    check_folders(checkpoint)
    check_files(data)
    load_libraries()
    from tqdm.auto import tqdm

    from ..inference.calibration import calibrate as fit
    from ..inference.calibration import labelled_questions, write_calibration
    from ..inference.emotion_pipeline import EmotionPipeline
    from ..training.data import load_table

    rows = load_table(data).to_list()
    vocabulary = sorted({label for row in rows for _, labels in labelled_questions(row) for label in labels})
    of_split = [row for row in rows if row.get("split") == split]
    if not of_split:
        raise ValueError(f"{data}: no row of the split {split!r}")
    found = fit(EmotionPipeline.from_pretrained(checkpoint), of_split, vocabulary, lambda one: tqdm(one, desc="Clips"))
    before, after = found["expected_calibration_error"]
    print(
        f"{found['questions']} questions, {100 * found['accuracy']:.1f} % right; temperature {found['temperature']}, "
        f"expected calibration error {before:.3f} -> {after:.3f}"
    )
    print(write_calibration(checkpoint, found))
