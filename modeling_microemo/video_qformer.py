"""The utterance-aware video Q-Former (paper 3.3): tokens for the whole video and for each utterance's window."""

import torch
from torch import nn
from transformers import PreTrainedConfig

from ..configuration.configuration_microemo import MicroEmoConfig
from .qformer import MicroEmoQFormer


class WindowQFormer(nn.Module):
    """A Q-Former whose queries read windows of a sequence, all windows of a batch in one padded forward.

    Args:
        config ([`MicroEmoVideoQFormerConfig`]): The configuration of the Q-Former.
        num_query_tokens (`int`): How many learned queries read each window.
    """

    def __init__(self, config: PreTrainedConfig, num_query_tokens: int):
        super().__init__()
        self.query_tokens = nn.Parameter(torch.zeros(1, num_query_tokens, config.hidden_size))
        self.qformer = MicroEmoQFormer._from_config(config)

    def forward(self, hidden_states: torch.Tensor, mask: torch.Tensor, windows: torch.Tensor) -> torch.Tensor:
        """Reads each window.

        Args:
            hidden_states (`torch.Tensor` of shape `(B, T, tokens, encoder_hidden_size)`): The steps of a sequence.
            mask (`torch.BoolTensor` of shape `(B, T, tokens)`): The real tokens.
            windows (`torch.LongTensor` of shape `(B, K, 2)`): The steps [start, end) of each window, -1 where padded.

        Returns:
            `torch.Tensor` of shape `(B, K, num_query_tokens, hidden_size)`: The tokens, exactly 0 for padded windows.

        Raises:
            ValueError: If a window ends after the sequence.
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
    """Returns `sequences[row, step]`, with a gradient that is the same in every run.

    Where a step is taken several times, the gradient of plain indexing is summed on the CPU in whatever order threads
    come, and differs in its last bits; that of an embedding does not.

    Args:
        sequences (`torch.Tensor` of shape `(B, T, ...)`): The sequences.
        row (`torch.LongTensor`): The sequence of each step that is taken.
        step (`torch.LongTensor`): Its place in the sequence. Both are of shapes that broadcast.

    Returns:
        `torch.Tensor`: The steps, of the broadcast shape and the rest of that of `sequences`.
    """
    taken = nn.functional.embedding(row * sequences.shape[1] + step, sequences.flatten(0, 1).flatten(1))
    return taken.unflatten(-1, sequences.shape[2:])


def real_first(mask: torch.Tensor) -> torch.Tensor:
    """Returns the mask of a batch whose real steps have moved to the front of their rows, in their order.

    Padding on the left (Transformers' pipelines pad so, in a batch) must give the same as padding on the right:
    positions and windows count real steps.

    Args:
        mask (`torch.BoolTensor` of shape `(B, T)`): The real steps, wherever they stand.

    Returns:
        `torch.BoolTensor` of shape `(B, T)`: As many real steps in each row, in front.

    Example:

    ```python
    >>> import torch

    >>> from microemo.modeling_microemo.video_qformer import real_first

    >>> real_first(torch.tensor([[False, True, True]])).tolist()
    [[True, True, False]]
    ```"""
    return torch.arange(mask.shape[1], device=mask.device) < mask.sum(dim=1, keepdim=True)


def whole_sequence(mask: torch.Tensor) -> torch.Tensor:
    """Returns the one window over all steps of a sequence.

    Args:
        mask (`torch.BoolTensor` of shape `(B, T)`): The real steps.

    Returns:
        `torch.LongTensor` of shape `(B, 1, 2)`: The window [0, T), -1 where no step is real.
    """
    num_steps = mask.shape[1]
    real = mask.any(dim=1)
    return torch.stack([torch.where(real, 0, -1), torch.where(real, num_steps, -1)], dim=-1)[:, None]


class ClipBaseline(nn.Linear):
    """Adds to each frame token a projection of its difference from the clip: what this face does, beside how it is built."""

    def forward(self, frame_tokens: torch.Tensor, token_mask: torch.Tensor) -> torch.Tensor:
        """Adds the projected differences.

        Args:
            frame_tokens (`torch.Tensor` of shape `(B, T, tokens, width)`): The tokens of the frames.
            token_mask (`torch.BoolTensor` of shape `(B, T, tokens)`): The real tokens, which the mean is taken of.

        Returns:
            `torch.Tensor` of shape `(B, T, tokens, width)`: The tokens.
        """
        mask = token_mask[..., None].to(frame_tokens.dtype)
        mean = (frame_tokens * mask).sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True).clamp(min=1)
        return frame_tokens + super().forward(frame_tokens - mean)


class UtteranceAwareVideoQFormer(nn.Module):
    """Reads frame tokens into [global; window 1; ...; window K], `num_video_query_tokens` each (paper 3.3).

    Positions are absolute frame indices, inside windows too.

    Args:
        config ([`MicroEmoConfig`]): The configuration of the model.
    """

    def __init__(self, config: MicroEmoConfig):
        super().__init__()
        self.config = config
        width = config.image_qformer_config.hidden_size
        self.frame_positions = nn.Embedding(config.max_frames, width)
        if config.use_clip_baseline:
            self.clip_baseline = ClipBaseline(width, width, bias=False)
        shared = config.use_global_window and config.share_video_qformer
        if config.use_global_window:
            self.global_qformer = WindowQFormer(config.video_qformer_config, config.num_video_query_tokens)
        if config.windows != "none" and not shared:
            self.window_qformer = WindowQFormer(config.video_qformer_config, config.num_video_query_tokens)

    def forward(
        self, frame_tokens: torch.Tensor, token_mask: torch.Tensor, windows: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Reads the whole clip and its windows.

        Args:
            frame_tokens (`torch.Tensor` of shape `(B, T, tokens, hidden_size)`): The visual encoder's tokens.
            token_mask (`torch.BoolTensor` of shape `(B, T, tokens)`): The real tokens, all False for padded frames.
            windows (`torch.LongTensor` of shape `(B, K, 2)`): The frames [start, end) of each window, -1 where padded.

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: The tokens `(B, W, num_video_query_tokens, hidden_size)` and the mask
            `(B, W)` of real windows. W is 1 + K, K without the global pass, and 1 with `windows="none"`.

        Raises:
            ValueError: If a clip has more frames than `max_frames`.
        """
        num_frames = frame_tokens.shape[1]
        if num_frames > self.config.max_frames:
            raise ValueError(f"a clip has {num_frames} frames, the model's max_frames is {self.config.max_frames}")
        if self.config.use_clip_baseline:
            frame_tokens = self.clip_baseline(frame_tokens, token_mask)
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
