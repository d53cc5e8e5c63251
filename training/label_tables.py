"""Tables of labels: a clip with its emotion words becomes a row with a question and an answer.

microemo train stage2 --train_data clips/labels.csv --video_column file --label_columns emotion --speaker_column actor --eval_share 0.2

The columns of the table may have any names. Subtitles are found beside the clips, as `a.srt` or `a.vtt` for `a.mp4`.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset
from transformers.utils import logging

from ..evaluation.emotion_labels import parse_labels
from ..utils.keywords import suggestion
from .data_checks import COLUMNS, DataError

logger = logging.get_logger("microemo.training.label_tables")

VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".mpg", ".flv")
SOUND_SUFFIXES = (".wav", ".mp3", ".flac", ".m4a", ".ogg")
SUBTITLE_SUFFIXES = (".srt", ".vtt")
LABELS_INSTRUCTION = "Which emotions does the speaker show? Name all that fit."
SPEECH_COLUMNS = ("subtitles", "utterances", "subtitle")
CONVERSATION_COLUMNS = ("messages", "instruction", "response")
_MOST_NAMED = 5  # in a message


@dataclass(frozen=True)
class LabelColumns:
    """The columns of a table of labels.

    Attributes:
        labels (`tuple[str, ...]`): The columns of the labels. A cell may hold several, as "happy, surprised".
        video (`str`, *optional*): The column of the clips' files. By default `video` or `file_name`.
        speaker (`str`, *optional*): The column of the speakers. By default `speaker`, if there is one.
    """

    labels: tuple[str, ...]
    video: str | None = None
    speaker: str | None = None


def labels_answer(labels: list[str]) -> str:
    """Writes the answer to a question for labels.

    Args:
        labels (`list[str]`): The labels.

    Returns:
        `str`: The answer, which is empty without labels.
    """
    return f"The speaker feels {', '.join(labels)}." if labels else ""


def read_label_table(table: Dataset, columns: LabelColumns, folder: Path, name: str) -> Dataset:
    """Converts a table of labels to the rows that training takes, and reports what is in it.

    Rows about the same file become one row with all their labels. Columns with names of training, such as `split`, are
    kept, and others are left out.

    Args:
        table (`Dataset`): The table.
        columns ([`LabelColumns`]): Its columns.
        folder (`Path`): The folder that relative file names start from. Their suffix may be left out.
        name (`str`): The name of the table in messages.

    Returns:
        `Dataset`: The rows, with absolute file names. A row without a label has an empty response, and one whose file does
        not exist keeps its name, so that the check of the data set reports all of them at once.

    Raises:
        DataError: if a column is not in the table, or rows about the same file differ in more than their labels.
    """
    video = columns.video or next(
        (column for column in ("video", "file_name") if column in table.column_names), "video"
    )
    speaker = columns.speaker or "speaker"
    named = [*columns.labels, video, *([columns.speaker] if columns.speaker else [])]
    for column in named:
        if column not in table.column_names:
            raise DataError(
                f"{name}: no column {column!r}{suggestion(column, table.column_names)}; "
                f"there are {', '.join(table.column_names)}"
            )
    kept = [
        column for column in table.column_names if column in COLUMNS and column not in (*named, "emotions", "speaker")
    ]
    unused = [column for column in table.column_names if column not in (*named, *kept, "speaker")]
    if unused:
        logger.info(f"{name}: columns that are not used: {', '.join(unused)}")
    class_names = {
        column: feature.names for column, feature in table.features.items() if isinstance(feature, ClassLabel)
    }
    rows: dict[Any, dict] = {}
    repeated = []
    for number, cells in enumerate(table, start=1):
        clip = cells[video]
        path = _find_clip(folder, clip) if isinstance(clip, str) and "://" not in clip else None
        key = str(path) if path else clip if isinstance(clip, str) else number
        labels = [label for column in columns.labels for label in _labels(cells[column], class_names.get(column))]
        row = {column: cells[column] for column in kept}
        if speaker in cells:
            row["speaker"] = None if cells[speaker] is None else str(cells[speaker])
        if key in rows:
            first, labels = rows[key], [*rows[key]["emotions"], *labels]
            different = [column for column in row if row[column] != first[column]]
            if different:
                raise DataError(
                    f"{name}: row {number} is about {clip}, as one before, with other {', '.join(different)}"
                )
            repeated.append(key)
        else:
            rows[key] = row | _media(clip if path is None else path, row)
        rows[key]["emotions"] = list(dict.fromkeys(labels))
    if "messages" not in kept:
        for row in rows.values():
            row.setdefault("instruction", LABELS_INSTRUCTION)
            row.setdefault("response", labels_answer(row["emotions"]))
    _report(name, list(rows.values()), set(repeated))
    names = list(dict.fromkeys(column for row in rows.values() for column in row))
    return Dataset.from_list([{column: row.get(column) for column in names} for row in rows.values()])


def _labels(cell: Any, class_names: list[str] | None) -> list[str]:
    if class_names is not None and isinstance(cell, int):
        return [class_names[cell]] if cell >= 0 else []
    if cell is None or cell != cell:  # NaN, an empty cell of pandas
        return []
    if isinstance(cell, (int, float)) or (isinstance(cell, str) and re.fullmatch(r"\s*[\d.+-]+\s*", cell)):
        return [str(cell).strip()]  # `row_problems` refuses numbers
    return parse_labels(cell)


def _find_clip(folder: Path, name: str) -> Path:
    path = (folder / name).absolute()
    if path.is_file():
        return path
    candidates = (path.with_name(path.name + suffix) for suffix in (*VIDEO_SUFFIXES, *SOUND_SUFFIXES))
    return next((candidate for candidate in candidates if candidate.is_file()), path)


def _media(clip: Any, row: dict) -> dict[str, Any]:
    if not isinstance(clip, Path):
        return {"video": clip}
    media: dict[str, Any] = {"audio" if clip.suffix.lower() in SOUND_SUFFIXES else "video": str(clip)}
    if not any(row.get(column) for column in SPEECH_COLUMNS):
        beside = (clip.with_suffix(suffix) for suffix in SUBTITLE_SUFFIXES)
        media["subtitles"] = next((str(file) for file in beside if file.is_file()), None)
    return media


def _report(name: str, rows: list[dict], repeated: set) -> None:
    """Logs the numbers of clips, speakers and labels, and warns of files and rows that may be a mistake."""
    counts = Counter(label for row in rows for label in row["emotions"])
    speakers = {row["speaker"] for row in rows if row.get("speaker")}
    logger.info(
        f"{name}: {len(rows)} clips{f' of {len(speakers)} speakers' if speakers else ''}, "
        f"{sum(any(row.get(column) for column in SPEECH_COLUMNS) for row in rows)} with subtitles; labels: "
        + ", ".join(f"{label} {count}" for label, count in counts.most_common())
    )
    if repeated:
        logger.warning(
            f"{name}: {len(repeated)} clips are in several rows, whose labels are joined: {_some(repeated)}"
        )
    clips = {Path(row[kind]) for row in rows for kind in ("video", "audio") if isinstance(row.get(kind), str)}
    present = {file for folder in {clip.parent for clip in clips} if folder.is_dir() for file in folder.iterdir()}
    missing = {file for file in present - clips if file.suffix.lower() in (*VIDEO_SUFFIXES, *SOUND_SUFFIXES)}
    if missing:
        logger.warning(f"{name}: {len(missing)} files beside the clips are in no row: {_some(missing)}")


def _some(files: Iterable[Any]) -> str:
    names = sorted(Path(str(file)).name for file in files)
    return ", ".join(names[:_MOST_NAMED]) + (", ..." if len(names) > _MOST_NAMED else "")


def split_off(table: Dataset, share: float, name: str = "data") -> tuple[Dataset, Dataset]:
    """Splits a table into training and evaluation rows that have no speaker in common.

    The split is always the same for the same rows: speakers (or clips, if there is no column `speaker`) are taken in the
    order of the SHA-256 of their names, as long as the share allows.

    Args:
        table (`Dataset`): The rows.
        share (`float`): The share of the rows to evaluate on.
        name (`str`, *optional*, defaults to `"data"`): The name of the table in messages.

    Returns:
        `tuple[Dataset, Dataset]`: The rows to train on, and those to evaluate on.

    Raises:
        ValueError: if the share is not between 0 and 1.
        DataError: if a row has no speaker, or there are fewer than two speakers or clips.
    """
    if not 0 < share < 1:
        raise ValueError(f"eval_share must be between 0 and 1, got {share}")
    by_speaker = "speaker" in table.column_names
    groups = [_group(row, number, by_speaker) for number, row in enumerate(table, start=1)]
    unnamed = [str(number) for number, group in enumerate(groups, start=1) if not group]
    if unnamed:
        raise DataError(f"{name}: no speaker in {len(unnamed)} rows, of which are {', '.join(unnamed[:_MOST_NAMED])}")
    sizes = Counter(groups)
    kind = "speakers" if by_speaker else "clips"
    if len(sizes) < 2:
        raise DataError(f"{name}: a split needs two {kind}, found {len(sizes)}")
    chosen: set[str] = set()
    for group in sorted(sizes, key=lambda group: hashlib.sha256(group.encode()).hexdigest()):
        if sum(sizes[other] for other in chosen) + sizes[group] <= share * len(groups):
            chosen.add(group)
    chosen = chosen or {min(sizes, key=lambda group: (sizes[group], group))}
    parts = [[number for number, group in enumerate(groups) if (group in chosen) == held] for held in (False, True)]
    logger.info(
        f"{name}: {len(parts[0])} rows of {len(sizes) - len(chosen)} {kind} to train on, {len(parts[1])} of {len(chosen)} "
        "others to evaluate on"
    )
    return table.select(parts[0]), table.select(parts[1])


def _group(row: dict, number: int, by_speaker: bool) -> str:
    if by_speaker:
        return str(row["speaker"] or "")
    clip = row.get("video") or row.get("audio")
    if isinstance(clip, dict):
        clip = clip.get("path")
    return Path(clip).name if isinstance(clip, str) else f"row {number}"
