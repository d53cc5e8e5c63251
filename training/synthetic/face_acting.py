"""Animation of a photographed face: facial actions are smooth warps around face-mesh landmarks.

Each action (named after its visible motion, with its number in the Facial Action Coding System, Ekman and Friesen
1978) moves some landmarks. Radial basis functions interpolate the motion over the skin between them, and let it fade
around them. A [`FaceActor`] computes these fields once for its photograph; a frame is then their weighted sum and one
look-up for each pixel.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from ...processing.faces.face_mesh import NUM_LANDMARKS, FaceMesh, largest_face

try:
    import cv2
except ImportError:
    cv2 = None  # type: ignore[assignment]
else:
    _LINEAR = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP

# How far the landmarks go at amplitude 1: right and left landmark (the subject's; one number on the midline), outwards,
# upwards, in widths of the eyes (outer corner to outer corner, about 9 cm).
_Moves = tuple[tuple[int, int, float, float], ...]
_BROWS = (
    (70, 300),
    (63, 293),
    (105, 334),
    (66, 296),
    (107, 336),
    (46, 276),
    (53, 283),
    (52, 282),
    (65, 295),
    (55, 285),
)
ACTIONS: dict[str, _Moves] = {
    # AU 12 and 6: the lip corners go out and up, the cheeks follow and push the lower lids.
    "smile": (
        *((61, 291, 0.11, 0.11), (78, 308, 0.10, 0.11), (40, 270, 0.06, 0.05), (91, 321, 0.06, 0.05)),
        *((205, 425, 0.04, 0.08), (50, 280, 0.01, 0.05), (0, 0, 0, 0.02), (17, 17, 0, 0.01), (145, 374, 0, 0.02)),
    ),
    # AU 15 and 17: the lip corners go down, the chin pushes the lower lip up.
    "frown": (
        *((61, 291, 0.0, -0.12), (78, 308, 0.0, -0.12), (40, 270, 0.0, -0.05), (91, 321, 0.0, -0.07)),
        *((43, 273, 0.01, -0.10), (17, 17, 0, 0.04), (14, 14, 0, 0.03), (13, 13, 0, 0.02), (0, 0, 0, 0.01)),
    ),
    # AU 1 and 2: both brows go up, the skin of the forehead with them.
    "brow_raise": (
        *((right, left, 0.0, 0.13) for right, left in _BROWS),
        *((69, 299, 0.0, 0.06), (104, 333, 0.0, 0.06), (9, 9, 0, 0.05)),
    ),
    # AU 4: the inner brows draw together and down.
    "brow_furrow": (
        *((55, 285, -0.07, -0.09), (107, 336, -0.08, -0.09), (65, 295, -0.06, -0.08), (66, 296, -0.06, -0.08)),
        *((52, 282, -0.04, -0.06), (105, 334, -0.04, -0.05), (53, 283, -0.02, -0.04), (63, 293, -0.02, -0.03)),
        *((9, 9, 0, -0.06), (8, 8, 0, -0.05)),
    ),
    # AU 5: the upper lids go up, and the lower ones a little down.
    "eye_widening": (
        *((159, 386, 0.0, 0.06), (158, 385, 0.0, 0.055), (160, 387, 0.0, 0.055), (157, 384, 0.0, 0.035)),
        *((161, 388, 0.0, 0.04), (145, 374, 0.0, -0.03), (144, 373, 0.0, -0.025), (153, 380, 0.0, -0.025)),
    ),
    # AU 24: the lips are pressed together and become narrow.
    "lip_press": (
        *((0, 0, 0, -0.05), (37, 267, 0.0, -0.055), (39, 269, -0.01, -0.05), (40, 270, -0.05, -0.03)),
        *((17, 17, 0, 0.06), (84, 314, 0.0, 0.06), (181, 405, -0.01, 0.055), (91, 321, -0.05, 0.03)),
        *((13, 13, 0, 0.0), (14, 14, 0, 0.0), (61, 291, -0.08, 0.0), (78, 308, -0.07, 0.0)),
    ),
    # AU 26: the jaw drops, as it does with every syllable.
    "jaw": (
        *((14, 14, 0, -0.14), (87, 317, 0.0, -0.13), (88, 318, 0.0, -0.08), (17, 17, 0, -0.15), (84, 314, 0.0, -0.14)),
        *((13, 13, 0, 0.01), (0, 0, 0, 0.01), (61, 291, -0.02, -0.03), (152, 152, 0, -0.15), (148, 377, 0.0, -0.14)),
        *((150, 379, 0.0, -0.10), (200, 200, 0, -0.15), (81, 311, 0.0, 0.005), (80, 310, 0.0, 0.0)),
    ),
    # AU 45: the upper lids meet the lower ones.
    "blink": (
        *((159, 386, 0.0, -0.085), (158, 385, 0.0, -0.08), (160, 387, 0.0, -0.075), (157, 384, 0.0, -0.05)),
        *((161, 388, 0.0, -0.045), (145, 374, 0.0, 0.005), (27, 257, 0.0, -0.03)),
    ),
}
# The person in the photograph smiles broadly. These motions bring her face to rest: lips closed, corners level.
_TO_REST: _Moves = (
    *((61, 291, -0.09, -0.09), (78, 308, -0.085, -0.085), (40, 270, -0.06, -0.075), (91, 321, -0.06, -0.04)),
    *((13, 13, 0, -0.05), (82, 312, 0.0, -0.055), (81, 311, -0.01, -0.06), (80, 310, -0.03, -0.07)),
    *((14, 14, 0, 0.05), (87, 317, 0.0, 0.045), (178, 402, -0.01, 0.04), (88, 318, -0.02, 0.01)),
    *((0, 0, 0, -0.025), (37, 267, 0, -0.035), (39, 269, -0.02, -0.055), (17, 17, 0, 0.03), (84, 314, 0, 0.025)),
    *((205, 425, -0.02, -0.05), (50, 280, 0.0, -0.03), (43, 273, -0.02, -0.03)),
)
# The mouth's opening, painted dark: closed lips then meet in a line, and the jaw opens a dark mouth, not long teeth.
_MOUTH = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95)
_MOUTH_COLOR = (80, 38, 36)

_RADIUS = 0.15  # of the radial basis functions, in eye widths
_STILL = 0.1  # landmarks this far (in the same unit) from all that move stay where they are
_SMOOTHING = 1e-2  # of the interpolation: 0 would meet every landmark exactly
_DETAIL = 2  # pixels of the resting face for one of the photograph
_OFFSET = (_DETAIL - 1) / 2  # pixels count from their centres


class FaceActor:
    """Animates the face in a photograph.

    Args:
        photograph (`np.ndarray` of shape `(H, W, 3)`):
            A uint8 image with a face that smiles with an open mouth, as the astronaut's does.
        face (`np.ndarray` of shape `(478, 2)` or `(478, 3)`, *optional*):
            The landmarks of the face. By default [`find_face`] detects them.

    Attributes:
        landmarks (`np.ndarray` of shape `(478, 2)`): The landmarks of the resting face, in pixels of the photograph.
        eye_width (`float`): The distance of the outer eye corners, in pixels of the photograph.

    Raises:
        ImportError: if MediaPipe or OpenCV is not installed.
        ValueError: if there is no face in the photograph.
    """

    def __init__(self, photograph: np.ndarray, face: np.ndarray | None = None):
        if cv2 is None:
            raise ImportError("faces act with OpenCV, which comes with MediaPipe: pip install mediapipe")
        size = np.array(photograph.shape[1::-1])
        face = (find_face(photograph) if face is None else face)[:, :2] * size
        large = cv2.resize(photograph, None, fx=_DETAIL, fy=_DETAIL, interpolation=cv2.INTER_CUBIC)
        mouth: np.ndarray = np.zeros(large.shape[:2], np.float32)
        cv2.fillPoly(mouth, [np.round(face[list(_MOUTH)] * _DETAIL).astype(np.int32)], (1.0,))
        mouth = cv2.GaussianBlur(mouth, (0, 0), 0.6 * _DETAIL)[..., None]
        large = (large * (1 - mouth) + _MOUTH_COLOR * mouth).astype(np.uint8)

        (left, top), motion = _motions(face, [_TO_REST])
        motion = cv2.resize(motion[0], None, fx=_DETAIL, fy=_DETAIL)
        height, width = motion.shape[:2]
        source = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1) - motion
        part = large[_DETAIL * top : _DETAIL * top + height, _DETAIL * left : _DETAIL * left + width]
        self._rest = large.copy()
        self._rest[_DETAIL * top : _DETAIL * top + height, _DETAIL * left : _DETAIL * left + width] = _look_up(
            part, source.astype(np.float32), cv2.INTER_CUBIC
        )
        self.landmarks = face.astype(np.float64)
        for _ in range(20):  # each goes to where the pixel comes from that was under it
            self.landmarks = face + _motion(face, _TO_REST, self.landmarks)
        self.eye_width = float(np.linalg.norm(self.landmarks[263] - self.landmarks[33]))
        self._corner, self._motions = _motions(self.landmarks, ACTIONS.values())

    def act(
        self,
        amplitudes: np.ndarray,
        cameras: np.ndarray,
        size: tuple[int, int],
        light: Iterable[float] = (1.0, 1.0, 1.0),
    ) -> Iterator[np.ndarray]:
        """Renders the frames of a performance.

        Args:
            amplitudes (`np.ndarray` of shape `(T, A)`):
                The amplitudes of [`ACTIONS`] in their order; 1 is an action's full motion.
            cameras (`np.ndarray` of shape `(T, 2, 3)`):
                The transforms from pixels of the frame to those of the photograph; see [`~FaceActor.camera`].
            size (`tuple[int, int]`): The width and height of a frame.
            light (`Iterable[float]`, *optional*, defaults to `(1.0, 1.0, 1.0)`):
                The factors of the brightness of red, green and blue.

        Yields:
            `np.ndarray` of shape `(height, width, 3)`: T uint8 RGB frames.
        """
        motions = self._motions.reshape(len(self._motions), -1)
        height, width = self._motions.shape[1:3]
        corners = self._corner + np.array([[0, 0], [width, 0], [0, height], [width, height]])
        levels = [np.clip(np.arange(256) * gain, 0, 255) for gain in light]
        tables = np.stack(levels, -1).round().astype(np.uint8)[:, None]
        for amplitude, view in zip(np.asarray(amplitudes, np.float32), cameras, strict=True):
            to_photograph = _DETAIL * view + [[0, 0, _OFFSET], [0, 0, _OFFSET]]
            frame = cv2.warpAffine(self._rest, to_photograph, size, flags=_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            # Only the part of the frame where the face is moves.
            face = (corners - view[:, 2]) @ np.linalg.inv(view[:, :2]).T
            left, top = np.clip(np.floor(face.min(0)).astype(int), 0, size)
            right, bottom = np.clip(np.ceil(face.max(0)).astype(int), 0, size)
            if right > left and bottom > top:
                motion = (amplitude @ motions).reshape(height, width, 2)
                to_motion = view.copy()
                to_motion[:, 2] += view[:, :2] @ (left, top) - self._corner
                motion = cv2.warpAffine(motion, to_motion, (int(right - left), int(bottom - top)), flags=_LINEAR)
                across = to_photograph[:, 0] * np.arange(left, right)[:, None] + to_photograph[:, 2]
                down = to_photograph[:, 1] * np.arange(top, bottom)[:, None]
                source = (across.astype(np.float32) + down.astype(np.float32)[:, None]) - motion
                frame[top:bottom, left:right] = _look_up(self._rest, source, cv2.INTER_LINEAR)
            yield cv2.LUT(frame, tables)

    def camera(
        self,
        size: Sequence[int],
        face_width: float,
        shift: Sequence[float] | np.ndarray = (0.0, 0.0),
        roll: float = 0.0,
        flip: bool = False,
    ) -> np.ndarray:
        """Computes the view of a camera.

        Args:
            size (`Sequence[int]`): The width and height of the frame.
            face_width (`float`): The share of the frame's width that the face takes.
            shift (`Sequence[float]` or `np.ndarray`, *optional*, defaults to `(0.0, 0.0)`):
                The shift of the face from the middle of the frame to the right and down, as shares of its width and
                height.
            roll (`float`, *optional*, defaults to 0.0): The clockwise rotation of the head in radians.
            flip (`bool`, *optional*, defaults to `False`): Whether to swap left and right.

        Returns:
            `np.ndarray` of shape `(2, 3)`: The float64 transform from pixels of the frame to those of the photograph.
        """
        low, high = self.landmarks.min(0), self.landmarks.max(0)
        scale = (high[0] - low[0]) / (face_width * size[0])
        turn = scale * np.array([[np.cos(roll), np.sin(roll)], [-np.sin(roll), np.cos(roll)]])
        if flip:
            turn[0] *= -1  # the photograph's x runs against the frame's
        middle = np.array(size) * (0.5 + np.array(shift)) - 0.5  # pixels count from their centres
        return np.column_stack([turn, (low + high) / 2 - turn @ middle])


def find_face(photograph: np.ndarray) -> np.ndarray:
    """Detects the landmarks of the largest face.

    Args:
        photograph (`np.ndarray` of shape `(H, W, 3)`): A uint8 RGB image.

    Returns:
        `np.ndarray` of shape `(478, 3)`: The landmarks, as fractions of width and height.

    Raises:
        ValueError: if there is no face in the photograph.
    """
    face = largest_face(FaceMesh().landmarks(photograph))
    if face is None:
        raise ValueError(f"no face in the photograph of {photograph.shape[1]} x {photograph.shape[0]} pixels")
    return face


def _look_up(image: np.ndarray, source: np.ndarray, interpolation: int) -> np.ndarray:
    """Reads the pixels of an image at the float32 positions `source` of shape (h, w, 2)."""
    # OpenCV's annotations do not allow the missing second map.
    return cv2.remap(image, source, None, interpolation, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]


def _motions(landmarks: np.ndarray, actions: Iterable[_Moves]) -> tuple[np.ndarray, np.ndarray]:
    """Computes how far the skin around a face moves at the full motion of each action.

    Returns the corner (x, y) of the part of the photograph that moves, and (A, h, w, 2) float32 in pixels of the
    enlarged photograph.
    """
    margin = 0.35 * np.linalg.norm(landmarks[263] - landmarks[33])
    corner = np.floor(landmarks.min(0) - margin).astype(int)
    width, height = np.ceil((landmarks.max(0) + margin - corner) / 2).astype(int)
    # Motions are smooth: every second pixel is enough.
    points = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1) * 2 + 0.5 + corner
    motions = [_DETAIL * _motion(landmarks, moves, points.reshape(-1, 2)) for moves in actions]
    return corner, np.stack(
        [cv2.resize(motion.reshape(height, width, 2).astype(np.float32), None, fx=2, fy=2) for motion in motions]
    )


def _motion(landmarks: np.ndarray, moves: _Moves, points: np.ndarray) -> np.ndarray:
    """Computes how far (N, 2) the skin at `points` (N, 2) moves, in pixels."""
    across = landmarks[263] - landmarks[33]  # to the face's left, as long as the eyes are wide
    up = np.array([across[1], -across[0]])
    eye_width = np.linalg.norm(across)
    motion = np.zeros((NUM_LANDMARKS, 2))
    moving = np.zeros(NUM_LANDMARKS, bool)
    for right, left, outwards, upwards in moves:
        motion[left] = outwards * across + upwards * up
        if right != left:
            motion[right] = -outwards * across + upwards * up
        moving[[right, left]] = True
    arrived = landmarks + motion
    distance = np.linalg.norm(landmarks[:, None] - arrived[moving], axis=-1).min(1)
    # Skin must not fold: what stays is farther away than anything moves.
    fixed = ~moving & (distance > max(_STILL * eye_width, 1.6 * np.linalg.norm(motion, axis=1).max()))
    used = moving | fixed
    kernel = _kernel(arrived[used], arrived[used], eye_width)
    weights = np.linalg.solve(kernel + _SMOOTHING * np.eye(len(kernel)), motion[used])
    return _kernel(points, arrived[used], eye_width) @ weights


def _kernel(points: np.ndarray, centers: np.ndarray, eye_width: float | np.floating) -> np.ndarray:
    """Computes Matern's function of smoothness 3/2. Unlike Gaussians it does not overshoot between landmarks."""
    square = (points**2).sum(-1)[:, None] + (centers**2).sum(-1) - 2 * points @ centers.T
    distance = np.sqrt(square.clip(0)) * (3**0.5 / (_RADIUS * eye_width))
    return (1 + distance) * np.exp(-distance)
