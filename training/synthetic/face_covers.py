"""Drawings of what comes before a face: hands, books and other things, laid over a picture."""

import numpy as np

from .picture_quality import draw_backdrop

try:
    import cv2
except ImportError:
    cv2 = None  # type: ignore[assignment]

OPAQUE = 64  # of a pixel that covers what is behind it: the product with a level fits 16 bits
_SKIN = np.array([(236, 188, 160), (204, 150, 116), (156, 104, 76), (98, 64, 48)])


def blend(front: np.ndarray, behind: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Lays a picture before another one.

    Args:
        front (`np.ndarray` of shape `(H, W, 3)`): The uint8 picture in front.
        behind (`np.ndarray` of shape `(H, W, 3)`): The uint8 picture behind it.
        mask (`np.ndarray` of shape `(H, W)`): From 0 to [`OPAQUE`], int16, where the front covers what is behind.

    Returns:
        `np.ndarray` of shape `(H, W, 3)`: The uint8 picture.
    """
    difference = front.astype(np.int16) - behind
    difference *= mask[..., None]
    difference //= OPAQUE
    difference += behind
    return difference.astype(np.uint8)


def draw_hand(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draws the shape of a hand that is held up.

    Args:
        size (`int`): The height in pixels.
        rng (`np.random.Generator`): The generator of skin and shape.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: The uint8 picture of shape `(size, width, 3)` and its int16 mask.
    """
    width = round(0.8 * size)
    mask = np.zeros((size, width), np.uint8)
    palm = (width // 2, round(0.64 * size))
    cv2.ellipse(mask, palm, (round(0.4 * width), round(0.36 * size)), 0, 0, 360, (255,), cv2.FILLED)
    thickness = max(2, round(0.21 * width))
    for place in (-0.27, -0.09, 0.09, 0.27):
        root = (round(palm[0] + place * width), round(0.5 * size))
        tip = (round(root[0] + place * 0.3 * width), round(rng.uniform(0.08, 0.2) * size))
        cv2.line(mask, root, tip, (255,), thickness, cv2.LINE_AA)
    cv2.rectangle(mask, (round(0.25 * width), round(0.85 * size)), (round(0.75 * width), size), 255, cv2.FILLED)
    place, tone = rng.uniform(0, len(_SKIN) - 1), np.arange(len(_SKIN))
    skin = np.array([np.interp(place, tone, channel) for channel in _SKIN.T])
    shade = np.linspace(rng.uniform(0.95, 1.1), rng.uniform(0.7, 0.95), size)[:, None, None]
    edge = cv2.GaussianBlur(mask, (0, 0), 0.04 * size)[..., None] / 255
    picture = (skin * shade * (0.6 + 0.4 * edge)).clip(0, 255).astype(np.uint8)
    return picture, (mask.astype(np.int16) * OPAQUE) // 255


def draw_cover(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draws what hides a face: a hand, a book or something round.

    Args:
        size (`int`): The height in pixels.
        rng (`np.random.Generator`): The generator of kind and look.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: The uint8 picture of shape `(size, width, 3)` and its int16 mask.
    """
    kind = rng.choice(["hand", "book", "disc"])
    if kind == "hand":
        return draw_hand(round(1.25 * size), rng)
    picture = draw_backdrop((size, size), rng)
    if kind == "book":
        color = rng.integers(20, 236, 3).tolist()
        for line in range(rng.integers(0, 6)):
            height = round((0.2 + 0.1 * line) * size)
            cv2.line(picture, (size // 6, height), (5 * size // 6, height), color, max(1, size // 60))
        return picture, np.full((size, size), OPAQUE, np.int16)
    mask = np.zeros((size, size), np.uint8)
    cv2.circle(mask, (size // 2, size // 2), size // 2 - 1, (OPAQUE,), cv2.FILLED)
    return picture, mask.astype(np.int16)


def paste(picture: np.ndarray, thing: tuple[np.ndarray, np.ndarray], middle: tuple[int, int]) -> None:
    """Lays a drawing onto a picture, in place.

    Args:
        picture (`np.ndarray` of shape `(H, W, 3)`): The uint8 picture.
        thing (`tuple[np.ndarray, np.ndarray]`): A drawing and its mask, see [`draw_cover`].
        middle (`tuple[int, int]`): Where the middle of the drawing is, in pixels to the right and down.
    """
    front, mask = thing
    height, width = front.shape[:2]
    left, top = middle[0] - width // 2, middle[1] - height // 2
    right, bottom = min(left + width, picture.shape[1]), min(top + height, picture.shape[0])
    first, upper = max(left, 0), max(top, 0)
    if right > first and bottom > upper:
        inside = (slice(upper - top, bottom - top), slice(first - left, right - left))
        under = picture[upper:bottom, first:right]
        under[:] = blend(front[inside], under, mask[inside])
