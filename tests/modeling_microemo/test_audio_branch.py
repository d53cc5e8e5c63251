import math

import pytest
import torch
from torch import nn


@torch.no_grad()
def test_attention_equals_torchs_with_appended_bias(tiny):
    """`torch.nn.MultiheadAttention(add_bias_kv=True)` is what ImageBind is built on."""
    attention = tiny.model().model.audio_branch.audio_tower.layers[0].attention
    nn.init.normal_(attention.bias_k)
    nn.init.normal_(attention.bias_v)
    reference = nn.MultiheadAttention(96, 4, bias=True, add_bias_kv=True, batch_first=True).eval()
    reference.in_proj_weight.copy_(attention.qkv.weight)
    reference.in_proj_bias.copy_(attention.qkv.bias)
    reference.bias_k.copy_(attention.bias_k)
    reference.bias_v.copy_(attention.bias_v)
    reference.out_proj.weight.copy_(attention.projection.weight)
    reference.out_proj.bias.copy_(attention.projection.bias)
    hidden = torch.randn(3, 20, 96)
    torch.testing.assert_close(attention(hidden)[0], reference(hidden, hidden, hidden)[0], atol=1e-6, rtol=0)


@torch.no_grad()
def test_features_have_the_length_of_the_logit_scale(tiny):
    tower = tiny.model().model.audio_branch.audio_tower
    features = tower(torch.randn(3, 1, 128, 48)).pooler_output
    torch.testing.assert_close(features.norm(dim=-1), torch.full((3,), 20.0), atol=1e-4, rtol=0)
    assert tower.state_dict()["log_logit_scale"].item() == pytest.approx(math.log(20.0))


@torch.no_grad()
def test_windows_over_sound(tiny):
    model = tiny.model()
    inputs = tiny.inputs(model.config)
    before = model.get_audio_features(**tiny.audio(inputs)).last_hidden_state
    moved = inputs["input_features"].clone()
    moved[0, 2] += 1.0
    after = model.get_audio_features(**{**tiny.audio(inputs), "input_features": moved}).last_hidden_state
    # Segment 2 of sample 0 is in the global window and in window 2 (segments 2 to 2), in no other.
    assert (after != before).flatten(2).any(dim=2).tolist() == [[True, False, True, False], [False] * 4]


@torch.no_grad()
def test_a_clip_without_sound_has_no_audio_tokens(tiny):
    model = tiny.model()
    inputs = tiny.inputs(model.config)
    inputs["audio_segment_mask"][1] = False
    assert [len(row) for row in model.get_audio_features(**tiny.audio(inputs)).pooler_output] == [16, 0]
    inputs["audio_segment_mask"][:] = False
    assert [len(row) for row in model.get_audio_features(**tiny.audio(inputs)).pooler_output] == [0, 0]


@torch.no_grad()
def test_without_utterance_audio_there_is_one_block(tiny):
    model = tiny.model(use_utterance_audio=False)
    inputs = tiny.inputs(model.config)
    assert [len(row) for row in model.get_audio_features(**tiny.audio(inputs)).pooler_output] == [4, 4]


@torch.no_grad()
def test_too_many_segments_are_an_error(tiny):
    model = tiny.model()
    with pytest.raises(ValueError, match="33 segments.*max_audio_segments is 32"):
        model.get_audio_features(input_features=torch.randn(1, 33, 1, 128, 48))
