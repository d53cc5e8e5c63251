"""A tiny checkpoint, four real clips with different answers, and their features, made once."""

import json
import logging
import shutil
from types import SimpleNamespace

import pytest
import torch
import yaml

from microemo import MicroEmoForConditionalGeneration, MicroEmoProcessor
from microemo.publishing.initialize import initialize
from microemo.training.data import load_table
from microemo.training.feature_cache import FeatureCache
from microemo.training.from_scratch.stages import RECIPE, Run, from_scratch
from microemo.training.synthetic.synthetic_dialogues import write_dialogues

ANSWERS = ("happy", "sad", "angry", "calm")


@pytest.fixture
def news(caplog):
    """What the package logs, warnings and news."""
    logger = logging.getLogger("microemo")
    logger.addHandler(caplog.handler)
    logger.setLevel(logging.INFO)
    yield caplog
    logger.removeHandler(caplog.handler)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Folder of the tiny preset: random weights, six frames a clip."""
    folder = initialize("microemo-tiny", tmp_path_factory.mktemp("training") / "tiny")
    processor = MicroEmoProcessor.from_pretrained(folder)
    processor.video_processor.num_frames = 6
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def table_file(tmp_path_factory, make_clip):
    """`train.jsonl`: four clips, among them one without sound and one without a face or utterances."""
    folder = tmp_path_factory.mktemp("table")
    clips = [
        make_clip("felt.mp4", face_width=130),
        make_clip("mute.mp4", sound=None, face_width=100),
        make_clip("empty.mp4", picture=torch.zeros(240, 320, 3, dtype=torch.uint8).numpy()),
        make_clip("long.mp4", times=[i / 10 for i in range(20)], sound=2.0),
    ]
    rows = []
    for number, (clip, word) in enumerate(zip(clips, ANSWERS, strict=True)):
        said = [{"start": 0.0, "end": 0.5, "text": "Well."}, {"start": 0.5, "end": 0.9, "text": "I see."}]
        rows.append(
            {
                "name": word,
                "video": str(clip),
                "utterances": None if word == "angry" else said[: 1 + number % 2],
                "instruction": "What does the speaker feel?",
                "response": f"The speaker feels {word}.",
                "emotions": [word],
            }
        )
    file = folder / "train.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture(scope="session")
def world(tiny, table_file, tmp_path_factory):
    """All of it: `checkpoint`, `table_file`, `rows`, `processor`, `model` (never trained), `cache`, `cache_folder`."""
    model = MicroEmoForConditionalGeneration.from_pretrained(tiny).eval()
    processor = MicroEmoProcessor.from_pretrained(tiny)
    rows = list(load_table(table_file))
    folder = tmp_path_factory.mktemp("features")
    cache = FeatureCache(folder, processor, model)
    assert cache.add(rows, model, progress=False) == {}
    return SimpleNamespace(
        checkpoint=tiny,
        table_file=table_file,
        rows=rows,
        processor=processor,
        model=model,
        cache=cache,
        cache_folder=folder,
    )


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """A folder of short synthetic dialogues: four of train, two of dev, three of test, the last with an unseen pair."""
    pytest.importorskip("skimage", reason="the photograph comes with scikit-image")
    folder = tmp_path_factory.mktemp("corpus")
    for split, clips in (("train", 4), ("dev", 2), ("test", 3)):
        write_dialogues(folder, clips, seed=370, split=split, size=112, progress=False)
    return folder


@pytest.fixture(scope="session")
def two_steps():
    """The shipped recipe with two small steps in each stage."""
    recipe = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    for numbers in recipe.values():
        numbers |= {name: 2 for name in numbers if name in ("max_steps", "eval_steps") or name.endswith("batch_size")}
    recipe["ablation"]["eval_steps"] = 1
    return recipe


@pytest.fixture(scope="session")
def scratch(corpus, tiny, two_steps, tmp_path_factory):
    """A run from scratch of two steps a stage, all of it done: `run`, `trained` (the checkpoint)."""
    run = Run(corpus, tmp_path_factory.mktemp("scratch") / "work", two_steps)
    shutil.copytree(tiny, run.work / "start")
    processor = MicroEmoProcessor.from_pretrained(tiny)
    processor.video_processor.num_frames = 8
    processor.save_pretrained(run.work / "start")
    return SimpleNamespace(run=run, trained=from_scratch(run, run.work / "start"))


@pytest.fixture
def run_training(world, tmp_path):
    """Runs `main` on the tiny checkpoint with the cache and the options given; gives the trainer."""
    from microemo.training.train import main

    def run(*options: str, output="run", callbacks=(), **named):
        named = {
            "model_name_or_path": world.checkpoint,
            "train_data": world.table_file,
            "feature_cache": world.cache_folder,
            "output_dir": tmp_path / output,
            "use_cpu": True,
            "report_to": "none",
            "check_clips": False,
            "save_strategy": "no",
            "disable_tqdm": True,
            "lora_dropout": 0,
            **named,
        }
        values = {name: value if isinstance(value, list) else [value] for name, value in named.items()}
        argv = [text for name, given in values.items() for text in (f"--{name}", *map(str, given))]
        return main([*options, *argv], callbacks)

    return run
