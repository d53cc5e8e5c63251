"""Facial actions and head pose over time, as a table with the columns of OpenFace's output.

```python
from microemo.inference.facial_actions import facial_actions, write_facial_actions

actions = facial_actions("clip.mp4", fps=10)
actions.actions["AU12"]  # the smile, relative to the person's median in this clip
write_facial_actions(actions, "clip.csv")
```

Facial actions have two sources. A `face_landmarker.task` of MediaPipe brings blendshapes: the output of a network, from 0 to 1.
Without it the actions are distances between landmarks of the face mesh. Neither is the intensity of a FACS coder, so the
columns of a file are named `AU12_bs` or `AU12_geo`, and not `AU12_r`.
"""

import csv
import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..processing.decoded_clip import open_clip
from ..processing.faces.face_mesh import FaceMesh
from ..processing.faces.face_mesh_backends import BLENDSHAPE_NAMES, Face
from ..processing.frame_sampling import fps_indices
from ..processing.frame_views import NO_FACE, FrameProcessor
from ..processing.media import MediaInfo
from ..utils.atomic_files import write_text

# The action units in plain words.
ACTION_NAMES = {
    "AU01": "inner brows raised",
    "AU02": "outer brows raised",
    "AU04": "brows lowered",
    "AU05": "eyes widened",
    "AU07": "eyes narrowed",
    "AU10": "upper lip raised",
    "AU12": "smile",
    "AU14": "dimples",
    "AU15": "mouth corners down",
    "AU16": "lower lip down",
    "AU17": "chin raised",
    "AU18": "lips puckered",
    "AU20": "lips stretched",
    "AU22": "lips funnelled",
    "AU24": "lips pressed",
    "AU26": "mouth open",
    "AU28": "lips sucked in",
    "AU45": "eyes closed",
}
# The mean of these blendshapes is the action unit. MediaPipe's cheekSquint and noseSneer stay near 0 whatever the face does
# (google-ai-edge/mediapipe#4450), so AU06 and AU09 are left out.
BLENDSHAPES_OF = {
    "AU01": ("browInnerUp",),
    "AU02": ("browOuterUpLeft", "browOuterUpRight"),
    "AU04": ("browDownLeft", "browDownRight"),
    "AU05": ("eyeWideLeft", "eyeWideRight"),
    "AU07": ("eyeSquintLeft", "eyeSquintRight"),
    "AU10": ("mouthUpperUpLeft", "mouthUpperUpRight"),
    "AU12": ("mouthSmileLeft", "mouthSmileRight"),
    "AU14": ("mouthDimpleLeft", "mouthDimpleRight"),
    "AU15": ("mouthFrownLeft", "mouthFrownRight"),
    "AU16": ("mouthLowerDownLeft", "mouthLowerDownRight"),
    "AU17": ("mouthShrugLower",),
    "AU18": ("mouthPucker",),
    "AU20": ("mouthStretchLeft", "mouthStretchRight"),
    "AU22": ("mouthFunnel",),
    "AU24": ("mouthPressLeft", "mouthPressRight"),
    "AU26": ("jawOpen",),
    "AU28": ("mouthRollLower", "mouthRollUpper"),
    "AU45": ("eyeBlinkLeft", "eyeBlinkRight"),
}

# Points of MediaPipe's canonical face that expressions move least, with the weights of its own fit: the landmark, its mirror
# image, the weight, and the place in centimetres (x to the right of the picture, y down, z away from the camera).
_STEADY_POINTS = (
    *((4, 4, 0.0709, 0.0, 0.46, -7.59), (6, 6, 0.0321, 0.0, -2.47, -5.79), (10, 10, 0.0084, 0.0, -8.26, -4.48)),
    *((33, 263, 0.0587, -4.45, -2.66, -3.17), (54, 284, 0.0077, -6.28, -6.62, -1.43)),
    *((67, 297, 0.0091, -3.52, -8.01, -3.73), (117, 346, 0.0098, -5.26, -0.95, -2.97)),
    *((119, 348, 0.0146, -3.3, -0.86, -3.87), (121, 350, 0.0186, -1.82, -1.47, -4.22)),
    *((127, 356, 0.0052, -7.74, -2.36, 2.01), (129, 358, 0.1206, -1.79, 0.98, -4.85)),
    *((132, 361, 0.0056, -7.27, 2.89, 2.25), (133, 362, 0.0533, -1.86, -2.59, -3.76)),
    *((136, 365, 0.0669, -5.09, 7.18, -0.71), (143, 372, 0.0148, -6.41, -2.24, -1.56)),
    *((147, 376, 0.0143, -6.23, 1.94, -1.66), (198, 420, 0.0255, -1.25, -0.23, -5.68)),
    (205, 425, 0.0473, -3.83, 1.54, -4.14),
)
_OUTER_EYE_CORNERS = (33, 263)


@dataclass(eq=False)
class FacialActions:
    """Facial actions and head pose of one person in n frames of a clip.

    Attributes:
        clip (`str`): The name of the clip.
        source (`"blendshapes"` or `"geometry"`): What the actions are made from.
        frames (`np.ndarray` of shape `(n,)`): The places of the frames among all frames of the clip, from 0.
        times (`np.ndarray` of shape `(n,)`): The times of the frames in seconds.
        scores (`np.ndarray` of shape `(n,)`): The scores of the face detector in 0..1; 0 for a frame without the face.
        pose (`np.ndarray` of shape `(n, 3)`):
            The rotation of the head about the axes x (to the right of the picture), y (down) and z (away from the camera)
            in radians, R = Rx Ry Rz, as in OpenFace: positive are the chin down, the nose to the left of the picture, and
            the head leaning clockwise. NaN without the face.
        actions (`dict[str, np.ndarray]`):
            For each action unit of `ACTION_NAMES` that the source has, its strength `(n,)`, NaN without the face.
            Blendshapes are from 0 to 1. From geometry they are distances on the face turned to the front, in units of the
            distance between the outer eye corners, minus the person's median in the clip: 0 is how the face mostly is, and
            negative is less (eyes opened wider, for example).
    """

    clip: str
    source: Literal["blendshapes", "geometry"]
    frames: np.ndarray
    times: np.ndarray
    scores: np.ndarray
    pose: np.ndarray
    actions: dict[str, np.ndarray]

    @property
    def success(self) -> np.ndarray:
        """Whether the person's face is found in each frame, `(n,)`."""
        return self.scores > 0

    def columns(self) -> dict[str, np.ndarray]:
        """Returns the columns of the file that [`write_facial_actions`] writes.

        Returns:
            `dict[str, np.ndarray]`: `frame` (from 1), `face_id` (0), `timestamp`, `confidence`, `success`, `pose_Rx`,
            `pose_Ry`, `pose_Rz`, `source`, and the actions, named `AU12_bs` from blendshapes and `AU12_geo` from geometry.
        """
        suffix = {"blendshapes": "bs", "geometry": "geo"}[self.source]
        count = len(self.times)
        return {
            "frame": self.frames + 1,
            "face_id": np.zeros(count, int),
            "timestamp": self.times,
            "confidence": self.scores,
            "success": self.success.astype(int),
            **{f"pose_R{axis}": self.pose[:, number] for number, axis in enumerate("xyz")},
            "source": np.full(count, self.source),
            **{f"{name}_{suffix}": strength for name, strength in self.actions.items()},
        }


def facial_actions(
    clip: Any, fps: float | None = None, face_mesh_model: str | os.PathLike | None = None
) -> FacialActions:
    """Measures the facial actions and the head pose of the person who is followed through a clip.

    Args:
        clip (`Any`): A clip as [`MicroEmoVideoProcessor`] takes it.
        fps (`float`, *optional*): The number of frames to look at per second. By default every frame.
        face_mesh_model (`str` or `os.PathLike`, *optional*):
            The path of a `face_landmarker.task`, whose blendshapes become the actions. By default they come from the
            geometry of the face mesh.

    Returns:
        [`FacialActions`]: The actions, the pose and the times of the frames.

    Raises:
        MediaError: If the clip cannot be used, or has no pictures.
        ValueError: If `fps` is not positive.
        OSError: If there is no such model.
    """
    if fps is not None and not 0 < fps < float("inf"):
        raise ValueError(f"fps must be positive, got {fps}")

    def sample(times: np.ndarray, length: float) -> np.ndarray:
        return np.arange(len(times)) if fps is None else fps_indices(times, length, fps)

    info, indices, times, faces, (width, height) = follow_faces(clip, sample, face_mesh_model)
    landmarks = np.stack([NO_FACE if face is None else face.landmarks for face in faces])
    turned, pose = face_front(landmarks * np.array([width, height, width]))
    blendshapes = _blendshapes(faces, face_mesh_model is not None)
    return FacialActions(
        clip=info.source,
        source="geometry" if blendshapes is None else "blendshapes",
        frames=indices if info.frame_indices is None else info.frame_indices[indices],
        times=np.array(times),
        scores=np.array([0.0 if face is None else face.score for face in faces]),
        pose=pose,
        actions=_from_geometry(turned) if blendshapes is None else _from_blendshapes(blendshapes),
    )


def follow_faces(
    clip: Any, sample: Callable[[np.ndarray, float], np.ndarray], face_mesh_model: str | os.PathLike | None = None
) -> tuple[MediaInfo, np.ndarray, list[float], list[Face | None], tuple[int, int]]:
    """Finds the face of the person who is followed through a clip, as the video processor does.

    Args:
        clip (`Any`): A clip as [`MicroEmoVideoProcessor`] takes it.
        sample (`Callable`):
            A function from the frame times `(n,)` and the length of the clip in seconds to increasing indices of frames.
        face_mesh_model (`str` or `os.PathLike`, *optional*): The path of a `face_landmarker.task`.

    Returns:
        `tuple[MediaInfo, np.ndarray, list[float], list[Face], tuple[int, int]]`: The description of the clip, the indices
        and the times of the sampled frames, the face in each of them or `None`, and the width and the height of the upright
        frames.

    Raises:
        MediaError: If the clip cannot be used, or has no pictures.
        OSError: If there is no such model.
    """
    # Only the faces are used: the pictures are made as small as can be.
    settings = {"size": {"height": 2}, "do_resize": True, "local_view": "frame"}
    with open_clip(clip) as opened:
        info = opened.info
        views = FrameProcessor(
            info, lambda times: sample(times, info.duration), None, FaceMesh(face_mesh_model), settings
        )
        indices, times, found = opened.read(views.choose, lambda frame: views.process(frame)[1])
    chosen = views.follow(found)
    faces = [None if i is None else of_frame[i] for of_frame, i in zip(found, chosen, strict=True)]
    return info, indices, times, faces, views.frame_size


def write_facial_actions(actions: FacialActions, path: str | Path) -> Path:
    """Writes facial actions as CSV that R and pandas read as it is. What is not known is an empty cell.

    Args:
        actions ([`FacialActions`]): The actions.
        path (`str` or `Path`): The .csv file to make or to replace.

    Returns:
        `Path`: The file.

    Raises:
        ValueError: If the path does not end in .csv.
    """
    path = check_csv(path)
    columns = actions.columns()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*(map(_cell, column.tolist()) for column in columns.values()), strict=True))
    return write_text(path, text.getvalue())


def check_csv(path: str | Path) -> Path:
    """Checks, before any long work, that a path is one for [`write_facial_actions`].

    Args:
        path (`str` or `Path`): The file to write.

    Returns:
        `Path`: The same path.

    Raises:
        ValueError: If it does not end in .csv.
    """
    path = Path(path)
    if path.suffix.lower() != ".csv":
        raise ValueError(f"{path}: facial actions are written as a .csv file")
    return path


def face_front(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turns faces to the front and measures how they were turned, by the fit to MediaPipe's canonical face.

    Args:
        points (`np.ndarray` of shape `(T, 478, 3)`):
            The landmarks in pixels: x to the right, y down, z away from the camera; NaN for a frame without a face.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: The landmarks of the same face seen from the front, in units of the median distance
        between the outer eye corners `(T, 478, 3)`, and the rotations about x, y and z in radians `(T, 3)`.
    """
    steady, weights, canonical = _steady_points()
    turned, pose = np.full(points.shape, np.nan), np.full((len(points), 3), np.nan)
    seen = np.isfinite(points[:, :, :2]).all((1, 2))
    if not seen.any():
        return turned, pose
    faces = points[seen].astype(np.float64)
    middle = np.einsum("n,tnc->tc", weights, faces[:, steady])[:, None]
    spread = np.einsum("n,tni,nj->tij", weights, faces[:, steady] - middle, canonical)
    left, sizes, right = np.linalg.svd(spread)
    # A mirror image is no rotation.
    sign = np.ones_like(sizes)
    sign[:, 2] = np.sign(np.linalg.det(left @ right))
    rotation = (left * sign[:, None]) @ right
    scale = (sizes * sign).sum(-1) / (weights[:, None] * canonical**2).sum()
    front = (faces - middle) @ rotation / scale[:, None, None]
    apart = np.linalg.norm(np.subtract(*(front[:, corner] for corner in _OUTER_EYE_CORNERS)), axis=-1)
    turned[seen] = front / np.median(apart)
    pose[seen] = np.stack(
        [
            np.arctan2(-rotation[:, 1, 2], rotation[:, 2, 2]),
            np.arcsin(rotation[:, 0, 2].clip(-1, 1)),
            np.arctan2(-rotation[:, 0, 1], rotation[:, 0, 0]),
        ],
        axis=-1,
    )
    return turned, pose


def _steady_points() -> tuple[list[int], np.ndarray, np.ndarray]:
    """Returns the landmarks of the fit, their weights `(N,)`, which add up to 1, and their places round 0 `(N, 3)`."""
    rows = [(point, weight, x, y, z) for point, _, weight, x, y, z in _STEADY_POINTS]
    rows += [(mirror, weight, -x, y, z) for point, mirror, weight, x, y, z in _STEADY_POINTS if mirror != point]
    table = np.array(rows)
    weights = table[:, 1] / table[:, 1].sum()
    return table[:, 0].astype(int).tolist(), weights, table[:, 2:] - weights @ table[:, 2:]


def _from_geometry(face: np.ndarray) -> dict[str, np.ndarray]:
    """Measures the actions on faces turned to the front, `(T, 478, 3)`, relative to the median of the clip."""

    def level(*points: int) -> np.ndarray:
        return -face[:, points, 1].mean(1)  # upwards

    def distance(*pairs: tuple[int, int]) -> np.ndarray:
        return np.mean([np.linalg.norm(face[:, a] - face[:, b], axis=-1) for a, b in pairs], axis=0)

    bridge = level(6)
    lids = distance((159, 145), (158, 153), (160, 144), (386, 374), (385, 380), (387, 373))
    measures = {
        "AU01": level(55, 285) - bridge,
        "AU02": level(105, 334) - bridge,
        "AU04": -distance((55, 133), (285, 362)),
        "AU12": distance((61, 291)) + level(61, 291),
        "AU24": -distance((0, 13), (14, 17)),
        "AU26": distance((13, 14)) + level(2) - level(152),
        "AU45": -lids,
    }
    seen = np.isfinite(bridge)
    return {name: value - (np.median(value[seen]) if seen.any() else 0) for name, value in measures.items()}


def _from_blendshapes(shapes: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the action units of blendshapes `(T, 52)`."""
    return {
        unit: shapes[:, [BLENDSHAPE_NAMES.index(name) for name in names]].mean(1)
        for unit, names in BLENDSHAPES_OF.items()
    }


def _blendshapes(faces: list[Face | None], expected: bool) -> np.ndarray | None:
    """Returns the blendshapes `(T, 52)`, NaN without a face; `None` where the face mesh has none."""
    shapes = [None if face is None else face.blendshapes for face in faces]
    seen = [face for face in faces if face is not None]
    if not (all(face.blendshapes is not None for face in seen) if seen else expected):
        return None
    nothing = np.full(len(BLENDSHAPE_NAMES), np.nan, np.float32)
    return np.stack([nothing if row is None else row for row in shapes])


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.4f}"
    return value
