"""What the probes of `probes.py` learn from clips of people, in which not every frame shows a face and not every clip is
heard."""

from collections.abc import Sequence

import numpy as np
import torch

from ...modeling_microemo.modeling_microemo import MicroEmoModel
from ..synthetic.face_acting import ACTIONS
from ..synthetic.people_answers import clue_words, senses, voice_words
from ..synthetic.recordings import HEARD
from .probes import PARTS, ActingFrames, AlignmentClips, WindowProbe, amplitudes_at, words_of_tokens


class PeopleFrames(ActingFrames):
    """Random frames of each clip that show a face, with the amplitudes of the facial actions in them.

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

    def _load(self, index: int) -> dict[str, torch.Tensor]:
        inputs, truth = self.look_up(index)
        tensors = {name: value for name, value in inputs.items() if isinstance(value, torch.Tensor)}
        times, pairs = np.array(inputs["video_metadata"][0].frame_times), senses(truth)
        amplitudes = seen_amplitudes(truth, times)
        bounds = inputs["utterance_windows"][0].tolist()
        windows = [amplitudes[start:end].mean(axis=0) for start, end in bounds]
        parts = [part.mean(axis=0) for part in np.split(amplitudes.repeat(PARTS, axis=0), PARTS)]
        utterances = truth["utterances"]
        during = [(utterance["start"] <= times) & (times < utterance["end"]) for utterance in utterances]
        clues = [
            [
                self._ids(clue_words(clue))
                for (clue, _), lasts in zip(pairs, during, strict=True)
                if lasts[start:end].any()
            ]
            for start, end in [(0, len(times)), *bounds]
        ]
        clues = [window or [self._ids(clue_words(None if not truth["has_face"] else "neutral"))] for window in clues]
        video_words = words_of_tokens(clues, self.processor.num_video_query_tokens)
        targets = {
            "video_words": video_words[None],
            "of_parts": torch.tensor(np.array(parts), dtype=torch.float32)[None],
            "of_windows": torch.tensor(np.reshape(windows, (1, -1, len(ACTIONS))), dtype=torch.float32),
        }
        if "audio_windows" not in tensors:  # no track, no tokens of sound
            return tensors | targets
        # A clip without a voice has a sound all the same, as noise or silence.
        voices = [self._ids(voice_words(voice)) for _, voice in pairs] or [self._ids(voice_words(None))]
        own = int(tensors["audio_windows"].shape[1])
        words = [voices, *([voice] for voice in voices[:own])]
        targets["audio_words"] = words_of_tokens(words, self.processor.num_audio_query_tokens)[None]
        known = [-100 if voice is None else HEARD.index(voice) for _, voice in pairs]
        targets["prosodies"] = torch.tensor(known[:own], dtype=torch.long)[None]
        return tensors | targets


def people_window_probe(model: MicroEmoModel) -> WindowProbe:
    """Makes a probe whose voices are the emotions of recordings.

    Args:
        model ([`MicroEmoModel`]): The model.

    Returns:
        [`WindowProbe`]: The probe.
    """
    return WindowProbe(model, num_voices=len(HEARD))


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
