"""The feature extractor of MicroEmo: ImageBind's log-mel segments of a sound, computed with torch alone, or the segments
of another audio tower by its own feature extractor."""

import functools
import inspect
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import BatchFeature
from transformers.feature_extraction_utils import FeatureExtractionMixin

from ..configuration.remote_code import drop_code_references
from ..configuration.tower_table import SAMPLING_RATE
from ..utils.keywords import LOADING_KEYWORDS, refuse_unknown
from .tensor_output import as_features
from .tower_sound import TowerSound

FRAME_LENGTH, FRAME_SHIFT = 400, 160  # 25 ms and 10 ms
FFT_LENGTH = 512
# What a saved file holds beside the fields.
_SAVED = ("feature_extractor_type", "processor_class", "auto_map", "sampling_rate", "padding_value")
_OLD_NAMES = {"num_clips": "num_segments", "clip_duration": "segment_duration"}  # of version 0.1
# The fields that are read for ImageBind alone, and for other audio towers alone.
_OF_IMAGEBIND = ("num_mel_bins", "num_mel_frames", "mel_mean", "mel_std", "short_audio_padding")
_OF_TOWERS = ("tower_extractor", "steps_per_segment", "tail_samples")
_OTHER_NAMES = {"feature_size": "num_mel_bins", "chunk_length": "segment_duration"}
# Arguments of Transformers' feature extractors that change nothing here, and the values of them that ask for nothing else.
_WITHOUT_EFFECT: dict[str, tuple] = {
    "padding": (None, True, False, "longest", "max_length", "do_not_pad"),
    **dict.fromkeys(("max_length", "truncation", "pad_to_multiple_of", "return_attention_mask"), (None, False)),
}


class MicroEmoFeatureExtractor(FeatureExtractionMixin):
    r"""
    Cuts a waveform into evenly spaced segments and turns each into ImageBind's log-mel picture (paper 3.4: the audio
    branch reads ImageBind features of such segments). For another audio tower the segments lie back to back, and the
    tower's own feature extractor in Transformers reads them.

    Args:
        num_segments (`int`, *optional*, defaults to 8):
            The number of segments C per sound; with `tower_extractor` the largest number.
        segment_duration (`float`, *optional*, defaults to 2.0): The number of seconds per segment.
        num_mel_bins (`int`, *optional*, defaults to 128): The height of the picture.
        num_mel_frames (`int`, *optional*, defaults to 204):
            The width of the picture. The columns behind the frames of a segment are 0.
        mel_mean (`float`, *optional*, defaults to -4.268): The mean that is subtracted from the log-mel values.
        mel_std (`float`, *optional*, defaults to 9.138): The standard deviation that divides the log-mel values.
        short_audio_padding (`"waveform"` or `"mel"`, *optional*, defaults to `"waveform"`):
            Whether a sound shorter than a segment is filled with zeros in its samples (AffectGPT) or, after the filter
            bank, in its picture (Video-LLaMA).
        tower_extractor (`dict`, *optional*):
            The fields of the feature extractor of another audio tower, with its class in Transformers as
            `feature_extractor_type`. The fields of the picture are not read then.
        steps_per_segment (`int`, *optional*, defaults to 1): The number of steps that such a tower makes of a segment.
        tail_samples (`int`, *optional*, defaults to 0):
            The number of samples behind a segment that the last step of such a tower hears.
        kwargs (`Any`, *optional*): What a saved file holds beside the fields.

    Raises:
        TypeError: If a keyword is unknown.
        ValueError: If `short_audio_padding` has another value, or if a segment has more mel frames than the picture.
    """

    model_input_names = ["input_features", "audio_segment_mask", "audio_step_mask"]
    # What Transformers' pipelines put where they pad; there is never anything to pad.
    padding_value = 0.0

    def __init__(
        self,
        num_segments: int = 8,
        segment_duration: float = 2.0,
        num_mel_bins: int = 128,
        num_mel_frames: int = 204,
        mel_mean: float = -4.268,
        mel_std: float = 9.138,
        short_audio_padding: str = "waveform",
        tower_extractor: dict[str, Any] | None = None,
        steps_per_segment: int = 1,
        tail_samples: int = 0,
        **kwargs: Any,
    ) -> None:
        if short_audio_padding not in ("waveform", "mel"):
            raise ValueError(f"short_audio_padding must be 'waveform' or 'mel', got {short_audio_padding!r}")
        needed = 1 + (int(segment_duration * SAMPLING_RATE) - FRAME_LENGTH) // FRAME_SHIFT
        if tower_extractor is None and needed > num_mel_frames:
            raise ValueError(
                f"a segment of segment_duration={segment_duration} s has {needed} mel frames, but num_mel_frames is "
                f"{num_mel_frames}"
            )
        refuse_unknown(kwargs, {*self.fields(), *_SAVED}, type(self).__name__, _OTHER_NAMES)
        rate = kwargs.pop("sampling_rate", SAMPLING_RATE)
        if rate != SAMPLING_RATE:
            raise ValueError(f"sampling_rate is ImageBind's own, {SAMPLING_RATE}; got {rate}")
        super().__init__(**kwargs)
        self.sampling_rate = SAMPLING_RATE
        self.num_segments = num_segments
        self.segment_duration = segment_duration
        self.num_mel_bins = num_mel_bins
        self.num_mel_frames = num_mel_frames
        self.mel_mean = mel_mean
        self.mel_std = mel_std
        self.short_audio_padding = short_audio_padding
        self.tower_extractor = tower_extractor
        self.steps_per_segment = steps_per_segment
        self.tail_samples = tail_samples
        if tower_extractor is not None:
            self.tower_sound  # noqa: B018 (an extractor that does not exist is refused here, not at the first sound)

    @property
    def tower_sound(self) -> TowerSound:
        """[`TowerSound`]: What makes the segments of an audio tower with a feature extractor of its own."""
        return TowerSound(
            self.tower_extractor or {},
            self.num_segments,
            self.segment_duration,
            self.steps_per_segment,
            self.tail_samples,
        )

    @property
    def feature_size(self) -> int:
        """The number of values at each time of a segment, by the name that Transformers has for it."""
        return self.num_mel_bins if self.tower_extractor is None else self.tower_sound.extractor.feature_size

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as they are saved.

        Returns:
            `dict[str, Any]`: The fields that are read for this audio tower.
        """
        unread = _OF_TOWERS if self.tower_extractor is None else _OF_IMAGEBIND
        return {name: value for name, value in super().to_dict().items() if name not in unread}

    @staticmethod
    def fields() -> frozenset[str]:
        """Names the fields of the feature extractor.

        Returns:
            `frozenset[str]`: The names.
        """
        return frozenset(inspect.signature(MicroEmoFeatureExtractor.__init__).parameters) - {"self", "kwargs"}

    @classmethod
    def from_dict(cls, feature_extractor_dict: dict[str, Any], **kwargs: Any) -> "MicroEmoFeatureExtractor":
        """Makes a feature extractor from the fields of a saved file.

        Args:
            feature_extractor_dict (`dict[str, Any]`): The saved fields; the names of version 0.1 are read, too.
            kwargs (`Any`, *optional*): Fields that replace the saved ones, and the keywords of `from_pretrained`.

        Returns:
            `MicroEmoFeatureExtractor`: The feature extractor, or a pair with the unused keywords if
            `return_unused_kwargs` is given.

        Raises:
            TypeError: If a keyword is unknown.
        """
        fields = cls.fields()
        accepted = {*fields, *_SAVED, *LOADING_KEYWORDS}
        feature_extractor_dict = drop_code_references(feature_extractor_dict)
        feature_extractor_dict = {_OLD_NAMES.get(name, name): value for name, value in feature_extractor_dict.items()}
        refuse_unknown(kwargs, accepted, f"{cls.__name__}.from_pretrained", _OTHER_NAMES)
        overrides = {name: kwargs.pop(name) for name in fields & kwargs.keys()}
        return super().from_dict(feature_extractor_dict | overrides, **kwargs)

    def __call__(
        self,
        audio: Any,
        sampling_rate: int | Sequence[int | None] | None = None,
        return_tensors: str | None = None,
        device: "str | torch.device | None" = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Cuts waveforms into segments and computes the log-mel picture of each segment.

        Args:
            audio (`np.ndarray`, `torch.Tensor`, `list[float]`, `dict` or a list of them):
                One waveform, or a list of waveforms, `(samples,)` or `(channels, samples)`. Floats are taken as they
                are (they may exceed 1), integers are divided by 2^15. `None` in the list stands for a clip without
                sound. A decoded row of the `datasets` library is a waveform with its own sampling rate.
            sampling_rate (`int` or `list[int]`, *optional*):
                The number of samples per second of all waveforms or of each. Waveforms without a rate of their own need
                it.
            return_tensors (`str`, *optional*): `"pt"` or `"np"`. Numpy arrays are returned by default.
            device (`str` or `torch.device`, *optional*): The device of the returned tensors.
            kwargs (`Any`, *optional*):
                `padding`, `max_length`, `truncation`, `pad_to_multiple_of` and `return_attention_mask` of other feature
                extractors. Segments have a fixed length, so that values which ask for another one are refused.

        Returns:
            `BatchFeature`: `input_features` of shape `(B, C, 1, num_mel_bins, num_mel_frames)` as float32 and
            `audio_segment_mask` of shape `(B, C)` as bool. With `tower_extractor` the features are `(B, C, ...)` as the
            tower takes them, C follows the longest sound, and `audio_step_mask` of shape `(B, C * steps_per_segment)`
            says which steps begin before the sound ends. A clip without sound has the features 0 and the masks `False`.
            The method `segment_times` gives the seconds of the segments or steps.

        Raises:
            TypeError: If a keyword is unknown.
            ValueError: If a waveform has a wrong shape or type or values that are not finite, if it has no sampling
                rate, or if waveforms and sampling rates differ in number.
        """
        refuse_unknown(kwargs, _WITHOUT_EFFECT.keys(), type(self).__name__, {"raw_speech": "audio"})
        for name, value in kwargs.items():
            if value not in _WITHOUT_EFFECT[name]:
                raise ValueError(
                    f"{name}={value!r} is not possible: segments have a fixed length and audio_segment_mask"
                )
        waveforms = list(audio) if isinstance(audio, (list, tuple)) and not is_waveform(audio) else [audio]
        rates = list(sampling_rate) if isinstance(sampling_rate, (list, tuple)) else [sampling_rate] * len(waveforms)
        if len(rates) != len(waveforms):
            raise ValueError(f"{len(waveforms)} waveforms, but {len(rates)} sampling rates")

        if self.tower_extractor is not None:
            sounds = [
                None if waveform is None else _as_mono(*as_samples(waveform, rate))
                for waveform, rate in zip(waveforms, rates, strict=True)
            ]
            return as_features(self.tower_sound(sounds), return_tensors, device)
        mask = torch.zeros(len(waveforms), self.num_segments, dtype=torch.bool)
        features = torch.zeros(len(waveforms), self.num_segments, 1, self.num_mel_bins, self.num_mel_frames)
        segments, rows = [], []
        for row, (waveform, rate) in enumerate(zip(waveforms, rates, strict=True)):
            if waveform is not None:
                segments.append(self._cut(*as_samples(waveform, rate)))
                rows.append(row)
        # One filter bank call for all sounds whose segments are equally long: all of them, but for short sounds
        # under short_audio_padding="mel".
        for length in {segment.shape[-1] for segment in segments}:
            picked = [i for i, segment in enumerate(segments) if segment.shape[-1] == length]
            mel = log_mel(torch.stack([segments[i] for i in picked]), self.num_mel_bins)
            mel = F.pad(mel, (0, self.num_mel_frames - mel.shape[-1]))
            where = [rows[i] for i in picked]
            features[where] = ((mel - self.mel_mean) / self.mel_std)[:, :, None]
            mask[where] = True
        data = {"input_features": features.numpy(), "audio_segment_mask": mask.numpy()}
        return as_features(data, return_tensors, device)

    def segment_times(self, num_samples: int, sampling_rate: int) -> np.ndarray:
        """Returns the start and end of each segment. The starts are evenly spaced, the last one a stride before the end.
        For an audio tower with several steps in a segment, those of each step before the end of the sound.

        Args:
            num_samples (`int`): The length of the sound in samples.
            sampling_rate (`int`): The number of samples per second.

        Returns:
            `np.ndarray` of shape `(C, 2)`: The seconds of the segments or steps.
        """
        if self.tower_extractor is not None:
            return self.tower_sound.step_times(_resampled_length(num_samples, sampling_rate))
        starts, _ = self._segment_starts(_resampled_length(num_samples, sampling_rate))
        return np.array([[float(start), float(start) + self.segment_duration] for start in starts])

    def _segment_starts(self, length: int) -> tuple[list[Fraction], int]:
        """Returns the exact start of each segment in seconds and the samples per segment, for `length` 16 kHz samples."""
        segment_length = int(self.segment_duration * SAMPLING_RATE)
        # From the float, not from the exact quotient: the originals floor starts that fall just short of a sample.
        duration = Fraction(max(length, segment_length) / SAMPLING_RATE)
        spare = duration - Fraction(self.segment_duration)
        return [index * spare / self.num_segments for index in range(self.num_segments)], segment_length

    def _cut(self, waveform: torch.Tensor, rate: int) -> torch.Tensor:
        """Cuts the segments `(C, samples)` of channel 0 out of a waveform `(channels, samples)`, at 16 kHz, mean 0."""
        length = _resampled_length(waveform.shape[1], rate)
        seconds, segment_length = self._segment_starts(length)
        starts = [int(start * SAMPLING_RATE) for start in seconds]
        # Two signals are all it takes: channel 0 for the picture, the mean of the channels for its offset.
        signals = torch.stack([waveform[0], waveform.mean(0)])
        if starts[-1] >= (self.num_segments - 1) * segment_length:
            # The segments lie apart: resample only them, whatever the length of the sound.
            parts = [resample(signals, rate, SAMPLING_RATE, start, start + segment_length) for start in starts]
            return torch.stack([part[0] - part[1].mean() for part in parts])

        signals = resample(signals, rate, SAMPLING_RATE)
        if self.short_audio_padding == "waveform" and length < segment_length:
            signals = F.pad(signals, (0, segment_length - length))
        segments = []
        for start in starts:
            # In place, so that a segment sees what an earlier one that it overlaps has subtracted, as in the originals.
            segment = signals[:, start : start + segment_length]
            segment -= segment[1].mean()
            segments.append(segment[0].clone())
        return torch.stack(segments)


def _as_mono(waveform: torch.Tensor, rate: int) -> np.ndarray:
    """The mean of the channels at 16 kHz, `(samples,)`."""
    return resample(waveform.mean(0), rate, SAMPLING_RATE).numpy()


def resample(waveform: torch.Tensor, rate: int, new_rate: int, start: int = 0, end: int | None = None) -> torch.Tensor:
    """Resamples a waveform by windowed sinc interpolation (Hann window of 6 zero crossings, roll-off 0.99).

    Args:
        waveform (`torch.Tensor` of shape `(..., samples)`): The float32 waveform.
        rate (`int`): The number of samples per second before.
        new_rate (`int`): The number of samples per second after.
        start (`int`, *optional*, defaults to 0): The first sample of the result that is computed.
        end (`int`, *optional*): The sample of the result before which the computation ends; by default its length,
            `ceil(samples * new_rate / rate)`.

    Returns:
        `torch.Tensor` of shape `(..., end - start)`: The resampled waveform.
    """
    total = _resampled_length(waveform.shape[-1], rate, new_rate)
    end = total if end is None else min(end, total)
    divisor = math.gcd(rate, new_rate)
    old, new = rate // divisor, new_rate // divisor
    if old == new:
        return waveform[..., start:end].clone()
    kernels, reach = _sinc_kernels(old, new)
    # Block b of the result, `new` samples long, is a function of the waveform from b * old - reach on.
    first, last = start // new, -(-end // new)
    left, right = first * old - reach, (last - 1) * old - reach + kernels.shape[-1]
    piece = waveform[..., max(left, 0) : max(right, 0)]
    piece = F.pad(piece, (max(-left, 0), right - max(left, 0) - piece.shape[-1]))
    blocks = F.conv1d(piece.reshape(-1, 1, piece.shape[-1]), kernels, stride=old)  # (n, new, blocks)
    result = blocks.transpose(1, 2).reshape(*waveform.shape[:-1], -1)
    return result[..., start - first * new : end - first * new]


def log_mel(waveform: torch.Tensor, num_mel_bins: int) -> torch.Tensor:
    """Computes Kaldi's log-mel filter bank at 16 kHz.

    It takes frames of 25 ms every 10 ms without their mean, with pre-emphasis 0.97, a Hann window, the power spectrum,
    triangular filters from 20 Hz to 8 kHz and the natural logarithm floored at float32's epsilon. A sound shorter than
    a frame has no columns.

    Args:
        waveform (`torch.Tensor` of shape `(..., samples)`): The float32 waveform at 16 kHz.
        num_mel_bins (`int`): The number of filters.

    Returns:
        `torch.Tensor` of shape `(..., num_mel_bins, 1 + (samples - 400) // 160)`: The log-mel values.
    """
    if waveform.shape[-1] < FRAME_LENGTH:
        return waveform.new_zeros(*waveform.shape[:-1], num_mel_bins, 0)
    frames = waveform.unfold(-1, FRAME_LENGTH, FRAME_SHIFT)
    frames = frames - frames.mean(-1, keepdim=True)
    before = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
    frames = (frames - 0.97 * before) * torch.hann_window(FRAME_LENGTH, periodic=False)
    power = torch.fft.rfft(frames, n=FFT_LENGTH).abs().square()
    mel = power @ _mel_filters(num_mel_bins)
    return mel.clamp(min=torch.finfo(torch.float32).eps).log().transpose(-1, -2)


def _resampled_length(num_samples: int, rate: int, new_rate: int = SAMPLING_RATE) -> int:
    """Returns the number of samples after resampling."""
    return -(-num_samples * new_rate // rate)


@functools.lru_cache(maxsize=8)
def _sinc_kernels(old: int, new: int, zero_crossings: int = 6, rolloff: float = 0.99) -> tuple[torch.Tensor, int]:
    """Returns one low-pass filter per phase, `(new, 1, taps)`, and how many samples it reaches back."""
    cutoff = min(old, new) * rolloff
    reach = math.ceil(zero_crossings * old / cutoff)
    # In float32, step by step as torchaudio does: in quiet bands the rounding of the kernel is what is heard.
    taps = torch.arange(-reach, reach + old, dtype=torch.float32) / old
    phases = torch.arange(new, dtype=torch.float32) / new
    time = ((taps - phases[:, None]) * cutoff).clamp(-zero_crossings, zero_crossings)
    window = torch.cos(time * math.pi / zero_crossings / 2).square()
    angle = time * math.pi
    sinc = torch.where(angle == 0, 1.0, angle.sin() / angle)
    return (sinc * (window * (cutoff / old)))[:, None], reach


@functools.lru_cache(maxsize=8)
def _mel_filters(num_mel_bins: int, low: float = 20.0, high: float = SAMPLING_RATE / 2) -> torch.Tensor:
    """Returns triangular filters `(257, bins)`, equally spaced and with straight sides on the mel scale."""

    def mel(frequency: float | torch.Tensor) -> torch.Tensor:
        return 1127.0 * torch.log1p(torch.as_tensor(frequency) / 700.0)

    edges = torch.linspace(0, 1, num_mel_bins + 2) * (mel(high) - mel(low)) + mel(low)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    bins = mel(torch.arange(FFT_LENGTH // 2 + 1) * SAMPLING_RATE / FFT_LENGTH)[:, None]
    filters = torch.minimum((bins - lower) / (centre - lower), (upper - bins) / (upper - centre)).clamp(min=0)
    filters[-1] = 0  # Kaldi leaves the Nyquist frequency out
    return filters


def is_waveform(audio: Any) -> bool:
    """Tells whether a sound is in memory already.

    Args:
        audio (`Any`): A sound: a file, a waveform, or a row of the `datasets` library.

    Returns:
        `bool`: Whether it is an array, a tensor, a list of numbers, or a decoded row of the `datasets` library.
    """
    if isinstance(audio, (list, tuple)):
        return len(audio) > 0 and isinstance(audio[0], (float, int, np.number))
    return (
        hasattr(audio, "ndim")
        or hasattr(audio, "get_all_samples")
        or (isinstance(audio, Mapping) and "array" in audio)
    )


def as_samples(waveform: Any, rate: Any = None) -> tuple[torch.Tensor, int]:
    """Checks a waveform and converts it to float32.

    Args:
        waveform (`np.ndarray`, `torch.Tensor`, `list[float]` or `dict`):
            Floats or 16-bit integers, `(samples,)` or `(channels, samples)`; or a decoded row of the `datasets` library
            (`array` and `sampling_rate`, or a decoder with `get_all_samples`), which knows its rate.
        rate (`int`, *optional*): The number of samples per second of a waveform that does not know it.

    Returns:
        `tuple[torch.Tensor, int]`: The waveform `(channels, samples)`, and the number of samples per second.

    Raises:
        ValueError: If the waveform has a wrong shape or type or values that are not finite, or if the rate is not a
            positive whole number.
    """
    if isinstance(waveform, Mapping) and "array" in waveform:
        waveform, rate = waveform["array"], waveform.get("sampling_rate")
    elif hasattr(waveform, "get_all_samples"):
        decoded = waveform.get_all_samples()
        waveform, rate = decoded.data, decoded.sample_rate
    if getattr(rate, "shape", None) == ():  # a data set with a format gives numbers as arrays or tensors
        rate = rate.item()
    if not isinstance(rate, int) or rate <= 0:
        raise ValueError(
            f"a waveform needs its sampling rate, a positive whole number of samples per second: {rate!r}"
        )
    if not isinstance(waveform, torch.Tensor):
        waveform = np.asarray(waveform)
        if waveform.dtype.kind not in "fiubc":
            raise ValueError(f"a waveform must hold floats or 16-bit integers, got {waveform.dtype}")
    samples = torch.as_tensor(waveform)
    if samples.dtype.is_complex or samples.dtype == torch.bool:
        raise ValueError(f"a waveform must hold floats or 16-bit integers, got {samples.dtype}")
    if samples.ndim == 1:
        samples = samples[None]
    if samples.ndim != 2 or samples.shape[1] == 0 or samples.shape[0] > samples.shape[1] > 1:
        raise ValueError(f"a waveform must be (samples,) or (channels, samples), got {tuple(samples.shape)}")
    if not samples.dtype.is_floating_point:
        if samples.dtype != torch.int16:
            raise ValueError(f"a waveform must hold floats or 16-bit integers, got {samples.dtype}")
        samples = samples.float() / 2**15
    samples = samples.detach().cpu().float()
    if not torch.isfinite(samples).all():
        raise ValueError("the waveform holds values that are not finite")
    return samples, int(rate)


__all__ = ["MicroEmoFeatureExtractor"]
