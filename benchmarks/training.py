"""What a training step costs, and what memory the paper's sizes need.

python benchmarks/training.py step      # 7b widths, a 2-layer language model; about 10 minutes on 2 cores, 20 GB
python benchmarks/training.py tiny      # the tiny preset's step with and without the cache: real clips
python benchmarks/training.py memory    # the 7b preset's bytes, on the meta device
python benchmarks/training.py gpu       # the 7b preset's step and memory with random weights on a GPU, LoRA and QLoRA

`step` times training with the feature cache beside LoRA on the bare language model with the same tokens, both forward,
backward and AdamW, in CPU seconds; the time per language-model layer (4 layers less 2, halved) takes both to 32 layers.
"""

import argparse
import gc
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from microemo import MicroEmoConfig, MicroEmoForConditionalGeneration
from microemo.configuration.tower_table import vision_row
from microemo.training.train import ModelArguments, load_quantization_config, prepare_model, trained_parameters

LAYERS = 32
GIB = 2**30
NO_DROPOUT = {"lora_dropout": 0.0}


def make_config(layers: int | None = None, preset: str = "microemo-7b") -> MicroEmoConfig:
    config = MicroEmoConfig.from_preset(preset)
    if layers is not None:
        config.text_config.num_hidden_layers = layers
        # The frozen towers do not run in a step with the cache.
        config.vision_config.num_hidden_layers = config.audio_config.num_hidden_layers = 1
    return config


def make_batch(config: MicroEmoConfig, frames: int, utterances: int, words: int, cached: bool = True) -> dict:
    """One clip with faces, sound and utterances as the processor would give it; `words` tokens of text and answer."""
    patches, regions = config.num_patches, config.num_regions
    side = int(patches**0.5)
    region_masks = torch.zeros(1, frames, regions, side, side, dtype=torch.bool)
    for region in range(regions):  # a face in a medium shot covers a few patches
        row, column = divmod(region, 4)
        region_masks[:, :, region, 4 + row, 5 + column] = True
    cuts = torch.linspace(0, frames, utterances + 1).long()
    windows = torch.stack([cuts[:-1], cuts[1:]], dim=1)[None]
    video = config.num_video_query_tokens * (1 + utterances)
    audio = config.num_audio_query_tokens * (1 + utterances * config.use_utterance_audio)
    text = torch.randint(3, 30000, (1, words))
    input_ids = torch.cat(
        [torch.full((1, video), config.video_token_id), torch.full((1, audio), config.audio_token_id), text], dim=1
    )
    labels = input_ids.clone()
    labels[:, : -words // 2] = -100
    class_tokens = vision_row(config.vision_config).class_tokens
    media = (
        {
            "vision_features": torch.randn(1, frames, class_tokens + patches, config.vision_width),
            "audio_features": torch.randn(1, 8, config.audio_width),
        }
        if cached
        else {
            "pixel_values_videos": torch.randn(1, frames, 3, 224, 224),
            "input_features": torch.randn(1, 8, 1, 128, 204),
        }
    )
    return {
        **media,
        "input_ids": input_ids,
        "attention_mask": torch.ones_like(input_ids),
        "labels": labels,
        "region_masks": region_masks.flatten(3),
        "qformer_input_ids": torch.randint(1000, 30000, (1, frames, 12)),
        "utterance_windows": windows,
    }


def timed_steps(models: list, batches: list[dict], steps: int, clock=time.perf_counter, bfloat16=False) -> list[float]:
    """Median seconds of forward, backward and AdamW of each model; they take turns, to meet the same machine. With
    `bfloat16` what learns is kept in float32."""
    optimizers = [
        torch.optim.AdamW([parameter for _, parameter in trained_parameters(model)], lr=2e-5) for model in models
    ]
    seconds = [[] for _ in models]
    for step in range(steps + 1):
        for number, (model, batch, optimizer) in enumerate(zip(models, batches, optimizers, strict=True)):
            start = clock()
            with torch.autocast(batch["input_ids"].device.type, torch.bfloat16, enabled=bfloat16):
                loss = model(**batch).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if step:  # the first is a warm-up
                seconds[number].append(clock() - start)
    return [statistics.median(values) for values in seconds]


def step_seconds(layers: int, options) -> list[float]:
    """CPU seconds of cached MicroEmo, and of the bare language model on as many tokens."""
    torch.manual_seed(0)
    config = make_config(layers)
    batch = make_batch(config, options.frames, options.utterances, options.words)
    ours = prepare_model(MicroEmoForConditionalGeneration(config), ModelArguments(**NO_DROPOUT))
    bare = _with_lora(AutoModelForCausalLM.from_config(config.text_config))
    return timed_steps([ours.train(), bare.train()], [batch, _without_media(batch)], options.steps, time.process_time)


def _with_lora(language_model):
    targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
    return get_peft_model(
        language_model, LoraConfig(r=32, lora_alpha=32, target_modules=targets, task_type="CAUSAL_LM")
    )


def _without_media(batch: dict) -> dict:
    """A batch for a language model alone, with as many tokens."""
    ids = batch["input_ids"] % 30000
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": batch["labels"]}


def step(options) -> None:
    few, more = step_seconds(2, options), step_seconds(4, options)
    tokens = make_batch(make_config(2), options.frames, options.utterances, options.words)["input_ids"].shape[1]
    layer = [(long - short) / 2 for short, long in zip(few, more, strict=True)]
    ours, bare = (seconds + (LAYERS - 2) * each for seconds, each in zip(few, layer, strict=True))
    print(f"{tokens} tokens, {options.frames} frames, {options.utterances} utterances, float32, batch 1, CPU seconds")
    print("| | 2 layers | 4 layers | s a layer | at 32 layers |\n|---|--:|--:|--:|--:|")
    for name, number, at_32 in (("MicroEmo, cached", 0, ours), ("bare language model", 1, bare)):
        print(f"| {name} | {few[number]:.2f} s | {more[number]:.2f} s | {layer[number]:.2f} | {at_32:.1f} s |")
    print(f"\ncached training is {ours / bare:.2f}x the bare language model's LoRA step (aim: at most 1.3)")


def tiny(options) -> None:
    from microemo import MicroEmoProcessor
    from microemo.publishing.initialize import initialize
    from microemo.training.collator import MicroEmoCollator
    from microemo.training.feature_cache import FeatureCache
    from microemo.training.synthetic.media_writer import write_demo_dialogue

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        checkpoint = initialize("microemo-tiny", folder / "tiny")
        clip = write_demo_dialogue(folder)
        row = {
            "video": str(clip),
            "subtitles": str(clip.with_suffix(".srt")),
            "instruction": "Why?",
            "response": "So.",
        }
        model = MicroEmoForConditionalGeneration.from_pretrained(checkpoint)
        processor = MicroEmoProcessor.from_pretrained(checkpoint)
        cache = FeatureCache(folder / "cache", processor, model)
        cache.add([row], model, progress=False)
        tokens = FeatureCache(folder / "tokens", cache.reader(), model, frame_tokens=True)
        tokens.add([row], model, progress=False)
        trained = prepare_model(model, ModelArguments(**NO_DROPOUT)).train()
        optimizer = torch.optim.AdamW([parameter for _, parameter in trained_parameters(trained)], lr=2e-5)
        print("| microemo-tiny, 24 frames | data | step |\n|---|--:|--:|")
        sources = {"clip": processor, "cache": cache.reader(), "cache of frame tokens": tokens.reader()}
        for name, source in sources.items():
            collator, data, steps = MicroEmoCollator(source), [], []
            for _ in range(options.steps + 1):
                start = time.perf_counter()
                batch = collator([row])
                middle = time.perf_counter()
                trained(**batch).loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                data.append(middle - start)
                steps.append(time.perf_counter() - middle)
            print(f"| from the {name} | {statistics.median(data[1:]):.3f} s | {statistics.median(steps[1:]):.3f} s |")


def memory(options) -> None:
    config = make_config(preset=options.preset)
    with torch.device("meta"):
        model = MicroEmoForConditionalGeneration(config).to(torch.bfloat16)
        trained = prepare_model(model, ModelArguments(), mixed_precision=True)
    learning = sum(parameter.numel() for _, parameter in trained_parameters(trained))
    frozen = sum(parameter.numel() for parameter in trained.parameters()) - learning
    linear = sum(
        module.weight.numel()
        for name, module in trained.named_modules()
        if "language_model.layers" in name and "lora_" not in name and isinstance(module, torch.nn.Linear)
    )
    text = config.text_config
    batch = make_batch(config, options.frames, options.utterances, options.words)
    tokens = batch["input_ids"].shape[1]
    # With gradient checkpointing: a layer's input each, one layer in full (its widest: gate, up and product, and their
    # gradients), and the logits in float32 with their gradient.
    kept = tokens * text.hidden_size * text.num_hidden_layers * 2
    one_layer = tokens * (8 * text.hidden_size + 6 * text.intermediate_size) * 2
    logits = 3 * tokens * text.vocab_size * 4
    image = config.image_qformer_config
    views, width = 2 * options.frames, image.hidden_size
    positions = config.num_query_tokens + 12
    visual = views * positions * (16 * width + 4 * image.intermediate_size) * 4 * image.num_hidden_layers
    visual += views * (1 + config.num_patches) * width * 2 * 4 * image.num_hidden_layers
    parts = {
        "frozen weights, bfloat16": 2 * frozen,
        "trained weights, float32": 4 * learning,
        "gradients, float32": 4 * learning,
        "AdamW, float32": 8 * learning,
        "activations (language model, checkpointed)": kept + one_layer + logits,
        "activations (Q-Formers, not checkpointed)": visual,
    }
    print(f"{options.preset}: {learning:,} parameters learn, {frozen:,} are frozen; {tokens} tokens, batch 1")
    print("| | LoRA bf16 | QLoRA |\n|---|--:|--:|")
    quantised = 2 * (frozen - linear) + linear * 0.52  # nf4 with doubly quantised constants: 4.13 bits
    for name, size in parts.items():
        four_bits = quantised if name.startswith("frozen") else size
        print(f"| {name} | {size / GIB:.2f} GiB | {four_bits / GIB:.2f} GiB |")
    total = sum(parts.values())
    saved = parts["frozen weights, bfloat16"] - quantised
    print(
        f"| all (the paper's card: 48 GB; QLoRA's: 24 GB) | {total / GIB:.2f} GiB | {(total - saved) / GIB:.2f} GiB |"
    )
    print(json.dumps({"lora_gib": total / GIB, "qlora_gib": (total - saved) / GIB}))


def gpu(options) -> None:
    if not torch.cuda.is_available():
        raise SystemExit("no GPU here; `memory` computes what it would need")
    print(torch.cuda.get_device_name())
    config = make_config()
    tokens = make_batch(config, options.frames, options.utterances, options.words)["input_ids"].shape[1]
    print(
        f"{tokens} tokens, {options.frames} frames, {options.utterances} utterances, batch 1, gradient checkpointing"
    )
    kinds = {
        "LoRA, bfloat16": ModelArguments(**NO_DROPOUT),
        "QLoRA": ModelArguments(load_in_4bit=True, use_bnb_nested_quant=True, **NO_DROPOUT),
    }
    print("| | step | peak allocated | peak reserved |\n|---|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        _on_gpu(MicroEmoForConditionalGeneration, config).save_pretrained(folder)
        for kind, arguments in kinds.items():
            model = MicroEmoForConditionalGeneration.from_pretrained(
                folder,
                dtype=torch.bfloat16,
                device_map={"": 0},
                quantization_config=load_quantization_config(arguments),
            )
            ours = prepare_model(model, arguments, mixed_precision=True)
            for cached in (False, True):
                batch = make_batch(config, options.frames, options.utterances, options.words, cached)
                batch = {name: value.to(model.device) for name, value in batch.items()}
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
                (seconds,) = _gpu_steps([ours], [batch], options)
                peaks = torch.cuda.max_memory_allocated() / GIB, torch.cuda.max_memory_reserved() / GIB
                name = f"{kind}, {'cached' if cached else 'from pixels'}"
                print(f"| {name} | {seconds:.3f} s | {peaks[0]:.2f} GiB | {peaks[1]:.2f} GiB |", flush=True)
            if not arguments.load_in_4bit:
                bare = _with_lora(_on_gpu(AutoModelForCausalLM.from_config, config.text_config))
                pair = _gpu_steps([ours, bare], [batch, _without_media(batch)], options)
                print(f"| bare language model, LoRA, bfloat16 | {pair[1]:.3f} s | | |", flush=True)
                ratio = pair[0] / pair[1]
                del bare
            del model, ours
            gc.collect()
    print(f"\ncached training is {ratio:.2f}x the bare language model's LoRA step (aim: at most 1.3)")


def _on_gpu(make, config):
    """A model with random weights in bfloat16."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda"):
            return make(config)
    finally:
        torch.set_default_dtype(torch.float32)


def _gpu_steps(models: list, batches: list[dict], options) -> list[float]:
    for model in models:
        model.train()
        model.gradient_checkpointing_enable()
    return timed_steps(models, batches, options.steps, bfloat16=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("step", "tiny", "memory", "gpu"))
    parser.add_argument("--preset", default="microemo-7b", help="whose memory is computed")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--utterances", type=int, default=3)
    parser.add_argument("--words", type=int, default=256, help="tokens of transcript, question and answer")
    parser.add_argument("--steps", type=int, default=3)
    options = parser.parse_args()
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    {"step": step, "tiny": tiny, "memory": memory, "gpu": gpu}[options.what](options)


if __name__ == "__main__":
    main()
