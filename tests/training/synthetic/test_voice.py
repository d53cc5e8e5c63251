"""How something is said can be heard."""

import numpy as np
import pytest

from microemo.training.synthetic.voice import PROSODIES, SOUND_RATE, mouth_opening, plan_speech, speak


def pitches(sound):
    """Hz of the voiced frames of 50 ms, by autocorrelation."""
    found = []
    for start in range(0, len(sound) - 800, 320):
        frame = sound[start : start + 800]
        if frame.std() < 0.02:
            continue
        likeness = np.correlate(frame, frame, "full")[799:]
        lag = 32 + likeness[32:213].argmax()
        if likeness[lag] > 0.5 * likeness[0]:
            found.append(SOUND_RATE / lag)
    return np.array(found)


def pitch_range(prosody, seed, seconds):
    """Semitones between the tenth and the ninetieth percentile."""
    rng = np.random.default_rng(seed)
    speech = plan_speech(0.2, 0.2 + seconds, prosody, rng.uniform(110, 220), rng)
    heard = pitches(speak([speech], seconds + 0.4, rng))
    return 12 * np.log2(np.percentile(heard, 90) / np.percentile(heard, 10))


@pytest.mark.parametrize("seconds", [0.6, 1.5, 3.5])
def test_lively_and_flat_speech_differ_in_pitch_range(seconds):
    lively, flat = ([pitch_range(name, seed, seconds) for seed in range(12)] for name in ("lively", "flat"))
    assert min(lively) > max(flat) and np.median(lively) > 4 and np.median(flat) < 1.6


def test_tempo_and_register():
    def draw(name):
        return [plan_speech(0, 2, name, 150, np.random.default_rng(seed)) for seed in range(20)]

    lively, flat = draw("lively"), draw("flat")
    assert min(len(speech.onsets) for speech in lively) > max(len(speech.onsets) for speech in flat)
    for name, speeches in (("lively", lively), ("flat", flat)):
        low, high = PROSODIES[name].tempo
        assert all(2 * low - 1 <= len(speech.onsets) <= 2 * high + 1 for speech in speeches)
    assert np.mean([s.pitches.mean() for s in lively]) > 1.2 * np.mean([s.pitches.mean() for s in flat])


def test_sound_and_mouth_follow_the_utterances():
    rng = np.random.default_rng(0)
    speeches = [plan_speech(0.5, 1.5, "lively", 150, rng), plan_speech(1.5, 2.0, "flat", 150, rng)]
    sound = speak(speeches, 3.0, rng)
    assert sound.dtype == np.float32 and sound.shape == (3 * SOUND_RATE,) and np.abs(sound).max() == pytest.approx(0.5)
    power = sound.reshape(-1, SOUND_RATE // 4).astype(float) ** 2
    power = power.mean(1)  # of quarters of a second
    assert power[2:8].min() > 100 * power[[0, 1, 8, 9, 10, 11]].max()
    times = np.arange(75) / 25
    opening = mouth_opening(speeches, times)
    assert not opening[times < 0.5].any() and not opening[times >= 2.0].any()
    assert opening[(times >= 0.5) & (times < 2)].max() > 0.6 and opening.max() <= 1
    assert opening[(times >= 0.5) & (times < 1.4)].min() < 0.2, "it closes between syllables"


def test_speech_beyond_the_end_is_cut():
    rng = np.random.default_rng(0)
    speech = plan_speech(0.5, 4.0, "flat", 150, rng)
    assert len(speak([speech], 1.0, rng)) == SOUND_RATE
    assert len(speak([plan_speech(2.0, 3.0, "flat", 150, rng)], 1.0, rng)) == SOUND_RATE


def test_the_same_seed_says_the_same():
    def say(seed):
        rng = np.random.default_rng(seed)
        return speak([plan_speech(0, 1, "lively", 150, rng)], 1.0, rng)

    np.testing.assert_array_equal(say(3), say(3))
    assert np.abs(say(3) - say(4)).max() > 0.1
