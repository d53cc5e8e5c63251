"""Writer of video files with a talking photograph, for the demo, the tests and the benchmarks.

The picture is one public-domain photograph that moves gently, and the voice is that of a synthesiser: no real person
speaks.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path

import numpy as np

from ...utils.atomic_files import atomic_file, write_text
from .voice import SOUND_RATE, plan_speech, speak

try:
    import av
except ImportError:
    av = None  # type: ignore[assignment]

_TICK = Fraction(1, 90_000)
# Centre and width of the astronaut's face in `skimage.data.astronaut()`, in pixels.
_FACE_CENTER, _FACE_WIDTH = (225, 124), 92


@dataclass
class Line:
    """A stretch of time in which the voice sounds.

    Attributes:
        start (`float`): The start in seconds.
        end (`float`): The end in seconds.
        text (`str`): The text of the subtitle.
    """

    start: float
    end: float
    text: str


DEMO_LINES = (
    Line(0.4, 2.0, "This picture is an old photograph."),
    Line(2.4, 3.9, "My voice is made of numbers only."),
    Line(4.3, 5.7, "So I wonder what you think I feel."),
)


def write_demo_dialogue(folder: str | Path, seed: int = 0) -> Path:
    """Writes a clip of 6 s with face, sound and subtitles, made from the astronaut photograph of scikit-image.

    Args:
        folder (`str` or `Path`):
            The folder of `astronaut.mp4` (H.264, AAC) and `astronaut.srt`. It is made if it does not exist.
        seed (`int`, *optional*, defaults to 0): The seed of the motion and the voice.

    Returns:
        `Path`: The path of `astronaut.mp4`.

    Raises:
        ImportError: if scikit-image is not installed.
    """
    path = Path(folder) / "astronaut.mp4"
    write_text(path.with_suffix(".srt"), to_srt(DEMO_LINES))
    write_talking_photograph(path, DEMO_LINES, seconds=6.0, seed=seed)
    return path


def write_talking_photograph(
    path: Path,
    lines: Sequence[Line],
    seconds: float,
    size: tuple[int, int] = (640, 480),
    face_width: int = 180,
    fps: int = 25,
    seed: int = 0,
) -> None:
    """Writes a clip of the astronaut photograph that sways and zooms, with a voice during `lines`.

    Args:
        path (`Path`): The file to write. Its suffix names the container.
        lines (`Sequence[Line]`): The stretches in which the voice sounds.
        seconds (`float`): The length in seconds.
        size (`tuple[int, int]`, *optional*, defaults to `(640, 480)`): The width and height, which must be even.
        face_width (`int`, *optional*, defaults to 180): The width of the face in pixels.
        fps (`int`, *optional*, defaults to 25): The frames per second.
        seed (`int`, *optional*, defaults to 0): The seed of the motion and the voice.

    Raises:
        ImportError: if scikit-image is not installed.
    """
    rng = np.random.default_rng(seed)
    times = np.arange(round(seconds * fps)) / fps
    pictures = move_photograph(astronaut(), times, size, face_width, rng)
    speeches = [plan_speech(line.start, line.end, "lively", 180, rng) for line in lines]
    write_media(path, pictures, times, speak(speeches, seconds, rng))


def astronaut() -> np.ndarray:
    """Loads a NASA photograph (public domain) that comes with scikit-image.

    Returns:
        `np.ndarray` of shape `(512, 512, 3)`: The uint8 RGB image.

    Raises:
        ImportError: if scikit-image is not installed.
    """
    try:
        from skimage import data
    except ImportError as error:
        message = "the demo clip is made from a photograph in scikit-image: pip install scikit-image"
        raise ImportError(message, name="skimage") from error
    return data.astronaut()


def move_photograph(
    photograph: np.ndarray, times: np.ndarray, size: tuple[int, int], face_width: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Renders a photograph filmed by a camera that sways and zooms a little.

    Args:
        photograph (`np.ndarray` of shape `(H, W, 3)`): A uint8 RGB image.
        times (`np.ndarray` of shape `(T,)`): The times of the frames in seconds.
        size (`tuple[int, int]`): The width and height of a frame.
        face_width (`int`): The width of the face in pixels.
        rng (`np.random.Generator`): The generator of the motion.

    Yields:
        `np.ndarray` of shape `(height, width, 3)`: T uint8 RGB frames.
    """
    from PIL import Image

    margin = max(photograph.shape)
    canvas = Image.fromarray(np.pad(photograph, ((margin, margin), (margin, margin), (0, 0)), mode="edge"))
    phases = rng.uniform(0, 2 * np.pi, 3)
    for time in times:
        sway_x, sway_y, zoom = np.sin(2 * np.pi * time * np.array([0.23, 0.31, 0.11]) + phases)
        scale = face_width / _FACE_WIDTH * (1 + 0.04 * zoom)
        half = np.array(size) / scale / 2
        center = np.array(_FACE_CENTER) + margin + 0.06 * half * (sway_x, sway_y)
        yield np.asarray(canvas.resize(size, Image.Resampling.BILINEAR, box=(*(center - half), *(center + half))))


def to_srt(lines: Iterable[Line]) -> str:
    """Formats lines as SubRip text.

    Args:
        lines (`Iterable[Line]`): The lines.

    Returns:
        `str`: The text.
    """

    def stamp(seconds: float) -> str:
        milliseconds = round(seconds * 1000)
        minutes, milliseconds = divmod(milliseconds, 60_000)
        return f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds // 1000:02},{milliseconds % 1000:03}"

    return "\n".join(
        f"{number}\n{stamp(line.start)} --> {stamp(line.end)}\n{line.text}\n" for number, line in enumerate(lines, 1)
    )


def write_media(
    path: Path,
    pictures: Iterable[np.ndarray],
    times: Sequence[float] | np.ndarray,
    sound: np.ndarray | None = None,
    sound_start: float = 0.0,
    sound_rate: int = SOUND_RATE,
    comment: str | None = None,
    encoding: Mapping[str, str] | None = None,
) -> None:
    """Encodes pictures and sound into a file, which has a temporary name until it is complete.

    Args:
        path (`Path`): The file to write. Its suffix names the container.
        pictures (`Iterable[np.ndarray]`):
            The uint8 RGB frames of shape `(H, W, 3)` with even sides, one for each of `times`.
        times (`Sequence[float]` or `np.ndarray`): The presentation times in seconds, increasing, at least a millisecond apart.
        sound (`np.ndarray` of shape `(n,)`, *optional*): The float32 mono samples.
        sound_start (`float`, *optional*, defaults to 0.0): The presentation time of the first sample in seconds.
        sound_rate (`int`, *optional*, defaults to 16000): The samples per second.
        comment (`str`, *optional*): A text that is stored in the metadata of the file.
        encoding (`Mapping[str, str]`, *optional*): Further options of the encoder x264, such as `crf`, where it is there.
    """
    pictures = iter(pictures)
    first = next(pictures, None)
    with atomic_file(path) as part, av.open(str(part), "w") as container:
        if comment is not None:
            container.metadata["comment"] = comment
        if first is not None:
            video: av.VideoStream = container.add_stream(_video_encoder(), rate=25)  # type: ignore[assignment]
            video.height, video.width, video.pix_fmt = *first.shape[:2], "yuv420p"
            video.codec_context.time_base = _TICK
            if video.codec_context.name == "libx264":
                video.options = {"preset": "veryfast", **(encoding or {})}  # a third of the time
        if sound is not None:
            # All of it first: it waits in the muxer for the frames it belongs to.
            audio: av.AudioStream = container.add_stream("aac", rate=sound_rate, layout="mono")
            samples = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound, np.float32)[None], "fltp", "mono")
            samples.rate, samples.time_base = sound_rate, Fraction(1, sound_rate)
            samples.pts = round(sound_start * sound_rate)
            container.mux([*audio.encode(samples), *audio.encode()])
        if first is not None:
            for picture, time in zip(chain([first], pictures), times, strict=True):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
                frame.pts, frame.time_base = round(time / _TICK), _TICK
                container.mux(video.encode(frame))
            container.mux(video.encode())


def _video_encoder() -> str:
    """Returns the name of an H.264 encoder if this FFmpeg has one."""
    for name in ("libx264", "libopenh264", "h264_videotoolbox"):
        try:
            av.Codec(name, "w")
        except ValueError:
            continue
        return name
    return "mpeg4"
