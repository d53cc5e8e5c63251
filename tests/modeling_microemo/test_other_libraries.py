"""What other libraries do to a model: move parts of it to a disk, pad on the left, quantise, copy, gather."""

import copy
import io
import pickle
import re

import pytest
import torch
from accelerate import cpu_offload, disk_offload, dispatch_model
from torch import nn
from transformers import Trainer, TrainingArguments

from microemo import MicroEmoForConditionalGeneration


def owners(model) -> dict[str, list[str]]:
    """The modules that own parameters or buffers, with the names of these."""
    found = {}
    for key in model.state_dict():
        found.setdefault(key.rpartition(".")[0], []).append(key)
    return found


def only_on_disk(model, part: str) -> dict[str, str]:
    """A device map that puts one part on the disk, with all that is in it, and each other parameter into memory."""
    rest = {
        key: "cpu" for name, keys in owners(model).items() for key in keys if not f"{name}.".startswith(f"{part}.")
    }
    return {part: "disk"} | rest


@pytest.fixture(scope="module")
def expected():
    """A model whose local view counts, its inputs, and its logits where nothing is offloaded."""
    from tests.modeling_microemo.conftest import make_inputs, make_model

    model = make_model(local_view="frame")
    nn.init.ones_(model.model.visual_encoder.fusion.gate)
    inputs = make_inputs(model.config)
    inputs.pop("pixel_values_faces")
    with torch.no_grad():
        return model, inputs, model(**inputs).logits


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:The following device_map keys")  # parameters are named one by one
def test_every_part_may_lie_on_the_disk(expected, tmp_path):
    model, inputs, logits = expected
    # The insides of the library's own stacks are theirs: each such stack is moved as a whole.
    stacks = re.compile(r"(.*?(?:\.encoder|\.language_model))(?:\..*)?")
    names = {stacks.sub(r"\1", name) for name in owners(model)}
    assert len(names) > 30
    for number, part in enumerate(sorted(names)):
        device_map = only_on_disk(model, part)
        moved = dispatch_model(
            copy.deepcopy(model),
            device_map,
            main_device="cpu",
            force_hooks=True,
            offload_dir=str(tmp_path / str(number)),
        )
        torch.testing.assert_close(
            moved(**inputs).logits, logits, atol=1e-5, rtol=0, msg=lambda m, p=part: f"{p}: {m}"
        )


@torch.no_grad()
def test_the_whole_model_may_be_offloaded(expected, tmp_path):
    model, inputs, logits = expected
    for moved in (
        cpu_offload(copy.deepcopy(model), execution_device="cpu"),
        disk_offload(copy.deepcopy(model), str(tmp_path / "disk"), execution_device="cpu"),
    ):
        torch.testing.assert_close(moved(**inputs).logits, logits, atol=1e-5, rtol=0)
        options = {"max_new_tokens": 3, "num_beams": 2}
        assert torch.equal(moved.generate(**inputs, **options), model.generate(**inputs, **options))
        no_frames = {**inputs, "frame_mask": torch.zeros_like(inputs["frame_mask"])}
        with pytest.raises(ValueError, match="do not match"):
            moved(**no_frames)


def pad_left(tensor, mask):
    """Rows whose real steps have moved to their ends, as Transformers' pipelines pad batches."""
    padded = torch.zeros_like(tensor)
    for row, count in enumerate(mask.sum(dim=1).tolist()):
        if count:
            padded[row, -count:] = tensor[row, :count]
    return padded


@torch.no_grad()
@pytest.mark.parametrize(
    "switches", [{}, {"keep_timestamp_tokens": True}, {"windows": "none"}, {"use_clip_baseline": True}]
)
def test_padding_on_the_left_changes_nothing(tiny, switches):
    model = tiny.model(**switches)
    if model.config.use_clip_baseline:
        nn.init.normal_(model.model.video_qformer.clip_baseline.weight)
    nn.init.ones_(model.model.visual_encoder.fusion.gate)
    inputs = tiny.inputs(model.config, sound=[True, True])
    inputs["audio_segment_mask"][1, 5:] = False
    real_windows = inputs["utterance_windows"][..., 0] >= 0
    by_mask = {
        "frame_mask": ("pixel_values_videos", "region_masks", "pixel_values_faces", "qformer_input_ids", "qformer_attention_mask"),
        "audio_segment_mask": ("input_features",),
    }  # fmt: skip
    left = dict(inputs)
    for mask, names in by_mask.items():
        left |= {name: pad_left(inputs[name], inputs[mask]) for name in (mask, *names)}
    for name in ("utterance_windows", "audio_windows"):
        left[name] = pad_left(inputs[name], real_windows)
    cited = {"cited_utterances": torch.tensor([[2, 0], [0, -1]])} if "windows" not in switches else {}
    for get, names in ((model.get_video_features, tiny.video), (model.get_audio_features, tiny.audio)):
        right, turned = (get(**names(given), **cited).pooler_output for given in (inputs, left))
        assert [len(row) for row in right] == [len(row) for row in turned]
        torch.testing.assert_close(turned, right, atol=1e-5, rtol=0)


@torch.no_grad()
def test_features_padded_on_the_left_change_nothing(tiny):
    model = tiny.model()
    inputs = tiny.inputs(model.config)
    mask = inputs["frame_mask"]
    tokens = torch.randn(*mask.shape, 8, model.config.image_qformer_config.hidden_size)
    given = {"utterance_windows": inputs["utterance_windows"]}
    right = model.get_video_features(frame_tokens=tokens, frame_mask=mask, **given).pooler_output
    left = pad_left(tokens, mask), pad_left(mask, mask)
    turned = model.get_video_features(frame_tokens=left[0], frame_mask=left[1], **given).pooler_output
    torch.testing.assert_close(turned, right, atol=1e-5, rtol=0)


@pytest.mark.parametrize("width", [None, 64], ids=["as wide as the model", "narrower than the model"])
def test_a_microemo_assistant_drafts(tiny, width):
    model = tiny.model()
    narrower = {"hidden_size": width, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 32}
    text_config = model.config.text_config.to_dict() | (narrower if width else {})
    assistant = tiny.model(seed=7, text_config=text_config)
    inputs = tiny.inputs(model.config, frames=[5], windows=[[(0, 2), (2, 5)]], sound=[True])
    alone = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    encoded = []
    assistant.model.visual_encoder.register_forward_hook(lambda *_: encoded.append(1))
    assert torch.equal(model.generate(**inputs, max_new_tokens=12, do_sample=False, assistant_model=assistant), alone)
    assert len(encoded) == 1  # once, not in every round of drafts


def test_trainer_predicts_clips_of_different_length(tiny, tmp_path):
    model = tiny.model()
    lengths = ([5, 3], [4, 2]), ([[(0, 2), (2, 5)], [(1, 3)]], [[(0, 4)], []])
    rows = []
    for frames, windows in zip(*lengths, strict=True):
        inputs = tiny.inputs(model.config, frames=frames, windows=windows)
        rows.append(inputs | {"labels": inputs["input_ids"]})
    arguments = TrainingArguments(
        str(tmp_path), per_device_eval_batch_size=1, report_to=[], remove_unused_columns=False, use_cpu=True
    )
    trainer = Trainer(model, arguments, data_collator=lambda batch: batch[0])
    predicted = trainer.predict(rows)
    assert isinstance(predicted.predictions, torch.Tensor | type(predicted.label_ids))
    assert predicted.predictions.shape[-1] == model.config.text_config.vocab_size


@torch.no_grad()
@pytest.mark.parametrize("way", ["cast", "loaded"])
def test_half_precision_keeps_the_scale_of_sound(tiny, tmp_path, way):
    model = tiny.model()
    if way == "cast":
        model = model.to(torch.bfloat16)
    else:
        model.save_pretrained(tmp_path)
        model = MicroEmoForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.bfloat16)
    tower = model.model.audio_branch.audio_tower
    assert tower.head.weight.dtype == torch.bfloat16
    assert tower.log_logit_scale.exp().item() == pytest.approx(20.0, abs=1e-5)


def test_a_frozen_tower_is_copied_and_stays_in_evaluation_mode(tiny):
    model = tiny.model()
    tower = model.model.audio_branch.audio_tower
    tower.requires_grad_(False)
    kept = io.BytesIO()
    torch.save(model, kept)
    for one in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        one.train()
        assert not one.model.audio_branch.audio_tower.training
        assert not one.model.audio_branch.audio_tower.layers[0].training
        assert one.model.visual_encoder.vision_model.training


@pytest.mark.parametrize(
    ("word", "nearest"),
    [
        ("region_mask", "region_masks"),
        ("pixel_values", "pixel_values_videos"),
        ("utterance_window", "utterance_windows"),
    ],
)
def test_a_keyword_that_nobody_reads_is_refused(tiny, word, nearest):
    model = tiny.model()
    inputs = tiny.inputs(model.config)
    with pytest.raises(TypeError, match=f"MicroEmo.*'{word}'.*'{nearest}'"):
        model(**inputs, **{word: inputs["region_masks"]})
    with pytest.raises(TypeError, match=f"'{word}'.*'{nearest}'"):
        model.model.encode_media(**inputs, **{word: inputs["region_masks"]})


@torch.no_grad()
def test_keywords_of_the_language_model_and_of_the_trainer_are_taken(tiny):
    model = tiny.model()
    inputs = tiny.inputs(model.config)
    output = model(
        **inputs,
        labels=inputs["input_ids"],
        num_items_in_batch=torch.tensor(20),
        output_hidden_states=True,
        use_cache=False,
        mm_token_type_ids=torch.zeros_like(inputs["input_ids"]),
    )
    assert len(output.hidden_states) == model.config.text_config.num_hidden_layers + 1
