"""Writes docs/command-line.md from the command line itself.

python docs/list_commands.py
"""

import inspect
from collections.abc import Iterator
from pathlib import Path

import typer

from microemo.commands.main import app

PAGE = Path(__file__).parent / "command-line.md"
INTRODUCTION = """# Command line

`docs/list_commands.py` writes this page from the command line itself; `microemo COMMAND --help` shows the same. A wrong input ends in
one line on stderr and exit code 2.
"""


def leaves(command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """The commands of a group and of its groups, with the words that call them."""
    for name, child in command.commands.items():
        if hasattr(child, "commands"):
            yield from leaves(child, (*path, name))
        else:
            yield (*path, name), child


def page() -> str:
    """The whole page."""
    commands = list(leaves(typer.main.get_command(app)))
    lines = [INTRODUCTION, "| command | what it does |", "|---|---|"]
    for path, command in commands:
        words = " ".join(path)
        lines.append(
            f"| [`microemo {words}`](#microemo-{words.replace(' ', '-')}) | {_help(command).splitlines()[0]} |"
        )
    for path, command in commands:
        lines += ["", f"## microemo {' '.join(path)}", "", _help(command), ""]
        lines += ["| argument or option | meaning | default |", "|---|---|---|"]
        for parameter in command.params:
            is_option = parameter.param_type_name == "option"
            names = [*parameter.opts, *parameter.secondary_opts] if is_option else [parameter.name.upper()]
            default = "required" if parameter.required else _default(parameter)
            called = ", ".join(f"`{name}`" for name in names)
            lines.append(f"| {called} | {(parameter.help or '').replace('|', chr(92) + '|')} | {default} |")
    return "\n".join(lines) + "\n"


def _help(command) -> str:
    return inspect.cleandoc(command.help or "")


def _default(parameter) -> str:
    value = getattr(parameter.default, "value", parameter.default)
    if value is None or value is False or value == ():
        return ""
    return "on" if value is True else f"`{value}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
