"""Motion of the skin of a face: radial basis functions carry the motion of landmarks over what lies between them."""

from collections.abc import Iterable

import numpy as np

from ...processing.faces.face_mesh import NUM_LANDMARKS

try:
    import cv2
except ImportError:
    cv2 = None  # type: ignore[assignment]

# How far the landmarks go at amplitude 1: right and left landmark (the subject's; one number on the midline), outwards,
# upwards, in widths of the eyes (outer corner to outer corner, about 9 cm).
Moves = tuple[tuple[int, int, float, float], ...]

_RADIUS = 0.15  # of the radial basis functions, in eye widths
_STILL = 0.1  # landmarks this far (in the same unit) from all that move stay where they are
_SMOOTHING = 1e-2  # of the interpolation: 0 would meet every landmark exactly


def eye_width_of(landmarks: np.ndarray) -> float:
    """Measures the distance of the outer eye corners.

    Args:
        landmarks (`np.ndarray` of shape `(478, 2)`): The landmarks in pixels.

    Returns:
        `float`: The distance in pixels.
    """
    return float(np.linalg.norm(landmarks[263, :2] - landmarks[33, :2]))


def grid_round(landmarks: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Lays a grid over a face and a margin round it.

    Motions are smooth: they are computed at every second point of the grid and enlarged by [`refine`].

    Args:
        landmarks (`np.ndarray` of shape `(478, 2)`): The landmarks in pixels.
        step (`int`): The distance of the grid's points in pixels.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: The corner (x, y) of the grid in pixels, and every second point of it
        `(h, w, 2)`.
    """
    margin = 0.35 * np.linalg.norm(landmarks[263] - landmarks[33])
    corner = np.floor(landmarks.min(0) - margin).astype(int)
    width, height = np.ceil((landmarks.max(0) + margin - corner) / (2 * step)).astype(int)
    points = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1) * (2 * step) + (step - 0.5) + corner
    return corner, points


def refine(values: np.ndarray) -> np.ndarray:
    """Doubles the resolution of what was computed at every second point of a grid.

    Args:
        values (`np.ndarray` of shape `(h, w, C)`): The values.

    Returns:
        `np.ndarray` of shape `(2 * h, 2 * w, C)`: The float32 values.
    """
    return cv2.resize(values.astype(np.float32), None, fx=2, fy=2)


def moved_by(landmarks: np.ndarray, moves: Moves) -> tuple[np.ndarray, np.ndarray]:
    """Computes how far an action moves its landmarks.

    Args:
        landmarks (`np.ndarray` of shape `(478, 2)`): The landmarks in pixels.
        moves (`Moves`): The action.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: The motion `(478, 2)` in pixels, and which landmarks it names `(478,)`.
    """
    across = landmarks[263] - landmarks[33]  # to the face's left, as long as the eyes are wide
    up = np.array([across[1], -across[0]])
    motion = np.zeros((NUM_LANDMARKS, 2))
    moving = np.zeros(NUM_LANDMARKS, bool)
    for right, left, outwards, upwards in moves:
        motion[left] = outwards * across + upwards * up
        if right != left:
            motion[right] = -outwards * across + upwards * up
        moving[[right, left]] = True
    return motion, moving


class SkinMotion:
    """Tells how far an action moves the skin between the landmarks that it moves.

    Args:
        landmarks (`np.ndarray` of shape `(478, 2)`): The landmarks before the action, in pixels.
        moves (`Moves`): The action.
    """

    def __init__(self, landmarks: np.ndarray, moves: Moves):
        eye_width = np.linalg.norm(landmarks[263] - landmarks[33])
        motion, moving = moved_by(landmarks, moves)
        arrived = landmarks + motion
        distance = np.linalg.norm(landmarks[:, None] - arrived[moving], axis=-1).min(1)
        # Skin must not fold: what stays is farther away than anything moves.
        fixed = ~moving & (distance > max(_STILL * eye_width, 1.6 * np.linalg.norm(motion, axis=1).max()))
        used = moving | fixed
        self._field = Interpolation(arrived[used], motion[used], _RADIUS * eye_width)

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Computes how far the skin has moved that the action brings to some points.

        Args:
            points (`np.ndarray` of shape `(N, 2)`): The points after the action, in pixels.

        Returns:
            `np.ndarray` of shape `(N, 2)`: The motion in pixels.
        """
        return self._field(points)

    def follow(self, points: np.ndarray, rounds: int = 20) -> np.ndarray:
        """Computes where the action brings some points: each goes to where the pixel comes from that was under it.

        Args:
            points (`np.ndarray` of shape `(N, 2)`): The points before the action, in pixels.
            rounds (`int`, *optional*, defaults to 20): The number of steps in which they are found.

        Returns:
            `np.ndarray` of shape `(N, 2)`: The points after the action.
        """
        moved = points.astype(np.float64)
        for _ in range(rounds):
            moved = points + self(moved)
        return moved


def motions_round(
    landmarks: np.ndarray, actions: Iterable[SkinMotion], step: int = 1, scale: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Computes how far the skin around a face moves at the full motion of each action.

    Args:
        landmarks (`np.ndarray` of shape `(478, 2)`): The landmarks in pixels.
        actions (`Iterable[SkinMotion]`): The actions of this face.
        step (`int`, *optional*, defaults to 1): The distance of the grid's points in pixels.
        scale (`float`, *optional*, defaults to 1.0): A factor of the motions.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: The corner (x, y) of the grid, and the float32 motions `(A, h, w, 2)` in pixels
        times `scale`.
    """
    corner, points = grid_round(landmarks, step)
    shape = points.shape
    motions = [scale * action(points.reshape(-1, 2)) for action in actions]
    return corner, np.stack([refine(motion.reshape(shape)) for motion in motions])


class Interpolation:
    """Interpolates values between scattered places; far from all of them they fade to 0.

    Args:
        places (`np.ndarray` of shape `(M, 2)`): The places with known values.
        values (`np.ndarray` of shape `(M, C)`): The values.
        radius (`float`): The radius of the radial basis functions, in the unit of the places.
        smoothing (`float`, *optional*, defaults to 0.01): How much the values are smoothed; 0 meets each exactly.
    """

    def __init__(
        self, places: np.ndarray, values: np.ndarray, radius: float | np.floating, smoothing: float = _SMOOTHING
    ):
        self._places, self._radius = places, radius
        kernel = _kernel(places, places, radius)
        self._weights = np.linalg.solve(kernel + smoothing * np.eye(len(kernel)), values)

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Computes the values at some points.

        Args:
            points (`np.ndarray` of shape `(N, 2)`): The points.

        Returns:
            `np.ndarray` of shape `(N, C)`: The values.
        """
        return _kernel(points, self._places, self._radius) @ self._weights


def _kernel(points: np.ndarray, centers: np.ndarray, radius: float | np.floating) -> np.ndarray:
    """Computes Matern's function of smoothness 3/2. Unlike Gaussians it does not overshoot between landmarks."""
    square = (points**2).sum(-1)[:, None] + (centers**2).sum(-1) - 2 * points @ centers.T
    distance = np.sqrt(square.clip(0)) * (3**0.5 / radius)
    return (1 + distance) * np.exp(-distance)
