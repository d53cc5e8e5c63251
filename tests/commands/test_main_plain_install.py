"""A plain installation, without extras: what needs more says so in one line."""

import configparser
from pathlib import Path

from microemo.commands.main import EXTRAS

# As where the extras are not installed. The rest is imported once for all commands.
WITHOUT_EXTRAS = f"""
for module in {sorted(EXTRAS)!r}:
    sys.modules[module] = None
from microemo.commands.shared_options import load_libraries
load_libraries()
"""
NEEDS = [
    ("synthesize d --clips 1", "demo"),
    ("serve", "serve"),
    ("train --list-options", "training"),
    ("precompute x.parquet --model m --cache c", "training"),
    ("merge a b", "training"),
    ("score-dialogues a b", "training"),
    ("evaluate score a.jsonl -r r.xlsx", "evaluation"),
    ("evaluate extract a.jsonl -o l.jsonl --by judge --judge m --base-url http://localhost:1/v1", "evaluation"),
    ("evaluate table . -r r.csv --plot p.png", "plots"),
]


def test_a_command_names_the_extra_that_it_needs(fork_commands, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"name": "a", "answer": "She is happy."}\n')
    (tmp_path / "r.csv").write_text("name,openset\na,[happy]\n")
    (tmp_path / "x.parquet").touch()
    for folder in "ab":
        (tmp_path / folder).mkdir()
    (tmp_path / "r.xlsx").write_bytes(b"PK")
    outcomes = fork_commands([command.split() for command, _ in NEEDS], tmp_path, WITHOUT_EXTRAS)
    for (command, extra), (code, _, errors, _) in zip(NEEDS, outcomes, strict=True):
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
