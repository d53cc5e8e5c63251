"""A long clip in stretches that are as long as the clips that models are trained on, each read as a clip of its own."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..processing.clip_reader import ClipInput, utterance_spans
from ..processing.decoding.sound_track import AudioTrack
from ..processing.frame_sampling import add_span_frames, uniform_indices
from ..processing.frame_views import resize
from ..processing.media import Clip, load_audio, shown_size
from ..processing.processing_microemo import MicroEmoProcessor
from ..processing.utterances import Utterance

try:
    from av.video.reformatter import VideoReformatter
except ImportError:
    VideoReformatter = None  # type: ignore[assignment, misc]

MOST_UTTERANCES, MOST_SECONDS = 12, 60.0  # of a stretch
_AROUND = 0.5  # seconds before the first and after the last utterance of a stretch


@dataclass
class Stretch:
    """A part of a clip with its utterances.

    Attributes:
        clip ([`ClipInput`]): What the processor reads, with utterances whose times count from the start of the stretch.
        start (`float`): The start of the stretch in seconds of the whole clip.
        first (`int`): The index of its first utterance among those of the whole clip.
    """

    clip: ClipInput
    start: float
    first: int


def in_stretches(
    clip: Any,
    utterances: Sequence[Utterance],
    processor: MicroEmoProcessor,
    audio: Any = None,
    audio_track: int | str | None = None,
) -> Iterator[Stretch]:
    """Divides a clip. A clip that is short enough, or has no utterances, is one stretch.

    Of a stretch only the frames that the model reads are decoded.

    Args:
        clip (`Any`): The file, as [`Clip`] takes it.
        utterances (`Sequence[Utterance]`): The utterances in order of time.
        processor ([`MicroEmoProcessor`]): The processor, whose numbers of frames count.
        audio (`Any`, *optional*): A sound file in place of the clip's own sound.
        audio_track (`int` or `str`, *optional*): The sound track that is read.

    Yields:
        [`Stretch`]: The stretches in order of time.
    """
    groups = group_utterances(utterances)
    if len(groups) < 2:
        yield Stretch(ClipInput(clip, audio, utterances=list(utterances), audio_track=audio_track), 0.0, 0)
        return
    with ExitStack() as files:
        opened = files.enter_context(Clip(clip, audio_track if audio is None else None))
        track = opened.load_audio() if audio is None else load_audio(audio, audio_track)
        first = 0
        for group in groups:
            start = max(0.0, group[0].start - _AROUND)
            end = max(one.end for one in group) + _AROUND
            shifted = [
                replace(one, start=one.start - start, end=one.end - start, words=_shift(one.words, start))
                for one in group
            ]
            sound = None if track is None else _cut(track, start, end)
            frames, times = _frames(opened, start, end, shifted, processor) if opened.info.has_video else (None, [])
            metadata = {"frame_times": times, "duration": end - start} if frames else None
            sampled = ClipInput(frames, sound if sound is not None else (False if frames else None))
            yield Stretch(replace(sampled, utterances=shifted, video_metadata=metadata), start, first)
            first += len(group)


def group_utterances(utterances: Sequence[Utterance]) -> list[list[Utterance]]:
    """Groups neighbouring utterances that fit into one stretch.

    Args:
        utterances (`Sequence[Utterance]`): The utterances in order of time.

    Returns:
        `list[list[Utterance]]`: The groups, of at most `MOST_UTTERANCES` in `MOST_SECONDS`. A longer utterance is alone.
    """
    groups: list[list[Utterance]] = []
    for one in utterances:
        fits = groups and len(groups[-1]) < MOST_UTTERANCES and one.end - groups[-1][0].start <= MOST_SECONDS
        if fits:
            groups[-1].append(one)
        else:
            groups.append([one])
    return groups


def _frames(
    opened: Clip, start: float, end: float, utterances: Sequence[Utterance], processor: MicroEmoProcessor
) -> tuple[list[np.ndarray], list[float]]:
    """The frames of a stretch, upright, that the processor would take of a clip of its own."""
    sampler, reformatter = processor.video_processor, VideoReformatter()

    def choose(times: np.ndarray) -> np.ndarray:
        inside = np.flatnonzero((times >= start) & (times < end))
        if not len(inside):
            return inside
        picked = uniform_indices(len(inside), min(sampler.num_frames, len(inside)))
        own_times = times[inside] - start
        return inside[add_span_frames(np.unique(picked), own_times, utterance_spans(utterances), sampler.max_frames)]

    def view(frame: Any) -> np.ndarray:
        return resize(reformatter, frame, *shown_size(frame, opened.info.pixel_aspect))

    _, times, frames = opened.read(choose, view)
    return frames, [time - start for time in times]


def _cut(track: AudioTrack, start: float, end: float) -> AudioTrack | None:
    samples = track.samples[:, round(start * track.rate) : round(end * track.rate)]
    return AudioTrack(samples, track.rate) if samples.shape[1] else None


def _shift(words: list[dict], start: float) -> list[dict]:
    return [word | {"start": word["start"] - start, "end": word["end"] - start} for word in words]
