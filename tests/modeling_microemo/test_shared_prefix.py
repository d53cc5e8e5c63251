"""Prompts that begin alike: what they say alone, and how many tokens the language model reads."""

import copy
import itertools

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.cache_utils import DynamicCache, DynamicLayer, StaticCache

from microemo.modeling_microemo.generation_microemo import CACHE_NAME
from microemo.modeling_microemo.shared_prefix import BranchedLayer, can_branch, find_shared_prefixes

NEW = 5
QUESTIONS = ([20, 21, 22, 23], [20, 21], [30], [20, 21, 22, 40, 41, 42])


def questions(tiny, model, clips, asked=QUESTIONS):
    """For each entry of `clips` its questions, by the numbers of `asked`, as one left-padded batch with `clip_index`."""
    inputs = tiny.inputs(model.config)
    prompts, clip_index = [], []
    for clip, numbers in enumerate(clips):
        prompt = inputs["input_ids"][clip][inputs["attention_mask"][clip].bool()].tolist()
        for number in numbers:
            prompts.append(prompt + list(asked[number]))
            clip_index.append(clip)
    size = max(map(len, prompts))
    inputs["input_ids"] = torch.tensor([[0] * (size - len(prompt)) + prompt for prompt in prompts])
    inputs["attention_mask"] = torch.tensor([[0] * (size - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return inputs | {"clip_index": torch.tensor(clip_index)}


def alone(inputs, row):
    """One row of a batch of questions without its padding, as a batch of its own."""
    real = inputs["attention_mask"][row].bool()
    clip = int(inputs["clip_index"][row])
    text = {name: inputs[name][row : row + 1, real] for name in ("input_ids", "attention_mask")}
    rest = {name: value[clip : clip + 1] for name, value in inputs.items() if name not in (*text, "clip_index")}
    return text | rest


def tokens_read(model):
    """The number of tokens of each pass of the language model, in a list that grows."""
    sizes = []
    model.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(kwargs["inputs_embeds"].shape[:2].numel()), with_kwargs=True
    )
    return sizes


@pytest.mark.parametrize("attn_implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("clips", [((0, 1, 2, 3), ()), ((3, 0), (2, 1, 0)), ((), (0, 0))], ids=["one", "two", "same"])
def test_questions_about_a_clip_are_answered_as_if_alone(tiny, clips, attn_implementation):
    model = tiny.model(attn_implementation=attn_implementation)
    inputs = questions(tiny, model, clips)
    sizes = tokens_read(model)
    options = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False}
    together = model.generate(**inputs, **options, output_logits=True, return_dict_in_generate=True)
    num_rows, size = inputs["input_ids"].shape
    assert sum(sizes[:2]) < num_rows * size  # the prefixes, then the suffixes
    assert sizes[2:] == [num_rows] * (NEW - 1)
    for row in range(num_rows):
        one = model.generate(**alone(inputs, row), **options, output_logits=True, return_dict_in_generate=True)
        assert torch.equal(together.sequences[row, size:], one.sequences[0, -NEW:])
        for ours, its in zip(together.logits, one.logits, strict=True):
            torch.testing.assert_close(ours[row], its[0], atol=1e-4, rtol=0)


def test_the_prefix_is_read_once(tiny):
    model = tiny.model()
    inputs = questions(tiny, model, [(0, 1, 2, 3), ()])
    sizes = tokens_read(model)
    model.generate(**inputs, max_new_tokens=1)
    longest, shortest = inputs["attention_mask"].sum(dim=1).max(), inputs["attention_mask"].sum(dim=1).min()
    prefix = int(shortest) - 1  # the one-token question shares nothing
    assert sizes == [prefix, 4 * (int(longest) - prefix)]


def test_beams_and_several_answers_share_their_prompt(tiny):
    model = tiny.model()
    inputs = questions(tiny, model, [(0,), (1,)])
    sizes = tokens_read(model)
    beams = model.generate(**inputs, max_new_tokens=NEW, num_beams=3)
    assert sum(sizes[:2]) < 3 * inputs["input_ids"].numel() / 2
    for row in range(2):
        one = model.generate(**alone(inputs, row), max_new_tokens=NEW, num_beams=3, use_cache=False)
        answer = one[0, alone(inputs, row)["input_ids"].shape[1] :]
        assert torch.equal(beams[row, inputs["input_ids"].shape[1] :][: len(answer)], answer)

    del sizes[:]
    model.generate(**inputs, max_new_tokens=1, do_sample=True, num_return_sequences=4)
    assert sizes == [2 * (inputs["input_ids"].shape[1] - 1), 8]


@pytest.mark.parametrize(
    "way",
    [
        {"use_cache": False},
        {"cache_implementation": "static"},
        {"output_hidden_states": True, "return_dict_in_generate": True},
    ],
    ids=["no cache", "static", "hidden states"],
)
def test_what_cannot_branch_reads_each_prompt_whole(tiny, way):
    model = tiny.model()
    inputs = questions(tiny, model, [(0, 1), ()])
    sizes = tokens_read(model)
    model.generate(**inputs, max_new_tokens=1, **way)
    assert sizes == [inputs["input_ids"].numel()]


def test_other_clips_share_nothing(tiny):
    """Both begin with the same words, and the tokens of their media differ."""
    model = tiny.model()
    inputs = questions(tiny, model, [(0,), (0,)])
    sizes, embedded = tokens_read(model), []
    model.get_input_embeddings().register_forward_pre_hook(lambda module, args: embedded.append(args[0].numel()))
    together = model.generate(**inputs, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False)
    assert sizes == embedded == [inputs["input_ids"].numel(), *[2] * (NEW - 1)]
    for row in range(2):
        one = model.generate(**alone(inputs, row), max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False)
        assert torch.equal(together[row, -NEW:], one[0, -NEW:])


class BatchedProducts(TorchDispatchMode):
    """Notes the sizes of the matrices of batched products."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.bmm.default:
            self.sizes += [tuple(matrix.shape) for matrix in args]
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("clips", [((0, 1, 2), ()), ((0,), (1,)), ((0,), ())], ids=["shared", "not", "one"])
def test_the_head_is_one_product_for_all_prompts(tiny, clips):
    """Of a batched product in bfloat16 on a CPU, torch copies the weight for each prompt (pytorch#151934). It makes
    one of a slice and a frozen weight, such as that under an adapter."""
    model = tiny.model().bfloat16().requires_grad_(False)
    inputs = questions(tiny, model, clips)
    with BatchedProducts() as products:
        model.generate(**inputs, max_new_tokens=2)
    vocab_size = model.config.text_config.vocab_size
    assert products.sizes and not [size for size in products.sizes if vocab_size in size]


@pytest.mark.parametrize("seed", range(20))
def test_the_two_parts_hold_each_prompt_once_and_in_order(seed):
    generator = torch.Generator().manual_seed(seed)

    def number(low, high):
        return int(torch.randint(low, high, (), generator=generator))

    prompts = []
    for clip in range(number(1, 4)):
        prefix = [100 + clip] * number(1, 9)
        prompts += [prefix + [number(1, 5) for _ in range(number(0, 6))] for _ in range(number(1, 4))]
    size = max(map(len, prompts)) + number(0, 3)
    embeds = torch.tensor([[-1] * (size - len(prompt)) + prompt for prompt in prompts])[..., None].float()
    mask = torch.tensor([[0] * (size - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    shared = find_shared_prefixes(embeds, mask)
    if shared is None:
        for first, second in itertools.pairwise(prompts):
            alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))
            assert 2 * len(list(alike)) < len(second)
        return
    assert shared.attention_mask.shape == mask.shape
    rows = torch.cat([shared.prefix_embeds[shared.group], shared.suffix_embeds], dim=1)[..., 0]
    for row, prompt in enumerate(prompts):
        assert rows[row][shared.attention_mask[row].bool()].tolist() == prompt
        assert shared.attention_mask[row, -1] == 1


def test_padding_on_the_right_is_left_to_transformers():
    embeds = torch.ones(2, 4, 1)
    assert find_shared_prefixes(embeds, torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])) is None
    assert find_shared_prefixes(embeds, torch.ones(2, 4, dtype=torch.long)) is not None


def test_which_caches_can_branch(tiny):
    config = tiny.config().text_config
    assert can_branch(DynamicCache(config=config))
    assert not can_branch(None)
    assert not can_branch(StaticCache(config=config, max_cache_len=8))
    assert not can_branch(DynamicCache(config=config, offloading=True))
    used = DynamicCache(config=config)
    used.update(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 4), 0)
    assert not can_branch(used)


@pytest.mark.parametrize("seed", range(5))
def test_a_branched_layer_holds_what_a_plain_one_holds(seed):
    """Whatever is done to it between its steps: reordered, cropped, copied, read from."""
    generator = torch.Generator().manual_seed(seed)
    plain = DynamicLayer()
    prefixes = [torch.randn(2, 3, 4, 5, generator=generator) for _ in range(2)]
    plain.update(*prefixes)
    group = torch.tensor([0, 1, 1, 0])
    ours = BranchedLayer(plain, group, room=3)
    plain.reorder_cache(group)
    held = []
    for _ in range(12):
        action = int(torch.randint(0, 5, (), generator=generator))
        for layer in (plain, ours):
            if action == 0:
                layer.reorder_cache(torch.tensor([1, 1, 2, 0]))
            elif action == 1:
                layer.crop(-1)
        tokens = int(torch.randint(1, 3, (), generator=generator))
        new = [torch.randn(4, 3, tokens, 5, generator=generator) for _ in range(2)]
        expected, actual = plain.update(*new), ours.update(*new)
        held.append((expected[0].clone(), ours.keys.clone(), ours.keys))
        for theirs, its in zip(expected, actual, strict=True):
            assert torch.equal(theirs, its)
        assert ours.get_seq_length() == plain.get_seq_length()
    assert all(torch.equal(expected, kept) for expected, kept, _ in held)


def test_a_cache_that_branched_can_be_continued_twice(tiny):
    """A copy of the cache and the cache itself go on from one place without writing into one another."""
    model = tiny.model()
    inputs = questions(tiny, model, [(0, 1), ()])
    options = {"max_new_tokens": 2, "min_new_tokens": 2, "do_sample": False, "return_dict_in_generate": True}
    first = model.generate(**inputs, **options)
    copied = copy.deepcopy(first[CACHE_NAME])
    expected = copied.layers[0].keys.clone()
    first[CACHE_NAME].layers[0].update(*(torch.ones(2, *expected.shape[1:2], 2, expected.shape[-1]),) * 2)
    assert torch.equal(copied.layers[0].keys, expected)
