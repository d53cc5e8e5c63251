"""Animation of a photographed face: facial actions are smooth warps around face-mesh landmarks.

Each action (named after its visible motion, with its number in the Facial Action Coding System, Ekman and Friesen
1978) moves some landmarks. Radial basis functions interpolate the motion over the skin between them, and let it fade
around them. A [`FaceActor`] computes these fields once for its photograph; a frame is then their weighted sum and one
look-up for each pixel.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import cache, cached_property

import numpy as np

from ...processing.faces.face_mesh import FaceMesh, largest_face
from .head_turn import HeadTurn
from .open_mouth import OpenMouth, jaw_motions, stage_weights
from .person_outline import find_outline
from .real_smile import RealSmile
from .skin_motion import Moves, SkinMotion, eye_width_of, motions_round

try:
    import cv2
except ImportError:
    cv2 = None  # type: ignore[assignment]
else:
    _LINEAR = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP

# See `Moves`.
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
ACTIONS: dict[str, Moves] = {
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
# The astronaut smiles broadly in her photograph. These motions bring her face to rest: lips closed, corners level.
TO_REST: Moves = (
    *((61, 291, -0.09, -0.09), (78, 308, -0.085, -0.085), (40, 270, -0.06, -0.075), (91, 321, -0.06, -0.04)),
    *((13, 13, 0, -0.05), (82, 312, 0.0, -0.055), (81, 311, -0.01, -0.06), (80, 310, -0.03, -0.07)),
    *((14, 14, 0, 0.05), (87, 317, 0.0, 0.045), (178, 402, -0.01, 0.04), (88, 318, -0.02, 0.01)),
    *((0, 0, 0, -0.025), (37, 267, 0, -0.035), (39, 269, -0.02, -0.055), (17, 17, 0, 0.03), (84, 314, 0, 0.025)),
    *((205, 425, -0.02, -0.05), (50, 280, 0.0, -0.03), (43, 273, -0.02, -0.03)),
)
_NAMES = list(ACTIONS)
_JAW, _BLINK = _NAMES.index("jaw"), _NAMES.index("blink")
# The mouth's opening, painted dark: closed lips then meet in a line, and the jaw opens a dark mouth, not long teeth.
_MOUTH = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95)
_MOUTH_COLOR = (80, 38, 36)

_LARGE = 100.0  # pixels of an eye width: larger faces are large enough as they are
# Thick brows reach below the landmarks: the skin under them goes up with them, so that they do not become longer. (The
# astronaut acts without, as she did when the corpus of microemo-tiny was made.)
_UNDER_BROWS: Moves = ((223, 443, 0, 0.09), (222, 442, 0, 0.09), (224, 444, 0, 0.085), (225, 445, 0, 0.075))
_EYE_OPENING = 0.114  # that `blink` closes, in eye widths
_LARGEST = 200.0  # pixels of an eye width: larger photographs are made smaller
_FINEST = 36  # points of the motion's grid in an eye width, at least


class FaceActor:
    """Animates the face in a photograph.

    Args:
        photograph (`np.ndarray` of shape `(H, W, 3)`):
            A uint8 image with a face, at rest unless `rest` brings it there.
        face (`np.ndarray` of shape `(478, 3)`, *optional*):
            The landmarks of the face. By default [`find_face`] detects them. `(478, 2)` will do for a head that does not
            turn.
        smiling (`np.ndarray` of shape `(H', W', 3)`, *optional*):
            A uint8 image of the same person who smiles, for [`real_smile`](FaceActor.act).
        rest (`Moves`, *optional*, defaults to `()`):
            The motions that bring the face of the photograph to rest, such as `TO_REST` for an open smile. The opening
            of the mouth is then painted dark before.
        smiling_face (`np.ndarray` of shape `(478, 3)`, *optional*):
            The landmarks of the smiling face. By default [`find_face`] detects them.

    Attributes:
        landmarks (`np.ndarray` of shape `(478, 2)`): The landmarks of the resting face, in pixels of the photograph.
        eye_width (`float`): The distance of the outer eye corners, in pixels of the photograph.
        can_smile (`bool`): Whether there is a photograph of a real smile.

    Raises:
        ImportError: if MediaPipe or OpenCV is not installed.
        ValueError: if there is no face in a photograph.
    """

    def __init__(
        self,
        photograph: np.ndarray,
        face: np.ndarray | None = None,
        smiling: np.ndarray | None = None,
        rest: Moves = (),
        smiling_face: np.ndarray | None = None,
    ):
        if cv2 is None:
            raise ImportError("faces act with OpenCV, which comes with MediaPipe: pip install mediapipe")
        mesh = find_face(photograph) if face is None else face
        photograph = _shrink(photograph, mesh)
        size = np.array(photograph.shape[1::-1])
        face = mesh[:, :2] * size
        # Pixels of the resting face for one of the photograph, and pixels of the photograph between points of a grid.
        self._detail = 2 if eye_width_of(face) < _LARGE else 1
        self._step = max(1, int(eye_width_of(face) / _FINEST))
        self._offset = (self._detail - 1) / 2  # pixels count from their centres
        self.landmarks = face.astype(np.float64)
        large = photograph
        if self._detail > 1:
            large = cv2.resize(photograph, None, fx=self._detail, fy=self._detail, interpolation=cv2.INTER_CUBIC)
        self._rest = self._to_rest(large, face, rest) if rest else large
        self.eye_width = eye_width_of(self.landmarks)
        actions = [SkinMotion(self.landmarks, moves) for moves in (ACTIONS.values() if rest else self._actions())]
        self._corner, self._motions = motions_round(self.landmarks, actions, self._step, self._detail)
        self._photograph = photograph
        self._depth = mesh[:, 2:] * size[0]
        self._mouth: OpenMouth | None = None
        self._jaw_stages: np.ndarray | None = None
        if not rest:
            self._mouth = OpenMouth(photograph, self.landmarks, actions, _JAW, ACTIONS["jaw"])
            self._jaw_stages = jaw_motions(self.landmarks, ACTIONS["jaw"], self._step, self._detail)
        self._smile: RealSmile | None = None
        if smiling is not None:
            smiling_face = find_face(smiling) if smiling_face is None else smiling_face
            smiling = _shrink(smiling, smiling_face)
            points = smiling_face[:, :2] * smiling.shape[1::-1]
            self._smile = RealSmile(photograph, self.landmarks, smiling, points, self._step)

    @property
    def can_smile(self) -> bool:
        """Whether there is a photograph of a real smile."""
        return self._smile is not None

    def _actions(self) -> list[Moves]:
        """Returns the actions; eyes that are wider open have farther to close."""
        lids = self.landmarks[[159, 145, 386, 374]]
        opening = (np.linalg.norm(lids[0] - lids[1]) + np.linalg.norm(lids[2] - lids[3])) / 2 / self.eye_width
        far = float(np.clip(opening / _EYE_OPENING, 0.5, 1.5))
        blink = tuple((right, left, out, far * up) for right, left, out, up in ACTIONS["blink"])
        return list((ACTIONS | {"blink": blink, "brow_raise": ACTIONS["brow_raise"] + _UNDER_BROWS}).values())

    def _to_rest(self, large: np.ndarray, face: np.ndarray, rest: Moves) -> np.ndarray:
        """Returns the enlarged photograph with the mouth painted dark and the face at rest, and moves the landmarks."""
        detail = self._detail
        mouth: np.ndarray = np.zeros(large.shape[:2], np.float32)
        cv2.fillPoly(mouth, [np.round(face[list(_MOUTH)] * detail).astype(np.int32)], (1.0,))
        mouth = cv2.GaussianBlur(mouth, (0, 0), 0.6 * detail)[..., None]
        large = (large * (1 - mouth) + _MOUTH_COLOR * mouth).astype(np.uint8)

        (left, top), motion = motions_round(face, [SkinMotion(face, rest)], scale=detail)
        motion = cv2.resize(motion[0], None, fx=detail, fy=detail)
        height, width = motion.shape[:2]
        source = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1) - motion
        area = np.s_[detail * top : detail * top + height, detail * left : detail * left + width]
        at_rest = large.copy()
        at_rest[area] = _look_up(large[area], source.astype(np.float32), cv2.INTER_CUBIC)
        self.landmarks = SkinMotion(face, rest).follow(face)
        return at_rest

    def act(
        self,
        amplitudes: np.ndarray,
        cameras: np.ndarray,
        size: tuple[int, int],
        light: Iterable[float] = (1.0, 1.0, 1.0),
        real_smile: np.ndarray | None = None,
        turns: np.ndarray | None = None,
        backdrop: np.ndarray | None = None,
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
            real_smile (`np.ndarray` of shape `(T,)`, *optional*):
                The stages of the person's own smile: 0 is the resting face, 1 the face of the smiling photograph.
            turns (`np.ndarray` of shape `(T, 2)`, *optional*):
                The angles in radians by which the head turns to the right of the photograph and down; up to 0.3 looks
                right.
            backdrop (`np.ndarray` of shape `(height, width, 3)`, *optional*):
                A uint8 picture to stand behind the person in place of the photograph's background.

        Yields:
            `np.ndarray` of shape `(height, width, 3)`: T uint8 RGB frames.

        Raises:
            ValueError: if there is a real smile to show, but no photograph of it.
        """
        if real_smile is not None and np.any(real_smile) and self._smile is None:
            raise ValueError("a real smile needs the photograph of one: FaceActor(photograph, smiling=PHOTOGRAPH)")
        levels = [np.clip(np.arange(256) * gain, 0, 255) for gain in light]
        tables = np.stack(levels, -1).round().astype(np.uint8)[:, None]
        amplitudes = np.asarray(amplitudes, np.float32)
        plain = self._jaw_stages is None and real_smile is None and turns is None and backdrop is None
        smiles = np.zeros(len(amplitudes)) if real_smile is None else np.asarray(real_smile, float)
        angles = np.zeros((len(amplitudes), 2)) if turns is None else np.asarray(turns, float)
        for amplitude, view, smile, turn in zip(amplitudes, np.asarray(cameras), smiles, angles, strict=True):
            if plain:
                frame = self._frame(amplitude, view, size)
            else:
                frame = self._rich_frame(amplitude, view, size, smile, turn, backdrop)
            yield cv2.LUT(frame, tables)

    def _frame(self, amplitude: np.ndarray, view: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Renders a frame of the actions alone. Only the part of the frame where the face is moves."""
        detail, (height, width) = self._detail, self._motions.shape[1:3]
        to_photograph = detail * view + [[0, 0, self._offset], [0, 0, self._offset]]
        frame = cv2.warpAffine(self._rest, to_photograph, size, flags=_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        corners = self._corner + np.array([[0, 0], [width, 0], [0, height], [width, height]]) * self._step
        face = (corners - view[:, 2]) @ np.linalg.inv(view[:, :2]).T
        left, top = np.clip(np.floor(face.min(0)).astype(int), 0, size)
        right, bottom = np.clip(np.ceil(face.max(0)).astype(int), 0, size)
        if right > left and bottom > top:
            motion = self._motion(amplitude)
            to_motion = view.copy()
            to_motion[:, 2] += view[:, :2] @ (left, top) - self._corner - (self._step - 1) / 2
            to_motion = to_motion / self._step
            motion = cv2.warpAffine(motion, to_motion, (int(right - left), int(bottom - top)), flags=_LINEAR)
            across = to_photograph[:, 0] * np.arange(left, right)[:, None] + to_photograph[:, 2]
            down = to_photograph[:, 1] * np.arange(top, bottom)[:, None]
            source = (across.astype(np.float32) + down.astype(np.float32)[:, None]) - motion
            frame[top:bottom, left:right] = _look_up(self._rest, source, cv2.INTER_LINEAR)
        return frame

    def _motion(self, amplitude: np.ndarray) -> np.ndarray:
        """Returns the motion (h, w, 2) of the skin in pixels of the enlarged photograph."""
        shape = self._motions.shape[1:]
        motions = self._motions.reshape(len(self._motions), -1)
        if self._jaw_stages is None:
            return (amplitude @ motions).reshape(shape)
        others = amplitude * (np.arange(len(amplitude)) != _JAW)
        motion = others.astype(np.float32) @ motions
        if amplitude[_JAW] > 0:
            weights = stage_weights(amplitude[_JAW]).astype(np.float32)
            motion += weights @ self._jaw_stages.reshape(len(weights), -1)
        return motion.reshape(shape)

    def _rich_frame(
        self,
        amplitude: np.ndarray,
        view: np.ndarray,
        size: tuple[int, int],
        smile: float,
        turn: np.ndarray,
        backdrop: np.ndarray | None,
    ) -> np.ndarray:
        """Renders a frame: from its pixels back to before the turn, to before the actions, to both photographs."""
        across = view[:, 0] * np.arange(size[0])[:, None] + view[:, 2]
        down = view[:, 1] * np.arange(size[1])[:, None]
        places = across.astype(np.float32) + down.astype(np.float32)[:, None]
        if turn.any():
            places = self._turning.unturn(places, *turn)
        corner = (self._corner + (self._step - 1) / 2).astype(np.float32)
        motion = self._motion(amplitude) / np.float32(self._detail)
        where = (places - corner) * np.float32(1 / self._step)
        skin = places - cv2.remap(motion, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)  # type: ignore[call-overload]
        level = max(0, int(np.log2(max(1.0, self._detail * np.sqrt(abs(np.linalg.det(view[:, :2])))))))
        lips: np.ndarray | float = 0.0
        if smile > 0 and self._smile is not None:
            at_rest, smiling, share = self._smile.look_up(skin, smile)
            frame = self._seen("rest", at_rest, level).astype(np.float32)
            frame += (self._seen("smile", smiling, level) - frame) * share[..., None]
            frame = frame.round().astype(np.uint8)
            # Where teeth are seen, the jaw parts them where the lips met: they do not stretch either.
            lips = 0.0 if self._smile.is_open else smile * self._smile.lips
        else:
            frame = self._seen("rest", skin, level)
        if self._mouth is not None and amplitude[_JAW] > 0:

            def to_frame(points: np.ndarray) -> np.ndarray:
                points = self._turning.turn(points, *turn) if turn.any() else points
                return (points - view[:, 2]) @ np.linalg.inv(view[:, :2]).T

            frame = self._mouth.paint(frame, amplitude, lips, to_frame)
        if backdrop is not None:
            person = self._seen("outline", places, level)[..., None].astype(np.float32) / 255
            behind = backdrop.astype(np.float32)
            frame = (behind + (frame - behind) * person).round().astype(np.uint8)
        return frame

    @cached_property
    def _turning(self) -> HeadTurn:
        mesh = np.column_stack([self.landmarks, self._depth])
        height, width = self._photograph.shape[:2]
        return HeadTurn(mesh, (width, height))

    @cache  # noqa: B019  # an actor lives as long as its process
    def _texture(self, name: str, level: int) -> np.ndarray:
        """Returns a picture in pixels of the photograph, as often halved as `level` says."""
        if level:
            return cv2.resize(self._texture(name, level - 1), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        if name == "rest":
            return self._rest
        picture = self._smile.picture if name == "smile" and self._smile is not None else self._outline()
        return cv2.resize(picture, self._rest.shape[1::-1], interpolation=cv2.INTER_CUBIC)

    def _outline(self) -> np.ndarray:
        return (255 * find_outline(self._photograph, self.landmarks)).round().astype(np.uint8)

    def _seen(self, name: str, places: np.ndarray, level: int) -> np.ndarray:
        """Reads a picture at places (h, w, 2) of the photograph."""
        texture = self._texture(name, level)
        scale = (np.array(texture.shape[1::-1]) / self._photograph.shape[1::-1]).astype(np.float32)
        return _look_up(texture, (places + np.float32(0.5)) * scale - np.float32(0.5), cv2.INTER_LINEAR)

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


def _shrink(photograph: np.ndarray, face: np.ndarray) -> np.ndarray:
    """Makes a photograph smaller whose face is larger than any frame shows it."""
    scale = _LARGEST / eye_width_of(face[:, :2] * photograph.shape[1::-1])
    if scale >= 1:
        return photograph
    return cv2.resize(photograph, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
