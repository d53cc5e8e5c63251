"""Pretrained encoders and language models as parts of a new model: `--vision`, `--audio` and `--llm` of `microemo init`."""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoFeatureExtractor, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from ..configuration.configuration_microemo import MicroEmoConfig
from ..configuration.tower_table import AUDIO_TOWERS, SAMPLING_RATE, VISION_TOWERS, audio_row, vision_row
from ..modeling_microemo.convert_original import ConversionError
from ..modeling_microemo.towers import tower_class
from ..processing.feature_extraction_microemo import MicroEmoFeatureExtractor
from ..processing.model_switches import sound_fields
from ..processing.processing_microemo import MicroEmoProcessor
from ..utils.files import read_json
from .weight_sources import Source, locate, sha256_of

# Where each part stands in the model, and what the report calls it.
PLACES = {
    "vision": ("model.visual_encoder.vision_model.", "image encoder"),
    "audio": ("model.audio_branch.audio_tower.", "audio tower"),
    "llm": ("model.language_model.", "language model"),
}
TABLES: dict[str, dict] = {"vision": VISION_TOWERS, "audio": AUDIO_TOWERS}
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
        with _without_table():
            model, info = self._read(folder, dtype)
        if self.option == "llm":
            base, head = f"{model.base_model_prefix}.", model.get_output_embeddings()
            head_name = next(name for name, module in model.named_modules() if module is head)
            names = {f"{head_name}.weight": "lm_head.weight"}
        else:
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

    def _read(self, folder: Path, dtype: torch.dtype) -> tuple[PreTrainedModel, dict[str, Any]]:
        """The model with what was missing, of another shape or not expected in the checkpoint."""
        if self.option == "llm":
            return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, output_loading_info=True)
        saved_as = getattr(TABLES[self.option][self.config.model_type], "saved_as", ())
        return tower_class(self.config).from_pretrained(
            folder,
            config=self.config,
            dtype=dtype,
            key_mapping={f"^{re.escape(prefix)}": "" for prefix in saved_as} or None,
            output_loading_info=True,
        )


@contextmanager
def _without_table() -> Iterator[None]:
    """Keeps Transformers from printing the weights of a larger model that its encoder leaves out: the report has them."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


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
            found = config.get_text_config() if option == "llm" else find_encoder(config, option)
            if found is None:
                raise ValueError(
                    f"{located}: is of model_type {config.model_type!r}, of which MicroEmo reads no {PLACES[option][1]}; "
                    f"it can read {', '.join(TABLES[option])}"
                )
            parts[option] = PretrainedPart(option, located, found)
    return parts


def find_encoder(config: PreTrainedConfig, option: str) -> PreTrainedConfig | None:
    """Finds the encoder of a model that MicroEmo can have as a tower.

    Args:
        config (`PreTrainedConfig`): The configuration of the model, which may be the encoder itself.
        option (`str`): `"vision"` or `"audio"`.

    Returns:
        `PreTrainedConfig` or `None`: The configuration of the encoder, if there is one.
    """
    found = next((part for part in _all_configs(config) if part.model_type in TABLES[option]), None)
    if found is not None and found.model_type.startswith("siglip"):  # whose head pools the patches to one vector
        found.vision_use_head = False
    return found


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
    if "vision" in parts:
        if not _same_depth(config.vision_config, parts["vision"].config):
            fields["vision_feature_layer"] = -1
        fields["frame_size"] = pretrained_pictures(parts["vision"]).get("side")
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


def fit_processor(processor: MicroEmoProcessor, config: MicroEmoConfig, parts: dict[str, PretrainedPart]) -> None:
    """Gives a processor what the processors of the towers' own checkpoints state.

    Args:
        processor ([`MicroEmoProcessor`]): The processor, which is changed in place.
        config ([`MicroEmoConfig`]): The configuration of the model.
        parts (`dict[str, PretrainedPart]`): The parts by option.
    """
    if "vision" in parts:
        for name, value in pretrained_pictures(parts["vision"]).items():
            if name != "side":  # which `frame_size` of the configuration has
                setattr(processor.video_processor, name, value)
    if "audio" in parts and (extractor := pretrained_extractor(parts["audio"])):
        processor.feature_extractor = MicroEmoFeatureExtractor(**sound_fields(config, extractor))


def pretrained_pictures(part: PretrainedPart) -> dict[str, Any]:
    """Reads what the image processor of an image encoder makes of pictures.

    Args:
        part ([`PretrainedPart`]): The image encoder.

    Returns:
        `dict[str, Any]`: `image_mean` and `image_std`, and for an encoder that takes pictures of any size the `side` in
        pixels; what its image processor does not state is missing.
    """
    folder = part.source.folder()
    stated: dict[str, Any] = {}
    for name, key in (("preprocessor_config.json", None), ("processor_config.json", "image_processor")):
        if not stated and (folder / name).is_file():
            content = read_json(folder / name)
            stated = (content.get(key) or {}) if key else content
    found = {name: stated[name] for name in ("image_mean", "image_std") if stated.get(name) is not None}
    sizes = (stated.get("crop_size") if stated.get("do_center_crop", True) else None, stated.get("size"))
    size = next((size for size in sizes if size), None)
    if isinstance(size, dict):
        size = size.get("height") or size.get("shortest_edge")
    if size and vision_row(part.config).any_size:
        found["side"] = size // part.config.patch_size * part.config.patch_size
    return found


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


def _all_configs(config: PreTrainedConfig) -> Iterator[PreTrainedConfig]:
    """A configuration and those of its parts, from the outside in."""
    yield config
    for name in config.sub_configs:
        if isinstance(part := getattr(config, name, None), PreTrainedConfig):
            yield from _all_configs(part)


def _same_depth(ours: PreTrainedConfig, its: PreTrainedConfig) -> bool:
    return (ours.model_type, ours.num_hidden_layers) == (its.model_type, its.num_hidden_layers)
