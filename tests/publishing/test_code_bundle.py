"""The code that travels with a checkpoint: what is in it, and that Transformers alone loads it."""

import ast
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from transformers import ImageTextToTextPipeline, pipeline
from transformers.dynamic_module_utils import get_imports, get_relative_import_files, get_relative_imports

import microemo
from microemo.inference.emotion_pipeline import TASK, EmotionPipeline
from microemo.publishing.code_bundle import bundle_modules, find_modules, flatten_imports, write_code_bundle
from microemo.publishing.initialize import SHIPPED
from microemo.tests.modeling_microemo.test_towers import PICTURES, make, with_audio_tower

SCRIPT = Path(__file__).with_name("load_without_package.py")
# What Transformers and torch bring along.
REQUIRED = {"fsspec", "huggingface_hub", "numpy", "torch", "transformers"}


@pytest.fixture(scope="module")
def bundled(tmp_path_factory) -> Path:
    """A copy of the shipped checkpoint with its code."""
    folder = Path(shutil.copytree(SHIPPED, tmp_path_factory.mktemp("bundle") / "tiny-v1.0"))
    write_code_bundle(folder)
    return folder


@pytest.fixture(scope="module")
def towers(tmp_path_factory) -> Path:
    """A model with encoders of Transformers, and its code."""
    folder = tmp_path_factory.mktemp("bundle") / "towers"
    vision = {"model_type": "siglip_vision_model", **PICTURES["siglip_vision_model"]}
    model, processor = make(with_audio_tower("whisper", vision_config=vision))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    write_code_bundle(folder)
    return folder


def relative_imports(source: str) -> set[str]:
    nodes = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom) and node.level)
    return {"." * node.level + (node.module or "") for node in nodes}


def test_every_import_between_modules_of_a_bundle_leads_to_a_module_in_it():
    modules = bundle_modules()
    assert {"modeling_microemo.py", "processing_microemo.py", "emotion_pipeline.py"} <= modules.keys()
    for name, source in modules.items():
        for imported in relative_imports(source):
            assert imported.count(".") == 1 and f"{imported[1:]}.py" in modules, f"{name}: {imported}"


def test_transformers_finds_the_same_imports_as_python(bundled):
    """It searches the text with a regular expression, which could also match a line of a docstring."""
    for path in bundled.glob("*.py"):
        assert {f".{name}" for name in get_relative_imports(path)} == relative_imports(path.read_text("utf-8")), path


def test_the_model_brings_the_whole_bundle_and_the_processor_no_model(bundled):
    def closure(name):
        return {Path(file).name for file in get_relative_import_files(bundled / name)} | {name}

    everything = {path.name for path in bundled.glob("*.py")}
    assert closure("modeling_microemo.py") == everything
    assert not {"modeling_microemo.py", "emotion_pipeline.py"} & closure("processing_microemo.py")
    assert closure("configuration_microemo.py") == {
        "configuration_microemo.py",
        "remote_code.py",
        "tower_table.py",
    }


def test_a_bundle_needs_nothing_but_transformers_and_holds_nothing_needless(bundled):
    for path in bundled.glob("*.py"):
        needed = set(get_imports(path)) - sys.stdlib_module_names
        assert needed <= REQUIRED, f"{path.name} needs {needed - REQUIRED}"
    rooms = {path.parts[0] for path in find_modules([PurePosixPath("inference/emotion_pipeline.py")])}
    assert rooms == {"configuration", "inference", "modeling_microemo", "processing", "utils"}
    assert not {"convert_original.py", "run_dataset.py", "code_bundle.py"} & bundle_modules().keys()


def test_names_in_a_bundle_are_unique():
    paths = find_modules([PurePosixPath("inference/emotion_pipeline.py")])
    assert max(Counter(path.name for path in paths).values()) == 1


@pytest.mark.parametrize(
    ("source", "flat"),
    [
        ("from ..room.module import Name", "from .module import Name"),
        ("from ..room.sub.module import Name", "from .module import Name"),
        ("from ...room.module import Name as Other", "from .module import Name as Other"),
        ("from .module import (\n    One,\n    Two,\n)", "from .module import (\n    One,\n    Two,\n)"),
        ("from .sub.module import (  # noqa\n    One,\n)", "from .module import (  # noqa\n    One,\n)"),
        ("if TYPE_CHECKING:\n    from ..room.module import Name", "if TYPE_CHECKING:\n    from .module import Name"),
        ("def f():\n\tfrom  ..room.module  import Name", "def f():\n\tfrom .module import Name"),
        ("try: from ..room.module import Name\nexcept ImportError: pass", None),
        ('text = """\nfrom ..room.module import Name\n"""', 'text = """\nfrom ..room.module import Name\n"""'),
        ("# \x0c \u2028\nfrom ..room.module import Name\n", "# \x0c \u2028\nfrom .module import Name\n"),
    ],
)
def test_relative_imports_are_flattened_at_any_depth(source, flat):
    flattened = flatten_imports(source)
    assert flattened == (source.replace("..room.module", ".module") if flat is None else flat)


def test_an_import_that_names_no_module_is_refused():
    with pytest.raises(
        ValueError, match=r"a\.py, line 2: expected `from \.module import Name`, got `from \. import b`"
    ):
        flatten_imports("import os\nfrom . import b\n", "a.py")


def test_a_second_call_changes_nothing_and_other_models_are_refused(bundled, tmp_path):
    before = {path.name: path.read_bytes() for path in bundled.iterdir() if path.is_file()}
    write_code_bundle(bundled)
    assert {path.name: path.read_bytes() for path in bundled.iterdir() if path.is_file()} == before
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(ValueError, match="expected the model type 'microemo', got 'llama'"):
        write_code_bundle(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json: not JSON"):
        write_code_bundle(tmp_path)


def test_configurations_name_the_classes_and_the_pipeline(bundled):
    config, processor = (json.loads((bundled / f"{name}.json").read_text()) for name in ("config", "processor_config"))
    assert config["custom_pipelines"] == {
        TASK: {
            "impl": f"emotion_pipeline.{EmotionPipeline.__name__}",
            "pt": ["AutoModelForMultimodalLM"],
            "type": "multimodal",
        }
    }
    parts = (processor["video_processor"], processor["feature_extractor"])
    references = [config["auto_map"], processor["auto_map"], *(part["auto_map"] for part in parts)]
    named = {auto_class: reference for auto_map in references for auto_class, reference in auto_map.items()}
    assert set(named) == {
        *("AutoConfig", "AutoModel", "AutoModelForImageTextToText", "AutoModelForMultimodalLM"),
        *("AutoProcessor", "AutoVideoProcessor", "AutoFeatureExtractor"),
    }
    for reference in named.values():
        module, name = reference.split(".")
        assert f"class {name}(" in (bundled / f"{module}.py").read_text("utf-8")


def test_the_package_loads_a_bundle_with_its_own_classes_and_saves_no_reference_to_it(bundled, tmp_path):
    config = microemo.MicroEmoConfig.from_pretrained(bundled)
    assert not config.auto_map
    assert type(pipeline(model=str(bundled))) is EmotionPipeline  # which finds the task by itself
    assert type(pipeline(model=str(bundled), trust_remote_code=True)) is EmotionPipeline
    assert type(pipeline("image-text-to-text", model=str(bundled))) is ImageTextToTextPipeline
    processor = microemo.MicroEmoProcessor.from_pretrained(bundled)
    config.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    for name in ("config.json", "processor_config.json"):
        text = (tmp_path / name).read_text()
        assert "auto_map" not in text and "emotion_pipeline" not in text and "custom_pipelines" not in text


def cache_as_repository(cache: Path, folder: Path) -> None:
    """Lays a copy of a folder into a cache of the Hub as `snapshot_download` does, as the repository `lab/micro.emo-1`."""
    repository = cache / "models--lab--micro.emo-1"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    shutil.copytree(folder, repository / "snapshots" / ("0" * 40))


def test_both_tokenizers_are_found_without_a_network_after_a_download_of_the_whole_repository(bundled, tmp_path):
    cache_as_repository(tmp_path, bundled)
    processor = microemo.MicroEmoProcessor.from_pretrained(
        "lab/micro.emo-1", cache_dir=tmp_path, local_files_only=True
    )
    assert len(processor.qformer_tokenizer) < 64 < len(processor.tokenizer)


@pytest.mark.parametrize("installed", ["plain", pytest.param("torchvision", marks=pytest.mark.slow)])
def test_transformers_alone_loads_answers_and_saves(installed, bundled, towers, make_clip, torchvision_path, tmp_path):
    if installed == "plain" and not torchvision_path:
        pytest.skip("torchvision is installed here")
    home = tmp_path / "home"
    cache_as_repository(home / "hub", bundled)
    environment = os.environ | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    for name in ("HF_HUB_CACHE", "HF_MODULES_CACHE", "TRANSFORMERS_CACHE"):
        environment.pop(name, None)
    if installed == "torchvision" and torchvision_path:  # before a Transformers of another version
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (torchvision_path, environment.get("PYTHONPATH"))))
    clip = make_clip(f"bundle-{installed}.mp4", times=np.arange(9) / 10, sound=0.9)
    run = [sys.executable, str(SCRIPT), str(bundled), str(tmp_path / "out"), str(clip), str(towers), installed]
    outcome = subprocess.run(run, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert outcome.returncode == 0, outcome.stderr
