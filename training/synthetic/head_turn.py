"""Small turns of a photographed head: the depth of the face mesh shifts what is nearer to the camera."""

import numpy as np

from .skin_motion import Interpolation, eye_width_of

try:
    import cv2
except ImportError:
    cv2 = None  # type: ignore[assignment]

_RADIUS = 0.6  # of the radial basis functions, in eye widths: depth has to be smooth, so that skin does not fold
_SMOOTHING = 0.05
_STEP = 8  # pixels of the photograph between the points where the depth is computed
_EARS = (234, 454)
_ROUNDS = 4  # in which the place is found that a turn brings to a point


class HeadTurn:
    """Turns a head by small angles, up to about 20 degrees.

    What is nearer to the camera than the ears moves to the side by its depth times the sine of the angle; hair, neck and
    shoulders stay.

    Args:
        landmarks (`np.ndarray` of shape `(478, 3)`): The landmarks in pixels of the photograph; z is their depth.
        size (`tuple[int, int]`): The width and height of the photograph.
    """

    def __init__(self, landmarks: np.ndarray, size: tuple[int, int]):
        places, z = landmarks[:468, :2], landmarks[:468, 2]
        near = (z[list(_EARS)].mean() - z).clip(0)
        width, height = (-(-side // _STEP) for side in size)
        points = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1) * _STEP + (_STEP - 1) / 2
        radius = _RADIUS * eye_width_of(landmarks)
        depth = Interpolation(places[::2], near[::2, None], radius, _SMOOTHING)(points.reshape(-1, 2))
        self._depth = depth.reshape(height, width).clip(0).astype(np.float32)

    def _at(self, places: np.ndarray) -> np.ndarray:
        """Returns the depth `(h, w, 1)` at places `(h, w, 2)`."""
        where = ((places - (_STEP - 1) / 2) / _STEP).astype(np.float32)
        return cv2.remap(self._depth, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)[..., None]  # type: ignore[call-overload]

    def unturn(self, places: np.ndarray, yaw: float, pitch: float) -> np.ndarray:
        """Finds what a turn brings to some places.

        Args:
            places (`np.ndarray` of shape `(h, w, 2)`): The places after the turn, in pixels of the photograph.
            yaw (`float`): The angle in radians by which the head turns to the right of the photograph.
            pitch (`float`): The angle in radians by which it turns downwards.

        Returns:
            `np.ndarray` of shape `(h, w, 2)`: The float32 places before the turn.
        """
        shift = np.sin([yaw, pitch]).astype(np.float32)
        size = places.shape[1::-1]
        # The shift is smooth: a quarter of the points is enough in each direction.
        coarse = cv2.resize(places, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
        shifted = np.zeros_like(coarse)
        for _ in range(_ROUNDS):
            shifted = self._at(coarse - shifted) * shift
        return places - cv2.resize(shifted, size, interpolation=cv2.INTER_LINEAR)

    def turn(self, points: np.ndarray, yaw: float, pitch: float) -> np.ndarray:
        """Finds where points of the photograph go.

        Args:
            points (`np.ndarray` of shape `(n, 2)`): The points before the turn, in pixels of the photograph.
            yaw (`float`): The angle in radians by which the head turns to the right of the photograph.
            pitch (`float`): The angle in radians by which it turns downwards.

        Returns:
            `np.ndarray` of shape `(n, 2)`: The points after the turn.
        """
        return points + self._at(points[None])[0] * np.sin([yaw, pitch])
