"""The feature cache: decoding, face mesh, mel and the frozen towers' features are computed once for each clip.

microemo precompute train.jsonl --model microemo-7b --cache features --num-workers 4
microemo train stage2 --train_data train.jsonl --feature_cache features

A cache is a folder with `settings.json` (the settings that it depends on) and a safetensors file for each clip, named by
the content of the clip's files. A processor or tower with other settings is refused, and so is a clip whose file has changed,
since the cache does not hold it.

If the towers are trained, a cache without a model holds their inputs: pixels and log-mel segments. If the whole visual
encoder is frozen, a cache with `frame_tokens` holds its output, which is far smaller than the towers' features.
"""

import copy
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tqdm.auto import tqdm

from ..configuration.model_inputs import inputs_of
from ..modeling_microemo.modeling_microemo import MicroEmoForConditionalGeneration
from ..modeling_microemo.tower_features import PIXELS, tower_features
from ..processing.clip_metadata import ClipMetadata
from ..processing.clip_reader import ClipContent, ClipInput
from ..processing.frame_sampling import uniform_indices
from ..processing.processing_microemo import MicroEmoProcessor
from ..processing.prompt_microemo import PromptBuilder
from ..processing.utterances import Utterance
from ..utils.atomic_files import atomic_file, write_text
from .collator import one_by_one
from .data import to_conversation
from .data_checks import DataError

SETTINGS = "settings.json"
# The visual encoder's arguments, as the processor names them.
FRAME_INPUTS = {
    "pixel_values" if name == "pixel_values_videos" else name: name
    for name in inputs_of("video", axis="frame")
    if name not in ("frame_mask", "frame_tokens")
}
# The tensors of the cache with an entry for each frame.
FRAMES = set(inputs_of("video", axis="frame"))


class StaleCacheError(ValueError):
    """Signals a folder made with other settings.

    Such a folder is a cache of another processor or other towers, a cache that lacks a clip, or the stages of another
    recipe.
    """


def keep_settings(file: Path, settings: dict) -> None:
    """Writes the settings that the content of a folder depends on, or checks those that it was made with.

    Args:
        file (`Path`): The file of the settings in that folder.
        settings (`dict`): The settings, which must be JSON.

    Raises:
        StaleCacheError: if the folder was made with other settings. The message names those that differ.
    """
    if not file.is_file():
        write_text(file, json.dumps(settings, indent=2, sort_keys=True) + "\n")
        return
    made_with = json.loads(file.read_text(encoding="utf-8"))
    different = [
        f"{name} was {made_with.get(name)!r}, is {settings.get(name)!r}"
        for name in sorted({*made_with, *settings})
        if made_with.get(name) != settings.get(name)
    ]
    if different:
        raise StaleCacheError(f"{file.parent} is stale: {'; '.join(different)}. Name another folder")


class FeatureCache:
    """A folder of features that takes the place of a processor's clip reader.

    Args:
        folder (`str` or `Path`): The folder. It is made if it does not exist.
        processor ([`MicroEmoProcessor`]):
            The processor of the model, or the reader of another cache, whose clips this cache takes.
        model ([`MicroEmoForConditionalGeneration`], *optional*):
            The model whose frozen towers compute the features. Without it the cache holds pixels (in eight bits) and
            log-mel segments.
        frame_tokens (`bool`, *optional*):
            Whether to hold the frame tokens, the output of the model's whole visual encoder, timestamps and clue
            regions included, in place of the towers' features. By default an existing folder keeps its setting, and a
            new one holds features.

    Raises:
        StaleCacheError: if the folder was made with other settings. The message names those that differ.
        ValueError: if `frame_tokens` is set without a model.

    Example:

    ```python
    >>> cache = FeatureCache("features", processor, model)
    >>> cache.add(rows, model)
    >>> processor.clip_reader = cache
    >>> collator = MicroEmoCollator(processor)
    ```"""

    def __init__(
        self,
        folder: str | Path,
        processor: MicroEmoProcessor,
        model: MicroEmoForConditionalGeneration | None = None,
        frame_tokens: bool | None = None,
    ):
        self.folder = Path(folder)
        self.processor = copy.copy(processor)  # its own clip reader may become this cache
        file = self.folder / SETTINGS
        made_with = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
        self.frame_tokens = "visual_encoder" in (made_with or {}) if frame_tokens is None else frame_tokens
        self.settings = cache_settings(processor, model, self.frame_tokens)
        keep_settings(file, self.settings)
        self._keys: dict = {}

    # --- writing ---------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def add(
        self,
        rows: Iterable[dict],
        model: MicroEmoForConditionalGeneration | None = None,
        num_workers: int = 0,
        progress: bool = True,
    ) -> dict[int, str]:
        """Computes the features of the clips that are not in the cache.

        A clip is on the disk before the next one starts, so that a run that was killed resumes there.

        Args:
            rows (`Iterable[dict]`): Rows of a data set, see `training/data.py`.
            model ([`MicroEmoForConditionalGeneration`], *optional*):
                The model that the cache was opened with, on the device that computes the features.
            num_workers (`int`, *optional*, defaults to 0):
                The number of processes that decode. The towers run in this process.
            progress (`bool`, *optional*, defaults to `True`): Whether to show a progress bar.

        Returns:
            `dict[int, str]`: The error message of each row that failed, by its index.
        """
        rows, failed = list(rows), {}
        waiting, keys = [], set()
        for number, row in enumerate(rows):
            try:
                key = self._key(self._clip_input(row))
            except (ValueError, OSError) as error:
                failed[number] = str(error)
                continue
            if key not in keys and not self._file(key).is_file():
                waiting.append((number, row, key))
            keys.add(key)
        bar = tqdm(total=len(keys), initial=len(keys) - len(waiting), desc="Features", disable=not progress)
        loader = one_by_one(waiting, _Encode(self.processor, self.frame_tokens), num_workers)
        with bar:
            for number, key, features, about, problem in loader:
                if problem is None:
                    tensors = {name: torch.as_tensor(value) for name, value in features.items()}
                    tensors = self._as_bytes(tensors) if model is None else tower_features(model.model, tensors)
                    if model is not None and self.frame_tokens and "frame_mask" in tensors:
                        tensors = self._through_visual_encoder(tensors, model)
                    write_tensors(self._file(key), tensors, {"about": json.dumps(about)})
                else:
                    failed[number] = problem
                bar.update()
        return failed

    def _as_bytes(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Converts normalised pixels to their 256 levels."""
        scale, shift = self._scale_and_shift()
        for name in PIXELS.keys() & tensors.keys():
            tensors[name] = ((tensors[name] + shift) / scale).round().clamp(0, 255).to(torch.uint8)
        return tensors

    def _scale_and_shift(self) -> list[torch.Tensor]:
        values = self.processor.video_processor.scale_and_shift()
        return [torch.from_numpy(value)[:, None, None] for value in values]

    def _through_visual_encoder(
        self, tensors: dict[str, torch.Tensor], model: MicroEmoForConditionalGeneration
    ) -> dict[str, torch.Tensor]:
        visual_encoder = model.model.visual_encoder
        device = visual_encoder.vision_model.device
        frame_inputs = {name: tensors.pop(key)[0].to(device) for name, key in FRAME_INPUTS.items() if key in tensors}
        return tensors | {"frame_tokens": visual_encoder(**frame_inputs)[None].cpu()}

    # --- reading ---------------------------------------------------------------------------------------------------

    def reader(self) -> MicroEmoProcessor:
        """Returns a copy of the processor that reads its clips from this cache.

        The copy makes windows, timestamps, prompts and batches itself.

        Returns:
            [`MicroEmoProcessor`]: The copy.
        """
        processor = copy.copy(self.processor)
        processor.clip_reader = self  # type: ignore[assignment]  # it has the methods of a ClipReader
        return processor

    def read(
        self, clips: Sequence[ClipInput], asr: Any = None, video_kwargs: dict | None = None
    ) -> tuple[dict[str, torch.Tensor], list[ClipContent]]:
        """Reads clips as [`ClipReader.read`] does, with features of the towers in place of pixels and log-mel
        segments.

        Args:
            clips (`Sequence[ClipInput]`): The clips.
            asr (`Any`, *optional*): The speech recogniser, which is not used: the cache holds the utterances.
            video_kwargs (`dict`, *optional*): Arguments of the video processor, of which a cache takes none.

        Returns:
            `tuple[dict[str, torch.Tensor], list[ClipContent]]`: The features of the batch, and the content of each
            clip.

        Raises:
            StaleCacheError: if a clip is not in the cache, or was sampled for other windows.
            ValueError: if `video_kwargs` are given.
        """
        if video_kwargs:
            raise ValueError(f"a feature cache has its own {', '.join(sorted(video_kwargs))}")
        tensors, contents = [], []
        for clip in clips:
            features, about = self._read(clip)
            content = ClipContent(
                has_video=about["has_video"],
                has_audio=about["has_audio"],
                utterances=[Utterance(**utterance) for utterance in about["utterances"]],
                video_metadata=about["video"] and ClipMetadata(**about["video"], landmarks=None),
                segment_times=about["audio_segment_times"],
            )
            if content.video_metadata and about["frames_for"] != _frames_for(self.processor):
                self._keep_frames(clip, features, content.video_metadata, content.utterances)
            tensors.append(features)
            contents.append(content)
        return pad_together(tensors), contents

    def _keep_frames(
        self, clip: ClipInput, features: dict, video_metadata: ClipMetadata, utterances: list[Utterance]
    ) -> None:
        """Keeps the frames that this kind of windows samples, of a clip that was read for another kind."""
        sampler = self.processor.video_processor
        if _frames_for(self.processor) == "clip":  # the frames that were added for utterances are dropped
            sampled = uniform_indices(video_metadata.total_num_frames, sampler.num_frames)
            is_selected = np.isin(video_metadata.frames_indices, sampled)
            is_whole = np.isin(sampled, video_metadata.frames_indices).all()
        else:  # every utterance needs a frame
            spans = np.array([(utterance.start, utterance.end) for utterance in utterances]).reshape(-1, 2)
            first, end = np.searchsorted(video_metadata.frame_times, spans).T
            is_selected = np.ones(len(video_metadata.frame_times), bool)
            is_whole = (first < end).all()
        if sampler.fps or not is_whole:
            raise StaleCacheError(
                f"{_name(clip)}: {self.folder} was made with other windows, for which other frames are sampled. "
                "Name another folder"
            )
        for name in FRAMES & features.keys():
            features[name] = features[name][:, is_selected]
        for name in ("frame_times", "frames_indices", "faces_found"):
            setattr(
                video_metadata,
                name,
                [value for value, is_kept in zip(getattr(video_metadata, name), is_selected, strict=True) if is_kept],
            )

    def _read(self, clip: ClipInput) -> tuple[dict[str, torch.Tensor], dict]:
        file = self._file(self._key(clip))
        if not file.is_file():
            raise StaleCacheError(
                f"{_name(clip)} is not in {self.folder}: it is new, or its file or utterances have changed. "
                "Run microemo precompute again"
            )
        with safe_open(file, framework="pt") as content:
            features = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 (no mapping)
            about = json.loads(content.metadata()["about"])
        scale, shift = self._scale_and_shift()
        for name in PIXELS.keys() & features.keys():
            # Equal to the output of the video processor to the last bit.
            features[name] = features[name] * scale - shift
        return features, about

    # --- keys ------------------------------------------------------------------------------------------------------

    def _clip_input(self, row: dict) -> ClipInput:
        return _read_clip(self.processor, row)

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"

    def _key(self, clip: ClipInput) -> str:
        """Computes the key of a clip from the content of its files. Their names and folders do not count."""
        parts = [self._digest(clip.video), self._digest(clip.audio), self._digest(clip.utterances)]
        if clip.audio_track is not None:
            parts.append(clip.audio_track)
        if clip.landmarks is not None or clip.video_metadata is not None:
            raise ValueError(f"{_name(clip)}: a feature cache holds clips from files, without landmarks of their own")
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]

    def _digest(self, source: Any) -> str | None:
        if source is None or source is False:
            return None if source is None else "muted"
        if isinstance(source, list):
            entries = [asdict(entry) if isinstance(entry, Utterance) else entry for entry in source]
            return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()
        if isinstance(source, bytes):
            return hashlib.sha256(source).hexdigest()
        path = Path(source)
        if not path.is_file():
            raise FileNotFoundError(f"{source}: no such file; a feature cache holds clips from files")
        # A file is read once in a run, unless it is touched.
        stat = path.stat()
        version = (str(path), stat.st_size, stat.st_mtime_ns)
        if version not in self._keys:
            with open(path, "rb") as file:
                self._keys[version] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._keys[version]


def _frames_for(processor: MicroEmoProcessor) -> str:
    """Names what frames are sampled for: the clip, or utterances too, with an added frame for each utterance without one."""
    return "utterances" if processor.windows == "utterance" else "clip"


def _read_clip(processor: MicroEmoProcessor, row: dict) -> ClipInput:
    clip, _ = PromptBuilder(processor).read_conversation(to_conversation(row), with_media=True)
    if clip is None:
        raise ValueError("a row without video and audio has no features")
    return clip


class _Encode:
    """Runs the processor on the clip of one waiting row, in any process. It is a collator."""

    def __init__(self, processor: MicroEmoProcessor, with_timestamps: bool):
        self.processor, self.with_timestamps = processor, with_timestamps and processor.use_frame_timestamps

    def __call__(self, waiting: list[tuple[int, dict, str]]) -> tuple:
        ((number, row, key),) = waiting
        try:
            features, (content,) = self.processor.clip_reader.read([_read_clip(self.processor, row)])
        except (ValueError, OSError) as error:
            return number, key, None, None, str(error)
        video = content.video_metadata
        if self.with_timestamps and video is not None:
            features |= self.processor.read_timestamps([video], len(video.frame_times))
        about = {
            "has_video": content.has_video,
            "has_audio": content.has_audio,
            "utterances": [asdict(utterance) for utterance in content.utterances],
            "video": video and {k: _plain(v) for k, v in vars(video).items() if k not in ("landmarks", "blendshapes")},
            "audio_segment_times": _plain(content.segment_times),
            "frames_for": _frames_for(self.processor),
        }
        return number, key, features, about, None


def cache_settings(
    processor: MicroEmoProcessor, model: MicroEmoForConditionalGeneration | None, frame_tokens: bool = False
) -> dict:
    """Collects the settings that the content of a cache depends on, with a hash of the weights.

    Windows, the prompt and, without frame tokens, the timestamps are not among them: they are made when the cache is
    read.

    Args:
        processor ([`MicroEmoProcessor`]): The processor.
        model ([`MicroEmoForConditionalGeneration`] or `None`): The model whose towers compute the features.
        frame_tokens (`bool`, *optional*, defaults to `False`): Whether the cache holds frame tokens.

    Returns:
        `dict`: The settings, as JSON.

    Raises:
        ValueError: if `frame_tokens` is set without a model.
    """
    if frame_tokens and model is None:
        raise ValueError("frame_tokens are a model's: give the cache the model")
    parts = {
        "video_processor": processor.video_processor.to_dict(),
        "feature_extractor": processor.feature_extractor.to_dict(),
    }
    settings: dict[str, Any] = {"max_utterances": processor.max_utterances}
    for part, fields in parts.items():
        settings |= {f"{part}.{name}": value for name, value in fields.items()}
    if model is not None:
        settings["vision_model"] = _hash_weights(model.model.visual_encoder.vision_model)
        settings["audio_tower"] = _hash_weights(model.model.audio_branch.audio_tower)
        for name, default in (("vision_feature_layer", -1), ("audio_feature_layer", -1), ("audio_pool_size", 1)):
            if getattr(model.config, name) != default:  # a cache that was made before they existed stays valid
                settings[name] = getattr(model.config, name)
    if model is not None and frame_tokens:
        settings["visual_encoder"] = _hash_weights(model.model.visual_encoder)
        settings["timestamp_format"] = processor.timestamp_format if processor.use_frame_timestamps else None
        settings["keep_timestamp_tokens"] = model.config.keep_timestamp_tokens
    return json.loads(json.dumps(settings, default=str))


def _hash_weights(module: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, weight in sorted(module.state_dict().items()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def write_tensors(file: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Writes the file of a clip, in full or not at all.

    Args:
        file (`Path`): The file.
        tensors (`dict[str, torch.Tensor]`): The features.
        metadata (`dict[str, str]`): The metadata of the file.
    """
    with atomic_file(file) as part:
        save_file({name: value.contiguous() for name, value in tensors.items()}, part, metadata=metadata)


def pad_together(clips: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Pads the features of single clips to a batch.

    Each tensor is padded with 0 to the longest of the batch. A clip without frames or without sound has 0 there, and
    False in its masks.

    Args:
        clips (`list[dict[str, torch.Tensor]]`): The features of each clip, of shape `(1, ...)`.

    Returns:
        `dict[str, torch.Tensor]`: The features of the batch, of shape `(B, ...)`.
    """
    batch = {}
    for name in dict.fromkeys(name for clip in clips for name in clip):
        values = [clip.get(name) for clip in clips]
        present = [value for value in values if value is not None]
        shape = [max(sizes) for sizes in zip(*(value.shape[1:] for value in present), strict=True)]
        padded = present[0].new_zeros(len(clips), *shape)
        for row, value in enumerate(values):
            if value is not None:
                padded[(row, *map(slice, value.shape[1:]))] = value[0]
        batch[name] = padded
    return batch


def precompute(
    tables: Iterable[Iterable[dict]],
    folder: str | Path,
    processor: MicroEmoProcessor,
    model: MicroEmoForConditionalGeneration | None = None,
    num_workers: int = 0,
    on_error: str = "fail",
    warn: Callable[[str], None] = print,
    frame_tokens: bool | None = None,
) -> FeatureCache:
    """Fills a cache with the clips of data sets.

    Args:
        tables (`Iterable[Iterable[dict]]`): The rows of each data set.
        folder (`str` or `Path`): The folder of the cache.
        processor ([`MicroEmoProcessor`]): The processor, see [`FeatureCache`].
        model ([`MicroEmoForConditionalGeneration`], *optional*): The model, see [`FeatureCache`].
        num_workers (`int`, *optional*, defaults to 0): The number of processes that decode.
        on_error (`str`, *optional*, defaults to `"fail"`):
            Whether clips that fail raise an error when all clips are done (`"fail"`) or are reported by `warn`
            (`"skip"`).
        warn (`Callable[[str], None]`, *optional*, defaults to `print`):
            The function that reports clips that were skipped.
        frame_tokens (`bool`, *optional*): Whether the cache holds frame tokens, see [`FeatureCache`].

    Returns:
        [`FeatureCache`]: The cache.

    Raises:
        DataError: with a line for each clip that failed, if `on_error` is `"fail"` or all clips failed.
        StaleCacheError: if the folder was made with other settings.
    """
    cache = FeatureCache(folder, processor, model, frame_tokens)
    rows = [row for table in tables for row in table]
    failed = cache.add(rows, model and model.eval(), num_workers)
    if failed:
        lines = [f"{len(failed)} of {len(rows)} rows have no features:", f"{'row':>6} | what is wrong"]
        report = "\n".join(lines + [f"{number + 1:>6} | {problem}" for number, problem in failed.items()])
        if on_error == "fail" or len(failed) == len(rows):
            raise DataError(report)
        warn(report)
    return cache


def _plain(value: Any) -> Any:
    """Converts arrays to lists, for JSON."""
    return value.tolist() if hasattr(value, "tolist") else value


def _name(clip: ClipInput) -> str:
    source = clip.video if clip.video is not None else clip.audio
    return str(source) if isinstance(source, (str, os.PathLike)) else "a clip"
