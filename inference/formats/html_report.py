"""An analysis as a report for readers: one HTML file that needs nothing else, for screens, phones and paper."""

import base64
import io
from pathlib import Path, PurePosixPath

from jinja2 import Environment, StrictUndefined

from ..emotion_analysis import EmotionAnalysis

TEMPLATE = Path(__file__).with_name("emotion_report.html.jinja")
# The measures of the voice, as a reader knows them, and their units.
_VOICE = {
    "loudness": ("loudness", "dBFS"),
    "pitch": ("pitch", "Hz"),
    "pitch_range": ("range of the pitch", "semitones"),
    "words_per_second": ("speed", "words per second"),
}


def format_html(analysis: EmotionAnalysis, folder: Path) -> str:
    """Writes an analysis as a report.

    Args:
        analysis ([`EmotionAnalysis`]): The analysis.
        folder (`Path`): The folder of the file, which is not stated in it.

    Returns:
        `str`: The HTML. The time line is in it as a PNG picture where matplotlib is installed. Everything that comes from the
        analysis is escaped, and a content security policy forbids scripts and whatever lies elsewhere.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"clock": _clock, "percent": _percent}
    name = PurePosixPath(analysis.clip.replace("\\", "/")).name or analysis.clip
    template = environment.from_string(TEMPLATE.read_text("utf-8"))
    return template.render(analysis=analysis, name=name, voice=_VOICE, picture=_time_line(analysis)) + "\n"


def _time_line(analysis: EmotionAnalysis) -> str | None:
    """Returns the picture in base64."""
    try:
        figure = analysis.plot()
    except ImportError:
        return None
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return base64.b64encode(picture.getvalue()).decode()


def _clock(seconds: float) -> str:
    tenths = round(seconds * 10)
    return f"{tenths // 600}:{tenths // 10 % 60:02}.{tenths % 10}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
