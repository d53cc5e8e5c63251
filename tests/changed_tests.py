"""Runs the tests of what a change touches, in under a minute for a usual change: `make test-changed`.

python tests/changed_tests.py                      # what differs from HEAD and what git does not know yet
python tests/changed_tests.py main                 # what differs from the branch main as well
python tests/changed_tests.py --list               # which tests, without running them

The tests of `room/module.py` are `test_module.py` and, in `tests/room`, `test_module_*.py`; the name of the module may lack `_microemo`, or
begin with that of its room. A module that has none is tested by what imports from it: tests, or else the tests of modules of its room. And
where nothing does, the tests of the room run. `make test` runs all tests.
"""

import re
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
    return sorted(_tests_of_module(path, set()))


def _tests_of_module(path: Path, seen: set[Path]) -> set[str]:
    """The tests of a module; `seen` are the modules that this one was reached from."""
    folder = ROOT / "tests" / path.parent
    while not folder.is_dir():  # a sub-room's tests stand in those of its room
        folder = folder.parent
    for stem in (path.stem, path.stem.removesuffix("_microemo"), f"{path.parts[0]}_{path.stem}"):
        own = {*(ROOT / "tests").rglob(f"test_{stem}.py"), *folder.glob(f"test_{stem}_*.py")}
        if own:
            return set(map(_name, own))
    module = ".".join(("microemo", *path.with_suffix("").parts))
    tests = (ROOT / "tests").rglob("test_*.py")
    found = {_name(test) for test in tests if f"{module} import" in test.read_text(encoding="utf-8")}
    if found:
        return found
    found = set().union(*(_tests_of_module(other, seen | {path}) for other in set(_importers(path)) - seen - {path}))
    return found or (set() if seen else {_name(folder)})


def _importers(path: Path) -> list[Path]:
    """The modules of the same room that import from a module, by the form that such imports have here."""
    name = re.compile(rf"^\s*from \.[\w.]*\b{path.stem} import ", re.M)
    modules = (ROOT / path.parts[0]).rglob("*.py")
    return [module.relative_to(ROOT) for module in modules if name.search(module.read_text(encoding="utf-8"))]


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
    processes = ["-n", "2", "--dist", "loadfile"] if len(tests) > 2 else []
    return subprocess.run([sys.executable, "-m", "pytest", "-q", *processes, *tests], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
