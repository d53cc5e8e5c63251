"""Inspection of a clip: pictures and numbers of the processor's output, which is what the model reads."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import BatchFeature

from ..processing.faces.face_crop import face_crop
from ..processing.faces.face_regions import REGIONS, WHOLE_FACE, find_regions, region_outlines
from ..processing.media import probe
from ..processing.processing_microemo import MicroEmoProcessor
from ..processing.speech import SpeechReader
from ..utils.atomic_files import atomic_file, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image as Picture

# Side of a drawn view, frames in a row of the contact sheet, and height of a caption, in pixels and frames.
_SIDE, _COLUMNS, _CAPTION = 336, 4, 22
_MOST_NUMBERS = 64  # of pieces of sound, for which there is room
_COLORS = dict(
    zip(
        (*REGIONS, *WHOLE_FACE),
        (
            *((230, 60, 60), (250, 150, 60), (250, 225, 70), (60, 150, 240), (80, 220, 230), (240, 90, 200)),
            *((150, 110, 240), (190, 160, 250), (255, 80, 120), (90, 220, 110), (170, 240, 60), (255, 80, 120)),
        ),
        strict=True,
    )
)


def inspect_clip(
    processor: MicroEmoProcessor,
    clip: Any,
    utterances: Any = None,
    audio: Any = None,
    audio_track: int | str | None = None,
    output: str | Path = "inspection",
    asr: Any = None,
    **kwargs: Any,
) -> dict:
    """Draws and writes the output of a processor for a clip.

    Args:
        processor ([`MicroEmoProcessor`]): The processor.
        clip (`Any`): A video or sound file, as the processor takes it.
        utterances (`Any`, *optional*): The subtitles, as the processor takes them.
        audio (`Any`, *optional*): A sound file in place of the clip's own sound.
        audio_track (`int` or `str`, *optional*):
            The sound track that is read, by its number or language, as the processor takes it.
        output (`str` or `Path`, *optional*, defaults to `"inspection"`):
            The folder for `NAME.frames.png` (a contact sheet: each sampled frame at the size that the image encoder
            reads, with the face mesh and the clue regions, and beside it the local view with each region's patches),
            `NAME.timeline.png` (utterances with the frames and the sound of their windows, audio segments and their mel
            pictures, over time) and `NAME.json` (the numbers).
        asr (`SpeechReader`, `Callable`, `str` or `False`, *optional*):
            What makes the utterances of a clip without subtitles, as the processor takes it. By default they have no words;
            `False` makes none.
        kwargs (`Any`, *optional*): Further arguments of the processor's call (`num_frames`, `local_view`, ...).

    Returns:
        `dict`: The numbers, the file's `sound_tracks`, the number of the one that is read (`audio_track`), and the
        written `files`, a list of paths.

    Raises:
        ImportError: if matplotlib is not installed.
        ValueError: if the input cannot be used (see [`MicroEmoProcessor`]).
    """
    try:
        import matplotlib.figure  # noqa: F401
        from PIL import Image  # noqa: F401
    except ImportError as error:
        raise ImportError("the pictures need matplotlib: pip install matplotlib", name="matplotlib") from error
    features = processor(
        videos=[clip],
        audio=None if audio is None else [audio],
        audio_track=audio_track,
        utterances=None if utterances is None else [utterances],
        asr=SpeechReader() if asr is None else asr,
        return_tensors="np",
        return_metadata=True,
        **kwargs,
    )
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    name = Path(str(clip)).stem if isinstance(clip, str | Path) else "clip"
    clue_regions = kwargs.get("clue_regions") or processor.video_processor.clue_regions
    report = _numbers(features, clue_regions)
    sound = clip if audio is None else audio
    if isinstance(sound, str | Path):
        with warnings.catch_warnings(action="ignore"):  # the processor has warned already
            info = probe(sound, audio_track)
        report |= {"sound_tracks": [vars(track) for track in info.sound_tracks], "audio_track": info.audio_track}
    report["files"] = []
    if "pixel_values_videos" in features:
        sheet = _contact_sheet(processor, features, report, clue_regions)
        report["files"].append(_write(output / f"{name}.frames.png", sheet.save))
    figure = _time_line(features, report, processor.feature_extractor.segment_duration)
    report["files"].append(_write(output / f"{name}.timeline.png", figure.savefig))
    numbers = json.dumps(report | {"files": [path.name for path in report["files"]]}, indent=1, ensure_ascii=False)
    report["files"].append(write_text(output / f"{name}.json", numbers))
    return report


def _write(path: Path, save: Callable[[Path], Any]) -> Path:
    with atomic_file(path) as part:
        save(part)
    return path


def _numbers(features: BatchFeature, clue_regions: str) -> dict:
    """Returns frames, faces, patches, utterances and windows as plain numbers."""
    video_metadata, times = features["video_metadata"][0], features["audio_segment_times"][0]
    # Windows of sound count the steps of an audio tower that has several in a segment.
    unit = "audio_steps" if "audio_step_mask" in features else "audio_segments"
    report: dict[str, Any] = {
        "shapes": {name: list(value.shape) for name, value in features.items() if hasattr(value, "shape")},
        "frames": [],
        "utterances": [],
        "audio_segments": [],
    }
    if times is not None:
        report[unit] = [{"start": start, "end": end} for start, end in times.tolist()]
        if unit == "audio_steps":
            mask = features["audio_step_mask"][0].reshape(features["audio_segment_mask"].shape[1], -1)
            parts = np.split(times, mask.sum(1).cumsum())
            report["audio_segments"] = [
                {"start": float(part[0, 0]), "end": float(part[-1, 1])} for part in parts if len(part)
            ]
    if video_metadata is not None:
        counts = features["region_masks"][0].sum(-1)
        report |= {
            "source": video_metadata.source,
            "duration": video_metadata.duration,
            "fps": video_metadata.fps,
            "total_frames": video_metadata.total_num_frames,
            "frame_size": list(video_metadata.frame_size),
        }
        report["frames"] = [
            {
                "index": index,
                "time": time,
                "faces": faces,
                "patches": dict(zip(find_regions(clue_regions), count.tolist(), strict=True)) if faces else {},
            }
            for index, time, faces, count in zip(
                video_metadata.frames_indices,
                video_metadata.frame_times,
                video_metadata.faces_found,
                counts,
                strict=False,
            )
        ]
    for row, utterance in enumerate(features["utterances"][0]):
        entry = {"start": utterance.start, "end": utterance.end, "text": utterance.text, "speaker": utterance.speaker}
        entry |= {"words": utterance.words} if utterance.words else {}
        for key, windows in (("frames", "utterance_windows"), (unit, "audio_windows")):
            if windows in features and row < features[windows].shape[1]:
                entry[key] = features[windows][0, row].tolist()
        if (pieces := report.get(unit, [])[slice(*entry.get(unit, (0, 0)))]) and entry[unit][0] >= 0:
            entry["sound"] = {"start": pieces[0]["start"], "end": pieces[-1]["end"]}
        report["utterances"].append(entry)
    return report


def _contact_sheet(processor: MicroEmoProcessor, features: BatchFeature, report: dict, clue_regions: str) -> "Picture":
    """Draws one tile for each frame: the frame with mesh and regions, and the local view with the regions' patches."""
    from PIL import Image, ImageDraw

    video_processor, video_metadata = processor.video_processor, features["video_metadata"][0]
    colors = {name: _COLORS[name] for name in find_regions(clue_regions)}
    crops = features.get("pixel_values_faces")
    local = features["pixel_values_videos"] if crops is None else crops
    count = len(report["frames"])
    rows = -(-count // _COLUMNS)
    columns = min(_COLUMNS, count)
    tile = (2 * _SIDE + 8, _SIDE + _CAPTION + 8)
    sheet = Image.new("RGB", (max(columns * tile[0], 1000), rows * tile[1] + 30), (24, 24, 28))
    pen = ImageDraw.Draw(sheet)
    for number, frame in enumerate(report["frames"]):
        left, top = (number % _COLUMNS) * tile[0], (number // _COLUMNS) * tile[1]
        face = video_metadata.landmarks[number]
        picture = _to_picture(features["pixel_values_videos"][0, number], video_processor)
        view = _to_picture(local[0, number], video_processor)
        on_view = face[:, :2]
        if crops is not None and frame["faces"]:
            scale, upright = video_processor.face_crop_scale, video_processor.face_crop_upright
            size = video_metadata.frame_size
            on_view = face_crop(face, size, scale, upright).place(face, size)
        if frame["faces"]:
            view = _paint_patches(view, features["region_masks"][0, number], list(colors.values()))
            _draw_face(picture, face[:, :2], clue_regions)
            _draw_face(view, on_view, clue_regions, mesh=False)
        sheet.paste(picture, (left, top + _CAPTION))
        sheet.paste(view, (left + _SIDE, top + _CAPTION))
        windows = [
            str(row + 1)
            for row, utterance in enumerate(report["utterances"])
            if utterance.get("frames", [0, 0])[0] <= number < utterance.get("frames", [0, 0])[1]
        ]
        faces = {0: "no face", 1: "1 face"}.get(frame["faces"], f"{frame['faces']} faces, the largest is taken")
        caption = f"{number}: frame {frame['index']}, {frame['time']:.2f} s, {faces}"
        pen.text((left + 4, top + 5), caption + (f", utterance {' '.join(windows)}" if windows else ""), "white")
    for number, (name, color) in enumerate(colors.items()):
        left, top = 6 + number * 90, rows * tile[1] + 8
        pen.rectangle((left, top, left + 12, top + 12), color)
        pen.text((left + 16, top), name, "white")
    return sheet


def _to_picture(pixels: np.ndarray, video_processor: Any) -> "Picture":
    """Converts normalised pixels (3, H, W) to a PIL image, `_SIDE` wide."""
    from PIL import Image

    mean, std = (np.array(values)[:, None, None] for values in (video_processor.image_mean, video_processor.image_std))
    levels = np.round((pixels * std + mean) * 255).clip(0, 255).astype(np.uint8)
    return Image.fromarray(levels.transpose(1, 2, 0)).resize((_SIDE, _SIDE), Image.Resampling.NEAREST)


def _paint_patches(picture: "Picture", masks: np.ndarray, colors: list) -> "Picture":
    """Paints the patches of the regions (R, P) over the picture, each in the mean colour of the regions that hold it."""
    from PIL import Image

    grid = int(masks.shape[1] ** 0.5)
    mixed = masks.T.astype(float) @ np.array(colors) / masks.sum(0).clip(1)[:, None]
    covered = masks.any(0).reshape(grid, grid)
    edges = np.linspace(0, _SIDE, grid + 1).round().astype(int)
    row = np.repeat(np.arange(grid), np.diff(edges))
    layer = mixed.reshape(grid, grid, 3)[row][:, row]
    alpha = 0.5 * covered[row][:, row]
    alpha[edges[:-1]] *= 0.3
    alpha[:, edges[:-1]] *= 0.3
    return Image.fromarray((np.asarray(picture) * (1 - alpha[..., None]) + layer * alpha[..., None]).astype(np.uint8))


def _draw_face(picture: "Picture", landmarks: np.ndarray, clue_regions: str, mesh: bool = True) -> None:
    """Draws landmarks (478, 2), fractions of the picture, as dots, and the regions' outlines."""
    from PIL import ImageDraw

    pen = ImageDraw.Draw(picture)
    if mesh:
        pen.point([tuple(point) for point in (landmarks * _SIDE).tolist()], (210, 255, 210))
    outlines = region_outlines(landmarks[None], clue_regions)[0] * _SIDE
    for outline, name in zip(outlines.tolist(), find_regions(clue_regions), strict=True):
        corners = [tuple(point) for point in outline]
        pen.line([*corners, corners[0]], _COLORS[name], 1)


def _time_line(features: BatchFeature, report: dict, segment_duration: float) -> "Figure":
    """Draws utterances, sampled frames, audio segments and their mel pictures over time."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sound = report["audio_segments"]
    mels: Any = _mel_pictures(features) if sound else []
    rows = 2 if len(mels) else 1
    figure = Figure(figsize=(15, 7 if len(mels) else 4), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    axes, *below = figure.subplots(rows, 1, sharex=True, squeeze=False, height_ratios=[1.6, 1][:rows])[:, 0]
    axes.set_yticks([0, 1, 2], ["audio segments", "frames", "utterances"])
    axes.set_ylim(-0.7, 2.7)
    length = report.get("duration") or max((piece["end"] for piece in sound), default=1)
    for row, utterance in enumerate(report["utterances"]):
        color, shift = f"C{row % 10}", 0.08 * (row % 3)
        share = (utterance["end"] - utterance["start"]) / length
        axes.barh(2, share * length, left=utterance["start"], height=0.8, color=color, alpha=0.35)
        label, heard = str(row + 1), utterance.get("sound")
        if share > 0.1:  # else there is room for the number only
            speaker = f"{utterance['speaker']}: " if utterance["speaker"] else ""
            label = _wrap(f"{label}. {speaker}{utterance['text']}", int(90 * share))
            first, end = utterance.get("frames", (0, 0))
            label += f"\nframes {first} to {end - 1}" if end > first else ""
            label += f"\nsound {heard['start']:.1f} to {heard['end']:.1f} s" if heard else ""
        axes.text(utterance["start"], 2, label, va="center", fontsize=8, clip_on=True)
        inside = [frame["time"] for frame in report["frames"][slice(*utterance.get("frames", (0, 0)))]]
        axes.plot(inside, [1.25 + shift] * len(inside), "_", color=color, markersize=9, mew=4)
        if heard:
            axes.barh(0.42 + shift, heard["end"] - heard["start"], left=heard["start"], height=0.06, color=color)
    for number, frame in enumerate(report["frames"]):
        axes.plot(frame["time"], 1, "o" if frame["faces"] else "x", color="black", markersize=6)
        axes.text(frame["time"], 0.72, str(number), ha="center", fontsize=7)
    for number, piece in enumerate(sound):
        height = 0.2 * (number % 4) - 0.1 * min(4, len(sound)) - 0.05
        axes.barh(
            height, piece["end"] - piece["start"], left=piece["start"], height=0.18, color="steelblue", alpha=0.6
        )
        if len(sound) <= _MOST_NUMBERS:
            axes.text(piece["start"], height, f" {number}", va="center", fontsize=7)
    for picture in below:
        for mel, piece in zip(mels, sound, strict=True):
            seconds = piece["end"] - piece["start"]
            columns = max(1, round(mel.shape[1] * min(1, seconds / segment_duration)))  # what follows is padding
            picture.imshow(
                mel[:, :columns],
                origin="lower",
                aspect="auto",
                cmap="magma",
                extent=(piece["start"], piece["end"], 0, len(mel)),
                vmin=mels.min(),
                vmax=mels.max(),
            )
        picture.set_ylabel(f"mel, {mels.shape[1]} bins", fontsize=8)
    axes.set_xlim(-0.02 * length, 1.02 * length)
    (below or [axes])[0].set_xlabel(
        "seconds (o frame with a face, x without; bars above frames and segments: the utterances' windows)"
    )
    return figure


def _mel_pictures(features: BatchFeature) -> Any:
    """The log-mel picture of each segment of the sound `(segments, bins, frames)`; none where the tower hears samples."""
    segments = features["input_features"][0][features["audio_segment_mask"][0]]
    return [] if segments.ndim < 3 else segments.reshape(len(segments), *segments.shape[-2:])


def _wrap(text: str, width: int) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width)[:3])
