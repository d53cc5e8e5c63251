"""The crop holds the face, and turns with the head if asked to."""

import numpy as np
import pytest

from microemo.processing.faces.face_crop import face_crop
from microemo.processing.faces.face_regions import face_box, to_crop

SIZE = (400, 300)


def _face(roll=0.0, center=(200, 150)):
    """A face of 478 points in an oval, its eyes and its height where the mesh has them, turned clockwise."""
    angles = np.arange(478) * 2.4
    points = np.sqrt(np.arange(478) / 477)[:, None] * np.stack([60 * np.cos(angles), 80 * np.sin(angles)], -1)
    points[[33, 263, 10, 152]] = [(-40, -20), (40, -20), (0, -80), (0, 80)]
    turn = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    return ((points @ turn.T + center) / SIZE).astype(np.float32)


def test_a_crop_that_does_not_turn_is_the_box_round_the_landmarks():
    face = _face(0.3)
    crop, box = face_crop(face, SIZE), face_box(face, SIZE)
    np.testing.assert_array_equal(crop.box, box)
    np.testing.assert_array_equal(crop.place(face, SIZE), to_crop(face, box, SIZE))


@pytest.mark.parametrize("roll", [-2.0, -0.4, 0.2, 1.0])
def test_an_upright_crop_shows_a_turned_head_as_if_it_were_level(roll):
    level = face_crop(_face(), SIZE, upright=True).place(_face(), SIZE)
    turned = face_crop(_face(roll), SIZE, upright=True).place(_face(roll), SIZE)
    np.testing.assert_allclose(turned, level, atol=0.01)


@pytest.mark.parametrize("center", [(200, 150), (10, 290)])
@pytest.mark.parametrize("roll", [-0.5, 0.8])
def test_pixels_and_landmarks_turn_alike(roll, center):
    face = _face(roll, center)
    picture = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    marks = [33, 263, 10, 152]
    inside = []
    for channel, index in zip((0, 1, 2, 0), marks, strict=True):
        x, y = (face[index] * SIZE).astype(int)
        inside.append(1 < x < SIZE[0] - 2 and 1 < y < SIZE[1] - 2)
        picture[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2, channel] = 255
    crop = face_crop(face, SIZE, upright=True)
    pixels, places = crop.cut(picture), crop.place(face, SIZE)
    assert pixels.shape[0] == pixels.shape[1] == crop.box[2] - crop.box[0]
    for channel, index, seen in zip((0, 1, 2, 0), marks, inside, strict=True):
        x, y = (places[index] * pixels.shape[0]).astype(int)
        assert not seen or pixels[y - 1 : y + 2, x - 1 : x + 2, channel].max() > 100


def test_beyond_the_picture_it_is_black():
    crop = face_crop(_face(0.5, center=(0, 0)), SIZE, upright=True)
    pixels = crop.cut(np.full((SIZE[1], SIZE[0], 3), 200, np.uint8))
    assert 0.1 < (pixels == 0).mean() < 0.9 and set(np.unique(pixels)) >= {0, 200}
