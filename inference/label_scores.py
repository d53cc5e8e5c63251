"""How probable each emotion word is: sequence probabilities under teacher forcing, over a vocabulary, calibrated.

An answer first describes face and voice and then names emotions, which follow from the description: given one description the
labels are nearly certain. So the model's likeliest descriptions are found by beam search, and behind each of them it reads every
word of the vocabulary; the shares are averaged with the probabilities of the descriptions. A temperature, fitted on people of a
dev split, makes them as sure as they are right (Guo et al. 2017, On Calibration of Modern Neural Networks).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import BatchFeature
from transformers.utils import cached_file

from ..evaluation.emotion_wheel import EmotionWheels
from ..evaluation.label_extraction import LABELS, labels_of_answer, rule_labels
from ..modeling_microemo.generation_microemo import CACHE_NAME
from ..modeling_microemo.media_inputs import MediaEncodings
from ..modeling_microemo.modeling_microemo import MicroEmoForConditionalGeneration
from ..processing.processing_microemo import MicroEmoProcessor
from ..utils.checkpoint_files import CALIBRATION
from .emotion_analysis import LabelScore

_BEAMS, _LEAST_SHARE = 8, 0.02  # of descriptions: those much less likely than the best are passed over
MOST = 5  # labels that an utterance has in an analysis, besides those that its answer names


@dataclass(frozen=True)
class Calibration:
    """The vocabulary of a checkpoint and the temperature of its label scores.

    Attributes:
        vocabulary (`tuple[str, ...]`): The emotion words.
        temperature (`float`): What the log-probabilities are divided by.
    """

    vocabulary: tuple[str, ...]
    temperature: float

    @classmethod
    def of(cls, checkpoint: str | Path) -> "Calibration | None":
        """Reads the calibration of a checkpoint.

        Args:
            checkpoint (`str` or `Path`): The folder or Hub id.

        Returns:
            [`Calibration`]: The calibration, or `None` if the checkpoint has none.

        Raises:
            ValueError: if the file is no calibration. The message names it.
        """
        if not str(checkpoint):  # a model that was made and not loaded
            return None
        file = cached_file(
            str(checkpoint),
            CALIBRATION,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
            _raise_exceptions_for_gated_repo=False,
        )
        if file is None:
            return None
        try:
            content = json.loads(Path(file).read_text(encoding="utf-8-sig"))
            vocabulary, temperature = content["vocabulary"], float(content["temperature"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{file}: no calibration of labels (vocabulary, temperature): {error!r}") from error
        is_list = isinstance(vocabulary, list) and all(isinstance(word, str) and word for word in vocabulary)
        if not is_list or not vocabulary or not 0 < temperature < float("inf"):
            raise ValueError(
                f"{file}: expected a list of words as vocabulary and a temperature above 0, got {content}"
            )
        return cls(tuple(vocabulary), temperature)


def open_vocabulary() -> list[str]:
    """Returns the emotion words of the emotion wheels, the vocabulary where nobody names one.

    Returns:
        `list[str]`: The words, each once.
    """
    wheels = EmotionWheels.default().wheels
    return list(dict.fromkeys(word for rows in wheels for row in rows for word in row if word))


def labels_said(answer: str) -> list[str]:
    """Returns the emotions that an answer names: those of its list of labels, or else those that its words affirm.

    Args:
        answer (`str`): The answer.

    Returns:
        `list[str]`: The emotions, in order.
    """
    return [label for label in labels_of_answer(answer) if label] or rule_labels(answer)


@torch.inference_mode()
def label_log_probabilities(
    model: MicroEmoForConditionalGeneration,
    processor: MicroEmoProcessor,
    inputs: BatchFeature,
    vocabulary: Sequence[str],
    **generate_kwargs: Any,
) -> torch.Tensor:
    """Computes how probable each word is as the first label of an answer.

    Args:
        model ([`MicroEmoForConditionalGeneration`]): The model.
        processor ([`MicroEmoProcessor`]): Its processor.
        inputs (`BatchFeature`): The prompt of one question, up to where the answer begins.
        vocabulary (`Sequence[str]`): The V words.
        generate_kwargs (`Any`, *optional*): Arguments of `generate`.

    Returns:
        `torch.Tensor` of shape `(V,)`: The log-probabilities of the words and of their end.
    """
    inputs = inputs.to(model.device, model.dtype)
    media = {name: value for name, value in inputs.items() if name not in ("input_ids", "attention_mask")}
    encodings = model.model.encode_media(**media)
    found = _descriptions(model, processor, inputs, encodings, generate_kwargs)
    words = [
        weight + _behind(model, processor, inputs["input_ids"], encodings, description, vocabulary)
        for description, weight in found.items()
    ]
    return torch.stack(words).logsumexp(dim=0)


def _descriptions(
    model: MicroEmoForConditionalGeneration,
    processor: MicroEmoProcessor,
    inputs: BatchFeature,
    encodings: MediaEncodings,
    generate_kwargs: dict[str, Any],
) -> dict[str, float]:
    """The likeliest descriptions, and the logarithms of their shares."""
    output = model.generate(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        mm_encoder_outputs=encodings,
        **{
            **generate_kwargs,
            "do_sample": False,
            "num_beams": _BEAMS,
            "num_return_sequences": _BEAMS,
            "length_penalty": 0.0,  # the score of a sequence is the sum of its log-probabilities
            "output_scores": True,
            "return_dict_in_generate": True,
        },
    )
    texts = processor.batch_decode(output.sequences[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    weights: dict[str, float] = {}
    for text, score in zip(texts, output.sequences_scores.double().tolist(), strict=True):
        description = _before_labels(text)
        weights[description] = float(np.logaddexp(weights.get(description, -np.inf), score))
    least = max(weights.values()) + np.log(_LEAST_SHARE)
    kept = {text: weight for text, weight in weights.items() if weight >= least}
    whole = np.logaddexp.reduce(list(kept.values()))
    return {text: float(weight - whole) for text, weight in kept.items()}


def _before_labels(answer: str) -> str:
    """The answer up to its list of labels; where it has none, one is begun behind it."""
    return answer.rpartition(LABELS)[0] if LABELS in answer else f"{answer.rstrip()}\n"


def _behind(
    model: MicroEmoForConditionalGeneration,
    processor: MicroEmoProcessor,
    prompt: torch.Tensor,
    encodings: MediaEncodings,
    description: str,
    vocabulary: Sequence[str],
) -> torch.Tensor:
    """The log-probability of each word and of its end behind a description, of shape `(V,)`."""
    tokenizer = processor.tokenizer
    before = _ids(processor, f"{description}{LABELS}")
    words = [_ids(processor, f"{description}{LABELS} {word}")[len(before) :] for word in vocabulary]
    # A word ends where the list goes on or the answer ends: "interest" is not the beginning of "interested".
    comma = _ids(processor, f"{description}{LABELS} {vocabulary[0]},")[len(before) + len(words[0])]
    ends = torch.tensor([tokenizer.eos_token_id, comma])

    prompt = torch.cat([prompt, torch.tensor([before], device=model.device)], dim=1)
    read = model(input_ids=prompt, mm_encoder_outputs=encodings, use_cache=True, logits_to_keep=1)
    cache = getattr(read, CACHE_NAME)
    cache.batch_repeat_interleave(len(words))
    length = max(map(len, words))
    tokens = pad_sequence(
        [torch.tensor(word) for word in words], batch_first=True, padding_value=tokenizer.pad_token_id or 0
    )
    # All rows begin with the same prompt, which has no padding.
    mask = torch.ones(len(words), prompt.shape[1] + length, dtype=torch.long, device=model.device)
    after = model(input_ids=tokens.to(model.device), attention_mask=mask, **{CACHE_NAME: cache})
    logits = torch.cat([read.logits.expand(len(words), 1, -1), after.logits], dim=1).float().log_softmax(dim=-1).cpu()
    of_tokens = logits[:, :-1].gather(-1, tokens[..., None])[..., 0]
    sizes = torch.tensor([len(word) for word in words])
    is_word = torch.arange(length) < sizes[:, None]
    of_ends = logits[torch.arange(len(words)), sizes][:, ends].logsumexp(dim=-1)
    return (of_tokens * is_word).sum(dim=1) + of_ends


def score_labels(
    log_probabilities: torch.Tensor, vocabulary: Sequence[str], answer: str, temperature: float = 1.0
) -> list[LabelScore]:
    """Turns log-probabilities into the labels of an analysis.

    Args:
        log_probabilities (`torch.Tensor` of shape `(V,)`): Those of [`label_log_probabilities`].
        vocabulary (`Sequence[str]`): The V words.
        answer (`str`): The answer.
        temperature (`float`, *optional*, defaults to 1.0): The temperature of the calibration.

    Returns:
        `list[LabelScore]`: The labels that the answer names and the `MOST` most probable ones, the most probable first.
    """
    shares = (log_probabilities.double() / temperature).softmax(dim=0).tolist()
    said = set(labels_said(answer))
    ranked = sorted(zip(vocabulary, shares, strict=True), key=lambda pair: -pair[1])
    kept = [pair for place, pair in enumerate(ranked) if place < MOST or pair[0] in said]
    return [LabelScore(label, round(share, 6), label in said) for label, share in kept]


def _ids(processor: MicroEmoProcessor, text: str) -> list[int]:
    return processor.tokenizer(text, add_special_tokens=False)["input_ids"]
