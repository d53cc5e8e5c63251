"""The inputs of the model by modality, and what one model made of them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ..configuration.model_inputs import inputs_of

if TYPE_CHECKING:
    from .media_encoder import MediaEncoderMixin

VIDEO_INPUTS = inputs_of("video", "media")
AUDIO_INPUTS = inputs_of("audio", "media")
MEDIA_INPUTS = inputs_of("video", "audio", "media")
# Of the text half of a batch, and of the loss.
TEXT_INPUTS = (*inputs_of("text"), "labels", "token_type_ids", "mm_token_type_ids")
LOSS_KEYWORDS = ("shift_labels", "ignore_index")
# The media inputs of other models by the name of ours.
OTHER_NAMES = {
    "pixel_values": "pixel_values_videos",
    "videos": "pixel_values_videos",
    "images": "pixel_values_videos",
    "pixel_mask": "frame_mask",
    "input_values": "input_features",
    "audio_clip_mask": "audio_segment_mask",
    "input_features_mask": "audio_segment_mask",
    "feature_attention_mask": "audio_segment_mask",
}


class MediaEncodings(dict):
    """The features of a batch's media by modality, as one model encoded them, and what they were made from.

    Args:
        encodings (`Mapping[str, BaseModelOutputWithPooling]`): The outputs by modality, `"video"` and `"audio"`.
        media (`dict[str, torch.Tensor]`, *optional*):
            The media inputs. An assistant in speculative decoding is handed the main model's encodings and cannot use
            them, as its own language model may be of another width; it encodes these.
        model (`MicroEmoModel`, *optional*): The model whose encodings they are.
    """

    def __init__(
        self,
        encodings: Mapping[str, BaseModelOutputWithPooling],
        media: dict[str, torch.Tensor] | None = None,
        model: "MediaEncoderMixin | None" = None,
    ):
        super().__init__(encodings)
        self.media = media
        self._by_model = {id(model): self}

    def of(self, model: "MediaEncoderMixin") -> "MediaEncodings":
        """Returns the encodings that a model can read: these, or where another model made them, what `model` makes of
        the same media, once.

        Args:
            model (`MicroEmoModel`): The model that is to read them.

        Returns:
            `MediaEncodings`: The encodings.
        """
        if self.media and id(model) not in self._by_model:
            self._by_model[id(model)] = model.encode_media(**self.media)
        return self._by_model.get(id(model), self)


def refuse_both(
    encodings: Mapping[str, BaseModelOutputWithPooling] | None, media: Mapping[str, torch.Tensor | None]
) -> None:
    """Raises an error if a call has encoded media and media to encode.

    Args:
        encodings (`Mapping[str, BaseModelOutputWithPooling]`): What `mm_encoder_outputs` is in the call, or `None`.
        media (`Mapping[str, torch.Tensor | None]`): The media inputs of the call.

    Raises:
        ValueError: If there are both. The message names the inputs.
    """
    given = [name for name, value in media.items() if value is not None]
    if encodings and given:
        raise ValueError(
            f"mm_encoder_outputs stands in place of media inputs; the call has both, and {', '.join(given)}"
        )
