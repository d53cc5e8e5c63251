"""Graphs: decoding compiles whole, and what has a fixed length is exported. The fast tests run no code generator."""

import shutil

import pytest
import torch
from transformers import CompileConfig

NEW = 5


@pytest.fixture(scope="module")
def made():
    """A model whose local view counts, and inputs with a frame without a face."""
    from tests.modeling_microemo.conftest import make_inputs, make_model

    model = make_model(local_view="frame")
    inputs = make_inputs(model.config)
    inputs.pop("pixel_values_faces")
    assert (~inputs["region_masks"][inputs["frame_mask"]].flatten(1).any(dim=1)).any()
    return model, inputs


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_decoding_with_a_static_cache_compiles_as_one_graph(made, backend):
    if backend == "inductor" and not shutil.which("g++"):
        pytest.skip("inductor needs a C++ compiler")
    model, inputs = made
    expected = model.generate(**inputs, max_new_tokens=NEW, do_sample=False)
    compiled = CompileConfig(backend=backend, fullgraph=True)
    compiled._compile_all_devices = True  # `generate` compiles on accelerators only, unless a test asks
    answer = model.generate(
        **inputs, max_new_tokens=NEW, do_sample=False, cache_implementation="static", compile_config=compiled
    )
    assert torch.equal(answer, expected)
    counters = torch._dynamo.utils.counters
    assert counters["stats"]["unique_graphs"] >= 1 and not counters["graph_break"]


@torch.no_grad()
def test_a_prompt_with_encoded_media_compiles_as_one_graph(made):
    model, inputs = made
    encoded = model.model.encode_media(**inputs)
    given = {name: inputs[name] for name in ("input_ids", "attention_mask")} | {"mm_encoder_outputs": dict(encoded)}
    expected = model(**given, use_cache=False).logits
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(**given, use_cache=False).logits, expected, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("part", ["image encoder", "audio tower", "visual encoder"])
def test_what_has_a_fixed_length_is_exported(made, part):
    model, inputs = made
    real = inputs["frame_mask"]
    if part == "audio tower":
        module, given = model.get_encoder("audio"), {"input_features": inputs["input_features"].flatten(0, 1)[:5]}
    else:
        module, given = model.get_encoder("video"), {"pixel_values": inputs["pixel_values_videos"][real]}
    if part == "visual encoder":
        module = model.model.visual_encoder
        names = ("region_masks", "qformer_input_ids", "qformer_attention_mask")
        given |= {name: inputs[name][real] for name in names}
    # Towers for any number of frames or segments. For the visual encoder, too, this works and takes the exporter 5 s.
    any_number = {name: {0: torch.export.Dim("number", min=2)} for name in given} if len(given) == 1 else None
    exported = torch.export.export(module, (), given, dynamic_shapes=any_number, strict=False).module()
    length = len(next(iter(given.values())))
    for count in (length, 3) if any_number else (length,):
        some = {name: value[:count] for name, value in given.items()}
        ours, theirs = exported(**some), module(**some)
        if part != "visual encoder":
            ours, theirs = ours["last_hidden_state"], theirs["last_hidden_state"]
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
