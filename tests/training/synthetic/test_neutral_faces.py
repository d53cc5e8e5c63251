"""A photograph of a face at rest opens its mouth, smiles for real, turns, and stands before another background.

The astronaut at rest is the neutral photograph here, and the one in which she smiles the smiling one.
"""

import numpy as np
import pytest

pytest.importorskip("skimage", reason="the photograph comes with scikit-image")
pytest.importorskip("cv2", reason="faces act with OpenCV")

from microemo.processing.faces.face_mesh import FaceMesh, largest_face
from microemo.training.synthetic.face_acting import ACTIONS, TO_REST, FaceActor
from microemo.training.synthetic.media_writer import astronaut
from microemo.training.synthetic.person_outline import find_outline

SIZE = (240, 240)
JAW = list(ACTIONS).index("jaw")


@pytest.fixture(scope="module")
def photographs():
    smiling = astronaut()[:300, 80:380]
    actor = FaceActor(smiling, rest=TO_REST)
    still = np.eye(2, 3)[None]
    return next(actor.act(np.zeros((1, len(ACTIONS))), still, (300, 300))), smiling


@pytest.fixture(scope="module")
def actor(photographs):
    neutral, smiling = photographs
    return FaceActor(neutral, smiling=smiling)


def _act(actor, amplitudes=(), count=1, **more):
    values = np.zeros((count, len(ACTIONS)))
    values[:, JAW] = amplitudes if len(amplitudes) else 0
    return list(actor.act(values, [actor.camera(SIZE, face_width=0.6)] * count, SIZE, **more))


def _mesh(picture):
    return largest_face(FaceMesh().landmarks(picture))[:, :2] * SIZE


def _smile(face):
    """How wide and high the lip corners are, in eye widths."""
    across = face[263] - face[33]
    up = np.array([across[1], -across[0]]) / (across @ across)
    return np.linalg.norm(face[291] - face[61]) / np.linalg.norm(across) + (face[[61, 291]] - face[13]).mean(0) @ up


def test_at_rest_it_is_the_photograph(actor, photographs):
    (still,) = actor.act(np.zeros((1, len(ACTIONS))), np.eye(2, 3)[None], (300, 300))
    assert np.abs(still.astype(int) - photographs[0]).mean() < 1


def test_a_jaw_that_drops_opens_a_dark_mouth(actor):
    """Nor do the lips stretch that were a little apart in the photograph."""
    faces = _act(actor, [0.0, 0.5, 1.0], 3)
    gaps, dark = [], []
    for picture in faces:
        face = _mesh(picture)
        gaps.append(np.linalg.norm(face[14] - face[13]) / np.linalg.norm(face[263] - face[33]))
        (left, top), (right, bottom) = face[[61, 0]].min(0).astype(int), face[[291, 17]].max(0).astype(int)
        dark.append((picture[top:bottom, left:right].mean(-1) < 60).sum())
    assert gaps[0] + 0.04 < gaps[1] < gaps[2] - 0.04
    assert dark[0] + 100 < dark[1] < dark[2] - 100


def test_a_real_smile_grows_into_the_smiling_photograph(actor):
    pictures = _act(actor, count=4, real_smile=np.array([0, 0.4, 0.7, 1]))
    smiles = [_smile(_mesh(picture)) for picture in pictures]
    whole = _smile(FaceActor(astronaut()).landmarks)
    assert smiles[0] < smiles[1] < smiles[2] < smiles[3]
    assert smiles[3] - smiles[0] > 0.6 * (whole - smiles[0])
    x, y = _mesh(pictures[3])[[13, 14]].mean(0).astype(int)
    teeth, lips = (picture[y - 2 : y + 3, x - 4 : x + 5].astype(int) for picture in (pictures[3], pictures[0]))
    assert (teeth[..., 1:].mean() - teeth[..., 0].mean()) > (lips[..., 1:].mean() - lips[..., 0].mean()) + 10


def test_a_head_turns(actor):
    left, ahead, right, down = map(
        _mesh, _act(actor, count=4, turns=np.array([[-0.2, 0], [0, 0], [0.2, 0], [0, 0.2]]))
    )
    nose, ears = 4, [234, 454]

    def shift(face):
        return face[nose] - face[ears].mean(0)

    assert shift(left)[0] + 4 < shift(ahead)[0] < shift(right)[0] - 4
    assert shift(down)[1] > shift(ahead)[1] + 4


def test_another_background_stands_behind_the_person(actor):
    backdrop = np.full((*SIZE[::-1], 3), (0, 255, 0), np.uint8)
    plain, before_green = _act(actor)[0], _act(actor, backdrop=backdrop)[0]
    np.testing.assert_allclose(before_green[100:140, 100:140].astype(int), plain[100:140, 100:140], atol=2)
    assert (np.abs(before_green.astype(int) - backdrop).max(-1) < 3).mean() > 0.1


def test_a_real_smile_needs_its_photograph(photographs):
    actor = FaceActor(photographs[0])
    assert not actor.can_smile
    assert len(_act(actor, real_smile=np.zeros(1))) == 1
    with pytest.raises(ValueError, match="a real smile needs the photograph of one"):
        _act(actor, real_smile=np.ones(1))


def test_the_outline_of_a_small_face_in_a_large_photograph(photographs):
    neutral = photographs[0]
    face = FaceActor(neutral).landmarks
    alone = find_outline(neutral, face)
    scene = np.pad(neutral, ((1500, 0), (1800, 1800), (0, 0)), mode="edge")
    small = find_outline(scene, face + np.array([1800, 1500]))
    assert small.shape == scene.shape[:2] and not small[:1400].any() and not small[:, :1600].any()
    head = np.s_[: int(face[:, 1].max())]
    assert np.abs(small[1500:, 1800:2100][head] - alone[head]).mean() < 0.05
