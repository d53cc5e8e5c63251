"""The ablation of Table 2 of the paper on synthetic dialogues: how much each of the model's parts contributes.

microemo synthesize dialogues --clips 60 --split test --seed 3 --num-workers 2
microemo ablation dialogues results --work work --seeds 3 --num-workers 2

All arms share the pretrained parts of `from_scratch.py`, with a language model that is trained on dialogues in words
in the layouts of all arms (`LAYOUTS`): a language model trained on prompts with utterance windows alone would favour
the arms that have them. All other parts start anew in each arm and seed, and are trained on the same clips, for as
many steps, with prompts of one layout. Questions name their utterance in words, half of them with its times and half
by its number alone: a cited utterance would give away the place of the answer. The sound has the windows of its
utterances in every arm. The number of steps was chosen on the split dev, whose questions are answered during training
(`compute_metrics`); the clips that count are of a seed that was not used before.

In every arm the frames are crops of the face. microemo-tiny itself uses the whole frame for the global view and a crop
for the local view. At its 112 pixels a face in the whole frame is too small for most clues, and an arm without the
local view would lack pixels, not attention.
"""

import json
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev

import torch
from safetensors import safe_open
from tqdm.auto import tqdm

from ...evaluation.result_plots import plot_arms, plot_curves
from ...modeling_microemo.modeling_microemo import MicroEmoForConditionalGeneration
from ...processing.processing_microemo import MicroEmoProcessor
from ...utils.atomic_files import write_text
from ..feature_cache import FeatureCache, precompute, write_tensors
from ..synthetic.described_dialogues import WINDOW_SECONDS
from ..synthetic.synthetic_dialogues import read_truth
from ..train import ModelArguments, load_config_and_processor, load_model_and_processor
from .dialogue_scores import accuracy, answer_utterance_questions
from .stages import (
    Run,
    align_windows,
    keep_frame_tokens,
    learn_layouts,
    pretrain,
    pretrain_visual_encoder,
    tune_instructions,
)

FORMS = ("times", "index")
# Both views of a frame are of one picture, see above.
SAME_CROPS = {"local_view": "frame"}
_REGIONS = ("clue_regions", "num_regions")
# The fields that the frame tokens depend on: arms that agree in them share visual pretraining.
_VISUAL = ("use_local_clue_attention", "use_frame_timestamps", *_REGIONS)


@dataclass(frozen=True)
class Arm:
    """A model of the ablation.

    Attributes:
        name (`str`): The heading of its row in the table.
        config_overrides (`dict`): The configuration fields that differ from MicroEmo.
    """

    name: str
    config_overrides: dict

    @property
    def visual(self) -> dict:
        """The config_overrides that change the frame tokens."""
        return {name: value for name, value in self.config_overrides.items() if name in _VISUAL}

    @property
    def regions(self) -> dict:
        """The config_overrides that change the clue regions."""
        return {name: value for name, value in self.config_overrides.items() if name in _REGIONS}

    @property
    def visual_name(self) -> str:
        """A name for the overrides of the frame tokens. Arms with the same name share visual pretraining."""
        return "-".join(f"{key}={value}" for key, value in self.visual.items()) or "as-it-is"


ARMS = {
    "full": Arm("MicroEmo", {}),
    "without-windows": Arm("w/o utterance windows", {"windows": "none"}),
    "without-local": Arm("w/o local clue attention", {"use_local_clue_attention": False}),
    "without-local-timestamps": Arm(
        "w/o local clue attention, timestamps", {"use_local_clue_attention": False, "use_frame_timestamps": False}
    ),
    "without-all": Arm(
        "w/o all", {"windows": "none", "use_local_clue_attention": False, "use_frame_timestamps": False}
    ),
    "sliding": Arm(
        "control: fixed 2 s windows",
        {
            "windows": "sliding",
            "window_unit": "seconds",
            "window_size": WINDOW_SECONDS,
            "window_stride": WINDOW_SECONDS,
        },
    ),
    "whole-face": Arm("control: whole face as one region", {"clue_regions": "whole_face", "num_regions": 1}),
}


def run_ablation(
    run: Run,
    start: Path,
    names: Sequence[str] = tuple(ARMS),
    seeds: int = 3,
    num_workers: int = 1,
    *,
    test_seed: int,
    steps: int | None = None,
) -> list[dict]:
    """Trains and scores arms with every seed. A run that was killed resumes where it was.

    Args:
        run ([`Run`]): The run, whose corpus has the splits train, dev and test.
        start (`Path`): A checkpoint with random weights.
        names (`Sequence[str]`, *optional*): The names of the arms. By default all of [`ARMS`].
        seeds (`int`, *optional*, defaults to 3): The number of seeds, counted from 0.
        num_workers (`int`, *optional*, defaults to 1): The number of processes, each with an equal share of the threads.
        test_seed (`int`): The seed of the clips in the split test that count.
        steps (`int`, *optional*):
            The number of steps of instruction tuning, for arms whose accuracy still rises after the steps of the
            recipe. The stages before it are kept.

    Returns:
        `list[dict]`: The scores that [`run_arm`] wrote for each seed and arm.

    Raises:
        ValueError: if the corpus has no clips of this seed.
    """
    truth = read_truth(run.corpus)
    rows = {split: run.rows(split) for split in ("train", "dev", "test")}
    rows["test"] = [row for row in rows["test"] if truth[row["name"]]["seed"] == test_seed]
    if not rows["test"]:
        make = f"microemo synthesize {run.corpus} --clips 60 --split test --seed {test_seed}"
        raise ValueError(f"{run.corpus} has no clips of the split test and seed {test_seed}; make them: {make}")
    pretrained = pretrain(run, start)[0]
    towers = run.stage("ablation/language", lambda folder: learn_layouts(run, pretrained, folder))
    if steps is not None:
        run = replace(run, recipe={**run.recipe, "ablation": {**run.recipe["ablation"], "max_steps": steps}})
    # Arms that share visual pretraining run in one process.
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(ARMS[name].visual_name, []).append(name)
    of_regions = {bool(ARMS[name].regions): ARMS[name] for name in names}
    crops = {other: crops_as_frames(run, towers, arm, rows).folder for other, arm in of_regions.items()}
    # Seeds first: a run that ends early has every arm.
    jobs = [
        (run, towers, crops[bool(ARMS[group[0]].regions)], rows, group, seed, test_seed)
        for seed in range(seeds)
        for group in groups.values()
    ]
    with tqdm(total=seeds * len(names), desc="Arms") as bar:
        for files in _at_work(jobs, num_workers):
            bar.update(len(files))
    files = [_scores_of(run, name, seed, test_seed) for seed in range(seeds) for name in names]
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def _at_work(jobs: list[tuple], num_workers: int) -> Iterator[list[Path]]:
    """Runs [`_run_arms`] with each tuple of arguments, in this process or in several."""
    if num_workers <= 1:
        yield from (_run_arms(*job) for job in jobs)
        return
    os.environ["TQDM_DISABLE"] = "1"  # in the processes to come: nobody can read several bars at once
    threads = max(1, torch.get_num_threads() // num_workers)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_workers, context, torch.set_num_threads, (threads,)) as pool:
        for finished in as_completed([pool.submit(_run_arms, *job) for job in jobs]):
            yield finished.result()


def _run_arms(run: Run, towers: Path, crops: Path, rows: dict, names: Sequence[str], *seeds: int) -> list[Path]:
    return [run_arm(run, towers, crops, rows, name, *seeds) for name in names]


def run_arm(
    run: Run, towers: Path, crops: Path, rows: dict[str, list[dict]], name: str, seed: int, test_seed: int
) -> Path:
    """Trains and scores one arm with one seed. Stages that an earlier run finished are kept.

    Args:
        run ([`Run`]): The run.
        towers (`Path`): The checkpoint of [`learn_layouts`].
        crops (`Path`): The folder of the cache of [`crops_as_frames`].
        rows (`dict[str, list[dict]]`): The rows of the splits train, dev and test.
        name (`str`): The name of the arm.
        seed (`int`): The seed of the training.
        test_seed (`int`): The seed of the rows of the split test.

    Returns:
        `Path`: The file of the scores, in the folder of the run.
    """
    file = _scores_of(run, name, seed, test_seed)
    if file.is_file():
        return file
    arm = ARMS[name]
    visual_pretraining = run.stage(
        f"ablation/visual_pretraining-{arm.visual_name}-{seed}",
        lambda folder: pretrain_visual_encoder(
            run, "ablation_visual_pretraining", towers, crops, SAME_CROPS | arm.visual, seed, folder
        ),
    )
    tokens = keep_frame_tokens(
        run, visual_pretraining, crops, list(rows.values()), f"ablation/frame_tokens-{arm.visual_name}-{seed}"
    )
    alignment = run.stage(
        f"ablation/alignment-{name}-{seed}",
        lambda folder: align_windows(
            run, "ablation_alignment", visual_pretraining, tokens, SAME_CROPS | arm.config_overrides, seed, folder
        ),
    )
    instruction_tuning = run.stage(
        f"ablation/instruction_tuning-{name}-{seed}-{_steps(run)}-steps",
        lambda folder: tune_instructions(run, "ablation", alignment, tokens, seed, folder),
    )
    log = json.loads((instruction_tuning / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    dev_scores = [[line["step"], line["eval_answer_accuracy"]] for line in log if "eval_answer_accuracy" in line]
    model = MicroEmoForConditionalGeneration.from_pretrained(instruction_tuning).to(run.device)
    processor = FeatureCache(tokens, MicroEmoProcessor.from_pretrained(instruction_tuning), model).reader()
    truth, scores = read_truth(run.corpus), {}
    for form in FORMS:
        answers = answer_utterance_questions(model, processor, rows["test"], truth, form, clips_at_once=12)
        scores[form] = {"accuracy": accuracy(answers), "questions": len(answers)}
    result = {
        "arm": name,
        "seed": seed,
        "config_overrides": arm.config_overrides,
        "scores": scores,
        "dev_scores": dev_scores,
    }
    return write_text(file, json.dumps(result, indent=2) + "\n")


def _scores_of(run: Run, name: str, seed: int, test_seed: int) -> Path:
    return run.work / "ablation" / f"{name}-{seed}-{_steps(run)}-steps-test-{test_seed}.json"


def _steps(run: Run) -> int:
    return run.recipe["ablation"]["max_steps"]


def crops_as_frames(run: Run, towers: Path, arm: Arm, rows: dict[str, list[dict]]) -> FeatureCache:
    """Computes the features of all clips, with the features of the face crops in place of those of the frames.

    The region masks are those of the crops already. Clue regions that differ from MicroEmo's are computed anew.

    Args:
        run ([`Run`]): The run.
        towers (`Path`): The checkpoint with the trained towers.
        arm ([`Arm`]): The arm, which may change the clue regions.
        rows (`dict[str, list[dict]]`): The rows of each split.

    Returns:
        [`FeatureCache`]: The cache.
    """
    suffix = "-whole-face" if arm.regions else ""
    tables = list(rows.values())
    model, _ = load_model_and_processor(ModelArguments(model_name_or_path=str(towers)))
    _, processor = load_config_and_processor(
        ModelArguments(model_name_or_path=str(towers), config_overrides=arm.regions)
    )
    clips = precompute(tables, run.work / f"clips{suffix}", processor, num_workers=run.num_workers)
    features = precompute(tables, run.work / f"features{suffix}", clips.reader(), model.to(run.device))
    _, processor = load_config_and_processor(
        ModelArguments(model_name_or_path=str(towers), config_overrides=SAME_CROPS | arm.regions)
    )
    crops = FeatureCache(run.work / f"features{suffix}-crops", processor, model)
    for file in tqdm(sorted(features.folder.glob("[!.]*.safetensors")), desc="Crops"):
        if not (crops.folder / file.name).is_file():
            with safe_open(file, framework="pt") as content:
                tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 (no mapping)
                about = content.metadata()
            tensors["vision_features"] = tensors.pop("face_features")
            write_tensors(crops.folder / file.name, tensors, about)
    return crops


def write_results(results: list[dict], output: Path) -> Path:
    """Writes the table and the plots of the ablation.

    `ablation.csv`, `ablation.md` and `ablation.png` hold the mean and the deviation over the seeds, in percent of the
    test questions answered right. `learning.png` shows the share of dev questions answered right during instruction
    tuning, which should have stopped rising.

    Args:
        results (`list[dict]`): The scores of arms and seeds, see [`run_arm`].
        output (`Path`): The folder.

    Returns:
        `Path`: The path of `ablation.md`.
    """
    scored = {name: [result for result in results if result["arm"] == name] for name in ARMS}
    scored = {name: runs for name, runs in scored.items() if runs}
    lines = ["arm,seeds," + ",".join(f"{form} mean,{form} deviation" for form in FORMS)]
    table_lines = ["| | times in the question | number only | seeds |", "|---|---|---|---|"]
    bars = {}
    for name, runs in scored.items():
        cells = []
        for form in FORMS:
            values = [100 * result["scores"][form]["accuracy"] for result in runs]
            cells.append((mean(values), stdev(values) if len(values) > 1 else 0.0))
        bars[ARMS[name].name] = cells
        lines.append(f'"{ARMS[name].name}",{len(runs)},' + ",".join(f"{m:.2f},{d:.2f}" for m, d in cells))
        figures = " | ".join(f"{m:.1f} ± {d:.1f}" for m, d in cells)
        table_lines.append(f"| {ARMS[name].name} | {figures} | {len(runs)} |")
    write_text(output / "ablation.csv", "\n".join(lines) + "\n")
    plot_arms(bars, ["times in the question", "number only"], "Test questions answered right", output / "ablation.png")
    curves = {ARMS[name].name: [result["dev_scores"] for result in runs] for name, runs in scored.items()}
    plot_curves(curves, ("step of instruction tuning", "dev questions answered right"), output / "learning.png")
    return write_text(output / "ablation.md", "\n".join(table_lines) + "\n")
