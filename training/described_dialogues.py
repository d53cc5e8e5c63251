"""Synthetic dialogues told in words in place of pictures and sound: what a language model without words learns from.

A language model that has read nothing hardly learns to look a numbered utterance up in a long prompt. It learns that
here, from as many plans of dialogues as it takes, none of which needs a clip: the prompt is the one that it will read
later, with a clue's name where the tokens of a window will stand. The plans are of seeds that no clip has.
"""

import random

from torch.utils.data import Dataset

from .dialogue_plan import CLUES, Dialogue, plan_dialogue
from .synthetic_dialogues import CITATIONS, cite_as, dialogue_row

# Seeds of clips are counted from 0.
FIRST_SEED = 1_000_000


class DescribedDialogues(Dataset):
    """Rows with `messages` of text alone, in turn with the utterances of the questions cited, by times and by number.

    Args:
        length (`int`): How many.
        turns (`int`, *optional*, defaults to 3): Questions that are kept of a dialogue: short prompts are cheap ones.
    """

    def __init__(self, length: int, turns: int = 3):
        self.length, self.turns = length, turns

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict:
        if index >= self.length:
            raise IndexError(index)
        return describe(plan_dialogue(FIRST_SEED, "train", index), CITATIONS[index % len(CITATIONS)], self.turns)


def describe(dialogue: Dialogue, citation: str, turns: int) -> dict:
    """The row of a dialogue in which words stand for all media.

    Args:
        dialogue: See [`plan_dialogue`].
        citation: How the questions name their utterance, see [`cite_as`].
        turns: Questions that are kept.
    """
    said = [
        {"index": index, "start": one.start, "end": one.end, "text": one.text, "clue": CLUES[one.clue][1]}
        | {"voice": one.prosody}
        for index, one in enumerate(dialogue.utterances, start=1)
    ]
    lines = ["Video: a face", "Audio: a voice"]
    lines += [f"utterance {one['index']} {one['clue']} {one['voice']} {_times(one)}: {one['text']}" for one in said]

    messages = cite_as(dialogue_row(dialogue)["messages"], said, citation)
    questions = range(0, len(messages), 2)
    kept = random.Random(dialogue.name).sample(questions, min(turns, len(questions)))
    messages = [message for first in kept for message in messages[first : first + 2]]
    for message in messages:
        for item in message["content"]:
            if item["type"] == "utterance":
                one = said[item.pop("index") - 1]
                item |= {"type": "text", "text": f"{_marker(one)}: {one['clue']} {one['voice']}"}
    messages[0]["content"].insert(0, {"type": "text", "text": "\n".join(lines) + "\n"})
    return {"name": dialogue.name, "messages": messages}


def _marker(said: dict) -> str:
    """As the chat template puts it before the tokens of a cited window."""
    return f"utterance {said['index']} {_times(said)}"


def _times(said: dict) -> str:
    return f"({said['start']:.1f}-{said['end']:.1f}s)"
