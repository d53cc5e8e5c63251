"""The utterance-aware video Q-Former: windows in one forward equal a loop, and see their own frames only."""

import pytest
import torch

from microemo.modeling_microemo.video_qformer import ClipBaseline, UtteranceAwareVideoQFormer, WindowQFormer

IMPLEMENTATIONS = pytest.mark.parametrize("attn_implementation", ["sdpa", "eager"])


def video_qformer(tiny, attn_implementation="sdpa", **switches) -> UtteranceAwareVideoQFormer:
    return tiny.model(attn_implementation=attn_implementation, **switches).model.video_qformer


@IMPLEMENTATIONS
@torch.no_grad()
def test_batched_windows_equal_a_loop(tiny, attn_implementation):
    qformer = video_qformer(tiny, attn_implementation)
    lengths = [24, 17, 9]
    windows = [[(0, 3), (3, 4), (4, 24), (10, 12)], [(0, 17)], [(8, 9), (2, 5)]]
    frame_tokens = torch.randn(3, 24, 8, 128)
    mask = torch.arange(24) < torch.tensor(lengths)[:, None]
    padded = torch.full((3, 4, 2), -1)
    for row, spans in enumerate(windows):
        padded[row, : len(spans)] = torch.tensor(spans)
    tokens, real = qformer(frame_tokens, mask[..., None].expand(3, 24, 8), padded)
    assert real.sum(dim=1).tolist() == [5, 2, 3]
    assert (tokens[~real] == 0).all()

    def one(window_qformer: WindowQFormer, row: int, start: int, end: int) -> torch.Tensor:
        """A single window, unpadded, with Transformers' Q-Former alone."""
        states = frame_tokens[row, start:end] + qformer.frame_positions.weight[start:end, None]
        return window_qformer.qformer(
            query_embeds=window_qformer.query_tokens, encoder_hidden_states=states.flatten(0, 1)[None]
        ).last_hidden_state[0]

    for row, spans in enumerate(windows):
        expected = [one(qformer.global_qformer, row, 0, lengths[row])]
        expected += [one(qformer.window_qformer, row, *span) for span in spans]
        torch.testing.assert_close(tokens[row, : len(expected)], torch.stack(expected), atol=5e-6, rtol=0)


@IMPLEMENTATIONS
@torch.no_grad()
def test_a_window_sees_its_own_frames_and_no_other(tiny, attn_implementation):
    qformer = video_qformer(tiny, attn_implementation)
    frame_tokens = torch.randn(1, 10, 8, 128)
    mask = torch.ones(1, 10, 8, dtype=torch.bool)
    windows = torch.tensor([[[0, 3], [3, 7], [5, 10]]])
    before, _ = qformer(frame_tokens, mask, windows)
    for frame, seen_by in ((1, [0, 1]), (4, [0, 2]), (6, [0, 2, 3]), (9, [0, 3])):
        moved = frame_tokens.clone()
        moved[:, frame] += 1.0
        after, _ = qformer(moved, mask, windows)
        assert (after != before).flatten(2).any(dim=2)[0].nonzero().flatten().tolist() == seen_by, frame


@IMPLEMENTATIONS
@torch.no_grad()
def test_fully_masked_and_padded_windows_are_exactly_zero(tiny, attn_implementation):
    qformer = video_qformer(tiny, attn_implementation)
    mask = torch.zeros(2, 6, 8, dtype=torch.bool)
    mask[0, :4] = True
    windows = torch.tensor([[[4, 6], [-1, -1]], [[0, 2], [-1, -1]]])
    tokens, real = qformer(torch.randn(2, 6, 8, 128), mask, windows)
    assert real.tolist() == [[True, True, False], [False, True, False]]
    assert (tokens[0, 1:] == 0).all() and (tokens[1] == 0).all()
    assert (tokens[0, 0] != 0).all()


@torch.no_grad()
def test_positions_are_absolute_inside_windows(tiny):
    """The same frame contents give other tokens where they stand later in the clip."""
    qformer = video_qformer(tiny)
    frames = torch.randn(1, 2, 8, 128).repeat(1, 4, 1, 1)
    mask = torch.ones(1, 8, 8, dtype=torch.bool)
    tokens, _ = qformer(frames, mask, torch.tensor([[[0, 2], [4, 6]]]))
    assert (tokens[0, 1] - tokens[0, 2]).abs().max() > 1e-3
    qformer.frame_positions.weight.zero_()
    tokens, _ = qformer(frames, mask, torch.tensor([[[0, 2], [4, 6]]]))
    torch.testing.assert_close(tokens[0, 1], tokens[0, 2], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "switches, blocks, own",
    [
        ({}, 4, {"global_qformer", "window_qformer"}),
        ({"share_video_qformer": True}, 4, {"global_qformer"}),
        ({"windows": "sliding", "use_global_window": False, "use_utterance_audio": False}, 3, {"window_qformer"}),
        ({"windows": "none", "use_utterance_audio": False}, 1, {"global_qformer"}),
        ({"use_clip_baseline": True}, 4, {"global_qformer", "window_qformer", "clip_baseline"}),
    ],
    ids=["own weights", "shared", "sliding only", "none", "clip baseline"],
)
@torch.no_grad()
def test_switches(tiny, switches, blocks, own):
    qformer = video_qformer(tiny, **switches)
    windows = torch.tensor([[[0, 2], [2, 3], [3, 5]]])
    tokens, real = qformer(torch.randn(1, 5, 8, 128), torch.ones(1, 5, 8, dtype=torch.bool), windows)
    assert tokens.shape == (1, blocks, 8, 128) and real.all()
    assert {name for name, _ in qformer.named_children()} == own | {"frame_positions"}


@torch.no_grad()
def test_too_long_clips_and_windows_are_errors(tiny):
    qformer = video_qformer(tiny)
    mask = torch.ones(1, 33, 8, dtype=torch.bool)
    with pytest.raises(ValueError, match="33 frames.*max_frames is 32"):
        qformer(torch.randn(1, 33, 8, 128), mask, torch.full((1, 0, 2), -1))
    with pytest.raises(ValueError, match="ends at step 6 of a sequence of 5"):
        qformer(torch.randn(1, 5, 8, 128), mask[:, :5], torch.tensor([[[2, 6]]]))


def baseline(seed: int = 0) -> ClipBaseline:
    torch.manual_seed(seed)
    return ClipBaseline(16, 16, bias=False)


@torch.no_grad()
def test_the_clip_baseline_adds_the_difference_from_the_mean_over_the_clip():
    layer, tokens = baseline(), torch.randn(1, 5, 3, 16)
    differs = tokens - tokens.mean(dim=1, keepdim=True)
    torch.testing.assert_close(layer(tokens, torch.ones(1, 5, 3, dtype=torch.bool)), tokens + differs @ layer.weight.T)
    # One frame, or a face that never moves, is its own baseline.
    still = tokens[:, :1].expand(1, 5, 3, 16)
    torch.testing.assert_close(layer(still, torch.ones(1, 5, 3, dtype=torch.bool)), still)


@torch.no_grad()
def test_the_clip_baseline_ignores_padded_frames_wherever_they_stand():
    layer, clip = baseline(), torch.randn(3, 3, 16)
    expected = layer(clip[None], torch.ones(1, 3, 3, dtype=torch.bool))[0]
    places = torch.tensor([[0, 1, 2], [3, 4, 5], [0, 2, 5]])
    tokens, mask = 100 * torch.randn(3, 6, 3, 16), torch.zeros(3, 6, 3, dtype=torch.bool)
    for row, place in enumerate(places):
        tokens[row, place], mask[row, place] = clip, True
    read = layer(tokens, mask)
    for row, place in enumerate(places):
        torch.testing.assert_close(read[row, place], expected)
    assert layer(tokens, torch.zeros_like(mask)).isfinite().all(), "no real frame"


@torch.no_grad()
def test_a_clip_baseline_of_zeros_changes_nothing(tiny, tmp_path):
    """It starts so: a checkpoint without it, which is loaded with it, answers as before."""
    plain = tiny.model()
    inputs = tiny.inputs(plain.config)
    plain.save_pretrained(tmp_path)
    model, report = type(plain).from_pretrained(tmp_path, use_clip_baseline=True, output_loading_info=True)
    weight = model.model.video_qformer.clip_baseline.weight
    assert not plain.config.use_clip_baseline and report["missing_keys"] == {
        "model.video_qformer.clip_baseline.weight"
    }
    assert weight.shape == (128, 128) and not weight.any()
    assert torch.equal(model(**inputs).logits, plain(**inputs).logits)


@torch.no_grad()
def test_a_batch_read_against_its_baselines_equals_single_clips_and_is_saved(tiny, tmp_path):
    model = tiny.model(use_clip_baseline=True)
    torch.nn.init.normal_(model.model.video_qformer.clip_baseline.weight)
    qformer = model.model.video_qformer
    tokens, mask = torch.randn(2, 6, 8, 128), torch.ones(2, 6, 8, dtype=torch.bool)
    mask[1, 4:] = False
    windows = torch.tensor([[[0, 2], [2, 6]], [[1, 4], [-1, -1]]])
    read, _ = qformer(tokens, mask, windows)
    torch.testing.assert_close(read[:1], qformer(tokens[:1], mask[:1], windows[:1])[0], atol=1e-5, rtol=0)
    alone, _ = qformer(tokens[1:, :4], mask[1:, :4], windows[1:, :1])
    torch.testing.assert_close(read[1:, :2], alone, atol=1e-5, rtol=0)

    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert again.config.use_clip_baseline
    assert torch.equal(again.model.video_qformer(tokens, mask, windows)[0], read)


def test_a_clip_baseline_of_zeros_learns(tiny):
    model = tiny.model(use_clip_baseline=True)
    inputs = tiny.inputs(model.config)
    model(**inputs, labels=inputs["input_ids"].masked_fill(inputs["input_ids"] < 5, -100)).loss.backward()
    assert model.model.video_qformer.clip_baseline.weight.grad.abs().max() > 0
