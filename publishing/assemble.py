"""From public weights to a folder that `from_pretrained` loads: `microemo assemble`, and `microemo convert` as its case.

[`plan_assembly`] finds the sources and reads nothing but configurations, tokenizers and indices of weights; [`assemble`]
downloads what is missing, compares hashes, and streams the weights tensor by tensor into the shards of the new folder.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.utils import CONFIG_NAME

from ..configuration.configuration_microemo import MicroEmoConfig
from ..configuration.tower_table import AUDIO_TOWERS
from ..modeling_microemo.convert_original import (
    SOURCE_PRESETS,
    Conversion,
    ConversionError,
    open_sources,
    original_config,
)
from ..modeling_microemo.modeling_microemo import MicroEmoForConditionalGeneration
from ..processing.processing_microemo import MicroEmoProcessor
from ..utils.atomic_files import NoSpaceError, atomic_folder, check_new_folder, write_text
from ..utils.checkpoint_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, CONVERSION_REPORT
from .checkpoint_folder import SHARD_SIZE, fit_tokenizer, initial_weights, write_shards
from .code_bundle import write_code_bundle
from .pretrained_parts import PretrainedPart, find_encoder, fit_processor, with_parts
from .source_manifest import MANIFEST, ManifestEntry, read_preset
from .weight_sources import Repository, Source, locate, sha256_of

WEIGHT_OPTIONS = ("vision", "audio", "qformer", "video_branch", "audio_branch", "imagebind", "checkpoint", "llm")
REQUIRED = ("vision", "qformer", "video_branch", "llm", "qformer_tokenizer")
DTYPES = ("float32", "float16", "bfloat16")


@dataclass
class PlannedFile:
    """A file of weights that a model is assembled from.

    Attributes:
        source ([`Source`]): Where it lies; the first source that needs it.
        name (`str`): Its name in the folder of the source.
        options (`list[str]`): The options that need it.
        licences (`list[str]`): Its licences, in words, as far as they are known.
        sha256 (`str`, *optional*): The hash that the manifest demands.
    """

    source: Source
    name: str
    options: list[str] = field(default_factory=list)
    licences: list[str] = field(default_factory=list)
    sha256: str | None = None

    @property
    def title(self) -> str:
        """The name in messages and reports."""
        return self.source.place.title(self.name)

    @property
    def size(self) -> int:
        """The size in bytes."""
        return self.source.place.size(self.name)

    @cached_property
    def is_here(self) -> bool:
        """Whether it needed no download when it was first asked for."""
        return self.source.place.is_here(self.name)

    def fetch(self) -> tuple[Path, str]:
        """Downloads the file, if it is not here, and compares its hash.

        Returns:
            `tuple[Path, str]`: Its path on this machine and its SHA-256.

        Raises:
            ConversionError: if it cannot be downloaded, or if it has another hash than the manifest or the Hub states.
        """
        path = self.source.place.fetch(self.name)
        found = sha256_of(path)
        stated = self.source.place.stated_sha256(self.name)
        for who, expected in (("the manifest demands", self.sha256), ("the Hub states", stated)):
            if expected and expected != found:
                hint = ""
                if stated and stated != found:  # only this copy is damaged
                    path.resolve().unlink()
                    path.unlink(missing_ok=True)
                    hint = "; this copy was removed from the cache, run the same command again"
                raise ConversionError(f"{self.title}: its SHA-256 is {found}, but {who} {expected}{hint}")
        return path, found

    def provenance(self, sha256: str) -> dict[str, Any]:
        """Returns what the report says of the file besides its tensors.

        Args:
            sha256 (`str`): The hash that was computed.

        Returns:
            `dict[str, Any]`: Size and hash; repository, revision and licence as far as there are some.
        """
        facts: dict[str, Any] = {"bytes": self.size, "sha256": sha256}
        if self.source.place.commit:
            facts |= {"repository": self.source.place.repo_id, "revision": self.source.place.commit}
        if self.licences:
            facts["licence"] = "; ".join(self.licences)
        return facts


@dataclass
class AssemblyPlan:
    """What a model is assembled from.

    Attributes:
        preset (`str`): A name of `SOURCE_PRESETS`: how the model runs.
        sources (`dict[str, Source]`): The sources by option.
        files (`list[PlannedFile]`): The files of weights, each once.
        base ([`MicroEmoConfig`], *optional*): The sizes, by default those of the paper.
        overrides (`dict[str, Any]`): Fields of [`MicroEmoConfig`].
        towers (`dict[str, PretrainedPart]`): The encoders in place of the paper's, by option.
    """

    preset: str
    sources: dict[str, Source]
    files: list[PlannedFile]
    base: MicroEmoConfig | None
    overrides: dict[str, Any]
    towers: dict[str, PretrainedPart] = field(default_factory=dict)

    @property
    def download_size(self) -> int:
        """The number of bytes that are not on this machine yet."""
        return sum(file.size for file in self.files if not file.is_here)

    def read_text_config(self) -> PreTrainedConfig:
        """Reads the configuration of the language model; of a composite model such as InstructBLIP, that of its part.

        Returns:
            `PreTrainedConfig`: The configuration.
        """
        return AutoConfig.from_pretrained(self.sources["llm"].folder()).get_text_config()

    @cached_property
    def num_parameters(self) -> int:
        """The number of parameters of the model, but for LoRA."""
        config = original_config([], self.read_text_config(), preset=self.preset, base=self.base, **self.overrides)
        with torch.device("meta"):
            model = MicroEmoForConditionalGeneration(config)
        return sum(parameter.numel() for parameter in model.parameters())

    def output_size(self, dtype: str | torch.dtype) -> int:
        """Computes the size of the weights to be written, but for LoRA.

        Args:
            dtype (`str` or `torch.dtype`): The type that they are written in.

        Returns:
            `int`: The number of bytes.
        """
        return self.num_parameters * as_dtype(dtype).itemsize


def as_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """Returns a type of weights by its name.

    Args:
        dtype (`str` or `torch.dtype`): The type.

    Returns:
        `torch.dtype`: The type.

    Raises:
        ConversionError: if weights are not written in it.
    """
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in DTYPES:
        raise ConversionError(f"dtype must be float32, float16 or bfloat16, got {dtype!r}")
    return getattr(torch, dtype)


def plan_assembly(
    preset: str = "microemo",
    base_config: MicroEmoConfig | str | Path | None = None,
    token: str | None = None,
    manifest: str | Path = MANIFEST,
    overrides: dict[str, Any] | None = None,
    **sources: str | Path | None,
) -> AssemblyPlan:
    """Finds all sources of a model. Only configurations, tokenizers and indices of weights are downloaded.

    Args:
        preset (`str`, *optional*, defaults to `"microemo"`):
            A preset of the manifest: `"paper"` names all sources that the paper starts from, the families `"microemo"`,
            `"affectgpt"` and `"timechat"` name none.
        base_config ([`MicroEmoConfig`], `str` or `Path`, *optional*):
            The configuration of the sizes, or its folder or file. By default the sizes are those of the paper.
        token (`str`, *optional*): The access token for the Hub, by default that of `hf auth login` or HF_TOKEN.
        manifest (`str` or `Path`, *optional*): The file with the presets, by default the package's own.
        overrides (`dict[str, Any]`, *optional*): Fields of [`MicroEmoConfig`], such as `max_frames`.
        sources (`str` or `Path`, *optional*):
            `vision`, `audio`, `qformer`, `video_branch`, `audio_branch`, `imagebind`, `checkpoint`, `llm` and
            `qformer_tokenizer`: a file, a folder in Transformers' format, or on the Hub `ORG/NAME`, `ORG/NAME:FILE` or
            `ORG/NAME:FOLDER/`, with a revision as `ORG/NAME@REVISION`. They override those of the preset. Without a
            `qformer_tokenizer` the one of the folder that `qformer` names is taken. `vision` may be another image encoder
            of Transformers than the paper's, and `audio` is an audio encoder in place of ImageBind's.

    Returns:
        [`AssemblyPlan`]: The plan.

    Raises:
        ConversionError: if a source is missing or cannot be read.
        TypeError: if a source has an unknown name.
    """
    if unknown := sources.keys() - {*WEIGHT_OPTIONS, "qformer_tokenizer"}:
        raise TypeError(f"no sources are named {', '.join(sorted(unknown))}")
    found_preset = read_preset(preset, manifest)
    base = MicroEmoConfig.from_pretrained(base_config) if isinstance(base_config, (str, Path)) else base_config
    given = {option: source for option, source in sources.items() if source is not None}
    entries = {option: entry for option, entry in found_preset.sources.items() if option not in given}
    addresses = {option: entry.address for option, entry in entries.items()} | given

    repositories: dict[str, Repository] = {}
    located = {option: locate(option, source, token, repositories) for option, source in addresses.items()}
    towers = _find_towers(located)
    if "audio" in towers:
        located.pop("imagebind", None)
    if towers:
        base = with_parts(base or MicroEmoConfig.from_preset("microemo-7b"), towers)
    qformer = located.get("qformer")
    if "qformer_tokenizer" not in located and qformer and not qformer.file:
        place = qformer.place.subfolder("qformer_tokenizer")
        located |= {"qformer_tokenizer": Source("qformer_tokenizer", place)} if place else {}
    if missing := [f"--{option.replace('_', '-')}" for option in REQUIRED if option not in located]:
        raise ConversionError(
            f"the preset {preset!r} needs {', '.join(missing)}"
            + (" (such as google-bert/bert-base-uncased)" if "--qformer-tokenizer" in missing else "")
        )
    files: dict[tuple[str, str], PlannedFile] = {}
    for option in WEIGHT_OPTIONS:
        if option in located:
            source = located[option]
            for name in source.weights():
                key = (source.place.address or str(source.place.path.resolve()), name)
                _note(files.setdefault(key, PlannedFile(source, name)), option, entries.get(option))
    for file in files.values():
        file.source.place.check_access(file.name)
    return AssemblyPlan(found_preset.family, located, list(files.values()), base, overrides or {}, towers)


def _find_towers(located: dict[str, Source]) -> dict[str, PretrainedPart]:
    """The sources that are encoders of Transformers in place of the paper's."""
    towers = {}
    for option in ("vision", "audio"):
        source = located.get(option)
        if source is None or (option == "vision" and (source.file or CONFIG_NAME not in source.place.names)):
            continue
        config = AutoConfig.from_pretrained(source.folder())
        if encoder := find_encoder(config, option):
            towers[option] = PretrainedPart(option, source, encoder)
        elif option == "audio":
            raise ConversionError(
                f"{source}: is of model_type {config.model_type!r}, of which MicroEmo reads no audio tower; it can read "
                f"{', '.join(AUDIO_TOWERS)}"
            )
    return towers


def _note(file: PlannedFile, option: str, entry: ManifestEntry | None) -> None:
    """Notes an option that needs a file, and what the manifest or else the Hub says of it."""
    file.options.append(option)
    licence = (entry and entry.licence) or file.source.place.licence
    if licence and licence not in file.licences:
        file.licences.append(licence)
    file.sha256 = file.sha256 or (entry.sha256.get(file.name) if entry else None)


def assemble(
    plan: AssemblyPlan,
    output: str | Path,
    dtype: str | torch.dtype = "bfloat16",
    max_shard_size: int = SHARD_SIZE,
    lora_alpha: float | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Downloads what a plan names, and writes the checkpoint folder with model, processor, code and a report.

    Files that have arrived stay in the cache of `huggingface_hub`. The folder is written anew after an interruption; it
    appears when all of its files are written. Memory holds one shard at a time.

    Args:
        plan ([`AssemblyPlan`]): What [`plan_assembly`] returned.
        output (`str` or `Path`): The new folder.
        dtype (`str` or `torch.dtype`, *optional*, defaults to `"bfloat16"`): The type of the weights that are written.
        max_shard_size (`int`, *optional*, defaults to 1000000000): The largest size of a file of weights in bytes.
        lora_alpha (`float`, *optional*): The scale of LoRA weights whose checkpoint does not state it.
        seed (`int`, *optional*, defaults to 0): The seed of the new parameters.

    Returns:
        `dict[str, Any]`: The report, which is also saved as `conversion_report.json` in the folder.

    Raises:
        ConversionError: if a source cannot be fetched or read, has a wrong hash, or if they do not give a complete model.
        FileExistsError: if the folder holds files.
        NoSpaceError: if the disk has not enough space.
    """
    dtype = as_dtype(dtype)
    check_new_folder(output)
    if plan.download_size:
        _check_room(plan, Path(output), dtype)
    fetched = {file.title: (file, *file.fetch()) for file in plan.files}
    paths: dict[str, dict[Path, str]] = {option: {} for option in WEIGHT_OPTIONS}
    facts: dict[Path, dict[str, Any]] = {}
    for title, (file, path, digest) in fetched.items():
        facts[path] = file.provenance(digest)
        for option in file.options:
            if option not in plan.towers:
                paths[option][path] = title
    files = open_sources(**paths)

    source_preset = SOURCE_PRESETS[plan.preset]
    llm = plan.sources["llm"].folder()
    text_config = plan.read_text_config()
    tokenizer = AutoTokenizer.from_pretrained(llm)
    bert_tokenizer = AutoTokenizer.from_pretrained(plan.sources["qformer_tokenizer"].folder(), truncation_side="left")
    old_vocab_size = text_config.vocab_size
    overrides = fit_tokenizer(tokenizer, text_config, old_vocab_size) | plan.overrides
    config = original_config(files, text_config, preset=plan.preset, base=plan.base, **overrides)
    _fit_qformer_tokenizer(bert_tokenizer, config)
    conversion = Conversion(files, config, old_vocab_size, source_preset.needs_audio, lora_alpha, plan.towers)
    processor = MicroEmoProcessor.from_config(
        config, tokenizer, bert_tokenizer, timestamp_format=source_preset.timestamp_format
    )
    processor.feature_extractor.short_audio_padding = source_preset.short_audio_padding
    fit_processor(processor, config, plan.towers)
    processor.video_processor.num_frames = min(source_preset.num_frames or config.max_frames, config.max_frames)
    processor.video_processor.repeat_last_frame = source_preset.repeat_last_frame
    report = {"preset": plan.preset, "dtype": str(dtype).removeprefix("torch."), **conversion.report()}
    for opened, told in zip(files, report["sources"], strict=True):
        told |= facts[opened.path]
    report["tokenizers"] = {
        option: plan.sources[option].place.address or plan.sources[option].place.path.resolve().name
        for option in ("llm", "qformer_tokenizer")
    }

    with atomic_folder(output, conversion.size(dtype)) as folder:
        write_shards(folder, _weights(conversion, plan.towers, dtype, seed, report), max_shard_size)
        config.architectures = [MicroEmoForConditionalGeneration.__name__]
        config.dtype = config.text_config.dtype = dtype
        config.save_pretrained(folder)
        processor.save_pretrained(folder)
        write_code_bundle(folder)
        _generation_config(conversion.model.generation_config, llm, tokenizer).save_pretrained(folder)
        if conversion.lora:
            adapter = folder / "adapter"
            adapter.mkdir()
            save_file(conversion.lora_weights(), adapter / ADAPTER_WEIGHTS, metadata={"format": "pt"})
            _write_json(adapter / ADAPTER_CONFIG, conversion.lora_config(base=str(output)))
        _write_json(folder / CONVERSION_REPORT, report)
    return report


def _check_room(plan: AssemblyPlan, output: Path, dtype: torch.dtype) -> None:
    """Checks, before a download, that there is room for it and for the folder, which may lie on one disk."""
    needed: dict[int, tuple[Path, int]] = {}
    for place, size in ((Path(constants.HF_HUB_CACHE), plan.download_size), (output, plan.output_size(dtype))):
        existing = next(path for path in (place.absolute(), *place.absolute().parents) if path.exists())
        device = existing.stat().st_dev
        needed[device] = (existing, needed.get(device, (existing, 0))[1] + size)
    for path, size in needed.values():
        if (free := shutil.disk_usage(path).free) < size:
            raise NoSpaceError(
                f"{path}: no space left: {size / 1e6:.0f} MB are needed for the download and the new folder, "
                f"{free / 1e6:.0f} MB are free. HF_HUB_CACHE moves the download to another disk"
            )


def _weights(
    conversion: Conversion, towers: dict[str, PretrainedPart], dtype: torch.dtype, seed: int, report: dict[str, Any]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yields names and values: those of the towers, which the report names then, those of the files, and the new ones."""
    for tower in towers.values():
        weights, facts = tower.load(dtype)
        report["sources"].append(facts)
        yield from weights.items()
        del weights
    yield from conversion.filled_weights(dtype)
    for name, weight in initial_weights(conversion.model, set(conversion.new), seed):
        yield name, weight.to(dtype)


def _fit_qformer_tokenizer(tokenizer: PreTrainedTokenizerBase, config: MicroEmoConfig) -> None:
    """Adds the token [DEC], as in the originals, whose row is the last one of InstructBLIP's table."""
    rows = config.image_qformer_config.vocab_size
    if config.use_frame_timestamps and len(tokenizer) + 1 == rows:
        tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    if config.use_frame_timestamps and len(tokenizer) > rows:
        raise ConversionError(
            f"the image Q-Former's tokenizer has {len(tokenizer)} tokens, its weights have rows for {rows}; "
            "InstructBLIP's is google-bert/bert-base-uncased"
        )


def _generation_config(config: GenerationConfig, llm: Path, tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    """Returns the generation config of the model, with the begin and end tokens that the language model's own states."""
    try:
        stated = GenerationConfig.from_pretrained(llm)
    except OSError:  # there is none
        stated = GenerationConfig()
    for name in ("bos_token_id", "eos_token_id"):
        if getattr(stated, name) is not None:
            setattr(config, name, getattr(stated, name))
    config.pad_token_id = tokenizer.pad_token_id
    return config


def _write_json(path: Path, content: dict) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")
