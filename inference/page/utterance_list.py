"""The HTML of the page: the utterances as a list of buttons, and what is found in one of them. All texts are escaped."""

from collections.abc import Iterable
from html import escape
from pathlib import Path
from urllib.parse import quote

from ..emotion_analysis import EmotionAnalysis, LabelScore, UtteranceAnalysis
from ..evidence_pictures import describe_evidence
from ..figure_parts import FAMILY_COLORS, clean, clock, emotion_family
from ..time_line import describe_time_line

# The measures of the voice, with their names, formats and units.
_VOICE = {
    "loudness": ("loudness", "{:.0f} dBFS"),
    "pitch": ("pitch", "{:.0f} Hz"),
    "pitch_range": ("pitch range", "{:.1f} semitones"),
    "words_per_second": ("speed", "{:.1f} words per second"),
}


def utterance_list(analysis: EmotionAnalysis) -> str:
    """Draws the utterances as buttons, with a bar that says where in the clip each lies.

    Args:
        analysis ([`EmotionAnalysis`]): The analysis, which may be growing.

    Returns:
        `str`: The HTML. Each button has the number and the start of its utterance.
    """
    length = _length(analysis)
    return f'<ol class="utterances">{"".join(_entry(of, length) for of in analysis.utterances)}</ol>'


def _length(analysis: EmotionAnalysis) -> float:
    return max([analysis.duration or 0, *(of.end for of in analysis.utterances)]) or 1.0


def _text(text: str) -> str:
    """Text as HTML, in one line of characters that every browser takes."""
    return escape(clean(text))


def _times(of: UtteranceAnalysis, length: float) -> str:
    return f"{clock(of.start, length)} – {clock(of.end, length)}"


def _entry(of: UtteranceAnalysis, length: float) -> str:
    found = ", ".join(of.emotions) or of.observation or of.description
    left, width = (f"{min(100, 100 * part / length):.2f}%" for part in (of.start, of.end - of.start))
    color = FAMILY_COLORS[emotion_family(of.emotions[0])] if of.emotions else "var(--color-accent)"
    return (
        f'<li><button type="button" data-number="{of.number}" data-start="{of.start:.3f}" aria-pressed="false">'
        f'<span class="when">{_times(of, length)}</span> '
        f'<span class="words">{_words(of)}</span> <span class="found">{_text(found)}</span>'
        f'<span class="track"><span style="left:{left};width:{width};background:{color}"></span></span></button></li>'
    )


def _words(of: UtteranceAnalysis) -> str:
    speaker = f"<b>{_text(of.speaker)}:</b> " if of.speaker else ""
    return speaker + (f"“{_text(of.text)}”" if of.text else "<i>words not known</i>")


def utterance_details(analysis: EmotionAnalysis, number: int, picture: Path | None = None) -> str:
    """Describes one utterance in full.

    Args:
        analysis ([`EmotionAnalysis`]): The analysis.
        number (`int`): The number of the utterance, from 1.
        picture (`Path`, *optional*): The picture of the evidence.

    Returns:
        `str`: The HTML.
    """
    of = next(one for one in analysis.utterances if one.number == number)
    voice = [f"{name} {form.format(of.voice[key])}" for key, (name, form) in _VOICE.items() if key in of.voice]
    facts = {
        "The answer": _text(of.description),
        _emotions(analysis): _labels(of.labels),
        "Seen in the face": _text(of.observation),
        "Face found": f"in {of.faces} of {of.frames} frames" if of.frames else "",
        "Voice": ", ".join(voice),
        "What the answer says, checked": _list(
            f"{'✓ supported' if one.supported else '✗ not supported'}: {_text(one.text)} <small>({_text(one.about)})</small>"
            for one in of.claims
        ),
    }
    heading = f"<h2>Utterance {of.number}, {_times(of, _length(analysis))}</h2><p>{_words(of)}</p>"
    return f"{heading}{_facts(facts)}" + (
        "" if picture is None else _picture(picture, describe_evidence(analysis, number))
    )


def _picture(path: Path, alternative: str) -> str:
    address = _address(path)
    return f'<a href="{address}" target="_blank" title="Large, in a new tab"><img src="{address}" alt="{_text(alternative)}"></a>'


def _address(path: Path) -> str:
    """Where Gradio serves a file of its folder. The time keeps browsers from showing an older one."""
    return f"gradio_api/file={quote(str(path))}?{path.stat().st_mtime_ns}"


def clip_details(analysis: EmotionAnalysis, time_line: Path, files: Iterable[Path]) -> str:
    """Describes the whole clip, shows its time line, and links to the files to download.

    Args:
        analysis ([`EmotionAnalysis`]): The analysis.
        time_line (`Path`): The picture of the time line.
        files (`Iterable[Path]`): The files.

    Returns:
        `str`: The HTML.
    """
    links = "".join(
        f'<li><a href="{_address(file)}" download="{_text(file.name)}">{_text(file.suffix[1:])}</a></li>'
        for file in files
    )
    facts = _facts({"The answer": _text(analysis.description), _emotions(analysis): _labels(analysis.labels)})
    picture = _picture(time_line, describe_time_line(analysis))
    return f'<h2>The whole clip</h2>{facts}<h2>Time line</h2>{picture}<h2>Downloads</h2><ul class="downloads">{links}</ul>'


def _facts(facts: dict[str, str]) -> str:
    return f"<dl>{''.join(f'<dt>{name}</dt><dd>{fact}</dd>' for name, fact in facts.items() if fact)}</dl>"


def _emotions(analysis: EmotionAnalysis) -> str:
    return "Emotion words" if analysis.calibrated else "Emotion words, not calibrated"


def _labels(labels: Iterable[LabelScore]) -> str:
    named = " <small>(named in the answer)</small>"
    return _list(
        f'<span class="bar"><span style="width:{100 * one.score:.1f}%"></span></span> '
        f"{100 * one.score:.0f} % {_text(one.label)}{named if one.said else ''}"
        for one in labels
        if one.said or one.score >= 0.005
    )


def _list(items: Iterable[str]) -> str:
    entries = "".join(f"<li>{item}</li>" for item in items)
    return f"<ul>{entries}</ul>" if entries else ""


def note(text: str, points: Iterable[str] = ()) -> str:
    """Writes what the page has to say at the moment.

    Args:
        text (`str`): The sentence.
        points (`Iterable[str]`, *optional*): Further points, such as warnings.

    Returns:
        `str`: The HTML.
    """
    return f"<p>{_text(text)}</p>{_list(map(_text, points))}"
