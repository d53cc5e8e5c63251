"""Readers of subtitle text: SubRip, WebVTT, SBV and LRC by their own rules, ASS, MicroDVD and TTML with pysubs2.

pysubs2 does read SubRip and WebVTT, but drops the last line of a caption that is a number, knows no voices, and repeats
the captions that roll. The formats that it does read are given to it in the only form in which it loses nothing.
"""

import html
import math
import re
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Utterance:
    """Holds what one speaker says without a break (paper 3.3).

    Attributes:
        start (`float`): The start in seconds from the start of the clip.
        end (`float`): The end in seconds from the start of the clip.
        text (`str`, *optional*, defaults to `""`): The words. It is empty for a sound without words.
        speaker (`str`, *optional*): The name of the speaker.
        words (`list[dict]`): The words with `start`, `end` and `word`, where a recogniser gave them times.
    """

    start: float
    end: float
    text: str = ""
    speaker: str | None = None
    words: list[dict] = field(default_factory=list, compare=False, repr=False)


_TIME = r"-?(?:\d{1,6}:)?\d{1,6}:\d{1,6}(?:[.,]\d{1,9})?"
_TIMING = re.compile(rf"\s*({_TIME})\s*-->\s*({_TIME})(?:\s.*)?")
_OTHER_ARROW = re.compile(rf"\s*{_TIME}\s*[-–—=~]*[>→]\s*{_TIME}(?:\s.*)?")
_SBV_TIMING = re.compile(r"\s*(\d{1,6}:\d{1,2}:\d{1,2}\.\d{1,3})\s*,\s*(\d{1,6}:\d{1,2}:\d{1,2}\.\d{1,3})\s*")

_BREAK = re.compile(r"<br\s*/?>|\[br\]", re.I)
_STAMP = re.compile(r"<((?:\d{1,6}:)?\d{1,2}:\d{1,2}[.,]\d{1,3})>")
_TAG = re.compile(r"</?(?:i|b|u|em|strong|font|span|c|lang|ruby|rt|v)(?:[\s.][^<>]*)?>|<\d[\d:.]*>|\{\\[^{}]*\}", re.I)
_VOICE = re.compile(r"<v(?:\.[^\s<>]*)?\s+([^\s<>][^<>]*)>", re.I)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#x[0-9a-f]{1,6}|[a-z][a-z0-9]{1,31});", re.I)

_VTT_HEADER = re.compile(r"WEBVTT(?:[ \t].*)?")
_VTT_COMMENT = re.compile(r"NOTE(?:[ \t].*)?")
_VTT_STYLE = re.compile(r"(?:STYLE|REGION|Style:|Region:.*)[ \t]*")

_LRC_TIME = re.compile(r"\[(\d{1,6}:\d{1,2}(?:[.:]\d{1,3})?)\]")
_LRC_FIELD = re.compile(r"\[([A-Za-z#]\w*)\s*:(.*)\]")

_ASS_SECTION = re.compile(r"\[(script info|v4\+? styles|events)\]", re.I)
_ASS_TIME = re.compile(r"-?\d{1,2}:\d{1,2}:\d{1,2}(?:[.,]\d{1,3})?")
_ASS_NO_SPEECH = r"(?:Format|Comment|Picture|Sound|Movie|Command):|;|$"
_ASS_FIELDS = ["layer", "start", "end", "style", "name", "marginl", "marginr", "marginv", "effect", "text"]
_MICRODVD = re.compile(r"\s*\{\s*(\d{1,9})\s*\}\s*\{\s*(\d{1,9})\s*\}(.*)")

# Captions that follow each other this closely (seconds) are one run, and a shorter one only moves the text on screen.
_CLOSE, _GLIMPSE = 0.1, 0.05
_SCREEN = 8  # lines, far more than captions show at once


def read_subtitles(name: str, text: str, fps: float | None = None) -> tuple[list[Utterance], list[str]]:
    """Reads the utterances of a subtitle file.

    Args:
        name (`str`): The name of the file for errors.
        text (`str`): The content of the file.
        fps (`float`, *optional*): The number of frames per second, for MicroDVD without a rate of its own.

    Returns:
        `tuple[list[Utterance], list[str]]`: The utterances in the order of the file, and a note for each kind of mending.

    Raises:
        ValueError: If timestamps are malformed or the text is no subtitles. The message has the file and the line.
        ImportError: If pysubs2 is needed for the format and is not installed.
    """
    # The end of a line is LF, CR LF or CR; CR CR LF comes from writing CR LF in text mode.
    lines = re.split(r"\r*\n|\r", text.replace("\ufeff", "").replace("\0", "\ufffd"))
    notes: list[str] = []
    found = _reader(name, lines)(name, lines, notes, fps)
    once = list(dict.fromkeys(found))
    if len(once) < len(found):
        notes.append(f"{len(found) - len(once)} more with the times and words of another were left out")
    return once, notes


def seconds(timestamp: str) -> float:
    """Converts a timestamp to seconds.

    Args:
        timestamp (`str`): `hours:minutes:seconds` or `minutes:seconds`, with a point or a comma before the fraction.

    Returns:
        `float`: The seconds.
    """
    sign = -1.0 if timestamp.startswith("-") else 1.0
    total = 0.0
    for part in timestamp.lstrip("-").replace(",", ".").split(":"):
        total = 60 * total + float(part)
    return sign * total


def one_line(text: str) -> str:
    """Puts single blanks between words, and replaces halves of a surrogate pair, which no file can hold.

    Args:
        text (`str`): The words.

    Returns:
        `str`: The words on one line.
    """
    return " ".join(re.sub("[\ud800-\udfff]", "\ufffd", text).split())


def _reader(name: str, lines: list[str]) -> Callable[[str, list[str], list[str], float | None], list[Utterance]]:
    """Returns the function that reads these lines. The content decides, not the name of the file."""
    number, first = next(((i, line.strip()) for i, line in enumerate(lines, 1) if line.strip()), (1, ""))
    if _VTT_HEADER.fullmatch(first):
        return _read_vtt
    if _ASS_SECTION.fullmatch(next((line.strip() for line in lines if line.strip()[:1] not in ("", ";")), "")):
        return _read_ass
    if _MICRODVD.fullmatch(first):
        return _read_microdvd
    if first.startswith("<") and any(re.search(r"<(?:\w+:)?tt[\s>]", line) for line in lines):
        return _read_ttml
    for line in lines:
        if "-->" in line:
            return _read_srt
        if _SBV_TIMING.fullmatch(line):
            return _read_sbv
        if _LRC_TIME.match(line.strip()):
            return _read_lrc
    if first:
        raise ValueError(
            f"{name}, line {number}: neither SRT, WebVTT nor JSON subtitles, nor SBV, LRC, ASS, MicroDVD, TTML: "
            f"{first[:40]!r}"
        )
    return lambda *_: []


def _left_out(notes: list[str], outside: list[int], lines: list[str]) -> None:
    """Adds a note about the lines that belong to no utterance."""
    if outside:
        notes.append(
            f"lines that belong to none of them were left out, {len(outside)} in all "
            f"(line {outside[0] + 1}: {lines[outside[0]].strip()[:40]!r})"
        )


# --- SubRip and SBV: a timing line, then words up to a blank line ---------------------------------------------------


def _read_srt(name: str, lines: list[str], notes: list[str], fps: float | None) -> list[Utterance]:
    """Reads SubRip."""
    timings = {}
    for at, line in enumerate(lines):
        if match := _TIMING.fullmatch(line):
            timings[at] = match
        elif _is_bad_timing(lines, at):
            raise _bad_timing(name, lines, at)
    if not timings:
        raise _bad_timing(name, lines, next(at for at, line in enumerate(lines) if "-->" in line))
    return _read_blocks(lines, notes, timings)


def _read_sbv(name: str, lines: list[str], notes: list[str], fps: float | None) -> list[Utterance]:
    """Reads SBV."""
    timings = {}
    for at, line in enumerate(lines):
        if match := _SBV_TIMING.fullmatch(line):
            timings[at] = match
        elif line.count(":") > 2 and "," in line and " " not in line.strip():
            raise _bad_timing(name, lines, at, "hours:minutes:seconds.000,hours:minutes:seconds.000")
    return _read_blocks(lines, notes, timings)


def _read_blocks(lines: list[str], notes: list[str], timings: dict[int, re.Match[str]]) -> list[Utterance]:
    """Reads entries that begin with the timing lines `timings` (line number to match)."""
    cues: list[_Cue] = []
    before: int | None = None
    spaced, floor = False, 0
    for at, match in timings.items():
        number = _number_line(lines, floor, at, before, spaced)
        words = lines[floor : at if number is None else number]
        if cues:
            cues[-1].raw = words  # blank lines too many do not end the words
        else:
            _left_out(notes, [i for i, line in enumerate(words) if line.strip()], lines)
            spaced = number is not None and at - number > 1
        before = None if number is None else int(lines[number])
        cues.append(_Cue(seconds(match[1]), seconds(match[2])))
        floor = at + 1
    cues[-1].raw = lines[floor:]
    return _spoken(cues, notes)


def _is_bad_timing(lines: list[str], at: int) -> bool:
    """Tells whether a line should be a timing line. An arrow between words is speech."""
    line = lines[at]
    if "-->" not in line:
        return _OTHER_ARROW.fullmatch(line) is not None
    above = [line.strip() for line in lines[max(at - 2, 0) : at]]
    starts_entry = not above or not above[-1] or (above[-1].isdecimal() and (len(above) == 1 or not above[0]))
    return starts_entry or re.search(r"\d:\d", line) is not None


def _bad_timing(
    name: str, lines: list[str], at: int, expected: str = "hours:minutes:seconds --> hours:minutes:seconds"
) -> ValueError:
    return ValueError(f"{name}, line {at + 1}: expected '{expected}', got {lines[at].strip()[:80]!r}")


def _number_line(lines: list[str], floor: int, timing: int, before: int | None, spaced: bool) -> int | None:
    """Returns the index of the line that numbers an entry, from `floor` on.

    By the format's rule it is right above the timing line and below a blank line. Where the blank line above is
    missing, or one too many stands below, only the number that is due counts: any other is speech. In a file with a
    blank line after each line (`spaced`) both happens.
    """
    at = timing - 1
    while at >= floor and not lines[at].strip():
        at -= 1
    if at < floor or not lines[at].strip().isdecimal() or len(lines[at].strip()) > 9:
        return None
    if floor == 0:  # nobody speaks before the first timing line
        return at
    is_due = before is not None and int(lines[at]) == before + 1
    is_apart = at > floor and not lines[at - 1].strip()
    if at == timing - 1:
        return at if is_due or is_apart else None
    return at if is_due and (is_apart or spaced) else None


# --- WebVTT: blocks that a truly empty line ends --------------------------------------------------------------------


def _read_vtt(name: str, lines: list[str], notes: list[str], fps: float | None) -> list[Utterance]:
    """Reads WebVTT."""
    written = [at for at, line in enumerate(lines) if line.strip()]
    if "" not in lines[written[0] : written[-1]]:
        lines = [line if line.strip() else "" for line in lines]  # blanks were put in all the empty lines
    cues, outside, hidden = [], [], 0
    clock, first_clock = 0.0, None
    at = 0

    def block(*, to_arrow: bool = True) -> list[int]:
        """Returns the numbers of the lines up to the end of the block, and goes on behind it."""
        nonlocal at
        begin = at
        while at < len(lines) and lines[at] and not (to_arrow and "-->" in lines[at]):
            at += 1
        return list(range(begin, at))

    while at < len(lines):
        line, following = lines[at], lines[at + 1] if at + 1 < len(lines) else ""
        if not line.strip() and "-->" not in following:
            at += 1
        elif _VTT_HEADER.fullmatch(line.strip()):
            clock = _stream_clock([lines[i] for i in block()], clock)
            first_clock = clock if first_clock is None else first_clock
        elif _VTT_COMMENT.fullmatch(line):
            hidden += any(_TIMING.fullmatch(lines[i]) for i in block(to_arrow=False))
        elif "-->" in line or "-->" in following:
            at += "-->" not in line  # the line above the timing line names the cue
            match = _TIMING.fullmatch(lines[at])
            if match is None:
                raise _bad_timing(name, lines, at)
            at += 1
            shift = clock - (first_clock or 0.0)
            cues.append(_Cue(seconds(match[1]), seconds(match[2]), [lines[i] for i in block()], shift))
        elif _VTT_STYLE.fullmatch(line):
            block()
        else:
            stray = block()
            if cues and not any(raw.strip() for raw in cues[-1].raw):
                # An editor that cuts blanks off line ends has emptied the first line of a rolling caption.
                cues[-1].raw = [lines[i] for i in stray]
                if not any(_STAMP.search(raw) for raw in cues[-1].raw):
                    notes.append(f"one had its words below an empty line (line {stray[0] + 1})")
            else:
                outside += stray
    _left_out(notes, outside, lines)
    if hidden:
        notes.append(f"{hidden} in comments (NOTE) were not read")
    if first_clock:
        notes.append(
            f"X-TIMESTAMP-MAP puts 0 s at {first_clock:.3f} s of a stream, which was taken as the clip's start"
        )
    return _spoken(cues, notes)


def _stream_clock(header: list[str], clock: float) -> float:
    """Returns the seconds of the transport stream at 0 s of the cues (HLS). A file of several segments has several."""
    for line in header:
        if line.startswith("X-TIMESTAMP-MAP"):
            local, ticks = re.search(rf"LOCAL:({_TIME})", line), re.search(r"MPEGTS:(\d{1,20})", line)
            if local and ticks:
                return int(ticks[1]) / 90000 - seconds(local[1])
    return clock


# --- captions to utterances -----------------------------------------------------------------------------------------


class _Line(NamedTuple):
    """Holds a line on screen, with the times of its words if it states them."""

    text: str
    start: float | None = None
    end: float | None = None
    is_timed: bool = False


@dataclass
class _Cue:
    """Holds the times in seconds and the raw lines of a caption."""

    start: float
    end: float
    raw: list[str] | tuple[str, ...] = ()
    shift: float = 0.0  # of a later clock, WebVTT only

    def read(self) -> tuple[list[_Line], str | None]:
        """Returns the lines without mark-up, and the speaker if a single voice tag names one."""
        text = _BREAK.sub("\n", "\n".join(self.raw))
        voices = list(dict.fromkeys(" ".join(_plain(voice).split()) for voice in _VOICE.findall(text)))
        if len(voices) > 1:  # several voices in one entry: their names stay in the text
            text = _VOICE.sub(r"\1: ", text)
        # A tag may reach over the end of a line.
        text = re.sub(r"<[^<>\n]*\n[^<>]*>", lambda tag: tag[0].replace("\n", " "), text)
        lines = [self._line(line) for line in text.split("\n")]
        return [line for line in lines if line.text], (voices[0] or None) if len(voices) == 1 else None

    def _line(self, raw: str) -> _Line:
        parts = _STAMP.split(raw)
        pieces = ["" if not part else " ".join(_plain(part).split()) for part in parts[::2]]
        stamps = [seconds(stamp) for stamp in parts[1::2]]
        text = one_line(_plain("".join(parts[::2])))
        start = stamps[0] if stamps and not pieces[0] and self.start <= stamps[0] < self.end else None
        end = stamps[-1] if stamps and not pieces[-1] and self.start < stamps[-1] <= self.end else None
        return _Line(text, start, end, bool(stamps))


def _plain(text: str) -> str:
    """Removes tags and resolves entities."""
    return _ENTITY.sub(lambda entity: html.unescape(entity[0]), _TAG.sub("", text))


def _spoken(cues: list[_Cue], notes: list[str]) -> list[Utterance]:
    """Makes an utterance of each cue, or of each new line of captions that roll."""
    read = [cue.read() for cue in cues]
    screens = [lines for lines, _ in read]
    rolled = _are_rolling(cues, screens)
    found: list[Utterance] = []
    shown: list[_Line] = []
    shown_until, repeated = -math.inf, 0
    for cue, (lines, speaker) in zip(cues, read, strict=True):
        fresh = lines
        if rolled:
            if not lines:
                continue
            is_close = cue.start <= shown_until + _CLOSE
            repeats = _overlap(shown, lines)
            if repeats == len(lines) and not is_close:
                repeats = 0  # the words come again after a pause
            grown = _growth(shown, lines) if not repeats and is_close and found else None
            if grown is not None:
                repeats, rest = grown
                found[-1] = replace(found[-1], text=f"{found[-1].text} {rest}", end=cue.end + cue.shift)
            repeated += repeats
            fresh, shown, shown_until = lines[repeats:], lines, cue.end
            if not fresh:
                continue
        start = cue.start if not fresh or fresh[0].start is None else fresh[0].start
        end = cue.end if not fresh or fresh[-1].end is None else fresh[-1].end
        text = " ".join(line.text for line in fresh)
        found.append(Utterance(start + cue.shift, end + cue.shift, text, speaker))
    if rolled == "by their look" and repeated:
        notes.append(f"{repeated} lines still on screen from the caption before were read once")
    return found


def _are_rolling(cues: list[_Cue], screens: list[list[_Line]]) -> str | None:
    """Tells how captions show that they repeat lines while new words come in below (automatic captions), or `None`."""
    moved = 0
    for (cue, shown), (following, lines) in pairwise(zip(cues, screens, strict=True)):
        if not shown or not lines or not cue.start <= following.start <= cue.end + _CLOSE:
            continue
        repeats = _overlap(shown, lines)
        if repeats == len(lines) and 0 <= following.end - following.start <= _GLIMPSE:
            return "by their times"
        if 0 < repeats < len(lines):
            if any(line.is_timed for line in lines[repeats:]):
                return "by their times"
            moved += 1
        elif not repeats and _growth(shown, lines) is not None:
            moved += 1
    return "by their look" if moved >= 2 and 3 * moved >= 2 * (len(screens) - 1) else None


def _overlap(shown: list[_Line], lines: list[_Line]) -> int:
    """Counts the first lines that are the last ones of those shown before. A line that times its words is new."""
    for count in range(min(len(shown), len(lines), _SCREEN), 0, -1):
        same = all(a.text == b.text for a, b in zip(shown[-count:], lines, strict=False))
        if same and not any(line.is_timed for line in lines[:count]):
            return count
    return 0


def _growth(shown: list[_Line], lines: list[_Line]) -> tuple[int, str] | None:
    """Returns the number of repeated lines, and the words that the last of them has gained, or `None`."""
    for count in range(min(len(shown), len(lines), _SCREEN), 0, -1):
        *above, last = shown[-count:]
        same = all(a.text == b.text for a, b in zip(above, lines, strict=False))
        if same and lines[count - 1].text.startswith(last.text + " ") and not lines[count - 1].is_timed:
            return count, lines[count - 1].text[len(last.text) + 1 :]
    return None


# --- LRC: lines that last until the next ----------------------------------------------------------------------------


def _read_lrc(name: str, lines: list[str], notes: list[str], fps: float | None) -> list[Utterance]:
    """Reads LRC."""
    entries, outside, offset, length = [], [], 0.0, math.inf
    for at, line in enumerate(lines):
        rest, times = line.strip(), []
        while match := _LRC_TIME.match(rest):
            minutes, _, second = match[1].partition(":")
            times.append(60 * int(minutes) + float(second.replace(":", ".")))
            rest = rest[match.end() :].lstrip()
        entries += [(time, rest) for time in times]
        if times or not rest:
            continue
        field = _LRC_FIELD.fullmatch(rest)
        key, value = (field[1].lower(), field[2].strip()) if field else ("", "")
        if key == "offset" and re.fullmatch(r"[+-]?\d{1,9}", value):
            offset = int(value) / 1000
        elif key == "length" and re.fullmatch(_TIME, value):
            length = seconds(value)
        elif (key in ("offset", "length") and value) or re.match(r"\[\s*\d+\s*[:.]", rest):
            expected = "[minutes:seconds] and words, [offset:milliseconds] or [length:minutes:seconds]"
            raise ValueError(f"{name}, line {at + 1}: expected {expected}, got {rest[:80]!r}")
        elif not re.fullmatch(r"\[[^\]]*\]", rest):  # title, artist and headings are no speech
            outside.append(at)
    _left_out(notes, outside, lines)
    starts = sorted({start for start, _ in entries})
    cues = []
    for start, words in sorted(entries, key=lambda entry: entry[0]):
        later = bisect_right(starts, start)
        end = starts[later] if later < len(starts) else max(length, start)
        cue = _Cue(start, end, [words], -offset)  # a positive offset shows the words sooner
        if cue.read()[0]:  # an empty line only ends the one before
            cues.append(cue)
    return _spoken(cues, notes)


# --- what pysubs2 reads ---------------------------------------------------------------------------------------------


def _pysubs2(name: str, format: str) -> Any:
    """Imports pysubs2."""
    try:
        import pysubs2
    except ImportError:
        raise ImportError(f"{name}: {format} subtitles are read with pysubs2: pip install pysubs2") from None
    return pysubs2


def _read_ass(name: str, lines: list[str], notes: list[str], fps: float | None) -> list[Utterance]:
    """Reads ASS and SSA.

    pysubs2 expects the usual order of fields, takes ten seconds for missing ones, and fails on styles, which do not matter
    here. It is given the events alone, in the usual order.
    """
    pysubs2 = _pysubs2(name, "ASS")
    fields, script, section, outside = _ASS_FIELDS, ["[Events]"], "", []
    for at, line in enumerate(lines):
        if heading := re.fullmatch(r"\[([^\]]*[a-z][^\]]*)\]", line.strip()):
            section = heading[1].lower()
        kind, colon, rest = line.strip().partition(":")
        if colon and kind == "Format" and "text" in (names := [field.strip().lower() for field in rest.split(",")]):
            fields = names
        if not colon or kind != "Dialogue":
            if section == "events" and not heading and not re.match(_ASS_NO_SPEECH, line.strip()):
                outside.append(at)
            continue
        event = dict(zip(fields, rest.split(",", len(fields) - 1), strict=False))
        if not {"start", "end", "text"} <= set(event):
            raise ValueError(f"{name}, line {at + 1}: expected the fields {', '.join(fields)}, got {rest[:80]!r}")
        for key in ("start", "end"):
            if not _ASS_TIME.fullmatch(event[key].strip()):
                raise ValueError(
                    f"{name}, line {at + 1}: {key} must be hours:minutes:seconds.00, got {event[key][:40]!r}"
                )
        speaker = event.get("name", event.get("actor", "")).strip()
        script.append(f"Dialogue: 0,{event['start']},{event['end']},Default,{speaker},0,0,0,,{event['text']}")
    _left_out(notes, outside, lines)
    found = []
    for event in pysubs2.SSAFile.from_string("\n".join(script), "ass"):
        words = one_line(_ass_words(event.text))
        if words:  # the rest are drawings and effects
            found.append(Utterance(event.start / 1000, event.end / 1000, words, one_line(event.name) or None))
    return found


def _ass_words(text: str) -> str:
    """Returns the words of an event. pysubs2 gives up all of them if a part is a drawing."""
    words, is_drawing = [], False
    for part in re.split(r"(\{[^{}]*\})", text):
        if part.startswith("{") and part.endswith("}"):
            for scale in re.findall(r"\\p(\d+)", part):
                is_drawing = scale.strip("0") != ""
        elif not is_drawing:
            words.append(part)
    return re.sub(r"\\[Nnh]", " ", "".join(words))


def _read_microdvd(name: str, lines: list[str], notes: list[str], fps: float | None) -> list[Utterance]:
    """Reads MicroDVD, which counts frames. Lines are checked first, since pysubs2 skips those that it does not know."""
    pysubs2 = _pysubs2(name, "MicroDVD")
    entries = [(at, line) for at, line in enumerate(lines) if line.strip()]
    fields = []
    for at, line in entries:
        match = _MICRODVD.fullmatch(line)
        if match is None:
            raise ValueError(
                f"{name}, line {at + 1}: expected '{{first frame}}{{last frame}}words', got {line[:80]!r}"
            )
        fields.append(match.groups())
    start, end, rate = fields[0]
    if (int(start), int(end)) in ((1, 1), (0, 0)) and re.fullmatch(r"\s*\d{1,4}(?:[.,]\d{1,6})?\s*", rate):
        entries = entries[1:]
        fps = float(rate.replace(",", ".")) if fps is None else fps
    if fps is None:
        raise ValueError(
            f"{name}, line {entries[0][0] + 1}: MicroDVD counts frames, and the file does not begin with their rate "
            "({1}{1}25): give it to read_utterances as fps"
        )
    if not 0 < fps < 1000:
        raise ValueError(f"{name}: expected 1 to 999 frames per second, got {fps}")
    subtitles = pysubs2.SSAFile.from_string("\n".join(line.strip() for _, line in entries), "microdvd", fps=fps)
    return [Utterance(event.start / 1000, event.end / 1000, one_line(event.plaintext)) for event in subtitles]


def _read_ttml(name: str, lines: list[str], notes: list[str], fps: float | None) -> list[Utterance]:
    """Reads TTML."""
    pysubs2 = _pysubs2(name, "TTML")
    text = "\n".join(lines)
    try:
        # A declared encoding is that of the file, not of the text read from it; pysubs2 expects `dur` by another name.
        plain = re.sub(r"""\sdur=(?=["'])""", " duration=", re.sub(r"^\s*<\?xml[^>]*\?>", "", text))
        subtitles = pysubs2.SSAFile.from_string(plain, "ttml")
    except Exception as error:  # a parser of XML has many ways to say no, and pysubs2 adds its own
        raise ValueError(f"{name}: TTML that pysubs2 cannot read ({type(error).__name__}: {error})") from None
    captions = len(re.findall(r"<(?:\w+:)?p[\s>]", text))
    if captions != len(subtitles):
        raise ValueError(f"{name}: TTML with {captions} captions, of which pysubs2 reads {len(subtitles)}")
    return [Utterance(event.start / 1000, event.end / 1000, one_line(event.plaintext)) for event in subtitles]
