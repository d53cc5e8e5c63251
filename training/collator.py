"""Collators: they turn rows of a data set into a batch with labels on the answers."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from ..processing.processing_microemo import MicroEmoProcessor
from .data import to_conversation

IGNORED = -100  # no loss is taken there
TRAINER_SETTINGS = (
    "A trainer must leave the rows as they are: Trainer with remove_unused_columns=False, TRL's SFTTrainer with "
    "SFTConfig(remove_unused_columns=False, dataset_kwargs={'skip_prepare_dataset': True})"
)


class MicroEmoCollator:
    """Turns rows of a data set into a training batch.

    The processor pads frames, windows, clue regions, audio segments and timestamps. The labels follow the chat
    template, which marks where each answer begins and ends: all turns of `messages` by the assistant have labels, the
    token that ends a turn included.

    Args:
        processor ([`MicroEmoProcessor`]): The processor of the model, or one that reads a [`FeatureCache`].
        return_attention_mask (`bool`, *optional*, defaults to `True`):
            Whether the batch has an `attention_mask`, which TRL's trainers need. The padding is on the right, where no
            answer attends to it, so the loss is the same without, and attention kernels take their causal path.

    Example:

    ```python
    >>> batch = MicroEmoCollator(processor)([{"video": "a.mp4", "instruction": "What is felt?", "response": "Joy."}])
    >>> sorted(batch.keys() - processor.model_input_names)
    ['labels']
    ```"""

    def __init__(self, processor: MicroEmoProcessor, return_attention_mask: bool = True):
        self.processor = processor
        self.return_attention_mask = return_attention_mask

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        """Builds the batch.

        Args:
            rows (`list[dict]`): B rows of the data set.

        Returns:
            `BatchFeature`: The inputs of the model and `labels` of shape `(B, S)`, which are -100 on all tokens but
            the answers.

        Raises:
            ValueError: if a row has no conversation, or the chat template marks no answer of it.
        """
        for row in rows:
            if not row.get("messages") and not row.keys() >= {"instruction", "response"}:
                raise ValueError(
                    f"a row needs messages, or instruction and response, found {', '.join(row)}. {TRAINER_SETTINGS}"
                )
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
        if not self.return_attention_mask:
            del batch["attention_mask"]
        return batch


class PromptCollator:
    """Turns rows into the prompts of their first question, ready for `generate`.

    Args:
        processor ([`MicroEmoProcessor`]): The processor of the model, or one that reads a [`FeatureCache`].
    """

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
    """Returns the messages before the first answer.

    Args:
        conversation (`list[dict]`): The messages of a conversation, with at least one answer.

    Returns:
        `list[dict]`: The messages before the first one of the assistant.
    """
    return conversation[: [message["role"] for message in conversation].index("assistant")]


class _TryOne:
    """Collates one row and returns the error message in place of the batch."""

    def __init__(self, collator: MicroEmoCollator):
        self.collator = collator

    def __call__(self, rows: list[dict]) -> str | None:
        try:
            self.collator(rows)
        except (ValueError, OSError, KeyError, TypeError) as error:
            return f"{error}" if isinstance(error, (ValueError, OSError)) else repr(error)
        return None


def try_rows(rows: Iterable[dict], collator: MicroEmoCollator, num_workers: int = 0) -> Iterator[str | None]:
    """Passes every row once through decoding, face mesh and chat template, as training does.

    Args:
        rows (`Iterable[dict]`): Rows of a data set.
        collator ([`MicroEmoCollator`]): The collator of the training run.
        num_workers (`int`, *optional*, defaults to 0): The number of processes that decode.

    Yields:
        `str` or `None`: The error message of each row, in order; `None` for a row without an error.
    """
    yield from one_by_one(rows, _TryOne(collator), num_workers)


def one_by_one(rows: Iterable, collate_fn: Callable[[list], Any], num_workers: int = 0) -> DataLoader:
    """Makes a data loader that passes single rows in order.

    Its processes are spawned, because a face mesh does not survive a fork. It does not touch the random number
    generator of the training run.

    Args:
        rows (`Iterable`): The rows.
        collate_fn (`Callable[[list], Any]`): The function that is called with a list of one row.
        num_workers (`int`, *optional*, defaults to 0): The number of processes.

    Returns:
        `DataLoader`: The data loader.
    """
    return DataLoader(
        rows,
        batch_size=1,
        num_workers=num_workers,
        collate_fn=collate_fn,
        multiprocessing_context="spawn" if num_workers else None,
        generator=torch.Generator(),
    )
