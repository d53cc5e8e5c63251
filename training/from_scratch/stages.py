"""Training of `microemo-tiny` from scratch, in stages, on a machine without a GPU.

microemo synthesize dialogues --clips 1200 --num-workers 2
microemo synthesize dialogues --clips 120 --split dev --num-workers 2
microemo from-scratch dialogues checkpoints/microemo-tiny --work work --num-workers 2

The paper starts from a pretrained language model, image encoder and audio tower. Here the language model is first
trained on dialogues in words (`described_dialogues.py`), and the towers on facial actions and prosody (`probes.py`).
The stages after that follow the paper, with frozen towers: the modules between the towers and the language model are
trained to represent facial actions, then to answer. `from_scratch.yaml` holds the hyper-parameters.
"""

import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
import yaml
from accelerate import PartialState
from torch import nn
from torch.utils.data import ConcatDataset, Dataset
from transformers import PreTrainedTokenizerBase, Trainer
from transformers.utils import logging

from ...modeling_microemo.modeling_microemo import MicroEmoForConditionalGeneration
from ...processing.processing_microemo import MicroEmoProcessor
from ...utils.atomic_files import atomic_folder
from ...utils.files import read_json_lines, write_json_lines
from ..collator import MicroEmoCollator
from ..data import load_table
from ..feature_cache import FeatureCache, keep_settings, pad_together, precompute
from ..synthetic.described_dialogues import LAYOUTS, DescribedDialogues, Dictations, RepeatedLines
from ..synthetic.synthetic_dialogues import TABLE, cite_as, read_truth
from ..synthetic.voice import PROSODIES
from ..train import (
    DataArguments,
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
FRAMES_OF_A_CLIP = 6  # The number of frames of a clip in a training step of the visual encoder.


@dataclass
class Run:
    """The folders and hyper-parameters of a run.

    Attributes:
        corpus (`Path`): The folder that `microemo synthesize` filled, with the splits train and dev.
        work (`Path`):
            The folder in which each stage makes a folder when it ends. A run that was killed resumes with the stage
            that it was in.
        recipe (`dict`): The arguments of the `Trainer` for each stage, see `from_scratch.yaml`.
        num_workers (`int`): The number of processes that decode.
        frames (`type`): The data of the visual pretraining.
        windows (`type`): The data of the alignment.
        num_voices (`int`): The number of kinds of voices in them.
        pretrained (`Sequence[str]`): The modules of the model that are kept after the towers are trained.
        aligned (`Sequence[str]`): The modules that the alignment and, with the language model, the last stage train.
    """

    corpus: Path
    work: Path
    recipe: dict = field(default_factory=lambda: yaml.safe_load(RECIPE.read_text(encoding="utf-8")))
    num_workers: int = 0
    frames: ClassVar[type[ActingFrames]] = ActingFrames
    windows: ClassVar[type[AlignmentClips]] = AlignmentClips
    num_voices: ClassVar[int] = len(PROSODIES)
    pretrained: ClassVar[Sequence[str]] = PRETRAINED
    aligned: ClassVar[Sequence[str]] = ALIGNMENT

    def stage(self, name: str, make: Callable[[Path], None]) -> Path:
        """Runs a stage whose folder does not exist yet.

        Args:
            name (`str`): The name of the stage, and of its folder.
            make (`Callable[[Path], None]`): The function that fills the folder.

        Returns:
            `Path`: The folder of the stage.
        """
        folder = self.work / name
        if not folder.exists():
            logger.info(f"{name} -> {folder}")
            with atomic_folder(folder) as part:
                make(part)
        return folder

    @property
    def device(self) -> torch.device:
        """The device of the `Trainer`, which computations outside of it use, too."""
        return PartialState().device

    def arguments(self, numbers: dict, folder: Path, **more: Any) -> MicroEmoTrainingArguments:
        """Builds the arguments of the `Trainer` for a stage.

        Args:
            numbers (`dict`): The arguments in the recipe.
            folder (`Path`): The output folder.
            more (`Any`, *optional*): Further arguments.

        Returns:
            [`MicroEmoTrainingArguments`]: The arguments.
        """
        defaults = {"save_strategy": "no", "report_to": "none", "logging_steps": 20, "adam_beta2": 0.98}
        return MicroEmoTrainingArguments(output_dir=str(folder), **{**defaults, **numbers, **more})

    def rows(self, split: str) -> list[dict]:
        """Loads the rows of a split of the corpus.

        Args:
            split (`str`): The split.

        Returns:
            `list[dict]`: The rows.
        """
        return load_table(self.corpus / TABLE, split).to_list()


# --- stages --------------------------------------------------------------------------------------------------------


def learn_language(run: Run, start: Path, folder: Path) -> None:
    """Trains the language model on dialogues in words.

    Args:
        run ([`Run`]): The run.
        start (`Path`): A checkpoint with random weights.
        folder (`Path`): The folder of the stage.
    """
    model, processor = load_model_and_processor(ModelArguments(model_name_or_path=str(start)))
    torch.manual_seed(0)
    begin_with_copying(model.model.language_model)
    words = single_words(processor.tokenizer)
    lessons = {
        "copying": lambda length: RepeatedLines(length, words),
        "language": lambda length: _dialogues_in_words(length, words, LAYOUTS[:1]),
    }
    learn_from_words(run, model, processor, lessons, folder)


def learn_layouts(run: Run, towers: Path, folder: Path) -> None:
    """Trains the language model further on dialogues in words, in the layouts of all kinds of windows in turn.

    Args:
        run ([`Run`]): The run.
        towers (`Path`): The checkpoint with the trained towers.
        folder (`Path`): The folder of the stage.
    """
    model, processor = load_model_and_processor(ModelArguments(model_name_or_path=str(towers)))
    torch.manual_seed(0)
    words = single_words(processor.tokenizer)
    lessons = {"ablation_language": lambda length: _dialogues_in_words(length, words, LAYOUTS)}
    learn_from_words(run, model, processor, lessons, folder)


def _dialogues_in_words(length: int, words: Sequence[str], layouts: Sequence[str]) -> ConcatDataset:
    return ConcatDataset(
        [DescribedDialogues(length // 2, layouts=layouts), Dictations(length // 2, words, layouts=layouts)]
    )


def learn_from_words(
    run: Run,
    model: MicroEmoForConditionalGeneration,
    processor: MicroEmoProcessor,
    lessons: dict[str, Callable],
    folder: Path,
) -> None:
    """Trains the language model on lessons.

    Args:
        run ([`Run`]): The run.
        model ([`MicroEmoForConditionalGeneration`]): The model.
        processor ([`MicroEmoProcessor`]): Its processor.
        lessons (`dict[str, Callable]`):
            For the name of each lesson in the recipe, the function that makes as many rows as it takes.
        folder (`Path`): The folder of the stage.
    """
    prepare_model(model, ModelArguments(use_peft=False, modules_to_train=["language_model", "lm_head"]))
    for lesson, rows in lessons.items():
        arguments = run.arguments(run.recipe[lesson], folder)
        Trainer(
            model=model,
            args=arguments,
            data_collator=MicroEmoCollator(processor, return_attention_mask=False),
            train_dataset=rows(arguments.max_steps * arguments.per_device_train_batch_size),
        ).train()
    save(model, processor, folder)


def single_words(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Collects the words that are one token each.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): The tokenizer.

    Returns:
        `list[str]`: The words.
    """
    tokens = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    return [token[1:] for token in tokens if token[0:1] == " " and token[1:].isalpha() and len(token) > 3]


@torch.no_grad()
def begin_with_copying(language_model: nn.Module) -> None:
    """Initialises attention so that it attends to tokens like the current one and copies them (mimetic initialisation,
    Trockman and Kolter 2023).

    Queries equal keys, and the output projection is the transpose of the value projection. To find "utterance 3" above
    and to continue in the same way is then a small change; from other random weights it took many times as many steps,
    if it was learned at all.

    Args:
        language_model (`nn.Module`): A LLaMA model with random weights, with as many key heads as query heads.
    """
    for layer in language_model.layers:
        attention = layer.self_attn
        for weight in (attention.q_proj.weight, attention.v_proj.weight):
            nn.init.normal_(weight, std=weight.shape[1] ** -0.5)
        attention.k_proj.weight.copy_(attention.q_proj.weight)
        attention.o_proj.weight.copy_(attention.v_proj.weight.T)


def learn_towers(run: Run, language: Path, clips: FeatureCache, folder: Path) -> None:
    """Trains the image encoder on facial actions and the audio tower on prosody.

    Args:
        run ([`Run`]): The run.
        language (`Path`): The checkpoint with the trained language model.
        clips ([`FeatureCache`]): The cache of the pixels and log-mel segments.
        folder (`Path`): The folder of the stage.
    """
    model, processor = load_model_and_processor(ModelArguments(model_name_or_path=str(language)))
    rows, reader = run.rows("train"), clips.reader()
    frames, sounds = ActingFrames(rows, reader, FRAMES_OF_A_CLIP), SpokenClips(rows, reader)
    torch.manual_seed(0)
    learn_probe(run, "image_encoder", PatchProbe(model.model.visual_encoder.vision_model), frames, folder)
    learn_probe(run, "audio_tower", ProsodyProbe(model.model.audio_branch.audio_tower), sounds, folder)
    save(model, processor, folder)


def start_anew(
    checkpoint: Path, config_overrides: dict, seed: int, kept: Sequence[str], modules_to_train: list[str]
) -> tuple[MicroEmoForConditionalGeneration, MicroEmoProcessor]:
    """Makes a model of new weights but for some modules of a checkpoint.

    Args:
        checkpoint (`Path`): The checkpoint.
        config_overrides (`dict`): The configuration fields to change.
        seed (`int`): The seed of the new weights.
        kept (`Sequence[str]`): The modules of the checkpoint.
        modules_to_train (`list[str]`): The modules that are left to learn.

    Returns:
        `tuple[MicroEmoForConditionalGeneration, MicroEmoProcessor]`: The model and its processor.
    """
    pretrained = MicroEmoForConditionalGeneration.from_pretrained(checkpoint)
    config, processor = load_config_and_processor(
        ModelArguments(model_name_or_path=str(checkpoint), config_overrides=config_overrides)
    )
    torch.manual_seed(seed)
    model = MicroEmoForConditionalGeneration(config)
    for name in kept:
        model.model.get_submodule(name).load_state_dict(pretrained.model.get_submodule(name).state_dict())
    prepare_model(model, ModelArguments(use_peft=False, modules_to_train=modules_to_train))
    return model, processor


def pretrain_visual_encoder(
    run: Run, stage: str, towers: Path, features: Path, config_overrides: dict, seed: int, folder: Path
) -> None:
    """Trains image Q-Former, local clue attention and fusion on facial actions. All but the pretrained modules start
    anew.

    Args:
        run ([`Run`]): The run.
        stage (`str`): The name of the stage in the recipe.
        towers (`Path`): The checkpoint with the trained towers.
        features (`Path`): The folder of the cache of their features.
        config_overrides (`dict`): The configuration fields to change.
        seed (`int`): The seed of the new weights and of the training.
        folder (`Path`): The folder of the stage.
    """
    model, processor = start_anew(towers, config_overrides, seed, run.pretrained, VISUAL_PRETRAINING)
    frames = run.frames(run.rows("train"), FeatureCache(features, processor, model).reader(), FRAMES_OF_A_CLIP)
    learn_probe(run, stage, FacialActionProbe(model.model.visual_encoder), frames, folder, seed=seed)
    save(model, processor, folder)


def keep_frame_tokens(
    run: Run, visual_pretraining: Path, features: Path, tables: Sequence[list[dict]], name: str
) -> Path:
    """Computes the frame tokens of clips once, because the visual encoder is frozen after its pretraining.

    Features and tokens are passed as folders, since each stage reads them with its own processor and model.

    Args:
        run ([`Run`]): The run.
        visual_pretraining (`Path`): The checkpoint with the trained visual encoder.
        features (`Path`): The folder of the cache of the towers' features.
        tables (`Sequence[list[dict]]`): The rows of the clips.
        name (`str`): The name of the folder of the tokens.

    Returns:
        `Path`: The folder of the cache.
    """
    model, processor = load_model_and_processor(ModelArguments(model_name_or_path=str(visual_pretraining)))
    reader = FeatureCache(features, processor, model).reader()
    return precompute(tables, run.work / name, reader, model.to(run.device), frame_tokens=True).folder


def align_windows(
    run: Run, stage: str, visual_pretraining: Path, tokens: Path, config_overrides: dict, seed: int, folder: Path
) -> None:
    """Trains video and audio Q-Formers and their projections on what happens in their windows, and on the words for
    it.

    Args:
        run ([`Run`]): The run.
        stage (`str`): The name of the stage in the recipe.
        visual_pretraining (`Path`): The checkpoint with the trained visual encoder.
        tokens (`Path`): The folder of the cache of the frame tokens.
        config_overrides (`dict`): The configuration fields to change.
        seed (`int`): The seed of the new weights and of the training.
        folder (`Path`): The folder of the stage.
    """
    kept = (*run.pretrained, "visual_encoder")
    model, processor = start_anew(visual_pretraining, config_overrides, seed, kept, list(run.aligned))
    clips = run.windows(run.rows("train"), FeatureCache(tokens, processor, model).reader())
    learn_probe(run, stage, WindowProbe(model.model, run.num_voices), clips, folder, pad_together, seed=seed)
    save(model, processor, folder)


def tune_instructions(run: Run, stage: str, alignment: Path, tokens: Path, seed: int, folder: Path) -> None:
    """Trains the modules between the frame tokens and the answers on questions and answers.

    Args:
        run ([`Run`]): The run.
        stage (`str`):
            The name of the stage in the recipe. [`write_questions`] documents those of its entries that are no
            arguments of the `Trainer`.
        alignment (`Path`): The checkpoint with the aligned windows.
        tokens (`Path`): The folder of the cache of the frame tokens.
        seed (`int`): The seed of the training.
        folder (`Path`): The folder of the stage.
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
            modules_to_train=[*run.aligned, "language_model", "lm_head"],
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
    """Writes a table of short conversations about the clips of a corpus.

    Args:
        corpus (`Path`): The folder that `microemo synthesize` filled.
        table (`Path`): The file to write.
        citations (`Sequence[str]`): The ways in which questions name their utterance, used in turn; see [`cite_as`].
        kinds (`Sequence[str]`): The kinds of questions that are kept; see [`dialogue_truth`].
        questions (`int`): The number of questions drawn at random for each row.
        rounds (`int`):
            The number of rows for each clip of the split train, each with its own questions. The other splits have one
            row for each clip.
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
    write_json_lines(table, rows)


def learn_probe(
    run: Run, stage: str, net: nn.Module, data: Dataset, folder: Path, collate: Callable = put_together, **more: Any
) -> None:
    """Trains a probe.

    Args:
        run ([`Run`]): The run.
        stage (`str`): The name of the stage in the recipe.
        net (`nn.Module`): The probe.
        data (`Dataset`): Its data.
        folder (`Path`): The folder of the stage.
        collate (`Callable`, *optional*): The function that makes a batch. By default [`put_together`].
        more (`Any`, *optional*): Further arguments of the `Trainer`.
    """
    arguments = run.arguments(run.recipe[stage], folder, **more)
    Trainer(model=net, args=arguments, data_collator=collate, train_dataset=data).train()


def save(model: MicroEmoForConditionalGeneration, processor: MicroEmoProcessor, folder: Path) -> None:
    """Saves a model and its processor.

    Args:
        model ([`MicroEmoForConditionalGeneration`]): The model.
        processor ([`MicroEmoProcessor`]): The processor.
        folder (`Path`): The folder of the stage.
    """
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


# --- the whole way -------------------------------------------------------------------------------------------------


def pretrain(run: Run, start: Path) -> tuple[Path, Path]:
    """Trains what the paper takes pretrained, and computes the features of the towers.

    Args:
        run ([`Run`]): The run.
        start (`Path`): A checkpoint with random weights.

    Returns:
        `tuple[Path, Path]`: The folder of the checkpoint, and that of the cache of features.

    Raises:
        StaleCacheError: if stages in the folder of the run were made with another recipe.
    """
    keep_settings(run.work / "recipe.json", run.recipe)
    language = run.stage("language", lambda folder: learn_language(run, start, folder))
    rows = [run.rows(split) for split in ("train", "dev")]
    _, processor = load_config_and_processor(ModelArguments(model_name_or_path=str(start)))
    clips = precompute(rows, run.work / "clips", processor, num_workers=run.num_workers)
    towers = run.stage("towers", lambda folder: learn_towers(run, language, clips, folder))
    model, _ = load_model_and_processor(ModelArguments(model_name_or_path=str(towers)))
    return towers, precompute(rows, run.work / "features", clips.reader(), model.to(run.device)).folder


def from_scratch(run: Run, start: Path, seed: int = 0) -> Path:
    """Runs all stages.

    Args:
        run ([`Run`]): The run.
        start (`Path`): A checkpoint with random weights.
        seed (`int`, *optional*, defaults to 0): The seed of the stages after the pretraining.

    Returns:
        `Path`: The folder of the trained checkpoint.

    Raises:
        StaleCacheError: if stages in the folder of the run were made with another recipe.
    """
    towers, features = pretrain(run, start)
    return learn_to_answer(run, towers, features, seed)


def learn_to_answer(run: Run, towers: Path, features: Path, seed: int) -> Path:
    """Runs the stages after the pretraining.

    Args:
        run ([`Run`]): The run.
        towers (`Path`): The checkpoint with the trained towers.
        features (`Path`): The folder of the cache of their features of the splits train and dev.
        seed (`int`): The seed of these stages.

    Returns:
        `Path`: The folder of the trained checkpoint.
    """
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
    """Copies a trained checkpoint without the files that only training needs.

    Args:
        trained (`Path`): The folder that [`from_scratch`] returns.
        output (`Path`): The folder to make.

    Raises:
        FileExistsError: if the folder holds files.
    """
    # The model card describes the last stage only.
    left_out = shutil.ignore_patterns("training_args.bin", "trainer_state.json", "README.md")
    with atomic_folder(output) as part:
        shutil.copytree(trained, part, ignore=left_out, dirs_exist_ok=True)
