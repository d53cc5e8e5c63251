# The tasks of a day's work. `make setup` first; PYTHON=... names another Python 3.11 for it.
.PHONY: setup quality style test test-changed test-slow docs

setup:
	.ci/setup

quality:
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

style:
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

test:
	.venv/bin/pytest

# The tests of what differs from HEAD, and with BASE=main from that branch.
test-changed:
	.venv/bin/python tests/changed_tests.py $(BASE)

test-slow:
	.venv/bin/pytest -m slow

# Pictures and the page of commands.
docs:
	.venv/bin/python docs/draw_images.py
	.venv/bin/python docs/list_commands.py
