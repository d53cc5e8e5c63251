"""Small recordings of a synthesiser."""

import wave

import numpy as np

from microemo.training.synthetic.voice import SOUND_RATE, plan_speech, speak


def write_wav(path, samples):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SOUND_RATE)
        file.writeframes((samples * 32767).round().astype("<i2").tobytes())


def say(seconds=1.0, before=0.5, after=0.4, pitch=150, seed=0, loud=1.0):
    """Samples of a voice, with silence before and after it."""
    rng = np.random.default_rng(seed)
    speech = speak([plan_speech(0, seconds, "lively", pitch, rng)], seconds, rng)
    silence = [np.zeros(round(length * SOUND_RATE), np.float32) for length in (before, after)]
    return loud * np.concatenate([silence[0], speech, silence[1]])
