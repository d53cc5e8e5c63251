"""RAVDESS and MELD as on the Hub: Parquet files whose rows hold the clips."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Audio, ClassLabel, Features, Value, Video

from microemo.processing.media import probe
from microemo.training.corpora.corpus_list import CorpusOptions, find_corpus
from microemo.training.data import load_table
from microemo.training.data_checks import DataError, check_table


@pytest.fixture(scope="module")
def two_clips(make_clip):
    """The bytes of a clip with sound and of one without."""
    times = [number / 10 for number in range(10)]
    return make_clip("sound.mp4", times=times).read_bytes(), make_clip(
        "mute.mp4", times=times, sound=None
    ).read_bytes()


WAV = b"RIFF$\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00\x80>\x00\x00\x00}\x00\x00\x02\x00\x10\x00data\x00\x00\x00\x00"
RAVDESS = Features(
    {
        "video_id": Value("string"),
        "video": Video(decode=False),
        "audio": Audio(sampling_rate=16000, decode=False),
        "gender": ClassLabel(names=["male", "female"]),
        "emotion": ClassLabel(names=["angry", "calm", "disgust", "fear", "happy", "neutral", "sad", "surprise"]),
        "transcription": Value("string"),
    }
)
MELD = Features(
    {
        "video_id": Value("string"),
        "video": Video(decode=False),
        "audio": Audio(sampling_rate=16000, decode=False),
        "utterance": Value("string"),
        "speaker": ClassLabel(names=["Joey", "Rachel", "Ross"]),
        "emotion": ClassLabel(names=["anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise"]),
        "sentiment": ClassLabel(names=["negative", "neutral", "positive"]),
    }
)


def media(data: bytes, name: str) -> dict:
    return {"bytes": data, "path": name}


def ravdess_rows(data: bytes) -> list[dict]:
    return [
        {
            "video_id": f"01-01-0{number}-01-01-01-{actor}.mp4",
            "video": media(data, f"01-01-0{number}-01-01-01-{actor}.mp4"),
            "audio": media(WAV, "sound.wav"),
            "gender": number % 2,
            "emotion": number,
            "transcription": "Kids are talking by the door.",
        }
        for number, actor in enumerate(("01", "17", "24"), start=1)
    ]


def meld_rows(data: bytes) -> list[dict]:
    return [
        {
            "video_id": f"dia{number}_utt0.mp4",
            "video": media(data + bytes([number]), f"dia{number}_utt0.mp4"),
            "audio": None,
            "utterance": "It\x92s me!",
            "speaker": number % 3,
            "emotion": number % 7,
            "sentiment": 0,
        }
        for number in range(12)
    ]


def write(path, rows: list[dict], features: Features) -> None:
    """Writes a Parquet file with the features that `datasets` reads from it. Its own way needs torchcodec for sound."""
    pq.write_table(pa.Table.from_pylist(rows, schema=features.arrow_schema), path)


@pytest.fixture
def save(tmp_path):
    """Writes rows as the Hub does, in a folder `data`."""

    def save_rows(rows, features, name="copy", file="test-00000-of-00001.parquet"):
        (tmp_path / name / "data").mkdir(parents=True, exist_ok=True)
        write(tmp_path / name / "data" / file, rows, features)
        return tmp_path / name

    return save_rows


def test_clips_of_ravdess_are_written_once(save, two_clips, tmp_path):
    folder = save(ravdess_rows(two_clips[0]), RAVDESS)
    assert find_corpus(folder).name == "ravdess-hub"
    options = CorpusOptions(clips=tmp_path / "clips")
    table = load_table(folder, corpus=options)
    assert table["emotions"][:] == [["calm"], ["disgusted"], ["fearful"]]  # though the clips have the same bytes
    assert table["split"][:] == ["train", "dev", "test"] and table["speaker"][:] == [
        "actor 01",
        "actor 17",
        "actor 24",
    ]
    assert "audio" not in table.column_names or set(table["audio"]) == {None}
    assert probe(table[0]["video"]).has_audio and len(check_table(table)) == 3
    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "clips").rglob("*") if file.is_file()}
    load_table(folder, corpus=options)
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "clips").rglob("*") if file.is_file()} == files
    assert len(files) == 3


def test_sound_in_a_column_of_its_own_is_taken_where_the_video_has_none(save, two_clips, tmp_path):
    folder = save(ravdess_rows(two_clips[1]), RAVDESS)
    table = load_table(folder, corpus=CorpusOptions(clips=tmp_path / "clips"))
    assert all(file.endswith(".wav") for file in table["audio"]) and all(
        file.endswith(".mp4") for file in table["video"]
    )


def test_meld_is_divided_by_speaker(save, two_clips, tmp_path, monkeypatch):
    folder = save(meld_rows(two_clips[0]), MELD)
    monkeypatch.setattr("microemo.training.corpora.corpus_list.HF_HOME", str(tmp_path / "home"))
    table = load_table(folder)
    assert table["speaker"][:3] == ["Joey", "Rachel", "Ross"] and table[3]["emotions"] == ["joyful"]
    assert table[0]["subtitle"] == "It’s me!" and table[0]["name"] == "dia0_utt0"
    parts = {speaker: {row["split"] for row in table if row["speaker"] == speaker} for speaker in table["speaker"]}
    assert all(len(splits) == 1 for splits in parts.values()) and set(table["split"]) == {"train", "dev", "test"}
    other = load_table(folder, corpus=CorpusOptions(fold=2))
    assert other["split"][:] != table["split"][:]
    assert len(list((tmp_path / "home/microemo/clips/meld-hub").iterdir())) == 12


def test_a_hub_id_is_read_by_name_and_all_its_splits(save, two_clips, tmp_path, monkeypatch):
    """The files of a local copy stand in for those that `datasets` downloads."""
    rows = ravdess_rows(two_clips[0])
    folder = save(rows[:2], RAVDESS)
    save(rows[2:], RAVDESS, file="train-00000-of-00001.parquet")
    monkeypatch.chdir(folder.parent)
    folder.rename(tmp_path / "RAVDESS_AV")
    asked = []

    def load(name, *args, **named):
        from datasets import load_dataset

        asked.append(name)
        return load_dataset(str(tmp_path / "RAVDESS_AV"), *args, **named)

    monkeypatch.setattr("microemo.training.corpora.hub_corpora.load_dataset", load)
    table = load_table("mteb/ravdess_av", "train", corpus=CorpusOptions(clips=tmp_path / "clips"))
    assert asked == ["mteb/ravdess_av"] and table["name"][:] == ["01-01-01-01-01-01-01"]


def test_other_columns_or_names_are_refused(save, two_clips):
    rows = ravdess_rows(two_clips[0])
    folder = save([row | {"video_id": "a.mp4"} for row in rows], RAVDESS)
    with pytest.raises(DataError, match="expected a video_id as 01-01-06-01-02-01-12.mp4, found 'a.mp4'"):
        load_table(folder)
    with pytest.raises(DataError, match="no column speaker, utterance; there are video_id"):
        load_table(folder, corpus=CorpusOptions("meld-hub"))


def test_any_table_with_sound_in_a_column_is_read_without_torchcodec(tmp_path):
    """`datasets` decodes the column `audio` with torchcodec, which has no build for many computers."""
    features = Features({"audio": Audio(), "instruction": Value("string"), "response": Value("string")})
    row = {"audio": media(WAV, "a.wav"), "instruction": "What?", "response": "This."}
    write(tmp_path / "t.parquet", [row], features)
    (read,) = load_table(tmp_path / "t.parquet")
    assert read["audio"]["bytes"] == WAV
