"""What a run trains, what it leaves alone, and what it leaves behind."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import EvalPrediction, TrainerCallback

from microemo import MicroEmoConfig, MicroEmoForConditionalGeneration, MicroEmoProcessor
from microemo.publishing.publish import make_plan
from microemo.training.adapter import load_adapter, merge_adapter
from microemo.training.arguments import MODULES_TO_TRAIN, ModelArguments, parse_arguments
from microemo.training.collator import IGNORED, MicroEmoCollator
from microemo.training.feature_cache import precompute
from microemo.training.recipe_files import RECIPES, find_recipe
from microemo.training.train import (
    TOWERS,
    compute_metrics,
    find_checkpoint,
    prepare_model,
    trained_parameters,
)

ANSWERS = ("happy", "sad", "angry", "calm")


def flat_gradients(model) -> torch.Tensor:
    return torch.cat([parameter.grad.flatten() for _, parameter in trained_parameters(model)])


def prepared(world, **arguments):
    model = MicroEmoForConditionalGeneration.from_pretrained(world.checkpoint)
    torch.manual_seed(0)
    trained = prepare_model(model, ModelArguments(lora_dropout=0.0, **arguments))
    return trained.train()


def test_which_parts_learn(world):
    names = [name for name, _ in trained_parameters(prepared(world))]
    parts = {
        "image_qformer", "local_clue_attention", "fusion", "global_qformer", "window_qformer", "frame_positions",
        "audio_qformer", "segment_positions", "video_projection", "audio_projection", "lora_A", "lora_B",
    }  # fmt: skip
    for part in parts:
        assert any(part in name for name in names), part
    assert any(name.endswith("visual_encoder.query_tokens") for name in names)
    assert not [name for name in names if any(tower in name for tower in TOWERS)]
    in_language_model = [name for name in names if "language_model" in name]
    assert in_language_model and all("lora_" in name for name in in_language_model)
    assert {name.split(".lora_")[0].split(".")[-1] for name in in_language_model} == {
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
    }


def test_no_second_copy_of_what_learns(world):
    model = prepared(world)
    size = sum(parameter.numel() for parameter in model.parameters())
    lora = sum(parameter.numel() for name, parameter in trained_parameters(model) if "lora_" in name)
    assert size == sum(parameter.numel() for parameter in world.model.parameters()) + lora


def test_towers_stay_in_eval_mode(world):
    model = prepared(world).train()
    for name, module in model.named_modules():
        in_tower = any(f".{tower}." in f"{name}." for tower in TOWERS)
        assert module.training != in_tower or not in_tower, name
        if in_tower:
            assert not module.training, name
    assert model.training


def test_frozen_parts_do_not_move_and_all_others_do(run_training):
    seen, before = set(), {}

    class Watch(TrainerCallback):
        def on_train_begin(self, args, state, control, model=None, **kwargs):
            model.get_base_model().model.visual_encoder.fusion.gate.data.zero_()
            before.update({name: parameter.detach().clone() for name, parameter in model.named_parameters()})

        def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
            for name, parameter in trained_parameters(model):
                assert parameter.grad is not None, name
                if parameter.grad.any():
                    seen.add(name)

    trainer = run_training(
        max_steps=3, learning_rate=1e-3, warmup_steps=0, per_device_train_batch_size=4, callbacks=[Watch()]
    )
    learning = {name for name, _ in trained_parameters(trainer.model)}
    # The last layer's text rows are not passed on (the paper keeps the queries), so nothing reaches their feed-forward.
    unreachable = {
        name for name in learning if re.search(r"image_qformer\..*\.layer\.2\.(intermediate|output)\.", name)
    }
    assert len(unreachable) == 6
    assert learning - seen == unreachable
    for name, parameter in trainer.model.named_parameters():
        if name not in learning:
            assert torch.equal(parameter, before[name]), name
        elif name in seen:
            assert not torch.equal(parameter, before[name]), name


def test_an_answer_is_right_when_greedy_generation_would_give_it():
    no = IGNORED
    told = [[no, no, 5, 6, no, 7, 8], [no, 5, 5, no, no, 9, no], [no, no, no, 4, 4, no, no]]
    # Each predicts the token after it; what is predicted where no answer goes on does not count.
    said = [[0, 5, 6, 1, 7, 8, 8], [5, 4, 0, 0, 9, 0, 0], [3, 3, 4, 4, 0, 0, 0]]
    scores = compute_metrics(EvalPrediction(predictions=np.array(said), label_ids=np.array(told)))
    assert scores == {"token_accuracy": pytest.approx(8 / 9), "answer_accuracy": pytest.approx(4 / 5)}


def test_evaluation_tells_how_many_answers_are_right(run_training, world):
    trainer = run_training(
        "--eval_data", str(world.table_file), max_steps=1, eval_strategy="steps", eval_steps=1, num_samples=0,
        per_device_eval_batch_size=3, prediction_loss_only=False, learning_rate=0.0,
    )  # fmt: skip
    (told,) = [log for log in trainer.state.log_history if "eval_loss" in log]
    right = answers = tokens = 0
    for row in world.rows:
        batch = MicroEmoCollator(world.processor)([row])
        with torch.no_grad():
            predicted = trainer.model(**batch).logits.argmax(dim=-1)[0, :-1]
        labels = batch["labels"][0, 1:]
        same = (predicted == labels)[labels != IGNORED]
        right, answers, tokens = right + same.sum().item(), answers + same.all().item(), tokens + len(same)
    assert told["eval_token_accuracy"] == pytest.approx(right / tokens)
    assert told["eval_answer_accuracy"] == answers / len(world.rows)


def test_a_batch_without_face_sound_or_utterances_gives_every_part_a_gradient(world):
    model = prepared(world)
    row = world.rows[2] | {"video": world.rows[1]["video"], "utterances": None}
    batch = MicroEmoCollator(world.processor)([row])
    batch["region_masks"][:] = False
    model(**batch).loss.backward()
    assert all(parameter.grad is not None for _, parameter in trained_parameters(model))
    plain = world.model(**batch)
    torch.testing.assert_close(model(**batch).loss, plain.loss)  # LoRA starts at zero, and the hook adds nothing


def test_loss_and_gradients_are_those_of_the_clips_themselves(world):
    """With the cache and without: the same loss and the same gradients."""
    losses, gradients = [], []
    for processor in (world.processor, world.cache.reader()):
        model = prepared(world)
        loss = model(**MicroEmoCollator(processor)(world.rows)).loss
        loss.backward()
        losses.append(loss.item())
        gradients.append(flat_gradients(model))
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-5, rtol=1e-4)


def test_four_times_one_row_is_one_time_four_rows(run_training):
    weights = []
    for name, rows, steps in (("one", 1, 4), ("four", 4, 1)):
        trainer = run_training(
            output=name,
            max_steps=2,
            learning_rate=1e-2,
            optim="sgd",
            warmup_steps=0,
            lr_scheduler_type="constant",
            per_device_train_batch_size=rows,
            gradient_accumulation_steps=steps,
        )
        weights.append(torch.cat([parameter.detach().flatten() for _, parameter in trained_parameters(trainer.model)]))
    torch.testing.assert_close(*weights, atol=1e-5, rtol=1e-5)


def test_gradient_checkpointing_changes_no_gradient(world):
    batch = MicroEmoCollator(world.cache.reader())(world.rows)
    gradients = []
    for checkpointing in (False, True):
        model = prepared(world)
        if checkpointing:
            model.gradient_checkpointing_enable()
        model(**batch).loss.backward()
        gradients.append(flat_gradients(model))
    torch.testing.assert_close(*gradients)


@pytest.fixture(scope="module")
def batch_of(world):
    return MicroEmoCollator(world.cache.reader())(world.rows)


def test_what_a_run_leaves_behind(run_training, world, batch_of, tmp_path):
    trainer = run_training(
        "stage2",
        dtype="float32",
        bf16=False,
        dataloader_num_workers=0,
        max_steps=2,
        learning_rate=1e-2,
        eval_data=world.table_file,
        eval_strategy="steps",
        eval_steps=1,
        num_samples=2,
        sample_tokens=3,
        save_strategy="steps",
        save_steps=2,
    )
    run = tmp_path / "run"
    expected = trainer.model.eval()(**batch_of).logits.detach()
    assert not torch.equal(expected, world.model(**batch_of).logits.detach())

    reloaded, processor = load_adapter(run)
    assert torch.equal(reloaded.eval()(**batch_of).logits.detach(), expected)
    assert type(processor) is MicroEmoProcessor and processor.video_processor.num_frames == 6
    through_transformers = MicroEmoForConditionalGeneration.from_pretrained(run).eval()
    assert torch.equal(through_transformers(**batch_of).logits.detach(), expected)
    last = MicroEmoForConditionalGeneration.from_pretrained(run / "checkpoint-2").eval()
    assert torch.equal(last(**batch_of).logits.detach(), expected)

    merged = merge_adapter(run, tmp_path / "merged")
    model = MicroEmoForConditionalGeneration.from_pretrained(merged).eval()
    assert not any("lora" in name for name, _ in model.named_parameters())
    torch.testing.assert_close(model(**batch_of).logits.detach(), expected, atol=1e-5, rtol=1e-5)
    prompt = {name: value for name, value in batch_of.items() if name != "labels"}
    options = {"max_new_tokens": 3, "do_sample": False}
    assert torch.equal(model.generate(**prompt, **options), reloaded.generate(**prompt, **options))
    assert MicroEmoProcessor.from_pretrained(merged).chat_template == world.processor.chat_template

    card = (run / "README.md").read_text()
    assert "library_name: peft" in card and "train.jsonl, 4 rows" in card and str(tmp_path) not in card
    facts = (run / "training_run.json").read_text()
    assert json.loads(facts)["steps"] == 2 and str(tmp_path) not in facts
    published = make_plan(run, "ada/adapter", license="mit", base_model="lab/tiny")
    card = published.files["README.md"].decode()
    assert "| training data | train.jsonl, 4 rows |" in card and "| steps | 2 |" in card and "## Intended use" in card
    assert {"samples.jsonl", "training_run.json", "checkpoint-2/"} <= published.left_out.keys()
    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    assert [(sample["step"], sample["clip"]) for sample in samples] == [
        (step, word) for step in (1, 2) for word in ("happy", "sad")
    ]
    assert samples[0]["question"] == "What does the speaker feel?"
    assert samples[0]["expected"] == "The speaker feels happy."
    assert "eval_loss" in trainer.state.log_history[-2]


def test_merge_refuses(tmp_path, tiny):
    with pytest.raises(FileNotFoundError, match="no adapter_config.json"):
        merge_adapter(tiny, tmp_path / "out")
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match="base_model_name_or_path is None"):
        merge_adapter(tmp_path, tmp_path / "out")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tiny)}))
    with pytest.raises(FileExistsError, match="not empty"):
        merge_adapter(tmp_path, tmp_path)


def test_stage1_trains_no_language_model_and_saves_a_whole_checkpoint(run_training, world, batch_of, tmp_path):
    trainer = run_training(
        "stage1",
        dtype="float32",
        bf16=False,
        dataloader_num_workers=0,
        max_steps=1,
        learning_rate=1e-3,
        warmup_steps=0,
    )
    reloaded = MicroEmoForConditionalGeneration.from_pretrained(tmp_path / "run").eval()
    assert torch.equal(reloaded(**batch_of).logits.detach(), trainer.model.eval()(**batch_of).logits.detach())
    for name, parameter in reloaded.named_parameters():
        before = world.model.get_parameter(name)
        if "language_model" in name or any(tower in name for tower in TOWERS):
            assert torch.equal(parameter, before), name
    assert not torch.equal(reloaded.model.video_projection.weight, world.model.model.video_projection.weight)
    assert not torch.equal(reloaded.model.visual_encoder.query_tokens, world.model.model.visual_encoder.query_tokens)


def test_bf16_keeps_what_learns_in_float32(run_training):
    with pytest.raises(ValueError, match="is stale: audio_tower was .* vision_model was"):  # a cache in float32
        run_training(dtype="bfloat16", bf16=True)
    trainer = run_training(
        dtype="bfloat16", bf16=True, max_steps=2, per_device_train_batch_size=2, feature_cache="", logging_steps=1
    )
    assert {parameter.dtype for _, parameter in trained_parameters(trainer.model)} == {torch.float32}
    frozen = {p.dtype for p in trainer.model.parameters() if not p.requires_grad}
    assert frozen == {torch.bfloat16}
    assert all(torch.isfinite(torch.tensor(log["loss"])) for log in trainer.state.log_history if "loss" in log)
    with pytest.raises(ValueError, match="bf16: true"):
        run_training(dtype="bfloat16", feature_cache="")


@pytest.mark.slow
def test_overfits_four_clips(run_training, world, make_clip, tmp_path):
    """Four clips that only pictures and sound tell apart. The language model learns along: a frozen one of random
    weights cannot say anything. All weights start as wide as their inputs ask for (128 ** -0.5): narrow ones give all
    clips nearly the same tokens."""
    config = MicroEmoConfig.from_pretrained(world.checkpoint)
    for part in config.sub_configs:
        getattr(config, part).initializer_range = 0.09
    torch.manual_seed(0)
    model = MicroEmoForConditionalGeneration(config).eval()
    model.save_pretrained(tmp_path / "wide")
    world.processor.save_pretrained(tmp_path / "wide")
    clips = [make_clip("felt.mp4", face_width=130), make_clip("near.mp4", face_width=200)]
    clips += [Path(row["video"]) for row in world.rows[2:]]
    rows = [
        {"video": str(c), "instruction": "What?", "response": f"{w}."} for c, w in zip(clips, ANSWERS, strict=True)
    ]
    table = tmp_path / "four.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    cache = precompute([rows], tmp_path / "cache", world.processor, model)
    trainer = run_training(
        model_name_or_path=tmp_path / "wide",
        train_data=table,
        feature_cache=tmp_path / "cache",
        use_peft=False,
        modules_to_train=[*MODULES_TO_TRAIN, "language_model", "lm_head"],
        max_steps=250,
        learning_rate=7e-4,
        per_device_train_batch_size=4,
        weight_decay=0,
        logging_steps=25,
    )
    model, batch = trainer.model.eval(), MicroEmoCollator(cache.reader())(rows)
    assert len({tuple(ids) for ids in batch["input_ids"][:, :-8].tolist()}) == 1
    with torch.no_grad():
        assert model(**batch).loss < 0.01
        media = {"vision_features", "face_features", "region_masks", "audio_features"}
        others = {name: value.flip(0) if name in media else value for name, value in batch.items()}
        assert model(**others).loss > 1.0


def test_towers_cannot_be_trained_on_their_own_features(run_training):
    with pytest.raises(ValueError, match="cannot be trained on it"):
        run_training(use_peft=False, modules_to_train="all", max_steps=1)


def test_ablations_differ_from_the_full_recipe_in_one_line():
    def lines(name):
        return [line for line in find_recipe(name).read_text().splitlines() if not line.startswith("#")]

    ablations = sorted(path.stem for path in RECIPES.glob("stage2-without-*.yaml"))
    assert len(ablations) == 4
    for name in ablations:
        different = [pair for pair in zip(lines("stage2"), lines(name), strict=True) if pair[0] != pair[1]]
        assert len(different) == 1 and different[0][1].startswith("config_overrides: "), name


@pytest.mark.parametrize("recipe", sorted(path.stem for path in RECIPES.glob("*.yaml")))
def test_recipes_parse_with_the_papers_values(recipe, tmp_path):
    options = ["--use_cpu", "true", "--output_dir", str(tmp_path), "--weight_decay", "0.1"]
    model_args, _, args = parse_arguments([recipe, *options])
    assert (args.warmup_steps, args.lr_scheduler_type, args.num_train_epochs) == (
        0.05,
        "cosine",
        3 if "stage2" in recipe else args.num_train_epochs,
    )
    assert args.weight_decay == 0.1
    if recipe.startswith("stage2"):
        assert args.learning_rate == 2e-5 and args.num_train_epochs == 3 and args.per_device_train_batch_size == 1
        assert (model_args.lora_r, model_args.lora_alpha, model_args.use_peft) == (32, 32, True)
    for preset in ("microemo-7b", "microemo-tiny"):
        MicroEmoConfig.from_preset(preset, **model_args.config_overrides)


def test_ablations_run(run_training):
    trainer = run_training(
        "stage2-without-all", dtype="float32", bf16=False, dataloader_num_workers=0, max_steps=1, feature_cache=""
    )
    config = trainer.model.get_base_model().config
    assert (config.windows, config.use_local_clue_attention, config.use_frame_timestamps) == ("none", False, False)
    assert trainer.processing_class.windows == "none"
    assert not hasattr(trainer.model.get_base_model().model.visual_encoder, "local_clue_attention")


def test_adapters_keep_their_switches(run_training, tmp_path):
    run_training(
        "stage2-without-local-clue-attention", dtype="float32", bf16=False, dataloader_num_workers=0, max_steps=1
    )
    model, processor = load_adapter(tmp_path / "run")
    processor.check_config(model.get_base_model().config)
    assert model.get_base_model().config.use_local_clue_attention is False


@pytest.mark.parametrize(
    "options, message",
    [
        ({"config_overrides": '{"wndows": "none"}'}, "'wndows' is no field"),
        ({"config_overrides": "windows=none"}, "config_overrides must be JSON"),
        ({"modules_to_train": "video_qfromer"}, "no module named video_qfromer"),
        ({"modules_to_train": "all"}, "use_peft: false"),
        ({"eval_strategy": "steps", "eval_steps": 1}, "no eval_data"),
        ({"learning_rat": "1"}, "learning_rat"),
    ],
)
def test_options_that_cannot_be(run_training, options, message):
    with pytest.raises(ValueError, match=message):
        run_training(max_steps=1, **options)


def test_unknown_recipes_are_answered_with_the_shipped_ones():
    with pytest.raises(FileNotFoundError, match="stage9: no such recipe.*stage1.*stage2"):
        parse_arguments(["stage9"])


def test_only_whole_checkpoints_are_resumed(tmp_path):
    _, _, args = parse_arguments(
        ["--output_dir", str(tmp_path), "--resume_from_checkpoint", "true", "--use_cpu", "true"]
    )
    assert find_checkpoint(args) is None
    for step in (2, 10, 12):
        (tmp_path / f"checkpoint-{step}").mkdir()
    for step in (2, 10):
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
    assert find_checkpoint(args) == str(tmp_path / "checkpoint-10")


def test_qlora_puts_the_language_model_alone_into_four_bits(run_training, world, tmp_path):
    pytest.importorskip("bitsandbytes", reason="the recipe needs it; it has no build for every platform")
    trainer = run_training(
        "stage2-qlora", dataloader_num_workers=0, max_steps=2, logging_steps=1, warmup_steps=0, feature_cache=""
    )
    model = trainer.model.get_base_model()
    quantised = {name for name, part in model.named_modules() if type(part).__name__ == "Linear4bit"}
    linear = {
        name
        for name, part in world.model.named_modules()
        if isinstance(part, torch.nn.Linear) and ".language_model." in f".{name}"
    }
    assert {name.removesuffix(".base_layer") for name in quantised} == linear
    assert {parameter.dtype for _, parameter in trained_parameters(trainer.model)} == {torch.float32}
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    assert len(losses) == 2 and np.isfinite(losses).all()
    adapted, _ = load_adapter(tmp_path / "run")  # on the base in full
    lora = [parameter for name, parameter in adapted.named_parameters() if "lora_B" in name]
    assert all(parameter.any() for parameter in lora)
