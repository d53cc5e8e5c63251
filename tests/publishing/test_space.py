"""`microemo publish --space`: the page of `microemo app` as a Space, written to a folder and sent to the stand-in for the Hub."""

import importlib.metadata
import os
import re
import subprocess
import sys

import pytest
import yaml

from microemo.publishing import space
from microemo.publishing.publish import PublishError, publish
from microemo.publishing.space import make_space_plan, write_space


@pytest.fixture(scope="module")
def plan(published_model):
    return make_space_plan(published_model, "ada/tiny", "ada/page", license="apache-2.0")


def test_the_card_is_one_that_spaces_need(plan):
    header, _, text = plan.files["README.md"].decode().removeprefix("---\n").partition("---\n")
    card = yaml.safe_load(header)
    assert card["sdk"] == "gradio" and card["sdk_version"] == importlib.metadata.version("gradio")
    assert card["app_file"] == "app.py" and card["models"] == ["ada/tiny"] and card["license"] == "apache-2.0"
    assert "https://huggingface.co/ada/tiny" in text


def test_requirements_name_installed_versions_of_what_the_page_needs(plan):
    lines = plan.files["requirements.txt"].decode().splitlines()
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines), lines
    names = [line.partition("==")[0] for line in lines]
    assert {"torch", "transformers", "mediapipe", "matplotlib"} <= set(names)
    assert not {"microemo", "gradio", "pytest", "peft"} & set(names)  # Spaces install gradio by `sdk_version`


def test_the_app_runs_with_the_code_that_the_space_carries(plan, tmp_path):
    folder = write_space(plan, tmp_path / "space")
    assert (folder / "microemo/checkpoints/example/two_people.mp4").is_file()
    assert not list(folder.rglob("*.safetensors")) and not list(folder.rglob("test_*.py"))
    code = (
        "import importlib.metadata, runpy, microemo.inference.page.emotion_page as page\n"
        "page.run_page = lambda model: print(importlib.metadata.distribution('microemo').locate_file(''), page.__file__, model)\n"
        "runpy.run_path('app.py')"
    )
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    assert answer.stdout.split() == [".", str(folder / "microemo/inference/page/emotion_page.py"), "ada/tiny"]


def test_a_space_is_created_for_a_published_model_and_brought_up_to_date(hub, plan, monkeypatch):
    with pytest.raises(PublishError, match="ada/tiny, the model of the page, is not on the Hub"):
        publish(plan, hub.token)
    hub.add_repo("ada/tiny", {"config.json": b"{}"})
    published = publish(plan, hub.token)
    assert published.address == f"{hub.url}/spaces/ada/page"
    assert hub.commits("spaces/ada/page") == ["Upload a MicroEmo page", "initial commit"]
    assert set(hub.files("spaces/ada/page")) == {*plan.files, ".gitattributes"}
    dropped = "microemo/inference/baselines.py"
    monkeypatch.delitem(plan.files, dropped)
    publish(plan, hub.token)
    assert dropped not in hub.files("spaces/ada/page")


def test_another_space_is_left_alone(hub, plan):
    hub.add_repo("ada/tiny", {"config.json": b"{}"})
    hub.add_repo("spaces/ada/page", {"app.py": b"print()"})
    with pytest.raises(PublishError, match="ada/page exists and holds another Space; nothing was sent"):
        publish(plan, hub.token)


def test_an_adapter_has_no_page(published_adapter):
    with pytest.raises(ValueError, match="holds an adapter, and the page needs a whole model"):
        make_space_plan(published_adapter, "ada/tiny", "ada/page", license="apache-2.0")


def test_every_file_of_the_package_travels():
    names = {path.relative_to(space.PACKAGE).as_posix() for path in space._package_files()}
    assert {"__init__.py", "inference/page/page.css", "evaluation/vocabulary/wheel1.csv"} <= names
