"""What the pictures of an analysis share: a sheet that grows downwards, text that fits, colours of emotions, files.

matplotlib's object-oriented interface is used without pyplot, so no figure is left behind.
"""

import re
import threading
import warnings
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

import numpy as np

from ..evaluation.emotion_wheel import EmotionWheels
from ..processing.decoded_clip import open_clip
from ..processing.frame_views import resize
from ..processing.media import MediaError, shown_size
from ..utils.atomic_files import atomic_file
from .emotion_analysis import EmotionAnalysis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NO_FAMILY = "neutral or other"
# The roots of Plutchik's wheel in the palette of Okabe and Ito, whose colours people with colour blindness tell apart.
FAMILY_COLORS = {
    "joy": "#F0E442",
    "anticipation": "#E69F00",
    "anger": "#D55E00",
    "disgust": "#CC79A7",
    "sadness": "#0072B2",
    "surprise": "#56B4E9",
    "trust": "#009E73",
    "fear": "#333333",
    NO_FAMILY: "#DDDDDD",
}
INK, FAINT, BAR = "#1A1A1A", "#5F6368", "#44546A"
MODALITIES = {"picture": "the picture", "sound": "the sound", "words": "the words"}
SUFFIXES = (".png", ".svg")
MARGIN = 0.25  # inches
_DPI = 150
_settings_lock = threading.Lock()  # those of matplotlib are shared by all threads
# Characters that XML or a line of text cannot hold.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]+")
_FONT, _LAST_RESORT = "DejaVu Sans", "Last Resort"
# Fonts with many scripts are looked at first.
_WIDE_FONTS = re.compile("noto sans|cjk|gothic|hei|pingfang|hiragino|malgun|nirmala|unicode", re.I)


def emotion_family(emotion: str) -> str:
    """Finds the family of an emotion: the root of the first wheel of the vocabulary that it belongs to.

    Args:
        emotion (`str`): An emotion word.

    Returns:
        `str`: A key of `FAMILY_COLORS`.
    """
    family = EmotionWheels.default().cluster(emotion.strip().lower(), "M3-W1-L1")
    return family if family in FAMILY_COLORS else NO_FAMILY


def ink_on(color: str) -> str:
    """Chooses black or white text for a background.

    Args:
        color (`str`): The background as `#RRGGBB`.

    Returns:
        `str`: The colour of the two with the higher contrast (WCAG).
    """
    levels = np.array([int(color[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    return "#000000" if linear @ [0.2126, 0.7152, 0.0722] > 0.179 else "#FFFFFF"


def clean(text: str) -> str:
    """Replaces what is no character of a line (line ends, control characters, halves of surrogate pairs) by a space.

    Args:
        text (`str`): Any text.

    Returns:
        `str`: One line without spaces at its ends.
    """
    return " ".join(_CONTROL.sub(" ", text).split())


def plain_name(name: str) -> str:
    """Says a clue region in plain words.

    Args:
        name (`str`): The name of a clue region, as `"brow_left"`.

    Returns:
        `str`: The plain words, as `"left brow"`.
    """
    part, _, side = name.partition("_")
    return " ".join([side, {"glabella": "between the brows"}.get(part, part)]).strip()


def clock(seconds: float, length: float) -> str:
    """Formats a time of a clip.

    Args:
        seconds (`float`): The time.
        length (`float`): The length of the clip in seconds, which decides between `5.5 s`, `0:05` and `0:00:05`.

    Returns:
        `str`: The time.
    """
    if length < 60:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}" if length < 3600 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def check_picture(path: str | Path) -> Path:
    """Checks, before any long work, that a picture can be written to a path.

    Args:
        path (`str` or `Path`): The file.

    Returns:
        `Path`: The same path.

    Raises:
        ValueError: if it ends neither in .png nor in .svg.
        ImportError: if matplotlib is not installed.
    """
    import matplotlib.figure  # noqa: F401

    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: a picture is written as .png or .svg")
    return path


def find_clip(analysis: EmotionAnalysis, clip: Any) -> Any:
    """Finds the clip of an analysis.

    Args:
        analysis ([`EmotionAnalysis`]): The analysis.
        clip (`Any`): The clip, where the caller gives it.

    Returns:
        `Any`: What can be opened; `None` if the clip does not lie any more where it was analysed.

    Raises:
        MediaError: if the clip of the caller cannot be opened.
    """
    if clip is not None:
        with open_clip(clip):
            return clip
    with suppress(MediaError, OSError, ValueError), open_clip(analysis.clip):
        return analysis.clip
    return None


def read_frames(clip: Any, times: Sequence[float], height: int) -> list[tuple[float, np.ndarray]]:
    """Decodes the frames that are on the screen at some times.

    Args:
        clip (`Any`): A clip with pictures, as [`MicroEmoVideoProcessor`] takes it.
        times (`Sequence[float]`): The increasing times in seconds.
        height (`int`): The height of the pictures in pixels.

    Returns:
        `list[tuple[float, np.ndarray]]`: The times of the frames, each of them once, and the upright uint8 pictures
        `(height, W, 3)`.

    Raises:
        MediaError: if no frame can be decoded.
    """
    from av.video.reformatter import VideoReformatter

    reformatter = VideoReformatter()
    with open_clip(clip) as opened:

        def choose(starts: np.ndarray) -> np.ndarray:
            return np.unique(np.maximum(np.searchsorted(starts, np.asarray(times) + 1e-9, "right") - 1, 0))

        def view(frame: Any) -> np.ndarray:
            width, full, turns = shown_size(frame, opened.info.pixel_aspect)
            return resize(reformatter, frame, max(1, round(width * height / full)), height, turns)

        _, shown_at, pictures = opened.read(choose, view)
    return list(zip(shown_at, pictures, strict=True))


class Sheet:
    """A figure that is filled from the top downwards, in inches, and gets its height at the end.

    Args:
        width (`float`): The width in inches.
        texts (`Iterable[str]`): The texts of users, for whose characters fonts are found.

    Attributes:
        figure (`matplotlib.figure.Figure`): The figure.
        width (`float`): The width in inches.
        fonts (`tuple[str, ...]`): The families of fonts that have the characters.
        bottom (`float`): The lower end of what is there so far, in inches from the top.
    """

    def __init__(self, width: float, texts: Iterable[str]) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.width, self.bottom = width, MARGIN
        self.fonts, self._missing = find_fonts(frozenset("".join(texts)))
        self.figure = Figure(figsize=(width, width), dpi=_DPI, facecolor="white")
        FigureCanvasAgg(self.figure)
        self._places: list[tuple[Any, tuple[float, float, float, float]]] = []

    def axes(self, left: float, top: float, width: float, height: float, length: float | None = None) -> "Axes":
        """Adds an area to draw in.

        Args:
            left (`float`): The left end in inches.
            top (`float`): The upper end in inches from the top.
            width (`float`): The width in inches.
            height (`float`): The height in inches.
            length (`float`, *optional*): The length of the x axis in seconds. By default it is in inches.

        Returns:
            `Axes`: The area without frame and ticks. Its y axis runs downwards from 0, in inches.
        """
        axes = self.figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(0, length or width)
        axes.set_ylim(height, 0)
        self._places.append((axes, (left, top, width, height)))
        return axes

    def text(self, axes: "Axes", x: float, y: float, text: str, size: float = 9, **style: Any) -> Any:
        """Writes a text as it is, without formulas.

        Args:
            axes (`Axes`): The area.
            x (`float`): The place on its x axis.
            y (`float`): The place of the first line's top on its y axis, unless `style` says otherwise.
            text (`str`): The text.
            size (`float`, *optional*, defaults to 9): The size in points.
            style (`Any`, *optional*): Further properties of matplotlib's text.

        Returns:
            `Text`: The text.
        """
        fonts, is_bold = _font(text, style.pop("fontweight", "") == "bold", self.fonts)
        fixed: dict[str, Any] = {"fontsize": size, "family": fonts, "fontweight": "bold" if is_bold else "normal"}
        style = {"va": "top", "color": INK, "linespacing": 1.15, **style}
        return axes.text(x, y, text, parse_math=False, usetex=False, **fixed, **style)

    def wrap(self, text: str, width: float, size: float, lines: int = 1, bold: bool = False) -> list[str]:
        """Divides a text into lines. Words that are too long are broken.

        Args:
            text (`str`): The text.
            width (`float`): The width of a line in inches.
            size (`float`): The size of the text in points.
            lines (`int`, *optional*, defaults to 1): The largest number of lines. What is left out is shown by "…".
            bold (`bool`, *optional*, defaults to `False`): Whether the text is bold.

        Returns:
            `list[str]`: The lines; none if not one character fits.
        """

        def fits(line: str) -> bool:
            return text_width(line, size, bold, self.fonts) <= width

        done: list[str] = []
        line = ""
        for piece in _pieces(clean(text)[: 300 * lines], fits):
            if line and not fits(line + piece.rstrip()):
                done.append(line.rstrip())
                line = ""
            line += piece if line else piece.lstrip()
        done += [line.rstrip()] if line.strip() else []
        if len(done) > lines:
            last = done[lines - 1]
            while last and not fits(last + "…"):
                last = last[:-1].rstrip()
            done = [*done[: lines - 1], last + "…"]
        return done if all(map(fits, done)) else []

    def paragraph(self, text: str, size: float = 9, lines: int = 4, **style: Any) -> None:
        """Adds a text over the whole width.

        Args:
            text (`str`): The text.
            size (`float`, *optional*, defaults to 9): The size in points.
            lines (`int`, *optional*, defaults to 4): The largest number of lines.
            style (`Any`, *optional*): Further properties of matplotlib's text.
        """
        width = self.width - 2 * MARGIN
        wrapped = self.wrap(text, width, size, lines, style.get("fontweight") == "bold")
        height = line_height(size) * len(wrapped)
        self.text(self.axes(MARGIN, self.bottom, width, max(height, 0.01)), 0, 0, "\n".join(wrapped), size, **style)
        self.bottom += height + 0.06

    def finish(self) -> "Sheet":
        """Gives the figure its height, and everything its place.

        Returns:
            [`Sheet`]: The sheet, which can be saved now.
        """
        height = self.bottom + MARGIN
        self.figure.set_size_inches(self.width, height)
        for axes, (left, top, width, tall) in self._places:
            axes.set_position((left / self.width, 1 - (top + tall) / height, width / self.width, tall / height))
        return self

    def save(self, path: str | Path, title: str, description: str) -> Path:
        """Writes the figure as a whole or not at all.

        Args:
            path (`str` or `Path`): The .png or .svg file. The text in an .svg file is text, and not outlines.
            title (`str`): The title, for screen readers.
            description (`str`): What is in the picture, for screen readers.

        Returns:
            `Path`: The file.

        Raises:
            ValueError: if the path ends neither in .png nor in .svg.
        """
        import matplotlib

        path = check_picture(path)
        title, description = clean(title), clean(description)
        with atomic_file(path) as part:
            if path.suffix.lower() == ".png":
                if self._missing:
                    shown = "".join(sorted(self._missing)[:10])
                    warnings.warn(
                        f"{path}: no installed font has {len(self._missing)} of the characters ({shown}), which are drawn "
                        "as boxes; install one (such as Noto Sans CJK), or write an .svg file",
                        stacklevel=3,
                    )
                self.figure.savefig(part, metadata={"Title": title, "Description": description})
                return path
            with _settings_lock, matplotlib.rc_context({"svg.fonttype": "none"}):
                self.figure.savefig(part, metadata={"Date": None})
            svg = part.read_text(encoding="utf-8")
            start = svg.index(">", svg.index("<svg ")) + 1
            told = f"\n <title>{escape(title)}</title>\n <desc>{escape(description)}</desc>"
            part.write_text(svg[: start - 1] + ' role="img">' + told + svg[start:], encoding="utf-8")
        return path


def line_height(size: float) -> float:
    """Returns the height of a line of text.

    Args:
        size (`float`): The size of the text in points.

    Returns:
        `float`: The height in inches.
    """
    return size * 1.38 / 72


@lru_cache(maxsize=20_000)
def text_width(text: str, size: float, bold: bool, fonts: tuple[str, ...]) -> float:
    """Measures a line of text.

    Args:
        text (`str`): The text.
        size (`float`): The size in points.
        bold (`bool`): Whether it is bold.
        fonts (`tuple[str, ...]`): The families of fonts, as [`find_fonts`] returns them.

    Returns:
        `float`: The width in inches.
    """
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.font_manager import FontProperties

    families, is_bold = _font(text, bold, fonts)
    properties = FontProperties(family=families, size=size, weight="bold" if is_bold else "normal")
    return RendererAgg(8, 8, _DPI).get_text_width_height_descent(text, properties, ismath=False)[0] / _DPI


@cache
def find_fonts(characters: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Finds installed fonts for some characters.

    Args:
        characters (`frozenset[str]`): The characters.

    Returns:
        `tuple[tuple[str, ...], frozenset[str]]`: The families of fonts, DejaVu Sans first, then those that have what the
        fonts before lack; and the characters that no font has, for which the last family shows boxes with their script.
    """
    from matplotlib.font_manager import fontManager, get_font

    wanted = {character for character in clean("".join(characters)) if character.isprintable()} - _default_characters()
    fonts, last_resort = [_FONT], []
    for entry in sorted(fontManager.ttflist, key=lambda entry: not _WIDE_FONTS.search(entry.name)):
        if entry.name.startswith(_LAST_RESORT):
            last_resort.append(entry.name)
        elif wanted and entry.style == "normal" and str(entry.weight) in ("400", "normal", "regular", "book"):
            has = wanted & set(map(chr, get_font(entry.fname).get_charmap()))
            fonts += [entry.name] if has else []
            wanted -= has
    return (*fonts, *(last_resort if wanted else [])), frozenset(wanted)


@cache
def _default_characters() -> frozenset[str]:
    from matplotlib.font_manager import findfont, get_font

    return frozenset(map(chr, get_font(findfont(_FONT)).get_charmap()))


def _font(text: str, bold: bool, fonts: tuple[str, ...]) -> tuple[list[str], bool]:
    """Returns the families for a text, and whether it is bold: other fonts than the default one need not be."""
    if set(text) - {"\n"} <= _default_characters():
        return [_FONT], bold
    return list(fonts), False


def _pieces(text: str, fits: Any) -> Iterable[str]:
    """Yields words with the space after them, in parts where they are too long for a line."""
    for word in text.split():
        while word and not fits(word):
            end = max(1, bisect_left(range(len(word)), True, key=lambda end: not fits(word[: end + 1])))
            yield word[:end]
            word = word[end:]
        yield word + " "
