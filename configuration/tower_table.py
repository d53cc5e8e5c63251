"""The table of encoders that MicroEmo can have as its towers: how their patches and steps are read, by `model_type`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# Every audio tower of the table hears sound at this number of samples per second, and sees a mel frame every 10 ms.
SAMPLING_RATE = 16_000
MEL_FRAME = SAMPLING_RATE // 100
# The longest sound that is encoded at once, in seconds, where the encoder itself sets no length.
LONGEST_WAVEFORM, LONGEST_MEL = 20, 30

CLIP_STATISTICS = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
IMAGENET_STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF_STATISTICS = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass(frozen=True)
class VisionRow:
    """Describes an image encoder of Transformers.

    Attributes:
        statistics (`tuple`): The mean and the standard deviation of each channel of the pictures that it was trained on.
        class_tokens (`int`):
            The number of tokens before all others that saw the whole picture. The global view keeps them, as that of
            EVA-CLIP does in the paper.
        registers (`str`, *optional*):
            The field of its configuration with the number of register tokens behind the class token, which are cut.
        any_size (`bool`): Whether it fits its positions to pictures of another size than that of its configuration.
        is_packed (`bool`): Whether it takes patches `(pictures, P, pixels)` in place of pictures.
    """

    statistics: tuple[tuple[float, ...], tuple[float, ...]]
    class_tokens: int = 0
    registers: str | None = None
    any_size: bool = False
    is_packed: bool = False

    def num_registers(self, config: Any) -> int:
        """Returns the number of tokens between the class token and the patches.

        Args:
            config (`PreTrainedConfig`): The configuration of the encoder.

        Returns:
            `int`: The number.
        """
        return getattr(config, self.registers) if self.registers else 0

    def image_size(self, config: Any) -> int:
        """Returns the side of the pictures that the encoder was trained on, in whole patches: of SigLIP's 384 pixels and
        patches of 14 the last six pixels are in no patch.

        Args:
            config (`PreTrainedConfig`): The configuration of the encoder.

        Returns:
            `int`: The side in pixels.
        """
        if self.is_packed:
            return round(config.num_patches**0.5) * config.patch_size
        return config.image_size // config.patch_size * config.patch_size


@dataclass(frozen=True)
class AudioRow:
    """Describes an audio encoder of Transformers.

    A *segment* is the sound that it encodes at once, a *step* one of the feature vectors that it makes of it.

    Attributes:
        reads (`str`):
            How it is given segments: `"pooled"` (one step is its `pooler_output`), `"waveform"`, or a name of `INPUTS` in
            `modeling_microemo/towers.py` (`"whole"`, `"masked"`, `"packed"`, `"chunked"`).
        segment_samples (`Callable`): The number of samples of a segment at 16 kHz, from its configuration.
        num_steps (`Callable`): The number of steps of a segment, from its configuration.
        output_width (`str`): The field of its configuration with the width of its last hidden state.
        extractor (`str`, *optional*):
            The class in Transformers of its feature extractor. Without it the sound becomes the log-mel segments of
            ImageBind.
        tail_samples (`Callable`, *optional*):
            The number of samples behind a segment that its last step hears, from its configuration.
        encoder (`str`, *optional*):
            The class of the encoder alone, where `AutoModel` has none, or one with a decoder.
        saved_as (`tuple[str, ...]`): What stands before the names of its weights in checkpoints of larger models.
    """

    reads: str
    segment_samples: Callable[[Any], int]
    num_steps: Callable[[Any], int]
    output_width: str = "hidden_size"
    extractor: str | None = None
    tail_samples: Callable[[Any], int] | None = None
    encoder: str | None = None
    saved_as: tuple[str, ...] = ()

    def width(self, config: Any, is_last: bool = True) -> int:
        """Returns the width of a step.

        Args:
            config (`PreTrainedConfig`): The configuration of the encoder.
            is_last (`bool`, *optional*, defaults to `True`): Whether the last hidden state is read.

        Returns:
            `int`: The width.
        """
        field = self.output_width if is_last else "hidden_size"
        return getattr(config, field) if hasattr(config, field) else config.d_model

    def extractor_fields(self, config: Any) -> dict[str, Any]:
        """Returns the fields of the encoder's feature extractor that follow from its configuration.

        Args:
            config (`PreTrainedConfig`): The configuration of the encoder.

        Returns:
            `dict[str, Any]`: The fields, with its class as `feature_extractor_type`.
        """
        fields: dict[str, Any] = {"feature_extractor_type": self.extractor}
        if hasattr(config, "num_mel_bins"):
            fields["feature_size"] = config.num_mel_bins
        return fields


def _waveform_stride(config: Any) -> int:
    stride = 1
    for factor in config.conv_stride:
        stride *= factor
    return stride


def _waveform_tail(config: Any) -> int:
    """What a step of a stack of convolutions hears beyond its stride."""
    reach = stride = 1
    for kernel, factor in zip(config.conv_kernel, config.conv_stride, strict=True):
        reach += (kernel - 1) * stride
        stride *= factor
    return reach - stride


def _chunks(config: Any) -> int:
    """How many chunks of 2 * n_window mel frames, which the convolutions of Qwen3's encoders see alone, fill a segment."""
    return LONGEST_MEL * SAMPLING_RATE // MEL_FRAME // (2 * config.n_window)


_WAVEFORM = AudioRow(
    reads="waveform",
    segment_samples=lambda config: (
        LONGEST_WAVEFORM * SAMPLING_RATE // _waveform_stride(config) * _waveform_stride(config)
    ),
    num_steps=lambda config: LONGEST_WAVEFORM * SAMPLING_RATE // _waveform_stride(config),
    extractor="Wav2Vec2FeatureExtractor",
    tail_samples=_waveform_tail,
)

VISION_TOWERS: dict[str, VisionRow] = {
    "microemo_vision": VisionRow(CLIP_STATISTICS, class_tokens=1),  # EVA-CLIP, the paper's
    "clip_vision_model": VisionRow(CLIP_STATISTICS, class_tokens=1),
    "siglip_vision_model": VisionRow(HALF_STATISTICS),  # and SigLIP 2 of a fixed size
    "siglip2_vision_model": VisionRow(HALF_STATISTICS, any_size=True, is_packed=True),  # NaFlex
    "dinov2": VisionRow(IMAGENET_STATISTICS, class_tokens=1, any_size=True),
    "dinov2_with_registers": VisionRow(
        IMAGENET_STATISTICS, class_tokens=1, registers="num_register_tokens", any_size=True
    ),
    "dinov3_vit": VisionRow(IMAGENET_STATISTICS, class_tokens=1, registers="num_register_tokens", any_size=True),
}
AUDIO_TOWERS: dict[str, AudioRow] = {
    "microemo_audio": AudioRow(  # ImageBind, the paper's
        reads="pooled",
        segment_samples=lambda config: int(config.segment_duration * SAMPLING_RATE),
        num_steps=lambda config: 1,
        output_width="projection_dim",
    ),
    "whisper": AudioRow(
        reads="whole",
        segment_samples=lambda config: config.max_source_positions * 2 * MEL_FRAME,
        num_steps=lambda config: config.max_source_positions,
        extractor="WhisperFeatureExtractor",
        encoder="WhisperEncoder",
        saved_as=("model.encoder.", "encoder."),
    ),
    "hubert": _WAVEFORM,
    "wavlm": _WAVEFORM,
    "wav2vec2": _WAVEFORM,
    "qwen2_audio_encoder": AudioRow(
        reads="masked",
        segment_samples=lambda config: config.max_source_positions * 2 * MEL_FRAME,
        num_steps=lambda config: config.max_source_positions // 2,
        extractor="WhisperFeatureExtractor",
        saved_as=("model.audio_tower.", "audio_tower."),
    ),
    "qwen2_5_omni_audio_encoder": AudioRow(
        reads="packed",
        segment_samples=lambda config: config.max_source_positions * 2 * MEL_FRAME,
        num_steps=lambda config: config.max_source_positions // 2,
        output_width="output_dim",
        extractor="WhisperFeatureExtractor",
        encoder="Qwen2_5OmniAudioEncoder",
        saved_as=("thinker.audio_tower.", "audio_tower."),
    ),
    "qwen3_omni_moe_audio_encoder": AudioRow(
        reads="packed",
        segment_samples=lambda config: _chunks(config) * 2 * config.n_window * MEL_FRAME,
        num_steps=lambda config: _chunks(config) * -(-2 * config.n_window // 8),
        output_width="output_dim",
        extractor="WhisperFeatureExtractor",
        encoder="Qwen3OmniMoeAudioEncoder",
        saved_as=("thinker.audio_tower.", "audio_tower."),
    ),
    "qwen3_asr_encoder": AudioRow(
        reads="chunked",
        segment_samples=lambda config: _chunks(config) * 2 * config.n_window * MEL_FRAME,
        num_steps=lambda config: _chunks(config) * -(-2 * config.n_window // 8),
        extractor="Qwen3ASRFeatureExtractor",
        saved_as=("model.audio_tower.", "audio_tower."),
    ),
}


def vision_row(config: Any) -> VisionRow:
    """Finds the row of an image encoder.

    Args:
        config (`PreTrainedConfig`): The configuration of the encoder.

    Returns:
        [`VisionRow`]: The row.

    Raises:
        ValueError: if there is none. The message lists the model types that have one.
    """
    return _row(VISION_TOWERS, config, "vision_config")


def audio_row(config: Any) -> AudioRow:
    """Finds the row of an audio encoder.

    Args:
        config (`PreTrainedConfig`): The configuration of the encoder.

    Returns:
        [`AudioRow`]: The row.

    Raises:
        ValueError: if there is none. The message lists the model types that have one.
    """
    return _row(AUDIO_TOWERS, config, "audio_config")


def _row(table: dict[str, Any], config: Any, part: str) -> Any:
    if config.model_type not in table:
        raise ValueError(
            f"{part}: MicroEmo cannot read the features of model_type {config.model_type!r}; "
            f"it can those of {', '.join(table)}"
        )
    return table[config.model_type]
