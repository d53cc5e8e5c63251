"""Recordings of emotional speech as an audio tower hears them, for the training of the audio Q-Former.

Speakers are few, so that what is learned from them must not be their voices: each recording is heard several times, with
noise, music-like tones, other loudness and another speed, in a dialogue of others.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import parametrize
from torch.utils.data import Dataset

from ...configuration.configuration_microemo import MicroEmoAudioQFormerConfig
from ...modeling_microemo.audio_branch import AudioBranch
from ...processing.feature_extraction_microemo import resample
from ...utils.atomic_files import atomic_file
from ..synthetic.recordings import HEARD, Recording, load_speech
from ..synthetic.voice import SOUND_RATE

_GAP = (0.05, 1.2)  # seconds between two recordings
_SPEEDS = (9, 10, 11)  # tenths
_VOICE_OVER_NOISE = (3.0, 30.0)  # decibels
_LOUDNESS = (-16.0, 0.0)  # decibels below the loudest that can be


@dataclass
class HeardVoice:
    """A recording as the audio tower hears it in a dialogue.

    Attributes:
        features (`torch.Tensor` of shape `(S, D)`): The steps of the audio tower during the recording.
        emotion (`int`): The index of its emotion in `HEARD`.
        corpus (`str`): The name of its corpus.
        speaker (`str`): The name of its speaker.
    """

    features: torch.Tensor
    emotion: int
    corpus: str
    speaker: str


def hear(
    recordings: Sequence[Recording],
    encode: Callable[[np.ndarray], torch.Tensor],
    segment_seconds: float,
    seed: int,
    is_changed: bool = True,
) -> Iterator[HeardVoice]:
    """Joins recordings to dialogues that fill a segment of sound more or less, and encodes them.

    Args:
        recordings (`Sequence[Recording]`): The recordings, each of which is heard once.
        encode (`Callable`): The function from the samples of a segment at 16 kHz to the steps `(S, D)` of the audio tower.
        segment_seconds (`float`): The number of seconds of a segment.
        seed (`int`): The seed of order, gaps and changes.
        is_changed (`bool`, *optional*, defaults to `True`): Whether loudness, speed and background vary.

    Yields:
        [`HeardVoice`]: Each recording as it is heard.
    """
    rng = np.random.default_rng(seed)
    waiting = [recordings[index] for index in rng.permutation(len(recordings))]
    while waiting:
        most = int(rng.integers(1, 10))
        time, sounds = rng.uniform(0, 1), []
        spans: list[tuple[float, float, Recording]] = []
        while waiting and len(spans) < most:
            sound = _change(load_speech(waiting[-1]), rng) if is_changed else load_speech(waiting[-1])
            end = time + len(sound) / SOUND_RATE
            if end > segment_seconds:
                break
            spans.append((time, end, waiting.pop()))
            sounds.append(sound)
            time = end + rng.uniform(*_GAP)
        seconds = min(segment_seconds, spans[-1][1] + rng.uniform(0, 1))
        samples = np.zeros(round(seconds * SOUND_RATE) + 1, np.float32)
        for (start, _, _), sound in zip(spans, sounds, strict=True):
            first = round(start * SOUND_RATE)
            samples[first : first + len(sound)] += sound[: len(samples) - first]
        if is_changed:
            samples = _add_background(samples, rng)
        steps = encode(samples)
        per_second = len(steps) / segment_seconds
        for start, end, recording in spans:
            first, last = int(start * per_second), max(int(np.ceil(end * per_second)), int(start * per_second) + 1)
            emotion = HEARD.index(recording.emotion)
            yield HeardVoice(steps[first:last].clone(), emotion, recording.corpus, recording.speaker)


def _change(sound: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Changes loudness and speed; with the speed the pitch changes, as if another person spoke."""
    speed = int(rng.choice(_SPEEDS))
    if speed != 10:
        sound = resample(torch.from_numpy(sound), speed * SOUND_RATE // 10, SOUND_RATE).numpy()
    return sound * np.float32(10 ** (rng.uniform(*_LOUDNESS) / 20))


def _add_background(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Adds noise between white and brown, to half of the dialogues, and the faint noise of any recording."""
    level = float(np.sqrt(np.square(samples[samples != 0]).mean()))
    if rng.random() < 0.5:
        spectrum = np.fft.rfft(rng.standard_normal(len(samples)))
        frequency = np.maximum(np.fft.rfftfreq(len(samples), 1 / SOUND_RATE), 40.0)
        noise = np.fft.irfft(spectrum * frequency ** -rng.uniform(0, 1), len(samples))
        samples = samples + level * 10 ** (-rng.uniform(*_VOICE_OVER_NOISE) / 20) * noise / noise.std()
    samples = samples + 10 ** (rng.uniform(-75, -55) / 20) * rng.standard_normal(len(samples))
    return (samples * min(1.0, 0.99 / max(1e-6, np.abs(samples).max()))).astype(np.float32)


def write_voices(path: Path, voices: Sequence[HeardVoice]) -> Path:
    """Writes recordings as the audio tower hears them.

    Args:
        path (`Path`): The file.
        voices (`Sequence[HeardVoice]`): The recordings.

    Returns:
        `Path`: The file.
    """
    about = [{"emotion": voice.emotion, "corpus": voice.corpus, "speaker": voice.speaker} for voice in voices]
    tensors = {
        "features": torch.cat([voice.features for voice in voices]),
        "lengths": torch.tensor([len(voice.features) for voice in voices]),
    }
    with atomic_file(path) as part:
        save_file(tensors, part, metadata={"about": json.dumps(about)})
    return path


def read_voices(path: Path) -> list[HeardVoice]:
    """Reads what [`write_voices`] wrote.

    Args:
        path (`Path`): The file.

    Returns:
        `list[HeardVoice]`: The recordings.
    """
    with safe_open(path, framework="pt") as content:
        features, lengths = content.get_tensor("features"), content.get_tensor("lengths").tolist()
        about = json.loads(content.metadata()["about"])
    return [HeardVoice(steps, **known) for steps, known in zip(features.split(lengths), about, strict=True)]


@torch.no_grad()
def score_voices(probe: "HeardProbe", batches: Iterable[dict], voices: Sequence[HeardVoice]) -> dict[str, float]:
    """Computes the unweighted average recall of the emotions in each corpus.

    Args:
        probe ([`HeardProbe`]): The probe.
        batches (`Iterable[dict]`): The batches of all recordings in their order.
        voices (`Sequence[HeardVoice]`): The recordings.

    Returns:
        `dict[str, float]`: The recall of each corpus.
    """
    probe.eval()
    predicted = torch.cat([probe(**batch)["logits"].argmax(dim=1) for batch in batches]).numpy()
    emotions, corpora = np.array([voice.emotion for voice in voices]), np.array([voice.corpus for voice in voices])
    scores = {}
    for corpus in np.unique(corpora):
        classes = np.unique(emotions[corpora == corpus])
        recalls = [(predicted[(corpora == corpus) & (emotions == label)] == label).mean() for label in classes]
        scores[str(corpus)] = round(float(np.mean(recalls)), 4)
    return scores


class HeardVoices(Dataset):
    """Recordings as they are heard, with a random part of each at every access.

    Args:
        voices (`Sequence[HeardVoice]`): The recordings.
        is_cut (`bool`, *optional*, defaults to `True`):
            Whether up to a quarter of the steps is left out at either end: the times of utterances are not exact, and a
            part of an utterance sounds as the whole does.
    """

    def __init__(self, voices: Sequence[HeardVoice], is_cut: bool = True):
        self.voices, self.is_cut = voices, is_cut

    def __len__(self) -> int:
        return len(self.voices)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        voice = self.voices[index]
        features = voice.features.float()
        if self.is_cut:
            first, last = (torch.rand(2) * len(features) / 4).long().tolist()
            features = features[first : max(len(features) - last, first + 1)]
        return {"features": features, "emotion": torch.tensor(voice.emotion)}


def pad_voices(items: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Joins recordings of several lengths in a batch.

    Args:
        items (`list[dict[str, torch.Tensor]]`): The items of [`HeardVoices`].

    Returns:
        `dict[str, torch.Tensor]`: `features` of shape `(B, S, D)`, `step_mask` `(B, S)` and `emotions` `(B,)`.
    """
    features = [item["features"] for item in items]
    lengths = torch.tensor([len(steps) for steps in features])
    return {
        "features": torch.nn.utils.rnn.pad_sequence(features, batch_first=True),
        "step_mask": torch.arange(int(lengths.max()))[None] < lengths[:, None],
        "emotions": torch.stack([item["emotion"] for item in items]),
    }


class HeardProbe(nn.Module):
    """Predicts the emotion of a recording from the tokens of its window, while the audio Q-Former learns to make them.

    The features of an audio tower differ in size by orders of magnitude from dimension to dimension. They are brought to a
    mean of 0 by the table of positions, which is constant, and to a deviation of 1 inside the weights of keys and values:
    what is learned is the weight of the scaled feature, see [`scale_inputs`].

    Args:
        audio_branch ([`AudioBranch`]): The audio branch, whose Q-Former is trained.
        dropout (`float`, *optional*, defaults to 0.2): The share of the tower's dimensions that are dropped in training.
        smoothing (`float`, *optional*, defaults to 0.1): The label smoothing.
    """

    def __init__(self, audio_branch: AudioBranch, dropout: float = 0.2, smoothing: float = 0.1):
        super().__init__()
        config = audio_branch.config
        self.audio_branch, self.dropout, self.smoothing = audio_branch, dropout, smoothing
        # One head for every token: the language model reads each of them by the same projection.
        qformer_config = cast(MicroEmoAudioQFormerConfig, config.audio_qformer_config)
        self.head = nn.Linear(qformer_config.hidden_size, len(HEARD))

    def forward(
        self, features: torch.Tensor, step_mask: torch.Tensor, emotions: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Computes the loss of the emotions.

        Args:
            features (`torch.Tensor` of shape `(B, S, D)`): The steps of the recordings.
            step_mask (`torch.BoolTensor` of shape `(B, S)`): The real steps.
            emotions (`torch.LongTensor` of shape `(B,)`): The index of each emotion in `HEARD`.

        Returns:
            `dict[str, torch.Tensor]`: `loss`, the cross-entropy, and `logits` of shape `(B, len(HEARD))`.
        """
        if self.training and self.dropout:
            # Whole dimensions, at the mean of each: what one speaker's voice is known by cannot be relied on.
            mean = -self.audio_branch.segment_positions.weight[0]
            is_dropped = torch.rand(len(features), 1, features.shape[-1], device=features.device) < self.dropout
            features = torch.where(is_dropped, mean, features)
        windows = torch.zeros(len(features), 0, 2, dtype=torch.long, device=features.device)
        output, _ = self.audio_branch(
            None, torch.ones_like(step_mask[:, :1]), windows, audio_features=features, step_mask=step_mask
        )
        of_tokens = self.head(output.last_hidden_state[:, 0])
        smoothing = self.smoothing if self.training else 0.0
        each = emotions[:, None].expand(of_tokens.shape[:2])
        loss = nn.functional.cross_entropy(of_tokens.flatten(0, 1), each.flatten(), label_smoothing=smoothing)
        return {"loss": loss, "logits": of_tokens.mean(dim=1)}


class _Divided(nn.Module):
    """The weight of a linear layer whose inputs are divided by their deviations."""

    def __init__(self, deviations: torch.Tensor):
        super().__init__()
        self.register_buffer("deviations", deviations)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight / self.deviations

    def right_inverse(self, weight: torch.Tensor) -> torch.Tensor:
        return weight * self.deviations


def centre_inputs(audio_branch: AudioBranch, voices: Sequence[HeardVoice]) -> torch.Tensor:
    """Writes the negative mean of the tower's features into the table of positions, and draws keys and values anew.

    Args:
        audio_branch ([`AudioBranch`]): The audio branch, which is changed in place.
        voices (`Sequence[HeardVoice]`): Recordings.

    Returns:
        `torch.Tensor` of shape `(D,)`: The deviation of each dimension.
    """
    steps = torch.cat([voice.features.float() for voice in voices])
    deviations = steps.std(dim=0).clamp(min=1e-3)
    with torch.no_grad():
        audio_branch.segment_positions.weight.copy_(-steps.mean(dim=0))
        for layer in _readers(audio_branch):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
            layer.weight /= deviations
    return deviations


@contextmanager
def scale_inputs(audio_branch: AudioBranch, deviations: torch.Tensor) -> Iterator[None]:
    """Makes the layers that read the tower's features learn the weights of the scaled features.

    Args:
        audio_branch ([`AudioBranch`]): The audio branch. Outside of the context its weights are those of any other.
        deviations (`torch.Tensor` of shape `(D,)`): The deviation of each dimension.

    Yields:
        `None`: Nothing.
    """
    layers = _readers(audio_branch)
    for layer in layers:
        parametrize.register_parametrization(layer, "weight", _Divided(deviations))
    try:
        yield
    finally:
        for layer in layers:
            parametrize.remove_parametrizations(layer, "weight")


def _readers(audio_branch: AudioBranch) -> list[nn.Linear]:
    """The linear layers of the audio Q-Former that read the tower's features."""
    width = audio_branch.config.audio_width
    found = [layer for layer in audio_branch.audio_qformer.modules() if isinstance(layer, nn.Linear)]
    return [layer for layer in found if layer.in_features == width]
