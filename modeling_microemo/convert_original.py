"""From the originals' weight files to a MicroEmo checkpoint (paper 3.4, 4.1).

The sources are EVA-CLIP ViT-g/14, the Q-Former of InstructBLIP or BLIP-2, Video-LLaMA's video and audio branches,
ImageBind, a language model, and fine-tuned checkpoints of AffectGPT or TimeChat. What a file holds is read from its
keys and shapes, never from its name. A conversion is planned on shapes alone, and every problem is found before a byte
is written: each tensor of each file must be used or stand on `ignored_tensors`, each parameter of the model must be
filled or be new (`NEW`). Weights then stream from file to shard.
"""

import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig

from ..configuration.configuration_microemo import MicroEmoAudioConfig, MicroEmoConfig
from .modeling_microemo import MicroEmoForConditionalGeneration
from .original_files import ConversionError, WeightFile, open_sources
from .original_names import (
    FRAME_POSITIONS,
    FRAME_POSITIONS_KEY,
    IMAGE_QFORMER,
    INSTRUCTBLIP_LANGUAGE_MODEL,
    LANGUAGE_MODEL,
    LORA,
    NEW,
    NEW_WITHOUT_AUDIO,
    OTHER_TOWERS,
    PARTS,
    SEGMENT_POSITIONS,
    SEGMENT_POSITIONS_KEY,
    ignored_tensors,
    original_names,
    part_of,
)

# --- presets of sources --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SourcePreset:
    """How a family of original checkpoints was meant to run.

    Attributes:
        config (`dict`): Fields of [`MicroEmoConfig`].
        timestamp_format (`str`): The processor's field: the sentence that the image Q-Former reads.
        short_audio_padding (`str`): The feature extractor's field.
        num_frames (`int`, *optional*):
            The video processor's field. With `None` there are as many as there are frame positions.
        repeat_last_frame (`bool`): The video processor's field.
        needs_audio (`bool`): Whether there is no such model without its audio branch.
    """

    config: dict
    timestamp_format: str = "This frame is sampled at {:.1f}s."
    short_audio_padding: str = "waveform"
    num_frames: int | None = 8
    repeat_last_frame: bool = False
    needs_audio: bool = True


SOURCE_PRESETS = {
    "microemo": SourcePreset(config={"fusion_gate_init": 0.0}),
    "affectgpt": SourcePreset(
        config={"use_frame_timestamps": False, "use_local_clue_attention": False, "windows": "none"},
        repeat_last_frame=True,
    ),
    "timechat": SourcePreset(
        config={
            "use_local_clue_attention": False,
            "keep_timestamp_tokens": True,
            "windows": "sliding",
            "window_size": 32,
            "window_stride": 32,
            "window_unit": "frames",
            "use_global_window": False,
        },
        timestamp_format="timechat",
        short_audio_padding="mel",
        num_frames=None,
        needs_audio=False,
    ),
}


# --- the plan ------------------------------------------------------------------------------------------------------


def original_config(
    files: list[WeightFile],
    text_config: PreTrainedConfig,
    preset: str = "microemo",
    base: MicroEmoConfig | None = None,
    **overrides: Any,
) -> MicroEmoConfig:
    """Makes the configuration of a converted model.

    Args:
        files (`list[WeightFile]`): The sources. Their position tables give `max_frames` and `max_audio_segments`.
        text_config (`PreTrainedConfig`): The configuration of the language model.
        preset (`str`, *optional*, defaults to `"microemo"`): A name of `SOURCE_PRESETS`.
        base ([`MicroEmoConfig`], *optional*): The sizes, by default those of the paper.
        overrides (`Any`, *optional*): Fields of [`MicroEmoConfig`], over all else.

    Returns:
        [`MicroEmoConfig`]: The configuration.

    Raises:
        ConversionError: If there is no such preset.
    """
    if preset not in SOURCE_PRESETS:
        raise ConversionError(f"no preset of sources named {preset!r}; there are: {', '.join(SOURCE_PRESETS)}")
    fields = (base or MicroEmoConfig.from_preset("microemo-7b")).to_dict()
    fields["text_config"] = text_config.to_dict()
    for key in ("_name_or_path", "architectures", "dtype", "transformers_version"):  # of the sources' own
        fields.pop(key, None)
        fields["text_config"].pop(key, None)
    fields.pop("tie_word_embeddings")  # follows the language model
    tables = {"max_frames": FRAME_POSITIONS_KEY, "max_audio_segments": SEGMENT_POSITIONS_KEY}
    if fields["audio_config"]["model_type"] != MicroEmoAudioConfig.model_type:  # whose segments are others
        del tables["max_audio_segments"]
    for name, key in tables.items():
        holders = sorted((file for file in files if key in file.shapes), key=lambda file: file.is_fine_tuned)
        if holders:
            fields[name] = holders[-1].shapes[key][0]
    fields |= SOURCE_PRESETS[preset].config | overrides
    return MicroEmoConfig(**fields)


@dataclass
class Filling:
    """Where a tensor of the model comes from.

    Attributes:
        file (`WeightFile`): The source.
        keys (`tuple[str, ...]`): The keys of the source that fill it.
    """

    file: WeightFile
    keys: tuple[str, ...]


class Conversion:
    """A checked plan of which tensor of which file fills what.

    Args:
        files (`list[WeightFile]`): What [`open_sources`] returned.
        config ([`MicroEmoConfig`]): What [`original_config`] returned.
        old_vocab_size (`int`):
            The rows of the language model's own tables. The rest of `config.text_config.vocab_size` are new tokens,
            whose rows become the mean of the old ones.
        needs_audio (`bool`, *optional*, defaults to `True`):
            Whether there must be an audio branch. With `False` it may be missing and is new then.
        lora_alpha (`float`, *optional*):
            The alpha of LoRA weights. By default what the checkpoint's own configuration says, else 32, as TimeChat
            and AffectGPT were trained.

        towers (`Collection[str]`, *optional*, defaults to `()`):
            `"vision"` and `"audio"`, where another encoder than the paper's stands. Its weights are no part of the
            conversion, and what reads it at another width is new.

    Raises:
        ConversionError: If a tensor is neither used nor ignored, a parameter neither filled nor new, or a shape does
            not fit. The message names the tensors and both shapes.
    """

    def __init__(
        self,
        files: list[WeightFile],
        config: MicroEmoConfig,
        old_vocab_size: int,
        needs_audio: bool = True,
        lora_alpha: float | None = None,
        towers: Collection[str] = (),
    ):
        self.files, self.config, self.old_vocab_size = files, config, old_vocab_size
        with torch.device("meta"):
            self.model = MicroEmoForConditionalGeneration(config)
        tied = self.model.all_tied_weights_keys
        self.towers = [OTHER_TOWERS[option] for option in towers]
        shapes = {name: t.shape for name, t in self.model.state_dict().items() if name not in tied}
        places = tuple(place for place, _, _ in self.towers)
        self.given = {name: shape for name, shape in shapes.items() if name.startswith(places)}
        self.shapes = {name: shape for name, shape in shapes.items() if name not in self.given}
        self.llm_names = _language_model_names(config.text_config, self.model.state_dict())
        self.tied_keys = {self.llm_names.pop(name) for name in tied}
        self.new_parts: tuple[str, ...] = NEW
        audio = [name for name in self.shapes if name.startswith(NEW_WITHOUT_AUDIO)]
        if not needs_audio and not any(self._candidates(name) for name in audio):
            self.new_parts = NEW + NEW_WITHOUT_AUDIO

        self.fillings: dict[str, Filling] = {}
        self.new: list[str] = []
        self.superseded: dict[tuple[int, str], WeightFile] = {}
        problems = self._fill()
        used = {(id(f.file), key) for f in self.fillings.values() for key in f.keys}
        problems += self._sort_out_the_rest(used)
        self.used = {id(file): [key for key in file.shapes if (id(file), key) in used] for file in files}
        self.lora, lora_problems = self._plan_lora()
        problems += lora_problems
        self.lora_alpha = lora_alpha or self._recorded_lora_alpha() or 32
        if problems:
            shown = problems if len(problems) <= 12 else [*problems[:12], f"... and {len(problems) - 12} more"]
            raise ConversionError("the sources do not make a model:\n" + "\n".join(f"- {line}" for line in shown))

    # - what fills what

    def _candidates(self, name: str) -> list[Filling]:
        """What could fill a tensor; the file that counts most last."""
        found = []
        _, option = part_of(name)
        for keys in self._keys(name):
            files = [file for file in self.files if any(key in file.shapes for key in keys)]
            if keys[0].startswith(INSTRUCTBLIP_LANGUAGE_MODEL):  # wanted only where --llm names it
                files = [file for file in files if option in file.options]
            found += [Filling(file, keys) for file in files]
        return sorted(found, key=lambda filling: self._rank(filling.file, option))

    def _keys(self, name: str) -> list[tuple[str, ...]]:
        return original_names(name, self.llm_names)

    @staticmethod
    def _rank(file: WeightFile, option: str) -> int:
        """Fine-tuned checkpoints lie over all else, then comes the file that the part's own option names."""
        return 2 * file.is_fine_tuned + (option in file.options)

    def _fill(self) -> list[str]:
        problems: list[str] = []
        missing: dict[str, list[str]] = {}
        for name, shape in self.shapes.items():
            if name.startswith(self.new_parts) or self._reads_other_tower(name):
                self.new.append(name)
                continue
            part, option = part_of(name)
            candidates = self._candidates(name)
            if not candidates:
                missing.setdefault(part, []).append(name)
                continue
            chosen = candidates[-1]
            for other in candidates[:-1]:
                if other.file is not chosen.file:
                    self.superseded |= {(id(other.file), key): chosen.file for key in other.keys}
            if len(candidates) > 1 and self._rank(candidates[-2].file, option) == self._rank(chosen.file, option):
                problems.append(
                    f"{candidates[-2].file.name} and {chosen.file.name} both hold {chosen.keys[0]}; give one of them"
                )
            self.fillings[name] = chosen
            problems += self._check(name, shape, chosen)
        for part, names in missing.items():
            problems.append(self._describe_missing(part, names))
        return problems

    def _reads_other_tower(self, name: str) -> bool:
        return any(reader.fullmatch(name) for _, reader, _ in self.towers)

    def _check(self, name: str, shape: torch.Size, filling: Filling) -> list[str]:
        problems = []
        for key in filling.keys:
            expected = list(shape)
            if len(filling.keys) == 2:
                expected[0] //= 3
            if key not in filling.file.shapes:
                problems.append(f"{filling.file.name}: {key} is missing; {name} needs it, of shape {tuple(expected)}")
                continue
            actual = list(filling.file.shapes[key])
            if name in (FRAME_POSITIONS, SEGMENT_POSITIONS) and len(actual) == 2:
                expected[0] = actual[0]  # resized
            elif self._grows(name):
                expected[0] = self.old_vocab_size
            if actual != expected:
                problems.append(
                    f"{filling.file.name}: {key} has shape {tuple(actual)}, but {name} takes {tuple(expected)}"
                )
        return problems

    def _grows(self, name: str) -> bool:
        """Whether the tensor has a row for each token of the language model."""
        language_model = self.model.model.language_model
        tables = (language_model.get_input_embeddings(), self.model.get_output_embeddings())
        owner = self.model.get_submodule(name.rpartition(".")[0])
        return any(owner is table for table in tables)

    def _describe_missing(self, part: str, names: list[str]) -> str:
        option = "--" + part_of(names[0])[1].replace("_", "-")
        example, shape = names[0], tuple(self.shapes[names[0]])
        looked_for = " or ".join(" and ".join(keys) for keys in original_names(example, self.llm_names))
        if len(names) == sum(part_of(name)[0] == part for name in self.shapes if not name.startswith(self.new_parts)):
            return f"no file holds the {part} ({option}). Looked for {looked_for} of shape {shape}"
        text_half = [name for name in names if name.startswith(IMAGE_QFORMER) and ".word_embeddings." in name]
        if text_half:
            return (
                f"no file holds the text half of the image Q-Former ({option}): BLIP-2's file has none, and reading "
                f"timestamps needs InstructBLIP's. Looked for {original_names(text_half[0], self.llm_names)[0][0]} of "
                f"shape {tuple(self.shapes[text_half[0]])}"
            )
        more = f" and for {len(names) - 1} more" if len(names) > 1 else ""
        return f"the {part} ({option}) is incomplete: no file holds {looked_for} of shape {shape}, for {example}{more}"

    # - what is left over

    def _sort_out_the_rest(self, used: set[tuple[int, str]]) -> list[str]:
        """Notes why each tensor that is not used may be left out."""
        reasons = [(re.compile(pattern), reason) for pattern, reason in ignored_tensors(self.config)]
        self.ignored: dict[int, dict[str, list[str]]] = {id(file): {} for file in self.files}
        problems = []
        reasons += [(re.compile(re.escape(key)), "tied to the embeddings") for key in self.tied_keys]
        reasons += [(re.compile(keys), "encoder in whose place another one stands") for _, _, keys in self.towers]
        unread = {
            key for name in filter(self._reads_other_tower, self.new) for keys in self._keys(name) for key in keys
        }
        reasons += [(re.compile(re.escape(key)), "reads an encoder of another width") for key in unread]
        for file in self.files:
            ignored = self.ignored[id(file)]
            unknown: list[str] = []
            for key in file.shapes:
                if (id(file), key) in used or LORA.fullmatch(key):
                    continue
                if (id(file), key) in self.superseded:
                    reason: str | None = f"superseded by {self.superseded[id(file), key].name}"
                else:
                    reason = next((reason for pattern, reason in reasons if pattern.fullmatch(key)), None)
                if reason is None:
                    unknown.append(key)
                else:
                    ignored.setdefault(reason, []).append(key)
            if unknown and len(unknown) == len(file.shapes):
                problems.append(f"{file.name}: none of the known sources; it holds {', '.join(unknown[:3])}, ...")
            else:
                problems += [
                    f"{file.name}: {key} of shape {tuple(file.shapes[key])} is neither used nor on the ignore "
                    "list; no tensor of the model takes it"
                    for key in unknown
                ]
        return problems

    # - LoRA

    def _plan_lora(self) -> tuple[dict[str, Filling], list[str]]:
        """Names in a PEFT adapter → LoRA tensors, and what is wrong with them."""
        ours = {original: name for name, original in self.llm_names.items()}
        found: dict[str, Filling] = {}
        problems: list[str] = []
        sides: dict[str, dict[str, torch.Size]] = {}
        for file in self.files:
            for key, shape in file.shapes.items():
                if not (match := LORA.fullmatch(key)):
                    continue
                target = ours.get(match["module"] + ".weight")
                if target is None:
                    problems.append(f"{file.name}: {key} is for a layer that the language model (--llm) does not have")
                    continue
                is_a = match["side"] == "A"
                rank = shape[0 if is_a else -1]
                expected = (rank, self.shapes[target][1]) if is_a else (self.shapes[target][0], rank)
                if tuple(shape) != expected:
                    problems.append(
                        f"{file.name}: {key} has shape {tuple(shape)}, but {target} of shape "
                        f"{tuple(self.shapes[target])} takes {expected}"
                    )
                module = target.removesuffix(".weight")
                name = f"base_model.model.{module}.lora_{match['side']}.weight"
                if name in found:
                    problems.append(f"{found[name].file.name} and {file.name} both hold {key}; give one of them")
                found[name] = Filling(file, (key,))
                sides.setdefault(module, {})[match["side"]] = rank
        ranks = {rank for module in sides.values() for rank in module.values()}
        if len(ranks) > 1:
            problems.append(f"LoRA weights of several ranks, {sorted(ranks)}; one is expected")
        # A kind of layer that is adapted anywhere is adapted everywhere.
        kinds = {_without_number(module) for module in sides}
        modules = {name.removesuffix(".weight") for name in self.llm_names}
        for module in sorted(module for module in modules if _without_number(module) in kinds):
            if absent := {"A", "B"} - sides.get(module, {}).keys():
                problems.append(f"LoRA weights {' and '.join(sorted(absent))} of {module} are missing")
        self.lora_rank = max(ranks, default=0)
        self.lora_modules = sorted(sides)
        return found, problems

    def _recorded_lora_alpha(self) -> float | None:
        for file in self.files:
            section = file.beside.get("config")
            section = section.get("model") if isinstance(section, dict) else None
            if isinstance(section, dict) and isinstance(section.get("lora_alpha"), (int, float)):
                return section["lora_alpha"]
        return None

    # - the weights

    def size(self, dtype: torch.dtype) -> int:
        """Returns the size of the weights to be written.

        Args:
            dtype (`torch.dtype`): The dtype that they are written in.

        Returns:
            `int`: The size in bytes, LoRA weights included.
        """
        lora = sum(math.prod(f.file.shapes[f.keys[0]]) * 4 for f in self.lora.values())
        return sum(math.prod(shape) for shape in (self.shapes | self.given).values()) * dtype.itemsize + lora

    def filled_weights(self, dtype: torch.dtype) -> Iterator[tuple[str, torch.Tensor]]:
        """Reads all weights that come from a file (all but `new`). The files are read one after another: one of them
        is mapped at a time.

        Args:
            dtype (`torch.dtype`): The dtype that they are returned in.

        Yields:
            `tuple[str, torch.Tensor]`: The name and the value of a weight, in memory of its own.
        """
        for file in self.files:
            names = [name for name, filling in self.fillings.items() if filling.file is file]
            if names:
                with file.open() as tensors:
                    for name in names:
                        parts = [tensors[key] for key in self.fillings[name].keys]
                        yield name, self._assemble(name, parts, dtype)

    def lora_weights(self) -> dict[str, torch.Tensor]:
        """Reads the LoRA weights of the sources.

        Returns:
            `dict[str, torch.Tensor]`: The weights by their names in a PEFT adapter.
        """
        tensors = {}
        for name, filling in self.lora.items():
            with filling.file.open() as source:
                tensors[name] = source[filling.keys[0]].clone()
        return tensors

    def lora_config(self, base: str | None) -> dict:
        """Returns the configuration of a PEFT adapter with [`~Conversion.lora_weights`].

        Args:
            base (`str`): The checkpoint that the adapter belongs to, or `None`.

        Returns:
            `dict`: The configuration, ready for JSON.
        """
        leaves = "|".join(sorted({re.escape(module.rpartition(".")[2]) for module in self.lora_modules}))
        return {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base,
            "r": self.lora_rank,
            "lora_alpha": self.lora_alpha,
            "lora_dropout": 0.0,
            "bias": "none",
            "inference_mode": True,
            "target_modules": rf"{re.escape(LANGUAGE_MODEL)}.*\.({leaves})",
        }

    def _assemble(self, name: str, parts: list[torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
        if len(parts) == 2:  # the originals' attention has no bias on its keys
            query, value = parts
            return torch.cat([query, torch.zeros_like(query), value]).to(dtype)
        tensor, rows = parts[0], self.shapes[name][0] if self.shapes[name] else 0
        if not rows:  # the logit scale, a number that half precision would round
            return tensor.float().clone()
        if name in (FRAME_POSITIONS, SEGMENT_POSITIONS) and len(tensor) != rows:
            tensor = resize_positions(tensor, rows)
        elif self._grows(name) and len(tensor) != rows:
            grown = torch.empty(self.shapes[name], dtype=dtype)
            grown[: len(tensor)] = tensor
            grown[len(tensor) :] = tensor.mean(dim=0, dtype=torch.float32)
            return grown
        return tensor.to(dtype, copy=True).contiguous()

    # - the report

    def report(self) -> dict:
        """Reports what became of every tensor.

        Returns:
            `dict`: The report, ready for JSON: `sources`, `new`, `copied`, `changed`, and `adapter` where there is one.
        """
        sources = []
        for file in self.files:
            parts = {part_of(name)[0] for name, filling in self.fillings.items() if filling.file is file}
            lora = [key for key in file.shapes if LORA.fullmatch(key)]
            sources.append(
                {
                    "file": file.name,
                    "holds": [part for part, _ in PARTS.values() if part in parts] + ["LoRA"] * bool(lora),
                    "tensors": len(file.shapes),
                    "used": self.used[id(file)] + lora,
                    "ignored": self.ignored[id(file)],
                    "beside_the_weights": sorted(map(str, file.beside)),
                }
            )
        report = {"sources": sources, "new": self.new, "copied": self._copied(), "changed": self._changed()}
        if self.lora:
            report["adapter"] = {"folder": "adapter", "tensors": len(self.lora), "r": self.lora_rank}
            report["adapter"]["lora_alpha"] = self.lora_alpha
        return report

    def _copied(self) -> list[str]:
        """Parameters of the global video Q-Former that share their source with those of the windows'."""
        names = {name for name in self.fillings if ".window_qformer." in name}
        return [
            name.replace(".window_", ".global_")
            for name in names
            if name.replace(".window_", ".global_") in self.fillings
        ]

    def _changed(self) -> dict[str, str]:
        """Tables with another number of rows than in their file."""
        changed = {}
        for name, filling in self.fillings.items():
            old = filling.file.shapes[filling.keys[0]]
            new = self.shapes[name]
            if len(filling.keys) == 1 and old != new:
                how = "the mean of the old rows for new tokens" if self._grows(name) else "nearest"
                changed[name] = f"{old[0]} rows to {new[0]}: {how}"
        return changed


def resize_positions(table: torch.Tensor, rows: int) -> torch.Tensor:
    """Resizes a position table. Each row takes the nearest old one, as in TimeChat.

    Args:
        table (`torch.Tensor` of shape `(old rows, width)`): The table.
        rows (`int`): The new number of rows.

    Returns:
        `torch.Tensor` of shape `(rows, width)`: The resized table.

    Example:

    ```python
    >>> import torch

    >>> from microemo.modeling_microemo.convert_original import resize_positions

    >>> resize_positions(torch.tensor([[1.0], [2.0]]), 4).flatten().tolist()
    [1.0, 1.0, 2.0, 2.0]
    ```"""
    return nn.functional.interpolate(table.T[None].float(), size=rows, mode="nearest")[0].T.to(table.dtype)


def _language_model_names(text_config: PreTrainedConfig, shapes: Mapping[str, torch.Size]) -> dict[str, str]:
    """Names in the language model's own checkpoint, by ours."""
    with torch.device("meta"):
        language_model = AutoModelForCausalLM.from_config(text_config)
    head = next(n for n, m in language_model.named_modules() if m is language_model.get_output_embeddings())
    names = {}
    for name in shapes:
        if name.startswith(LANGUAGE_MODEL):
            names[name] = f"{language_model.base_model_prefix}.{name.removeprefix(LANGUAGE_MODEL)}"
        elif name.startswith("lm_head."):
            names[name] = f"{head}.{name.removeprefix('lm_head.')}"
    return names


def _without_number(module: str) -> str:
    return re.sub(r"\.\d+\.", ".*.", module)


__all__ = [
    "SOURCE_PRESETS",
    "Conversion",
    "ConversionError",
    "SourcePreset",
    "WeightFile",
    "open_sources",
    "original_config",
]
