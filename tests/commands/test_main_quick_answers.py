"""Help, completion and mistakes are answered without the libraries that take seconds to import."""

import os
import re
import subprocess
import sys

import pytest

HEAVY = {"torch", "transformers", "numpy", "av", "mediapipe", "datasets", "pandas", "matplotlib"}


ANSWERS = [
    (["--help"], 0, "open vocabulary|open, explainable"),
    (["--version"], 0, r"microemo \d+\.\d+\.\d+"),
    (["evaluate", "table", "--help"], 0, "Labels per answer"),
    (["score-dialogues", "--help"], 0, "--citation"),
    (["train", "--help"], 0, "--list-options"),
    (["serve", "--help"], 0, "--local-media"),
    (["serve", "./nope"], 2, "./nope: no such file or folder"),
    (["serve", "--local-media", "nope"], 2, "nope: no such folder"),
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
]


@pytest.fixture(scope="module")
def outcomes(fork_commands, tmp_path_factory):
    """What each command of `ANSWERS` answers, and the files that all of them leave."""
    folder = tmp_path_factory.mktemp("quick")
    (folder / "here.txt").write_text("x")
    return fork_commands([arguments for arguments, *_ in ANSWERS], folder), [path.name for path in folder.iterdir()]


@pytest.mark.parametrize("number", range(len(ANSWERS)), ids=[" ".join(arguments[:4]) for arguments, *_ in ANSWERS])
def test_what_needs_no_model_imports_none(outcomes, number):
    _, expected, answer = ANSWERS[number]
    code, stdout, stderr, modules = outcomes[0][number]
    assert code == expected, stderr
    assert re.search(answer, stdout + stderr), stdout + stderr
    assert "typer" in modules and not modules & HEAVY and "Traceback" not in stderr


def test_what_is_refused_writes_nothing(outcomes):
    assert outcomes[1] == ["here.txt"]


def test_the_process_of_the_command(tmp_path):
    """Without a fork: completion by the installed script, help by the module."""
    script = tmp_path / "microemo"
    script.write_text("import sys\nfrom microemo.commands.main import main\nsys.exit(main())\n")
    words = {"COMP_WORDS": "microemo eval", "COMP_CWORD": "1", "_TYPER_COMPLETE_ARGS": "microemo eval"}
    for arguments, environment, answer in (
        ([script], {"_MICROEMO_COMPLETE": "complete_bash", **words}, "^evaluate$"),
        (["-m", "microemo.commands.main", "--help"], {}, "open vocabulary|open, explainable"),
    ):
        done = subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1", **environment},
        )
        imported = set(re.findall(r"^import time:.*\| +([\w.]+)$", done.stderr, re.MULTILINE))
        assert done.returncode == 0 and re.search(answer, done.stdout, re.MULTILINE), done.stderr[-2000:]
        assert "typer" in imported and not imported & HEAVY


# A program of the command's name, which begins without the classes. Each check runs in a fork of it.
PROGRAM = """
import multiprocessing, os, sys
import microemo
from microemo.commands.shared_options import load_libraries


def of_a_child(name):
    from transformers import AutoConfig

    import microemo
    return type(AutoConfig.for_model(name)).__name__


def loads_libraries():
    load_libraries()
    print(of_a_child("microemo"))


def starts_processes():
    load_libraries()
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            print(pool.apply(of_a_child, ["microemo"]))


def names_what_it_needs():
    names = {}
    exec("from microemo import *; from microemo import EmotionPipeline, read_utterances", names)
    from transformers import AutoProcessor
    assert set(microemo.__all__) <= set(dir(microemo)) & set(names)
    print(of_a_child("microemo"))
    try:
        microemo.Nope
    except AttributeError as error:
        print(error)


if __name__ == "__main__":
    assert "torch" not in sys.modules and "transformers" not in sys.modules
    # Once for all checks; what is costly here knows nothing of MicroEmo.
    from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel, ProcessorMixin
    for check in (loads_libraries, starts_processes, names_what_it_needs):
        child = os.fork()
        if not child:
            check()
            sys.stdout.flush()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0, check.__name__
"""


def test_a_command_that_loads_a_model_knows_the_classes_and_so_do_its_processes(tmp_path):
    (tmp_path / "microemo").write_text(PROGRAM)
    done = subprocess.run([sys.executable, tmp_path / "microemo"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *classes, error = done.stdout.splitlines()
    assert classes == ["MicroEmoConfig"] * 4
    assert error == "module 'microemo' has no attribute 'Nope'"


def test_columns_and_settings_are_those_of_the_evaluation():
    """The command names them without importing it."""
    from microemo.commands import evaluate_command
    from microemo.evaluation.result_tables import COLUMNS
    from microemo.evaluation.systems import SETTINGS

    assert tuple(COLUMNS) == evaluate_command.COLUMNS and tuple(SETTINGS) == evaluate_command.SETTINGS
