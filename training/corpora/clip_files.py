"""Clips that are parts of other files: out of the rows of a Parquet file, or out of a long video.

Each is written once, under a name that tells what it is made of, so that an interrupted run goes on where it stopped.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from transformers.utils import logging

from ...processing.media import Clip, MediaError, shown_size
from ...utils.atomic_files import atomic_file
from ..synthetic.media_writer import write_media

try:
    import av
except ImportError:
    av = None  # type: ignore[assignment]

logger = logging.get_logger("microemo.training.corpora.clip_files")

_FRAMES_AT_ONCE = 150  # kept in memory while they are encoded


def store_clip(data: bytes, folder: Path, name: str) -> Path:
    """Writes the bytes of a clip to a file, unless it is there.

    Args:
        data (`bytes`): The file's content.
        folder (`Path`): The folder, which is made if it does not exist.
        name (`str`): The name of the clip, with a suffix.

    Returns:
        `Path`: The file. The SHA-256 of its content is a part of its name.
    """
    name, suffix = Path(name).stem, Path(name).suffix
    path = folder / f"{name}-{hashlib.sha256(data).hexdigest()[:16]}{suffix}"
    if not path.is_file():
        with atomic_file(path) as part:
            part.write_bytes(data)
    return path.absolute()


class ClipCutter:
    """Cuts parts out of a video.

    Args:
        source (`Path`): The video.
        folder (`Path`): The folder for the parts, which is made if it does not exist.
    """

    def __init__(self, source: Path, folder: Path):
        self.source, self.folder = source, folder
        stat = source.stat()
        self._version = f"{source.resolve()} {stat.st_size} {stat.st_mtime_ns}"
        self._clip: Clip | None = None
        self._is_broken = False

    def __enter__(self) -> "ClipCutter":
        return self

    def __exit__(self, *error: object) -> None:
        if self._clip is not None:
            self._clip.__exit__(*error)

    def cut(self, name: str, start: float, end: float, half: str | None = None) -> Path | None:
        """Cuts a part out, unless its file is there.

        Args:
            name (`str`): The name of the part.
            start (`float`): Its start in seconds.
            end (`float`): Its end in seconds.
            half (`str`, *optional*): `"left"` or `"right"`, where only that half of the picture is kept.

        Returns:
            `Path`, *optional*: The file, or `None` if the video has no frame in that time, or, with a warning, if it
            cannot be read.
        """
        made_of = hashlib.sha256(f"{self._version} {start} {end} {half}".encode()).hexdigest()[:12]
        path = self.folder / f"{name}-{made_of}.mp4"
        if path.is_file():
            return path.absolute()
        if self._clip is None and not self._is_broken:
            self._open()
        if self._clip is None:
            return None
        times = self._clip.info.frame_times
        indices = np.flatnonzero((times >= start) & (times < end))
        if not len(indices):
            return None
        first = times[indices[0]]
        write_media(path, self._pictures(indices, half), times[indices] - first, *self._samples(first, end))
        return path.absolute()

    def _open(self) -> None:
        try:
            self._clip = Clip(self.source)
            self._sound = self._clip.load_audio()
        except MediaError as error:
            self._is_broken = True
            logger.warning(f"{self.source} cannot be read, so that its parts are missing: {error}")

    def _pictures(self, indices: np.ndarray, half: str | None) -> Iterator[np.ndarray]:
        assert self._clip is not None

        def view(frame: "av.VideoFrame") -> np.ndarray:
            width, height, turns = shown_size(frame, self._clip.info.pixel_aspect)  # type: ignore[union-attr]
            width, height = (height, width) if turns % 2 else (width, height)
            picture = np.rot90(frame.reformat(width, height, "rgb24").to_ndarray(), turns)
            middle = picture.shape[1] // 2
            picture = picture[:, :middle] if half == "left" else picture[:, middle:] if half == "right" else picture
            return picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2]  # the encoder takes even sides

        for place in range(0, len(indices), _FRAMES_AT_ONCE):
            some = indices[place : place + _FRAMES_AT_ONCE]
            yield from self._clip.read(lambda times, some=some: some, view)[2]  # type: ignore[misc]

    def _samples(self, start: float, end: float) -> tuple:
        if self._sound is None:
            return ()
        rate = self._sound.rate
        samples = self._sound.samples[:, round(start * rate) : round(end * rate)].mean(axis=0)
        return (samples, 0.0, rate) if len(samples) else ()
