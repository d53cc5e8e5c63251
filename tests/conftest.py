"""Clips for all tests: the shared folder where there is one, and small real files made here."""

import importlib.metadata
import json
import os
import signal
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from microemo.tests.hub_stand_in import HubStandIn
from microemo.training.synthetic.media_writer import (
    SOUND_RATE,
    astronaut,
    move_photograph,
    write_demo_dialogue,
    write_media,
)

# Threads cost more than they bring on models this small, several times as much where others use the machine, too.
torch.set_num_threads(int(os.environ.setdefault("OMP_NUM_THREADS", "1")))  # processes that tests start inherit it


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared clips and goldens: `MICROEMO_SHARED`, or `../shared` beside the repository."""
    folder = Path(os.environ.get("MICROEMO_SHARED", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no shared folder at {folder}: set MICROEMO_SHARED to it")
    return folder


@pytest.fixture
def hub(monkeypatch, tmp_path_factory):
    """A stand-in for the Hub that the client of this process speaks to; see `hub_stand_in.py`."""
    with HubStandIn() as stand_in:
        stand_in.use(monkeypatch, tmp_path_factory.mktemp("huggingface"))
        yield stand_in


@pytest.fixture(scope="session")
def in_fork():
    """Runs a function in a fork of this process, for what limits or ends a process, without the seconds of imports.

    `in_fork(function, *arguments)` returns the exit code, which is negative for a signal, and "Type: message" of an error.
    """

    def run(function, *arguments) -> tuple[int, str]:
        reading, writing = os.pipe()  # which a limit on files does not end
        child = os.fork()
        if not child:
            code = 1
            try:
                signal.alarm(120)  # ends a fork that hangs
                function(*arguments)
                code = 0
            except BaseException as error:
                os.write(writing, f"{type(error).__name__}: {error}".encode())
            finally:
                os._exit(code)
        os.close(writing)
        with open(reading, encoding="utf-8") as message:
            error = message.read()
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), error

    return run


# Imports the package once; then runs each line's code in a fork, and prints its exit code.
IMPORTED_ONCE = """
import json, os, sys, traceback
import microemo
for line in sys.stdin:
    source, arguments, folder, streams = json.loads(line)
    child = os.fork()
    if not child:
        os.chdir(folder)
        for number, path in enumerate((os.devnull, *streams)):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), number)
        sys.argv[1:] = arguments
        code = 1
        try:
            exec(compile(source, "<string>", "exec"), vars(sys.modules["__main__"]))
            code = 0
        except SystemExit as end:
            code = end.code
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="session")
def run_fresh(tmp_path_factory):
    """Runs code as a process of its own that has imported `microemo` and done nothing else, without the seconds of the import.

    `run_fresh(code, *arguments)` runs it in an empty folder, and answers as `subprocess.run` does.
    """
    with subprocess.Popen(
        [sys.executable, "-c", IMPORTED_ONCE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:

        def run(code: str, *arguments) -> subprocess.CompletedProcess:
            folder = tmp_path_factory.mktemp("fresh")
            streams = [folder.with_name(f"{folder.name}.{name}") for name in ("stdout", "stderr")]
            request = [code, list(map(str, arguments)), str(folder), list(map(str, streams))]
            print(json.dumps(request), file=process.stdin, flush=True)
            returncode = int(process.stdout.readline())
            return subprocess.CompletedProcess(request, returncode, *(path.read_text() for path in streams))

        yield run
        process.stdin.close()


@pytest.fixture(scope="session")
def demo_clip(tmp_path_factory) -> Path:
    """The demo's `astronaut.mp4` (6 s, one face, voice) with `astronaut.srt` beside it."""
    pytest.importorskip("skimage", reason="the demo clip is made from scikit-image's photograph")
    return write_demo_dialogue(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="session")
def make_clip(tmp_path_factory):
    """A maker of small real files: `make_clip(name, times, size, face_width, sound, sound_start, ...)`."""

    def make(
        name: str,
        times=None,
        size: tuple[int, int] = (320, 240),
        face_width: int = 110,
        sound: float | None = 1.0,
        sound_start: float = 0.0,
        turned: bool = False,
        picture: np.ndarray | None = None,
        pixel_aspect: Fraction | None = None,
    ) -> Path:
        """
        Args:
            name: File name; its suffix names the container.
            times: Presentation times of the frames in seconds, 25 frames of a second unless given; none for a sound file.
            size: Width and height as shown.
            face_width: Of the astronaut's face, in pixels.
            sound: Seconds of a 440 Hz tone, or `None`.
            sound_start: When it starts.
            turned: Store the frames lying on their side, with a display matrix that stands them up (mp4 only).
            picture: (H, W, 3) uint8 to show instead of the astronaut.
            pixel_aspect: Width of a stored pixel over its height, as the file states it (mp4 only).
        """
        path = tmp_path_factory.mktemp("clip") / name  # a folder each, so that no test overwrites the clip of another
        times = np.arange(25) / 25 if times is None else times
        if picture is None:
            pytest.importorskip("skimage", reason="the pictures come from scikit-image")
            pictures = move_photograph(astronaut(), times, size, face_width, np.random.default_rng(0))
        else:
            pictures = (picture for _ in times)
        if turned:
            pictures = (np.rot90(picture) for picture in pictures)
        tone = None
        if sound is not None:
            tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(sound * SOUND_RATE)) / SOUND_RATE)
        write_media(path, pictures, times, tone, sound_start)
        if pixel_aspect is not None:
            _state_pixel_aspect(path, pixel_aspect)
        if turned:
            _turn_right(path)
        return path

    return make


@pytest.fixture(scope="session")
def torchvision_path(tmp_path_factory) -> str:
    """A folder with a package that imports as torchvision and does nothing; the empty string where the real one is."""
    try:
        importlib.metadata.version("torchvision")
    except importlib.metadata.PackageNotFoundError:
        folder = tmp_path_factory.mktemp("site")
    else:
        return ""
    for name in ("", "io", "transforms", "transforms/functional", "transforms/v2", "transforms/v2/functional"):
        path = folder / "torchvision" / name
        path.mkdir(parents=True)
        (path / "__init__.py").write_text(
            "import enum\n"
            "class InterpolationMode(enum.Enum):\n"
            "    NEAREST_EXACT, NEAREST, BILINEAR, BICUBIC, BOX, HAMMING, LANCZOS = range(7)\n"
            "def pil_to_tensor(*_): ...\n"
            "class Compose: ...\n"
        )
    metadata = folder / "torchvision-0.30.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.30.0\n")
    return str(folder)


def _state_pixel_aspect(path: Path, aspect: Fraction) -> None:
    plain = path.with_name(f"plain.{path.name}")
    path.replace(plain)
    with av.open(str(plain)) as source, av.open(str(path), "w") as out:
        streams = {stream.index: out.add_stream_from_template(stream) for stream in source.streams}
        for stream in out.streams.video:
            stream.codec_context.sample_aspect_ratio = aspect
        for packet in source.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)


def _turn_right(path: Path) -> None:
    """Write a quarter turn to the right into the display matrix of an mp4's first (video) track."""
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 4 + 20 + 8 + 8  # version 0: flags, times and id, reserved, layer to volume
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
