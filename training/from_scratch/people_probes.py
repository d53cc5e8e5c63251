"""What the probes of `probes.py` learn from clips of people, in which not every frame shows a face and not every clip is
heard."""

from collections.abc import Sequence

import numpy as np

from ..synthetic.people_answers import clue_words, senses, voice_words
from ..synthetic.recordings import HEARD
from .probes import ActingFrames, AlignmentClips, amplitudes_at


class PeopleFrames(ActingFrames):
    """Random frames of each clip, with the amplitudes of the facial actions that are seen in them.

    Args:
        rows (`Iterable[dict]`): Rows of the table of dialogues.
        processor ([`MicroEmoProcessor`]): The processor of the model, or the reader of a [`FeatureCache`].
        num_frames (`int`): The number of frames drawn from a clip.
    """

    def amplitudes(self, truth: dict, times: np.ndarray) -> np.ndarray:
        return seen_amplitudes(truth, times)


class PeopleWindows(AlignmentClips):
    """Whole clips of people with the targets of [`WindowProbe`].

    Args:
        rows (`Iterable[dict]`): Rows of the table of dialogues.
        processor ([`MicroEmoProcessor`]): The processor of the model, or the reader of a [`FeatureCache`].
    """

    def amplitudes(self, truth: dict, times: np.ndarray) -> np.ndarray:
        return seen_amplitudes(truth, times)

    def describe(self, truth: dict) -> list[tuple[str, str, int]]:
        return [
            (clue_words(clue), voice_words(heard), -100 if heard is None else HEARD.index(heard))
            for clue, heard in senses(truth)
        ]

    def describe_pause(self, truth: dict) -> tuple[str, str] | None:
        # A clip without a voice has a sound all the same, as noise or silence.
        return clue_words("neutral" if truth["has_face"] else None), voice_words(None)


def seen_amplitudes(truth: dict, times: np.ndarray) -> np.ndarray:
    """Looks up the amplitude of each facial action at given times, 0 where no face is seen.

    Args:
        truth (`dict`): The truth of a clip of people.
        times (`np.ndarray` of shape `(T,)`): The times in seconds.

    Returns:
        `np.ndarray` of shape `(T, A)`: The amplitudes in the nearest frame.
    """
    nearest = np.abs(np.array(truth["times"])[None] - times[:, None]).argmin(axis=1)
    shown: Sequence = truth["shown"]
    is_seen = np.array([shown[index] is not None for index in nearest]) & bool(truth["has_face"])
    return amplitudes_at(truth, times) * is_seen[:, None]
