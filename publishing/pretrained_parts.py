"""Pretrained encoders and language models as parts of a new model: `--vision`, `--audio` and `--llm` of `microemo init`."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoFeatureExtractor, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from ..configuration.configuration_microemo import MicroEmoConfig
from ..configuration.tower_table import AUDIO_TOWERS, SAMPLING_RATE, VISION_TOWERS, audio_row
from ..modeling_microemo.convert_original import ConversionError
from ..modeling_microemo.towers import tower_class
from .weight_sources import Source, locate, sha256_of

# Where each part stands in the model, and what the report calls it.
PLACES = {
    "vision": ("model.visual_encoder.vision_model.", "image encoder"),
    "audio": ("model.audio_branch.audio_tower.", "audio tower"),
    "llm": ("model.language_model.", "language model"),
}
# What a preset for one audio tower takes for another: so much sound, in so many steps.
SECONDS_OF_SOUND, STEPS_PER_SECOND = 60, 10


@dataclass
class PretrainedPart:
    """A part of a model that comes from a checkpoint of its own.

    Attributes:
        option (`str`): `"vision"`, `"audio"` or `"llm"`.
        source ([`Source`]): The checkpoint.
        config (`PreTrainedConfig`): The configuration of the part, which is that of a part of the checkpoint's model.
    """

    option: str
    source: Source
    config: PreTrainedConfig

    def folder(self) -> Path:
        """Fetches the checkpoint.

        Returns:
            `Path`: Its folder on this machine.

        Raises:
            ConversionError: if it cannot be fetched, or has another hash than the Hub states.
        """
        for name in self.source.weights():
            path = self.source.place.fetch(name)
            stated = self.source.place.stated_sha256(name)
            if stated and sha256_of(path) != stated:
                raise ConversionError(
                    f"{self.source.place.title(name)}: its SHA-256 is not the one that the Hub states"
                )
        return self.source.folder()

    def load(self, dtype: torch.dtype) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Loads the weights.

        Args:
            dtype (`torch.dtype`): The type that they are returned in.

        Returns:
            `tuple[dict[str, torch.Tensor], dict[str, Any]]`: The weights by their names in MicroEmo, and what the report
            says of the source.

        Raises:
            ConversionError: if weights are missing or of another shape.
        """
        folder = self.folder()
        prefix, title = PLACES[self.option]
        if self.option == "llm":
            model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, output_loading_info=True)
            base, head = f"{model.base_model_prefix}.", model.get_output_embeddings()
            head_name = next(name for name, module in model.named_modules() if module is head)
            names = {f"{head_name}.weight": "lm_head.weight"}
        else:
            model, info = _load_encoder(folder, self.config, dtype)
            base, names = "", {}
        problems = {name: sorted(map(str, info[name])) for name in ("missing_keys", "mismatched_keys") if info[name]}
        if problems:
            raise ConversionError(f"{self.source}: does not hold the {title} whole: {problems}")
        tied = model.all_tied_weights_keys
        weights = {
            names.get(name, prefix + name.removeprefix(base)): weight
            for name, weight in model.state_dict().items()
            if name not in tied
        }
        place = self.source.place
        facts: dict[str, Any] = {"file": place.address or place.path.resolve().name, "holds": [title]}
        if place.commit:
            facts |= {"repository": place.repo_id, "revision": place.commit}
        if place.licence:
            facts["licence"] = place.licence
        ignored = sorted(map(str, info["unexpected_keys"]))
        facts |= {"tensors": len(weights) + len(ignored), "used": sorted(weights)}
        facts["ignored"] = {f"no part of the {title}": ignored} if ignored else {}
        return weights, facts


def find_parts(token: str | None = None, **sources: str | Path | None) -> dict[str, PretrainedPart]:
    """Finds the checkpoints of parts, and reads their configurations. Weights are not downloaded yet.

    Args:
        token (`str`, *optional*): The access token for the Hub, by default that of `hf auth login` or HF_TOKEN.
        sources (`str` or `Path`, *optional*):
            `vision`, `audio` and `llm`: a folder in Transformers' format or `ORG/NAME` on the Hub, with a revision as
            `ORG/NAME@REVISION`.

    Returns:
        `dict[str, PretrainedPart]`: The parts by option, without those whose source is `None`.

    Raises:
        ConversionError: if a source is not found.
        ValueError: if its model holds no encoder that MicroEmo can read.
    """
    parts = {}
    for option, source in sources.items():
        if source is not None:
            located = locate(option, source, token, {})
            config = AutoConfig.from_pretrained(located.folder())
            found = config.get_text_config() if option == "llm" else _find_encoder(config, option, located)
            parts[option] = PretrainedPart(option, located, found)
    return parts


def with_parts(config: MicroEmoConfig, parts: dict[str, PretrainedPart]) -> MicroEmoConfig:
    """Puts the configurations of parts into that of a model, whose widths follow.

    The hidden states that a preset reads, and the amount of sound, are those of its own tower: another one is read at its
    last hidden state, and hears 60 s at about 10 steps per second.

    Args:
        config ([`MicroEmoConfig`]): The configuration of the model.
        parts (`dict[str, PretrainedPart]`): The parts by option.

    Returns:
        [`MicroEmoConfig`]: The new configuration.
    """
    fields = config.to_dict()
    for option, part in parts.items():
        name = "text_config" if option == "llm" else f"{option}_config"
        fields[name] = part.config.to_dict()
        for of_checkpoint in ("_name_or_path", "architectures", "dtype", "transformers_version"):
            fields[name].pop(of_checkpoint, None)
    if "llm" in parts:
        fields.pop("tie_word_embeddings")  # follows the language model
    if "vision" in parts and not _same_depth(config.vision_config, parts["vision"].config):
        fields["vision_feature_layer"] = -1
    if "audio" in parts:
        ours, its = config.audio_config, parts["audio"].config
        if not _same_depth(ours, its):
            fields["audio_feature_layer"] = -1
        if ours.model_type != its.model_type:
            row = audio_row(its)
            seconds = row.segment_samples(its) / SAMPLING_RATE
            fields["max_audio_segments"] = math.ceil(SECONDS_OF_SOUND / seconds)
            fields["audio_pool_size"] = max(1, round(row.num_steps(its) / seconds / STEPS_PER_SECOND))
    return MicroEmoConfig(**fields)


def pretrained_extractor(part: PretrainedPart) -> dict[str, Any]:
    """Reads the fields of the feature extractor of an audio tower.

    Args:
        part ([`PretrainedPart`]): The audio tower.

    Returns:
        `dict[str, Any]`: The fields, as [`MicroEmoFeatureExtractor`] takes them in `tower_extractor`; those that follow from
        the configuration where the checkpoint has none.
    """
    row = audio_row(part.config)
    expected = {} if row.extractor is None else row.extractor_fields(part.config)
    try:
        fields = AutoFeatureExtractor.from_pretrained(part.source.folder()).to_dict()
    except (OSError, ValueError):
        return expected
    if fields.get("feature_extractor_type") != expected.get("feature_extractor_type"):
        return expected
    return {name: value for name, value in fields.items() if name not in ("processor_class", "auto_map")}


def _load_encoder(
    folder: Path, config: PreTrainedConfig, dtype: torch.dtype
) -> tuple[PreTrainedModel, dict[str, Any]]:
    row = AUDIO_TOWERS.get(config.model_type) or VISION_TOWERS[config.model_type]
    key_mapping = {rf"^{prefix}".replace(".", r"\."): "" for prefix in getattr(row, "saved_as", ())}
    return tower_class(config).from_pretrained(
        folder, config=config, dtype=dtype, key_mapping=key_mapping or None, output_loading_info=True
    )


def _find_encoder(config: PreTrainedConfig, option: str, source: Source) -> PreTrainedConfig:
    table = VISION_TOWERS if option == "vision" else AUDIO_TOWERS
    found = next((part for part in _all_configs(config) if part.model_type in table), None)
    if found is None:
        raise ValueError(
            f"{source}: is of model_type {config.model_type!r}, of which MicroEmo reads no {PLACES[option][1]}; it can "
            f"read {', '.join(table)}"
        )
    return found


def _all_configs(config: PreTrainedConfig) -> Iterator[PreTrainedConfig]:
    """A configuration and those of its parts, from the outside in."""
    yield config
    for name in config.sub_configs:
        if isinstance(part := getattr(config, name, None), PreTrainedConfig):
            yield from _all_configs(part)


def _same_depth(ours: PreTrainedConfig, its: PreTrainedConfig) -> bool:
    return (ours.model_type, ours.num_hidden_layers) == (its.model_type, its.num_hidden_layers)
