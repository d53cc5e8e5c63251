"""What a processor and its model must agree on: sizes, and the switches that change the number of placeholders."""

from typing import TYPE_CHECKING, Any

from ..configuration.configuration_microemo import MicroEmoConfig
from ..configuration.tower_table import SAMPLING_RATE, audio_row, vision_row
from .faces.face_regions import find_regions
from .feature_extraction_microemo import MicroEmoFeatureExtractor
from .video_processing_microemo import MicroEmoVideoProcessor

if TYPE_CHECKING:
    from .processing_microemo import MicroEmoProcessor

# By one name in both.
SWITCHES = (
    *("num_query_tokens", "num_video_query_tokens", "num_audio_query_tokens"),
    *("windows", "window_size", "window_stride", "window_unit"),
    *("use_global_window", "use_utterance_audio", "use_frame_timestamps"),
)


def arguments_from_model(config: MicroEmoConfig) -> dict[str, Any]:
    """Makes the arguments of the processor that fits a model, apart from the tokenizers.

    Args:
        config ([`MicroEmoConfig`]): The configuration of the model.

    Returns:
        `dict[str, Any]`: The switches, `video_processor` and `feature_extractor`.
    """
    side = config.image_size
    mean, std = vision_row(config.vision_config).statistics
    return {
        "video_processor": MicroEmoVideoProcessor(
            num_frames=min(MicroEmoVideoProcessor.num_frames, config.max_frames),
            size={"height": side, "width": side},
            patch_size=config.vision_config.patch_size,
            local_view=config.local_view,
            clue_regions="whole_face" if config.num_regions == 1 else "facial",
            max_frames=config.max_frames,
            image_mean=list(mean),
            image_std=list(std),
        ),
        "feature_extractor": MicroEmoFeatureExtractor(**sound_fields(config)),
        **{name: getattr(config, name) for name in SWITCHES},
    }


def sound_fields(config: MicroEmoConfig, extractor: dict[str, Any] | None = None) -> dict[str, Any]:
    """Makes the fields of the feature extractor that fits a model.

    Args:
        config ([`MicroEmoConfig`]): The configuration of the model.
        extractor (`dict`, *optional*):
            The fields of the audio tower's own feature extractor, by default those that follow from its configuration.

    Returns:
        `dict[str, Any]`: The fields of [`MicroEmoFeatureExtractor`].
    """
    sound, row = config.audio_config, audio_row(config.audio_config)
    fields = {
        "num_segments": config.max_audio_segments,
        "segment_duration": row.segment_samples(sound) / SAMPLING_RATE,
    }
    if row.extractor is None:
        return fields | {
            "segment_duration": sound.segment_duration,
            "num_mel_bins": sound.num_mel_bins,
            "num_mel_frames": sound.num_mel_frames,
        }
    return fields | {
        "steps_per_segment": config.audio_steps_per_segment,
        "tail_samples": row.tail_samples(sound) if row.tail_samples else 0,
        "tower_extractor": extractor or row.extractor_fields(sound),
    }


def differences_from_model(processor: "MicroEmoProcessor", config: MicroEmoConfig) -> list[str]:
    """Names what a processor and a model do not agree on.

    Args:
        processor ([`MicroEmoProcessor`]): The processor.
        config ([`MicroEmoConfig`]): The configuration of the model.

    Returns:
        `list[str]`: A sentence for each field that differs, with both values.
    """
    vision, video_processor = config.vision_config, processor.video_processor
    feature_extractor = processor.feature_extractor
    pairs = {name: (getattr(processor, name), getattr(config, name)) for name in SWITCHES}
    if config.windows != "sliding":
        pairs = {name: pair for name, pair in pairs.items() if not name.startswith("window_")}
    if config.use_local_clue_attention:
        pairs["local_view"] = (video_processor.local_view, config.local_view)
        pairs["num_regions"] = (len(find_regions(video_processor.clue_regions)), config.num_regions)
    pairs["size"] = (video_processor.size["height"], config.image_size)
    pairs["patch_size"] = (video_processor.patch_size, vision.patch_size)
    sound = sound_fields(config)
    for name in ("segment_duration", "num_mel_frames", "steps_per_segment", "tail_samples"):
        if name in sound:
            pairs[name] = (getattr(feature_extractor, name), sound[name])
    extractors = (feature_extractor.tower_extractor, sound.get("tower_extractor"))
    ours, its = ((fields or {}).get("feature_extractor_type") for fields in extractors)
    pairs["feature_extractor_type"] = (ours, its)
    pairs["video_token_id"] = (processor.video_token_id, config.video_token_id)
    pairs["audio_token_id"] = (processor.audio_token_id, config.audio_token_id)
    wrong = [f"{name} is {ours!r}, the model's {its!r}" for name, (ours, its) in pairs.items() if ours != its]
    if video_processor.max_frames > config.max_frames:
        wrong.append(f"max_frames is {video_processor.max_frames}, the model has {config.max_frames} positions")
    return wrong
