"""What a jaw that drops shows in a photograph: a dark mouth, not stretched lips."""

from collections.abc import Callable, Sequence

import numpy as np

from .real_smile import LOWER_LIP, UPPER_LIP
from .skin_motion import Moves, SkinMotion, eye_width_of, motions_round, moved_by

try:
    import cv2
except ImportError:
    cv2 = None  # type: ignore[assignment]

JAW_STAGES = (1 / 3, 2 / 3, 1.0)  # amplitudes for which the motion is computed, after 0
_INSIDE = 0.2  # the brightness of what is behind the lips, times that of the lips
_SUBPIXEL = 4  # bits


def jaw_motions(landmarks: np.ndarray, jaw: Moves, step: int, scale: float) -> np.ndarray:
    """Computes the motion of the skin at several amplitudes of the jaw.

    Half the motion of a jaw that drops is not the motion of half the drop: the lips part, and what is between them comes
    from nowhere.

    Args:
        landmarks (`np.ndarray` of shape `(478, 2)`): The landmarks in pixels.
        jaw (`Moves`): The action at amplitude 1.
        step (`int`): The distance of the grid's points in pixels.
        scale (`float`): A factor of the motions.

    Returns:
        `np.ndarray` of shape `(1 + len(JAW_STAGES), h, w, 2)`: The float32 motions, of amplitude 0 first.
    """
    stages = [tuple((right, left, stage * out, stage * up) for right, left, out, up in jaw) for stage in JAW_STAGES]
    motions = motions_round(landmarks, [SkinMotion(landmarks, stage) for stage in stages], step, scale)[1]
    return np.concatenate([np.zeros_like(motions[:1]), motions])


def stage_weights(amplitude: float) -> np.ndarray:
    """Computes the weights of the motions of [`jaw_motions`] whose sum is the motion at an amplitude.

    Args:
        amplitude (`float`): The amplitude; beyond 1 the last motion is enlarged.

    Returns:
        `np.ndarray` of shape `(1 + len(JAW_STAGES),)`: The weights.
    """
    stages = np.array([0.0, *JAW_STAGES])
    weights = np.zeros(len(stages))
    after = int(np.clip(np.searchsorted(stages, amplitude), 1, len(stages) - 1))
    share = (amplitude - stages[after - 1]) / (stages[after] - stages[after - 1])
    weights[after - 1], weights[after] = 1 - share, share
    return weights


class OpenMouth:
    """Paints the inside of a mouth that a jaw opens.

    Where the lips of the photograph are a little apart, what is seen between them stays at both edges of the opening.

    Args:
        photograph (`np.ndarray` of shape `(H, W, 3)`): The uint8 photograph.
        landmarks (`np.ndarray` of shape `(478, 2)`): Its landmarks in pixels.
        actions (`Sequence[SkinMotion]`): All actions of this face.
        jaw (`int`): The index of the one that opens the mouth.
        parting (`Moves`): How it moves the landmarks.
    """

    def __init__(
        self, photograph: np.ndarray, landmarks: np.ndarray, actions: Sequence[SkinMotion], jaw: int, parting: Moves
    ):
        self._jaw = jaw
        self._eye_width = eye_width_of(landmarks)
        self._line = (landmarks[list(UPPER_LIP)] + landmarks[list(LOWER_LIP)]) / 2
        self._shifts = np.stack([action.follow(self._line, 8) - self._line for action in actions])
        self._shifts[jaw] = 0
        motion, moving = moved_by(landmarks, parting)
        self._parted = np.stack([_along(lip, motion, moving) for lip in (UPPER_LIP, LOWER_LIP)])
        lips: np.ndarray = np.zeros(photograph.shape[:2], np.uint8)
        cv2.fillPoly(lips, [np.round(landmarks[[61, 37, 267, 291, 314, 84]]).astype(np.int32)], (1,))
        color = np.array(cv2.mean(photograph, lips)[:3])
        self._color = _INSIDE * color * [1.1, 0.75, 0.75]

    def paint(
        self, frame: np.ndarray, amplitudes: np.ndarray, smile: np.ndarray | float, to_frame: Callable
    ) -> np.ndarray:
        """Paints the opening into a frame.

        Args:
            frame (`np.ndarray` of shape `(height, width, 3)`): The uint8 frame.
            amplitudes (`np.ndarray` of shape `(A,)`): The amplitudes of the actions.
            smile (`np.ndarray` of shape `(11, 2)` or `float`): How far a real smile has moved the lips, in pixels of
                the photograph.
            to_frame (`Callable`): A function from places in the photograph `(n, 2)` to those in the frame.

        Returns:
            `np.ndarray` of shape `(height, width, 3)`: The frame with the opening.
        """
        amplitude = float(amplitudes[self._jaw])
        line = self._line + np.tensordot(np.asarray(amplitudes), self._shifts, 1) + smile
        upper, lower = line + amplitude * self._parted
        outline = to_frame(np.concatenate([upper, lower[-2:0:-1]]))
        size = np.linalg.norm(to_frame(line)[-1] - to_frame(line)[0])
        gap = amplitude * np.linalg.norm(self._parted[1, 5] - self._parted[0, 5])
        seen = np.clip(gap / (0.015 * self._eye_width) - 0.5, 0, 1)
        if seen <= 0 or not np.isfinite(outline).all():
            return frame
        pad = 3 + int(0.1 * size)
        low = np.clip(np.floor(outline.min(0)).astype(int) - pad, 0, frame.shape[1::-1])
        high = np.clip(np.ceil(outline.max(0)).astype(int) + pad + 1, 0, frame.shape[1::-1])
        if (high <= low).any():
            return frame
        mask: np.ndarray = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
        corners = np.round((outline - low) * (1 << _SUBPIXEL)).astype(np.int32)
        cv2.fillPoly(mask, [corners], (255,), cv2.LINE_AA, _SUBPIXEL)
        softness = max(0.5, float(0.02 * size))
        alpha = cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), softness)[..., None] * seen
        part = frame[low[1] : high[1], low[0] : high[0]]
        frame[low[1] : high[1], low[0] : high[0]] = (part * (1 - alpha) + self._color * alpha).round().astype(np.uint8)
        return frame


def _along(lip: tuple[int, ...], motion: np.ndarray, moving: np.ndarray) -> np.ndarray:
    """Spreads the motion of some landmarks of a lip over all of it; its corners go with those of the mouth."""
    known = {0: motion[61], len(lip) - 1: motion[291]}
    known |= {place: motion[index] for place, index in enumerate(lip) if moving[index]}
    places = sorted(known)
    return np.stack(
        [np.interp(range(len(lip)), places, [known[place][axis] for place in places]) for axis in (0, 1)], -1
    )
