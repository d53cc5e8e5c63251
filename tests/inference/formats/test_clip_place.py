import pytest

from microemo.inference.emotion_analysis import EmotionAnalysis, UtteranceAnalysis
from microemo.inference.formats.clip_place import clip_links, media_type, milliseconds


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0.5, 2.0, (500, 2000)),
        (0.0004, 0.0006, (0, 1)),
        (-1.0, 0.25, (0, 250)),
        (3.0, 3.0, (3000, 3001)),
        (3.0, 1.0, (3000, 3001)),
        (0.29, 0.57, (290, 570)),
    ],
)
def test_times_are_whole_milliseconds_and_no_utterance_is_without_length(start, end, expected):
    assert milliseconds(UtteranceAnalysis(1, start, end)) == expected


@pytest.mark.parametrize(
    ("clip", "folder", "way"),
    [
        ("my clip #1 100%.mp4", ".", "./my clip #1 100%.mp4"),
        ("clips/one.mp4", ".", "./clips/one.mp4"),
        ("one.mp4", "eaf", "../one.mp4"),
        ("./clips/../one.mp4", "a/b", "../../one.mp4"),
        ("..clip.mp4", ".", "./..clip.mp4"),
    ],
)
def test_a_path_is_stated_from_the_root_and_from_the_folder(clip, folder, way, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    url, found = clip_links(clip, tmp_path / folder)
    assert found == way
    assert url == f"file://{(tmp_path / clip).resolve().as_posix()}"
    assert clip_links(str(tmp_path / clip), tmp_path / folder) == (url, way)


def test_a_url_stays_as_it_is(tmp_path):
    assert clip_links("https://host/a%20b.mp4?x=1", tmp_path) == ("https://host/a%20b.mp4?x=1", None)


@pytest.mark.parametrize(
    ("clip", "has_video", "expected"),
    [
        ("a.mp4", True, "video/mp4"),
        ("a.WAV", False, "audio/x-wav"),
        ("a", True, "video/*"),
        ("a", False, "audio/*"),
        ("https://host/a.mp4", True, "video/mp4"),
    ],
)
def test_the_type_follows_the_name(clip, has_video, expected):
    assert media_type(EmotionAnalysis(clip, "m", "0", has_video=has_video, has_audio=True)) == expected
