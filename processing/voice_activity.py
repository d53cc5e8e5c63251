"""Voice activity: when somebody speaks in a sound, by rules on the signal alone.

Speech is louder than what surrounds it, has a pitch in a good part of its frames, and changes its spectrum all the time. Hum,
noise, wind, single tones and held chords lack at least one of the three. Notes that change quickly are known by the pitch that
each of them holds; music with much else in it may pass for speech.
"""

from itertools import pairwise

import numpy as np

RATE = 16000
"""The number of samples per second of the sound that [`find_speech`] takes."""
PAUSE = 0.4
"""The seconds of silence that end an utterance."""
LONGEST = 10.0
"""The seconds after which an utterance is cut at its quietest place."""

# Frames of 32 ms every 10 ms. Blocks of frames are computed one after the other: a long sound needs no more memory.
_WINDOW, _HOP, _BLOCK = 512, 160, 4096
_STEP = _HOP / RATE
_BAND = (100.0, 4000.0)  # hertz; also what a telephone lets through
_PITCH = (70.0, 400.0)  # hertz

# Decibels. Speech stands out from the quietest tenth of its surroundings by a third of their range, at least by 6 dB.
_LEAST_RISE, _SHARE_OF_RANGE, _WIDEST_RANGE, _HYSTERESIS = 6.0, 0.35, 50.0, 4.0
_SILENCE = -80.0  # of full scale: rounding and dither lie below it
_SURROUNDINGS = 5.0  # seconds to either side

# A piece of at most two seconds is speech if a seventh of its frames has a pitch and if its spectrum changes within 60 ms: 0.33
# in stationary noise, 0.2 to 0.36 in held chords, above 0.5 in each of the recordings that these were chosen with.
_PIECE, _PERIODICITY, _VOICED_SHARE, _LEAST_CHANGE, _CHANGE_LAG = 2.0, 0.6, 0.15, 0.42, 6
# Notes of an instrument hold their pitch in 0.4 to 0.64 of the frames and leave most bands empty. Of 366 pieces of speech none
# held it in more than 0.36, nor was the mean of the bands more than 1.6 decades below their sum.
_HELD_SHARE, _EMPTY_BANDS, _HELD_WITHIN = 0.38, -1.65, 0.006
_SHORTEST, _SHORT, _MARGIN = 0.1, 0.3, 0.08  # seconds


def find_speech(samples: np.ndarray) -> list[tuple[float, float]]:
    """Finds when somebody speaks.

    Args:
        samples (`np.ndarray` of shape `(n,)`): The sound, one channel with 16,000 samples per second.

    Returns:
        `list[tuple[float, float]]`: The start and end of each utterance in seconds, in order of time. Utterances are
        separated by pauses of at least 0.4 s, or where they would be longer than 10 s by a cut at their quietest place.
    """
    samples = np.nan_to_num(np.asarray(samples, np.float32), posinf=0.0, neginf=0.0)
    if len(samples) < _WINDOW:
        return []
    features = _frame_features(samples / max(1.0, float(np.abs(samples).max())))
    level = features[0]
    runs = _join(_loud_runs(level), PAUSE)
    pieces = [piece for run in runs for piece in _pieces(run) if _is_speech(*features, *piece)]
    spans = [part for run in _join(pieces, 2 * _STEP) for part in _cut(level, *run)]
    return _with_margins(
        [span for span in _merge_short(spans) if span[1] - span[0] >= _SHORTEST / _STEP], len(samples)
    )


def _frame_features(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns for each of T frames the level in decibels of full scale, the periodicity (0 to 1), the period in samples, and
    the decimal logarithm of the power of each of 16 bands, `(T, 16)`.
    """
    window = np.hanning(_WINDOW).astype(np.float32)
    padded = np.pad(samples, (_WINDOW // 2, _WINDOW))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP][: 1 + len(samples) // _HOP]
    frequencies = np.fft.rfftfreq(_WINDOW, 1 / RATE)
    edges = np.searchsorted(frequencies, np.geomspace(*_BAND, 17))
    # What a window alone would have, which sounds without a period do not reach.
    lags = np.array([0, *range(int(RATE / _PITCH[1]), int(RATE / _PITCH[0]) + 1)])
    own = np.fft.irfft(np.abs(np.fft.rfft(window, 2 * _WINDOW)) ** 2)[lags]
    parts = []
    for start in range(0, len(frames), _BLOCK):
        spectrum = np.abs(np.fft.rfft(frames[start : start + _BLOCK] * window, 2 * _WINDOW)) ** 2
        by_band = np.add.reduceat(spectrum[:, ::2], edges, axis=1)[:, :-1]  # the last goes on above the band
        auto = np.fft.irfft(spectrum)[:, lags] / own
        power = 2 * by_band.sum(1) / (_WINDOW * (window @ window))
        periodicity = auto[:, 1:].max(1) / (auto[:, 0] + 1e-12)
        parts.append((power, periodicity, lags[1:][auto[:, 1:].argmax(1)], by_band))
    power, periodicity, period, by_band = (np.concatenate(column) for column in zip(*parts, strict=True))
    # What lies 50 dB below the loudest band of the whole sound counts for nothing.
    least = by_band.max() * 1e-5 + 1e-12
    return 10 * np.log10(power + 1e-12), periodicity, period, np.log10(by_band + least)


def _loud_runs(level: np.ndarray) -> list[tuple[int, int]]:
    """Returns the runs of frames [start, end) that stand out from their surroundings, with hysteresis."""
    highest = np.percentile(level, 95)
    places = np.arange(0, len(level), round(1 / _STEP))
    reach = round(_SURROUNDINGS / _STEP)
    around = [np.percentile(level[max(0, at - reach) : at + reach], (10, 95)) for at in places]
    low, high = (np.interp(np.arange(len(level)), places, values) for values in np.transpose(around))
    spread = np.minimum(high - low, _WIDEST_RANGE)
    enter = high - spread + np.maximum(_LEAST_RISE, _SHARE_OF_RANGE * spread)
    enter = np.maximum(enter, max(highest - _WIDEST_RANGE, _SILENCE))
    is_on = level > enter - _HYSTERESIS
    edges = np.flatnonzero(np.diff(np.concatenate([[False], is_on, [False]])))
    return [(a, b) for a, b in edges.reshape(-1, 2).tolist() if (level[a:b] > enter[a:b]).any()]


def _join(runs: list[tuple[int, int]], pause: float) -> list[tuple[int, int]]:
    """Joins runs that are less than `pause` seconds apart."""
    joined: list[tuple[int, int]] = []
    for start, end in runs:
        if joined and start - joined[-1][1] < pause / _STEP:
            joined[-1] = joined[-1][0], end
        else:
            joined.append((start, end))
    return joined


def _pieces(run: tuple[int, int]) -> list[tuple[int, int]]:
    """Divides a run into equal pieces of at most two seconds."""
    count = -(-(run[1] - run[0]) // round(_PIECE / _STEP))
    return list(pairwise(np.linspace(*run, count + 1).round().astype(int).tolist()))


def _is_speech(
    level: np.ndarray, periodicity: np.ndarray, period: np.ndarray, bands: np.ndarray, start: int, end: int
) -> bool:
    """Tells whether the loud frames of a piece have the pitch and the changing spectrum of speech."""
    # Half a second at least is looked at: a short word has few frames.
    start, end = max(0, start - _CHANGE_LAG), end + _CHANGE_LAG
    is_loud = level[start:end] > np.percentile(level[start:end], 95) - 25
    shape = bands[start:end] - bands[start:end].mean(1, keepdims=True)
    change = np.abs(shape[_CHANGE_LAG:] - shape[:-_CHANGE_LAG]).mean(1)
    is_loud_twice = is_loud[_CHANGE_LAG:] & is_loud[:-_CHANGE_LAG]
    if not is_loud_twice.any():
        return False
    is_voiced = is_loud & (periodicity[start:end] > _PERIODICITY)
    if is_voiced.sum() < _VOICED_SHARE * is_loud.sum() or change[is_loud_twice].mean() < _LEAST_CHANGE:
        return False
    return not _is_music(period[start:end], bands[start:end], is_voiced)


def _is_music(period: np.ndarray, bands: np.ndarray, is_voiced: np.ndarray) -> bool:
    """Tells whether frames with a pitch hold it, as notes do, and have little beside their harmonics."""
    now, then = period[_CHANGE_LAG:], period[:-_CHANGE_LAG]
    both = is_voiced[_CHANGE_LAG:] & is_voiced[:-_CHANGE_LAG]
    if not both.any():
        return False
    held = (np.abs(now - then) <= np.maximum(_HELD_WITHIN * now, 0.5))[both].mean()
    voiced = bands[is_voiced]
    emptiness = (voiced.mean(1) - np.log10((10**voiced).mean(1))).mean()
    return bool(held > _HELD_SHARE and emptiness < _EMPTY_BANDS)


def _cut(level: np.ndarray, start: int, end: int) -> list[tuple[int, int]]:
    """Cuts an utterance that is too long at the quietest 0.15 s of its middle half, until no part is too long."""
    if (end - start) * _STEP <= LONGEST:
        return [(start, end)]
    quarter = (end - start) // 4
    smooth = np.convolve(level[start:end], np.ones(15) / 15, "same")
    at = start + quarter + int(smooth[quarter : end - start - quarter].argmin())
    return [*_cut(level, start, at), *_cut(level, at, end)]


def _merge_short(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Joins what is shorter than a word to the nearer neighbour within a second."""
    merged = list(spans)
    for number in range(len(spans) - 1, -1, -1):
        start, end = merged[number]
        if (end - start) * _STEP >= _SHORT:
            continue
        gaps = {}
        if number:
            gaps[number - 1] = start - merged[number - 1][1]
        if number + 1 < len(merged):
            gaps[number] = merged[number + 1][0] - end
        first = min(gaps, key=gaps.__getitem__, default=None)
        if first is None or gaps[first] * _STEP > 1:
            continue
        joined = merged[first][0], merged[first + 1][1]
        if (joined[1] - joined[0]) * _STEP <= LONGEST:
            merged[first : first + 2] = [joined]
    return merged


def _with_margins(spans: list[tuple[int, int]], count: int) -> list[tuple[float, float]]:
    """Returns seconds, with a margin into the pauses to either side for soft sounds."""
    if not spans:
        return []
    limits = [0.0, *((a[1] + b[0]) / 2 * _STEP for a, b in pairwise(spans)), count / RATE]
    return [
        (round(max(start * _STEP - _MARGIN, before), 3), round(min(end * _STEP + _MARGIN, after), 3))
        for (start, end), before, after in zip(spans, limits[:-1], limits[1:], strict=True)
    ]
