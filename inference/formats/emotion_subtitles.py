"""An analysis as subtitles: the words of each utterance, and below them the emotions in brackets.

pysubs2 writes neither the speaker nor words in braces, and `-->` as it is, which ends a caption.
"""

import html
from collections.abc import Iterator
from pathlib import Path

from ..emotion_analysis import EmotionAnalysis
from .clip_place import milliseconds


def format_srt(analysis: EmotionAnalysis, folder: Path) -> str:
    """Writes an analysis as SubRip, with `Speaker: ` before the words.

    Args:
        analysis ([`EmotionAnalysis`]): The analysis.
        folder (`Path`): The folder of the file, which is not stated in it.

    Returns:
        `str`: The subtitles. Utterances without words and emotions are left out.
    """
    captions = [
        f"{number}\n{_clock(start, ',')} --> {_clock(end, ',')}\n"
        # The format has no way to write an arrow.
        + "\n".join([f"{speaker}: {lines[0]}" if speaker else lines[0], *lines[1:]]).replace("-->", "→")
        for number, (start, end, speaker, lines) in enumerate(_captions(analysis), 1)
    ]
    return "".join(f"{caption}\n\n" for caption in captions)


def format_vtt(analysis: EmotionAnalysis, folder: Path) -> str:
    """Writes an analysis as WebVTT, with the speaker in a voice tag.

    Args:
        analysis ([`EmotionAnalysis`]): The analysis.
        folder (`Path`): The folder of the file, which is not stated in it.

    Returns:
        `str`: The subtitles. Utterances without words and emotions are left out.
    """
    blocks = ["WEBVTT", f"NOTE Emotions by MicroEmo {analysis.version}, {_escape(analysis.model)}"]
    for number, (start, end, speaker, lines) in enumerate(_captions(analysis), 1):
        words = "\n".join(map(_escape, lines))
        voice = f"<v {_escape(speaker)}>" if speaker else ""
        blocks.append(f"{number}\n{_clock(start, '.')} --> {_clock(end, '.')}\n{voice}{words}")
    return "\n\n".join(blocks) + "\n"


def _captions(analysis: EmotionAnalysis) -> Iterator[tuple[int, int, str, list[str]]]:
    """Yields start and end in milliseconds, speaker and lines. A line that is empty would end a caption."""
    for of in sorted(analysis.utterances, key=milliseconds):
        note = ", ".join(of.emotions) or of.observation
        lines = [" ".join(line.split()) for line in (of.text, f"[{note}]" if note else "")]
        if lines := [line for line in lines if line]:
            yield *milliseconds(of), " ".join((of.speaker or "").split()), lines


def _clock(time: int, mark: str) -> str:
    seconds, rest = divmod(time, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{mark}{rest:03}"


def _escape(text: str) -> str:
    return html.escape(" ".join(text.split()), quote=False)
