"""The Q-Formers: learned queries that read a sequence (of patches, of frame tokens, of segments of sound)."""

from transformers.models.blip_2.modeling_blip_2 import Blip2QFormerModel
from transformers.models.instructblipvideo.modeling_instructblipvideo import InstructBlipVideoQFormerModel

from ..configuration.configuration_microemo import MicroEmoImageQFormerConfig, MicroEmoVideoQFormerConfig


class MaskedQFormerMixin:
    """Keeps a Q-Former on attention kernels that take masks, whatever the language model runs on."""

    def _check_and_adjust_attn_implementation(self, attn_implementation, *args, **kwargs):
        return super()._check_and_adjust_attn_implementation(takes_masks(attn_implementation), *args, **kwargs)

    def get_correct_attn_implementation(self, requested_attention, *args, **kwargs):
        return super().get_correct_attn_implementation(takes_masks(requested_attention), *args, **kwargs)


def takes_masks(attn_implementation: str | None) -> str:
    """The implementation itself where it takes any mask, else SDPA."""
    return "eager" if attn_implementation == "eager" else "sdpa"


class MicroEmoImageQFormer(MaskedQFormerMixin, InstructBlipVideoQFormerModel):
    """The image Q-Former that reads a timestamp beside the frame."""

    config: MicroEmoImageQFormerConfig


class MicroEmoQFormer(MaskedQFormerMixin, Blip2QFormerModel):
    """A Q-Former without text: of the video, of the sound, or of frames without timestamps."""

    config: MicroEmoVideoQFormerConfig
