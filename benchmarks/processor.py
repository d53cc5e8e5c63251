"""CPU time and peak memory of the processor, beside the floor of the same work, on 720p clips made here.

python benchmarks/processor.py
python benchmarks/processor.py --repeats 5

The floor is what no processor that decodes with PyAV and finds faces with MediaPipe can do without: one hybrid decode,
one reformat per view, one mesh call per picked frame. Subtitles, sound, mel, patch masks, normalisation and tokens
are the processor's own. Each row is a process of its own.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

LINES = ((0.05, 0.25), (0.4, 0.6), (0.7, 0.95))  # of the clip's length
SECONDS, FRAMES, VIEWS = (10, 60), (8, 32, 96), ("frame", "face_crop")


def make_clip(folder: Path, seconds: int) -> Path:
    """A 720p clip: a face about 200 pixels wide that sways, a voice, three subtitles."""
    from microemo.training.synthetic.media_writer import Line, to_srt, write_talking_photograph

    path = folder / f"talk{seconds}.mp4"
    lines = [Line(a * seconds, b * seconds, f"Line number {i}.") for i, (a, b) in enumerate(LINES, 1)]
    path.with_suffix(".srt").write_text(to_srt(lines))
    write_talking_photograph(path, lines, seconds, size=(1280, 720), face_width=200)
    return path


def make_processor(view: str, num_frames: int):
    """The processor of the paper's frame size; 96 frames and the utterances' own need a larger `max_frames`."""
    from microemo import MicroEmoConfig, MicroEmoProcessor
    from microemo.publishing.initialize import tiny_qformer_tokenizer, tiny_tokenizer

    config = MicroEmoConfig.from_preset("microemo-tiny", local_view=view, max_frames=num_frames + 3)
    config.vision_config.image_size = 224
    return MicroEmoProcessor.from_config(config, tiny_tokenizer(), tiny_qformer_tokenizer())


def floor(clip: Path, view: str, indices) -> None:
    """One hybrid decode, one reformat per view, one mesh call per picked frame."""
    import av
    from av.video.reformatter import VideoReformatter

    from microemo.processing.faces.face_mesh import FaceMesh
    from microemo.processing.media import Clip

    mesh = FaceMesh()._backend()._mesh
    to_view, to_mesh, to_rgb, to_crop = (VideoReformatter() for _ in range(4))

    def look(frame):
        pixels = to_view.reformat(frame, 224, 224, "rgb24", interpolation="BILINEAR", threads=1).to_ndarray()
        copy = to_mesh.reformat(frame, 640, 360, "rgb24", interpolation="BILINEAR", threads=1).to_ndarray()
        mesh.process({"image": copy})
        if view == "frame":
            return pixels
        crop = to_rgb.reformat(frame, format="rgb24", threads=1).to_ndarray()[200:460, 500:760]
        crop = to_crop.reformat(av.VideoFrame.from_ndarray(crop), 224, 224, interpolation="BILINEAR", threads=1)
        return pixels, crop.to_ndarray()

    with Clip(clip) as file:
        file.read(lambda _: indices, look)


def measure(clip: Path, warm_up: Path, view: str, num_frames: int, repeats: int) -> dict:
    """Megabytes by which a call raises the peak memory over one warm-up call on another clip; then the CPU seconds of
    the processor and of the floor, called in turn: the least of each, since other programs can only add to them."""
    processor = make_processor(view, num_frames)

    def process(path, frames):
        return processor(
            text="What does the speaker feel?",
            videos=str(path),
            utterances=str(path.with_suffix(".srt")),
            num_frames=frames,
            return_tensors="pt",
            return_metadata=True,
        )

    process(warm_up, 4)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = _memory("VmRSS")
    features = process(clip, num_frames)
    result = {"megabytes": _memory("VmHWM") - before, "processor": np.inf, "floor": np.inf}
    indices = features.pop("video_metadata")[0].frames_indices
    del features
    calls = {"processor": lambda: process(clip, num_frames), "floor": lambda: floor(clip, view, indices)}
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.process_time()
            call()
            result[name] = min(result[name], time.process_time() - start)
    return result


def _memory(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise ValueError(f"/proc/self/status has no {field}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="calls of which the fastest is shown")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # one measurement, as JSON
    options = parser.parse_args()
    if options.one:
        arguments = json.loads(options.one)
        print(json.dumps(measure(**{**arguments, **{name: Path(arguments[name]) for name in ("clip", "warm_up")}})))
        return
    with tempfile.TemporaryDirectory() as folder:
        clips = {seconds: make_clip(Path(folder), seconds) for seconds in (2, *SECONDS)}
        print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs, {time.strftime('%Y-%m-%d')}\n")
        print("| view | clip | frames | processor CPU | floor CPU | ratio | processor memory |")
        print("|---|---|---|---|---|---|---|")
        for view in VIEWS:
            for seconds in SECONDS:
                for num_frames in FRAMES:
                    arguments = {"clip": str(clips[seconds]), "warm_up": str(clips[2]), "view": view}
                    row = _in_a_process(arguments | {"num_frames": num_frames, "repeats": options.repeats})
                    print(
                        f"| {view} | {seconds} s | {num_frames} | {row['processor'] * 1e3:.0f} ms "
                        f"| {row['floor'] * 1e3:.0f} ms | {row['processor'] / row['floor']:.2f} "
                        f"| +{row['megabytes']:.0f} MB |",
                        flush=True,
                    )


def _in_a_process(arguments: dict) -> dict:
    command = [sys.executable, __file__, "--one", json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
