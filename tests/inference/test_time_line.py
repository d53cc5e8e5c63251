"""The time line: what stands in it, that nothing collides, colours that everybody tells apart, and its files."""

import itertools
import re
import sys
import warnings
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip("matplotlib")

import matplotlib
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from PIL import Image

from microemo.inference.figure_parts import FAMILY_COLORS, NO_FAMILY, clock, emotion_family, find_fonts, ink_on
from microemo.inference.time_line import draw_time_line
from microemo.processing.media import MediaError
from microemo.tests.inference.figure_checks import analysis, collisions, texts, utterance

# Machado, Oliveira and Fernandes (2009): what people without one kind of cone see, in linear RGB.
MISSING_CONES = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
SENTENCE = "That is the best news that I have heard for a very long time, really!"


@pytest.fixture(scope="module")
def talk(make_clip):
    return make_clip("talk.mp4")


def blocks(figure) -> list[str]:
    """The colours of the wide boxes of a figure, from the top to the bottom."""
    return [
        to_hex(box.get_facecolor()).upper()
        for box in figure.findobj(Rectangle)
        if box.get_edgecolor()[:3] == (1, 1, 1)
    ]


def linear(color: str) -> np.ndarray:
    levels = np.array([int(color[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = to_xyz @ rgb.clip(0, 1) / [0.9505, 1, 1.089]
    roots = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * roots[1] - 16, 500 * (roots[0] - roots[1]), 200 * (roots[1] - roots[2])])


@pytest.mark.parametrize("kind", ["all cones", *MISSING_CONES])
def test_colours_of_families_are_told_apart(kind):
    seen_as = np.array(MISSING_CONES.get(kind, np.eye(3)))
    seen = {family: lab(seen_as @ linear(color)) for family, color in FAMILY_COLORS.items()}
    distances = {pair: np.linalg.norm(seen[pair[0]] - seen[pair[1]]) for pair in itertools.combinations(seen, 2)}
    assert min(distances.values()) > 15, min(distances, key=distances.get)


@pytest.mark.parametrize("color", FAMILY_COLORS.values())
def test_text_on_a_colour_is_read(color):
    light = sorted([linear(color) @ [0.2126, 0.7152, 0.0722], linear(ink_on(color)) @ [0.2126, 0.7152, 0.0722]])
    assert (light[1] + 0.05) / (light[0] + 0.05) > 4.5


def test_related_emotions_have_one_family():
    assert {emotion_family(word) for word in ("happy", "Joyful", " delighted ")} == {"joy"}
    assert {emotion_family(word) for word in ("angry", "furious", "irritated")} == {"anger"}
    assert {emotion_family(word) for word in ("neutral", "", "quxly")} == {NO_FAMILY}


def test_one_utterance(talk, tmp_path):
    said = utterance(1, 0.1, 0.9, "happy", "surprised", text="Oh, hello.", speaker="Ann")
    figure = draw_time_line(analysis(talk, said, description="She is glad."), path=tmp_path / "new" / "one.png")
    shown = texts(figure)
    for text in ("What MicroEmo finds in talk.mp4", "She is glad.", "happy, surprised", "“Oh, hello.”", "Ann"):
        assert text in shown
    for text in ("sound", "smile", "mouth open", "the picture", "the words", "strongest clue in the face", "mouth"):
        assert text in shown
    assert {FAMILY_COLORS["joy"], FAMILY_COLORS["surprise"]} <= set(blocks(figure))
    assert not collisions(figure)
    with Image.open(tmp_path / "new" / "one.png") as picture:
        assert picture.width == 2100 and picture.text["Title"] == "What MicroEmo finds in talk.mp4"
        assert "Oh, hello." in picture.text["Description"]
        colors = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    for family in ("joy", "surprise"):
        assert (colors == [int(FAMILY_COLORS[family][at : at + 2], 16) for at in (1, 3, 5)]).all(1).sum() > 1000


@pytest.mark.parametrize("count, minutes", [(12, 1), (40, 10), pytest.param(300, 90, marks=pytest.mark.slow)])
def test_many_utterances_are_numbered_and_listed(count, minutes):
    """Some are so short that nothing stands in their blocks."""
    generator = np.random.default_rng(0)
    edges = np.sort(generator.uniform(0, 60 * minutes, 2 * count))
    words = ("disappointed", "happy", "afraid", "neutral", "angry")
    said = [
        utterance(
            number + 1, *edges[2 * number : 2 * number + 2], words[number % 5], text=SENTENCE, speaker="AB"[number % 2]
        )
        for number in range(count)
    ]
    figure = draw_time_line(analysis("/nowhere/talk.mp4", *said, duration=60.0 * minutes))
    shown = texts(figure)
    assert not collisions(figure)
    assert len([text for text in shown if text.startswith(("A: “That is", "B: “That is"))]) == min(count, 240)
    assert "disappointed 60%" in shown and ("... and 60 more utterances" in shown) == (count == 300)
    assert any(re.fullmatch(r"\d+:\d\d" if minutes < 60 else r"1:\d\d:00", text) for text in shown)
    assert "⚠ the clip is not there any more: frames, sound and facial actions are left out" in shown


def test_many_speakers_share_one_lane(talk):
    said = [utterance(n + 1, n / 6, (n + 0.9) / 6, "happy", text="Yes.", speaker=f"Person {n}") for n in range(6)]
    shown = texts(draw_time_line(analysis("gone.mp4", *said)))
    assert "utterances" in shown and "Person 3: “Yes.”" in shown


def test_a_clip_without_sound_or_without_a_face(make_clip):
    grey = make_clip("grey.mp4", sound=None, picture=np.full((240, 320, 3), 128, np.uint8))
    said = utterance(1, 0.1, 0.9, "sad", evidence=False)
    figure = draw_time_line(analysis(grey, said, has_audio=False, warnings=["No face is found."]))
    shown = texts(figure)
    assert "no face was found in the frames" in shown and "⚠ No face is found." in shown
    assert "sound" not in shown and "smile" not in shown and "the picture" not in shown
    assert not collisions(figure)


def test_sound_only(make_clip):
    tone = make_clip("tone.m4a", [])
    figure = draw_time_line(analysis(tone, utterance(1, 0, 1, "sad"), has_video=False, size=None, fps=None))
    shown = texts(figure)
    assert "sound" in shown and "frames" not in shown and "smile" not in shown
    assert not figure.findobj(AxesImage)


def test_observations_only(talk):
    said = utterance(1, 0, 1, evidence=False, observation="The corners of the mouth rise.", text="Hm.")
    figure = draw_time_line(analysis(talk, said, observations_only=True))
    shown = texts(figure)
    assert "What is seen in talk.mp4" in shown and "The corners of the mouth rise." in shown
    assert not [text for text in shown if text.startswith(("Emotions", "Per cent"))]
    assert set(FAMILY_COLORS.values()) & set(blocks(figure)) == {FAMILY_COLORS[NO_FAMILY]}


def test_no_utterance_and_an_analysis_that_runs(talk):
    assert "no utterance was found" in texts(draw_time_line(analysis("gone.mp4")))
    running = analysis("gone.mp4", utterance(1, 0, 0.2, "sad"), utterances_found=5)
    assert "⚠ 1 of 5 utterances are analysed so far" in texts(draw_time_line(running))
    assert texts(draw_time_line(analysis("gone.mp4", utterance(1, 0, 0, "sad"), duration=None)))


def test_frames_are_upright_and_spread_over_the_clip(make_clip):
    def strip(clip) -> list[np.ndarray]:
        figure = draw_time_line(analysis(clip, utterance(1, 0, 1, "sad")))
        pictures = figure.findobj(AxesImage)
        centers = [np.mean(picture.get_extent()[:2]) for picture in pictures]
        assert np.diff(centers) == pytest.approx(1 / len(pictures)) and 0 < centers[0] < centers[-1] < 1
        return [np.asarray(picture.get_array(), float) for picture in pictures]

    upright, turned = strip(make_clip("upright.mp4")), strip(make_clip("turned.mp4", turned=True))
    assert len(upright) == len(turned) == 8
    for first, second in zip(upright, turned, strict=True):
        assert first.shape == second.shape and np.abs(first - second).mean() < 10


def test_a_smile_that_lasts_is_shown_as_a_smile(shared):
    """The median of the clip is a smile: the line must stand above its own beginning all the same."""
    clip = shared / "data" / "clips" / "free" / "pf_single_face.mp4"
    figure = draw_time_line(analysis(clip, utterance(1, 0, 2.3, "happy"), duration=2.4, size=[640, 360]))
    (axes,) = [axes for axes in figure.axes if "smile" in [text.get_text() for text in axes.texts]]
    line = next(line for line in axes.lines if len(line.get_xdata()) > 5)
    height = dict(zip(np.round(line.get_xdata(), 1), -np.asarray(line.get_ydata()), strict=True))
    assert height[1.5] - height[0.2] > 0.2, "inches, of a lane of 0.3"


UNUSUAL = [
    'Costs $$ $5 and $6_{x}^2 <b>&amp; "q"\\alpha',
    "x" * 3000,
    "שלום, מה שלומך?",
    "مرحبا بالعالم",
    "a\x00\x08b\ud800c\nd",
    "😀",
]


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_unusual_texts_are_drawn_as_they_are(tmp_path, suffix):
    said = [
        utterance(n + 1, n, n + 0.9, f"emo{text}"[:40], text=text, speaker=text[:40]) for n, text in enumerate(UNUSUAL)
    ]
    path = tmp_path / f"Zoë's $1, & <2>{suffix}"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = draw_time_line(analysis("gone $x$.mp4", *said, duration=6.0, warnings=UNUSUAL), path=path)
    assert not collisions(figure) and path.stat().st_size
    assert "⚠ a bc d" in [re.sub(" +", " ", text) for text in texts(figure)] or "⚠ a b c d" in texts(figure)
    assert any("$6_{x}^2 <b>&amp;" in text for text in texts(figure))
    if suffix == ".svg":
        root = ElementTree.parse(path).getroot()
        written = ["".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")]
        assert any("Costs $$ $5 and $6_{x}^2 <b>&amp;" in text for text in written), "text, not outlines"
        assert root.get("role") == "img" and [child.tag.split("}")[1] for child in root][:2] == ["title", "desc"]
        assert root[0].text == "What MicroEmo finds in gone $x$.mp4" and UNUSUAL[2] in root[1].text


def test_characters_without_a_font_give_one_warning(tmp_path):
    missing = "\U000f0000"  # for private use
    result = analysis("gone.mp4", utterance(1, 0, 1, "happy", text=f"{missing} and 快乐"))
    fonts, without = find_fonts(frozenset(f"{missing}快乐"))
    assert fonts[0] == "DejaVu Sans"
    if not without:
        pytest.skip("a font has every character")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        draw_time_line(result, path=tmp_path / "a.svg")
        assert not caught, "the viewer of an .svg file has fonts of its own"
        draw_time_line(result, path=tmp_path / "a.png")
    assert [str(warning.message) for warning in caught if "no installed font has" in str(warning.message)]
    assert len(caught) == 1


def test_other_files_are_refused_and_nothing_is_half_written(talk, tmp_path, monkeypatch):
    result = analysis(talk, utterance(1, 0, 1, "happy"))
    for name in ("a.pdf", "a"):
        with pytest.raises(ValueError, match=rf"{name}: a picture is written as \.png or \.svg"):
            draw_time_line(result, path=tmp_path / name)
    with pytest.raises(MediaError, match="other.mp4"):
        draw_time_line(result, clip=tmp_path / "other.mp4", path=tmp_path / "a.png")
    (tmp_path / "old.png").write_text("old")
    with monkeypatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda self, path, **_: (path.write_text("half"), 1 / 0))
        with pytest.raises(ZeroDivisionError):
            draw_time_line(analysis("gone.mp4"), path=tmp_path / "old.png")
    assert [path.name for path in tmp_path.iterdir()] == ["old.png"] and (tmp_path / "old.png").read_text() == "old"
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="matplotlib"):
        draw_time_line(result, path=tmp_path / "a.png")


def test_the_clip_may_have_moved(talk):
    shown = texts(draw_time_line(analysis("/old/place/talk.mp4", utterance(1, 0, 1, "happy")), clip=talk))
    assert "frames" in shown and not [text for text in shown if "not there any more" in text]


def test_decoded_frames(talk):
    frames = np.full((5, 90, 120, 3), 128, np.uint8)
    shown = texts(draw_time_line(analysis("frames", utterance(1, 0, 0.2, "happy"), duration=0.21), clip=frames))
    assert "frames" in shown and "sound" not in shown


def test_threads_write_text_and_leave_the_settings_of_matplotlib(tmp_path):
    result = analysis("gone.mp4", utterance(1, 0, 1, "happy"))
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda number: draw_time_line(result, path=tmp_path / f"{number}.svg"), range(4)))
    assert all(">happy</text>" in path.read_text() for path in tmp_path.iterdir())
    assert matplotlib.rcParams["svg.fonttype"] == "path"


def test_no_figure_is_left_behind_in_pyplot():
    from matplotlib._pylab_helpers import Gcf

    draw_time_line(analysis("gone.mp4", utterance(1, 0, 1, "happy")))
    assert not Gcf.figs


def test_collisions_are_found():
    figure = draw_time_line(analysis("gone.mp4", utterance(1, 0, 1, "happy")))
    assert not collisions(figure)
    figure.text(0.03, 0.9, "a text that lies on others and leaves the figure " * 9)
    assert len(collisions(figure)) > 1


def test_times_are_written_by_the_length_of_the_clip():
    assert [clock(5.25, 9), clock(5, 9), clock(65, 600), clock(3725, 4000)] == ["5.2 s", "5 s", "1:05", "1:02:05"]
