"""Clips of pictures that are decoded already, read in the same way as media files."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, TypeVar

import numpy as np
from transformers.utils import logging

from .decoding.container import unwrap_source
from .frame_files import FrameFiles, as_frame_files
from .media import Clip, MediaError, MediaInfo

try:
    import av
except ImportError:
    av = None  # type: ignore[assignment]  # the error names what to install

logger = logging.get_logger(__name__)

T = TypeVar("T")
ChannelOrder = Literal["channels_first", "channels_last"]


def is_picture(item: Any) -> bool:
    """Tells whether an item is a single decoded picture.

    Args:
        item (`Any`): Anything.

    Returns:
        `bool`: Whether it is a PIL image, or an array or tensor with three dimensions.
    """
    return hasattr(item, "convert") or getattr(item, "ndim", 0) == 3


def is_decoder(source: Any) -> bool:
    """Tells whether a clip is a decoder as torchcodec's `VideoDecoder`, whose file is not known.

    Args:
        source (`Any`): A clip as [`MicroEmoVideoProcessor`] takes it.

    Returns:
        `bool`: Whether it has `get_frames_at` and `metadata`, and is not of a row of the `datasets` library.
    """
    return hasattr(source, "get_frames_at") and hasattr(source, "metadata") and unwrap_source(source) is source


def is_frames(video: Any) -> bool:
    """Tells whether a clip consists of decoded frames.

    Args:
        video (`Any`): A clip as [`MicroEmoVideoProcessor`] takes it.

    Returns:
        `bool`: Whether it is an array `(T, H, W, 3)`, a list of arrays `(H, W, 3)` or of pictures, [`FrameFiles`], or a
        decoder.
    """
    if isinstance(video, (list, tuple)):
        return len(video) > 0 and all(map(is_picture, video))
    return hasattr(video, "ndim") or isinstance(video, FrameFiles) or is_decoder(video)


def open_clip(
    source: Any, metadata: Any = None, channel_order: ChannelOrder | None = None
) -> AbstractContextManager["Clip | DecodedClip"]:
    """Opens a clip as a context manager that has `info` and `read`.

    Args:
        source (`Any`): A clip as [`MicroEmoVideoProcessor`] takes it.
        metadata (`dict` or `VideoMetadata`, *optional*): The times of decoded frames.
        channel_order (`"channels_first"` or `"channels_last"`, *optional*):
            Where the channels of decoded frames are. It is inferred from the shape by default.

    Returns:
        `Clip` or `DecodedClip`: The clip. An open [`Clip`] is returned as it is and stays open.

    Raises:
        MediaError: If the source cannot be used.
    """
    if isinstance(source, Clip):
        return nullcontext(source)
    if is_decoder(source):
        return nullcontext(DecoderClip(source))
    source = as_frame_files(source)
    if isinstance(source, list | tuple | FrameFiles) or hasattr(source, "ndim"):
        return nullcontext(DecodedClip(source, metadata, channel_order))
    return Clip(source)


class DecodedClip:
    """Reads frames that are pictures already in the way [`Clip`] reads a file.

    Args:
        frames (`Any`): An array or tensor `(n, H, W, 3)` or `(n, 3, H, W)`, a list of pictures, or [`FrameFiles`].
        metadata (`dict` or `VideoMetadata`, *optional*):
            The times of the frames: `frame_times`, or `fps` and maybe `frames_indices`. The default is 24 frames per
            second. `frames_indices` are the places of the frames in a clip that they were sampled from, which they stay.
        channel_order (`"channels_first"` or `"channels_last"`, *optional*):
            Where the channels of the frames are. It is inferred from the shape by default.

    Attributes:
        info (`MediaInfo`): The times and the number of the frames.

    Raises:
        MediaError: If there is no frame.
        ValueError: If the times do not increase, or do not fit the frames in number.
    """

    def __init__(self, frames: Any, metadata: Any = None, channel_order: ChannelOrder | None = None) -> None:
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
        if indices is not None and len(indices) != len(frames):
            raise ValueError(f"{len(frames)} decoded frames, but frames_indices for {len(indices)}")
        if times.shape != (len(frames),) or (np.diff(times) < 0).any():
            raise ValueError(f"{len(frames)} decoded frames need as many increasing times, got {times}")
        # Times repeat where a clip was filled with copies of its last frame.
        step = float(np.ptp(times)) / max(1, len(np.unique(times)) - 1) or 1 / (fps or 24)
        self._frames, self._channel_order = frames, channel_order
        self.info = MediaInfo(
            source=frames.name if isinstance(frames, FrameFiles) else f"<{len(frames)} decoded frames>",
            frame_times=times,
            has_video=True,
            has_audio=False,
            duration=float(fields.get("duration") or times[-1] + step),
            fps=float(fps or 1 / step),
            frame_indices=None if indices is None else np.asarray(indices, np.int64),
            total_frames=None if indices is None else fields.get("total_num_frames"),
        )

    def read(
        self, choose: Callable[[np.ndarray], np.ndarray], view: Callable[[Any], T]
    ) -> tuple[np.ndarray, list[float], list[T]]:
        """Returns the frames that `choose` picks, see [`Clip.read`].

        Args:
            choose (`Callable`): A function from the frame times `(n,)` to increasing indices into them.
            view (`Callable`): A function from an `av.VideoFrame` to what is kept of it.

        Returns:
            `tuple[np.ndarray, list[float], list]`: The indices, the times in seconds, and the views.
        """
        indices = choose(self.info.frame_times)
        times, views = [], []
        for picture, time in self._pictures(indices):
            frame = av.VideoFrame.from_ndarray(to_rgb(picture, self._channel_order), format="rgb24")
            views.append(view(frame))
            times.append(time)
        return indices, times, views

    def _pictures(self, indices: np.ndarray) -> Iterator[tuple[Any, float]]:
        """Yields the pictures at `indices` and their times in seconds."""
        for index in indices:
            yield self._frames[index], float(self.info.frame_times[index])


class DecoderClip(DecodedClip):
    """Reads frames from a decoder such as torchcodec's `VideoDecoder`.

    Args:
        decoder (`Any`):
            A decoder with `metadata` and with `get_frames_at`, which returns `data` `(n, 3, H, W)` and `pts_seconds`.

    Attributes:
        info (`MediaInfo`):
            The number of the frames, and their times by the average rate, which choose the frames that are decoded. The
            times that are returned are those of the decoder.

    Raises:
        MediaError: If there is no frame.
    """

    def __init__(self, decoder: Any) -> None:
        facts = decoder.metadata
        count = facts.num_frames or 0
        super().__init__(
            range(count), {"fps": facts.average_fps, "duration": facts.duration_seconds}, "channels_first"
        )
        self.info.source = str(getattr(facts, "path", None) or f"<decoder of {count} frames>")
        self._decoder = decoder
        self._start = float(getattr(facts, "begin_stream_seconds", None) or 0.0)

    def _pictures(self, indices: np.ndarray) -> Iterator[tuple[Any, float]]:
        for index in indices:  # one by one: a whole frame is large, and only its view is kept
            batch = self._decoder.get_frames_at([int(index)])
            yield batch.data[0], float(batch.pts_seconds[0]) - self._start


def to_rgb(picture: Any, channel_order: ChannelOrder | None = None) -> np.ndarray:
    """Converts a picture to RGB.

    Args:
        picture (`Any`): A PIL image, or an array or tensor of uint8, or of floats in 0..1.
        channel_order (`"channels_first"` or `"channels_last"`, *optional*):
            Where the channels are. By default they are last where the last dimension is 3.

    Returns:
        `np.ndarray` of shape `(H, W, 3)`: The uint8 picture.

    Raises:
        TypeError: If the dtype is another.
        ValueError: If the shape or the range is another.
    """
    if hasattr(picture, "convert"):
        return np.array(picture.convert("RGB"))
    if hasattr(picture, "detach"):  # a tensor, which may lie on another device
        picture = picture.detach().cpu()
    picture = np.asarray(picture)
    is_last = picture.shape[-1:] == (3,) if channel_order is None else channel_order == "channels_last"
    if picture.ndim != 3 or picture.shape[2 if is_last else 0] != 3:
        expected = {None: "(H, W, 3) or (3, H, W)", "channels_first": "(3, H, W)", "channels_last": "(H, W, 3)"}
        raise ValueError(f"a decoded frame must be {expected[channel_order]}, got {picture.shape}")
    if not is_last:
        picture = picture.transpose(1, 2, 0)
    if picture.dtype.kind == "f":
        if not (picture.min() >= 0 and picture.max() <= 1):
            raise ValueError(f"decoded frames of floats must lie in 0..1, got {picture.min()}..{picture.max()}")
        picture = np.round(picture * 255).astype(np.uint8)
    if picture.dtype != np.uint8:
        raise TypeError(f"decoded frames must be uint8, or floats in 0..1, got {picture.dtype}")
    return np.ascontiguousarray(picture)
