"""Clips of people for the probes: utterances from a list or none at all, no sound track, nobody in the picture."""

import json

import numpy as np
import pytest
import torch

from microemo import MicroEmoForConditionalGeneration
from microemo.training.feature_cache import pad_together
from microemo.training.from_scratch.people_probes import PeopleFrames, PeopleWindows
from microemo.training.from_scratch.people_stages import PeopleRun
from microemo.training.from_scratch.probes import WindowProbe
from microemo.training.synthetic.face_acting import ACTIONS
from microemo.training.synthetic.people_answers import voice_words
from microemo.training.synthetic.recordings import HEARD

SAID = [(0.0, 0.5, "smile", "sad"), (0.5, 0.9, "neutral", "angry")]


@pytest.fixture(scope="module")
def rows(tmp_path_factory, make_clip):
    """`words` with times, `none` without utterances, `mute` without a track, `silent` with one that says nothing."""
    folder, rows, truths = tmp_path_factory.mktemp("people"), [], []
    for name in ("words", "none", "mute", "silent"):
        video = folder / f"{name}.mp4"
        made = make_clip(video.name, sound=None if name == "mute" else 1.0, face_width=130)
        video.write_bytes(made.read_bytes() + name.encode())  # no two clips are the same to a cache
        utterances = [
            {"start": start, "end": end, "text": "", "clue": clue, "heard": heard, "seen": True}
            for start, end, clue, heard in SAID
        ]
        spans = [{key: utterance[key] for key in ("start", "end", "text")} for utterance in utterances]
        rows.append({"name": name, "video": str(video), "utterances": None if name == "none" else spans})
        rows[-1]["messages"] = [{"role": "user", "content": "What is felt?"}]
        truths.append(
            {
                "name": name,
                "has_face": True,
                "has_sound": name in ("words", "none"),
                "has_words": False,
                "utterances": utterances,
                "times": [0.0, 0.5],
                "shown": [0, None],
                "amplitudes": {action: [0.5, 0.7] for action in ACTIONS},
            }
        )
    (folder / "truth.jsonl").write_text("".join(json.dumps(truth) + "\n" for truth in truths))
    return rows


@pytest.fixture(scope="module")
def windows(rows, world):
    clips = PeopleWindows(rows, world.processor)
    return {row["name"]: clips[index] for index, row in enumerate(rows)}


def test_windows_are_those_that_the_row_lists(windows):
    assert {name: clip["of_windows"].shape[1] for name, clip in windows.items()} == {
        "words": 2,
        "none": 0,
        "mute": 2,
        "silent": 2,
    }
    assert windows["words"]["prosodies"].tolist() == [[HEARD.index("sad"), HEARD.index("angry")]]


def test_silence_is_a_voice_that_says_nothing_and_no_track_is_no_window_of_sound(windows, world):
    assert windows["silent"]["prosodies"].tolist() == [[-100, -100]]
    nothing = world.processor.tokenizer(f" {voice_words(None)}", add_special_tokens=False)["input_ids"]
    for window in windows["silent"]["audio_words"][0, 1:]:
        assert window[window > 0].tolist() == nothing
    assert not {"audio_words", "prosodies", "audio_windows"} & windows["mute"].keys()


@pytest.mark.parametrize("names", [["words", "none", "mute", "silent"], ["none"], ["silent"], ["none", "mute"]])
def test_any_batch_of_them_has_a_loss(windows, world, names):
    torch.manual_seed(0)
    model = MicroEmoForConditionalGeneration.from_pretrained(world.checkpoint).model
    output = WindowProbe(model, PeopleRun.num_voices)(**pad_together([windows[name] for name in names]))
    assert torch.isfinite(output["loss"])
    assert output["logits"].shape[-1] == len(HEARD)


def test_frames_without_a_face_have_no_amplitude(rows, world):
    frames = PeopleFrames(rows, world.processor, num_frames=6)
    times = np.array([0.1, 0.4, 0.9])
    assert frames.amplitudes(frames.truth["words"], times)[:, 0].tolist() == [0.5, 0.7 * 0, 0.7 * 0]
    assert frames[1]["amplitudes"].shape == (1, 6, len(ACTIONS))
