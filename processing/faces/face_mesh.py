"""MediaPipe Face Mesh: 478 landmarks of every face in a frame (paper 3.2, the clues' positions)."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from transformers.utils import cached_file

from .face_mesh_backends import (
    BLENDSHAPE_NAMES,
    MAX_FACES,
    MODEL_FILE,
    NUM_LANDMARKS,
    BundledBackend,
    Face,
    TasksBackend,
    bundled_models,
    download_model,
)

# The mesh fits a face to whatever its detector points at: a skull on a shirt, a lamp, letters. Above SURE a detection is
# a face, below UNSURE it is none, each in a crop of CROP_SCALE times the face. Between them a detector must find the face
# in its surroundings too, in a crop twice as large.
SURE, UNSURE, SURE_IN_SURROUNDINGS = 0.82, 0.65, 0.7
CROP_SCALE = 2.2
# Faces smaller than this share of the picture's longer side are found by chance in the first look.
FIRST_LOOK_REACH = 0.14
# The side in pixels of the smallest face that the second look searches for.
SMALLEST_FACE = 50


class _Backends(threading.local):
    """Holds the MediaPipe graphs of one thread, since a graph that is shared by threads crashes."""

    def __init__(self) -> None:
        self.graphs: dict[tuple, BundledBackend | TasksBackend] = {}


_backends = _Backends()
# The process that has run a graph, and so, after a fork, also its children's knowledge that their parent has.
_used_by: int | None = None


class FaceMesh:
    """Finds faces and their landmarks in single frames, independent of the frames before.

    It holds no MediaPipe object itself. Graphs are made on first use, one per process and thread, so that the object
    can be pickled, shared by threads and sent to workers. A process that has run a graph cannot be forked and run one
    again.

    Args:
        model (`str` or `os.PathLike`, *optional*):
            The path of a `face_landmarker.task` for MediaPipe's Tasks API. By default the model inside MediaPipe's own
            wheel is used (`mediapipe.solutions`, up to 0.10.21), and if the wheel has none, the file beside the
            checkpoint or the official file, which is downloaded once.
        checkpoint (`str` or `os.PathLike`, *optional*):
            The folder or Hub id of the checkpoint, in which `model` and `face_landmarker.task` are searched.
    """

    def __init__(self, model: str | os.PathLike | None = None, checkpoint: str | os.PathLike | None = None) -> None:
        self.model = model
        self.checkpoint = checkpoint

    def faces(self, rgb: np.ndarray, whole: Callable[[], np.ndarray] | None = None) -> list[Face]:
        """Finds every face in a picture.

        The mesh first runs on the picture. A detection with an unsure score is examined again in a crop of the whole
        frame, and is dropped if it stays unsure. If no face remains, or only small ones, the faces that a detector
        finds in tiles of the whole frame are added.

        Args:
            rgb (`np.ndarray` of shape `(H, W, 3)`):
                The uint8 picture for the first run. A copy of 360 lines gives the best result.
            whole (`Callable`, *optional*):
                A function that returns the same picture at full resolution for the closer examination. By default
                `rgb` is the whole picture.

        Returns:
            `list[Face]`: The faces, at most `MAX_FACES` in the first run.

        Raises:
            ValueError: If the picture has another shape or dtype.
            ImportError: If MediaPipe or the OpenCV that it needs cannot be imported.
            RuntimeError: If the process is a fork of one that has run a face mesh before.
            OSError: If no model file is available.
        """
        if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
            raise ValueError(f"the face mesh wants an (H, W, 3) uint8 picture, got {rgb.shape} {rgb.dtype}")
        backend, rgb = self._backend(), np.ascontiguousarray(rgb)
        detected = backend.look(rgb)
        faces = [face for face in detected if face.score >= SURE]
        unsure = [face.box for face in detected if face.score < SURE]
        if unsure or not _any_large(faces, rgb):
            picture = rgb if whole is None else np.ascontiguousarray(whole())
            _look_closer(backend, picture, unsure, faces)
            if not _any_large(faces, rgb):
                _look_closer(backend, picture, _in_tiles(backend, picture), faces)
        return faces

    def landmarks(self, rgb: np.ndarray) -> np.ndarray:
        """Finds the landmarks of every face, see [`FaceMesh.faces`].

        Args:
            rgb (`np.ndarray` of shape `(H, W, 3)`): The uint8 picture.

        Returns:
            `np.ndarray` of shape `(faces, 478, 3)`: The float32 landmarks: x and y as fractions of width and height, z
            in the unit of x; `(0, 478, 3)` if there is no face. Coordinates may lie outside 0..1 if a face is cut by
            the frame's edge.
        """
        return np.array([face.landmarks for face in self.faces(rgb)], np.float32).reshape(-1, NUM_LANDMARKS, 3)

    def blendshapes(self, rgb: np.ndarray) -> np.ndarray:
        """Finds the facial actions of every face, in the order of [`FaceMesh.landmarks`].

        Args:
            rgb (`np.ndarray` of shape `(H, W, 3)`): The uint8 picture.

        Returns:
            `np.ndarray` of shape `(faces, 52)`: The float32 actions in 0..1, named by `BLENDSHAPE_NAMES`.

        Raises:
            ValueError: If the model is the one inside MediaPipe's wheel, which has no blendshapes.
        """
        if not isinstance(self._backend(), TasksBackend):
            raise ValueError(
                f"the face mesh inside MediaPipe's wheel has no blendshapes: FaceMesh(model=PATH of a {MODEL_FILE})"
            )
        shapes = [face.blendshapes for face in self.faces(rgb)]
        return np.array(shapes, np.float32).reshape(-1, len(BLENDSHAPE_NAMES))

    def _backend(self) -> BundledBackend | TasksBackend:
        """Returns the graph of this process and thread."""
        global _used_by
        if _used_by not in (None, os.getpid()):
            raise RuntimeError(
                "the face mesh was used in this process's parent before the fork, and MediaPipe does not survive that. "
                'Start the workers afresh: DataLoader(..., multiprocessing_context="spawn") or '
                'multiprocessing.set_start_method("spawn"); or use the processor in the workers only.'
            )
        key = (self.model, self.checkpoint)
        if key not in _backends.graphs:
            _used_by = os.getpid()
            _backends.graphs[key] = self._build()
        return _backends.graphs[key]

    def _build(self) -> BundledBackend | TasksBackend:
        """Makes a graph."""
        if self.model is None and (modules := bundled_models()) is not None:
            return BundledBackend(*modules)
        return TasksBackend(self._find_model())

    def _find_model(self) -> str:
        """Returns the path of the model file for the Tasks API."""
        name = str(self.model or MODEL_FILE)
        if self.model is not None and Path(name).expanduser().is_file():
            return str(Path(name).expanduser())
        if self.checkpoint is not None:
            beside = cached_file(self.checkpoint, name, _raise_exceptions_for_missing_entries=False)
            if beside is not None:
                return beside
        if self.model is not None:
            raise FileNotFoundError(f"face_mesh_model {name!r} is neither a file nor beside the checkpoint")
        return download_model()


def largest_face(landmarks: np.ndarray) -> np.ndarray | None:
    """Returns the face with the largest bounding box.

    Args:
        landmarks (`np.ndarray` of shape `(faces, 478, 3)`): The landmarks of several faces.

    Returns:
        `np.ndarray` of shape `(478, 3)`, *optional*: The landmarks of that face, or `None` if there are no faces.
    """
    if not len(landmarks):
        return None
    return landmarks[np.ptp(landmarks[..., :2], axis=1).prod(axis=1).argmax()]


def _look_closer(
    backend: BundledBackend | TasksBackend, whole: np.ndarray, boxes: Iterable[np.ndarray], faces: list[Face]
) -> None:
    """Adds to `faces` the new ones in crops round the `boxes` (left, top, right, bottom as fractions)."""
    for box in boxes:
        if len(faces) >= MAX_FACES or any(_is_same(box, face.box) for face in faces):
            continue
        crop, corner, scale = _cut(whole, box, CROP_SCALE)
        for face in backend.look(crop):
            face.landmarks = (face.landmarks * [*scale, scale[0]] + [*corner, 0]).astype(np.float32)
            is_new = _is_same(box, face.box) and not any(_is_same(face.box, other.box) for other in faces)
            if is_new and (face.score >= SURE or (face.score >= UNSURE and _fits_in(backend, whole, face.box))):
                faces.append(face)


def _fits_in(backend: BundledBackend | TasksBackend, whole: np.ndarray, face: np.ndarray) -> bool:
    """Tells whether the detector finds the face's box in its surroundings."""
    crop, corner, scale = _cut(whole, face, 2 * CROP_SCALE)
    return any(
        score >= SURE_IN_SURROUNDINGS and _is_same(box * np.tile(scale, 2) + np.tile(corner, 2), face)
        for box, score in backend.detect(crop)
    )


def _cut(whole: np.ndarray, box: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cuts the square round a box out of a picture, `scale` times the longer side of the box, as far as it lies inside.

    It also returns the square's left top corner, and its width and height, as fractions of the picture.
    """
    size = np.array(whole.shape[1::-1])
    middle, half = (box[:2] + box[2:]) / 2 * size, _side(box, size) * scale / 2
    low = np.clip(middle - half, 0, size - 1).astype(int)
    high = np.maximum(np.clip(middle + half, 0, size).astype(int), low + 1)
    return np.ascontiguousarray(whole[low[1] : high[1], low[0] : high[0]]), low / size, (high - low) / size


def _in_tiles(backend: BundledBackend | TasksBackend, whole: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the boxes that the detector finds in square tiles of a size in which it finds the smallest face."""
    height, width = whole.shape[:2]
    side = round(SMALLEST_FACE / backend.smallest_face)
    for top in _starts(height, side):
        for left in _starts(width, side):
            tile = np.ascontiguousarray(whole[top : top + side, left : left + side])
            scale = np.tile([tile.shape[1] / width, tile.shape[0] / height], 2)
            for box, _ in backend.detect(tile):
                yield box * scale + np.tile([left / width, top / height], 2)


def _starts(length: int, side: int) -> np.ndarray:
    """Returns where tiles begin that cover a length and overlap by a face."""
    count = 1 if length <= side else -(-(length - SMALLEST_FACE) // (side - SMALLEST_FACE))
    return np.linspace(0, max(length - side, 0), count).astype(int)


def _any_large(faces: list[Face], picture: np.ndarray) -> bool:
    """Tells whether a face is large enough to be found by the first look for sure."""
    size = picture.shape[1::-1]
    return any(_side(face.box, size) >= FIRST_LOOK_REACH * max(size) for face in faces)


def _side(box: np.ndarray, size: np.ndarray | tuple[int, ...]) -> float:
    """Returns the longer side in pixels of a box in fractions of a picture's width and height."""
    return float(((box[2:] - box[:2]) * size).max())


def _is_same(first: np.ndarray, second: np.ndarray) -> bool:
    """Tells whether two boxes hold the same face, which they do if the middle of one lies in the other."""

    def holds(outer: np.ndarray, inner: np.ndarray) -> bool:
        middle = (inner[:2] + inner[2:]) / 2
        return bool((outer[:2] <= middle).all() and (middle <= outer[2:]).all())

    return holds(first, second) or holds(second, first)
