"""Subtitle files as other people's programs write them: nothing spoken is lost, nothing else becomes speech."""

import html
import json
import random
import sys
import warnings
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from microemo.processing.utterances import Utterance, read_utterances

EXAMPLES = pytest.mark.parametrize("examples", [50, pytest.param(2000, marks=pytest.mark.slow)])


@pytest.fixture(autouse=True)
def no_silent_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def texts(source, *args, **kwargs):
    return [said.text for said in read_utterances(source, *args, **kwargs)]


def told(source, *args, **kwargs):
    """The utterances, and the words of the one warning about them."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        said = read_utterances(source, *args, **kwargs)
    (warning,) = caught
    return said, str(warning.message)


# --- SubRip ---------------------------------------------------------------------------------------------------------


def srt(*entries, numbers=None):
    """Entries of one second each, `(number line or nothing) timing, words, blank line`."""
    blocks = []
    for index, words in enumerate(entries):
        number = f"{numbers[index]}\n" if numbers else ""
        blocks.append(f"{number}00:00:{index:02d},000 --> 00:00:{index + 1:02d},000\n{words}\n\n")
    return "".join(blocks)


@pytest.mark.parametrize("numbers", [None, [1, 2, 3, 4], [7, 8, 9, 10], [0, 1, 2, 3], [1, 1, 1, 1], [3, 2, 1, 9]])
def test_spoken_numbers_are_no_entry_numbers(numbers):
    words = ["You owe me\n50", "1985", "2\n3", "4"]
    assert texts(srt(*words, numbers=numbers)) == ["You owe me 50", "1985", "2 3", "4"]


def test_numbers_are_known_where_blank_lines_are_missing_or_too_many():
    numbered = srt("Three", "2", "One\n1", numbers=[1, 2, 3])
    assert texts(numbered.replace("\n\n", "\n")) == ["Three", "2", "One 1"]
    assert texts(numbered.replace("\n", "\n\n")) == ["Three", "2", "One 1"]
    assert texts(numbered.replace("\n", "\r\r\n")) == ["Three", "2", "One 1"]
    assert texts(srt("You owe me", "1985").replace("\n\n", "\n")) == ["You owe me", "1985"]
    assert texts(numbered.replace("\n2\n", "\n2\n\n")) == ["Three", "2", "One 1"]
    # Only the number that is due can stand right below words.
    assert texts(srt("You owe me\n50", "So?", "Pay", numbers=[1, 2, 3]).replace("\n\n2\n", "\n\n")) == [
        "You owe me 50",
        "So?",
        "Pay",
    ]


def test_an_arrow_between_words_is_speech_and_a_broken_timing_is_an_error():
    assert texts(srt("A --> B", "go -> there")) == ["A --> B", "go -> there"]
    for broken in ("00:00:01,000 -> 00:00:02,000", "00:00:01,000 → 00:00:02,000", "00:00:01,000 --> soon", "--> x"):
        for blank in ("\n\n", "\n") if broken[0] == "0" else ("\n\n",):
            text = f"00:00:00,000 --> 00:00:01,000\nHi{blank}{broken}\nthere\n"
            with pytest.raises(ValueError, match=rf"line {4 if blank == chr(10) * 2 else 3}: expected .*-->"):
                read_utterances(text)
    with pytest.raises(ValueError, match="line 2: expected"):
        read_utterances("Hello\nA --> B")


def test_words_before_the_first_timing_are_told():
    said, message = told("Subtitles by Anna\n\n" + srt("Hi", numbers=[1]))
    assert said == [Utterance(0, 1, "Hi")] and "line 1: 'Subtitles by Anna'" in message


def test_marks_are_no_words():
    words = (
        r"{\an8}<font color='red'>Tom</font> &amp; <b>Jerry</b><br/>♪ &lt;la&gt; &nbsp;la ♪ &#39;x&#39; AT&T &nosuch;"
    )
    assert texts(srt(words)) == ["Tom & Jerry ♪ <la> la ♪ 'x' AT&T &nosuch;"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_line_ends_and_encodings(end, encoding, tmp_path):
    path = tmp_path / "clip.srt"
    path.write_bytes(srt("Café\n50", "你好", numbers=[1, 2]).rstrip().replace("\n", end).encode(encoding))
    assert texts(path) == ["Café 50", "你好"]


def test_a_video_given_as_its_subtitles(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41\0\0\x8f\xfdmoov")
    with pytest.raises(ValueError, match=r"clip\.mp4, line 1: subtitles must be UTF-8"):
        read_utterances(path)


@pytest.mark.parametrize("encoding, words", [("cp1252", "Café – naïve"), ("gb18030", "你好"), ("cp1251", "Привет")])
def test_another_encoding_is_named_by_the_user_and_never_guessed(encoding, words, tmp_path):
    path = tmp_path / "clip.srt"
    path.write_bytes(srt("Hi", words).encode(encoding))
    with pytest.raises(ValueError, match=r"clip\.srt, line 5: .*UTF-8.*iconv.*encoding="):
        read_utterances(path)
    assert texts(path, encoding=encoding) == ["Hi", words]
    with pytest.raises(ValueError, match="unknown encoding 'gb-18'"):
        read_utterances(path, encoding="gb-18")


def test_letters_that_python_takes_for_line_ends_stay_in_the_words():
    assert texts(srt("a\u2028b\x0bc\x85d")) == ["a b c d"]


def test_the_same_words_at_the_same_time_are_read_once():
    said, message = told(srt("Hi") + srt("Hi"))
    assert said == [Utterance(0, 1, "Hi")] and "1 more with the times and words of another" in message


def test_a_file_whose_name_begins_with_a_bracket(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "[Group] clip.srt").write_text(srt("Hi"))
    assert texts("[Group] clip.srt") == ["Hi"]


# --- WebVTT ---------------------------------------------------------------------------------------------------------


def test_names_of_cues_and_words_of_cues():
    text = (
        "WEBVTT\n\n1\n00:00.000 --> 00:01.000\n1985\n\nintro --- 5\n00:01.000 --> 00:02.000\n2\n3\n\n"
        "00:02.000 --> 00:03.000\n\n4\n00:03.000 --> 00:04.000\n \n50\n00:04.000 --> 00:05.000\nNOTE well\nSTYLE"
    )
    assert texts(text) == ["1985", "2 3", "", "50", "NOTE well STYLE"]


def test_comments_styles_and_regions_are_no_speech():
    text = (
        "\ufeffWEBVTT - a title\nKind: captions\n00:00.000 --> 00:01.000\nHi\n\nNOTE\nmany\nlines\n\nNOTE one line\n\n"
        "Style:\n::cue(c) { color: red;\n }\n##\n\nSTYLE\n::cue(b) { color: red }\n\nREGION\nid:fred\nwidth:40%\n\n00:01.000 --> 00:02.000 region:fred\nyou\n"
    )
    assert texts(text) == ["Hi", "you"]
    said, message = told(text + "\nNOTE\n00:02.000 --> 00:03.000\nold words\n")
    assert [one.text for one in said] == ["Hi", "you"] and "1 in comments (NOTE)" in message


def test_words_outside_of_cues_are_told():
    said, message = told("WEBVTT\n\n00:00.000 --> 00:01.000\nHi\n\nlost words\n\n00:01.000 --> 00:02.000\nyou\n")
    assert [one.text for one in said] == ["Hi", "you"] and "line 6: 'lost words'" in message
    # Unless the cue above has none: its first line was a blank that somebody's editor cut off.
    said, message = told("WEBVTT\n\n00:00.000 --> 00:01.000\n\nHi\n\n00:01.000 --> 00:02.000\nyou\n")
    assert [one.text for one in said] == ["Hi", "you"] and "line 5" in message


def test_blanks_in_place_of_empty_lines():
    text = "WEBVTT\n \n1\n00:00.000 --> 00:01.000\nHi\n \n2\n00:01.000 --> 00:02.000\nyou"
    assert texts(text) == ["Hi", "you"]


def test_a_broken_timing_of_webvtt():
    with pytest.raises(ValueError, match="line 4: expected .* got '00:01.000 --> soon'"):
        read_utterances("WEBVTT\n\nname\n00:01.000 --> soon\nHi\n")


def test_the_clock_of_a_stream():
    header = "WEBVTT\nX-TIMESTAMP-MAP=LOCAL:00:00:00.000,MPEGTS:{}\n\n00:01.000 --> 00:02.000\n{}\n\n"
    assert read_utterances(header.format(0, "a")) == [Utterance(1, 2, "a")]
    said, message = told(header.format(900000, "a") + header.format(1350000, "b") + header.format(900000, "a"))
    assert said == [Utterance(1, 2, "a"), Utterance(6, 7, "b")]
    assert "10.000 s of a stream" in message and "1 more with the times" in message


def test_a_voice_tag_that_never_ends_is_read_in_time():
    assert texts("WEBVTT\n\n00:00.000 --> 00:01.000\n<v" + "." * 40000 + " " * 40000 + "x\n")[0].startswith("<v...")


# --- captions that roll ---------------------------------------------------------------------------------------------


def stamp(milliseconds, mark="."):
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{mark}{rest:03d}"


def youtube(lines, tags=True, blank=" "):
    """Automatic captions: the line before stays above the new one, then 10 ms of the new one alone.

    `lines` are (start, end, words) in milliseconds; a pause clears the screen."""
    blocks, before, until = [], blank, None
    for start, end, words in lines:
        if until is not None and start > until + 10:
            before = blank
        first, *others = words
        new = first
        for index, word in enumerate(others, 1):
            new += f"<{stamp(start + index)}><c> {word}</c>" if tags else f" {word}"
        blocks.append(f"{stamp(start)} --> {stamp(end - 10)} align:start position:0%\n{before}\n{new}\n\n")
        before, until = " ".join(words), end - 10
        blocks.append(f"{stamp(end - 10)} --> {stamp(end)} align:start position:0%\n{before}\n{blank}\n\n")
    return "WEBVTT\nKind: captions\nLanguage: en\n\n" + "".join(blocks)


ROLLING = [
    (160, 1920, ["well", "you", "know"]),
    (1920, 3600, ["no"]),
    (3600, 5000, ["no"]),
    (9000, 9900, ["no", "no"]),
]
ROLLED = [
    Utterance(0.16, 1.91, "well you know"),
    Utterance(1.92, 3.59, "no"),
    Utterance(3.6, 4.99, "no"),
    Utterance(9, 9.89, "no no"),
]


@pytest.mark.parametrize("tags", [True, False])
def test_each_word_of_automatic_captions_is_read_once(tags):
    text = youtube(ROLLING, tags)
    assert read_utterances(text) == ROLLED
    lines = text.split("\n\n", 1)[1].replace(" align:start position:0%", "")
    converted = "".join(f"{n}\n{block}\n\n" for n, block in enumerate(lines.split("\n\n")[:-1], 1))
    assert read_utterances(converted) == ROLLED  # as SubRip
    assert read_utterances(youtube(ROLLING, True, blank="")) == ROLLED  # blanks cut off the ends of lines


def test_captions_that_roll_without_telling_times_are_told():
    said, message = told(
        "00:00:00,000 --> 00:00:03,000\nfirst\n\n00:00:03,000 --> 00:00:05,000\nfirst\nsecond one\n\n"
        "00:00:05,000 --> 00:00:06,000\nsecond one\nthird\n"
    )
    assert said == [Utterance(0, 3, "first"), Utterance(3, 5, "second one"), Utterance(5, 6, "third")]
    assert "2 lines still on screen" in message
    said, _ = told(srt("I", "I am", "I am here\nnow"))
    assert said == [Utterance(0, 3, "I am here"), Utterance(2, 3, "now")]


def test_what_people_say_twice_stays():
    for words in (
        ["No.", "No.", "No.\nStop!"],
        ["Go!", "Go!", "Go!", "Go!"],
        ["No", "No I", "What?", "Well", "Well yes"],
    ):
        assert texts(srt(*words)) == [one.replace("\n", " ") for one in words]


def test_times_inside_a_cue():
    text = (
        "WEBVTT\n\n00:01.000 --> 00:05.000\n<00:02.000>Hello <00:03.000>you <00:04.000>\n\n"
        "00:05.000 --> 00:06.000\n<00:59.000>late"
    )
    assert read_utterances(text) == [Utterance(2, 4, "Hello you"), Utterance(5, 6, "late")]


# --- SBV, LRC -------------------------------------------------------------------------------------------------------


def test_sbv():
    text = "0:00:00.160,0:00:01.910\nHello[br]there\nyou, A --> B\n\n0:00:02.000,0:00:03.000\n50\n"
    assert read_utterances(text) == [Utterance(0.16, 1.91, "Hello there you, A --> B"), Utterance(2, 3, "50")]
    with pytest.raises(ValueError, match="line 5: .* got '0:00:0x.000,0:00:03.000'"):
        read_utterances(text.replace("0:00:02", "0:00:0x"))


def test_lrc():
    text = (
        "[ti:A --- song]\n[ar: 50 people]\n[by:]\n[offset: +500]\n[00:01.00][00:05.500]Hello there\n"
        "[00:03.00]<00:03.20>I <00:03.50>was <00:03.90>\n[00:08:00]\n[Verse 2]\n\n[00:09.00]&amp; last"
    )
    expected = [
        Utterance(0.5, 2.5, "Hello there"),
        Utterance(2.7, 3.4, "I was"),
        Utterance(5, 7.5, "Hello there"),
        Utterance(8.5, 12, "& last"),
    ]
    assert read_utterances(text, 12.0) == expected
    assert read_utterances(text + "\n[length: 00:12.5]") == expected
    with pytest.raises(ValueError, match="has no end"):
        read_utterances(text)
    for broken, line in ((text.replace("[00:09", "[00:0x"), 10), (text.replace("+500", "a bit"), 4)):
        with pytest.raises(ValueError, match=f"line {line}: expected .*minutes:seconds"):
            read_utterances(broken, 12.0)
    assert "line 11: 'words without a time'" in told(text + "\nwords without a time", 12.0)[1]


# --- what pysubs2 reads ---------------------------------------------------------------------------------------------

ASS = r"""[Script Info]
; a comment
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour
Style: Default,,,nonsense

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Comment: 0,0:00:00.00,0:00:01.00,Default,,0,0,0,,no speech
Dialogue: 0,0:00:01.00,0:00:02.50,Default,Anna,0,0,0,,{\an8}Hello,\Nthere{a note} ♪
Dialogue: 0,0:00:03.00,0:00:04.00,Default,,0,0,0,,{\p1}m 0 0 l 10 10{\p0}
Dialogue: 0,0:00:03.00,0:00:04.00,Default,,0,0,0,,{\pos(1,2)\p4}m 0 0{\p0}{\k20}Hi{\k3} y{\k9}ou
"""
SPOKEN = [Utterance(1, 2.5, "Hello, there ♪", "Anna"), Utterance(3, 4, "Hi you")]


def test_ass():
    pytest.importorskip("pysubs2")
    assert read_utterances(ASS) == SPOKEN
    ssa = ASS.replace("V4+", "V4").replace("Layer", "Marked").replace(": 0,", ": Marked=0,")
    assert read_utterances(ssa) == SPOKEN
    assert read_utterances(ASS[ASS.index("[Events]") :]) == SPOKEN


def test_fields_of_ass_in_another_order():
    pytest.importorskip("pysubs2")
    events = (
        "[Script Info]\n\n[Events]\nFormat: Start, End, Name, Text\n"
        "Dialogue: 0:00:01.00,0:00:02.50,Anna,Hello,\\Nthere ♪\n"
    )
    assert read_utterances(events) == SPOKEN[:1]


def test_the_layers_of_one_line_of_ass_are_read_once():
    pytest.importorskip("pysubs2")
    line = next(line for line in ASS.splitlines() if "Anna" in line)
    said, message = told(ASS + line.replace(": 0,", ": 5,") + "\n")
    assert said == SPOKEN and "1 more" in message


@pytest.mark.parametrize(
    "change, error",
    [
        (lambda text: text.replace("0:00:03.00", "soon"), "line 13: start must be .*'soon'"),
        (lambda text: text + "Dialogue: 0,0:00:05.00\n", "line 15: expected the fields layer, start, end"),
    ],
)
def test_malformed_ass(change, error):
    pytest.importorskip("pysubs2")
    with pytest.raises(ValueError, match=error):
        read_utterances(change(ASS))


def test_an_unknown_kind_of_event_is_told():
    pytest.importorskip("pysubs2")
    said, message = told(ASS.replace("Dialogue: 0,0:00:01", "Dialog: 0,0:00:01"))
    assert said == SPOKEN[1:] and "line 12: 'Dialog: " in message


def test_microdvd():
    pytest.importorskip("pysubs2")
    lines = "{25}{50}{y:i}Hello,|there\n\n{75}{100}50\n"
    expected = [Utterance(1, 2, "Hello, there"), Utterance(3, 4, "50")]
    assert read_utterances("{1}{1}25.000\n" + lines) == expected
    assert read_utterances("{1}{1}23,976\n" + lines, fps=25) == expected
    assert read_utterances(lines, fps=25) == expected
    with pytest.raises(ValueError, match=r"line 1: MicroDVD counts frames.*\{1\}\{1\}25.*fps"):
        read_utterances(lines)
    with pytest.raises(ValueError, match="line 5: .*got 'Hello'"):
        read_utterances(lines + "\nHello", fps=25)
    for rate in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="frames per second"):
            read_utterances(lines, fps=rate)


TTML = (
    '<?xml version="1.0" encoding="utf-16"?>\n<tt xmlns="http://www.w3.org/ns/ttml"><body><div>'
    '<p begin="00:00:01.000" end="00:00:02.500">Hello<br/>there &amp; you</p><p begin="3s" dur="1s">x <span>y</span></p>'
    "</div></body></tt>"
)


def test_ttml():
    pytest.importorskip("pysubs2")
    assert read_utterances(TTML) == [Utterance(1, 2.5, "Hello there & you"), Utterance(3, 4, "x y")]
    for broken in (TTML.replace("3s", "3t"), TTML.replace("</p>", ""), TTML.replace("ns/ttml", "2006/10/ttaf1")):
        with pytest.raises(ValueError, match="TTML"):
            read_utterances(broken)
    with pytest.raises(ValueError, match="2 captions, of which pysubs2 reads 0"):
        read_utterances(TTML.replace("<div>", "<div><div>").replace("</div>", "</div></div>"))


def test_without_pysubs2_the_common_formats_are_read_and_the_others_say_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pysubs2", None)  # as if it were not installed
    assert texts(srt("Hi")) == texts("WEBVTT\n\n" + srt("Hi").replace(",", ".")) == ["Hi"]
    assert texts("0:00:00.160,0:00:01.910\nHi") == texts("[00:01.00]Hi", 2.0) == ["Hi"]
    assert texts([{"start": 0, "end": 1, "text": "Hi"}]) == ["Hi"]
    path = tmp_path / "clip.ass"
    for text in (ASS, "{1}{1}25\n{25}{50}Hi", TTML):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ImportError, match=r"clip\.ass: .*pip install pysubs2"):
            read_utterances(path)


# --- whatever is written comes back ---------------------------------------------------------------------------------

WORDS = st.one_of(
    st.sampled_from(["1", "2", "50", "1985", "NOTE", "STYLE", "WEBVTT", "intro", "-", "♪", "<3", "<i>", "{", "{\\an8}", "&amp;", "&", ">", "-->", "[x]", "你好", "Hello,", "you?"]),
    st.text(st.characters(exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp"], exclude_characters="\ufeff"), min_size=1, max_size=6),
)  # fmt: skip
LINES = st.lists(st.lists(WORDS, min_size=1, max_size=4).map(" ".join), max_size=3)


@st.composite
def dialogues(draw, words=LINES, step=1):
    """(start, end, lines, speaker) in milliseconds, in order."""
    dialogue, at = [], 0
    for lines in draw(st.lists(words, min_size=1, max_size=6)):
        at += step * draw(st.integers(1, 4000) if dialogue else st.integers(0, 4000))
        start, at = at, at + step * draw(st.integers(100, 5000))
        dialogue.append((start, at, lines, draw(st.sampled_from([None, "Anna", "Bob & co."]))))
    shown = [lines for _, _, lines, _ in dialogue]
    # Captions that begin with the line before are captions that roll: they have a test of their own.
    assume(not any(a and b and b[0].startswith(tuple(a)) for a, b in pairwise(shown)))
    return dialogue


def as_read(dialogue, speakers=True):
    return [
        Utterance(start / 1000, end / 1000, " ".join(" ".join(lines).split()), speaker if speakers else None)
        for start, end, lines, speaker in dialogue
    ]


def escaped(words):
    return html.escape(words, quote=False).replace("{", "&#123;").replace("[", "&#91;")


def same(found, dialogue, speakers=True):
    assert [(u.text, u.speaker) for u in found] == [(u.text, u.speaker) for u in as_read(dialogue, speakers)]
    assert [time for u in found for time in (u.start, u.end)] == pytest.approx(
        [time for u in as_read(dialogue) for time in (u.start, u.end)]
    )


def written_srt(dialogue, numbered, mark, settings, italics):
    blocks = []
    for number, (start, end, lines, _) in enumerate(dialogue, 1):
        block = [str(number)] * numbered + [f"{stamp(start, mark)} --> {stamp(end, mark)}{settings}"]
        blocks.append("\n".join(block + [f"<i>{escaped(line)}</i>" if italics else escaped(line) for line in lines]))
    return "\n\n".join(blocks)


def written_vtt(dialogue, names, hours, comments, blank_first):
    blocks = ["WEBVTT"]
    for number, (start, end, lines, speaker) in enumerate(dialogue, 1):
        times = [stamp(time) if hours or time >= 3600000 else stamp(time)[3:] for time in (start, end)]
        block = {"none": [], "numbers": [str(number)], "words": [f"cue {number} - NOTE"]}[names]
        block.append(f"{times[0]} --> {times[1]} align:start")
        if speaker and lines:
            lines = [f"<v {escaped(speaker)}>{escaped(lines[0])}", *map(escaped, lines[1:])]
        else:
            lines = [escaped(line) for line in lines]
        blocks.append("\n".join(block + [" "] * blank_first + lines))
        if comments:
            blocks.append(f"NOTE {number}\nno speech")
    return "\n\n".join(blocks)


ENDS = st.sampled_from(["\n", "\r\n", "\r", "\r\r\n"])
FORM = st.tuples(ENDS, st.sampled_from(["", "\n", "\n\n\n"]), st.sampled_from(["", "\ufeff"]))


def formed(text, form):
    end, last, mark = form
    return (mark + text + last).replace("\n", end)


def run(examples, **strategies):
    """A property, held for that many examples."""

    def hold(check):
        settings(max_examples=examples, deadline=None)(given(**strategies)(check))()

    return hold


@EXAMPLES
def test_srt_round_trip(examples):
    @run(
        examples,
        dialogue=dialogues(),
        style=st.tuples(st.booleans(), st.sampled_from(",."), st.sampled_from(["", " X1:1 X2:9"]), st.booleans()),
        form=FORM,
    )
    def _(dialogue, style, form):
        same(read_utterances(formed(written_srt(dialogue, *style), form)), dialogue, speakers=False)


@EXAMPLES
def test_webvtt_round_trip(examples):
    names = st.sampled_from(["none", "numbers", "words"])

    @run(examples, dialogue=dialogues(), style=st.tuples(names, *[st.booleans()] * 3), form=FORM)
    def _(dialogue, style, form):
        dialogue = [(start, end, lines, who if lines else None) for start, end, lines, who in dialogue]
        same(read_utterances(formed(written_vtt(dialogue, *style), form)), dialogue)


@EXAMPLES
def test_automatic_captions_round_trip(examples):
    said = LINES.map(lambda lines: (" ".join(lines) or "yes").split())
    paused = st.tuples(said, st.sampled_from([0, 0, 0, 5000]), st.integers(200, 4000))

    @run(examples, script=st.lists(paused, min_size=1, max_size=6), tags=st.booleans(), form=FORM)
    def _(script, tags, form):
        lines, at = [], 0
        for words, pause, length in script:
            lines.append((at + pause, at + pause + length, [escaped(word) for word in words]))
            at += pause + length
        found = read_utterances(formed(youtube(lines, tags), form))
        expected = [(start, end - 10, [html.unescape(" ".join(words))], None) for start, end, words in lines]
        same(found, expected)


@EXAMPLES
def test_ass_round_trip(examples):
    pytest.importorskip("pysubs2")
    letters = WORDS.filter(lambda word: not set("{}\\") & set(word))
    words = st.lists(st.lists(letters, min_size=1, max_size=4).map(" ".join), min_size=1, max_size=3)

    @run(examples, dialogue=dialogues(words, step=10), form=FORM)
    def _(dialogue, form):
        lines = [
            f"Dialogue: 0,{stamp(start)[1:-1]},{stamp(end)[1:-1]},Default,{who or ''},0,0,0,,"
            + r"{\an8\fad(1,2)}"
            + r"\N".join(words)
            for start, end, words, who in dialogue
        ]
        head = ASS[: ASS.index("Comment:")]
        same(read_utterances(formed(head + "\n".join(lines), form)), dialogue)


@EXAMPLES
def test_json_round_trip(examples):
    spellings = st.sampled_from(
        ["text", "sentence", "transcript", "words", "times of words", "whisper.cpp", "pipeline"]
    )

    @run(examples, dialogue=dialogues(), spelling=spellings, as_text=st.booleans())
    def _(dialogue, spelling, as_text):
        content = [written_entry(spelling, *one) for one in dialogue]
        if spelling in ("whisper.cpp", "pipeline"):
            content = {{"whisper.cpp": "transcription", "pipeline": "chunks"}[spelling]: content}
        found = read_utterances(json.dumps(content) if as_text else content)
        same(found, dialogue, speakers=spelling not in ("whisper.cpp", "pipeline"))


def written_entry(spelling, start, end, lines, speaker):
    text, times = " ".join(lines), {"start": start / 1000, "end": end / 1000}
    if spelling == "whisper.cpp":
        return {"offsets": {"from": start, "to": end}, "text": " " + text}
    if spelling == "pipeline":
        return {"timestamp": [start / 1000, end / 1000], "text": " " + text}
    if spelling in ("words", "times of words"):
        words = [{"word": " " + word} for line in lines for word in line.split()]
        if spelling == "times of words" and words:
            words[0]["start"], words[-1]["end"] = start / 1000, end / 1000
            return {"words": words, "speaker": speaker}
        return {**times, "words": words, "speaker": speaker}
    return {**times, spelling: text, "speaker": speaker, "id": 3, "confidence": 0.5}


# --- damage ---------------------------------------------------------------------------------------------------------

GOOD = [
    srt("You owe me\n50", "1985", "<i>Yes</i>", numbers=[1, 2, 3]),
    "WEBVTT\n\nNOTE x\n\nname\n00:00.000 --> 00:01.000\n<v Bob>Hi</v>\n\n00:01.000 --> 00:02.000\nyou &amp; me\n",
    youtube(ROLLING),
    "0:00:00.160,0:00:01.910\nHello[br]there\n\n0:00:02.000,0:00:03.000\n50\n",
    "[ti:x]\n[offset:+500]\n[00:01.00][00:05.50]Hello\n[00:03.00]<00:03.20>I <00:03.50>was\n[length:00:09]\n",
    ASS,
    "{1}{1}25\n{25}{50}Hello|there\n{75}{100}50\n",
    TTML.replace("utf-16", "utf-8"),
    json.dumps(
        {"segments": [{"start": 0, "end": 1.5, "text": " Hi", "words": [{"word": " Hi", "start": 0, "end": 1}]}]}
    ),
    json.dumps({"transcription": [{"offsets": {"from": 0, "to": 1500}, "text": "Hi"}]}),
]


def damaged(seed):
    """A good file after flipped bits, cuts, splices and inserted blocks."""
    chance = random.Random(seed)
    data = bytearray(chance.choice(GOOD).encode(chance.choice(["utf-8", "utf-8", "utf-16"])))
    for _ in range(chance.randint(1, 4)):
        at, to = sorted(chance.randrange(len(data) + 1) for _ in range(2))
        kind = chance.randrange(5)
        if kind == 0 and data:
            data[min(at, len(data) - 1)] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del data[at:to]
        elif kind == 2:
            data[at:at] = chance.choice(GOOD).encode()[: chance.randrange(200)]
        elif kind == 3:
            data[at:at] = (data[at:to] * chance.randint(1, 50))[:20000]
        else:
            data[at:at] = bytes(
                chance.choice([0, 10, 45, 48, 58, 60, 62, 91, 123, 255, chance.randrange(256)]) for _ in range(9)
            )
    return bytes(data)


@EXAMPLES
def test_damaged_files_are_read_or_refused(examples, tmp_path):
    pytest.importorskip("pysubs2")
    path = tmp_path / "damaged.srt"
    refused = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for seed in range(examples):
            path.write_bytes(damaged(seed))
            try:
                said = read_utterances(path, 10.0)
            except ValueError as error:
                assert "damaged.srt" in str(error), (seed, error)
                refused += 1
            else:
                assert all(0 <= one.start < one.end <= 10 and one.text == one.text.strip() for one in said), seed
    assert 0 < refused < examples
