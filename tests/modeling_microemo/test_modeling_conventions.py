"""The conventions of Transformers' models, which its tools rely on."""

import inspect

import pytest
import torch
from torch import nn
from transformers import DynamicCache

from microemo.modeling_microemo.generation_microemo import CACHE_NAME


@pytest.fixture(scope="module")
def eager():
    """A model on eager attention, which returns its weights, and inputs for it."""
    from tests.modeling_microemo.conftest import make_inputs, make_model

    model = make_model(attn_implementation="eager", local_view="frame")
    inputs = make_inputs(model.config)
    inputs.pop("pixel_values_faces")
    return model, inputs


RECORDED = {"output_hidden_states": True, "output_attentions": True}


@torch.no_grad()
def test_towers_record_hidden_states_and_attentions(eager):
    model, inputs = eager
    segments = inputs["input_features"].flatten(0, 1)[:2]
    sizes = model.config.audio_config
    tokens = 1 + sizes.num_patches
    output = model.get_encoder("audio")(segments, **RECORDED)
    assert [tuple(states.shape) for states in output.hidden_states] == [(2, tokens, sizes.hidden_size)] * (
        sizes.num_hidden_layers + 1
    )
    assert torch.equal(output.hidden_states[-1], output.last_hidden_state)
    heads = sizes.num_attention_heads
    # The learned key stands behind those of the tokens.
    assert [tuple(weights.shape) for weights in output.attentions] == [
        (2, heads, tokens, tokens + 1)
    ] * sizes.num_hidden_layers
    for weights in output.attentions:
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, heads, tokens))

    frames = inputs["pixel_values_videos"][inputs["frame_mask"]]
    output = model.get_encoder("video")(frames, **RECORDED)
    assert len(output.hidden_states) == model.config.vision_config.num_hidden_layers + 1
    assert len(output.attentions) == model.config.vision_config.num_hidden_layers
    plain = model.get_encoder("video")(frames)
    assert plain.hidden_states is None and plain.attentions is None


@torch.no_grad()
def test_qformers_record_self_and_cross_attention_apart(eager):
    model, _ = eager
    for qformer, text in (
        (model.model.video_qformer.global_qformer.qformer, {}),
        (model.model.visual_encoder.image_qformer, {"input_ids": torch.tensor([[5, 6, 7]] * 2)}),
    ):
        sizes = qformer.config
        states = torch.randn(2, 5, sizes.encoder_hidden_size)
        output = qformer(
            query_embeds=torch.randn(2, 8, sizes.hidden_size), encoder_hidden_states=states, **text, **RECORDED
        )
        crossed = sum(layer % sizes.cross_attention_frequency == 0 for layer in range(sizes.num_hidden_layers))
        assert len(output.hidden_states) == sizes.num_hidden_layers + 1
        length = 8 + (3 if text else 0)
        assert [weights.shape[-2:] for weights in output.attentions] == [(length, length)] * sizes.num_hidden_layers
        assert [weights.shape[-2:] for weights in output.cross_attentions] == [(8, 5)] * crossed


@torch.no_grad()
def test_features_come_with_what_their_tower_recorded(eager):
    model, inputs = eager
    given = {
        name: inputs[name] for name in inspect.signature(model.model.get_video_features).parameters if name in inputs
    }
    output = model.get_video_features(**given, **RECORDED)
    frames = int(inputs["frame_mask"].sum())
    assert len(output.hidden_states) == model.config.vision_config.num_hidden_layers + 1
    assert output.hidden_states[0].shape[0] == output.attentions[0].shape[0] == frames
    torch.testing.assert_close(output.pooler_output, model.get_video_features(**given).pooler_output)
    given = {
        name: inputs[name] for name in inspect.signature(model.model.get_audio_features).parameters if name in inputs
    }
    output = model.get_audio_features(**given, **RECORDED)
    assert len(output.attentions) == model.config.audio_config.num_hidden_layers
    for get in (model.get_video_features, model.get_audio_features):
        with pytest.raises(TypeError, match="'output_hidden_state'"):
            get(**given if get == model.get_audio_features else {}, output_hidden_state=True)


@torch.no_grad()
def test_the_whole_model_records_its_language_model(eager):
    model, inputs = eager
    output = model(**inputs, **RECORDED)
    layers, length = model.config.text_config.num_hidden_layers, inputs["input_ids"].shape[1]
    assert len(output.hidden_states) == layers + 1 and output.hidden_states[0].shape[1] == length
    assert [weights.shape[-1] for weights in output.attentions] == [length] * layers


def test_towers_are_found_and_replaced_by_modality(tiny):
    model = tiny.model()
    vision, audio = model.model.visual_encoder.vision_model, model.model.audio_branch.audio_tower
    assert model.get_encoder("video") is model.get_encoder("image") is vision
    assert model.get_encoder("audio") is audio and model.get_decoder() is model.model.language_model
    model.model.set_encoder(other := tiny.model(seed=3).get_encoder("audio"), "audio")
    assert model.model.audio_branch.audio_tower is other


@pytest.mark.parametrize("modality", ["video", "audio"])
def test_input_embeddings_of_a_tower_are_its_convolution(tiny, modality):
    tower = tiny.model().get_encoder(modality)
    embeddings = tower.get_input_embeddings()
    assert isinstance(embeddings, nn.Conv2d)
    tower.set_input_embeddings(new := nn.Conv2d(1, 1, 1))
    assert tower.get_input_embeddings() is new
    # So that layers behind a frozen tower's checkpoints get a gradient.
    tower.set_input_embeddings(embeddings)
    tower.enable_input_require_grads()


def test_placeholders_are_found_by_their_ids_and_by_their_embeddings(tiny):
    model = tiny.model().model
    ids = tiny.inputs(model.config)["input_ids"]
    embeds = model.get_input_embeddings()(ids)
    video, audio = model.get_placeholder_mask(ids, embeds)
    assert torch.equal(video[..., 0], ids == model.config.video_token_id)
    assert torch.equal(audio[..., 0], ids == model.config.audio_token_id)
    by_embedding = model.get_placeholder_mask(None, embeds)
    assert torch.equal(by_embedding[0], video) and torch.equal(by_embedding[1], audio)
    with pytest.raises(ValueError, match=r"Audio features .* tokens: \[16, 8\], features: \[3\]"):
        model.get_placeholder_mask(ids, embeds, audio_features=[torch.zeros(3, 128)])


@torch.no_grad()
def test_the_cache_is_taken_by_both_names_without_a_warning(tiny, recwarn, caplog):
    model = tiny.model()
    inputs = tiny.inputs(model.config)
    first = model(**inputs, use_cache=True)
    token = first.logits[:, -1:].argmax(dim=-1)
    mask = torch.cat([inputs["attention_mask"], torch.ones_like(token)], dim=1)
    steps = []
    for name in ("past_key_values", "cache"):
        kept = model(**inputs, **{name: DynamicCache(config=model.config.text_config)}).get(CACHE_NAME)
        assert kept.get_seq_length() == inputs["input_ids"].shape[1]
        steps.append(model(input_ids=token, attention_mask=mask, **{name: kept}).logits)
    assert torch.equal(*steps)
    assert not [warning for warning in recwarn if "cache" in str(warning.message)] and not caplog.records
    with pytest.raises(ValueError, match="two names of one input"):
        model(input_ids=token, cache=kept, past_key_values=kept)


@torch.no_grad()
def test_tuples_and_kept_logits(tiny):
    model = tiny.model()
    inputs = tiny.inputs(model.config)
    whole = model(**inputs)
    assert torch.equal(model(**inputs, return_dict=False)[0], whole.logits)
    torch.testing.assert_close(model(**inputs, logits_to_keep=1).logits, whole.logits[:, -1:])
    torch.testing.assert_close(model(**inputs, logits_to_keep=torch.tensor([2, 5])).logits, whole.logits[:, [2, 5]])
    model.config.return_dict = False
    assert torch.equal(model(**inputs)[0], whole.logits)
    assert isinstance(model.get_audio_features(**tiny.audio(inputs)), tuple)


def test_media_and_their_encodings_are_not_taken_together(tiny):
    model = tiny.model()
    inputs = tiny.inputs(model.config)
    encoded = model.model.encode_media(**inputs)
    for call in (model, model.generate):
        with pytest.raises(ValueError, match="mm_encoder_outputs .* both, and .*pixel_values_videos"):
            call(**inputs, mm_encoder_outputs=encoded)


def test_libraries_find_the_token_of_what_is_seen(tiny):
    config = tiny.config()
    assert config.image_token_id == config.video_token_id
    assert "image_token_id" not in config.to_dict()


def test_declarations_hold_for_the_towers_too(tiny):
    model = tiny.model()
    for part in (model, model.model, model.get_encoder("video"), model.get_encoder("audio")):
        assert part._supports_sdpa and part._supports_flash_attn and part._supports_flex_attn
        assert part._can_compile_fullgraph and part._supports_attention_backend
        assert part.base_model_prefix and part.main_input_name in inspect.signature(part.forward).parameters
