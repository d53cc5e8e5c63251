"""The sound of dialogues of people: recordings one after the other, with noise, music or nothing.

The music is made here: chords of decaying tones, which belong to nobody.
"""

import numpy as np

from .people_plan import PeopleDialogue
from .recordings import load_speech
from .voice import SOUND_RATE

# Ranges that are drawn from, in decibels.
_VOICE_BELOW_LOUDEST = (1.0, 13.0)
_VOICE_OVER_NOISE = (5.0, 25.0)
_VOICE_OVER_MUSIC = (6.0, 20.0)
_LEAST_PEAK = 0.1  # of a clip: the microphone is turned up for soft voices
_FLOOR = (-75.0, -55.0)  # of the faint noise that every recording has
# The root of chords in semitones, and their tones: major, minor, seventh.
_CHORDS = ((0, 4, 7), (0, 3, 7), (0, 4, 7, 10), (0, 3, 7, 10))
_WINDOW = 0.05  # seconds of sound that open the mouth in a frame


def people_voices(dialogue: PeopleDialogue) -> np.ndarray:
    """Joins what each person says.

    Args:
        dialogue ([`PeopleDialogue`]): The dialogue.

    Returns:
        `np.ndarray` of shape `(people, n)`: The float32 samples at 16 kHz, of which 1 is a speaker's loudest.
    """
    voices = np.zeros((len(dialogue.people), round(dialogue.seconds * SOUND_RATE)), np.float32)
    if "no_speech" in dialogue.conditions:
        return voices
    for utterance in dialogue.utterances:
        for start, recording in utterance.parts:
            first = round(start * SOUND_RATE)
            speech = load_speech(recording)[: max(0, voices.shape[1] - first)]
            voices[utterance.person, first : first + len(speech)] += speech
    return voices


def mouth_openings(dialogue: PeopleDialogue, voices: np.ndarray) -> np.ndarray:
    """Computes how far the voice opens the mouth: with the loudness of the voice in each frame, compared with that of
    the utterance.

    Args:
        dialogue ([`PeopleDialogue`]): The dialogue.
        voices (`np.ndarray` of shape `(people, n)`): The voices, of [`people_voices`].

    Returns:
        `np.ndarray` of shape `(people + 1, T)`: The openings from 0 to 1; zeros in the last row, for a bystander.
    """
    times = dialogue.times
    openings = np.zeros((len(voices) + 1, len(times)))
    edges = np.clip(np.add.outer([-_WINDOW / 2, _WINDOW / 2], times) * SOUND_RATE, 0, voices.shape[1]).astype(int)
    energy = np.pad(np.cumsum(np.square(voices, dtype=np.float64), axis=1), ((0, 0), (1, 0)))
    loudness = np.sqrt((energy[:, edges[1]] - energy[:, edges[0]]).clip(0) / (_WINDOW * SOUND_RATE))
    for utterance in dialogue.utterances:
        here = (times >= utterance.start) & (times < utterance.end)
        own = loudness[utterance.person, here]
        if own.size and own.max() > 0:
            openings[utterance.person, here] = (1.15 * (own / np.percentile(own, 95)) ** 0.6 - 0.15).clip(0, 1)
    return openings


def people_sound(dialogue: PeopleDialogue, voices: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """Mixes the sound of a clip.

    Args:
        dialogue ([`PeopleDialogue`]): The dialogue.
        voices (`np.ndarray` of shape `(people, n)`): The voices, of [`people_voices`].
        rng (`np.random.Generator`): The generator of levels, noise and music.

    Returns:
        `np.ndarray` of shape `(n,)`, *optional*: The float32 samples at 16 kHz, at most 0.99; `None` without a track.
    """
    conditions, length = dialogue.conditions, voices.shape[1]
    if "no_sound" in conditions:
        return None
    if "silent" in conditions:
        return np.zeros(length, np.float32)
    gains = _amplitude(-rng.uniform(*_VOICE_BELOW_LOUDEST, len(voices)))
    sound = (gains[:, None] * voices).sum(0)
    sound *= max(1.0, _LEAST_PEAK / max(1e-4, np.abs(sound).max()))
    level = _softest(dialogue, sound)
    if "music" in conditions:
        sound += level * _amplitude(-rng.uniform(*_VOICE_OVER_MUSIC)) * _music(length, rng)
    elif {"noise", "no_speech"} & set(conditions):
        sound += level * _amplitude(-rng.uniform(*_VOICE_OVER_NOISE)) * _noise(length, rng)
    floor = min(_amplitude(rng.uniform(*_FLOOR)), level * _amplitude(-_VOICE_OVER_NOISE[1]))
    sound += floor * rng.standard_normal(length)
    return (sound * min(1.0, 0.99 / max(1e-6, np.abs(sound).max()))).astype(np.float32)


def _softest(dialogue: PeopleDialogue, sound: np.ndarray) -> float:
    """Returns the loudness of the softest utterance: noise, music and the floor must leave it audible."""
    spans = [(round(said.start * SOUND_RATE), round(said.end * SOUND_RATE)) for said in dialogue.utterances]
    levels = [float(np.sqrt(np.square(sound[first:last]).mean())) for first, last in spans]
    # Without a voice the others are as loud as if there were one.
    return min(levels) if min(levels) > 0 else 0.1


def _amplitude(decibels: float | np.ndarray) -> np.ndarray:
    return np.power(10.0, np.asarray(decibels) / 20)


def _noise(length: int, rng: np.random.Generator) -> np.ndarray:
    """Returns (length,) noise of unit power, between white and brown, that swells and fades."""
    spectrum = np.fft.rfft(rng.standard_normal(length))
    frequency = np.maximum(np.fft.rfftfreq(length, 1 / SOUND_RATE), 40.0)
    noise = np.fft.irfft(spectrum * frequency ** -rng.uniform(0, 1), length)
    time = np.arange(length) / SOUND_RATE
    noise *= 1 + rng.uniform(0, 0.6) * np.sin(2 * np.pi * rng.uniform(0.1, 2) * time + rng.uniform(0, 6))
    return noise / noise.std()


def _music(length: int, rng: np.random.Generator) -> np.ndarray:
    """Returns (length,) chords of unit power, struck at a steady beat."""
    music, root = np.zeros(length), rng.uniform(98, 196)
    beat = round(SOUND_RATE * 60 / rng.uniform(50, 110))
    progression: np.ndarray = rng.choice([0, 2, 5, 7, 9], 4)
    time = np.arange(min(length, 3 * beat)) / SOUND_RATE
    decay = np.exp(-time * rng.uniform(1, 4)) * np.minimum(1, time / 0.01)
    harmonics = np.arange(1, 6)
    weights = rng.uniform(0.2, 1, len(harmonics)) / harmonics
    for number, first in enumerate(range(0, length, beat)):
        chord = _CHORDS[rng.integers(len(_CHORDS))]
        semitones = progression[number % len(progression)] + np.array(chord)
        pitches = root * 2 ** (semitones / 12)
        tones = np.sin(2 * np.pi * np.outer((pitches[:, None] * harmonics).ravel(), time[: length - first]))
        music[first : first + tones.shape[1]] += np.tile(weights, len(pitches)) @ tones * decay[: tones.shape[1]]
    return music / max(1e-6, music.std())
