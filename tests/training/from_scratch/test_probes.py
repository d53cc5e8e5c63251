"""What is known of a moment, and that eyes and ears can learn it."""

import copy
import re

import numpy as np
import pytest
import torch

from microemo import MicroEmoConfig, MicroEmoForConditionalGeneration
from microemo.training.data import load_table
from microemo.training.feature_cache import FeatureCache, pad_together
from microemo.training.from_scratch.probes import (
    PARTS,
    ActingFrames,
    AlignmentClips,
    FacialActionProbe,
    PatchProbe,
    ProsodyProbe,
    SpokenClips,
    WindowProbe,
    amplitudes_at,
    prosody_shares,
    put_together,
    truth_of,
    words_of_tokens,
)
from microemo.training.from_scratch.stages import ALIGNMENT
from microemo.training.synthetic.dialogue_plan import CLUES
from microemo.training.synthetic.face_acting import ACTIONS
from microemo.training.synthetic.synthetic_dialogues import TABLE, read_truth
from microemo.training.synthetic.voice import PROSODIES
from microemo.training.train import ModelArguments, prepare_model, trained_parameters


@pytest.fixture(scope="module")
def rows(corpus):
    return load_table(corpus / TABLE, "train").to_list()


@pytest.fixture(scope="module")
def cache(world, rows, tmp_path_factory):
    """Of the training clips, without a model."""
    cache = FeatureCache(tmp_path_factory.mktemp("clips"), world.processor)
    assert cache.add(rows, progress=False) == {}
    return cache


@pytest.fixture(scope="module")
def clips(cache):
    return cache.reader()


# --- truth ---------------------------------------------------------------------------------------------------------


def test_amplitudes_are_those_of_the_nearest_frame():
    values = {action: [number, number + 0.1, number + 0.2] for number, action in enumerate(ACTIONS)}
    truth = {"times": [0.0, 0.1, 0.2], "amplitudes": dict(reversed(values.items()))}
    read = amplitudes_at(truth, np.array([0.0, 0.04, 0.06, 0.11, 5.0]))
    assert read.shape == (5, len(ACTIONS))
    np.testing.assert_allclose(read[:, 0], [0.0, 0.0, 0.1, 0.1, 0.2])
    np.testing.assert_allclose(read - read[:, :1], np.tile(np.arange(len(ACTIONS)), (5, 1)))


def test_shares_of_prosodies_and_of_silence():
    assert list(PROSODIES) == ["lively", "flat"]
    said = [{"start": 0.0, "end": 1.0, "prosody": "lively"}, {"start": 1.0, "end": 1.5, "prosody": "flat"}]
    times = np.array([[0.0, 0.5], [0.5, 1.5], [1.25, 1.75], [1.5, 2.0], [0.0, 2.0]])
    shares = prosody_shares({"utterances": said}, times)
    np.testing.assert_allclose(shares, [[1, 0, 0], [0.5, 0.5, 0], [0, 0.5, 0.5], [0, 0, 1], [0.5, 0.25, 0.25]])
    said.append({"start": 0.0, "end": 1.0, "prosody": "flat"})
    np.testing.assert_allclose(prosody_shares({"utterances": said}, times)[0], [0.5, 0.5, 0])


def test_truth_is_found_beside_the_clips(corpus, rows):
    assert truth_of(rows) == read_truth(corpus) and {row["name"] for row in rows} < truth_of(rows).keys()


# --- batches -------------------------------------------------------------------------------------------------------


def test_frames_have_the_amplitudes_of_their_times(clips, rows):
    frames = ActingFrames(rows, clips, num_frames=5)
    assert len(frames) == len(rows)
    torch.manual_seed(0)
    for number, row in enumerate(rows):
        whole = clips(videos=[row["video"]], utterances=[row["subtitles"]], return_tensors="pt", return_metadata=True)
        times, truth = whole["video_metadata"][0].frame_times, read_truth_of(row)
        item = frames[number]
        assert item["amplitudes"].shape == (1, 5, len(ACTIONS))
        for frame in range(5):
            same = (whole["pixel_values_videos"][0] == item["pixel_values"][0, frame]).flatten(1).all(1)
            (place,) = same.nonzero().flatten().tolist()
            nearest = int(np.abs(np.array(truth["times"]) - times[place]).argmin())
            assert truth["times"][nearest] == pytest.approx(times[place], abs=2e-3)
            expected = [truth["amplitudes"][action][nearest] for action in ACTIONS]
            np.testing.assert_allclose(item["amplitudes"][0, frame], expected, atol=1e-6)
            for name, of_clip in (("region_masks", "region_masks"), ("qformer_input_ids", "qformer_input_ids")):
                assert torch.equal(item[name][0, frame], whole[of_clip][0, place])
    assert not torch.equal(frames[0]["pixel_values"], frames[0]["pixel_values"]), "drawn anew every time"


def read_truth_of(row):
    return truth_of([row])[row["name"]]


def test_sounds_have_the_shares_of_their_times(clips, rows):
    sounds = SpokenClips(rows, clips)
    for number, row in enumerate(rows):
        item = sounds[number]
        count = item["input_features"].shape[1]
        assert item["shares"].shape == (1, count, 3) and torch.allclose(item["shares"].sum(-1), torch.ones(1, count))
        truth = read_truth_of(row)
        # The mel clips lie evenly over the sound.
        for column, prosody in enumerate(PROSODIES):
            spoken = sum(one["end"] - one["start"] for one in truth["utterances"] if one["prosody"] == prosody)
            assert item["shares"][..., column].mean() == pytest.approx(spoken / truth["seconds"], abs=0.06)


SWITCHES_OF_WINDOWS = pytest.mark.parametrize(
    "config_overrides",
    [
        {},
        {"windows": "none"},
        {"windows": "sliding", "window_size": 2.0, "window_stride": 2.0, "window_unit": "seconds"},
    ],
    ids=["utterance", "none", "sliding"],
)


def watch(cache, rows, **config_overrides) -> AlignmentClips:
    processor = copy.copy(cache.processor)
    for name, value in config_overrides.items():
        setattr(processor, name, value)
    return AlignmentClips(rows, FeatureCache(cache.folder, processor).reader())


@SWITCHES_OF_WINDOWS
def test_windows_have_what_happened_in_them(cache, rows, config_overrides):
    watched = watch(cache, rows, **config_overrides)
    for number, row in enumerate(rows):
        item, truth = watched[number], read_truth_of(row)
        whole = watched.processor(
            videos=[row["video"]], utterances=[row["subtitles"]], return_tensors="pt", return_metadata=True
        )
        times = np.array(whole["video_metadata"][0].frame_times)
        seen = amplitudes_at(truth, times)
        spans = [(said["start"], said["end"]) for said in truth["utterances"]]
        if "windows" in config_overrides:
            count = 1 + int(times[-1] // 2) if config_overrides["windows"] == "sliding" else 0
            spans = [(2.0 * window, 2.0 * window + 2) for window in range(count)]
        assert item["of_windows"].shape == (1, len(spans), len(ACTIONS))
        for window, (start, end) in enumerate(spans):
            inside = (times >= start) & (times < end)
            np.testing.assert_allclose(item["of_windows"][0, window], seen[inside].mean(0), atol=1e-6)
        assert item["of_parts"].shape == (1, PARTS, len(ACTIONS)) and item["of_parts"].isfinite().all()
        np.testing.assert_allclose(item["of_parts"][0].mean(0), seen.mean(0), atol=1e-6)
        assert [list(PROSODIES)[index] for index in item["prosodies"][0]] == [
            u["prosody"] for u in truth["utterances"]
        ]
        assert item["audio_windows"].shape[1] == len(truth["utterances"])


def test_frames_of_several_clips_in_one_batch(clips, rows):
    torch.manual_seed(0)
    frames = ActingFrames(rows, clips, num_frames=3)
    items = [frames[0], frames[1]]
    batch = put_together(items)
    assert batch["pixel_values"].shape == (6, 3, 112, 112) and batch["amplitudes"].shape == (6, len(ACTIONS))
    assert torch.equal(batch["pixel_values"][3:], items[1]["pixel_values"][0])
    assert torch.equal(batch["qformer_attention_mask"].sum(1)[:3], items[0]["qformer_attention_mask"][0].sum(1))


# --- learning ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def frames_batch(clips, rows):
    torch.manual_seed(0)
    frames = ActingFrames(rows, clips, num_frames=3)
    return put_together([frames[number] for number in range(len(rows))])


@pytest.fixture(scope="module")
def sounds_batch(clips, rows):
    return put_together([SpokenClips(rows, clips)[number] for number in range(2)])


def fresh(world, **config_overrides) -> MicroEmoForConditionalGeneration:
    torch.manual_seed(0)
    return MicroEmoForConditionalGeneration(
        MicroEmoConfig.from_pretrained(world.checkpoint, **config_overrides)
    ).train()


def losses(net, batch, steps=12, lr=3e-4) -> list[float]:
    optimizer, seen = torch.optim.AdamW(net.parameters(), lr=lr), []
    for _ in range(steps):
        output = net(**batch)
        seen.append(output["loss"].item())
        optimizer.zero_grad()
        output["loss"].backward()
        optimizer.step()
    return seen


def test_the_image_encoder_learns(world, frames_batch):
    net = PatchProbe(fresh(world).model.visual_encoder.vision_model)
    before = copy.deepcopy(net.vision_model.state_dict())
    seen = losses(net, frames_batch, lr=2e-5)  # a head looks at 8192 values at once
    # Its heads begin at zero, and so does what is read.
    assert seen[0] == pytest.approx(2 * frames_batch["amplitudes"].square().mean().item(), rel=0.05)
    assert seen[-1] < 0.5 * seen[0]
    assert net(**frames_batch)["logits"].shape == frames_batch["amplitudes"].shape
    moved = [name for name, value in net.vision_model.state_dict().items() if not torch.equal(value, before[name])]
    assert any("patch" in name for name in moved) and any("layers.0" in name for name in moved)


def test_the_audio_tower_learns(world, sounds_batch):
    net = ProsodyProbe(fresh(world).model.audio_branch.audio_tower)
    seen = losses(net, sounds_batch)
    assert seen[-1] < 0.8 * seen[0]
    assert net(**sounds_batch)["logits"].shape == sounds_batch["shares"].shape


SWITCHES = pytest.mark.parametrize(
    "config_overrides",
    [
        {},
        {"use_local_clue_attention": False},
        {"use_local_clue_attention": False, "use_frame_timestamps": False},
    ],
    ids=["full", "without local clue attention", "without timestamps either"],
)


@SWITCHES
def test_the_visual_encoder_learns(world, frames_batch, config_overrides):
    net = FacialActionProbe(fresh(world, **config_overrides).model.visual_encoder)
    batch = frames_batch
    if "use_frame_timestamps" in config_overrides:
        batch = {name: value for name, value in batch.items() if not name.startswith("qformer")}
    seen = losses(net, batch)
    assert seen[-1] < 0.5 * seen[0]
    assert net(**batch)["logits"].shape == batch["amplitudes"].shape


@SWITCHES
def test_gradients_reach_all_of_the_visual_encoder(world, frames_batch, config_overrides):
    encoder = fresh(world, **config_overrides).model.visual_encoder
    FacialActionProbe(encoder)(**frames_batch)["loss"].backward()
    idle = {name for name, value in encoder.named_parameters() if value.grad is None or not value.grad.any()}
    # The last layer's text rows are not passed on (the paper keeps the queries), so nothing reaches their feed-forward.
    unreachable = {name for name in idle if re.search(r"^image_qformer\..*\.layer\.2\.(intermediate|output)\.", name)}
    assert idle == unreachable and len(idle) == (0 if "use_frame_timestamps" in config_overrides else 6)
    assert any("local_clue_attention" in name for name, _ in encoder.named_parameters()) == (not config_overrides)


@SWITCHES_OF_WINDOWS
def test_qformers_learn_what_happens_in_their_windows(world, cache, rows, config_overrides):
    watched = watch(cache, rows, **config_overrides)
    batch = pad_together([watched[0], watched[1]])
    model = fresh(world, **config_overrides)
    prepare_model(model, ModelArguments(use_peft=False, modules_to_train=ALIGNMENT))
    net = WindowProbe(model.model)
    assert net(**batch)["logits"].shape == (sum(len(read_truth_of(row)["utterances"]) for row in rows[:2]), 2)
    seen = losses(net, batch, lr=1e-3)
    assert seen[-1] < 0.7 * seen[0]
    idle = {name for name, value in trained_parameters(model) if value.grad is None or not value.grad.any()}
    assert not idle
    frozen = [name for name, value in model.named_parameters() if not value.requires_grad]
    assert not any(part in name.split(".") for name in frozen for part in ALIGNMENT)


def test_tokens_of_a_window_share_the_words_of_its_utterances():
    one, two, none = [[5, 6, 7]], [[5, 6, 7], [8]], []
    words = words_of_tokens([two, one, none], num_tokens=4)
    assert words.shape == (3, 4, 3) and words.dtype == torch.long
    assert words[0].tolist() == [[5, 6, 0], [7, 0, 0], [8, 0, 0], [0, 0, 0]]
    assert words[1].tolist() == [[5, 0, 0], [6, 0, 0], [7, 0, 0], [0, 0, 0]]
    assert not words[2].any()
    # More utterances than tokens: the last are left out.
    assert words_of_tokens([[[5], [6], [7]]], num_tokens=2).tolist() == [[[5], [6]]]


@SWITCHES_OF_WINDOWS
def test_tokens_are_told_the_words_for_what_is_seen_and_heard(cache, rows, config_overrides):
    watched = watch(cache, rows, **config_overrides)
    for number, row in enumerate(rows):
        item, said = watched[number], read_truth_of(row)["utterances"]
        assert item["video_words"].shape[1] == 1 + item["of_windows"].shape[1]
        decode = cache.processor.tokenizer.decode
        texts = [
            [decode(token[token > 0]).strip() for token in window if token.any()] for window in item["video_words"][0]
        ]
        clues = [CLUES[one["clue"]][1] for one in said]
        assert config_overrides or [" ".join(text) for text in texts[1:]] == clues
        for text in texts:  # of some of the utterances, in their order
            left = " ".join(text)
            for clue in clues:
                left = left.removeprefix(clue).lstrip()
            assert not left
        assert texts[0]
        heard = [
            [decode(token[token > 0]).strip() for token in window if token.any()] for window in item["audio_words"][0]
        ]
        assert heard[1:] == [[one["prosody"]] for one in said]


def test_padding_of_windows_is_not_read(world, cache, rows):
    """Clips of few utterances in a batch with one of many: the loss of both is made of what each has alone."""
    watched = watch(cache, rows)
    items = sorted((watched[number] for number in range(4)), key=lambda item: item["prosodies"].shape[1])
    few, many = items[0], items[-1]
    assert few["prosodies"].shape[1] < many["prosodies"].shape[1]
    net = WindowProbe(fresh(world).model).eval()
    with torch.no_grad():
        together, alone = net(**pad_together([few, many])), [net(**pad_together([item])) for item in (few, many)]
    for name in ("amplitudes", "logits"):
        torch.testing.assert_close(together[name], torch.cat([one[name] for one in alone]), atol=1e-5, rtol=1e-4)


def test_features_do_for_pixels(world, clips, rows, tmp_path):
    """What the frozen image encoder gave teaches the rest the same."""
    model = fresh(world).eval()
    cache = FeatureCache(tmp_path, clips, model)
    assert cache.add(rows[:2], model, progress=False) == {}
    net = FacialActionProbe(model.model.visual_encoder).eval()
    read = []
    for reader in (clips, cache.reader()):
        torch.manual_seed(0)
        frames = ActingFrames(rows[:2], reader, num_frames=3)
        batch = put_together([frames[0], frames[1]])
        with torch.no_grad():
            read.append(net(**batch)["logits"])
    assert "vision_features" in batch and "pixel_values" not in batch
    torch.testing.assert_close(*read, atol=1e-5, rtol=1e-4)
