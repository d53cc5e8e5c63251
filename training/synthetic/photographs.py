"""Photographs of people who act in synthetic clips, and which of them may be learned from."""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from .face_acting import FaceActor, find_face

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
KINDS = ("neutral", "smiling")


@dataclass(frozen=True)
class Person:
    """A person who acts in clips.

    Attributes:
        id (`str`): The name of the person.
        neutral (`Path`): The photograph of the face at rest.
        smiling (`Path`, *optional*): The photograph of the same face with a smile.
        gender (`str`, *optional*): The gender, if the list of photographs tells it.
        group (`str`, *optional*): The self-reported group, if the list of photographs tells it.
    """

    id: str
    neutral: Path
    smiling: Path | None = None
    gender: str | None = None
    group: str | None = None


def read_photographs(folder: str | Path, split: str | None = None) -> list[Person]:
    """Reads which people are in a folder of photographs.

    A CSV file in the folder, `faces.csv` or the only one with these columns, lists them: `file` (relative to the
    folder), `person`, and if known `split`, `kind` (`"neutral"` or `"smiling"`), `gender` and `group`. Without one, every
    image in the folder and below it is a person of its own with a face at rest, and belongs to every split.

    Args:
        folder (`str` or `Path`): The folder.
        split (`str`, *optional*): The split of the people, by default all of them.

    Returns:
        `list[Person]`: The people, sorted by name. Those without a neutral photograph are left out.

    Raises:
        ValueError: If the folder has no photograph of the split, if a listed file does not exist, or if a person is in
            two splits.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"the folder of photographs {folder} does not exist")
    table = _find_table(folder)
    people = _unlisted(folder) if table is None else _listed(table, split)
    if not people:
        of_split = "" if split is None else f" of the split {split!r}"
        raise ValueError(f"{table or folder}: no neutral photograph{of_split}")
    return sorted(people, key=lambda person: person.id)


def load_photograph(path: str | Path) -> np.ndarray:
    """Reads a photograph, turned upright as its EXIF data say.

    Args:
        path (`str` or `Path`): The path of the image.

    Returns:
        `np.ndarray` of shape `(H, W, 3)`: The uint8 RGB image.

    Raises:
        ValueError: If the file is no image.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except UnidentifiedImageError as error:
        raise ValueError(f"{path} is not an image") from error


def _find_table(folder: Path) -> Path | None:
    """Returns the list of the photographs in a folder, if it has one."""
    if (folder / "faces.csv").is_file():
        return folder / "faces.csv"
    tables = [path for path in sorted(folder.glob("*.csv")) if {"file", "person"} <= set(_read_rows(path)[1])]
    if len(tables) > 1:
        names = ", ".join(path.name for path in tables)
        raise ValueError(f"{folder} has several lists of photographs, expected one: {names}")
    return tables[0] if tables else None


def _read_rows(path: Path) -> tuple[list[dict[str, str]], list[str]]:
    """Returns the rows and the columns of a CSV file."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        return list(reader), list(reader.fieldnames or ())


def _listed(table: Path, split: str | None) -> list[Person]:
    """Returns the people of a split in a list of photographs."""
    rows, columns = _read_rows(table)
    if missing := [name for name in ("file", "person") if name not in columns]:
        raise ValueError(f"{table} has no column {missing[0]!r}, only {', '.join(columns)}")
    split_of: dict[str, str | None] = {}
    photographs: dict[str, dict[str, dict[str, str]]] = {}
    for row in rows:
        person, kind = row["person"], row.get("kind") or "neutral"
        if kind not in KINDS:
            raise ValueError(f"{table}: the kind of {row['file']} is {kind!r}, expected one of {', '.join(KINDS)}")
        if split_of.setdefault(person, row.get("split")) != row.get("split"):
            raise ValueError(f"{table}: {person} is in two splits, {split_of[person]} and {row.get('split')}")
        if split is None or row.get("split") in (split, None, ""):
            photographs.setdefault(person, {})[kind] = row
    for row in (row for of_person in photographs.values() for row in of_person.values()):
        if not (table.parent / row["file"]).is_file():
            raise ValueError(f"{table}: the photograph {row['file']} does not exist")
    return [
        Person(
            name,
            table.parent / kinds["neutral"]["file"],
            table.parent / kinds["smiling"]["file"] if "smiling" in kinds else None,
            kinds["neutral"].get("gender") or None,
            kinds["neutral"].get("group") or None,
        )
        for name, kinds in photographs.items()
        if "neutral" in kinds
    ]


def _unlisted(folder: Path) -> Iterable[Person]:
    """Returns a person for each image in a folder and below."""
    images = [path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()]
    return [Person(str(path.relative_to(folder).with_suffix("")), path) for path in images]


@lru_cache(maxsize=48)
def actor_of(person: Person) -> FaceActor:
    """Makes the face of a person act. It is computed once in a process, in about half a second.

    Args:
        person ([`Person`]): The person.

    Returns:
        [`FaceActor`]: The face.

    Raises:
        ValueError: If there is no face in a photograph of the person.
    """
    pictures = [load_photograph(path) for path in (person.neutral, person.smiling) if path is not None]
    faces = []
    for path, picture in zip((person.neutral, person.smiling), pictures, strict=False):
        try:
            faces.append(find_face(picture))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    smile = {"smiling": pictures[1], "smiling_face": faces[1]} if len(pictures) > 1 else {}
    return FaceActor(pictures[0], faces[0], **smile)
