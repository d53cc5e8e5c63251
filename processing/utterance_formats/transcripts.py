"""Readers of what speech recognisers and users write: lists and dictionaries with times."""

import difflib
import math
import re
from numbers import Integral, Real
from typing import Any, NamedTuple

from .subtitles import Utterance, one_line, seconds

# Lists of utterances, then lists of words: a recogniser that returns both has made the first of the second.
_LISTS = ("segments", "chunks", "utterances", "transcription")
_WORD_LISTS = ("words", "word_segments")
_TEXTS = ("text", "sentence", "transcript", "punctuated_word", "word")
_KNOWN = (*_TEXTS, "words", "start", "end", "duration", "timestamp", "timestamps", "offsets", "speaker")
# What recognisers write besides, which is not used.
_PASSED_OVER = frozenset((
    "id", "index", "type", "seek", "tokens", "temperature", "avg_logprob", "compression_ratio", "no_speech_prob",
    "score", "confidence", "speaker_confidence", "probability", "prob", "p", "chars", "channel", "language", "lang",
    "sentiment", "label", "disfluency",
))  # fmt: skip
_OTHER_NAMES = {
    **dict.fromkeys(("begin", "from", "onset", "begin_time", "start_time", "startTime", "start_ms", "t0"), "start"),
    **dict.fromkeys(("stop", "to", "until", "finish", "end_time", "endTime", "stop_time", "end_ms", "t1"), "end"),
    **dict.fromkeys(("content", "body", "caption", "line", "utterance", "subtitle", "said"), "text"),
    **dict.fromkeys(("name", "who", "spk", "speaker_id", "speaker_label", "role", "person"), "speaker"),
}
# AssemblyAI counts milliseconds; what it returns is known by these.
_IN_MILLISECONDS = frozenset(("audio_url", "audio_duration", "acoustic_model", "language_model", "speech_model"))

_PAUSE = 0.5  # seconds of silence between words that end an utterance
_SENTENCE_END = re.compile(r"[.!?。！？…][\"'”’»)\]]*\s*\Z")
_CJK = "\u3000-\u30ff\u3400-\u9fff\uff00-\uffef"


class _Word(NamedTuple):
    """Holds a word with its times in seconds."""

    start: float | None
    end: float | None
    text: str
    speaker: str | None


class _Group(NamedTuple):
    """Holds the words of an utterance, and the start and end of those that have times."""

    speaker: str | None
    texts: list[str]
    times: list[tuple[float, float]]


def read_entries(name: str, content: Any) -> list[Utterance]:
    """Reads the utterances of decoded JSON or of a user's list.

    Args:
        name (`str`): The name of the content for errors.
        content (`list` or `dict`):
            A list of utterances or words, or what Whisper and its kin (OpenAI, faster-whisper, WhisperX, whisper.cpp),
            a Transformers pipeline, Deepgram or AssemblyAI return. Words without utterances become utterances, which
            end with a sentence, at a pause and at a change of speaker.

    Returns:
        `list[Utterance]`: The utterances in the order of the content.

    Raises:
        ValueError: If a key or a value is not known. The message has the number of its entry.
    """
    unit = 1.0
    are_words = False
    if isinstance(content, dict):
        unit = 1.0 if _IN_MILLISECONDS.isdisjoint(content) else 1e-3
        key, content = _find_list(name, content)
        are_words = key in _WORD_LISTS
    if not isinstance(content, (list, tuple)):
        raise ValueError(f"{name}: expected a list of utterances, got {type(content).__name__}")
    are_words = are_words or all(isinstance(e, dict) and {"word", "text"} & set(e) == {"word"} for e in content)
    if are_words:
        return _group(name, _read_words(f"{name}, entry", content, unit))
    return [_read_entry(f"{name}, entry {number}", entry, unit) for number, entry in enumerate(content, start=1)]


def _find_list(name: str, content: dict) -> tuple[str, object]:
    """Returns the list that holds the utterances, or else the words, and its key."""
    results = content.get("results")
    if isinstance(results, dict):  # Deepgram
        if results.get("utterances") is not None:
            return "utterances", results["utterances"]
        try:
            return "words", [word for channel in results["channels"] for word in channel["alternatives"][0]["words"]]
        except (KeyError, IndexError, TypeError):
            raise ValueError(
                f"{name}: expected utterances or channels with alternatives and words in 'results', "
                f"got {_names(results)}"
            ) from None
    present = [key for key in (*_LISTS, *_WORD_LISTS) if content.get(key) is not None]
    if not present:
        expected = ", ".join((*_LISTS, *_WORD_LISTS))
        raise ValueError(f"{name}: expected one of the keys {expected}, got {_names(content)}")
    # An empty list stands for nothing only where no other one holds something.
    key = next((key for key in present if content[key] != []), present[0])
    return key, content[key]


def _read_entry(where: str, entry: Any, unit: float) -> Utterance:
    """Reads one utterance."""
    if isinstance(entry, Utterance):
        entry = vars(entry)
    if not isinstance(entry, dict):
        raise ValueError(f"{where}: expected a dictionary with start, end and text, got {type(entry).__name__}")
    _refuse_unknown(where, entry)
    words = _read_words(f"{where}, word", entry["words"], unit) if entry.get("words") is not None else []
    start, end = _times(where, entry, unit)
    if start is None and end is None and not {"timestamp", "offsets", "timestamps"} & set(entry):
        start = min((word.start for word in words if word.start is not None), default=None)
        end = max((word.end for word in words if word.end is not None), default=None)
    if start is None or end is None:
        raise ValueError(f"{where}: {'start' if start is None else 'end'} must be a number of seconds, got None")
    text = _text(where, entry)
    timed = [
        {"start": word.start, "end": word.end, "word": word.text.strip()}
        for word in words
        if word.start is not None and word.end is not None
    ]
    text = _join([word.text for word in words]) if text is None else text
    return Utterance(start, end, text, _speaker(where, entry), timed)


def _refuse_unknown(where: str, entry: dict) -> None:
    """Refuses a key that nothing reads."""
    for key in entry:
        if key not in _KNOWN and key not in _PASSED_OVER:
            near = _OTHER_NAMES.get(key) or next(iter(difflib.get_close_matches(str(key), _KNOWN, 1)), None)
            hint = f" (did you mean {near!r}?)" if near else ""
            raise ValueError(f"{where}: unknown key {key!r}{hint}; an utterance has start, end, text, perhaps speaker")


def _times(where: str, entry: dict, unit: float) -> tuple[float | None, float | None]:
    """Returns the start and end in seconds, however they are written; `None` for those that are not."""
    if entry.get("offsets") is not None:  # whisper.cpp: milliseconds, and the same once more as text
        return _number(where, "from", _get(where, entry, "offsets", "from"), 1e-3), _number(
            where, "to", _get(where, entry, "offsets", "to"), 1e-3
        )
    if entry.get("timestamps") is not None:
        return _stamp(where, "from", _get(where, entry, "timestamps", "from")), _stamp(
            where, "to", _get(where, entry, "timestamps", "to")
        )
    if "timestamp" in entry:
        pair = entry["timestamp"]
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise ValueError(f"{where}: timestamp must be start and end in seconds, got {pair!r}")
        if pair[0] is None:
            raise ValueError(f"{where}: start must be a number of seconds, got None")
        # No end: speech that goes on to the end of the clip.
        return _number(where, "start", pair[0]), math.inf if pair[1] is None else _number(where, "end", pair[1])
    start, end, duration = (
        None if entry.get(key) is None else _number(where, key, entry[key], unit)
        for key in ("start", "end", "duration")
    )
    if end is None and start is not None and duration is not None:
        end = start + duration
    return start, end


def _get(where: str, entry: dict, key: str, bound: str) -> Any:
    pair = entry[key]
    if not isinstance(pair, dict) or bound not in pair:
        raise ValueError(f"{where}: {key} must be a dictionary with from and to, got {pair!r}")
    return pair[bound]


def _number(where: str, key: str, value: Any, unit: float = 1.0) -> float:
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    # Only an end may be open.
    if not is_number or (abs(value) > 1e12 and not (key == "end" and value == math.inf)) or math.isnan(value):
        raise ValueError(
            f"{where}: {key} must be a number of {'seconds' if unit == 1 else 'milliseconds'}, got {value!r}"
        )
    return float(value) * unit


def _stamp(where: str, key: str, value: Any) -> float:
    if not isinstance(value, str) or not re.fullmatch(r"\d{1,6}:\d{1,2}:\d{1,2}[.,]\d{1,3}", value):
        raise ValueError(f"{where}: {key} must be hours:minutes:seconds,000, got {value!r}")
    return seconds(value)


def _text(where: str, entry: dict) -> str | None:
    """Returns the words under the first of their names that is there."""
    key = next((key for key in _TEXTS if entry.get(key) is not None), None)
    if key is not None and not isinstance(entry[key], str):
        raise ValueError(f"{where}: {key} must be a string, got {entry[key]!r}")
    return None if key is None else one_line(entry[key])


def _speaker(where: str, entry: dict) -> str | None:
    speaker = entry.get("speaker")
    if isinstance(speaker, Integral) and not isinstance(speaker, bool):
        return f"speaker {speaker}"
    if not isinstance(speaker, (str, type(None))):
        raise ValueError(f"{where}: speaker must be a string, got {speaker!r}")
    return one_line(speaker or "") or None


def _read_words(where: str, words: Any, unit: float) -> list[_Word]:
    """Reads a list of words."""
    if not isinstance(words, (list, tuple)):
        raise ValueError(f"{where}: expected a list of words, got {type(words).__name__}")
    found = []
    for number, word in enumerate(words, start=1):
        at = f"{where} {number}"
        if isinstance(word, str):
            found.append(_Word(None, None, word, None))
            continue
        if not isinstance(word, dict):
            raise ValueError(f"{at}: expected a word with start and end, got {type(word).__name__}")
        _refuse_unknown(at, word)
        text = _text(at, word)
        if text is None:
            raise ValueError(f"{at}: expected its text under one of {', '.join(_TEXTS)}, got {_names(word)}")
        key = next(key for key in _TEXTS if word.get(key) is not None)
        # The blank before a word of Whisper says that it does not go on the one before.
        blank = " " if word[key][:1].isspace() else ""
        found.append(_Word(*_times(at, word, unit), blank + text, _speaker(at, word)))
    return found


def _group(name: str, words: list[_Word]) -> list[Utterance]:
    """Groups words into utterances. A word without times (a number, with WhisperX) goes with the one before."""
    if words and all(word.start is None or word.end is None for word in words):
        raise ValueError(f"{name}: its words have no start and end")
    groups: list[_Group] = []
    pending: list[str] = []
    for word in words:
        if word.start is None or word.end is None:
            (groups[-1].texts if groups else pending).append(word.text)
            continue
        last = groups[-1] if groups else None
        if (
            last is None
            or word.start - last.times[-1][1] > _PAUSE
            or word.start < last.times[-1][0]
            or word.speaker != last.speaker
            or _SENTENCE_END.search(last.texts[-1][-4:])
        ):
            last = _Group(word.speaker, pending, [])
            groups.append(last)
            pending = []
        last.texts.append(word.text)
        last.times.append((word.start, word.end))
    return [
        Utterance(
            min(start for start, _ in group.times),
            max(end for _, end in group.times),
            _join(group.texts),
            group.speaker,
        )
        for group in groups
    ]


def _join(words: list[str]) -> str:
    """Joins words by blanks, unless they bring their own, and by none between Chinese or Japanese words."""
    if any(word[:1].isspace() for word in words):
        return one_line("".join(words))
    return re.sub(rf"(?<=[{_CJK}]) (?=[{_CJK}])", "", one_line(" ".join(words)))


def _names(content: dict) -> list[str]:
    return sorted(str(key) for key in content)
