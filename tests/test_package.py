import configparser
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

LIGHT = """
import sys
import microemo
heavy = {"mediapipe", "cv2", "datasets", "peft", "trl"} & sys.modules.keys()
heavy |= {name for name in sys.modules if name.startswith(("microemo.training", "microemo.commands"))}
assert not heavy, heavy
"""

# Loads the video processors of two other models and ours, by their Auto classes, after the import of microemo.
OTHERS = """
import sys
import microemo
from transformers import AutoProcessor
from transformers.models.auto.video_processing_auto import AutoVideoProcessor
from transformers.utils import is_torchvision_available

others, ours, has_torchvision = sys.argv[1:3], sys.argv[3], sys.argv[4] == "torchvision"
assert is_torchvision_available() == has_torchvision
for folder in others:
    try:
        loaded = type(AutoVideoProcessor.from_pretrained(folder))
    except ImportError as error:
        assert not has_torchvision and "Torchvision" in str(error), error
    else:
        assert has_torchvision and loaded.__module__.startswith("transformers.models."), loaded
assert type(AutoVideoProcessor.from_pretrained(ours)) is microemo.MicroEmoVideoProcessor
processor = AutoProcessor.from_pretrained(ours)
assert type(processor) is microemo.MicroEmoProcessor
assert type(processor.video_processor) is microemo.MicroEmoVideoProcessor
"""


def test_import_is_light(run_fresh):
    """MediaPipe and all that training needs load on first use."""
    done = run_fresh(LIGHT)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def other_video_processors(tmp_path_factory) -> list[str]:
    """Folders as other video models have them."""
    folders = []
    for model_type, name in (
        ("qwen2_vl", "Qwen2VLVideoProcessor"),
        ("llava_onevision", "LlavaOnevisionVideoProcessor"),
    ):
        folder = tmp_path_factory.mktemp(model_type)
        (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
        (folder / "video_preprocessor_config.json").write_text(json.dumps({"video_processor_type": name}))
        folders.append(str(folder))
    return folders


@pytest.mark.parametrize("installed", ["torchvision", "no torchvision"])
def test_video_processors_of_other_models_load_after_the_import(installed, other_video_processors, torchvision_path):
    if installed != "torchvision" and not torchvision_path:
        pytest.skip("torchvision is installed here")
    ours = str(Path(__file__).parents[1] / "checkpoints" / "microemo-tiny")
    environment = dict(os.environ)
    if installed == "torchvision" and torchvision_path:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (torchvision_path, environment.get("PYTHONPATH"))))
    run = [sys.executable, "-c", OTHERS, *other_video_processors, ours, installed]
    outcome = subprocess.run(run, env=environment, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stderr


def test_auto_mappings_hold_real_classes():
    from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_MULTIMODAL_LM_MAPPING, MODEL_MAPPING
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
    from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING

    import microemo

    config = microemo.MicroEmoConfig
    assert MODEL_MAPPING[config] is microemo.MicroEmoModel
    assert MODEL_FOR_MULTIMODAL_LM_MAPPING[config] is microemo.MicroEmoForConditionalGeneration
    assert PROCESSOR_MAPPING[config] is microemo.MicroEmoProcessor
    assert FEATURE_EXTRACTOR_MAPPING[config] is microemo.MicroEmoFeatureExtractor
    assert VIDEO_PROCESSOR_MAPPING[config] == {"torchvision": microemo.MicroEmoVideoProcessor}


def test_auto_classes_make_ours_from_a_configuration():
    from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoModelForMultimodalLM

    import microemo

    config = microemo.MicroEmoConfig.from_preset("microemo-tiny")
    assert type(AutoConfig.for_model("microemo")) is microemo.MicroEmoConfig
    assert type(AutoModel.from_config(config)) is microemo.MicroEmoModel
    for auto_class in (AutoModelForMultimodalLM, AutoModelForImageTextToText):
        assert type(auto_class.from_config(config)) is microemo.MicroEmoForConditionalGeneration


def test_the_stated_python_is_the_one_that_the_code_needs():
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parents[1] / "setup.cfg", encoding="utf-8")
    assert setup["options"]["python_requires"] == ">=3.11"


def test_data_files_travel_with_the_package():
    root = Path(__file__).parents[1]
    setup = configparser.ConfigParser()
    setup.read(root / "setup.cfg", encoding="utf-8")
    found = 0
    packages = setup["options"]["packages"].split()
    folders = {package: root.joinpath(*package.split(".")[1:]) for package in packages}
    for package, folder in folders.items():
        declared = setup["options.package_data"].get(package, "").split()
        kept = {path for pattern in declared for path in folder.glob(pattern)}
        if folder != root:  # whose other folders are packages of their own
            inner = [other for other in folders.values() if folder in other.parents]
            files = {path for suffix in ("yaml", "json", "csv") for path in folder.rglob(f"*.{suffix}")}
            files = {path for path in files if not any(other in path.parents for other in inner)}
            assert files <= kept, f"package_data of {package} lacks {files - kept}"
            found += len(files)
        else:
            assert folder / "py.typed" in kept, "type checkers read annotations of typed packages only"
    assert found > 10


def test_every_module_pattern_stands_in_one_mypy_section():
    """Of two sections with the same pattern mypy reads the last one, and says nothing."""
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parents[1] / "setup.cfg", encoding="utf-8")
    sections = [name.removeprefix("mypy-").split(",") for name in setup.sections() if name.startswith("mypy-")]
    patterns = [pattern for section in sections for pattern in section]
    assert patterns and len(patterns) == len(set(patterns))
