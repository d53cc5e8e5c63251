"""A folder of clips with a table of labels: columns of any name, rows that ask for the labels, splits without a common speaker."""

import pytest
from datasets import ClassLabel, Dataset, Features, Value

from microemo.training.arguments import parse_arguments
from microemo.training.data import load_table
from microemo.training.data_checks import DataError, check_table
from microemo.training.label_tables import LABELS_INSTRUCTION, LabelColumns, split_off
from microemo.training.train import load_tables

COLUMNS = LabelColumns(("emotion",), "file", "actor")


@pytest.fixture
def make_table(tmp_path):
    """Writes `labels.csv` beside empty files of the names given, and returns its path."""

    def make(text, *files):
        for name in files:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(b"")
        path = tmp_path / "labels.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return make


def test_a_csv_with_names_of_its_own_becomes_questions_for_labels(make_table, news, tmp_path):
    text = "actor;file;emotion;date\nann;a.mp4;Happy;1\nbob;b;sad, tired;2\nann;voice.wav;calm;3\n"
    table = load_table(
        make_table(text, "a.mp4", "a.srt", "b.MOV.mp4", "b.mov", "b.vtt", "voice.wav", "left.mp4"), columns=COLUMNS
    )
    first, second, third = table
    assert first == {
        "video": str(tmp_path / "a.mp4"), "audio": None, "subtitles": str(tmp_path / "a.srt"), "speaker": "ann",
        "emotions": ["happy"], "instruction": LABELS_INSTRUCTION, "response": "The speaker feels happy.",
    }  # fmt: skip
    assert second["video"] == str(tmp_path / "b.mov") and second["subtitles"] == str(tmp_path / "b.vtt")
    assert second["response"] == "The speaker feels sad, tired."
    assert third["audio"] == str(tmp_path / "voice.wav") and third["video"] is None
    assert len(check_table(table)) == 3
    assert "columns that are not used: date" in news.text
    assert "3 clips of 2 speakers, 2 with subtitles; labels: happy 1, sad 1, tired 1, calm 1" in news.text
    assert "2 files beside the clips are in no row: b.MOV.mp4, left.mp4" in news.text


def test_every_row_that_cannot_be_used_is_reported_at_once(make_table):
    text = "file,emotion\na.mp4,happy\ngone.mp4,sad\nb.mp4,3\nc.mp4,\n"
    table = load_table(make_table(text, "a.mp4", "b.mp4", "c.mp4"), columns=LabelColumns(("emotion",), "file"))
    with pytest.raises(DataError) as raised:
        check_table(table, name="labels.csv")
    lines = str(raised.value).splitlines()
    assert lines[0] == "labels.csv: 3 of 4 rows cannot be used:"
    assert "no such file" in lines[2] and "gone.mp4" in lines[2]
    assert "expected a word, found '3'" in lines[3]
    assert "empty response (there is no label)" in lines[4]


def test_labels_of_several_columns_and_of_several_rows_about_a_clip_are_joined(make_table, news):
    text = "file,first,second\na.mp4,happy,proud\na,happy,moved\nb.mp4,sad,\n"
    table = load_table(make_table(text, "a.mp4", "b.mp4"), columns=LabelColumns(("first", "second"), "file"))
    assert table["emotions"][:] == [["happy", "proud", "moved"], ["sad"]]
    assert "1 clips are in several rows, whose labels are joined: a.mp4" in news.text


def test_a_clip_of_two_speakers_or_splits_is_refused(make_table):
    path = make_table("file,emotion,split\na.mp4,happy,train\na.mp4,sad,dev\n", "a.mp4")
    with pytest.raises(DataError, match="row 2 is about a.mp4, as one before, with other split"):
        load_table(path, columns=LabelColumns(("emotion",), "file"))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (LabelColumns(("emotions",), "file"), r"no column 'emotions' \(did you mean 'emotion'\?\); there are actor, "),
        (LabelColumns(("emotion",)), "no column 'video'"),
        (LabelColumns(("emotion",), "file", "speaker"), "no column 'speaker'"),
    ],
)
def test_columns_that_are_not_there_are_named(make_table, columns, message):
    with pytest.raises(DataError, match=message):
        load_table(make_table("actor,file,emotion\nann,a.mp4,happy\n", "a.mp4"), columns=columns)


def test_a_table_with_emotions_alone_needs_no_option(make_table):
    row, other = load_table(make_table('file_name,emotions\na.mp4,"happy, proud"\nb.mp4,calm\n', "a.mp4", "b.mp4"))
    assert row["response"] == "The speaker feels happy, proud." and other["response"] == "The speaker feels calm."


def test_an_instruction_of_the_table_stays(make_table):
    path = make_table("file,emotion,instruction\na.mp4,happy,How is she?\n", "a.mp4")
    (row,) = load_table(path, columns=LabelColumns(("emotion",), "file"))
    assert (row["instruction"], row["response"]) == ("How is she?", "The speaker feels happy.")


def test_classes_of_a_saved_data_set_are_read_by_name(make_table, tmp_path):
    make_table("", "a.mp4", "b.mp4")
    features = Features({"video": Value("string"), "label": ClassLabel(names=["angry", "calm"])})
    Dataset.from_dict(
        {"video": [str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4")], "label": [1, 0]}, features
    ).save_to_disk(tmp_path / "saved")
    table = load_table(tmp_path / "saved", columns=LabelColumns(("label",)))
    assert table["emotions"][:] == [["calm"], ["angry"]]


def rows_of(sizes: dict[str, int]) -> Dataset:
    return Dataset.from_list(
        [{"video": f"{name}{number}.mp4", "speaker": name} for name, count in sizes.items() for number in range(count)]
    )


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.9])
def test_no_speaker_is_in_both_parts_of_a_split(share):
    table = rows_of({"ann": 7, "bob": 2, "eve": 5, "kim": 3, "leo": 3})
    train, evaluation = split_off(table, share)
    assert not set(train["speaker"]) & set(evaluation["speaker"])
    assert len(train) + len(evaluation) == 20 and 0 < len(evaluation) <= 20 * max(share, 0.1)
    again = split_off(table.shuffle(seed=1), share)[1]
    assert set(again["speaker"]) == set(evaluation["speaker"])


def test_without_speakers_clips_are_split():
    table = Dataset.from_list([{"video": f"{number}.mp4"} for number in range(10)])
    train, evaluation = split_off(table, 0.2)
    assert (len(train), len(evaluation)) == (8, 2)


@pytest.mark.parametrize(
    ("table", "share", "message"),
    [
        (rows_of({"ann": 4}), 0.2, "a split needs two speakers, found 1"),
        (Dataset.from_list([{"speaker": "a"}, {"speaker": None}, {"speaker": ""}]), 0.2, "no speaker in 2 rows"),
        (rows_of({"ann": 4}), 1.0, "eval_share must be between 0 and 1, got 1.0"),
    ],
)
def test_splits_that_cannot_be_made(table, share, message):
    with pytest.raises(ValueError, match=message):
        split_off(table, share)


def test_the_options_of_a_run(make_table):
    path = make_table(
        "actor,file,emotion\nann,a.mp4,happy\nbob,b.mp4,sad\nann,c.mp4,calm\n", "a.mp4", "b.mp4", "c.mp4"
    )
    options = ["--train_data", str(path), "--label_columns", "emotion", "--video_column", "file"]
    more = ["--speaker_column", "actor", "--eval_share", "0.4", "--output_dir", "run"]
    tables = load_tables(parse_arguments([*options, *more])[1])
    assert set(tables["train"]["speaker"]) == {"ann"} and set(tables["eval"]["speaker"]) == {"bob"}
    for wrong, message in (
        (["--video_column", "file"], "belong to label_columns"),
        ([*options, "--eval_share", "0.4", "--eval_data", str(path)], "there can be no eval_data"),
    ):
        with pytest.raises(ValueError, match=message):
            parse_arguments([*wrong, "--output_dir", "run"])
