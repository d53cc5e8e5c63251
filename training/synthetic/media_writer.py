"""Real video files made from nothing: a talking photograph for the demo, the tests and the benchmarks.

Nobody speaks in them: the picture is one public-domain photograph that moves gently, the voice a synthesiser's.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path

import numpy as np

from ...utils.files import atomic_file, write_text
from .voice import SOUND_RATE, plan_speech, speak

try:
    import av
except ImportError:
    av = None

_TICK = Fraction(1, 90_000)
# Centre and width of the astronaut's face in `skimage.data.astronaut()`, in pixels.
_FACE_CENTER, _FACE_WIDTH = (225, 124), 92


@dataclass
class Line:
    """What is "said" from `start` to `end` (seconds)."""

    start: float
    end: float
    text: str


DEMO_LINES = (
    Line(0.4, 2.0, "This picture is an old photograph."),
    Line(2.4, 3.9, "My voice is made of numbers only."),
    Line(4.3, 5.7, "So I wonder what you think I feel."),
)


def write_demo_dialogue(folder: str | Path, seed: int = 0) -> Path:
    """A clip of 6 s with face, sound and subtitles, made from the astronaut photograph that scikit-image brings.

    Args:
        folder: Where `astronaut.mp4` (H.264, AAC) and `astronaut.srt` are written; made if it does not exist.
        seed: Of the motion and the voice.

    Returns:
        The path of `astronaut.mp4`.

    Raises:
        ImportError: without scikit-image.
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
    """A clip of the astronaut photograph that sways and zooms, with a voice during `lines`.

    Args:
        path: File to write; its suffix names the container.
        lines: When the voice is heard.
        seconds: Length.
        size: Width and height, even.
        face_width: Of the face, in pixels.
        fps: Frames per second.
        seed: Of the motion and the voice.
    """
    rng = np.random.default_rng(seed)
    times = np.arange(round(seconds * fps)) / fps
    pictures = move_photograph(astronaut(), times, size, face_width, rng)
    speeches = [plan_speech(line.start, line.end, "lively", 180, rng) for line in lines]
    write_media(path, pictures, times, speak(speeches, seconds, rng))


def astronaut() -> np.ndarray:
    """(512, 512, 3) uint8, a NASA photograph (public domain) that comes with scikit-image."""
    try:
        from skimage import data
    except ImportError as error:
        message = "the demo clip is made from a photograph in scikit-image: pip install scikit-image"
        raise ImportError(message, name="skimage") from error
    return data.astronaut()


def move_photograph(
    photograph: np.ndarray, times: np.ndarray, size: tuple[int, int], face_width: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Pictures (H, W, 3) uint8 of a photograph before which a camera sways and zooms a little, one for each time."""
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
    """SubRip text of the lines."""

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
    times: Sequence[float],
    sound: np.ndarray | None = None,
    sound_start: float = 0.0,
    sound_rate: int = SOUND_RATE,
    comment: str | None = None,
) -> None:
    """Encode pictures and sound into a file, under a temporary name until it is whole.

    Args:
        path: File to write; its suffix names the container.
        pictures: (H, W, 3) uint8 RGB, even sides, one for each of `times`.
        times: Presentation times in seconds, increasing, at least a millisecond apart.
        sound: (n,) float32 mono, or `None`.
        sound_start: Presentation time of the first sample.
        sound_rate: Samples per second.
        comment: Kept in the file as metadata.
    """
    pictures = iter(pictures)
    first = next(pictures, None)
    with atomic_file(path) as part, av.open(str(part), "w") as container:
        if comment is not None:
            container.metadata["comment"] = comment
        if first is not None:
            video = container.add_stream(_video_encoder(), rate=25)
            video.height, video.width, video.pix_fmt = *first.shape[:2], "yuv420p"
            video.codec_context.time_base = _TICK
            if video.codec_context.name == "libx264":
                video.options = {"preset": "veryfast"}  # a third of the time
        if sound is not None:
            # All of it first: it waits in the muxer for the frames it belongs to.
            audio = container.add_stream("aac", rate=sound_rate, layout="mono")
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound, np.float32)[None], "fltp", "mono")
            frame.rate, frame.pts, frame.time_base = (
                sound_rate,
                round(sound_start * sound_rate),
                Fraction(1, sound_rate),
            )
            container.mux([*audio.encode(frame), *audio.encode()])
        if first is not None:
            for picture, time in zip(chain([first], pictures), times, strict=True):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
                frame.pts, frame.time_base = round(time / _TICK), _TICK
                container.mux(video.encode(frame))
            container.mux(video.encode())


def _video_encoder() -> str:
    """H.264 where this FFmpeg can write it."""
    for name in ("libx264", "libopenh264", "h264_videotoolbox"):
        try:
            av.Codec(name, "w")
        except ValueError:
            continue
        return name
    return "mpeg4"
