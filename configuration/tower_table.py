"""The table of encoders that MicroEmo can have as its towers: how their patches and steps are read, by `model_type`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# Every audio tower of the table hears sound at this number of samples per second.
SAMPLING_RATE = 16_000


@dataclass(frozen=True)
class VisionRow:
    """Describes an image encoder of Transformers.

    Attributes:
        class_tokens (`int`):
            The number of tokens before all others that saw the whole picture. The global view keeps them, as that of
            EVA-CLIP does in the paper.
        registers (`str`, *optional*):
            The field of its configuration with the number of register tokens behind the class token, which are cut.
    """

    class_tokens: int = 0
    registers: str | None = None

    def num_registers(self, config: Any) -> int:
        """Returns the number of tokens between the class token and the patches.

        Args:
            config (`PreTrainedConfig`): The configuration of the encoder.

        Returns:
            `int`: The number.
        """
        return getattr(config, self.registers) if self.registers else 0


@dataclass(frozen=True)
class AudioRow:
    """Describes an audio encoder of Transformers.

    A *segment* is the sound that it encodes at once, a *step* one of the feature vectors that it makes of it.

    Attributes:
        width (`Callable`): The width of its steps, from its configuration.
        num_layers (`Callable`): The number of its layers, from its configuration.
        segment_samples (`Callable`): The number of samples of a segment at 16 kHz, from its configuration.
        num_steps (`Callable`): The number of steps of a segment, from its configuration.
        extractor (`Callable`, *optional*):
            The fields of Transformers' feature extractor for it, from its configuration. Without it the sound becomes
            the log-mel segments of ImageBind.
        encoder (`str`, *optional*):
            The class of the encoder alone, where the class of `AutoModel` has a decoder, too.
        saved_as (`tuple[str, ...]`): What stands before the names of its weights in checkpoints of larger models.
    """

    width: Callable[[Any], int]
    num_layers: Callable[[Any], int]
    segment_samples: Callable[[Any], int]
    num_steps: Callable[[Any], int]
    extractor: Callable[[Any], dict[str, Any]] | None = None
    encoder: str | None = None
    saved_as: tuple[str, ...] = ()


VISION_TOWERS: dict[str, VisionRow] = {
    "microemo_vision": VisionRow(class_tokens=1),  # EVA-CLIP, the paper's
}
AUDIO_TOWERS: dict[str, AudioRow] = {
    "microemo_audio": AudioRow(  # ImageBind, the paper's
        width=lambda config: config.projection_dim,
        num_layers=lambda config: config.num_hidden_layers,
        segment_samples=lambda config: int(config.segment_duration * SAMPLING_RATE),
        num_steps=lambda config: 1,
    ),
    "whisper": AudioRow(
        width=lambda config: config.d_model,
        num_layers=lambda config: config.encoder_layers,
        # A mel frame every 10 ms, of which the second convolution takes two.
        segment_samples=lambda config: config.max_source_positions * 2 * SAMPLING_RATE // 100,
        num_steps=lambda config: config.max_source_positions,
        extractor=lambda config: {
            "feature_extractor_type": "WhisperFeatureExtractor",
            "feature_size": config.num_mel_bins,
        },
        encoder="WhisperEncoder",
        saved_as=("model.encoder.", "encoder."),
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
