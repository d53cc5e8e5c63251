"""The commands `microemo from-scratch`, `microemo ablation` and `microemo score-dialogues`: training of the tiny model from
scratch, and the contribution of its parts.

microemo synthesize dialogues --clips 1200 --num-workers 2
microemo synthesize dialogues --clips 120 --split dev --num-workers 2
microemo synthesize dialogues --clips 240 --split test --num-workers 2
microemo from-scratch dialogues microemo-tiny --work work --num-workers 2
microemo synthesize dialogues --clips 60 --split test --seed 3 --num-workers 2
microemo score-dialogues microemo-tiny dialogues --split test --seed 3
microemo ablation dialogues table-2 --work work --num-workers 2
"""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from ..utils.atomic_files import check_new_folder
from ..utils.files import write_json_lines
from .shared_options import NumWorkers, check_files, check_folders, check_sources, load_libraries

if TYPE_CHECKING:
    from ..training.from_scratch.stages import Run

Corpus = Annotated[Path, typer.Argument(help="The folder that `microemo synthesize` filled.", show_default=False)]
Work = Annotated[Path, typer.Option(help="The folder of the stages. Stages that it holds are not repeated.")]


def from_scratch(
    corpus: Corpus,
    output: Annotated[Path, typer.Argument(help="The new checkpoint folder.", show_default=False)],
    work: Work = Path("from-scratch"),
    photographs: Annotated[
        Path | None,
        typer.Option(help="The folder of the photographs that CORPUS was made with: microemo-small is trained."),
    ] = None,
    recordings: Annotated[
        Path | None, typer.Option(help="The folder of the recordings that CORPUS was made with.")
    ] = None,
    audio: Annotated[
        str, typer.Option(help="The pretrained audio tower of microemo-small.")
    ] = "openai/whisper-tiny.en",
    face_mesh_model: Annotated[
        Path | None, typer.Option(help="A face_landmarker.task, whose blendshapes teach the image encoder, too.")
    ] = None,
    num_workers: NumWorkers = 0,
    seed: Annotated[int, typer.Option(help="The seed of the stages after the training of the towers.")] = 0,
):
    """Train microemo-tiny from scratch on the dialogues of CORPUS (splits train and dev), in stages, on the CPU.

    With --photographs and --recordings microemo-small is trained, on the dialogues of people.
    """
    check_folders(corpus, photographs, recordings)
    check_files(face_mesh_model)
    check_new_folder(output)
    if (photographs is None) != (recordings is None):
        raise ValueError("--photographs and --recordings belong together, and one of them is missing")
    if photographs is not None:
        check_sources(audio)
    load_libraries()
    from ..training.from_scratch.stages import Run, copy_checkpoint, from_scratch

    if photographs is None or recordings is None:
        run = Run(corpus, work, num_workers=num_workers)
        copy_checkpoint(from_scratch(run, _start(run), seed), output)
    else:
        from ..training.from_scratch.people_stages import (
            PeopleRun,
            from_scratch_people,
            people_recipe,
            write_checkpoint,
        )

        run = PeopleRun(corpus, work, people_recipe(), num_workers, photographs, recordings, face_mesh_model)
        write_checkpoint(from_scratch_people(run, _start_people(run, audio), seed), output)
    print(output)


def ablation(
    corpus: Corpus,
    output: Annotated[Path, typer.Argument(help="The folder of the table and the plots.", show_default=False)],
    work: Work = Path("from-scratch"),
    arms: Annotated[
        list[str] | None, typer.Option(help="An arm to run; may be repeated. By default all arms run.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="The number of seeds, counted from 0.", min=1)] = 3,
    num_workers: Annotated[
        int, typer.Option(help="The number of processes that decode, and of arms that are trained at once.", min=0)
    ] = 0,
    test_seed: Annotated[int, typer.Option(help="The seed of the clips in the split test that count.")] = 3,
    steps: Annotated[
        int | None,
        typer.Option(help="The number of steps of instruction tuning, in place of that of the recipe.", min=1),
    ] = None,
):
    """Train and score MicroEmo without each of its new parts on the dialogues of CORPUS (splits train, dev, test)."""
    check_folders(corpus)
    load_libraries()
    from ..training.from_scratch.ablation import ARMS, run_ablation, write_results
    from ..training.from_scratch.stages import Run

    unknown = set(arms or ()) - set(ARMS)
    if unknown:
        raise ValueError(f"no arm named {', '.join(sorted(unknown))}; there are: {', '.join(ARMS)}")
    run = Run(corpus, work, num_workers=num_workers)
    chosen = arms or tuple(ARMS)
    results = run_ablation(run, _start(run), chosen, seeds, num_workers, test_seed=test_seed, steps=steps)
    print(write_results(results, output))


def score_dialogues(
    checkpoint: Annotated[str, typer.Argument(help="The checkpoint folder or Hub id.", show_default=False)],
    corpus: Corpus,
    split: Annotated[str, typer.Option(help="The split of the corpus: dev, test, or test_unseen.")] = "test",
    citation: Annotated[
        Literal["tokens", "times", "index"], typer.Option(help="The way in which questions name their utterance.")
    ] = "tokens",
    seed: Annotated[
        int | None, typer.Option(help="The seed of the clips to ask about. By default all clips of the split.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file for all answers, as JSON lines.")
    ] = None,
):
    """Ask CHECKPOINT about each utterance of the dialogues of CORPUS, and print the share of right answers."""
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


def score_people(
    checkpoint: Annotated[str, typer.Argument(help="The checkpoint folder or Hub id.", show_default=False)],
    corpus: Corpus,
    split: Annotated[
        list[str] | None,
        typer.Option(help="A split of the corpus; may be repeated. By default test and test_unseen."),
    ] = None,
    photographs: Annotated[
        Path | None,
        typer.Option(help="A folder of photographs: the smiling people of the split are shown, too, as real smiles."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file for all answers, as JSON lines.")
    ] = None,
):
    """Ask CHECKPOINT about the dialogues of people in CORPUS, and print what it sees, hears and says, with 95 % intervals."""
    check_sources(checkpoint)
    check_folders(corpus, photographs)
    load_libraries()
    from ..inference.emotion_pipeline import EmotionPipeline
    from ..training.data import load_table
    from ..training.from_scratch.people_scores import answer_people_questions
    from ..training.from_scratch.people_scores import score_people as compute
    from ..training.from_scratch.people_stages import write_rows
    from ..training.synthetic.synthetic_dialogues import TABLE, read_truth

    with tempfile.TemporaryDirectory() as folder:
        write_rows(corpus, Path(folder))
        truth = read_truth(Path(folder))
        rows = [
            row
            for name in split or ("test", "test_unseen")
            for row in load_table(Path(folder) / TABLE, name).to_list()
        ]
    pipeline = EmotionPipeline.from_pretrained(checkpoint)
    answers = answer_people_questions(pipeline.model, pipeline.processor, rows, truth)
    scores = compute(answers)
    if photographs is not None:
        from ..training.from_scratch.real_smiles import answer_smiles, score_smiles_said, write_smile_clips

        with tempfile.TemporaryDirectory() as folder:
            smiles = write_smile_clips(Path(folder), photographs, (split or ["test"])[0])
            shown = answer_smiles(pipeline.model, pipeline.processor, smiles)
        names = {
            "auc": "real smiles, AUC",
            "said": "real smiles, said",
            "false": "real smiles, said of a face at rest",
        }
        scores |= {names[name]: score for name, score in score_smiles_said(shown).items()}
        answers += shown
    if output is not None:
        write_json_lines(output, answers)
    table = Table("figure", "value", "95 % interval", "answers", "majority or chance")
    for name, score in scores.items():
        percents = [f"{100 * score[key]:.1f}" for key in ("value", "low", "high")]
        majority = f"{100 * score['majority']:.1f}" if "majority" in score else ""
        table.add_row(name, percents[0], f"{percents[1]} to {percents[2]}", str(score["count"]), majority)
    Console().print(table)


def _start(run: "Run") -> Path:
    """Returns the checkpoint with random weights that training starts from."""
    from ..publishing.initialize import initialize

    folder = run.work / "start"
    return folder if folder.exists() else initialize("microemo-tiny", folder)


def _start_people(run: "Run", audio: str) -> Path:
    """Returns the checkpoint that the training on people starts from: random weights, but for the audio tower."""
    from ..processing.processing_microemo import MicroEmoProcessor
    from ..publishing.initialize import initialize
    from ..training.from_scratch.small_tokenizer import train_tokenizer

    def make(part: Path) -> None:
        tokenizer = part / "tokenizer"
        train_tokenizer(tokenizer)
        made = initialize("microemo-small", part / "start", llm_tokenizer=str(tokenizer), audio=audio)
        processor = MicroEmoProcessor.from_pretrained(made)
        processor.video_processor.face_crop_upright = True  # as the frames that the image encoder learns from are cut
        processor.save_pretrained(made)

    return run.stage("begin", make) / "start"
