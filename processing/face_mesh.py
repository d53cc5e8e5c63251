"""MediaPipe Face Mesh: 478 landmarks of every face in a frame (paper 3.2, the clues' positions)."""

import os
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
from huggingface_hub import is_offline_mode
from transformers.utils import cached_file, logging

logger = logging.get_logger(__name__)

NUM_LANDMARKS = 478
MAX_FACES = 8
MIN_CONFIDENCE = 0.5
# The full-range detector takes a brick wall for a face at 0.6, and heeds no threshold of its own.
SECOND_LOOK_CONFIDENCE = 0.65
# Side of the second look's crop over the side of the detector's face box.
CROP_SCALE = 1.6

MODEL_FILE = "face_landmarker.task"
MODEL_URL = (
    "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task"
)

# One MediaPipe graph per thread: a graph shared by threads crashes.
_graphs = threading.local()
# The process that has run a graph, and so, after a fork, also its children's knowledge that their parent has.
_used_by: int | None = None
_stderr_lock = threading.Lock()


class FaceMesh:
    """Finds faces and their landmarks in single frames, independent of the frames before.

    Holds no MediaPipe object itself: graphs are made on first use, one per process and thread, so that it can be
    pickled, shared by threads and sent to workers. A process that has run a graph cannot be forked and run one again.

    Args:
        model: Path of a `face_landmarker.task` for MediaPipe's Tasks API. Without it the model inside MediaPipe's own
            wheel is used (`mediapipe.solutions`, up to 0.10.21), and where that has none, the file beside the
            checkpoint or the official one, downloaded once. The Tasks API has no full-range detector, hence no second
            look for small faces.
        checkpoint: Folder or Hub id of the checkpoint, where `model` and `face_landmarker.task` are looked for.
    """

    def __init__(self, model: str | os.PathLike | None = None, checkpoint: str | os.PathLike | None = None):
        self.model = model
        self.checkpoint = checkpoint

    def landmarks(self, rgb: np.ndarray) -> np.ndarray:
        """The landmarks of every face.

        Where the mesh's own short-range detector finds no face, a second look takes the full-range detector's boxes,
        enlarged: small faces and profiles.

        Args:
            rgb: (H, W, 3) uint8.

        Returns:
            (faces, 478, 3) float32: x and y as fractions of width and height, z in the unit of x; (0, 478, 3) where
            there is no face. Coordinates may lie outside 0..1 where a face is cut by the frame's edge.

        Raises:
            ValueError: for another shape or dtype.
            ImportError: where MediaPipe or the OpenCV that it needs cannot be imported.
            RuntimeError: in a forked process whose parent has run a face mesh before.
            OSError: where no model file can be had.
        """
        if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
            raise ValueError(f"the face mesh wants an (H, W, 3) uint8 picture, got {rgb.shape} {rgb.dtype}")
        return self._graph()(np.ascontiguousarray(rgb))

    def _graph(self):
        global _used_by
        if _used_by not in (None, os.getpid()):
            raise RuntimeError(
                "the face mesh was used in this process's parent before the fork, and MediaPipe does not survive that. "
                'Start the workers afresh: DataLoader(..., multiprocessing_context="spawn") or '
                'multiprocessing.set_start_method("spawn"); or use the processor in the workers only.'
            )
        graphs = _graphs.__dict__
        key = (self.model, self.checkpoint)
        if key not in graphs:
            _used_by = os.getpid()
            graphs[key] = self._build()
        return graphs[key]

    def _build(self):
        if self.model is None and (solutions := _solutions()) is not None:
            return _BundledGraph(*solutions)
        return _TasksGraph(self._find_model())

    def _find_model(self) -> str:
        name = str(self.model or MODEL_FILE)
        if self.model is not None and Path(name).expanduser().is_file():
            return str(Path(name).expanduser())
        if self.checkpoint is not None:
            beside = cached_file(self.checkpoint, name, _raise_exceptions_for_missing_entries=False)
            if beside is not None:
                return beside
        if self.model is not None:
            raise FileNotFoundError(f"face_mesh_model {name!r} is neither a file nor beside the checkpoint")
        return _download_model()


def largest_face(landmarks: np.ndarray) -> np.ndarray | None:
    """The face with the largest bounding box: (478, 3) out of (faces, 478, 3), `None` out of no faces."""
    if not len(landmarks):
        return None
    return landmarks[np.ptp(landmarks[..., :2], axis=1).prod(axis=1).argmax()]


class _BundledGraph:
    """The face mesh inside MediaPipe's wheel, with the full-range detector for the second look."""

    def __init__(self, face_mesh, face_detection):
        self._face_detection = face_detection
        self._detector = None
        self._has_seen_a_face = False
        with _quiet_stderr():
            self._mesh = face_mesh.FaceMesh(
                static_image_mode=True,
                max_num_faces=MAX_FACES,
                refine_landmarks=True,
                min_detection_confidence=MIN_CONFIDENCE,
            )

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        faces = self._look(rgb)
        return faces if len(faces) else self._second_look(rgb)

    def _look(self, rgb: np.ndarray) -> np.ndarray:
        # Its last start-up line comes with the first face.
        with nullcontext() if self._has_seen_a_face else _quiet_stderr():
            faces = self._mesh.process(rgb).multi_face_landmarks or ()
        self._has_seen_a_face |= len(faces) > 0
        return _to_array(face.landmark for face in faces)

    def _second_look(self, rgb: np.ndarray) -> np.ndarray:
        if self._detector is None:
            with _quiet_stderr():
                self._detector = self._face_detection.FaceDetection(model_selection=1)
                self._detector.process(rgb)
        height, width = rgb.shape[:2]
        faces = []
        for detection in self._detector.process(rgb).detections or ():
            if detection.score[0] < SECOND_LOOK_CONFIDENCE:
                continue
            box = detection.location_data.relative_bounding_box
            half = max(box.width * width, box.height * height) * CROP_SCALE / 2
            center = np.array([(box.xmin + box.width / 2) * width, (box.ymin + box.height / 2) * height])
            (left, top), (right, bottom) = np.clip([center - half, center + half], 0, (width, height)).astype(int)
            if right - left > 1 and bottom - top > 1:
                face = largest_face(self._look(np.ascontiguousarray(rgb[top:bottom, left:right])))
                if face is not None:
                    across, down = (right - left) / width, (bottom - top) / height
                    faces.append(face * [across, down, across] + [left / width, top / height, 0])
        return np.array(faces, np.float32).reshape(-1, NUM_LANDMARKS, 3)


class _TasksGraph:
    """MediaPipe's Tasks API with a model file."""

    def __init__(self, model: str):
        try:
            import mediapipe
            from mediapipe.tasks.python import BaseOptions, vision
        except ImportError as error:
            raise _explained(error) from error
        self._image = lambda rgb: mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=rgb)
        options = vision.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_buffer=Path(model).read_bytes()),
            num_faces=MAX_FACES,
            min_face_detection_confidence=MIN_CONFIDENCE,
        )
        with _quiet_stderr():
            self._landmarker = vision.FaceLandmarker.create_from_options(options)
            self._landmarker.detect(self._image(np.zeros((32, 32, 3), np.uint8)))

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        return _to_array(self._landmarker.detect(self._image(rgb)).face_landmarks)


def _to_array(faces) -> np.ndarray:
    points = [[(point.x, point.y, point.z) for point in face] for face in faces]
    return np.array(points, np.float32).reshape(-1, NUM_LANDMARKS, 3)


def _solutions():
    """MediaPipe's `face_mesh` and `face_detection` with the models in its wheel; `None` in releases without them."""
    try:
        import mediapipe
    except ImportError as error:
        raise _explained(error) from error
    try:
        from mediapipe.python.solutions import face_detection, face_mesh
    except ImportError:
        return None
    bundled = Path(mediapipe.__file__).parent / "modules" / "face_landmark" / "face_landmark_front_cpu.binarypb"
    return (face_mesh, face_detection) if bundled.is_file() else None


def _explained(error: ImportError) -> ImportError:
    if isinstance(error, ModuleNotFoundError) and error.name == "mediapipe":
        return ImportError("MicroEmo finds faces with MediaPipe: pip install mediapipe")
    return ImportError(
        f"MediaPipe cannot be imported: {error}. Where OpenCV misses a system library such as libGL, its headless "
        "build needs none:\n    pip uninstall -y opencv-contrib-python opencv-python; "
        "pip install --force-reinstall --no-deps opencv-contrib-python-headless"
    )


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Nothing reaches file descriptor 2: MediaPipe's start-up lines come from C++ and heed no setting."""
    with _stderr_lock:
        saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            os.close(nowhere)


def _download_model() -> str:
    """The official model file, fetched once into the Hugging Face cache."""
    from huggingface_hub.constants import HF_HOME

    target = Path(HF_HOME) / "microemo" / MODEL_FILE
    if target.is_file():
        return str(target)
    part = target.with_name(f"{MODEL_FILE}.{os.getpid()}.part")
    try:
        if is_offline_mode():
            raise urllib.error.URLError("offline mode")
        logger.warning(f"Downloading MediaPipe's face landmark model (4 MB) once to {target}")
        target.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(MODEL_URL, timeout=60) as response, part.open("wb") as file:
            shutil.copyfileobj(response, file)
        part.replace(target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OSError(
            f"this MediaPipe brings no face mesh model, and {MODEL_URL} cannot be reached ({error}). Three ways to give "
            f"it one: pass face_mesh_model=PATH of a {MODEL_FILE}; put {MODEL_FILE} beside the checkpoint; or install "
            "mediapipe==0.10.21, the last release with the model inside."
        ) from error
    return str(target)
