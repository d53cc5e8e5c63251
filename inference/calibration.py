"""Calibration of label scores on people that no training has seen; see `label_scores.py`."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..evaluation.label_extraction import labels_of_answer
from ..processing.clip_reader import ClipInput
from ..utils.atomic_files import write_text
from ..utils.checkpoint_files import CALIBRATION
from .held_clip import HeldClip
from .label_scores import label_log_probabilities

if TYPE_CHECKING:
    from .emotion_pipeline import EmotionPipeline

_TEMPERATURES = np.geomspace(0.2, 10, 400)
_BINS = 10  # of the expected calibration error


def labelled_questions(row: dict) -> Iterator[tuple[list[dict], list[str]]]:
    """Finds the questions about one utterance in a row of a data set, whose answers list labels.

    Args:
        row (`dict`): The row, with `messages`.

    Yields:
        `tuple[list[dict], list[str]]`: The items of the question, and the labels of its answer.
    """
    messages = row["messages"]
    for asked, answered in zip(messages[::2], messages[1::2], strict=True):
        items = [
            {name: value for name, value in item.items() if value is not None}
            for item in asked["content"]
            if item["type"] in ("text", "utterance")
        ]
        labels = labels_of_answer("".join(item.get("text") or "" for item in answered["content"]))
        if labels and any(item["type"] == "utterance" for item in items):
            yield items, labels


def calibrate(
    pipeline: "EmotionPipeline",
    rows: Iterable[dict],
    vocabulary: Sequence[str],
    progress: Any = iter,
) -> dict[str, Any]:
    """Fits the temperature with which label scores are as sure as they are right.

    Args:
        pipeline ([`EmotionPipeline`]): The pipeline.
        rows (`Iterable[dict]`): Rows of a data set with `video`, `subtitles` or `utterances`, and `messages`.
        vocabulary (`Sequence[str]`): The emotion words.
        progress (`Callable`, *optional*): What the rows are drawn through, such as `tqdm`.

    Returns:
        `dict`: `vocabulary`, `temperature`, `questions` (their number), `accuracy` of the best label, and
        `negative_log_likelihood` and `expected_calibration_error` without and with the temperature.

    Raises:
        ValueError: if no question about an utterance has an answer with labels of the vocabulary.
    """
    words, scores, targets = list(vocabulary), [], []
    for row in progress(rows):
        questions = [(items, labels[0]) for items, labels in labelled_questions(row) if labels[0] in words]
        if not questions:
            continue
        clip = ClipInput(row.get("video"), row.get("audio"), utterances=row.get("subtitles") or row.get("utterances"))
        held = HeldClip(pipeline.model, pipeline.processor, clip)
        for items, label in questions:
            prompt = held.prompts([(held.given(), items)])
            found = label_log_probabilities(
                pipeline.model, pipeline.processor, prompt, words, max_new_tokens=pipeline.max_new_tokens
            )
            scores.append(found.double())
            targets.append(words.index(label))
    if not scores:
        raise ValueError("no question about an utterance has an answer that ends in labels of the vocabulary")
    stacked, target = torch.stack(scores), torch.tensor(targets)
    losses = [_loss(stacked, target, temperature) for temperature in _TEMPERATURES]
    temperature = float(_TEMPERATURES[int(np.argmin(losses))])
    best = stacked.argmax(dim=1) == target
    return {
        "vocabulary": words,
        "temperature": round(temperature, 4),
        "questions": len(targets),
        "accuracy": round(float(best.double().mean()), 4),
        "negative_log_likelihood": [round(_loss(stacked, target, value), 4) for value in (1.0, temperature)],
        "expected_calibration_error": [round(_error(stacked, best, value), 4) for value in (1.0, temperature)],
    }


def write_calibration(checkpoint: str | Path, calibration: dict[str, Any]) -> Path:
    """Writes a calibration beside the weights that it is for.

    Args:
        checkpoint (`str` or `Path`): The folder of the checkpoint.
        calibration (`dict`): What [`calibrate`] returned.

    Returns:
        `Path`: The file.
    """
    text = json.dumps(calibration, indent=1, ensure_ascii=False) + "\n"
    return write_text(Path(checkpoint) / CALIBRATION, text)


def _loss(scores: torch.Tensor, target: torch.Tensor, temperature: float) -> float:
    return float(torch.nn.functional.cross_entropy(scores / temperature, target))


def _error(scores: torch.Tensor, is_right: torch.Tensor, temperature: float) -> float:
    """The expected calibration error: how far confidence and accuracy lie apart, over bins of confidence."""
    confidence = (scores / temperature).softmax(dim=1).amax(dim=1)
    bins = (confidence * _BINS).long().clamp(max=_BINS - 1)
    gaps = [
        abs(float(confidence[bins == number].mean() - is_right[bins == number].double().mean()))
        * float((bins == number).double().mean())
        for number in range(_BINS)
        if (bins == number).any()
    ]
    return sum(gaps)
