"""What each stage of the model costs beside the bare image encoder, at the paper's sizes, with random weights.

python benchmarks/model.py            # 8 frames, 3 utterances, 8 audio segments; about 15 minutes, 7 GB
python benchmarks/model.py --frames 32 --rounds 1

Every round times all stages one after the other, so that they meet the machine in the same mood; CPU seconds, medians
over the rounds. One thread: several wait for one another on a busy machine, and waiting counts as work.
"""

import argparse
import platform
import statistics
import time
from collections import defaultdict

import torch
from transformers.models.instructblipvideo.modeling_instructblipvideo import InstructBlipVideoVisionModel

from microemo import MicroEmoConfig, MicroEmoModel

FACE = 4  # patches on a side of a face in an ordinary medium shot


def make_model(local_view: str) -> MicroEmoModel:
    """The 7b preset's vision and audio parts over a language model of one narrow layer."""
    text_config = {"model_type": "llama", "hidden_size": 4096, "intermediate_size": 64, "num_hidden_layers": 1}
    config = MicroEmoConfig(local_view=local_view, text_config=text_config, fusion_gate_init=1.0)
    return MicroEmoModel(config).eval()


def make_inputs(config: MicroEmoConfig, frames: int, utterances: int) -> dict[str, torch.Tensor]:
    side = int(config.vision_config.num_patches**0.5)
    region_masks = torch.zeros(1, frames, config.num_regions, side, side, dtype=torch.bool)
    extent = side - 2 if config.local_view == "face_crop" else FACE
    for region in range(config.num_regions):
        row, column = divmod(region, 4)
        top, left = 1 + row * extent // 3, 1 + column * extent // 4
        region_masks[:, :, region, top : top + max(extent // 3, 1), left : left + max(extent // 4, 1)] = True
    cuts = torch.linspace(0, frames, utterances + 1).long()
    return {
        "pixel_values_videos": torch.randn(1, frames, 3, 224, 224),
        "pixel_values_faces": torch.randn(1, frames, 3, 224, 224),
        "region_masks": region_masks.flatten(3),
        "qformer_input_ids": torch.randint(1000, 30000, (1, frames, 12)),
        "utterance_windows": torch.stack([cuts[:-1], cuts[1:]], dim=1)[None],
        "input_features": torch.randn(1, 8, 1, 128, 204),
    }


class Stopwatch:
    """CPU seconds of modules, by hooks."""

    def __init__(self):
        self.seconds = defaultdict(float)

    def watch(self, name: str, module: torch.nn.Module) -> None:
        starts = []
        module.register_forward_pre_hook(lambda *_: starts.append(time.process_time()))
        module.register_forward_hook(lambda *_: self._add(name, time.process_time() - starts.pop()))

    def _add(self, name: str, seconds: float) -> None:
        self.seconds[name] += seconds


@torch.inference_mode()
def measure(local_view: str, frames: int, utterances: int, rounds: int) -> dict[str, float]:
    model = make_model(local_view)
    inputs = make_inputs(model.config, frames, utterances)
    with torch.device("meta"):
        bare = InstructBlipVideoVisionModel(model.config.vision_config)
    bare.load_state_dict(model.visual_encoder.vision_model.state_dict(), assign=True)  # the same weights, once
    bare.eval()

    stopwatch = Stopwatch()
    for name, module in {
        "image encoder": model.visual_encoder.vision_model,
        "local clue attention": model.visual_encoder.local_clue_attention,
        "image Q-Former": model.visual_encoder.image_qformer,
        "fusion": model.visual_encoder.fusion,
        "video Q-Former": model.video_qformer,
        "video projection": model.video_projection,
        "audio tower": model.audio_branch.audio_tower,
        "audio Q-Former": model.audio_branch.audio_qformer,
        "audio projection": model.audio_projection,
    }.items():
        stopwatch.watch(name, module)

    model.encode_media(**make_inputs(model.config, 1, 1))  # a warm-up
    bare(inputs["pixel_values_videos"][0, :1])
    samples = defaultdict(list)
    for _ in range(rounds):
        stopwatch.seconds.clear()
        start = time.process_time()
        bare(inputs["pixel_values_videos"][0])
        bare_seconds = time.process_time() - start
        start = time.process_time()
        model.encode_media(**inputs)
        total = time.process_time() - start
        samples["bare Transformers ViT"].append(bare_seconds)
        for name, seconds in stopwatch.seconds.items():
            samples[name].append(seconds)
        samples["all of encode_media"].append(total)
        samples["added to the image encoder"].append((total - stopwatch.seconds["image encoder"]) / bare_seconds)
        samples["all, of the bare ViT"].append(total / bare_seconds)
    return {name: statistics.median(values) for name, values in samples.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--utterances", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--local-view", choices=["frame", "face_crop"], nargs="*", default=["frame", "face_crop"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        f"{platform.machine()}, {torch.get_num_threads()} thread(s), torch {torch.__version__}, float32, "
        f"{options.frames} frames, {options.utterances} utterances, 8 audio segments, median of {options.rounds}"
    )
    for local_view in options.local_view:
        figures = measure(local_view, options.frames, options.utterances, options.rounds)
        bare = figures["bare Transformers ViT"]
        print(f'\nlocal_view="{local_view}"')
        print(f"| {'stage':26} | CPU s | of the bare ViT |\n|{'-' * 28}|------:|----------------:|")
        for name, value in figures.items():
            if name in ("added to the image encoder", "all, of the bare ViT"):
                print(f"| {name:26} | {'':5} | {value:14.1%} |")
            else:
                print(f"| {name:26} | {value:5.2f} | {value / bare:14.1%} |")


if __name__ == "__main__":
    main()
