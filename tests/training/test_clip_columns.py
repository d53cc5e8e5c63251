"""Clips in the columns of `datasets`: stored, decoded, in memory."""

import wave
from io import BytesIO

import numpy as np
import pytest
import torch
from datasets import Audio, Dataset, IterableDataset, Video

from microemo.training.clip_columns import media_source, without_decoding
from microemo.training.collator import MicroEmoCollator
from microemo.training.data import to_conversation

TURN = {"instruction": "What is felt?", "response": "Joy."}


@pytest.fixture(scope="module")
def sound() -> bytes:
    file = BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(16000)
        writer.writeframes((np.sin(np.arange(16000) / 20) * 9000).astype("<i2").tobytes())
    return file.getvalue()


@pytest.fixture(scope="module")
def collator(world):
    return MicroEmoCollator(world.processor)


def is_same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class Decoder:
    """What torchcodec's decoders are in a row of `datasets`: they have a length, and remember their file."""

    def __init__(self, path=None, data=None):
        self._hf_encoded = {"path": path, "bytes": data}

    def __len__(self):
        return 0


def test_columns_of_clips_are_read_without_torchcodec(world, collator):
    rows = [TURN | {"video": row["video"]} for row in world.rows[:2]]
    expected = collator(rows)
    table = Dataset.from_list(rows).cast_column("video", Video())
    for read in (list(without_decoding(table)), list(without_decoding(table.to_iterable_dataset()))):
        assert is_same(collator(read), expected)
    assert without_decoding(table).features["video"] == Video(decode=False)
    unknown = IterableDataset.from_generator(lambda: iter(rows))  # has no features before it is read
    assert list(without_decoding(unknown)) == rows


def test_decoded_clips_are_read_from_their_files(world, collator):
    path = world.rows[0]["video"]
    with open(path, "rb") as file:
        data = file.read()
    expected = collator([TURN | {"video": path}])
    for decoder in (Decoder(path), Decoder(None, data), Decoder("elsewhere.mp4", data)):
        assert is_same(collator([TURN | {"video": decoder}]), expected)


def test_sound_is_read_stored_decoded_and_as_a_waveform(collator, sound):
    table = Dataset.from_list([TURN | {"audio": {"bytes": sound, "path": None}}]).cast_column("audio", Audio())
    expected = collator(list(without_decoding(table)))
    assert expected["input_features"].any()
    samples = np.frombuffer(sound[-32000:], "<i2").astype(np.float32) / 2**15
    for audio in (Decoder(None, sound), {"array": samples, "sampling_rate": 16000, "path": None}):
        assert is_same(collator([TURN | {"audio": audio}]), expected)


def test_a_cell_without_a_source_is_named():
    with pytest.raises(ValueError, match="neither `path` nor `bytes`, but path, bytes"):
        media_source({"path": None, "bytes": None})


def test_a_sentence_without_times_is_said_from_the_start_of_a_clip_to_its_end(sound, tmp_path):
    (tmp_path / "a.wav").write_bytes(sound)
    decoded = {"array": np.zeros(8000, np.float32), "sampling_rate": 16000}
    cells = (
        ({"audio": str(tmp_path / "a.wav")}, 1.0),
        ({"audio": {"bytes": sound, "path": None}}, 1.0),
        ({"audio": decoded}, 0.5),
        ({"audio": None, "video": np.zeros((6, 4, 4, 3), np.uint8)}, 6 / 24),
    )
    for row, seconds in cells:
        item = to_conversation({**row, **TURN, "subtitle": "Oh."})[0]["content"][0]
        assert item["utterances"] == [{"start": 0.0, "end": pytest.approx(seconds, abs=0.01), "text": "Oh."}]
