"""A real smile: a person's neutral and smiling photographs are aligned by their landmarks and dissolve into each other."""

import numpy as np

from .skin_motion import Interpolation, eye_width_of, grid_round, refine

try:
    import cv2
except ImportError:
    cv2 = None  # type: ignore[assignment]

OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149),
    *(150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
UPPER_LIP = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)  # the inner edge, from the right corner to the left one
LOWER_LIP = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)
# Landmarks that a smile hardly moves: eye corners, the bridge of the nose, the temples.
_STILL = (33, 133, 362, 263, 168, 6, 197, 195, 127, 356, 10, 151, 9)
_STAGES = (0.0, 0.5, 1.0)  # amplitudes whose warps are computed; those between are interpolated
_NUM_SKIN = 468  # the landmarks after these are the irises, which look where they will
_RADIUS = 0.15  # of the radial basis functions, in eye widths
_OPEN = 0.02  # lips farther apart show what is behind them, in eye widths


class RealSmile:
    """Dissolves a photograph into one of the same person who smiles.

    Args:
        photograph (`np.ndarray` of shape `(H, W, 3)`): The uint8 photograph of the face at rest.
        landmarks (`np.ndarray` of shape `(478, 2)`): Its landmarks in pixels.
        smiling (`np.ndarray` of shape `(H', W', 3)`): The uint8 photograph of the smile.
        smiling_landmarks (`np.ndarray` of shape `(478, 2)`): Its landmarks in its pixels.
        step (`int`): The distance in pixels of the grid on which warps are computed.

    Attributes:
        picture (`np.ndarray` of shape `(H, W, 3)`): The smiling photograph, moved so that the still parts of both
            faces lie on each other.
        is_open (`bool`): Whether the smile shows teeth.
        lips (`np.ndarray` of shape `(11, 2)`): How far the line between the lips moves with the smile, in pixels.
    """

    def __init__(
        self,
        photograph: np.ndarray,
        landmarks: np.ndarray,
        smiling: np.ndarray,
        smiling_landmarks: np.ndarray,
        step: int,
    ):
        still = list(_STILL)
        to_rest, _ = cv2.estimateAffinePartial2D(smiling_landmarks[still], landmarks[still], method=cv2.LMEDS)
        if to_rest is None:
            raise ValueError("the smiling photograph does not fit the neutral one: their landmarks do not match")
        smile = smiling_landmarks @ to_rest[:, :2].T + to_rest[:, 2]
        picture = cv2.warpAffine(
            smiling, to_rest, photograph.shape[1::-1], flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE
        )
        self.picture = _match_colors(picture, smile, photograph, landmarks)
        lips = smile - landmarks
        self.lips = (lips[list(UPPER_LIP)] + lips[list(LOWER_LIP)]) / 2
        self._step = step
        self._corner, points = grid_round(np.concatenate([landmarks, smile]), step)
        eye_width = eye_width_of(landmarks)
        self.is_open = bool(np.linalg.norm(smile[13] - smile[14]) > _OPEN * eye_width)
        stages = []
        for amplitude in _STAGES:
            shape = landmarks + amplitude * (smile - landmarks)
            skin = shape[:_NUM_SKIN]
            moved = np.concatenate([skin - landmarks[:_NUM_SKIN], skin - smile[:_NUM_SKIN]], -1)
            motion = Interpolation(skin, moved, _RADIUS * eye_width)(points.reshape(-1, 2))
            face = self._cover(points, shape[list(OVAL)], 0.1 * eye_width)
            mouth = self._cover(points, shape[[*UPPER_LIP, *LOWER_LIP[::-1]]], 0.02 * eye_width) * self.is_open
            stages.append(np.dstack([motion.reshape(*points.shape[:2], 4), face, mouth]))
        self._stages = np.stack([np.dstack([refine(part) for part in np.split(stage, [3], -1)]) for stage in stages])

    def _cover(self, points: np.ndarray, outline: np.ndarray, softness: float) -> np.ndarray:
        """Computes the share 0..1 of an outline that covers each point `(h, w)`, with a soft edge inside it."""
        spacing = 2 * self._step
        mask: np.ndarray = np.zeros(points.shape[:2], np.float32)
        corners = (outline - points[0, 0]) / spacing
        cv2.fillPoly(mask, [np.round(corners * 16).astype(np.int32)], (1.0,), cv2.LINE_AA, 4)
        blurred = cv2.GaussianBlur(mask, (0, 0), max(softness / spacing, 0.3))
        return (2 * blurred - 1).clip(0, 1) if softness > spacing else blurred.clip(0, 1)

    def look_up(self, places: np.ndarray, amplitude: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Finds which pixels of both photographs a stage of the smile shows.

        Args:
            places (`np.ndarray` of shape `(h, w, 2)`): The float32 places in pixels of the resting photograph.
            amplitude (`float`): The stage of the smile: 0 is the resting face, 1 the whole smile.

        Returns:
            `tuple[np.ndarray, np.ndarray, np.ndarray]`: The places in the resting photograph and in `picture`, both
            `(h, w, 2)`, and the share of the latter `(h, w)`.
        """
        amplitude = float(np.clip(amplitude, 0, 1))
        at = amplitude * (len(_STAGES) - 1)
        first = min(int(at), len(_STAGES) - 2)
        stage = self._stages[first] + (at - first) * (self._stages[first + 1] - self._stages[first])
        where = (places - self._corner - (self._step - 1) / 2) / self._step
        seen = [
            cv2.remap(part, where.astype(np.float32), None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)  # type: ignore[call-overload]
            for part in (np.ascontiguousarray(stage[..., :3]), np.ascontiguousarray(stage[..., 3:]))
        ]
        seen = np.concatenate(seen, -1)
        skin = amplitude**2 * (3 - 2 * amplitude)
        # What is behind the lips comes from the smile as soon as they part: half of it would be a ghost of teeth.
        behind = min(1.0, amplitude / 0.2)
        share = seen[..., 4] * skin
        share += (behind - share) * seen[..., 5]
        return places - seen[..., :2], places - seen[..., 2:4], share


def _match_colors(
    picture: np.ndarray, landmarks: np.ndarray, model: np.ndarray, model_landmarks: np.ndarray
) -> np.ndarray:
    """Brings the mean colour of a face to that of another photograph of it."""
    means = []
    for image, points in ((picture, landmarks), (model, model_landmarks)):
        face: np.ndarray = np.zeros(image.shape[:2], np.uint8)
        cv2.fillPoly(face, [np.round(points[list(OVAL)]).astype(np.int32)], (1,))
        means.append(np.array(cv2.mean(image, face)[:3]))
    gains = means[1] / np.maximum(means[0], 1)
    return np.clip(picture * gains, 0, 255).round().astype(np.uint8)
