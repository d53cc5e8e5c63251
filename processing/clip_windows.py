"""Which frames and sound segments each window of a clip holds, and the timestamps of its frames (paper 3.2, 3.3)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from transformers import PreTrainedTokenizerBase

from .clip_reader import ClipContent, utterance_spans
from .utterances import frame_windows, segment_windows, sliding_windows

if TYPE_CHECKING:
    from .processing_microemo import MicroEmoProcessor


def place_windows(
    processor: "MicroEmoProcessor", contents: Sequence[ClipContent]
) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
    """Finds the frames and the sound segments of each window.

    Args:
        processor ([`MicroEmoProcessor`]): The processor whose switches say what a window is.
        contents (`Sequence[ClipContent]`): What the B clips hold.

    Returns:
        `tuple[dict, list[np.ndarray]]`: `utterance_windows` and, if a clip has sound, `audio_windows`, both of shape
        `(B, K, 2)`, and the start and end in seconds `(k, 2)` of each clip's windows of frames.

    Raises:
        ValueError: If a clip with frames has no window at all.
    """
    no_windows = np.zeros((0, 2), np.int64)
    frames, sound, spans, sound_spans = [], [], [], []
    for content in contents:
        video_metadata, windows = content.video_metadata, no_windows
        of_clip = utterance_spans(content.utterances if processor.windows == "utterance" else [])
        if video_metadata is not None and processor.windows == "sliding":
            windows, of_clip = sliding_windows(
                video_metadata.frame_times,
                processor.window_size,
                processor.window_stride,
                processor.window_unit,
                video_metadata.duration,
            )
        elif video_metadata is not None:
            windows = frame_windows(video_metadata.frame_times, of_clip)
        if video_metadata is not None and not processor.use_global_window and not len(windows):
            raise ValueError(f"{video_metadata.source}: no utterances, and use_global_window=False: no window is left")
        frames.append(windows)
        spans.append(of_clip)
        # Without windows of its own the sound has the frames', which the model passes over.
        sound_spans.append(utterance_spans(content.utterances) if processor.use_utterance_audio else of_clip)
        times = content.segment_times
        sound.append(no_windows if times is None else segment_windows(times, sound_spans[-1]))
    features = {"utterance_windows": _pad(frames, spans)}
    if any(content.segment_times is not None for content in contents):
        features["audio_windows"] = _pad(sound, sound_spans)
    return features, spans


def as_joinable(processor: "MicroEmoProcessor", features: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Gives the features of a clip the names and shapes that those of all clips have, with padding that the model passes over.

    Transformers' pipelines process conversations one by one and join them. They refuse what lacks a name that others have,
    cannot pad what has no rows at all, and pad no features of sound with four dimensions.

    Args:
        processor ([`MicroEmoProcessor`]): The processor whose feature extractor knows the segments of sound.
        features (`dict[str, np.ndarray]`): The features of one clip; those of a text alone are returned as they are.

    Returns:
        `dict[str, np.ndarray]`: The features. A clip without sound has segments that are all masked, a clip without
        windows a padded one, and there are as many segments as there can be.
    """
    features = dict(features)
    extractor = processor.feature_extractor
    if "pixel_values_videos" in features and "input_features" not in features:
        features |= {**extractor([None]), "audio_windows": np.zeros((1, 0, 2), np.int64)}
    if "input_features" in features:
        missing = extractor.num_segments - features["input_features"].shape[1]
        for name, size in (
            ("input_features", 1),
            ("audio_segment_mask", 1),
            ("audio_step_mask", extractor.steps_per_segment),
        ):
            if name in features:
                padding = [(0, 0)] * (features[name].ndim - 2)
                features[name] = np.pad(features[name], [(0, 0), (0, missing * size), *padding])
    empty = {name: value for name, value in features.items() if name.endswith("_windows") and value.shape[1] == 0}
    return features | {name: np.full((len(value), 1, 2), -1, dtype=np.int64) for name, value in empty.items()}


def timestamp_tokens(
    sentences: Sequence[Sequence[str]], num_frames: int, tokenizer: PreTrainedTokenizerBase
) -> dict[str, np.ndarray]:
    """Tokenizes the sentences about the frames of a batch in one call.

    Args:
        sentences (`Sequence[Sequence[str]]`): The sentence about each frame, for each of B clips.
        num_frames (`int`): The number T of frames to which clips are padded.
        tokenizer (`PreTrainedTokenizerBase`): The tokenizer of the image Q-Former.

    Returns:
        `dict[str, np.ndarray]`: `qformer_input_ids` and `qformer_attention_mask` of shape `(B, T, L)`.
    """
    different = list(dict.fromkeys(sentence for of_clip in sentences for sentence in of_clip))
    # Whole multiples: whoever batches clips that were processed one by one finds them equally wide.
    tokens = tokenizer(
        different,
        padding=True,
        padding_side="right",
        pad_to_multiple_of=16,
        return_attention_mask=True,
        return_token_type_ids=False,
    )
    number = {sentence: index for index, sentence in enumerate(different)}
    features = {}
    for name, padding in (("input_ids", tokenizer.pad_token_id or 0), ("attention_mask", 0)):
        table = np.array(tokens[name], dtype=np.int64)
        values = np.full((len(sentences), num_frames, table.shape[1]), padding, dtype=np.int64)
        for row, of_clip in enumerate(sentences):
            values[row, : len(of_clip)] = table[[number[sentence] for sentence in of_clip]]
        features[f"qformer_{name}"] = values
    return features


def _pad(windows: list[np.ndarray], spans: list[np.ndarray]) -> np.ndarray:
    """Joins windows of each clip (k, 2) as one (B, K, 2), -1 where padded, and where a clip with spans lacks the medium."""
    padded = np.full((len(windows), max(map(len, spans), default=0), 2), -1, dtype=np.int64)
    for row, of_clip in enumerate(windows):
        padded[row, : len(of_clip)] = of_clip
    return padded
