"""Training of `microemo-small` on dialogues of people: real photographs that act, and recordings of emotional speech.

microemo synthesize people --clips 1000 --photographs PEOPLE --recordings PEOPLE --num-workers 2
microemo synthesize people --clips 120 --split dev --photographs PEOPLE --recordings PEOPLE --num-workers 2
microemo from-scratch people my-small --photographs PEOPLE --recordings PEOPLE --audio openai/whisper-tiny.en

The way is that of `stages.py`. What differs: the language model learns the words of `people_answers.py`, the image encoder
learns from frames of people who act (`acting_frames.py`), the audio tower is pretrained and frozen, and the audio Q-Former
learns from the recordings themselves (`heard_voices.py`). `from_scratch_people.yaml` holds the hyper-parameters.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, cast

import numpy as np
import torch
import yaml
from torch.utils.data import DataLoader
from transformers import Trainer

from ...configuration.configuration_microemo import MicroEmoConfig, MicroEmoVisionConfig
from ...modeling_microemo.towers import MicroEmoVisionModel
from ...utils.atomic_files import atomic_folder, write_text
from ...utils.files import write_json_lines
from ..feature_cache import keep_settings, precompute
from ..synthetic.acting_people import make_frames
from ..synthetic.described_dialogues import RepeatedLines
from ..synthetic.described_people import LessonsInOrder
from ..synthetic.people_dialogues import people_row
from ..synthetic.recordings import HEARD, read_recordings
from ..synthetic.synthetic_dialogues import TABLE, TRUTH, read_truth
from ..train import ModelArguments, load_config_and_processor, load_model_and_processor
from .acting_frames import TOWER, learn_image_encoder
from .heard_voices import (
    HeardProbe,
    HeardVoices,
    centre_inputs,
    hear,
    pad_voices,
    read_voices,
    scale_inputs,
    score_voices,
    write_voices,
)
from .people_probes import PeopleFrames, PeopleWindows
from .probes import ActingFrames, AlignmentClips
from .stages import (
    ALIGNMENT,
    PRETRAINED,
    Run,
    begin_with_copying,
    learn_from_words,
    learn_to_answer,
    save,
    single_words,
)

RECIPE = Path(__file__).with_name("from_scratch_people.yaml")
_SEES_WORDS, _SEES_TIMES = 0.8, 0.75  # shares of the clips with words, and of those without them


@dataclass
class PeopleRun(Run):
    """A run whose clips show people.

    Attributes:
        photographs (`Path`): The folder of the photographs.
        recordings (`Path`): The folder of the recordings.
        face_mesh_model (`Path`, *optional*): A `face_landmarker.task`, whose blendshapes teach the image encoder, too.
    """

    photographs: Path = Path()
    recordings: Path = Path()
    face_mesh_model: Path | None = None
    frames: ClassVar[type[ActingFrames]] = PeopleFrames
    windows: ClassVar[type[AlignmentClips]] = PeopleWindows
    num_voices: ClassVar[int] = len(HEARD)
    # The audio Q-Former and the table of positions are those of the recordings: the clips have the same few speakers.
    pretrained: ClassVar[Sequence[str]] = (*PRETRAINED, "audio_branch")
    aligned: ClassVar[Sequence[str]] = [
        name for name in ALIGNMENT if name not in ("audio_qformer", "segment_positions")
    ]


def people_recipe() -> dict:
    """Reads the hyper-parameters.

    Returns:
        `dict`: The arguments of each stage.
    """
    return yaml.safe_load(RECIPE.read_text(encoding="utf-8"))


# --- rows ----------------------------------------------------------------------------------------------------------


def write_rows(corpus: Path, folder: Path) -> None:
    """Lists the clips of a corpus as a model is given them: with words, with the times of utterances, or with neither.

    Args:
        corpus (`Path`): The folder that `microemo synthesize --photographs` filled.
        folder (`Path`): The folder of the lists, which have the names and the format of those of the corpus.
    """
    rows, truths = [], []
    for truth in read_truth(corpus).values():
        rng = np.random.default_rng([21, truth["seed"], truth["index"], len(truth["split"])])
        row, truth = people_row(truth, rng, given_of(truth, rng), corpus.absolute())
        rows.append(row)
        truths.append(truth)
    for name, lines in ((TRUTH, truths), (TABLE, rows)):
        write_json_lines(folder / name, lines)


def given_of(truth: dict, rng: np.random.Generator) -> str:
    """Draws what the prompt of a clip holds of its utterances.

    Args:
        truth (`dict`): The truth of the clip.
        rng (`np.random.Generator`): The generator.

    Returns:
        `str`: `"words"`, `"times"` or `"none"`.
    """
    if not truth["utterances"]:
        return "none"
    if truth["has_words"] and truth["has_sound"]:
        return "words" if rng.random() < _SEES_WORDS else "times"
    # Voice activity finds times where there is a voice. Who asks may know times, and words, of a clip without sound, too.
    given = "words" if truth["has_words"] else "times"
    return given if rng.random() < _SEES_TIMES else "none"


# --- stages --------------------------------------------------------------------------------------------------------


def learn_copying(run: Run, start: Path, folder: Path) -> None:
    """Trains the language model to repeat lines.

    Args:
        run ([`Run`]): The run.
        start (`Path`): A checkpoint with a language model of random weights.
        folder (`Path`): The folder of the stage.
    """
    model, processor = load_model_and_processor(ModelArguments(model_name_or_path=str(start)))
    torch.manual_seed(0)
    begin_with_copying(model.model.language_model)
    words = single_words(processor.tokenizer)
    learn_from_words(run, model, processor, {"copying": lambda length: RepeatedLines(length, words)}, folder)


def learn_people_language(run: Run, copying: Path, folder: Path) -> None:
    """Trains the language model on dialogues of people in words.

    Args:
        run ([`Run`]): The run.
        copying (`Path`): The checkpoint with the language model that copies.
        folder (`Path`): The folder of the stage.
    """
    model, processor = load_model_and_processor(ModelArguments(model_name_or_path=str(copying)))
    torch.manual_seed(0)
    words, batch_size = single_words(processor.tokenizer), run.recipe["language"]["per_device_train_batch_size"]
    lessons = {"language": lambda length: LessonsInOrder(length, batch_size, words)}
    learn_from_words(run, model, processor, lessons, folder)


def hear_recordings(run: PeopleRun, language: Path, folder: Path) -> None:
    """Encodes the recordings as the audio tower hears them in dialogues.

    Args:
        run ([`PeopleRun`]): The run.
        language (`Path`): A checkpoint with the audio tower.
        folder (`Path`): The folder of the stage, which gets a file for each hearing.
    """
    model, processor = load_model_and_processor(ModelArguments(model_name_or_path=str(language)))
    branch, extractor = model.model.audio_branch.eval(), processor.feature_extractor

    @torch.inference_mode()
    def encode(samples: np.ndarray) -> torch.Tensor:
        features = extractor(samples, sampling_rate=extractor.sampling_rate, return_tensors="pt")
        return branch.encode(features["input_features"][0, :1]).last_hidden_state[0].half()

    for split, hearings in (("dev", 1), ("train", run.recipe["voices"]["hearings"])):
        recordings = read_recordings(run.recordings, split)
        for number in range(hearings):
            heard = hear(recordings, encode, extractor.segment_duration, number, is_changed=number > 0)
            write_voices(folder / f"{split}-{number}.safetensors", list(heard))


def learn_voices(run: PeopleRun, language: Path, voices: Path, folder: Path) -> None:
    """Trains the audio Q-Former on the emotions of the recordings.

    Args:
        run ([`PeopleRun`]): The run.
        language (`Path`): The checkpoint with the trained language model.
        voices (`Path`): The folder that [`hear_recordings`] filled.
        folder (`Path`): The folder of the stage. `voices.json` in it holds the recall on the dev speakers.
    """
    model, processor = load_model_and_processor(ModelArguments(model_name_or_path=str(language)))
    numbers = {key: value for key, value in run.recipe["voices"].items() if key not in ("hearings", "dropout")}
    train = [voice for path in sorted(voices.glob("train-*.safetensors")) for voice in read_voices(path)]
    dev = read_voices(voices / "dev-0.safetensors")
    torch.manual_seed(0)
    branch = model.model.audio_branch
    deviations = centre_inputs(branch, train[: len(train) // 2])
    probe = HeardProbe(branch, dropout=run.recipe["voices"]["dropout"])
    with scale_inputs(branch, deviations):
        branch.requires_grad_(False)
        branch.audio_qformer.requires_grad_(True)
        Trainer(
            model=probe,
            args=run.arguments(numbers, folder),
            data_collator=pad_voices,
            train_dataset=HeardVoices(train),
        ).train()
        scores = score_voices(probe, DataLoader(HeardVoices(dev, is_cut=False), 32, collate_fn=pad_voices), dev)
    write_text(folder / "voices.json", json.dumps(scores, indent=1) + "\n")
    save(model, processor, folder)


def join_towers(voices: Path, image_encoder: Path, folder: Path) -> None:
    """Puts the trained image encoder into the checkpoint.

    Args:
        voices (`Path`): The checkpoint with the language model and the audio branch.
        image_encoder (`Path`): The folder of the image encoder.
        folder (`Path`): The folder of the stage.
    """
    model, processor = load_model_and_processor(ModelArguments(model_name_or_path=str(voices)))
    tower = MicroEmoVisionModel.from_pretrained(image_encoder, dtype=torch.float32)
    model.model.visual_encoder.vision_model.load_state_dict(tower.state_dict())
    save(model, processor, folder)


# --- the whole way -------------------------------------------------------------------------------------------------


def from_scratch_people(run: PeopleRun, start: Path, seed: int = 0) -> Path:
    """Runs all stages.

    Args:
        run ([`PeopleRun`]): The run. Its `corpus` is the folder that `microemo synthesize --photographs` filled.
        start (`Path`): A checkpoint of random weights, but for the audio tower.
        seed (`int`, *optional*, defaults to 0): The seed of the stages after the pretraining.

    Returns:
        `Path`: The folder of the trained checkpoint.

    Raises:
        StaleCacheError: if stages in the folder of the run were made with another recipe.
    """
    keep_settings(run.work / "recipe.json", run.recipe)
    copying = run.stage("copying", lambda folder: learn_copying(run, start, folder))
    language = run.stage("language", lambda folder: learn_people_language(run, copying, folder))
    heard = run.stage("heard", lambda folder: hear_recordings(run, language, folder))
    voices = run.stage("voices", lambda folder: learn_voices(run, language, heard, folder))
    encoder = run.stage("image_encoder", lambda folder: _learn_image_encoder(run, folder))
    towers = run.stage("towers", lambda folder: join_towers(voices, encoder / TOWER, folder))

    corpus = run.corpus
    run.corpus = run.stage("rows", lambda folder: write_rows(corpus, folder))
    rows = [run.rows(split) for split in ("train", "dev")]
    _, processor = load_config_and_processor(ModelArguments(model_name_or_path=str(start)))
    clips = precompute(rows, run.work / "clips", processor, num_workers=run.num_workers)
    model, _ = load_model_and_processor(ModelArguments(model_name_or_path=str(towers)))
    features = precompute(rows, run.work / "features", clips.reader(), model.to(run.device)).folder
    return learn_to_answer(run, towers, features, seed)


def _learn_image_encoder(run: PeopleRun, folder: Path) -> None:
    """Makes frames of people who act, and trains the image encoder on them. Both go on where they were stopped."""
    numbers = run.recipe["image_encoder"]
    frames, dev_frames = (
        make_frames(
            run.work / "frames",
            run.photographs,
            split,
            numbers[count],
            run.face_mesh_model,
            num_workers=max(1, run.num_workers),
        )
        for split, count in (("train", "frames"), ("dev", "dev_frames"))
    )
    config = cast(MicroEmoVisionConfig, MicroEmoConfig.from_preset("microemo-small").vision_config)
    steps = run.work / "image_encoder_steps"
    last = learn_image_encoder(frames, dev_frames, steps, config, max_steps=numbers["max_steps"])
    shutil.copytree(last, folder, dirs_exist_ok=True)


def write_checkpoint(trained: Path, output: Path) -> None:
    """Writes a trained checkpoint without the files that only training needs, and the frozen audio tower in half
    precision, as it was published.

    Args:
        trained (`Path`): The folder that [`from_scratch_people`] returns.
        output (`Path`): The folder to make.

    Raises:
        FileExistsError: if the folder holds files.
    """
    model, processor = load_model_and_processor(ModelArguments(model_name_or_path=str(trained), dtype="float32"))
    weights = {name: value.half() if ".audio_tower." in name else value for name, value in model.state_dict().items()}
    with atomic_folder(output) as part:
        model.save_pretrained(part, state_dict=weights)
        processor.save_pretrained(part)
