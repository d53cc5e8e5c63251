"""The code that travels with a checkpoint, so that Transformers loads it where this package is not installed.

[`write_code_bundle`] lays the modules of the model, the processor and the pipeline flat beside the weights, and names their
classes in the folder's configurations. `from_pretrained(..., trust_remote_code=True)` and `pipeline` then find them; with
`import microemo` the package's own classes are used as before.
"""

import ast
import functools
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from transformers.utils import CONFIG_NAME, PROCESSOR_NAME

from ..configuration.configuration_microemo import MicroEmoConfig
from ..utils.atomic_files import write_text
from ..utils.files import read_json
from .auto_classes import MODEL_CLASSES, PROCESSING_CLASSES

ROOT = Path(__file__).parents[1]
# The pipeline's room stands above this one, which does not import it.
PIPELINE_MODULE, PIPELINE_CLASS = PurePosixPath("inference/emotion_pipeline.py"), "EmotionPipeline"
PIPELINE_TASK, PIPELINE_MODEL = "video-emotion-recognition", "AutoModelForMultimodalLM"

# Appended to the modules of the models. Transformers saves a model together with the modules that its own one imports, and
# the configuration that it saves names the pipeline.
_PIPELINE_OF_MODEL = f"""
from typing import TYPE_CHECKING  # noqa: E402

if TYPE_CHECKING:  # the pipeline is saved with the model
    from .{PIPELINE_MODULE.stem} import {PIPELINE_CLASS}  # noqa: F401
"""


def write_code_bundle(folder: str | Path) -> list[str]:
    """Writes the code of MicroEmo into a checkpoint folder, and names its classes in the folder's configurations.

    A second call replaces the modules of the first one. The fields `auto_map` (in `config.json` and `processor_config.json`,
    and there also of the video processor and the feature extractor) and `custom_pipelines` are set; all else stays.

    Args:
        folder (`str` or `Path`): A folder that `save_pretrained` of model and processor wrote.

    Returns:
        `list[str]`: The names of the modules written, sorted.

    Raises:
        FileNotFoundError: if the folder has no `config.json`. Without `processor_config.json` the model alone is named.
        ValueError: if a configuration is not a JSON object, or is of another model.

    Example:

    ```python
    >>> from microemo.publishing.code_bundle import write_code_bundle
    >>> from microemo.publishing.initialize import initialize

    >>> "modeling_microemo.py" in write_code_bundle(initialize("microemo-tiny", "tiny"))
    True
    ```"""
    folder = Path(folder)
    config, processor = folder / CONFIG_NAME, folder / PROCESSOR_NAME
    fields = {config: _model_fields(_read(config))}
    if processor.is_file():
        fields[processor] = _processor_fields(_read(processor))
    modules = bundle_modules()
    for name, source in modules.items():
        write_text(folder / name, source)
    for path, content in fields.items():  # last: they name what is there by now
        write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return sorted(modules)


@functools.cache
def bundle_modules() -> dict[str, str]:
    """Collects the modules that the classes of the Auto classes and the pipeline need, by the imports in them.

    Returns:
        `dict[str, str]`: The name of each file in the folder, and its source. Imports between rooms are rewritten for
        modules that lie side by side.

    Raises:
        ValueError: if two modules have the same name, or an import cannot be rewritten.
    """
    paths = find_modules([*(_module_path(cls) for cls in _classes()), PIPELINE_MODULE])
    modules = {}
    for path in paths:
        if path.name in modules:
            raise ValueError(f"{path}: a second module named {path.name}; names in a checkpoint folder are unique")
        modules[path.name] = flatten_imports((ROOT / path).read_text(encoding="utf-8"), path.as_posix())
    for name in {_module_path(cls).name for cls in MODEL_CLASSES.values()}:
        modules[name] += _PIPELINE_OF_MODEL
    return modules


def find_modules(entries: Iterable[PurePosixPath]) -> list[PurePosixPath]:
    """Follows the imports of modules, those inside functions and for type checkers too.

    Args:
        entries (`Iterable[PurePosixPath]`): The modules to begin with, as paths from the package's folder.

    Returns:
        `list[PurePosixPath]`: These and all modules of the package that they import, directly or through others, sorted.
    """
    found, waiting = set(), list(entries)
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += _imported_modules(path)
    return sorted(found)


def flatten_imports(source: str, name: str = "<source>") -> str:
    """Rewrites relative imports for modules that lie side by side: `from ..room.module import` to `from .module import`.

    Args:
        source (`str`): The source of a module.
        name (`str`, *optional*, defaults to `"<source>"`): The name of the module, for messages.

    Returns:
        `str`: The source. Everything but the relative imports is as it was.

    Raises:
        ValueError: if a relative import names no module, as `from . import module` does.
    """
    lines = source.split("\n")
    for node in _relative_imports(ast.parse(source)):
        if node.module is None:
            raise ValueError(
                f"{name}, line {node.lineno}: expected `from .module import Name`, got `{ast.unparse(node)}`"
            )
        line, start = lines[node.lineno - 1], node.col_offset
        module = node.module.rpartition(".")[2]
        rewritten, count = re.subn(r"^from\s+\.[\w.\s]*?\s+import\b", f"from .{module} import", line[start:], count=1)
        if not count:
            raise ValueError(f"{name}, line {node.lineno}: an import that cannot be rewritten: {line.strip()}")
        lines[node.lineno - 1] = line[:start] + rewritten
    return "\n".join(lines)


def _classes() -> list[type]:
    return [MicroEmoConfig, *MODEL_CLASSES.values(), *PROCESSING_CLASSES.values()]


def _module_path(cls: type) -> PurePosixPath:
    """The module of a class, as a path from the package's folder."""
    return PurePosixPath(*cls.__module__.split(".")[1:]).with_suffix(".py")


def _relative_imports(tree: ast.Module) -> Iterator[ast.ImportFrom]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level > 0)


def _imported_modules(path: PurePosixPath) -> list[PurePosixPath]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return [
        path.parents[node.level - 1].joinpath(*(node.module or "").split(".")).with_suffix(".py")
        for node in _relative_imports(tree)
    ]


def _reference(cls: type) -> str:
    """A class as `auto_map` names it: `module.Class`."""
    return f"{_module_path(cls).stem}.{cls.__name__}"


def _model_fields(config: dict[str, Any]) -> dict[str, Any]:
    if config.get("model_type") != MicroEmoConfig.model_type:
        raise ValueError(
            f"{CONFIG_NAME}: expected the model type {MicroEmoConfig.model_type!r}, got {config.get('model_type')!r}"
        )
    auto_map = {"AutoConfig": _reference(MicroEmoConfig)}
    auto_map |= {auto_class.__name__: _reference(cls) for auto_class, cls in MODEL_CLASSES.items()}
    pipeline = {"impl": f"{PIPELINE_MODULE.stem}.{PIPELINE_CLASS}", "pt": [PIPELINE_MODEL], "type": "multimodal"}
    return config | {"auto_map": auto_map, "custom_pipelines": {PIPELINE_TASK: pipeline}}


def _processor_fields(config: dict[str, Any]) -> dict[str, Any]:
    """The processor's configuration with `auto_map`, also in those of its parts that have an Auto class of their own."""
    references = {auto_class.__name__: _reference(cls) for auto_class, cls in PROCESSING_CLASSES.items()}
    for part, auto_class in (("video_processor", "AutoVideoProcessor"), ("feature_extractor", "AutoFeatureExtractor")):
        if part in config:
            config = config | {part: config[part] | {"auto_map": {auto_class: references[auto_class]}}}
    return config | {"auto_map": {"AutoProcessor": references["AutoProcessor"]}}


def _read(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content
