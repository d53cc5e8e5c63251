"""Utterances for the rows of a training table whose clips have sound and no subtitles."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset

from microemo.processing.media import load_audio
from microemo.processing.speech import SpeechReader
from microemo.training.data import to_conversation
from microemo.training.recognised_speech import UTTERANCES, VOICE_ACTIVITY, add_utterances


@pytest.fixture
def rows(demo_clip, make_clip, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_text("no clip")
    answer = {"instruction": "Sad?", "response": "No."}
    return [
        {"video": str(demo_clip), "subtitles": None, **answer},
        {"video": str(demo_clip), "subtitles": str(demo_clip.with_suffix(".srt")), **answer},
        {"video": str(make_clip("mute-rows.mp4", sound=None)), "subtitles": None, **answer},
        {"video": str(broken), "subtitles": None, **answer},
    ]


def test_rows_without_subtitles_get_the_utterances_of_their_voice(rows, demo_clip, tmp_path, monkeypatch):
    path = tmp_path / "run" / UTTERANCES
    tables = add_utterances({"train": Dataset.from_list(rows)}, VOICE_ACTIVITY, path)
    expected = [(each.start, each.end) for each in SpeechReader().read_file(demo_clip)]
    found = tables["train"]["utterances"]
    assert [(each["start"], each["end"]) for each in found[0]] == expected
    assert not any(found[1:])
    (first, *_), (second, *_) = (to_conversation(tables["train"][row]) for row in (0, 1))
    assert len(first["content"][0]["utterances"]) == len(expected)
    assert second["content"][0]["utterances"] == str(demo_clip.with_suffix(".srt"))

    # The next run recognises nothing again.
    monkeypatch.setattr(SpeechReader, "_recognise", lambda *_: pytest.fail("recognised again"))
    again = add_utterances({"eval": Dataset.from_list(rows[:3])}, VOICE_ACTIVITY, path)
    assert again["eval"]["utterances"][0] == found[0]


def test_a_table_with_subtitles_everywhere_loads_no_model(rows, tmp_path):
    tables = {"train": Dataset.from_list(rows[1:2])}
    assert add_utterances(tables, "no/such-model", tmp_path / UTTERANCES) == tables
    assert not (tmp_path / UTTERANCES).exists()
    with pytest.raises(ValueError, match="no/such-model: cannot be loaded as a model for speech recognition"):
        add_utterances({"train": Dataset.from_list(rows[:1])}, "no/such-model", tmp_path / UTTERANCES)


def test_utterances_that_a_table_has_stay(rows, tmp_path):
    own = [{"start": 0.5, "end": 1.0, "text": "Hi.", "speaker": "Ann"}]
    table = Dataset.from_list([{**rows[0], "utterances": own}, {**rows[0], "utterances": None}])
    utterances = add_utterances({"train": table}, VOICE_ACTIVITY, tmp_path / UTTERANCES)["train"]["utterances"]
    assert utterances[0] == own and len(utterances[1]) >= 2


class Decoder:
    """What torchcodec's `AudioDecoder` has, without the file that one of `datasets` remembers."""

    def __init__(self, track):
        self.track = track

    def get_all_samples(self):
        return SimpleNamespace(data=torch.from_numpy(self.track.samples), sample_rate=self.track.rate)


@pytest.mark.parametrize("kind", ["array", "array of a file", "numpy", "torch", "decoder"])
def test_sound_that_is_decoded_already_is_heard(rows, demo_clip, tmp_path, monkeypatch, kind):
    track = load_audio(demo_clip)
    cell = {"array": track.samples[0].tolist(), "sampling_rate": track.rate}
    cell |= {"path": "gone.wav"} if kind == "array of a file" else {}
    answer = {name: rows[0][name] for name in ("instruction", "response")}
    table = Dataset.from_list([{"audio": cell, **answer}, {"audio": {**cell, "sampling_rate": 0}, **answer}])
    if kind in ("numpy", "torch"):
        table = table.with_format(kind)
    elif kind == "decoder":
        table = Dataset.from_list([answer]).with_transform(lambda rows: {**rows, "audio": [Decoder(track)]})
    path = tmp_path / UTTERANCES
    found = add_utterances({"train": table}, VOICE_ACTIVITY, path)["train"].with_format(None)["utterances"]
    expected = SpeechReader().read_file(demo_clip)
    assert [(each["start"], each["end"]) for each in found[0]] == [(each.start, each.end) for each in expected]
    assert found[1:] == ([] if kind == "decoder" else [None]), "what cannot be used is left to the check of the clips"
    monkeypatch.setattr(SpeechReader, "_recognise", lambda *_: pytest.fail("recognised again"))
    add_utterances({"train": table.select([0])}, VOICE_ACTIVITY, path)


def test_frames_have_no_sound(rows, tmp_path):
    frames = np.zeros((2, 4, 4, 3), np.uint8)
    answer = {name: rows[0][name] for name in ("instruction", "response")}
    table = Dataset.from_list([answer]).with_transform(lambda rows: {**rows, "video": [frames]})
    assert add_utterances({"train": table}, VOICE_ACTIVITY, tmp_path / UTTERANCES)["train"]["utterances"] == [None]
