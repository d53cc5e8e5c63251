"""The command `microemo actions`: facial actions and head pose over time, as CSV.

microemo actions clip.mp4 --output clip.csv
microemo actions clip.mp4 --output clip.csv --face-mesh-model face_landmarker.task
"""

from pathlib import Path
from typing import Annotated

import typer

from .shared_options import check_files


def actions(
    clip: Annotated[str, typer.Argument(help="The video file.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .csv file to write.")],
    fps: Annotated[float | None, typer.Option(help="The number of frames per second. By default every frame.")] = None,
    face_mesh_model: Annotated[
        Path | None,
        typer.Option(
            help="A face_landmarker.task of MediaPipe, whose blendshapes become the actions. By default they are distances "
            "between landmarks of the face mesh."
        ),
    ] = None,
):
    """Write the facial actions and the head pose in each frame of CLIP as a table like OpenFace's.

    The file has a row for each frame, for the one person who is followed. docs/pictures.md explains the columns.
    """
    check_files(clip, face_mesh_model)
    from ..inference.facial_actions import check_csv, facial_actions, write_facial_actions

    check_csv(output)
    found = facial_actions(clip, fps, face_mesh_model)
    path = write_facial_actions(found, output)
    print(f"{path}: {len(found.times)} frames, {found.success.sum()} with the face; actions from {found.source}")
