"""What never changes in training, computed once per clip: decoding, face mesh, mel, and the frozen towers' features.

microemo precompute train.jsonl --model microemo-7b --cache features --num-proc 4
microemo train stage2 --train_data train.jsonl --feature_cache features

A cache is a folder with `settings.json` (what made it) and a safetensors file for each clip, named by the content of its
files. A processor or tower of another make is refused, and so is a clip whose file has changed: it is not there.
"""

import copy
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tqdm.auto import tqdm

from ..evaluation.plain_files import write_text
from ..modeling_microemo.modeling_microemo import MicroEmoForConditionalGeneration
from ..processing.processing_microemo import ClipPrompt, MicroEmoProcessor
from ..processing.utterances import Utterance
from .collator import one_by_one
from .data import DataError, to_conversation

SETTINGS = "settings.json"
# Switches of the processor that change its tensors; those of the prompt may change under a cache.
MEDIA_SWITCHES = (
    *("windows", "window_size", "window_stride", "window_unit", "use_global_window"),
    *("use_frame_timestamps", "timestamp_format", "max_utterances"),
)
# What the towers' features stand in for.
PIXELS = {"pixel_values_videos": "vision_features", "pixel_values_faces": "face_features"}
SOUND = {"input_features": "audio_features"}


class StaleCacheError(ValueError):
    """A cache that another processor or other towers made, or that lacks a clip."""


class FeatureCache:
    """A folder of features, and the processor that reads them in place of the clips.

    Args:
        folder (`str` or `Path`): Made where it is not there.
        processor ([`MicroEmoProcessor`]): Of the model.
        model ([`MicroEmoForConditionalGeneration`]): Whose frozen towers make the features.

    Raises:
        StaleCacheError: if the folder was made with other settings, naming those that differ.

    Example:

    ```python
    >>> cache = FeatureCache("features", processor, model)
    >>> cache.add(rows, model)
    >>> collator = MicroEmoCollator(cache.reader())
    ```"""

    def __init__(self, folder, processor: MicroEmoProcessor, model: MicroEmoForConditionalGeneration):
        self.folder = Path(folder)
        self.processor = processor
        self.settings = cache_settings(processor, model)
        file = self.folder / SETTINGS
        if file.is_file():
            made_with = json.loads(file.read_text(encoding="utf-8"))
            different = [
                f"{name} was {made_with.get(name)!r}, is {self.settings.get(name)!r}"
                for name in sorted({*made_with, *self.settings})
                if made_with.get(name) != self.settings.get(name)
            ]
            if different:
                raise StaleCacheError(f"{self.folder} is stale: {'; '.join(different)}. Name another folder")
        else:
            write_text(file, json.dumps(self.settings, indent=2, sort_keys=True) + "\n")
        self._keys: dict = {}

    # --- writing ---------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def add(
        self,
        rows: Iterable[dict],
        model: MicroEmoForConditionalGeneration,
        num_workers: int = 0,
        progress: bool = True,
    ) -> dict[int, str]:
        """Compute what is not there yet.

        Args:
            rows: Of a data set, see `training/data.py`.
            model: The one the cache was opened with, on the device that is to do the work.
            num_workers (`int`): Processes that decode; the towers run in this one.
            progress (`bool`): Show a bar.

        Returns:
            `dict[int, str]`: What went wrong, by the row's number. A clip is on the disk before the next one starts,
            so that a run that was killed goes on where it was.
        """
        rows, failed = list(rows), {}
        waiting, seen = [], set()
        for number, row in enumerate(rows):
            try:
                key = self._key(self._given(row))
            except (ValueError, OSError) as error:
                failed[number] = str(error)
                continue
            if key not in seen and not self._file(key).is_file():
                waiting.append((number, row, key))
            seen.add(key)
        bar = tqdm(total=len(seen), initial=len(seen) - len(waiting), desc="Features", disable=not progress)
        loader = one_by_one(waiting, _Encode(self.processor), num_workers)
        with bar:
            for number, key, features, prompt, error in loader:
                if error is None:
                    self._write(key, self._through_towers(features, model), prompt)
                else:
                    failed[number] = error
                bar.update()
        return failed

    def _through_towers(self, features: dict[str, np.ndarray], model) -> dict[str, torch.Tensor]:
        tensors = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in features.items()}
        vision_model = model.model.visual_encoder.vision_model
        audio_tower = model.model.audio_branch.audio_tower
        has_face = tensors["region_masks"][0].flatten(1).any(dim=1) if "region_masks" in tensors else None
        for pixels, name in PIXELS.items():
            if pixels not in tensors:
                continue
            frames = tensors.pop(pixels)[0].to(vision_model.device)
            # The model itself passes over crops without a face.
            real = has_face if name == "face_features" else torch.ones(len(frames), dtype=torch.bool)
            shape = (len(frames), 1 + model.config.vision_config.num_patches, model.config.vision_config.hidden_size)
            output = torch.zeros(shape, dtype=vision_model.dtype)
            if real.any():
                output[real] = vision_model(frames[real.to(frames.device)]).last_hidden_state.to("cpu", output.dtype)
            tensors[name] = output[None]
        if "input_features" in tensors:
            clips = tensors.pop("input_features")[0].to(audio_tower.device)
            tensors["audio_features"] = audio_tower(clips).pooler_output[None].cpu()
        return tensors

    def _write(self, key: str, tensors: dict[str, torch.Tensor], prompt: ClipPrompt) -> None:
        about = {**asdict(prompt), "spans": prompt.spans.tolist()}
        file = self._file(key)
        part = file.with_suffix(f".{os.getpid()}.part")
        try:
            save_file({k: v.contiguous() for k, v in tensors.items()}, part, metadata={"prompt": json.dumps(about)})
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)

    # --- reading ---------------------------------------------------------------------------------------------------

    def reader(self) -> MicroEmoProcessor:
        """The processor, only that clips come from this cache: prompts, templates and batches are its own."""
        processor = copy.copy(self.processor)
        processor._encode_clips = self._encode_clips
        return processor

    def _encode_clips(self, clips, asr, video_kwargs) -> tuple[dict, list[ClipPrompt], dict]:
        """As [`MicroEmoProcessor._encode_clips`], with features of the towers for pixels and mels."""
        if video_kwargs:
            raise ValueError(f"a feature cache has its own {', '.join(sorted(video_kwargs))}")
        read = [self._read(clip) for clip in clips]
        features = pad_together([features for features, _ in read])
        return features, [prompt for _, prompt in read], {}

    def _read(self, clip) -> tuple[dict[str, torch.Tensor], ClipPrompt]:
        file = self._file(self._key(clip))
        if not file.is_file():
            raise StaleCacheError(
                f"{_name(clip)} is not in {self.folder}: it is new, or its file or utterances have changed. "
                "Run microemo precompute again"
            )
        with safe_open(file, framework="pt") as content:
            features = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 (no mapping)
            about = json.loads(content.metadata()["prompt"])
        about["utterances"] = [Utterance(**said) for said in about["utterances"]]
        about["spans"] = np.array(about["spans"], dtype=float).reshape(-1, 2)
        return features, ClipPrompt(**{**about, "cited": []})

    # --- keys ------------------------------------------------------------------------------------------------------

    def _given(self, row: dict):
        return self.processor._read_conversation(to_conversation(row), with_media=True)[0]

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"

    def _key(self, clip) -> str:
        """Of the content of a clip's files: their names and places do not count."""
        parts = [self._digest(clip.video), self._digest(clip.audio), self._digest(clip.utterances)]
        if clip.landmarks is not None or clip.video_metadata is not None:
            raise ValueError(f"{_name(clip)}: a feature cache holds clips from files, without landmarks of their own")
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]

    def _digest(self, source) -> str | None:
        if source is None or source is False:
            return None if source is None else "muted"
        if isinstance(source, list):
            said = [asdict(entry) if isinstance(entry, Utterance) else entry for entry in source]
            return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
        if isinstance(source, bytes):
            return hashlib.sha256(source).hexdigest()
        path = Path(source)
        if not path.is_file():
            raise FileNotFoundError(f"{source}: no such file; a feature cache holds clips from files")
        # A file is read once in a run, unless it is touched.
        stat = path.stat()
        known = (str(path), stat.st_size, stat.st_mtime_ns)
        if known not in self._keys:
            digest = hashlib.sha256()
            with open(path, "rb") as file:
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
            self._keys[known] = digest.hexdigest()
        return self._keys[known]


class _Encode:
    """A collator for one waiting row that runs the processor on its clip, in whatever process."""

    def __init__(self, processor: MicroEmoProcessor):
        self.processor = processor

    def __call__(self, waiting):
        ((number, row, key),) = waiting
        try:
            clip, _ = self.processor._read_conversation(to_conversation(row), with_media=True)
            features, prompts, _ = self.processor._encode_clips([clip], None, {})
        except (ValueError, OSError) as error:
            return number, key, None, None, str(error)
        return number, key, features, prompts[0], None


def cache_settings(processor: MicroEmoProcessor, model: MicroEmoForConditionalGeneration) -> dict:
    """All that the content of a cache depends on, as JSON: switches as they are, weights and vocabulary by hash."""
    parts = {
        "video_processor": processor.video_processor.to_dict(),
        "feature_extractor": processor.feature_extractor.to_dict(),
    }
    settings = {name: getattr(processor, name) for name in MEDIA_SWITCHES}
    for part, fields in parts.items():
        settings |= {f"{part}.{name}": value for name, value in fields.items()}
    vocabulary = sorted(processor.qformer_tokenizer.get_vocab().items())
    settings["qformer_tokenizer"] = hashlib.sha256(json.dumps(vocabulary).encode()).hexdigest()
    for name, tower in (
        ("vision_model", model.model.visual_encoder.vision_model),
        ("audio_tower", model.model.audio_branch.audio_tower),
    ):
        settings[name] = _hash_weights(tower)
    return json.loads(json.dumps(settings, default=str))


def _hash_weights(module: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, weight in sorted(module.state_dict().items()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def pad_together(clips: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Features of single clips `(1, ...)` as those of a batch `(B, ...)`.

    Each is padded to the longest of the batch: windows by -1, all else by 0; a clip without pictures or without sound
    has 0 there, and False in its masks.
    """
    batch = {}
    for name in dict.fromkeys(name for clip in clips for name in clip):
        given = [clip.get(name) for clip in clips]
        known = [value for value in given if value is not None]
        shape = [max(sizes) for sizes in zip(*(value.shape[1:] for value in known), strict=True)]
        padded = known[0].new_full((len(clips), *shape), -1 if name.endswith("_windows") else 0)
        for row, value in enumerate(given):
            if value is not None:
                padded[(row, *map(slice, value.shape[1:]))] = value[0]
        batch[name] = padded
    return batch


def precompute(
    tables: Iterable[Iterable[dict]],
    folder,
    processor: MicroEmoProcessor,
    model: MicroEmoForConditionalGeneration,
    num_workers: int = 0,
    on_error: str = "fail",
    warn: Callable[[str], None] = print,
) -> FeatureCache:
    """Fill a cache with the clips of data sets.

    Args:
        on_error (`"fail"` or `"skip"`): Whether clips that fail are an error, told in one table when all are done.

    Raises:
        DataError: with a line for each clip that failed.
    """
    cache = FeatureCache(folder, processor, model)
    rows = [row for table in tables for row in table]
    failed = cache.add(rows, model.eval(), num_workers)
    if failed:
        lines = [f"{len(failed)} of {len(rows)} rows have no features:", f"{'row':>6} | what is wrong"]
        report = "\n".join(lines + [f"{number + 1:>6} | {problem}" for number, problem in failed.items()])
        if on_error == "fail" or len(failed) == len(rows):
            raise DataError(report)
        warn(report)
    return cache


def _name(clip) -> str:
    source = clip.video if clip.video is not None else clip.audio
    return str(source) if isinstance(source, (str, os.PathLike)) else "a clip"
