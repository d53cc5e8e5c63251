"""Synthetic dialogues in words in place of frames and sound, for the training of a small language model from scratch.

A language model without pretraining hardly learns to look up a numbered utterance in a long prompt. It learns that
from as many plans of dialogues as it takes, none of which needs a clip: the prompt is the one that it reads later,
with the name of a clue in place of the tokens of a window. The plans have seeds that no clip has.

If windows of frames are not utterances, the video tokens stand elsewhere in the prompt, and so do the words for them
in [`LAYOUTS`]: a language model trained on one kind of prompt alone would favour the models that use it.

A dialogue has so few clues that a guess is often right. Dictations cannot be guessed. A model that copies nothing yet
learns them late, and one that repeats numbered lines learns them soon.
"""

import random
from collections.abc import Callable, Sequence

import numpy as np
from torch.utils.data import Dataset

from .dialogue_plan import CLUES, Dialogue, plan_dialogue
from .synthetic_dialogues import CITATIONS, cite_as, dialogue_row

# Seeds of clips are counted from 0.
FIRST_SEED = 1_000_000
# Where the words for the frames stand in the prompt, by the kind of windows: see `windows` of [`MicroEmoConfig`].
LAYOUTS = ("utterance", "none", "sliding")
WINDOW_SECONDS = 2.0  # of sliding windows


class MadeRows(Dataset):
    """Rows that are made when they are accessed, each time the same.

    Args:
        length (`int`): The number of rows.
    """

    def __init__(self, length: int):
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict:
        if index >= self.length:
            raise IndexError(index)
        return self.make(index)

    def make(self, index: int) -> dict:
        """Makes a row.

        Args:
            index (`int`): Its index.

        Returns:
            `dict`: The row.
        """
        raise NotImplementedError


class DescribedDialogues(MadeRows):
    """Rows with `messages` of text alone, whose questions name utterances by a citation, by times and by number in
    turn.

    Args:
        length (`int`): The number of rows.
        turns (`int`, *optional*, defaults to 2): The number of questions kept of a dialogue. Short prompts are cheap.
        layouts (`Sequence[str]`, *optional*):
            The layouts of [`LAYOUTS`] that the rows have in turn. By default the first one alone.
    """

    def __init__(self, length: int, turns: int = 2, layouts: Sequence[str] = LAYOUTS[:1]):
        super().__init__(length)
        self.turns, self.layouts = turns, layouts

    def make(self, index: int) -> dict:
        # Every citation meets every layout.
        layout = self.layouts[index // len(CITATIONS) % len(self.layouts)]
        dialogue = plan_dialogue(FIRST_SEED, "train", index)
        return describe(dialogue, CITATIONS[index % len(CITATIONS)], self.turns, layout)


class RepeatedLines(MadeRows):
    """Rows with `messages` in which numbered lines are repeated in another order.

    The lines are "utterance 1", "utterance 2", ... with random words behind each.

    Args:
        length (`int`): The number of rows.
        words (`Sequence[str]`): The words to draw from.
    """

    def __init__(self, length: int, words: Sequence[str]):
        super().__init__(length)
        self.words = words

    def make(self, index: int) -> dict:
        rng = random.Random(index)
        count = rng.randint(2, 6)
        lines = [f"utterance {number} {' '.join(rng.choices(self.words, k=4))}" for number in range(1, count + 1)]
        texts = {"user": lines, "assistant": rng.sample(lines, count)}
        messages = [{"role": role, "content": [_text("\n".join(text))]} for role, text in texts.items()]
        return {"name": f"lines-{index}", "messages": messages}


class Dictations(MadeRows):
    """Rows like those of [`DescribedDialogues`], with random words for clue and voice, which the answers repeat.

    Args:
        length (`int`): The number of rows.
        words (`Sequence[str]`): The words to draw from.
        layouts (`Sequence[str]`, *optional*): The layouts, as in [`DescribedDialogues`].
        utterances (`Callable[[int], list[dict]]`, *optional*):
            The function that makes the utterances of a row, with index, start, end and text. By default they are those
            of the plan.
        voice (`str`, *optional*, defaults to `"the voice is"`): How the answers introduce the voice.
    """

    def __init__(
        self,
        length: int,
        words: Sequence[str],
        layouts: Sequence[str] = LAYOUTS[:1],
        utterances: Callable[[int], list[dict]] | None = None,
        voice: str = "the voice is",
    ):
        super().__init__(length)
        self.words, self.layouts, self.voice = words, layouts, voice
        self.utterances = utterances or _planned_utterances

    def make(self, index: int) -> dict:
        rng = random.Random(index)
        utterances = self.utterances(index)
        for utterance in utterances:
            utterance["clue"] = " ".join(rng.choices(self.words, k=3))
        for utterance, voice in zip(utterances, rng.choices(self.words, k=len(utterances)), strict=True):
            utterance["voice"] = voice
        messages = []
        for utterance in rng.sample(utterances, len(utterances)):
            answer = f"In utterance {utterance['index']} {utterance['clue']}, and {self.voice} {utterance['voice']}."
            for role, content in (
                ("user", {"type": "utterance", "index": utterance["index"]}),
                ("assistant", _text(answer)),
            ):
                messages.append({"role": role, "content": [content]})
        layout = self.layouts[index // 2 % len(self.layouts)]
        return in_words(f"dictation-{index}", utterances, messages, ("times", "index")[index % 2], layout)


def describe(dialogue: Dialogue, citation: str, turns: int, layout: str = "utterance") -> dict:
    """Makes the row of a dialogue in which words stand for all media.

    Args:
        dialogue ([`Dialogue`]): The dialogue, see [`plan_dialogue`].
        citation (`str`): How the questions name their utterance, see [`cite_as`].
        turns (`int`): The number of questions that are kept.
        layout (`str`, *optional*, defaults to `"utterance"`): One of [`LAYOUTS`].

    Returns:
        `dict`: The row, with `name` and `messages`.
    """
    utterances = _utterances(
        dialogue,
        [CLUES[utterance.clue][1] for utterance in dialogue.utterances],
        [utterance.prosody for utterance in dialogue.utterances],
    )
    messages = dialogue_row(dialogue)["messages"]
    questions = range(0, len(messages), 2)
    selected = random.Random(dialogue.name).sample(questions, min(turns, len(questions)))
    messages = [message for first in selected for message in messages[first : first + 2]]
    return in_words(dialogue.name, utterances, messages, citation, layout)


def _planned_utterances(index: int) -> list[dict]:
    dialogue = plan_dialogue(FIRST_SEED, "train", index)
    return _utterances(dialogue, [""] * len(dialogue.utterances), [""] * len(dialogue.utterances))


def _utterances(dialogue: Dialogue, clues: Sequence[str], voices: Sequence[str]) -> list[dict]:
    return [
        {
            "index": index,
            "start": utterance.start,
            "end": utterance.end,
            "text": utterance.text,
            "clue": clue,
            "voice": voice,
        }
        for index, (utterance, clue, voice) in enumerate(zip(dialogue.utterances, clues, voices, strict=True), start=1)
    ]


def in_words(
    name: str,
    utterances: list[dict],
    messages: list[dict],
    citation: str,
    layout: str = "utterance",
    video: str | None = "a face",
    audio: str | None = "a voice",
) -> dict:
    """Makes a row whose prompt and cited utterances have words in place of the tokens of windows.

    Args:
        name (`str`): The name of the row.
        utterances (`list[dict]`):
            The utterances, with index, start, end, text, and the words `clue` and `voice`, which are empty where there
            are no tokens.
        messages (`list[dict]`): The conversation, whose first message gets the prompt.
        citation (`str`): How the questions name their utterance, see [`cite_as`].
        layout (`str`, *optional*, defaults to `"utterance"`): One of [`LAYOUTS`].
        video (`str`, *optional*, defaults to `"a face"`):
            The words for the whole video, or `None` for a clip without one. In the layout `"none"` the clues stand there.
        audio (`str`, *optional*, defaults to `"a voice"`): The words for the whole sound, or `None` for a clip without.

    Returns:
        `dict`: The row, with `name` and `messages`.
    """
    lines = []
    if video is not None:
        clues = " ".join(utterance["clue"] for utterance in utterances)
        lines.append(f"Video: {clues if layout == 'none' else video}")
    if layout == "sliding":
        for start in np.arange(0.0, utterances[-1]["end"], WINDOW_SECONDS):
            window = {"start": start, "end": start + WINDOW_SECONDS}
            seen = [
                utterance["clue"]
                for utterance in utterances
                if utterance["start"] < window["end"] and window["start"] < utterance["end"]
            ]
            lines.append(f"window {len(lines)} {_times(window)}: {' '.join(seen) or 'a face'}")
    if audio is not None:
        lines.append(f"Audio: {audio}")
    for utterance in utterances:
        parts = [f"utterance {utterance['index']}", utterance["clue"] * (layout == "utterance"), utterance["voice"]]
        line = " ".join(filter(None, [*parts, f"{_times(utterance)}:", utterance["text"]]))
        lines.append(line)
    messages = cite_as(messages, utterances, citation)
    for message in messages:
        for item in message["content"]:
            if item["type"] == "utterance":
                utterance = utterances[item.pop("index") - 1]
                words = " ".join(filter(None, [utterance["clue"], utterance["voice"]]))
                item |= _text(f"{_marker(utterance)}: {words}")
    messages[0]["content"].insert(0, _text("".join(f"{line}\n" for line in lines)))
    return {"name": name, "messages": messages}


def _text(text: str) -> dict:
    return {"type": "text", "text": text}


def _marker(utterance: dict) -> str:
    """Returns the text that the chat template puts before the tokens of a cited window."""
    return f"utterance {utterance['index']} {_times(utterance)}"


def _times(utterance: dict) -> str:
    return f"({utterance['start']:.1f}-{utterance['end']:.1f}s)"
