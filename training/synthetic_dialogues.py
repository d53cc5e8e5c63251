"""Dialogues whose truth is known: a photograph that acts and speaks, with questions and answers about what it feels.

In every utterance one facial clue and one way of speaking come together, and only both tell the emotion; the words say
nothing about it. Expressions between utterances, blinks, the head's and the camera's motion and a ball that rolls
through the background mean nothing. Files are real: H.264, AAC, SRT. They teach the model to look and to listen, and
nothing about people: there is one face, and it plays by [`EMOTIONS`].
"""

import hashlib
import json
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from .face_acting import ACTIONS, FaceActor, find_face
from .synthetic import Line, astronaut, to_srt, write_media
from .voice import Speech, mouth_opening, plan_speech, speak

try:
    import av
    import cv2
except ImportError:
    av = cv2 = None

SPLITS = ("train", "dev", "test")
# The split that rows of "test" with an unseen pair are listed under.
UNSEEN = "test_unseen"
TABLE, TRUTH = "dialogues.jsonl", "truth.jsonl"
# Clips of another recipe are not kept: count up when pictures or sounds change.
_RECIPE = 1

# The clue region of the face (see processing.face_regions) and what is seen there.
CLUES: dict[str, tuple[str, str]] = {
    "smile": ("mouth", "the corners of the mouth go up"),
    "frown": ("mouth", "the corners of the mouth turn down"),
    "lip_press": ("mouth", "the lips are pressed together"),
    "brow_raise": ("brows", "both brows go up"),
    "brow_furrow": ("glabella", "the brows draw together"),
    "eye_widening": ("eyes", "the eyes open wide"),
    "neutral": ("face", "no part of it moves but to speak"),
}
VOICES = {
    "lively": "lively, with a pitch that rises and falls",
    "flat": "flat, with a pitch that hardly moves",
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
# Pairs that are seen and heard in a third of the test clips only. What they mean can be known from the questions about
# emotions in general, which name all pairs and show none.
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

_ASK_WHOLE = (
    "What does the speaker feel, and which clues tell so?",
    "Which emotions does the speaker show in this clip, and how can you tell?",
    "Describe the speaker's emotions from utterance to utterance.",
)
_ASK_UTTERANCE = (
    "What does the speaker feel in this utterance, and why?",
    "Which emotion is shown here, and which clues tell so?",
    "Look and listen closely: what is felt here?",
)
_ASK_CHANGE = ("When does the emotion change?", "Does the speaker's emotion change, and when?")


@dataclass(frozen=True)
class Expression:
    """A facial action with onset, apex and offset, in seconds.

    Args:
        action (`str`): A name of `ACTIONS`.
        onset, apex, decline, end (`float`): When it begins, is fully there, begins to fade, and is gone.
        strength (`float`): At the apex; 1 is the action's full motion.
    """

    action: str
    onset: float
    apex: float
    decline: float
    end: float
    strength: float

    def amplitudes(self, times: np.ndarray) -> np.ndarray:
        """(T,), a smooth rise, a plateau and a smooth fall."""
        place = np.interp(times, [self.onset, self.apex, self.decline, self.end], [0, 1, 1, 0])
        return self.strength * place**2 * (3 - 2 * place)


@dataclass(frozen=True)
class SpokenClue:
    """One utterance: what is said, seen, heard and felt."""

    start: float
    end: float
    text: str
    clue: str
    prosody: str

    @property
    def emotion(self) -> str:
        return EMOTIONS[self.clue, self.prosody]


@dataclass(frozen=True)
class Dialogue:
    """All that is decided about a clip before a frame of it is made; see [`plan_dialogue`]."""

    name: str
    split: str
    seed: int
    index: int
    seconds: float
    fps: int
    utterances: list[SpokenClue]
    clues: list[Expression | None]  # of each utterance, `None` for a neutral face
    distractors: list[Expression]
    blinks: list[Expression]
    speeches: list[Speech]
    jaw: float  # how far the mouth opens
    habit: np.ndarray  # (A,) what is always in this face

    @property
    def times(self) -> np.ndarray:
        """(T,) seconds of the frames."""
        return np.arange(round(self.seconds * self.fps)) / self.fps

    def amplitudes(self) -> np.ndarray:
        """(T, A) of all facial actions in every frame."""
        values = np.tile(self.habit, (len(self.times), 1))
        for seen in (*filter(None, self.clues), *self.distractors, *self.blinks):
            values[:, _column(seen.action)] += seen.amplitudes(self.times)
        pressed = values[:, _column("lip_press")].clip(0, 1)
        values[:, _column("jaw")] += self.jaw * mouth_opening(self.speeches, self.times) * (1 - 0.8 * pressed)
        return values


def _column(action: str) -> int:
    return list(ACTIONS).index(action)


# --- planning ------------------------------------------------------------------------------------------------------


def plan_dialogue(seed: int, split: str, index: int) -> Dialogue:
    """Decide everything about one clip. The same three arguments always give the same clip.

    Numbers for pairs, words, times and so on come from streams of their own, so that none tells anything of another.

    Raises:
        ValueError: for an unknown split.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    pair_rng, word_rng, time_rng, face_rng, voice_rng = _streams(seed, split, index)[:5]
    has_unseen = split == "test" and index % 3 == 2
    spans, seconds = _draw_spans(time_rng)
    pairs = _draw_pairs(len(spans), has_unseen, pair_rng)
    utterances = [
        SpokenClue(start, end, _draw_sentence(end - start, word_rng), *pair)
        for (start, end), pair in zip(spans, pairs, strict=True)
    ]
    clues = [
        None if said.clue == "neutral" else _express(said.clue, said.start, said.end, face_rng) for said in utterances
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
        blinks.append(Expression("blink", *(round(time + step, 3) for step in (0, 0.1, 0.14, 0.28)), 1.0))
        time += face_rng.uniform(1.5, 4)
    pitch = voice_rng.uniform(110, 220)
    speeches = [plan_speech(said.start, said.end, said.prosody, pitch, voice_rng) for said in utterances]
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


def _streams(seed: int, split: str, index: int) -> list[np.random.Generator]:
    """Splits have no number in common: their place is a part of every seed."""
    return [
        np.random.default_rng(child) for child in np.random.SeedSequence([seed, SPLITS.index(split), index]).spawn(7)
    ]


def _draw_spans(rng) -> tuple[list[tuple[float, float]], float]:
    """Start and end of the utterances, half of them without a gap between, and the clip's length."""
    time, spans = rng.uniform(0.2, 0.9), []
    for number in range(rng.integers(3, 7)):
        if number and rng.random() < 0.5:
            time += rng.uniform(0.25, 1.2)
        end = time + rng.uniform(0.6, 3.5)
        spans.append((round(time, 3), round(end, 3)))
        time = spans[-1][1]
    return spans, round(time + rng.uniform(0.2, 0.9), 3)


def _draw_pairs(count: int, has_unseen: bool, rng) -> list[tuple[str, str]]:
    """A clue and a prosody for each utterance; sometimes they stay."""
    stays = 1.0 if rng.random() < 0.08 else 0.15
    pairs = []
    for _ in range(count):
        again = pairs and rng.random() < stays
        pairs.append(pairs[-1] if again else SEEN_PAIRS[rng.integers(len(SEEN_PAIRS))])
    if has_unseen:
        sure = rng.integers(count)
        for number in range(count):
            if number == sure or rng.random() < 0.5:
                pairs[number] = UNSEEN_PAIRS[rng.integers(len(UNSEEN_PAIRS))]
    return pairs


def _draw_sentence(seconds: float, rng) -> str:
    """Words that last about so long."""
    lengths = np.array([len(sentence.split()) for sentence in SENTENCES])
    nearest = np.argsort(np.abs(lengths - 3 * seconds), kind="stable")[:8]
    return SENTENCES[rng.choice(nearest)]


def _express(action: str, start: float, end: float, rng) -> Expression:
    """An expression inside a stretch of time, at its apex in the middle of it."""
    length = end - start
    marks = np.cumsum([rng.uniform(0, 0.08), rng.uniform(0.1, 0.2), rng.uniform(0.45, 0.55), rng.uniform(0.1, 0.17)])
    return Expression(
        action, *(round(start + float(mark) * length, 3) for mark in marks), round(rng.uniform(0.65, 1), 3)
    )


# --- words about it ------------------------------------------------------------------------------------------------


def dialogue_row(dialogue: Dialogue) -> dict:
    """The row of the training table: name, split, video, subtitles, emotions, messages.

    The conversation asks about each utterance (citing it), about its changes and about the whole. In half the rows the
    whole comes first: an answer can be read off the earlier ones, so each kind of question must at times be the first.
    """
    rng = _streams(dialogue.seed, _split_of(dialogue), dialogue.index)[5]
    turns = _turns(dialogue, rng)
    return {
        "name": dialogue.name,
        "split": dialogue.split,
        "video": f"{dialogue.name}.mp4",
        "subtitles": f"{dialogue.name}.srt",
        "emotions": _emotions(dialogue),
        "messages": [message for _, *pair in turns for message in pair],
    }


def dialogue_truth(dialogue: Dialogue) -> dict:
    """What is known of a clip and not told to the model, to check experiments against.

    Returns:
        `dict`: name, split, seed, index, fps, seconds; `has_unseen_pair`; `utterances` with start, end, text, clue,
        region, prosody, emotion, `unseen`, and the `expression` (onset, apex, decline, end in seconds; strength);
        `distractors`; `turns`, for each question of the row its kind (utterance, change, whole, general), and where it
        applies the `utterance` (from 1), and the `emotions` that the answer must name; `times` of the frames and the
        `amplitudes` of each facial action in them.
    """
    rng = _streams(dialogue.seed, _split_of(dialogue), dialogue.index)[5]
    amplitudes = dialogue.amplitudes().T.round(3)
    return {
        **{name: getattr(dialogue, name) for name in ("name", "split", "seed", "index", "fps", "seconds")},
        "has_unseen_pair": dialogue.split == UNSEEN,
        "utterances": [
            {
                **asdict(said),
                "region": CLUES[said.clue][0],
                "emotion": said.emotion,
                "unseen": (said.clue, said.prosody) in UNSEEN_PAIRS,
                "expression": seen and asdict(seen),
            }
            for said, seen in zip(dialogue.utterances, dialogue.clues, strict=True)
        ],
        "distractors": [asdict(seen) for seen in dialogue.distractors],
        "turns": [turn for turn, *_ in _turns(dialogue, rng)],
        "times": dialogue.times.round(4).tolist(),
        "amplitudes": dict(zip(ACTIONS, amplitudes.tolist(), strict=True)),
    }


def cite_as(messages: list[dict], utterances: Sequence[dict], form: str) -> list[dict]:
    """The messages with cited utterances as words: `"times"` gives number and seconds, `"index"` the number only.

    A citation hands over the utterance's tokens. To see what a model finds by itself it must be asked in words.
    """
    if form not in ("times", "index"):
        raise ValueError(f"form must be times or index, got {form!r}")

    def in_words(item: dict) -> dict:
        if item["type"] != "utterance":
            return item
        said = utterances[item["index"] - 1]
        times = f" ({said['start']:.1f}-{said['end']:.1f}s)" if form == "times" else ""
        return _text(f"utterance {item['index']}{times}")

    return [{**message, "content": [in_words(item) for item in message["content"]]} for message in messages]


def _split_of(dialogue: Dialogue) -> str:
    return "test" if dialogue.split == UNSEEN else dialogue.split


def _emotions(dialogue: Dialogue) -> list[str]:
    return list(dict.fromkeys(said.emotion for said in dialogue.utterances))


def _turns(dialogue: Dialogue, rng) -> list[tuple[dict, dict, dict]]:
    """What is known about each question, the question and its answer."""
    whole = ({"kind": "whole", "emotions": _emotions(dialogue)}, [_pick(_ASK_WHOLE, rng)], _tell_whole(dialogue))
    change = ({"kind": "change", "emotions": []}, [_pick(_ASK_CHANGE, rng)], _tell_changes(dialogue))
    each = []
    for index in rng.permutation(len(dialogue.utterances)).tolist():
        said = dialogue.utterances[index]
        question = [_text(_pick(_ASK_UTTERANCE, rng) + "\n"), {"type": "utterance", "index": index + 1}]
        known = {"kind": "utterance", "utterance": index + 1, "emotions": [said.emotion]}
        each.append((known, question, f"In {_tell(index, said)}\n{_labels([said.emotion])}"))
    turns = [whole, change, *each] if rng.random() < 0.5 else [*each, change, whole]
    if dialogue.split == "train" and rng.random() < 0.5:
        clue, voice = list(EMOTIONS)[rng.integers(len(EMOTIONS))]
        emotion = EMOTIONS[clue, voice]
        question = f"In general, when {_seen(clue)} and the voice is {voice}, what does it suggest?"
        turns.append(({"kind": "general", "emotions": [emotion]}, [question], _labels([emotion])))
    return [
        (
            known,
            {"role": "user", "content": [_text(item) if isinstance(item, str) else item for item in question]},
            {"role": "assistant", "content": [_text(answer)]},
        )
        for known, question, answer in turns
    ]


def _pick(sentences: Sequence[str], rng) -> str:
    return sentences[rng.integers(len(sentences))]


def _text(text: str) -> dict:
    return {"type": "text", "text": text}


def _seen(clue: str) -> str:
    region, motion = CLUES[clue]
    return f"{motion} ({region})"


def _tell(index: int, said: SpokenClue) -> str:
    return f"utterance {index + 1} {_seen(said.clue)}, and the voice is {VOICES[said.prosody]}: {said.emotion}."


def _tell_whole(dialogue: Dialogue) -> str:
    told = " ".join(f"In {_tell(index, said)}" for index, said in enumerate(dialogue.utterances))
    return f"{told}\n{_labels(_emotions(dialogue))}"


def _tell_changes(dialogue: Dialogue) -> str:
    emotions = [said.emotion for said in dialogue.utterances]
    changes = [
        f"at utterance {index + 1} ({said.start:.1f}s) from {emotions[index - 1]} to {said.emotion}"
        for index, said in enumerate(dialogue.utterances)
        if index and emotions[index - 1] != said.emotion
    ]
    return f"It changes {', '.join(changes)}." if changes else f"It does not change: {emotions[0]} throughout."


def _labels(emotions: list[str]) -> str:
    return f"Labels: {', '.join(emotions)}"


# --- files ---------------------------------------------------------------------------------------------------------


def write_dialogues(
    folder: str | Path,
    clips: int,
    seed: int = 0,
    split: str = "train",
    num_proc: int = 1,
    size: int = 224,
    progress=True,
) -> Path:
    """Make clips of one split, with SRT files beside them, and list them.

    What an earlier run finished is kept, so an interrupted run goes on where it was; clips of other seeds and splits in
    the folder stay listed.

    Args:
        folder: Where to; made if it does not exist. It gets `dialogues.jsonl` (see [`dialogue_row`]; the format of
            `training.data`) and `truth.jsonl` (see [`dialogue_truth`]), a line for each clip.
        clips: How many.
        seed: Seeds, splits and indices have no clip in common.
        split: `"train"`, `"dev"` or `"test"`; a third of the test rows have an unseen pair and `test_unseen` as split.
        num_proc: Processes at work.
        size: Sides of the square picture in pixels.
        progress: Whether a bar is shown.

    Returns:
        The path of `dialogues.jsonl`.

    Raises:
        ValueError: for an unknown split, no clips, no processes, or a size that H.264 or the face mesh cannot take.
        ImportError: without scikit-image, PyAV or MediaPipe.
    """
    from tqdm.auto import tqdm

    for name, value, least in (("clips", clips, 1), ("num_proc", num_proc, 1), ("seed", seed, 0), ("size", size, 96)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if size % 2:
        raise ValueError(f"size must be even, got {size}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    dialogues = [plan_dialogue(seed, split, index) for index in range(clips)]
    waiting = [index for index, dialogue in enumerate(dialogues) if not _is_complete(folder, dialogue, size)]
    with tqdm(total=clips, initial=clips - len(waiting), desc="Clips", unit="clip", disable=not progress) as bar:
        for _ in _make_clips(folder, [dialogues[index] for index in waiting], num_proc, size):
            bar.update()
    _list(folder / TRUTH, map(dialogue_truth, dialogues))
    return _list(folder / TABLE, map(dialogue_row, dialogues))


def write_dialogue(folder: str | Path, dialogue: Dialogue, actor: FaceActor, size: int = 224) -> Path:
    """Make the clip of one dialogue, and its SRT file before it: a clip that is there is complete.

    Returns:
        The path of the clip.
    """
    path = Path(folder) / f"{dialogue.name}.mp4"
    subtitles = path.with_suffix(".srt")
    part = path.with_suffix(".srt.part")
    part.write_text(to_srt(Line(said.start, said.end, said.text) for said in dialogue.utterances), encoding="utf-8")
    part.replace(subtitles)
    rng = _streams(dialogue.seed, _split_of(dialogue), dialogue.index)[6]
    sound = speak(dialogue.speeches, dialogue.seconds, rng)
    write_media(path, _pictures(dialogue, actor, size, rng), dialogue.times, sound, comment=_mark(dialogue, size))
    return path


def read_truth(folder: str | Path) -> dict[str, dict]:
    """[`dialogue_truth`] of the clips in a folder, by name."""
    return _read_list(Path(folder) / TRUTH)


def _make_clips(folder: Path, dialogues: list[Dialogue], num_proc: int, size: int) -> Iterator[Path]:
    if not dialogues:
        return
    face = find_face(astronaut())
    make = partial(_make_clip, folder, size)
    if num_proc == 1:
        _set_actor(face)
        yield from map(make, dialogues)
        return
    # Neither MediaPipe nor PyAV survives a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(num_proc, len(dialogues)), context, _set_actor, (face,)) as pool:
        yield from pool.map(make, dialogues)


def _set_actor(face: np.ndarray) -> None:
    global _actor
    cv2.setNumThreads(1)
    _actor = FaceActor(astronaut(), face)


def _make_clip(folder: Path, size: int, dialogue: Dialogue) -> Path:
    return write_dialogue(folder, dialogue, _actor, size)


def _pictures(dialogue: Dialogue, actor: FaceActor, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """(size, size, 3) uint8, a camera that moves before a face that acts, and a ball that rolls along the edge."""
    times = dialogue.times
    flip, face_width, roll = rng.random() < 0.5, rng.uniform(0.34, 0.5), np.radians(rng.uniform(-5, 5))
    shift = rng.uniform([-0.05, -0.08], [0.05, 0.04])
    rates, phases = rng.uniform(0.1, 0.4, 5), rng.uniform(0, 2 * np.pi, 5)
    right, down, near, turn, rolling = np.sin(2 * np.pi * times[:, None] * rates + phases).T
    cameras = [
        actor.camera(
            (size, size),
            face_width * (1 + 0.04 * near[frame]),
            shift + 0.02 * np.array([right[frame], down[frame]]),
            roll + np.radians(2) * turn[frame],
            flip,
        )
        for frame in range(len(times))
    ]
    light = rng.uniform(0.75, 1.2) * rng.uniform(0.95, 1.05, 3)
    color, radius = rng.integers(30, 226, 3).tolist(), rng.uniform(0.04, 0.09)
    edge = rng.choice([0.03, 0.97])
    pictures = actor.act(dialogue.amplitudes(), np.array(cameras), (size, size), light)
    for picture, height in zip(pictures, 0.5 + 0.55 * rolling, strict=True):
        center = (round(edge * size), round(height * size))
        yield cv2.circle(picture, center, round(radius * size), color, cv2.FILLED, cv2.LINE_AA)


def _mark(dialogue: Dialogue, size: int) -> str:
    """What a clip's file says it was made from."""
    plan = json.dumps([_RECIPE, size, dialogue_row(dialogue), dialogue_truth(dialogue)])
    return f"MicroEmo synthetic dialogue {hashlib.sha256(plan.encode()).hexdigest()[:16]}"


def _is_complete(folder: Path, dialogue: Dialogue, size: int) -> bool:
    path = folder / f"{dialogue.name}.mp4"
    if not path.is_file() or not path.with_suffix(".srt").is_file():
        return False
    try:
        with av.open(str(path)) as container:
            return container.metadata.get("comment") == _mark(dialogue, size)
    except av.FFmpegError:
        return False


def _read_list(path: Path) -> dict[str, dict]:
    if not path.is_file():
        return {}
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {row["name"]: row for row in rows}


def _list(path: Path, rows) -> Path:
    """Put rows among those that the file has, sorted by name."""
    listed = _read_list(path) | {row["name"]: row for row in rows}
    part = path.with_suffix(".jsonl.part")
    part.write_text("".join(f"{json.dumps(listed[name])}\n" for name in sorted(listed)), encoding="utf-8")
    part.replace(path)
    return path
