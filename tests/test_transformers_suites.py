"""The script of `make test-suites`; the suites themselves are no part of these tests."""

import ast
import importlib
import runpy
from pathlib import Path

import pytest

from microemo.utils.files import read_text

SCRIPT = Path(__file__).with_name("transformers_suites.py")


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(SCRIPT))


def test_a_folder_that_is_not_there_is_named(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TESTERS", str(tmp_path / "nowhere"))
    assert script["main"]() == 2
    assert f"{tmp_path / 'nowhere'}: no such folder" in capsys.readouterr().err


def test_testers_of_version_0_1_get_todays_names(script):
    old = "from microemo.modeling_microemo.audio_branch import MicroEmoAudioModel\nnum_clips=2, self.num_clips = audio_clip_mask"
    assert script["with_new_names"](old) == (
        "from microemo.modeling_microemo.towers import MicroEmoAudioModel\nnum_segments=2, self.num_clips = audio_segment_mask"
    )


def test_the_testers_import_what_there_is(script, shared):
    for path in (shared / "transformers_suite").glob("test_*.py"):
        for node in ast.walk(ast.parse(script["with_new_names"](read_text(path)))):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("microemo"):
                module = importlib.import_module(str(node.module))
                assert all(hasattr(module, alias.name) for alias in node.names), (path.name, node.module)
