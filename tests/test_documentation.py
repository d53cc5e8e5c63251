"""What README.md, the cards and docs/ show works: Python blocks run, command lines have options that exist, links lead
somewhere, and cheap commands run on small real files.

A block under the comment `<!-- not run: reason -->` is only parsed: Python is compiled, the options of commands are checked.
"""

import dataclasses
import importlib.util
import itertools
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from microemo.commands.main import app

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "model_card.md", "CONTRIBUTING.md", "CHANGELOG.md", "BENCHMARKS.md")),
    ROOT / "checkpoints" / "microemo-tiny" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]+) -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.M | re.S
)
# Programs that command lines may begin with besides `microemo`, none of which is run here.
OTHER_PROGRAMS = {"accelerate", "git", "make", "pip", "pre-commit", "pytest", "python", "ruff", "setup", "run"}
OTHER_PROGRAMS |= {"curl", "printf"}
ID = {"ids": lambda path: path.relative_to(ROOT).as_posix()}


@dataclasses.dataclass(frozen=True)
class Block:
    language: str
    code: str
    line: int
    is_run: bool


def blocks(page: Path, language: str) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = [
        Block(match["language"], match["code"], text.count("\n", 0, match.start()) + 1, match["reason"] is None)
        for match in BLOCK.finditer(text)
    ]
    return [block for block in found if block.language == language]


def command_lines(code: str) -> Iterator[list[str]]:
    """The words of each command of a bash block, without comments and environment variables before them."""
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        for is_separator, group in itertools.groupby(words, lambda word: word in ("&&", "||", ";", "|")):
            command = [] if is_separator else list(group)
            while command and re.match(r"\w+=", command[0]):
                command = command[1:]
            if command:
                yield command


def microemo_arguments(command: list[str]) -> list[str] | None:
    """What follows `microemo`; `None` for another program."""
    program = Path(command[0]).name
    if program == "microemo":
        return command[1:]
    if "microemo.training.train" in command:
        return ["train", *command[command.index("microemo.training.train") + 1 :]]
    return None


def check_microemo(arguments: list[str]) -> None:
    """Parse a command line as the command does, without running it.

    Raises:
        Exception: for a command, an option or a value that does not exist, and for one that is missing.
    """
    command, words = typer.main.get_command(app), list(arguments)
    while hasattr(command, "commands"):
        name = words.pop(0) if words else ""
        assert name in command.commands, f"microemo has no command {name!r}"
        command = command.commands[name]
    context = command.make_context(" ".join(arguments[: len(arguments) - len(words)]), words)
    unknown = [word for word in context.args if word.startswith("--")]
    if arguments[0] == "train":
        unknown = [word for word in unknown if word.partition("=")[0][2:].replace("-", "_") not in training_options()]
    assert not unknown, f"microemo {arguments[0]} has no option {', '.join(unknown)}"


def training_options() -> set[str]:
    from microemo.training.train import DataArguments, MicroEmoTrainingArguments, ModelArguments

    classes = (ModelArguments, DataArguments, MicroEmoTrainingArguments)
    return {field.name for cls in classes for field in dataclasses.fields(cls)}


def check_other(command: list[str]) -> None:
    """A command of another program: the program is one that we use, and what it names in the repository is there."""
    program = re.sub(r"\d[\d.]*$", "", Path(command[0]).name)
    assert program in OTHER_PROGRAMS, f"{command[0]}: not a program that the documentation may use"
    if command[0].startswith(".") and not command[0].startswith(".venv"):
        assert (ROOT / command[0]).is_file(), command[0]
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
        assert set(command[1:]) <= set(targets), f"{command}: Makefile has {targets}"
    if program in ("pytest", "python"):
        paths = [
            word.partition("::")[0] for word in command[1:] if re.match(r"(tests|docs|benchmarks|training)/", word)
        ]
        assert all((ROOT / path).exists() for path in paths), command


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> tuple[Path, str]:
    """The folder that `microemo demo` fills, and what it prints."""
    pytest.importorskip("skimage", reason="the demo's photograph comes from scikit-image")
    pytest.importorskip("matplotlib", reason="the demo draws pictures")
    folder = tmp_path_factory.mktemp("documentation")
    result = CliRunner().invoke(app, ["demo", "--output", str(folder / "demo")])
    assert result.exit_code == 0, result.output
    return folder, result.stdout


@pytest.fixture
def workplace(demo, hub, tmp_path, monkeypatch) -> Path:
    """A folder with the files that the pages name, in which their blocks run, beside a stand-in for the Hub."""
    clip = next((demo[0] / "demo").glob("*.mp4"))
    shutil.copy(clip, tmp_path / "clip.mp4")
    shutil.copy(clip.with_suffix(".srt"), tmp_path / "clip.srt")
    for name in ("checkpoints", "evaluation"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name, answer in (("answers", "labels: [happy]"), ("other", "She is sad.")):
        (tmp_path / f"{name}.jsonl").write_text(f'{{"name": "clip", "answer": "{answer}"}}\n')
    (tmp_path / "references.csv").write_text('name,openset\nclip,"[joy, doubt]"\n')
    (tmp_path / "data.jsonl").write_text('{"name": "clip", "video": "clip.mp4", "subtitles": "clip.srt"}\n')
    (tmp_path / "train.jsonl").write_text(
        '{"video": "clip.mp4", "subtitles": "clip.srt", "instruction": "What does she feel?", "response": "Joy."}\n'
    )
    monkeypatch.setenv("HF_TOKEN", hub.token)
    monkeypatch.setattr(hub, "organizations", [*hub.organizations, "ORG"])
    (tmp_path / "clips").mkdir()
    for name in ("one", "two", "three", "four"):
        shutil.copy(clip, tmp_path / "clips" / f"{name}.mp4")
    shutil.copy(clip.with_suffix(".srt"), tmp_path / "clips" / "one.srt")
    # The table that the page of journeys shows.
    (table,) = blocks(ROOT / "docs" / "journeys.md", "text")
    (tmp_path / "clips" / "labels.csv").write_text(table.code)
    monkeypatch.chdir(tmp_path)
    return tmp_path


PAGES_WITH = {
    language: [page for page in PAGES if page.exists() and blocks(page, language)] for language in ("python", "bash")
}


@pytest.mark.parametrize("page", PAGES, **ID)
def test_every_page_is_there_and_tells_the_language_of_its_blocks(page):
    text = page.read_text(encoding="utf-8")
    found = list(BLOCK.finditer(text))
    assert 2 * len(found) == len(re.findall(r"^```", text, re.M))
    assert len(re.findall("^<!-- not run:", text, re.M)) == sum(match["reason"] is not None for match in found)
    for match in found:
        assert match["language"] in ("python", "bash", "bibtex", "text", "json"), match[0][:80]


@pytest.mark.parametrize("page", PAGES_WITH["bash"], **ID)
def test_command_lines_have_options_that_exist(page):
    for block in blocks(page, "bash"):
        for command in command_lines(block.code):
            arguments = microemo_arguments(command)
            try:
                check_other(command) if arguments is None else check_microemo(arguments)
            except Exception as error:
                message = getattr(error, "message", None) or error
                raise AssertionError(f"{page.name}, line {block.line}: {shlex.join(command)}: {message}") from error


@pytest.mark.parametrize(
    "page", PAGES_WITH["python"] + [p for p in PAGES_WITH["bash"] if p not in PAGES_WITH["python"]], **ID
)
def test_blocks_run(page, workplace, hub):
    """Python blocks in one namespace, and the `microemo` commands between them, in the order of the page."""
    names = {"__name__": "__main__"}
    found = sorted(blocks(page, "python") + blocks(page, "bash"), key=lambda block: block.line)
    for block in found:
        where = f"{page.name}, line {block.line}"
        if block.language == "python":
            code = compile(block.code, where, "exec")
            if block.is_run:
                exec(code, names)
        elif block.is_run:
            for command in command_lines(block.code):
                arguments = microemo_arguments(command)
                if arguments is not None and arguments[0] != "demo":  # which the fixture has run
                    result = CliRunner().invoke(app, arguments)
                    assert result.exit_code == 0, (
                        f"{where}: {shlex.join(command)}\n{result.output}\n{result.exception!r}"
                    )
    if page.name == "journeys.md":  # whose last command is the only one that sends
        assert {"model.safetensors", "config.json", "README.md"} <= set(hub.files("ORG/NAME"))


@pytest.mark.parametrize(
    "line",
    [
        "microemo predict clip.mp4 --subtitle clip.srt",
        "microemo predict",
        "microemo inspect clip.mp4",
        "microemo predicts clip.mp4",
        "microemo evaluate scores answers.jsonl",
        "microemo evaluate table answers.jsonl -r references.csv --merge both",
        "microemo train stage2 --model_name_or_pth tiny",
        "accelerate launch -m microemo.training.train stage2 --train_dta train.jsonl",
        "cargo build",
        "make everything",
        "pytest tests/no_such_room",
    ],
)
def test_mistakes_in_command_lines_are_found(line):
    (command,) = command_lines(line)
    arguments = microemo_arguments(command)
    with pytest.raises(Exception):  # noqa: B017 (each parser raises its own)
        check_other(command) if arguments is None else check_microemo(arguments)


def test_options_named_in_running_text_exist():
    known = set(re.findall(r"`(--[\w-]+)`", (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")))
    known |= {f"--{name}" for name in training_options()}
    known |= {"--help", "--version", "--install-completion", "--show-completion"}
    wrong = []
    for page in PAGES:
        text = BLOCK.sub("", page.read_text(encoding="utf-8"))
        if page.name in ("CHANGELOG.md", "BENCHMARKS.md"):  # old names, and the options of the benchmarks
            continue
        for span in re.findall(r"`([^`\n]+)`", text):
            wrong += [
                f"{page.name}: {option}" for option in re.findall(r"(?<!\S)--[a-z][\w-]*", span) if option not in known
            ]
    assert not wrong, wrong


def test_the_page_of_commands_is_what_the_command_line_says():
    source = ROOT / "docs" / "list_commands.py"
    spec = importlib.util.spec_from_file_location("list_commands", source)
    list_commands = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(list_commands)
    assert list_commands.PAGE.read_text(encoding="utf-8") == list_commands.page(), "run docs/list_commands.py"


@pytest.mark.parametrize("page", PAGES, **ID)
def test_links_and_pictures_lead_to_files_and_headings(page):
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        file, _, heading = target.partition("#")
        path = page.parent / file if file else page
        assert path.exists(), f"{page.name} links to {target}"
        if heading:
            headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.M)
            anchors = {re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-") for words in headings}
            assert heading in anchors, f"{page.name} links to {target}"


def test_the_paper_index_names_files_and_what_they_define():
    rows = re.findall(
        r"^\| [^|]+ \| [^|]+ \| (`[^|]+`) \| (`[^|]+`) \|$", (ROOT / "docs/architecture.md").read_text(), re.M
    )
    assert len(rows) > 10
    for files, names in rows:
        text = "".join((ROOT / file).read_text(encoding="utf-8") for file in re.findall(r"`([^`]+)`", files))
        for name in re.findall(r"`(\w+)`", names):
            assert re.search(rf"^ *(class|def) {name}\b|^{name}\b.*=", text, re.M), f"{files} does not define {name}"


def test_files_named_in_the_pages_exist():
    suffix = r"(?:py|yaml|cfg|txt|toml|md)"
    for page in PAGES:
        if page.name == "CHANGELOG.md":
            continue
        text = BLOCK.sub("", page.read_text(encoding="utf-8"))
        for name in re.findall(rf"`((?:[\w.-]+/)+[\w.-]+\.{suffix})`", text):
            assert (ROOT / name).exists() or (page.parent / name).exists(), f"{page.name} names {name}"


def test_the_answer_in_the_readme_is_the_one_that_the_demo_prints(demo):
    quoted = re.search(r"^> \*\*(?P<question>.+)\*\*\n(?P<answer>(?:> .+\n)+)", (ROOT / "README.md").read_text(), re.M)
    answer = " ".join(line.removeprefix("> ") for line in quoted["answer"].splitlines())
    assert f"Question: {quoted['question']}\n" in demo[1]
    assert f"MicroEmo: {answer} Question:" in " ".join(demo[1].split())  # all of it


def test_budgets_of_lines():
    for name, most in (("README.md", 150), ("model_card.md", 100)):
        assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= most, name
