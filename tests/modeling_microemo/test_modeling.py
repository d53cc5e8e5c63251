import copy
import itertools
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoModelForMultimodalLM

from microemo import MicroEmoForConditionalGeneration, MicroEmoProcessor
from microemo.publishing.initialize import SHIPPED

IMPLEMENTATIONS = pytest.mark.parametrize("attn_implementation", ["sdpa", "eager"])


def one_clip(inputs, row, frames, windows):
    """Row `row` of a batch as a batch of its own, without padding."""
    real = inputs["attention_mask"][row].bool()
    alone = {name: value[row : row + 1] for name, value in inputs.items()}
    alone["input_ids"], alone["attention_mask"] = alone["input_ids"][:, real], alone["attention_mask"][:, real]
    for name in (
        "pixel_values_videos",
        "frame_mask",
        "region_masks",
        "pixel_values_faces",
        "qformer_input_ids",
        "qformer_attention_mask",
    ):
        alone[name] = alone[name][:, :frames]
    for name in ("utterance_windows", "audio_windows"):
        alone[name] = alone[name][:, :windows]
    return alone


@IMPLEMENTATIONS
@pytest.mark.parametrize("local_view", ["frame", "face_crop"])
@torch.no_grad()
def test_padding_changes_no_result(tiny, attn_implementation, local_view):
    model = tiny.model(attn_implementation=attn_implementation, local_view=local_view)
    inputs = tiny.inputs(model.config)
    logits = model(**inputs).logits
    for row, (frames, windows) in enumerate([(5, 3), (3, 1)]):
        alone = model(**one_clip(inputs, row, frames, windows)).logits[0]
        torch.testing.assert_close(logits[row, -len(alone) :], alone, atol=1e-5, rtol=0)


@torch.no_grad()
def test_padding_changes_no_result_where_a_clip_has_no_face_no_windows_or_no_sound(tiny):
    model = tiny.model()
    windows = [(), ((0, 2),), ((0, 1), (1, 6))]
    inputs = tiny.inputs(model.config, frames=[4, 2, 6], windows=windows, sound=[True, True, False])
    inputs["region_masks"][1] = False
    logits = model(**inputs).logits
    for row, (frames, windows) in enumerate([(4, 0), (2, 1), (6, 2)]):
        alone = model(**one_clip(inputs, row, frames, windows)).logits[0]
        torch.testing.assert_close(logits[row, -len(alone) :], alone, atol=1e-5, rtol=0)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_features_are_as_many_as_the_windows_ask_for(data):
    from microemo.configuration.configuration_microemo import MicroEmoConfig

    frames = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    windows = []
    for count in frames:
        cuts = sorted(data.draw(st.sets(st.integers(0, count), max_size=4)))
        windows.append(list(itertools.pairwise(cuts)))
    config = MicroEmoConfig.from_preset("microemo-tiny", use_global_window=data.draw(st.booleans()))
    model = MODELS.setdefault(config.use_global_window, MicroEmoForConditionalGeneration(config).eval())
    batch, longest = len(frames), max(frames)
    padded = torch.full((batch, max(map(len, windows)), 2), -1)
    for row, spans in enumerate(windows):
        if spans:
            padded[row, : len(spans)] = torch.tensor(spans)
    with torch.no_grad():
        features = model.get_video_features(
            vision_features=torch.randn(batch, longest, 65, 128),
            face_features=torch.randn(batch, longest, 65, 128),
            frame_mask=torch.arange(longest) < torch.tensor(frames)[:, None],
            region_masks=torch.rand(batch, longest, 11, 64) > 0.9,
            qformer_input_ids=torch.randint(5, 60, (batch, longest, 7)),
            utterance_windows=padded,
        ).pooler_output
    n = config.num_video_query_tokens
    assert [len(row) for row in features] == [n * (int(config.use_global_window) + len(spans)) for spans in windows]


MODELS: dict[bool, MicroEmoForConditionalGeneration] = {}


@torch.no_grad()
def test_precomputed_tower_outputs_give_the_same_result(tiny):
    model = tiny.model()
    inputs = tiny.inputs(model.config)
    expected = model(**inputs).logits
    vision, audio = model.model.visual_encoder.vision_model, model.model.audio_branch.audio_tower
    cached = dict(inputs)
    for pixels, features in (("pixel_values_videos", "vision_features"), ("pixel_values_faces", "face_features")):
        value = cached.pop(pixels)
        cached[features] = vision(value.flatten(0, 1)).last_hidden_state.unflatten(0, value.shape[:2])
    value = cached.pop("input_features")
    cached["audio_features"] = audio(value.flatten(0, 1)).pooler_output.unflatten(0, value.shape[:2])
    torch.testing.assert_close(model(**cached).logits, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("keep_timestamp_tokens", [False, True])
@torch.no_grad()
def test_precomputed_frame_tokens_give_the_same_result(tiny, keep_timestamp_tokens):
    model = tiny.model(keep_timestamp_tokens=keep_timestamp_tokens)
    inputs = tiny.inputs(model.config)
    expected = model(**inputs).logits
    seen, kept = model.model.visual_encoder.forward, []
    model.model.visual_encoder.forward = lambda **frames: kept.append(seen(**frames)) or kept[0]
    model(**inputs)
    model.model.visual_encoder.forward = None  # nothing is encoded any more
    mask = inputs["frame_mask"]
    real = kept[0].last_hidden_state
    tokens = torch.zeros(*mask.shape, *real.shape[1:]).index_put((mask,), real)
    read = {"pixel_values_videos", "pixel_values_faces", "region_masks"}
    cached = {name: value for name, value in inputs.items() if name not in read}
    torch.testing.assert_close(model(**cached, frame_tokens=tokens).logits, expected, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="missing inputs: pixel_values_videos, region_masks, pixel_values_faces"):
        model.get_video_features()


@torch.no_grad()
def test_prompts_about_one_clip_share_its_encoding(tiny):
    """Row by row what each prompt has with a clip of its own, cited windows too."""
    model = tiny.model()
    inputs = tiny.inputs(model.config)
    rows, cited = [1, 0, 1], torch.tensor([[0, -1], [2, 0], [-1, -1]])
    media = {name: value for name, value in inputs.items() if name not in ("input_ids", "attention_mask")}
    repeated = {name: value[rows] for name, value in media.items()}
    expected = model.model.encode_media(**repeated, cited_utterances=cited)
    calls = []
    handle = model.model.visual_encoder.vision_model.register_forward_pre_hook(
        lambda _, given: calls.append(len(given[0]))
    )
    shared = model.model.encode_media(**media, cited_utterances=cited, clip_index=torch.tensor(rows))
    handle.remove()
    assert calls[0] == inputs["frame_mask"].sum(), "each clip's frames once"
    text = {name: inputs[name][rows] for name in ("input_ids", "attention_mask")}
    ours = model(**text, **media, clip_index=torch.tensor(rows)).logits
    torch.testing.assert_close(ours, model(**text, **repeated).logits, atol=1e-5, rtol=0)
    answers = [
        model.generate(**text, **given, max_new_tokens=4)
        for given in (repeated, media | {"clip_index": torch.tensor(rows)})
    ]
    assert torch.equal(*answers)
    for modality in ("video", "audio"):
        ours, theirs = shared[modality].pooler_output, expected[modality].pooler_output
        assert len(ours) == 3
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


@torch.no_grad()
def test_a_cited_utterance_puts_its_windows_tokens_again(tiny):
    model = tiny.model()
    inputs = tiny.inputs(model.config)
    cited = torch.tensor([[2, 0], [0, -1]])
    n, m = model.config.num_video_query_tokens, model.config.num_audio_query_tokens
    video = model.get_video_features(**tiny.video(inputs), cited_utterances=cited).pooler_output
    audio = model.get_audio_features(**tiny.audio(inputs), cited_utterances=cited).pooler_output
    for tokens, size in ((video, n), (audio, m)):
        assert [len(row) for row in tokens] == [size * 6, size * 3]
        blocks = tokens[0].unflatten(0, (6, size))
        assert torch.equal(blocks[4], blocks[3]) and torch.equal(blocks[5], blocks[1])
        assert torch.equal(tokens[1][2 * size :], tokens[1][size : 2 * size])
    with pytest.raises(ValueError, match="cited utterance 1 .* no window"):
        model.get_video_features(**tiny.video(inputs), cited_utterances=torch.tensor([[0], [1]]))


def test_counts_that_do_not_match_are_an_error_with_both(tiny):
    model = tiny.model()
    inputs = tiny.inputs(model.config)
    fewer = {**inputs, "utterance_windows": inputs["utterance_windows"][:, :2]}
    with pytest.raises(ValueError, match=r"tokens: \[32, 16\], features: \[24, 16\].*windows='utterance'"):
        model(**fewer)
    # Equal sums are no excuse.
    swapped = {**inputs, "utterance_windows": inputs["utterance_windows"].flip(0)}
    swapped["frame_mask"] = torch.ones_like(inputs["frame_mask"])
    with pytest.raises(ValueError, match=r"tokens: \[32, 16\], features: \[16, 32\]"):
        model(**swapped)
    with pytest.raises(ValueError, match=r"Audio features and audio tokens.*features: \[4, 4\].*use_utterance_audio"):
        tiny.model(use_utterance_audio=False)(**inputs)
    with pytest.raises(ValueError, match=r"tokens: \[32, 16\], features: \[\]"):
        model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])


def test_missing_inputs_are_named(tiny):
    model = tiny.model()
    inputs = tiny.inputs(model.config)
    for name in ("region_masks", "pixel_values_faces", "qformer_input_ids"):
        with pytest.raises(ValueError, match=f"missing inputs: {name}"):
            model(**{key: value for key, value in inputs.items() if key != name})


@torch.no_grad()
def test_text_alone_works(tiny):
    model = tiny.model()
    assert model(input_ids=torch.tensor([[1, 20, 21]])).logits.shape == (1, 3, 1024)


@pytest.mark.parametrize("tie", [True, False])
@torch.no_grad()
def test_save_and_load_is_exact_and_complete(tiny, tmp_path, tie):
    model = tiny.model(
        tie_word_embeddings=tie, text_config={**tiny.config().text_config.to_dict(), "tie_word_embeddings": tie}
    )
    inputs = tiny.inputs(model.config)
    model.save_pretrained(tmp_path, max_shard_size="4MB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    for auto_class in (MicroEmoForConditionalGeneration, AutoModelForMultimodalLM, AutoModelForImageTextToText):
        again, report = auto_class.from_pretrained(tmp_path, output_loading_info=True)
        assert type(again) is MicroEmoForConditionalGeneration
        assert not any(report.values()), report
        assert (again.lm_head.weight is again.get_input_embeddings().weight) == tie
        assert torch.equal(again(**inputs).logits, model(**inputs).logits)


@torch.no_grad()
def test_dtype_and_device_map(tiny, tmp_path):
    tiny.model().save_pretrained(tmp_path)
    model = MicroEmoForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.bfloat16, device_map="cpu")
    inputs = tiny.inputs(model.config)
    assert model.dtype == torch.bfloat16
    logits = model(**inputs).logits
    expected = MicroEmoForConditionalGeneration.from_pretrained(tmp_path)(**inputs).logits
    real = inputs["attention_mask"].bool()
    assert logits.dtype == torch.bfloat16
    assert (logits.float() - expected)[real].abs().max() < 0.1 * expected[real].abs().max()


def test_every_parameter_is_initialised(tiny):
    """Nothing is left as the constructors made it: two seeds differ in every weight that is drawn."""
    first, second = tiny.model(seed=0), tiny.model(seed=1)
    others = second.state_dict()
    for name, value in first.named_parameters():
        drawn = not name.endswith((".bias", "norm.weight", "norm1.weight", "norm2.weight", "LayerNorm.weight", "gate"))
        assert torch.equal(value, others[name]) != drawn, name
        assert value.isfinite().all(), name
    assert first.model.visual_encoder.fusion.gate.item() == 1.0
    assert tiny.model(fusion_gate_init=0.0).model.visual_encoder.fusion.gate.item() == 0.0


def test_gradients_reach_every_parameter_also_with_checkpointing(tiny):
    model = tiny.model(windows="utterance").eval()  # the checkpointed layers are switched to training by hand below
    inputs = tiny.inputs(model.config)
    labels = inputs["input_ids"].masked_fill(inputs["input_ids"] < 5, -100)
    model(**inputs, labels=labels).loss.backward()
    plain = {name: value.grad.clone() for name, value in model.named_parameters()}
    # The text rows of the image Q-Former end before its last feed-forward layer: they are not passed on.
    idle = {name for name, grad in plain.items() if grad.abs().sum() == 0}
    assert all(".image_qformer.encoder.layer.2." in n and (".intermediate." in n or ".output." in n) for n in idle), (
        idle
    )

    checkpointed = copy.deepcopy(model)
    checkpointed.zero_grad()
    # Transformers 5.20 knows the first name only, later versions warn about it.
    if hasattr(checkpointed, "activation_checkpointing_enable"):
        checkpointed.activation_checkpointing_enable()
    else:
        checkpointed.gradient_checkpointing_enable()
    checkpointed.train()
    for module in checkpointed.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.0
    checkpointed(**inputs, labels=labels).loss.backward()
    for name, value in checkpointed.named_parameters():
        torch.testing.assert_close(value.grad, plain[name], atol=1e-5, rtol=1e-3, msg=name)


def test_resizing_the_vocabulary(tiny, tmp_path):
    model = tiny.model()
    model.resize_token_embeddings(1100)
    assert model.lm_head.weight.shape == (1100, 128) and model.config.text_config.vocab_size == 1100
    model.save_pretrained(tmp_path)
    assert MicroEmoForConditionalGeneration.from_pretrained(tmp_path).lm_head.weight.shape == (1100, 128)


@pytest.mark.parametrize("model_type", ["qwen2", "gpt2", "opt"])
@torch.no_grad()
def test_other_language_models(tiny, model_type):
    sizes = {
        "qwen2": {
            "hidden_size": 64,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
        },
        "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4},
        "opt": {
            "hidden_size": 64,
            "word_embed_proj_dim": 64,
            "ffn_dim": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
        },
    }
    text_config = {"model_type": model_type, "vocab_size": 300, "tie_word_embeddings": True, **sizes[model_type]}
    model = tiny.model(text_config=text_config)
    assert model(**tiny.inputs(model.config)).logits.shape[-1] == 300
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_language_models_that_scale_their_logits_are_refused(tiny):
    with pytest.raises(ValueError, match="gemma2.*final_logit_softcapping=30"):
        tiny.model(
            text_config={"model_type": "gemma2", "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
        )


def test_flash_attention_is_for_the_language_model_and_the_towers(tiny):
    """The Q-Formers take masks: asked for flash attention they stay on SDPA."""
    model = tiny.model()
    for qformer in (model.model.visual_encoder.image_qformer, model.model.video_qformer.global_qformer.qformer):
        assert qformer.get_correct_attn_implementation("flash_attention_2") == "sdpa"
        assert qformer.get_correct_attn_implementation("eager") == "eager"
    model.set_attn_implementation("eager")
    assert {
        module.config._attn_implementation
        for module in model.modules()
        if hasattr(module, "get_correct_attn_implementation")
    } == {"eager"}


def test_the_7b_preset_has_the_papers_size():
    from microemo import MicroEmoConfig

    with torch.device("meta"):
        model = MicroEmoForConditionalGeneration(MicroEmoConfig.from_preset("microemo-7b"))
    parts = {name: sum(p.numel() for p in part.parameters()) / 1e6 for name, part in model.model.named_children()}
    assert 6600 < parts["language_model"] < 6700
    assert 980 < sum(p.numel() for p in model.model.visual_encoder.vision_model.parameters()) / 1e6 < 1000
    assert 84 < sum(p.numel() for p in model.model.audio_branch.audio_tower.parameters()) / 1e6 < 88


def test_a_folder_of_version_0_1_loads_and_is_saved_by_the_new_names(tmp_path):
    """Segments of sound were called clips: in a saved key, in the configuration and in the feature extractor."""
    old = tmp_path / "old"
    shutil.copytree(SHIPPED, old)
    weights = load_file(old / "model.safetensors")
    assert "model.audio_branch.segment_positions.weight" in weights
    renamed = {name.replace("segment_positions", "clip_positions"): weight for name, weight in weights.items()}
    save_file(renamed, old / "model.safetensors", metadata={"format": "pt"})
    for name in ("config.json", "processor_config.json"):
        text = (old / name).read_text().replace("max_audio_segments", "max_audio_clips")
        (old / name).write_text(text.replace("num_segments", "num_clips").replace("segment_duration", "clip_duration"))
    model, report = MicroEmoForConditionalGeneration.from_pretrained(old, output_loading_info=True)
    assert not any(report.values())
    assert model.config.max_audio_segments == 32 and model.config.audio_config.segment_duration == 0.5
    processor = MicroEmoProcessor.from_pretrained(old)
    assert (processor.feature_extractor.num_segments, processor.feature_extractor.segment_duration) == (32, 0.5)
    processor.check_config(model.config)
    model.save_pretrained(tmp_path / "new")
    assert load_file(tmp_path / "new" / "model.safetensors").keys() == weights.keys()
    assert "clips" not in (tmp_path / "new" / "config.json").read_text()
