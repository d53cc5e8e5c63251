"""Dialogues of photographed people who act and speak with recorded voices, with questions and answers.

Clips are real files (H.264, AAC, SRT) of the plans of [`plan_people`]. Nobody in them was filmed: the photographs are
animated, the voices are those of other people, and what both show together was never felt by anybody.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from ...utils.atomic_files import write_text
from ...utils.files import read_text
from .corpus_files import TABLE, TRUTH, comment_of, in_processes, read_list, write_list
from .dialogue_plan import CLUES, UNSEEN
from .face_acting import ACTIONS
from .media_writer import Line, to_srt, write_media
from .people_answers import people_turns
from .people_plan import UNSEEN_COMPANY, PeopleDialogue, people_streams, plan_people
from .people_scenes import Sitter, load_sitter, people_pictures
from .people_sounds import mouth_openings, people_sound, people_voices
from .photographs import Person, read_photographs
from .recordings import find_table, read_recordings

try:
    import cv2
except ImportError:
    cv2 = None  # type: ignore[assignment]

LICENSES = "LICENSES.md"
# Clips of another recipe are not kept: count up when pictures or sounds change.
_RECIPE = 2
# With macroblock trees x264 encodes the same pictures differently from run to run.
_SAME_EACH_TIME = {"x264-params": "mbtree=0"}
_COMPRESSED = (34, 42)  # constant rate factors
_KEPT_SITTERS = 150  # people of a process; one takes about 8 MB
# The people of a process that makes clips, see `_set_people`.
_people: dict[str, Person] = {}


def write_people(
    folder: str | Path,
    clips: int,
    photographs: str | Path,
    recordings: str | Path,
    seed: int = 0,
    split: str = "train",
    num_workers: int = 1,
    progress: bool = True,
) -> Path:
    """Makes clips of people who act and speak. What is in the folder already is kept.

    Each clip has an H.264 video with sound and an SRT file, unless the lack of one of them is what it shows. There are
    three lists: `dialogues.jsonl` to train on, `truth.jsonl` to check against (see [`people_truth`]), and
    `LICENSES.md`, which names the people and voices with the terms of their folders. An interrupted run resumes where
    it was. Questions and answers are made anew from the truth, without making clips again.

    Args:
        folder (`str` or `Path`): The folder, which is made if it does not exist.
        clips (`int`): The number of clips.
        photographs (`str` or `Path`): The folder of the photographs, see [`read_photographs`].
        recordings (`str` or `Path`): The folder of the recordings, see [`read_recordings`].
        seed (`int`, *optional*, defaults to 0): The seed. Seeds, splits and indices have no clip in common.
        split (`str`, *optional*, defaults to `"train"`):
            `"train"`, `"dev"` or `"test"`; nobody is in two of them. A third of the test rows have an unseen pair of
            clue and voice, and `test_unseen` as split.
        num_workers (`int`, *optional*, defaults to 1): The number of processes.
        progress (`bool`, *optional*, defaults to `True`): Whether to show a progress bar.

    Returns:
        `Path`: The path of `dialogues.jsonl`.

    Raises:
        FileNotFoundError: if a folder, or a file that its table names, is missing.
        ValueError: if the split is unknown, there are no clips or no processes, or the folders hold nobody of the split
            or files that cannot be used.
        ImportError: if PyAV or MediaPipe is not installed.
    """
    from tqdm.auto import tqdm

    for name, value, least in (("clips", clips, 1), ("num_workers", num_workers, 1), ("seed", seed, 0)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    people = {person.id: person for person in read_photographs(photographs, split)}
    speech = read_recordings(recordings, split)
    dialogues = [plan_people(seed, split, index, list(people.values()), speech) for index in range(clips)]
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    listed = read_list(folder / TRUTH)
    waiting = [dialogue for dialogue in dialogues if not _is_complete(folder, dialogue, listed)]
    make = partial(_make_clip, folder)
    with tqdm(total=clips, initial=clips - len(waiting), desc="Clips", unit="clip", disable=not progress) as bar:
        made = []
        for truth in in_processes(make, waiting, num_workers, _set_people, people):
            made.append(truth)
            bar.update()
    write_list(folder / TRUTH, made)
    _write_licenses(folder, [Path(photographs), Path(recordings)])
    return list_people(folder)


def list_people(folder: str | Path) -> Path:
    """Lists the clips of people in a folder with questions and answers, which are made from `truth.jsonl`.

    Args:
        folder (`str` or `Path`): The folder.

    Returns:
        `Path`: The path of `dialogues.jsonl`. The truth gets the turns that are listed.
    """
    folder = Path(folder)
    truths, rows = [], []
    for truth in read_list(folder / TRUTH).values():
        if "people" not in truth:
            continue  # a clip of the astronaut
        split = "test" if truth["split"] == UNSEEN else truth["split"]
        rng = people_streams(truth["seed"], split, truth["index"])[8]
        # Windows without words are known by their times.
        given = "words" if truth["has_words"] else "times" if "no_words" in truth["conditions"] else "none"
        row, truth = people_row(truth, rng, given)
        rows.append(row)
        truths.append(truth)
    write_list(folder / TRUTH, truths)
    return write_list(folder / TABLE, rows)


def people_row(truth: dict, rng: np.random.Generator, given: str, folder: str | Path = "") -> tuple[dict, dict]:
    """Makes the row of a clip in a training table.

    Args:
        truth (`dict`): The truth of the clip, see [`people_truth`].
        rng (`np.random.Generator`): The generator that draws and orders the questions.
        given (`str`): What the row holds of the utterances: `"words"`, `"times"` or `"none"`, see [`people_turns`].
        folder (`str` or `Path`, *optional*): The folder of the clip, for its path in the row.

    Returns:
        `tuple[dict, dict]`: The row, and the truth with the `turns` of the row.
    """
    turns = people_turns(truth, rng, given)
    row = {"name": truth["name"], "split": truth["split"], "video": str(Path(folder, f"{truth['name']}.mp4"))}
    if given == "words":
        row["subtitles"] = str(Path(folder, f"{truth['name']}.srt"))
    elif given == "times":
        row["utterances"] = [{"start": said["start"], "end": said["end"], "text": ""} for said in truth["utterances"]]
    whole = next(turn for turn, *_ in turns if turn["kind"] == "whole")
    row |= {"emotions": whole["emotions"], "messages": [message for _, *pair in turns for message in pair]}
    return row, truth | {"turns": [turn for turn, *_ in turns]}


def write_people_dialogue(folder: str | Path, dialogue: PeopleDialogue, sitters: Mapping[str, Sitter]) -> dict:
    """Makes the clip of one dialogue. Its SRT file is written first, so that a clip that exists is complete.

    Args:
        folder (`str` or `Path`): The folder.
        dialogue ([`PeopleDialogue`]): The dialogue.
        sitters (`Mapping[str, Sitter]`): The people by name.

    Returns:
        `dict`: The truth of the clip, see [`people_truth`].
    """
    path = Path(folder) / f"{dialogue.name}.mp4"
    subtitles = path.with_suffix(".srt")
    if _has_subtitles(dialogue):
        write_text(subtitles, to_srt(Line(said.start, said.end, said.text) for said in dialogue.utterances))
    else:
        subtitles.unlink(missing_ok=True)
    picture_rng, sound_rng = people_streams(dialogue.seed, _plain_split(dialogue), dialogue.index)[6:8]
    voices = people_voices(dialogue)
    openings = mouth_openings(dialogue, voices)
    factor = int(picture_rng.integers(*_COMPRESSED))
    encoding = _SAME_EACH_TIME | ({"crf": str(factor)} if "compressed" in dialogue.conditions else {})
    write_media(
        path,
        people_pictures(dialogue, sitters, openings, picture_rng),
        dialogue.times,
        people_sound(dialogue, voices, sound_rng),
        comment=_mark(dialogue),
        encoding=encoding,
    )
    return people_truth(dialogue, openings)


def people_truth(dialogue: PeopleDialogue, openings: np.ndarray) -> dict:
    """Collects the truth of a clip that experiments are checked against. The model does not read it.

    Args:
        dialogue ([`PeopleDialogue`]): The dialogue.
        openings (`np.ndarray` of shape `(people + 1, T)`): How far each voice opens the mouth in every frame.

    Returns:
        `dict`: name, split, seed, index, fps, size, seconds; `has_unseen_pair`; `people`, the names of those who are
        seen, in the order in which they speak, with a bystander last; `conditions`; whether there is a face
        (`has_face`), a voice (`has_sound`) and its words (`has_words`); `utterances` with start, end, text, clue,
        region, heard, speaker, person, language, files, `real_smile`, `seen`, `unseen`, and the `expression` (onset,
        apex, decline, end in seconds; strength); `distractors` with the person; `times` of the frames, and in each of
        them who is `shown` (an index of `people`, or `None` where no face is seen) and the `amplitudes` of that
        person's facial actions.
    """
    conditions, in_shot = set(dialogue.conditions), dialogue.in_shot
    values = np.stack([dialogue.amplitudes(person, openings[person])[0] for person in range(len(dialogue.people))])
    seen_values = values[in_shot, np.arange(len(in_shot))].T.round(3)
    has_face = "no_face" not in conditions
    people = [*dialogue.people, *([dialogue.bystander] if dialogue.bystander else [])] if has_face else []
    return {
        **{name: getattr(dialogue, name) for name in ("name", "split", "seed", "index", "fps", "size", "seconds")},
        "has_unseen_pair": dialogue.split == UNSEEN,
        "people": people,
        "conditions": list(dialogue.conditions),
        "has_face": has_face and not dialogue.hidden.all(),
        "has_sound": not conditions & {"no_sound", "silent", "no_speech"},
        "has_words": not conditions & {"no_subtitles", "no_words"},
        "utterances": [
            {
                "start": said.start,
                "end": said.end,
                "text": said.text,
                "clue": said.clue,
                "region": CLUES[said.clue][0],
                "heard": said.heard,
                "speaker": said.parts[0][1].speaker,
                "person": dialogue.people[said.person],
                "language": said.parts[0][1].language,
                "files": [recording.path.name for _, recording in said.parts],
                "real_smile": said.real_smile,
                "seen": said.seen,
                "unseen": (said.clue, said.heard) in UNSEEN_COMPANY,
                "expression": said.expression and asdict(said.expression),
            }
            for said in dialogue.utterances
        ],
        "distractors": [
            {**asdict(expression), "person": name, "real_smile": is_real}
            for name, acting in zip([*dialogue.people, dialogue.bystander], dialogue.acting, strict=False)
            for expression, is_real in acting.distractors
        ],
        "times": dialogue.times.round(4).tolist(),
        "shown": [
            None if hidden else person
            for hidden, person in zip(dialogue.hidden.tolist(), in_shot.tolist(), strict=True)
        ],
        "amplitudes": dict(zip(ACTIONS, seen_values.tolist(), strict=True)),
        "corpora": sorted({recording.corpus for said in dialogue.utterances for _, recording in said.parts} - {""}),
        "mark": _mark(dialogue),
    }


def _set_people(people: dict[str, Person]) -> None:
    _people.update(people)
    if cv2 is not None:
        cv2.setNumThreads(1)


@lru_cache(_KEPT_SITTERS)
def _sitter(person: Person) -> Sitter:
    return load_sitter(person)


def _make_clip(folder: Path, dialogue: PeopleDialogue) -> dict:
    """Makes a clip, or finds that it is complete and lacks its truth only."""
    if _has_clip(folder, dialogue):
        return people_truth(dialogue, mouth_openings(dialogue, people_voices(dialogue)))
    names = [*dialogue.people, *([dialogue.bystander] if dialogue.bystander else [])]
    is_faceless = "no_face" in dialogue.conditions
    sitters = {} if is_faceless else {name: _sitter(_people[name]) for name in names}
    return write_people_dialogue(folder, dialogue, sitters)


def _plain_split(dialogue: PeopleDialogue) -> str:
    return "test" if dialogue.split == UNSEEN else dialogue.split


def _has_subtitles(dialogue: PeopleDialogue) -> bool:
    return not {"no_subtitles", "no_words"} & set(dialogue.conditions)


def _mark(dialogue: PeopleDialogue) -> str:
    """Returns the text in a clip's file that names its plan. The questions about it may change."""
    plan = repr([_RECIPE, dialogue]).encode()
    return f"MicroEmo dialogue of people {hashlib.sha256(plan).hexdigest()[:16]}"


def _has_clip(folder: Path, dialogue: PeopleDialogue) -> bool:
    path = folder / f"{dialogue.name}.mp4"
    if path.with_suffix(".srt").is_file() != _has_subtitles(dialogue):
        return False
    return comment_of(path) == _mark(dialogue)


def _is_complete(folder: Path, dialogue: PeopleDialogue, listed: Mapping[str, dict]) -> bool:
    return listed.get(dialogue.name, {}).get("mark") == _mark(dialogue) and _has_clip(folder, dialogue)


def _write_licenses(folder: Path, sources: Iterable[Path]) -> None:
    """Writes who is in the clips, and the terms that are written beside the photographs and recordings."""
    truths = [truth for truth in read_list(folder / TRUTH).values() if "people" in truth]
    people = sorted({name for truth in truths for name in truth["people"]})
    said = [said for truth in truths if truth["has_sound"] for said in truth["utterances"]]
    speakers = sorted({one["speaker"] for one in said})
    lines = [
        "# People and voices in these clips\n",
        "The clips are made of photographs that are animated and of recordings of other people. Nobody in them was "
        "filmed, and nobody felt or acted what face and voice show together. The terms below hold for the clips and for "
        "weights that are trained on them.\n",
        f"Photographs ({len(people)} people): {', '.join(people)}\n",
        f"Recordings ({len(speakers)} speakers): {', '.join(speakers)}\n",
    ]
    notes: dict[Path, str] = {}
    for source in sources:
        table = find_table(source, ("file",))
        for place in {source.resolve(), *([table.parent.resolve()] if table else [])}:
            for path in sorted(place.iterdir()):
                if path.is_file() and path.name.upper().startswith(("README", "LICENSE", "LICENCE", "COPYING")):
                    notes[path] = read_text(path)
    lines += [f"---\n\nFrom {path.name} of the folder {path.parent.name}:\n\n{text}" for path, text in notes.items()]
    if not notes:
        lines.append("Their folders have no README and no licence: ask those who gave you the files for the terms.")
    write_text(folder / LICENSES, "\n".join(lines))
