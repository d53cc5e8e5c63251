"""The square crop round a face, which may follow the roll of the head."""

from dataclasses import dataclass

import numpy as np

from .face_regions import face_box

try:
    from PIL import Image
except ImportError:
    Image = None  # type: ignore[assignment]  # only crops that follow the head's roll need it

_EYES, _HEIGHT = (33, 263), (10, 152)  # outer eye corners; top of the forehead and chin


@dataclass(frozen=True)
class FaceCrop:
    """A square of a picture that holds a face.

    Attributes:
        box (`np.ndarray` of shape `(4,)`):
            The left, top, right and bottom in whole pixels of the picture turned upright, which may lie outside it.
        roll (`float`): The angle in radians by which the crop is turned clockwise against the picture.
        center (`np.ndarray` of shape `(2,)`): The point in pixels about which it is turned.
    """

    box: np.ndarray
    roll: float
    center: np.ndarray

    def cut(self, picture: np.ndarray) -> np.ndarray:
        """Cuts the square out of a picture, black where it reaches beyond.

        Args:
            picture (`np.ndarray` of shape `(H, W, 3)`): The uint8 picture.

        Returns:
            `np.ndarray` of shape `(side, side, 3)`: The crop in the picture's own resolution.

        Raises:
            ImportError: If the crop is turned and Pillow is not installed.
        """
        if not self.roll:
            return _cut(picture, self.box)
        if Image is None:
            raise ImportError("face crops that follow the head's roll need Pillow: pip install pillow")
        side = int(self.box[2] - self.box[0])
        to_picture = _rotation(self.roll)
        # Pillow's coordinates run along the edges of pixels, as those of the box do.
        corner = to_picture @ (self.box[:2] - self.center) + self.center
        rows = np.column_stack([to_picture, corner]).ravel().tolist()
        crop = Image.fromarray(picture).transform(
            (side, side), Image.Transform.AFFINE, rows, Image.Resampling.BILINEAR, fillcolor=(0, 0, 0)
        )
        return np.asarray(crop)

    def place(self, face: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Converts landmarks of the picture to fractions of the crop.

        Args:
            face (`np.ndarray` of shape `(478, 2)` or `(478, 3)`): The landmarks as fractions of the picture.
            size (`tuple[int, int]`): The width and the height of the picture in pixels.

        Returns:
            `np.ndarray` of shape `(478, 2)`: The float32 landmarks as fractions of the crop.
        """
        points = face[:, :2] * size
        if self.roll:
            points = (points - self.center) @ _rotation(self.roll) + self.center
        return ((points - self.box[:2]) / (self.box[2:] - self.box[:2])).astype(np.float32)


def face_crop(face: np.ndarray, size: tuple[int, int], scale: float = 1.3, upright: bool = False) -> FaceCrop:
    """Finds the square crop round a face.

    Args:
        face (`np.ndarray` of shape `(478, 2)` or `(478, 3)`): The landmarks as fractions of the picture.
        size (`tuple[int, int]`): The width and the height of the picture in pixels.
        scale (`float`, *optional*, defaults to 1.3): The side of the crop over the longer side of the landmarks' box.
        upright (`bool`, *optional*, defaults to `False`):
            Whether to turn the crop with the head, so that the eyes lie level in it.

    Returns:
        [`FaceCrop`]: The crop.
    """
    points = face[:, :2].astype(np.float64) * size
    center = (points.min(0) + points.max(0)) / 2
    roll = _roll(points) if upright else 0.0
    if not roll:
        return FaceCrop(face_box(face, size, scale), 0.0, center)
    level = (points - center) @ _rotation(roll) + center
    return FaceCrop(face_box(level, (1, 1), scale), roll, center)


def _roll(points: np.ndarray) -> float:
    """Returns the clockwise angle of a head. The line from forehead to chin helps where one eye is hardly seen."""
    across = points[_EYES[1]] - points[_EYES[0]]
    down = points[_HEIGHT[1]] - points[_HEIGHT[0]]
    across += np.array([down[1], -down[0]])
    return float(np.arctan2(across[1], across[0]))


def _rotation(angle: float) -> np.ndarray:
    """Returns the matrix that turns (x, y) with y downwards clockwise."""
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _cut(picture: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Cuts a box (left, top, right, bottom) out of a picture `(H, W, 3)`, black where it reaches beyond."""
    left, top, right, bottom = box
    height, width = picture.shape[:2]
    cut = np.zeros((bottom - top, right - left, 3), np.uint8)
    inside = picture[max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
    cut[max(-top, 0) :, max(-left, 0) :][: inside.shape[0], : inside.shape[1]] = inside
    return cut
