"""The choice of the frames of a clip: uniformly, by a rate, and one at least for each utterance."""

import warnings

import numpy as np


def uniform_indices(total: int, num_frames: int) -> np.ndarray:
    """Samples frames uniformly, by the rule of MicroEmo's sources.

    All frames are returned if there are fewer. Rounding inside `arange` gives one more now and then, as in the sources.

    Args:
        total (`int`): The number of frames of the clip.
        num_frames (`int`): The number of frames to sample.

    Returns:
        `np.ndarray`: The increasing indices of the sampled frames.
    """
    return np.minimum(np.arange(0, total, total / min(num_frames, total)).astype(int), total - 1)


def fps_indices(times: np.ndarray, duration: float, fps: float) -> np.ndarray:
    """Samples the frames that are shown at 0, 1/fps, 2/fps, ... seconds, each of them once.

    Args:
        times (`np.ndarray` of shape `(n,)`): The increasing times of all frames of the clip in seconds.
        duration (`float`): The length of the clip in seconds.
        fps (`float`): The number of frames to sample per second.

    Returns:
        `np.ndarray`: The increasing indices of the sampled frames.
    """
    # Frame by frame, not moment by moment: of these there are as many as the rate asks for.
    first = np.maximum(np.ceil((times - 1e-9) * fps), 0)  # the first moment from which on each frame is shown
    first[0] = 0
    end = np.ceil(max(duration, times[-1] + 1e-9) * fps)
    return np.flatnonzero(first < np.minimum(np.append(first[1:], end), end))


def add_span_frames(indices: np.ndarray, times: np.ndarray, spans: np.ndarray, max_frames: int) -> np.ndarray:
    """Adds the middle frame of every span in which no sampled frame lies.

    Args:
        indices (`np.ndarray`): The increasing indices of the sampled frames.
        times (`np.ndarray` of shape `(n,)`): The increasing times of all frames of the clip in seconds.
        spans (`np.ndarray` of shape `(K, 2)`): The start and end of each span in seconds.
        max_frames (`int`): The largest number of frames. Frames that no span needs are left out evenly above it.

    Returns:
        `np.ndarray`: The increasing indices, at most `max_frames`.
    """
    middles = spans.mean(1)
    inside = (times[indices] >= spans[:, :1]) & (times[indices] < spans[:, 1:])  # (K, sampled)
    has_frame = inside.any(1)
    added = _shown_at(times, middles[~has_frame])
    chosen = np.union1d(indices, added)
    if len(chosen) <= max_frames:
        return chosen
    # Every other span keeps one frame, the one next to its middle.
    distance = np.where(inside, np.abs(times[indices] - middles[:, None]), np.inf)
    needed = np.union1d(added, indices[distance[has_frame].argmin(1)])
    if len(needed) > max_frames:
        warnings.warn(
            f"{len(spans)} utterances need {len(needed)} frames, but max_frames is {max_frames}: some share a frame",
            stacklevel=2,
        )
        return needed[uniform_indices(len(needed), max_frames)[:max_frames]]
    spare, room = np.setdiff1d(indices, needed), max_frames - len(needed)
    return np.union1d(needed, spare[uniform_indices(len(spare), room)[:room]]) if room and len(spare) else needed


def _shown_at(times: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Returns the indices of the frames on the screen, the last ones whose times are not later (but for rounding)."""
    return np.maximum(np.searchsorted(times, seconds + 1e-9, "right") - 1, 0)
