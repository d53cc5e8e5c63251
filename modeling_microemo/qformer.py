"""The Q-Formers: learned queries that read a sequence (of patches, of frame tokens, of segments of sound)."""

import dataclasses
from typing import Any

from transformers import PreTrainedModel
from transformers.models.blip_2.modeling_blip_2 import Blip2QFormerModel
from transformers.models.instructblipvideo.modeling_instructblipvideo import InstructBlipVideoQFormerModel

from ..configuration.configuration_microemo import MicroEmoImageQFormerConfig, MicroEmoVideoQFormerConfig


class MaskedQFormerMixin(PreTrainedModel):
    """Keeps a Q-Former on attention functions that take masks, whatever the language model runs on."""

    def _check_and_adjust_attn_implementation(
        self, attn_implementation: str | None, *args: Any, **kwargs: Any
    ) -> str | None:
        return super()._check_and_adjust_attn_implementation(takes_masks(attn_implementation), *args, **kwargs)

    def get_correct_attn_implementation(
        self, requested_attention: str | None, *args: Any, **kwargs: Any
    ) -> str | None:
        """Returns the attention implementation that the Q-Former runs on.

        Args:
            requested_attention (`str`): The implementation that is asked for, or `None`.
            args (`Any`): What Transformers' own method takes.
            kwargs (`Any`, *optional*): What Transformers' own method takes.

        Returns:
            `str`: `"eager"` where it is asked for, else `"sdpa"`.
        """
        return super().get_correct_attn_implementation(takes_masks(requested_attention), *args, **kwargs)


def takes_masks(attn_implementation: str | None) -> str:
    """Returns the implementation itself where it takes any mask, else SDPA.

    Args:
        attn_implementation (`str`): The implementation that is asked for, or `None`.

    Returns:
        `str`: `"eager"` or `"sdpa"`.

    Example:

    ```python
    >>> from microemo.modeling_microemo.qformer import takes_masks

    >>> takes_masks("flash_attention_2")
    'sdpa'
    ```"""
    return "eager" if attn_implementation == "eager" else "sdpa"


def _recorded_outputs(qformer_class: type[PreTrainedModel]) -> dict[str, Any]:
    """What a Q-Former of Transformers records, its self-attention apart: the library's pattern for it also matches the
    layers of cross-attention (`crossattention.attention`), and `attentions` would hold both."""
    recorded = dict(qformer_class._can_record_outputs)
    recorded["attentions"] = [
        dataclasses.replace(recorder, layer_name="attention.attention") for recorder in recorded["attentions"]
    ]
    return recorded


class MicroEmoImageQFormer(MaskedQFormerMixin, InstructBlipVideoQFormerModel):
    """The image Q-Former, which reads a timestamp beside the frame."""

    config: MicroEmoImageQFormerConfig
    _can_record_outputs = _recorded_outputs(InstructBlipVideoQFormerModel)


class MicroEmoQFormer(MaskedQFormerMixin, Blip2QFormerModel):
    """A Q-Former without text: of the video, of the sound, or of frames without timestamps."""

    config: MicroEmoVideoQFormerConfig
    _can_record_outputs = _recorded_outputs(Blip2QFormerModel)
