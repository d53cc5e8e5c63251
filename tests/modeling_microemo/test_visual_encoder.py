"""The global-local attention visual encoder: masks do what they say, with a positive control for each."""

import pytest
import torch
from transformers.models.instructblipvideo.modeling_instructblipvideo import (
    InstructBlipVideoQFormerModel,
    InstructBlipVideoVisionModel,
)

from microemo.modeling_microemo.visual_encoder import LocalClueAttention

IMPLEMENTATIONS = pytest.mark.parametrize("attn_implementation", ["sdpa", "eager"])


def local_attention(tiny, attn_implementation) -> tuple[LocalClueAttention, torch.Tensor, torch.Tensor]:
    model = tiny.model(attn_implementation=attn_implementation)
    attention = model.model.visual_encoder.local_clue_attention
    patches = torch.randn(3, 64, 128)
    region_masks = torch.zeros(3, 11, 64, dtype=torch.bool)
    region_masks[:, 0, 10:20] = True
    region_masks[:, 1, 18:26] = True  # overlaps region 0 in patches 18 and 19
    region_masks[:, 2, 40:44] = True
    return attention, patches, region_masks


@IMPLEMENTATIONS
@torch.no_grad()
def test_patches_outside_every_region_are_exactly_zero(tiny, attn_implementation):
    attention, patches, region_masks = local_attention(tiny, attn_implementation)
    output = attention(patches, region_masks)
    inside = region_masks.any(dim=1)
    assert (output[~inside] == 0).all()
    assert (output[inside].abs().sum(dim=-1) > 0).all()
    assert (attention(patches, torch.zeros_like(region_masks)) == 0).all()


@IMPLEMENTATIONS
@torch.no_grad()
def test_a_patch_sees_the_patches_of_its_regions_and_no_other(tiny, attn_implementation):
    attention, patches, region_masks = local_attention(tiny, attn_implementation)
    before = attention(patches, region_masks)
    for changed, seen_by in ((12, range(10, 20)), (19, range(10, 26)), (42, range(40, 44)), (60, ())):
        moved = patches.clone()
        moved[:, changed] += 1.0
        difference = (attention(moved, region_masks) - before).abs().amax(dim=(0, 2))
        assert set(difference.nonzero().flatten().tolist()) == set(seen_by), changed


def test_eager_equals_sdpa_and_a_plain_loop(tiny):
    attention, patches, region_masks = local_attention(tiny, "sdpa")
    eager, _, _ = local_attention(tiny, "eager")
    with torch.no_grad():
        output = attention(patches, region_masks)
        torch.testing.assert_close(output, eager(patches, region_masks), atol=1e-6, rtol=0)

        hidden = patches + torch.einsum("frp,rd->fpd", region_masks.float(), attention.region_embeddings.weight)
        qkv = attention.qkv(attention.layernorm(hidden)).view(3, 64, 3, attention.num_heads, 32)
        for frame in range(3):
            for patch in (15, 19, 41):
                together = (region_masks[frame] & region_masks[frame, :, patch, None]).any(dim=0)
                heads = []
                for head in range(attention.num_heads):
                    query, key, value = (qkv[frame, :, part, head] for part in range(3))
                    weights = (query[patch] @ key[together].T / 32**0.5).softmax(dim=-1)
                    heads.append(weights @ value[together])
                expected = hidden[frame, patch] + attention.projection(torch.cat(heads))
                torch.testing.assert_close(output[frame, patch], expected, atol=1e-5, rtol=0)


@IMPLEMENTATIONS
@pytest.mark.parametrize("local_view", ["frame", "face_crop"])
@torch.no_grad()
def test_local_view_reads_the_clue_regions_only(tiny, attn_implementation, local_view):
    """The image encoder is set aside (its features are given), so that a changed patch stays one patch."""
    model = tiny.model(attn_implementation=attn_implementation, local_view=local_view)
    encoder = model.model.visual_encoder
    region_masks = torch.zeros(2, 11, 64, dtype=torch.bool)
    region_masks[:, 3, 20:24] = True
    timestamps = torch.randint(5, 60, (2, 9))
    frames, faces = torch.randn(2, 65, 128), torch.randn(2, 65, 128)

    def local_part(frames, faces):
        given = {
            "region_masks": region_masks,
            "qformer_input_ids": timestamps,
            "qformer_attention_mask": torch.ones_like(timestamps),
        }
        both = encoder(None, vision_features=frames, face_features=faces, **given)
        nothing = {**given, "region_masks": torch.zeros_like(region_masks)}
        copied = encoder(None, vision_features=frames, face_features=faces, **nothing)
        return both, copied

    before, _ = local_part(frames, faces)
    source = faces if local_view == "face_crop" else frames
    for token, changes in ((0, False), (1 + 5, False), (1 + 19, False), (1 + 21, True)):
        moved = source.clone()
        moved[:, token] += 1.0
        if local_view == "face_crop":
            after, _ = local_part(frames, moved)
            assert (after != before).any() == changes, token
        else:
            # The frame's patches reach the global view too: compare what is left of the local view alone.
            with torch.no_grad():
                local = encoder.local_clue_attention(moved[:, 1:], region_masks)
            unmoved = encoder.local_clue_attention(source[:, 1:], region_masks)
            assert (local != unmoved).any() == changes, token


@torch.no_grad()
def test_a_frame_without_a_face_copies_its_global_tokens(tiny):
    model = tiny.model(local_view="frame")
    encoder, fusion = model.model.visual_encoder, model.model.visual_encoder.fusion
    timestamps = torch.randint(5, 60, (4, 9))
    given = {"qformer_input_ids": timestamps, "qformer_attention_mask": torch.ones_like(timestamps)}
    frames = torch.randn(4, 65, 128)
    region_masks = torch.zeros(4, 11, 64, dtype=torch.bool)
    region_masks[2, 0, :10] = True
    tokens = encoder(None, vision_features=frames, region_masks=region_masks, **given)

    fusion.gate.zero_()
    global_tokens = encoder(None, vision_features=frames, region_masks=region_masks, **given)
    fusion.gate.fill_(1.0)
    torch.testing.assert_close(tokens[[0, 1, 3]], fusion(global_tokens, global_tokens)[[0, 1, 3]], atol=1e-6, rtol=0)
    assert (tokens[2] - fusion(global_tokens, global_tokens)[2]).abs().max() > 1e-3


@pytest.mark.parametrize("local_view", ["frame", "face_crop"])
@torch.no_grad()
def test_gate_zero_is_the_plain_chain_of_vit_and_qformer(tiny, local_view):
    """Against Transformers' own classes, wired by hand in this test."""
    model = tiny.model(local_view=local_view, fusion_gate_init=0.0)
    encoder = model.model.visual_encoder
    vision = InstructBlipVideoVisionModel(encoder.config.vision_config).eval()
    vision.load_state_dict(encoder.vision_model.state_dict())
    vision.post_layernorm.eps = 1e-5
    qformer = InstructBlipVideoQFormerModel(encoder.config.image_qformer_config).eval()
    qformer.load_state_dict(encoder.image_qformer.state_dict())

    inputs = tiny.inputs(model.config)
    real = inputs["frame_mask"]
    frames = vision(inputs["pixel_values_videos"][real]).last_hidden_state
    text = inputs["qformer_input_ids"][real]
    queries = encoder.query_tokens.expand(frames.shape[0], -1, -1)
    expected = qformer(
        input_ids=text,
        attention_mask=torch.ones(text.shape[0], queries.shape[1] + text.shape[1], dtype=torch.long),
        query_embeds=queries,
        encoder_hidden_states=frames,
    ).last_hidden_state[:, : queries.shape[1]]

    tokens = encoder(
        inputs["pixel_values_videos"][real],
        region_masks=inputs["region_masks"][real],
        pixel_values_faces=inputs["pixel_values_faces"][real],
        qformer_input_ids=text,
        qformer_attention_mask=inputs["qformer_attention_mask"][real],
    )
    torch.testing.assert_close(tokens, expected, atol=1e-6, rtol=0)
    encoder.fusion.gate.fill_(1.0)


@torch.no_grad()
def test_the_timestamp_binds_the_frame(tiny):
    model = tiny.model()
    inputs = tiny.inputs(model.config)
    before = model.get_video_features(**tiny.video(inputs)).last_hidden_state
    inputs["qformer_input_ids"] = inputs["qformer_input_ids"].clone()
    inputs["qformer_input_ids"][0, 4, 3] += 1
    after = model.get_video_features(**tiny.video(inputs)).last_hidden_state
    changed = (after != before).flatten(2).any(dim=2)
    # Frame 4 of clip 0 is in the global window and in window 3 (frames 3 and 4), in no other.
    assert changed.tolist() == [[True, False, False, True], [False, False, False, False]]


@torch.no_grad()
def test_without_timestamps_the_qformer_has_no_text_half(tiny):
    model = tiny.model(use_frame_timestamps=False)
    inputs = tiny.inputs(model.config)
    with_text = model(**inputs).logits
    without = {name: value for name, value in inputs.items() if not name.startswith("qformer")}
    assert torch.equal(model(**without).logits, with_text)
    assert not any("word_embeddings" in name for name, _ in model.model.visual_encoder.named_parameters())


@torch.no_grad()
def test_keep_timestamp_tokens_passes_text_rows_on(tiny):
    model = tiny.model(keep_timestamp_tokens=True)
    inputs = tiny.inputs(model.config)
    real = inputs["frame_mask"]
    encoder = model.model.visual_encoder
    tokens = encoder(
        inputs["pixel_values_videos"][real],
        region_masks=inputs["region_masks"][real],
        pixel_values_faces=inputs["pixel_values_faces"][real],
        qformer_input_ids=inputs["qformer_input_ids"][real],
        qformer_attention_mask=inputs["qformer_attention_mask"][real],
    )
    assert tokens.shape[1] == model.config.num_query_tokens + inputs["qformer_input_ids"].shape[2]
    assert [len(row) for row in model.get_video_features(**tiny.video(inputs)).pooler_output] == [32, 16]
    # Columns of text padding beyond a clip's longest timestamp change nothing.
    padded = {name: torch.nn.functional.pad(inputs[name], (0, 4)) for name in inputs if name.startswith("qformer")}
    torch.testing.assert_close(model(**{**inputs, **padded}).logits, model(**inputs).logits, atol=1e-5, rtol=0)
