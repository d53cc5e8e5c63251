"""Encoders of Transformers as towers: forward, loss, generation, saving, loading, the processor and the feature cache."""

import numpy as np
import pytest
import torch
from transformers import CONFIG_MAPPING

from microemo import MicroEmoConfig, MicroEmoForConditionalGeneration, MicroEmoProcessor
from microemo.publishing.initialize import tiny_qformer_tokenizer, tiny_tokenizer
from microemo.training.collator import MicroEmoCollator
from microemo.training.feature_cache import precompute

# Random and tiny.
WHISPER = {
    "d_model": 32,
    "encoder_layers": 3,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "num_mel_bins": 20,
    "max_source_positions": 100,  # segments of 2 s
}
WAVEFORMS = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "conv_dim": (16, 16, 16),
    "conv_kernel": (10, 4, 4),
    "conv_stride": (5, 8, 8),
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "vocab_size": 16,
}
QWEN3 = {**WHISPER, "n_window": 50, "output_dim": 32, "downsample_hidden_size": 16}
AUDIO = {
    "whisper": {**WHISPER, "decoder_layers": 1, "vocab_size": 16, "pad_token_id": 0},
    "hubert": WAVEFORMS,
    "wavlm": WAVEFORMS,
    "wav2vec2": WAVEFORMS,
    "qwen2_audio_encoder": WHISPER,
    "qwen2_5_omni_audio_encoder": {**WHISPER, "n_window": 25, "output_dim": 32},
    "qwen3_omni_moe_audio_encoder": QWEN3,
    "qwen3_asr_encoder": QWEN3,
}
# The seconds of a segment, and the steps in it.
SEGMENTS = {
    "whisper": (2, 100),
    "hubert": (20, 1000),
    "wavlm": (20, 1000),
    "wav2vec2": (20, 1000),
    "qwen2_audio_encoder": (2, 50),
    "qwen2_5_omni_audio_encoder": (2, 50),
    "qwen3_omni_moe_audio_encoder": (30, 390),
    "qwen3_asr_encoder": (30, 390),
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "patch_size": 14,
}
PICTURES = {
    "clip_vision_model": {**VISION, "image_size": 112},
    "siglip_vision_model": {
        **VISION,
        "image_size": 118,
    },  # as 384 pixels and patches of 14: no whole number of patches
    "siglip2_vision_model": {**VISION, "num_patches": 64},
    "dinov2": {**VISION, "image_size": 112, "mlp_ratio": 2},
    "dinov2_with_registers": {**VISION, "image_size": 112, "mlp_ratio": 2, "num_register_tokens": 2},
    "dinov3_vit": {**VISION, "image_size": 112, "num_register_tokens": 2},
}
# Older versions of Transformers have not all of them.
AUDIO, PICTURES = (
    {name: sizes for name, sizes in table.items() if name in CONFIG_MAPPING} for table in (AUDIO, PICTURES)
)


def make_config(**switches) -> MicroEmoConfig:
    return MicroEmoConfig(**{**MicroEmoConfig.from_preset("microemo-tiny").to_dict(), **switches})


def with_audio_tower(model_type: str, **switches) -> MicroEmoConfig:
    fields = {"audio_pool_size": 5, "max_audio_segments": 3, "audio_feature_layer": [1, -1]}
    return make_config(audio_config={"model_type": model_type, **AUDIO[model_type]}, **{**fields, **switches})


def make(config: MicroEmoConfig, num_frames: int = 3) -> tuple[MicroEmoForConditionalGeneration, MicroEmoProcessor]:
    torch.manual_seed(0)
    model = MicroEmoForConditionalGeneration(config).eval()
    processor = MicroEmoProcessor.from_config(config, tiny_tokenizer(), tiny_qformer_tokenizer())
    processor.video_processor.num_frames = num_frames
    return model, processor


@pytest.fixture(scope="module")
def clip(make_clip):
    """3 s with a face and a tone: more than one segment of sound."""
    return make_clip("towers.mp4", times=np.arange(30) / 10, sound=3.0)


def row_of(clip) -> dict:
    words = [{"start": 0.2, "end": 1.0, "text": "One."}, {"start": 1.5, "end": 2.6, "text": "Two."}]
    content = [{"role": "user", "content": "Sad?"}, {"role": "assistant", "content": "No."}]
    return {"video": str(clip), "utterances": words, "messages": content}


def check_everything(model, processor, clip, tmp_path):
    """Loss with gradients, generation, saving and loading, and the same loss from a feature cache."""
    processor.check_config(model.config)
    row = row_of(clip)
    inputs = MicroEmoCollator(processor)([row])
    output = model(**inputs)
    assert torch.isfinite(output.loss)
    output.loss.backward()
    for tower in (model.get_encoder("audio"), model.get_encoder("video")):
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in tower.parameters())

    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    again, report = MicroEmoForConditionalGeneration.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not any(report.values()), report
    loaded = MicroEmoProcessor.from_pretrained(tmp_path / "model")
    loaded.check_config(again.config)
    inputs = MicroEmoCollator(loaded)([row])
    with torch.no_grad():
        assert torch.equal(again.eval()(**inputs).loss, output.loss)
        question = {name: value for name, value in inputs.items() if name != "labels"}
        assert again.generate(**question, max_new_tokens=2).shape[0] == 1

        cache = precompute([[row]], tmp_path / "cache", loaded, again)
        cached = MicroEmoCollator(cache.reader())([row])
        assert not {"pixel_values_videos", "pixel_values_faces", "input_features"} & cached.keys()
        torch.testing.assert_close(again(**cached).loss, output.loss)
    return inputs, cached


@pytest.mark.parametrize("model_type", AUDIO)
def test_an_audio_encoder_of_transformers(model_type, clip, tmp_path):
    config = with_audio_tower(model_type)
    seconds, steps = SEGMENTS[model_type]
    assert config.audio_width == config.audio_qformer_config.encoder_hidden_size == 64  # of two layers
    assert config.audio_steps_per_segment == steps // 5
    model, processor = make(config)
    inputs, cached = check_everything(model, processor, clip, tmp_path)
    assert inputs["audio_segment_mask"].tolist() == [[True] * (2 if seconds == 2 else 1)]
    count = int(inputs["audio_step_mask"].sum())
    assert count == pytest.approx(3.0 * steps / seconds / 5, abs=1)
    assert cached["audio_features"].shape == (1, count, 64) and cached["audio_step_mask"].all()
    expected = torch.tensor([[[0.2, 1.0], [1.5, 2.6]]]) * config.audio_steps_per_segment / seconds
    assert (inputs["audio_windows"] - expected).abs().max() <= 1


@pytest.mark.parametrize("model_type", PICTURES)
def test_an_image_encoder_of_transformers(model_type, clip, tmp_path):
    config = make_config(
        vision_config={"model_type": model_type, **PICTURES[model_type]}, vision_feature_layer=[1, -1]
    )
    assert (config.image_size, config.num_patches, config.vision_width) == (112, 64, 64)
    model, processor = make(config)
    _, cached = check_everything(model, processor, clip, tmp_path)
    class_tokens = 0 if "siglip" in model_type else 1  # registers are cut everywhere
    assert cached["vision_features"].shape[2:] == (class_tokens + 64, 64)
    # What is cut is what the encoder itself has in front of its patches.
    tower, frames = model.get_encoder("video"), torch.randn(2, 3, 112, 112)
    with torch.no_grad():
        features = model.model.visual_encoder.encode(frames).last_hidden_state
        if model_type != "siglip2_vision_model":
            own = tower(frames).last_hidden_state
            torch.testing.assert_close(features[:, class_tokens:, 32:], own[:, -64:])


def test_pictures_have_the_mean_and_deviation_that_the_encoder_was_trained_on():
    for model_type, mean in (("siglip_vision_model", 0.5), ("dinov2", 0.485), ("clip_vision_model", 0.48145466)):
        config = make_config(vision_config={"model_type": model_type, **PICTURES[model_type]})
        processor = MicroEmoProcessor.from_config(config, tiny_tokenizer(), tiny_qformer_tokenizer())
        assert processor.video_processor.image_mean[0] == mean
    frames = make_config(vision_config={"model_type": "dinov2", **PICTURES["dinov2"]}, frame_size=56)
    assert frames.num_patches == 16
    with pytest.raises(ValueError, match="frame_size 56: clip_vision_model takes frames of 112 pixels"):
        make_config(vision_config={"model_type": "clip_vision_model", **PICTURES["clip_vision_model"]}, frame_size=56)


@torch.no_grad()
@pytest.mark.parametrize("model_type", AUDIO)
def test_a_short_sound_in_a_batch_is_heard_as_it_is_alone(model_type):
    """wav2vec 2.0 and HuBERT normalise over time, so that what stands behind a sound would change its features."""
    model, processor = make(with_audio_tower(model_type))
    rng = np.random.default_rng(0)
    short, long = (rng.normal(size=int(16_000 * seconds)).astype(np.float32) * 0.1 for seconds in (1.3, 1.9))
    sound = {"sampling_rate": 16_000, "return_tensors": "pt"}
    alone = model.get_audio_features(**processor.feature_extractor(short, **sound)).pooler_output[0]
    both = processor.feature_extractor([long, short], **sound)
    torch.testing.assert_close(model.get_audio_features(**both).pooler_output[1], alone, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_padding_of_a_batch_changes_nothing():
    """A short sound beside a longer one, on the left and on the right of its row, and silence behind its end."""
    model, processor = make(with_audio_tower("whisper"))
    rng = np.random.default_rng(0)
    short, long = (rng.normal(size=int(16_000 * seconds)).astype(np.float32) * 0.1 for seconds in (1.3, 5.1))
    sound = {"sampling_rate": 16_000, "return_tensors": "pt"}
    alone = model.get_audio_features(**processor.feature_extractor(short, **sound)).pooler_output[0]
    both = processor.feature_extractor([short, None, long], **sound)
    assert both["audio_segment_mask"].sum(dim=1).tolist() == [1, 0, 3]
    assert both["audio_step_mask"].sum(dim=1).tolist() == [13, 0, 51]
    tokens = model.get_audio_features(**both).pooler_output
    torch.testing.assert_close(tokens[0], alone)
    assert len(tokens[1]) == 0
    for name in ("input_features", "audio_segment_mask"):
        both[name][0] = both[name][0].roll(2, dims=0)
    both["audio_step_mask"][0] = both["audio_step_mask"][0].roll(40, dims=0)
    torch.testing.assert_close(model.get_audio_features(**both).pooler_output[0], alone)
    both["input_features"][0, 0] = 7.0  # a segment that is not real
    torch.testing.assert_close(model.get_audio_features(**both).pooler_output[0], alone)


@torch.no_grad()
def test_windows_hold_the_steps_of_their_utterances():
    model, processor = make(with_audio_tower("whisper"))
    features = processor.feature_extractor(np.zeros(48_000, np.float32), sampling_rate=16_000, return_tensors="pt")
    steps = model.model.audio_branch.encode(features["input_features"][0]).last_hidden_state.flatten(0, 1)[None]
    windows = torch.tensor([[[0, 4], [10, 20]]])
    before = model.get_audio_features(audio_features=steps, audio_windows=windows).last_hidden_state
    changed = steps.clone()
    changed[0, 12] += 1.0
    after = model.get_audio_features(audio_features=changed, audio_windows=windows).last_hidden_state
    assert (after != before).flatten(2).any(dim=2).tolist() == [[True, False, True]]


def test_segments_of_a_sound():
    """Back to back up to the largest number of segments, then evenly spread over the sound, as ImageBind's are."""
    _, processor = make(with_audio_tower("whisper"))
    extractor = processor.feature_extractor
    for seconds, segments, steps in ((0.0001, 1, 1), (1.99, 1, 20), (2.0, 1, 20), (2.01, 2, 21), (6.0, 3, 60)):
        output = extractor(np.zeros(max(1, int(seconds * 16_000)), np.float32), sampling_rate=16_000)
        assert output["input_features"].shape == (1, segments, 20, 200)
        times = extractor.segment_times(max(1, int(seconds * 16_000)), 16_000)
        assert len(times) == output["audio_step_mask"].sum() == steps
        np.testing.assert_allclose(times[:, 0], np.arange(steps) / 10, atol=1e-6)
    times = extractor.segment_times(20 * 8_000, 8_000)
    assert len(times) == 60 and times[[0, 20, 40], 0].tolist() == [0, 9, 18] and times[-1, 1] == pytest.approx(20)


@torch.no_grad()
def test_features_are_those_of_the_towers_own_feature_extractor():
    from transformers import WhisperFeatureExtractor

    model, processor = make(with_audio_tower("whisper", audio_pool_size=1, audio_feature_layer=-1))
    sound = np.sin(np.arange(20_000) / 9).astype(np.float32)
    own = WhisperFeatureExtractor(feature_size=20, chunk_length=2)(sound, sampling_rate=16_000, return_tensors="pt")
    features = processor.feature_extractor(sound, sampling_rate=16_000, return_tensors="pt")
    assert torch.equal(features["input_features"][0], own["input_features"])
    steps = model.model.audio_branch.encode(features["input_features"][0]).last_hidden_state
    assert torch.equal(steps, model.get_encoder("audio")(own["input_features"]).last_hidden_state)
    # Stereo is heard in both channels, and other rates are resampled.
    stereo = processor.feature_extractor(np.stack([2 * sound, 0 * sound]), sampling_rate=16_000)
    np.testing.assert_allclose(stereo["input_features"], features["input_features"], atol=1e-4)


def test_layers_that_are_read():
    whisper = with_audio_tower("whisper", audio_feature_layer=[0, 3, -2])
    assert whisper.audio_width == 96
    model, _ = make(whisper)
    features = torch.randn(2, 20, 200)
    with torch.no_grad():
        states = model.get_encoder("audio")(features, output_hidden_states=True)
        steps = model.model.audio_branch.encode(features).last_hidden_state
    expected = torch.cat([states.hidden_states[0], states.last_hidden_state, states.hidden_states[2]], dim=-1)
    expected = expected.unflatten(1, (20, 5)).mean(dim=2)
    torch.testing.assert_close(steps, expected)
    for field, layer in (("audio_feature_layer", 4), ("audio_feature_layer", []), ("vision_feature_layer", [1, -6])):
        with pytest.raises(ValueError, match=f"{field} .*must name hidden states from"):
            with_audio_tower("whisper", **{field: layer})


def test_what_no_row_describes_is_refused_with_those_that_have_one():
    with pytest.raises(ValueError, match="audio_config.*'bert'.*microemo_audio, whisper"):
        make_config(audio_config={"model_type": "bert"})
    with pytest.raises(ValueError, match="vision_config.*'bert'.*microemo_vision"):
        make_config(vision_config={"model_type": "bert"})
    with pytest.raises(ValueError, match="audio_pool_size 2 must divide the 1 steps that microemo_audio makes"):
        make_config(audio_pool_size=2)


def test_a_frozen_tower_stays_in_evaluation_mode():
    model, _ = make(with_audio_tower("whisper"))
    model.get_encoder("audio").requires_grad_(False)
    model.train()
    assert not any(module.training for module in model.get_encoder("audio").modules())
    assert model.get_encoder("video").training and model.model.audio_branch.audio_qformer.training
    model.get_encoder("audio").requires_grad_(True)
    model.train()
    assert model.get_encoder("audio").layers[0].training
