"""`microemo from-scratch`, `microemo ablation`, `microemo score-dialogues`: the tiny model from nothing, and what its parts
are worth.

microemo synthesize dialogues --clips 1200 --num-workers 2
microemo synthesize dialogues --clips 120 --split dev --num-workers 2
microemo synthesize dialogues --clips 240 --split test --num-workers 2
microemo from-scratch dialogues microemo-tiny --work work --num-workers 2
microemo synthesize dialogues --clips 60 --split test --seed 3 --num-workers 2
microemo score-dialogues microemo-tiny dialogues --split test --seed 3
microemo ablation dialogues table-2 --work work --num-workers 2
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ..utils.files import check_new_folder, write_json_lines
from .shared_options import NumWorkers, check_folders, check_sources, load_libraries

Corpus = Annotated[Path, typer.Argument(help="Folder that `microemo synthesize` filled.", show_default=False)]
Work = Annotated[Path, typer.Option(help="Folder of the stages; one that is there is not done again.")]


def from_scratch(
    corpus: Corpus,
    output: Annotated[Path, typer.Argument(help="New checkpoint folder.", show_default=False)],
    work: Work = Path("from-scratch"),
    num_workers: NumWorkers = 0,
    seed: Annotated[int, typer.Option(help="Of what lies between the towers and the answers.")] = 0,
):
    """Train microemo-tiny from nothing on the dialogues of CORPUS (splits train and dev), in stages, on the CPU."""
    check_folders(corpus)
    check_new_folder(output)
    load_libraries()
    from ..training.from_scratch.stages import Run, copy_checkpoint, from_scratch

    run = Run(corpus, work, num_proc=num_workers)
    copy_checkpoint(from_scratch(run, _start(run), seed), output)
    print(output)


def ablation(
    corpus: Corpus,
    output: Annotated[Path, typer.Argument(help="Folder of the table and the plot.", show_default=False)],
    work: Work = Path("from-scratch"),
    arms: Annotated[list[str] | None, typer.Option(help="Only these.")] = None,
    seeds: Annotated[int, typer.Option(help="How many, counted from 0.", min=1)] = 3,
    num_workers: Annotated[int, typer.Option(help="Processes that decode; arms that learn at once.", min=0)] = 0,
    test_seed: Annotated[int, typer.Option(help="Of the clips in the split test that count.")] = 3,
    steps: Annotated[int | None, typer.Option(help="Of learning to answer, in place of the recipe's.", min=1)] = None,
):
    """Train and score MicroEmo without each of its inventions on the dialogues of CORPUS (splits train, dev, test)."""
    check_folders(corpus)
    load_libraries()
    from ..training.from_scratch.ablation import ARMS, run_ablation, write_results
    from ..training.from_scratch.stages import Run

    unknown = set(arms or ()) - set(ARMS)
    if unknown:
        raise ValueError(f"no arm named {', '.join(sorted(unknown))}; there are: {', '.join(ARMS)}")
    run = Run(corpus, work, num_proc=num_workers)
    chosen = arms or tuple(ARMS)
    results = run_ablation(run, _start(run), chosen, seeds, num_workers, test_seed=test_seed, steps=steps)
    print(write_results(results, output))


def score_dialogues(
    checkpoint: Annotated[str, typer.Argument(help="Checkpoint folder or Hub id.", show_default=False)],
    corpus: Corpus,
    split: Annotated[str, typer.Option(help="Of the corpus: dev, test, or test_unseen.")] = "test",
    citation: Annotated[
        Literal["tokens", "times", "index"], typer.Option(help="How questions name their utterance.")
    ] = "tokens",
    seed: Annotated[int | None, typer.Option(help="Of the clips to ask about; default: all of the split.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File for every answer, as JSON lines.")
    ] = None,
):
    """Ask CHECKPOINT about each utterance of the dialogues of CORPUS, and say how many answers are right."""
    check_sources(checkpoint)
    check_folders(corpus)
    load_libraries()
    from ..inference.emotion_pipeline import EmotionPipeline
    from ..training.data import load_table
    from ..training.from_scratch.dialogue_scores import accuracy, answer_utterance_questions
    from ..training.synthetic.synthetic_dialogues import TABLE, read_truth

    truth, rows = read_truth(corpus), load_table(corpus / TABLE, split).to_list()
    if seed is not None:
        rows = [row for row in rows if truth[row["name"]]["seed"] == seed]
        if not rows:
            raise ValueError(f"{corpus} has no clips of the split {split} and seed {seed}")
    pipeline = EmotionPipeline.from_pretrained(checkpoint)
    answers = answer_utterance_questions(pipeline.model, pipeline.processor, rows, truth, citation)
    if output is not None:
        write_json_lines(output, answers)
    print(f"{100 * accuracy(answers):.1f} % of {len(answers)} questions about {len(rows)} clips answered right")


def _start(run) -> Path:
    """The checkpoint with random weights that all begins with."""
    from ..publishing.initialize import initialize

    folder = run.work / "start"
    return folder if folder.exists() else initialize("microemo-tiny", folder)
