"""Runs the tests of what a change touches, in under a minute for a usual change: `make test-changed`.

python tests/changed_tests.py                      # what differs from HEAD and what git does not know yet
python tests/changed_tests.py main                 # what differs from the branch main as well
python tests/changed_tests.py --list               # which tests, without running them

The tests of `room/module.py` are `tests/room/test_module.py` (without `_microemo`, or as `test_room_module.py`); where there is none,
the tests that import from the module; and where nothing imports it, those of its room. `make test` runs all tests.
"""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
# These read the whole tree in seconds.
ALWAYS = ("tests/test_rooms.py",)


def changed_files(base: str = "HEAD") -> list[str]:
    """Files that differ from a commit, and new ones, relative to the root."""
    commands = (["diff", "--name-only", "--diff-filter=d", base], ["ls-files", "--others", "--exclude-standard"])
    outputs = [subprocess.run(["git", *c], cwd=ROOT, capture_output=True, text=True, check=True) for c in commands]
    return sorted({line for output in outputs for line in output.stdout.splitlines()})


def tests_of(file: str) -> list[str]:
    """The test files of a file."""
    path = Path(file)
    if path.suffix in (".md", ".yml") or path.parts[0] in ("docs", "Makefile"):
        return ["tests/test_documentation.py"]
    if path.suffix != ".py" or path.name == "__init__.py":
        return []
    if path.parts[0] == "tests":
        return [file] if path.name.startswith("test_") else []
    folder = ROOT / "tests" / path.parent
    while not folder.is_dir():  # a sub-room's tests stand in those of its room
        folder = folder.parent
    stems = dict.fromkeys((path.stem, path.stem.removesuffix("_microemo"), f"{path.parts[0]}_{path.stem}"))
    for stem in stems:
        if (folder / f"test_{stem}.py").is_file():
            return [_name(folder / f"test_{stem}.py")]
    module = ".".join(("microemo", *path.with_suffix("").parts))
    for place in (folder, ROOT / "tests"):
        found = [_name(test) for test in sorted(place.rglob("test_*.py")) if f"{module} import" in test.read_text()]
        if found:
            return found
    return [_name(folder)] if folder.is_dir() else []


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def choose_tests(files: Iterable[str]) -> list[str]:
    """The test files of several files, each once."""
    return list(dict.fromkeys([*ALWAYS, *(test for file in files for test in tests_of(file))]))


def main(arguments: list[str]) -> int:
    base = [word for word in arguments if not word.startswith("-")]
    tests = choose_tests(changed_files(*base[:1]))
    print("\n".join(tests))
    if "--list" in arguments:
        return 0
    return subprocess.run([sys.executable, "-m", "pytest", "-q", *tests], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
