"""Sound for an audio tower of Transformers: segments by the tower's own feature extractor, and the times of its steps."""

import json
from functools import lru_cache
from typing import Any

import numpy as np
import transformers
from transformers import SequenceFeatureExtractor

from ..configuration.tower_table import SAMPLING_RATE


class TowerSound:
    """Cuts sound into segments, which an audio tower encodes one by one, and says which of its steps are real.

    The segments lie back to back. Where a sound is longer than all of them they are evenly spread over it, the first at its
    start and the last at its end.

    Args:
        fields (`dict[str, Any]`):
            The fields of the tower's feature extractor, its class in Transformers as `feature_extractor_type` among them.
        num_segments (`int`): The largest number of segments.
        segment_duration (`float`): The number of seconds of a segment.
        steps_per_segment (`int`): The number of steps of a segment.
        tail_samples (`int`): The number of samples behind a segment that its last step hears.

    Raises:
        ValueError: If Transformers has no such feature extractor, or if it takes another sampling rate than 16 kHz.
    """

    def __init__(
        self,
        fields: dict[str, Any],
        num_segments: int,
        segment_duration: float,
        steps_per_segment: int,
        tail_samples: int,
    ) -> None:
        self.extractor = _make_extractor(json.dumps(fields, sort_keys=True))
        self.num_segments, self.num_steps = num_segments, steps_per_segment
        self.length, self.tail = round(segment_duration * SAMPLING_RATE), tail_samples

    def starts(self, num_samples: int) -> list[int]:
        """Returns the first sample of each segment of a sound.

        Args:
            num_samples (`int`): The length of the sound in samples at 16 kHz.

        Returns:
            `list[int]`: The samples, in order.
        """
        count = max(1, -(-num_samples // self.length))
        if count <= self.num_segments:
            return [index * self.length for index in range(count)]
        spare = num_samples - self.length
        return [round(index * spare / max(self.num_segments - 1, 1)) for index in range(self.num_segments)]

    def count_steps(self, num_samples: int) -> int:
        """Returns how many steps of a segment begin before the sound in it ends.

        Args:
            num_samples (`int`): The length of the sound in the segment, in samples at 16 kHz.

        Returns:
            `int`: The number, at least 1.
        """
        return min(max(1, -(-num_samples * self.num_steps // self.length)), self.num_steps)

    def step_times(self, num_samples: int) -> np.ndarray:
        """Returns the start and end of each real step of a sound.

        Args:
            num_samples (`int`): The length of the sound in samples at 16 kHz.

        Returns:
            `np.ndarray` of shape `(steps, 2)`: The seconds.
        """
        step = self.length / self.num_steps / SAMPLING_RATE
        begins = [
            start / SAMPLING_RATE + step * np.arange(self.count_steps(num_samples - start))
            for start in self.starts(num_samples)
        ]
        times = np.concatenate(begins)
        return np.stack([times, times + step], axis=1)

    def __call__(self, sounds: list[np.ndarray | None]) -> dict[str, np.ndarray]:
        """Computes the segments of sounds.

        Args:
            sounds (`list[np.ndarray | None]`): The B sounds `(samples,)` at 16 kHz, `None` for a clip without sound.

        Returns:
            `dict[str, np.ndarray]`: `input_features` of shape `(B, C, ...)` as float32, `audio_segment_mask` `(B, C)` and
            `audio_step_mask` `(B, C * steps_per_segment)` as bool.
        """
        segments, places = [], []
        for row, sound in enumerate(sounds):
            if sound is None:
                continue
            for index, start in enumerate(self.starts(len(sound))):
                segments.append(sound[start : start + self.length + self.tail])
                places.append((row, index))
        shape = (len(sounds), max((index for _, index in places), default=0) + 1)
        mask, steps = np.zeros(shape, bool), np.zeros((*shape, self.num_steps), bool)
        for place, segment in zip(places, segments, strict=True):
            mask[place] = True
            steps[place][: self.count_steps(len(segment))] = True
        values = self._extract(segments or [np.zeros(self.length, np.float32)])
        features = np.zeros((*shape, *values.shape[1:]), np.float32)
        if segments:
            features[mask] = values
        return {"input_features": features, "audio_segment_mask": mask, "audio_step_mask": steps.reshape(shape[0], -1)}

    def _extract(self, segments: list[np.ndarray]) -> np.ndarray:
        name = self.extractor.model_input_names[0]
        if name == "input_values":
            # Each alone: Wav2Vec2FeatureExtractor takes mean and variance over the padding of a batch, too.
            values = np.zeros((len(segments), self.length + self.tail), np.float32)
            for row, segment in zip(values, segments, strict=True):
                row[: len(segment)] = self.extractor(segment, sampling_rate=SAMPLING_RATE)[name][0]
            return values
        output = self.extractor(
            segments,
            sampling_rate=SAMPLING_RATE,
            padding="max_length",
            max_length=self.length,
            truncation=True,
            return_tensors="np",
        )
        return output[name]


@lru_cache(maxsize=8)
def _make_extractor(fields: str) -> SequenceFeatureExtractor:
    arguments = json.loads(fields)
    name = arguments.pop("feature_extractor_type", None)
    extractor_class = getattr(transformers, str(name), None)
    if not (isinstance(extractor_class, type) and issubclass(extractor_class, SequenceFeatureExtractor)):
        raise ValueError(f"tower_extractor: Transformers has no feature extractor named {name!r}")
    extractor = extractor_class(**arguments)
    if extractor.sampling_rate != SAMPLING_RATE:
        raise ValueError(f"tower_extractor: sampling_rate must be {SAMPLING_RATE}, got {extractor.sampling_rate}")
    return extractor
