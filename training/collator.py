"""Rows of a data set to a batch with labels on the answers."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from ..processing.processing_microemo import MicroEmoProcessor
from .data import to_conversation

IGNORED = -100  # no loss is taken there


class MicroEmoCollator:
    """Puts rows through the processor, which pads frames, windows, clue regions, sound and timestamps.

    The chat template says where an answer begins and ends, so the labels follow it: all turns of `messages` that the
    assistant says, with the token that ends each.

    Args:
        processor ([`MicroEmoProcessor`]): Of the model; or one that reads a [`FeatureCache`].

    Example:

    ```python
    >>> batch = MicroEmoCollator(processor)([{"video": "a.mp4", "instruction": "What is felt?", "response": "Joy."}])
    >>> sorted(batch.keys() - processor.model_input_names)
    ['labels']
    ```"""

    def __init__(self, processor: MicroEmoProcessor):
        self.processor = processor

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        """
        Returns:
            `BatchFeature`: What the model reads, with `labels` (B, S): -100 on all but the answers; without
            `attention_mask`, since the padding is on the right.

        Raises:
            ValueError: if the chat template marks no answer of a row.
        """
        batch = self.processor.apply_chat_template(
            [to_conversation(row) for row in rows],
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=True,
            padding_side="right",
            return_tensors="pt",
        )
        answers = batch.pop("assistant_masks").bool()
        if not answers.any(dim=1).all():
            raise ValueError(
                "the chat template marks no answer: its assistant's part must stand between "
                "{% generation %} and {% endgeneration %}"
            )
        batch["labels"] = batch["input_ids"].masked_fill(~answers, IGNORED)
        # The padding comes last, where no answer looks: without a mask attention kernels take their causal path.
        del batch["attention_mask"]
        return batch


class PromptCollator:
    """Rows to the prompts of their first question, ready for `generate`."""

    def __init__(self, processor: MicroEmoProcessor):
        self.processor = processor

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        return self.processor.apply_chat_template(
            [question_of(to_conversation(row)) for row in rows],
            tokenize=True,
            return_dict=True,
            add_generation_prompt=True,
            return_tensors="pt",
        )


def question_of(conversation: list[dict]) -> list[dict]:
    """The messages before the first answer."""
    return conversation[: [message["role"] for message in conversation].index("assistant")]


class _TryOne:
    """A collator for one row that returns what goes wrong in place of the batch."""

    def __init__(self, collator: MicroEmoCollator):
        self.collator = collator

    def __call__(self, rows: list[dict]) -> str | None:
        try:
            self.collator(rows)
        except (ValueError, OSError, KeyError, TypeError) as error:
            return f"{error}" if isinstance(error, (ValueError, OSError)) else repr(error)
        return None


def try_rows(rows: Iterable[dict], collator: MicroEmoCollator, num_workers: int = 0) -> Iterator[str | None]:
    """Put every row once through decoding, face mesh and chat template, as training will.

    Yields, for each row in order, `None` or what went wrong.
    """
    yield from one_by_one(rows, _TryOne(collator), num_workers)


def one_by_one(rows: Iterable, collate_fn: Callable[[list], Any], num_workers: int = 0) -> DataLoader:
    """A loader of single rows in order. Its processes start afresh: a face mesh does not survive a fork. Training's
    random numbers are left alone."""
    return DataLoader(
        rows,
        batch_size=1,
        num_workers=num_workers,
        collate_fn=collate_fn,
        multiprocessing_context="spawn" if num_workers else None,
        generator=torch.Generator(),
    )
