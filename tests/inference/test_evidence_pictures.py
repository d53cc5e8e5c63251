"""The picture of the evidence: the shaded face, the bars, the checked claims, and what it says where something is missing."""

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from matplotlib.image import AxesImage
from matplotlib.patches import Polygon, Rectangle
from PIL import Image

from microemo.inference.emotion_analysis import Claim, Evidence, FrameFacts
from microemo.inference.evidence import PARTS
from microemo.inference.evidence_pictures import describe_evidence, draw_evidence
from microemo.processing.faces.face_regions import REGIONS
from microemo.tests.inference.figure_checks import analysis, collisions, texts, utterance

CLAIMS = [
    Claim("The corners of the mouth rise", "mouth", True, 0.4),
    Claim("the voice is bright " * 20, "sound", False, -0.1),
]


@pytest.fixture(scope="module")
def talk(make_clip):
    return make_clip("talk.mp4")


def shades(figure) -> list[Polygon]:
    return [shape for shape in figure.findobj(Polygon) if shape.get_fill() and type(shape) is Polygon]


def test_the_face_is_shaded_by_the_evidence(talk, tmp_path):
    said = utterance(1, 0.1, 0.9, "happy", text="Oh, hello.", speaker="Ann", description="She smiles.", claims=CLAIMS)
    said.evidence = [part for part in said.evidence if part.kind != "region"]
    parts = {name: regions for name, regions in PARTS.items() if name != "face"}
    said.evidence += [Evidence("region", name, 0.1 if name != "mouth" else 0.5) for name in parts]
    said.evidence[3].weight = -0.2
    result = analysis(talk, said, frames=[FrameFacts(0.2, 1), FrameFacts(0.6, 1)])
    figure = draw_evidence(result, 1, path=tmp_path / "new" / "one.png")
    of_region = dict(zip([region for regions in parts.values() for region in regions], shades(figure), strict=True))
    assert of_region.keys() == REGIONS.keys()
    assert max(of_region, key=lambda name: of_region[name].get_alpha()) == "mouth"
    mouth, forehead, chin = (of_region[name].get_xy()[:, 1].mean() for name in ("mouth", "forehead", "chin"))
    assert forehead < mouth < chin, "pixels, downwards"
    shown = texts(figure)
    for text in (
        "Utterance 1 of talk.mp4: happy",
        "0.1 s to 0.9 s · Ann: “Oh, hello.”",
        "The model's answer: She smiles.",
    ):
        assert text in shown
    assert {
        "the picture",
        "the sound",
        "the words",
        "1 mouth",
        "+0.50",
        "utterance 1 (this one)",
        "utterance 2",
    } <= set(shown)
    assert "“The corners of the mouth rise” (mouth, +0.40)" in shown
    assert shown.index("✓ supported") < shown.index("✗ not supported")
    assert "-0.10 surer without it" in shown
    assert not collisions(figure)
    with Image.open(tmp_path / "new" / "one.png") as picture:
        assert picture.text["Description"] == describe_evidence(result, 1)


def test_the_frame_is_the_one_with_the_face_next_to_the_middle(make_clip):
    """The person is in the picture in the second half of the utterance only."""
    from microemo.training.synthetic.media_writer import astronaut, move_photograph

    there = list(move_photograph(astronaut(), np.arange(10) / 25, (320, 240), 110, np.random.default_rng(0)))
    frames = np.stack([np.full((240, 320, 3), 128, np.uint8)] * 15 + there)
    said = utterance(1, 0, 1, "happy")
    figure = draw_evidence(analysis("frames", said), 1, clip=frames)
    assert len(shades(figure)) == 4 and any("the frame at 0.7 s; the more" in text for text in texts(figure))


def test_a_small_face_is_shown_larger(make_clip):
    clip = make_clip("small.mp4", size=(960, 720), face_width=90)
    figure = draw_evidence(analysis(clip, utterance(1, 0, 1, "happy")), 1)
    (picture,) = figure.findobj(AxesImage)
    left, right = picture.axes.get_xlim()
    assert right - left < 400 and picture.get_array().shape[1] == 960
    mouth = max(shades(figure), key=lambda shape: shape.get_alpha()).get_xy()
    assert left < mouth[:, 0].min() and mouth[:, 0].max() < right


def test_parts_of_the_face_have_several_regions(talk):
    said = utterance(1, 0, 1, "happy", evidence=False)
    said.evidence = [Evidence("region", "brows", 0.3), Evidence("region", "mouth", -0.002)]
    figure = draw_evidence(analysis(talk, said), 1)
    assert [round(shape.get_alpha(), 2) for shape in shades(figure)] == [0.7] * 4 + [0.08] * 2
    assert texts(figure).count("1") == 2 and "1 brows" in texts(figure) and "0.00" in texts(figure)


def test_the_whole_face_as_one_region(talk):
    said = utterance(1, 0, 1, "happy", evidence=False)
    said.evidence = [Evidence("region", "face", 0.3)]
    assert len(shades(draw_evidence(analysis(talk, said), 1))) == 1


def test_what_is_missing_is_said(make_clip):
    grey = make_clip("grey.mp4", picture=np.full((240, 320, 3), 128, np.uint8))
    figure = draw_evidence(analysis(grey, utterance(1, 0, 1, "sad")), 1)
    assert "the frame at 0.5 s: no face was found in this utterance" in texts(figure) and not shades(figure)
    assert "mouth" in " ".join(texts(figure)), "the bars are there"

    figure = draw_evidence(analysis(grey, utterance(1, 0, 1, "sad", evidence=False)), 1)
    assert "No evidence was computed: analyze(..., evidence=True)" in texts(figure)
    assert not [
        box for box in figure.findobj(Rectangle) if box.get_width() > 0.1 and box.axes and box in box.axes.patches
    ]

    figure = draw_evidence(analysis("gone.mp4", utterance(1, 0, 1, "sad")), 1)
    assert "the clip is not there any more" in texts(figure) and not collisions(figure)

    tone = make_clip("tone.m4a", [])
    figure = draw_evidence(analysis(tone, utterance(1, 0, 1, "sad", text="$_{a}"), has_video=False), 1)
    assert "the clip has no pictures" in texts(figure)
    assert "no words are known" in " ".join(
        texts(draw_evidence(analysis(tone, utterance(1, 0, 1), has_video=False), 1))
    )


def test_an_utterance_that_there_is_not(talk, tmp_path):
    with pytest.raises(ValueError, match=r"utterance 3: the analysis of a\.mp4 has the utterances 1 to 2"):
        draw_evidence(analysis("a.mp4", utterance(1, 0, 1, "sad"), utterance(2, 1, 2, "sad")), 3)
    with pytest.raises(ValueError, match="utterance 1: .* has no utterances"):
        draw_evidence(analysis("a.mp4"), 1)
    with pytest.raises(ValueError, match=r"a\.jpg: a picture is written as"):
        draw_evidence(analysis(talk, utterance(1, 0, 1, "sad")), 1, path=tmp_path / "a.jpg")
    assert not list(tmp_path.iterdir())


def test_the_description_names_everything(talk):
    said = utterance(2, 0, 1, "sad", text="No.", description="She frowns.", claims=CLAIMS[:1])
    described = describe_evidence(analysis(talk, said), 2)
    assert described.startswith(
        'Utterance 2 of talk.mp4: sad. Words: "No.". She frowns. the picture: +0.60. mouth: +0.50.'
    )
    assert described.endswith("Supported: The corners of the mouth rise.") and "left brow: +0.10." in described
