"""Photographs of people who act in synthetic clips, and which of them may be learned from."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ...processing.frame_files import read_picture
from ...utils.files import read_table
from .dialogue_plan import SPLITS
from .face_acting import FaceActor, find_face
from .recordings import find_table

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

    A CSV file in the folder or, named as the folder is, beside it lists them: `file` (relative to the list), `person`, and
    if known `split`, `kind` (`"neutral"` or `"smiling"`), `gender` and `group`. Without one, every image in the folder
    and below it is a person of its own with a face at rest. People without a split get one by their names: two thirds
    learn, a twelfth chooses, the others test; one or two people alone belong to every split.

    Args:
        folder (`str` or `Path`): The folder.
        split (`str`, *optional*): The split of the people, by default all of them.

    Returns:
        `list[Person]`: The people, sorted by name. Those without a neutral photograph are left out.

    Raises:
        FileNotFoundError: If the folder or a listed file does not exist.
        ValueError: If the folder has no neutral photograph of the split, if a person is in two splits, or if some people
            have a split and others none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"the folder of photographs {folder} does not exist")
    table = find_table(folder, ("file", "person"))
    people = _unlisted(folder) if table is None else _listed(table, folder)
    chosen = [person for person, splits in _divide(people, str(table or folder)) if split in (None, *splits)]
    if not chosen:
        of_split = "" if split is None else f" of the split {split!r}"
        raise ValueError(f"{table or folder}: no neutral photograph{of_split}")
    return chosen


def _listed(table: Path, folder: Path) -> list[tuple[Person, str]]:
    """Returns the people in a list of photographs, and the split of each, which may be empty."""
    split_of: dict[str, str] = {}
    photographs: dict[str, dict[str, dict[str, str]]] = {}
    for row in read_table(table):
        path, person = table.parent / row["file"], row["person"]
        if folder.resolve() not in path.resolve().parents:
            continue  # a list beside the folder may describe others, too
        if not path.is_file():
            raise FileNotFoundError(f"{table}: the photograph {path} does not exist")
        kind, split = row.get("kind") or "neutral", row.get("split") or ""
        if kind not in KINDS:
            raise ValueError(f"{table}: the kind of {row['file']} is {kind!r}, expected one of {', '.join(KINDS)}")
        if split_of.setdefault(person, split) != split:
            raise ValueError(f"{table}: {person} is in two splits, {split_of[person]!r} and {split!r}")
        photographs.setdefault(person, {})[kind] = row
    people = []
    for name, kinds in photographs.items():
        if (neutral := kinds.get("neutral")) is not None:
            smiling = table.parent / kinds["smiling"]["file"] if "smiling" in kinds else None
            gender, group = neutral.get("gender") or None, neutral.get("group") or None
            people.append((Person(name, table.parent / neutral["file"], smiling, gender, group), split_of[name]))
    return people


def _unlisted(folder: Path) -> list[tuple[Person, str]]:
    """Returns a person for each image in a folder and below."""
    images = [path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()]
    # With the suffix: one.jpg and one.png are two photographs.
    return [(Person(path.relative_to(folder).as_posix(), path), "") for path in images]


def _divide(people: list[tuple[Person, str]], source: str) -> list[tuple[Person, tuple[str, ...]]]:
    """Returns the people, sorted by name, with the splits of each."""
    people = sorted(people, key=lambda one: one[0].id)
    without = [person.id for person, split in people if not split]
    if without and len(without) < len(people):
        raise ValueError(f"{source}: {without[0]!r} has no split, and others have one")
    if not without:
        return [(person, (split,)) for person, split in people]
    if len(people) < len(SPLITS):
        return [(person, SPLITS) for person, _ in people]
    train = min(round(2 / 3 * len(people)), len(people) - 2)  # somebody is left for each of the others
    dev = train + max(1, round(len(people) / 12))
    divided = ["train"] * train + ["dev"] * (dev - train) + ["test"] * (len(people) - dev)
    return [(person, (split,)) for (person, _), split in zip(people, divided, strict=True)]


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
    pictures = [read_picture(path) for path in (person.neutral, person.smiling) if path is not None]
    faces = []
    for path, picture in zip((person.neutral, person.smiling), pictures, strict=False):
        try:
            faces.append(find_face(picture))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    smiling, smiling_face = (pictures[1], faces[1]) if len(pictures) > 1 else (None, None)
    return FaceActor(pictures[0], faces[0], smiling=smiling, smiling_face=smiling_face)
