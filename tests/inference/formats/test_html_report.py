"""The report, read back by a parser of the HTML standard that allows no errors."""

import base64
import re
from html.parser import HTMLParser
from itertools import pairwise
from xml.etree.ElementTree import Element

import html5lib
import pytest
from hypothesis import given, settings

from microemo.inference.emotion_analysis import EmotionAnalysis
from microemo.inference.formats.analysis_files import format_analysis, write_analysis
from microemo.inference.formats.html_report import TEMPLATE
from microemo.tests.inference.formats.analyses import ANALYSES, any_analysis, empty, observations, odd, usual


@pytest.fixture
def no_matplotlib(monkeypatch):
    monkeypatch.setattr(EmotionAnalysis, "plot", lambda self: (_ for _ in ()).throw(ImportError("no matplotlib")))


def parse(text: str) -> Element:
    return html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(text)


def words(element: Element) -> str:
    return " ".join("".join(element.itertext()).split())


def table_rows(element: Element) -> list[list[str]]:
    return [[words(cell) for cell in row] for row in element.iter("tr")]


@pytest.mark.parametrize("which", ANALYSES)
def test_reports_follow_the_standard_and_can_be_read_aloud(which, no_matplotlib):
    root = parse(format_analysis(ANALYSES[which](), "html"))
    assert root.get("lang") == "en" and words(root.find("head/title"))
    levels = [int(one.tag[1]) for one in root.iter() if re.fullmatch("h[1-6]", str(one.tag))]
    assert levels.count(1) == 1 and levels[0] == 1 and all(below - above <= 1 for above, below in pairwise(levels))
    ids = [one.get("id") for one in root.iter() if one.get("id")]
    assert len(set(ids)) == len(ids)
    named = {one.get("aria-labelledby") for one in root.iter() if one.get("aria-labelledby")}
    links = {one.get("href") for one in root.iter("a")}
    assert named <= set(ids) and {link.removeprefix("#") for link in links} <= set(ids)
    assert len(list(root.iter("main"))) == 1
    for table in root.iter("table"):
        assert words(table.find("caption"))
        assert {cell.get("scope") for cell in table.iter("th")} <= {"col", "row"}
        columns = len(table.findall("thead/tr/th"))
        assert all(len(row) == columns and row[0].tag == "th" for row in table.findall("tbody/tr"))


def test_utterances_have_emotions_scores_evidence_and_checked_statements(no_matplotlib):
    root = parse(format_analysis(usual(), "html"))
    assert words(root.find("head/title")) == "Emotions in two people.mp4"
    whole, overview, scores, claims, evidence, *_ = map(table_rows, root.iter("table"))
    assert whole[1:] == [["joy", "60 %", "named"], ["sadness", "30 %", "not named"]]
    assert (
        overview
        == [
            ["No.", "Time", "Words", "Emotions"],
            ["1", "0:00.50:02.0", "Ann: I am glad, really.", "joy, mixed feelings"],
            ["2", "0:02.00:04.2", "Bob: I am not.", "sadness"],
            ["3", "0:05.00:06.0", "Ann: Oh.", "joy"],
        ]
        or overview[2][1] == "0:02.00:04.2"
    )
    assert scores[1:] == [["joy", "70 %", "named"], ["mixed feelings", "20 %", "named"]]
    assert claims[1:] == [
        ["the corners of the mouth are raised", "mouth left", "supported (+0.40)"],
        ["the voice is loud", "sound", "not supported (-0.02)"],
    ]
    assert evidence[1:] == [
        ["picture", "modality", "+1.25"],
        ["mouth left", "region", "+0.50"],
        ["utterance 2", "window", "-0.10"],
    ]
    text = words(root.find("body"))
    assert "In 1 of 2 frames no face is seen." in text and "in 3 of 4 frames" in text
    assert "loudness -21.5 dBFS; pitch 201.0 Hz; speed 2.7 words per second" in text
    assert "An expression is not a feeling" in text and "Film and analyse people only with their consent." in text
    assert "it was not checked against how often the model is right" in text


def test_nothing_of_the_analysis_is_mark_up(no_matplotlib):
    text = format_analysis(odd(), "html")
    root = parse(text)
    assert not list(root.iter("script")) and not list(root.iter("b")) and not list(root.iter("one"))
    assert "<script>alert(1)</script>" in words(root.find("body"))
    assert 'Bob: "the" <one>: He said "no" --> & <b>so</b>; new, line' in words(root.find("body"))
    assert "The analysis is not finished: 7 of 9 utterances are done." in words(root.find("body"))


def test_nothing_is_loaded_from_elsewhere():
    text = format_analysis(usual(), "html")
    links = [
        value for one in parse(text).iter() for name, value in one.items() if name in ("src", "href", "action", "data")
    ]
    assert links and all(link.startswith(("data:image/png;base64,", "#")) for link in links)
    assert not re.search(r"url\(|@import|<script|<link|<iframe|https?:", text)
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in text


def test_the_time_line_is_in_the_report_with_a_text_in_its_place():
    pytest.importorskip("matplotlib")
    (image,) = parse(format_analysis(usual(), "html")).iter("img")
    data = base64.b64decode(image.get("src").removeprefix("data:image/png;base64,"), validate=True)
    assert data.startswith(b"\x89PNG\r\n")
    assert "3 utterances" in image.get("alt")


def test_without_matplotlib_the_report_has_no_picture(no_matplotlib):
    assert "<img" not in format_analysis(usual(), "html")


def test_observations_have_no_words_about_emotions(no_matplotlib):
    root = parse(format_analysis(observations(), "html"))
    assert words(root.find("head/title")) == "Observations in clip.mp4"
    (overview,) = map(table_rows, root.iter("table"))
    assert overview == [
        ["No.", "Time", "Words", "What is seen"],
        ["1", "0:00.00:01.0", "Hello.", "The brows are raised."],
        ["2", "0:01.00:02.0", "(no words)", "The brows are raised."],
    ]
    assert "Emotions were left out on request." in words(root.find("body"))


def test_without_utterances_the_report_says_so(no_matplotlib):
    body = parse(format_analysis(empty(), "html")).find("body")
    assert not list(body.iter("table")) and "There are none." in words(body)


def luminance(color: str) -> float:
    channels = (int(color[at : at + 2], 16) / 255 for at in (1, 3, 5))
    red, green, blue = (one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_texts_stand_out_in_the_light_in_the_dark_and_on_paper():
    """4.5 to 1 is the contrast of WCAG 2, level AA."""
    schemes = re.findall(r":root \{(.*?)\}", TEMPLATE.read_text(encoding="utf-8"), re.S)
    assert len(schemes) == 3
    for scheme in schemes:
        colors = dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", scheme))
        for text in ("text", "muted", "good", "bad"):
            for ground in ("page", "panel"):
                light, dark = sorted((luminance(colors[text]), luminance(colors[ground])), reverse=True)
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground, colors)


class Texts(HTMLParser):
    """Collects the texts of a page, with Python's own reader."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@settings(max_examples=20, deadline=None)
@given(any_analysis())
def test_any_words_are_shown_as_they_are(analysis):
    EmotionAnalysis.plot, plot = lambda self: (_ for _ in ()).throw(ImportError("no matplotlib")), EmotionAnalysis.plot
    try:
        text = format_analysis(analysis, "html")
    finally:
        EmotionAnalysis.plot = plot
    reader = Texts()
    reader.feed(text)
    shown = " ".join("".join(reader.texts).split())
    for of in EmotionAnalysis.from_json(format_analysis(analysis, "json")).utterances:
        assert " ".join(of.text.split()) in shown


def test_the_suffix_is_that_of_pages(tmp_path, no_matplotlib):
    assert write_analysis(usual(), tmp_path / "report.html").read_bytes().startswith(b"<!doctype html>\n")
