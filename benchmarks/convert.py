"""Time and memory of `microemo convert` at real size.

python benchmarks/convert.py [--folder DIR] [--dtype bfloat16]

Writes random weights in the originals' formats and sizes (EVA-CLIP ViT-g, InstructBLIP's Q-Former, Video-LLaMA's two
branches, all of ImageBind, a language model of width 4096 with 2 layers), converts them in a process of its own, loads
the result with `from_pretrained` and compares every tensor with its source. Needs 20 GB of disk, given back at the end.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from transformers import LlamaForCausalLM

from microemo import MicroEmoConfig, MicroEmoForConditionalGeneration
from microemo.modeling_microemo.convert_original import original_names, part_of
from microemo.publishing.convert_checkpoints import convert_checkpoints
from microemo.publishing.initialize import tiny_qformer_tokenizer

FILES = ("vision", "qformer", "video_branch", "audio_branch", "imagebind")
OLD_VOCABULARY = 32000


def language_config():
    text_config = MicroEmoConfig.from_preset("microemo-7b").text_config
    text_config.num_hidden_layers = 2
    text_config.vocab_size = OLD_VOCABULARY
    return text_config


def original_shapes() -> dict[str, dict[str, tuple[int, ...]]]:
    """Keys and shapes of each original file, the parts that nobody reads included."""
    config = MicroEmoConfig.from_preset("microemo-7b")
    with torch.device("meta"):
        model = MicroEmoForConditionalGeneration(config)
    files = {name: {} for name in FILES}
    for name, tensor in model.state_dict().items():
        _, option = part_of(name)
        if option in files and (alternatives := original_names(name, {})):
            shape = tuple(tensor.shape)
            keys = alternatives[0]
            files[option] |= {key: (shape[0] // 3,) if len(keys) == 2 else shape for key in keys}
    # ImageBind's other modalities, most of its file: (trunk, blocks, width).
    for trunk, blocks, width in (
        ("vision", 32, 1280),
        ("text", 24, 1024),
        ("depth", 12, 384),
        ("thermal", 12, 768),
        ("imu", 6, 512),
    ):
        for block in (f"modality_trunks.{trunk}.blocks.{i}" for i in range(blocks)):
            files["imagebind"] |= {
                f"{block}.attn.in_proj_weight": (3 * width, width),
                f"{block}.attn.out_proj.weight": (width, width),
                f"{block}.mlp.fc1.weight": (4 * width, width),
                f"{block}.mlp.fc2.weight": (width, 4 * width),
            }
    files["imagebind"]["modality_preprocessors.text.token_embedding.weight"] = (49408, 1024)
    return files


def write_sources(folder: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    for name, shapes in original_shapes().items():
        dtype = torch.float16 if name == "vision" else torch.float32
        tensors = {
            key: torch.empty(shape, dtype=dtype).uniform_(-0.05, 0.05, generator=generator)
            for key, shape in shapes.items()
        }
        torch.save(tensors if name in ("vision", "imagebind") else {"model": tensors}, folder / f"{name}.pth")
        del tensors
    llama = LlamaForCausalLM._from_config(language_config(), dtype=torch.float16)
    llama.save_pretrained(folder / "llm")
    tokenizer = tiny_qformer_tokenizer()
    tokenizer.save_pretrained(folder / "bert")
    tokenizer.add_tokens([f"<{number}>" for number in range(OLD_VOCABULARY - len(tokenizer))])
    tokenizer.eos_token = "[SEP]"
    tokenizer.save_pretrained(folder / "llm")


def convert(folder: Path, dtype: str) -> dict:
    """Seconds and peak memory in MB, of this process before the conversion and with it."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.perf_counter()
    sources = {name: folder / f"{name}.pth" for name in FILES}
    convert_checkpoints(folder / "out", llm=folder / "llm", qformer_tokenizer=folder / "bert", dtype=dtype, **sources)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "before": before, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def compare(folder: Path) -> tuple[float, int]:
    """Load the converted folder; seconds it takes, and how many of its tensors equal their source."""
    start = time.perf_counter()
    model = MicroEmoForConditionalGeneration.from_pretrained(folder / "out", dtype="auto")
    seconds = time.perf_counter() - start
    state = model.state_dict()
    llama = LlamaForCausalLM.from_pretrained(folder / "llm", dtype="auto").state_dict()
    names = {name: name.replace("model.language_model.", "model.") for name in state if part_of(name)[1] == "llm"}
    equal = 0
    for option in FILES:
        content = torch.load(folder / f"{option}.pth", weights_only=True, mmap=True)
        content = content.get("model", content)
        for name, tensor in state.items():
            alternatives = original_names(name, names)
            if part_of(name)[1] != option or not alternatives:
                continue
            parts = [content[key] for key in alternatives[0]]
            source = torch.cat([parts[0], torch.zeros_like(parts[0]), parts[1]]) if len(parts) == 2 else parts[0]
            assert torch.equal(tensor, source.to(tensor.dtype)), name
            equal += 1
    for name, key in names.items():
        assert torch.equal(state[name][: len(llama[key])], llama[key].to(state[name].dtype)), name
        equal += 1
    return seconds, equal


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", help="where the files are made; a temporary folder by default")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--step", choices=("write", "convert", "compare"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        step = {"write": write_sources, "convert": lambda f: convert(f, arguments.dtype), "compare": compare}
        print(json.dumps(step[arguments.step](Path(arguments.folder))))
        return

    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="microemo-convert-") as folder:
        results = {}
        for step in ("write", "convert", "compare"):  # a process each, so that the peak is the conversion's own
            command = [sys.executable, __file__, "--folder", folder, "--step", step, "--dtype", arguments.dtype]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            results[step] = json.loads(output.splitlines()[-1])
        sizes = {path.name: path.stat().st_size / 1e6 for path in Path(folder).rglob("*.*") if path.is_file()}
        sources = [*(f"{name}.pth" for name in FILES), "model.safetensors"]
        written = sum(path.stat().st_size for path in (Path(folder) / "out").iterdir()) / 1e6
    for name in sources:
        print(f"{name:22} {sizes[name]:8.0f} MB")
    conversion, (seconds, equal) = results["convert"], results["compare"]
    largest = max(sizes[name] for name in sources)
    peak = conversion["peak"] * 1.048576
    print(f"written                {written:8.0f} MB of {arguments.dtype}")
    print(f"conversion             {conversion['seconds']:8.0f} s")
    print(f"peak memory            {peak:8.0f} MB (before: {conversion['before'] * 1.048576:.0f} MB)")
    print(f"largest source + 2 GB  {largest + 2000:8.0f} MB: {'kept' if peak < largest + 2000 else 'EXCEEDED'}")
    print(f"from_pretrained        {seconds:8.0f} s, {equal} tensors equal their source")


if __name__ == "__main__":
    main()
