"""Decode video and sound with PyAV: exact frame times, picked frames only, sound placed on the clip's own clock."""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlparse
from urllib.request import url2pathname

import numpy as np
import torch

from .clip_clock import ClipClock, Packets, index_packets, longest_gap
from .feature_extraction_microemo import resample

try:
    import av
    from av.format import Flags
    from av.stream import Disposition
except ImportError:
    av = None

# Streams that start nearer to each other than this start together, and sound packets that end and start nearer than
# this touch: encoders put up to 48 ms of silence before the sound and muxers round times, which says nothing about
# what is heard when. Anything larger is a real offset or gap, and the file's pts decide.
PTS_TOLERANCE = 0.05
# Formats whose header says how long the file is, and how many seconds may be missing before it was cut.
STATES_LENGTH, MISSING = ("matroska", "avi", "flv", "flac", "mov", "asf"), 0.4
# Sound that pauses for more seconds than this has wrong times: the pause is not filled.
LONGEST_SILENCE = 3600.0
# Packets of which this share comes out as frames are not damaged: the rest is never shown.
SHOWN = 0.8
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
class SoundTrack:
    """One of a file's sound tracks.

    Attributes:
        index: Its number among the sound tracks, from 0.
        language: As the file states it ("eng"), or `None`.
        title: Likewise.
        codec: Name of its codec.
        channels: Their number.
        rate: Samples per second.
    """

    index: int
    language: str | None
    title: str | None
    codec: str
    channels: int
    rate: int

    def __str__(self) -> str:
        told = [text for text in (self.language, self.title) if text]
        return ", ".join([f"{self.index}: {self.codec}", *told, f"{self.channels} channels", f"{self.rate} Hz"])


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
        sound_tracks: All sound tracks of the file.
        audio_track: Index of the one that is heard; `None` without sound.
    """

    source: str
    frame_times: np.ndarray
    has_video: bool
    has_audio: bool
    duration: float
    fps: float
    pixel_aspect: float = 1.0
    sound_tracks: list[SoundTrack] = field(default_factory=list)
    audio_track: int | None = None


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


def probe(source: Source, audio_track: int | str | None = None) -> MediaInfo:
    """What `source` holds; see [`Clip`] for the arguments and the errors."""
    with Clip(source, audio_track) as clip:
        return clip.info


class Clip:
    """A media file with its packets indexed once, from which single frames and the sound can be decoded. Closes as a
    context manager.

    Recordings that were put together with a clock of each their own are laid end to end, pictures and sound alike, and
    one warning says so; another says where a file is shorter than its header states.

    Args:
        source: Path, `file://` or `http(s)://` URL, the file's bytes, or a binary file object that can seek.
        audio_track: The sound track to hear, by its number among the file's sound tracks (from 0) or by its language
            ("eng"); by default FFmpeg's best.

    Raises:
        MediaError: if the file is missing, empty, no media file, or has neither pictures nor sound or no such sound
            track.

    Attributes:
        info: The file's [`MediaInfo`].
    """

    def __init__(self, source: Source, audio_track: int | str | None = None):
        self._source, self._audio_track, name = source, audio_track, _name(source)
        self._files = ExitStack()
        self._container = container = self._files.enter_context(_open(source))
        video, audio = _best(container, "video"), _sound(container, audio_track, name)
        if video is None and audio is None:
            what = " and ".join(sorted({stream.type for stream in container.streams})) or "nothing"
            self._files.close()
            hint = "; subtitles are given as utterances (--subtitles), beside a clip" if what == "subtitle" else ""
            raise MediaError(f"{name} has neither pictures nor sound, but {what} ({container.format.name}){hint}")
        streams = [stream for stream in (video, audio) if stream is not None]
        packets = index_packets(_demux(container, *streams), streams)
        clock = ClipClock(
            packets, longest_gap(container.format.name, bool(container.format.flags & Flags.ts_discont.value))
        )
        self._shifts = {stream.index: clock.shifts(stream.index) for stream in streams}
        self._wrong = clock.wrong

        rate = float(video.average_rate or video.base_rate or 25) if video else 0.0
        pts = [] if video is None else clock.pts(video.index)
        self._in_order = bool(pts) and None in pts  # frames have no times, or wrong ones, that count
        self._leading, self._keys, self._damaged = set(), np.zeros(0, np.int64), False
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
            video, audio = _best(container, "video"), _sound(container, audio_track, name)
            self._start = _start(video, audio, float(self._pts[0] * self._time_base) if dropped else None)
            duration = max(0.0, clock.end - self._start)
        if clock.restarts:
            times = ", ".join(f"{time - self._start:.1f} s" for time in clock.restarts[:10])
            warnings.warn(
                f"{name}: its clock restarts or jumps at {times}; the parts are laid end to end", stacklevel=2
            )
        stated = (container.duration or 0) / av.time_base
        if video and video.frames and "avi" in container.format.name:
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
            sound_tracks=_sound_tracks(container),
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

    def _drop_what_leads_nowhere(self, packets: Packets, parts) -> bool:
        """Forget the packets before the first keyframe of each part, and those shown before it, where they do not decode:
        a stream that was cut out of a longer one starts with what hangs on frames before the cut."""
        doubtful = set()
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
        seen = set()
        with suppress(av.FFmpegError):
            for frame in self._from_start():
                seen.add(frame.pts)
                if frame.pts is not None and frame.pts > max(doubtful):
                    break
        missing = doubtful - seen if seen else set()
        self._declared -= len(missing)
        self._pts = np.setdiff1d(self._pts, np.array(sorted(missing), np.int64))
        return bool(missing) and len(self._pts) > 0

    def _tell_what_is_missing(self, stated: float) -> None:
        """Say where the header of the file promises more than it holds."""
        info, container = self.info, self._container
        if self._damaged or not container.format.name.startswith(STATES_LENGTH):
            return
        # The last frame may last as long as any, and its container need not say so.
        missing = max(MISSING, *np.diff(info.frame_times), 0)
        if stated - missing <= info.duration + max(self._start, 0):
            return
        with _open(self._source) as again:  # other tracks, subtitles perhaps, may last longer
            times = [(packet.pts + (packet.duration or 0), packet.time_base) for packet in _demux(again) if packet.pts]
        end = max((float(ticks * base) for ticks, base in times), default=0)
        if end < stated - missing:
            warnings.warn(
                f"{info.source} is cut off: its header states {stated:.1f} s, but it ends after {info.duration:.1f} s",
                stacklevel=3,
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
            with suppress(av.FFmpegError, _FrameMissing):
                return self._read(choose, view)
        self._keep_what_decodes()
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

    def _keep_what_decodes(self) -> None:
        """Decode forward to the damage, if there is any; the frames before it are the clip from now on."""
        pts, damaged = [], self._damaged
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
            frame = _forward(frames, frame, target)
            if frame is None and len(self._keys):
                # Seeking led astray, as it may without a table of the file's packets (MPEG streams).
                self._keys = self._keys[:0]
                frames = self._from_start()
                frame = _forward(frames, None, target)
            if frame is None:
                raise _FrameMissing
            yield frame

    def _from(self, key: int) -> Iterator:
        stream = _best(self._container, "video")
        self._container.seek(int(key), stream=stream)
        return (frame for packet in _read(self._container, stream) for frame in packet.decode())

    def _from_start(self) -> Iterator:
        self._files.close()
        self._container = self._files.enter_context(_open(self._source))
        number = 0
        for packet_number, packet in self._packets(self._container, _best(self._container, "video")):
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

    def _packets(self, container, stream) -> Iterator:
        """The packets of a stream from the start of the file, numbered, their times on the clip's time line."""
        parts, number = iter(self._shifts[stream.index]), -1
        _, last, ticks = next(parts)
        for packet in _read(container, stream):
            if packet.size:
                number += 1
                while number >= last:
                    _, last, ticks = next(parts, (0, np.inf, ticks))
                if number in self._wrong[stream.index]:
                    packet.pts = None
                if ticks and packet.pts is not None:
                    packet.pts += ticks
                if ticks and packet.dts is not None:
                    packet.dts += ticks
            yield number, packet

    def load_audio(self) -> AudioTrack | None:
        """The whole sound of the clip, placed by its pts on the clip's clock.

        Gaps and a late start are zeros; sound from before the clip's start is cut. Offsets below `PTS_TOLERANCE` are the
        muxer's and shift nothing. Where the number of channels or the rate changes in the file, what follows is mixed and
        resampled to the first of its formats. Broken packets leave gaps, and one warning counts them.

        Returns:
            The track, or `None` where the file has no sound (or none that can be decoded, with a warning).
        """
        if not self.info.has_audio:
            return None
        track, packets, broken = None, 0, 0
        with _open(self._source) as container:
            stream = _sound(container, self._audio_track, self.info.source)
            tick = float(stream.time_base)
            for _, packet in _unbroken(self._packets(container, stream)):
                packets += bool(packet.size)
                try:
                    frames = packet.decode()
                except av.FFmpegError:
                    broken += 1
                    continue
                for frame in frames:
                    if track is None:
                        track = _Track(frame, self.info.duration, _is_counted(container))
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
    """A frame that the index holds does not come out of the decoder."""


def _forward(frames: Iterator, frame, target: int):
    """The frame at `target`, decoding on from `frame`; `None` where there is none."""
    while frame is None or frame.pts is None or frame.pts < target:
        frame = next(frames, None)
        if frame is None:
            return None
    return frame if frame.pts == target else None


def load_audio(source: Source, audio_track: int | str | None = None) -> AudioTrack | None:
    """The whole sound of a clip, see [`Clip.load_audio`].

    Args:
        source, audio_track: As for [`Clip`].

    Raises:
        MediaError: as [`Clip`].
    """
    with Clip(source, audio_track) as clip:
        return clip.load_audio()


class _Track:
    """Gathers decoded sound in the format of its first frame."""

    def __init__(self, frame, seconds: float, counted: bool):
        self.counted, self.changed, self.leap = counted, False, None
        self._rate, self._end = frame.sample_rate, 0
        shape = frame.layout.nb_channels, int((min(seconds, 600) + 1) * frame.sample_rate)
        self._samples = np.zeros(shape, np.float32)  # grows
        self._run: _Run | None = None

    def add(self, frame, seconds: float | None) -> None:
        """A decoded frame that is heard `seconds` after the clip's start; `None` for one that follows on."""
        sound = _to_float(frame)
        if len(sound) == len(self._samples) and frame.sample_rate == self._rate:
            self._close_run()
            self._put(sound, None if self.counted and self.changed else seconds)
            return
        self.changed = True
        seconds = None if self.counted else seconds
        if self._run is None or not self._run.takes(sound, frame, seconds):
            self._close_run()
            self._run = _Run(frame, seconds)
        self._run.sounds.append(sound)

    def finish(self) -> AudioTrack:
        self._close_run()
        return AudioTrack(self._samples[:, : self._end], self._rate)

    def _close_run(self) -> None:
        if self._run is not None:
            self._put(self._run.convert(len(self._samples), self._rate), self._run.seconds)
            self._run = None

    def _put(self, sound: np.ndarray, seconds: float | None) -> None:
        at = self._end if seconds is None else round(seconds * self._rate)
        if at - self._end > LONGEST_SILENCE * self._rate:
            self.leap = self.leap or seconds
        if abs(at - self._end) < PTS_TOLERANCE * self._rate or not 0 <= at - self._end <= LONGEST_SILENCE * self._rate:
            at = self._end  # it follows on; times that run backwards or leap are no times
        self._end = at + sound.shape[1]
        if self._end > self._samples.shape[1]:
            self._samples = np.pad(self._samples, ((0, 0), (0, self._end)))
        self._samples[:, at : self._end] = sound


class _Run:
    """Sound of another format than the first, without a gap."""

    def __init__(self, frame, seconds: float | None):
        self.seconds, self.sounds = seconds, []
        self._rate = frame.sample_rate
        self._names = [channel.name for channel in frame.layout.channels]

    def takes(self, sound: np.ndarray, frame, seconds: float | None) -> bool:
        end = (self.seconds or 0) + sum(sound.shape[1] for sound in self.sounds) / self._rate
        follows = seconds is None or abs(seconds - end) < PTS_TOLERANCE
        return follows and frame.sample_rate == self._rate and len(sound) == len(self.sounds[0])

    def convert(self, channels: int, rate: int) -> np.ndarray:
        """All of it with as many channels and at such a rate."""
        sound = np.concatenate(self.sounds, axis=1)
        if len(sound) != channels:
            sound = _mix(sound, self._names, channels)
        return resample(torch.from_numpy(sound), self._rate, rate).numpy()


def _mix(sound: np.ndarray, names: list[str], channels: int) -> np.ndarray:
    """(channels, n) of a sound with other channels: left and right in the first two, or in one their mean.

    What is in the middle, beside or behind is heard on its side with the weight that broadcasters give it (ITU-R BS.775);
    the bass channel is left out. Channels without a name are left and right.
    """
    sides = np.zeros((2, len(sound)), np.float32)
    for number, name in enumerate(names):
        front = 1.0 if name in ("FL", "FR") else 2**-0.5
        sides[0, number] = front * (name.endswith("L") or name.endswith("C"))
        sides[1, number] = front * (name.endswith("R") or name.endswith("C"))
    if len(sound) == 1 or not sides.any(1).all():
        sides[:] = np.eye(2, len(sound)) if len(sound) > 1 else 1
    mixed = sides @ sound
    if channels == 1:
        return mixed.mean(0, keepdims=True)
    return np.pad(mixed, ((0, channels - 2), (0, 0)))


def _is_counted(container) -> bool:
    """Whether the times are no file's own: FFmpeg makes those of a bare sound stream (ADTS, MP3) by counting its packets,
    all as long as the first."""
    flags = container.format.flags
    return bool(flags & Flags.generic_index.value) and not flags & Flags.ts_discont.value


def _to_float(frame) -> np.ndarray:
    """(channels, n) float32 of a decoded sound frame; integer formats are scaled by their half range."""
    channels = frame.layout.nb_channels
    if frame.format.is_planar and channels > 7:  # PyAV's own conversion reads beyond the eighth
        dtype = av.AudioFrame(frame.format, "mono", 1).to_ndarray().dtype
        sound = np.stack([np.frombuffer(frame.planes[i], dtype)[: frame.samples] for i in range(channels)])
    else:
        sound = frame.to_ndarray()
    if not frame.format.is_planar:
        sound = sound.reshape(-1, channels).T
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
                container = av.open(source, timeout=NETWORK_TIMEOUT, metadata_errors="replace")
            else:
                container = av.open(_Content(files.enter_context(_stream(source))), metadata_errors="replace")
        except (av.InvalidDataError, av.ArgumentError) as error:
            raise MediaError(f"{name} is not a media file, or is damaged beyond use: {error.strerror}") from error
        except (av.FFmpegError, OSError) as error:
            raise MediaError(f"{name} cannot be opened: {error.strerror or error}") from error
        yield files.enter_context(container)


class _Content:
    """A file as FFmpeg sees it: without a name, and with a place of its own, since a file may be open more than once.

    Its content alone then decides what it is (by its name a text file would be a film of letters), and a play list in
    disguise cannot make FFmpeg open other files.
    """

    def __init__(self, file: BinaryIO):
        self._file, self._place = file, 0

    def read(self, size: int) -> bytes:
        self._file.seek(self._place)
        data = self._file.read(size)
        self._place += len(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence == 1:
            offset, whence = offset + self._place, 0
        self._place = self._file.seek(offset, whence)
        return self._place

    def tell(self) -> int:
        return self._place


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
    try:
        stream = container.streams.best(kind)
    except IndexError:  # one that began later than PyAV looked
        stream = next((stream for stream in container.streams if stream.type == kind), None)
    return None if stream is None or stream.disposition & Disposition.attached_pic else stream


def _sound(container, track: int | str | None, name: str):
    """The sound stream that was asked for by number or language, FFmpeg's best without, `None` where there is none."""
    if track is None:
        return _best(container, "audio")
    streams = container.streams.audio
    if isinstance(track, str) and not track.isdigit():
        found = [stream for stream in streams if stream.language == track]
    else:
        found = streams[int(track) : int(track) + 1] if int(track) >= 0 else []
    if not found:
        there = "; ".join(map(str, _sound_tracks(container))) or "no sound"
        raise MediaError(f"{name} has no sound track {track!r}; it has {there}")
    return found[0]


def _sound_tracks(container) -> list[SoundTrack]:
    return [
        SoundTrack(
            index=index,
            language=None if stream.language in (None, "", "und") else stream.language,
            title=stream.metadata.get("title") or None,
            codec=stream.codec_context.name if stream.codec_context else "unknown",
            channels=stream.codec_context.channels if stream.codec_context else 0,
            rate=stream.codec_context.sample_rate if stream.codec_context else 0,
        )
        for index, stream in enumerate(container.streams.audio)
    ]


def _start(video, audio, first: float | None = None) -> float:
    """Where on the file's own clock the clip's clock starts, in seconds; `first` is when the first frame is shown, where
    that is not the stream's start."""
    video_start, audio_start = (
        None if stream is None else float((stream.start_time or 0) * stream.time_base) for stream in (video, audio)
    )
    video_start = video_start if first is None else first
    if video_start is None:
        return audio_start or 0.0
    if audio_start is None or audio_start > video_start - PTS_TOLERANCE:
        return video_start
    return audio_start


def _demux(container, *streams) -> Iterator:
    """The packets of the streams up to the end of the file or to where it cannot be read any more."""
    return _unbroken(_read(container, *streams))


def _read(container, *streams) -> Iterator:
    """The packets of the streams. PyAV stumbles over those of a stream that begins later than it looked; it can go on."""
    while True:
        try:
            yield from container.demux(*streams)
            return
        except IndexError:
            continue


def _unbroken(packets: Iterator) -> Iterator:
    with suppress(av.FFmpegError):
        yield from packets
