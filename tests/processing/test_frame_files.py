"""Clips whose frames are image files, as data sets of emotions have them in a folder for each clip."""

import functools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from microemo import MicroEmoConfig, MicroEmoProcessor
from microemo.inference.pipeline_inputs import Query, QueryReader, as_queries
from microemo.processing.frame_files import FrameFiles, as_frame_files, read_picture
from microemo.processing.media import MediaError
from microemo.publishing.initialize import tiny_qformer_tokenizer, tiny_tokenizer

QUESTION = "What does the speaker feel, and why?"
TIMES = {"fps": 5}


@functools.cache
def processor() -> MicroEmoProcessor:
    config = MicroEmoConfig.from_preset("microemo-tiny")
    return MicroEmoProcessor.from_config(config, tiny_tokenizer(), tiny_qformer_tokenizer())


@pytest.fixture
def pictures():
    return np.random.default_rng(0).integers(0, 255, (3, 40, 48, 3), dtype=np.uint8)


@pytest.fixture
def files(pictures, tmp_path):
    """Frames in a folder whose name has what a shell would trip over."""
    folder = tmp_path / "clip 1, Zoë's %03d"
    folder.mkdir()
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{number}.PNG", "PNG")
    return [str(folder / f"{number}.PNG") for number in range(3)]


def same(given, expected) -> bool:
    return all(
        np.array_equal(given[name], expected[name]) for name in ("pixel_values_videos", "region_masks", "frame_mask")
    )


def test_files_are_read_as_decoded_frames_are(pictures, files):
    expected = processor()(text=QUESTION, videos=pictures, video_metadata=TIMES)
    given = processor()(text=QUESTION, videos=[files], video_metadata=[TIMES], return_metadata=True)
    assert same(given, expected) and given["input_ids"] == expected["input_ids"]
    metadata = given["video_metadata"][0]
    assert metadata.source == f"<3 image files from {files[0]}>" and list(metadata.frame_times) == [0, 0.2, 0.4]
    for of_paths in (tuple(files), list(map(Path, files))):
        assert same(processor()(videos=[of_paths], video_metadata=[TIMES]), expected)
    alone = processor().video_processor([files], video_metadata=[TIMES], return_tensors="np")
    assert same(alone, expected)
    frames, metadata = processor().video_processor.fetch_videos([files])
    np.testing.assert_array_equal(frames[0], pictures)


def test_conversations_and_the_pipeline_take_them(pictures, files, make_clip):
    expected = processor()(videos=pictures, video_metadata=TIMES)
    for key in ("path", "video"):
        item = {"type": "video", key: files, "video_metadata": TIMES}
        messages = [{"role": "user", "content": [item, {"type": "text", "text": QUESTION}]}]
        assert same(processor().apply_chat_template(messages, tokenize=True, return_dict=True), expected)
    row = {"video": files, "video_metadata": TIMES, "subtitle": "Oh.", "question": QUESTION}
    read = QueryReader(processor())(row)
    assert same(read["inputs"], expected)
    assert read["about"]["clip"] == f"<3 image files from {files[0]}>"
    assert [(said["start"], said["end"]) for said in read["about"]["utterances"]] == [(0, pytest.approx(0.6))]
    assert Query(files).name == read["about"]["clip"]
    assert [query.item for query in as_queries([files, "clip.mp4"])] == [files, "clip.mp4"]


def test_a_list_of_image_files_alone_is_a_list_of_clips(files):
    """As a list of any other files. In a list it is the frames of one."""
    assert processor()(videos=files)["frame_mask"].shape == (3, 1)
    assert processor()(videos=[files, files[:2]], text=[QUESTION] * 2)["frame_mask"].tolist() == [
        [True] * 3,
        [True, True, False],
    ]
    assert [query.item for query in as_queries(files)] == files
    with pytest.raises(ValueError, match="a text has one clip, but 2 were given for it"):
        processor()(text=[QUESTION], videos=[["a.mp4", "b.mp4"]])


def test_what_is_taken_for_frames(files):
    assert isinstance(as_frame_files(["https://a.b/c/1.jpg?width=3", "2.JPEG"]), FrameFiles)
    for other in ("1.jpg", [], ["1.jpg", "2.mp4"], ["1.jpg", None], [files], None, b"1.jpg"):
        assert as_frame_files(other) is other


def test_pictures_are_upright_and_in_colour(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side
    Image.new("L", (30, 20)).save(tmp_path / "side.jpg", exif=exif)
    assert read_picture(tmp_path / "side.jpg").shape == (30, 20, 3)
    assert read_picture((tmp_path / "side.jpg").read_bytes()).shape == (30, 20, 3)
    Image.new("RGBA", (8, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert read_picture(tmp_path / "clear.png").shape == (4, 8, 3)


def test_sixteen_bits_of_grey_become_eight(tmp_path):
    grey = np.linspace(0, 65535, 600).astype(np.uint16).reshape(20, 30)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    picture = read_picture(tmp_path / "grey.png")
    assert picture.shape == (20, 30, 3)
    np.testing.assert_array_equal(picture, np.repeat((grey >> 8)[..., None], 3, -1))


def test_a_file_that_is_no_picture_is_named(files, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    whole = Path(files[1]).read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    for name, reason in (
        ("text.png", "text.png is not an image"),
        ("empty.png", "empty.png is an empty file"),
        ("folder.png", "folder.png is not a file"),
        ("gone.png", "gone.png cannot be read as an image: No such file"),
        ("half.png", "half.png cannot be read as an image: "),
    ):
        with pytest.raises(MediaError, match=reason):
            processor()(videos=[[files[0], str(tmp_path / name)]])
