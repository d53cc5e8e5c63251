"""The rooms of the package and who may import whom, read from the imports themselves."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Each room and the rooms that it may import from. Sub-rooms count as their room.
ALLOWED = {
    "configuration": set(),
    "utils": set(),
    "processing": {"configuration", "utils"},
    "modeling_microemo": {"configuration", "utils"},
    "evaluation": {"utils"},
    "training": {"configuration", "utils", "processing", "modeling_microemo", "evaluation"},
    "publishing": {"configuration", "utils", "processing", "modeling_microemo", "evaluation"},
    "inference": {"configuration", "utils", "processing", "modeling_microemo", "evaluation", "publishing"},
    "commands": {
        "configuration",
        "utils",
        "processing",
        "modeling_microemo",
        "evaluation",
        "training",
        "publishing",
        "inference",
    },
}
# Old names, kept for one version, that hand on what has moved.
OLD_NAMES = {"evaluation/plain_files.py", "inference/command_line.py"}
# `evaluate.load` copies this file into its own cache, where a relative import leads nowhere.
COPIED_ALONE = {"evaluation/open_vocabulary_emotion/open_vocabulary_emotion.py"}
# What a published checkpoint may lack. Files of these rooms travel with it.
OPTIONAL = {"av", "cv2", "mediapipe", "pysubs2"}
TRAVELLING = ("configuration", "processing", "modeling_microemo", "utils")
MOST_LINES = 600
# Files that are longer still, and must not grow before they are divided.
LONG_FILES = {"processing/processing_microemo.py": 605}


def files() -> list[Path]:
    """The package's own files, relative to the root, apart from old names."""
    found = [path.relative_to(ROOT) for room in ALLOWED for path in sorted((ROOT / room).rglob("*.py"))]
    return [path for path in found if path.as_posix() not in OLD_NAMES]


def parse(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def own_imports(path: Path) -> Iterator[tuple[ast.Import | ast.ImportFrom, tuple[str, ...]]]:
    """Each import of the package's own modules, and the module that it names, as parts from the root on."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = path.parent.parts[: len(path.parent.parts) - node.level + 1]
            yield node, (*base, *(node.module or "").split("."))
        elif isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "microemo":
            yield node, tuple(node.module.split(".")[1:])
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "microemo":
                    yield node, tuple(alias.name.split(".")[1:])


def lines(path: Path) -> int:
    return len((ROOT / path).read_text(encoding="utf-8").splitlines())


def test_every_folder_of_the_package_is_a_room_of_the_table():
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert rooms == set(ALLOWED)


def test_rooms_import_only_from_the_rooms_below_them():
    wrong = [
        f"{path}:{node.lineno} imports {'.'.join(module)}"
        for path in files()
        for node, module in own_imports(path)
        if module[0] != path.parts[0] and module[0] not in ALLOWED[path.parts[0]]
    ]
    assert not wrong, "\n".join(wrong)


def test_no_room_can_be_reached_from_a_room_that_it_imports_from():
    for room, allowed in ALLOWED.items():
        for other in allowed:
            assert room not in ALLOWED[other], f"{room} and {other} may import each other"
    assert "processing" not in ALLOWED["modeling_microemo"] and "modeling_microemo" not in ALLOWED["processing"]


def test_imports_are_relative_and_name_a_module_and_what_is_taken_from_it():
    """`from ..room.module import Name`, with three dots in a sub-room: a published checkpoint rewrites this form alone."""
    wrong = []
    for path in files():
        for node, module in own_imports(path):
            is_relative = isinstance(node, ast.ImportFrom) and node.level > 0
            is_module = (ROOT.joinpath(*module)).with_suffix(".py").is_file()
            dots = 1 if module[:-1] == path.parent.parts else len(path.parent.parts) + 1
            # A room may reach into its own sub-rooms (one dot), and these into their room (two).
            of_own_room = {len(path.parent.parts)} if module[0] == path.parts[0] else set()
            if path.as_posix() in COPIED_ALONE:
                continue
            if not is_relative or not is_module or node.level not in {dots} | of_own_room:
                wrong.append(f"{path}:{node.lineno}: {ast.unparse(node)}")
    assert not wrong, "\n".join(wrong)


def test_file_names_are_unique():
    """A published checkpoint lays its modules into one folder."""
    count = Counter(path.name for path in files() if path.name != "__init__.py")
    assert not {name for name, times in count.items() if times > 1}


def unguarded_imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Imports of optional libraries that stand neither under `try` nor under a test such as `if is_..._available()`."""

    def visit(node: ast.AST, guarded: bool) -> Iterator[tuple[int, str]]:
        for child in ast.iter_child_nodes(node):
            names = []
            if isinstance(child, ast.Import):
                names = [alias.name for alias in child.names]
            elif isinstance(child, ast.ImportFrom) and not child.level:
                names = [child.module]
            if not guarded:
                yield from ((child.lineno, name) for name in names if name.split(".")[0] in OPTIONAL)
            yield from visit(child, guarded or isinstance(child, ast.Try | ast.If))

    return visit(tree, False)


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import av", ["av"]),
        ("def read():\n    from mediapipe.solutions import face_mesh", ["mediapipe.solutions"]),
        ("try:\n    import av\nexcept ImportError:\n    av = None", []),
        ("if is_available():\n    import cv2", []),
        ("import numpy\nfrom .av import x", []),
    ],
)
def test_the_search_for_unguarded_imports(code, found):
    assert [name for _, name in unguarded_imports(ast.parse(code))] == found


def test_optional_libraries_are_guarded_where_files_travel_with_a_checkpoint():
    wrong = [
        f"{path}:{line}: {name}"
        for path in files()
        if path.parts[0] in TRAVELLING
        for line, name in unguarded_imports(parse(path))
    ]
    assert not wrong, "\n".join(wrong)


def test_no_file_is_longer_than_a_reader_can_hold():
    lengths = {path.as_posix(): lines(path) for path in files()}
    long = {file: count for file, count in lengths.items() if count > LONG_FILES.get(file, MOST_LINES)}
    assert not long, f"more than {MOST_LINES} lines: {long}"


def test_no_room_holds_a_fifth_of_the_lines():
    """Sub-rooms count as rooms of their own: a reader of `training/` meets none of them."""
    count = Counter()
    for path in files():
        count[path.parent.as_posix()] += lines(path)
    shares = {room: held / count.total() for room, held in count.items()}
    too_large = {room: f"{share:.1%}" for room, share in shares.items() if share >= 0.2}
    assert not too_large, f"rooms that hold too many of {count.total()} lines: {too_large}"
