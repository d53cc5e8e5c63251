"""Runs the common test suites of Transformers on MicroEmo: `make test-suites`.

The suites are files of the library, which come with its source distribution and are not part of this repository; nor are the
testers, the small files that name our classes to them. Both are put together in a folder below `.venv`, with stand-ins for
what the distribution lacks and for torchvision, of which the suites of processors import the Python half.
docs/transformers-suites.md has the counts and a reason for each failure that is left.
"""

import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from shutil import rmtree, unpack_archive

ROOT = Path(__file__).parents[1]
# What the suites import from the library's repository and its source distribution lacks.
LACKING = {
    "tests/exporters/test_export.py": "class ExportTesterMixin:\n    pass\n",
    "tests/generation/test_utils.py": "class GenerationTesterMixin:\n    pass\n",
    "tests/utils/test_configuration_utils.py": "config_common_kwargs = {}\n",
    "tests/utils/tiny_model_summary.json": "{}\n",
    # Files of the Hub: there is no network, and one clip stands for all of them.
    "utils/fetch_hub_objects_for_ci.py": "import os\n\n\ndef url_to_local_path(url, *_):\n    return os.environ['MICROEMO_CLIP']\n",
}
# Testers of version 0.1 name these.
OLD_NAMES = {
    r"modeling_microemo\.audio_branch import MicroEmoAudioModel": "modeling_microemo.towers import MicroEmoAudioModel",
    r"visual_encoder import MicroEmoImageQFormer, MicroEmoQFormer, MicroEmoVisionModel": "towers import MicroEmoVisionModel",
    r"\baudio_clip_mask\b": "audio_segment_mask",
    r"\bclip_duration\b": "segment_duration",
    r"\bmax_audio_clips\b": "max_audio_segments",
    r"\bnum_clips(?=\"|=)": "num_segments",
}


def main() -> int:
    """Makes the folder and runs the suites in it.

    Returns:
        `int`: The exit code of pytest.
    """
    testers = Path(os.environ.get("TESTERS") or ROOT.parent / "shared" / "transformers_suite").resolve()
    if not testers.is_dir():
        print(f"{testers}: no such folder; TESTERS names that of the testers", file=sys.stderr)
        return 2
    tree, extra = make_tree(version("transformers"))
    target = tree / "tests" / "models" / "microemo"
    rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for folder in (target, target.parent, tree / "tests"):
        (folder / "__init__.py").touch()
    for path in testers.glob("test_*.py"):
        (target / path.name).write_text(with_new_names(path.read_text(encoding="utf-8")), encoding="utf-8")
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "MICROEMO_CLIP": str(ROOT / "checkpoints" / "example" / "two_people.mp4"),
        "PYTHONPATH": f"{extra}{os.pathsep}{tree}",
    }
    command = [sys.executable, "-m", "pytest", "-q", *(sys.argv[1:] or ["-n", "2"]), "tests/models/microemo"]
    return subprocess.run(command, cwd=tree, env=environment, check=False).returncode


def with_new_names(text: str) -> str:
    """Replaces the names of version 0.1.

    Args:
        text (`str`): A tester.

    Returns:
        `str`: The tester with today's names.
    """
    for old, new in OLD_NAMES.items():
        text = re.sub(old, new, text)
    return text


def make_tree(of_version: str) -> tuple[Path, Path]:
    """Downloads the library's tests and what they import, unless they are there.

    Args:
        of_version (`str`): The version of Transformers.

    Returns:
        `tuple[Path, Path]`: The folder of the source distribution, and that of the packages.
    """
    folder = ROOT / ".venv" / "transformers-suites"
    tree, extra = folder / f"transformers-{of_version}", folder / "packages"
    if not (tree / "tests").is_dir():
        pip("download", "--no-deps", "--no-binary", ":all:", "--dest", folder, f"transformers=={of_version}")
        unpack_archive(f"{tree}.tar.gz", folder)
    for name, text in LACKING.items():
        path = tree / name
        path.parent.mkdir(exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.write_text(text, encoding="utf-8")
    if not extra.is_dir():
        pip("install", "--no-deps", "--target", extra, "parameterized", "torchvision")
        # Its compiled half wants the CUDA build of torch.
        (extra / "torchvision" / "_meta_registrations.py").write_text("", encoding="utf-8")
        for library in (extra / "torchvision").glob("*.so"):
            library.unlink()
    return tree, extra


def pip(*arguments: str | Path) -> None:
    """Runs pip.

    Args:
        arguments (`str` or `Path`): Its arguments.
    """
    subprocess.run([sys.executable, "-m", "pip", "--quiet", *map(str, arguments)], check=True)


if __name__ == "__main__":
    sys.exit(main())
