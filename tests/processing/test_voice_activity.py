"""Voice activity: utterances without words from the signal alone."""

from itertools import pairwise

import numpy as np
import pytest

from microemo.processing.voice_activity import LONGEST, RATE, find_speech
from microemo.training.synthetic.voice import plan_speech, speak


def voice(spans, seconds, prosody="lively") -> np.ndarray:
    rng = np.random.default_rng(0)
    sound = speak([plan_speech(start, end, prosody, 140, rng) for start, end in spans], seconds, rng)
    return np.asarray(sound, np.float32).reshape(-1)[: round(seconds * RATE)]


def noise(seconds, level) -> np.ndarray:
    return (np.random.default_rng(1).standard_normal(round(seconds * RATE)) * level).astype(np.float32)


SPANS = [(0.5, 2.0), (3.0, 4.4)]


@pytest.mark.parametrize("gain", [1.0, 0.01, 30.0], ids=["as it is", "very quiet", "clipped"])
def test_speech_is_found_however_loud_it_is(gain):
    sound = np.clip(voice(SPANS, 5.0) * gain + noise(5.0, 1e-6), -1, 1)
    np.testing.assert_allclose(find_speech(sound), SPANS, atol=0.25)


def test_speech_is_found_above_steady_noise():
    sound = voice(SPANS, 5.0)
    sound = sound + noise(5.0, float(sound.std()) / 10)
    np.testing.assert_allclose(find_speech(sound), SPANS, atol=0.3)


def test_what_is_no_voice_is_no_utterance():
    time = np.arange(6 * RATE) / RATE
    chord = sum(np.sin(2 * np.pi * pitch * time) for pitch in (220.0, 277.2, 329.6)).astype(np.float32) / 6
    scale, length = [220, 294, 392, 247, 330, 440, 262, 349], RATE // 4
    notes = [  # four in a second, each of which dies away
        sum(np.sin(2 * np.pi * scale[number % 8] * part * time[:length]) / part for part in range(1, 6))
        * np.exp(-3 * time[:length])
        * np.minimum(1, time[:length] * 100)
        for number in range(38)
    ]
    melody = np.concatenate([*notes, np.zeros(RATE // 2)]) / 5
    for sound in (
        melody,
        np.zeros(6 * RATE),
        noise(6.0, 0.1),
        np.sin(2 * np.pi * 440 * time),
        chord,
        np.zeros(10),
        [],
    ):
        assert find_speech(np.asarray(sound, np.float32)) == []
    assert find_speech(np.full(RATE, np.nan, np.float32)) == []


def test_a_long_speech_is_cut_and_pauses_divide():
    spans = find_speech(voice([(0.5, 24.5)], 25.0))
    assert len(spans) >= 3 and all(end - start <= LONGEST + 0.2 for start, end in spans)
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    assert spans[0][0] < 0.8 and spans[-1][1] > 24.0
