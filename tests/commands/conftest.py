"""The `microemo` command in the process of the tests, and in forks of a process that has imported it once."""

import contextlib
import io
import json
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from unittest import mock

import pytest

from microemo.commands.main import main


@pytest.fixture(scope="session")
def microemo():
    """The command with its arguments: `microemo("init", "microemo-tiny", folder)`.

    It runs in the process of the tests, which has the libraries already, and answers as `subprocess.run` does.
    """

    def run(*arguments) -> subprocess.CompletedProcess:
        command, stdout, stderr = ["microemo", *map(str, arguments)], io.StringIO(), io.StringIO()
        with (
            mock.patch.object(sys, "argv", command),
            contextlib.redirect_stdout(stdout),
            contextlib.redirect_stderr(stderr),
            warnings.catch_warnings(),
            kept_news(),
        ):
            try:
                code = main()
            except SystemExit as end:
                code = end.code
        return subprocess.CompletedProcess(command, code or 0, stdout.getvalue(), stderr.getvalue())

    return run


@contextlib.contextmanager
def kept_news() -> Iterator[None]:
    """Gives the package's logger its settings back, which the command changes for its process."""
    logger = logging.getLogger("microemo")
    level, propagate, handlers = logger.level, logger.propagate, logger.handlers
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.propagate, logger.handlers = propagate, handlers


# Runs each command in a fork, and prints its exit code, its two streams and all modules that it has imported.
FORKS = """
import json, os, sys, tempfile, traceback
before, commands = json.load(sys.stdin)
exec(before)
from microemo.commands.main import main
for command in commands:
    streams = [tempfile.TemporaryFile("w+") for _ in range(3)]
    child = os.fork()
    if not child:
        for number in (1, 2):
            os.dup2(streams[number].fileno(), number)
        sys.argv = ["microemo", *command]
        code = 1
        try:
            code = main()
        except SystemExit as end:
            code = end.code
        except BaseException:
            traceback.print_exc()
        json.dump(list(sys.modules), streams[0])
        for stream in (streams[0], sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code or 0)  # taking down the libraries takes seconds
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    for stream in streams:
        stream.seek(0)
    modules, stdout, stderr = (stream.read() for stream in streams)
    print(json.dumps([code, stdout, stderr, json.loads(modules)]), flush=True)
"""


@pytest.fixture(scope="session")
def fork_commands(tmp_path_factory):
    """A maker of processes of a command: `fork_commands(commands, cwd, before="")` returns of each (exit code, stdout,
    stderr, modules). What `before` says is run first, once for all of them."""
    script = tmp_path_factory.mktemp("bin") / "microemo"  # a program of this name is the command
    script.write_text(FORKS)

    def run(commands: list[list[str]], cwd, before: str = "") -> list[tuple[int, str, str, set[str]]]:
        done = subprocess.run(
            [sys.executable, script],
            input=json.dumps([before, commands]),
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "COLUMNS": "200"},
        )
        assert done.returncode == 0, done.stderr
        return [(*streams, set(modules)) for *streams, modules in map(json.loads, done.stdout.splitlines())]

    return run
