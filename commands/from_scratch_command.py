"""`microemo from-scratch` and `microemo ablation`: the tiny model from nothing, and what each of its parts is worth.

microemo synthesize dialogues --clips 1200 --num-proc 2
microemo synthesize dialogues --clips 120 --split dev --num-proc 2
microemo synthesize dialogues --clips 240 --split test --num-proc 2
microemo from-scratch dialogues microemo-tiny --work work --num-proc 2
microemo synthesize dialogues --clips 60 --split test --seed 3 --num-proc 2
microemo ablation dialogues table-2 --work work --num-proc 2
"""

import json
import shutil
from pathlib import Path
from typing import Annotated, Literal

import typer

Corpus = Annotated[Path, typer.Argument(help="Folder that `microemo synthesize` filled.", show_default=False)]
Work = Annotated[Path, typer.Option(help="Folder of the stages; one that is there is not done again.")]
NumProc = Annotated[int, typer.Option(help="Processes that decode.", min=0)]


def from_scratch(
    corpus: Corpus,
    out: Annotated[Path, typer.Argument(help="New checkpoint folder.", show_default=False)],
    work: Work = Path("from-scratch"),
    num_proc: NumProc = 0,
    seed: Annotated[int, typer.Option(help="Of what lies between the towers and the answers.")] = 0,
):
    """Train microemo-tiny from nothing on the dialogues of CORPUS (splits train and dev), in stages, on the CPU."""
    from ..training.from_scratch.stages import Run, from_scratch

    if out.exists():
        raise FileExistsError(f"{out} exists; name a new folder")
    run = Run(corpus, work, num_proc=num_proc)
    trained = from_scratch(run, _start(run), seed)
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    # The card is one of the last stage alone.
    left_out = shutil.ignore_patterns("training_args.bin", "trainer_state.json", "README.md")
    shutil.copytree(trained, part, ignore=left_out)
    part.replace(out)
    print(out)


def ablation(
    corpus: Corpus,
    out: Annotated[Path, typer.Argument(help="Folder of the table and the plot.", show_default=False)],
    work: Work = Path("from-scratch"),
    arms: Annotated[list[str] | None, typer.Option(help="Only these.")] = None,
    seeds: Annotated[int, typer.Option(help="How many, counted from 0.", min=1)] = 3,
    num_proc: Annotated[int, typer.Option(help="Processes that decode; arms that learn at once.", min=0)] = 0,
    test_seed: Annotated[int, typer.Option(help="Of the clips in the split test that count.")] = 3,
    steps: Annotated[int | None, typer.Option(help="Of learning to answer, in place of the recipe's.", min=1)] = None,
):
    """Train and score MicroEmo without each of its inventions on the dialogues of CORPUS (splits train, dev, test)."""
    from ..training.from_scratch.ablation import ARMS, run_ablation, write_results
    from ..training.from_scratch.stages import Run

    unknown = set(arms or ()) - set(ARMS)
    if unknown:
        raise ValueError(f"no arm named {', '.join(sorted(unknown))}; there are: {', '.join(ARMS)}")
    run = Run(corpus, work, num_proc=num_proc)
    chosen = arms or tuple(ARMS)
    results = run_ablation(run, _start(run), chosen, seeds, num_proc, test_seed=test_seed, steps=steps)
    print(write_results(results, out))


def score(
    checkpoint: Annotated[str, typer.Argument(help="Checkpoint folder or Hub id.", show_default=False)],
    corpus: Corpus,
    split: Annotated[str, typer.Option(help="Of the corpus: dev, test, or test_unseen.")] = "test",
    citation: Annotated[
        Literal["tokens", "times", "index"], typer.Option(help="How questions name their utterance.")
    ] = "tokens",
    seed: Annotated[int | None, typer.Option(help="Of the clips to ask about; default: all of the split.")] = None,
    out: Annotated[Path | None, typer.Option(help="Every answer, as JSON lines.")] = None,
):
    """Ask CHECKPOINT about each utterance of the dialogues of CORPUS, and say how many answers are right."""
    from ..inference.emotion_pipeline import EmotionPipeline
    from ..training.data import load_table
    from ..training.from_scratch.dialogue_scores import accuracy, answer_utterance_questions
    from ..training.synthetic.synthetic_dialogues import TABLE, read_truth
    from ..utils.files import write_text

    truth, rows = read_truth(corpus), load_table(corpus / TABLE, split).to_list()
    if seed is not None:
        rows = [row for row in rows if truth[row["name"]]["seed"] == seed]
        if not rows:
            raise ValueError(f"{corpus} has no clips of the split {split} and seed {seed}")
    pipeline = EmotionPipeline.from_pretrained(checkpoint)
    answered = answer_utterance_questions(pipeline.model, pipeline.processor, rows, truth, citation)
    if out is not None:
        write_text(out, "".join(json.dumps(one) + "\n" for one in answered))
    print(f"{100 * accuracy(answered):.1f} % of {len(answered)} questions about {len(rows)} clips answered right")


def _start(run) -> Path:
    """The checkpoint with random weights that all begins with."""
    from ..publishing.initialize import initialize

    folder = run.work / "start"
    return folder if folder.exists() else initialize("microemo-tiny", folder)
