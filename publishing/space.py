"""The page of `microemo app` as a Space of the Hub: what `microemo publish --space` writes or sends.

The Space carries this package's code, as a published checkpoint does, and loads the model from the Hub.
"""

import os
import re
from importlib.metadata import requires, version
from pathlib import Path

import yaml

from ..utils.atomic_files import atomic_folder
from ..utils.checkpoint_files import ADAPTER_CONFIG, CARD
from .model_card_file import read_metadata
from .publish import PublishPlan, make_plan

PACKAGE = Path(__file__).parents[1]
APP = '''"""The page of MicroEmo as a Space; `microemo app --model {model}` opens the same page on your computer."""

from microemo.inference.page.emotion_page import run_page

run_page("{model}")
'''
CARD_TEXT = """
A page on which clips are dropped or recorded, and their utterances described, by the model [{model}](https://huggingface.co/{model}):
its card says what it can do, how often it is wrong, and which duties its users have. Clips are analysed in this Space and
deleted when their visitor closes the page. People whose faces and voices are shown have to know about it and agree.
"""
# OpenCV, which MediaPipe brings, needs these libraries of the system.
SYSTEM_PACKAGES = "libgl1\nlibglib2.0-0\n"
# What the extra `app` installs, and Spaces themselves install by `sdk_version`.
_SDK = "gradio"


def make_space_plan(folder: str | os.PathLike, model: str, space: str, license: str | None = None) -> PublishPlan:
    """Makes the files of a Space that shows a published model.

    Args:
        folder (`str` or `Path`): The folder of the model, whose card states the licence.
        model (`str`): The name of the model's repository on the Hub, `"ORG/NAME"`.
        space (`str`): The name of the Space, `"ORG/NAME"`, or of a folder.
        license (`str`, *optional*): The licence of the weights, as the Hub names it. By default that of the card.

    Returns:
        [`PublishPlan`]: The files to send.

    Raises:
        FileNotFoundError: if there is no such folder.
        IncompleteFolderError: if the folder lacks something. The message names all of it.
        ValueError: if it holds an adapter, or if `model` is no name of a repository.
    """
    if (Path(folder) / ADAPTER_CONFIG).is_file():
        raise ValueError(f"{folder} holds an adapter, and the page needs a whole model: publish it with --merge first")
    plan = make_plan(folder, model, license)
    card = plan.files[CARD]
    of_model = read_metadata(card.decode() if isinstance(card, bytes) else card.read_text("utf-8"))
    metadata = {
        "title": model.rpartition("/")[2],
        "emoji": "🎬",
        "colorFrom": "indigo",
        "colorTo": "gray",
        "sdk": _SDK,
        "sdk_version": version(_SDK),
        "python_version": "3.11",
        "app_file": "app.py",
        **{key: value for key, value in of_model.items() if key.startswith("license")},
        "models": [model],
        "tags": ["emotion-recognition", "microemo"],
    }
    own = version("microemo")
    header = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)
    files: dict[str, Path | bytes] = {
        CARD: f"---\n{header}---\n\n# {metadata['title']}\n{CARD_TEXT.format(model=model)}".encode(),
        "app.py": APP.format(model=model).encode(),
        "requirements.txt": "".join(f"{line}\n" for line in _requirements()).encode(),
        "packages.txt": SYSTEM_PACKAGES.encode(),
        # By which the package knows its version.
        f"microemo-{own}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: microemo\nVersion: {own}\n".encode(),
        **{f"microemo/{path.relative_to(PACKAGE).as_posix()}": path for path in _package_files()},
    }
    return PublishPlan(space, False, model, dict(sorted(files.items())), {}, repo_type="space")


def _requirements() -> list[str]:
    """What this package and its extra `app` need, in the versions that are installed here."""
    named = [line.partition(";") for line in requires("microemo") or ()]
    extras = {f'extra == "{extra}"' for extra in ("app", "plots")}
    wanted = [name for name, _, marker in named if not marker.strip() or marker.strip() in extras]
    names = sorted({re.split(r"[^\w.-]", name)[0] for name in wanted} - {"microemo", _SDK})
    return [f"{name}=={version(name).partition('+')[0]}" for name in names]


def _package_files() -> list[Path]:
    """The code and data of this package, with the example, and without checkpoints."""
    rooms = [path.parent for path in PACKAGE.glob("*/__init__.py") if path.parent.name != "tests"]
    found = [path for folder in (*rooms, PACKAGE / "checkpoints" / "example") for path in folder.rglob("*")]
    files = [path for path in found if path.is_file() and "__pycache__" not in path.parts]
    return [PACKAGE / "__init__.py", *files]


def write_space(plan: PublishPlan, folder: str | os.PathLike) -> Path:
    """Writes the files of a Space into a folder.

    Args:
        plan ([`PublishPlan`]): The files.
        folder (`str` or `Path`): The folder, which must not exist or be empty.

    Returns:
        `Path`: The folder.

    Raises:
        FileExistsError: if the folder holds something.
    """
    with atomic_folder(folder) as part:
        for name, source in plan.files.items():
            path = part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(source if isinstance(source, bytes) else source.read_bytes())
    return Path(folder)
