"""The encoders of frames and of sound: those of the paper (EVA-CLIP's and ImageBind's), and how any of them is read."""

import importlib
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import MODEL_MAPPING, AutoModel, PreTrainedConfig
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel
from transformers.models.blip_2.modeling_blip_2 import eager_attention_forward
from transformers.models.instructblipvideo.modeling_instructblipvideo import InstructBlipVideoVisionModel
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, auto_docstring
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from ..configuration.configuration_microemo import (
    MicroEmoAudioConfig,
    MicroEmoConfig,
    MicroEmoVisionConfig,
    layer_indices,
)
from ..configuration.tower_table import AUDIO_TOWERS, audio_row, vision_row

OWN_TOWERS: dict[str, type[PreTrainedModel]] = {}


class EvalWhenFrozenMixin(nn.Module):
    """Keeps a module that has nothing to learn in evaluation mode, whatever `model.train()` switches over: the outputs
    of a frozen tower do not depend on the mode of the model around it."""

    def train(self, mode: bool = True) -> nn.Module:
        """Sets the mode of the module, which stays in evaluation mode while none of its parameters is trained.

        Args:
            mode (`bool`, *optional*, defaults to `True`): Whether the model around it is trained.

        Returns:
            `nn.Module`: The module itself.
        """
        return super().train(mode and any(parameter.requires_grad for parameter in self.parameters()))


class TowerHolderMixin(nn.Module):
    """A module with a tower, of whatever class, that stays in evaluation mode while nothing of it is trained."""

    tower_name: str

    def train(self, mode: bool = True) -> nn.Module:
        """Sets the mode of the module and of its parts, but for a tower that is frozen.

        Args:
            mode (`bool`, *optional*, defaults to `True`): Whether the model around it is trained.

        Returns:
            `nn.Module`: The module itself.
        """
        super().train(mode)
        tower = getattr(self, self.tower_name)
        tower.train(mode and any(parameter.requires_grad for parameter in tower.parameters()))
        return self


class MicroEmoVisionModel(EvalWhenFrozenMixin, InstructBlipVideoVisionModel):
    """EVA-CLIP's image encoder. Its last LayerNorm has an epsilon of its own (`ln_vision` of the originals).

    Args:
        config ([`MicroEmoVisionConfig`]): The configuration of the image encoder.
    """

    config: MicroEmoVisionConfig
    _input_embed_layer = "patch_embedding"
    _no_split_modules = ["InstructBlipVideoVisionEmbeddings", "InstructBlipVideoEncoderLayer"]

    def __init__(self, config: MicroEmoVisionConfig):
        super().__init__(config)
        self.post_layernorm.eps = config.post_layernorm_eps

    def get_input_embeddings(self) -> nn.Module:
        """Returns the convolution that embeds the patches of a frame.

        Returns:
            `nn.Module`: The layer that [`~PreTrainedModel.set_input_embeddings`] replaces.
        """
        return self.embeddings.patch_embedding


class AudioTowerAttention(nn.Module):
    """Self-attention with one learned key and value appended, which every token may attend to.

    Args:
        config ([`MicroEmoAudioConfig`]): The configuration of the audio tower.
    """

    def __init__(self, config: MicroEmoAudioConfig):
        super().__init__()
        self.config = config
        self.num_heads = config.num_attention_heads
        self.scaling = (config.hidden_size // config.num_attention_heads) ** -0.5
        self.is_causal = False
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.bias_k = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.bias_v = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.projection = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self, hidden_states: torch.Tensor, **kwargs: Unpack[TransformersKwargs]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Computes the attention among the tokens of each segment.

        Args:
            hidden_states (`torch.Tensor` of shape `(segments, tokens, hidden_size)`): The tokens.
            kwargs (`TransformersKwargs`, *optional*): What the attention function takes.

        Returns:
            `tuple[torch.Tensor, torch.Tensor | None]`: The tokens, and the weights
            `(segments, num_attention_heads, tokens, tokens + 1)` where the attention function gives them; the last
            column is that of the learned key.
        """
        batch = hidden_states.shape[0]
        query, key, value = self.qkv(hidden_states).chunk(3, dim=-1)
        key = torch.cat([key, self.bias_k.expand(batch, -1, -1)], dim=1)
        value = torch.cat([value, self.bias_v.expand(batch, -1, -1)], dim=1)
        query, key, value = (
            states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for states in (query, key, value)
        )
        attention = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        output, weights = attention(
            self,
            query,
            key,
            value,
            attention_mask=None,
            scaling=self.scaling,
            dropout=self.config.attention_dropout if self.training else 0.0,
            **kwargs,
        )
        return self.projection(output.flatten(2)), weights


class AudioTowerLayer(GradientCheckpointingLayer):
    """A pre-norm Transformer block.

    Args:
        config ([`MicroEmoAudioConfig`]): The configuration of the audio tower.
    """

    def __init__(self, config: MicroEmoAudioConfig):
        super().__init__()
        self.layernorm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = AudioTowerAttention(config)
        self.layernorm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> torch.Tensor:
        """Applies the block.

        Args:
            hidden_states (`torch.Tensor` of shape `(segments, tokens, hidden_size)`): The tokens.
            kwargs (`TransformersKwargs`, *optional*): What the attention function takes.

        Returns:
            `torch.Tensor`: The tokens, of the same shape.
        """
        hidden_states = hidden_states + self.attention(self.layernorm1(hidden_states), **kwargs)[0]
        return hidden_states + self.fc2(self.activation(self.fc1(self.layernorm2(hidden_states))))


@auto_docstring(
    custom_intro="""
    ImageBind's audio tower: the picture of a mel spectrogram becomes patches, the patches pass a Transformer, and the
    class token becomes one vector of the joint space.
    """
)
class MicroEmoAudioModel(EvalWhenFrozenMixin, PreTrainedModel):
    config: MicroEmoAudioConfig
    log_logit_scale: torch.Tensor
    base_model_prefix = "model"
    main_input_name = "input_features"
    input_modalities = ("audio",)
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": AudioTowerLayer, "attentions": AudioTowerAttention}
    _input_embed_layer = "patch_embedding"
    _no_split_modules = ["AudioTowerLayer"]
    _keep_in_fp32_modules_strict = ["log_logit_scale"]

    def __init__(self, config: MicroEmoAudioConfig):
        super().__init__(config)
        self.patch_embedding = nn.Conv2d(1, config.hidden_size, config.kernel_size, config.stride, bias=False)
        self.patch_layernorm = nn.LayerNorm(config.hidden_size, eps=config.stem_layer_norm_eps)
        self.class_embedding = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.position_embedding = nn.Parameter(torch.zeros(1, 1 + config.num_patches, config.hidden_size))
        self.layers = nn.ModuleList(AudioTowerLayer(config) for _ in range(config.num_hidden_layers))
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.head = nn.Linear(config.hidden_size, config.projection_dim, bias=False)
        # Fixed in the original too: a buffer, saved with the weights.
        self.register_buffer(
            "log_logit_scale", torch.tensor(math.log(config.logit_scale_init_value), dtype=torch.float32)
        )
        self.post_init()

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> nn.Module:
        scale = self.log_logit_scale
        super()._apply(fn, recurse)
        if self.log_logit_scale.dtype != scale.dtype:  # in bfloat16 the exponential would be 20.125 for 20
            self.log_logit_scale = scale.to(self.log_logit_scale.device)
        return self

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        std = self.config.initializer_range
        if isinstance(module, MicroEmoAudioModel):
            init.normal_(module.class_embedding, std=std)
            init.normal_(module.position_embedding, std=std)
            init.constant_(module.log_logit_scale, math.log(self.config.logit_scale_init_value))
        elif isinstance(module, AudioTowerAttention):
            init.normal_(module.bias_k, std=std)
            init.normal_(module.bias_v, std=std)

    @merge_with_config_defaults
    @capture_outputs
    @auto_docstring(custom_intro="Encodes segments of sound.")
    def forward(
        self, input_features: torch.Tensor, **kwargs: Unpack[TransformersKwargs]
    ) -> tuple | BaseModelOutputWithPooling:
        r"""
        input_features (`torch.Tensor` of shape `(segments, 1, num_mel_bins, num_mel_frames)`):
            The log-mel pictures of segments, as ImageBind makes them. `last_hidden_state` holds the tokens
            `(segments, 1 + num_patches, hidden_size)`, the class token first, and `pooler_output` the features
            `(segments, projection_dim)`, of length `exp(log_logit_scale)`.
        """
        hidden_states = self.patch_embedding(input_features.to(self.patch_embedding.weight.dtype))
        hidden_states = self.patch_layernorm(hidden_states.flatten(2).transpose(1, 2))
        class_token = self.class_embedding.expand(hidden_states.shape[0], -1, -1)
        hidden_states = torch.cat([class_token, hidden_states], dim=1) + self.position_embedding
        for layer in self.layers:
            hidden_states = layer(hidden_states, **kwargs)
        features = nn.functional.normalize(self.head(self.post_layernorm(hidden_states[:, 0])), dim=-1)
        features = features * self.log_logit_scale.exp()
        return BaseModelOutputWithPooling(last_hidden_state=hidden_states, pooler_output=features)


OWN_TOWERS[MicroEmoVisionConfig.model_type] = MicroEmoVisionModel
OWN_TOWERS[MicroEmoAudioConfig.model_type] = MicroEmoAudioModel
for _config_class, _own_class in zip((MicroEmoVisionConfig, MicroEmoAudioConfig), OWN_TOWERS.values(), strict=True):
    AutoModel.register(_config_class, _own_class, exist_ok=True)


def tower_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """Finds the class of a tower.

    Args:
        config (`PreTrainedConfig`): The configuration of the tower.

    Returns:
        `type[PreTrainedModel]`: The class of the encoder alone.
    """
    if config.model_type in OWN_TOWERS:
        return OWN_TOWERS[config.model_type]
    row = AUDIO_TOWERS.get(config.model_type)
    if row is None or row.encoder is None:
        return MODEL_MAPPING[type(config)]
    module = type(config).__module__.replace(".configuration_", ".modeling_")
    return getattr(importlib.import_module(module), row.encoder)


def read_frames(
    tower: nn.Module, config: MicroEmoConfig, pixel_values: torch.Tensor, **kwargs: Unpack[TransformersKwargs]
) -> BaseModelOutputWithPooling:
    """Encodes pictures with the image encoder, whichever it is.

    Args:
        tower (`nn.Module`): The image encoder.
        config ([`MicroEmoConfig`]): The configuration of the model.
        pixel_values (`torch.Tensor` of shape `(F, 3, H, W)`): The pictures.
        kwargs (`TransformersKwargs`, *optional*): For the encoder, such as `output_hidden_states`.

    Returns:
        `BaseModelOutputWithPooling`: `last_hidden_state` holds the features
        `(F, class tokens + P, config.vision_width)`, beside the hidden states and attentions that were asked for.
    """
    row, num_layers = vision_row(config.vision_config), config.vision_config.num_hidden_layers
    layers = layer_indices(config.vision_feature_layer, num_layers, "vision")
    pixel_values = pixel_values.to(tower.dtype)
    inputs: dict[str, torch.Tensor] = {"pixel_values": pixel_values}
    if row.is_packed:
        inputs = _as_patches(pixel_values, config.vision_config.patch_size)
    output, states = _run(tower, layers, num_layers, inputs, **kwargs)
    features = torch.cat(states, dim=-1) if len(states) > 1 else states[0]
    registers = row.num_registers(config.vision_config)
    if registers:
        class_tokens, patches = features[:, : row.class_tokens], features[:, row.class_tokens + registers :]
        features = torch.cat([class_tokens, patches], dim=1)
    return BaseModelOutputWithPooling(
        last_hidden_state=features, hidden_states=output.hidden_states, attentions=output.attentions
    )


def read_sound(
    tower: nn.Module,
    config: MicroEmoConfig,
    input_features: torch.Tensor,
    num_steps: torch.Tensor | None = None,
    **kwargs: Unpack[TransformersKwargs],
) -> BaseModelOutputWithPooling:
    """Encodes segments of sound with the audio tower, whichever it is.

    Args:
        tower (`nn.Module`): The audio tower.
        config ([`MicroEmoConfig`]): The configuration of the model.
        input_features (`torch.Tensor` of shape `(segments, ...)`): The segments, as the processor makes them.
        num_steps (`torch.LongTensor` of shape `(segments,)`, *optional*):
            The number of real steps of each segment, by default all. Towers that can do so hear no more of it.
        kwargs (`TransformersKwargs`, *optional*): For the tower, such as `output_hidden_states`.

    Returns:
        `BaseModelOutputWithPooling`: `last_hidden_state` holds the steps
        `(segments, config.audio_steps_per_segment, config.audio_width)`, of which those that are not real mean nothing,
        beside the hidden states and attentions that were asked for.
    """
    row, pool = audio_row(config.audio_config), config.audio_pool_size
    if row.reads == "pooled":
        output = tower(input_features, **kwargs)
        features = output.pooler_output[:, None]
    else:
        if num_steps is None:
            num_steps = input_features.new_full((len(input_features),), config.audio_steps_per_segment).long()
        num_layers, total = config.audio_config.num_hidden_layers, row.num_steps(config.audio_config)
        layers = layer_indices(config.audio_feature_layer, num_layers, "audio")
        sound, num_steps = input_features.to(tower.dtype), num_steps.clamp(min=1) * pool
        if row.reads == "waveform":
            output, states = _run_waveforms(tower, layers, config.audio_config, sound, num_steps, **kwargs)
        else:
            output, states = _run(tower, layers, num_layers, INPUTS[row.reads](tower, sound, num_steps), **kwargs)
        if row.reads in RETURN_ONE_ROW:
            states = [_unpack(state, num_steps, total) for state in states]
        # Qwen's encoders average two steps behind their last layer.
        states = [state if state.shape[1] == total else _average(state, state.shape[1] // total) for state in states]
        features = torch.cat(states, dim=-1)
    return BaseModelOutputWithPooling(
        last_hidden_state=features if pool == 1 else _average(features, pool),
        hidden_states=output.hidden_states,
        attentions=output.attentions,
    )


def _average(steps: torch.Tensor, size: int) -> torch.Tensor:
    return steps.unflatten(1, (-1, size)).mean(dim=2)


def _as_patches(pixel_values: torch.Tensor, side: int) -> dict[str, torch.Tensor]:
    """Pictures `(F, 3, H, W)` as SigLIP 2's NaFlex encoders take them: flat patches, rows of pixels with their channels."""
    patches = pixel_values.unfold(2, side, side).unfold(3, side, side)  # (F, 3, rows, columns, side, side)
    shape = torch.tensor(patches.shape[2:4], device=pixel_values.device).expand(len(patches), 2)
    patches = patches.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)
    mask = torch.ones(patches.shape[:2], dtype=torch.long, device=patches.device)
    return {"pixel_values": patches, "pixel_attention_mask": mask, "spatial_shapes": shape}


def _run(
    tower: nn.Module, layers: list[int], num_layers: int, inputs: dict[str, Any], **kwargs: Unpack[TransformersKwargs]
) -> tuple[Any, list[torch.Tensor]]:
    """The output of a tower, with hidden states only where they were asked for, and the layers that are read."""
    first, *others = inputs  # what hooks look at comes first, by position
    kwargs = kwargs | {name: inputs[name] for name in others}
    if layers == [num_layers]:
        output = tower(inputs[first], **kwargs)
        return output, [output.last_hidden_state]
    output = tower(inputs[first], **{**kwargs, "output_hidden_states": True})
    # Encoders differ in whether the last hidden state of the tuple has passed the last norm.
    states = [output.last_hidden_state if layer == num_layers else output.hidden_states[layer] for layer in layers]
    if not kwargs.get("output_hidden_states"):
        output.hidden_states = None
    return output, states


# - how audio towers are given segments of which so many steps are real: the inputs of one pass, what comes first by position


def _as_whole(tower: nn.Module, features: torch.Tensor, num_steps: torch.Tensor) -> dict[str, torch.Tensor]:
    """Whisper's encoder was trained on sound with silence behind it, and takes no mask."""
    return {"input_features": features}


def _as_masked(tower: nn.Module, features: torch.Tensor, num_steps: torch.Tensor) -> dict[str, torch.Tensor]:
    """Qwen2-Audio's encoder is Whisper's with a mask; each of its steps is the mean of two positions."""
    positions = torch.arange(tower.config.max_source_positions, device=features.device)
    states = features.new_empty(len(features), len(positions), tower.config.d_model)
    mask = create_bidirectional_mask(
        config=tower.config, inputs_embeds=states, attention_mask=(positions < 2 * num_steps[:, None]).long()
    )
    return {"input_features": features, "attention_mask": mask}


def _as_packed(tower: nn.Module, features: torch.Tensor, num_steps: torch.Tensor) -> dict[str, torch.Tensor]:
    """The encoders of Qwen2.5-Omni and Qwen3-Omni take all real mel frames of a batch in one row."""
    lengths, real = _real_mel_frames(tower.config, features, num_steps)
    return {"input_features": features.transpose(1, 2)[real].T, "feature_lens": lengths}


def _as_chunked(tower: nn.Module, features: torch.Tensor, num_steps: torch.Tensor) -> dict[str, torch.Tensor]:
    """The encoder of Qwen3-ASR takes a mask."""
    _, real = _real_mel_frames(tower.config, features, num_steps)
    return {"input_features": features, "input_features_mask": real.long()}


INPUTS: dict[str, Callable] = {
    "whole": _as_whole,
    "masked": _as_masked,
    "packed": _as_packed,
    "chunked": _as_chunked,
}
RETURN_ONE_ROW = ("packed", "chunked")  # which return the real steps of a batch in one row


def _run_waveforms(
    tower: nn.Module,
    layers: list[int],
    config: PreTrainedConfig,
    features: torch.Tensor,
    num_steps: torch.Tensor,
    **kwargs: Any,
) -> tuple[Any, list[torch.Tensor]]:
    """HuBERT, WavLM and wav2vec 2.0: segments of each length apart, as what stands behind a sound changes their features
    (the group norm of the base models is one over time, and they were trained without a mask)."""
    row = AUDIO_TOWERS[config.model_type]
    total, samples = row.num_steps(config), row.segment_samples(config)
    stride, tail = samples // total, row.tail_samples(config) if row.tail_samples else 0
    output: Any = None
    found: list[torch.Tensor] = []
    for count in num_steps.unique().tolist():
        rows = (num_steps == count).nonzero()[:, 0]
        inputs = {"input_values": features[rows, : count * stride + tail]}
        output, states = _run(tower, layers, config.num_hidden_layers, inputs, **kwargs)
        if count == total and len(rows) == len(features):
            return output, states
        if not found:
            found = [state.new_zeros(len(features), total, state.shape[-1]) for state in states]
        padded = [nn.functional.pad(state, (0, 0, 0, total - count)) for state in states]
        found = [whole.index_copy(0, rows, state) for whole, state in zip(found, padded, strict=True)]
    return output, found


def _real_mel_frames(
    config: PreTrainedConfig, features: torch.Tensor, num_steps: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The number of mel frames of which an encoder of Qwen makes so many steps, and the mask of these frames."""
    if config.model_type == "qwen2_5_omni_audio_encoder":
        lengths = 4 * num_steps  # a convolution of stride 2, then the mean of two
    else:
        of_chunk = -(-2 * config.n_window // 8)  # three convolutions of stride 2 over each chunk
        lengths = num_steps // of_chunk * 2 * config.n_window + num_steps % of_chunk * 8
    return lengths, torch.arange(features.shape[-1], device=features.device) < lengths[:, None]


def _unpack(packed: torch.Tensor, num_steps: torch.Tensor, total: int) -> torch.Tensor:
    """The real steps of all segments in one row, `(steps, width)`, as `(segments, total, width)`."""
    packed = packed.flatten(0, -2)
    each = len(packed) // int(num_steps.sum())  # 2 where the encoder averages behind this layer
    real = torch.arange(total * each, device=packed.device) < each * num_steps[:, None]
    return packed.new_zeros(*real.shape, packed.shape[-1]).index_put((real,), packed)
