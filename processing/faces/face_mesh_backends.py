"""The two ways to run MediaPipe: the models inside its wheel, or its Tasks API with a `face_landmarker.task`.

Both find faces in one picture, independent of the pictures before, with the score that the face detector gave them.
"""

import http.client
import os
import threading
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import is_offline_mode
from transformers.utils import logging

from ...utils.atomic_files import NoSpaceError, atomic_file

logger = logging.get_logger(__name__)

NUM_LANDMARKS = 478
MAX_FACES = 8
# Below, a picture's detection is not even looked at; whether it is a face is for `FaceMesh` to judge.
MIN_CONFIDENCE = 0.5

MODEL_FILE = "face_landmarker.task"
MODEL_URL = (
    "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task"
)
BLENDSHAPE_NAMES = (
    *("_neutral", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff"),
    *("cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight"),
    *("eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight"),
    *("eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen"),
    *("jawRight", "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight"),
    *("mouthFunnel", "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight"),
    *("mouthPucker", "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper"),
    *("mouthSmileLeft", "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft"),
    *("mouthUpperUpRight", "noseSneerLeft", "noseSneerRight"),
)

_stderr_lock = threading.Lock()


@dataclass
class Face:
    """Describes a face in a picture.

    Attributes:
        landmarks (`np.ndarray` of shape `(478, 3)`):
            The float32 landmarks: x and y as fractions of the picture's width and height, z in the unit of x.
        score (`float`): The score of the face detector in 0..1.
        blendshapes (`np.ndarray` of shape `(52,)`, *optional*):
            The float32 facial actions of `BLENDSHAPE_NAMES` in 0..1; `None` if the model has none.
    """

    landmarks: np.ndarray
    score: float
    blendshapes: np.ndarray | None = None

    @property
    def box(self) -> np.ndarray:
        """The left, top, right and bottom of the landmarks, `(4,)`."""
        points = self.landmarks[:, :2]
        return np.concatenate([points.min(0), points.max(0)])


class BundledBackend:
    """Runs the models inside MediaPipe's wheel (up to 0.10.21): short-range detector, mesh, full-range detector.

    Args:
        solution_base (`ModuleType`): The module `mediapipe.python.solution_base`.
        face_detection (`ModuleType`): The module `mediapipe.python.solutions.face_detection`.
    """

    # The smallest face that `detect` finds in nearly every case, over the longer side of the picture.
    smallest_face = 1 / 14

    def __init__(self, solution_base: Any, face_detection: Any) -> None:
        self._face_detection = face_detection
        self._detector: Any = None
        self._has_seen_a_face = False
        # As `mediapipe.solutions.face_mesh.FaceMesh` builds it, and the detections too, for their scores.
        with _quiet_stderr():
            self._mesh = solution_base.SolutionBase(
                binary_graph_path="mediapipe/modules/face_landmark/face_landmark_front_cpu.binarypb",
                side_inputs={"num_faces": MAX_FACES, "with_attention": True, "use_prev_landmarks": False},
                calculator_params={
                    "facedetectionshortrangecpu__facedetectionshortrange__facedetection__TensorsToDetectionsCalculator"
                    ".min_score_thresh": MIN_CONFIDENCE,
                    "facelandmarkcpu__ThresholdingCalculator.threshold": 0.5,
                },
                outputs=["multi_face_landmarks", "face_detections"],
            )

    def look(self, rgb: np.ndarray) -> list[Face]:
        """Finds the faces in a picture with their landmarks.

        Args:
            rgb (`np.ndarray` of shape `(H, W, 3)`): The uint8 picture.

        Returns:
            `list[Face]`: At most `MAX_FACES` faces.
        """
        # Its last start-up line comes with the first face.
        with nullcontext() if self._has_seen_a_face else _quiet_stderr():
            result = self._mesh.process({"image": rgb})
        faces = [_points(face.landmark) for face in result.multi_face_landmarks or ()]
        self._has_seen_a_face |= len(faces) > 0
        detections = _best_first(result.face_detections)
        return [Face(face, _score_of(face, detections)) for face in faces]

    def detect(self, rgb: np.ndarray) -> list[tuple[np.ndarray, float]]:
        """Finds the boxes of faces in a picture.

        Args:
            rgb (`np.ndarray` of shape `(H, W, 3)`): The uint8 picture.

        Returns:
            `list[tuple[np.ndarray, float]]`: Boxes (left, top, right, bottom as fractions) with their scores, the best
            one first.
        """
        if self._detector is None:
            with _quiet_stderr():
                self._detector = self._face_detection.FaceDetection(model_selection=1)
                self._detector.process(rgb)
        return _best_first(self._detector.process(rgb).detections)


class TasksBackend:
    """Runs MediaPipe's Tasks API with a `face_landmarker.task`, whose own detector is a short-range one.

    Args:
        model (`str`): The path of the file.

    Raises:
        ImportError: If MediaPipe or the OpenCV that it needs cannot be imported.
        ValueError: If the file is no `face_landmarker.task`.
    """

    smallest_face = 1 / 7

    def __init__(self, model: str) -> None:
        try:
            import mediapipe
            from mediapipe.tasks.python import BaseOptions, vision
        except ImportError as error:
            raise explained(error) from error
        self._image = lambda rgb: mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=rgb)
        try:
            with zipfile.ZipFile(model) as bundle:
                detector = bundle.read("face_detector.tflite")
                has_blendshapes = "face_blendshapes.tflite" in bundle.namelist()
        except (zipfile.BadZipFile, KeyError) as error:
            raise ValueError(f"{model} is not a {MODEL_FILE} of MediaPipe: {error}") from error
        landmarker_options = vision.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_buffer=Path(model).read_bytes()),
            num_faces=MAX_FACES,
            min_face_detection_confidence=MIN_CONFIDENCE,
            output_face_blendshapes=has_blendshapes,
        )
        detector_options = vision.FaceDetectorOptions(
            base_options=BaseOptions(model_asset_buffer=detector), min_detection_confidence=MIN_CONFIDENCE
        )
        with _quiet_stderr():
            self._landmarker = vision.FaceLandmarker.create_from_options(landmarker_options)
            self._detector = vision.FaceDetector.create_from_options(detector_options)
            self._landmarker.detect(self._image(np.zeros((32, 32, 3), np.uint8)))
            self._detector.detect(self._image(np.zeros((32, 32, 3), np.uint8)))

    def look(self, rgb: np.ndarray) -> list[Face]:
        """Finds the faces in a picture with their landmarks, see [`BundledBackend.look`].

        Args:
            rgb (`np.ndarray` of shape `(H, W, 3)`): The uint8 picture.

        Returns:
            `list[Face]`: At most `MAX_FACES` faces.
        """
        detections = self.detect(rgb)
        if not detections:
            return []
        result = self._landmarker.detect(self._image(rgb))
        faces = [Face(face, _score_of(face, detections)) for face in map(_points, result.face_landmarks)]
        # There are no blendshapes if the file has no such model.
        for face, shapes in zip(faces, result.face_blendshapes, strict=False):
            face.blendshapes = np.array([shape.score for shape in shapes], np.float32)
        return faces

    def detect(self, rgb: np.ndarray) -> list[tuple[np.ndarray, float]]:
        """Finds the boxes of faces in a picture, see [`BundledBackend.detect`].

        Args:
            rgb (`np.ndarray` of shape `(H, W, 3)`): The uint8 picture.

        Returns:
            `list[tuple[np.ndarray, float]]`: Boxes (left, top, right, bottom as fractions) with their scores, the best
            one first.
        """
        height, width = rgb.shape[:2]
        boxes = []
        for detection in self._detector.detect(self._image(rgb)).detections:
            box = detection.bounding_box
            corners = [box.origin_x, box.origin_y, box.origin_x + box.width, box.origin_y + box.height]
            boxes.append((np.array(corners) / [width, height, width, height], detection.categories[0].score))
        return sorted(boxes, key=_negative_score)


def _points(landmarks: Iterable[Any]) -> np.ndarray:
    return np.array([(point.x, point.y, point.z) for point in landmarks], np.float32)


def _best_first(detections: Iterable[Any] | None) -> list[tuple[np.ndarray, float]]:
    boxes = []
    for detection in detections or ():
        box = detection.location_data.relative_bounding_box
        corners = np.array([box.xmin, box.ymin, box.xmin + box.width, box.ymin + box.height])
        boxes.append((corners, detection.score[0]))
    return sorted(boxes, key=_negative_score)


def _negative_score(detection: tuple[np.ndarray, float]) -> float:
    return -detection[1]


def _score_of(face: np.ndarray, detections: list[tuple[np.ndarray, float]]) -> float:
    """Returns the score of the detection that a mesh came from, whose middle is next to the mesh's."""
    if not detections:
        return 0.0
    middle = (face[:, :2].min(0) + face[:, :2].max(0)) / 2
    return min(detections, key=lambda detection: np.abs((detection[0][:2] + detection[0][2:]) / 2 - middle).sum())[1]


def bundled_models() -> tuple[Any, Any] | None:
    """Imports MediaPipe's modules that read the models in its wheel.

    Returns:
        `tuple[ModuleType, ModuleType]`, *optional*: The arguments of [`BundledBackend`], or `None` in releases without
        these models.

    Raises:
        ImportError: If MediaPipe or the OpenCV that it needs cannot be imported.
    """
    try:
        import mediapipe
    except ImportError as error:
        raise explained(error) from error
    try:
        from mediapipe.python import solution_base
        from mediapipe.python.solutions import face_detection
    except ImportError:
        return None
    bundled = Path(mediapipe.__file__).parent / "modules" / "face_landmark" / "face_landmark_front_cpu.binarypb"
    return (solution_base, face_detection) if bundled.is_file() else None


def explained(error: ImportError) -> ImportError:
    """Explains why MediaPipe cannot be imported and how to install it.

    Args:
        error (`ImportError`): The error of the import.

    Returns:
        `ImportError`: An error with a message that says what to do.
    """
    if isinstance(error, ModuleNotFoundError) and error.name == "mediapipe":
        return ImportError("MicroEmo finds faces with MediaPipe: pip install mediapipe")
    return ImportError(
        f"MediaPipe cannot be imported: {error}. Where OpenCV misses a system library such as libGL, its headless "
        "build needs none:\n    pip uninstall -y opencv-contrib-python opencv-python; "
        "pip install --force-reinstall --no-deps opencv-contrib-python-headless"
    )


def download_model() -> str:
    """Downloads the official model file once into the Hugging Face cache.

    Returns:
        `str`: The path of the file.

    Raises:
        OSError: If the file cannot be downloaded.
        NoSpaceError: If there is no room for it.
    """
    from huggingface_hub.constants import HF_HOME

    target = Path(HF_HOME) / "microemo" / MODEL_FILE
    if target.is_file():
        return str(target)
    try:
        if is_offline_mode():
            raise urllib.error.URLError("offline mode")
        logger.warning(f"Downloading MediaPipe's face landmark model (4 MB) once to {target}")
        with atomic_file(target) as part, urllib.request.urlopen(MODEL_URL, timeout=60) as response:
            part.write_bytes(response.read())
    except NoSpaceError:
        raise
    except (OSError, http.client.HTTPException) as error:  # the second where the file breaks off
        raise OSError(
            f"this MediaPipe brings no face mesh model, and {MODEL_URL} cannot be reached ({error}). Three ways to give "
            f"it one: pass face_mesh_model=PATH of a {MODEL_FILE}; put {MODEL_FILE} beside the checkpoint; or install "
            "mediapipe==0.10.21, the last release with the model inside."
        ) from error
    return str(target)


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Silences file descriptor 2, since MediaPipe's start-up lines come from C++ and no setting turns them off."""
    with _stderr_lock:
        saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            os.close(nowhere)
