"""Prompts that begin alike, such as the questions about one clip: their common beginning is read once."""

import dataclasses
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer


@dataclasses.dataclass
class SharedPrefixes:
    """B prompts of length S as G common prefixes of P tokens and B suffixes of S - P tokens.

    Both are padded on the left, so that the tokens of a row read `[padding, prefix, padding, suffix]`.

    Attributes:
        prefix_embeds (`torch.Tensor` of shape `(G, P, width)`): The embedded prefixes.
        prefix_mask (`torch.LongTensor` of shape `(G, P)`): 1 for the tokens of a prefix, 0 for its padding.
        suffix_embeds (`torch.Tensor` of shape `(B, S - P, width)`): The embedded suffixes.
        attention_mask (`torch.LongTensor` of shape `(B, S)`): 1 for the tokens of a prompt in this layout.
        group (`torch.LongTensor` of shape `(B,)`): The prefix of each prompt.
    """

    prefix_embeds: torch.Tensor
    prefix_mask: torch.Tensor
    suffix_embeds: torch.Tensor
    attention_mask: torch.Tensor
    group: torch.Tensor


def find_shared_prefixes(inputs_embeds: torch.Tensor, attention_mask: torch.Tensor) -> SharedPrefixes | None:
    """Finds the neighbouring prompts of a batch that begin alike.

    A prompt shares the prefix of the one before it if at least half of its tokens are those of its neighbour. The
    embeddings are compared, so that prompts about different clips differ at the first token of the clip.

    Args:
        inputs_embeds (`torch.Tensor` of shape `(B, S, width)`): The prompts with their media.
        attention_mask (`torch.LongTensor` of shape `(B, S)`): 1 for the tokens of a prompt, 0 for its padding.

    Returns:
        `SharedPrefixes`: The prompts in two parts, or `None` if no two begin alike or if they are not padded on the
        left.
    """
    attention_mask = attention_mask.to(inputs_embeds.device)
    size = attention_mask.shape[1]
    lengths = attention_mask.sum(dim=1)
    column = torch.arange(size, device=lengths.device)
    is_padded_left = (attention_mask.bool() == (column >= (size - lengths)[:, None])).all()
    if not is_padded_left or not lengths.all():
        return None

    # Token j of a prompt of length L stands in column S - L + j; here it comes to stand in column j.
    tokens = _take(inputs_embeds, ((size - lengths)[:, None] + column).clamp(max=size - 1))
    is_alike = (tokens[1:] == tokens[:-1]).all(dim=-1) & (column < torch.minimum(lengths[1:], lengths[:-1])[:, None])
    in_common = is_alike.long().cumprod(dim=1).sum(dim=1)
    # Each prompt keeps a token of its own: the first token of the answer comes from it.
    prefix_lengths, group = [int(lengths[0]) - 1], [0]
    for length, common in zip(lengths[1:].tolist(), in_common.tolist(), strict=True):
        if 2 * common >= length:
            prefix_lengths[-1] = min(prefix_lengths[-1], common, length - 1)
        else:
            prefix_lengths.append(length - 1)
        group.append(len(prefix_lengths) - 1)
    if len(prefix_lengths) == len(lengths):
        return None

    of_group, of_prompt = (
        torch.tensor(prefix_lengths, device=lengths.device),
        torch.tensor(group, device=lengths.device),
    )
    # The number of columns stays S: where another group needs long suffixes, a prefix gives tokens to its own.
    num_prefix_columns = size - int((lengths - of_group[of_prompt]).max())
    of_group = of_group.clamp(max=num_prefix_columns)
    first_of_group = torch.searchsorted(of_prompt, torch.arange(len(of_group), device=lengths.device))
    prefix_token = column[:num_prefix_columns] - num_prefix_columns + of_group[:, None]
    suffix_token = column[num_prefix_columns:] - size + lengths[:, None]
    is_suffix = suffix_token >= of_group[of_prompt][:, None]
    prefix_mask = (prefix_token >= 0).to(attention_mask.dtype)
    return SharedPrefixes(
        prefix_embeds=_take(tokens[first_of_group], prefix_token.clamp(min=0)),
        prefix_mask=prefix_mask,
        suffix_embeds=_take(tokens, suffix_token.clamp(min=0)),
        attention_mask=torch.cat([prefix_mask[of_prompt], is_suffix.to(attention_mask.dtype)], dim=1),
        group=of_prompt,
    )


class BranchedLayer(DynamicLayer):
    """A layer of a key-value cache that several prompts continue from a common prefix.

    It grows in place, some steps at a time. A `DynamicLayer` copies all rows at each step, which took a fifth of the
    time of a step of eight answers at the 7b preset's width on a CPU.

    Args:
        layer (`DynamicLayer`): The layer of the prefixes, with G rows.
        group (`torch.LongTensor` of shape `(B,)`): The prefix of each prompt.
        room (`int`, *optional*, defaults to 64): The number of tokens by which it grows.
    """

    def __init__(self, layer: DynamicLayer, group: torch.Tensor, room: int = 64):
        super().__init__()
        self.room = room
        self._buffers: dict[str, tuple[torch.Tensor, int]] = {}
        self.lazy_initialization(layer.keys, layer.values)
        group = group.to(layer.keys.device)
        self.keys, self.values = layer.keys[group], layer.values[group]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Appends the states of new tokens.

        Args:
            key_states (`torch.Tensor` of shape `(B, heads, tokens, width)`): The new keys.
            value_states (`torch.Tensor` of shape `(B, heads, tokens, width)`): The new values.
            args (`Any`): What other layers take.
            kwargs (`Any`, *optional*): What other layers take.

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: The keys and the values of all tokens.
        """
        self.keys = self._append("keys", key_states)
        self.values = self._append("values", value_states)
        return self.keys, self.values

    def _append(self, name: str, new: torch.Tensor) -> torch.Tensor:
        states, (buffer, filled) = getattr(self, name), self._buffers.get(name, (None, 0))
        batch, heads, start, width = states.shape
        stop = start + new.shape[-2]
        # Nothing that was written is written over: after a crop or a new order of the rows there is a new buffer.
        is_ours = buffer is not None and states.data_ptr() == buffer.data_ptr() and len(states) == len(buffer)
        if not is_ours or start != filled or stop > buffer.shape[-2]:
            buffer = states.new_empty(batch, heads, stop + self.room, width)
            buffer[..., :start, :] = states
        buffer[..., start:stop, :] = new
        self._buffers[name] = (buffer, stop)
        return buffer[..., :stop, :]


def can_branch(cache: Cache | None) -> bool:
    """Whether a key-value cache is empty and of a kind whose rows can be copied and may hold padding anywhere.

    Args:
        cache (`Cache` or `None`): The cache.

    Returns:
        `bool`: `True` for an empty `DynamicCache` without sliding windows, recurrent states and offloading.
    """
    return (
        type(cache) is DynamicCache
        and not cache.offloading
        and cache.get_seq_length() == 0
        and all(type(layer) is DynamicLayer for layer in cache.layers)
    )


def _take(tokens: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """The tokens `(B, n, width)` of rows `(B, S, width)` at the positions `(B, n)`."""
    return tokens[torch.arange(len(index), device=index.device)[:, None], index]
