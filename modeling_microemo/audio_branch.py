"""The audio branch (paper 3.4): the audio tower over segments of sound, then the audio Q-Former over their steps."""

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs

from ..configuration.configuration_microemo import MicroEmoConfig
from .towers import TowerHolderMixin, read_sound, tower_class
from .video_qformer import WindowQFormer, real_first, whole_sequence


class AudioBranch(TowerHolderMixin):
    """Reads segments of sound into audio tokens: the features of their steps, the positions, then [global; window 1; ...].

    ImageBind gives a segment of 2 s one feature vector; Whisper gives one of 30 s 1500, of which `audio_pool_size` are
    averaged to a step.

    Args:
        config ([`MicroEmoConfig`]): The configuration of the model.
    """

    tower_name = "audio_tower"

    def __init__(self, config: MicroEmoConfig):
        super().__init__()
        self.config = config
        self.audio_tower = tower_class(config.audio_config)._from_config(config.audio_config)
        self.segment_positions = nn.Embedding(
            config.max_audio_segments * config.audio_steps_per_segment, config.audio_width
        )
        self.audio_qformer = WindowQFormer(config.audio_qformer_config, config.num_audio_query_tokens)

    def encode(
        self,
        input_features: torch.Tensor,
        step_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        """Runs the audio tower alone.

        Args:
            input_features (`torch.Tensor` of shape `(segments, ...)`): Segments of sound.
            step_mask (`torch.BoolTensor` of shape `(segments, audio_steps_per_segment)`, *optional*):
                The real steps, in front. By default all are real.
            kwargs (`TransformersKwargs`, *optional*): For the audio tower, such as `output_hidden_states`.

        Returns:
            `BaseModelOutputWithPooling`: `last_hidden_state` holds the steps
            `(segments, audio_steps_per_segment, audio_width)`, of which those that are not real mean nothing.
        """
        num_steps = None if step_mask is None else step_mask.sum(dim=1)
        return read_sound(self.audio_tower, self.config, input_features, num_steps, **kwargs)

    def step_mask(
        self, segment_mask: torch.Tensor, step_mask: torch.Tensor | None, audio_features: torch.Tensor | None
    ) -> torch.Tensor:
        """Returns the mask of the real steps of sound.

        Args:
            segment_mask (`torch.BoolTensor` of shape `(B, C)`): The real segments.
            step_mask (`torch.BoolTensor` of shape `(B, S)` or `None`): The real steps, where the processor says.
            audio_features (`torch.Tensor` of shape `(B, S, audio_width)` or `None`): The tower's output, if it is given.

        Returns:
            `torch.BoolTensor` of shape `(B, S)`: The mask. Without `step_mask` all steps of real segments are real.

        Raises:
            ValueError: If the mask has another length than the sound.
        """
        if step_mask is None:
            step_mask = segment_mask
            if audio_features is None or audio_features.shape[1] != segment_mask.shape[1]:
                step_mask = segment_mask.repeat_interleave(self.config.audio_steps_per_segment, dim=1)
        expected = segment_mask.shape[1] * self.config.audio_steps_per_segment
        if audio_features is not None:
            expected = audio_features.shape[1]
        if step_mask.shape[1] != expected:
            raise ValueError(f"audio_step_mask has {step_mask.shape[1]} steps for a sound of {expected}")
        return step_mask

    def forward(
        self,
        input_features: torch.Tensor | None,
        segment_mask: torch.Tensor,
        windows: torch.Tensor,
        audio_features: torch.Tensor | None = None,
        step_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[BaseModelOutputWithPooling, torch.Tensor]:
        """Encodes the segments and reads their steps, whole and by windows.

        Args:
            input_features (`torch.Tensor` of shape `(B, C, ...)`):
                The segments, or `None` where `audio_features` stand in their place.
            segment_mask (`torch.BoolTensor` of shape `(B, C)`):
                The real segments, wherever they stand in the padded row.
            windows (`torch.LongTensor` of shape `(B, K, 2)`):
                The steps [start, end) of each window, read with `use_utterance_audio`.
            audio_features (`torch.Tensor` of shape `(B, S, audio_width)`, *optional*): The tower's output.
            step_mask (`torch.BoolTensor` of shape `(B, S)`, *optional*):
                The real steps of all segments. By default those of real segments are.
            kwargs (`TransformersKwargs`, *optional*): For the audio tower, such as `output_hidden_states`.

        Returns:
            `tuple[BaseModelOutputWithPooling, torch.Tensor]`: `last_hidden_state` holds the tokens
            `(B, W, num_audio_query_tokens, hidden_size)`, beside the hidden states and attentions of the tower; then
            follows the mask `(B, W)` of real windows. W is 1, or 1 + K with `use_utterance_audio`.

        Raises:
            ValueError: If there is more sound than the position table has rows.
        """
        step_mask = self.step_mask(segment_mask, step_mask, audio_features)
        num_steps, per_segment = step_mask.shape[1], self.config.audio_steps_per_segment
        if num_steps > self.segment_positions.num_embeddings:
            raise ValueError(
                f"the sound has {-(-num_steps // per_segment)} segments, the model's max_audio_segments is "
                f"{self.config.max_audio_segments}"
            )
        tower = BaseModelOutputWithPooling()
        positions = self.segment_positions(torch.arange(num_steps, device=step_mask.device))
        features = positions.new_zeros(*step_mask.shape, positions.shape[-1])
        if step_mask.any():  # attention kernels take no empty batch
            if audio_features is None:
                of_segments = step_mask.unflatten(1, (-1, per_segment))[segment_mask]
                tower = self.encode(input_features[segment_mask], of_segments, **kwargs)
                real_features = tower.last_hidden_state[of_segments]
            else:
                real_features = audio_features[step_mask]
            step_mask = real_first(step_mask)  # positions and windows count real steps
            features = features.index_put((step_mask,), real_features.to(features.dtype))
        hidden_states = (features + positions)[:, :, None]

        all_windows = whole_sequence(step_mask)
        if self.config.use_utterance_audio:
            # A clip without sound has no windows over it either.
            windows = windows.masked_fill(~step_mask.any(dim=1)[:, None, None], -1)
            all_windows = torch.cat([all_windows, windows], dim=1)
        tokens = self.audio_qformer(hidden_states, step_mask[:, :, None], all_windows)
        output = BaseModelOutputWithPooling(
            last_hidden_state=tokens, hidden_states=tower.hidden_states, attentions=tower.attentions
        )
        return output, all_windows[..., 1] > all_windows[..., 0]
