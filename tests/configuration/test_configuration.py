import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig

from microemo import MicroEmoConfig
from microemo.configuration.configuration_microemo import (
    MicroEmoAudioConfig,
    MicroEmoAudioQFormerConfig,
    MicroEmoImageQFormerConfig,
    MicroEmoVideoQFormerConfig,
    MicroEmoVisionConfig,
)

SUB_CONFIGS = (
    MicroEmoVisionConfig,
    MicroEmoImageQFormerConfig,
    MicroEmoVideoQFormerConfig,
    MicroEmoAudioConfig,
    MicroEmoAudioQFormerConfig,
)


@pytest.mark.parametrize("preset", ["microemo-7b", "microemo-modern", "microemo-small", "microemo-tiny"])
def test_round_trip_is_exact(preset, tmp_path):
    config = MicroEmoConfig.from_preset(preset, fusion_gate_init=0.25, windows="sliding")
    config.save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    assert type(again) is MicroEmoConfig
    assert again.to_json_string() == config.to_json_string()


@pytest.mark.parametrize("sub_config", SUB_CONFIGS, ids=lambda cls: cls.model_type)
def test_sub_configs_load_alone_from_the_composite(sub_config, tmp_path):
    config = MicroEmoConfig.from_preset("microemo-tiny")
    config.save_pretrained(tmp_path)
    alone = sub_config.from_pretrained(tmp_path)
    expected = getattr(config, sub_config.base_config_key)
    assert alone.to_dict() == expected.to_dict()
    assert alone.to_dict() != sub_config().to_dict()  # the preset's sizes, not the class's defaults


def test_two_qformers_of_one_class_keep_their_own_values(tmp_path):
    config = MicroEmoConfig(video_qformer_config={"hidden_size": 96}, audio_qformer_config={"hidden_size": 48})
    config.save_pretrained(tmp_path)
    again = MicroEmoConfig.from_pretrained(tmp_path)
    assert (again.video_qformer_config.hidden_size, again.audio_qformer_config.hidden_size) == (96, 48)


def test_default_is_the_papers_model():
    config = MicroEmoConfig()
    assert (config.vision_config.num_hidden_layers, config.vision_config.hidden_size) == (39, 1408)
    assert config.vision_config.num_patches == 256
    assert config.audio_config.num_patches == 228
    assert config.image_qformer_config.vocab_size == 30523
    assert config.video_qformer_config.cross_attention_frequency == 1
    assert config.audio_qformer_config.encoder_hidden_size == 1024
    assert config.text_config.model_type == "llama"


def test_widths_follow_the_part_before():
    config = MicroEmoConfig(
        vision_config={"hidden_size": 64, "num_attention_heads": 4}, audio_config={"projection_dim": 80}
    )
    assert config.image_qformer_config.encoder_hidden_size == 64
    assert config.audio_qformer_config.encoder_hidden_size == 80


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"windows": "utterances"}, ["windows", "utterances"]),
        ({"local_view": "crop"}, ["local_view", "crop"]),
        ({"num_video_query_tokens": 0}, ["num_video_query_tokens", "0"]),
        ({"max_frames": -3}, ["max_frames", "-3"]),
        ({"max_frames": "many"}, ["max_frames", "many"]),
        ({"window_size": 0}, ["window_size", "0"]),
        ({"local_clue_num_attention_heads": 7}, ["local clue attention", "1408", "7"]),
        ({"vision_config": {"hidden_size": 100, "num_attention_heads": 3}}, ["vision_config", "100", "3"]),
        ({"vision_config": {"image_size": 225}}, ["vision_config", "225", "14"]),
        ({"audio_config": {"hidden_size": 100, "num_attention_heads": 3}}, ["audio_config", "100", "3"]),
        ({"windows": "none", "use_global_window": False}, ["windows", "none", "use_global_window"]),
        ({"keep_timestamp_tokens": True, "use_frame_timestamps": False}, ["keep_timestamp_tokens"]),
        ({"video_token_id": 5, "audio_token_id": 5}, ["video_token_id", "5"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_validation_names_the_value(fields, words):
    with pytest.raises((ValueError, StrictDataclassError)) as error:
        MicroEmoConfig(**fields)
    message = f"{error.value} {error.value.__cause__}"
    assert all(word in message for word in words), message


def test_unknown_preset_lists_those_that_are():
    with pytest.raises(
        ValueError, match=r"'microemo-9b'.*microemo-7b, microemo-modern, microemo-small, microemo-tiny"
    ):
        MicroEmoConfig.from_preset("microemo-9b")
