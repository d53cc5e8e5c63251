"""Single frames of people who act, with the amplitudes of their actions: what an image encoder learns from.

Every frame is another moment of another person under other light, before another background. The face crop is that of the
video processor: the face mesh runs on the picture, and its landmarks place the crop.
"""

from functools import partial
from pathlib import Path

import numpy as np

from ...processing.faces.face_crop import face_crop
from ...processing.faces.face_mesh import FaceMesh
from ...processing.faces.face_mesh_backends import BLENDSHAPE_NAMES
from ...processing.frame_views import resize
from ...utils.atomic_files import atomic_file
from .corpus_files import in_processes
from .face_acting import ACTIONS
from .photographs import Person, actor_of, read_photographs
from .picture_quality import Quality, draw_backdrop

try:
    import av
    import cv2
    from av.video.reformatter import VideoReformatter
except ImportError:
    av = None  # type: ignore[assignment]
    cv2 = None  # type: ignore[assignment]

_NAMES = list(ACTIONS)
_SMILE, _JAW, _BLINK = (_NAMES.index(name) for name in ("smile", "jaw", "blink"))
_MOUTH = [_NAMES.index(name) for name in ("smile", "frown", "lip_press")]
_BROWS = [_NAMES.index(name) for name in ("brow_raise", "brow_furrow")]
SIDE = 112  # pixels of a frame and of a face crop
_PICTURE = 256  # pixels of the shorter side of the pictures on which the face mesh runs
_OF_PERSON = 40  # frames of a person in a file
ARRAYS = ("frames", "faces", "amplitudes", "real_smiles", "blendshapes", "people")


def draw_moment(rng: np.random.Generator, can_smile: bool) -> tuple[np.ndarray, float]:
    """Draws what a face does at a moment.

    Args:
        rng (`np.random.Generator`): The generator of the choices.
        can_smile (`bool`): Whether there is a photograph of a real smile.

    Returns:
        `tuple[np.ndarray, float]`: The amplitudes `(A,)` of the actions, and the stage of the real smile. The smile's
        amplitude is 0 where the smile is real.
    """
    amplitudes = np.zeros(len(ACTIONS))
    real_smile = 0.0

    def level() -> float:
        return float(rng.choice([rng.uniform(0.15, 1.05), rng.uniform(0.6, 1.05)]))

    mouth = rng.random()
    if can_smile and mouth < 0.3:
        real_smile = min(1.0, level() + 0.1)
    elif mouth < 0.68:
        amplitudes[rng.choice(_MOUTH)] = level()
    if rng.random() < 0.42:
        amplitudes[rng.choice(_BROWS)] = level()
    if rng.random() < 0.22:
        amplitudes[_NAMES.index("eye_widening")] = level()
    elif rng.random() < 0.16:
        amplitudes[_BLINK] = rng.uniform(0.3, 1.0)
    if rng.random() < 0.4:
        amplitudes[_JAW] = rng.uniform(0.1, 1.0) * (0.5 if amplitudes[_MOUTH].any() else 0.9)
    return amplitudes, real_smile


def render_moment(
    person: Person, amplitudes: np.ndarray, real_smile: float, rng: np.random.Generator, strength: float = 1.0
) -> np.ndarray:
    """Renders a picture of a person at a moment, under a view, light and quality of its own.

    Args:
        person ([`Person`]): The person.
        amplitudes (`np.ndarray` of shape `(A,)`): The amplitudes of the actions.
        real_smile (`float`): The stage of the real smile.
        rng (`np.random.Generator`): The generator of all the rest.
        strength (`float`, *optional*, defaults to 1.0): A factor of what the camera and the codec change.

    Returns:
        `np.ndarray` of shape `(H, W, 3)`: The uint8 RGB picture.
    """
    actor = actor_of(person)
    width = int(_PICTURE * rng.choice([1.0, 4 / 3, 16 / 9, 0.75]))
    size = (width, _PICTURE) if width >= _PICTURE else (_PICTURE, round(_PICTURE**2 / width))
    face_width = rng.uniform(0.28, 0.62) * _PICTURE / size[0]
    shift = rng.uniform([-0.2, -0.08], [0.2, 0.08])
    view = actor.camera(size, face_width, shift, np.radians(rng.normal(0, 6)), bool(rng.random() < 0.5))
    turn = np.radians(rng.normal(0, [7, 5])).clip(-0.25, 0.25)
    backdrop = draw_backdrop(size, rng) if rng.random() < 0.7 else None
    smile = np.array([real_smile]) if real_smile else None
    frame = next(actor.act(amplitudes[None], view[None], size, real_smile=smile, turns=turn[None], backdrop=backdrop))
    return Quality.draw(rng, strength).apply(frame, rng)


class Views:
    """Takes from a picture what the processor gives the image encoder: the picture and the face crop, both small.

    Args:
        mesh ([`FaceMesh`]): The face mesh.
        upright (`bool`): Whether the face crop turns with the head.
    """

    def __init__(self, mesh: FaceMesh, upright: bool):
        self._mesh, self._upright = mesh, upright
        self._to_crop, self._to_frame = VideoReformatter(), VideoReformatter()

    def __call__(self, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Takes the views of the largest face's picture.

        Args:
            picture (`np.ndarray` of shape `(H, W, 3)`): The uint8 RGB picture.

        Returns:
            `tuple[np.ndarray, np.ndarray, np.ndarray]`, *optional*: The frame and the face crop
            `(SIDE, SIDE, 3)`, and the blendshapes `(52,)`, NaN where the face mesh has none; `None` without a face.
        """
        faces = self._mesh.faces(picture)
        if not faces:
            return None
        face = max(faces, key=lambda found: np.prod(found.box[2:] - found.box[:2]))
        height, width = picture.shape[:2]
        crop = face_crop(face.landmarks, (width, height), upright=self._upright).cut(picture)
        shapes = np.full(len(BLENDSHAPE_NAMES), np.nan, np.float32) if face.blendshapes is None else face.blendshapes
        small = [
            resize(reformatter, av.VideoFrame.from_ndarray(np.ascontiguousarray(view)), SIDE, SIDE)
            for reformatter, view in ((self._to_frame, picture), (self._to_crop, crop))
        ]
        return small[0], small[1], shapes


def make_frames(
    folder: str | Path,
    photographs: str | Path,
    split: str,
    count: int,
    face_mesh_model: str | Path | None = None,
    upright: bool = True,
    num_workers: int = 1,
    seed: int = 0,
    progress: bool = True,
) -> list[Path]:
    """Makes frames of the people of a split. A run that was stopped goes on where it was.

    Args:
        folder (`str` or `Path`): The folder for the files, which is made if it does not exist.
        photographs (`str` or `Path`): The folder of the photographs, see [`read_photographs`].
        split (`str`): The split of the people.
        count (`int`): The number of frames, rounded up to whole files.
        face_mesh_model (`str` or `Path`, *optional*):
            The path of a `face_landmarker.task`, which also reads blendshapes. By default MediaPipe's bundled mesh runs,
            which has none.
        upright (`bool`, *optional*, defaults to `True`): Whether face crops turn with the head.
        num_workers (`int`, *optional*, defaults to 1): The number of processes.
        seed (`int`, *optional*, defaults to 0): The seed.
        progress (`bool`, *optional*, defaults to `True`): Whether to show a progress bar.

    Returns:
        `list[Path]`: The files, each with the `ARRAYS` of 40 frames of one person.

    Raises:
        ValueError: If a number is too small, or if there are no people.
        ImportError: If PyAV or OpenCV is not installed.
    """
    from tqdm.auto import tqdm

    if av is None or cv2 is None:
        raise ImportError("frames of people who act are made with PyAV and OpenCV: pip install av mediapipe")
    for name, value in (("count", count), ("num_workers", num_workers)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    people = read_photographs(photographs, split)
    rng = np.random.default_rng([seed, len(people)])
    order = np.concatenate([rng.permutation(len(people)) for _ in range(-(-count // (_OF_PERSON * len(people))))])
    jobs = [
        (folder / f"{split}-{number:05}.npz", people[order[number]], (seed, number))
        for number in range(-(-count // _OF_PERSON))
    ]
    # Files of one person come one after the other: each process then makes an actor once.
    waiting = sorted((job for job in jobs if not job[0].is_file()), key=lambda job: (job[1].id, job[2]))
    make = partial(_make_file, str(face_mesh_model) if face_mesh_model else None, upright)
    num_workers = min(num_workers, len(waiting))
    with tqdm(
        total=len(jobs), initial=len(jobs) - len(waiting), desc="Frames", unit="file", disable=not progress
    ) as bar:
        for _ in in_processes(make, waiting, num_workers, _use_one_thread, chunksize=5):
            bar.update()
    return [job[0] for job in jobs]


def _use_one_thread() -> None:
    cv2.setNumThreads(1)


def _make_file(model: str | None, upright: bool, job: tuple[Path, Person, tuple[int, int]]) -> None:
    path, person, seed = job
    rng = np.random.default_rng([*seed, 1])
    views = Views(FaceMesh(model), upright)
    rows: list[tuple] = []
    can_smile = person.smiling is not None
    while len(rows) < _OF_PERSON:
        amplitudes, real_smile = draw_moment(rng, can_smile)
        seen = views(render_moment(person, amplitudes, real_smile, rng))
        if seen is not None:
            frame, crop, shapes = seen
            amplitudes[_SMILE] = max(amplitudes[_SMILE], real_smile)
            rows.append((frame, crop, amplitudes.astype(np.float32), np.float32(real_smile), shapes, person.id))
    with atomic_file(path) as part, open(part, "wb") as file:
        np.savez(
            file, **{name: np.stack(column) for name, column in zip(ARRAYS, zip(*rows, strict=True), strict=True)}
        )


def read_frames(files: list[Path]) -> dict[str, np.ndarray]:
    """Reads frames of people who act.

    Args:
        files (`list[Path]`): The files of [`make_frames`].

    Returns:
        `dict[str, np.ndarray]`: `frames` and `faces` `(F, SIDE, SIDE, 3)` uint8, `amplitudes` `(F, A)`, `real_smiles`
        `(F,)`, `blendshapes` `(F, 52)` and `people` `(F,)`.
    """
    parts: dict[str, list[np.ndarray]] = {name: [] for name in ARRAYS}
    for path in files:
        with np.load(path, allow_pickle=False) as content:
            for name in ARRAYS:
                parts[name].append(content[name])
    return {name: np.concatenate(of_files) for name, of_files in parts.items()}
