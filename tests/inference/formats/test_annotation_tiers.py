"""Tiers, read back by Praat itself, by the schema of ELAN, by an XML reader, and by pympi."""

from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings

from microemo.inference.emotion_analysis import EmotionAnalysis
from microemo.inference.formats.analysis_files import format_analysis, write_analysis
from microemo.inference.formats.clip_place import milliseconds
from microemo.tests.inference.formats.analyses import ANALYSES, any_analysis, empty, observations, odd, usual

parselmouth = pytest.importorskip("parselmouth", reason="Praat reads the TextGrids")
pympi = pytest.importorskip("pympi", reason="pympi-ling writes both formats")
xmlschema = pytest.importorskip("xmlschema")

EAF = Path(__file__).parents[1] / "schemas" / "EAFv3.0.xsd"
Annotation = tuple[int, int, str]


def readable(analysis: EmotionAnalysis) -> EmotionAnalysis:
    return EmotionAnalysis.from_json(format_analysis(analysis, "json"))


def praat_tiers(path: Path) -> tuple[int, dict[str, list[Annotation]]]:
    """The length in milliseconds and all intervals of each tier, as Praat reads them."""
    call, grid = parselmouth.praat.call, parselmouth.Data.read(str(path))
    tiers = {}
    for tier in range(1, call(grid, "Get number of tiers") + 1):
        assert call(grid, "Is interval tier", tier)
        tiers[call(grid, "Get tier name", tier)] = [
            (
                round(1000 * call(grid, "Get start time of interval", tier, number)),
                round(1000 * call(grid, "Get end time of interval", tier, number)),
                call(grid, "Get label of interval", tier, number),
            )
            for number in range(1, call(grid, "Get number of intervals", tier) + 1)
        ]
    assert grid.xmin == 0
    return round(1000 * grid.xmax), tiers


def elan_tiers(text: str) -> dict[str, list[Annotation]]:
    """The annotations of each tier. One that refers to another has its times."""
    root = ElementTree.fromstring(text)
    slots = {slot.get("TIME_SLOT_ID"): int(slot.get("TIME_VALUE")) for slot in root.iter("TIME_SLOT")}
    assert list(slots.values()) == sorted(slots.values())
    times, tiers = {}, {}
    for tier in root.iter("TIER"):
        found = tiers[tier.get("TIER_ID")] = []
        for one in tier.findall("ANNOTATION/*"):
            if one.tag == "ALIGNABLE_ANNOTATION":
                when = slots[one.get("TIME_SLOT_REF1")], slots[one.get("TIME_SLOT_REF2")]
            else:
                when = times[tier.get("PARENT_REF")][one.get("ANNOTATION_REF")]
            times.setdefault(tier.get("TIER_ID"), {})[one.get("ANNOTATION_ID")] = when
            found.append((*when, one.findtext("ANNOTATION_VALUE")))
    return tiers


USUAL = {
    "utterance@Ann": [(500, 2000, "I am glad, really."), (5000, 6000, "Oh.")],
    "emotion@Ann": [(500, 2000, "joy; mixed feelings"), (5000, 6000, "joy")],
    "score@Ann": [(500, 2000, "joy 0.70; mixed feelings 0.20"), (5000, 6000, "joy 0.40")],
    "observation@Ann": [(500, 2000, "The corners of the mouth are raised.")],
    "description@Ann": [(500, 2000, "She smiles.")],
    "utterance@Bob": [(2000, 4250, "I am not.")],
    "emotion@Bob": [(2000, 4250, "sadness")],
    "score@Bob": [(2000, 4250, "sadness 0.90")],
    "observation@Bob": [],
    "description@Bob": [],
}


def test_praat_reads_tiers_of_each_speaker_that_cover_the_clip(tmp_path):
    end, tiers = praat_tiers(write_analysis(usual(), tmp_path / "clip.TextGrid"))
    assert end == 8000
    assert {name: [one for one in tier if one[2]] for name, tier in tiers.items()} == USUAL
    assert [start for start, _, _ in tiers["utterance@Ann"]] == [0, 500, 2000, 5000, 6000]


def test_elan_reads_utterances_and_what_belongs_to_them(tmp_path):
    path = write_analysis(usual(), tmp_path / "clip.eaf")
    assert elan_tiers(path.read_text(encoding="utf-8")) == USUAL
    eaf = pympi.Eaf(path)
    assert list(eaf.get_tier_names()) == list(USUAL)
    assert eaf.get_annotation_data_for_tier("utterance@Ann") == USUAL["utterance@Ann"]
    assert [one[:3] for one in eaf.get_ref_annotation_data_for_tier("emotion@Ann")] == USUAL["emotion@Ann"]
    assert eaf.get_parameters_for_tier("score@Bob") == {
        "TIER_ID": "score@Bob",
        "PARENT_REF": "utterance@Bob",
        "LINGUISTIC_TYPE_REF": "score",
        "PARTICIPANT": "Bob",
        "ANNOTATOR": "checkpoints/microemo-tiny",
    }
    assert eaf.get_parameters_for_linguistic_type("score")["CONSTRAINTS"] == "Symbolic_Association"


def test_elan_finds_the_clip_from_the_root_and_from_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_analysis(usual(), "annotations/clip.eaf")
    (media,) = ElementTree.parse(path).iter("MEDIA_DESCRIPTOR")
    assert media.attrib == {
        "MEDIA_URL": f"file://{tmp_path}/clips/two people.mp4",
        "RELATIVE_MEDIA_URL": "../clips/two people.mp4",
        "MIME_TYPE": "video/mp4",
    }


def test_a_clip_from_the_web_has_no_path():
    analysis = usual()
    analysis.clip = "https://host/clip.mp4"
    (media,) = ElementTree.fromstring(format_analysis(analysis, "eaf")).iter("MEDIA_DESCRIPTOR")
    assert media.attrib == {"MEDIA_URL": "https://host/clip.mp4", "MIME_TYPE": "video/mp4"}


def test_elan_goes_on_counting_behind_the_last_annotation():
    root = ElementTree.fromstring(format_analysis(usual(), "eaf"))
    (last,) = (one.text for one in root.iter("PROPERTY") if one.get("NAME") == "lastUsedAnnotationId")
    assert int(last) == max(int(one.get("ANNOTATION_ID")[1:]) for one in root.findall(".//ANNOTATION/*"))


def test_the_time_of_writing_is_one(monkeypatch):
    """pympi writes `+05:1800` in India, where ELAN expects minutes."""
    monkeypatch.setattr("time.timezone", -19800)
    monkeypatch.setattr("time.daylight", 0)
    xmlschema.XMLSchema(EAF).validate(format_analysis(usual(), "eaf"))


@pytest.mark.parametrize("which", ANALYSES)
def test_elan_files_follow_its_schema(which):
    xmlschema.XMLSchema(EAF).validate(format_analysis(ANALYSES[which](), "eaf"))


def test_what_overlaps_stands_on_a_further_tier_of_the_speaker(tmp_path):
    _, tiers = praat_tiers(write_analysis(odd(), tmp_path / "clip.TextGrid"))
    elan = elan_tiers(format_analysis(odd(), "eaf"))
    assert list(tiers) == list(elan)
    assert [name for name in tiers if name.startswith("utterance")] == [
        'utterance@Bob: "the" <one>',
        "utterance@Ann",
        "utterance@Ann (2)",
        "utterance",
        "utterance@A --> B C",
        "utterance@NA",
    ]
    texts = [of.text for of in readable(odd()).utterances]
    assert elan['utterance@Bob: "the" <one>'] == [(200, 2000, texts[0])]
    assert elan["utterance@Ann (2)"] == [(1000, 1500, texts[2])]
    assert elan["utterance"] == [(3000, 3001, texts[3]), (99000, 7200001 - 1, "")]
    assert elan["emotion"] == [(3000, 3001, "mixed feelings"), (99000, 7200000, "mixed feelings")]


def test_observations_have_no_tiers_of_emotions(tmp_path):
    _, tiers = praat_tiers(write_analysis(observations(), tmp_path / "clip.TextGrid"))
    assert list(tiers) == list(elan_tiers(format_analysis(observations(), "eaf"))) == ["utterance", "observation"]


def test_without_utterances_there_is_an_empty_tier(tmp_path):
    assert praat_tiers(write_analysis(empty(), tmp_path / "clip.TextGrid")) == (1, {"utterance": [(0, 1, "")]})
    assert elan_tiers(format_analysis(empty(), "eaf")) == {"utterance": []}


@settings(max_examples=60, deadline=None)
@given(any_analysis())
def test_any_analysis_gives_intervals_that_cover_it_without_overlap(tmp_path_factory, analysis):
    path = write_analysis(analysis, tmp_path_factory.mktemp("any") / "clip.TextGrid")
    end, tiers = praat_tiers(path)
    analysis = readable(analysis)
    assert end >= max([1000 * (analysis.duration or 0) - 1, *(milliseconds(of)[1] for of in analysis.utterances)])
    for tier in tiers.values():
        assert tier[0][0] == 0 and tier[-1][1] == end
        assert all(one[1] == other[0] for one, other in pairwise(tier)) and all(
            start < stop for start, stop, _ in tier
        )
    found = [one for name, tier in tiers.items() if name.startswith("utterance") for one in tier]
    assert all((*milliseconds(of), of.text) in found for of in analysis.utterances)


@settings(max_examples=30, deadline=None)
@given(any_analysis())
def test_elan_has_each_utterance_of_any_analysis_once(analysis):
    tiers = elan_tiers(format_analysis(analysis, "eaf"))
    analysis = readable(analysis)
    for kind, text in (("utterance", lambda of: of.text), ("observation", lambda of: of.observation)):
        found = [one for name, tier in tiers.items() if name.partition("@")[0].split(" ")[0] == kind for one in tier]
        expected = [(*milliseconds(of), text(of)) for of in analysis.utterances if kind == "utterance" or text(of)]
        assert sorted((start, end, value or "") for start, end, value in found) == sorted(expected)
    for tier in tiers.values():
        assert all(one[1] <= other[0] for one, other in pairwise(tier))
