import copy

import pytest
import torch
from transformers import TextIteratorStreamer
from transformers.generation import utils
from transformers.modeling_outputs import BaseModelOutputWithPooling

from microemo.modeling_microemo.generation_microemo import CACHE_NAME

NEW = 6


def counted(model) -> dict[str, int]:
    """How often the image encoder and the audio tower run, counted by hooks."""
    calls = {"vision": 0, "audio": 0}

    def count(name):
        def hook(*_):
            calls[name] += 1

        return hook

    model.model.visual_encoder.vision_model.register_forward_hook(count("vision"))
    model.model.audio_branch.audio_tower.register_forward_hook(count("audio"))
    return calls


@pytest.mark.parametrize(
    "options",
    [
        {"do_sample": False},
        {"do_sample": True, "top_k": 20},
        {"num_beams": 3},
        {"do_sample": False, "use_cache": False},
    ],
    ids=["greedy", "sampling", "beams", "no cache"],
)
def test_generate_encodes_the_media_once(tiny, options):
    model = tiny.model(local_view="frame")  # one image-encoder pass per encoding
    inputs = tiny.inputs(model.config)
    calls = counted(model)
    output = model.generate(**inputs, max_new_tokens=NEW, min_new_tokens=NEW, **options)
    assert output.shape == (2, inputs["input_ids"].shape[1] + NEW)
    assert calls == {"vision": 1, "audio": 1}


@pytest.mark.parametrize("attn_implementation", ["sdpa", "eager"])
@torch.no_grad()
def test_cached_decoding_equals_full_recomputation(tiny, attn_implementation):
    model = tiny.model(attn_implementation=attn_implementation)
    inputs = tiny.inputs(model.config)
    kept = model.generate(
        **inputs, max_new_tokens=NEW, do_sample=False, output_logits=True, return_dict_in_generate=True
    )
    again = dict(inputs)
    for step in range(NEW):
        logits = model(**again).logits[:, -1]
        torch.testing.assert_close(kept.logits[step], logits, atol=1e-4, rtol=0)
        token = kept.sequences[:, inputs["input_ids"].shape[1] + step, None]
        again["input_ids"] = torch.cat([again["input_ids"], token], dim=1)
        again["attention_mask"] = torch.cat([again["attention_mask"], torch.ones_like(token)], dim=1)


@pytest.mark.parametrize(
    ("search", "way"),
    [
        ({"do_sample": False}, {"cache_implementation": "static"}),
        ({"num_beams": 3}, {"cache_implementation": "static"}),
        ({"num_beams": 2, "num_return_sequences": 2}, {"use_cache": False}),
        ({"do_sample": False}, {"prompt_lookup_num_tokens": 3}),
        pytest.param(
            *({"do_sample": False}, {"prefill_chunk_size": 7}),
            marks=pytest.mark.skipif(
                not hasattr(utils, "_slice_mm_encoder_output"), reason="this Transformers deals out no media to chunks"
            ),
        ),
    ],
    ids=["static cache", "static cache, beams", "no cache, beams", "prompt lookup", "prompt in chunks"],
)
def test_ways_to_generate_say_the_same(tiny, search, way):
    model = tiny.model(local_view="frame")
    rows = 1 if "prompt_lookup_num_tokens" in way else 2
    inputs = {name: value[:rows] for name, value in tiny.inputs(model.config).items()}
    calls = counted(model)
    expected = model.generate(**inputs, max_new_tokens=NEW, **search)
    assert torch.equal(model.generate(**inputs, max_new_tokens=NEW, **search, **way), expected)
    assert calls == {"vision": 2, "audio": 2}  # once for each call


def test_a_conversation_goes_on_with_its_cache(tiny):
    """The second turn has no media of its own: those of the first are in the cache."""
    model = tiny.model()
    inputs = {name: value[:1] for name, value in tiny.inputs(model.config).items()}
    first = model.generate(**inputs, max_new_tokens=NEW, do_sample=False, return_dict_in_generate=True)
    ids = torch.cat([first.sequences, torch.tensor([[20, 21, 22]])], dim=1)
    whole = {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
    expected = model.generate(**whole, max_new_tokens=NEW, do_sample=False)
    calls = counted(model)
    turn = {"input_ids": ids, "attention_mask": torch.ones_like(ids), CACHE_NAME: first[CACHE_NAME]}
    assert torch.equal(model.generate(**turn, max_new_tokens=NEW, do_sample=False), expected)
    assert calls == {"vision": 0, "audio": 0}
    # Processors give the media of the whole conversation: those that the cache holds are not read twice.
    again = model.generate(**inputs, max_new_tokens=NEW, do_sample=False, return_dict_in_generate=True)
    everything = {**whole, CACHE_NAME: again[CACHE_NAME]}
    assert torch.equal(model.generate(**everything, max_new_tokens=NEW, do_sample=False), expected)


def test_a_second_clip_joins_a_conversation_with_its_cache(tiny):
    model = tiny.model(local_view="frame")
    inputs = {name: value[:1] for name, value in tiny.inputs(model.config).items()}
    first = model.generate(**inputs, max_new_tokens=1, do_sample=False, return_dict_in_generate=True)
    encoded = model.model.encode_media(**inputs)
    turn = torch.cat([first.sequences, inputs["input_ids"][:, 1:]], dim=1)  # the same clip, once more
    both = {
        modality: BaseModelOutputWithPooling(pooler_output=[torch.cat([*output.pooler_output] * 2)])
        for modality, output in encoded.items()
    }
    given = {"input_ids": turn, "attention_mask": torch.ones_like(turn), "max_new_tokens": NEW, "do_sample": False}
    expected = model.generate(**given, mm_encoder_outputs=both)
    for media in (both, encoded):  # those of both turns, or the new ones alone
        cache = copy.deepcopy(first[CACHE_NAME])
        assert torch.equal(model.generate(**given, mm_encoder_outputs=media, **{CACHE_NAME: cache}), expected)


@pytest.mark.parametrize("way", [{}, {"cache_implementation": "static"}, {"num_beams": 2}])
def test_prompts_may_be_embedded_beforehand(tiny, way):
    model = tiny.model()
    inputs = tiny.inputs(model.config)
    expected = model.generate(**inputs, max_new_tokens=NEW, **way)
    embeds = model.get_input_embeddings()(inputs["input_ids"])
    assert torch.equal(model.generate(**inputs, inputs_embeds=embeds, max_new_tokens=NEW, **way), expected)
    ids = inputs.pop("input_ids")
    answer = model.generate(**inputs, inputs_embeds=embeds, max_new_tokens=NEW, **way)
    assert torch.equal(answer, expected[:, ids.shape[1] :])


def test_a_prompt_without_its_media_is_refused(tiny):
    model = tiny.model()
    inputs = tiny.inputs(model.config)
    text = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    for way in ({}, {"cache_implementation": "static"}, {"num_beams": 2}):
        with pytest.raises(ValueError, match=r"tokens: \[.*features: \[\]"):
            model.generate(**text, max_new_tokens=NEW, **way)


def test_a_clip_alone_and_in_a_batch_say_the_same(tiny):
    model = tiny.model()
    inputs = tiny.inputs(model.config, frames=[4, 4], windows=[((0, 2),), ((0, 2),)])
    together = model.generate(**inputs, max_new_tokens=NEW, num_beams=2)
    for row in range(2):
        alone = {name: value[row : row + 1] for name, value in inputs.items()}
        assert torch.equal(model.generate(**alone, max_new_tokens=NEW, num_beams=2)[0], together[row])


def test_beams_keep_every_clip_its_own_media(tiny):
    """Beams copy rows: clip 0's media must not reach clip 1's beams."""
    model = tiny.model()
    inputs = tiny.inputs(model.config)
    one = model.generate(**inputs, max_new_tokens=1, num_beams=1, output_logits=True, return_dict_in_generate=True)
    beams = model.generate(**inputs, max_new_tokens=1, num_beams=4, output_logits=True, return_dict_in_generate=True)
    torch.testing.assert_close(beams.logits[0].view(2, 4, -1)[:, 0], one.logits[0], atol=1e-4, rtol=0)
    assert (one.logits[0][0] - one.logits[0][1]).abs().max() > 1e-3


def test_media_can_be_encoded_beforehand(tiny):
    model = tiny.model(local_view="frame")
    inputs = tiny.inputs(model.config)
    text = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    calls = counted(model)
    encoded = model.model.encode_media(**{name: value for name, value in inputs.items() if name not in text})
    expected = model.generate(**inputs, max_new_tokens=NEW, do_sample=False)
    assert torch.equal(
        model.generate(**text, mm_encoder_outputs=encoded, max_new_tokens=NEW, do_sample=False), expected
    )
    assert calls["vision"] == 2  # one for `encode_media`, one for the plain call


def test_placeholders_are_never_generated(tiny):
    model = tiny.model()
    inputs = tiny.inputs(model.config)
    with torch.no_grad():  # a head that would say nothing but <video> and <audio>
        model.get_output_embeddings().weight[[3, 4]] *= 1000
    new = model.generate(**inputs, max_new_tokens=NEW, do_sample=False)[:, inputs["input_ids"].shape[1] :]
    assert not torch.isin(new, torch.tensor([3, 4])).any()


@pytest.mark.parametrize("options", [{}, {"num_beams": 2}], ids=["greedy", "beams"])
def test_a_tokenizer_may_be_given_as_stop_strings_need_it(tiny, options):
    model = tiny.model()
    arguments = {**tiny.inputs(model.config), "max_new_tokens": 2, "do_sample": False, **options}
    assert model.generate(**arguments, tokenizer=object()).equal(model.generate(**arguments))


def test_streamer(tiny):
    class Digits:
        """The least that a streamer asks of a tokenizer."""

        def decode(self, ids, **_):
            return "".join(f"{int(token)} " for token in ids)

    model = tiny.model()
    inputs = {name: value[:1] for name, value in tiny.inputs(model.config).items()}
    streamer = TextIteratorStreamer(Digits(), skip_prompt=True)
    output = model.generate(**inputs, max_new_tokens=NEW, do_sample=False, streamer=streamer)
    assert "".join(streamer).split() == [str(int(token)) for token in output[0, inputs["input_ids"].shape[1] :]]
