"""A tiny model and inputs of the form that the processor returns, made without it."""

import pytest
import torch

from microemo import MicroEmoConfig, MicroEmoForConditionalGeneration
from microemo.configuration.model_inputs import inputs_of


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
        "input_features": torch.randn(
            batch, 8, 1, config.audio_config.num_mel_bins, config.audio_config.num_mel_frames, generator=generator
        ),
        "audio_segment_mask": torch.tensor(sound)[:, None].expand(batch, 8).clone(),
    }


@pytest.fixture
def tiny():
    """The helpers of this file, for tests to call with their own switches."""

    class Helpers:
        config, model, inputs = staticmethod(make_config), staticmethod(make_model), staticmethod(make_inputs)

        @staticmethod
        def video(inputs):
            return {name: inputs[name] for name in inputs_of("video") if name in inputs}

        @staticmethod
        def audio(inputs):
            return {name: inputs[name] for name in inputs_of("audio") if name in inputs}

    return Helpers


def make_language_model(folder, hidden_size: int = 32, num_hidden_layers: int = 2, seed: int = 5, **options):
    """A small LLaMA of `hidden_size` with a byte-level tokenizer that knows no `<video>`, as a checkpoint folder."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        ["what does the speaker feel, and why?"] * 4,
        trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>", "<s>", "</s>"], initial_alphabet=alphabet),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        hidden_size=hidden_size,
        intermediate_size=64,
        num_hidden_layers=num_hidden_layers,
        num_attention_heads=2 if hidden_size % 4 == 0 else 1,
        vocab_size=len(tokenizer),
        bos_token_id=1,
        eos_token_id=2,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
    )
    torch.manual_seed(seed)
    LlamaForCausalLM(config).save_pretrained(folder, **options)
    return folder


@pytest.fixture(scope="session")
def language_model():
    """`make_language_model`, for tests to call with their own sizes."""
    return make_language_model


@pytest.fixture(scope="session")
def bert_tokenizer(tmp_path_factory):
    """A folder with a small tokenizer of BERT's kind."""
    from microemo.publishing.initialize import tiny_qformer_tokenizer

    folder = tmp_path_factory.mktemp("bert")
    tiny_qformer_tokenizer().save_pretrained(folder)
    return folder
