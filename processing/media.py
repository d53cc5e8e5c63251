"""Decode video and sound with PyAV: exact frame times, picked frames only, sound placed on the clip's own clock."""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlparse
from urllib.request import url2pathname

import numpy as np

try:
    import av
    from av.stream import Disposition
except ImportError:
    av = None

# Streams that start nearer to each other than this start together, and sound packets that end and start nearer than
# this touch: encoders put up to 48 ms of silence before the sound and muxers round times, which says nothing about
# what is heard when. Anything larger is a real offset or gap, and the file's pts decide.
PTS_TOLERANCE = 0.05
# A keyframe fewer frames ahead than this is reached sooner by decoding on than by seeking to it.
SEEK_DISTANCE = 4
# Pixels that are shown wider or narrower than this are none that a camera or a disc has: the entry is broken.
PIXEL_ASPECTS = (1 / 8, 8)
# Seconds that a server may take to answer, and to send the next bytes.
NETWORK_TIMEOUT = (15.0, 60.0)

Source = str | os.PathLike | bytes | BinaryIO


class MediaError(ValueError):
    """A clip that cannot be used: the message names the file and what is wrong with it."""


@dataclass
class MediaInfo:
    """What a media file holds, read from its packets without decoding.

    All times are seconds on the clip's own clock. It starts with the first frame, or with the sound where that starts
    clearly (`PTS_TOLERANCE`) before it.

    Attributes:
        source: Name of the file for messages.
        frame_times: (n,) float64, presentation time of every frame, increasing; empty without a video stream.
        has_video: Whether there is a video stream (a cover picture is none).
        has_audio: Whether there is an audio stream.
        duration: End of the last frame or sound packet.
        fps: Average frames per second; 0 without a video stream.
        pixel_aspect: Width of a pixel as shown over its height, before any rotation; while a clip is read, that of the
            frame that was read last (a broadcast changes it with the programme).
    """

    source: str
    frame_times: np.ndarray
    has_video: bool
    has_audio: bool
    duration: float
    fps: float
    pixel_aspect: float = 1.0


@dataclass
class AudioTrack:
    """A sound track on the clip's clock.

    Attributes:
        samples: (channels, n) float32. Decoded sound can exceed 1.
        rate: Samples per second.
    """

    samples: np.ndarray
    rate: int


def shown_size(frame, pixel_aspect: float = 1.0) -> tuple[int, int, int]:
    """Width and height in pixels of an `av.VideoFrame` as it is shown, and the quarter turns to the left that stand it
    upright. The stored height is kept, the stored width is stretched by `pixel_aspect`."""
    size = max(1, round(frame.width * pixel_aspect)), frame.height
    turns = round(frame.rotation / 90) % 4
    return (*(size[::-1] if turns % 2 else size), turns)


def probe(source: Source) -> MediaInfo:
    """What `source` holds; see [`Clip`] for the kinds of source and the errors."""
    return Clip(source).info


class Clip:
    """A media file with its packets indexed once, from which single frames can be decoded. Closes as a context manager.

    Args:
        source: Path, `file://` or `http(s)://` URL, the file's bytes, or a binary file object that can seek.

    Raises:
        MediaError: if the file is missing, empty, or no media file.

    Attributes:
        info: The file's [`MediaInfo`].
    """

    def __init__(self, source: Source):
        self._source = source
        self._files = ExitStack()
        self._container = container = self._files.enter_context(_open(source))
        video, audio = _best(container, "video"), _best(container, "audio")
        self._start = _start(video, audio)
        pts, keys, packets, duration = _index(container, video, audio, self._start)
        rate = float(video.average_rate or video.base_rate or 25) if video else 0.0
        self._untimed = None in pts
        if self._untimed:  # a raw stream: its frames follow each other at the stated rate
            self._pts, self._keys = np.arange(len(pts)), np.zeros(0, np.int64)
            self._time_base, self._start = 1 / rate, 0.0
            duration = max(duration, len(pts) / rate)
        else:
            self._pts, self._keys = np.unique(np.array(pts, np.int64)), np.unique(np.array(keys, np.int64))
            self._time_base = float(video.time_base) if video else 0.0
        self._declared, self._damaged = packets, False
        if video and packets < video.frames and video.duration:
            # A file that was cut: its table lists more frames than there are, up to a later time.
            end = float(((video.start_time or 0) + video.duration) * video.time_base) - self._start
            self._declared, self._damaged = video.frames, duration < end - 2 / rate
        self.info = MediaInfo(
            source=_name(source),
            frame_times=self._pts * self._time_base - self._start,
            has_video=video is not None,
            has_audio=audio is not None,
            duration=duration,
            fps=rate,
        )
        if video:
            # What the container says holds for all of the file; the codec's own entries may change.
            self._one_aspect = video.sample_aspect_ratio != video.codec_context.sample_aspect_ratio
            self._note_pixel_aspect()
            if self.info.pixel_aspect == 1 != (video.sample_aspect_ratio or 1):
                warnings.warn(
                    f"{self.info.source}: a pixel aspect of {video.sample_aspect_ratio} cannot be: taken as 1",
                    stacklevel=2,
                )

    def __enter__(self) -> "Clip":
        return self

    def __exit__(self, *_) -> None:
        self._files.close()

    def read(
        self, choose: Callable[[np.ndarray], np.ndarray], view: Callable[[Any], Any]
    ) -> tuple[np.ndarray, list[float], list]:
        """Decode the frames that `choose` picks and keep only their `view`, so that memory stays small.

        Where decoding fails part-way the frames before the damage count as the whole clip: `choose` is asked again,
        and one warning says how many frames were decoded.

        Args:
            choose: from the frame times (n,) to increasing indices into them.
            view: from an `av.VideoFrame`, as stored (`frame.rotation` is not applied), to what is kept of it.

        Returns:
            The indices, the presentation time of each picked frame in seconds, and the views.

        Raises:
            MediaError: without a video stream, or if not even one frame decodes.
        """
        if not self.info.has_video:
            raise MediaError(f"{self.info.source} has no video stream")
        if not self._damaged and len(self._pts):
            try:
                return self._read(choose, view)
            except av.FFmpegError:
                pass
        self._keep_intact_frames()
        return self._read(choose, view)

    def _read(self, choose, view):
        indices = choose(self.info.frame_times)
        times, views = [], []
        for frame in self._decode(indices):
            times.append(frame.pts * self._time_base - self._start)
            self._note_pixel_aspect()
            views.append(view(frame))
        return indices, times, views

    def _note_pixel_aspect(self) -> None:
        stream = _best(self._container, "video")
        aspect = float((stream if self._one_aspect else stream.codec_context).sample_aspect_ratio or 1)
        self.info.pixel_aspect = aspect if PIXEL_ASPECTS[0] <= aspect <= PIXEL_ASPECTS[1] else 1.0

    def _keep_intact_frames(self) -> None:
        """Decode forward to the damage; the frames before it are the clip from now on."""
        pts = []
        with suppress(av.FFmpegError):
            pts.extend(frame.pts for frame in self._from_start())
        if not pts:
            raise MediaError(f"{self.info.source} is damaged: none of its {self._declared} frames can be decoded")
        warnings.warn(
            f"{self.info.source} is damaged: {len(pts)} of {self._declared} frames were decoded, the rest is left out",
            stacklevel=3,
        )
        self._pts, self._keys, self._damaged = np.array(pts), np.zeros(0, np.int64), False
        self.info.frame_times = self._pts * self._time_base - self._start

    def _decode(self, indices) -> Iterator:
        """The frames at `indices`: decode forward, seek only to a keyframe between here and the target."""
        frames, frame = None, None
        for index in indices:
            target = self._pts[index]
            before = self._keys[self._keys <= target]
            if frames is None:
                frames = self._from(before[-1]) if len(before) else self._from_start()
            elif len(before) and np.searchsorted(self._pts, [frame.pts, before[-1]]) @ [-1, 1] > SEEK_DISTANCE:
                frames, frame = self._from(before[-1]), None
            picked = frame
            while frame is None or frame.pts < target:
                picked, frame = frame, next(frames, None)
                if picked is None and (frame is None or frame.pts > target) and len(self._keys):
                    # Seeking led astray, as it may without a table of the file's packets (MPEG streams).
                    self._keys = self._keys[:0]
                    frames, frame = self._from_start(), None
                elif frame is None:
                    raise av.EOFError(0, "fewer frames than packets", self.info.source)
            # A packet that is never shown (an alternate reference frame) leaves the frame before it on the screen.
            yield frame if frame.pts == target or picked is None else picked

    def _from(self, key: int) -> Iterator:
        stream = _best(self._container, "video")
        self._container.seek(int(key), stream=stream)
        return self._container.decode(stream)

    def _from_start(self) -> Iterator:
        self._files.close()
        self._container = self._files.enter_context(_open(self._source))
        for i, frame in enumerate(self._container.decode(_best(self._container, "video"))):
            if self._untimed:
                frame.pts = i
            yield frame


def load_audio(source: Source) -> AudioTrack | None:
    """The whole sound of a clip (FFmpeg's best audio stream), placed by its pts on the clip's clock.

    Gaps and a late start are zeros; sound from before the clip's start is cut. Offsets below `PTS_TOLERANCE` are the
    muxer's and shift nothing. Broken packets leave gaps, and one warning counts them.

    Returns:
        The track, or `None` where the file has no sound (or none that can be decoded, with a warning).

    Raises:
        MediaError: as [`Clip`].
    """
    with _open(source) as container:
        stream = _best(container, "audio")
        if stream is None:
            return None
        start = _start(_best(container, "video"), stream)
        track, end, packets, broken, tick = None, 0, 0, 0, float(stream.time_base)
        for packet in _demux(container, stream):
            packets += bool(packet.size)
            try:
                frames = packet.decode()
            except av.FFmpegError:
                broken += 1
                continue
            for frame in frames:
                if track is None:
                    track = AudioTrack(_allocate(frame, container), frame.sample_rate)
                sound = _to_float(frame)
                if len(sound) != len(track.samples) or frame.sample_rate != track.rate:
                    broken += 1
                    continue
                at = end if frame.pts is None else round((frame.pts * tick - start) * track.rate)
                if abs(at - end) < PTS_TOLERANCE * track.rate or not 0 <= at - end < track.samples.shape[1]:
                    at = end  # it follows on; times that run backwards or far beyond the file are no times
                end = at + sound.shape[1]
                if end > track.samples.shape[1]:
                    track.samples = np.pad(track.samples, ((0, 0), (0, end)))
                track.samples[:, at:end] = sound
    if broken:
        warnings.warn(f"{_name(source)}: {broken} of {packets} sound packets could not be decoded", stacklevel=2)
    if track is not None:
        track.samples = track.samples[:, :end]
    return track


def _allocate(frame, container) -> np.ndarray:
    seconds = (container.duration or 0) / av.time_base + 1
    return np.zeros((frame.layout.nb_channels, int(seconds * frame.sample_rate)), np.float32)


def _to_float(frame) -> np.ndarray:
    """(channels, n) float32 of a decoded sound frame; integer formats are scaled by their half range."""
    sound = frame.to_ndarray()
    if not frame.format.is_planar:
        sound = sound.reshape(-1, frame.layout.nb_channels).T
    if sound.dtype.kind == "f":
        return sound.astype(np.float32, copy=False)
    half_range = 2.0 ** (8 * sound.dtype.itemsize - 1)
    return ((sound - (half_range if sound.dtype.kind == "u" else 0)) / half_range).astype(np.float32)


def _name(source: Source) -> str:
    if isinstance(source, bytes):
        return f"<{len(source)} bytes>"
    if isinstance(source, str | os.PathLike):
        return str(source)
    return str(getattr(source, "name", source))


@contextmanager
def _open(source: Source) -> Iterator:
    """An open input container."""
    if av is None:
        raise ImportError("MicroEmo reads video and sound with PyAV: pip install av")
    name = _name(source)
    with ExitStack() as files:
        try:
            if isinstance(source, str) and urlparse(source).scheme in ("http", "https"):
                container = av.open(source, timeout=NETWORK_TIMEOUT)
            else:
                container = av.open(_Content(files.enter_context(_stream(source))))
        except (av.InvalidDataError, av.ArgumentError) as error:
            raise MediaError(f"{name} is not a media file, or is damaged beyond use: {error.strerror}") from error
        except (av.FFmpegError, OSError) as error:
            raise MediaError(f"{name} cannot be opened: {error.strerror or error}") from error
        yield files.enter_context(container)


class _Content:
    """A file as FFmpeg sees it: without a name.

    Its content alone then decides what it is (by its name a text file would be a film of letters), and a play list in
    disguise cannot make FFmpeg open other files.
    """

    def __init__(self, file: BinaryIO):
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


@contextmanager
def _stream(source: Source) -> Iterator[BinaryIO]:
    if isinstance(source, bytes):
        yield BytesIO(source)
    elif isinstance(source, str | os.PathLike):
        url = urlparse(str(source))
        path = Path(url2pathname(url.path) if url.scheme == "file" else source).expanduser()
        if path.exists() and not path.is_file():
            raise MediaError(f"{path} is not a file")
        if path.exists() and not path.stat().st_size:
            raise MediaError(f"{path} is an empty file")
        with path.open("rb") as file:
            yield file
    elif hasattr(source, "read") and hasattr(source, "seek"):
        source.seek(0)
        yield source
    else:
        raise MediaError(f"a clip is a path, a URL, bytes or a binary file object, not {type(source).__name__}")


def _best(container, kind: str):
    """FFmpeg's best stream of a kind, `None` where there is none (a cover picture is no video)."""
    stream = container.streams.best(kind)
    return None if stream is None or stream.disposition & Disposition.attached_pic else stream


def _start(video, audio) -> float:
    """Where on the file's own clock the clip's clock starts, in seconds."""
    video_start, audio_start = (
        None if stream is None else float((stream.start_time or 0) * stream.time_base) for stream in (video, audio)
    )
    if video_start is None:
        return audio_start or 0.0
    if audio_start is None or audio_start > video_start - PTS_TOLERANCE:
        return video_start
    return audio_start


def _demux(container, *streams) -> Iterator:
    """The packets of the streams up to the end of the file or to where it cannot be read any more."""
    try:
        yield from container.demux(*streams)
    except av.FFmpegError:
        return


def _index(container, video, audio, start: float) -> tuple[list, list, int, float]:
    """The pts of all frames and of the keyframes, the number of video packets, and the clip's duration in seconds."""
    pts, keys, packets, duration = [], [], 0, 0.0
    streams = [stream for stream in (video, audio) if stream is not None]
    seconds = {stream.index: float(stream.time_base) for stream in streams}  # of a tick: fractions are slow
    for packet in _demux(container, *streams):
        if packet.size and packet.pts is not None:
            end = (packet.pts + (packet.duration or 0)) * seconds[packet.stream_index] - start
            duration = max(duration, end)
        if packet.size and packet.stream is video:
            packets += 1
            if packet.is_keyframe:
                keys.append(packet.pts)
            if not packet.is_discard:
                pts.append(packet.pts)
    return pts, keys, packets, duration
