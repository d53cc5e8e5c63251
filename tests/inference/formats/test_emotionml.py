"""EmotionML, read back with an XML reader and checked against the rules of the W3C's recommendation.

The rules are those of its sections 2 and 3 and of its schema, as far as what is written here goes.
"""

import re
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest
from hypothesis import given, settings

from microemo.inference.formats.analysis_files import format_analysis, write_analysis
from microemo.tests.inference.formats.analyses import ANALYSES, any_analysis, empty, observations, odd, usual

LANGUAGE, OWN = "{http://www.w3.org/2009/10/emotionml}", "{urn:microemo:emotion-analysis}"
# The elements of the language that are written, the attributes that each has to have and may have, and its children in order.
RULES: dict[str, tuple[set[str], set[str], str]] = {
    "emotionml": ({"version"}, {"category-set"}, r"(info )?((vocabulary|emotion) )*"),
    "info": (set(), {"id"}, r""),
    "vocabulary": ({"type", "id"}, set(), r"(info )?(item )+"),
    "item": ({"name"}, set(), r"(info )?"),
    "emotion": (set(), {"id", "time-ref-uri", "offset-to-start", "duration"}, r"(info )?(category )+(reference )*"),
    "category": ({"name"}, {"confidence"}, r""),
    "reference": ({"uri"}, {"role", "media-type"}, r""),
}
NMTOKEN = re.compile(r"(?:[\w.\-\u00b7\u200c\u200d\u203f\u2040\ufffd]|[^\x00-\u02ff])+")


def check(text: str) -> Element:
    """Checks a document and returns its root."""
    root = ElementTree.fromstring(text.encode("utf-8"))
    assert root.tag == f"{LANGUAGE}emotionml" and root.get("version") == "1.0"
    ids = [one.get("id") for one in root.iter() if one.tag.startswith(LANGUAGE) and one.get("id")]
    assert len(set(ids)) == len(ids) and all(re.fullmatch(r"[A-Za-z_][\w.-]*", one) for one in ids)
    for one in root.iter():
        if one.tag.startswith(OWN):
            continue  # in an `info`
        name = one.tag.removeprefix(LANGUAGE)
        required, allowed, children = RULES[name]
        assert required <= set(one.attrib) <= required | allowed, one.attrib
        own = [child for child in one if child.tag.startswith(OWN)]
        assert name == "info" or not own
        inner = "".join(f"{child.tag.removeprefix(LANGUAGE)} " for child in one if child not in own)
        assert re.fullmatch(children, inner), f"{name}: {inner}"
    sets = {f"#{one.get('id')}": one for one in root.findall(f"{LANGUAGE}vocabulary")}
    for vocabulary in sets.values():
        names = [item.get("name") for item in vocabulary.findall(f"{LANGUAGE}item")]
        assert len(set(names)) == len(names) and all(map(NMTOKEN.fullmatch, names))
        assert vocabulary.get("type") == "category"
    for emotion in root.findall(f"{LANGUAGE}emotion"):
        known = {item.get("name") for item in sets[root.get("category-set")].findall(f"{LANGUAGE}item")}
        found = [category.get("name") for category in emotion.findall(f"{LANGUAGE}category")]
        assert set(found) <= known and len(set(found)) == len(found)
        assert all(0 <= float(one.get("confidence")) <= 1 for one in emotion.findall(f"{LANGUAGE}category"))
        assert int(emotion.get("duration", 0)) >= 0 and int(emotion.get("offset-to-start", 0)) >= 0
        for reference in emotion.findall(f"{LANGUAGE}reference"):
            assert reference.get("role") in ("expressedBy", "experiencedBy", "triggeredBy", "targetedAt")
            assert re.fullmatch(r"[\w.~:/?@!$&'()*+,;=%#-]*", reference.get("uri"), re.ASCII)
    return root


@pytest.mark.parametrize("which", ANALYSES)
def test_documents_follow_the_recommendation(which):
    check(format_analysis(ANALYSES[which](), "emotionml"))


def test_an_utterance_has_its_words_its_emotions_and_its_stretch_of_the_clip(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = check(write_analysis(usual(), "out/clip.emotionml").read_text(encoding="utf-8"))
    whole, first, *_ = root.findall(f"{LANGUAGE}emotion")
    assert first.attrib == {
        "id": "utterance-1",
        "time-ref-uri": "../clips/two%20people.mp4",
        "offset-to-start": "500",
        "duration": "1500",
    }
    categories = [(one.get("name"), one.get("confidence")) for one in first.findall(f"{LANGUAGE}category")]
    assert categories == [("joy", "0.7"), ("mixed-feelings", "0.2")]
    assert first.find(f"{LANGUAGE}reference").attrib == {
        "uri": "../clips/two%20people.mp4#t=0.5,2.0",
        "role": "expressedBy",
        "media-type": "video/mp4",
    }
    utterance = first.find(f"{LANGUAGE}info/{OWN}utterance")
    assert utterance.attrib == {
        "number": "1",
        "start": "0.5",
        "end": "2.0",
        "speaker": "Ann",
        "emotions": "joy; mixed feelings",
    }
    assert {one.tag.removeprefix(OWN): one.text for one in utterance} == {
        "text": "I am glad, really.",
        "observation": "The corners of the mouth are raised.",
        "description": "She smiles.",
    }
    assert whole.get("id") == "clip" and whole.find(f"{LANGUAGE}reference").get("uri") == "../clips/two%20people.mp4"


def test_words_with_blanks_have_a_name_and_stay_readable():
    root = check(format_analysis(odd(), "emotionml"))
    items = {one.get("name"): one.findtext(f"{LANGUAGE}info") for one in root.iter(f"{LANGUAGE}item")}
    assert items == {"mixed-feelings": "mixed feelings", "mixed-feelings-2": "mixed-feelings", "-": "🙂"}


def test_the_path_is_a_uri_that_leads_to_the_clip():
    root = check(format_analysis(odd(), "emotionml"))
    uri = root.find(f"{LANGUAGE}emotion").get("time-ref-uri")
    assert "#" not in uri and "?" not in uri and Path(unquote(uri)) == Path(odd().clip)


def test_utterances_without_emotions_stand_in_the_info():
    root = check(format_analysis(observations(), "emotionml"))
    assert not root.findall(f"{LANGUAGE}emotion") and root.get("category-set") is None
    utterances = root.findall(f"{LANGUAGE}info/{OWN}utterance")
    assert [one.findtext(f"{OWN}observation") for one in utterances] == ["The brows are raised."] * 2
    assert "emotions" not in utterances[0].attrib
    assert len(check(format_analysis(empty(), "emotionml")).find(f"{LANGUAGE}info")) == 1


@settings(max_examples=60, deadline=None)
@given(any_analysis())
def test_any_analysis_follows_the_recommendation(analysis):
    root = check(format_analysis(analysis, "emotionml"))
    assert len(list(root.iter(f"{OWN}utterance"))) == len(analysis.utterances)
