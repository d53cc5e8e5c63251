"""A tiny model and inputs of the form that the processor returns, made without it."""

import pytest
import torch

from microemo import MicroEmoConfig, MicroEmoForConditionalGeneration


def make_config(**switches) -> MicroEmoConfig:
    """The tiny preset with switches; unlike `from_preset` it takes another language model whole."""
    return MicroEmoConfig(**{**MicroEmoConfig.from_preset("microemo-tiny").to_dict(), **switches})


def make_model(seed: int = 0, attn_implementation: str = "sdpa", **switches) -> MicroEmoForConditionalGeneration:
    torch.manual_seed(seed)
    config = make_config(**switches)
    config._attn_implementation = attn_implementation
    return MicroEmoForConditionalGeneration(config).eval()


def make_inputs(
    config: MicroEmoConfig,
    frames: list[int] = (5, 3),
    windows: list[list[tuple[int, int]]] = (((0, 2), (2, 3), (3, 5)), ((1, 3),)),
    sound: list[bool] | None = None,
    seed: int = 1,
) -> dict[str, torch.Tensor]:
    """A batch of clips, left-padded prompts included. Frames 0 of every clip have no face."""
    generator = torch.Generator().manual_seed(seed)
    batch, num_frames = len(frames), max(frames)
    side, patches = config.vision_config.image_size, config.vision_config.num_patches
    region_masks = torch.rand(batch, num_frames, config.num_regions, patches, generator=generator) > 0.9
    region_masks[..., :8] = False  # the first row of patches lies outside every region
    region_masks[:, 0] = False
    padded_windows = torch.full((batch, max(len(row) for row in windows), 2), -1)
    for row, spans in enumerate(windows):
        for index, span in enumerate(spans):
            padded_windows[row, index] = torch.tensor(span)
    frame_mask = torch.arange(num_frames) < torch.tensor(frames)[:, None]
    qformer_input_ids = torch.randint(5, 60, (batch, num_frames, 9), generator=generator)

    prompts = []
    sound = sound or [True] * batch
    for spans, has_sound in zip(windows, sound, strict=True):
        blocks = int(config.use_global_window) + (len(spans) if config.windows != "none" else 0)
        sounds = has_sound * (1 + (len(spans) if config.use_utterance_audio else 0))
        prompts.append(
            [1]
            + [config.video_token_id] * (config.num_video_query_tokens * blocks)
            + [config.audio_token_id] * (config.num_audio_query_tokens * sounds)
            + [17, 18, 19]
        )
    length = max(map(len, prompts))
    return {
        "input_ids": torch.tensor([[0] * (length - len(prompt)) + prompt for prompt in prompts]),
        "attention_mask": torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts]),
        "pixel_values_videos": torch.randn(batch, num_frames, 3, side, side, generator=generator),
        "frame_mask": frame_mask,
        "region_masks": region_masks & frame_mask[..., None, None],
        "pixel_values_faces": torch.randn(batch, num_frames, 3, side, side, generator=generator),
        "qformer_input_ids": qformer_input_ids,
        "qformer_attention_mask": torch.ones_like(qformer_input_ids),
        "utterance_windows": padded_windows,
        "audio_windows": padded_windows,
        "input_features": torch.randn(batch, 8, 1, 128, 204, generator=generator),
        "audio_clip_mask": torch.tensor(sound)[:, None].expand(batch, 8).clone(),
    }


VIDEO = (
    "pixel_values_videos",
    "frame_mask",
    "region_masks",
    "pixel_values_faces",
    "qformer_input_ids",
    "qformer_attention_mask",
    "utterance_windows",
)
AUDIO = ("input_features", "audio_clip_mask", "audio_windows")


@pytest.fixture
def tiny():
    """The helpers of this file, for tests to call with their own switches."""

    class Helpers:
        config, model, inputs = staticmethod(make_config), staticmethod(make_model), staticmethod(make_inputs)

        @staticmethod
        def video(inputs):
            return {name: inputs[name] for name in VIDEO}

        @staticmethod
        def audio(inputs):
            return {name: inputs[name] for name in AUDIO}

    return Helpers
