"""Recordings of speakers are read with their emotions, splits and the times of the speech in them."""

from collections import Counter

import numpy as np
import pytest

from microemo.tests.training.synthetic.spoken_files import say, write_wav
from microemo.training.synthetic.recordings import HEARD, load_speech, read_recordings, speech_edges
from microemo.training.synthetic.voice import SOUND_RATE


def folder_of(tmp_path, rows, columns="file,speaker,emotion"):
    """A folder with a table, and a second of speech for each file that it names."""
    (tmp_path / "voices.csv").write_text("\n".join([columns, *rows]))
    for row in rows:
        name = row.split(",")[0]
        if name.endswith(".wav"):
            write_wav(tmp_path / name, say(seed=len(name)))
    return tmp_path


def test_a_table_tells_who_says_what_and_how(people_folder):
    for split in ("train", "dev", "test"):
        found = read_recordings(people_folder, split)
        assert len(found) == 6 and {one.split for one in found} == {split}
        assert {one.speaker for one in found} == {f"voice-{split}-female", f"voice-{split}-male"}
        for one in found:
            assert one.emotion in one.path.name and one.gender in one.path.name
            assert (one.corpus, one.language) == ("made", "en") and one.text.startswith("Words ")


def test_silence_before_and_after_is_no_speech(people_folder):
    for one in read_recordings(people_folder, "train"):
        seconds = 0.8 + 0.2 * ("happy", "sad", "angry").index(one.emotion)
        assert one.start == pytest.approx(0.5, abs=0.06) and one.end == pytest.approx(0.5 + seconds, abs=0.12)
        speech = load_speech(one)
        assert len(speech) == pytest.approx((one.end - one.start) * SOUND_RATE, abs=2)
        assert abs(speech[0]) < 0.01 and abs(speech[-1]) < 0.01


def test_a_breath_before_the_speech_is_no_speech():
    sound = say(before=1.0)
    breath = slice(round(0.2 * SOUND_RATE), round(0.5 * SOUND_RATE))
    sound[breath] += 0.01 * np.random.default_rng(0).standard_normal(breath.stop - breath.start)
    assert speech_edges(sound)[0] == pytest.approx(1.0, abs=0.1)
    assert speech_edges(np.zeros(SOUND_RATE, np.float32)) is None
    assert speech_edges(np.zeros(3, np.float32)) is None


def test_loudness_is_measured_against_the_speakers_loudest(tmp_path):
    folder_of(tmp_path, ["a.wav,one,angry,train", "b.wav,one,sad,train"], "file,speaker,emotion,split")
    write_wav(tmp_path / "b.wav", say(loud=0.1))
    loud, soft = read_recordings(tmp_path, "train")
    assert loud.level == soft.level
    assert np.abs(load_speech(loud)).max() == pytest.approx(1, abs=0.01)
    assert np.abs(load_speech(soft)).max() == pytest.approx(0.1, abs=0.02)


def test_names_of_ravdess(tmp_path):
    for actor in range(1, 13):
        write_wav(tmp_path / f"03-01-05-02-01-01-{actor:02d}.wav", say(0.4, 0.1, 0.1, seed=actor))
    for other in ("03-02-05-02-01-01-01.wav", "02-01-05-02-01-01-01.wav", "notes.wav"):  # a song, a film without sound
        write_wav(tmp_path / other, say(0.4, 0.1, 0.1))
    splits = {split: read_recordings(tmp_path, split) for split in ("train", "dev", "test")}
    assert {split: len(found) for split, found in splits.items()} == {"train": 8, "dev": 1, "test": 3}
    every = [one for found in splits.values() for one in found]
    assert len({one.speaker for one in every}) == 12, "nobody is in two splits"
    assert {(one.emotion, one.text, one.language) for one in every} == {
        ("angry", "Kids are talking by the door.", "en")
    }
    assert Counter(one.gender for one in every) == {"male": 6, "female": 6}


def test_other_words_for_emotions(tmp_path):
    folder_of(
        tmp_path, [f"{word}.wav,one,{word},train" for word in ("Anger", "joy", "calm")], "file,speaker,emotion,split"
    )
    assert [one.emotion for one in read_recordings(tmp_path, "train")] == ["angry", "happy", "calm"]
    assert len(set(HEARD)) == 9


def test_a_table_beside_the_folder(tmp_path):
    inside = tmp_path / "voices"
    inside.mkdir()
    for name in ("a.wav", "b.wav"):
        write_wav(inside / name, say())
    (tmp_path / "voices.csv").write_text(
        "file,speaker,emotion,split\nvoices/a.wav,one,sad,train\nelsewhere/c.wav,two,sad,train"
    )
    assert [one.path.name for one in read_recordings(inside, "train")] == ["a.wav"]


@pytest.mark.parametrize(
    "rows, message",
    [
        (["a.wav,one,sad,train", "b.wav,one,sad,test"], "speaker 'one' is in two splits, 'train' and 'test'"),
        (["a.wav,one,melancholy,train"], "row 1: emotion 'melancholy' is unknown; expected one of neutral"),
        (["a.wav,one,sad,valid"], "row 1: split must be one of train, dev, test, got 'valid'"),
        (["a.wav,,sad,train"], "row 1: no speaker"),
        (["a.wav,one,sad,dev"], "no recordings of split 'train'"),
        (["a.wav,one,sad,train", "b.wav,two,sad,"], "speaker 'two' has no split, and others have one"),
    ],
)
def test_what_a_table_must_not_say(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        read_recordings(folder_of(tmp_path, rows, "file,speaker,emotion,split"), "train")


def test_files_that_cannot_be_used(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder of recordings at"):
        read_recordings(tmp_path / "nowhere", "train")
    with pytest.raises(
        ValueError, match="no recordings; expected a CSV file with the columns file, speaker and emotion"
    ):
        read_recordings(tmp_path, "train")
    folder_of(tmp_path, ["a.wav,one,sad,train"], "file,speaker,emotion,split")
    write_wav(tmp_path / "a.wav", np.zeros(SOUND_RATE, np.float32))
    with pytest.raises(ValueError, match=r"a\.wav: nothing is heard in this recording"):
        read_recordings(tmp_path, "train")
    (tmp_path / "a.wav").unlink()
    with pytest.raises(FileNotFoundError, match=r"row 1: no file .*a\.wav"):
        read_recordings(tmp_path, "train")
