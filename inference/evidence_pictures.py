"""The picture of the evidence for the answer about one utterance: what in the face, the sound and the words it rests on.

```python
analysis = EmotionPipeline.from_pretrained().analyze("clip.mp4", utterances="clip.srt", evidence=True)
draw_evidence(analysis, 2, path="utterance_2.png")
```
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..processing.faces.face_mesh_backends import Face
from ..processing.faces.face_regions import WHOLE_FACE, face_box, find_regions, region_outlines
from .emotion_analysis import EmotionAnalysis, Evidence, UtteranceAnalysis
from .evidence import PARTS
from .facial_actions import follow_faces
from .figure_parts import (
    BAR,
    FAINT,
    MARGIN,
    MODALITIES,
    Sheet,
    check_picture,
    clean,
    clock,
    find_clip,
    line_height,
    plain_name,
    read_frames,
)
from .time_line import finding_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH, _PICTURE = 12.0, 5.4  # inches
_SHADE, _SUPPORTED, _NOT_SUPPORTED = "#D55E00", "#00694D", "#A63C00"
# A face that would be drawn lower than this, in inches, is shown in a crop of so many times its size.
_SMALL_FACE, _CROP_SCALE = 1.5, 2.0
_LOOKS = 5  # frames of the utterance in which a face is looked for
_MOST_WINDOWS, _MOST_CLAIMS = 12, 20


def draw_evidence(
    analysis: EmotionAnalysis, number: int, clip: Any = None, path: str | Path | None = None
) -> "Figure":
    """Draws what the answer about an utterance rests on.

    Args:
        analysis ([`EmotionAnalysis`]): The analysis, with evidence.
        number (`int`): The number of the utterance, from 1.
        clip (`Any`, *optional*):
            The clip, where it no longer lies at `analysis.clip`. Without it the face is left out.
        path (`str` or `Path`, *optional*): The picture to write: .png or .svg.

    Returns:
        `matplotlib.figure.Figure`: The figure.

    Raises:
        ImportError: if matplotlib is not installed.
        MediaError: if `clip` is given and cannot be used.
        ValueError: if there is no such utterance, or if the path ends neither in .png nor in .svg.
    """
    check_picture("evidence.png" if path is None else path)
    numbers = {of.number: of for of in analysis.utterances}
    if number not in numbers:
        known = f"has the utterances {min(numbers)} to {max(numbers)}" if numbers else "has no utterances"
        raise ValueError(f"utterance {number}: the analysis of {analysis.clip} {known}")
    of = numbers[number]
    sheet = _Evidence(analysis, of, find_clip(analysis, clip)).draw()
    if path is not None:
        sheet.save(path, _title(analysis, of), describe_evidence(analysis, number))
    return sheet.figure


def describe_evidence(analysis: EmotionAnalysis, number: int) -> str:
    """Says in words what is in the picture of the evidence, for those who do not see it.

    Args:
        analysis ([`EmotionAnalysis`]): The analysis.
        number (`int`): The number of the utterance.

    Returns:
        `str`: A few sentences: the utterance, its evidence from the strongest part on, and the claims.
    """
    of = next(of for of in analysis.utterances if of.number == number)
    told = [f"{_title(analysis, of)}.", f'Words: "{of.text}".' if of.text else "", of.description]
    for part in sorted(of.evidence, key=lambda part: -part.weight):
        told.append(f"{_part_name(part, of)}: {part.weight:+.2f}.")
    told += [f"{'Supported' if claim.supported else 'Not supported'}: {claim.text}." for claim in of.claims]
    return clean(" ".join(told))


def _title(analysis: EmotionAnalysis, of: UtteranceAnalysis) -> str:
    return f"Utterance {of.number} of {Path(analysis.clip).name or 'the clip'}: {finding_of(of)}"


def _part_name(part: Evidence, of: UtteranceAnalysis) -> str:
    if part.kind == "window":
        return f"utterance {part.name}" + (" (this one)" if part.name == str(of.number) else "")
    return MODALITIES.get(part.name, part.name) if part.kind == "modality" else plain_name(part.name)


class _Evidence:
    """Draws the parts of the picture: the face at the left, bars at the right, the claims below."""

    def __init__(self, analysis: EmotionAnalysis, of: UtteranceAnalysis, clip: Any) -> None:
        self.analysis, self.of, self.clip = analysis, of, clip
        about = [analysis.clip, analysis.model, of.speaker or "", *(claim.about for claim in of.claims)]
        self.sheet = Sheet(_WIDTH, [describe_evidence(analysis, of.number), *about])
        self.regions = {part.name: part.weight for part in of.evidence if part.kind == "region"}
        self.ranks = {
            name: rank
            for rank, name in enumerate(sorted(self.regions, key=lambda name: -self.regions[name])[:3], start=1)
            if self.regions[name] > 0
        }

    def draw(self) -> Sheet:
        analysis, of, sheet = self.analysis, self.of, self.sheet
        sheet.paragraph(_title(analysis, of), 15, 2, fontweight="bold")
        length = analysis.duration or of.end
        said = f"{of.speaker}: " if of.speaker else ""
        said += f"“{of.text}”" if of.text else "no words are known"
        sheet.paragraph(f"{clock(of.start, length)} to {clock(of.end, length)} · {said}", 10, 4)
        if of.description:
            sheet.paragraph(f"The model's answer: {of.description}", 9.5, 6, color=FAINT)
        sheet.bottom += 0.1
        top = sheet.bottom
        self._draw_face()
        below, sheet.bottom = sheet.bottom, top
        self._draw_bars()
        sheet.bottom = max(below, sheet.bottom) + 0.1
        self._draw_claims()
        if of.evidence:
            told = (
                "A bar is the fall of the log-probability of the emotion words, in nats, when that part of the input is "
                "taken away. It tells what the model uses, and is no proof of what anybody feels."
            )
            sheet.paragraph(told, 7.5, 2, color=FAINT)
        sheet.paragraph(f"{analysis.clip} · model {analysis.model} · MicroEmo {analysis.version}", 7.5, 2, color=FAINT)
        return sheet.finish()

    def _draw_face(self) -> None:
        if self.clip is None or not self.analysis.has_video:
            gone = "the clip has no pictures" if self.clip is not None else "the clip is not there any more"
            self._say(gone)
            return
        time, face = self._find_face()
        ((_, picture),) = read_frames(self.clip, [time], height=720)
        size = (picture.shape[1], picture.shape[0])
        left, top, right, bottom = _shown_box(face, size)
        tall = _PICTURE * (bottom - top) / (right - left)
        wide = _PICTURE * min(1, _PICTURE / tall)
        axes = self.sheet.axes(MARGIN, self.sheet.bottom, wide, min(tall, _PICTURE))
        axes.imshow(picture, aspect="auto", interpolation="lanczos")
        if face is not None:
            self._shade_regions(axes, face, size)
        axes.set_xlim(left, right)
        axes.set_ylim(bottom, top)
        self.sheet.bottom += min(tall, _PICTURE) + 0.05
        shown = f"the frame at {clock(time, self.analysis.duration or self.of.end)}"
        if face is None:
            self._say(f"{shown}: no face was found in this utterance")
        else:
            self._say(
                f"{shown}; the more a part of the face is shaded, the more the answer rests on it"
                if self.regions
                else shown
            )

    def _say(self, text: str) -> None:
        lines = self.sheet.wrap(text, _PICTURE, 8.5, 2)
        height = line_height(8.5) * len(lines)
        axes = self.sheet.axes(MARGIN, self.sheet.bottom, _PICTURE, height)
        self.sheet.text(axes, 0, 0, "\n".join(lines), 8.5, color=FAINT)
        self.sheet.bottom += height

    def _find_face(self) -> tuple[float, Face | None]:
        """Finds the frame next to the utterance's middle that shows the person who is followed through the clip."""
        start, end = self.of.start, self.of.end
        looks = np.linspace(start, end, 2 * _LOOKS + 1)[1::2]
        wanted = np.union1d(looks, [frame.time for frame in self.analysis.frames])

        def sample(times: np.ndarray, length: float) -> np.ndarray:
            return np.unique(np.maximum(np.searchsorted(times, wanted + 1e-9, "right") - 1, 0))

        _, _, times, faces, _ = follow_faces(self.clip, sample)
        middle = (start + end) / 2
        shown_at = max((time for time in times if time <= middle + 1e-9), default=times[0])
        of_utterance = [
            (time, face) for time, face in zip(times, faces, strict=True) if face is not None and start <= time <= end
        ]
        return min(of_utterance, key=lambda look: abs(look[0] - middle), default=(shown_at, None))

    def _shade_regions(self, axes: Any, face: Face, size: tuple[int, int]) -> None:
        kind = "whole_face" if self.regions.keys() & WHOLE_FACE.keys() else "facial"
        outlines = region_outlines((face.landmarks[:, :2] * size)[None], kind)[0]
        most = max([*self.regions.values(), 1e-9])
        of_region = dict(zip(find_regions(kind), outlines, strict=True))
        for name, weight in self.regions.items():
            share = max(weight, 0) / most
            parts = [of_region[region] for region in PARTS.get(name, (name,)) if region in of_region]
            for outline in parts:
                axes.fill(*outline.T, color=_SHADE, alpha=0.08 + 0.62 * share, linewidth=0)
                axes.fill(*outline.T, fill=False, edgecolor="white", linewidth=0.6 + 1.2 * share, joinstyle="round")
            for outline in parts[:2] if name in self.ranks else ():  # right and left
                mark = {"boxstyle": "circle,pad=0.25", "facecolor": "white", "edgecolor": _SHADE}
                style: dict[str, Any] = {"ha": "center", "va": "center", "fontweight": "bold", "clip_on": True}
                x, y = outline.mean(0)
                self.sheet.text(axes, x, y, str(self.ranks[name]), 8, bbox=mark, **style)

    def _draw_bars(self) -> None:
        of, sheet = self.of, self.sheet
        left = MARGIN + _PICTURE + 0.35
        if not of.evidence:
            axes = sheet.axes(left, sheet.bottom, _WIDTH - MARGIN - left, 0.4)
            sheet.text(axes, 0, 0, "No evidence was computed: analyze(..., evidence=True)", 9.5)
            sheet.bottom += 0.4
            return
        groups = {
            "Which part of the clip the answer rests on": "modality",
            "Which part of the face": "region",
            "Which utterance's frames and sound": "window",
        }
        most = max([abs(part.weight) for part in of.evidence] + [1e-6])
        for heading, kind in groups.items():
            parts = [part for part in of.evidence if part.kind == kind]
            if kind != "modality":
                parts.sort(key=lambda part: -part.weight)
            if parts:
                axes = sheet.axes(left, sheet.bottom, _WIDTH - MARGIN - left, 0.26)
                sheet.text(axes, 0, 0.18, heading, 9.5, va="baseline", fontweight="bold", color=FAINT)
                sheet.bottom += 0.26
                for part in parts[:_MOST_WINDOWS]:
                    self._draw_bar(left, part, most)
                sheet.bottom += 0.12

    def _draw_bar(self, left: float, part: Evidence, most: float) -> None:
        from matplotlib.patches import Rectangle

        sheet, wide, names = self.sheet, _WIDTH - MARGIN - left, 1.75
        axes = sheet.axes(left, sheet.bottom, wide, 0.22)
        rank = self.ranks.get(part.name) if part.kind == "region" else None
        name = (f"{rank}  " if rank else "") + _part_name(part, self.of)
        sheet.text(axes, names - 0.1, 0.11, name, 9, ha="right", va="center", fontweight="bold" if rank else "normal")
        weight = round(part.weight, 2)
        long = (wide - names - 0.5) * abs(weight) / most
        look: dict[str, Any] = {"facecolor": _SHADE if part.kind == "region" else BAR, "linewidth": 0.8}
        if weight < 0:
            look = {"facecolor": "white", "edgecolor": FAINT, "hatch": "/////", "linewidth": 0.8}
        axes.add_patch(Rectangle((names, 0.04), long, 0.14, **look))
        told = f"{weight:+.2f}" if weight else "0.00"
        told += "  surer without it" if weight < 0 and long < 1.2 else ""
        sheet.text(axes, names + long + 0.06, 0.11, told, 8, va="center", color=FAINT)
        sheet.bottom += 0.22

    def _draw_claims(self) -> None:
        claims, sheet = self.of.claims, self.sheet
        if not claims:
            return
        sheet.paragraph("Does the evidence support what the answer says?", 9.5, 1, fontweight="bold", color=FAINT)
        wide = _WIDTH - 2 * MARGIN
        for claim in claims[:_MOST_CLAIMS]:
            mark, color = ("✓ supported", _SUPPORTED) if claim.supported else ("✗ not supported", _NOT_SUPPORTED)
            about = MODALITIES.get(claim.about, plain_name(claim.about))
            lines = sheet.wrap(f"“{claim.text}” ({about}, {claim.weight:+.2f})", wide - 1.5, 9, 3)
            height = line_height(9) * max(1, len(lines)) + 0.04
            axes = sheet.axes(MARGIN, sheet.bottom, wide, height)
            sheet.text(axes, 0, 0, mark, 9, fontweight="bold", color=color)
            sheet.text(axes, 1.5, 0, "\n".join(lines), 9)
            sheet.bottom += height
        if len(claims) > _MOST_CLAIMS:
            sheet.paragraph(f"... and {len(claims) - _MOST_CLAIMS} more claims", 8, 1, color=FAINT)
        sheet.bottom += 0.1


def _shown_box(face: Face | None, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Returns the left, top, right and bottom in pixels of what is shown of a picture: a small face is shown larger."""
    width, height = size
    drawn = min(_PICTURE / width, _PICTURE / height) * height
    if face is None or (face.box[3] - face.box[1]) * drawn >= _SMALL_FACE:
        return 0, 0, width, height
    left, top, right, bottom = face_box(face.landmarks, size, _CROP_SCALE)
    return max(left, 0), max(top, 0), min(right, width), min(bottom, height)
