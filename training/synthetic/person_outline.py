"""The outline of the person in a photograph, so that another background can stand behind."""

import numpy as np

try:
    import cv2
except ImportError:
    cv2 = None  # type: ignore[assignment]

_SIDE = 240  # pixels of the longer side of the copy on which the outline is found
_ROUNDS = 3


_REACH = (3.2, 2.6)  # how far the surroundings of a face reach to each side, in widths and heights of the face


def find_outline(photograph: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Finds the share of each pixel that shows the person, from the colours of the face, the body and the edge.

    Args:
        photograph (`np.ndarray` of shape `(H, W, 3)`): A uint8 photograph of one person.
        landmarks (`np.ndarray` of shape `(478, 2)`): The landmarks of the face in pixels.

    Returns:
        `np.ndarray` of shape `(H, W)`: The float32 share, 0 for the background.
    """
    points = landmarks[:468, :2]
    low, high = points.min(0), points.max(0)
    middle, reach = (low + high) / 2, np.array(_REACH) * (high - low)
    left, top = np.floor(middle - reach).clip(0).astype(int)
    right, bottom = np.ceil(np.minimum(middle + reach, photograph.shape[1::-1])).astype(int)
    inside = _find_outline(photograph[top:bottom, left:right], points - (left, top))
    height, width = photograph.shape[:2]
    beside = np.pad(inside, ((top, 0), (left, width - right)))
    return np.pad(beside, ((0, height - bottom), (0, 0)), mode="edge")  # the body goes on below


def _find_outline(photograph: np.ndarray, face: np.ndarray) -> np.ndarray:
    """Finds the outline in the surroundings of a face."""
    scale = _SIDE / max(photograph.shape[:2])
    small = cv2.resize(photograph, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    height, width = small.shape[:2]
    face = np.round(face * scale).astype(np.int32)
    (left, top), (right, bottom) = face.min(0), face.max(0)
    half, middle = (right - left) / 2, (left + right) // 2
    mask: np.ndarray = np.full((height, width), cv2.GC_PR_BGD, np.uint8)
    # The head has hair round the face, and a body below.
    center = (int(middle), int((top + bottom) / 2 - 0.15 * (bottom - top)))
    axes = (int(1.35 * half), int(0.85 * (bottom - top)))
    cv2.ellipse(mask, center, axes, 0, 0, 360, (cv2.GC_PR_FGD,), cv2.FILLED)
    mask[bottom:, max(0, int(middle - 2.2 * half)) : int(middle + 2.2 * half)] = cv2.GC_PR_FGD
    cv2.fillConvexPoly(mask, cv2.convexHull(face), (cv2.GC_FGD,))
    mask[bottom:, max(0, int(middle - 0.5 * half)) : int(middle + 0.5 * half)] = cv2.GC_FGD
    edge = max(1, round(0.02 * _SIDE))
    mask[:edge] = mask[: max(edge, bottom), :edge] = mask[: max(edge, bottom), -edge:] = cv2.GC_BGD
    models: list[np.ndarray] = [np.zeros((1, 65)), np.zeros((1, 65))]
    cv2.setRNGSeed(0)
    cv2.grabCut(np.ascontiguousarray(small), mask, None, *models, _ROUNDS, cv2.GC_INIT_WITH_MASK)  # type: ignore[call-overload]
    person = np.isin(mask, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    _, labels = cv2.connectedComponents(person)
    person = (labels == labels[tuple(face[4][::-1])]).astype(np.float32)
    person = cv2.GaussianBlur(person, (0, 0), 1.0)
    soft = ((person - 0.35) / 0.5).clip(0, 1)
    return cv2.resize(soft, photograph.shape[1::-1], interpolation=cv2.INTER_LINEAR)
