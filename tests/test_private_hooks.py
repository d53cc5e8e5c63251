"""docs/private-hooks.md lists every private name of a library that the package relies on, and each of them exists."""

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "docs" / "private-hooks.md"
ROOMS = (
    "commands",
    "configuration",
    "evaluation",
    "inference",
    "modeling_microemo",
    "processing",
    "publishing",
    "training",
    "utils",
)
# Rows of the table: | `place.name` | used in | reason |
ROW = re.compile(r"^\| `(?P<hook>[\w.]+)` \|(?P<files>[^|]*)\| *(?P<reason>[^|]*?) *\|$", re.MULTILINE)


def listed() -> dict[str, re.Match]:
    return {row["hook"]: row for row in ROW.finditer(TABLE.read_text(encoding="utf-8"))}


def files() -> list[Path]:
    return [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def own_names(trees: list[ast.Module]) -> set[str]:
    """The private names that the package itself defines: functions, variables, fields and attributes of `self`."""
    names = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif is_attribute_of_self(node):
            names.add(node.attr)
    return names


def is_attribute_of_self(node: ast.AST) -> bool:
    is_stored = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    return is_stored and isinstance(node.value, ast.Name) and node.value.id == "self"


def attributes_by_class(trees: list[ast.Module]) -> dict[str, set[str]]:
    """What each class defines, and sets on itself, in its source: libraries put names of their own into it as they work."""
    classes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    return {cls.name: own_names([ast.Module(cls.body, [])]) for cls in classes}


def names_read_from_libraries(tree: ast.Module, own: set[str]) -> Iterator[str]:
    """Private names that a module imports from a library, or reads from or writes to an object that is not ours."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level:
            yield from (alias.name for alias in node.names if is_private(alias.name))
        elif isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in own:
            yield node.attr


def is_of_a_library(cls: type) -> bool:
    root = cls.__module__.partition(".")[0]
    return root != "microemo" and root not in sys.stdlib_module_names


def names_overridden(classes: list[type], attributes: dict[str, set[str]]) -> Iterator[tuple[str, str]]:
    """Module and private name of what classes of ours define and one of the libraries' classes beside them defines, too.

    A mixin overrides what the other bases of its subclasses have. `attributes`: those of `attributes_by_class`.
    """
    for cls in classes:
        family = [other for subclass in classes if cls in subclass.__mro__ for other in subclass.__mro__]
        others = {other for other in family if is_of_a_library(other)}
        for name in filter(is_private, attributes.get(cls.__qualname__, ())):
            if any(defines(other, name) for other in others):
                yield cls.__module__, name


def defines(cls: type, name: str) -> bool:
    return name in vars(cls) or name in vars(cls).get("__annotations__", {})


def test_every_private_hook_exists_in_the_installed_version():
    assert len(listed()) > 10
    for hook in listed():
        parts = hook.split(".")
        for length in range(len(parts) - 1, 0, -1):
            try:
                place = importlib.import_module(".".join(parts[:length]))
                break
            except ImportError:
                continue
        else:
            pytest.fail(f"{hook}: no module of this name")
        for name in parts[length:]:
            # Fields without a value, such as those of a dataclass, stand in the annotations alone.
            known = hasattr(place, name) or name in getattr(place, "__annotations__", {}) or _sets(place, name)
            assert known, f"{hook}: {place.__name__} has no {name} in the installed version"
            place = getattr(place, name, None)


def _sets(place, name: str) -> bool:
    """Whether a class or a module sets an attribute of this name on itself or on what it makes."""
    return re.search(rf"\b\w+\.{name}\s*(:.*)?=[^=]", inspect.getsource(place)) is not None


def test_every_private_hook_has_a_reason_and_the_files_that_use_it():
    for hook, row in listed().items():
        name = hook.rpartition(".")[2]
        assert len(row["reason"].split()) >= 5, f"{hook}: no reason"
        paths = re.findall(r"`([\w./]+)`", row["files"])
        assert paths, f"{hook}: no file"
        for path in paths:
            assert name in (ROOT / path).read_text(encoding="utf-8"), f"{path} does not use {name}"


def test_the_table_is_complete():
    trees = {str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8")) for path in files()}
    modules = {".".join(("microemo", *Path(place).with_suffix("").parts)): place for place in trees}
    classes = [
        cls
        for module in modules
        for cls in vars(importlib.import_module(module)).values()
        if inspect.isclass(cls) and cls.__module__ == module
    ]
    own, attributes = own_names(list(trees.values())), attributes_by_class(list(trees.values()))
    used = {(place, name) for place, tree in trees.items() for name in names_read_from_libraries(tree, own)}
    used |= {(modules[module], name) for module, name in names_overridden(classes, attributes)}
    in_table = {(path, hook.rpartition(".")[2]) for hook, row in listed().items() for path in row["files"].split("`")}
    missing = sorted(f"{place}: {name}" for place, name in used - in_table)
    assert not missing, "private names of libraries that docs/private-hooks.md does not list: " + "; ".join(missing)


def test_transformers_is_bound_to_the_versions_in_which_the_hooks_were_checked():
    setup = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    assert re.search(r"^ +transformers>=5\.\d+,<6$", setup, re.MULTILINE)
    assert sys.modules["transformers"].__version__.startswith("5.")
