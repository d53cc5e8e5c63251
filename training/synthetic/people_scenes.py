"""The pictures of dialogues of people: an acting person before a camera that moves, and what may be in the way.

A person is cut out of the photograph where a background or somebody else stands behind.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ...processing.frame_files import read_picture
from .face_acting import ACTIONS, FaceActor, find_face
from .face_covers import OPAQUE, blend, draw_cover, draw_hand, paste
from .people_plan import PeopleDialogue
from .person_outline import find_outline
from .photographs import Person
from .picture_quality import Quality, draw_backdrop

try:
    import cv2
except ImportError:
    cv2 = None  # type: ignore[assignment]
else:
    _LOOK_UP = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP

_EYE_WIDTH = 160  # pixels between the outer corners of the eyes in the largest photograph that is kept
_SLIDE = 0.2  # seconds in which something comes before the face, or in which the face leaves the frame
_BYSTANDER = 0.42  # width of the second face, of that of a speaker alone


@dataclass(frozen=True)
class Sitter:
    """A person whose photograph acts.

    Attributes:
        actor (`FaceActor`): The animated face.
        photograph (`np.ndarray` of shape `(H, W, 3)`): The uint8 photograph of the face at rest.
        face (`np.ndarray` of shape `(478, 2)`): The landmarks of the face in its pixels.
    """

    actor: FaceActor
    photograph: np.ndarray
    face: np.ndarray

    @cached_property
    def mask(self) -> np.ndarray:
        """How far each pixel of the photograph is the person's: int16 of shape `(H, W)`, from 0 to `OPAQUE`."""
        return (find_outline(self.photograph, self.face) * OPAQUE).round().astype(np.int16)


def load_sitter(person: Person) -> Sitter:
    """Loads the photographs of a person.

    Args:
        person ([`Person`]): The person.

    Returns:
        [`Sitter`]: The person, who can act.

    Raises:
        ValueError: if a photograph is no image or shows no face. The message names the file.
    """
    photograph, face = _load(person.neutral)
    smiling, smiling_face = (None, None) if person.smiling is None else _load(person.smiling)
    actor = FaceActor(photograph, face, smiling=smiling, smiling_face=smiling_face)
    return Sitter(actor, photograph, face[:, :2] * photograph.shape[1::-1])


def _load(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns a photograph, no larger than clips need it, and the landmarks of its face."""
    photograph = read_picture(path)
    try:
        face = find_face(photograph)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    scale = float(_EYE_WIDTH / np.linalg.norm((face[263, :2] - face[33, :2]) * photograph.shape[1::-1]))
    if scale < 1:
        photograph = cv2.resize(photograph, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return photograph, face


def people_pictures(
    dialogue: PeopleDialogue,
    sitters: Mapping[str, Sitter],
    openings: np.ndarray,
    rng: np.random.Generator,
) -> Iterator[np.ndarray]:
    """Renders the frames of a dialogue.

    Args:
        dialogue ([`PeopleDialogue`]): The dialogue.
        sitters (`Mapping[str, Sitter]`): The people by name.
        openings (`np.ndarray` of shape `(people + 1, T)`): How far each voice opens the mouth in every frame.
        rng (`np.random.Generator`): The generator of camera, light, backgrounds and what is in the way.

    Yields:
        `np.ndarray` of shape `(height, width, 3)`: T uint8 RGB frames.
    """
    quality, grain_rng = _quality(dialogue.conditions, rng), np.random.default_rng(rng.integers(2**32))
    is_faceless = "no_face" in dialogue.conditions
    pictures = _without_face(dialogue, rng) if is_faceless else _acted(dialogue, sitters, openings, rng)
    for picture in pictures:
        yield picture if quality == Quality() else quality.apply(picture, grain_rng)


@dataclass
class _Take:
    """One person before the camera: the view, the middle and the width of the face (as shares of the frame) in every
    frame of the clip, and the pictures of those frames in which the person is shown.
    """

    sitter: Sitter
    views: np.ndarray
    middles: np.ndarray
    width: float
    pictures: Iterator[np.ndarray]

    def mask(self, frame: int, size: tuple[int, int]) -> np.ndarray:
        return cv2.warpAffine(
            self.sitter.mask, self.views[frame], size, flags=_LOOK_UP, borderMode=cv2.BORDER_REPLICATE
        )


def _acted(
    dialogue: PeopleDialogue, sitters: Mapping[str, Sitter], openings: np.ndarray, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Renders who is in shot, perhaps before a background and another person, perhaps behind something."""
    size, slides = dialogue.size, _slides(dialogue)
    sway, side = _sway(dialogue.times, rng), float(rng.choice([-1.0, 1.0]))
    if "out_of_frame" in dialogue.conditions:
        sway[:, 0] += side * slides * 60  # far enough for any face
    has_second = dialogue.bystander is not None
    shift, scale = (np.array([-0.15 * side, 0.03]), 0.8) if has_second else (np.zeros(2), 1.0)
    background = draw_backdrop(size, rng) if "background" in dialogue.conditions else None
    takes = [
        _take(dialogue, sitters[name], person, openings[person], sway, shift, scale, background, rng)
        for person, name in enumerate(dialogue.people)
    ]
    second = None
    if dialogue.bystander is not None:
        shift, number = np.array([0.3 * side, rng.uniform(-0.06, 0.04)]), len(takes)
        sitter = sitters[dialogue.bystander]
        second = _take(dialogue, sitter, number, openings[number], sway, shift, _BYSTANDER, None, rng)
    width = max(take.width for take in takes)
    cover = draw_cover(round(2.0 * width * size[0]), rng)
    for frame, person in enumerate(dialogue.in_shot.tolist()):
        take = takes[person]
        picture = next(take.pictures)
        if second is not None:
            behind = blend(next(second.pictures), picture, second.mask(frame, size))
            picture = blend(picture, behind, take.mask(frame, size))
        if "covered" in dialogue.conditions and slides[frame] > 0:
            right, down = take.middles[frame] + 0.5
            right += side * (1 - slides[frame]) * (0.5 + 1.1 * width)
            paste(picture, cover, (round(right * size[0]), round(down * size[1])))
        yield picture


def _take(
    dialogue: PeopleDialogue,
    sitter: Sitter,
    person: int,
    opening: np.ndarray,
    sway: np.ndarray,
    shift: np.ndarray,
    scale: float,
    background: np.ndarray | None,
    rng: np.random.Generator,
) -> _Take:
    width, height = dialogue.size
    # In an upright frame the face is wider, so that the photograph reaches down to its edge.
    face_width = scale * rng.uniform(0.32, 0.56) * np.clip(height / width, 0.0, 1.35)
    roll, flip = np.radians(rng.uniform(-6, 6)), bool(rng.random() < 0.5)
    middles = shift + rng.uniform(-0.05, 0.05, 2) + 0.02 * sway[:, :2]
    views = np.array(
        [
            sitter.actor.camera(
                dialogue.size, face_width * (1 + 0.05 * near), middle, roll + np.radians(2) * turn, flip
            )
            for middle, (near, turn) in zip(middles, sway[:, 2:], strict=True)
        ]
    )
    is_bystander = person == len(dialogue.people)
    shown = np.ones(len(sway), bool) if is_bystander else dialogue.in_shot == person
    values, real = dialogue.amplitudes(person, opening)
    values[:, list(ACTIONS).index("smile")] -= real
    light = rng.uniform(0.75, 1.2) * rng.uniform(0.94, 1.06, 3)
    turns, has_turns = rng.uniform(0.05, 0.25) * _sway(dialogue.times, rng)[:, :2], rng.random() < 0.5
    pictures = sitter.actor.act(
        values[shown],
        views[shown],
        dialogue.size,
        light,
        real_smile=real[shown] if real.any() else None,
        turns=turns[shown] if has_turns else None,
        backdrop=background,
    )
    return _Take(sitter, views, middles, face_width, pictures)


def _sway(times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns how far camera and head go right, down, nearer and round in every frame, (T, 4) from -1 to 1."""
    rates, phases = rng.uniform(0.08, 0.4, 4), rng.uniform(0, 2 * np.pi, 4)
    return rng.uniform(0.2, 1.0) * np.sin(2 * np.pi * times[:, None] * rates + phases)


def _slides(dialogue: PeopleDialogue) -> np.ndarray:
    """Returns from 0 to 1 how far something has come before the face in every frame, (T,)."""
    slides = np.zeros(len(dialogue.times))
    for utterance in dialogue.utterances:
        if not utterance.seen:
            since, until = dialogue.times - utterance.start, utterance.end - dialogue.times
            slides = np.maximum(slides, (1 + np.minimum(since, until) / _SLIDE).clip(0, 1))
    return slides


def _without_face(dialogue: PeopleDialogue, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Renders a camera that moves over a scene without a face, and perhaps hands in it."""
    width, height = dialogue.size
    margin = np.array([width, height]) // 8
    scene = draw_backdrop((width + 2 * int(margin[0]), height + 2 * int(margin[1])), rng)
    hands = [draw_hand(round(rng.uniform(0.3, 0.7) * height), rng) for _ in range(rng.choice([0, 0, 1, 2]))]
    places = rng.uniform(0.2, 0.8, (len(hands), 2))
    sway, moves = _sway(dialogue.times, rng), [_sway(dialogue.times, rng) for _ in hands]
    for frame in range(len(dialogue.times)):
        left, top = (margin * (1 + 0.9 * sway[frame, :2])).round().astype(int)
        picture = scene[top : top + height, left : left + width].copy()
        for hand, place, move in zip(hands, places, moves, strict=True):
            right, down = ((place + 0.15 * move[frame, :2]) * dialogue.size).round().astype(int)
            paste(picture, hand, (int(right), int(down)))
        yield picture


def _quality(conditions: Collection[str], rng: np.random.Generator) -> Quality:
    """Draws what a bad camera does to the frames."""
    gain, gamma = rng.uniform(0.35, 0.6), rng.uniform(1.0, 1.3)
    blur, grain, noise_in_the_dark = rng.uniform(0.005, 0.011), rng.uniform(6, 14), rng.uniform(2, 6)
    is_dark = "dark" in conditions
    return Quality(
        gamma=gamma if is_dark else 1.0,
        gains=(gain, gain, gain) if is_dark else (1.0, 1.0, 1.0),
        grey="grey" in conditions,
        blur=blur if "blur" in conditions else 0.0,
        grain=grain if "grain" in conditions else noise_in_the_dark if is_dark else 0.0,
    )
