"""Measures of the voice: right on sounds whose pitch and loudness are known, and finite or absent on all others."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from microemo.inference.observations import has_emotion_words
from microemo.inference.voice_measures import measure_voice, voice_words
from microemo.processing.media import load_audio

# The median pitch that Praat 6.4 finds in recordings of ../shared/people (autocorrelation, 60 to 500 Hz, every 10 ms).
PRAAT = {
    "voices/ravdess/03-01-02-02-01-01-14.flac": 179,
    "voices/ravdess/03-01-04-01-01-02-15.flac": 119,
    "voices/ravdess/03-01-05-02-02-02-17.flac": 192,
    "voices/ravdess/03-01-07-02-02-01-09.flac": 96,
    "voices/ravdess/03-01-08-01-02-01-20.flac": 208,
    "voices/emodb/09a05Wc.flac": 339,
    "voices/emodb/10b01Lb.flac": 97,
    "voices/emodb/11b09Fd.flac": 165,
    "voices/emodb/13b02Nb.flac": 192,
}


def tone(pitch, rate=16000, seconds=1.0, harmonics=1, amplitude=0.1) -> np.ndarray:
    """A tone `(1, n)`; with harmonics a buzz, as of a voice."""
    phase = 2 * np.pi * np.cumsum(np.broadcast_to(pitch, round(rate * seconds))) / rate
    parts = [np.sin(part * phase) / part for part in range(1, harmonics + 1) if part * np.max(pitch) < rate / 2]
    return amplitude * np.sum(parts, axis=0)[None]


def measure(samples, rate=16000, **keywords) -> dict[str, float]:
    return measure_voice(samples, rate, [(0.0, samples.shape[1] / rate)], **keywords)[0]


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
@pytest.mark.parametrize("harmonics", [1, 8])
@pytest.mark.parametrize("pitch", [61.0, 85.0, 123.4, 220.0, 333.3, 498.0])
def test_the_pitch_of_a_tone_is_right_within_half_a_percent(pitch, harmonics, rate):
    measured = measure(tone(pitch, rate, 0.4, harmonics), rate)
    assert measured["pitch"] == pytest.approx(pitch, rel=0.005)
    assert measured["pitch_range"] < 0.1


def test_a_voice_is_found_without_its_fundamental_in_noise_clipped_and_offset():
    rng = np.random.default_rng(0)
    voice = tone(140.0, harmonics=10)
    telephone = voice - tone(140.0)
    noisy = voice + rng.normal(0, 0.3 * voice.std(), voice.shape)
    for sound in (telephone, noisy, np.clip(50 * voice, -1, 1), voice + 0.7, voice * 30, voice * 1e-2):
        assert measure(sound)["pitch"] == pytest.approx(140, rel=0.01)


def test_the_range_of_pitch_spans_80_percent_of_it():
    rising = tone(100 * 2 ** np.linspace(0, 1, 32000), seconds=2.0, harmonics=6)
    assert measure(rising)["pitch_range"] == pytest.approx(0.8 * 12, abs=0.3)


def test_sounds_without_a_pitch_have_none():
    rng = np.random.default_rng(0)
    click = np.zeros((1, 16000))
    click[0, 8000] = 1
    for sound in (rng.normal(0, 0.1, (1, 32000)), click, tone(20.0), tone(3000.0)[:, :700]):
        assert set(measure(sound)) == {"loudness"}


def test_the_loudness_is_that_of_the_parts_with_sound():
    voice = tone(150.0, amplitude=0.1)
    alone, with_pause = measure(voice), measure(np.pad(voice, ((0, 0), (0, 48000))))
    assert alone["loudness"] == pytest.approx(20 * math.log10(0.1 / 2**0.5), abs=0.05)
    assert with_pause["loudness"] == pytest.approx(alone["loudness"], abs=0.3)
    assert measure(voice * 2)["loudness"] == pytest.approx(alone["loudness"] + 6.02, abs=0.05)
    assert measure(voice + 0.5)["loudness"] == pytest.approx(alone["loudness"], abs=0.05)


def test_channels_that_cancel_each_other_out_are_heard():
    voice = tone(150.0)
    for channels in ([voice, -voice], [voice, voice], [0 * voice, voice]):
        assert measure(np.concatenate(channels))["pitch"] == pytest.approx(150, rel=0.01)


def test_each_utterance_is_measured_by_itself():
    sound = np.concatenate([tone(110.0), tone(220.0, amplitude=0.4)], axis=1)
    first, second, across, beyond, turned = measure_voice(sound, 16000, [(0, 1), (1, 2), (-5, 99), (2.5, 3), (1, 0)])
    assert (first["pitch"], second["pitch"]) == pytest.approx((110, 220), rel=0.005)
    assert second["loudness"] - first["loudness"] == pytest.approx(12, abs=0.1)
    assert across["pitch_range"] == pytest.approx(12, abs=0.1)
    assert beyond == turned == {}
    assert measure_voice(sound, 16000, []) == []


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Here we are.", 3),
        ("It's a well-known\nstory — isn’t it?", 6),
        ("[laughs] Well (sighs) no", 2),
        ("Übermäßig größer, 1.5 mal", 5),
        ("♪ ... ♪", None),
        ("", None),
        (None, None),
        ("我哪知道啊", None),
        ("สวัสดีครับ", None),
        ("나는 집에 간다", 3),
    ],
)
def test_words_are_counted_where_they_can_be(text, count):
    measured = measure(tone(150.0, seconds=2.0), words=[text])
    assert measured.get("words_per_second") == (None if count is None else count / 2)
    assert "words_per_second" not in measure(tone(150.0), words=None)


def test_silence_has_no_measures_of_sound():
    for sound in (np.zeros((1, 16000)), np.full((2, 16000), 0.3), np.full((1, 16000), np.nan), np.zeros((2, 0))):
        assert measure_voice(sound, 16000, [(0, 1)], ["Two words"]) == [{"words_per_second": 2.0}]
    assert (
        measure_voice(np.full((1, 9), np.inf), 16000, [(0, np.nan), (np.nan, 1), (0, np.inf)], ["a", "b", "c"])
        == [{}] * 3
    )


@settings(max_examples=40, deadline=None)
@given(
    samples=arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(0, 900)), elements=st.floats(width=32)),
    rate=st.sampled_from([999, 8000, 11025, 48000]),
    spans=st.lists(st.tuples(st.floats(), st.floats()), max_size=3),
    text=st.text(),
)
def test_measures_are_finite_whatever_the_sound(samples, rate, spans, text):
    measures = measure_voice(samples, rate, spans, [text] * len(spans))
    assert len(measures) == len(spans)
    assert all(math.isfinite(value) and type(value) is float for measured in measures for value in measured.values())


def test_what_cannot_be_measured_is_refused_by_name():
    sound, spans = tone(150.0), [(0, 1)]
    for arguments, message in [
        ((sound[0], 16000, spans), r"samples: .* shape \(16000,\)"),
        (((sound * 32767).astype(np.int16), 16000, spans), "samples: .* int16"),
        ((sound, 0, spans), "rate: .* 0"),
        ((sound, float("nan"), spans), "rate: .* nan"),
        ((sound, 16000, spans, ["one", "two"]), "words: .* 1 utterances, got 2"),
    ]:
        with pytest.raises(ValueError, match=message):
            measure_voice(*arguments)


def test_the_pitch_is_that_of_praat(shared):
    folder = shared / "people"
    if not (folder / "voices").is_dir():
        pytest.skip("the shared folder has no voices")
    errors = []
    for file, pitch in PRAAT.items():
        track = load_audio(folder / file)
        errors.append(abs(12 * math.log2(measure(track.samples, track.rate)["pitch"] / pitch)))
    assert max(errors) < 1.0 and np.median(errors) < 0.2


def test_words_say_what_stands_out_from_the_other_utterances():
    usual = {"loudness": -30.0, "pitch": 120.0, "pitch_range": 5.0, "words_per_second": 3.0}
    other = {"loudness": -24.0, "pitch": 160.0, "pitch_range": 5.5, "words_per_second": 1.5}
    assert voice_words([usual, usual, other, usual | {"pitch_range": 12.0}]) == [
        "",
        "",
        "louder, higher and slower than elsewhere in the clip",
        "with a wider range of pitch than elsewhere in the clip",
    ]
    assert voice_words([usual, {"loudness": -36.0}]) == [
        "louder than elsewhere in the clip",
        "quieter than elsewhere in the clip",
    ]
    assert voice_words([]) == [] and voice_words([usual]) == [""] and voice_words([other, {}, {}]) == [""] * 3
    assert voice_words([usual, usual | {"loudness": -27.0, "pitch": 128.0, "words_per_second": 3.8}]) == ["", ""]


def test_the_words_name_no_emotion():
    low = {"loudness": -60.0, "pitch": 60.0, "pitch_range": 0.0, "words_per_second": 0.5}
    high = {"loudness": 0.0, "pitch": 500.0, "pitch_range": 36.0, "words_per_second": 9.0}
    assert not any(has_emotion_words(words) for words in voice_words([low, high]))
    assert all(words.count(",") == 2 for words in voice_words([low, high]))
