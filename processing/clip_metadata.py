"""The description of the frames that were sampled from a clip."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from transformers.video_utils import VideoMetadata

from .media import MediaInfo


@dataclass(kw_only=True, eq=False)
class ClipMetadata(VideoMetadata):
    """Describes what was sampled from a clip and found in it, with the fields of Transformers' `VideoMetadata`.

    Attributes:
        total_num_frames (`int`): The number of frames of the clip.
        fps (`float`, *optional*): The average number of frames per second.
        width (`int`, *optional*):
            The width of the frames in pixels, upright and with square pixels, as they are shown.
        height (`int`, *optional*): The height of the frames in pixels, as they are shown.
        duration (`float`, *optional*): The length of the clip in seconds.
        video_backend (`str`, *optional*, defaults to `"pyav"`): The library that decodes.
        frames_indices (`list[int]`, *optional*): The places of the sampled frames among all frames of the clip.
        source (`str`): The name of the file.
        frame_times (`list[float]`):
            The presentation time of each sampled frame in seconds from the clip's start. `timestamps` are the same; they
            are not computed from `fps`, which is wrong for a variable frame rate.
        has_audio (`bool`, *optional*, defaults to `False`): Whether the file has a sound track.
        faces_found (`list[int]`): The number of faces in each sampled frame.
        landmarks (`np.ndarray` of shape `(T, 478, 3)`, *optional*):
            The float32 landmarks of the face that is followed through the clip; NaN where it is not visible.
        blendshapes (`np.ndarray` of shape `(T, 52)`, *optional*):
            The float32 actions (`BLENDSHAPE_NAMES`) of the followed face, NaN where it is not visible; `None` if the
            face mesh has none, as the one inside MediaPipe's wheel.
    """

    video_backend: str | None = "pyav"
    source: str
    frame_times: list[float]
    has_audio: bool = False
    faces_found: list[int] = field(default_factory=list)
    landmarks: np.ndarray | None = None
    blendshapes: np.ndarray | None = None

    @property
    def timestamps(self) -> list[float]:
        """The presentation time of each sampled frame in seconds."""
        return self.frame_times

    @property
    def frame_size(self) -> tuple[int | None, int | None]:
        """The width and the height of the frames in pixels."""
        return self.width, self.height


def describe_clip(
    info: MediaInfo, indices: Sequence[int] | np.ndarray = (), times: Sequence[float] | np.ndarray = (), **found: Any
) -> ClipMetadata:
    """Makes the metadata of a clip.

    Frames that were sampled from a longer clip before keep their places in it.

    Args:
        info (`MediaInfo`): The description of the file.
        indices (`Sequence[int]`, *optional*, defaults to `()`): The indices of the sampled frames.
        times (`Sequence[float]`, *optional*, defaults to `()`): The times of the sampled frames in seconds.
        found (`Any`, *optional*): Fields of [`ClipMetadata`] about what was found in the sampled frames.

    Returns:
        [`ClipMetadata`]: The metadata.
    """
    places = np.asarray(indices, np.int64)
    if info.frame_indices is not None:
        places = info.frame_indices[places]
    return ClipMetadata(
        total_num_frames=info.total_frames or len(info.frame_times),
        frames_indices=places.tolist(),
        frame_times=[float(time) for time in times],
        fps=info.fps,
        duration=info.duration,
        source=info.source,
        has_audio=info.has_audio,
        **found,
    )
