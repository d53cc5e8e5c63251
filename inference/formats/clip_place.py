"""Where an analysed clip lies and when its utterances are, as files of other tools state it."""

import mimetypes
import os
from pathlib import Path

from ..emotion_analysis import EmotionAnalysis, UtteranceAnalysis


def milliseconds(utterance: UtteranceAnalysis) -> tuple[int, int]:
    """Rounds the times of an utterance to what subtitles and ELAN can state.

    Args:
        utterance ([`UtteranceAnalysis`]): The utterance.

    Returns:
        `tuple[int, int]`: Start and end in milliseconds, the start not below 0, the end at least 1 ms after it.
    """
    start = max(0, round(utterance.start * 1000))
    return start, max(start + 1, round(utterance.end * 1000))


def clip_links(clip: str, folder: Path) -> tuple[str, str | None]:
    """Finds the ways in which a file states its clip.

    Args:
        clip (`str`): The path or URL of the clip.
        folder (`Path`): The folder of the file.

    Returns:
        `tuple[str, str | None]`: The URL, and for a path the way to it from the folder, which begins with `./` or `../`.
        Nothing in a path is percent-encoded: ELAN takes what follows `file://` for the path.
    """
    if "://" in clip:
        return clip, None
    path = os.path.abspath(clip)
    url = f"file:///{Path(path).as_posix().removeprefix('/')}"
    try:
        way = Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # another drive of Windows
        return url, None
    return url, way if way.startswith("../") else f"./{way}"


def media_type(analysis: EmotionAnalysis) -> str:
    """Returns the MIME type of the clip, by its name.

    Args:
        analysis ([`EmotionAnalysis`]): The analysis.

    Returns:
        `str`: The type; `video/*` or `audio/*` where the name tells none, as ELAN writes it.
    """
    if analysis.clip.lower().endswith(".wav"):
        return "audio/x-wav"  # as ELAN knows it; versions of Python differ
    guess, _ = mimetypes.guess_type(analysis.clip)
    return guess or ("audio/*" if analysis.has_audio and not analysis.has_video else "video/*")
