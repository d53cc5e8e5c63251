"""What the readers of corpora share: the rows that are found, clips found by their names, and speakers in parts."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..data_checks import DataError
from ..label_tables import SOUND_SUFFIXES, VIDEO_SUFFIXES
from .corpus_words import Words

_LFS = b"version https://git-lfs"
_LFS_SIZE = 1024  # bytes; a pointer has about 130
# The order in which tenths get their first speakers: in fold 1 train, test, dev, so that three speakers make all splits.
_FIRST_TENTHS = (3, 0, 2, 5, 7, 9, 1, 4, 6, 8)


@dataclass
class CorpusRows:
    """The rows that a reader finds in a corpus.

    Attributes:
        rows (`list[dict]`): Rows for training with a clip, `emotions`, `split` and what else the corpus has.
        dropped (`Counter`): How many rows have a label that stands for no emotion, by label.
        missing (`list[str]`): The names of clips that the corpus lists and that are not there.
    """

    rows: list[dict] = field(default_factory=list)
    dropped: Counter = field(default_factory=Counter)
    missing: list[str] = field(default_factory=list)

    def add(self, words: Words, labels: str | Iterable[str], clip: Path | None, **cells: str | None) -> None:
        """Adds a row, unless its labels stand for no emotion or its clip is missing.

        Args:
            words (`Mapping[str, str]`): The word of each label.
            labels (`str` or `Iterable[str]`): The label or labels of the clip.
            clip (`Path` or `None`): The file of the clip; `None` if it is missing.
            cells (`str`, *optional*): Other cells of the row; `name` is needed.

        Raises:
            DataError: if a label is not in the table.
        """
        labels = [labels] if isinstance(labels, str) else list(labels)
        for label in labels:
            if label.strip().lower() not in words:
                raise DataError(
                    f"{cells['name']}: unknown label {label!r}; the corpus has {', '.join(dict.fromkeys(words))}"
                )
        named = [word for label in labels if (word := words[label.strip().lower()])]
        if not named:
            self.dropped[" ".join(labels)] += 1
        elif clip is None:
            self.missing.append(str(cells["name"]))
        else:
            self.rows.append({"video": str(clip), "emotions": list(dict.fromkeys(named)), **cells})


@dataclass(frozen=True)
class CorpusRequest:
    """What is asked of a reader.

    Attributes:
        path (`Path`): The folder of the corpus, or one table of it.
        fold (`int`): The fold, from 1 on, of a corpus that has folds.
        clips (`Path`): The folder for clips that the reader writes.
        media_folder (`Path`, *optional*): The folder of the clips, where it is not in that of the corpus.
        language (`str`, *optional*, defaults to `"english"`): The language of subtitles that are there in several.
    """

    path: Path
    fold: int
    clips: Path
    media_folder: Path | None = None
    language: str = "english"

    @property
    def root(self) -> Path:
        """The folder of the corpus."""
        return self.path.parent if self.path.is_file() else self.path

    @property
    def media(self) -> "ClipFinder":
        """The clips in the folder of the clips."""
        return ClipFinder(self.media_folder or self.root)


class ClipFinder:
    """Finds clips in a folder by their names, whatever the suffix and its case. A video goes before a sound file.

    Args:
        folder (`Path`): The folder, which is searched with all that is in it.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.files: dict[str, list[Path]] = defaultdict(list)
        for file in walk(folder):
            suffix = file.suffix.lower()
            if suffix in VIDEO_SUFFIXES or suffix in SOUND_SUFFIXES:
                self.files[file.stem.lower()].append(file)

    def find(self, name: str, within: str | None = None) -> Path | None:
        """Finds a clip.

        Args:
            name (`str`): The name of the clip, with or without the suffix of a video or sound file.
            within (`str`, *optional*): The name of a folder that the clip is in, directly or not.

        Returns:
            `Path`, *optional*: The file, or `None` if there is none.

        Raises:
            DataError: if the file is a pointer of Git LFS.
        """
        stem, suffix = os.path.splitext(name.strip())
        stem = stem if suffix.lower() in (*VIDEO_SUFFIXES, *SOUND_SUFFIXES) else name.strip()
        found = [file for file in self.files.get(stem.lower(), ()) if within is None or within in file.parts]
        if not found:
            return None
        file = min(found, key=lambda file: (file.suffix.lower() not in VIDEO_SUFFIXES, file))
        if file.stat().st_size < _LFS_SIZE and file.read_bytes().startswith(_LFS):
            raise DataError(f"{file} is a pointer of Git LFS; `git lfs pull` fetches the clips")
        return file.absolute()


def walk(folder: Path) -> Iterator[Path]:
    """Walks through the files of a folder and of those in it, in the order of their names.

    Hidden files are passed over, and with them those that macOS adds to each file of an archive (`._a.avi`).

    Args:
        folder (`Path`): The folder.

    Yields:
        `Path`: Each file.
    """
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        yield from (Path(parent, name) for name in sorted(files) if not name.startswith("."))


def tenths_by_share(speakers: Iterable[str]) -> dict[str, int]:
    """Divides speakers into ten parts of about as many rows.

    Args:
        speakers (`Iterable[str]`): The speaker of each row.

    Returns:
        `dict[str, int]`: The part of each speaker, from 0 to 9; always the same for the same rows.
    """
    counts = Counter(speakers)
    order = sorted(counts, key=lambda name: (-counts[name], hashlib.sha256(name.encode()).hexdigest()))
    sizes, tenths = [0] * 10, {}
    for name in order:
        tenths[name] = min(_FIRST_TENTHS, key=sizes.__getitem__)
        sizes[tenths[name]] += counts[name]
    return tenths


def part_of(tenth: int, fold: int) -> str:
    """Names the split of a tenth of the speakers.

    Args:
        tenth (`int`): The tenth, from 0 to 9.
        fold (`int`): The fold, from 1 to 5.

    Returns:
        `str`: `"test"` for two tenths, `"dev"` for the one after them, and `"train"` for the rest.
    """
    place = (tenth - 2 * (fold - 1)) % 10
    return "test" if place < 2 else "dev" if place == 2 else "train"


def sentences(rows: Iterable[Mapping[str, str]], column: str) -> dict[str, str]:
    """Reads the sentences of a table of subtitles.

    Args:
        rows (`Iterable[Mapping[str, str]]`): The rows of the table, with `name`.
        column (`str`): The column of the sentences.

    Returns:
        `dict[str, str]`: The sentence of each name that has one.
    """
    return {row["name"]: row[column].strip() for row in rows if row.get(column, "").strip()}
