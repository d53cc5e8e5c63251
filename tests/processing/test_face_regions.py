"""Clue regions: they sit where they should, cover what they say, and mirror each other."""

import numpy as np
import pytest
from mediapipe.python.solutions.face_mesh_connections import FACEMESH_FACE_OVAL, FACEMESH_LIPS

from microemo.processing.faces.face_mesh import FaceMesh
from microemo.processing.faces.face_regions import (
    REGIONS,
    WHOLE_FACE,
    face_box,
    find_regions,
    region_coverage,
    region_masks,
    to_crop,
)
from microemo.training.synthetic.media_writer import astronaut

pytest.importorskip("skimage", reason="the face is in scikit-image's photograph")


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    return FaceMesh().landmarks(astronaut())[0]


@pytest.fixture(scope="module")
def close_up(face) -> np.ndarray:
    """The face in its crop: (478, 2)."""
    return to_crop(face, face_box(face, (512, 512)), (512, 512))


def hull_share(points: np.ndarray, grid: int, fine: int = 20) -> np.ndarray:
    """(P,) share of each patch inside the hull of points (N, 2), by counting many small points.

    A point lies in the hull where it lies on the inner side of the farthest landmark in every direction.
    """
    steps = (np.arange(grid * fine) + 0.5) / (grid * fine)
    x, y = np.meshgrid(steps, steps)
    inside = np.ones(x.shape, bool)
    for angle in np.linspace(0, 2 * np.pi, 360, endpoint=False):
        u, v = np.cos(angle), np.sin(angle)
        inside &= u * x + v * y <= (points @ [u, v]).max()
    return inside.reshape(grid, fine, grid, fine).mean((1, 3)).ravel()


@pytest.mark.parametrize("view", ["face", "close_up"])
def test_coverage(view, request):
    landmarks = request.getfixturevalue(view)[:, :2]
    share = region_coverage(landmarks[None])[0]
    expected = np.stack([hull_share(landmarks[list(points)], 16) for points in REGIONS.values()])
    assert expected.max() > 0.3
    assert np.abs(share - expected).max() < 0.05
    assert share.sum(1) == pytest.approx(expected.sum(1), rel=0.03, abs=0.05)


def test_masks_follow_the_coverage(close_up):
    share = region_coverage(close_up[None])
    masks = region_masks(close_up[None])
    np.testing.assert_array_equal(masks, share >= 0.25)
    assert masks.any(-1).all()
    assert masks.sum(1).max() > 1, "regions overlap: a patch may belong to several"
    np.testing.assert_array_equal(region_masks(close_up[None], coverage=0.4), share >= 0.4)


def test_a_region_without_a_patch_of_its_own_takes_its_best(face):
    tiny = face.copy()
    tiny[:, :2] = 0.5 + (face[:, :2] - face[:, :2].mean(0)) * 0.1  # a face smaller than a patch
    masks = region_masks(tiny[None])[0]
    np.testing.assert_array_equal(masks.sum(-1), 1)
    np.testing.assert_array_equal(masks.argmax(-1), region_coverage(tiny[None])[0].argmax(-1))


def test_no_face_and_face_outside(face):
    outside = face + np.array([2, 0, 0], np.float32)
    masks = region_masks(np.stack([face, np.full_like(face, np.nan), outside]))
    assert masks.shape == (3, 11, 256)
    assert masks[0].any(-1).all() and not masks[1:].any()
    assert region_masks(None).shape == (0, 11, 256)


def test_other_grids(close_up):
    fine, coarse = region_coverage(close_up[None], 16)[0], region_coverage(close_up[None], 8)[0]
    pooled = fine.reshape(11, 8, 2, 8, 2).mean((2, 4)).reshape(11, 64)
    np.testing.assert_allclose(coarse, pooled, atol=0.06)


def test_a_frame_does_not_depend_on_the_others(face, close_up):
    both = np.stack([face[:, :2], close_up])
    np.testing.assert_array_equal(region_masks(both)[1], region_masks(close_up[None])[0])


def test_right_is_the_subjects_right_and_left_its_mirror_image(face):
    names = list(REGIONS)
    center = np.array([face[list(REGIONS[name]), 0].mean() for name in names])
    for part in ("brow", "eye", "cheek"):
        assert center[names.index(f"{part}_right")] < center[names.index(f"{part}_left")]

    # The mesh of the mirrored photograph, mirrored back: left and right have changed places.
    mirrored = FaceMesh().landmarks(np.ascontiguousarray(astronaut()[:, ::-1]))[0] * [-1, 1, 1] + [1, 0, 0]
    swap = [
        names.index(name.replace("right", "LEFT").replace("left", "right").replace("LEFT", "left")) for name in names
    ]
    box = face_box(face, (512, 512))
    ours = region_coverage(to_crop(face, box, (512, 512))[None])[0]
    theirs = region_coverage(to_crop(mirrored, box, (512, 512))[None])[0][swap]
    overlap = np.minimum(ours, theirs).sum(1) / np.maximum(ours, theirs).sum(1)
    assert overlap.min() > 0.8, dict(zip(names, overlap.round(2), strict=True))


def test_regions_sit_in_order_from_forehead_to_chin(face):
    height = {name: face[list(points), 1].mean() for name, points in REGIONS.items()}
    for upper, lower in (
        ("forehead", "brow_right"),
        ("brow_right", "eye_right"),
        ("eye_right", "cheek_right"),
        ("glabella", "nose"),
        ("nose", "mouth"),
        ("mouth", "chin"),
    ):
        assert height[upper] < height[lower], (upper, lower)
    assert len(REGIONS) == 11


def test_the_mouth_holds_the_lips(face):
    lips = {point for line in FACEMESH_LIPS for point in line}
    mouth = face[list(REGIONS["mouth"]), :2]
    for angle in np.linspace(0, 2 * np.pi, 60):
        direction = np.array([np.cos(angle), np.sin(angle)])
        assert (face[list(lips), :2] @ direction).max() <= (mouth @ direction).max() + 1e-3


def test_the_whole_face_is_its_oval(face, close_up):
    (oval,) = WHOLE_FACE.values()
    assert set(oval) == {point for line in FACEMESH_FACE_OVAL for point in line} and len(set(oval)) == len(oval)
    for landmarks in (face[:, :2], close_up):
        share = region_coverage(landmarks[None], 16, "whole_face")
        assert share.shape == (1, 1, 256)
        assert np.abs(share[0, 0] - hull_share(landmarks[list(oval)], 16)).max() < 0.05
    masks = region_masks(np.stack([close_up, np.full_like(close_up, np.nan)]), clue_regions="whole_face")
    assert masks.shape == (2, 1, 256) and not masks[1].any()
    parts = region_masks(close_up[None], coverage=0.5)[0].any(0)
    assert masks[0, 0][parts].mean() > 0.95, "the parts lie inside the whole"
    assert masks[0, 0].sum() > parts.sum()
    assert region_masks(None, clue_regions="whole_face").shape == (0, 1, 256)


def test_unknown_regions():
    assert find_regions("facial") is REGIONS
    with pytest.raises(ValueError, match="got 'face'"):
        find_regions("face")


def test_face_box_is_square_in_pixels(face):
    wide = face[:, :2] * [0.5, 1] + [0.25, 0]  # the same face in a frame twice as wide
    box = face_box(wide, (1024, 512), 1.3)
    np.testing.assert_array_equal(box - face_box(face, (512, 512)), [256, 0, 256, 0])
    assert box[2] - box[0] == box[3] - box[1]
    side = (np.ptp(face[:, :2], axis=0) * 512).max()
    assert box[2] - box[0] == pytest.approx(1.3 * side, abs=1)
    inside = to_crop(wide, box, (1024, 512))
    assert inside.min() > 0.1 and inside.max() < 0.9
    assert (inside.min(0) + inside.max(0)) / 2 == pytest.approx([0.5, 0.5], abs=0.01)
