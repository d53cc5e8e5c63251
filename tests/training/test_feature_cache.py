"""The cache is as good as the clips, and refuses to be anything else."""

import copy
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from microemo import MicroEmoForConditionalGeneration
from microemo.training import feature_cache
from microemo.training.collator import MicroEmoCollator
from microemo.training.data_checks import DataError
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
        (lambda processor, model: setattr(processor, "max_utterances", 5), "max_utterances was 32, is 5"),
        (
            lambda processor, model: setattr(processor.feature_extractor, "num_segments", 4),
            "feature_extractor.num_segments was",
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


@pytest.fixture(scope="module")
def pixels(world, tmp_path_factory):
    """A cache of the clips without a model."""
    cache = FeatureCache(tmp_path_factory.mktemp("pixels"), world.processor)
    assert cache.add(world.rows, progress=False) == {}
    return cache


def same_batch(ours, theirs):
    has_face = theirs["region_masks"].flatten(2).any(-1)
    for name, value in theirs.items():
        if name == "pixel_values_faces":
            assert torch.equal(ours[name][has_face], value[has_face])
        else:
            assert torch.equal(ours[name], value), name


def changed(processor, **config_overrides):
    processor = copy.deepcopy(processor)
    for name, value in config_overrides.items():
        setattr(processor, name, value)
    return processor


@pytest.mark.parametrize(
    "config_overrides",
    [
        {"windows": "utterance"},
        {"windows": "utterance", "use_utterance_audio": False, "use_frame_timestamps": False},
        {"windows": "none"},
        {"windows": "none", "use_frame_timestamps": False, "system_text": "Look."},
        {"windows": "sliding", "window_size": 4, "window_stride": 2, "timestamp_format": "At {:.2f}."},
        {"windows": "sliding", "window_size": 0.5, "window_stride": 0.5, "window_unit": "seconds"},
    ],
    ids=lambda config_overrides: ", ".join(f"{value}" for value in config_overrides.values()),
)
@pytest.mark.parametrize("layout", ["concatenated", "interleaved"])
def test_one_cache_serves_all_windows_timestamps_and_prompts(world, pixels, config_overrides, layout):
    """What it gives is to the last bit what the clips give; a crop without a face, which is not looked at, apart."""
    processor = changed(world.processor, prompt_layout=layout, **config_overrides)
    theirs = MicroEmoCollator(processor)(world.rows)
    ours = MicroEmoCollator(FeatureCache(pixels.folder, processor).reader())(world.rows)
    assert ours.keys() == theirs.keys() and ("qformer_input_ids" in ours) == processor.use_frame_timestamps
    has_face = theirs["region_masks"].flatten(2).any(-1)
    assert has_face.any() and not has_face.all()
    same_batch(ours, theirs)

    ours = MicroEmoCollator(FeatureCache(world.cache_folder, processor, world.model).reader())(world.rows)
    for name in ours.keys() - {"vision_features", "face_features", "audio_features"}:
        assert torch.equal(ours[name], theirs[name]), name


def test_questions_that_cite_utterances(world, pixels):
    content = [{"type": "text", "text": "And in "}, {"type": "utterance", "index": 2}]
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "Doubt."}]
    row = {"video": world.rows[1]["video"], "utterances": world.rows[1]["utterances"], "messages": messages}
    ours, theirs = (MicroEmoCollator(processor)([row]) for processor in (pixels.reader(), world.processor))
    assert ours["cited_utterances"].tolist() == theirs["cited_utterances"].tolist() == [[1]]
    assert torch.equal(ours["input_ids"], theirs["input_ids"])


def test_pixels_are_kept_in_a_byte(pixels):
    for file in pixels.folder.glob("*.safetensors"):
        tensors = load_file(file)
        assert {tensors[name].dtype for name in ("pixel_values_videos", "pixel_values_faces")} == {torch.uint8}


def test_a_cache_of_features_from_a_cache_of_pixels(world, pixels, tmp_path):
    cache = FeatureCache(tmp_path, pixels.reader(), world.model)
    assert cache.settings == world.cache.settings
    assert cache.add(world.rows, world.model, progress=False) == {}
    names = {path.name for path in world.cache_folder.iterdir()}
    assert {path.name for path in tmp_path.iterdir()} == names
    ours, theirs = (MicroEmoCollator(one.reader())(world.rows) for one in (cache, world.cache))
    assert ours.keys() == theirs.keys() >= {"vision_features", "face_features", "audio_features"}
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, atol=1e-6, rtol=0, msg=name)
    with pytest.raises(StaleCacheError, match="vision_model was '.*', is None"):
        FeatureCache(tmp_path, pixels.reader())


# --- frame tokens --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokens(world, tmp_path_factory):
    """A cache of frame tokens, made from that of features."""
    return precompute(
        [world.rows], tmp_path_factory.mktemp("tokens"), world.cache.reader(), world.model, frame_tokens=True
    )


def test_loss_with_and_without_frame_tokens(world, tokens):
    reader = FeatureCache(tokens.folder, world.processor, world.model).reader()
    theirs, ours = (MicroEmoCollator(processor)(world.rows) for processor in (world.processor, reader))
    assert ours["frame_tokens"].shape[2] == world.model.config.num_query_tokens
    assert not {"pixel_values_videos", "vision_features", "face_features", "region_masks"} & ours.keys()
    for name in ours.keys() & theirs.keys():
        assert torch.equal(ours[name], theirs[name]), name
    with torch.no_grad():
        losses = [world.model(**batch).loss.item() for batch in (theirs, ours)]
        others = world.model(**(ours | {"frame_tokens": ours["frame_tokens"].flip(0)})).loss.item()
    assert losses[0] == pytest.approx(losses[1], abs=1e-5) and others != pytest.approx(losses[1], abs=1e-5)


def test_frame_tokens_with_those_of_the_timestamps(world, tmp_path):
    """As TimeChat passes them on; a clip's longest timestamp counts, not the batch's."""
    config = copy.deepcopy(world.model.config)
    config.keep_timestamp_tokens = True
    model = MicroEmoForConditionalGeneration.from_pretrained(world.checkpoint, config=config).eval()
    processor = changed(world.processor, timestamp_format="timechat")
    cache = precompute([world.rows], tmp_path, processor, model, frame_tokens=True)
    batches = [MicroEmoCollator(one)(world.rows) for one in (processor, cache.reader())]
    with torch.no_grad():
        losses = [model(**batch).loss.item() for batch in batches]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_frame_tokens_serve_other_windows(world, between, tmp_path):
    rows = [between, world.rows[0]]
    precompute([rows], tmp_path, world.processor, world.model, frame_tokens=True)
    processor = changed(world.processor, windows="none")
    config = copy.deepcopy(world.model.config)
    config.windows = "none"
    model = MicroEmoForConditionalGeneration.from_pretrained(world.checkpoint, config=config).eval()
    ours, theirs = (
        MicroEmoCollator(one)(rows) for one in (FeatureCache(tmp_path, processor, model).reader(), processor)
    )
    assert ours["frame_tokens"].shape[:2] == theirs["pixel_values_videos"].shape[:2] == (2, 6)
    with torch.no_grad():
        assert model(**ours).loss.item() == pytest.approx(model(**theirs).loss.item(), abs=1e-5)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda _, model: model.model.visual_encoder.query_tokens.data.add_(1e-3), "visual_encoder was"),
        (
            lambda processor, _: setattr(processor, "timestamp_format", "At {:.1f}s."),
            "timestamp_format was 'This frame is sampled at {:.1f}s.', is 'At",
        ),
        (lambda processor, _: setattr(processor, "use_frame_timestamps", False), "timestamp_format was .*, is None"),
        (
            lambda _, model: setattr(model.config, "keep_timestamp_tokens", True),
            "keep_timestamp_tokens was False, is True",
        ),
    ],
)
def test_stale_frame_tokens_are_refused(world, tokens, change, message):
    processor = copy.deepcopy(world.processor)
    model = MicroEmoForConditionalGeneration.from_pretrained(world.checkpoint)
    FeatureCache(world.cache_folder, processor, model)
    change(processor, model)
    FeatureCache(world.cache_folder, processor, model)  # features of the towers do not depend on it
    with pytest.raises(StaleCacheError, match=message):
        FeatureCache(tokens.folder, processor, model)


def test_a_cache_of_features_is_none_of_frame_tokens(world, tokens, tmp_path):
    with pytest.raises(StaleCacheError, match="visual_encoder was None, is"):
        FeatureCache(world.cache_folder, world.processor, world.model, frame_tokens=True)
    with pytest.raises(StaleCacheError, match="visual_encoder was .*, is None"):
        FeatureCache(tokens.folder, world.processor, world.model, frame_tokens=False)
    with pytest.raises(ValueError, match="give the cache the model"):
        FeatureCache(tmp_path / "new", world.processor, frame_tokens=True)
    assert not (tmp_path / "new").exists()


def test_training_on_frame_tokens(world, tokens, run_training):
    with pytest.raises(ValueError, match="holds what visual_encoder gave, so it cannot be trained on it"):
        run_training(feature_cache=tokens.folder, max_steps=1)
    learning = ["video_qformer", "audio_qformer", "video_projection", "audio_projection"]
    trainer = run_training(feature_cache=tokens.folder, modules_to_train=learning, max_steps=3, learning_rate=1e-3)
    after = trainer.model.get_base_model().state_dict()
    before = world.model.state_dict()
    frozen = [name for name in before if "visual_encoder." in name]
    assert frozen and all(torch.equal(before[name], after[name]) for name in frozen)
    learned = [value for name, value in after.items() if name.endswith("global_qformer.query_tokens")]
    assert learned and not any(
        torch.equal(before["model.video_qformer.global_qformer.query_tokens"], value) for value in learned
    )


# --- other windows than the cache was made with --------------------------------------------------------------------


@pytest.fixture(scope="module")
def between(world, make_clip):
    """A row of which an utterance holds none of six frames."""
    clip = make_clip("between.mp4", times=[i / 25 for i in range(50)], sound=2.0)
    return {**world.rows[0], "video": str(clip), "utterances": [{"start": 0.042, "end": 0.1, "text": "Oh."}]}


@pytest.mark.parametrize("windows", ["none", "sliding"])
def test_frames_that_were_added_for_utterances_are_left_out_for_other_windows(world, between, tmp_path, windows):
    rows = [between, world.rows[0]]
    precompute([rows], tmp_path, world.processor)
    assert MicroEmoCollator(world.processor)(rows)["frame_mask"].sum(1).tolist() == [7, 6]
    processor = changed(world.processor, windows=windows, window_size=2, window_stride=2)
    theirs = MicroEmoCollator(processor)(rows)
    assert theirs["frame_mask"].sum(1).tolist() == [6, 6]
    same_batch(MicroEmoCollator(FeatureCache(tmp_path, processor).reader())(rows), theirs)
    # A cache made from this one takes the frames that its own windows ask for.
    again = precompute([rows], tmp_path / "again", FeatureCache(tmp_path, processor).reader())
    same_batch(MicroEmoCollator(again.reader())(rows), theirs)


@pytest.mark.parametrize("windows", ["none", "sliding"])
def test_frames_that_an_utterance_lacks_are_refused(world, between, tmp_path, windows):
    processor = changed(world.processor, windows=windows, window_size=2, window_stride=2)
    precompute([[between, world.rows[0]]], tmp_path, processor)
    collate = MicroEmoCollator(FeatureCache(tmp_path, world.processor).reader())
    with pytest.raises(StaleCacheError, match="between.mp4: .*other windows, for which other frames are sampled"):
        collate([between])
    same_batch(collate([world.rows[0]]), MicroEmoCollator(world.processor)([world.rows[0]]))


def test_frames_that_went_for_those_of_utterances_are_refused(world, between, tmp_path):
    """Where there may be no more frames, those of utterances take the place of others."""
    processor = changed(world.processor)
    processor.video_processor.num_frames = processor.video_processor.max_frames
    row = {**between, "utterances": [{"start": i / 25 - 0.01, "end": i / 25 + 0.01, "text": "Oh."} for i in (2, 5)]}
    precompute([[row]], tmp_path, processor)
    assert MicroEmoCollator(processor)([row])["frame_mask"].sum() == 32
    with pytest.raises(StaleCacheError, match="between.mp4: .*other windows, for which other frames are sampled"):
        MicroEmoCollator(FeatureCache(tmp_path, changed(processor, windows="none")).reader())([row])


def test_frames_at_a_rate_are_refused_for_other_windows(world, tmp_path):
    processor = changed(world.processor)
    processor.video_processor.fps = 4
    precompute([world.rows[:1]], tmp_path, processor)
    reader = FeatureCache(tmp_path, changed(processor, windows="none")).reader()
    with pytest.raises(StaleCacheError, match="other windows"):
        MicroEmoCollator(reader)(world.rows[:1])


def test_a_cache_decodes_no_other_way_than_its_own(world, pixels):
    with pytest.raises(ValueError, match="a feature cache has its own num_frames"):
        pixels.reader()(videos=world.rows[0]["video"], utterances=world.rows[0]["utterances"], num_frames=3)


def test_a_killed_run_goes_on_where_it_was(world, tmp_path, monkeypatch):
    cache = FeatureCache(tmp_path, world.processor, world.model)
    write, written = feature_cache.write_tensors, []

    def write_two(file, *args):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(file)
        write(file, *args)

    monkeypatch.setattr(feature_cache, "write_tensors", write_two)
    with pytest.raises(KeyboardInterrupt):
        cache.add(world.rows, world.model, progress=False)
    assert not list(tmp_path.glob("*.part"))
    again, added = FeatureCache(tmp_path, world.processor, world.model), []
    monkeypatch.setattr(feature_cache, "write_tensors", lambda file, *args: (added.append(file), write(file, *args)))
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
    assert not {"windows", "use_frame_timestamps", "timestamp_format", "prompt_layout"} & settings.keys()
