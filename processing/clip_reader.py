"""The reader of clips: it turns files into frames, clue regions, mel segments and utterances."""

import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .clip_metadata import ClipMetadata
from .decoded_clip import is_frames, open_clip
from .feature_extraction_microemo import as_samples, is_waveform
from .frame_files import as_frame_files
from .media import AudioTrack, Clip, load_audio
from .speech import SpeechReader, as_speech_reader
from .utterances import Utterance, merge_utterances, read_utterances

if TYPE_CHECKING:
    from .processing_microemo import MicroEmoProcessor


@dataclass
class ClipInput:
    """Holds what the user passes for one row of a batch.

    Attributes:
        video (`Any`, *optional*): A clip as [`MicroEmoVideoProcessor`] takes it.
        audio (`Any`, *optional*):
            Sound in place of the video's own; `None` stands for the video's own sound, `False` for no sound.
        sampling_rate (`int`, *optional*): The number of samples per second of a waveform in `audio`.
        utterances (`Any`, *optional*): Subtitles as [`read_utterances`] takes them.
        landmarks (`Any`, *optional*): Precomputed landmarks as [`MicroEmoVideoProcessor`] takes them.
        video_metadata (`Any`, *optional*): The times of decoded frames as [`MicroEmoVideoProcessor`] takes them.
        audio_track (`int` or `str`, *optional*):
            The sound track of the file that is read, as [`load_audio`] takes it; `None` stands for the best one.
    """

    video: Any = None
    audio: Any = None
    sampling_rate: int | None = None
    utterances: Any = None
    landmarks: Any = None
    video_metadata: Any = None
    audio_track: Any = None

    @property
    def has_media(self) -> bool:
        """Whether there is a video or a sound at all."""
        return self.video is not None or (self.audio is not None and self.audio is not False)


@dataclass
class ClipContent:
    """Holds what a reader finds in one clip besides its arrays.

    Attributes:
        has_video (`bool`, *optional*, defaults to `False`): Whether there are frames.
        has_audio (`bool`, *optional*, defaults to `False`): Whether there is sound.
        utterances (`list[Utterance]`): The utterances in order of time, at most `max_utterances` of the processor.
        video_metadata ([`ClipMetadata`], *optional*): The metadata of the sampled frames; `None` without frames.
        segment_times (`np.ndarray` of shape `(C, 2)`, *optional*):
            The start and end of each segment of sound in seconds; `None` without sound.
    """

    has_video: bool = False
    has_audio: bool = False
    utterances: list[Utterance] = field(default_factory=list)
    video_metadata: ClipMetadata | None = None
    segment_times: np.ndarray | None = None


class ClipReader:
    """Reads clips from files, which takes nearly all of the processor's time, before windows and prompts are made.

    A processor reads its clips with such an object. [`FeatureCache`] is another one that reads precomputed features.

    Args:
        processor ([`MicroEmoProcessor`]): The processor whose video processor and feature extractor are used.
        speech ([`SpeechReader`], *optional*):
            What makes the utterances of clips with sound and without any. By default such clips have none.
    """

    def __init__(self, processor: "MicroEmoProcessor", speech: SpeechReader | None = None) -> None:
        self.processor = processor
        self.speech = speech

    def read(
        self, clips: Sequence[ClipInput], asr: Any = None, video_kwargs: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], list[ClipContent]]:
        """Reads clips.

        Args:
            clips (`Sequence[ClipInput]`): The B clips.
            asr (`SpeechReader`, `Callable` or `str`, *optional*):
                What makes the utterances of clips with sound and without any, as [`MicroEmoProcessor`] takes it. By default
                `speech`; `False` makes none.
            video_kwargs (`dict`, *optional*): The keyword arguments of the video processor.

        Returns:
            `tuple[dict, list[ClipContent]]`: The arrays `(B, ...)` of the video processor and of the feature extractor,
            those of a modality only if some clip has it, and what each clip holds besides.

        Raises:
            MediaError: If a file cannot be used.
            ValueError: If subtitles or waveforms cannot be used.
        """
        contents: list[ClipContent] = []
        sources: list[Any] = []
        tracks: list[AudioTrack | None] = []
        with ExitStack() as files:
            for clip in clips:
                source, info, duration = as_frame_files(clip.video), None, None
                if source is not None and not is_frames(source):
                    # A sound of its own is heard in place of the clip's: the choice of a track is among its tracks.
                    source = files.enter_context(Clip(source, clip.audio_track if clip.audio is None else None))
                    info = source.info
                elif clip.video_metadata is not None:
                    duration = dict(clip.video_metadata).get("duration")
                track = _load_sound(clip, source if info is not None else None)
                has_video = source is not None
                if info is not None:
                    duration, has_video = info.duration, info.has_video
                if source is None and track is not None:
                    duration = track.samples.shape[1] / track.rate
                utterances = self._find_utterances(clip, track, duration, self.speech if asr is None else asr)
                contents.append(ClipContent(has_video, track is not None, utterances))
                sources.append(source)
                tracks.append(track)
            features = self._process_videos(clips, sources, contents, video_kwargs or {})
        return features | self._process_audio(tracks, contents), contents

    def _find_utterances(
        self, clip: ClipInput, track: AudioTrack | None, duration: float | None, asr: Any
    ) -> list[Utterance]:
        utterances: list[Utterance] = []
        if clip.utterances is not None:
            utterances = read_utterances(clip.utterances, duration)
        elif asr and clip.audio is not False:
            utterances = as_speech_reader(asr).read(track, duration, _sound_file(clip), clip.audio_track)
        most = self.processor.max_utterances
        if len(utterances) > most:
            warnings.warn(
                f"{len(utterances)} utterances, but max_utterances is {most}: short neighbours were merged",
                stacklevel=5,
            )
        return merge_utterances(utterances, most)

    def _process_videos(
        self, clips: Sequence[ClipInput], sources: list, contents: list[ClipContent], video_kwargs: dict
    ) -> dict[str, np.ndarray]:
        """Computes frames and clue regions of the clips that have frames, and adds their metadata to `contents`."""
        rows = [row for row, content in enumerate(contents) if content.has_video]
        if not rows:
            return {}
        by_utterance = self.processor.windows == "utterance"
        output = self.processor.video_processor(
            [sources[row] for row in rows],
            spans=[utterance_spans(contents[row].utterances if by_utterance else []) for row in rows],
            landmarks=[clips[row].landmarks for row in rows],
            video_metadata=[clips[row].video_metadata for row in rows],
            return_metadata=True,
            return_tensors="np",
            **video_kwargs,
        )
        for row, video_metadata in zip(rows, output.pop("video_metadata"), strict=True):
            contents[row].video_metadata = video_metadata
        return {name: _scatter(value, rows, len(clips)) for name, value in output.items()}

    def _process_audio(self, tracks: list[AudioTrack | None], contents: list[ClipContent]) -> dict[str, np.ndarray]:
        """Computes mel segments of the clips that have sound, and adds their times to `contents`."""
        if all(track is None for track in tracks):
            return {}
        extractor = self.processor.feature_extractor
        for track, content in zip(tracks, contents, strict=True):
            if track is not None:
                content.segment_times = extractor.segment_times(track.samples.shape[1], track.rate)
        return dict(
            extractor(
                [None if track is None else track.samples for track in tracks],
                sampling_rate=[None if track is None else track.rate for track in tracks],
            )
        )


def as_clip_inputs(
    videos: Any,
    audio: Any,
    utterances: Any,
    landmarks: Any,
    video_metadata: Any,
    sampling_rate: int | None,
    texts: Sequence[str] | None,
    audio_track: Any,
) -> list[ClipInput]:
    """Makes the rows of a batch out of the arguments of a call, each of which is for one clip, or a list.

    Args:
        videos (`Any`): One clip or a list of clips, see [`ClipInput`] for this and the other arguments.
        audio (`Any`): The sound of the clip or of each clip.
        utterances (`Any`): The subtitles of the clip or of each clip.
        landmarks (`Any`): The landmarks of the clip or of each clip.
        video_metadata (`Any`): The times of decoded frames of the clip or of each clip.
        sampling_rate (`int` or `None`): The sampling rate of all waveforms.
        texts (`Sequence[str]` or `None`): The texts; they count the rows if there is no clip at all.
        audio_track (`int`, `str`, a list of them or `None`): The sound track of all clips or of each clip.

    Returns:
        `list[ClipInput]`: One row for each clip.

    Raises:
        ValueError: If there is nothing to process, or if the lists differ in length.
    """
    belongings = {"utterances": utterances, "landmarks": landmarks, "video_metadata": video_metadata}
    belongings["audio_track"] = audio_track
    if videos is None and (audio is None or audio is False):
        if texts is None:
            raise ValueError("nothing to process: pass text, videos or audio")
        for name, value in belongings.items():
            if value is not None:
                raise ValueError(f"{name} belong to a clip: pass videos or audio")
        return [ClipInput() for _ in texts]
    clips = audio if videos is None else videos
    if not isinstance(clips, (list, tuple)) or is_frames(clips) or is_waveform(clips):
        return [ClipInput(videos, audio, sampling_rate, **belongings)]
    if isinstance(audio_track, (int, str)):
        belongings["audio_track"] = [None if clip is None else audio_track for clip in clips]

    columns = {"video": videos, "audio": audio, **belongings}
    for name, value in columns.items():
        if value is None or value is False:
            columns[name] = [value] * len(clips)
        elif not isinstance(value, (list, tuple)):
            raise ValueError(f"{len(clips)} clips, but {name} for one")
        elif len(value) != len(clips):
            raise ValueError(f"{len(clips)} clips, but {len(value)} {name}")
        elif name == "utterances" and any(isinstance(u, Utterance) or _has_times(u) for u in value):
            raise ValueError(f"utterances of a batch of {len(clips)} clips must be a list with a list for each clip")
    rows = zip(*columns.values(), strict=True)
    return [ClipInput(**dict(zip(columns, row, strict=True)), sampling_rate=sampling_rate) for row in rows]


def clip_duration(clip: ClipInput) -> float:
    """Finds the length of a clip.

    Args:
        clip ([`ClipInput`]): The clip, which has a video or a sound.

    Returns:
        `float`: The seconds of the video, or of the sound where there is none.

    Raises:
        MediaError: If the file cannot be used.
        ValueError: If a waveform cannot be used.
    """
    if clip.video is None and is_waveform(clip.audio):
        samples, rate = as_samples(clip.audio, clip.sampling_rate)
        return samples.shape[1] / rate
    with open_clip(clip.audio if clip.video is None else clip.video, clip.video_metadata) as opened:
        return opened.info.duration


def deduplicate(clips: Sequence[ClipInput]) -> tuple[list[ClipInput], list[int]]:
    """Removes the clips that are the very same as an earlier one.

    Files are compared by their path, everything else by identity. Rows without any media stay separate.

    Args:
        clips (`Sequence[ClipInput]`): The clips of all rows.

    Returns:
        `tuple[list[ClipInput], list[int]]`: The different clips, and for each row the index of its clip.
    """
    keys = [
        tuple(value if isinstance(value, (str, Path, int)) else id(value) for value in vars(clip).values())
        if clip.has_media
        else id(clip)
        for clip in clips
    ]
    first = {key: row for row, key in reversed(list(enumerate(keys)))}
    places = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    return [clips[first[key]] for key in places], [places[key] for key in keys]


def utterance_spans(utterances: Sequence[Utterance]) -> np.ndarray:
    """Returns the times of utterances as an array.

    Args:
        utterances (`Sequence[Utterance]`): K utterances.

    Returns:
        `np.ndarray` of shape `(K, 2)`: The start and end of each utterance in seconds.
    """
    return np.array([(utterance.start, utterance.end) for utterance in utterances]).reshape(-1, 2)


def _sound_file(clip: ClipInput) -> Path | None:
    """Returns the file that the sound of a clip comes from, if it is one."""
    source = clip.video if clip.audio is None else clip.audio
    return Path(source) if isinstance(source, (str, Path)) and "://" not in str(source) else None


def _load_sound(clip: ClipInput, opened: Clip | None) -> AudioTrack | None:
    """Returns the sound of a clip: its own if there is no other, or `None` if there is none."""
    if clip.audio is None and opened is not None:
        return opened.load_audio()
    in_memory = clip.audio is None or clip.audio is False or isinstance(clip.audio, AudioTrack)
    if clip.audio_track is not None and (in_memory or is_waveform(clip.audio)):
        raise ValueError(
            f"audio_track={clip.audio_track!r} chooses among the sound tracks of a file, but there is none"
        )
    if clip.audio is None or clip.audio is False:
        return None
    if isinstance(clip.audio, AudioTrack):
        return clip.audio
    if is_waveform(clip.audio):
        samples, rate = as_samples(clip.audio, clip.sampling_rate)
        return AudioTrack(samples.numpy(), rate)
    return load_audio(clip.audio, clip.audio_track)


def _scatter(values: np.ndarray, rows: list[int], count: int) -> np.ndarray:
    """Spreads the values of some rows of a batch over all `count` rows, with 0 elsewhere."""
    if len(rows) == count:
        return values
    scattered = np.zeros((count, *values.shape[1:]), dtype=values.dtype)
    scattered[rows] = values
    return scattered


def _has_times(entry: Any) -> bool:
    return isinstance(entry, dict) and ("start" in entry or "timestamp" in entry)
