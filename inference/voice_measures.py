"""Measures of the voice in each utterance: how loud, how high, how lively in pitch and how fast, from the sound alone.

The pitch is found by autocorrelation, divided by that of the window (Boersma 1993, the method of Praat), in frames of 50 ms.
"""

import re
from collections.abc import Sequence

import numpy as np
import torch

from ..processing.feature_extraction_microemo import resample
from ..processing.speech import to_mono

_RATE = 16000  # samples per second in which the sound is measured
_LOWEST, _HIGHEST = 60.0, 500.0  # hertz
_FRAME, _HOP = 800, 160  # samples: three periods of the lowest pitch, every 10 ms
_FFT, _FINER = 2048, 4  # points of the spectrum, and steps of the autocorrelation in a sample
_BLOCK = 512  # frames that are computed at a time
# A frame has a pitch if the sound repeats itself in it to this degree, and if a frame beside it has it within a semitone.
_LEAST_STRENGTH, _WITHIN = 0.5, 1.0
_OCTAVE_COST = 0.01  # of a period twice as long, as in Praat
_FEWEST_FRAMES = 5  # with a pitch: fewer are chance
_ACTIVE = 25.0  # decibels: frames that lie further below the loudest one are pauses
_SILENCE = -80.0  # dBFS: rounding and dither lie below it
_LARGEST = 1e4  # of a sample: decoded sound exceeds 1, and broken files hold numbers whose square has none
_SHORTEST = 0.1  # seconds in which words are counted

# Remarks of subtitles are no words, and these scripts (Thai to Khmer, kana, Chinese characters) do not part words by spaces.
_REMARKS = re.compile(r"\[[^\]]*\]|\([^)]*\)")
_WORD = re.compile(r"\w+(?:['’-]\w+)*")
_WITHOUT_SPACES = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")

# What stands out: the measure, by how much, and the words for more and for less of it.
_STANDS_OUT = (
    ("loudness", 4.0, "louder", "quieter"),  # decibels
    ("pitch", 2.0, "higher", "lower"),  # semitones
    ("words_per_second", 1.3, "faster", "slower"),  # times
    ("pitch_range", 4.0, "with a wider range of pitch", "with a narrower range of pitch"),  # semitones
)


def measure_voice(
    samples: np.ndarray,
    rate: int,
    spans: Sequence[tuple[float, float]] | np.ndarray,
    words: Sequence[str | None] | None = None,
) -> list[dict[str, float]]:
    """Measures the voice in each utterance of a clip.

    Args:
        samples (`np.ndarray` of shape `(channels, n)`): The sound of the clip, floats of which 1 is full scale.
        rate (`int`): The samples per second.
        spans (`Sequence[tuple[float, float]]` or `np.ndarray` of shape `(K, 2)`): The start and end of each utterance in seconds.
        words (`Sequence[str]`, *optional*): The text of each utterance, empty or `None` where it is not known.

    Returns:
        `list[dict[str, float]]`: The measures of each utterance; those that cannot be taken are absent.
        - `loudness`: The root mean square of the parts within 25 dB of the loudest one, in dBFS (an RMS of 1 is 0 dBFS).
          Absent in silence.
        - `pitch`: The median pitch in Hz, between 60 and 500. Absent where no part of the sound has one.
        - `pitch_range`: The semitones between the 10th and the 90th percentile of the pitch.
        - `words_per_second`: The words of the text by the length of the utterance, pauses included. Absent without words,
          and in scripts that do not part words.

    Raises:
        ValueError: if the samples are no floats or have another shape, if the rate is not positive, or if there is not
            one text for each utterance.

    Example:

    ```python
    >>> import numpy as np
    >>> from microemo.inference.voice_measures import measure_voice

    >>> tone = 0.1 * np.sin(2 * np.pi * 220 * np.arange(16000) / 16000)
    >>> measure_voice(tone[None], 16000, [(0.0, 1.0)], ["Here we are."])
    [{'loudness': -23.01, 'pitch': 220.0, 'pitch_range': 0.0, 'words_per_second': 3.0}]
    ```"""
    samples = np.asarray(samples)
    spans = np.asarray(spans, float).reshape(-1, 2)
    if samples.ndim != 2 or not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(
            f"samples: expected floats of shape (channels, n), got {samples.dtype} of shape {samples.shape}"
        )
    if not 1 <= rate < np.inf or rate % 1:
        raise ValueError(f"rate: expected the whole number of samples per second, got {rate}")
    if words is not None and len(words) != len(spans):
        raise ValueError(f"words: expected a text for each of {len(spans)} utterances, got {len(words)}")
    sound = _prepare(samples, int(rate))
    edges = (np.clip(np.nan_to_num(spans), 0, len(sound) / _RATE) * _RATE).round().astype(int)
    measures = []
    for (first, last), seconds, text in zip(
        edges, spans[:, 1] - spans[:, 0], words if words is not None else [None] * len(spans), strict=True
    ):
        measured = _measure_sound(sound[first:last])
        if (count := _count_words(text or "")) and _SHORTEST <= seconds < np.inf:
            measured["words_per_second"] = count / seconds
        measures.append({name: round(float(value), 2) for name, value in measured.items()})
    return measures


def voice_words(measures: Sequence[dict[str, float]]) -> list[str]:
    """Says in plain words where the voice of an utterance differs from that of the clip's other utterances.

    The words compare and do not judge: who speaks, and how near to the microphone, makes such a difference, too.

    Args:
        measures (`Sequence[dict[str, float]]`): The measures of each utterance, as [`measure_voice`] returns them.

    Returns:
        `list[str]`: Words for each utterance, such as "louder and faster than elsewhere in the clip"; empty where nothing
        stands out from the median of the others by 4 dB, 2 semitones of pitch, 4 of its range or 1.3 times the speed, and
        where there is no other.

    Example:

    ```python
    >>> from microemo.inference.voice_measures import voice_words

    >>> voice_words([{"loudness": -30.0, "pitch": 120.0}, {"loudness": -20.0, "pitch": 122.0}])
    ['quieter than elsewhere in the clip', 'louder than elsewhere in the clip']
    ```"""
    described = []
    for number, measured in enumerate(measures):
        words = []
        for name, least, more, less in _STANDS_OUT:
            others = [other[name] for at, other in enumerate(measures) if at != number and name in other]
            if name not in measured or not others:
                continue
            here, elsewhere = measured[name], float(np.median(others))
            if name == "pitch":
                here, elsewhere = 12 * np.log2([here, elsewhere])
            elif name == "words_per_second":
                here, elsewhere, least = *np.log([here, elsewhere]), np.log(least)
            if abs(here - elsewhere) >= least:
                words.append(more if here > elsewhere else less)
        listed = f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)
        described.append(f"{listed} than elsewhere in the clip" if listed else "")
    return described


def _prepare(samples: np.ndarray, rate: int) -> np.ndarray:
    """Returns one channel at `_RATE`, without what is no number and without a constant offset."""
    if not samples.size:
        return np.zeros(0, np.float32)
    samples = np.clip(np.nan_to_num(samples, posinf=0.0, neginf=0.0), -_LARGEST, _LARGEST).astype(np.float32)
    mono = to_mono(samples - samples.mean(1, keepdims=True))
    return resample(torch.from_numpy(mono), rate, _RATE).numpy()


def _measure_sound(sound: np.ndarray) -> dict[str, float]:
    """Measures loudness and pitch of one utterance `(n,)`."""
    if not len(sound):
        return {}
    sound = sound.astype(np.float64) - sound.mean(dtype=np.float64)
    padded = np.pad(sound, (0, max(0, _FRAME - len(sound))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _FRAME)[::_HOP]
    power = np.square(frames).sum(1) / min(_FRAME, len(sound))
    is_active = power >= power.max() * 10 ** (-_ACTIVE / 10)
    loudness = 10 * np.log10(power[is_active].mean() + 1e-30)
    if loudness < _SILENCE:
        return {}
    measured = {"loudness": loudness}
    if len(sound) < _FRAME:
        return measured
    pitches = np.where(is_active, _pitches(frames), np.nan)  # semitones above 1 Hz
    steps = np.abs(np.diff(pitches, prepend=np.nan, append=np.nan))
    pitches = pitches[np.fmin(steps[:-1], steps[1:]) <= _WITHIN]
    if len(pitches) >= _FEWEST_FRAMES:
        low, median, high = np.percentile(pitches, (10, 50, 90))
        measured |= {"pitch": 2 ** (median / 12), "pitch_range": high - low}
    return measured


def _pitches(frames: np.ndarray) -> np.ndarray:
    """Returns the pitch of each of the frames `(T, _FRAME)` in semitones above 1 Hz, and NaN where it has none."""
    window = np.hanning(_FRAME)
    lags = np.arange(
        int(_FINER * _RATE / _HIGHEST) - 1, int(_FINER * _RATE / _LOWEST) + 2
    )  # with one more to either side
    own = _autocorrelation(window[None], lags)[0]
    costs = _OCTAVE_COST * np.log2(lags[1:-1] * _LOWEST / (_FINER * _RATE))
    found = []
    for start in range(0, len(frames), _BLOCK):
        block = frames[start : start + _BLOCK]
        strength = _autocorrelation((block - block.mean(1, keepdims=True)) * window, lags) / own
        before, here, after = strength[:, :-2], strength[:, 1:-1], strength[:, 2:]
        is_peak = (here >= before) & (here > after)
        rows, best = np.arange(len(block)), np.where(is_peak, here - costs, -np.inf).argmax(1)
        has_pitch = is_peak[rows, best] & (here[rows, best] > _LEAST_STRENGTH)
        before, here, after = (values[rows, best] for values in (before, here, after))
        bend = np.where(has_pitch, before - 2 * here + after, 1.0)
        lag = lags[1:-1][best] + 0.5 * (before - after) / bend  # the top of a parabola
        found.append(np.where(has_pitch, 12 * np.log2(_FINER * _RATE / np.maximum(lag, 1)), np.nan))
    return np.concatenate(found)


def _autocorrelation(frames: np.ndarray, lags: np.ndarray) -> np.ndarray:
    """Returns the autocorrelation of the frames at lags of a `_FINER`th of a sample, by that at lag 0."""
    spectrum = np.abs(np.fft.rfft(frames, _FFT)) ** 2
    correlation = np.fft.irfft(spectrum, _FINER * _FFT)
    return correlation[:, lags] / (correlation[:, :1] + 1e-30)


def _count_words(text: str) -> int:
    return 0 if _WITHOUT_SPACES.search(text) else len(_WORD.findall(_REMARKS.sub(" ", text)))
