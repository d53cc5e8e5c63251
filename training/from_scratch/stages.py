"""`microemo-tiny` from nothing, in stages, on a machine without a GPU.

microemo synthesize dialogues --clips 1200 --num-workers 2
microemo synthesize dialogues --clips 120 --split dev --num-workers 2
microemo from-scratch dialogues checkpoints/microemo-tiny --work work --num-workers 2

The paper starts from a language model, an image encoder and an audio tower that others have trained. Here the language
model first learns from dialogues in words (`described_dialogues.py`), the towers from facial actions and prosody
(`tower_pretraining.py`). From there on it is the paper's way, the towers frozen: what lies between them and the language
model learns to see, then to answer. `from_scratch.yaml` has the numbers.
"""

import json
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import yaml
from accelerate import PartialState
from torch import nn
from torch.utils.data import ConcatDataset
from transformers import Trainer
from transformers.utils import logging

from ...modeling_microemo.modeling_microemo import MicroEmoForConditionalGeneration
from ...processing.processing_microemo import MicroEmoProcessor
from ...utils.files import atomic_folder, read_json_lines, write_text
from ..collator import MicroEmoCollator
from ..data import load_table
from ..feature_cache import FeatureCache, keep_settings, pad_together, precompute
from ..synthetic.described_dialogues import LAYOUTS, DescribedDialogues, Dictations, RepeatedLines
from ..synthetic.synthetic_dialogues import TABLE, cite_as, read_truth
from ..train import (
    DataArguments,
    MicroEmoTrainer,
    MicroEmoTrainingArguments,
    ModelArguments,
    load_config_and_processor,
    load_model_and_processor,
    prepare_model,
    train,
)
from .probes import (
    ActingFrames,
    AlignmentClips,
    FacialActionProbe,
    PatchProbe,
    ProsodyProbe,
    SpokenClips,
    WindowProbe,
    put_together,
)

logger = logging.get_logger(__name__)

RECIPE = Path(__file__).with_name("from_scratch.yaml")
PRETRAINED = ("language_model", "visual_encoder.vision_model", "audio_branch.audio_tower")
VISUAL_PRETRAINING = ["image_qformer", "local_clue_attention", "fusion"]
ALIGNMENT = ["video_qformer", "audio_qformer", "segment_positions", "video_projection", "audio_projection"]
ANSWERING = [*ALIGNMENT, "language_model", "lm_head"]
FRAMES_OF_A_CLIP = 6  # in a step that learns from frames


@dataclass
class Run:
    """The folders and numbers of a run.

    Args:
        corpus (`Path`): What `microemo synthesize` filled, with the splits train and dev.
        work (`Path`):
            Where each stage puts a folder when it is over. A run that was killed goes on with the stage that it was in.
        recipe (`dict`): For each stage arguments of the `Trainer`, see `from_scratch.yaml`.
        num_proc (`int`): Processes that decode.
    """

    corpus: Path
    work: Path
    recipe: dict = field(default_factory=lambda: yaml.safe_load(RECIPE.read_text(encoding="utf-8")))
    num_proc: int = 0

    def stage(self, name: str, make: Callable[[Path], None]) -> Path:
        """The folder of a stage; `make` fills it where it is not there yet."""
        folder = self.work / name
        if not folder.exists():
            logger.info(f"{name} -> {folder}")
            with atomic_folder(folder) as part:
                make(part)
        return folder

    @property
    def device(self) -> torch.device:
        """Where the `Trainer` would work: what is computed apart from it is computed there, too."""
        return PartialState().device

    def arguments(self, numbers: dict, folder: Path, **more) -> MicroEmoTrainingArguments:
        """The `Trainer`'s arguments with the numbers of a stage."""
        defaults = {"save_strategy": "no", "report_to": "none", "logging_steps": 20, "adam_beta2": 0.98}
        return MicroEmoTrainingArguments(output_dir=str(folder), **{**defaults, **numbers, **more})

    def rows(self, split: str) -> list[dict]:
        """Of the corpus, with a split."""
        return load_table(self.corpus / TABLE, split).to_list()


# --- stages --------------------------------------------------------------------------------------------------------


def learn_language(run: Run, start: Path, folder: Path) -> None:
    """The language model learns from dialogues in words."""
    model, processor = load_model_and_processor(ModelArguments(model_name_or_path=str(start)))
    torch.manual_seed(0)
    begin_with_copying(model.model.language_model)
    words = _words(processor.tokenizer)
    lessons = {
        "copying": lambda length: RepeatedLines(length, words),
        "language": lambda length: _told_dialogues(length, words, LAYOUTS[:1]),
    }
    _learn_from_words(run, model, processor, lessons, folder)


def learn_layouts(run: Run, towers: Path, folder: Path) -> None:
    """The language model goes on with dialogues in words, in the layouts of all kinds of windows in turn."""
    model, processor = load_model_and_processor(ModelArguments(model_name_or_path=str(towers)))
    torch.manual_seed(0)
    words = _words(processor.tokenizer)
    lessons = {"ablation_language": lambda length: _told_dialogues(length, words, LAYOUTS)}
    _learn_from_words(run, model, processor, lessons, folder)


def _told_dialogues(length: int, words: Sequence[str], layouts: Sequence[str]) -> ConcatDataset:
    return ConcatDataset(
        [DescribedDialogues(length // 2, layouts=layouts), Dictations(length // 2, words, layouts=layouts)]
    )


def _learn_from_words(run: Run, model, processor, lessons: dict[str, Callable], folder: Path) -> None:
    """Lessons: for each one's name in the recipe, what makes as many rows as it takes."""
    prepare_model(model, ModelArguments(use_peft=False, modules_to_train=["language_model", "lm_head"]))
    for lesson, rows in lessons.items():
        arguments = run.arguments(run.recipe[lesson], folder)
        MicroEmoTrainer(
            model=model,
            args=arguments,
            data_collator=MicroEmoCollator(processor),
            train_dataset=rows(arguments.max_steps * arguments.per_device_train_batch_size),
        ).train()
    _save(model, processor, folder)


def _words(tokenizer) -> list[str]:
    """Those that are one token each."""
    tokens = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    return [token[1:] for token in tokens if token[0:1] == " " and token[1:].isalpha() and len(token) > 3]


@torch.no_grad()
def begin_with_copying(language_model: nn.Module) -> None:
    """Attention that looks at tokens like the one it stands at and passes them on: queries are keys, and what the values
    take away the output gives back (mimetic initialisation, Trockman and Kolter 2023).

    To find "utterance 3" above and go on as it goes on there is then a small change; from other random weights it took
    many times as many steps, if it came at all.

    Args:
        language_model: A LLaMA with random weights, with as many key heads as query heads.
    """
    for layer in language_model.layers:
        attention = layer.self_attn
        for weight in (attention.q_proj.weight, attention.v_proj.weight):
            nn.init.normal_(weight, std=weight.shape[1] ** -0.5)
        attention.k_proj.weight.copy_(attention.q_proj.weight)
        attention.o_proj.weight.copy_(attention.v_proj.weight.T)


def learn_towers(run: Run, language: Path, clips: FeatureCache, folder: Path) -> None:
    """The image encoder learns from facial actions, the audio tower from prosody."""
    model, processor = load_model_and_processor(ModelArguments(model_name_or_path=str(language)))
    rows, reader = run.rows("train"), clips.reader()
    frames, sounds = ActingFrames(rows, reader, FRAMES_OF_A_CLIP), SpokenClips(rows, reader)
    torch.manual_seed(0)
    _learn(run, "image_encoder", PatchProbe(model.model.visual_encoder.vision_model), frames, folder)
    _learn(run, "audio_tower", ProsodyProbe(model.model.audio_branch.audio_tower), sounds, folder)
    _save(model, processor, folder)


def pretrain_visual_encoder(
    run: Run, stage: str, towers: Path, features: Path, config_overrides: dict, seed: int, folder: Path
) -> None:
    """All but the pretrained parts starts anew; image Q-Former, local clue attention and fusion learn from facial
    actions."""
    pretrained = MicroEmoForConditionalGeneration.from_pretrained(towers)
    config, processor = load_config_and_processor(
        ModelArguments(model_name_or_path=str(towers), config_overrides=config_overrides)
    )
    torch.manual_seed(seed)
    model = MicroEmoForConditionalGeneration(config)
    for name in PRETRAINED:
        model.model.get_submodule(name).load_state_dict(pretrained.model.get_submodule(name).state_dict())
    prepare_model(model, ModelArguments(use_peft=False, modules_to_train=VISUAL_PRETRAINING))
    frames = ActingFrames(run.rows("train"), FeatureCache(features, processor, model).reader(), FRAMES_OF_A_CLIP)
    _learn(run, stage, FacialActionProbe(model.model.visual_encoder), frames, folder, seed=seed)
    _save(model, processor, folder)


def keep_frame_tokens(
    run: Run, visual_pretraining: Path, features: Path, tables: Sequence[list[dict]], name: str
) -> Path:
    """What a visual encoder that has learned to see makes of the clips, since it is frozen from there on: the folder of a
    cache. Features and tokens are given as folders: each stage reads them with its own processor and model."""
    model, processor = load_model_and_processor(ModelArguments(model_name_or_path=str(visual_pretraining)))
    reader = FeatureCache(features, processor, model).reader()
    return precompute(tables, run.work / name, reader, model.to(run.device), frame_tokens=True).folder


def align_windows(
    run: Run, stage: str, visual_pretraining: Path, tokens: Path, config_overrides: dict, seed: int, folder: Path
) -> None:
    """Video and audio Q-Formers and their projections learn what happens in their windows, and the words for it."""
    pretrained = MicroEmoForConditionalGeneration.from_pretrained(visual_pretraining)
    config, processor = load_config_and_processor(
        ModelArguments(model_name_or_path=str(visual_pretraining), config_overrides=config_overrides)
    )
    torch.manual_seed(seed)
    model = MicroEmoForConditionalGeneration(config)
    for name in (*PRETRAINED, "visual_encoder"):
        model.model.get_submodule(name).load_state_dict(pretrained.model.get_submodule(name).state_dict())
    prepare_model(model, ModelArguments(use_peft=False, modules_to_train=ALIGNMENT))
    clips = AlignmentClips(run.rows("train"), FeatureCache(tokens, processor, model).reader())
    _learn(run, stage, WindowProbe(model.model), clips, folder, pad_together, seed=seed)
    _save(model, processor, folder)


def tune_instructions(run: Run, stage: str, alignment: Path, tokens: Path, seed: int, folder: Path) -> None:
    """What lies between the frame tokens and the answers learns from questions and answers.

    Args:
        stage: In the recipe; see [`write_questions`] for what is no argument of the `Trainer` there.
    """
    numbers = dict(run.recipe[stage])
    table = run.work / f"{stage}.jsonl"
    write_questions(
        run.corpus, table, **{key: numbers.pop(key) for key in ("citations", "kinds", "questions", "rounds")}
    )
    arguments = run.arguments(numbers, folder, seed=seed)
    train(
        ModelArguments(
            model_name_or_path=str(alignment),
            use_peft=False,
            modules_to_train=ANSWERING,
            dtype="float32",
        ),
        DataArguments(
            train_data=str(table),
            train_split="train",
            eval_data=str(table),
            eval_split="dev",
            media_folder=str(run.corpus),
            feature_cache=str(tokens),
            check_clips=False,
            num_samples=0,
        ),
        arguments,
    )


def write_questions(
    corpus: Path, table: Path, citations: Sequence[str], kinds: Sequence[str], questions: int, rounds: int
) -> None:
    """A table of short conversations about the clips of a corpus.

    Args:
        corpus: What `microemo synthesize` filled.
        table: The file to write.
        citations: How questions name their utterance, from row to row in turn; see [`cite_as`].
        kinds: Of questions that are kept; see [`dialogue_truth`].
        questions: How many of a row, drawn at random.
        rounds: Rows for each clip of the split train, with questions of their own; the other splits have one.
    """
    truth, rows = read_truth(corpus), []
    for index, row in enumerate(read_json_lines(corpus / TABLE)):
        clip_truth = truth[row["name"]]
        numbers = [number for number, turn in enumerate(clip_truth["turns"]) if turn["kind"] in kinds]
        for part in range(rounds if row["split"] == "train" else 1):
            citation = citations[(index + part) % len(citations)]
            messages = cite_as(row["messages"], clip_truth["utterances"], citation)
            selected = random.Random(f"{row['name']} {part}").sample(numbers, min(questions, len(numbers)))
            messages = [message for number in selected for message in messages[2 * number : 2 * number + 2]]
            rows.append({**row, "messages": messages})
    write_text(table, "".join(f"{json.dumps(row)}\n" for row in rows))


def _learn(run: Run, stage: str, net: nn.Module, data, folder: Path, collate=put_together, **more) -> None:
    arguments = run.arguments(run.recipe[stage], folder, **more)
    Trainer(model=net, args=arguments, data_collator=collate, train_dataset=data).train()


def _save(model: MicroEmoForConditionalGeneration, processor: MicroEmoProcessor, folder: Path) -> None:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


# --- the whole way -------------------------------------------------------------------------------------------------


def pretrain(run: Run, start: Path) -> tuple[Path, Path]:
    """What the paper finds ready made, and the features of the towers: the checkpoint's folder, and the cache's.

    Args:
        start: A checkpoint with random weights.

    Raises:
        StaleCacheError: if stages in the run's folder were made with another recipe.
    """
    keep_settings(run.work / "recipe.json", run.recipe)
    language = run.stage("language", lambda folder: learn_language(run, start, folder))
    rows = [run.rows(split) for split in ("train", "dev")]
    _, processor = load_config_and_processor(ModelArguments(model_name_or_path=str(start)))
    clips = precompute(rows, run.work / "clips", processor, num_workers=run.num_proc)
    towers = run.stage("towers", lambda folder: learn_towers(run, language, clips, folder))
    model, _ = load_model_and_processor(ModelArguments(model_name_or_path=str(towers)))
    return towers, precompute(rows, run.work / "features", clips.reader(), model.to(run.device)).folder


def from_scratch(run: Run, start: Path, seed: int = 0) -> Path:
    """All stages; gives the folder of the trained checkpoint."""
    towers, features = pretrain(run, start)
    visual_pretraining = run.stage(
        "visual_pretraining",
        lambda folder: pretrain_visual_encoder(run, "visual_pretraining", towers, features, {}, seed, folder),
    )
    tokens = keep_frame_tokens(run, visual_pretraining, features, [run.rows("train"), run.rows("dev")], "frame_tokens")
    alignment = run.stage(
        "alignment", lambda folder: align_windows(run, "alignment", visual_pretraining, tokens, {}, seed, folder)
    )
    return run.stage(
        "instruction_tuning",
        lambda folder: tune_instructions(run, "instruction_tuning", alignment, tokens, seed, folder),
    )


def copy_checkpoint(trained: Path, output: Path) -> None:
    """Copy a trained checkpoint without what only training needs.

    Args:
        trained (`Path`): What [`from_scratch`] returns.
        output (`Path`): The folder to make.

    Raises:
        FileExistsError: if the folder holds something.
    """
    # The card is one of the last stage alone.
    left_out = shutil.ignore_patterns("training_args.bin", "trainer_state.json", "README.md")
    with atomic_folder(output) as part:
        shutil.copytree(trained, part, ignore=left_out, dirs_exist_ok=True)
