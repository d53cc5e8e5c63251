"""Help, completion and mistakes are answered without the libraries that take seconds to import."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "transformers", "numpy", "av", "mediapipe", "datasets", "pandas", "matplotlib")


@pytest.fixture(scope="module")
def script(tmp_path_factory) -> Path:
    """The script that an installation makes of the entry point."""
    path = tmp_path_factory.mktemp("bin") / "microemo"
    path.write_text("import sys\nfrom microemo.commands.main import main\nsys.exit(main())\n")
    return path


def run(script, *arguments, **environment) -> tuple[subprocess.CompletedProcess, set[str]]:
    """The process that has ended, and the heavy libraries that it imported."""
    outcome = subprocess.run(
        [sys.executable, *script, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1", "COLUMNS": "200", **environment},
    )
    imported = set(re.findall(r"^import time:.*\| +([\w.]+)$", outcome.stderr, re.MULTILINE))
    assert "typer" in imported  # or the list would be no list of imports
    return outcome, imported & set(HEAVY)


@pytest.mark.parametrize(
    ("arguments", "code", "answer"),
    [
        (["--help"], 0, "open vocabulary|open, explainable"),
        (["--version"], 0, r"microemo \d+\.\d+\.\d+"),
        (["evaluate", "table", "--help"], 0, "Labels per answer"),
        (["score-dialogues", "--help"], 0, "--citation"),
        (["train", "--help"], 0, "--list-options"),
        (["evaluate", "score", "--nope"], 2, "No such option: --nope"),
        (["nope"], 2, "No such command"),
        (["synthesize", "out", "--clips", "0"], 2, "Invalid value for '--clips'"),
        (["predict", "nope.mp4"], 2, "nope.mp4: no such file"),
        (["predict", "here.txt", "--model", "./nope"], 2, "./nope: no such file or folder"),
        (["evaluate", "score", "here.txt", "-r", "nope.csv"], 2, "nope.csv: no such file"),
        (["evaluate", "score", "A=nope.jsonl", "-r", "here.txt"], 2, "A=nope.jsonl: no such file or folder"),
        (["evaluate", "run", "a/b", "nope.jsonl", "-o", "out.jsonl"], 2, "nope.jsonl: no such file"),
        (["train", "nope"], 2, "no such recipe; a YAML file, or one of stage1"),
        (["precompute", "nope.jsonl", "--model", "m", "--cache", "c"], 2, "nope.jsonl: no such file or folder"),
        (["merge", "nope", "out"], 2, "nope: no such folder"),
        (["score-dialogues", "m", "nope"], 2, "nope: no such folder"),
        (
            [
                *("convert", "--vision", "nope.pth", "--qformer", "q", "--video-branch", "v"),
                *("--llm", "l", "--qformer-tokenizer", "t", "-o", "out"),
            ],
            2,
            "nope.pth: no such file or folder",
        ),
    ],
)
def test_what_needs_no_model_imports_none(script, tmp_path, monkeypatch, arguments, code, answer):
    monkeypatch.chdir(tmp_path)
    Path("here.txt").write_text("x")
    outcome, heavy = run([script], *arguments)
    assert outcome.returncode == code, outcome.stderr[-2000:]
    assert re.search(answer, outcome.stdout + outcome.stderr), outcome.stdout + outcome.stderr[-2000:]
    assert not heavy and "Traceback" not in outcome.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["here.txt"]


def test_completion(script):
    words = {"COMP_WORDS": "microemo eval", "COMP_CWORD": "1", "_TYPER_COMPLETE_ARGS": "microemo eval"}
    outcome, heavy = run([script], _MICROEMO_COMPLETE="complete_bash", **words)
    assert outcome.stdout.split() == ["evaluate"] and not heavy


def test_the_module_answers_as_quickly():
    outcome, heavy = run(["-m", "microemo.commands.main"], "--help")
    assert outcome.returncode == 0 and not heavy


def test_a_command_that_loads_a_model_knows_the_classes(script, tmp_path):
    """The command begins without them."""
    (tmp_path / "microemo").write_text(
        "from microemo.commands.shared_options import load_libraries\n"
        "import sys\n"
        "assert 'torch' not in sys.modules\n"
        "load_libraries()\n"
        "from transformers import AutoConfig\n"
        "import microemo\n"
        "assert type(AutoConfig.for_model('microemo')) is microemo.MicroEmoConfig\n"
    )
    subprocess.run([sys.executable, tmp_path / "microemo"], check=True)


def test_the_processes_that_a_command_starts_know_the_classes(tmp_path):
    (tmp_path / "microemo").write_text(
        "import multiprocessing, sys\n"
        "from microemo.commands.shared_options import load_libraries\n"
        "def of_a_child(name):\n"
        "    import microemo\n"
        "    from transformers import AutoConfig\n"
        "    return type(AutoConfig.for_model(name)).__name__\n"
        "if __name__ == '__main__':\n"
        "    load_libraries()\n"
        "    for method in ('fork', 'spawn'):\n"
        "        with multiprocessing.get_context(method).Pool(1) as pool:\n"
        "            print(pool.apply(of_a_child, ['microemo']))\n"
    )
    outcome = subprocess.run([sys.executable, tmp_path / "microemo"], capture_output=True, text=True)
    assert outcome.stdout.split() == ["MicroEmoConfig"] * 2, outcome.stderr


def test_names_of_the_package_are_there_in_a_command_too(tmp_path):
    (tmp_path / "microemo").write_text(
        "import sys\n"
        "import microemo\n"
        "assert 'torch' not in sys.modules\n"
        "from microemo import *\n"
        "from microemo import EmotionPipeline, read_utterances\n"
        "from transformers import AutoProcessor\n"
        "assert set(microemo.__all__) <= set(dir(microemo)) & set(globals())\n"
        "try:\n"
        "    microemo.Nope\n"
        "except AttributeError as error:\n"
        "    print(error)\n"
    )
    outcome = subprocess.run([sys.executable, tmp_path / "microemo"], capture_output=True, text=True)
    assert outcome.stdout.strip() == "module 'microemo' has no attribute 'Nope'", outcome.stderr


def test_columns_and_settings_are_those_of_the_evaluation():
    """The command names them without importing it."""
    from microemo.commands import evaluate_command
    from microemo.evaluation.result_tables import COLUMNS
    from microemo.evaluation.systems import SETTINGS

    assert tuple(COLUMNS) == evaluate_command.COLUMNS and tuple(SETTINGS) == evaluate_command.SETTINGS
