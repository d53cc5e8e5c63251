"""Open media files with PyAV: paths, URLs, bytes and file objects, and which of their streams count."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar
from urllib.parse import urlparse
from urllib.request import url2pathname

import fsspec

try:
    import av
    from av.format import Flags
    from av.stream import Disposition
except ImportError:
    av = None  # type: ignore[assignment]  # the error names what to install

# Streams that start nearer to each other than this start together, and sound packets that end and start nearer than
# this touch: encoders put up to 48 ms of silence before the sound and muxers round times, which says nothing about
# what is heard when. Anything larger is a real offset or gap, and the file's pts decide.
PTS_TOLERANCE = 0.05
# Seconds that a server may take to answer, and to send the next bytes.
NETWORK_TIMEOUT = (15.0, 60.0)
# A play list (ffconcat, SDP) can be told by its content alone, and names files and ports of this machine.
NO_OTHER_FILES = {"protocol_whitelist": ""}

T = TypeVar("T")
Source = str | os.PathLike | bytes | BinaryIO


class MediaError(ValueError):
    """Says that a clip cannot be used. The message names the file and what is wrong with it."""


@dataclass
class SoundTrack:
    """Describes one of a file's sound tracks.

    Attributes:
        index (`int`): The number of the track among the sound tracks, counted from 0.
        language (`str`, *optional*): The language as the file states it, such as `"eng"`.
        title (`str`, *optional*): The title as the file states it.
        codec (`str`): The name of the codec.
        channels (`int`): The number of channels.
        rate (`int`): The number of samples per second.
    """

    index: int
    language: str | None
    title: str | None
    codec: str
    channels: int
    rate: int

    def __str__(self) -> str:
        labels = [text for text in (self.language, self.title) if text]
        return ", ".join([f"{self.index}: {self.codec}", *labels, f"{self.channels} channels", f"{self.rate} Hz"])


def has_flag(container: "av.container.InputContainer", flag: "Flags") -> bool:
    """Tells whether the format of a container has a flag.

    Args:
        container (`av.container.InputContainer`): An open container.
        flag (`av.format.Flags`): The flag.

    Returns:
        `bool`: Whether it has the flag.
    """
    return bool(container.format.flags & flag.value)  # type: ignore[operator]  # PyAV's stubs: the value is a flag


def may_jump(container: "av.container.InputContainer") -> bool:
    """Tells whether the clock of a container may jump at any time, as that of a broadcast.

    Args:
        container (`av.container.InputContainer`): An open container.

    Returns:
        `bool`: Whether its format allows that.
    """
    return has_flag(container, Flags.ts_discont)


def is_counted(container: "av.container.InputContainer") -> bool:
    """Tells whether the times of a container are counted by FFmpeg instead of stored in the file.

    FFmpeg counts the packets of a bare sound stream (ADTS, MP3) and takes all of them to be as long as the first.

    Args:
        container (`av.container.InputContainer`): An open container.

    Returns:
        `bool`: Whether the times are counted.
    """
    return has_flag(container, Flags.generic_index) and not may_jump(container)


def unwrap_source(source: Any) -> Any:
    """Takes the media file out of a row of the `datasets` library.

    `Video(decode=False)` and `Audio(decode=False)` give a dictionary with `path` and `bytes`. A decoder of a decoded
    video remembers that dictionary, so that the file is read here, too, with exact times and its sound.

    Args:
        source (`Any`): A row of the `datasets` library, or anything else.

    Returns:
        `Any`: The path, or the content as a file object with the path as its name. Anything that is no such row is
        returned as it is.

    Raises:
        MediaError: If the row has neither a path nor bytes.
    """
    row = getattr(source, "_hf_encoded", source)
    if not isinstance(row, dict) or not row.keys() & {"path", "bytes"} or "array" in row:
        return source
    if row.get("bytes") is None:
        if row.get("path") is None:
            raise MediaError("a clip of a `datasets` row has neither a path nor bytes")
        return row["path"]
    file = BytesIO(row["bytes"])
    file.name = row.get("path") or source_name(row["bytes"])  # for messages
    return file


def source_name(source: Source) -> str:
    """Returns the name of a source for messages.

    Args:
        source (`str`, `os.PathLike`, `bytes` or `BinaryIO`): A path, a URL, the bytes of a file or a file object.

    Returns:
        `str`: The path, the URL, the name of the file object, or the number of bytes.
    """
    if isinstance(source, bytes):
        return f"<{len(source)} bytes>"
    if isinstance(source, str | os.PathLike):
        return str(source)
    return str(getattr(source, "name", source))


@contextmanager
def open_container(source: Source) -> Iterator["av.container.InputContainer"]:
    """Opens a media file as a context manager.

    Args:
        source (`str`, `os.PathLike`, `bytes` or `BinaryIO`): A path, a URL, the bytes of a file or a file object.

    Returns:
        `Iterator[av.container.InputContainer]`: The open container.

    Raises:
        ImportError: If PyAV is not installed.
        MediaError: If the source cannot be opened or is not a media file.
    """
    if av is None:
        raise ImportError("MicroEmo reads video and sound with PyAV: pip install av")
    name = source_name(source)
    with ExitStack() as files:
        try:
            if isinstance(source, str) and urlparse(source).scheme in ("http", "https"):
                container = av.open(source, "r", timeout=NETWORK_TIMEOUT, metadata_errors="replace")
            else:
                content = _Content(files.enter_context(open_source(source)))
                container = av.open(content, "r", options=NO_OTHER_FILES, metadata_errors="replace")
        except (av.InvalidDataError, av.ArgumentError) as error:
            raise MediaError(f"{name} is not a media file, or is damaged beyond use: {error.strerror}") from error
        except (av.FFmpegError, OSError) as error:
            raise MediaError(f"{name} cannot be opened: {error.strerror or error}") from error
        yield files.enter_context(container)


class _Content:
    """Wraps a file without its name and with a reading position of its own, since a file may be open more than once.

    The content alone then decides what the file is (FFmpeg shows a text file as a video of letters by its name), and
    a play list under another name cannot make FFmpeg open other files.
    """

    def __init__(self, file: BinaryIO) -> None:
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
def open_source(source: Source) -> Iterator[BinaryIO]:
    """Opens the file of a source as a context manager.

    Args:
        source (`str`, `os.PathLike`, `bytes` or `BinaryIO`): A path, a URL, the bytes of a file or a file object.

    Returns:
        `Iterator[BinaryIO]`: The open file.

    Raises:
        OSError: If the file cannot be opened.
        MediaError: If it is a folder or empty, or if the source is something else.
    """
    if isinstance(source, bytes):
        yield BytesIO(source)
    elif isinstance(source, str | os.PathLike):
        url = urlparse(str(source))
        if "://" in str(source) and url.scheme != "file":  # of a streamed data set, such as hf:// or zip://
            try:
                file = fsspec.open(str(source), "rb").open()
            except (ValueError, ImportError) as error:  # a scheme that it does not know, or that misses a package
                raise MediaError(f"{source} cannot be opened: {error}") from error
            with file:
                yield file
            return
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
        raise MediaError(
            f"a clip is a path, a URL, bytes, a binary file object or a list of image files, not {type(source).__name__}"
        )


def best_stream(container: "av.container.InputContainer", kind: Literal["video", "audio"]) -> Any:
    """Finds FFmpeg's best stream of a kind.

    Args:
        container (`av.container.InputContainer`): An open container.
        kind (`"video"` or `"audio"`): The kind of the stream.

    Returns:
        `av.stream.Stream`, *optional*: The stream, or `None` if FFmpeg can decode none. A cover picture is no video.
    """
    try:
        stream = container.streams.best(kind)
    except IndexError:  # one that began later than PyAV looked
        stream = next((stream for stream in container.streams if stream.type == kind), None)
    if stream is None or stream.codec_context is None:  # none, or none that FFmpeg can decode
        return None
    return None if stream.disposition & Disposition.attached_pic else stream


def sound_stream(container: "av.container.InputContainer", track: int | str | None, name: str) -> Any:
    """Finds a sound stream by its number or its language.

    Args:
        container (`av.container.InputContainer`): An open container.
        track (`int`, `str` or `None`): The number of the track, counted from 0, or its language. `None` stands for
            FFmpeg's best track.
        name (`str`): The name of the file for errors.

    Returns:
        `av.AudioStream`, *optional*: The stream, or `None` if no track is asked for and there is none.

    Raises:
        MediaError: If the track does not exist or cannot be decoded.
    """
    if track is None:
        return best_stream(container, "audio")
    streams = list(container.streams.audio)
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


def list_sound_tracks(container: "av.container.InputContainer") -> list[SoundTrack]:
    """Lists the sound tracks of a file.

    Args:
        container (`av.container.InputContainer`): An open container.

    Returns:
        `list[SoundTrack]`: The tracks in the order of the file.
    """
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


def start_time(
    video: "av.stream.Stream | None", audio: "av.stream.Stream | None", first: float | None = None
) -> float:
    """Finds where on the file's own clock the clip's clock starts.

    Args:
        video (`av.stream.Stream` or `None`): The stream of pictures.
        audio (`av.stream.Stream` or `None`): The stream of sound.
        first (`float`, *optional*): The seconds at which the first frame is shown, if that is not the stream's start.

    Returns:
        `float`: The start in seconds.
    """
    video_start, audio_start = (
        None if stream is None else float((stream.start_time or 0) * (stream.time_base or 0))
        for stream in (video, audio)
    )
    video_start = video_start if first is None else first
    if video_start is None:
        return audio_start or 0.0
    if audio_start is None or audio_start > video_start - PTS_TOLERANCE:
        return video_start
    return audio_start


def demux(container: "av.container.InputContainer", *streams: "av.stream.Stream") -> Iterator[Any]:
    """Yields the packets of streams up to the end of the file or to where the file cannot be read any more.

    Args:
        container (`av.container.InputContainer`): An open container.
        streams (`av.stream.Stream`): The streams; all streams of the file if none is named.

    Returns:
        `Iterator[av.Packet]`: The packets in the order of the file.
    """
    return unbroken(read_packets(container, *streams))


def read_packets(container: "av.container.InputContainer", *streams: "av.stream.Stream") -> Iterator[Any]:
    """Yields the packets of streams.

    PyAV raises an `IndexError` at packets of a stream that begins later than it looked. Reading continues after them.

    Args:
        container (`av.container.InputContainer`): An open container.
        streams (`av.stream.Stream`): The streams; all streams of the file if none is named.

    Returns:
        `Iterator[av.Packet]`: The packets in the order of the file.

    Raises:
        av.FFmpegError: If the file cannot be read any more.
    """
    while True:
        try:
            yield from container.demux(*streams)
            return
        except IndexError:
            continue


def unbroken(packets: Iterator[T]) -> Iterator[T]:
    """Yields packets up to the first that cannot be read.

    Args:
        packets (`Iterator`): The packets as [`read_packets`] yields them.

    Returns:
        `Iterator`: The packets before the first error.
    """
    with suppress(av.FFmpegError):
        yield from packets
