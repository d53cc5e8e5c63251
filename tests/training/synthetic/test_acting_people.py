"""Frames of people who act hold what their truth says, and are cut as the video processor cuts them."""

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("skimage", reason="the photograph comes with scikit-image")
pytest.importorskip("cv2", reason="faces act with OpenCV")

from microemo.processing.faces.face_mesh import FaceMesh
from microemo.processing.video_processing_microemo import MicroEmoVideoProcessor
from microemo.training.synthetic import acting_people
from microemo.training.synthetic.acting_people import (
    ARRAYS,
    SIDE,
    Views,
    draw_moment,
    make_frames,
    read_frames,
    render_moment,
)
from microemo.training.synthetic.face_acting import ACTIONS, TO_REST, FaceActor
from microemo.training.synthetic.media_writer import astronaut
from microemo.training.synthetic.photographs import Person

OF_PERSON = 4


@pytest.fixture(scope="module")
def files(people_folder, tmp_path_factory):
    """A file of each person of the split train."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(acting_people, "_OF_PERSON", OF_PERSON)
        return make_frames(tmp_path_factory.mktemp("frames"), people_folder, "train", 2 * OF_PERSON, progress=False)


def test_moments_hold_one_mouth_and_one_brow():
    rng = np.random.default_rng(0)
    moments = [draw_moment(rng, can_smile=number % 2 == 0) for number in range(400)]
    amplitudes, real = np.array([of_actions for of_actions, _ in moments]), np.array([smile for _, smile in moments])
    acted = dict(zip(ACTIONS, (amplitudes > 0).T, strict=True))
    assert (acted["smile"].astype(int) + acted["frown"] + acted["lip_press"] + (real > 0)).max() == 1
    assert (acted["brow_raise"].astype(int) + acted["brow_furrow"]).max() == 1
    assert not (acted["blink"] & acted["eye_widening"]).any()
    assert real[::2].any() and not real[1::2].any()
    assert all(0.02 < of_action.mean() < 0.6 for of_action in acted.values())
    assert amplitudes[amplitudes > 0].min() > 0 and amplitudes.max() < 1.06 and real.max() <= 1


def test_files_hold_frames_of_people_of_the_split(files, people_folder):
    frames = read_frames(files)
    assert frames.keys() == set(ARRAYS)
    assert set(frames["people"]) == {"train-female", "train-male"}
    assert frames["frames"].shape == frames["faces"].shape == (2 * OF_PERSON, SIDE, SIDE, 3)
    assert frames["frames"].dtype == np.uint8 and frames["amplitudes"].shape == (2 * OF_PERSON, len(ACTIONS))
    assert np.isnan(frames["blendshapes"]).all()  # of the bundled mesh
    smiles = frames["amplitudes"][:, list(ACTIONS).index("smile")]
    assert (smiles >= frames["real_smiles"]).all()
    assert len({frame.tobytes() for frame in frames["frames"]}) == 2 * OF_PERSON


def test_a_stopped_run_makes_the_same_files(files, people_folder, monkeypatch):
    monkeypatch.setattr(acting_people, "_OF_PERSON", OF_PERSON)
    before = [path.read_bytes() for path in files]
    written = files[0].stat().st_mtime_ns
    files[1].unlink()
    again = make_frames(files[0].parent, people_folder, "train", 2 * OF_PERSON, progress=False)
    assert again == files and [path.read_bytes() for path in files] == before
    assert files[0].stat().st_mtime_ns == written


def test_a_real_smile_is_seen(tmp_path):
    actor, nothing = FaceActor(astronaut(), rest=TO_REST), np.zeros(len(ACTIONS))
    view = actor.camera((256, 256), face_width=0.5)
    for name, smile in (("neutral", 0), ("smiling", 1)):
        picture = next(actor.act(smile * np.eye(1, len(ACTIONS)), [view], (256, 256)))
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    person = Person("she", tmp_path / "neutral.png", tmp_path / "smiling.png")
    still, half, whole = (
        render_moment(person, nothing, smile, np.random.default_rng(3), strength=0).astype(float)
        for smile in (0, 0.5, 1)
    )
    assert 0 < np.abs(half - still).mean() < np.abs(whole - still).mean() < 20


@pytest.mark.parametrize("upright", [False, True])
def test_views_are_those_of_the_processor(upright):
    picture = np.ascontiguousarray(astronaut()[:300, 60:400])
    frame, crop, _ = Views(FaceMesh(), upright)(picture)
    processor = MicroEmoVideoProcessor(
        size={"height": SIDE, "width": SIDE}, local_view="face_crop", face_crop_upright=upright
    )
    features = processor(picture[None], num_frames=1)
    factor, shift = processor.scale_and_shift()
    for ours, name in ((frame, "pixel_values_videos"), (crop, "pixel_values_faces")):
        expected = features[name][0, 0].transpose(1, 2, 0)
        assert np.abs(ours * factor - shift - expected).max() < 0.02


def test_nobody_is_seen_without_a_face():
    assert Views(FaceMesh(), True)(np.full((120, 160, 3), 90, np.uint8)) is None


def test_wrong_numbers(people_folder, tmp_path):
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        make_frames(tmp_path, people_folder, "train", 0)
    with pytest.raises(ValueError, match="num_workers must be at least 1, got 0"):
        make_frames(tmp_path, people_folder, "train", 1, num_workers=0)
