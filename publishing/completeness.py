"""What of a folder is published, and what it lacks: checked before anything is sent, and told all at once."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from ..configuration.configuration_microemo import MicroEmoConfig
from ..modeling_microemo.modeling_microemo import MicroEmoForConditionalGeneration
from ..processing.processing_microemo import MicroEmoProcessor
from ..utils.checkpoint_files import (
    ADAPTER_CONFIG,
    ADAPTER_MODEL_CONFIG,
    ADAPTER_WEIGHTS,
    CALIBRATION,
    CARD,
    CONVERSION_REPORT,
    IMAGE_QUERIES,
    RUN_FACTS,
)
from ..utils.files import read_json

TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
)
PROCESSOR = (
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "chat_template.jinja",
    "additional_chat_templates/*.jinja",
    "face_landmarker.task",
    *TOKENIZER,
    *(f"qformer_tokenizer/{name}" for name in TOKENIZER),
)
WORDS = (CARD, "LICENSE*", "LICENCE*", "NOTICE*")
MODEL = ("config.json", "generation_config.json", CALIBRATION, SAFE_WEIGHTS_INDEX_NAME)
ADAPTER = (ADAPTER_CONFIG, ADAPTER_WEIGHTS, ADAPTER_MODEL_CONFIG)
REQUIRED = ("processor_config.json", "chat_template.jinja", "tokenizer.json", "tokenizer_config.json")

# Why a file or folder stays at home. The first pattern that fits its name counts, whatever `include` says.
NEVER = {
    ".*": "hidden",
    "checkpoint-*": "a checkpoint of the training run",
    "global_step*": "a checkpoint of the training run",
    "__pycache__": "a cache",
    "*.tmp*": "a file that was never finished",
    "*.lock": "a cache",
    "optimizer*": "state of the training run",
    "scheduler*": "state of the training run",
    "scaler*": "state of the training run",
    "rng_state*": "state of the training run",
    "training_args.bin": "state of the training run",
    "trainer_state.json": "state of the training run",
    RUN_FACTS: "state of the training run; the model card tells it",
    CONVERSION_REPORT: "the report of the conversion; the model card names its sources",
    "runs": "logs",
    "logs": "logs",
    "wandb": "logs",
    "mlruns": "logs",
    "*.log": "logs",
    "events.out.tfevents*": "logs",
    "samples.jsonl": "logs",
    "*_results.json": "logs",
    "token": "may hold a secret",
    "*.pem": "may hold a secret",
    "*.key": "may hold a secret",
    "*.netrc": "may hold a secret",
    "credentials*": "may hold a secret",
    "*.pkl": "pickled, so that opening it runs code",
    "*.bin": "pickled, so that opening it runs code",
    "*.pt": "pickled, so that opening it runs code",
    "*.pth": "pickled, so that opening it runs code",
    "*.ckpt": "pickled, so that opening it runs code",
}
OTHER = "not part of a checkpoint; --include sends it"
ACCESS_TOKEN = re.compile(rb"\bhf_[A-Za-z0-9]{30,}\b")


@dataclass
class FolderContent:
    """What of a checkpoint folder is published.

    Attributes:
        folder (`Path`): The folder.
        is_adapter (`bool`): Whether it holds an adapter, and not a whole model.
        files (`dict[str, Path]`): The files to send, by their name in the repository.
        left_out (`dict[str, str]`): The other files and folders, with the reason why they are not sent.
        problems (`list[str]`): What is missing or damaged, a sentence each. An empty list says that the folder is complete.
    """

    folder: Path
    is_adapter: bool
    files: dict[str, Path] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def read_folder(folder: str | os.PathLike, include: Iterable[str] = ()) -> FolderContent:
    """Finds out which files of a folder are published, and what the folder lacks. Nothing is written.

    The model card and the licence are not checked here, since publishing adds to the card.

    Args:
        folder (`str` or `Path`): The folder of a checkpoint, or of an adapter.
        include (`Iterable[str]`, *optional*): Patterns of the names of further files to send, such as `"images/*.png"`.

    Returns:
        [`FolderContent`]: The files, what is left out, and the problems.

    Raises:
        FileNotFoundError: if there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    content = FolderContent(folder, is_adapter=(folder / ADAPTER_CONFIG).is_file())
    wanted = [*WORDS, *PROCESSOR, *(ADAPTER if content.is_adapter else MODEL), *include]
    if not content.is_adapter:
        wanted += _weight_files(content)
    _sort(content, "", wanted)
    # An adapter that PEFT alone saved has no processor: that of its base is taken. Half a processor is a damaged one.
    if not content.is_adapter or any(name in content.files for name in REQUIRED):
        for name in REQUIRED:
            _require(content, name)
    if content.is_adapter:
        _check_adapter(content)
    else:
        _check_model(content)
    for name, path in content.files.items():
        if path.suffix != ".safetensors" and path.stat().st_size < 10**7 and ACCESS_TOKEN.search(path.read_bytes()):
            content.problems.append(f"{name} holds what looks like an access token of the Hub; remove it")
    return content


def _sort(content: FolderContent, prefix: str, wanted: list[str]) -> None:
    """Puts each file below `prefix` among those to send, or with a reason among those left out."""
    for path in sorted((content.folder / prefix).iterdir()):
        name = f"{prefix}{path.name}"
        never = next((reason for pattern, reason in NEVER.items() if fnmatch(path.name, pattern)), None)
        if never is not None:
            content.left_out[f"{name}/" if path.is_dir() else name] = never
        elif path.is_dir():
            if any(pattern.startswith(f"{name}/") or fnmatch(name, pattern.rpartition("/")[0]) for pattern in wanted):
                _sort(content, f"{name}/", wanted)
            elif (path / ADAPTER_CONFIG).is_file():
                content.left_out[f"{name}/"] = "an adapter; publish its folder by itself"
            else:
                content.left_out[f"{name}/"] = OTHER
        elif any(fnmatch(name, pattern) for pattern in wanted):
            if path.is_file():
                content.files[name] = path
            else:
                content.problems.append(f"{name} is a link to a file that is not there ({os.readlink(path)})")
        elif name.endswith(".safetensors"):
            content.left_out[name] = "weights that this checkpoint does not name"
        else:
            content.left_out[name] = OTHER


def _require(content: FolderContent, name: str) -> None:
    if name not in content.files:
        content.problems.append(f"{name} is missing")


def _read_json(content: FolderContent, name: str) -> dict:
    """Reads a JSON file of the folder; an empty dictionary and a problem where it cannot be read."""
    path = content.folder / name
    try:
        return read_json(path) if path.is_file() else {}
    except ValueError as error:
        content.problems.append(str(error))
        return {}


# --- a whole model -------------------------------------------------------------------------------------------------


def _weight_files(content: FolderContent) -> list[str]:
    """Names the files of the weights: the one file, or those that the index names."""
    if (content.folder / SAFE_WEIGHTS_INDEX_NAME).exists():
        return sorted(set(_read_json(content, SAFE_WEIGHTS_INDEX_NAME).get("weight_map", {}).values()))
    return [SAFE_WEIGHTS_NAME]


def _check_model(content: FolderContent) -> None:
    for name in ("config.json", "generation_config.json"):
        _require(content, name)
    config = _read_json(content, "config.json")
    if config and config.get("model_type") != "microemo":
        content.problems.append(f'config.json: model_type is {config.get("model_type")!r}, expected "microemo"')
        config = {}
    if config.get("use_frame_timestamps", True):
        for name in ("tokenizer.json", "tokenizer_config.json"):
            _require(content, f"qformer_tokenizer/{name}")
    shapes = _read_shapes(content)
    _read_json(content, "generation_config.json")
    if not content.problems and "quantization_config" not in config:
        _check_against_model(content, shapes)


def _read_shapes(content: FolderContent) -> dict[str, tuple[int, ...]]:
    """Reads the names and shapes of all weights from the files' headers, and checks them against the index."""
    is_divided = (content.folder / SAFE_WEIGHTS_INDEX_NAME).exists()
    if is_divided and (content.folder / SAFE_WEIGHTS_NAME).exists():
        content.problems.append(
            f"{SAFE_WEIGHTS_NAME} and {SAFE_WEIGHTS_INDEX_NAME} are both there; remove the older of the two"
        )
    weight_map = _read_json(content, SAFE_WEIGHTS_INDEX_NAME).get("weight_map", {})
    if is_divided and not weight_map:
        content.problems.append(f"{SAFE_WEIGHTS_INDEX_NAME} names no weights")
    shapes: dict[str, tuple[int, ...]] = {}
    for file in _weight_files(content):
        if file not in content.files:
            by_index = f", which {SAFE_WEIGHTS_INDEX_NAME} names" if is_divided else ""
            content.problems.append(f"{file} is missing{by_index}")
            continue
        found = _read_header(content, file)
        if found is not None:
            shapes |= found
            if is_divided:
                named = {name for name, place in weight_map.items() if place == file}
                _name_difference(content, f"{file} lacks weights that the index places there", named - set(found))
                _name_difference(content, f"{file} holds weights that the index does not name", set(found) - named)
    return shapes


def _read_header(content: FolderContent, file: str) -> dict[str, tuple[int, ...]] | None:
    try:
        with safe_open(content.files[file], "pt") as weights:
            return {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        content.problems.append(f"{file} cannot be read as safetensors ({error}); it may be cut short")
        return None


def _name_difference(content: FolderContent, sentence: str, names: set[str]) -> None:
    if names:
        some = ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
        content.problems.append(f"{sentence}: {len(names)} ({some})")


def _check_against_model(content: FolderContent, shapes: dict[str, tuple[int, ...]]) -> None:
    """Checks that weights and processor are those of the configuration, as `from_pretrained` would see them."""
    try:
        config = MicroEmoConfig.from_pretrained(content.folder)
        with torch.device("meta"):
            model = MicroEmoForConditionalGeneration(config)
        processor = MicroEmoProcessor.from_pretrained(content.folder)
        processor.check_config(config)
    except Exception as error:  # whatever a damaged file makes of a library
        content.problems.append(f"it cannot be loaded: {error}")
        return
    expected = {
        name: tuple(tensor.shape)
        for name, tensor in model.state_dict().items()
        if name not in model.all_tied_weights_keys
    }
    _name_difference(content, "weights of the model are missing", set(expected) - set(shapes))
    wrong = {name for name, shape in expected.items() if name in shapes and shapes[name] != shape}
    _name_difference(content, "weights have another shape than config.json gives them", wrong)


# --- an adapter ----------------------------------------------------------------------------------------------------


def _check_adapter(content: FolderContent) -> None:
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        _require(content, name)
    found = _read_header(content, ADAPTER_WEIGHTS) if ADAPTER_WEIGHTS in content.files else None
    if found == {}:
        content.problems.append(f"{ADAPTER_WEIGHTS} holds no weights")
    # A training run saves the configuration, which it may have changed. PEFT alone does not: that of the base is taken.
    if (content.folder / RUN_FACTS).is_file() or any(name.endswith(IMAGE_QUERIES) for name in found or ()):
        _require(content, ADAPTER_MODEL_CONFIG)
    config = _read_json(content, ADAPTER_MODEL_CONFIG)
    if config and config.get("model_type") != "microemo":
        content.problems.append(f'{ADAPTER_MODEL_CONFIG}: model_type is {config.get("model_type")!r}, not "microemo"')
    for name in (ADAPTER_CONFIG, *REQUIRED):
        if name.endswith(".json"):
            _read_json(content, name)
