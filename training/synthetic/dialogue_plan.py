"""The plan of a synthetic dialogue: all that happens in a clip is decided before a frame of it is made.

In every utterance one facial clue occurs together with one prosody, and only the pair determines the emotion; the
words are independent of it. Expressions between utterances and blinks are distractors.
"""

from dataclasses import dataclass

import numpy as np

from .face_acting import ACTIONS
from .voice import Speech, mouth_opening, plan_speech

SPLITS = ("train", "dev", "test")
# The split that rows of "test" with an unseen pair are listed under.
UNSEEN = "test_unseen"

# The clue region of the face (see processing.faces.face_regions) and what is seen there.
CLUES: dict[str, tuple[str, str]] = {
    "smile": ("mouth", "the corners of the mouth go up"),
    "frown": ("mouth", "the corners of the mouth turn down"),
    "lip_press": ("mouth", "the lips are pressed together"),
    "brow_raise": ("brows", "both brows go up"),
    "brow_furrow": ("glabella", "the brows draw together"),
    "eye_widening": ("eyes", "the eyes open wide"),
    "neutral": ("face", "no part of it moves but to speak"),
}
# What a clue and a voice mean together. The clue gives the appraisal, the voice the arousal (Scherer 2003): a smile
# without a lively voice is a social one (Ekman and Friesen 1982); raised brows question (Ekman 1979) when the voice is
# not surprised; drawn brows are anger's when loud and worry's when not; lips pressed together hold something back.
EMOTIONS: dict[tuple[str, str], str] = {
    ("smile", "lively"): "joy",
    ("smile", "flat"): "politeness",
    ("frown", "lively"): "distress",
    ("frown", "flat"): "sadness",
    ("lip_press", "lively"): "frustration",
    ("lip_press", "flat"): "determination",
    ("brow_raise", "lively"): "surprise",
    ("brow_raise", "flat"): "doubt",
    ("brow_furrow", "lively"): "anger",
    ("brow_furrow", "flat"): "worry",
    ("eye_widening", "lively"): "fear",
    ("eye_widening", "flat"): "shock",
    ("neutral", "lively"): "interest",
    ("neutral", "flat"): "calm",
}
# Pairs that occur in a third of the test clips only. Their meaning can be learned from the questions about emotions in
# general, which name all pairs and show none.
UNSEEN_PAIRS = (("eye_widening", "flat"), ("lip_press", "lively"))
SEEN_PAIRS = tuple(pair for pair in EMOTIONS if pair not in UNSEEN_PAIRS)

_WORDS = """Yes. | Well. | Right. | I see. | The door. | On Monday. | Just a moment. | It was yesterday. | Here we are.
| That is the place. | We took the train. | The meeting is at nine. | He called this morning. | There is a letter for you.
| My sister lives in that street. | They moved the table again. | You can put it over there. | The shop opens at ten.
| I was going to the station. | She said it would be today. | We have two of them at home. | The bus stops behind the library.
| I left the keys on the kitchen table. | The second room is on the left side. | He wants to know when we will arrive.
| They have painted the whole house this summer. | You told me about it the day before yesterday.
| The results came with the mail late in the afternoon. | We were sitting by the window when the phone rang.
| I have read the first part and left the other for later. | She always takes the same way home after her work at the office."""
SENTENCES = tuple(" ".join(sentence.split()) for sentence in _WORDS.split("|"))


@dataclass(frozen=True)
class Expression:
    """A facial action with onset, apex and offset.

    Attributes:
        action (`str`): A name of [`ACTIONS`].
        onset (`float`): The time at which it begins, in seconds.
        apex (`float`): The time at which it reaches its strength, in seconds.
        decline (`float`): The time at which it begins to fade, in seconds.
        end (`float`): The time at which it is gone, in seconds.
        strength (`float`): The amplitude at the apex; 1 is the action's full motion.
    """

    action: str
    onset: float
    apex: float
    decline: float
    end: float
    strength: float

    def amplitudes(self, times: np.ndarray) -> np.ndarray:
        """Computes the amplitude at given times: a smooth rise, a plateau and a smooth fall.

        Args:
            times (`np.ndarray` of shape `(T,)`): The times in seconds.

        Returns:
            `np.ndarray` of shape `(T,)`: The amplitudes.
        """
        place = np.interp(times, [self.onset, self.apex, self.decline, self.end], [0, 1, 1, 0])
        return self.strength * place**2 * (3 - 2 * place)


@dataclass(frozen=True)
class SpokenClue:
    """One utterance, with its words, clue, prosody and emotion.

    Attributes:
        start (`float`): The start in seconds.
        end (`float`): The end in seconds.
        text (`str`): The words.
        clue (`str`): The facial clue, a name of [`CLUES`].
        prosody (`str`): The prosody, a name of [`PROSODIES`].
    """

    start: float
    end: float
    text: str
    clue: str
    prosody: str

    @property
    def emotion(self) -> str:
        """The emotion that clue and prosody express together, see [`EMOTIONS`]."""
        return EMOTIONS[self.clue, self.prosody]


@dataclass(frozen=True)
class Dialogue:
    """The plan of a clip; see [`plan_dialogue`].

    Attributes:
        name (`str`): The name of the clip.
        split (`str`): The split in the table: one of [`SPLITS`], or [`UNSEEN`].
        seed (`int`): The seed.
        index (`int`): The index of the clip in its seed and split.
        seconds (`float`): The duration in seconds.
        fps (`int`): The frames per second.
        utterances (`list[SpokenClue]`): The utterances.
        clues (`list[Expression | None]`): The expression of each utterance; `None` for a neutral face.
        distractors (`list[Expression]`): The expressions between the utterances.
        blinks (`list[Expression]`): The blinks.
        speeches (`list[Speech]`): The sound of each utterance.
        jaw (`float`): How far the mouth opens; 1 is the full motion of the jaw.
        habit (`np.ndarray` of shape `(A,)`): The amplitude of each facial action at rest.
    """

    name: str
    split: str
    seed: int
    index: int
    seconds: float
    fps: int
    utterances: list[SpokenClue]
    clues: list[Expression | None]
    distractors: list[Expression]
    blinks: list[Expression]
    speeches: list[Speech]
    jaw: float
    habit: np.ndarray

    @property
    def times(self) -> np.ndarray:
        """The times of the frames in seconds, of shape `(T,)`."""
        return np.arange(round(self.seconds * self.fps)) / self.fps

    def amplitudes(self) -> np.ndarray:
        """Computes the amplitudes of all facial actions in every frame.

        Returns:
            `np.ndarray` of shape `(T, A)`: The amplitudes.
        """
        values = np.tile(self.habit, (len(self.times), 1))
        for expression in (*filter(None, self.clues), *self.distractors, *self.blinks):
            values[:, _column(expression.action)] += expression.amplitudes(self.times)
        pressed = values[:, _column("lip_press")].clip(0, 1)
        values[:, _column("jaw")] += self.jaw * mouth_opening(self.speeches, self.times) * (1 - 0.8 * pressed)
        return values


def _column(action: str) -> int:
    return list(ACTIONS).index(action)


def plan_dialogue(seed: int, split: str, index: int) -> Dialogue:
    """Plans a clip. The same three arguments always give the same clip.

    Pairs, words, times and so on are drawn from separate random streams, so that none depends on another.

    Args:
        seed (`int`): The seed.
        split (`str`): One of [`SPLITS`].
        index (`int`): The index of the clip.

    Returns:
        [`Dialogue`]: The plan.

    Raises:
        ValueError: if the split is unknown.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    pair_rng, word_rng, time_rng, face_rng, voice_rng = random_streams(seed, split, index)[:5]
    has_unseen = split == "test" and index % 3 == 2
    spans, seconds = _draw_spans(time_rng)
    pairs = _draw_pairs(len(spans), has_unseen, pair_rng)
    utterances = [
        SpokenClue(start, end, _draw_sentence(end - start, word_rng), *pair)
        for (start, end), pair in zip(spans, pairs, strict=True)
    ]
    clues = [
        None if utterance.clue == "neutral" else _express(utterance.clue, utterance.start, utterance.end, face_rng)
        for utterance in utterances
    ]
    edges = [0.0, *(edge for span in spans for edge in span), seconds]
    gaps = [(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if end - start >= 0.25]
    distractors = [
        _express(str(face_rng.choice([clue for clue in CLUES if clue != "neutral"])), start, end, face_rng)
        for start, end in gaps
        if face_rng.random() < 0.7
    ]
    blinks, time = [], face_rng.uniform(0, 3)
    while time < seconds - 0.3:
        onset, apex, decline, offset = (round(time + step, 3) for step in (0, 0.1, 0.14, 0.28))
        blinks.append(Expression("blink", onset, apex, decline, offset, strength=1.0))
        time += face_rng.uniform(1.5, 4)
    pitch = voice_rng.uniform(110, 220)
    speeches = [
        plan_speech(utterance.start, utterance.end, utterance.prosody, pitch, voice_rng) for utterance in utterances
    ]
    habit = face_rng.uniform(-0.1, 0.1, len(ACTIONS))
    habit[[_column("jaw"), _column("blink")]] = 0
    return Dialogue(
        name=f"{split}-{seed}-{index:05d}",
        split=UNSEEN if has_unseen else split,
        seed=seed,
        index=index,
        seconds=seconds,
        fps=int(time_rng.choice([12, 15, 20])),
        utterances=utterances,
        clues=clues,
        distractors=distractors,
        blinks=blinks,
        speeches=speeches,
        jaw=face_rng.uniform(0.35, 0.8),
        habit=habit,
    )


def random_streams(seed: int, split: str, index: int) -> list[np.random.Generator]:
    """Makes seven independent random generators for a clip. Splits share none, because their position is a part of the
    seed.

    Args:
        seed (`int`): The seed.
        split (`str`): One of [`SPLITS`].
        index (`int`): The index of the clip.

    Returns:
        `list[np.random.Generator]`: The generators.
    """
    return [
        np.random.default_rng(child) for child in np.random.SeedSequence([seed, SPLITS.index(split), index]).spawn(7)
    ]


def _draw_spans(rng: np.random.Generator) -> tuple[list[tuple[float, float]], float]:
    """Draws start and end of the utterances, half of them without a gap between, and the length of the clip."""
    time, spans = rng.uniform(0.2, 0.9), []
    for number in range(rng.integers(3, 7)):
        if number and rng.random() < 0.5:
            time += rng.uniform(0.25, 1.2)
        end = time + rng.uniform(0.6, 3.5)
        spans.append((round(time, 3), round(end, 3)))
        time = spans[-1][1]
    return spans, round(time + rng.uniform(0.2, 0.9), 3)


def _draw_pairs(count: int, has_unseen: bool, rng: np.random.Generator) -> list[tuple[str, str]]:
    """Draws a clue and a prosody for each utterance; some stay those of the utterance before."""
    stays = 1.0 if rng.random() < 0.08 else 0.15
    pairs: list[tuple[str, str]] = []
    for _ in range(count):
        again = pairs and rng.random() < stays
        pairs.append(pairs[-1] if again else SEEN_PAIRS[rng.integers(len(SEEN_PAIRS))])
    if has_unseen:
        sure = rng.integers(count)
        for number in range(count):
            if number == sure or rng.random() < 0.5:
                pairs[number] = UNSEEN_PAIRS[rng.integers(len(UNSEEN_PAIRS))]
    return pairs


def _draw_sentence(seconds: float, rng: np.random.Generator) -> str:
    """Draws words that last about so long."""
    lengths = np.array([len(sentence.split()) for sentence in SENTENCES])
    return SENTENCES[rng.choice(np.flatnonzero(np.abs(lengths - 3 * seconds) < 4))]


def _express(action: str, start: float, end: float, rng: np.random.Generator) -> Expression:
    """Draws an expression inside a stretch of time, with its apex in the middle of it."""
    length = end - start
    marks = np.cumsum([rng.uniform(0, 0.08), rng.uniform(0.1, 0.2), rng.uniform(0.45, 0.55), rng.uniform(0.1, 0.17)])
    onset, apex, decline, offset = (round(start + float(mark) * length, 3) for mark in marks)
    return Expression(action, onset, apex, decline, offset, strength=round(rng.uniform(0.65, 1), 3))
