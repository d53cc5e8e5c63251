"""Generation: the media are encoded once for each prompt, and the steps after it read tokens alone."""

import dataclasses
from typing import Any

import torch
from transformers import GenerationConfig, GenerationMixin
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.integrations.fsdp import is_fsdp_managed_module
from transformers.modeling_outputs import BaseModelOutputWithPast, BaseModelOutputWithPooling, ModelOutput

from .media_inputs import MEDIA_INPUTS, MediaEncodings, refuse_both
from .shared_prefix import BranchedLayer, can_branch, find_shared_prefixes

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
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Prepares the inputs of a forward pass as Transformers does; the media go with every pass that reads the
        prompt. An assistant's first pass is no first iteration of `generate`, though its cache is empty.

        Args:
            input_ids (`torch.LongTensor` of shape `(B, S)`): The tokens so far.
            mm_encoder_outputs (`dict[str, BaseModelOutputWithPooling]`, *optional*):
                What [`~MicroEmoModel.encode_media`] returned.
            inputs_embeds (`torch.Tensor` of shape `(B, S, width)`, *optional*): The embedded prompts.
            kwargs (`Any`, *optional*): What Transformers' own method takes.

        Returns:
            `dict[str, Any]`: The keywords of [`~MicroEmoForConditionalGeneration.forward`].
        """
        for name in ("tokenizer", "assistant_tokenizer"):  # which `generate` reads, for `stop_strings`, and hands on
            kwargs.pop(name, None)
        inputs = super().prepare_inputs_for_generation(
            input_ids, mm_encoder_outputs=mm_encoder_outputs, inputs_embeds=inputs_embeds, **kwargs
        )
        cache = kwargs.get(CACHE_NAME)
        if mm_encoder_outputs is None:
            return inputs
        if cache is None or cache.get_seq_length() == 0:
            inputs["mm_encoder_outputs"] = mm_encoder_outputs
        elif inputs.get("mm_encoder_outputs") and inputs["input_ids"] is not None:
            inputs["mm_encoder_outputs"] = self._without_cached_media(
                mm_encoder_outputs, input_ids, inputs["input_ids"].shape[1]
            )
        return inputs

    def _without_cached_media(
        self, encodings: dict[str, BaseModelOutputWithPooling], input_ids: torch.LongTensor, num_new_tokens: int
    ) -> dict[str, BaseModelOutputWithPooling]:
        """The tokens of media whose placeholders stand in the last `num_new_tokens` of each prompt. A conversation that
        goes on with its cache may bring the media of all its turns again."""
        remaining = {}
        for modality, output in encodings.items():
            placeholders = input_ids == getattr(self.config, f"{modality}_token_id")
            counts = zip(placeholders.sum(1).tolist(), placeholders[:, -num_new_tokens:].sum(1).tolist(), strict=True)
            rows = [
                row[total - new :] if len(row) == total else row
                for row, (total, new) in zip(output.pooler_output, counts, strict=True)
            ]
            remaining[modality] = BaseModelOutputWithPooling(pooler_output=rows)
        return remaining

    def _prefill(
        self,
        input_ids: torch.LongTensor,
        generation_config: GenerationConfig,
        model_kwargs: dict[str, Any],
        **kwargs: Any,
    ) -> ModelOutput:
        """As Transformers reads prompts into the cache, and what several of them begin with is read once: the questions
        about one clip, beams, several answers to a question."""
        cache, attention_mask = model_kwargs.get(CACHE_NAME), model_kwargs.get("attention_mask")
        if not (
            len(input_ids) > 1
            and can_branch(cache)
            and model_kwargs.get("inputs_embeds") is None
            and (attention_mask is None or attention_mask.ndim == 2)
            and generation_config.prefill_chunk_size is None
            # Who asks for them expects those of the whole prompt.
            and not (generation_config.output_hidden_states or generation_config.output_attentions)
            # Parallel processes must run equally many forward passes.
            and not (is_deepspeed_zero3_enabled() or is_fsdp_managed_module(self))
        ):
            return super()._prefill(input_ids, generation_config, model_kwargs, **kwargs)

        inputs = self.prepare_inputs_for_generation(input_ids, is_first_iteration=True, **model_kwargs)
        for name in ("input_ids", "mm_encoder_outputs", "token_type_ids", "mm_token_type_ids"):
            inputs.pop(name, None)
        inputs_embeds = self.model.embed_prompts(input_ids, model_kwargs.get("mm_encoder_outputs"))
        if attention_mask is None:  # which is dropped where nothing is padded
            attention_mask = torch.ones_like(input_ids)
        shared = find_shared_prefixes(inputs_embeds, attention_mask)
        if shared is None:
            return self(**inputs, inputs_embeds=inputs_embeds, return_dict=True)

        # The layout holds for all later steps: their mask grows from this one.
        model_kwargs["attention_mask"] = shared.attention_mask
        position_ids = (shared.attention_mask.cumsum(dim=1) - 1).clamp(min=0)
        num_columns = shared.prefix_mask.shape[1]
        inputs |= {
            "inputs_embeds": shared.prefix_embeds,
            "attention_mask": shared.prefix_mask,
            "position_ids": (shared.prefix_mask.cumsum(dim=1) - 1).clamp(min=0),
        }
        cache = self(**inputs, return_dict=True)[CACHE_NAME]
        cache.layers = [BranchedLayer(layer, shared.group) for layer in cache.layers]
        inputs |= {
            "inputs_embeds": shared.suffix_embeds,
            "attention_mask": shared.attention_mask,
            "position_ids": position_ids[:, num_columns:],
            CACHE_NAME: cache,
        }
        return self(**inputs, return_dict=True)

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
