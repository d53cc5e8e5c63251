"""A source-filter speech synthesiser with adjustable pitch, range and tempo.

As in Fant's theory of speech (1960) a source (pulses of the vocal folds, and breath) passes a filter (the resonances
of the mouth). The synthesiser produces vowels without meaning, so that only the prosody carries information.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SOUND_RATE = 16000

# The first three resonances of vowels, in Hz (after Peterson and Barney, 1952), and how wide they are.
_VOWELS = np.array([[730, 1090, 2440], [530, 1840, 2480], [270, 2290, 3010], [570, 840, 2410], [300, 870, 2240]])
_BANDWIDTHS = np.array([80, 100, 150])
_FRAME, _HOP = 512, 128  # samples
_OPEN = 0.6  # share of a period in which the vocal folds are open


@dataclass(frozen=True)
class Prosody:
    """The ranges that a prosody is drawn from.

    Attributes:
        register (`tuple[float, float]`): The semitones between the speaker's usual pitch and that of the utterance.
        range (`tuple[float, float]`): The semitones by which accents leave that pitch, upwards and downwards in turn.
        tempo (`tuple[float, float]`): The syllables per second.
        stress (`float`): The decibels between strong and weak syllables.
    """

    register: tuple[float, float]
    range: tuple[float, float]
    tempo: tuple[float, float]
    stress: float


PROSODIES = {
    "lively": Prosody(register=(2.0, 5.0), range=(3.0, 6.0), tempo=(4.6, 6.0), stress=8.0),
    "flat": Prosody(register=(-3.0, 0.0), range=(0.0, 0.5), tempo=(2.6, 3.4), stress=2.0),
}


@dataclass(frozen=True)
class Speech:
    """The sound parameters of one utterance. All arrays have an entry for each of its N syllables.

    Attributes:
        start (`float`): The start in seconds.
        end (`float`): The end in seconds.
        onsets (`np.ndarray` of shape `(N,)`): The time at which each syllable begins, in seconds from `start`.
        pitches (`np.ndarray` of shape `(N,)`): The pitch in Hz.
        loudness (`np.ndarray` of shape `(N,)`): The loudness, of which 1 is the largest.
        vowels (`np.ndarray` of shape `(N,)`): The row in the table of vowels.
    """

    start: float
    end: float
    onsets: np.ndarray
    pitches: np.ndarray
    loudness: np.ndarray
    vowels: np.ndarray


def plan_speech(start: float, end: float, prosody: str, pitch: float, rng: np.random.Generator) -> Speech:
    """Draws the syllables of an utterance.

    Args:
        start (`float`): The start in seconds.
        end (`float`): The end in seconds.
        prosody (`str`): A name of [`PROSODIES`].
        pitch (`float`): The usual pitch of the speaker in Hz.
        rng (`np.random.Generator`): The generator of the values that [`Prosody`] leaves open.

    Returns:
        [`Speech`]: The syllables.
    """
    how = PROSODIES[prosody]
    count = max(2, round((end - start) * rng.uniform(*how.tempo)))
    onsets = (np.arange(count) + np.r_[0, rng.uniform(-0.12, 0.12, count - 1)]) * (end - start) / count
    accents = rng.uniform(*how.range, count) * (-1) ** (np.arange(count) + rng.integers(2))
    # The pitch sinks a little towards the end of whatever is said.
    semitones = rng.uniform(*how.register) + accents - np.linspace(0, 1, count)
    strong = accents > 0
    loudness = 10 ** ((np.where(strong, 0, -how.stress) + rng.uniform(-1, 0, count)) / 20)
    return Speech(start, end, onsets, pitch * 2 ** (semitones / 12), loudness, rng.integers(0, len(_VOWELS), count))


def mouth_opening(speeches: Sequence[Speech], times: np.ndarray) -> np.ndarray:
    """Computes how far the jaw is open: 0 between syllables and utterances, and up to 1 within syllables.

    Args:
        speeches (`Sequence[Speech]`): The utterances.
        times (`np.ndarray` of shape `(T,)`): The times in seconds.

    Returns:
        `np.ndarray` of shape `(T,)`: The openings.
    """
    opening = np.zeros(len(times))
    for speech in speeches:
        is_speech = (times >= speech.start) & (times < speech.end)
        index, place = _syllables(speech, times[is_speech] - speech.start)
        opening[is_speech] = np.sin(np.pi * place) ** 2 * (0.5 + 0.5 * speech.loudness[index])
    return opening


def speak(speeches: Sequence[Speech], seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Synthesises the sound of utterances.

    Args:
        speeches (`Sequence[Speech]`): The utterances, in any order, which do not overlap.
        seconds (`float`): The length of the sound.
        rng (`np.random.Generator`): The generator of breath and noise.

    Returns:
        `np.ndarray` of shape `(n,)`: The float32 samples at 16 kHz, at most 0.5, with faint noise between the
        utterances.
    """
    length = round(seconds * SOUND_RATE)
    sound = np.zeros(length)
    for speech in speeches:
        first, last = (min(length, round(time * SOUND_RATE)) for time in (speech.start, speech.end))
        if last > first:
            sound[first:last] = _utter(speech, last - first, rng)
    sound += 0.002 * max(1e-3, np.abs(sound).max()) * rng.standard_normal(length)
    return (0.5 * sound / max(1e-6, np.abs(sound).max())).astype(np.float32)


def _syllables(speech: Speech, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns, for seconds from the start of an utterance, the syllable and the position in it from 0 to 1."""
    index = np.searchsorted(speech.onsets, time, side="right") - 1
    bounds = np.append(speech.onsets, speech.end - speech.start)
    return index, (time - bounds[index]) / (bounds[index + 1] - bounds[index])


def _utter(speech: Speech, length: int, rng: np.random.Generator) -> np.ndarray:
    time = np.arange(length) / SOUND_RATE
    index, place = _syllables(speech, time)
    middles = np.convolve(np.append(speech.onsets, speech.end - speech.start), [0.5, 0.5], "valid")
    pitch = np.exp(np.interp(time, middles, np.log(speech.pitches)))

    # The air that passes the vocal folds: they open slowly, close fast, stay closed. The sound is the change of this flow.
    phase = (np.cumsum(pitch) / SOUND_RATE) % 1 / _OPEN
    source = np.diff(np.where(phase < 1, phase**2 * (1 - phase), 0), prepend=0)
    source = source / source.std() + 0.08 * rng.standard_normal(length)
    attack = np.minimum(1, np.minimum(place, 1 - place) * 6)
    voiced = _filter(source * attack, speech.vowels, index)
    # A consonant begins the syllable: a short hiss.
    hiss = np.diff(rng.standard_normal(length), prepend=0) * np.exp(-(((place - 0.02) / 0.05) ** 2))
    return (voiced / max(1e-6, voiced.std()) + 0.3 * hiss) * speech.loudness[index]


def _filter(source: np.ndarray, vowels: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Passes overlapping frames of a source through the vowels' resonances, each in its own spectrum."""
    padded = np.pad(source, (_FRAME, 2 * _FRAME))
    starts = np.arange(0, len(source) + _FRAME, _HOP)
    window = np.hanning(_FRAME + 1)[:-1]
    spectra = np.fft.rfft(padded[starts[:, None] + np.arange(_FRAME)] * window, 2 * _FRAME)
    frequency = np.fft.rfftfreq(2 * _FRAME, 1 / SOUND_RATE)
    resonance = _VOWELS**2 / (_VOWELS**2 - frequency[:, None, None] ** 2 + 1j * _BANDWIDTHS * frequency[:, None, None])
    response = resonance.prod(-1).T  # (vowels, frequencies)
    middle = (starts - _FRAME // 2).clip(0, len(source) - 1)
    frames = np.fft.irfft(spectra * response[vowels[index[middle]]])
    filtered = np.zeros(len(padded) + 2 * _FRAME)
    for part in range(0, 2 * _FRAME, _HOP):  # frames overlap, their parts of one hop do not
        filtered[part : part + len(starts) * _HOP].reshape(-1, _HOP)[:] += frames[:, part : part + _HOP]
    return filtered[_FRAME : _FRAME + len(source)]
