"""The utterance-aware video Q-Former (paper 3.3): tokens for the whole video and for each utterance's window."""

import torch
from torch import nn

from ..configuration.configuration_microemo import MicroEmoConfig, MicroEmoVideoQFormerConfig
from .qformer import MicroEmoQFormer


class WindowQFormer(nn.Module):
    """A Q-Former whose queries read windows of a sequence, all windows of a batch in one padded forward."""

    def __init__(self, config: MicroEmoVideoQFormerConfig, num_query_tokens: int):
        super().__init__()
        self.query_tokens = nn.Parameter(torch.zeros(1, num_query_tokens, config.hidden_size))
        self.qformer = MicroEmoQFormer._from_config(config)

    def forward(self, hidden_states: torch.Tensor, mask: torch.Tensor, windows: torch.Tensor) -> torch.Tensor:
        """
        Args:
            hidden_states (`torch.Tensor` of shape `(B, T, tokens, encoder_hidden_size)`): Steps of a sequence.
            mask (`torch.BoolTensor` of shape `(B, T, tokens)`): Real tokens.
            windows (`torch.LongTensor` of shape `(B, K, 2)`): Steps [start, end) of each window, -1 where padded.

        Returns:
            `torch.Tensor` of shape `(B, K, num_query_tokens, hidden_size)`: exactly 0 for padded windows.

        Raises:
            ValueError: if a window ends after the sequence.
        """
        num_steps = hidden_states.shape[1]
        start, end = windows.unbind(dim=-1)
        real = end > start
        row = real.nonzero()[:, 0]
        tokens = hidden_states.new_zeros(*windows.shape[:2], *self.query_tokens.shape[1:])
        if row.numel() == 0:
            return tokens
        start, end = start[real], end[real]
        if end.max() > num_steps:
            raise ValueError(f"a window ends at step {end.max()} of a sequence of {num_steps}")

        # Only the steps inside a window are gathered: short windows stay cheap however long the clip.
        step = start[:, None] + torch.arange((end - start).max(), device=start.device)
        inside = step < end[:, None]
        step = step.clamp(max=num_steps - 1)
        states = take_steps(hidden_states, row[:, None], step).flatten(1, 2)
        states_mask = (mask[row[:, None], step] & inside[..., None]).flatten(1, 2)

        output = self.qformer(
            query_embeds=self.query_tokens.expand(row.shape[0], -1, -1).to(states.device),
            encoder_hidden_states=states,
            encoder_attention_mask=states_mask.long(),
        ).last_hidden_state
        # Without a single key an attention kernel gives what it likes.
        output = output.masked_fill(~states_mask.any(dim=1)[:, None, None], 0.0)
        return tokens.index_put((real,), output.to(tokens.dtype))


def take_steps(sequences: torch.Tensor, row: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """`sequences[row, step]`, with a gradient that is the same in every run.

    Where a step is taken several times, that of plain indexing sums on the CPU in whatever order threads come, and differs in
    its last bits; that of an embedding does not.
    """
    taken = nn.functional.embedding(row * sequences.shape[1] + step, sequences.flatten(0, 1).flatten(1))
    return taken.unflatten(-1, sequences.shape[2:])


def real_first(mask: torch.Tensor) -> torch.Tensor:
    """The mask `(B, T)` of a batch whose real steps have moved to the front of their rows, in their order.

    Whoever pads on the left (Transformers' pipelines do, in a batch) must get the same as whoever pads on the right:
    positions and windows count real steps.
    """
    return torch.arange(mask.shape[1], device=mask.device) < mask.sum(dim=1, keepdim=True)


def whole_sequence(mask: torch.Tensor) -> torch.Tensor:
    """The one window `(B, 1, 2)` over all steps of a sequence with step mask `(B, T)`; padded where none is real."""
    num_steps = mask.shape[1]
    real = mask.any(dim=1)
    return torch.stack([torch.where(real, 0, -1), torch.where(real, num_steps, -1)], dim=-1)[:, None]


class UtteranceAwareVideoQFormer(nn.Module):
    """Frame tokens → [global; window 1; ...; window K], `num_video_query_tokens` each (paper 3.3).

    Positions are absolute frame indices, inside windows too.
    """

    def __init__(self, config: MicroEmoConfig):
        super().__init__()
        self.config = config
        self.frame_positions = nn.Embedding(config.max_frames, config.image_qformer_config.hidden_size)
        shared = config.use_global_window and config.share_video_qformer
        if config.use_global_window:
            self.global_qformer = WindowQFormer(config.video_qformer_config, config.num_video_query_tokens)
        if config.windows != "none" and not shared:
            self.window_qformer = WindowQFormer(config.video_qformer_config, config.num_video_query_tokens)

    def forward(
        self, frame_tokens: torch.Tensor, token_mask: torch.Tensor, windows: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            frame_tokens (`torch.Tensor` of shape `(B, T, tokens, hidden_size)`): From the visual encoder.
            token_mask (`torch.BoolTensor` of shape `(B, T, tokens)`): All False for padded frames.
            windows (`torch.LongTensor` of shape `(B, K, 2)`): Frames [start, end), -1 where padded.

        Returns:
            Tokens `(B, W, num_video_query_tokens, hidden_size)` and the mask `(B, W)` of real windows; W = 1 + K,
            K without the global pass, 1 with `windows="none"`.

        Raises:
            ValueError: if a clip has more frames than `max_frames`.
        """
        num_frames = frame_tokens.shape[1]
        if num_frames > self.config.max_frames:
            raise ValueError(f"a clip has {num_frames} frames, the model's max_frames is {self.config.max_frames}")
        positions = self.frame_positions(torch.arange(num_frames, device=frame_tokens.device))
        frame_tokens = frame_tokens + positions[:, None]

        passes = []
        if self.config.use_global_window:
            passes.append((self.global_qformer, whole_sequence(token_mask.any(dim=-1))))
        if self.config.windows != "none":
            passes.append((getattr(self, "window_qformer", None) or self.global_qformer, windows))
        tokens = [qformer(frame_tokens, token_mask, window) for qformer, window in passes]
        real = [window[..., 1] > window[..., 0] for _, window in passes]
        return torch.cat(tokens, dim=1), torch.cat(real, dim=1)
