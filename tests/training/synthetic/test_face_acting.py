"""The photograph acts as it is told, and is a face all the while."""

import numpy as np
import pytest

pytest.importorskip("skimage", reason="the photograph comes with scikit-image")
pytest.importorskip("cv2", reason="faces act with OpenCV")

from microemo.processing.faces.face_mesh import FaceMesh, largest_face
from microemo.training.synthetic.face_acting import ACTIONS, TO_REST, FaceActor
from microemo.training.synthetic.media_writer import astronaut

SIZE = 300
# How far the mesh follows, at least; it smooths over what a picture of this size shows, most of all thin lips.
FOLLOWED = {"lip_press": 0.25, "brow_furrow": 0.4}


@pytest.fixture(scope="module")
def actor():
    return FaceActor(astronaut(), rest=TO_REST)


@pytest.fixture(scope="module")
def acted(actor):
    """The resting face and each action at its apex: landmarks (1 + A, 478, 2) in pixels of the photograph."""
    view = actor.camera((SIZE, SIZE), face_width=0.55)
    amplitudes = np.vstack([np.zeros(len(ACTIONS)), np.eye(len(ACTIONS))])
    mesh = FaceMesh()
    pictures = list(actor.act(amplitudes, [view] * len(amplitudes), (SIZE, SIZE)))
    assert {picture.shape for picture in pictures} == {(SIZE, SIZE, 3)}
    faces = [largest_face(mesh.landmarks(picture)) for picture in pictures]
    assert all(face is not None for face in faces)
    return np.array([face[:, :2] * SIZE @ view[:, :2].T + view[:, 2] for face in faces])


def test_the_face_stays_where_the_actor_says(actor, acted):
    still = [33, 263, 168, 4, 234, 454]  # eye corners, nose, ears
    assert np.abs(acted[0] - actor.landmarks)[still].max() < 0.06 * actor.eye_width
    assert np.abs(acted[1:] - acted[0])[:, still].max() < 0.06 * actor.eye_width


@pytest.mark.parametrize("action", ACTIONS)
def test_each_action_moves_its_landmarks(actor, acted, action):
    across = actor.landmarks[263] - actor.landmarks[33]
    up = np.array([across[1], -across[0]])
    wanted, seen = [], []
    moved = acted[1 + list(ACTIONS).index(action)] - acted[0]
    for right, left, outwards, upwards in ACTIONS[action]:
        wanted += [
            outwards * across * (right != left) + upwards * up,
            -outwards * across * (right != left) + upwards * up,
        ]
        seen += [moved[left], moved[right]]
    wanted, seen = np.array(wanted), np.array(seen)
    followed = (wanted * seen).sum() / (wanted**2).sum()
    assert FOLLOWED.get(action, 0.45) < followed < 1.4


def test_skin_does_not_fold(actor):
    """Walking over the face, what is seen comes from ever farther places, for each action and for usual sums."""
    rng = np.random.default_rng(0)
    together = rng.uniform(0, 1, (20, len(ACTIONS))) * (rng.random((20, len(ACTIONS))) < 0.3)
    for amplitudes in np.vstack([np.eye(len(ACTIONS)), together]):
        motion = np.tensordot(amplitudes, actor._motions, 1) / 2
        grid = np.stack(np.meshgrid(np.arange(motion.shape[1]), np.arange(motion.shape[0])), -1)
        (x_down, x_right), (y_down, y_right) = (np.gradient(axis) for axis in np.moveaxis(grid - motion, -1, 0))
        folded = x_right * y_down - x_down * y_right < 0
        assert folded.mean() < 0.004


def test_flip_roll_shift_and_scale(actor):
    rest = np.zeros((1, len(ACTIONS)))
    mesh = FaceMesh()

    def face(**view):
        camera = actor.camera((SIZE, SIZE), **view)
        return largest_face(mesh.landmarks(next(actor.act(rest, [camera], (SIZE, SIZE)))))[:, :2] * SIZE

    plain = face(face_width=0.4)
    assert np.ptp(plain[:, 0]) == pytest.approx(0.4 * SIZE, rel=0.08)
    assert np.ptp(face(face_width=0.6)[:, 0]) == pytest.approx(0.6 * SIZE, rel=0.08)
    shifted = face(face_width=0.4, shift=(0.1, -0.05)) - plain
    np.testing.assert_allclose(shifted.mean(0), [0.1 * SIZE, -0.05 * SIZE], atol=2)

    def slope(points):
        return np.arctan2(*(points[263] - points[33])[::-1])

    assert slope(face(face_width=0.4, roll=np.radians(10))) - slope(plain) == pytest.approx(np.radians(10), abs=0.03)


def test_the_mirror_image(actor):
    amplitude = np.linspace(0, 1, len(ACTIONS))[None]
    plain, mirrored = (
        next(actor.act(amplitude, [actor.camera((SIZE, SIZE), face_width=0.5, flip=flip)], (SIZE, SIZE))).astype(int)
        for flip in (False, True)
    )
    assert np.abs(mirrored[:, ::-1] - plain).mean() < 1 < np.abs(mirrored - plain).mean()


def test_light(actor):
    view = actor.camera((64, 64), face_width=0.5)
    rest = np.zeros((1, len(ACTIONS)))
    plain = next(actor.act(rest, [view], (64, 64))).astype(float)
    dim = next(actor.act(rest, [view], (64, 64), light=(0.5, 1, 1)))
    np.testing.assert_allclose(dim[..., 0], plain[..., 0] / 2, atol=1)
    np.testing.assert_array_equal(dim[..., 1:], plain[..., 1:])


def test_a_camera_may_look_past_the_face(actor):
    view = actor.camera((64, 64), face_width=0.5, shift=(3.0, 0.0))
    assert next(actor.act(np.ones((1, len(ACTIONS))), [view], (64, 64))).shape == (64, 64, 3)


def test_no_face():
    with pytest.raises(ValueError, match="no face in the photograph of 64 x 48 pixels"):
        FaceActor(np.zeros((48, 64, 3), np.uint8))
