"""Synthetic dialogues with known truth: an animated photograph that speaks, with questions and answers about its
emotions.

Clips are real files (H.264, AAC, SRT) of the plans of [`plan_dialogue`], filmed by a moving camera, with a ball that
rolls along the edge. They train a model to use frames and sound, and teach it nothing about people: there is one face,
and its emotions follow the table `EMOTIONS`.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from ...utils.atomic_files import write_text
from .corpus_files import TABLE, TRUTH, comment_of, in_processes, read_list, write_list
from .dialogue_plan import (
    CLUES,
    EMOTIONS,
    UNSEEN,
    UNSEEN_PAIRS,
    Dialogue,
    SpokenClue,
    plan_dialogue,
    random_streams,
)
from .face_acting import ACTIONS, TO_REST, FaceActor, find_face
from .media_writer import Line, astronaut, to_srt, write_media
from .voice import speak

try:
    import cv2
except ImportError:
    cv2 = None  # type: ignore[assignment]

# How a question names its utterance, see `cite_as`.
CITATIONS = ("tokens", "times", "index")
_DEMO_SEED = 2025
# The face of a process that makes clips, see `_set_actor`.
_actor: FaceActor
# Clips of another recipe are not kept: count up when pictures or sounds change.
_RECIPE = 1

VOICES = {
    "lively": "lively, with a pitch that rises and falls",
    "flat": "flat, with a pitch that hardly moves",
}
_ASK_WHOLE = (
    "What does the speaker feel, and why?",
    "Which emotions does the speaker show in this clip, and how can you tell?",
    "Describe the speaker's emotions from utterance to utterance.",
)
_ASK_UTTERANCE = (
    "What does the speaker feel in this utterance, and why?",
    "Which emotion is shown here, and which clues tell so?",
    "Look and listen closely: what is felt here?",
)
_ASK_CHANGE = ("When does the emotion change?", "Does the speaker's emotion change, and when?")


# --- words about it ------------------------------------------------------------------------------------------------


def dialogue_row(dialogue: Dialogue) -> dict:
    """Builds the row of a dialogue in the training table.

    The conversation asks about each utterance (with a citation), about the changes and about the whole. In half of the
    rows the whole comes first: its answer can be read off the earlier ones, so each kind of question must at times be
    the first.

    Args:
        dialogue ([`Dialogue`]): The dialogue.

    Returns:
        `dict`: The row with name, split, video, subtitles, emotions and messages.
    """
    rng = random_streams(dialogue.seed, _split_of(dialogue), dialogue.index)[5]
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
    """Collects the truth of a clip that experiments are checked against. The model does not read it.

    Args:
        dialogue ([`Dialogue`]): The dialogue.

    Returns:
        `dict`: name, split, seed, index, fps, seconds; `has_unseen_pair`; `utterances` with start, end, text, clue,
        region, prosody, emotion, `unseen`, and the `expression` (onset, apex, decline, end in seconds; strength);
        `distractors`; `turns`, for each question of the row its kind (utterance, change, whole, general), the
        `utterance` (from 1) if it has one, and the `emotions` that the answer must name; `times` of the frames and the
        `amplitudes` of each facial action in them.
    """
    rng = random_streams(dialogue.seed, _split_of(dialogue), dialogue.index)[5]
    amplitudes = dialogue.amplitudes().T.round(3)
    return {
        **{name: getattr(dialogue, name) for name in ("name", "split", "seed", "index", "fps", "seconds")},
        "has_unseen_pair": dialogue.split == UNSEEN,
        "utterances": [
            {
                **asdict(utterance),
                "region": CLUES[utterance.clue][0],
                "emotion": utterance.emotion,
                "unseen": (utterance.clue, utterance.prosody) in UNSEEN_PAIRS,
                "expression": expression and asdict(expression),
            }
            for utterance, expression in zip(dialogue.utterances, dialogue.clues, strict=True)
        ],
        "distractors": [asdict(expression) for expression in dialogue.distractors],
        "turns": [turn for turn, *_ in _turns(dialogue, rng)],
        "times": dialogue.times.round(4).tolist(),
        "amplitudes": dict(zip(ACTIONS, amplitudes.tolist(), strict=True)),
    }


def cite_as(messages: list[dict], utterances: Sequence[dict], form: str) -> list[dict]:
    """Replaces the citations in messages by words.

    A citation gives the tokens of the utterance to the model. A question in words tests whether the model finds the
    utterance by itself.

    Args:
        messages (`list[dict]`): The messages.
        utterances (`Sequence[dict]`): The utterances of the clip.
        form (`str`):
            `"tokens"` leaves the citations, `"times"` writes number and seconds, and `"index"` the number only.

    Returns:
        `list[dict]`: The messages.

    Raises:
        ValueError: if `form` has another value.
    """
    if form not in CITATIONS:
        raise ValueError(f"form must be one of {', '.join(CITATIONS)}, got {form!r}")
    if form == "tokens":
        return messages

    def in_words(item: dict) -> dict:
        if item["type"] != "utterance":
            return item
        utterance = utterances[item["index"] - 1]
        times = f" ({utterance['start']:.1f}-{utterance['end']:.1f}s)" if form == "times" else ""
        return _text(f"utterance {item['index']}{times}")

    return [{**message, "content": [in_words(item) for item in message["content"]]} for message in messages]


def _split_of(dialogue: Dialogue) -> str:
    return "test" if dialogue.split == UNSEEN else dialogue.split


def _emotions(dialogue: Dialogue) -> list[str]:
    return list(dict.fromkeys(utterance.emotion for utterance in dialogue.utterances))


def _turns(dialogue: Dialogue, rng: np.random.Generator) -> list[tuple[dict, dict, dict]]:
    """Returns the truth of each question, the question and its answer."""
    about_all = {"kind": "whole", "emotions": _emotions(dialogue)}
    whole = (about_all, [_text(_pick(_ASK_WHOLE, rng))], _answer_about_all(dialogue))
    about_changes = {"kind": "change", "emotions": []}
    change = (about_changes, [_text(_pick(_ASK_CHANGE, rng))], _answer_about_changes(dialogue))
    each: list[tuple[dict, list[dict], str]] = []
    for index in rng.permutation(len(dialogue.utterances)).tolist():
        utterance = dialogue.utterances[index]
        question = [_text(_pick(_ASK_UTTERANCE, rng) + "\n"), {"type": "utterance", "index": index + 1}]
        turn = {"kind": "utterance", "utterance": index + 1, "emotions": [utterance.emotion]}
        each.append((turn, question, f"In {_answer_about(index, utterance)}\n{_labels([utterance.emotion])}"))
    turns = [whole, change, *each] if rng.random() < 0.5 else [*each, change, whole]
    if dialogue.split == "train" and rng.random() < 0.5:
        clue, voice = list(EMOTIONS)[rng.integers(len(EMOTIONS))]
        emotion = EMOTIONS[clue, voice]
        general = f"In general, when {_clue_in_words(clue)} and the voice is {voice}, what does it suggest?"
        turns.append(({"kind": "general", "emotions": [emotion]}, [_text(general)], _labels([emotion])))
    return [
        (
            turn,
            {"role": "user", "content": question},
            {"role": "assistant", "content": [_text(answer)]},
        )
        for turn, question, answer in turns
    ]


def _pick(sentences: Sequence[str], rng: np.random.Generator) -> str:
    return sentences[rng.integers(len(sentences))]


def _text(text: str) -> dict:
    return {"type": "text", "text": text}


def _clue_in_words(clue: str) -> str:
    region, motion = CLUES[clue]
    return f"{motion} ({region})"


def _answer_about(index: int, utterance: SpokenClue) -> str:
    return f"utterance {index + 1} {_clue_in_words(utterance.clue)}, and the voice is {VOICES[utterance.prosody]}: {utterance.emotion}."


def _answer_about_all(dialogue: Dialogue) -> str:
    sentences = " ".join(
        f"In {_answer_about(index, utterance)}" for index, utterance in enumerate(dialogue.utterances)
    )
    return f"{sentences}\n{_labels(_emotions(dialogue))}"


def _answer_about_changes(dialogue: Dialogue) -> str:
    emotions = [utterance.emotion for utterance in dialogue.utterances]
    changes = [
        f"at utterance {index + 1} ({utterance.start:.1f}s) from {emotions[index - 1]} to {utterance.emotion}"
        for index, utterance in enumerate(dialogue.utterances)
        if index and emotions[index - 1] != utterance.emotion
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
    num_workers: int = 1,
    size: int = 224,
    progress: bool = True,
) -> Path:
    """Makes the clips of one split, with SRT files beside them, and lists them.

    Clips that an earlier run finished are kept, so that an interrupted run resumes where it was. Clips of other seeds
    and splits in the folder stay listed.

    Args:
        folder (`str` or `Path`):
            The folder, which is made if it does not exist. It gets `dialogues.jsonl` (see [`dialogue_row`]; the format
            of `training.data`) and `truth.jsonl` (see [`dialogue_truth`]), with a line for each clip.
        clips (`int`): The number of clips.
        seed (`int`, *optional*, defaults to 0): The seed. Seeds, splits and indices have no clip in common.
        split (`str`, *optional*, defaults to `"train"`):
            `"train"`, `"dev"` or `"test"`. A third of the test rows have an unseen pair, and `test_unseen` as split.
        num_workers (`int`, *optional*, defaults to 1): The number of processes.
        size (`int`, *optional*, defaults to 224): The side length of the square picture in pixels.
        progress (`bool`, *optional*, defaults to `True`): Whether to show a progress bar.

    Returns:
        `Path`: The path of `dialogues.jsonl`.

    Raises:
        ValueError: if the split is unknown, there are no clips or no processes, or H.264 or the face mesh cannot take
            the size.
        ImportError: if scikit-image, PyAV or MediaPipe is not installed.
    """
    from tqdm.auto import tqdm

    for name, value, least in (
        ("clips", clips, 1),
        ("num_workers", num_workers, 1),
        ("seed", seed, 0),
        ("size", size, 96),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if size % 2:
        raise ValueError(f"size must be even, got {size}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    dialogues = [plan_dialogue(seed, split, index) for index in range(clips)]
    waiting = [index for index, dialogue in enumerate(dialogues) if not _is_complete(folder, dialogue, size)]
    with tqdm(total=clips, initial=clips - len(waiting), desc="Clips", unit="clip", disable=not progress) as bar:
        make, jobs = partial(_make_clip, folder, size), [dialogues[index] for index in waiting]
        face = [find_face(astronaut())] if jobs else []
        for _ in in_processes(make, jobs, num_workers, _set_actor, *face):
            bar.update()
    write_list(folder / TRUTH, map(dialogue_truth, dialogues))
    return write_list(folder / TABLE, map(dialogue_row, dialogues))


def write_dialogue(folder: str | Path, dialogue: Dialogue, actor: FaceActor, size: int = 224) -> Path:
    """Makes the clip of one dialogue. Its SRT file is written first, so that a clip that exists is complete.

    Args:
        folder (`str` or `Path`): The folder.
        dialogue ([`Dialogue`]): The dialogue.
        actor ([`FaceActor`]): The animated face.
        size (`int`, *optional*, defaults to 224): The side length of the square picture in pixels.

    Returns:
        `Path`: The path of the clip.
    """
    path = Path(folder) / f"{dialogue.name}.mp4"
    subtitles = to_srt(Line(utterance.start, utterance.end, utterance.text) for utterance in dialogue.utterances)
    write_text(path.with_suffix(".srt"), subtitles)
    rng = random_streams(dialogue.seed, _split_of(dialogue), dialogue.index)[6]
    sound = speak(dialogue.speeches, dialogue.seconds, rng)
    write_media(path, _pictures(dialogue, actor, size, rng), dialogue.times, sound, comment=_mark(dialogue, size))
    return path


def write_demo(folder: str | Path) -> tuple[Path, list[str]]:
    """Makes a dialogue that is in no split, with an SRT file of the same name beside its clip.

    Args:
        folder (`str` or `Path`): The folder, which is made if it does not exist.

    Returns:
        `tuple[Path, list[str]]`: The path of the clip, and the emotion of each utterance.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    dialogue = plan_dialogue(_DEMO_SEED, "test", 0)
    path = write_dialogue(folder, dialogue, FaceActor(astronaut(), find_face(astronaut()), rest=TO_REST))
    return path, [utterance.emotion for utterance in dialogue.utterances]


def read_truth(folder: str | Path) -> dict[str, dict]:
    """Reads the truth of the clips in a folder.

    Args:
        folder (`str` or `Path`): The folder.

    Returns:
        `dict[str, dict]`: The truth of each clip by name, see [`dialogue_truth`].
    """
    return read_list(Path(folder) / TRUTH)


def _set_actor(face: np.ndarray) -> None:
    global _actor
    cv2.setNumThreads(1)
    _actor = FaceActor(astronaut(), face, rest=TO_REST)


def _make_clip(folder: Path, size: int, dialogue: Dialogue) -> Path:
    return write_dialogue(folder, dialogue, _actor, size)


def _pictures(dialogue: Dialogue, actor: FaceActor, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Renders the (size, size, 3) uint8 frames of a moving camera before an acting face, and a ball that rolls along
    the edge.
    """
    times = dialogue.times
    flip, face_width, roll = rng.random() < 0.5, rng.uniform(0.42, 0.56), np.radians(rng.uniform(-5, 5))
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
    """Returns the text in a clip's file that names its plan. The questions about it may change."""
    plan = repr([_RECIPE, size, dialogue]).encode()
    return f"MicroEmo synthetic dialogue {hashlib.sha256(plan).hexdigest()[:16]}"


def _is_complete(folder: Path, dialogue: Dialogue, size: int) -> bool:
    path = folder / f"{dialogue.name}.mp4"
    return path.with_suffix(".srt").is_file() and comment_of(path) == _mark(dialogue, size)
