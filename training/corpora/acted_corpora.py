"""RAVDESS and CREMA-D: actors say given sentences, and all labels are in the names of the files."""

import re
from collections import defaultdict
from pathlib import Path

from ..label_tables import VIDEO_SUFFIXES
from .corpus_reading import CorpusRequest, CorpusRows, part_of
from .corpus_words import CREMA_D, RAVDESS

RAVDESS_NAME = re.compile(r"0[123]-0[12]-\d\d-\d\d-\d\d-\d\d-\d\d")
RAVDESS_SENTENCES = {"01": "Kids are talking by the door.", "02": "Dogs are sitting by the door."}
RAVDESS_FOLDS = 4
_RAVDESS_ACTORS = 24

# 1040_ITH_SAD_X.wav is a file of the first release.
CREMA_D_NAME = re.compile(r"1\d{3}_[a-z]{3}_[a-z]{3}_(lo|md|hi|xx?)", re.IGNORECASE)
CREMA_D_SENTENCES = {
    "IEO": "It's eleven o'clock.",
    "TIE": "That is exactly what happened.",
    "IOM": "I'm on my way to the meeting.",
    "IWW": "I wonder what this is about.",
    "TAI": "The airplane is almost full.",
    "MTI": "Maybe tomorrow it will be cold.",
    "IWL": "I would like a new alarm clock.",
    "ITH": "I think I have a doctor's appointment.",
    "DFA": "Don't forget a jacket.",
    "ITS": "I think I've seen this before.",
    "TSI": "The surface is slick.",
    "WSI": "We'll stop in a couple of minutes.",
}


def ravdess_part(actor: int, fold: int) -> str:
    """Names the split of an actor of RAVDESS.

    As many women as men are in each part. In fold 1 the actors 1 to 16 train and 19 to 24 test, as for `microemo-small`;
    in each further fold, test and dev are the six actors before.

    Args:
        actor (`int`): The actor, from 1 to 24. Odd numbers are men.
        fold (`int`): The fold, from 1 to 4.

    Returns:
        `str`: `"train"` (16 actors), `"dev"` (2) or `"test"` (6).
    """
    place = (actor - 1 + 6 * (fold - 1)) % _RAVDESS_ACTORS
    return "train" if place < 16 else "dev" if place < 18 else "test"


def read_ravdess(request: CorpusRequest) -> CorpusRows:
    """Reads RAVDESS, `03-01-06-01-02-01-12.mp4`: modality, channel, emotion, intensity, statement, repetition, actor.

    A recording is there up to three times: with picture and sound (01), as picture (02) and as sound (03). The file with
    both is taken, or picture and sound of the other two.

    Args:
        request ([`CorpusRequest`]): The folder and the fold.

    Returns:
        [`CorpusRows`]: A row for each recording, speech and song.
    """
    media = request.media
    recordings: dict[str, dict[str, Path]] = defaultdict(dict)
    for stem in media.files:
        if RAVDESS_NAME.fullmatch(stem) and (file := media.find(stem)):
            recordings[stem[3:]][stem[:2]] = file
    found = CorpusRows()
    for name, files in sorted(recordings.items()):
        _, emotion, _, statement, _, actor = name.split("-")
        clip = files.get("01") or files.get("02") or files["03"]
        is_silent = "01" not in files and "02" in files and files["02"].suffix.lower() in VIDEO_SUFFIXES
        found.add(
            RAVDESS,
            emotion,
            clip,
            name=clip.stem,
            split=ravdess_part(int(actor), request.fold),
            speaker=f"actor {actor}",
            subtitle=RAVDESS_SENTENCES.get(statement),
            audio=str(files["03"]) if is_silent and "03" in files else None,
        )
    return found


def read_crema_d(request: CorpusRequest) -> CorpusRows:
    """Reads CREMA-D, `1001_DFA_ANG_XX.flv`: actor, sentence, emotion, intensity.

    Video files (`VideoFlash`) go before the sound files of the same recording (`AudioWAV`, `AudioMP3`).

    Args:
        request ([`CorpusRequest`]): The folder and the fold. The last digit of an actor's number decides on the part.

    Returns:
        [`CorpusRows`]: A row for each recording.
    """
    media, found = request.media, CorpusRows()
    for stem in sorted(media.files):
        if CREMA_D_NAME.fullmatch(stem):
            actor, sentence, emotion, _ = stem.split("_")
            found.add(
                CREMA_D,
                emotion,
                media.find(stem),
                name=stem.upper(),
                split=part_of(int(actor) % 10, request.fold),
                speaker=f"actor {actor}",
                subtitle=CREMA_D_SENTENCES.get(sentence.upper()),
            )
    return found
