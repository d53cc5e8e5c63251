"""The rows of a batch: which video, which sound and which subtitles belong to which text."""

import os
from collections.abc import Sequence
from typing import Any

from .clip_reader import ClipInput, as_clip_inputs, is_frames
from .frame_files import as_frame_files
from .prompt_microemo import AUDIO_TOKEN, VIDEO_TOKEN
from .utterances import Utterance


def lay_out(
    texts: Sequence[str] | None,
    videos: Any,
    audio: Any,
    belongings: dict[str, Any],
    sampling_rate: int | None = None,
    audio_from_video_indices: Sequence[int | None] | None = None,
    load_audio_from_video: bool = True,
) -> list[ClipInput]:
    """Makes the rows of a batch out of the arguments of a call.

    A row has at most one clip. Videos and sounds are given for each row, with `None` where there is none; or as
    Transformers gives them: nested, a list for each row, or in the order of the placeholders in the texts.

    Args:
        texts (`Sequence[str]` or `None`): The texts.
        videos (`Any`): One clip, a list of clips, or a list with a list for each row.
        audio (`Any`): The sound of the clip or of each clip, `None` for the clip's own, `False` for no sound.
        belongings (`dict[str, Any]`): The other arguments that belong to clips, of the clip or of each clip.
        sampling_rate (`int`, *optional*): The number of samples per second of all waveforms.
        audio_from_video_indices (`Sequence[int | None]`, *optional*):
            Where each sound comes from: the index of the video whose own sound it is, or `None` for an entry of `audio`.
            If `audio` has an entry for each index, the sound of a video is taken from there.
        load_audio_from_video (`bool`, *optional*, defaults to `True`): Whether the sound of videos is read.

    Returns:
        `list[ClipInput]`: One row for each text or clip.

    Raises:
        ValueError: If numbers or placeholders do not fit.
    """
    videos, audio = _flatten(videos), _flatten(audio)
    if audio_from_video_indices is not None:
        videos = videos if isinstance(videos, list) else [] if videos is None else [videos]
        of_videos, audio = _sound_of_videos(len(videos), audio, audio_from_video_indices, load_audio_from_video)
    else:
        of_videos = None
    in_order = _by_placeholders(texts, videos, audio, of_videos, belongings)
    if in_order is not None:
        videos, audio, belongings = in_order
    elif of_videos is not None:
        videos, audio = _rows_of_indices(videos, audio, of_videos, audio_from_video_indices or [])
    elif isinstance(audio, list) and len(audio) == 1 and videos is not None and not isinstance(videos, list):
        audio = audio[0]
    elif isinstance(videos, list) and len(videos) == 1 and audio is not None and not isinstance(audio, list):
        audio = [audio]

    clips = as_clip_inputs(
        videos=videos, audio=audio, sampling_rate=sampling_rate, texts=texts, **{"audio_track": None, **belongings}
    )
    if texts is not None and len(texts) != len(clips):
        raise ValueError(f"{len(texts)} texts, but {len(clips)} clips")
    return clips if load_audio_from_video else [mute_video(clip) for clip in clips]


def give_to_clips(clips: Sequence[ClipInput | None], belongings: dict[str, Any], is_batched: bool) -> None:
    """Gives what a call says of clips to the clips of its conversations.

    Args:
        clips (`Sequence[ClipInput | None]`): The clip of each conversation; they are changed in place.
        belongings (`dict[str, Any]`): What belongs to the clip, or a list with what belongs to each clip.
        is_batched (`bool`): Whether a list of conversations was given.

    Raises:
        ValueError: If a conversation without a clip is given something, or a clip something that it has already.
    """
    for name, value in belongings.items():
        values = [value]
        if name == "sampling_rate" or (name == "audio_track" and isinstance(value, (int, str))):
            values = [value if clip is not None and clip.has_media else None for clip in clips]
        elif is_batched:
            is_list = isinstance(value, (list, tuple)) and not any(
                isinstance(entry, Utterance) or (isinstance(entry, dict) and "start" in entry) for entry in value
            )
            if not is_list or len(value) != len(clips):
                raise ValueError(f"{name} of {len(clips)} conversations must be a list with those of each")
            values = value
        for clip, of_clip in zip(clips, values, strict=True):
            if of_clip is None:
                continue
            if clip is None or not clip.has_media:
                raise ValueError(f"{name} belong to a clip, but the conversation has none with a source")
            if getattr(clip, name) is not None:
                raise ValueError(f"{name} were given two times, in the conversation and by themselves")
            setattr(clip, name, of_clip)


def mute_video(clip: ClipInput) -> ClipInput:
    """Drops the own sound of a video; sound that was given for it stays.

    Args:
        clip (`ClipInput`): The clip; it is changed in place.

    Returns:
        `ClipInput`: The clip.
    """
    if clip.video is not None and clip.audio is None:
        clip.audio = False
    return clip


def _flatten(media: Any) -> Any:
    """Turns a list with a list for each row into a list with a clip for each row."""
    if not isinstance(media, (list, tuple)) or is_frames(media):
        return media
    rows = []
    for row in map(as_frame_files, media):
        if isinstance(row, (list, tuple)) and not is_frames(row):
            if any(is_frames(entry) or isinstance(entry, (dict, str, os.PathLike)) for entry in row[1:]):
                raise ValueError(f"a text has one clip, but {len(row)} were given for it")
            row = None if not row else row[0] if len(row) == 1 else row
        rows.append(row)
    return rows


def _sound_of_videos(
    num_videos: int, audio: Any, indices: Sequence[int | None], load_audio_from_video: bool
) -> tuple[list[Any], list[Any]]:
    """Sorts sounds into those of each video (`None` for its own, `False` for none) and those that stand alone."""
    sounds = audio if isinstance(audio, list) else [] if audio is None else [audio]
    alone = [index for index in indices if index is None]
    if len(sounds) not in (len(indices), len(alone)):
        raise ValueError(
            f"audio_from_video_indices has {len(indices)} entries, {len(alone)} of them for sounds that stand alone, "
            f"but {len(sounds)} sounds were passed"
        )
    wrong = [index for index in indices if index is not None and not 0 <= index < num_videos]
    if wrong:
        raise ValueError(f"audio_from_video_indices names video {wrong[0]}, but there are {num_videos} videos")
    remaining = iter(sounds)
    of_videos: list[Any] = [False] * num_videos
    for index in indices:
        sound = next(remaining) if index is None or len(sounds) == len(indices) else None
        if index is not None:
            of_videos[index] = sound if load_audio_from_video else False
    if len(sounds) == len(indices):
        sounds = [sound for sound, index in zip(sounds, indices, strict=True) if index is None]
    return of_videos, sounds


def _rows_of_indices(
    videos: list[Any], audio: list[Any], of_videos: list[Any], indices: Sequence[int | None]
) -> tuple[list[Any], list[Any]]:
    """Makes a row of each video and of each sound that stands alone, in the order of the indices."""
    alone = iter(audio)
    order = [*dict.fromkeys(index for index in indices if index is not None)]
    rest = [index for index in range(len(videos)) if index not in order]
    rows = [(None, next(alone)) if index is None else (videos[index], of_videos[index]) for index in indices]
    rows += [(videos[index], of_videos[index]) for index in rest]
    return [video for video, _ in rows], [sound for _, sound in rows]


def _by_placeholders(
    texts: Sequence[str] | None, videos: Any, audio: Any, of_videos: list[Any] | None, belongings: dict[str, Any]
) -> tuple[list[Any], list[Any], dict[str, Any]] | None:
    """Gives videos and sounds to the texts in whose order they stand; `None` where they stand in rows already."""
    if texts is None or not all(isinstance(text, str) for text in texts):
        return None
    with_video = [row for row, text in enumerate(texts) if VIDEO_TOKEN in text]
    with_audio = [row for row, text in enumerate(texts) if AUDIO_TOKEN in text]
    in_rows = all(
        media is None or media is False or len(media if isinstance(media, list) else [media]) == len(texts)
        for media in (videos, audio)
    )
    if not (with_video or with_audio) or (in_rows and of_videos is None):
        return None
    videos = videos if isinstance(videos, list) else [] if videos is None else [videos]
    sounds = audio if isinstance(audio, list) else [] if audio is None or audio is False else [audio]
    alone = with_audio if len(sounds) == len(with_audio) else [row for row in with_audio if row not in with_video]
    for token, medium, rows, given in (
        (VIDEO_TOKEN, "videos", with_video, videos),
        (AUDIO_TOKEN, "sounds", alone, sounds),
    ):
        if len(given) not in (len(rows), len(texts)):
            raise ValueError(
                f"the number of {token} tokens in the prompts should be the same as the number of {medium} passed: "
                f"{len(rows)} of {len(texts)} texts have {token}, but there are {len(given)} {medium}"
            )
    column = _scatter(videos, with_video, len(texts))
    sound_column = _scatter(of_videos if of_videos is not None else [], with_video, len(texts))
    if audio is False:
        sound_column = [False] * len(texts)
    for row, sound in zip(alone if len(sounds) != len(texts) else range(len(texts)), sounds, strict=True):
        sound_column[row] = sound
    spread = {
        name: _scatter(value, with_video, len(texts))
        if isinstance(value, (list, tuple)) and len(value) == len(with_video) != len(texts)
        else value
        for name, value in belongings.items()
    }
    return column, sound_column, spread


def _scatter(values: Sequence[Any], rows: Sequence[int], count: int) -> list[Any]:
    """Spreads values over some of `count` rows, with `None` in the others."""
    if len(values) == count:
        return list(values)
    column: list[Any] = [None] * count
    for row, value in zip(rows, values, strict=False):
        column[row] = value
    return column
