"""A plain installation, without extras: what needs more says so in one line."""

import configparser
import json
import subprocess
import sys
from pathlib import Path

from microemo.commands.main import EXTRAS

# Imports once, then runs each command in a fork; prints its exit code and the last line of its errors.
RUNS = """
import json, os, sys, tempfile
for module in {modules!r}:
    sys.modules[module] = None
from microemo.commands.main import main
for command in {commands!r}:
    with tempfile.TemporaryFile("w+") as errors:
        child = os.fork()
        if not child:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(errors.fileno(), 2)
            sys.argv = ["microemo", *command.split()]
            try:
                main()
            finally:
                sys.stderr.flush()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        errors.seek(0)
        print(json.dumps([command, code, errors.read()]), flush=True)
"""
NEEDS = [
    ("demo --output d", "demo"),
    ("train --list-options", "training"),
    ("precompute x.parquet --model m --cache c", "training"),
    ("merge a b", "training"),
    ("score-dialogues a b", "training"),
    ("evaluate score a.jsonl -r r.xlsx", "evaluation"),
    ("evaluate extract a.jsonl -o l.jsonl --by judge --judge m --base-url http://localhost:1/v1", "evaluation"),
    ("evaluate table . -r r.csv --plot p.png", "plots"),
]


def test_a_command_names_the_extra_that_it_needs(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"name": "a", "answer": "She is happy."}\n')
    (tmp_path / "r.csv").write_text("name,openset\na,[happy]\n")
    (tmp_path / "x.parquet").touch()
    for folder in "ab":
        (tmp_path / folder).mkdir()
    (tmp_path / "r.xlsx").write_bytes(b"PK")
    script = RUNS.format(modules=sorted(EXTRAS), commands=[command for command, _ in NEEDS])
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    outcomes = {command: (code, errors) for command, code, errors in map(json.loads, done.stdout.splitlines())}
    for command, extra in NEEDS:
        code, errors = outcomes[command]
        assert code == 2, (command, errors)
        assert "Traceback" not in errors
        assert f"microemo[{extra}]" in errors.strip().splitlines()[-1], (command, errors)


def test_the_extras_bring_what_is_said():
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parents[2] / "setup.cfg", encoding="utf-8")
    for module, extra in EXTRAS.items():
        package = {"skimage": "scikit-image"}.get(module, module)
        brought = setup["options.extras_require"][extra]
        assert package in brought or (module == "pyarrow" and "datasets" in brought)
