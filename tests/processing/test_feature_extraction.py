"""Log-mel segments: the originals' numbers, and what each step does."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from microemo.processing.feature_extraction_microemo import (
    MicroEmoFeatureExtractor,
    _sinc_kernels,
    log_mel,
    resample,
)
from microemo.processing.media import load_audio

SHARED = Path(os.environ.get("MICROEMO_SHARED", Path(__file__).parents[2] / ".." / "shared"))
GOLDENS = SHARED / "goldens" / "io"
needs_goldens = pytest.mark.skipif(
    not GOLDENS.is_dir(), reason="no shared folder: set MICROEMO_SHARED to the folder that holds goldens/io"
)
TOLERANCE = 5e-4  # of goldens/README.md, in normalised units
PADDING = {"agpt": "waveform", "vl": "mel"}


def golden(name):
    from safetensors.numpy import load_file

    return json.loads((GOLDENS / f"e_mel_{name}.json").read_text()), load_file(GOLDENS / f"e_mel_{name}.safetensors")


def golden_cases(ending):
    for name in PADDING:
        if GOLDENS.is_dir():
            yield from ((name, key[: -len(ending)]) for key in golden(name)[1] if key.endswith(ending))


@needs_goldens
@pytest.mark.parametrize("name, sound", golden_cases(".waveform_int16"))
def test_golden_mel_waveforms(name, sound):
    facts, tensors = golden(name)
    waveform, rate = tensors[f"{sound}.waveform_int16"], facts[sound]["sr"]
    extractor = MicroEmoFeatureExtractor(short_audio_padding=PADDING[name])
    mel = extractor(waveform, rate)["input_features"][0]
    assert np.abs(mel[facts[sound]["clip_index_of_mel_clips"]] - tensors[f"{sound}.mel_clips"]).max() < TOLERANCE
    statistics = np.stack([mel.mean((1, 2, 3)), mel.std((1, 2, 3), ddof=1)], axis=1)
    assert np.abs(statistics - tensors[f"{sound}.clip_mean_std"]).max() < TOLERANCE
    if "timepoints" in facts[sound]:
        np.testing.assert_allclose(
            extractor.segment_times(waveform.shape[1], rate), facts[sound]["timepoints"], atol=1e-9
        )


@needs_goldens
@pytest.mark.parametrize("name, sound", golden_cases(".resampled16k_head"))
def test_golden_mel_resampling(name, sound):
    facts, tensors = golden(name)
    waveform = torch.from_numpy(tensors[f"{sound}.waveform_int16"] / 2**15).float()
    resampled = resample(waveform, facts[sound]["sr"], 16_000)
    assert resampled.shape[1] == facts[sound]["resampled_len"]
    for part, slice_ in (("head", np.s_[:, :2000]), ("tail", np.s_[:, -500:])):
        assert np.abs(resampled[slice_] - tensors[f"{sound}.resampled16k_{part}"]).max() < 2e-5


@needs_goldens
@pytest.mark.parametrize("name, clip", [c for c in golden_cases(".mel_clips") if c[1].endswith((".mp4", ".mpg"))])
def test_golden_mel_segments_of_files(name, clip):
    facts, tensors = golden(name)
    track = load_audio(SHARED / "data" / "clips" / "free" / clip)
    mel = MicroEmoFeatureExtractor(short_audio_padding=PADDING[name])(track.samples, track.rate)["input_features"][0]
    picked = facts[f"{clip}.audio"]["clip_index_of_mel_clips"]
    assert np.abs(mel[picked] - tensors[f"{clip}.mel_clips"]).max() < TOLERANCE


@needs_goldens
def test_golden_mel_filter_bank():
    _, tensors = golden("agpt")
    mel = MicroEmoFeatureExtractor()(tensors["waveform2melspec.waveform"], 16_000)["input_features"][0, 0]
    expected = (tensors["waveform2melspec.out"] + 4.268) / 9.138  # the originals normalise afterwards
    assert np.abs(mel - expected).max() < TOLERANCE


def sine(frequency, rate, seconds, channels=1):
    wave = np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate).astype(np.float32)
    return np.stack([wave] * channels)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
def test_resampling_keeps_a_sine(rate):
    resampled = resample(torch.from_numpy(sine(440, rate, 1.0)), rate, 16_000)
    assert resampled.shape == (1, 16_000)
    np.testing.assert_allclose(resampled[0, 200:-200], sine(440, 16_000, 1.0)[0, 200:-200], atol=3e-3)


def test_resampling_drops_what_is_too_high():
    resampled = resample(torch.from_numpy(sine(11_000, 48_000, 1.0)), 48_000, 16_000)
    assert resampled[0, 200:-200].abs().max() < 0.02


def originals_kernel(rate, precision=torch.float32):
    """The originals' windowed sinc: every step in one precision, which is float32 for them."""
    divisor = math.gcd(rate, 16_000)
    old, new = rate // divisor, 16_000 // divisor
    cutoff = min(old, new) * 0.99
    reach = math.ceil(6 * old / cutoff)
    of_new = torch.arange(0, -new, -1, dtype=precision)[:, None] / new
    time = (of_new + torch.arange(-reach, reach + old, dtype=precision) / old) * cutoff
    angle = time.clamp(-6, 6) * math.pi
    sinc = torch.where(angle == 0, torch.ones((), dtype=precision), torch.sin(angle) / angle)
    return (sinc * (torch.cos(angle / 6 / 2) ** 2 * (cutoff / old))).float()[:, None], reach


@pytest.mark.parametrize(
    ("rate", "phase", "tap", "rounded", "exact"),
    [
        (22_050, 182, 259, 0.36514634, 0.36516151),
        (22_050, 231, 327, 0.64445299, 0.64445996),
        (44_100, 104, 302, 0.18039106, 0.18038692),
        (44_100, 86, 256, 0.12537095, 0.12536861),
    ],
)
def test_taps_of_the_kernel(rate, phase, tap, rounded, exact):
    """Written down once: what float32 arithmetic gives, not what is right."""
    divisor = math.gcd(rate, 16_000)
    kernels, _ = _sinc_kernels(rate // divisor, 16_000 // divisor)
    assert float(kernels[phase, 0, tap]) == pytest.approx(rounded, abs=3e-7)
    assert abs(rounded - exact) > 1e-6


@pytest.mark.parametrize(("rate", "apart"), [(11_025, 1e-5), (22_050, 1e-5), (44_100, 3e-6), (37_800, 1e-6)])
def test_the_kernel_is_rounded_as_the_originals(rate, apart):
    divisor = math.gcd(rate, 16_000)
    kernels, reach = _sinc_kernels(rate // divisor, 16_000 // divisor)
    expected, expected_reach = originals_kernel(rate)
    assert reach == expected_reach
    torch.testing.assert_close(kernels, expected, rtol=0, atol=6e-8)
    assert (kernels - originals_kernel(rate, torch.float64)[0]).abs().max() > apart


@pytest.mark.parametrize(("rate", "frequency", "apart"), [(44_100, 60, 0.01), (22_050, 220, 0.03), (11_025, 440, 0.2)])
def test_quiet_bands_of_a_loud_tone_are_the_originals(rate, frequency, apart):
    """Above a loud low tone a band holds little but the resampler's rounding."""
    tone = sine(frequency, rate, 2.5)
    ours = MicroEmoFeatureExtractor()(tone, rate)["input_features"]
    differences = []
    for precision in (torch.float32, torch.float64):
        kernels, reach = originals_kernel(rate, precision)
        old = kernels.shape[2] - 2 * reach
        padded = torch.nn.functional.pad(torch.from_numpy(tone), (reach, reach + old))
        blocks = torch.nn.functional.conv1d(padded[:, None], kernels, stride=old)
        resampled = blocks.transpose(1, 2).reshape(1, -1)[:, :40_000]
        differences.append(np.abs(ours - MicroEmoFeatureExtractor()(resampled, 16_000)["input_features"]).max())
    assert differences[0] < TOLERANCE
    assert differences[1] > apart, "a test that tells the two kernels apart"


@settings(deadline=None, max_examples=30)
@given(rate=st.sampled_from([8_000, 22_050, 44_100, 48_000]), ends=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_part_of_a_resampled_sound(rate, ends):
    torch.manual_seed(0)
    sound = torch.randn(2, rate)
    start, end = sorted(int(16_000 * end) for end in ends)
    if start < end:
        part = resample(sound, rate, 16_000, start, end)
        torch.testing.assert_close(part, resample(sound, rate, 16_000)[:, start:end], rtol=0, atol=1e-6)


def test_filter_bank_finds_a_tone():
    mel = log_mel(torch.from_numpy(sine(1000, 16_000, 1.0)[0]), 128)
    assert mel.shape == (128, 98)
    edges = np.linspace(1127 * np.log(1 + 20 / 700), 1127 * np.log(1 + 8000 / 700), 130)
    expected = np.abs(700 * (np.exp(edges / 1127) - 1) - 1000).argmin() - 1
    assert set((mel.argmax(0) - expected).tolist()) <= {-1, 0, 1}


@pytest.mark.parametrize("seconds", [0.25, 2.0, 2.875, 17.0, 18.5, 30.0])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_segments_are_cut_in_order_and_in_place(seconds, channels):
    """Each segment loses the mean over all its channels, and a later segment sees what an earlier one has lost."""
    generator = np.random.default_rng(0)
    sound = generator.normal(0.3, 1.0, (channels, round(16_000 * seconds))).astype(np.float32)
    sound += np.linspace(-1, 1, sound.shape[1], dtype=np.float32)
    expected = np.pad(sound, ((0, 0), (0, max(0, 32_000 - sound.shape[1])))).copy()
    segments = []
    for index in range(8):
        start = int(index * (max(seconds, 2.0) - 2.0) / 8 * 16_000)
        segment = expected[:, start : start + 32_000]
        segment -= segment.mean()
        segments.append(segment[0].copy())
    mel = log_mel(torch.from_numpy(np.stack(segments)), 128)
    mel = torch.nn.functional.pad(mel, (0, 204 - mel.shape[-1]))
    features = MicroEmoFeatureExtractor()(sound, 16_000, return_tensors="pt")["input_features"]
    torch.testing.assert_close(features[0, :, 0], (mel + 4.268) / 9.138, rtol=0, atol=2e-3)


def test_short_sound_is_padded_where_asked():
    sound = sine(440, 16_000, 0.5) + 0.5
    in_waveform = MicroEmoFeatureExtractor()(sound, 16_000)["input_features"][0, 0, 0]
    in_mel = MicroEmoFeatureExtractor(short_audio_padding="mel")(sound, 16_000)["input_features"][0, 0, 0]
    padding = 4.268 / 9.138
    for mel, columns in ((in_mel, 48), (in_waveform, 198)):
        np.testing.assert_allclose(mel[:, columns:], padding, atol=1e-6)
        assert np.abs(mel[:, :columns] - padding).min(0).max() > 1e-3


@pytest.mark.parametrize("padding", ["waveform", "mel"])
@pytest.mark.parametrize(
    "sound, rate",
    [
        (np.zeros((1, 48_000)), 16_000),
        (np.ones((2, 1)), 44_100),
        (sine(300, 8_000, 3.0) * 7, 8_000),
        (sine(300, 48_000, 3.0, channels=6), 48_000),
        (sine(300, 16_000, 3.0)[0].astype(np.float64), 16_000),
        (torch.from_numpy(sine(300, 16_000, 3.0)), 16_000),
        ((sine(300, 16_000, 3.0) * 30_000).astype(np.int16), 16_000),
    ],
)
def test_odd_sounds(sound, rate, padding):
    extractor = MicroEmoFeatureExtractor(short_audio_padding=padding)
    output = extractor(sound, rate, return_tensors="pt")
    assert output["input_features"].shape == (1, 8, 1, 128, 204)
    assert output["input_features"].dtype == torch.float32 and output["input_features"].isfinite().all()
    assert output["audio_segment_mask"].shape == (1, 8) and output["audio_segment_mask"].all()


def test_the_callers_waveform_is_left_alone():
    sound = sine(440, 16_000, 3.0) + 0.5
    before = sound.copy()
    MicroEmoFeatureExtractor()(sound, 16_000)
    assert (sound == before).all()


def test_a_batch_equals_its_rows():
    sounds = [sine(300, 48_000, 3.1, 2), None, sine(500, 16_000, 0.7), sine(700, 8_000, 30.0)]
    rates = [48_000, None, 16_000, 8_000]
    extractor = MicroEmoFeatureExtractor(short_audio_padding="mel")
    batch = extractor(sounds, rates)
    assert batch["audio_segment_mask"].any(1).tolist() == [True, False, True, True]
    assert not batch["input_features"][1].any()
    for row in (0, 2, 3):
        alone = extractor(sounds[row], rates[row])["input_features"][0]
        np.testing.assert_allclose(batch["input_features"][row], alone, atol=1e-6)


def test_clip_times_are_even_and_inside():
    times = MicroEmoFeatureExtractor(num_segments=4).segment_times(44_100 * 10, 44_100)
    np.testing.assert_allclose(times, [[0, 2], [2, 4], [4, 6], [6, 8]])


@pytest.mark.parametrize(
    "sound, rate, message",
    [
        (np.zeros((3, 4, 5)), 16_000, r"\(3, 4, 5\)"),
        (np.zeros((48_000, 2)), 16_000, r"\(48000, 2\)"),
        (np.zeros((1, 0)), 16_000, r"\(1, 0\)"),
        (np.zeros(100, dtype=np.int32), 16_000, "int32"),
        (np.zeros(100, dtype=bool), 16_000, "bool"),
        (np.array([0.0, np.nan]), 16_000, "not finite"),
        (np.zeros(100), None, "sampling rate.*None"),
        (np.zeros(100), 0, "sampling rate.*0"),
        ([np.zeros(100)] * 2, [16_000], "2 waveforms, but 1 sampling rates"),
    ],
)
def test_wrong_waveforms(sound, rate, message):
    with pytest.raises(ValueError, match=message):
        MicroEmoFeatureExtractor()(sound, rate)


def test_wrong_padding():
    with pytest.raises(ValueError, match="'zeros'"):
        MicroEmoFeatureExtractor(short_audio_padding="zeros")


def test_pictures_that_do_not_hold_a_segment():
    with pytest.raises(ValueError, match="segment_duration=2.0 s has 198 mel frames, but num_mel_frames is 48"):
        MicroEmoFeatureExtractor(num_mel_frames=48)
    with pytest.raises(ValueError, match="segment_duration=0.52 s has 50 mel frames, but num_mel_frames is 49"):
        MicroEmoFeatureExtractor(num_mel_frames=49, segment_duration=0.52)


def test_short_segments_fill_their_pictures():
    sound = torch.randn(1, 24_000, generator=torch.Generator().manual_seed(0))
    extractor = MicroEmoFeatureExtractor(num_segments=2, segment_duration=0.5, num_mel_frames=48)
    output = extractor(sound, 16_000, return_tensors="pt")["input_features"]
    assert output.shape == (1, 2, 1, 128, 48)
    segments = torch.stack([sound[0, :8000], sound[0, 8000:16_000]])
    expected = (log_mel(segments - segments.mean(-1, keepdim=True), 128) + 4.268) / 9.138
    torch.testing.assert_close(output[0, :, 0], expected, atol=1e-5, rtol=0)


def test_round_trip(tmp_path):
    extractor = MicroEmoFeatureExtractor(short_audio_padding="mel", num_segments=5)
    extractor.save_pretrained(tmp_path)
    loaded = MicroEmoFeatureExtractor.from_pretrained(tmp_path)
    assert loaded.to_dict() == extractor.to_dict()
    sound = sine(440, 22_050, 1.0)
    assert (loaded(sound, 22_050)["input_features"] == extractor(sound, 22_050)["input_features"]).all()
