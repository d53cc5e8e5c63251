"""What is kept of each sampled frame: its pixels, the faces in it, and their crops."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np

from .faces.face_choice import follow_person
from .faces.face_crop import FaceCrop, face_crop
from .faces.face_mesh import FaceMesh
from .faces.face_mesh_backends import NUM_LANDMARKS, Face
from .media import MediaInfo, shown_size

try:
    import av
    from av.video.reformatter import VideoReformatter
except ImportError:
    av = None  # type: ignore[assignment]  # the error names what to install

# The face mesh looks at a copy of the frame that is at most this high; it works at 192 pixels a face inside.
MESH_HEIGHT = 360
NO_FACE = np.full((NUM_LANDMARKS, 3), np.nan, np.float32)

View = tuple[np.ndarray, list[Face], list[np.ndarray | None]]


class FrameProcessor:
    """Takes from each sampled frame of one clip what the model needs.

    Args:
        info (`MediaInfo`): The description of the clip.
        sample (`Callable`): A function from the frame times `(n,)` to increasing indices into them.
        landmarks (`Any`): Precomputed landmarks, see [`MicroEmoVideoProcessor`], or `None`.
        face_mesh (`FaceMesh`): The face mesh, which does not run with precomputed landmarks.
        settings (`dict`): The fields of the video processor for this call.
    """

    def __init__(
        self,
        info: MediaInfo,
        sample: Callable[[np.ndarray], np.ndarray],
        landmarks: Any,
        face_mesh: FaceMesh,
        settings: dict[str, Any],
    ) -> None:
        self.info = info
        self.sample = sample
        self.landmarks = landmarks
        self.face_mesh = face_mesh
        self.settings = settings
        self.side = settings["size"]["height"]
        self.frame_size = (0, 0)
        self._precomputed: Iterator[np.ndarray] | None = None
        # One for each view: swscale's set-up costs as much as its work.
        self._to_view, self._to_mesh, self._to_rgb, self._to_crop = (VideoReformatter() for _ in range(4))

    def choose(self, times: np.ndarray) -> np.ndarray:
        """Samples the frames, and finds the precomputed landmarks that belong to them.

        Args:
            times (`np.ndarray` of shape `(n,)`): The times of all frames of the clip in seconds.

        Returns:
            `np.ndarray`: The increasing indices of the sampled frames.

        Raises:
            ValueError: If precomputed landmarks have a wrong shape.
        """
        indices = self.sample(times)
        if self.landmarks is not None:
            self._precomputed = iter(self._precomputed_faces(indices, len(times)))
        return indices

    def _precomputed_faces(self, indices: np.ndarray, total: int) -> np.ndarray:
        faces = np.asarray(self.landmarks, np.float32)
        if faces.ndim != 3 or faces.shape[1] != NUM_LANDMARKS or faces.shape[2] not in (2, 3):
            raise ValueError(f"landmarks of a clip must be (n, {NUM_LANDMARKS}, 2 or 3), got {faces.shape}")
        if len(faces) not in (total, len(indices)):
            raise ValueError(
                f"{self.info.source}: landmarks for {len(faces)} frames, but the clip has {total} frames, of which "
                f"{len(indices)} are sampled"
            )
        faces = faces[indices] if len(faces) == total else faces
        return np.pad(faces, ((0, 0), (0, 0), (0, 3 - faces.shape[2])))

    def process(self, frame: "av.VideoFrame") -> View:
        """Takes the views of a frame.

        Each face has its crop at once: whose face is followed is known after the last frame, when the picture is gone.
        A second decoding, or whole pictures kept until then, would cost more than the crops of the others (1 to 2 ms
        each, 4 % of the time of a clip with three people).

        Args:
            frame (`av.VideoFrame`): A decoded frame.

        Returns:
            `tuple[np.ndarray, list[Face], list[np.ndarray]]`: The pixels `(H, W, 3)`, the faces, and the crop of each,
            which is `None` with `local_view="frame"`.

        Raises:
            ValueError: If `do_resize` is `False` and the frame has another size.
        """
        width, height, turns = shown_size(frame, self.info.pixel_aspect)
        self.frame_size = width, height
        if not self.settings["do_resize"] and (width, height) != (self.side, self.side):
            raise ValueError(
                f"{self.info.source}: do_resize=False needs frames of {self.side}x{self.side} pixels, got "
                f"{width}x{height}"
            )
        pixels = resize(self._to_view, frame, self.side, self.side, turns)

        @cache
        def whole() -> np.ndarray:
            return resize(self._to_rgb, frame, width, height, turns)

        if self._precomputed is not None:
            landmarks = next(self._precomputed)
            faces = [Face(landmarks, score=1.0)] if np.isfinite(landmarks).all() else []
        else:
            scale = min(1, MESH_HEIGHT / height)
            copy = resize(self._to_mesh, frame, max(1, round(width * scale)), max(1, round(height * scale)), turns)
            faces = self.face_mesh.faces(copy, whole)
        if self.settings["local_view"] == "frame":
            return pixels, faces, [None] * len(faces)
        return pixels, faces, [self._crop(whole(), face) for face in faces]

    def _crop(self, picture: np.ndarray, face: Face) -> np.ndarray:
        crop = av.VideoFrame.from_ndarray(np.ascontiguousarray(self._place(face).cut(picture)))
        return resize(self._to_crop, crop, self.side, self.side)

    def _place(self, face: Face) -> FaceCrop:
        scale, upright = self.settings["face_crop_scale"], self.settings["face_crop_upright"]
        return face_crop(face.landmarks, self.frame_size, scale, upright)

    def follow(self, frames: Sequence[list[Face]]) -> list[int | None]:
        """Finds the followed person's face in each frame. Precomputed landmarks are one person's.

        Args:
            frames (`Sequence[list[Face]]`): The faces of each sampled frame.

        Returns:
            `list[int | None]`: For each frame an index into its faces, or `None` if the person is not visible.
        """
        if self._precomputed is not None:
            return [0 if faces else None for faces in frames]
        return follow_person(list(frames), self.frame_size)

    def on_local_view(self, face: Face | None) -> np.ndarray:
        """Returns the landmarks on the view that the clue regions cover.

        Args:
            face (`Face` or `None`): The followed face, or `None` if it is not visible.

        Returns:
            `np.ndarray` of shape `(478, 2)`: The landmarks as fractions of the view; NaN without a face.
        """
        if face is None:
            return NO_FACE[:, :2]
        if self.settings["local_view"] == "frame":
            return face.landmarks[:, :2]
        return self._place(face).place(face.landmarks, self.frame_size)


def resize(
    reformatter: "VideoReformatter", frame: "av.VideoFrame", width: int, height: int, turns: int = 0
) -> np.ndarray:
    """Converts a frame to RGB of a size, bilinearly.

    Args:
        reformatter (`VideoReformatter`): The converter, which is fast if it is used for equal conversions.
        frame (`av.VideoFrame`): A decoded frame as stored.
        width (`int`): The width of the result in pixels.
        height (`int`): The height of the result in pixels.
        turns (`int`, *optional*, defaults to 0): The number of quarter turns to the left that turn the frame upright.

    Returns:
        `np.ndarray` of shape `(height, width, 3)`: The uint8 picture.
    """
    stored = (height, width) if turns % 2 else (width, height)
    resized = reformatter.reformat(frame, *stored, "rgb24", interpolation="BILINEAR", threads=1)
    return np.ascontiguousarray(np.rot90(resized.to_ndarray(), turns))
