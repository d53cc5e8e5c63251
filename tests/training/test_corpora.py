"""Corpora of people as their users have them: RAVDESS, CREMA-D, MELD, IEMOCAP, DFEW, MAFW, CMU-MOSEI and MER, in small."""

from pathlib import Path

import numpy as np
import pytest
from openpyxl import Workbook

from microemo.processing.media import Clip, probe
from microemo.training.arguments import parse_arguments
from microemo.training.corpora.acted_corpora import ravdess_part
from microemo.training.corpora.clip_files import ClipCutter
from microemo.training.corpora.corpus_list import CORPORA, CorpusOptions, find_corpus
from microemo.training.corpora.corpus_reading import part_of, tenths_by_share
from microemo.training.corpora.corpus_words import SENTIMENTS, sentiment_word
from microemo.training.corpora.dialogue_corpora import mend_text
from microemo.training.corpora.sentiment_corpora import SENTIMENT_INSTRUCTION
from microemo.training.data import load_table, to_conversation
from microemo.training.data_checks import DataError
from microemo.training.label_tables import LABELS_INSTRUCTION
from microemo.training.train import load_tables, main


@pytest.fixture
def make(tmp_path):
    """Writes a corpus: `make({"folder/name.csv": text, "a.mp4": b"", "b.xlsx": [[cells]]})`; gives its folder."""

    def write(files: dict, name: str = "corpus") -> Path:
        for file, content in files.items():
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, list):
                book = Workbook()
                for cells in content:
                    book.active.append(cells)
                book.save(path)
            else:
                path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path / name

    return write


def clips(*names: str) -> dict[str, bytes]:
    return dict.fromkeys(names, b"clip")


def rows_of(table) -> dict[str, dict]:
    return {row["name"]: row for row in table}


# --- RAVDESS, CREMA-D ----------------------------------------------------------------------------------------------


def test_ravdess_is_read_from_the_names_of_its_files(make, news):
    folder = make(
        clips(
            "Video_Speech_Actor_01/Actor_01/01-01-06-01-02-01-01.mp4",
            "Video_Speech_Actor_01/Actor_01/02-01-06-01-02-01-01.mp4",  # the same without sound
            "Audio_Speech_Actors_01-24/Actor_01/03-01-06-01-02-01-01.wav",  # and without picture
            "audio_speech_actors_01-24/Actor_01/03-01-06-01-02-01-01.wav",  # and once more, as on Kaggle
            "Actor_18/02-01-08-02-01-02-18.MP4",
            "Actor_18/03-01-08-02-01-02-18.wav",
            "Actor_20/03-02-02-01-01-01-20.wav",
            "__MACOSX/Actor_20/._03-02-02-01-01-01-20.wav",
            "Actor_20/cover.mp4",
        )
    )
    found = rows_of(load_table(folder))
    assert found.keys() == {"01-01-06-01-02-01-01", "02-01-08-02-01-02-18", "03-02-02-01-01-01-20"}
    both = found["01-01-06-01-02-01-01"]
    assert both["video"].endswith("Video_Speech_Actor_01/Actor_01/01-01-06-01-02-01-01.mp4") and both["audio"] is None
    assert both["instruction"] == LABELS_INSTRUCTION and both["response"] == "The speaker feels fearful."
    assert both["subtitle"] == "Dogs are sitting by the door." and both["speaker"] == "actor 01"
    silent, sung = found["02-01-08-02-01-02-18"], found["03-02-02-01-01-01-20"]
    assert silent["video"].endswith(".MP4") and silent["audio"].endswith("03-01-08-02-01-02-18.wav")
    assert sung["video"] is None and sung["audio"].endswith(".wav") and sung["emotions"] == ["calm"]
    assert [row["split"] for row in (both, silent, sung)] == ["train", "dev", "test"]
    assert "3 clips of 3 speakers" in news.text


def test_recordings_without_any_picture_become_conversations(make, make_clip):
    """All rows have a sentence without times and none has a column `video`."""
    sound = make_clip("tone.m4a", times=[]).read_bytes()
    (row,) = load_table(make({"03-01-05-01-01-01-03.m4a": sound}))
    assert "video" not in row and row["audio"].endswith(".m4a")
    (heard, *_), _ = [message["content"] for message in to_conversation(row)]
    assert heard["type"] == "audio" and heard["path"] == row["audio"]
    assert heard["utterances"] == [{"start": 0.0, "end": pytest.approx(1, abs=0.1), "text": row["subtitle"]}]


def test_the_actors_of_ravdess_are_in_one_part_each_and_women_as_many_as_men():
    for fold in range(1, 5):
        parts = {part: [a for a in range(1, 25) if ravdess_part(a, fold) == part] for part in ("train", "dev", "test")}
        assert [len(actors) for actors in parts.values()] == [16, 2, 6]
        assert all(sum(actor % 2 for actor in actors) * 2 == len(actors) for actors in parts.values())
    assert [a for a in range(1, 25) if ravdess_part(a, 1) == "test"] == [19, 20, 21, 22, 23, 24]
    tested = [actor for fold in range(1, 5) for actor in range(1, 25) if ravdess_part(actor, fold) == "test"]
    assert sorted(tested) == list(range(1, 25))


def test_crema_d_takes_videos_before_sound_files(make):
    folder = make(
        clips(
            "VideoFlash/1001_DFA_ANG_XX.flv",
            "AudioWAV/1001_DFA_ANG_XX.wav",
            "AudioWAV/1040_ITH_SAD_X.wav",  # the name of the first release
            "AudioWAV/1013_IEO_FEA_HI.WAV",
        )
        | {
            "VideoDemographics.csv": "ActorID,Age,Sex\n1001,51,Male\n",
            "SentenceFilenames.csv": '"Stimulus_Number"\n1\n',
        }
    )
    found = rows_of(load_table(folder))
    assert found["1001_DFA_ANG_XX"]["video"].endswith("1001_DFA_ANG_XX.flv")
    assert found["1001_DFA_ANG_XX"]["subtitle"] == "Don't forget a jacket."
    assert found["1040_ITH_SAD_X"]["emotions"] == ["sad"] and found["1040_ITH_SAD_X"]["split"] == "test"
    assert found["1013_IEO_FEA_HI"]["audio"].endswith(".WAV") and found["1013_IEO_FEA_HI"]["split"] == "train"


def test_pointers_of_git_lfs_are_no_clips(make):
    folder = make({"VideoFlash/1001_DFA_ANG_XX.flv": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"})
    with pytest.raises(DataError, match="1001_DFA_ANG_XX.flv is a pointer of Git LFS"):
        load_table(folder)


def test_tenths_of_speakers_hold_about_as_many_rows():
    speakers = ["Joey"] * 300 + ["Ross"] * 280 + [f"guest {number}" for number in range(900)]
    tenths = tenths_by_share(speakers)
    assert tenths == tenths_by_share(reversed(speakers))
    sizes = [sum(tenths[name] == tenth for name in speakers) for tenth in range(10)]
    assert max(sizes) == 300 and max(sorted(sizes)[:8]) - min(sizes) <= 1
    for fold in range(1, 6):
        assert sorted(part_of(tenth, fold) for tenth in range(10)) == ["dev"] + ["test"] * 2 + ["train"] * 7


# --- MELD ----------------------------------------------------------------------------------------------------------

MELD_HEAD = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\r\n"


def meld_line(utterance: str, emotion: str, dialogue: int, number: int, speaker: str = "Ross") -> str:
    return f'1,"{utterance}",{speaker},{emotion},negative,{dialogue},{number},4,7,"00:20:57,256","00:21:00,049"\r\n'


@pytest.fixture
def meld(make):
    return make(
        {
            "train_sent_emo.csv": "\ufeff" + MELD_HEAD + meld_line("It\x92s Wayne\x97", "joy", 0, 0)
            + meld_line("heâ€™s lost it", "anger", 0, 1),
            "dev_sent_emo.csv": MELD_HEAD + meld_line("Fine, fine", "neutral", 0, 0) + meld_line("Oh!", "fear", 110, 7),
            "test_sent_emo.csv": (MELD_HEAD + meld_line("Don’t", "disgust", 0, 0)).encode("cp1252"),
            "train_sent_emo_dya.csv": MELD_HEAD + meld_line("a dyad", "joy", 5, 0),
        }
        | clips(
            "train_splits/dia0_utt0.mp4", "train_splits/dia0_utt1.mp4", "dev_splits_complete/dia0_utt0.mp4",
            "output_repeated_splits_test/dia0_utt0.mp4", "output_repeated_splits_test/final_videos_testdia101_utt0.mp4",
            "output_repeated_splits_test/._dia0_utt0.mp4",
        )
    )  # fmt: skip


def test_meld_keeps_its_splits_whose_clips_have_the_same_names(meld, news):
    found = rows_of(load_table(meld))
    assert {name: Path(row["video"]).parent.name for name, row in found.items()} == {
        "train_dia0_utt0": "train_splits",
        "train_dia0_utt1": "train_splits",
        "dev_dia0_utt0": "dev_splits_complete",
        "test_dia0_utt0": "output_repeated_splits_test",
    }
    assert [row["subtitle"] for row in found.values()] == ["Fine, fine", "Don’t", "It’s Wayne—", "he’s lost it"]
    assert found["train_dia0_utt0"]["emotions"] == ["joyful"] and found["test_dia0_utt0"]["split"] == "test"
    assert "1 of 5 clips are missing: dev_dia110_utt7" in news.text
    assert "the splits may have speakers in common: the six main speakers" in news.text


def test_one_table_of_meld_finds_the_clips_beside_it_or_elsewhere(meld, make):
    assert load_table(meld / "train_sent_emo.csv")["name"][:] == ["train_dia0_utt0", "train_dia0_utt1"]
    alone = make({"dev_sent_emo.csv": MELD_HEAD + meld_line("Oh!", "fear", 1, 2)}, "tables")
    videos = make(clips("videos/DIA1_UTT2.MKV"), "elsewhere")
    (row,) = load_table(alone / "dev_sent_emo.csv", media_folder=videos)
    assert row["video"] == str(videos / "videos/DIA1_UTT2.MKV")
    with pytest.raises(DataError, match="no clip of meld in .*; its tables name 1, as dev_dia1_utt2"):
        load_table(alone)


@pytest.mark.parametrize("text", ["a plain text", "café, Zoë", "Ã la carte", "«Âme»", "他很高兴"])
def test_text_in_order_is_not_mended(text):
    assert mend_text(text) == text


# --- IEMOCAP -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_sides(make_clip, tmp_path_factory):
    """A dialogue of 4 s, red on the left and blue on the right."""
    picture = np.zeros((48, 96, 3), np.uint8)
    picture[:, :48, 0] = picture[:, 48:, 2] = 200
    return make_clip("two.avi", times=[number / 10 for number in range(40)], picture=picture, sound=4.0)


def test_utterances_of_iemocap_are_cut_out_with_the_speakers_half_of_the_picture(make, two_sides, news, tmp_path):
    turns = (
        "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\r\n\r\n"
        "[1.0000 - 2.0000]\tSes01F_impro01_F000\tang\t[1.5000, 4.0000, 4.5000]\r\nC-E1:\tAnger;\t()\r\n"
        "[2.0000 - 3.5000]\tSes01F_impro01_M000\tfru\t[2.5, 2.5, 2.5]\r\nA-E1:\tval 2; act 4; dom  4;\t()\r\n"
        "[3.0000 - 3.5000]\tSes01F_impro01_FXX0\txxx\t[2.5, 2.5, 2.5]\r\n"
        "[3.5000 - 3.9000]\tSes01F_impro01_F001\toth\t[2.5, 2.5, 2.5]\r\n"
        "[60.0000 - 61.0000]\tSes01F_impro01_M001\texc\t[2.5, 2.5, 2.5]\r\n"
        "[70.0000 - 71.0000]\tSes01F_impro01_M002\thap\t[2.5, 2.5, 2.5]\r\n"
    )
    spoken = b"Ses01F_impro01_F000 [001.0000-002.0000]: Caf\xe9? [LAUGHTER]\r\nSes01F_impro01_M000 [2.0-3.5]: Yes.\r\n"
    session = "Session1/dialog"
    folder = make(
        {
            f"{session}/EmoEvaluation/Ses01F_impro01.txt": turns,
            f"{session}/EmoEvaluation/._Ses01F_impro01.txt": b"\x00",
            f"{session}/EmoEvaluation/Categorical/Ses01F_impro01_e1_cat.txt": "Ses01F_impro01_F000 :Anger; ()\n",
            f"{session}/transcriptions/Ses01F_impro01.txt": spoken,
            f"{session}/avi/DivX/Ses01F_impro01.avi": two_sides.read_bytes(),
            f"{session}/wav/Ses01F_impro01.wav": b"whole",
            "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_M001.wav": b"said",
        }
    )
    options = CorpusOptions(clips=tmp_path / "clips")
    found = rows_of(load_table(folder, corpus=options))
    assert found.keys() == {"Ses01F_impro01_F000", "Ses01F_impro01_M000", "Ses01F_impro01_M001"}
    left, right, heard = found.values()
    assert probe(left["video"]).duration == pytest.approx(1, abs=0.15) and probe(left["video"]).has_audio
    assert probe(right["video"]).duration == pytest.approx(1.5, abs=0.15)
    for row, channel in ((left, 0), (right, 2)):
        with Clip(row["video"]) as clip:
            picture = clip.read(lambda times: np.array([0]), lambda frame: frame.to_ndarray(format="rgb24"))[2][0]
        assert picture.shape == (48, 48, 3) and picture[24, 24].argmax() == channel
    assert left["subtitle"] == "Café? [LAUGHTER]" and left["speaker"] == "session 1 F"
    assert right["emotions"] == ["frustrated"] and right["speaker"] == "session 1 M"
    assert heard["video"] is None and heard["audio"].endswith("Ses01F_impro01_M001.wav")
    assert {row["split"] for row in found.values()} == {"train"}
    assert "2 rows without an emotion are left out: xxx 1, oth 1" in news.text
    assert "1 of 4 clips are missing: Ses01F_impro01_M002" in news.text
    made = {file: file.stat().st_mtime_ns for file in (tmp_path / "clips").rglob("*.mp4")}
    again = load_table(folder, corpus=CorpusOptions(fold=2, clips=tmp_path / "clips"))
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "clips").rglob("*.mp4")} == made and len(made) == 2
    assert set(again["split"]) == {"dev"}  # of fold 2, which tests on session 2


def test_a_part_of_a_clip_starts_with_its_own_picture_and_sound(two_sides, tmp_path):
    with ClipCutter(two_sides, tmp_path) as cutter:
        part = cutter.cut("part", 0.95, 1.45)
        assert cutter.cut("late", 9.0, 9.5) is None
    assert probe(part).frame_times[0] == 0 and len(probe(part).frame_times) == 5
    with Clip(part) as clip:
        sound = clip.load_audio()
    assert sound.samples.shape[1] / sound.rate == pytest.approx(0.45, abs=0.1)
    assert list(tmp_path.iterdir()) == [part]


# --- DFEW, MAFW ----------------------------------------------------------------------------------------------------


def test_dfew_has_five_official_folds(make, news):
    labels = "EmoLabel_DataSplit/{}(single-labeled)/set_{}.csv"
    folder = make(
        {
            labels.format("train", 1): "\ufeffvideo_name,label\r\n1,4\r\n12,7\r\n",
            labels.format("test", 1): "video_name,label\r\n3,1\r\n4,0\r\n",
            labels.format("train", 2): "video_name,label\n3,1\n",
            labels.format("test", 2): "video_name,label\n00001,4\n",
        }
        | clips("Clip/original/part_1/00001.mp4", "Clip/original/part_1/3.MP4")
    )
    found = rows_of(load_table(folder))
    assert {name: (row["split"], row["emotions"]) for name, row in found.items()} == {
        "00001": ("train", ["angry"]),
        "00003": ("test", ["happy"]),
    }
    assert "1 of 3 clips are missing: 00012" in news.text and "left out: 0 1" in news.text
    assert "no speaker is named" in news.text
    other = load_table(folder, corpus=CorpusOptions(fold=2))
    assert dict(zip(other["name"], other["split"], strict=True)) == {"00003": "train", "00001": "test"}
    with pytest.raises(ValueError, match="fold 6 of dfew, which has folds 1 to 5"):
        load_table(folder, corpus=CorpusOptions(fold=6))


def test_mafw_has_single_and_compound_labels(make):
    split = "Train & Test Set/{}/no_caption/set_1/{}.txt"
    files = {
        "Labels/single-set.xlsx": [["clip", "anger", "single_label"], ["00025.mp4", 0.1, 10], ["00026.mp4", 0, 1.0]],
        "Labels/multi-set.xlsx": [["clip", "anger", "multi_label"], ["00025.mp4", 0.1, "6,10"]],
    } | clips("data/clips/00025.mp4", "data/clips/00026.mp4")
    by_tables = make(files)
    assert [row["emotions"] for row in load_table(by_tables)] == [["helpless"], ["angry"]]
    assert set(load_table(by_tables)["split"]) == {"train"}
    (row,) = load_table(by_tables, corpus=CorpusOptions("mafw-compound"))
    assert row["response"] == "The speaker feels sad, helpless."
    folder = make(
        files
        | {
            split.format("single", "train"): "00025.mp4 sadness\r\n00026.mp4 anger\r\n",
            split.format("single", "test"): "00027.mp4 contempt\n",
            split.format("compound", "train"): "00025.mp4 sadness_helplessness\n",
            "Train & Test Set/single/with_caption/set_1/train.txt": "00025.mp4\tsadness\t\xff\tA girl\n",
        }
        | clips("data/clips/00027.mp4"),
        "split",
    )
    found = rows_of(load_table(folder))
    assert {name: row["split"] for name, row in found.items()} == {"00025": "train", "00026": "train", "00027": "test"}
    assert found["00027"]["emotions"] == ["contemptuous"]
    assert load_table(folder, corpus=CorpusOptions("mafw-compound"))["emotions"][:] == [["sad", "helpless"]]


# --- CMU-MOSEI, MER ------------------------------------------------------------------------------------------------


def test_mosei_asks_for_the_sentiment(make):
    head = "video_id,clip_id,text,label,annotation,mode\r\n"
    lines = '-3g5yACwYnA,3,"Key, is part",1.0,Positive,train\r\n-3g5yACwYnA,4,no,-2.67,Negative,valid\r\n_a,0,,0.0,Neutral,test\r\n'
    folder = make(
        {"label.csv": head + lines} | clips("Raw/-3g5yACwYnA/3.mp4", "Raw/-3g5yACwYnA/4.mp4", "Raw/_a/0.MP4")
    )
    first, second, third = load_table(folder)
    assert first["instruction"] == SENTIMENT_INSTRUCTION and first["emotions"] == ["weakly positive"]
    assert first["response"] == "The speaker's sentiment is weakly positive." and first["subtitle"] == "Key, is part"
    assert (second["split"], second["emotions"], second["speaker"]) == ("dev", ["highly negative"], "-3g5yACwYnA")
    assert third["video"].endswith("Raw/_a/0.MP4") and third["emotions"] == ["neutral"]
    sims = make({"label.csv": head + "v,1,a,-0.8,Negative,train\n"} | clips("Raw/v/1.mp4"), "sims")
    with pytest.raises(DataError, match="as of CH-SIMS"):
        load_table(sims)


def test_sentiments_are_rounded_to_seven_words():
    assert [sentiment_word(value) for value in range(-3, 4)] == list(SENTIMENTS)
    with pytest.raises(ValueError, match="from -3 to 3, got 3.1"):
        sentiment_word(3.1)


def test_segments_of_mosei_are_cut_out_of_whole_videos(make, two_sides, tmp_path, news):
    h5py = pytest.importorskip("h5py")
    videos = "Raw/Videos/Full/Combined"
    folder = make({f"{videos}/Abc-1.mp4": two_sides.read_bytes()} | clips(f"{videos}/broken.mp4"))
    with h5py.File(folder / "CMU_MOSEI_Labels.csd", "w") as file:
        for video in ("Abc-1", "broken", "gone"):
            part = file.create_group(f"All Labels/data/{video}")
            part["intervals"] = [[0.0, 1.0], [1.0, 2.0]]
            part["features"] = [[1, 0.33, 0, 0, 1.0, 0, 0], [0, 0, 0, 0, 0, 0, 0]]
    table = load_table(folder, corpus=CorpusOptions(clips=tmp_path / "clips"))
    assert table["emotions"][:] == [["surprised", "happy"], ["neutral"]]
    assert set(table["speaker"]) == {"Abc-1"} and len(set(table["split"])) == 1
    assert "broken.mp4 cannot be read, so that its parts are missing" in news.text
    assert "4 of 6 clips are missing: broken_0, broken_1, gone_0" in news.text
    assert probe(table[0]["video"]).duration == pytest.approx(1, abs=0.15)


def test_mer_of_three_years(make, news):
    first = make(
        {
            "train-label.csv": "name,discrete,valence\r\nsample_1,worried,-1.5\r\n",
            "test1-label.csv": "name,discrete,valence\nsample_2,happy,1\n",
            "semi-label.csv": "name,discrete\nsample_9,sad\n",
            "transcription-engchi-polish.csv": "name,chinese,english\nsample_1,他说,He says.\n",
        }
        | clips("train/sample_1.avi", "test1/sample_2.avi", "semi/sample_9.avi")
    )
    found = rows_of(load_table(first))
    assert found["sample_1"]["emotions"] == ["worried"] and found["sample_1"]["subtitle"] == "He says."
    assert {name: row["split"] for name, row in found.items()} == {
        "sample_1": "train",
        "sample_2": "test1",
        "sample_9": "semi",
    }
    chinese = rows_of(load_table(first, language="chinese"))
    assert chinese["sample_1"]["subtitle"] == "他说"
    second = make(
        {
            "label-disdim.csv": "\ufeffname,discrete,valence\nsample_3,surprise,0\nsample_4,angry,\n",
            "label-transcription.csv": "name,chinese,english\nsample_3,啊,\n".encode("gb18030"),
        }
        | clips("video-labeled/sample_3.MP4"),
        "mer2024",
    )
    (row,) = load_table(second)
    assert row["emotions"] == ["surprised"] and row.get("subtitle") is None and row["split"] == "train"
    assert "1 of 2 clips are missing: sample_4" in news.text
    assert load_table(second, language="chinese")[0]["subtitle"] == "啊"
    third = make(
        {"track1_train_disdim.csv": "name,discrete,valence\nsample_5,sad,-2\n"} | clips("video/sample_5.mp4"),
        "mer2025",
    )
    assert load_table(third / "track1_train_disdim.csv")[0]["emotions"] == ["sad"]


def test_descriptions_of_mer2025_are_answers(make):
    folder = make(
        {
            "track3_train_ovmerd.csv": 'name,reason\nsample_5,"She smiles, and her voice is high."\n',
            "subtitle_chieng.csv": "name,chinese,english\nsample_5,好,Good.\n",
        }
        | clips("video/sample_5.mp4")
    )
    (row,) = load_table(
        folder / "track3_train_ovmerd.csv", media_folder=folder / "video", subtitles=folder / "subtitle_chieng.csv"
    )
    assert row["response"] == "She smiles, and her voice is high." and row["subtitle"] == "Good."


# --- which corpus it is, and its splits in a run -------------------------------------------------------------------


def test_a_layout_that_is_unknown_is_refused_with_the_list(make):
    folder = make(clips("videos/a.mp4") | {"labels.csv": "file,emotion\na.mp4,happy\n"})
    assert find_corpus(folder) is None
    with pytest.raises(
        FileNotFoundError, match="layout is that of no corpus \\(ravdess, crema-d, meld, iemocap, mafw"
    ):
        load_table(folder)
    with pytest.raises(ValueError, match="corpus must be ravdess, .*, got 'ravdes'"):
        load_table(folder, corpus=CorpusOptions("ravdes"))
    with pytest.raises(ValueError, match="a fold is named, but the layout is that of no corpus"):
        load_table(folder, corpus=CorpusOptions(fold=1))
    with pytest.raises(ValueError, match="fold 2 of meld, which has no folds"):
        load_table(folder, corpus=CorpusOptions("meld", 2))
    with pytest.raises(FileNotFoundError, match="nowhere: no such file or folder"):
        load_table("nowhere", corpus=CorpusOptions("ravdess"))
    for name in CORPORA:
        with pytest.raises(DataError, match="corpus: (no|neither) "):
            load_table(folder, corpus=CorpusOptions(name))


def test_a_corpus_is_recognised_among_many_folders_and_broken_files(make):
    frames = {f"Clip/clip_224x224_16f/{number:05}/1.jpg": b"" for number in range(300)}
    splits = {"EmoLabel_DataSplit/train(single-labeled)/set_1.csv": "video_name,label\n1,4\n"}
    folder = make(frames | splits | {"broken.parquet": b"PAR1", "odd.csv": b"\x00\xff\n"})
    assert find_corpus(folder).name == "dfew"
    with pytest.raises(DataError, match="no clip of dfew in .*; its tables name 1, as 00001"):
        load_table(folder)


def test_a_label_that_no_table_has_is_an_error(make):
    folder = make({"train-label.csv": "name,discrete\na,angri\n"} | clips("a.mp4"))
    with pytest.raises(DataError, match="a: unknown label 'angri'; the corpus has anger, angry, disgust"):
        load_table(folder)


def test_a_folder_with_a_table_of_metadata_is_no_corpus(make):
    folder = make(
        {"metadata.csv": "file_name,emotions\n01-01-06-01-02-01-01.mp4,bored\n"} | clips("01-01-06-01-02-01-01.mp4")
    )
    assert load_table(folder)["emotions"][:] == [["bored"]]


def test_a_run_trains_on_train_and_evaluates_on_dev(make):
    folder = make(clips(*(f"Actor_{actor:02}/01-01-05-01-01-01-{actor:02}.mp4" for actor in range(1, 25))))
    options = ["--train_data", str(folder), "--output_dir", "run"]

    def speakers(*more):
        tables = load_tables(parse_arguments([*options, *more])[1])
        return {name: sorted(int(speaker[-2:]) for speaker in table["speaker"]) for name, table in tables.items()}

    assert speakers("--eval_data", str(folder)) == {"train": list(range(1, 17)), "eval": [17, 18]}
    assert speakers("--corpus", "ravdess", "--fold", "4") == {"train": list(range(7, 23))}
    assert speakers("--eval_data", str(folder), "--eval_split", "test")["eval"] == [19, 20, 21, 22, 23, 24]
    shared = speakers("--eval_share", "0.2")
    assert len(shared["train"]) + len(shared["eval"]) == 16 and not set(shared["train"]) & set(shared["eval"])
    rows = (
        make({"dev.jsonl": '{"video": "a.mp4", "instruction": "What?", "response": "This."}\n'}, "rows") / "dev.jsonl"
    )
    mixed = load_tables(parse_arguments([*options, "--corpus", "ravdess", "--eval_data", str(rows)])[1])
    assert len(mixed["train"]) == 16 and mixed["eval"][0]["response"] == "This."
    with pytest.raises(ValueError, match="corpus and fold are those of a corpus"):
        load_tables(parse_arguments(["--train_data", str(rows), "--output_dir", "run", "--fold", "1"])[1])
    with pytest.raises(ValueError, match="corpus names another layout"):
        parse_arguments([*options, "--corpus", "ravdess", "--label_columns", "emotion"])


def test_one_command_trains_on_a_folder_of_recordings(make, make_clip, tiny, tmp_path):
    felt = make_clip("felt.mp4", face_width=130)
    names = ("01-01-03-01-01-01-01.mp4", "01-01-05-01-01-01-02.mp4")
    folder = make({name: felt.read_bytes() for name in names})
    options = {
        **{"model_name_or_path": tiny, "train_data": folder, "output_dir": tmp_path / "run", "max_steps": 1},
        **{"use_cpu": True, "report_to": "none", "save_strategy": "no", "disable_tqdm": True},
    }
    trainer = main([text for name, value in options.items() for text in (f"--{name}", str(value))])
    assert len(trainer.train_dataset) == 2 and trainer.state.global_step == 1
    assert np.isfinite(trainer.state.log_history[-1]["train_loss"])
    card = (tmp_path / "run" / "README.md").read_text()
    assert "2 rows" in card
