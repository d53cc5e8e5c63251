"""The inputs of the model by modality, and what one model made of them."""

from typing import TYPE_CHECKING

from ..configuration.model_inputs import inputs_of

if TYPE_CHECKING:
    from .modeling_microemo import MicroEmoModel

VIDEO_INPUTS = inputs_of("video", "media")
AUDIO_INPUTS = inputs_of("audio", "media")
MEDIA_INPUTS = frozenset(inputs_of("video", "audio", "media"))
# Of the text half of a batch, and of the loss.
TEXT_INPUTS = frozenset((*inputs_of("text"), "labels", "token_type_ids", "mm_token_type_ids"))
LOSS_KEYWORDS = frozenset(("shift_labels", "ignore_index"))
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
        encodings (`dict[str, BaseModelOutputWithPooling]`): By modality, `"video"` and `"audio"`.
        media (`dict[str, torch.Tensor]`, *optional*):
            The media inputs. An assistant in speculative decoding is handed the main model's encodings and cannot use
            them, as its own language model may be of another width; it encodes these.
        model (`MicroEmoModel`, *optional*): The model whose encodings they are.
    """

    def __init__(self, encodings=(), media=None, model=None):
        super().__init__(encodings)
        self.media = media
        self._by_model = {id(model): self}

    def of(self, model: "MicroEmoModel") -> "MediaEncodings":
        """These, or where another model made them, what `model` makes of the same media, once."""
        if self.media and id(model) not in self._by_model:
            self._by_model[id(model)] = model.encode_media(**self.media)
        return self._by_model.get(id(model), self)
