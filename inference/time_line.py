"""The time line of an analysis: one picture of a clip with frames, utterances, sound, facial actions and evidence.

```python
analysis = EmotionPipeline.from_pretrained().analyze("clip.mp4", utterances="clip.srt", evidence=True)
analysis.plot("clip.png")  # or draw_time_line(analysis, path="clip.svg")
```
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..processing.decoded_clip import is_frames
from ..processing.media import load_audio
from .emotion_analysis import EmotionAnalysis, UtteranceAnalysis
from .facial_actions import FacialActions, facial_actions
from .figure_parts import (
    BAR,
    FAINT,
    FAMILY_COLORS,
    INK,
    MARGIN,
    MODALITIES,
    NO_FAMILY,
    Sheet,
    check_picture,
    clean,
    clock,
    emotion_family,
    find_clip,
    ink_on,
    line_height,
    plain_name,
    read_frames,
    text_width,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Inches: the sheet, the names at the left, and the time axis beside them.
_WIDTH, _NAMES = 14.0, 1.35
_TIME = _WIDTH - _NAMES - 2 * MARGIN
_FRAMES, _FRAME_HEIGHT = 8, 1.6
_LEAST_ROOM = 0.6  # for words said
_MOST_SPEAKERS, _MOST_LISTED, _MOST_WARNINGS, _MOST_LOOKS = 4, 240, 6, 240
# The facial actions that are drawn, with plain names, and the strength from geometry that fills a lane.
_SHOWN_ACTIONS = {
    "AU01": ("brows raised", 0.05),
    "AU04": ("brows lowered", 0.03),
    "AU45": ("eyes closed", 0.08),
    "AU12": ("smile", 0.25),
    "AU24": ("lips pressed", 0.04),
    "AU26": ("mouth open", 0.2),
}


def draw_time_line(analysis: EmotionAnalysis, clip: Any = None, path: str | Path | None = None) -> "Figure":
    """Draws what was found in a clip over time.

    Args:
        analysis ([`EmotionAnalysis`]): The analysis, which may still run.
        clip (`Any`, *optional*):
            The clip, where it no longer lies at `analysis.clip`. Without it frames, sound and facial actions are left out.
        path (`str` or `Path`, *optional*): The picture to write: .png or .svg.

    Returns:
        `matplotlib.figure.Figure`: The figure.

    Raises:
        ImportError: if matplotlib is not installed.
        MediaError: if `clip` is given and cannot be used.
        ValueError: if the path ends neither in .png nor in .svg.
    """
    check_picture("time_line.png" if path is None else path)
    sheet = _TimeLine(analysis, find_clip(analysis, clip)).draw()
    if path is not None:
        sheet.save(path, _title(analysis), describe_time_line(analysis))
    return sheet.figure


def describe_time_line(analysis: EmotionAnalysis) -> str:
    """Says in words what is in the time line, for those who do not see it.

    Args:
        analysis ([`EmotionAnalysis`]): The analysis.

    Returns:
        `str`: A few sentences: the clip, each utterance with its words and emotions, and the warnings.
    """
    length = _length(analysis)
    told = [f"{_title(analysis)}, {clock(length, length)} long.", analysis.description]
    for of in analysis.utterances:
        speaker = f" {of.speaker}:" if of.speaker else ""
        words = f' "{of.text}"' if of.text else ""
        told.append(
            f"Utterance {of.number}, {clock(of.start, length)} to {clock(of.end, length)}.{speaker}{words} {finding_of(of)}."
        )
    return clean(" ".join([*told, *analysis.warnings]))


def _title(analysis: EmotionAnalysis) -> str:
    name = Path(analysis.clip).name or "the clip"
    return f"What is seen in {name}" if analysis.observations_only else f"What MicroEmo finds in {name}"


def finding_of(of: UtteranceAnalysis) -> str:
    """Says what is found in an utterance: its emotions, or without any what is seen.

    Args:
        of ([`UtteranceAnalysis`]): The utterance.

    Returns:
        `str`: The words.
    """
    return ", ".join(of.emotions) or of.observation or of.description or "nothing found"


def _length(analysis: EmotionAnalysis) -> float:
    ends = [of.end for of in analysis.utterances] + [frame.time for frame in analysis.frames]
    return max([analysis.duration or 0, *ends]) or 1.0


def _strongest_region(of: UtteranceAnalysis) -> str:
    regions = [one for one in of.evidence if one.kind == "region" and one.weight > 0]
    return plain_name(max(regions, key=lambda one: one.weight).name) if regions else ""


@dataclass
class _Block:
    """The block of an utterance: its colours, and the text that fits into it."""

    of: UtteranceAnalysis
    colors: list[str]
    width: float
    emotions: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    size: float = 10.0
    is_upright: bool = False
    is_complete: bool = False


class _TimeLine:
    """Draws the parts of a time line from the top downwards."""

    def __init__(self, analysis: EmotionAnalysis, clip: Any) -> None:
        self.analysis, self.clip, self.length = analysis, clip, _length(analysis)
        self.utterances = analysis.utterances
        texts = [_title(analysis), describe_time_line(analysis), analysis.model, analysis.clip]
        self.sheet = Sheet(_WIDTH, [*texts, *(of.speaker or "" for of in self.utterances)])
        self.lanes: list[Axes] = []

    def draw(self) -> Sheet:
        analysis, sheet = self.analysis, self.sheet
        sheet.paragraph(_title(analysis), 15, 2, fontweight="bold")
        if analysis.description:
            sheet.paragraph(analysis.description, 9.5, 4, color=FAINT)
        sheet.bottom += 0.08
        if self.clip is not None and analysis.has_video:
            self._draw_frames()
        is_listed = self._draw_utterances()
        if self.clip is not None and analysis.has_audio:
            self._draw_sound()
        if self.clip is not None and analysis.has_video:
            self._draw_actions()
        self._draw_evidence()
        self._draw_ticks()
        if is_listed:
            self._draw_list()
        self._draw_notes(is_listed)
        return sheet.finish()

    def _lane(self, name: str, height: float, gap: float = 0.05) -> "Axes":
        """Adds an area over the time axis, with its name at the left."""
        axes = self.sheet.axes(MARGIN + _NAMES, self.sheet.bottom, _TIME, height, self.length)
        lines = self.sheet.wrap(name, _NAMES - 0.12, 9, max(1, int(height / line_height(9))))
        beside = -0.1 / _TIME * self.length
        self.sheet.text(axes, beside, height / 2, "\n".join(lines), ha="right", va="center", color=FAINT)
        self.sheet.bottom += height + gap
        self.lanes.append(axes)
        return axes

    def _heading(self, text: str) -> None:
        axes = self.sheet.axes(MARGIN + _NAMES, self.sheet.bottom + 0.06, _TIME, 0.2)
        self.sheet.text(axes, 0, 0.16, text, 8.5, va="baseline", fontweight="bold", color=FAINT)
        self.sheet.bottom += 0.28

    def _seconds(self, inches: float) -> float:
        return inches / _TIME * self.length

    def _draw_frames(self) -> None:
        width, height = self.analysis.size or (16, 9)
        count = _FRAMES
        tall = _TIME / count * height / width
        if tall > _FRAME_HEIGHT:
            tall = _FRAME_HEIGHT
            count = max(1, min(14, int(_TIME / (tall * width / height))))
        wide = _TIME / count
        middles = (np.arange(count) + 0.5) * self.length / count
        frames = read_frames(self.clip, middles.tolist(), height=max(2, round(tall * 150)))
        axes = self._lane("frames", tall)
        shown_first = np.maximum(np.searchsorted(middles, [time for time, _ in frames]), 0).clip(0, count - 1)
        for place, (time, picture) in zip(middles[shown_first], frames, strict=True):
            shown = self._seconds(min(wide - 0.04, tall * picture.shape[1] / picture.shape[0]) / 2)
            axes.imshow(
                picture, extent=(place - shown, place + shown, tall, 0), aspect="auto", interpolation="lanczos"
            )
            self.sheet.text(
                axes,
                place - shown + self._seconds(0.04),
                tall - 0.04,
                clock(time, self.length),
                7,
                va="bottom",
                color="white",
                bbox={"facecolor": "black", "alpha": 0.6, "pad": 1.5, "linewidth": 0},
            )
        axes.set_xlim(0, self.length)
        axes.set_ylim(tall, 0)

    def _draw_utterances(self) -> bool:
        """Draws the blocks, and tells whether a list must say what they have no room for."""
        if not self.utterances:
            self._lane("utterances", 0.3)
            self.sheet.text(self.lanes[-1], 0, 0.15, "no utterance was found", va="center", color=FAINT)
            return False
        self._draw_legend()
        names = list(dict.fromkeys(of.speaker for of in self.utterances if of.speaker))
        of_lane = {name: [of for of in self.utterances if of.speaker == name] for name in names}
        if any(not of.speaker for of in self.utterances):
            of_lane[""] = [of for of in self.utterances if not of.speaker]
        if len(of_lane) > _MOST_SPEAKERS:
            of_lane = {"": list(self.utterances)}
        lanes = {
            name: [self._block(of, with_speaker=len(names) > 1 and not name) for of in utterances]
            for name, utterances in of_lane.items()
        }
        every = [block for blocks in lanes.values() for block in blocks]
        height = max(map(self._height, every))
        for name, blocks in lanes.items():
            self._draw_blocks(name or "utterances", blocks, height)
        return not all(block.is_complete for block in every)

    def _block(self, of: UtteranceAnalysis, with_speaker: bool) -> _Block:
        """Finds what fits into the block of an utterance: lines, one line that runs upwards, or nothing."""
        families = dict.fromkeys(emotion_family(emotion) for emotion in of.emotions)
        colors = [FAMILY_COLORS[family] for family in families] or [FAMILY_COLORS[NO_FAMILY]]
        width = (of.end - of.start) / self.length * _TIME
        block = _Block(of, colors[:3], width)
        room, said = width - 0.12, f"{of.speaker}: " if with_speaker and of.speaker else ""
        is_emotion = bool(of.emotions)
        finding = clean(finding_of(of))
        sizes = (10.0, 8.5, 7.5) if is_emotion else (8.0,)
        size = next((size for size in sizes if self._longest_word(finding, size, is_emotion) <= room), None)
        if size is not None:
            block.size = size
            block.emotions = self.sheet.wrap(finding, room, size, 3 if is_emotion else 5, is_emotion)
            if of.text or said:
                words = f"{said}“{of.text}”" if of.text else said
                block.words = self.sheet.wrap(words, room, 8, 4) if room > _LEAST_ROOM else []
            is_cut = any(lines and lines[-1].endswith("…") for lines in (block.emotions, block.words))
            block.is_complete = not is_cut and bool(block.words or not of.text)
        elif is_emotion and width > 0.17:
            block.is_upright = True
            block.emotions = self.sheet.wrap(of.emotions[0], 1.15, 8.5, 1, bold=True)
        return block

    def _longest_word(self, text: str, size: float, bold: bool) -> float:
        return max((text_width(word, size, bold, self.sheet.fonts) for word in text.split()), default=0.0)

    @staticmethod
    def _height(block: _Block) -> float:
        if block.is_upright or not block.emotions:
            return 1.2 if block.is_upright else 0.55
        lines = line_height(block.size) * len(block.emotions) + line_height(8) * len(block.words)
        return max(0.55, (0.28 if len(block.colors) == 1 else 0.38) + lines)

    def _draw_blocks(self, name: str, blocks: list[_Block], height: float) -> None:
        tiers = self._tiers([block for block in blocks if not block.emotions])
        above = 0.15 * (max(tiers.values(), default=-1) + 1)
        axes = self._lane(name, above + height)
        for block in blocks:
            of, start = block.of, block.of.start
            width = max(of.end - start, self._seconds(0.03))
            depth = height - (0 if len(block.colors) == 1 else 0.1)
            self._box(axes, start, above, width, depth, block.colors[0])
            for number, color in enumerate(block.colors[1:]):  # a strip for each further family
                share = width / (len(block.colors) - 1)
                self._box(axes, start + number * share, above + depth, share, height - depth, color)
            ink, left = ink_on(block.colors[0]), start + self._seconds(0.06)
            if not block.emotions:
                if of.number in tiers:
                    tier = above - 0.15 * (tiers[of.number] + 1)
                    axes.plot([start + width / 2] * 2, [tier + 0.12, above], color=FAINT, linewidth=0.5)
                    self.sheet.text(axes, start + width / 2, tier, str(of.number), 7.5, ha="center")
            elif block.is_upright:
                self.sheet.text(axes, start + width / 2, above + 0.03, str(of.number), 6.5, ha="center", color=ink)
                style = {"rotation": 90, "rotation_mode": "anchor", "ha": "left", "va": "center", "fontweight": "bold"}
                self.sheet.text(
                    axes, start + width / 2, above + depth - 0.06, block.emotions[0], 8.5, color=ink, **style
                )
            else:
                size, weight = block.size, "bold" if of.emotions else "normal"
                self.sheet.text(axes, left, above + 0.04, str(of.number), 7.5, color=ink)
                top = above + 0.04 + line_height(7.5)
                self.sheet.text(axes, left, top, "\n".join(block.emotions), size, color=ink, fontweight=weight)
                top += line_height(size) * len(block.emotions) + 0.02
                self.sheet.text(axes, left, top, "\n".join(block.words), 8, color=ink)

    def _tiers(self, blocks: list[_Block]) -> dict[int, int]:
        """Finds rows above the blocks in which the numbers of narrow blocks do not touch each other."""
        ends, tiers = [-np.inf] * 4, {}
        for block in sorted(blocks, key=lambda block: block.of.start):
            middle = (block.of.start + block.of.end) / 2 / self.length * _TIME
            half = text_width(str(block.of.number), 7.5, False, self.sheet.fonts) / 2 + 0.03
            free = [tier for tier, end in enumerate(ends) if end <= middle - half]
            if free:
                tiers[block.of.number] = free[0]
                ends[free[0]] = middle + half
        return tiers

    @staticmethod
    def _box(axes: "Axes", left: float, top: float, width: float, height: float, color: str, **style: Any) -> None:
        from matplotlib.patches import Rectangle

        look = {"facecolor": color, "edgecolor": "white", "linewidth": 1, **style}
        axes.add_patch(Rectangle((left, top), width, height, **look))

    def _draw_legend(self) -> None:
        families = {emotion_family(emotion) for of in self.utterances for emotion in of.emotions}
        if not families:
            return
        axes = self.sheet.axes(MARGIN + _NAMES, self.sheet.bottom, _TIME, 0.2)
        at = 0.0
        for text, color in [("Emotions, coloured by their family:", "")] + [
            (family, color) for family, color in FAMILY_COLORS.items() if family in families
        ]:
            if color:
                self._box(axes, at, 0.03, 0.14, 0.13, color)
                at += 0.19
            self.sheet.text(axes, at, 0.14, text, 8, va="baseline", color=FAINT)
            at += text_width(text, 8, False, self.sheet.fonts) + 0.2
        self.sheet.bottom += 0.22

    def _draw_sound(self) -> None:
        track = None if is_frames(self.clip) else load_audio(self.clip)
        if track is None or not track.samples.shape[1]:
            return
        axes = self._lane("sound", 0.55)
        samples = track.samples.mean(0)
        step = max(1, len(samples) // 1500)
        pieces = np.abs(np.pad(samples, (0, -len(samples) % step)).reshape(-1, step)).max(1)
        if not pieces.max() > 1e-4:
            self.sheet.text(axes, 0, 0.27, "silence", va="center", color=FAINT)
            return
        half = 0.26 * pieces / max(float(pieces.max()), 0.05)
        times = (np.arange(len(pieces)) + 0.5) * step / track.rate
        axes.fill_between(times, 0.275 - half, 0.275 + half, color=BAR, linewidth=0.3)
        axes.set_xlim(0, self.length)

    def _draw_actions(self) -> None:
        found = facial_actions(self.clip, fps=min(12.0, _MOST_LOOKS / self.length))
        if not found.success.any():
            self._lane("face", 0.3)
            self.sheet.text(self.lanes[-1], 0, 0.15, "no face was found in the frames", va="center", color=FAINT)
            return
        self._heading("Movements of the face, measured in the frames (the higher, the stronger)")
        top = self.sheet.bottom
        for name, (plain, most) in _SHOWN_ACTIONS.items():
            self._draw_action(found, found.actions[name] / most, plain)
        height = self.sheet.bottom - top
        axes = self.sheet.axes(MARGIN + _NAMES, top, _TIME, height, self.length)
        for start, end in _gaps(found):
            self._box(axes, start, 0, end - start, height, "none", edgecolor="#CCCCCC", hatch="///", linewidth=0)
            if end - start > self._seconds(0.7):
                around = {"facecolor": "white", "linewidth": 0, "pad": 2}
                style = {"ha": "center", "va": "center", "color": FAINT, "bbox": around}
                self.sheet.text(axes, (start + end) / 2, height / 2, "no face", 8.5, **style)

    def _draw_action(self, found: FacialActions, strength: np.ndarray, name: str) -> None:
        height = 0.3
        axes = self._lane(name, height, gap=0.02)
        strength = (strength - np.nanpercentile(strength, 10)).clip(0)  # the median may be that of a smile that lasts
        line = height * (0.95 - 0.9 * strength / max(1.0, np.nanmax(strength)))
        axes.fill_between(found.times, height * 0.95, line, color=BAR, alpha=0.35, linewidth=0)
        axes.plot(found.times, line, color=BAR, linewidth=1)
        axes.set_ylim(height, 0)

    def _draw_evidence(self) -> None:
        weights: dict[str, dict[int, float]] = {name: {} for name in MODALITIES}
        for of in self.utterances:
            for one in of.evidence:
                if one.kind == "modality":
                    weights.setdefault(one.name, {})[of.number] = one.weight
        every = [weight for of_name in weights.values() for weight in of_name.values()]
        if not every:
            return
        most, least = max([*every, 1e-6]), min([*every, 0])
        hatched = "; hatched: it becomes surer)" if least < 0 else ")"
        self._heading("What the answer rests on (the higher, the less sure the model becomes without it" + hatched)
        for name, of_utterance in weights.items():
            if of_utterance:
                self._draw_bars(MODALITIES.get(name, name), of_utterance, most, least)
        regions = {}
        for of in self.utterances:
            room = (of.end - of.start) / self.length * _TIME - 0.04
            lines = self.sheet.wrap(_strongest_region(of), room, 8, 2)
            if lines and " ".join(lines) == _strongest_region(of):
                regions[(of.start + of.end) / 2] = "\n".join(lines)
        if regions:
            axes = self._lane("strongest clue in the face", 0.38)
        for middle, name in regions.items():
            self.sheet.text(axes, middle, 0.19, name, 8, ha="center", va="center")

    def _draw_bars(self, name: str, of_utterance: dict[int, float], most: float, least: float) -> None:
        height = 0.36
        axes = self._lane(name, height)
        scale = (height - 0.02) / (most - least)
        base = 0.01 + scale * most
        axes.axhline(base, color="#BBBBBB", linewidth=0.6)
        for of in self.utterances:
            weight = of_utterance.get(of.number, 0.0)
            width = max(min(0.8 * (of.end - of.start), self._seconds(0.6)), self._seconds(0.03))
            left = (of.start + of.end - width) / 2
            style = {"facecolor": "white", "edgecolor": BAR, "hatch": "/////"} if weight < 0 else {}
            top = base - scale * max(weight, 0)
            self._box(axes, left, top, width, scale * abs(weight), BAR, **style)

    def _draw_ticks(self) -> None:
        steps = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
        step = next((step for step in steps if self.length / step <= 13), self.length / 12)
        ticks = np.arange(0, self.length * 1.0001, step)
        for axes in self.lanes:
            for tick in ticks:
                axes.axvline(tick, color="#E4E4E4", linewidth=0.6, zorder=-1)
        axes = self.sheet.axes(MARGIN + _NAMES, self.sheet.bottom, _TIME, 0.2, self.length)
        for tick in ticks:
            self.sheet.text(axes, tick, 0.02, clock(float(tick), self.length), 8, ha="center", color=FAINT)
        self.sheet.bottom += 0.28

    def _draw_list(self) -> None:
        """Lists the utterances in one column or two."""
        sheet, shown = self.sheet, self.utterances[:_MOST_LISTED]
        columns = 2 if len(shown) > 6 else 1
        wide = (_WIDTH - 2 * MARGIN - 0.3 * (columns - 1)) / columns
        rows = [self._row(of, wide) for of in shown]
        half = -(-len(rows) // columns)
        tall = 0.0
        for column in range(columns):
            left, top = MARGIN + column * (wide + 0.3), sheet.bottom + 0.2
            heading = "number, start, " + ("" if self.analysis.observations_only else "emotions, ") + "words"
            heading += ", strongest clue in the face" if any(map(_strongest_region, shown)) else ""
            sheet.text(sheet.axes(left, sheet.bottom, wide, 0.2), 0, 0.14, heading, 7.5, va="baseline", color=FAINT)
            for draw, height in rows[column * half : (column + 1) * half]:
                draw(sheet.axes(left, top, wide, height))
                top += height
            tall = max(tall, top - sheet.bottom)
        sheet.bottom += tall + 0.05
        if len(shown) < len(self.utterances):
            sheet.paragraph(f"... and {len(self.utterances) - len(shown)} more utterances", 8, 1, color=FAINT)

    def _row(self, of: UtteranceAnalysis, wide: float) -> tuple[Callable[["Axes"], None], float]:
        """Returns what draws the row of an utterance in the list, and the row's height."""
        sheet, size = self.sheet, 8
        colors = self._block(of, False).colors
        parts = {label.label: f"{label.label} {label.score:.0%}" for label in of.labels}
        finding = ", ".join(parts.get(emotion, emotion) for emotion in of.emotions)
        region = _strongest_region(of)
        words = f"“{of.text}”" if of.text else ""
        said = f"{of.speaker}: {words}" if of.speaker else words
        if not finding:
            said, finding = f"{said} {finding_of(of)}", ""
        emotions = sheet.wrap(finding, 1.6, size, 3, bold=True)
        left = 0.45 + 0.75 + (1.7 if finding else 0)
        clue = sheet.wrap(region, 0.9, size, 2) if region else []
        lines = sheet.wrap(said, wide - left - (1.0 if clue else 0), size, 3)
        height = max(0.2, line_height(size) * max(len(emotions), len(lines), len(clue)) + 0.05)

        def draw(axes: "Axes") -> None:
            self._box(axes, 0, 0.02, 0.36, 0.16, colors[0])
            sheet.text(axes, 0.18, 0.1, str(of.number), 7.5, ha="center", va="center", color=ink_on(colors[0]))
            sheet.text(axes, 0.45, 0.03, clock(of.start, self.length), size, color=FAINT)
            sheet.text(axes, 1.2, 0.03, "\n".join(emotions), size, fontweight="bold")
            sheet.text(axes, left, 0.03, "\n".join(lines), size)
            sheet.text(axes, wide - 0.9, 0.03, "\n".join(clue), size, color=FAINT)

        return draw, height

    def _draw_notes(self, is_listed: bool) -> None:
        analysis, sheet = self.analysis, self.sheet
        notes = list(analysis.warnings[:_MOST_WARNINGS])
        if len(analysis.warnings) > len(notes):
            notes.append(f"... and {len(analysis.warnings) - len(notes)} more warnings")
        if not analysis.is_complete:
            notes.append(f"{len(self.utterances)} of {analysis.utterances_found} utterances are analysed so far")
        if self.clip is None:
            notes.append("the clip is not there any more: frames, sound and facial actions are left out")
        for note in notes:
            sheet.paragraph(f"⚠ {note}", 8.5, 3, color=INK)
        sheet.bottom += 0.04
        scores = ""
        if is_listed and any(of.labels for of in self.utterances):
            kind = "calibrated on people" if analysis.calibrated else "not calibrated"
            scores = f"Per cent: the share of probability among all emotion words of the model, {kind}. "
        facts = [f"{analysis.clip}", clock(self.length, self.length)]
        facts += [f"{analysis.size[0]}x{analysis.size[1]}"] if analysis.size else []
        facts += [f"{analysis.fps:.4g} frames per second"] if analysis.fps else []
        facts += [f"model {analysis.model}", f"MicroEmo {analysis.version}"]
        sheet.paragraph(
            f"{scores}A model's reading of a clip, and no proof of what anybody feels.", 7.5, 2, color=FAINT
        )
        sheet.paragraph(" · ".join(facts), 7.5, 2, color=FAINT)


def _gaps(found: FacialActions) -> list[tuple[float, float]]:
    """Returns the start and end of the stretches without a face."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], found.success, [True]]).astype(int)))
    times = np.append(found.times, found.times[-1])
    return [(float(times[start]), float(times[end])) for start, end in edges.reshape(-1, 2)]
