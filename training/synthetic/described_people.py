"""Dialogues of people in words, for the training of a small language model from scratch; see `described_dialogues.py`.

No clip is planned: what is seen, heard and said is drawn at random, each apart from the others, and the conversation is
that of [`people_turns`].
"""

import random
from collections.abc import Sequence

import numpy as np

from .described_dialogues import Dictations, MadeRows, in_words
from .dialogue_plan import CLUES, SENTENCES
from .people_answers import VOICES, clue_words, people_turns, senses, voice_words
from .synthetic_dialogues import CITATIONS

_GERMAN = """Ja. | Nein. | Gut. | Na ja. | Einen Moment. | Ich weiß es nicht. | Das ist der Platz. | Sie kommt am Montag. | Wir gehen
jetzt nach Hause. | Er hat heute Morgen angerufen. | Der Schlüssel liegt auf dem Tisch. | Das will er uns am Abend sagen. |
Wann fährt der nächste Zug in die Stadt? | Meine Schwester wohnt in dieser Straße. | Wir haben zwei davon im Haus. | Die
Bücher stehen da oben neben dem Fenster. | An den Wochenenden war ich immer bei ihr. | Was sind denn das für Blumen, die
da vor der Tür stehen? | In einer Stunde wird es so weit sein. | Ich habe den ersten Teil gelesen und den anderen liegen
lassen."""
SPOKEN = (*SENTENCES, *(" ".join(sentence.split()) for sentence in _GERMAN.split("|")))
_LETTERS = "eeeettaaooiinnssrrhhlldducmwfgypbvkxqjzäöüßéèñçøå0123456789'-"
# How many utterances a dialogue has: ranges and their shares. Short prompts are cheap.
_COUNTS = ((1, 1), (2, 4), (5, 8), (9, 12), (13, 24))
_SHARES = (0.24, 0.48, 0.18, 0.08, 0.02)


class DescribedPeople(MadeRows):
    """Rows with `messages` of text alone about dialogues of people, whose questions name utterances by a citation, by
    times and by number in turn.

    Args:
        length (`int`): The number of rows.
        turns (`int`, *optional*, defaults to 4): The number of questions kept of a dialogue.
        shuffled_words (`Sequence[str]`, *optional*):
            Words of which a quarter of the utterances consist, so that words mean nothing about the emotion.
    """

    def __init__(self, length: int, turns: int = 4, shuffled_words: Sequence[str] = ()):
        super().__init__(length)
        self.turns, self.shuffled_words = turns, shuffled_words

    def make(self, index: int) -> dict:
        return describe_people(index, CITATIONS[index % len(CITATIONS)], self.turns, self.shuffled_words)


class LessonsInOrder(MadeRows):
    """Rows of [`DescribedPeople`] and, every fourth batch, of [`Dictations`].

    The dialogues of a batch have about as many utterances, so that hardly anything of it is padding. The rows must be
    taken in their order.

    Args:
        length (`int`): The number of rows.
        batch_size (`int`): The number of rows of a batch.
        words (`Sequence[str]`): The words of dictations, and of a quarter of the utterances.
    """

    def __init__(self, length: int, batch_size: int, words: Sequence[str]):
        super().__init__(length)
        self.batch_size, self.words = batch_size, words
        self.dictations = Dictations(length, words, utterances=dictated_utterances, voice="the voice sounds")

    def make(self, index: int) -> dict:
        batch = index // self.batch_size
        if batch % 4 == 3:
            return self.dictations[index]
        return describe_people(index, CITATIONS[index % len(CITATIONS)], 3, self.words, batch)


def describe_people(
    index: int, citation: str, turns: int, shuffled_words: Sequence[str] = (), group: int | None = None
) -> dict:
    """Makes the row of a dialogue of people in which words stand for all media.

    Args:
        index (`int`): The number of the dialogue.
        citation (`str`): How the questions name their utterance, see [`cite_as`].
        turns (`int`): The number of questions that are kept.
        shuffled_words (`Sequence[str]`, *optional*): Words of which a quarter of the utterances consist.
        group (`int`, *optional*): The number of a group of dialogues that have about as many utterances.

    Returns:
        `dict`: The row, with `name` and `messages`.
    """
    rng = np.random.default_rng([19, index])
    truth = imagine(rng, shuffled_words, None if group is None else np.random.default_rng([18, group]))
    given = "words" if truth["has_words"] else ("times", "none")[rng.integers(2)]
    pairs = senses(truth)
    # A clip without frames or without sound has no tokens of them; one whose frames show nobody has.
    has_frames = truth["has_face"] or rng.random() < 0.7
    has_sound = truth["has_sound"] or rng.random() < 0.4
    utterances = [
        {
            "index": number,
            "start": utterance["start"],
            "end": utterance["end"],
            "text": utterance["text"] if given == "words" else "",
            "clue": clue_words(clue) if has_frames else "",
            "voice": voice_words(heard) if has_sound else "",
        }
        for number, (utterance, (clue, heard)) in enumerate(zip(truth["utterances"], pairs, strict=True), start=1)
    ]
    # The tokens of the whole clip hold what the windows hold, and of many utterances not all of it.
    is_summed_up = given == "none" or rng.random() < 0.5
    clues = list(dict.fromkeys(clue_words(clue) for clue, _ in pairs))
    voices = list(dict.fromkeys(voice_words(heard) for _, heard in pairs))
    conversation = people_turns(truth, rng, given)
    kept = random.Random(index).sample(conversation, min(turns, len(conversation)))
    return in_words(
        f"people-{index}",
        [] if given == "none" else utterances,
        [message for _, *pair in kept for message in pair],
        citation,
        video=(" ".join(clues) if is_summed_up else "a face") if has_frames else None,
        audio=(" ".join(voices) if is_summed_up else "a voice") if has_sound else None,
    )


def imagine(
    rng: np.random.Generator, shuffled_words: Sequence[str] = (), size_rng: np.random.Generator | None = None
) -> dict:
    """Draws the truth of a clip that nobody makes.

    Args:
        rng (`np.random.Generator`): The generator.
        shuffled_words (`Sequence[str]`, *optional*): Words of which a quarter of the utterances consist.
        size_rng (`np.random.Generator`, *optional*): The generator of how long the clip is about. By default `rng`.

    Returns:
        `dict`: The truth, as [`people_turns`] takes it, with the text of each utterance.
    """
    size_rng = rng if size_rng is None else size_rng
    first, last = _COUNTS[size_rng.choice(len(_COUNTS), p=_SHARES)]
    has_words = last > 8 or rng.random() < 0.7
    # Without utterances in the prompt the whole clip is told at once, and holds little.
    count = int(rng.integers(first, last + 1)) if has_words else int(rng.integers(1, 6))
    has_face = rng.random() < 0.9
    utterances, time = [], rng.uniform(0, 1)
    for _ in range(count):
        end = time + rng.uniform(0.5, 5)
        utterances.append(
            {
                "start": round(time, 3),
                "end": round(end, 3),
                "text": _say(rng, shuffled_words),
                "clue": _draw(list(CLUES), rng),
                "heard": _draw(list(VOICES), rng),
                "seen": has_face and rng.random() < 0.92,
            }
        )
        time = end + rng.choice([0, rng.uniform(0.1, 1.5)])
    return {
        "split": "train",
        "has_face": has_face and any(utterance["seen"] for utterance in utterances),
        "has_sound": rng.random() < 0.88,
        "has_words": has_words,
        "utterances": utterances,
    }


def dictated_utterances(index: int) -> list[dict]:
    """Makes utterances for [`Dictations`].

    Args:
        index (`int`): The number of the dialogue.

    Returns:
        `list[dict]`: The utterances, with index, start, end and text.
    """
    truth = imagine(np.random.default_rng([20, index]))
    return [
        {"index": number, **{name: utterance[name] for name in ("start", "end", "text")}}
        for number, utterance in enumerate(truth["utterances"][:5], start=1)
    ]


def _say(rng: np.random.Generator, shuffled_words: Sequence[str]) -> str:
    """Draws a sentence, known words in any order, or letters that are no words: speech is in any language."""
    kind = rng.random()
    if kind < 0.25 and shuffled_words:
        return " ".join(_draw(shuffled_words, rng) for _ in range(rng.integers(1, 9)))
    if kind < 0.5:
        words = ["".join(_draw(_LETTERS, rng) for _ in range(rng.integers(2, 8))) for _ in range(rng.integers(1, 7))]
        return " ".join(words) + _draw(".?!,", rng)
    return _draw(SPOKEN, rng)


def _draw(names: Sequence[str], rng: np.random.Generator) -> str:
    return names[rng.integers(len(names))]
