"""Utterances for rows of a table whose clips have sound and no subtitles."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset
from transformers.utils import logging

from ..processing.kept_utterances import UtteranceTable
from ..processing.speech import SpeechReader
from ..processing.utterances import Utterance
from .clip_columns import first_medium
from .data_checks import is_empty

SPEECH_COLUMNS = ("utterances", "subtitles", "subtitle")
# The word that stands for a model where utterances shall have times and no words.
VOICE_ACTIVITY = "voice-activity"
UTTERANCES = "utterances.jsonl"

logger = logging.get_logger(__name__)


def add_utterances(tables: dict[Any, Dataset], asr: str, path: str | Path) -> dict[Any, Dataset]:
    """Recognises the speech of the rows that have none of [`SPEECH_COLUMNS`].

    Each clip's utterances are kept as soon as they are known, so that a run that was stopped goes on, and the next run
    recognises nothing again. The first process of a machine recognises, and the others read what it kept.

    Args:
        tables (`dict[Any, Dataset]`): The tables by name.
        asr (`str`):
            A model for Transformers' speech recognition (folder or Hub id), or `"voice-activity"` for utterances without
            words.
        path (`str` or `Path`): The JSON-lines file that keeps them.

    Returns:
        `dict[Any, Dataset]`: The tables, with a column `utterances`. Clips that cannot be read stay without.

    Raises:
        ValueError: If the model cannot be loaded, or if the file is no table of utterances.
    """
    waiting = {name: [row for row in table if not _has_speech(row)] for name, table in tables.items()}
    if not any(waiting.values()):
        return tables
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    state = PartialState()
    with state.local_main_process_first(), ExitStack() as stack:
        store = stack.enter_context(UtteranceTable(path, writes=state.is_local_main_process))
        reader = SpeechReader.from_pretrained(None if asr == VOICE_ACTIVITY else asr, store=store)
        tables = {name: _with_utterances(table, reader) for name, table in tables.items()}
    logger.info(f"utterances of {sum(map(len, waiting.values()))} rows without subtitles: {path}")
    return tables


def _with_utterances(table: Dataset, reader: SpeechReader) -> Dataset:
    column: list[Any] = []
    for row in logging.tqdm(table, desc="Recognising speech", unit="clip"):
        if _has_speech(row):
            column.append(row.get("utterances"))
            continue
        try:
            found = _read_speech(row, reader)
        except ValueError:  # which the check of the clips reports
            found = []
        column.append([{"start": each.start, "end": each.end, "text": each.text} for each in found] or None)
    if "utterances" in table.column_names:
        table = table.remove_columns("utterances")
    return table.add_column("utterances", column)


def _read_speech(row: dict, reader: SpeechReader) -> list[Utterance]:
    found = first_medium(row, "audio", "video")
    if found is None or found[0] == "decoded":  # frames, which have no sound
        return []
    kind, source = found
    if kind == "track":
        return reader.read(source, source=source.samples.tobytes())
    return reader.read_file(source)


def _has_speech(row: dict) -> bool:
    if is_empty(row.get("video")) and is_empty(row.get("audio")):
        return True  # a row of words alone
    return any(row.get(name) for name in SPEECH_COLUMNS)
