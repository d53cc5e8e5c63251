"""The clue regions of face landmarks and the patches that they cover (paper 3.2, local clue attention)."""

import numpy as np

# The convex hull of a region's landmarks is the region. Right and left are the subject's.
REGIONS: dict[str, tuple[int, ...]] = {
    "brow_right": (46, 52, 53, 55, 63, 65, 66, 70, 105, 107),
    "brow_left": (276, 282, 283, 285, 293, 295, 296, 300, 334, 336),
    "glabella": (9, 55, 107, 168, 193, 285, 336, 417),
    "eye_right": (
        *(7, 27, 28, 29, 30, 31, 33, 56, 133, 144, 145, 153, 154, 155, 157, 158, 159, 160, 161, 163, 173, 190, 226),
        *(228, 229, 230, 231, 232, 233, 244, 246, 247),
    ),
    "eye_left": (
        *(249, 257, 258, 259, 260, 261, 263, 286, 362, 373, 374, 380, 381, 382, 384, 385, 386, 387, 388, 390, 398),
        *(414, 446, 448, 449, 450, 451, 452, 453, 464, 466, 467),
    ),
    "nose": (2, 48, 64, 97, 98, 115, 122, 168, 193, 220, 278, 294, 326, 327, 344, 351, 417, 440),
    "cheek_right": (36, 47, 50, 92, 100, 101, 111, 116, 117, 118, 119, 123, 142, 147, 165, 187, 203, 205, 206, 207),
    "cheek_left": (
        *(266, 277, 280, 322, 329, 330, 340, 345, 346, 347, 348, 352, 371, 376, 391, 411, 423, 425, 426, 427),
    ),
    "mouth": (*(0, 17, 37, 39, 40, 57, 61, 84, 91, 146, 181, 185, 267, 269, 270, 287, 291, 314, 321, 375, 405, 409),),
    "chin": (18, 83, 106, 148, 149, 150, 152, 176, 194, 313, 335, 377, 378, 379, 400, 418),
    "forehead": (10, 54, 67, 69, 103, 104, 108, 109, 151, 284, 297, 299, 332, 333, 337, 338),
}
# The face oval as one region: a control that looks at the face and knows no parts of it.
WHOLE_FACE: dict[str, tuple[int, ...]] = {
    "face": (
        *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149),
        *(150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
    ),
}
_BY_NAME = {"facial": REGIONS, "whole_face": WHOLE_FACE}

# Directions in which the corners of a hull are looked for: a missed one would turn the outline by less than 3 degrees.
_ANGLES = np.arange(128) * (2 * np.pi / 128)
_DIRECTIONS = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)]).astype(np.float32)  # (2, 128)
_SLICES_PER_PATCH = 8


def _as_table(regions: dict[str, tuple[int, ...]]) -> np.ndarray:
    """Returns regions as one table `(R, longest)`. Short ones repeat a landmark, which leaves the hull as it is."""
    longest = max(map(len, regions.values()))
    return np.array([points + points[:1] * (longest - len(points)) for points in regions.values()])


_TABLES = {name: _as_table(regions) for name, regions in _BY_NAME.items()}


def find_regions(clue_regions: str) -> dict[str, tuple[int, ...]]:
    """Returns the clue regions that a name stands for.

    Args:
        clue_regions (`"facial"` or `"whole_face"`): The eleven regions of the face, or the whole face as one region.

    Returns:
        `dict[str, tuple[int, ...]]`: The names of the regions with the indices of their landmarks.

    Raises:
        ValueError: If the name is neither `"facial"` nor `"whole_face"`.
    """
    if clue_regions not in _BY_NAME:
        raise ValueError(f'clue_regions must be "facial" or "whole_face", got {clue_regions!r}')
    return _BY_NAME[clue_regions]


def region_masks(
    landmarks: np.ndarray | None, grid: int = 16, coverage: float = 0.25, clue_regions: str = "facial"
) -> np.ndarray:
    """Finds the patches that each clue region covers.

    A patch belongs to every region that covers at least `coverage` of it, so to several or to none. A region that
    covers no patch to that share gets the patch that it covers most, unless it lies outside the picture.

    Args:
        landmarks (`np.ndarray` of shape `(T, 478, 2)` or `(T, 478, 3)`, or `None`):
            The landmarks as fractions of the picture's width and height; NaN for a frame without a face.
        grid (`int`, *optional*, defaults to 16): The number of patches along a side.
        coverage (`float`, *optional*, defaults to 0.25): The share of a patch that a region must cover.
        clue_regions (`str`, *optional*, defaults to `"facial"`): The name of the regions, see [`find_regions`].

    Returns:
        `np.ndarray` of shape `(T, R, grid * grid)`: Boolean masks with the patches row by row; all `False` for a frame
        without a face, and `(0, R, grid * grid)` without landmarks.
    """
    if landmarks is None:
        return np.zeros((0, len(find_regions(clue_regions)), grid * grid), bool)
    share = region_coverage(landmarks, grid, clue_regions)
    masks = share >= coverage
    best = share.argmax(-1)[..., None]
    np.put_along_axis(masks, best, masks.any(-1, keepdims=True) | (share.max(-1, keepdims=True) > 0), -1)
    return masks


def region_coverage(landmarks: np.ndarray, grid: int = 16, clue_regions: str = "facial") -> np.ndarray:
    """Computes the share of each patch that lies in each clue region.

    Each outline is cut into slices an eighth of a patch high; a slice counts with its width at half its height.

    Args:
        landmarks (`np.ndarray` of shape `(T, 478, 2)` or `(T, 478, 3)`):
            The landmarks as fractions of the picture's width and height; NaN for a frame without a face.
        grid (`int`, *optional*, defaults to 16): The number of patches along a side.
        clue_regions (`str`, *optional*, defaults to `"facial"`): The name of the regions, see [`find_regions`].

    Returns:
        `np.ndarray` of shape `(T, R, grid * grid)`: The float32 shares, 0 for a frame without a face.
    """
    shape = (len(landmarks), len(find_regions(clue_regions)), grid * grid)
    share = np.zeros((shape[0] * shape[1], grid, grid), np.float32)
    hulls = region_outlines(landmarks, clue_regions) * grid  # in patches
    hulls = hulls.reshape(len(share), -1, 2)  # (T * R, corners, 2)
    slices = np.arange(grid * _SLICES_PER_PATCH + 1, dtype=np.float32) / _SLICES_PER_PATCH
    top = np.maximum(slices[:-1], hulls[..., 1].min(-1, keepdims=True))
    bottom = np.minimum(slices[1:], hulls[..., 1].max(-1, keepdims=True))
    outline, slice_index = np.nonzero(bottom > top)  # no slice of a NaN
    top, bottom = top[outline, slice_index], bottom[outline, slice_index]
    left, right = _ends(hulls[outline], (top + bottom) / 2)
    columns = np.arange(grid, dtype=np.float32)
    widths = np.minimum(right[:, None], columns + 1) - np.maximum(left[:, None], columns)
    np.add.at(share, (outline, slice_index // _SLICES_PER_PATCH), widths.clip(0) * (bottom - top)[:, None])
    return share.reshape(shape)


def region_outlines(landmarks: np.ndarray, clue_regions: str = "facial") -> np.ndarray:
    """Returns the corners of the clue regions' hulls in turning order, some of them repeated.

    Args:
        landmarks (`np.ndarray` of shape `(T, 478, 2)` or `(T, 478, 3)`):
            The landmarks in any unit; NaN for a frame without a face.
        clue_regions (`str`, *optional*, defaults to `"facial"`): The name of the regions, see [`find_regions`].

    Returns:
        `np.ndarray` of shape `(T, R, 128, 2)`: The float32 corners in the same unit; NaN for a frame without a face.
    """
    points = landmarks[:, _TABLES[clue_regions], :2].astype(np.float32)  # (T, R, N, 2)
    farthest = (points @ _DIRECTIONS).argmax(-2)
    return np.take_along_axis(points, farthest[..., None], -2)


def _ends(hulls: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the left and right ends of convex outlines `(M, corners, 2)` on horizontal lines y `(M,)` across them.

    The right end is the nearest of the right-hand edges' lines, and which edges those are follows from their place.
    """
    rise = np.roll(hulls[..., 1], -1, axis=-1) - hulls[..., 1]
    run = np.roll(hulls[..., 0], -1, axis=-1) - hulls[..., 0]
    level = rise == 0  # such an edge bounds nothing
    x = hulls[..., 0] + (y[:, None] - hulls[..., 1]) * (run / np.where(level, 1, rise))
    quarter = hulls.shape[-2] // 4
    is_left = (np.arange(hulls.shape[-2]) // quarter) % 3 != 0
    left = np.where(level | ~is_left, -np.inf, x).max(-1)
    right = np.where(level | is_left, np.inf, x).min(-1)
    return left, right


def face_box(face: np.ndarray, size: tuple[int, int], scale: float = 1.3) -> np.ndarray:
    """Returns the square box round a face.

    Args:
        face (`np.ndarray` of shape `(478, 2)` or `(478, 3)`): The landmarks as fractions of the picture.
        size (`tuple[int, int]`): The width and the height of the picture in pixels.
        scale (`float`, *optional*, defaults to 1.3): The side of the box over the longer side of the landmarks' box.

    Returns:
        `np.ndarray` of shape `(4,)`: The left, top, right and bottom in whole pixels, which may lie outside the
        picture.
    """
    points = face[:, :2] * size
    low, high = points.min(0), points.max(0)
    side = max(2, round(float((high - low).max()) * scale))
    corner = np.round((low + high - side) / 2).astype(int)
    return np.concatenate([corner, corner + side])


def to_crop(face: np.ndarray, box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Converts landmarks of a picture to fractions of a box that is cut out of it.

    Args:
        face (`np.ndarray` of shape `(478, 2)` or `(478, 3)`): The landmarks as fractions of the picture.
        box (`np.ndarray` of shape `(4,)`): The left, top, right and bottom of the box in pixels.
        size (`tuple[int, int]`): The width and the height of the picture in pixels.

    Returns:
        `np.ndarray` of shape `(478, 2)`: The float32 landmarks as fractions of the box.
    """
    return ((face[:, :2] * size - box[:2]) / (box[2:] - box[:2])).astype(np.float32)
