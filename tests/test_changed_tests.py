"""`make test-changed` finds the tests of a change."""

import importlib.util
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def changed_tests():
    spec = importlib.util.spec_from_file_location("changed_tests", ROOT / "tests" / "changed_tests.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("file", "tests"),
    [
        ("processing/prompt_microemo.py", ["tests/processing/test_prompt.py"]),
        (
            "processing/processing_microemo.py",
            ["tests/processing/test_processing.py", "tests/processing/test_processing_conventions.py"],
        ),
        ("processing/utterance_formats/subtitles.py", ["tests/processing/test_subtitles.py"]),
        ("training/collator.py", ["tests/training/test_training_collator.py"]),
        ("training/synthetic/voice.py", ["tests/training/synthetic/test_voice.py"]),
        ("commands/train_command.py", ["tests/training/test_train_command.py"]),
        # without tests of their own: tests that import from it, and tests of modules that do
        ("evaluation/result_plots.py", ["tests/evaluation/test_results.py"]),
        (
            "processing/model_switches.py",
            ["tests/processing/test_processing.py", "tests/processing/test_processing_conventions.py"],
        ),
        (
            "modeling_microemo/qformer.py",
            ["tests/modeling_microemo/test_video_qformer.py", "tests/modeling_microemo/test_visual_encoder.py"],
        ),
        ("tests/utils/test_files.py", ["tests/utils/test_files.py"]),
        ("docs/prompt.md", ["tests/test_documentation.py"]),
        ("README.md", ["tests/test_documentation.py"]),
        ("training/__init__.py", []),
    ],
)
def test_the_tests_of_a_file(changed_tests, file, tests):
    assert changed_tests.tests_of(file) == tests


def test_every_module_has_tests_that_are_there(changed_tests):
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    for room in rooms:
        for path in (ROOT / room).rglob("*.py"):
            file = path.relative_to(ROOT).as_posix()
            if path.name != "__init__.py":
                tests = changed_tests.tests_of(file)
                assert tests or path.parent.name == "open_vocabulary_emotion", f"{file} has no tests"
                assert all((ROOT / test).exists() for test in tests), file


def test_changes_and_new_files_are_found(changed_tests, tmp_path, monkeypatch):
    def git(*words):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=tmp_path, check=True)

    git("init", "-q")
    for name in ("same.py", "changed.py", "deleted.py"):
        (tmp_path / name).write_text("1\n")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    (tmp_path / "changed.py").write_text("2\n")
    (tmp_path / "deleted.py").unlink()
    (tmp_path / "new.py").write_text("3\n")
    monkeypatch.setattr(changed_tests, "ROOT", tmp_path)
    assert changed_tests.changed_files() == ["changed.py", "new.py"]
