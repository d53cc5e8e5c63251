"""The audio branch (paper 3.4): ImageBind's audio tower over 2 s mel segments, then the audio Q-Former."""

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs

from ..configuration.configuration_microemo import MicroEmoConfig
from .towers import MicroEmoAudioModel
from .video_qformer import WindowQFormer, real_first, whole_sequence


class AudioBranch(nn.Module):
    """Reads mel segments into audio tokens: segment features, their positions, then [global; window 1; ...].

    Args:
        config ([`MicroEmoConfig`]): The configuration of the model.
    """

    def __init__(self, config: MicroEmoConfig):
        super().__init__()
        self.config = config
        self.audio_tower = MicroEmoAudioModel._from_config(config.audio_config)
        self.segment_positions = nn.Embedding(config.max_audio_segments, config.audio_config.projection_dim)
        self.audio_qformer = WindowQFormer(config.audio_qformer_config, config.num_audio_query_tokens)

    def forward(
        self,
        input_features: torch.Tensor | None,
        segment_mask: torch.Tensor,
        windows: torch.Tensor,
        audio_features: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[BaseModelOutputWithPooling, torch.Tensor]:
        """Encodes the segments and reads them, whole and by windows.

        Args:
            input_features (`torch.Tensor` of shape `(B, C, 1, num_mel_bins, num_mel_frames)`):
                The mel segments, or `None` where `audio_features` stand in their place.
            segment_mask (`torch.BoolTensor` of shape `(B, C)`):
                The real segments, wherever they stand in the padded row.
            windows (`torch.LongTensor` of shape `(B, K, 2)`):
                The segments [start, end) of each window, read with `use_utterance_audio`.
            audio_features (`torch.Tensor` of shape `(B, C, projection_dim)`, *optional*): The tower's output.
            kwargs (`TransformersKwargs`, *optional*): For the audio tower, such as `output_hidden_states`.

        Returns:
            `tuple[BaseModelOutputWithPooling, torch.Tensor]`: `last_hidden_state` holds the tokens
            `(B, W, num_audio_query_tokens, hidden_size)`, beside the hidden states and attentions of the tower; then
            follows the mask `(B, W)` of real windows. W is 1, or 1 + K with `use_utterance_audio`.

        Raises:
            ValueError: If there are more segments than `max_audio_segments`.
        """
        num_segments = segment_mask.shape[1]
        if num_segments > self.config.max_audio_segments:
            raise ValueError(
                f"the sound has {num_segments} segments, the model's max_audio_segments is {self.config.max_audio_segments}"
            )
        tower = BaseModelOutputWithPooling()
        positions = self.segment_positions(torch.arange(num_segments, device=segment_mask.device))
        features = positions.new_zeros(*segment_mask.shape, positions.shape[-1])
        if segment_mask.any():  # attention kernels take no empty batch
            if audio_features is None:
                tower = self.audio_tower(input_features[segment_mask], **kwargs)
                real_features = tower.pooler_output
            else:
                real_features = audio_features[segment_mask]
            segment_mask = real_first(segment_mask)  # positions and windows count real segments
            features = features.index_put((segment_mask,), real_features.to(features.dtype))
        hidden_states = (features + positions)[:, :, None]

        all_windows = whole_sequence(segment_mask)
        if self.config.use_utterance_audio:
            # A clip without sound has no windows over it either.
            windows = windows.masked_fill(~segment_mask.any(dim=1)[:, None, None], -1)
            all_windows = torch.cat([all_windows, windows], dim=1)
        tokens = self.audio_qformer(hidden_states, segment_mask[:, :, None], all_windows)
        output = BaseModelOutputWithPooling(
            last_hidden_state=tokens, hidden_states=tower.hidden_states, attentions=tower.attentions
        )
        return output, all_windows[..., 1] > all_windows[..., 0]
