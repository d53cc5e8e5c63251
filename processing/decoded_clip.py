"""Clips of pictures that are decoded already, read in the same way as media files."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
from transformers.utils import logging

from .media import Clip, MediaError, MediaInfo

try:
    import av
except ImportError:
    av = None

logger = logging.get_logger(__name__)


def open_clip(source: Any, metadata: Any) -> Any:
    """Opens a clip as a context manager that has `info` and `read`.

    Args:
        source (`Any`): A clip as [`MicroEmoVideoProcessor`] takes it.
        metadata (`dict` or `VideoMetadata`, *optional*): The times of decoded frames.

    Returns:
        `Clip` or `DecodedClip`: The clip. An open [`Clip`] is returned as it is and stays open.

    Raises:
        MediaError: If the source cannot be used.
    """
    if isinstance(source, Clip):
        return nullcontext(source)
    if isinstance(source, list | tuple) or hasattr(source, "ndim"):
        return nullcontext(DecodedClip(source, metadata))
    return Clip(source)


class DecodedClip:
    """Reads frames that are pictures already in the way [`Clip`] reads a file.

    Args:
        frames (`Any`): An array or tensor `(n, H, W, 3)` or `(n, 3, H, W)`, or a list of pictures.
        metadata (`dict` or `VideoMetadata`, *optional*):
            The times of the frames: `frame_times`, or `fps` and maybe `frames_indices`. The default is 24 frames per
            second.

    Attributes:
        info (`MediaInfo`): The times and the number of the frames.

    Raises:
        MediaError: If there is no frame.
        ValueError: If the times do not increase, or do not fit the frames in number.
    """

    def __init__(self, frames: Any, metadata: Any) -> None:
        # `VideoMetadata` is a mapping of fields of which most are None.
        fields = {} if metadata is None else {name: metadata[name] for name in metadata if metadata[name] is not None}
        times, fps, indices = (fields.get(name) for name in ("frame_times", "fps", "frames_indices"))
        if not len(frames):
            raise MediaError("a clip of decoded frames is empty")
        if times is None:
            if fps is None:
                logger.warning("decoded frames without video_metadata: 24 frames per second are assumed")
            times = (np.arange(len(frames)) if indices is None else np.asarray(indices)) / (fps or 24)
        times = np.asarray(times, np.float64)
        if times.shape != (len(frames),) or (np.diff(times) <= 0).any():
            raise ValueError(f"{len(frames)} decoded frames need as many increasing times, got {times}")
        step = float(np.diff(times).mean()) if len(times) > 1 else 1 / (fps or 24)
        self._frames = frames
        self.info = MediaInfo(
            source=f"<{len(frames)} decoded frames>",
            frame_times=times,
            has_video=True,
            has_audio=False,
            duration=float(fields.get("duration") or times[-1] + step),
            fps=float(fps or 1 / step),
        )

    def read(
        self, choose: Callable[[np.ndarray], np.ndarray], view: Callable[[Any], Any]
    ) -> tuple[np.ndarray, np.ndarray, list]:
        """Returns the frames that `choose` picks, see [`Clip.read`].

        Args:
            choose (`Callable`): A function from the frame times `(n,)` to increasing indices into them.
            view (`Callable`): A function from an `av.VideoFrame` to what is kept of it.

        Returns:
            `tuple[np.ndarray, np.ndarray, list]`: The indices, the times in seconds, and the views.
        """
        indices = choose(self.info.frame_times)
        frames = (av.VideoFrame.from_ndarray(to_rgb(self._frames[index]), format="rgb24") for index in indices)
        return indices, self.info.frame_times[indices], [view(frame) for frame in frames]


def to_rgb(picture: Any) -> np.ndarray:
    """Converts a picture to RGB.

    Args:
        picture (`Any`): A PIL image, or an array or tensor of uint8, or of floats in 0..1.

    Returns:
        `np.ndarray` of shape `(H, W, 3)`: The uint8 picture.

    Raises:
        TypeError: If the dtype is another.
        ValueError: If the shape or the range is another.
    """
    if hasattr(picture, "convert"):
        return np.array(picture.convert("RGB"))
    picture = np.asarray(picture)
    if picture.ndim != 3 or 3 not in (picture.shape[0], picture.shape[2]):
        raise ValueError(f"a decoded frame must be (H, W, 3) or (3, H, W), got {picture.shape}")
    if picture.shape[2] != 3:
        picture = picture.transpose(1, 2, 0)
    if picture.dtype.kind == "f":
        if not (picture.min() >= 0 and picture.max() <= 1):
            raise ValueError(f"decoded frames of floats must lie in 0..1, got {picture.min()}..{picture.max()}")
        picture = np.round(picture * 255).astype(np.uint8)
    if picture.dtype != np.uint8:
        raise TypeError(f"decoded frames must be uint8, or floats in 0..1, got {picture.dtype}")
    return np.ascontiguousarray(picture)
