import configparser
import subprocess
import sys
from pathlib import Path

LIGHT = """
import sys
from transformers import AutoConfig, AutoModelForMultimodalLM, AutoProcessor
import microemo
heavy = {"av", "mediapipe", "cv2", "datasets", "peft", "trl"} & sys.modules.keys()
heavy |= {name for name in sys.modules if name.startswith(("microemo.modeling", "microemo.processing"))}
assert not heavy, heavy
assert microemo.MicroEmoProcessor.__name__ == "MicroEmoProcessor"
assert "microemo.processing.processing_microemo" in sys.modules
"""


def test_import_is_light():
    """Model code, PyAV and MediaPipe load on first use."""
    subprocess.run([sys.executable, "-c", LIGHT], check=True)


def test_registration():
    from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoModelForMultimodalLM

    import microemo

    config = microemo.MicroEmoConfig.from_preset("microemo-tiny")
    assert type(AutoConfig.for_model("microemo")) is microemo.MicroEmoConfig
    assert type(AutoModel.from_config(config)) is microemo.MicroEmoModel
    for auto_class in (AutoModelForMultimodalLM, AutoModelForImageTextToText):
        assert type(auto_class.from_config(config)) is microemo.MicroEmoForConditionalGeneration


def test_unknown_names_are_attribute_errors():
    import microemo

    assert set(microemo.__all__) <= set(dir(microemo))
    assert not hasattr(microemo, "MacroEmo")


def test_data_files_travel_with_the_package():
    root = Path(__file__).parents[1]
    setup = configparser.ConfigParser()
    setup.read(root / "setup.cfg", encoding="utf-8")
    found = 0
    for package in setup["options"]["packages"].split():
        folder = root.joinpath(*package.split(".")[1:])
        declared = setup["options.package_data"].get(package, "").split()
        kept = {path for pattern in declared for path in folder.glob(pattern)}
        if folder != root:  # whose other folders are packages of their own
            files = {path for suffix in ("yaml", "json", "csv") for path in folder.rglob(f"*.{suffix}")}
            assert files <= kept, f"package_data of {package} lacks {files - kept}"
            found += len(files)
    assert found > 10
