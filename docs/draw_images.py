"""Draws the pictures of README.md and docs/ into docs/images/.

python docs/draw_images.py
"""

import tempfile
import textwrap
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from PIL import Image

from microemo.inference.emotion_pipeline import EXAMPLE, EmotionPipeline
from microemo.inference.inspection import inspect_clip

IMAGES = Path(__file__).parent / "images"
# The layout of `inspect_clip`: two views of 336 pixels side by side under a caption of 22 pixels.
VIEW, CAPTION, GAP = 336, 22, 8


def draw_demo() -> Path:
    """One frame of each utterance of the example, as the model receives it, over the real answers."""
    with tempfile.TemporaryDirectory() as folder:
        clip, subtitles = EXAMPLE, EXAMPLE.with_suffix(".srt")
        pipeline = EmotionPipeline.from_pretrained()
        answers = pipeline.by_utterance(str(clip), str(subtitles))
        # One frame at the start, and the middle frame of each utterance that holds none.
        report = inspect_clip(pipeline.processor, str(clip), utterances=str(subtitles), output=folder, num_frames=1)
        sheet = Image.open(next(path for path in report["files"] if path.name.endswith(".frames.png"))).convert("RGB")
    figure = Figure(figsize=(10.2, 2.9), dpi=110)
    FigureCanvasAgg(figure)
    for number, answer in enumerate(answers):
        left = (number + 1) * (2 * VIEW + GAP)
        axes = figure.add_axes((0.005 + number / 3, 0.34, 1 / 3 - 0.01, 0.56))
        axes.imshow(sheet.crop((left, CAPTION, left + 2 * VIEW, CAPTION + VIEW)), interpolation="antialiased")
        axes.set_axis_off()
        axes.set_title(f'{answer["start"]:.1f}-{answer["end"]:.1f} s: "{answer["text"]}"', fontsize=7)
        lines = "\n".join(textwrap.wrap(" ".join(answer["description"].split()), 50))
        figure.text(number / 3 + 1 / 6, 0.31, lines, ha="center", va="top", fontsize=8)
    path = IMAGES / "demo.png"
    figure.savefig(path, format="png", bbox_inches="tight", pad_inches=0.05)
    # 256 colours are enough for the picture and take a third of the bytes.
    Image.open(path).convert("RGB").quantize(256).save(path, optimize=True)
    return path


# Boxes of the architecture: name, centre, width, text, colour. Grey parts are frozen, green parts learn.
FROZEN, LEARNS, DATA = "#e3e6ea", "#cfe8d2", "#fdf3d6"
BOXES = {
    "frames": ((1.1, 5.0), 1.9, "frames\nof the video", DATA),
    "mesh": ((1.1, 3.7), 1.9, "face mesh,\n11 clue regions", DATA),
    "time": ((1.1, 6.3), 1.9, "timestamp\nof each frame", DATA),
    "subtitles": ((1.1, 2.4), 1.9, "subtitles:\nutterances", DATA),
    "sound": ((1.1, 1.1), 1.9, "sound: log-mel\nsegments", DATA),
    "vit": ((3.6, 5.0), 1.8, "EVA-CLIP\nimage encoder", FROZEN),
    "local": ((6.3, 3.7), 2.2, "local clue\nattention", LEARNS),
    "image_qformer": ((6.3, 5.7), 2.2, "image Q-Former\n(global and local view)", LEARNS),
    "fusion": ((9.0, 5.7), 2.2, "fusion: global +\ngate × project(local)", LEARNS),
    "video_qformer": ((9.0, 3.7), 2.2, "utterance-aware\nvideo Q-Former", LEARNS),
    "windows": ((9.0, 2.4), 2.2, "windows of frames\nand of segments", DATA),
    "imagebind": ((3.6, 1.1), 1.8, "ImageBind\naudio tower", FROZEN),
    "audio_qformer": ((9.0, 1.1), 2.2, "audio Q-Former", LEARNS),
    "llm": ((12.0, 3.7), 2.0, "language model\n(LoRA)", LEARNS),
    "question": ((12.0, 5.7), 2.0, "question and\ntranscript", DATA),
    "answer": ((12.0, 1.1), 2.0, "answer in words,\nopen vocabulary", DATA),
}
HEIGHT = 0.8
# From, to, and the words at the arrow.
ARROWS = [
    ("frames", "vit", ""),
    ("vit", "image_qformer", "patches"),
    ("vit", "local", "patches"),
    ("mesh", "local", "region masks"),
    ("local", "image_qformer", ""),
    ("time", "image_qformer", "text"),
    ("image_qformer", "fusion", ""),
    ("fusion", "video_qformer", "frame\ntokens"),
    ("subtitles", "windows", "start and end of each utterance"),
    ("windows", "video_qformer", ""),
    ("windows", "audio_qformer", ""),
    ("sound", "imagebind", ""),
    ("imagebind", "audio_qformer", "segment features"),
    ("video_qformer", "llm", "<video>"),
    ("audio_qformer", "llm", "<audio>"),
    ("question", "llm", ""),
    ("llm", "answer", ""),
]


def draw_architecture() -> Path:
    """The parts of the model and what passes between them."""
    figure = Figure(figsize=(13.2, 7.2))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, 13.2)
    axes.set_ylim(0.1, 6.9)
    axes.set_axis_off()
    for (x, y), width, text, color in BOXES.values():
        corner = (x - width / 2, y - HEIGHT / 2)
        axes.add_patch(
            FancyBboxPatch(corner, width, HEIGHT, boxstyle="round,pad=0.04", fc=color, ec="#555555", lw=1, zorder=3)
        )
        axes.text(x, y, text, ha="center", va="center", fontsize=10.5, zorder=4)
    for start, end, words in ARROWS:
        tail, head = _ends(start, end)
        axes.annotate("", head, tail, arrowprops={"arrowstyle": "-|>", "color": "#444444", "lw": 1.2}, zorder=2)
        if words:
            middle = ((tail[0] + head[0]) / 2, (tail[1] + head[1]) / 2)
            box = {"fc": "white", "ec": "none", "pad": 1}
            axes.text(*middle, words, ha="center", va="center", fontsize=8.5, color="#333333", bbox=box, zorder=2)
    for x, color, words in ((4.6, DATA, "input and output"), (6.6, FROZEN, "frozen"), (7.8, LEARNS, "trained")):
        axes.add_patch(FancyBboxPatch((x, 0.25), 0.22, 0.16, boxstyle="round,pad=0.02", fc=color, ec="#555555", lw=1))
        axes.text(x + 0.35, 0.33, words, va="center", fontsize=9.5)
    path = IMAGES / "architecture.png"
    figure.savefig(path, dpi=90)
    Image.open(path).convert("RGB").quantize(64).save(path, optimize=True)
    return path


def _ends(start: str, end: str) -> tuple[tuple[float, float], tuple[float, float]]:
    """Where the arrow leaves one box and meets the other."""
    (x, y), width, *_ = BOXES[start]
    (to_x, to_y), to_width, *_ = BOXES[end]
    if x == to_x:
        side = 1 if to_y > y else -1
        return (x, y + side * (HEIGHT / 2 + 0.04)), (to_x, to_y - side * (HEIGHT / 2 + 0.04))
    return (x + width / 2 + 0.04, y), (to_x - to_width / 2 - 0.04, to_y)


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    for picture in (draw_demo(), draw_architecture()):
        print(f"{picture} ({picture.stat().st_size / 1000:.0f} kB)")
