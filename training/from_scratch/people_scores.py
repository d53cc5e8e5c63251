"""Scores of generated answers about dialogues of people: what is seen, what is heard, what is felt, and whether an answer is
well-formed."""

import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from tqdm.auto import tqdm

from ...evaluation.label_extraction import labels_of_answer
from ...modeling_microemo.modeling_microemo import MicroEmoForConditionalGeneration
from ...processing.processing_microemo import MicroEmoProcessor
from ..data import to_conversation
from ..synthetic.dialogue_plan import CLUES
from ..synthetic.people_answers import (
    ASK_UTTERANCE,
    ASK_WHOLE,
    NO_FACE,
    NO_SOUND,
    STILL,
    VOICES,
    felt,
    senses,
)
from .dialogue_scores import generate_answers

NOTHING = "nothing"  # stands for no face, and for no voice
_SEEN = {STILL: "neutral", NO_FACE: NOTHING} | {words: clue for clue, (_, words) in CLUES.items() if clue != "neutral"}
_HEARD = {NO_SOUND: NOTHING} | {f"the voice sounds {word}": heard for heard, word in VOICES.items()}


def is_well_formed(answer: str, has_ended: bool, count: int) -> bool:
    """Tells whether an answer is one that a reader can take seriously.

    Args:
        answer (`str`): The answer.
        has_ended (`bool`): Whether the model ended it.
        count (`int`): The number of utterances of the clip that the prompt lists.

    Returns:
        `bool`: Whether it has an end, no word three times in a row, and no utterance that is not there.
    """
    words = answer.lower().split()
    repeats = any(words[index : index + 3] == [word] * 3 for index, word in enumerate(words))
    numbers = [int(number) for number in re.findall(r"utterance (\d{1,6})", answer)]
    return bool(words) and has_ended and not repeats and all(0 < number <= count for number in numbers)


def answer_people_questions(
    model: MicroEmoForConditionalGeneration,
    processor: MicroEmoProcessor,
    rows: Sequence[dict],
    truth: dict[str, dict],
    clips_at_once: int = 8,
    progress: bool = True,
) -> list[dict]:
    """Asks about each utterance (by a citation) and about the whole of clips of people, with greedy generation.

    Args:
        model ([`MicroEmoForConditionalGeneration`]): The model.
        processor ([`MicroEmoProcessor`]): Its processor, or the reader of a [`FeatureCache`].
        rows (`Sequence[dict]`): Rows of the lists of [`write_rows`].
        truth (`dict[str, dict]`): The truth of each clip by name.
        clips_at_once (`int`, *optional*, defaults to 8): The number of clips whose questions are answered together.
        progress (`bool`, *optional*, defaults to `True`): Whether to show a progress bar.

    Returns:
        `list[dict]`: For each question the clip, its split, the `kind` (utterance or whole), the `answer`, whether it is
        `well_formed`, and its labels as `said_labels` beside the true ones. For an utterance also its number, the true
        `clue` and `heard` (`"nothing"` where there is none) beside `said_clue` and `said_heard`, `person`, `corpus`,
        `unseen` and `real_smile`.
    """
    model.eval()
    records = []
    for first in tqdm(range(0, len(rows), clips_at_once), desc="Questions", disable=not progress):
        asked = [question for row in rows[first : first + clips_at_once] for question in _ask(row, truth[row["name"]])]
        for kind, max_new_tokens in (("utterance", 96), ("whole", 320)):
            questions = [(record, messages) for record, messages in asked if record["kind"] == kind]
            if not questions:
                continue
            answers = generate_answers(model, processor, [messages for _, messages in questions], max_new_tokens)
            for (record, _), (answer, has_ended) in zip(questions, answers, strict=True):
                records.append(_with_answer(record, answer, has_ended))
    return records


def _ask(row: dict, truth: dict) -> Iterator[tuple[dict, list[dict]]]:
    is_given = bool(row.get("subtitles") or row.get("utterances"))
    pairs = senses(truth)
    about = {"clip": row["name"], "split": row["split"], "count": len(pairs) if is_given else 0}
    about |= {"conditions": truth["conditions"]}
    for index, (utterance, (clue, heard)) in enumerate(zip(truth["utterances"], pairs, strict=True)):
        if not is_given:
            break
        record = about | {"kind": "utterance", "utterance": index + 1, "person": utterance["person"]}
        record |= {"clue": clue or NOTHING, "heard": heard or NOTHING, "labels": list(felt(clue, heard)[1])}
        record |= {"corpus": utterance["speaker"].partition("-")[0], "speaker": utterance["speaker"]}
        record |= {"unseen": utterance["unseen"], "real_smile": utterance["real_smile"]}
        content = [{"type": "text", "text": ASK_UTTERANCE[0] + "\n"}, {"type": "utterance", "index": index + 1}]
        yield record, to_conversation({**row, "messages": [{"role": "user", "content": content}]})
    content = [{"type": "text", "text": ASK_WHOLE[0]}]
    yield (
        about | {"kind": "whole", "labels": row["emotions"]},
        to_conversation({**row, "messages": [{"role": "user", "content": content}]}),
    )


def _with_answer(record: dict, answer: str, has_ended: bool) -> dict:
    said = {"answer": answer, "well_formed": is_well_formed(answer, has_ended, record["count"])}
    said["said_labels"] = labels_of_answer(answer)
    if record["kind"] == "utterance":
        said["said_clue"] = next((clue for words, clue in _SEEN.items() if words in answer), None)
        said["said_heard"] = next((heard for words, heard in _HEARD.items() if words in answer), None)
    return record | said


def score_people(records: Sequence[dict], draws: int = 1000, seed: int = 0) -> dict[str, dict]:
    """Computes the figures of answers about people, with 95 % intervals over clips.

    Args:
        records (`Sequence[dict]`): What [`answer_people_questions`] returns.
        draws (`int`, *optional*, defaults to 1000): The number of bootstrap samples of clips.
        seed (`int`, *optional*, defaults to 0): The seed of the samples.

    Returns:
        `dict[str, dict]`: For each figure its `value`, `low`, `high`, the number of answers as `count`, and where it is a
        choice the share of the most frequent class as `majority`.
    """
    told = [record for record in records if record["kind"] == "utterance"]
    moved = [record for record in told if record["clue"] not in ("neutral", NOTHING)]
    seen = [record for record in told if record["clue"] != NOTHING]
    heard = [record for record in told if record["heard"] != NOTHING]
    figures: dict[str, tuple[list[dict], Callable]] = {
        "facial clue, of those that move": (moved, _right("clue")),
        "facial clue or still face": (seen, _right("clue")),
        "no face said where none is seen": ([r for r in told if r["clue"] == NOTHING], _right("clue")),
        "no face said where one is seen": (seen, lambda r: r["said_clue"] == NOTHING),
        "no voice said where none is heard": ([r for r in told if r["heard"] == NOTHING], _right("heard")),
        "no voice said where one is heard": (heard, lambda r: r["said_heard"] == NOTHING),
        "labels of an utterance, all right": (told, lambda r: r["said_labels"] == r["labels"]),
        "labels of an utterance, the first right": (told, lambda r: r["said_labels"][:1] == r["labels"][:1]),
        "labels, pairs that training never showed": (
            [r for r in told if r["unseen"]],
            lambda r: r["said_labels"][:1] == r["labels"][:1],
        ),
        "well-formed": (list(records), lambda r: r["well_formed"]),
    }
    figures |= {f"clue {clue}": ([r for r in seen if r["clue"] == clue], _right("clue")) for clue in CLUES}
    figures["real smiles"] = ([r for r in seen if r["real_smile"]], _right("clue"))
    scores = {}
    for name, (chosen, is_right) in figures.items():
        if chosen:
            scores[name] = _interval(chosen, lambda rows, right=is_right: _share(rows, right), draws, seed)
    for name, key, chosen in (
        ("facial clue, of those that move", "clue", moved),
        ("facial clue or still face", "clue", seen),
    ):
        if chosen:
            scores[name]["majority"] = _majority(chosen, key)
    for corpus in sorted({record["corpus"] for record in heard}):
        chosen = [record for record in heard if record["corpus"] == corpus]
        classes = sorted({record["heard"] for record in chosen})
        name = f"voice, {corpus}, recall of {len(classes)} emotions"
        scores[name] = _interval(chosen, _recall, draws, seed) | {"majority": 1 / len(classes)}
    return scores


def _right(key: str) -> Callable[[dict], bool]:
    return lambda record: record[f"said_{key}"] == record[key]


def _share(records: Sequence[dict], is_right: Callable[[dict], bool]) -> float:
    return sum(map(is_right, records)) / len(records)


def _recall(records: Sequence[dict]) -> float:
    """The unweighted average recall of the emotions heard."""
    by_class: dict[str, list[bool]] = {}
    for record in records:
        by_class.setdefault(record["heard"], []).append(record["said_heard"] == record["heard"])
    return float(np.mean([np.mean(rights) for rights in by_class.values()]))


def _majority(records: Sequence[dict], key: str) -> float:
    values = [record[key] for record in records]
    return max(values.count(value) for value in set(values)) / len(values)


def _interval(records: Sequence[dict], figure: Callable, draws: int, seed: int) -> dict[str, float]:
    by_clip: dict[str, list[dict]] = {}
    for record in records:
        by_clip.setdefault(record["clip"], []).append(record)
    clips, rng = list(by_clip.values()), np.random.default_rng(seed)
    samples = []
    for _ in range(draws):
        chosen = rng.integers(len(clips), size=len(clips))
        samples.append(figure([record for index in chosen for record in clips[index]]))
    low, high = np.percentile(samples, [2.5, 97.5])
    return {"value": figure(records), "low": float(low), "high": float(high), "count": len(records)}
