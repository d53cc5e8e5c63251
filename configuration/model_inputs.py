"""The list of the tensors that pass from the processor to the model."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelInput:
    """Describes one input of the model.

    Attributes:
        modality (`str`): `"text"`, `"video"` or `"audio"`; `"media"` if it belongs to both video and audio.
        axis (`str`):
            What its second dimension counts, after the clips (or the rows of text): `"token"`, `"frame"`, `"segment"`,
            `"step"`, `"window"` or `"citation"`; `"row"` for an input of one dimension.
        computed_from (`str`, *optional*):
            The input that it replaces, if it holds precomputed features, which the processor does not make.
    """

    modality: str
    axis: str
    computed_from: str | None = None


MODEL_INPUTS: dict[str, ModelInput] = {
    "input_ids": ModelInput("text", "token"),
    "attention_mask": ModelInput("text", "token"),
    "pixel_values_videos": ModelInput("video", "frame"),
    "frame_mask": ModelInput("video", "frame"),
    "region_masks": ModelInput("video", "frame"),
    "pixel_values_faces": ModelInput("video", "frame"),
    "qformer_input_ids": ModelInput("video", "frame"),
    "qformer_attention_mask": ModelInput("video", "frame"),
    "utterance_windows": ModelInput("video", "window"),
    "input_features": ModelInput("audio", "segment"),
    "audio_segment_mask": ModelInput("audio", "segment"),
    "audio_step_mask": ModelInput("audio", "step"),
    "audio_windows": ModelInput("audio", "window"),
    "cited_utterances": ModelInput("media", "citation"),
    "clip_index": ModelInput("media", "row"),
    "vision_features": ModelInput("video", "frame", computed_from="pixel_values_videos"),
    "face_features": ModelInput("video", "frame", computed_from="pixel_values_faces"),
    "frame_tokens": ModelInput("video", "frame", computed_from="pixel_values_videos"),
    "audio_features": ModelInput("audio", "step", computed_from="input_features"),
}


def inputs_of(*modalities: str, axis: str | None = None) -> tuple[str, ...]:
    """Lists the names of the inputs of some modalities, in order.

    Args:
        modalities (`str`): The modalities: `"text"`, `"video"`, `"audio"` or `"media"`.
        axis (`str`, *optional*): What the second dimension of the inputs counts. By default any.

    Returns:
        `tuple[str, ...]`: The names.

    Example:

    ```python
    >>> from microemo.configuration.model_inputs import inputs_of

    >>> inputs_of("audio", axis="segment")
    ('input_features', 'audio_segment_mask')
    ```"""
    return tuple(
        name
        for name, model_input in MODEL_INPUTS.items()
        if model_input.modality in modalities and (axis is None or model_input.axis == axis)
    )
