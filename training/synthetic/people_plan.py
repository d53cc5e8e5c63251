"""The plan of a dialogue of people who act: all that happens in a clip is decided before a frame of it is made.

In every utterance a person acts one facial clue while a recording of a voice of the same gender is heard, and the clue
is independent of the emotion that is heard. A third of the clues are held: they are there before the utterance and
stay after it. Expressions between utterances and blinks are distractors. Some clips lack
a face, a voice or subtitles, or have one of the other [`CONDITIONS`].
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, pairwise
from typing import Any

import numpy as np

from .dialogue_plan import CLUES, SPLITS, UNSEEN, Expression
from .face_acting import ACTIONS
from .photographs import Person
from .recordings import HEARD, Recording

# Pairs of a clue and an emotion heard that occur in a third of the test clips only.
UNSEEN_COMPANY = (
    ("smile", "sad"),
    ("frown", "happy"),
    ("lip_press", "fearful"),
    ("brow_raise", "angry"),
    ("brow_furrow", "surprised"),
    ("eye_widening", "calm"),
)
# What may be peculiar about a clip, and the share of clips. Of each group one at most is drawn.
CONDITIONS: dict[str, dict[str, float]] = {
    "faces": {"no_face": 0.06, "covered": 0.05, "out_of_frame": 0.03, "second_face": 0.1},
    "voice": {"no_sound": 0.05, "silent": 0.03, "no_speech": 0.03},
    "company": {"noise": 0.16, "music": 0.07},
    "words": {"no_subtitles": 0.1, "no_words": 0.06},
    "picture": {"dark": 0.05, "blur": 0.05, "grain": 0.06, "compressed": 0.07},
    "colour": {"grey": 0.06},
    "backdrop": {"background": 0.5},
}
# Width and height in pixels, and how common each is. Small ones are cheap.
_SIZES: dict[tuple[int, int], float] = {
    (160, 160): 10,
    (192, 192): 14,
    (224, 224): 12,
    (192, 144): 12,
    (224, 168): 10,
    (240, 180): 6,
    (256, 144): 12,
    (144, 192): 5,
    (144, 256): 5,
    (320, 180): 4,
    (96, 96): 3,
    (320, 240): 2,
    (240, 320): 1.5,
    (480, 270): 1.5,
    (360, 480): 0.5,
    (480, 360): 0.5,
    (640, 360): 1,
}
_RATES: dict[int, float] = {5: 3, 8: 8, 10: 20, 12: 36, 15: 24, 20: 3, 24: 2, 25: 3, 30: 1}
_COUNTS: dict[int, float] = {
    1: 24, 2: 25, 3: 20, 4: 12, 5: 7, 6: 4, 7: 2, 8: 1.5, 9: 1, 10: 1, 11: 1, 12: 1.5,
}  # fmt: skip
_MOST_SECONDS = 60.0
_MOST_PIXELS = 9e6  # of all frames of a clip; what is larger has fewer frames a second
# Shares of clips that are as short and as long as any.
_SHORT, _LONG = 0.02, 0.012
# The share of expressions that are there before the utterance and stay after it, as on a face that smiles all the time.
_HELD = 0.35


@dataclass(frozen=True)
class PeopleUtterance:
    """What one person says, and what the face shows meanwhile.

    Attributes:
        start (`float`): The start of the speech in seconds.
        end (`float`): The end of the speech in seconds.
        text (`str`): The words.
        person (`int`): The index of the person among those of the dialogue.
        clue (`str`): The facial clue, a name of [`CLUES`].
        parts (`tuple[tuple[float, Recording], ...]`):
            The recordings that are heard, all of one speaker and emotion, and when each begins.
        expression (`Expression`, *optional*): What the face does; `None` where it stays at rest.
        real_smile (`bool`): Whether the smile is that of the person's own smiling photograph.
        seen (`bool`): Whether the face can be seen.
    """

    start: float
    end: float
    text: str
    person: int
    clue: str
    parts: tuple[tuple[float, Recording], ...]
    expression: Expression | None = None
    real_smile: bool = False
    seen: bool = True

    @property
    def heard(self) -> str:
        """The emotion of the voice, one of `HEARD`."""
        return self.parts[0][1].emotion


@dataclass(frozen=True)
class Acting:
    """What one person does besides speaking.

    Attributes:
        distractors (`tuple[tuple[Expression, bool], ...]`):
            The expressions between utterances, and whether each is the smile of the person's own smiling photograph.
        blinks (`tuple[Expression, ...]`): The blinks.
        jaw (`float`): How far the mouth opens; 1 is the full motion of the jaw.
        habit (`tuple[float, ...]`): The amplitude of each facial action at rest.
    """

    distractors: tuple[tuple[Expression, bool], ...]
    blinks: tuple[Expression, ...]
    jaw: float
    habit: tuple[float, ...]


@dataclass(frozen=True)
class PeopleDialogue:
    """The plan of a clip; see [`plan_people`].

    Attributes:
        name (`str`): The name of the clip.
        split (`str`): The split in the table: one of `SPLITS`, or `UNSEEN`.
        seed (`int`): The seed.
        index (`int`): The index of the clip in its seed and split.
        seconds (`float`): The duration in seconds.
        fps (`int`): The frames per second.
        size (`tuple[int, int]`): Width and height in pixels.
        people (`tuple[str, ...]`): The names of the persons who speak, in the order in which they first do.
        bystander (`str`, *optional*): The name of the person whose face is the second one, where there is one.
        utterances (`tuple[PeopleUtterance, ...]`): The utterances.
        acting (`tuple[Acting, ...]`): What each person does besides speaking, the bystander last.
        shots (`tuple[tuple[float, int], ...]`): When the camera turns to a person, and to whom.
        conditions (`tuple[str, ...]`): Names of [`CONDITIONS`].
    """

    name: str
    split: str
    seed: int
    index: int
    seconds: float
    fps: int
    size: tuple[int, int]
    people: tuple[str, ...]
    bystander: str | None
    utterances: tuple[PeopleUtterance, ...]
    acting: tuple[Acting, ...]
    shots: tuple[tuple[float, int], ...]
    conditions: tuple[str, ...] = field(default=())

    @property
    def times(self) -> np.ndarray:
        """The times of the frames in seconds, of shape `(T,)`."""
        return np.arange(max(1, round(self.seconds * self.fps))) / self.fps

    @property
    def in_shot(self) -> np.ndarray:
        """The index of the person before the camera in every frame, of shape `(T,)`."""
        starts = [start for start, _ in self.shots]
        shot = np.searchsorted(starts, self.times + 1e-9, side="right") - 1
        return np.array([person for _, person in self.shots])[shot]

    @property
    def hidden(self) -> np.ndarray:
        """Whether the face is hidden in every frame, of shape `(T,)`."""
        if "no_face" in self.conditions:
            return np.ones(len(self.times), bool)
        hidden = np.zeros(len(self.times), bool)
        for utterance in self.utterances:
            if not utterance.seen:
                hidden |= (self.times >= utterance.start) & (self.times < utterance.end)
        return hidden

    def amplitudes(self, person: int, opening: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Computes the amplitudes of all facial actions of a person in every frame.

        Args:
            person (`int`): The index of the person; that of the bystander is the number of people.
            opening (`np.ndarray` of shape `(T,)`): How far the voice opens the mouth in every frame, from 0 to 1.

        Returns:
            `tuple[np.ndarray, np.ndarray]`: The amplitudes of shape `(T, A)`, and the part of the smile, of shape
            `(T,)`, that is the smile of the person's own smiling photograph.
        """
        acting, times, actions = self.acting[person], self.times, list(ACTIONS)
        values, real = np.tile(acting.habit, (len(times), 1)), np.zeros(len(times))
        spoken = [
            (utterance.expression, utterance.real_smile)
            for utterance in self.utterances
            if utterance.person == person and utterance.expression
        ]
        for expression, is_real in [*spoken, *acting.distractors, *((blink, False) for blink in acting.blinks)]:
            amplitude = expression.amplitudes(times)
            values[:, actions.index(expression.action)] += amplitude
            if is_real:
                real += amplitude
        pressed = values[:, actions.index("lip_press")].clip(0, 1)
        values[:, actions.index("jaw")] += acting.jaw * opening * (1 - 0.8 * pressed)
        return values, real


def plan_people(
    seed: int,
    split: str,
    index: int,
    people: Sequence[Person],
    recordings: Sequence[Recording],
) -> PeopleDialogue:
    """Plans a clip. The same arguments always give the same clip.

    Pairs, voices, times, faces, conditions and so on are drawn from separate random streams, so that none depends on
    another.

    Args:
        seed (`int`): The seed.
        split (`str`): One of `SPLITS`.
        index (`int`): The index of the clip.
        people (`Sequence[Person]`): The people of the split.
        recordings (`Sequence[Recording]`): The recordings of the split.

    Returns:
        [`PeopleDialogue`]: The plan.

    Raises:
        ValueError: if the split is unknown, or if there are no people or no recordings.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    if not people or not recordings:
        raise ValueError(f"no {'recordings' if people else 'people'} to make dialogues of")
    pair_rng, cast_rng, voice_rng, time_rng, face_rng, condition_rng = people_streams(seed, split, index)[:6]
    is_short, is_long = (time_rng.random() < share for share in (_SHORT, _LONG))
    count = 1 if is_short else int(time_rng.integers(10, 13)) if is_long else _pick(_COUNTS, time_rng)
    cast, bystander = _cast(people, recordings, count, cast_rng)
    turns = _turns(count, len(cast), cast_rng)
    has_unseen = split == "test" and index % 3 == 2
    pairs = _draw_pairs([_emotions(cast[person][1]) for person in turns], has_unseen, pair_rng)
    said = _draw_speech([(cast[person][1], heard) for person, (_, heard) in zip(turns, pairs, strict=True)], voice_rng)
    if is_short:
        length = round(float(time_rng.uniform(0.6, 1.1)), 3)
        first = said[0][0]
        said = [(replace(first, end=min(first.end, round(first.start + length, 3))),)]
    utterances, seconds = _place(turns, pairs, said, is_short, is_long, time_rng)
    conditions = _draw_conditions(is_short, bystander is not None, condition_rng)
    utterances = [_act(utterance, cast[utterance.person][0].smiling is not None, face_rng) for utterance in utterances]
    utterances = _hold(utterances, seconds, face_rng)
    utterances = _hide(utterances, conditions, condition_rng)
    acting = [
        _draw_acting(_gaps(utterances, place, seconds), seconds, person.smiling is not None, face_rng)
        for place, person in enumerate([*(person for person, _ in cast), *([bystander] if bystander else [])])
    ]
    size = _pick(_SIZES, time_rng)
    fps = _pick(_RATES, time_rng)
    while fps > 8 and size[0] * size[1] * fps * seconds > _MOST_PIXELS:
        fps = max(rate for rate in _RATES if rate < fps)
    is_unseen = any((utterance.clue, utterance.heard) in UNSEEN_COMPANY for utterance in utterances)
    return PeopleDialogue(
        name=f"people-{split}-{seed}-{index:05d}",
        split=UNSEEN if is_unseen else split,
        seed=seed,
        index=index,
        seconds=seconds,
        fps=fps,
        size=size,
        people=tuple(person.id for person, _ in cast),
        bystander=bystander.id if bystander and "second_face" in conditions else None,
        utterances=tuple(utterances),
        acting=tuple(acting),
        shots=_draw_shots(utterances, time_rng),
        conditions=conditions,
    )


def people_streams(seed: int, split: str, index: int) -> list[np.random.Generator]:
    """Makes nine independent random generators for a clip, which no other clip and no clip of the astronaut has.

    Args:
        seed (`int`): The seed.
        split (`str`): One of `SPLITS`.
        index (`int`): The index of the clip.

    Returns:
        `list[np.random.Generator]`: The generators: six of the plan, then those of picture, sound and words.
    """
    sequence = np.random.SeedSequence([seed, SPLITS.index(split), index, 19])
    return [np.random.default_rng(child) for child in sequence.spawn(9)]


def _pick(shares: dict[Any, float], rng: np.random.Generator) -> Any:
    weights = np.array(list(shares.values()), float)
    return list(shares)[rng.choice(len(weights), p=weights / weights.sum())]


def _emotions(speech: Sequence[Recording]) -> list[str]:
    return sorted({recording.emotion for recording in speech}, key=HEARD.index)


def _cast(
    people: Sequence[Person], recordings: Sequence[Recording], count: int, rng: np.random.Generator
) -> tuple[list[tuple[Person, list[Recording]]], Person | None]:
    """Draws one or two people with a voice each, and another person who may stand behind them."""
    voices = {
        speaker: list(own)
        for speaker, own in groupby(sorted(recordings, key=lambda one: one.speaker), lambda one: one.speaker)
    }
    wanted = min(2 if count > 1 and rng.random() < 0.45 else 1, len(people))
    cast: list[tuple[Person, list[Recording]]] = []
    order = [people[place] for place in rng.permutation(len(people))]
    for person in order[:wanted]:
        taken = {speech[0].speaker for _, speech in cast}
        free = {name: own for name, own in voices.items() if name not in taken} or voices
        fitting = [name for name, own in free.items() if not person.gender or own[0].gender in ("", person.gender)]
        cast.append((person, voices[str(rng.choice(fitting or list(free)))]))
    others = order[wanted:]
    # A second speaker who listens is the bystander as often as somebody who never speaks.
    return cast, others[0] if others else None


def _turns(count: int, people: int, rng: np.random.Generator) -> list[int]:
    """Draws who speaks when; the first person begins, and each of two says something."""
    turns = [0]
    for _ in range(count - 1):
        turns.append(1 - turns[-1] if people == 2 and rng.random() < 0.65 else turns[-1])
    if people == 2 and 1 not in turns:
        turns[-1] = 1
    return turns


def _draw_pairs(
    emotions: Sequence[Sequence[str]], has_unseen: bool, rng: np.random.Generator
) -> list[tuple[str, str]]:
    """Draws a clue and an emotion that is heard for each utterance; some stay those of the utterance before."""
    clues = list(CLUES)
    pairs: list[tuple[str, str]] = []
    for own in emotions:
        unseen = [pair for pair in UNSEEN_COMPANY if pair[1] in own]
        if has_unseen and unseen and rng.random() < 0.6:
            pairs.append(unseen[rng.integers(len(unseen))])
            continue
        while True:
            pair = (clues[rng.integers(len(clues))], own[rng.integers(len(own))])
            if pairs and rng.random() < 0.12 and pairs[-1][1] in own:
                pair = pairs[-1]
            if pair not in UNSEEN_COMPANY:
                break
        pairs.append(pair)
    return pairs


def _draw_speech(
    wanted: Sequence[tuple[Sequence[Recording], str]], rng: np.random.Generator
) -> list[tuple[Recording, ...]]:
    """Draws the recordings of each utterance: one, or several of the same speaker and emotion in a row."""
    said = []
    for speech, heard in wanted:
        fitting = [recording for recording in speech if recording.emotion == heard]
        number = min(_pick({1: 76, 2: 19, 3: 5}, rng), len(fitting))
        said.append(tuple(fitting[place] for place in rng.choice(len(fitting), number, replace=False)))
    return said


def _place(
    turns: Sequence[int],
    pairs: Sequence[tuple[str, str]],
    said: Sequence[Sequence[Recording]],
    is_short: bool,
    is_long: bool,
    rng: np.random.Generator,
) -> tuple[list[PeopleUtterance], float]:
    """Places utterances one after the other, half of them with hardly a gap between, and draws the clip's length."""
    time = float(rng.uniform(0.05, 0.2) if is_short else rng.uniform(0.15, 0.9))
    utterances: list[PeopleUtterance] = []
    for person, (clue, _), recordings in zip(turns, pairs, said, strict=True):
        if utterances:
            close = (0.02, 0.15) if rng.random() < 0.45 else (1.0, 3.5) if is_long else (0.25, 1.2)
            time += float(rng.uniform(*close))
        start = round(time, 3)
        parts: list[tuple[float, Recording]] = []
        for recording in recordings:
            if parts:
                time += float(rng.uniform(0.1, 0.35))
            parts.append((round(time, 3), recording))
            time = parts[-1][0] + recording.end - recording.start
        if time > _MOST_SECONDS - 1:
            break
        text = " ".join(recording.text for recording in recordings).strip()
        utterances.append(PeopleUtterance(start, round(time, 3), text, person, clue, tuple(parts)))
    end = utterances[-1].end + float(rng.uniform(0.05, 0.2) if is_short else rng.uniform(0.15, 0.9))
    return utterances, round(min(max(end, 1.0), _MOST_SECONDS), 3)


def _draw_conditions(is_short: bool, has_bystander: bool, rng: np.random.Generator) -> tuple[str, ...]:
    drawn = []
    for group in CONDITIONS.values():
        ends = np.cumsum(list(group.values()))
        place = int(np.searchsorted(ends, rng.random()))
        drawn += list(group)[place : place + 1]
    # The beginning of a sentence is no sentence.
    if is_short and "no_subtitles" not in drawn:
        drawn = [*(name for name in drawn if name != "no_words"), "no_words"]
    if "no_speech" in drawn:  # nobody speaks: there is nothing to write down
        drawn = [name for name in drawn if name not in ("no_words", "no_subtitles")] + ["no_subtitles"]
    if {"no_sound", "silent"} & set(drawn):
        drawn = [name for name in drawn if name not in CONDITIONS["company"]]
    if "no_face" in drawn:
        drawn = [name for name in drawn if name != "background"]
    if not has_bystander:
        drawn = [name for name in drawn if name != "second_face"]
    return tuple(drawn)


def _act(utterance: PeopleUtterance, has_smile: bool, rng: np.random.Generator) -> PeopleUtterance:
    is_real = bool(rng.random() < 0.5) and has_smile and utterance.clue == "smile"
    if utterance.clue == "neutral":
        return utterance
    expression = draw_expression(utterance.clue, utterance.start, utterance.end, rng)
    return replace(utterance, expression=expression, real_smile=is_real)


def draw_expression(action: str, start: float, end: float, rng: np.random.Generator) -> Expression:
    """Draws an expression inside a stretch of time. It takes most of it, and rises and fades in at most 0.6 s.

    Args:
        action (`str`): A name of `ACTIONS`.
        start (`float`): The start in seconds.
        end (`float`): The end in seconds.
        rng (`np.random.Generator`): The generator.

    Returns:
        [`Expression`]: The expression.
    """
    length = end - start
    rise, fall = (min(0.6, float(rng.uniform(0.1, 0.2)) * length) for _ in range(2))
    onset = start + float(rng.uniform(0, 0.08)) * length
    offset = end - float(rng.uniform(0, 0.1)) * length
    onset, apex, decline, offset = (round(mark, 3) for mark in (onset, onset + rise, offset - fall, offset))
    return Expression(action, onset, apex, decline, offset, strength=round(float(rng.uniform(0.65, 1)), 3))


def _hold(utterances: Sequence[PeopleUtterance], seconds: float, rng: np.random.Generator) -> list[PeopleUtterance]:
    """Lets some expressions begin before the utterance and last after it, halfway to the person's next one."""
    held = []
    for utterance, is_held in zip(utterances, (rng.random(len(utterances)) < _HELD).tolist(), strict=True):
        if utterance.expression and is_held:
            others = [one for one in utterances if one.person == utterance.person]
            ends = [(one.end + utterance.start) / 2 for one in others if one.end <= utterance.start]
            starts = [(utterance.end + one.start) / 2 for one in others if one.start >= utterance.end]
            # Where nobody speaks before or after, the clip begins or ends with the expression.
            before, after = max(ends, default=-1.0), min(starts, default=seconds + 1)
            marks = (before, (before + utterance.start) / 2, (utterance.end + after) / 2, after)
            onset, apex, decline, end = (round(mark, 3) for mark in marks)
            expression = replace(utterance.expression, onset=onset, apex=apex, decline=decline, end=end)
            utterance = replace(utterance, expression=expression)
        held.append(utterance)
    return held


def _hide(
    utterances: Sequence[PeopleUtterance], conditions: Sequence[str], rng: np.random.Generator
) -> list[PeopleUtterance]:
    """Marks the utterances in which no face is seen."""
    hidden = rng.random(len(utterances)) < 0.4
    hidden[rng.integers(len(utterances))] = True
    if "no_face" in conditions:
        hidden[:] = True
    elif not {"covered", "out_of_frame"} & set(conditions):
        hidden[:] = False
    return [replace(one, seen=not is_hidden) for one, is_hidden in zip(utterances, hidden.tolist(), strict=True)]


def _gaps(utterances: Sequence[PeopleUtterance], person: int, seconds: float) -> list[tuple[float, float]]:
    """Returns the stretches in which a person neither speaks nor holds an expression, cut where anybody begins or ends."""
    own = [(one.start, one.end) for one in utterances if one.person == person]
    own += [
        (one.expression.onset, one.expression.end) for one in utterances if one.person == person and one.expression
    ]
    edges = sorted({0.0, seconds, *(edge for one in utterances for edge in (one.start, one.end))})
    return [
        (start, end)
        for start, end in pairwise(edges)
        if end - start >= 0.25 and not any(first < end and start < last for first, last in own)
    ]


def _draw_acting(
    gaps: Sequence[tuple[float, float]], seconds: float, has_smile: bool, rng: np.random.Generator
) -> Acting:
    actions = [clue for clue in CLUES if clue != "neutral"]
    distractors = []
    for start, end in gaps:
        if rng.random() < 0.6:
            action = actions[rng.integers(len(actions))]
            is_real = bool(rng.random() < 0.5) and has_smile and action == "smile"
            distractors.append((draw_expression(action, start, end, rng), is_real))
    blinks, time = [], float(rng.uniform(0, 3))
    while time < seconds - 0.3:
        onset, apex, decline, offset = (round(time + step, 3) for step in (0, 0.1, 0.14, 0.28))
        blinks.append(Expression("blink", onset, apex, decline, offset, strength=1.0))
        time += float(rng.uniform(1.5, 5))
    habit = rng.uniform(-0.1, 0.1, len(ACTIONS)).round(3)
    habit[[list(ACTIONS).index("jaw"), list(ACTIONS).index("blink")]] = 0
    return Acting(tuple(distractors), tuple(blinks), round(float(rng.uniform(0.35, 0.8)), 3), tuple(habit.tolist()))


def _draw_shots(utterances: Sequence[PeopleUtterance], rng: np.random.Generator) -> tuple[tuple[float, int], ...]:
    """Draws the cuts: from one speaker to the next, between their utterances."""
    shots = [(0.0, utterances[0].person)]
    for before, after in pairwise(utterances):
        if before.person != after.person:
            shots.append((round(float(rng.uniform(before.end, after.start)), 3), after.person))
    return tuple(shots)
