"""What the answers about all utterances of a clip cost in the language model, beside one answer.

python benchmarks/answers.py                  # 8 utterances, 2 layers of the 7b preset's width; 5 minutes, 5 GB
python benchmarks/answers.py --utterances 4 --new-tokens 64

The prompts have the sizes of those of `microemo-7b`: 32 video tokens for the clip and for each utterance, 8 audio tokens,
a transcript, and a question that cites its utterance's 32 tokens once more. Weights and media tokens are random, and the
media are encoded beforehand, as here only the language model counts. Each round times all ways one after the other;
CPU seconds of all threads, medians over the rounds. In bfloat16 answers of random weights part where two tokens are all
but equally likely; `--dtype float32` shows whether they are the same.
"""

import argparse
import platform
import statistics
import time
from collections import defaultdict

import torch
from transformers import GenerationMixin
from transformers.modeling_outputs import BaseModelOutputWithPooling

from microemo import MicroEmoConfig, MicroEmoForConditionalGeneration

SYSTEM, TRANSCRIPT_LINE, QUESTION = 45, 30, 25  # tokens of the 7b preset's prompt, by the LLaMA tokenizer


def make_model(layers: int) -> MicroEmoForConditionalGeneration:
    """A language model of the 7b preset's width over the tiny preset's towers, which are not run."""
    tiny = MicroEmoConfig.from_preset("microemo-tiny").to_dict()
    text_config = {"model_type": "llama", "num_hidden_layers": layers, "vocab_size": 32002}
    text_config |= {"hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32}
    torch.manual_seed(0)
    config = MicroEmoConfig(**tiny | {"text_config": text_config, "video_token_id": 32000, "audio_token_id": 32001})
    return MicroEmoForConditionalGeneration(config).eval()


def make_questions(config: MicroEmoConfig, utterances: int) -> list[dict]:
    """The prompt and the media tokens of the question about each utterance."""
    width, generator = config.text_config.hidden_size, torch.Generator().manual_seed(1)
    windows = torch.randn(1 + utterances, 32, width, generator=generator) * 0.02
    sound = torch.randn(8, width, generator=generator) * 0.02
    words = torch.randint(5, 32000, (SYSTEM + TRANSCRIPT_LINE * utterances,), generator=generator).tolist()
    questions = []
    for cited in range(1, utterances + 1):
        asked = torch.randint(5, 32000, (QUESTION,), generator=generator).tolist()
        video, audio = config.video_token_id, config.audio_token_id
        ids = [
            *words[:SYSTEM],
            *[video] * (32 * (1 + utterances)),
            *[audio] * 8,
            *words[SYSTEM:],
            *[video] * 32,
            *asked,
        ]
        questions.append({"ids": ids, "video": torch.cat([windows.flatten(0, 1), windows[cited]]), "audio": sound})
    return questions


def as_inputs(questions: list[dict]) -> dict:
    ids = torch.tensor([question["ids"] for question in questions])
    encoded = {
        modality: BaseModelOutputWithPooling(pooler_output=[question[modality] for question in questions])
        for modality in ("video", "audio")
    }
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_encoder_outputs": encoded}


class ReadsEachPromptWhole(MicroEmoForConditionalGeneration):
    """The model with Transformers' own reading of prompts."""

    _prefill = GenerationMixin._prefill


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", type=int, default=8)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = make_model(options.layers).to(getattr(torch, options.dtype))
    plain = ReadsEachPromptWhole.__new__(ReadsEachPromptWhole)
    plain.__dict__.update(model.__dict__)  # the same weights
    questions = make_questions(model.config, options.utterances)
    length = {"max_new_tokens": options.new_tokens, "min_new_tokens": options.new_tokens, "do_sample": False}
    size = len(questions[0]["ids"])
    print(
        f"{platform.machine()}, threads: {options.threads}, torch {torch.__version__}, {options.dtype}, "
        f"{options.layers} layers, {options.utterances} utterances, prompts of {size} tokens, answers of "
        f"{options.new_tokens}, median of {options.rounds}"
    )

    ways = {
        "one answer": lambda: model.generate(**as_inputs(questions[:1]), **length),
        "all answers, the clip read once": lambda: model.generate(**as_inputs(questions), **length),
        "all answers, each prompt read whole": lambda: plain.generate(**as_inputs(questions), **length),
    }
    seconds, answers = defaultdict(list), {}
    model.generate(**as_inputs(questions[:1]), max_new_tokens=2)  # a warm-up
    for _ in range(options.rounds):
        for name, generate in ways.items():
            start = time.process_time()
            answers[name] = generate()[:, size:]
            seconds[name].append(time.process_time() - start)
    one_by_one = torch.cat([model.generate(**as_inputs([question]), **length)[:, size:] for question in questions[:4]])
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"\n| {'way':36} | CPU s | of one answer |\n|{'-' * 38}|------:|--------------:|")
    for name, value in medians.items():
        print(f"| {name:36} | {value:5.2f} | {value / medians['one answer']:13.2f} |")
    same = int((answers["all answers, the clip read once"][:4] == one_by_one).all(dim=1).sum())
    print(f"\n{same} of {len(one_by_one)} answers equal those of asking one by one.")


if __name__ == "__main__":
    main()
