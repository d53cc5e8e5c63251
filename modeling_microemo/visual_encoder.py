"""The global-local attention visual encoder (paper 3.2): timestamp-bound frame tokens and masked attention inside
facial clue regions."""

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutput, BaseModelOutputWithPooling
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.blip_2.modeling_blip_2 import eager_attention_forward
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs

from ..configuration.configuration_microemo import MicroEmoConfig
from ..configuration.tower_table import vision_row
from .qformer import MicroEmoImageQFormer, MicroEmoQFormer, takes_masks
from .towers import TowerHolderMixin, read_frames, tower_class


class LocalClueAttention(nn.Module):
    """Multi-head attention among the patches of a frame in which patch i sees patch j only where some facial clue
    region holds both (paper 3.2, equations of the local branch). A learned embedding marks each region.

    Args:
        config ([`MicroEmoConfig`]): The configuration of the model.
    """

    def __init__(self, config: MicroEmoConfig):
        super().__init__()
        self.config = config.vision_config
        hidden_size = config.vision_width
        self.num_heads = config.local_clue_num_attention_heads
        self.is_causal = False
        self.region_embeddings = nn.Embedding(config.num_regions, hidden_size)
        self.layernorm = nn.LayerNorm(hidden_size, eps=self.config.layer_norm_eps)
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.projection = nn.Linear(hidden_size, hidden_size)

    def forward(self, patches: torch.Tensor, region_masks: torch.Tensor) -> torch.Tensor:
        """Lets the patches inside the clue regions attend to one another.

        Args:
            patches (`torch.Tensor` of shape `(frames, P, hidden_size)`): The patch features without the class token.
            region_masks (`torch.BoolTensor` of shape `(frames, R, P)`): The patches that each clue region covers.

        Returns:
            `torch.Tensor` of shape `(frames, P, hidden_size)`: The patches, exactly 0 outside every region.
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
    """`global + gate * project(local)`. With the gate at 0 the local view leaves no trace.

    Args:
        config ([`MicroEmoConfig`]): The configuration of the model.
    """

    def __init__(self, config: MicroEmoConfig):
        super().__init__()
        hidden_size = config.image_qformer_config.hidden_size
        self.projection = nn.Linear(hidden_size, hidden_size)
        self.gate = nn.Parameter(torch.full((1,), float(config.fusion_gate_init)))

    def forward(self, global_tokens: torch.Tensor, local_tokens: torch.Tensor) -> torch.Tensor:
        """Joins the two views of each frame.

        Args:
            global_tokens (`torch.Tensor` of shape `(frames, num_query_tokens, hidden_size)`): The global view.
            local_tokens (`torch.Tensor` of shape `(frames, num_query_tokens, hidden_size)`): The local view.

        Returns:
            `torch.Tensor` of shape `(frames, num_query_tokens, hidden_size)`: The frame tokens.
        """
        return global_tokens + self.gate * self.projection(local_tokens)


class GlobalLocalVisualEncoder(TowerHolderMixin):
    """Makes timestamp-bound, face-aware frame tokens from frames (paper 3.2).

    The queries of the image Q-Former meet the features of a frame (the global view) and, respectively, the patches
    that attend inside the facial clue regions (the local view). Then both are fused. The class token saw the whole
    picture and is no part of the local view; a frame without a face copies its global tokens as its local view.

    Args:
        config ([`MicroEmoConfig`]): The configuration of the model.
    """

    tower_name = "vision_model"

    def __init__(self, config: MicroEmoConfig):
        super().__init__()
        self.config = config
        self.num_class_tokens = vision_row(config.vision_config).class_tokens
        self.vision_model = tower_class(config.vision_config)._from_config(config.vision_config)
        self.query_tokens = nn.Parameter(
            torch.zeros(1, config.num_query_tokens, config.image_qformer_config.hidden_size)
        )
        qformer_class = MicroEmoImageQFormer if config.use_frame_timestamps else MicroEmoQFormer
        self.image_qformer = qformer_class._from_config(config.image_qformer_config)
        if config.use_local_clue_attention:
            self.local_clue_attention = LocalClueAttention(config)
            self.fusion = GlobalLocalFusion(config)

    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        region_masks: torch.Tensor | None = None,
        pixel_values_faces: torch.Tensor | None = None,
        qformer_input_ids: torch.Tensor | None = None,
        qformer_attention_mask: torch.Tensor | None = None,
        vision_features: torch.Tensor | None = None,
        face_features: torch.Tensor | None = None,
        return_dict: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor | BaseModelOutput:
        """Encodes frames.

        All tensors hold real frames only, F of them, from all clips of the batch.

        Args:
            pixel_values (`torch.Tensor` of shape `(F, 3, H, W)`, *optional*):
                The frames, or `vision_features` in their place.
            region_masks (`torch.BoolTensor` of shape `(F, R, P)`, *optional*):
                The patches of each clue region, all False for a frame without a face. They are read with
                `use_local_clue_attention`.
            pixel_values_faces (`torch.Tensor` of shape `(F, 3, H, W)`, *optional*):
                The face crops that the masks refer to with `local_view="face_crop"`, or `face_features`.
            qformer_input_ids (`torch.LongTensor` of shape `(F, L)`, *optional*):
                The tokens of the timestamps. They are read with `use_frame_timestamps`.
            qformer_attention_mask (`torch.LongTensor` of shape `(F, L)`, *optional*):
                The mask of `qformer_input_ids`.
            vision_features (`torch.Tensor` of shape `(F, class tokens + P, vision_width)`, *optional*):
                What [`~GlobalLocalVisualEncoder.encode`] gave for the frames.
            face_features (`torch.Tensor` of shape `(F, class tokens + P, vision_width)`, *optional*):
                What [`~GlobalLocalVisualEncoder.encode`] gave for the crops.
            return_dict (`bool`, *optional*, defaults to `False`):
                Whether to return the hidden states and attentions of the image encoder beside the tokens.
            kwargs (`TransformersKwargs`, *optional*):
                For the image encoder's pass over the frames, such as `output_hidden_states`.

        Returns:
            `torch.Tensor` of shape `(F, num_query_tokens, hidden_size)`: The frame tokens; with
            `keep_timestamp_tokens` of shape `(F, num_query_tokens + L, hidden_size)`. With `return_dict` they are
            `last_hidden_state` of a `BaseModelOutput`.
        """
        tower = BaseModelOutput(last_hidden_state=vision_features)
        if vision_features is None:
            tower = self.encode(pixel_values, **kwargs)
        tokens, local_tokens = self.views(
            vision_features=tower.last_hidden_state,
            region_masks=region_masks,
            pixel_values_faces=pixel_values_faces,
            qformer_input_ids=qformer_input_ids,
            qformer_attention_mask=qformer_attention_mask,
            face_features=face_features,
        )
        if local_tokens is not None:
            tokens = self.fusion(tokens, local_tokens)
        if not return_dict:
            return tokens
        return BaseModelOutput(
            last_hidden_state=tokens, hidden_states=tower.hidden_states, attentions=tower.attentions
        )

    def encode(self, pixel_values: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> BaseModelOutputWithPooling:
        """Runs the image encoder alone.

        Args:
            pixel_values (`torch.Tensor` of shape `(F, 3, H, W)`): The frames or crops.
            kwargs (`TransformersKwargs`, *optional*): For the image encoder, such as `output_hidden_states`.

        Returns:
            `BaseModelOutputWithPooling`: `last_hidden_state` holds the features `(F, class tokens + P, vision_width)`,
            the class token first where the encoder has one.
        """
        return read_frames(self.vision_model, self.config, pixel_values, **kwargs)

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
        """Returns the global and the local tokens before their fusion.

        Args:
            pixel_values (`torch.Tensor` of shape `(F, 3, H, W)`, *optional*):
                See [`~GlobalLocalVisualEncoder.forward`], for all arguments.
            region_masks (`torch.BoolTensor` of shape `(F, R, P)`, *optional*): The patches of each clue region.
            pixel_values_faces (`torch.Tensor` of shape `(F, 3, H, W)`, *optional*): The face crops.
            qformer_input_ids (`torch.LongTensor` of shape `(F, L)`, *optional*): The tokens of the timestamps.
            qformer_attention_mask (`torch.LongTensor` of shape `(F, L)`, *optional*): Their mask.
            vision_features (`torch.Tensor` of shape `(F, 1 + P, hidden_size)`, *optional*): The encoded frames.
            face_features (`torch.Tensor` of shape `(F, 1 + P, hidden_size)`, *optional*): The encoded crops.

        Returns:
            `tuple[torch.Tensor, torch.Tensor | None]`: Both, shaped as what [`~GlobalLocalVisualEncoder.forward`]
            returns; `None` for the local ones without local clue attention.
        """
        if vision_features is None:
            vision_features = self.encode(pixel_values).last_hidden_state
        # In half precision and under quantisation the Q-Formers can be of another dtype than the tower.
        vision_features = vision_features.to(self.query_tokens.dtype)
        text = {}
        if self.config.use_frame_timestamps:
            text = {"input_ids": qformer_input_ids, "attention_mask": qformer_attention_mask}
        global_tokens = self._query(vision_features, **text)
        if not self.config.use_local_clue_attention:
            return global_tokens, None

        has_face = region_masks.flatten(1).any(dim=1)
        if torch.compiler.is_compiling():
            # No length of a compiled or exported graph depends on data: all patches of all frames are read.
            patches = self._patches(slice(None), vision_features, pixel_values_faces, face_features)
            face_tokens = self._query_regions(patches, region_masks, ~has_face, **text)
            return global_tokens, torch.where(has_face[:, None, None], face_tokens, global_tokens)
        if not has_face.any():  # attention kernels take no empty batch
            return global_tokens, global_tokens
        patches = self._patches(has_face, vision_features, pixel_values_faces, face_features)
        patches, region_masks = only_clue_patches(patches, region_masks[has_face])
        text = {name: value[has_face] for name, value in text.items()}
        face_tokens = self._query_regions(patches, region_masks, **text)
        return global_tokens, global_tokens.index_put((has_face,), face_tokens)

    def _patches(
        self,
        frames: torch.Tensor | slice,
        vision_features: torch.Tensor,
        pixel_values_faces: torch.Tensor | None,
        face_features: torch.Tensor | None,
    ) -> torch.Tensor:
        """What the regions of some frames refer to: the frames' own patches, or those of the face crops."""
        if self.config.local_view == "frame":
            face_features = vision_features
        if face_features is not None:
            features = face_features[frames]
        else:
            features = self.encode(pixel_values_faces[frames]).last_hidden_state
        return features[:, self.num_class_tokens :].to(vision_features.dtype)

    def _query_regions(
        self,
        patches: torch.Tensor,
        region_masks: torch.Tensor,
        without_face: torch.Tensor | None = None,
        **text: torch.Tensor,
    ) -> torch.Tensor:
        """The image Q-Former's tokens of the patches inside clue regions. Attention needs a key in each row: frames
        `without_face` read all patches, and nobody reads their tokens."""
        inside = region_masks.any(dim=1)
        if without_face is not None:
            inside = inside | without_face[:, None]
        return self._query(self.local_clue_attention(patches, region_masks), encoder_mask=inside, **text)

    def _query(
        self,
        encoder_states: torch.Tensor,
        encoder_mask: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
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
    """Packs the patches inside at least one clue region to the front: a face in a medium shot covers 8 of 256, and all
    that follows costs as much as there are patches.

    Args:
        patches (`torch.Tensor` of shape `(frames, P, hidden_size)`): The patch features.
        region_masks (`torch.BoolTensor` of shape `(frames, R, P)`): The patches that each clue region covers.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: Both, cut down to the M patches of the frame that has the most:
        `(frames, M, hidden_size)` and `(frames, R, M)`.
    """
    inside = region_masks.any(dim=1)
    length = int(inside.sum(dim=1).max())
    order = inside.long().argsort(dim=1, descending=True, stable=True)[:, :length]
    frame = torch.arange(patches.shape[0], device=patches.device)[:, None]
    return patches[frame, order], region_masks.transpose(1, 2)[frame, order].transpose(1, 2)
