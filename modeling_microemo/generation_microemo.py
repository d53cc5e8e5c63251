"""Generation: the media are encoded once for each prompt, and the steps after it read tokens alone."""

import dataclasses
from typing import Any

import torch
from transformers import GenerationMixin
from transformers.modeling_outputs import BaseModelOutputWithPast, BaseModelOutputWithPooling

from .media_inputs import MEDIA_INPUTS, MediaEncodings, refuse_both

# Transformers 5.24 calls the key-value cache `cache` in keywords and outputs, and warns about the name before.
CACHE_NAME = next(
    field.name for field in dataclasses.fields(BaseModelOutputWithPast) if field.name in ("cache", "past_key_values")
)


class MicroEmoGenerationMixin(GenerationMixin):
    """What [`MicroEmoForConditionalGeneration`] changes in Transformers' `generate`: the media are encoded once, before
    beams are copied and whatever the cache. Transformers' own steps know images and videos only."""

    def _prepare_multimodal_encoder_kwargs_for_generation(self, model_kwargs: dict[str, Any]) -> dict[str, Any]:
        media = {name: model_kwargs.pop(name) for name in MEDIA_INPUTS if name in model_kwargs}
        encodings = model_kwargs.get("mm_encoder_outputs")
        if encodings is None:
            model_kwargs["mm_encoder_outputs"] = self.model.encode_media(**media)
        else:
            refuse_both(encodings, media)
            if isinstance(encodings, MediaEncodings):
                model_kwargs["mm_encoder_outputs"] = encodings.of(self.model)
        return model_kwargs

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.LongTensor,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Prepares the inputs of a forward pass as Transformers does; the media go with every pass that reads the
        prompt. An assistant's first pass is no first iteration of `generate`, though its cache is empty.

        Args:
            input_ids (`torch.LongTensor` of shape `(B, S)`): The tokens so far.
            mm_encoder_outputs (`dict[str, BaseModelOutputWithPooling]`, *optional*):
                What [`~MicroEmoModel.encode_media`] returned.
            kwargs (`Any`, *optional*): What Transformers' own method takes.

        Returns:
            `dict[str, Any]`: The keywords of [`~MicroEmoForConditionalGeneration.forward`].
        """
        inputs = super().prepare_inputs_for_generation(input_ids, mm_encoder_outputs=mm_encoder_outputs, **kwargs)
        cache = kwargs.get(CACHE_NAME)
        if mm_encoder_outputs is not None and (cache is None or cache.get_seq_length() == 0):
            inputs["mm_encoder_outputs"] = mm_encoder_outputs
        return inputs

    def _expand_multimodal_outputs(
        self,
        input_ids: torch.LongTensor,
        mm_encoder_output: dict[str, BaseModelOutputWithPooling],
        expand_size: int = 1,
        inputs_embeds: torch.Tensor | None = None,
    ) -> dict[str, BaseModelOutputWithPooling]:
        if expand_size == 1:
            return mm_encoder_output
        return {
            modality: BaseModelOutputWithPooling(
                pooler_output=[row for row in output.pooler_output for _ in range(expand_size)]
            )
            for modality, output in mm_encoder_output.items()
        }
