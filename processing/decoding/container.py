"""Open media files with PyAV: paths, URLs, bytes and file objects, and which of their streams count."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlparse
from urllib.request import url2pathname

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


def is_counted(container) -> bool:
    """Whether the times are no file's own: FFmpeg makes those of a bare sound stream (ADTS, MP3) by counting its packets,
    all as long as the first."""
    flags = container.format.flags
    return bool(flags & Flags.generic_index.value) and not flags & Flags.ts_discont.value


def source_name(source: Source) -> str:
    if isinstance(source, bytes):
        return f"<{len(source)} bytes>"
    if isinstance(source, str | os.PathLike):
        return str(source)
    return str(getattr(source, "name", source))


@contextmanager
def open_container(source: Source) -> Iterator:
    """An open input container."""
    if av is None:
        raise ImportError("MicroEmo reads video and sound with PyAV: pip install av")
    name = source_name(source)
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


def best_stream(container, kind: str):
    """FFmpeg's best stream of a kind, `None` where there is none that it can decode (a cover picture is no video)."""
    try:
        stream = container.streams.best(kind)
    except IndexError:  # one that began later than PyAV looked
        stream = next((stream for stream in container.streams if stream.type == kind), None)
    if stream is None or stream.codec_context is None:  # none, or none that FFmpeg can decode
        return None
    return None if stream.disposition & Disposition.attached_pic else stream


def sound_stream(container, track: int | str | None, name: str):
    """The sound stream that was asked for by number or language, FFmpeg's best without, `None` where there is none."""
    if track is None:
        return best_stream(container, "audio")
    streams = container.streams.audio
    if isinstance(track, str) and not track.isdigit():
        found = [stream for stream in streams if stream.language == track]
    else:
        found = streams[int(track) : int(track) + 1] if int(track) >= 0 else []
    if not found:
        there = "; ".join(map(str, list_sound_tracks(container))) or "no sound"
        raise MediaError(f"{name} has no sound track {track!r}; it has {there}")
    if found[0].codec_context is None:
        raise MediaError(f"{name}: sound track {track!r} is in a format that cannot be decoded")
    return found[0]


def list_sound_tracks(container) -> list[SoundTrack]:
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


def start_time(video, audio, first: float | None = None) -> float:
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


def demux(container, *streams) -> Iterator:
    """The packets of the streams up to the end of the file or to where it cannot be read any more."""
    return unbroken(read_packets(container, *streams))


def read_packets(container, *streams) -> Iterator:
    """The packets of the streams. PyAV stumbles over those of a stream that begins later than it looked; it can go on."""
    while True:
        try:
            yield from container.demux(*streams)
            return
        except IndexError:
            continue


def unbroken(packets: Iterator) -> Iterator:
    with suppress(av.FFmpegError):
        yield from packets
