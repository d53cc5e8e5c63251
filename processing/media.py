"""Decode video and sound with PyAV: exact frame times, picked frames only, sound placed on the clip's own clock."""

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from .decoding.clip_clock import LONGEST_PAUSE, ClipClock, Packets, index_packets, longest_gap
from .decoding.container import (
    MediaError,
    SoundTrack,
    Source,
    best_stream,
    demux,
    is_counted,
    list_sound_tracks,
    may_jump,
    open_container,
    read_packets,
    sound_stream,
    source_name,
    start_time,
    unbroken,
    unwrap_source,
)
from .decoding.sound_track import AudioTrack, TrackBuilder

try:
    import av
except ImportError:
    av = None  # type: ignore[assignment]  # the error names what to install

T = TypeVar("T")

# Formats whose header says how long the file is, and how many seconds may be missing before it was cut.
STATES_LENGTH, MISSING = ("matroska", "avi", "flv", "flac", "mov", "asf"), 0.4
# Packets of which this share comes out as frames are not damaged: the rest is never shown.
SHOWN = 0.8
# A keyframe fewer frames ahead than this is reached sooner by decoding on than by seeking to it.
SEEK_DISTANCE = 4
# Pixels that are shown wider or narrower than this are none that a camera or a disc has: the entry is broken.
PIXEL_ASPECTS = (1 / 8, 8)


@dataclass
class MediaInfo:
    """Describes what a media file holds, read from its packets without decoding.

    All times are seconds on the clip's own clock. It starts with the first frame, or with the sound where that starts
    clearly (`PTS_TOLERANCE`) before it.

    Attributes:
        source (`str`): The name of the file for messages.
        frame_times (`np.ndarray` of shape `(n,)`):
            The increasing presentation times of all frames as float64; empty without a video stream.
        has_video (`bool`): Whether there is a video stream. A cover picture is none.
        has_audio (`bool`): Whether there is an audio stream.
        duration (`float`): The end of the last frame or sound packet.
        fps (`float`): The average number of frames per second; 0 without a video stream.
        pixel_aspect (`float`, *optional*, defaults to 1.0):
            The width of a pixel as shown over its height, before any rotation. While a clip is read, it is that of the
            frame that was read last (a broadcast changes it with the programme).
        frame_indices (`np.ndarray` of shape `(n,)`, *optional*):
            The places of the frames in the clip that they were sampled from; `None` if these are all frames.
        total_frames (`int`, *optional*): The number of frames of that clip.
        sound_tracks (`list[SoundTrack]`): All sound tracks of the file.
        audio_track (`int`, *optional*): The index of the sound track that is read; `None` without sound.
    """

    source: str
    frame_times: np.ndarray
    has_video: bool
    has_audio: bool
    duration: float
    fps: float
    pixel_aspect: float = 1.0
    frame_indices: np.ndarray | None = None
    total_frames: int | None = None
    sound_tracks: list[SoundTrack] = field(default_factory=list)
    audio_track: int | None = None


def shown_size(frame: "av.VideoFrame", pixel_aspect: float = 1.0) -> tuple[int, int, int]:
    """Returns the size of a frame as it is shown. The stored height is kept, the stored width is stretched.

    Args:
        frame (`av.VideoFrame`): A decoded frame.
        pixel_aspect (`float`, *optional*, defaults to 1.0): The factor by which the width is stretched.

    Returns:
        `tuple[int, int, int]`: The width and the height in pixels, and the number of quarter turns to the left that
        turn the frame upright.
    """
    width, height = max(1, round(frame.width * pixel_aspect)), frame.height
    turns = round(frame.rotation / 90) % 4
    return (height, width, turns) if turns % 2 else (width, height, turns)


def probe(source: Source, audio_track: int | str | None = None) -> MediaInfo:
    """Describes a media file.

    Args:
        source (`str`, `os.PathLike`, `bytes` or `BinaryIO`): The file, see [`Clip`].
        audio_track (`int` or `str`, *optional*): The sound track that is read, see [`Clip`].

    Returns:
        `MediaInfo`: What the file holds.

    Raises:
        MediaError: If the file cannot be used, see [`Clip`].
    """
    with Clip(source, audio_track) as clip:
        return clip.info


class Clip:
    """Opens a media file and indexes its packets once, so that single frames and the sound can be decoded.

    It is a context manager that closes the file. Recordings that were put together and have different clocks are laid
    end to end, pictures and sound alike, and one warning says so. Another warning says where a file is shorter than its
    header states.

    Args:
        source (`str`, `os.PathLike`, `bytes`, `BinaryIO` or `dict`):
            A path, a URL (`file://`, `http(s)://`, or of a file system that `fsspec` knows, such as `hf://`), the bytes
            of a file, a binary file object that can seek, or a row of the `datasets` library (`path` and `bytes`).
        audio_track (`int` or `str`, *optional*):
            The sound track to read, by its number among the file's sound tracks (counted from 0) or by its language
            (`"eng"`). FFmpeg's best track is read by default.

    Attributes:
        info (`MediaInfo`): What the file holds.

    Raises:
        MediaError: If the file is missing, empty, no media file, or has neither pictures nor sound or no such sound
            track.
    """

    def __init__(self, source: Source, audio_track: int | str | None = None) -> None:
        source = unwrap_source(source)
        self._source, self._audio_track, name = source, audio_track, source_name(source)
        self._files = ExitStack()
        self._container = container = self._files.enter_context(open_container(source))
        video, audio = best_stream(container, "video"), sound_stream(container, audio_track, name)
        if video is None and audio is None:
            what = " and ".join(sorted({stream.type for stream in container.streams})) or "nothing"
            self._files.close()
            hint = "; subtitles are given as utterances (--subtitles), beside a clip" if what == "subtitle" else ""
            raise MediaError(f"{name} has neither pictures nor sound, but {what} ({container.format.name}){hint}")
        for stream in container.streams:
            if stream.type in ("video", "audio") and stream.codec_context is None:
                warnings.warn(f"{name}: {stream.type} in a format that cannot be decoded is left out", stacklevel=2)
        streams = [stream for stream in (video, audio) if stream is not None]
        packets = index_packets(demux(container, *streams), streams)
        clock = ClipClock(packets, longest_gap(container.format.name, may_jump(container)))
        self._shifts = {stream.index: clock.shifts(stream.index) for stream in streams}
        self._wrong = clock.wrong

        rate = float(video.average_rate or video.base_rate or 25) if video else 0.0
        stated = float((container.duration or 0) / av.time_base)
        if 0 < rate * LONGEST_PAUSE < 1:  # a damaged unit of time
            stated = 0.0
            warnings.warn(f"{name}: a frame every {1 / rate:.0f} s cannot be: 25 per second are assumed", stacklevel=2)
            rate = 25.0
        pts = [] if video is None else clock.pts(video.index)
        self._in_order = bool(pts) and None in pts  # frames have no times, or wrong ones, that count
        self._leading: set[int] = set()
        self._keys, self._damaged = np.zeros(0, np.int64), False
        self._declared = len(packets[video.index].keys) if video else 0
        if self._in_order:  # a raw stream: its frames follow each other at the stated rate
            self._pts, self._time_base, self._start = np.arange(len(pts)), 1 / rate, 0.0
            duration = max(clock.end, len(pts) / rate)
        else:
            self._pts = np.unique(np.array(pts, np.int64))
            self._time_base = float(video.time_base) if video else 0.0
            if video and not clock.restarts:  # else a time names no place in the file
                self._keys = np.unique(np.array(clock.pts(video.index, keys=True), np.int64))
            dropped = video is not None and self._drop_what_leads_nowhere(
                packets[video.index], self._shifts[video.index]
            )
            container = self._container  # opened anew, perhaps
            video, audio = best_stream(container, "video"), sound_stream(container, audio_track, name)
            self._start = start_time(video, audio, float(self._pts[0] * self._time_base) if dropped else None)
            duration = max(0.0, clock.end - self._start)
        if clock.restarts:
            times = ", ".join(f"{time - self._start:.1f} s" for time in clock.restarts[:10])
            warnings.warn(
                f"{name}: its clock restarts or jumps at {times}; the parts are laid end to end", stacklevel=2
            )
        if stated and video and video.frames and "avi" in container.format.name:
            stated = max(stated, video.frames / rate)  # its time is guessed from the size of the file
        elif video and self._declared < video.frames and video.duration:
            # A file that was cut: its table lists more frames than there are, up to a later time.
            end = float(((video.start_time or 0) + video.duration) * video.time_base) - self._start
            self._damaged = duration < end - 2 / rate
            self._declared = video.frames
        self.info = MediaInfo(
            source=name,
            frame_times=self._pts * self._time_base - self._start,
            has_video=video is not None,
            has_audio=audio is not None,
            duration=duration,
            fps=rate,
            sound_tracks=list_sound_tracks(container),
            audio_track=None if audio is None else container.streams.audio.index(audio),
        )
        if video:
            # What the container says holds for all of the file; the codec's own entries may change.
            self._one_aspect = video.sample_aspect_ratio != video.codec_context.sample_aspect_ratio
            self._note_pixel_aspect()
            if self.info.pixel_aspect == 1 != (video.sample_aspect_ratio or 1):
                warnings.warn(
                    f"{name}: a pixel aspect of {video.sample_aspect_ratio} cannot be: taken as 1", stacklevel=2
                )
        self._tell_what_is_missing(stated)

    def _drop_what_leads_nowhere(self, packets: Packets, parts: list[tuple[int, int, int]]) -> bool:
        """Removes the packets before the first keyframe of each part, and those shown before it, if they do not decode.

        A stream that was cut out of a longer one starts with packets that depend on frames before the cut.
        """
        doubtful: set[int] = set()
        for first, last, ticks in parts:
            keys = [number for number in range(first, last) if packets.keys[number]]
            key, following = [*keys, last, last][:2]
            self._leading.update(range(first, key))
            for number in range(first, following):
                pts = packets.pts[number]
                if pts is not None and (number < key or pts < (packets.pts[key] or 0)):
                    doubtful.add(pts + ticks)
        if not doubtful:
            return False
        decoded = set()
        with suppress(av.FFmpegError):
            for frame in self._from_start():
                decoded.add(frame.pts)
                if frame.pts is not None and frame.pts > max(doubtful):
                    break
        missing = doubtful - decoded if decoded else set()
        self._declared -= len(missing)
        self._pts = np.setdiff1d(self._pts, np.array(sorted(missing), np.int64))
        return bool(missing) and len(self._pts) > 0

    def _tell_what_is_missing(self, stated: float) -> None:
        """Warns if the header of the file states a longer time than the file holds."""
        info, container = self.info, self._container
        if self._damaged or not container.format.name.startswith(STATES_LENGTH):
            return
        # The last frame may last as long as any, and its container need not say so.
        missing = max(MISSING, *np.diff(info.frame_times), 0)
        if stated - missing <= info.duration + max(self._start, 0):
            return
        with open_container(self._source) as again:  # other tracks, subtitles perhaps, may last longer
            times = [(packet.pts + (packet.duration or 0), packet.time_base) for packet in demux(again) if packet.pts]
        end = max((float(ticks * base) for ticks, base in times), default=0)
        if end < stated - missing:
            warnings.warn(
                f"{info.source} is cut off: its header states {stated:.1f} s, but it ends after {info.duration:.1f} s",
                stacklevel=3,
            )

    def __enter__(self) -> "Clip":
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def read(
        self, choose: Callable[[np.ndarray], np.ndarray], view: Callable[[Any], T]
    ) -> tuple[np.ndarray, list[float], list[T]]:
        """Decodes the frames that `choose` picks and keeps only their `view`, so that memory stays small.

        If decoding fails part-way, the frames before the damage count as the whole clip: `choose` is called again, and
        one warning says how many frames were decoded.

        Args:
            choose (`Callable`): A function from the frame times `(n,)` to increasing indices into them.
            view (`Callable`):
                A function from an `av.VideoFrame` as stored (`frame.rotation` is not applied) to what is kept of it.

        Returns:
            `tuple[np.ndarray, list[float], list]`: The indices, the presentation time of each picked frame in seconds,
            and the views.

        Raises:
            MediaError: If the file has no video stream, or if not even one frame decodes.
        """
        if not self.info.has_video:
            raise MediaError(f"{self.info.source} has no video stream")
        if not self._damaged and len(self._pts):
            with suppress(av.FFmpegError, _FrameMissing):
                return self._read(choose, view)
        self._keep_what_decodes()
        return self._read(choose, view)

    def _read(
        self, choose: Callable[[np.ndarray], np.ndarray], view: Callable[[Any], T]
    ) -> tuple[np.ndarray, list[float], list[T]]:
        indices = choose(self.info.frame_times)
        times, views = [], []
        for frame in self._decode(indices):
            times.append(frame.pts * self._time_base - self._start)
            self._note_pixel_aspect()
            views.append(view(frame))
        return indices, times, views

    def _note_pixel_aspect(self) -> None:
        stream = best_stream(self._container, "video")
        aspect = float((stream if self._one_aspect else stream.codec_context).sample_aspect_ratio or 1)
        self.info.pixel_aspect = aspect if PIXEL_ASPECTS[0] <= aspect <= PIXEL_ASPECTS[1] else 1.0

    def _keep_what_decodes(self) -> None:
        """Decodes up to the damage, if there is any. The frames before it are the clip from then on."""
        pts: list[int] = []
        damaged = self._damaged
        try:
            pts.extend(frame.pts for frame in self._from_start() if frame.pts is not None)
        except av.FFmpegError:
            damaged = True
        if not pts:
            raise MediaError(f"{self.info.source} is damaged: none of its {self._declared} frames can be decoded")
        # A packet that is never shown (an alternate reference frame) is no damage.
        if damaged or len(pts) < SHOWN * self._declared:
            warnings.warn(
                f"{self.info.source} is damaged: {len(pts)} of {self._declared} frames were decoded, the rest is left out",
                stacklevel=3,
            )
        self._keys, self._damaged = np.zeros(0, np.int64), False
        self._in_order = self._in_order or bool((np.diff(pts) <= 0).any())  # AVI times its frames as they are stored
        self._pts = np.unique(pts)
        if len(self._pts) < len(pts):
            self._pts = pts[0] + np.arange(len(pts)) * max(1, round(1 / (self.info.fps * self._time_base)))
        self.info.frame_times = self._pts * self._time_base - self._start

    def _decode(self, indices: np.ndarray) -> Iterator[Any]:
        """Yields the frames at `indices`. It decodes forward and seeks only to a keyframe between here and the target."""
        frames: Iterator[Any] | None = None
        frame: Any = None
        for index in indices:
            target = self._pts[index]
            before = self._keys[self._keys <= target]
            if frames is None:
                frames = self._from(before[-1]) if len(before) else self._from_start()
            elif len(before) and np.searchsorted(self._pts, [frame.pts, before[-1]]) @ [-1, 1] > SEEK_DISTANCE:
                frames, frame = self._from(before[-1]), None
            frame = _forward(frames, frame, target)
            if frame is None and len(self._keys):
                # Seeking led astray, as it may without a table of the file's packets (MPEG streams).
                self._keys = self._keys[:0]
                frames = self._from_start()
                frame = _forward(frames, None, target)
            if frame is None:
                raise _FrameMissing
            yield frame

    def _from(self, key: int) -> Iterator[Any]:
        stream = best_stream(self._container, "video")
        self._container.seek(int(key), stream=stream)
        return (frame for packet in read_packets(self._container, stream) for frame in packet.decode())

    def _from_start(self) -> Iterator[Any]:
        self._files.close()
        self._container = self._files.enter_context(open_container(self._source))
        number = 0
        for packet_number, packet in self._packets(self._container, best_stream(self._container, "video")):
            try:
                frames = packet.decode()
            except av.FFmpegError:
                if packet_number in self._leading:
                    continue
                raise
            for frame in frames:
                if self._in_order:
                    if number == len(self._pts):
                        return
                    frame.pts = int(self._pts[number])
                number += 1
                yield frame

    def _packets(
        self, container: "av.container.InputContainer", stream: "av.stream.Stream"
    ) -> Iterator[tuple[int, Any]]:
        """Yields the numbers and packets of a stream from the start of the file, with times on the clip's time line."""
        parts, number = iter(self._shifts[stream.index]), -1
        _, last, ticks = next(parts)
        for packet in read_packets(container, stream):
            if packet.size:
                number += 1
                while number >= last:
                    _, last, ticks = next(parts, (0, sys.maxsize, ticks))
                if number in self._wrong[stream.index]:
                    packet.pts = None
                if ticks and packet.pts is not None:
                    packet.pts += ticks
                if ticks and packet.dts is not None:
                    packet.dts += ticks
            yield number, packet

    def load_audio(self) -> AudioTrack | None:
        """Decodes the whole sound of the clip and places it by its presentation times on the clip's clock.

        Gaps and a late start are filled with zeros; sound from before the clip's start is cut. Offsets below
        `PTS_TOLERANCE` come from the muxer and shift nothing. Where the number of channels or the rate changes in the
        file, the sound after it is mixed and resampled to the first format. Broken packets leave gaps, and one warning
        counts them.

        Returns:
            `AudioTrack`, *optional*: The track, or `None` if the file has no sound, or with a warning if its sound
            cannot be decoded.
        """
        if not self.info.has_audio:
            return None
        track, packets, broken = None, 0, 0
        with open_container(self._source) as container:
            stream = sound_stream(container, self._audio_track, self.info.source)
            tick = float(stream.time_base)
            for _, packet in unbroken(self._packets(container, stream)):
                packets += bool(packet.size)
                try:
                    frames = packet.decode()
                except av.FFmpegError:
                    broken += 1
                    continue
                for frame in frames:
                    if track is None:
                        track = TrackBuilder(frame, self.info.duration, is_counted(container))
                    track.add(frame, None if frame.pts is None else frame.pts * tick - self._start)
        if broken:
            warnings.warn(
                f"{self.info.source}: {broken} of {packets} sound packets could not be decoded", stacklevel=2
            )
        if track is None:
            return None
        sound = track.finish()
        if track.leap is not None:
            warnings.warn(
                f"{self.info.source}: the sound leaps to {track.leap:.1f} s; this is not believed, it follows on",
                stacklevel=2,
            )
        if track.counted and track.changed:
            self.info.duration = max(self.info.duration, sound.samples.shape[1] / sound.rate)
        return sound


class _FrameMissing(Exception):
    """Says that a frame of the index does not come out of the decoder."""


def _forward(frames: Iterator[Any], frame: Any, target: int) -> Any:
    """Decodes on from `frame` to the frame at `target` and returns it, or `None` if there is none."""
    while frame is None or frame.pts is None or frame.pts < target:
        frame = next(frames, None)
        if frame is None:
            return None
    return frame if frame.pts == target else None


def load_audio(source: Source, audio_track: int | str | None = None) -> AudioTrack | None:
    """Decodes the whole sound of a clip, see [`Clip.load_audio`].

    Args:
        source (`str`, `os.PathLike`, `bytes` or `BinaryIO`): The file, see [`Clip`].
        audio_track (`int` or `str`, *optional*): The sound track that is read, see [`Clip`].

    Returns:
        `AudioTrack`, *optional*: The track, or `None` if the file has no sound that can be decoded.

    Raises:
        MediaError: If the file cannot be used, see [`Clip`].
    """
    with Clip(source, audio_track) as clip:
        return clip.load_audio()
