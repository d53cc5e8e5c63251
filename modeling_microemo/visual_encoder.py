"""The global-local attention visual encoder (paper 3.2): timestamp-bound frame tokens and masked attention inside
facial clue regions."""

import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.blip_2.modeling_blip_2 import eager_attention_forward

from ..configuration.configuration_microemo import MicroEmoConfig
from .qformer import MicroEmoImageQFormer, MicroEmoQFormer, takes_masks
from .towers import MicroEmoVisionModel


class LocalClueAttention(nn.Module):
    """Multi-head attention among the patches of a frame in which patch i sees patch j only where some facial clue
    region holds both (paper 3.2, equations of the local branch). A learned embedding marks each region."""

    def __init__(self, config: MicroEmoConfig):
        super().__init__()
        self.config = config.vision_config
        hidden_size = self.config.hidden_size
        self.num_heads = config.local_clue_num_attention_heads
        self.is_causal = False
        self.region_embeddings = nn.Embedding(config.num_regions, hidden_size)
        self.layernorm = nn.LayerNorm(hidden_size, eps=self.config.layer_norm_eps)
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.projection = nn.Linear(hidden_size, hidden_size)

    def forward(self, patches: torch.Tensor, region_masks: torch.Tensor) -> torch.Tensor:
        """
        Args:
            patches (`torch.Tensor` of shape `(frames, P, hidden_size)`): Patch features, the class token left out.
            region_masks (`torch.BoolTensor` of shape `(frames, R, P)`): The patches each clue region covers.

        Returns:
            `torch.Tensor` of shape `(frames, P, hidden_size)`: exactly 0 for patches outside every region.
        """
        membership = region_masks.to(patches.dtype)
        # Through the embedding's own forward: where its weight is offloaded, only that brings it here.
        embeddings = self.region_embeddings(torch.arange(region_masks.shape[1], device=patches.device))
        hidden_states = patches + membership.transpose(1, 2) @ embeddings
        allowed = (membership.transpose(1, 2) @ membership) > 0
        outside = ~region_masks.any(dim=1)
        # A patch outside sees itself, so that no row is without a key: such rows differ between attention kernels.
        allowed = allowed | torch.diag_embed(outside)

        query, key, value = (
            self.qkv(self.layernorm(hidden_states)).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        )
        implementation = takes_masks(self.config._attn_implementation)
        mask = allowed[:, None]
        if implementation == "eager":  # which adds its masks
            mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, torch.finfo(query.dtype).min)
        attention = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)
        output, _ = attention(self, query, key, value, mask, scaling=key.shape[-1] ** -0.5)
        hidden_states = hidden_states + self.projection(output.flatten(2))
        return hidden_states.masked_fill(outside[..., None], 0.0)


class GlobalLocalFusion(nn.Module):
    """`global + gate * project(local)`. With the gate at 0 the local view leaves no trace."""

    def __init__(self, config: MicroEmoConfig):
        super().__init__()
        hidden_size = config.image_qformer_config.hidden_size
        self.projection = nn.Linear(hidden_size, hidden_size)
        self.gate = nn.Parameter(torch.full((1,), float(config.fusion_gate_init)))

    def forward(self, global_tokens: torch.Tensor, local_tokens: torch.Tensor) -> torch.Tensor:
        """Both views and the result: `(frames, num_query_tokens, hidden_size)`."""
        return global_tokens + self.gate * self.projection(local_tokens)


class GlobalLocalVisualEncoder(nn.Module):
    """Frames to timestamp-bound, face-aware frame tokens (paper 3.2).

    Image encoder → the queries of the image Q-Former meet the frame's features (the global view) and, respectively,
    the patches that attend inside the facial clue regions (the local view) → fusion. The class token saw the whole
    picture and is no part of the local view; a frame without a face copies its global tokens as its local view.
    """

    def __init__(self, config: MicroEmoConfig):
        super().__init__()
        self.config = config
        self.vision_model = MicroEmoVisionModel._from_config(config.vision_config)
        self.query_tokens = nn.Parameter(
            torch.zeros(1, config.num_query_tokens, config.image_qformer_config.hidden_size)
        )
        qformer_class = MicroEmoImageQFormer if config.use_frame_timestamps else MicroEmoQFormer
        self.image_qformer = qformer_class._from_config(config.image_qformer_config)
        if config.use_local_clue_attention:
            self.local_clue_attention = LocalClueAttention(config)
            self.fusion = GlobalLocalFusion(config)

    def forward(self, *args, **kwargs) -> torch.Tensor:
        """
        Args: those of [`~GlobalLocalVisualEncoder.views`].

        Returns:
            `torch.Tensor` of shape `(F, num_query_tokens, hidden_size)`, with `keep_timestamp_tokens`
            `(F, num_query_tokens + L, hidden_size)`.
        """
        global_tokens, local_tokens = self.views(*args, **kwargs)
        return global_tokens if local_tokens is None else self.fusion(global_tokens, local_tokens)

    def views(
        self,
        pixel_values: torch.Tensor | None = None,
        region_masks: torch.Tensor | None = None,
        pixel_values_faces: torch.Tensor | None = None,
        qformer_input_ids: torch.Tensor | None = None,
        qformer_attention_mask: torch.Tensor | None = None,
        vision_features: torch.Tensor | None = None,
        face_features: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The global and the local tokens before their fusion.

        All tensors hold real frames only, F of them, from all clips of the batch.

        Args:
            pixel_values (`torch.Tensor` of shape `(F, 3, H, W)`): The frames; or `vision_features` in their place.
            region_masks (`torch.BoolTensor` of shape `(F, R, P)`): Patches of each clue region; all False: no face.
            pixel_values_faces (`torch.Tensor` of shape `(F, 3, H, W)`):
                The face crops that the masks refer to, with `local_view="face_crop"`; or `face_features`.
            qformer_input_ids, qformer_attention_mask (`torch.LongTensor` of shape `(F, L)`): The timestamp's tokens.
            vision_features, face_features (`torch.Tensor` of shape `(F, 1 + P, hidden_size)`):
                What [`MicroEmoVisionModel`] gave for the frames and for the crops.

        Returns:
            Both, shaped as what [`~GlobalLocalVisualEncoder.forward`] gives; `None` for the local ones without local clue
            attention.
        """
        if vision_features is None:
            vision_features = self.vision_model(pixel_values).last_hidden_state
        text = {}
        if self.config.use_frame_timestamps:
            text = {"input_ids": qformer_input_ids, "attention_mask": qformer_attention_mask}
        global_tokens = self._query(vision_features, **text)
        if not self.config.use_local_clue_attention:
            return global_tokens, None

        local_tokens = global_tokens
        has_face = region_masks.flatten(1).any(dim=1)
        if has_face.any():  # attention kernels take no empty batch
            patches = self._face_features(has_face, vision_features, pixel_values_faces, face_features)[:, 1:]
            patches, region_masks = only_clue_patches(patches, region_masks[has_face])
            face_tokens = self._query(
                self.local_clue_attention(patches, region_masks),
                encoder_mask=region_masks.any(dim=1),
                **{name: value[has_face] for name, value in text.items()},
            )
            local_tokens = global_tokens.index_put((has_face,), face_tokens)
        return global_tokens, local_tokens

    def _face_features(self, has_face, vision_features, pixel_values_faces, face_features) -> torch.Tensor:
        """What the regions of frames with a face refer to: the frames' own patches, or those of the face crops."""
        if self.config.local_view == "frame":
            return vision_features[has_face]
        if face_features is not None:
            return face_features[has_face]
        return self.vision_model(pixel_values_faces[has_face]).last_hidden_state

    def _query(self, encoder_states, encoder_mask=None, input_ids=None, attention_mask=None) -> torch.Tensor:
        """The image Q-Former's tokens of frames from their features, of all or of those in a mask."""
        query_tokens = self.query_tokens.expand(encoder_states.shape[0], -1, -1).to(encoder_states.device)
        inputs = {"query_embeds": query_tokens, "encoder_hidden_states": encoder_states}
        if encoder_mask is not None:
            inputs["encoder_attention_mask"] = encoder_mask.long()
        if input_ids is None:
            return self.image_qformer(**inputs).last_hidden_state
        query_mask = attention_mask.new_ones(query_tokens.shape[:2])
        attention_mask = torch.cat([query_mask, attention_mask], dim=1)
        tokens = self.image_qformer(input_ids=input_ids, attention_mask=attention_mask, **inputs).last_hidden_state
        return tokens if self.config.keep_timestamp_tokens else tokens[:, : query_tokens.shape[1]]


def only_clue_patches(patches: torch.Tensor, region_masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The patches inside at least one clue region, packed to the front: a face in a medium shot covers 8 of 256, and
    all that follows costs as much as there are patches.

    Args:
        patches (`torch.Tensor` of shape `(frames, P, hidden_size)`): Patch features.
        region_masks (`torch.BoolTensor` of shape `(frames, R, P)`): The patches each clue region covers.

    Returns:
        Both, cut down to the M patches of the frame that has the most: `(frames, M, hidden_size)`, `(frames, R, M)`.
    """
    inside = region_masks.any(dim=1)
    length = int(inside.sum(dim=1).max())
    order = inside.long().argsort(dim=1, descending=True, stable=True)[:, :length]
    frame = torch.arange(patches.shape[0], device=patches.device)[:, None]
    return patches[frame, order], region_masks.transpose(1, 2)[frame, order].transpose(1, 2)
