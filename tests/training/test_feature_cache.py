"""The cache is as good as the clips, and refuses to be anything else."""

import copy
import json
import shutil

import pytest
import torch

from microemo import MicroEmoForConditionalGeneration
from microemo.training.collator import MicroEmoCollator
from microemo.training.data import DataError
from microemo.training.feature_cache import FeatureCache, StaleCacheError, precompute


def test_loss_with_and_without_the_cache(world):
    batches = [MicroEmoCollator(processor)(world.rows) for processor in (world.processor, world.cache.reader())]
    assert "pixel_values_videos" in batches[0] and "pixel_values_videos" not in batches[1]
    same = batches[0].keys() & batches[1].keys()
    assert {"input_ids", "labels", "region_masks", "utterance_windows", "audio_windows", "frame_mask"} <= same
    for name in same:
        assert torch.equal(batches[0][name], batches[1][name]), name
    with torch.no_grad():
        losses = [world.model(**batch).loss.item() for batch in batches]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_one_entry_a_clip_whatever_is_asked(world, tmp_path):
    """The features belong to the clip: other questions about it need no other run."""
    cache = world.cache
    files = len(list(world.cache_folder.glob("*.safetensors")))
    assert files == len(world.rows)
    asked = [{**row, "instruction": "Something else?", "response": "Yes."} for row in world.rows]
    assert cache.add(asked, world.model, progress=False) == {}
    assert len(list(world.cache_folder.glob("*.safetensors"))) == files
    MicroEmoCollator(cache.reader())(asked)
    # By content: a copy under another name is the same clip.
    copied = shutil.copy(world.rows[0]["video"], tmp_path / "copy.mp4")
    MicroEmoCollator(cache.reader())([{**world.rows[0], "video": str(copied)}])


def test_a_changed_clip_is_not_there(world, tmp_path):
    file = shutil.copy(world.rows[0]["video"], tmp_path / "clip.mp4")
    row = {**world.rows[0], "video": str(file)}
    collate = MicroEmoCollator(world.cache.reader())
    collate([row])
    file.write_bytes(file.read_bytes() + b"more")
    with pytest.raises(StaleCacheError, match="clip.mp4 is not in .*Run microemo precompute again"):
        collate([row])
    with pytest.raises(StaleCacheError, match="is not in"):
        collate([{**world.rows[0], "utterances": [{"start": 0.0, "end": 0.3, "text": "Other."}]}])


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda processor, model: setattr(processor.video_processor, "num_frames", 7),
            r"video_processor.num_frames was 6, is 7",
        ),
        (lambda processor, model: setattr(processor, "timestamp_format", "At {:.2f}"), "timestamp_format was"),
        (
            lambda processor, model: setattr(processor.feature_extractor, "num_clips", 4),
            "feature_extractor.num_clips was",
        ),
        (
            lambda processor, model: model.model.audio_branch.audio_tower.head.weight.data[0].add_(1e-3),
            "audio_tower was",
        ),
        (lambda processor, model: model.model.visual_encoder.vision_model.to(torch.bfloat16), "vision_model was"),
    ],
)
def test_stale_caches_are_refused(world, change, message):
    processor = copy.deepcopy(world.processor)
    model = MicroEmoForConditionalGeneration.from_pretrained(world.checkpoint)
    FeatureCache(world.cache_folder, processor, model)
    change(processor, model)
    with pytest.raises(StaleCacheError, match=message):
        FeatureCache(world.cache_folder, processor, model)


def test_prompts_may_change_under_a_cache(world):
    processor = copy.deepcopy(world.processor)
    processor.system_text, processor.prompt_layout = "Look.", "interleaved"
    reader = FeatureCache(world.cache_folder, processor, world.model).reader()
    ours = MicroEmoCollator(reader)(world.rows)
    theirs = MicroEmoCollator(processor)(world.rows)
    assert torch.equal(ours["input_ids"], theirs["input_ids"])


def test_a_killed_run_goes_on_where_it_was(world, tmp_path, monkeypatch):
    cache = FeatureCache(tmp_path, world.processor, world.model)
    write, written = cache._write, []

    def write_two(key, *args):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(key)
        write(key, *args)

    monkeypatch.setattr(cache, "_write", write_two)
    with pytest.raises(KeyboardInterrupt):
        cache.add(world.rows, world.model, progress=False)
    assert not list(tmp_path.glob("*.part"))
    again, added = FeatureCache(tmp_path, world.processor, world.model), []
    monkeypatch.setattr(
        again, "_write", lambda key, *args: (added.append(key), FeatureCache._write(again, key, *args))
    )
    again.add(world.rows, world.model, progress=False)
    assert len(added) == 2 and not set(added) & set(written)


@pytest.mark.slow
def test_workers_write_the_same(world, tmp_path):
    cache = precompute([world.rows[:2], world.rows[:1]], tmp_path, world.processor, world.model, num_workers=1)
    ours, theirs = (MicroEmoCollator(one.reader())(world.rows[:2]) for one in (cache, world.cache))
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value)


def test_clips_that_fail_are_told_in_one_table(world, tmp_path):
    (tmp_path / "text.mp4").write_text("no film")
    rows = [
        world.rows[0],
        {**world.rows[0], "video": "/nowhere.mp4"},
        {**world.rows[0], "video": str(tmp_path / "text.mp4")},
    ]
    with pytest.raises(DataError, match=r"2 of 3 rows have no features(.|\n)*2 \| /nowhere.mp4(.|\n)*3 \| .*text.mp4"):
        precompute([rows], tmp_path / "cache", world.processor, world.model)
    told = []
    precompute([rows], tmp_path / "cache", world.processor, world.model, on_error="skip", warn=told.append)
    assert "2 of 3" in told[0]


def test_settings_say_what_made_it(world):
    settings = json.loads((world.cache_folder / "settings.json").read_text())
    assert settings["video_processor.num_frames"] == 6 and len(settings["vision_model"]) == 64
    assert str(world.checkpoint) not in json.dumps(settings)
