"""The encoders of frames and of sound: those of the paper (EVA-CLIP's and ImageBind's), and how any of them is read."""

import importlib
import math
from collections.abc import Callable

import torch
from torch import nn
from transformers import MODEL_MAPPING, AutoModel, PreTrainedConfig
from transformers import initialization as init
from transformers.activations import ACT2FN
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


OWN_TOWERS |= {
    MicroEmoVisionConfig.model_type: MicroEmoVisionModel,
    MicroEmoAudioConfig.model_type: MicroEmoAudioModel,
}
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
    model_class = MODEL_MAPPING[type(config)]
    row = AUDIO_TOWERS.get(config.model_type)
    if row is None or row.encoder is None:
        return model_class
    return getattr(importlib.import_module(model_class.__module__), row.encoder)


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
    row = vision_row(config.vision_config)
    layers = layer_indices(config.vision_feature_layer, config.vision_config.num_hidden_layers, "vision")
    output, features = _encode(tower, layers, config.vision_config.num_hidden_layers, pixel_values, **kwargs)
    registers = row.num_registers(config.vision_config)
    if registers:
        class_tokens, patches = features[:, : row.class_tokens], features[:, row.class_tokens + registers :]
        features = torch.cat([class_tokens, patches], dim=1)
    return BaseModelOutputWithPooling(
        last_hidden_state=features, hidden_states=output.hidden_states, attentions=output.attentions
    )


def read_sound(
    tower: nn.Module, config: MicroEmoConfig, input_features: torch.Tensor, **kwargs: Unpack[TransformersKwargs]
) -> BaseModelOutputWithPooling:
    """Encodes segments of sound with the audio tower, whichever it is.

    Args:
        tower (`nn.Module`): The audio tower.
        config ([`MicroEmoConfig`]): The configuration of the model.
        input_features (`torch.Tensor` of shape `(segments, ...)`): The segments, as the processor makes them.
        kwargs (`TransformersKwargs`, *optional*): For the tower, such as `output_hidden_states`.

    Returns:
        `BaseModelOutputWithPooling`: `last_hidden_state` holds the steps
        `(segments, config.audio_steps_per_segment, config.audio_width)`, beside the hidden states and attentions that
        were asked for.
    """
    row = audio_row(config.audio_config)
    if row.extractor is None:
        output = tower(input_features, **kwargs)
        features = output.pooler_output[:, None]
    else:
        num_layers = row.num_layers(config.audio_config)
        layers = layer_indices(config.audio_feature_layer, num_layers, "audio")
        output, features = _encode(tower, layers, num_layers, input_features, **kwargs)
    if config.audio_pool_size > 1:
        # The last step may be the mean of fewer than the others.
        pooled = nn.functional.avg_pool1d(features.transpose(1, 2), config.audio_pool_size, ceil_mode=True)
        features = pooled.transpose(1, 2)
    return BaseModelOutputWithPooling(
        last_hidden_state=features, hidden_states=output.hidden_states, attentions=output.attentions
    )


def _encode(
    tower: nn.Module, layers: list[int], num_layers: int, inputs: torch.Tensor, **kwargs: Unpack[TransformersKwargs]
) -> tuple[BaseModelOutputWithPooling, torch.Tensor]:
    """The output of a tower, with its hidden states only where they were asked for, and the layers that are read."""
    if inputs.is_floating_point():
        inputs = inputs.to(tower.dtype)
    if layers == [num_layers]:
        output = tower(inputs, **kwargs)
        return output, output.last_hidden_state
    output = tower(inputs, **{**kwargs, "output_hidden_states": True})
    # Encoders differ in whether the last hidden state of the tuple has passed the last norm.
    states = [output.last_hidden_state if layer == num_layers else output.hidden_states[layer] for layer in layers]
    if not kwargs.get("output_hidden_states"):
        output.hidden_states = None
    return output, torch.cat(states, dim=-1)
