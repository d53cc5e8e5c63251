"""The tokens of finished prompts, checked against their clips and the language model's context."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .frame_sampling import uniform_indices
from .prompt_microemo import ClipPrompt, PromptBuilder, RenderedPrompt
from .utterances import sliding_windows

if TYPE_CHECKING:
    from .processing_microemo import MicroEmoProcessor


def tokenize_prompts(
    processor: "MicroEmoProcessor",
    rendered: Sequence[RenderedPrompt],
    prompts: Sequence[ClipPrompt],
    builder: PromptBuilder,
    with_assistant_masks: bool = False,
    **text_kwargs: Any,
) -> dict[str, Any]:
    """Tokenizes prompts.

    Args:
        processor ([`MicroEmoProcessor`]): The processor whose tokenizer is used.
        rendered (`Sequence[RenderedPrompt]`): The finished prompts.
        prompts (`Sequence[ClipPrompt]`): The description of the clip of each prompt.
        builder (`PromptBuilder`): What has made the prompts.
        with_assistant_masks (`bool`, *optional*, defaults to `False`): Whether the tokens of answers are told apart.
        text_kwargs (`Any`, *optional*):
            The keywords of the tokenizer. Special tokens stand in the prompts already; none are added.

    Returns:
        `dict[str, Any]`: `input_ids` and `attention_mask` of shape `(B, S)`; `assistant_masks` and `cited_utterances` if
        they were asked for; and what the keywords ask of the tokenizer.

    Raises:
        ValueError: If a prompt is longer than the context, or if placeholders and tokens of a clip differ in number.
    """
    with_offsets = text_kwargs.pop("return_offsets_mapping", False)
    with_mask = text_kwargs.pop("return_attention_mask", True)
    tokens = processor.tokenizer(
        [prompt.text for prompt in rendered],
        **{"verbose": False, "return_token_type_ids": False, **text_kwargs},
        add_special_tokens=False,
        return_attention_mask=True,
        return_offsets_mapping=with_assistant_masks or with_offsets,
    )
    for row, (ids, prompt) in enumerate(zip(tokens["input_ids"], prompts, strict=True)):
        length, context = sum(tokens["attention_mask"][row]), processor.tokenizer.model_max_length
        if length > context:
            raise ValueError(f"prompt {row} is {length} tokens long, but the language model's context holds {context}")
        found = ids.count(processor.video_token_id), ids.count(processor.audio_token_id)
        expected = builder.count_placeholders(prompt, len(rendered[row].cited))
        if found != expected:
            cut = ", perhaps because truncation has cut it" if text_kwargs.get("truncation") else ""
            raise ValueError(
                f"prompt {row} holds {found[0]} {processor.video_token} and {found[1]} {processor.audio_token}, "
                f"but its clip needs {expected[0]} and {expected[1]}{cut}"
            )
    features = dict(tokens)
    offsets = features.pop("offset_mapping", None)
    if with_offsets:
        features["offset_mapping"] = offsets
    if not with_mask:
        del features["attention_mask"]
    if with_assistant_masks:
        features["assistant_masks"] = [
            [int(any(start < stop and end > first for first, stop in prompt.answers)) for start, end in of_prompt]
            for of_prompt, prompt in zip(offsets, rendered, strict=True)
        ]
    num_cited = max(len(finished.cited) for finished in rendered)
    if num_cited:
        cited = np.full((len(rendered), num_cited), -1, dtype=np.int64)
        for row, finished in enumerate(rendered):
            cited[row, : len(finished.cited)] = finished.cited
        features["cited_utterances"] = cited
    return features


def count_video_tokens(processor: "MicroEmoProcessor", num_frames: int) -> int:
    """Counts the placeholders of a clip without utterances.

    Args:
        processor ([`MicroEmoProcessor`]): The processor whose switches count.
        num_frames (`int`): The number of frames of the clip, which are 1/24 s apart.

    Returns:
        `int`: The number of `<video>` placeholders.
    """
    spans = np.zeros((0, 2))
    if processor.windows == "sliding":
        times = uniform_indices(num_frames, processor.video_processor.num_frames) / 24
        _, spans = sliding_windows(
            times, processor.window_size, processor.window_stride, processor.window_unit, num_frames / 24
        )
    return PromptBuilder(processor).count_placeholders(ClipPrompt(has_video=True, spans=spans))[0]
