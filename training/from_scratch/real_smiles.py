"""Real smiles in generated answers: clips of photographs of people who smile, and of the same people with a face at rest.

A clip shows one photograph for two seconds before a camera that is held by hand. It has no sound, and one utterance without
words, which the question is about.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import torch
from transformers import BatchFeature

from ...modeling_microemo.modeling_microemo import MicroEmoForConditionalGeneration
from ...processing.frame_files import read_picture
from ...processing.processing_microemo import MicroEmoProcessor
from ..collator import IGNORED, MicroEmoCollator
from ..synthetic.dialogue_plan import CLUES
from ..synthetic.media_writer import write_media
from ..synthetic.people_answers import ASK_UTTERANCE, clue_words
from ..synthetic.photographs import read_photographs
from .dialogue_scores import generate_answers
from .image_encoder_scores import order_of
from .people_scores import is_well_formed

try:
    import cv2
except ImportError:
    cv2 = None  # type: ignore[assignment]

_SECONDS, _RATE, _SIZE = 2.0, 12, 320
_SWAY, _TURN = 0.015, 1.0  # of the picture's side, and degrees
_SPOKEN = (0.2, 1.8)


def write_smile_clips(folder: Path, photographs: str | Path, split: str | None = None) -> list[dict]:
    """Makes a clip of each photograph of the people who have one with a smile.

    Args:
        folder (`Path`): The folder of the clips.
        photographs (`str` or `Path`): The folder of the photographs, see [`read_photographs`].
        split (`str`, *optional*): The split of the people, by default all of them.

    Returns:
        `list[dict]`: The rows, with `name`, `video` and `utterances`, the person as `person` and whether it `smiles`.

    Raises:
        ValueError: if nobody of the split has a smiling photograph.
    """
    people = [person for person in read_photographs(photographs, split) if person.smiling is not None]
    if not people:
        raise ValueError(f"{photographs}: nobody of the split {split!r} has a smiling photograph")
    folder.mkdir(parents=True, exist_ok=True)
    times, rows = np.arange(round(_SECONDS * _RATE)) / _RATE, []
    for number, person in enumerate(people):
        assert person.smiling is not None  # as the list above is made
        for kind, path in (("neutral", person.neutral), ("smiling", person.smiling)):
            video = folder / f"{person.id}-{kind}.mp4"
            # The camera moves alike before both photographs of a person.
            write_media(video, _handheld(read_picture(path), times, np.random.default_rng(number)), times)
            utterance = {"start": _SPOKEN[0], "end": _SPOKEN[1], "text": ""}
            row = {"name": video.stem, "video": str(video.absolute()), "utterances": [utterance]}
            rows.append(row | {"person": person.id, "smiles": kind == "smiling"})
    return rows


def _handheld(picture: np.ndarray, times: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    side = min(picture.shape[:2])
    corner = [(picture.shape[1] - side) / 2, (picture.shape[0] - side) / 2]
    rates, phases = rng.uniform(0.1, 0.5, 3), rng.uniform(0, 2 * np.pi, 3)
    for right, down, turn in np.sin(2 * np.pi * times[:, None] * rates + phases):
        matrix: np.ndarray = cv2.getRotationMatrix2D(
            (side / 2 + corner[0], side / 2 + corner[1]), _TURN * turn, _SIZE / side
        )
        matrix[:, 2] += _SIZE / 2 - np.array([side / 2 + corner[0], side / 2 + corner[1]])
        matrix[:, 2] += _SWAY * _SIZE * np.array([right, down])
        yield cv2.warpAffine(picture, matrix, (_SIZE, _SIZE), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)


@torch.inference_mode()
def answer_smiles(
    model: MicroEmoForConditionalGeneration, processor: MicroEmoProcessor, rows: list[dict]
) -> list[dict]:
    """Asks about each clip, and computes how probable each clue is as the beginning of the answer.

    Args:
        model ([`MicroEmoForConditionalGeneration`]): The model.
        processor ([`MicroEmoProcessor`]): Its processor.
        rows (`list[dict]`): The rows of [`write_smile_clips`].

    Returns:
        `list[dict]`: For each clip its `name`, `person`, whether it `smiles`, the `answer`, whether a smile was `said`,
        whether the answer is `well_formed`, and `smile`, the share of the smile among the probabilities of all clues.
    """
    model.eval()
    collator, records = MicroEmoCollator(processor), []
    content = [{"type": "text", "text": ASK_UTTERANCE[0] + "\n"}, {"type": "utterance", "index": 1}]
    question = {"role": "user", "content": content}
    for row in rows:
        beginnings = [f"In utterance 1 {clue_words(clue)}" for clue in CLUES]
        batch = cast(
            BatchFeature, collator([{**row, "messages": [question, _answer(beginning)]} for beginning in beginnings])
        )
        labels = batch.pop("labels")
        logits = model(**batch.to(model.device)).logits[:, :-1].log_softmax(dim=-1)
        targets = labels[:, 1:].to(logits.device)
        # The token that ends the turn does not count: the answer goes on.
        is_word = (targets != IGNORED) & (targets != processor.tokenizer.eos_token_id)
        scores = logits.gather(-1, targets.clamp(min=0)[..., None])[..., 0].mul(is_word).sum(dim=1)
        shares = scores.double().softmax(dim=0).tolist()
        media = [{"type": "video", "path": row["video"], "utterances": row["utterances"]}]
        prompt = [{"role": "user", "content": media + content}]
        ((answer, has_ended),) = generate_answers(model, processor, [prompt], max_new_tokens=96)
        record = {key: row[key] for key in ("name", "person", "smiles")}
        record |= {
            "answer": answer,
            "said": clue_words("smile") in answer,
            "smile": shares[list(CLUES).index("smile")],
        }
        records.append(record | {"well_formed": is_well_formed(answer, has_ended, 1)})
    return records


def score_smiles_said(records: list[dict], draws: int = 1000, seed: int = 0) -> dict[str, dict]:
    """Computes how well real smiles are told from faces at rest, with 95 % intervals over people.

    Args:
        records (`list[dict]`): What [`answer_smiles`] returns.
        draws (`int`, *optional*, defaults to 1000): The number of bootstrap samples of people.
        seed (`int`, *optional*, defaults to 0): The seed of the samples.

    Returns:
        `dict[str, dict]`: `auc`, the share of pairs that the probability of a smile puts in order, `said`, the share of
        the smiles in whose answer there is one, and `false`, that of the faces at rest, each with `value`, `low`,
        `high` and `count`, the number of clips.
    """
    people = sorted({record["person"] for record in records})
    by_person = {person: [record for record in records if record["person"] == person] for person in people}

    def figures(chosen: list[dict]) -> tuple[float, float, float]:
        smiles, rests = ([record for record in chosen if record["smiles"] is kind] for kind in (True, False))
        smiling, resting = (np.array([record["smile"] for record in group]) for group in (smiles, rests))
        said, false = (float(np.mean([record["said"] for record in group])) for group in (smiles, rests))
        return order_of(smiling, resting), said, false

    rng = np.random.default_rng(seed)
    samples = [
        figures(
            [record for index in rng.integers(len(people), size=len(people)) for record in by_person[people[index]]]
        )
        for _ in range(draws)
    ]
    low, high = np.percentile(np.array(samples), [2.5, 97.5], axis=0)
    return {
        name: {"value": value, "low": float(low[index]), "high": float(high[index]), "count": len(records)}
        for index, (name, value) in enumerate(zip(("auc", "said", "false"), figures(records), strict=True))
    }


def _answer(text: str) -> dict:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}
