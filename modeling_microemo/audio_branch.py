"""The audio branch (paper 3.4): ImageBind's audio tower over 2 s mel clips, then the audio Q-Former."""

import torch
from torch import nn

from ..configuration.configuration_microemo import MicroEmoConfig
from .towers import MicroEmoAudioModel
from .video_qformer import WindowQFormer, real_first, whole_sequence


class AudioBranch(nn.Module):
    """Mel clips → clip features → + clip position → [global; window 1; ...] audio tokens."""

    def __init__(self, config: MicroEmoConfig):
        super().__init__()
        self.config = config
        self.audio_tower = MicroEmoAudioModel._from_config(config.audio_config)
        self.clip_positions = nn.Embedding(config.max_audio_clips, config.audio_config.projection_dim)
        self.audio_qformer = WindowQFormer(config.audio_qformer_config, config.num_audio_query_tokens)

    def forward(
        self,
        input_features: torch.Tensor | None,
        clip_mask: torch.Tensor,
        windows: torch.Tensor | None = None,
        audio_features: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            input_features (`torch.Tensor` of shape `(B, C, 1, num_mel_bins, num_mel_frames)`): Mel clips.
            clip_mask (`torch.BoolTensor` of shape `(B, C)`): Real clips, wherever they stand in the padded row.
            windows (`torch.LongTensor` of shape `(B, K, 2)`): Clips [start, end), read with `use_utterance_audio`.
            audio_features (`torch.Tensor` of shape `(B, C, projection_dim)`): The tower's output, in place of mels.

        Returns:
            Tokens `(B, W, num_audio_query_tokens, hidden_size)` and the mask `(B, W)` of real windows; W = 1, or 1 + K
            with `use_utterance_audio`.

        Raises:
            ValueError: if there are more clips than `max_audio_clips`.
        """
        num_clips = clip_mask.shape[1]
        if num_clips > self.config.max_audio_clips:
            raise ValueError(
                f"the sound has {num_clips} clips, the model's max_audio_clips is {self.config.max_audio_clips}"
            )
        positions = self.clip_positions(torch.arange(num_clips, device=clip_mask.device))
        features = positions.new_zeros(*clip_mask.shape, positions.shape[-1])
        if clip_mask.any():  # attention kernels take no empty batch
            if audio_features is None:
                real_features = self.audio_tower(input_features[clip_mask]).pooler_output
            else:
                real_features = audio_features[clip_mask]
            clip_mask = real_first(clip_mask)  # positions and windows count real clips
            features = features.index_put((clip_mask,), real_features.to(features.dtype))
        hidden_states = (features + positions)[:, :, None]

        all_windows = whole_sequence(clip_mask)
        if self.config.use_utterance_audio:
            # A clip without sound has no windows over it either.
            windows = windows.masked_fill(~clip_mask.any(dim=1)[:, None, None], -1)
            all_windows = torch.cat([all_windows, windows], dim=1)
        tokens = self.audio_qformer(hidden_states, clip_mask[:, :, None], all_windows)
        return tokens, all_windows[..., 1] > all_windows[..., 0]
