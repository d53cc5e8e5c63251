# The tasks of a day's work. `make setup` first; PYTHON=... names another Python 3.11 for it.
.PHONY: setup quality style test test-changed test-slow test-transformers test-suites docs

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
	.venv/bin/pytest -n 2 --dist loadfile

# The tests of what differs from HEAD, and with BASE=main from that branch.
test-changed:
	.venv/bin/python tests/changed_tests.py $(BASE)

test-slow:
	.venv/bin/pytest -m slow

# What rests on Transformers, with another version of it, which lies in a folder of its own: .venv keeps the pinned one.
VERSION ?= 5.20.0
TRANSFORMERS = $(CURDIR)/.venv/other-transformers/$(VERSION)
test-transformers:
	.venv/bin/pip install --quiet --no-deps --upgrade --target $(TRANSFORMERS) transformers==$(VERSION)
	PYTHONPATH=$(TRANSFORMERS) .venv/bin/pytest tests/configuration tests/modeling_microemo tests/processing \
		tests/publishing tests/inference/test_emotion_pipeline.py tests/inference/test_transformers_pipelines.py \
		tests/test_private_hooks.py

# Transformers' own common suites (docs/transformers-suites.md); TESTERS=... names the folder of the testers.
test-suites:
	TESTERS="$(TESTERS)" .venv/bin/python tests/transformers_suites.py

# Pictures and the page of commands.
docs:
	.venv/bin/python docs/draw_images.py
	.venv/bin/python docs/list_commands.py
