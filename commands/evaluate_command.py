"""`microemo evaluate`: scores answers, makes tables and plots, merges systems, and runs baselines.

microemo evaluate score answers.jsonl --references check-openset.csv
microemo evaluate table ovmerd_predictions --references check-openset.csv --against Chat-UniVi
microemo evaluate run LanguageBind/Video-LLaVA-7B-hf data.jsonl --output answers.jsonl
"""

import json
from contextlib import contextmanager
from enum import Enum, StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ..evaluation.checkpoint_choice import RULES
from .shared_options import (
    Asr,
    KeepUtterances,
    Tokens,
    check_files,
    check_sources,
    errors,
    load_libraries,
    speech_reader,
)

app = typer.Typer(no_args_is_help=True, help="Score answers, make tables and plots, merge systems, run baselines.")

# As in `evaluation`, which imports numpy.
SETTINGS = ("nosubtitle-addsub", "nosubtitle", "subtitle")
COLUMNS = ("Accuracy_S", "Recall_S", "Avg", "F_S", "M-avg", "EW", "Labels per answer")


class Form(StrEnum):
    """The formats of a table."""

    markdown = "markdown"
    latex = "latex"
    csv = "csv"


class How(StrEnum):
    """The ways to find labels in texts."""

    rule = "rule"
    judge = "judge"


class Merge(StrEnum):
    """The ways to merge the answers of two systems."""

    union = "union"
    judge = "judge"


Rule = Enum("Rule", {rule: rule for rule in RULES}, type=str)  # type: ignore[misc]

Predictions = Annotated[
    list[str],
    typer.Argument(
        help="The answer files (JSONL, CSV, JSON, npz), NAME=FILE, or folders of them.", show_default=False
    ),
]
References = Annotated[
    Path, typer.Option("--references", "-r", help="The file with the true labels.", show_default=False)
]
Wheels = Annotated[
    Path | None,
    typer.Option(help="The folder of emotion wheels in the AffectGPT layout. By default the wheels of the package."),
]
Published = Annotated[
    bool, typer.Option("--affectgpt", help="Reproduce the published code of AffectGPT and OV-MER, oddities included.")
]
Common = Annotated[bool, typer.Option("--common", help="Score the names that both files hold, not only equal sets.")]
Judge = Annotated[
    str | None,
    typer.Option(help="The language model that judges: its name at --base-url, or a Hub id or folder to run locally."),
]
BaseUrl = Annotated[str | None, typer.Option(help="The OpenAI-compatible endpoint, such as http://localhost:8000/v1.")]
Offline = Annotated[
    bool, typer.Option("--offline", help="Replay the judge's answers from --cache without any request.")
]
Cache = Annotated[Path, typer.Option(help="The JSONL file that keeps every answer of the judge.")]
Grouping = Annotated[
    str, typer.Option(help="The synonyms of the set-level metric: wheels, judge, or a JSON file of groups to replay.")
]
Extraction = Annotated[How, typer.Option(help="The way to find the labels in free text.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="The file to write. By default standard output.")]
Setting = Annotated[
    str,
    typer.Option(help=f"The setting to keep of files named by setting: {', '.join(SETTINGS)}, or 'all'."),
]
Draws = Annotated[int, typer.Option(help="The number of bootstrap draws and random swaps.", min=1)]
CACHE = Path("judge-answers.jsonl")


@contextmanager
def _chat(judge: str | None, base_url: str | None, offline: bool, cache: Path, needed: bool):
    if not needed:
        yield None
        return
    if judge is None:
        raise ValueError("a judge was asked for: name its model with --judge")
    from ..evaluation.chat import EndpointChat, LocalChat

    chat = (
        EndpointChat(judge, None if offline else base_url, cache) if base_url or offline else LocalChat(judge, cache)
    )
    try:
        yield chat
    finally:
        chat.close()


@contextmanager
def _tools(wheels, affectgpt, common, judge, base_url, offline, cache, grouping, extraction, merge=Merge.union):
    """Yields the judge (or `None`), the grouper, and the options of a score, from the options of a command."""
    from ..evaluation.emotion_labels import AFFECTGPT
    from ..evaluation.language_model_judge import ChatGrouper
    from ..evaluation.set_level import ReplayGrouper, WheelGrouper

    vocabulary = _vocabulary(wheels)
    needed = grouping == "judge" or extraction is How.judge or merge is Merge.judge
    with _chat(judge, base_url, offline, cache, needed) as chat:
        if grouping == "judge":
            grouper = ChatGrouper(chat)
        else:
            grouper = WheelGrouper(vocabulary) if grouping == "wheels" else ReplayGrouper.from_file(grouping)
        options = {
            "wheels": vocabulary,
            "compat": AFFECTGPT if affectgpt else None,
            "chat": chat if extraction is How.judge else None,
            "common": common,
        }
        yield chat, grouper, options


def _vocabulary(wheels: Path | None):
    from ..evaluation.emotion_wheel import EmotionWheels

    return EmotionWheels.default() if wheels is None else EmotionWheels.from_folder(wheels)


def _check_answers(predictions: list[str], references: Path) -> None:
    """Checks that files exist, before any import. A prediction may be NAME=FILE, or a folder."""
    check_files(references)
    for prediction in predictions:
        if not Path(prediction).exists() and not Path(prediction.partition("=")[2] or prediction).exists():
            raise FileNotFoundError(f"{prediction}: no such file or folder")


@app.command()
def score(
    predictions: Predictions,
    references: References,
    wheels: Wheels = None,
    affectgpt: Published = False,
    common: Common = False,
    grouping: Grouping = "wheels",
    extraction: Extraction = How.rule,
    judge: Judge = None,
    base_url: BaseUrl = None,
    offline: Offline = False,
    cache: Cache = CACHE,
    draws: Draws = 1000,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print every metric as one JSON object for each file.")
    ] = False,
):
    """Score each of PREDICTIONS with the set-level metric and every wheel metric, with 95 % intervals."""
    _check_answers(predictions, references)
    from ..evaluation.prediction_files import read_answers
    from ..evaluation.resampling import bootstrap
    from ..evaluation.systems import find_system_files, score_answers

    truth = read_answers(references)
    files = find_system_files(predictions, setting=None)
    tools = _tools(wheels, affectgpt, common, judge, base_url, offline, cache, grouping, extraction)
    with tools as (_, grouper, options):
        for file in files:
            sheet = score_answers(truth, read_answers(file.path), grouper, **options)
            estimates = bootstrap(sheet, draws)
            notes = {key: list(note) if isinstance(note, tuple) else note for key, note in sheet.notes.items()}
            if as_json:
                scores = {name: [e.value, e.low, e.high] for name, e in estimates.items()}
                names = {"file": str(file.path), "references": references.name, "n": len(sheet.names)}
                print(json.dumps({**names, "scores": scores, "notes": notes}))
                continue
            score_table = Table("metric", "precision", "recall", "F", title=f"{file.path} ({len(sheet.names)} clips)")
            for metric in [*sheet.metrics, "EW"]:
                cells = (_interval(estimates[f"{metric}/{side}"], 100) for side in ("precision", "recall", "f"))
                score_table.add_row(metric, *cells)
            score_table.add_row("Avg (set level)", "", "", _interval(estimates["S/avg"], 100))
            score_table.add_row("M-avg", "", "", _interval(estimates["M-avg"], 100))
            score_table.add_row("labels per answer", "", "", _interval(estimates["labels"], 1))
            Console(width=110).print(score_table)
            for difference in notes.pop("differs"):
                errors.print(difference, markup=False)
            for key, note in notes.items():
                print(f"{key}: {f'{note:.1%}' if isinstance(note, float) else note or 'none'}")


def _interval(estimate, scale: float) -> str:
    return " ".join([f"{scale * estimate.value:.2f}", f"[{scale * estimate.low:.1f}, {scale * estimate.high:.1f}]"])


@app.command("hit-rate")
def hit_rate_command(
    predictions: Predictions,
    references: References,
    wheels: Wheels = None,
    affectgpt: Published = False,
    common: Common = False,
    field: Annotated[str | None, typer.Option(help="The column of the reference labels.")] = None,
):
    """Compute the hit rate of MER-UniBench: whether the true basic emotion is among the predicted labels."""
    _check_answers(predictions, references)
    from ..evaluation.emotion_labels import AFFECTGPT
    from ..evaluation.emotion_wheel import hit_rate, hit_rates
    from ..evaluation.prediction_files import read_answers
    from ..evaluation.systems import find_system_files

    truth, vocabulary = read_answers(references, field), _vocabulary(wheels)
    for file in find_system_files(predictions, setting=None):
        names, true_labels, predicted_labels = _labels(truth, read_answers(file.path), common)
        sheet = hit_rates(names, true_labels, predicted_labels, vocabulary, AFFECTGPT if affectgpt else None)
        print(f"{file.path}: hit rate {100 * hit_rate(sheet):.2f} ({len(names)} clips)")


@app.command()
def sentiment(
    predictions: Predictions,
    references: References,
    field: Annotated[str, typer.Option(help="The column of the reference valence (a number) or sentiment.")] = "val",
    common: Common = False,
    by: Extraction = How.rule,
    judge: Judge = None,
    base_url: BaseUrl = None,
    offline: Offline = False,
    cache: Cache = CACHE,
):
    """Compare the sentiment of the predicted labels with the true valence: weighted F1 and accuracy."""
    _check_answers(predictions, references)
    from ..evaluation.language_model_judge import judge_sentiment
    from ..evaluation.prediction_files import read_answers
    from ..evaluation.sentiment import label_sentiment, sentiment_scores
    from ..evaluation.systems import find_system_files

    truth = read_answers(references, field)
    with _chat(judge, base_url, offline, cache, by is How.judge) as chat:
        for file in find_system_files(predictions, setting=None):
            names, true_values, predicted_labels = _labels(truth, read_answers(file.path), common)
            predicted: list[str | None] = (
                judge_sentiment(chat, predicted_labels)
                if chat
                else [label_sentiment(labels) for labels in predicted_labels]
            )
            scores = sentiment_scores([_as_sentiment(value) for value in true_values], predicted)
            unreadable = predicted.count(None)
            print(
                f"{file.path}: WAF {100 * scores['WAF']:.2f}, ACC {100 * scores['ACC']:.2f} ({scores['n']} of {len(names)} "
                f"clips are not neutral; {unreadable} answers unreadable)"
            )


def _labels(truth, predictions, common: bool):
    """Returns the names, true labels and predicted labels of two [`Answers`]."""
    from ..evaluation.label_extraction import labels_of
    from ..evaluation.prediction_files import Answers, match

    labels, _ = labels_of(predictions)
    return match(truth, Answers(predictions.source, "labels", labels), common)


def _as_sentiment(value) -> str:
    from ..evaluation.sentiment import valence_sentiment

    try:
        return valence_sentiment(float(value))
    except (ValueError, TypeError):
        return str(value).strip().lower()


@app.command()
def table(
    predictions: Predictions,
    references: References,
    number: Annotated[
        int, typer.Option("--table", help="The table of the paper, 1 or 2, whose published numbers are added.")
    ] = 1,
    against: Annotated[str | None, typer.Option(help="The row that every other row is tested against.")] = None,
    combination: Annotated[
        list[str] | None,
        typer.Option("--combine", help="'A + B' adds a row that merges an audio-only and a video-only system."),
    ] = None,
    merge: Annotated[
        Merge, typer.Option(help="The way in which --combine merges: labels (offline), or texts by the judge.")
    ] = (Merge.union),
    checkpoints: Annotated[
        Rule | None, typer.Option(help="The rule that chooses one of several checkpoints. By default all are shown.")
    ] = None,
    dev_predictions: Annotated[
        Path | None, typer.Option(help="The folder with the same file names, answered on the dev split (best-on-dev).")
    ] = None,
    dev_references: Annotated[
        Path | None, typer.Option(help="The true labels of the dev split (best-on-dev).")
    ] = None,
    allow_test_selection: Annotated[
        bool, typer.Option("--allow-test-selection", help="Let best-on-test choose; the row is marked.")
    ] = False,
    wheels: Wheels = None,
    affectgpt: Published = False,
    common: Common = False,
    grouping: Grouping = "wheels",
    extraction: Extraction = How.rule,
    setting: Setting = SETTINGS[0],
    answers: Annotated[
        str, typer.Option(help="The files of a folder to read: openset (labels) or reason (texts).")
    ] = ("openset"),
    judge: Judge = None,
    base_url: BaseUrl = None,
    offline: Offline = False,
    cache: Cache = CACHE,
    draws: Draws = 1000,
    columns: Annotated[str, typer.Option(help="The columns, separated by commas.")] = ", ".join(COLUMNS),
    form: Annotated[Form, typer.Option("--format", "-f", help="The format of the table.")] = Form.markdown,
    output: Output = None,
    plot: Annotated[
        Path | None, typer.Option(help="The file (.png, .svg) of a plot of the intervals of --plot-column.")
    ] = None,
    plot_column: Annotated[str, typer.Option(help="The column that --plot draws.")] = "EW",
):
    """Make a table with a row for each system, 95 % intervals, significance, and the published numbers."""
    _check_answers(predictions, references)
    from ..evaluation.prediction_files import read_answers
    from ..evaluation.result_tables import read_published, result_table
    from ..evaluation.systems import find_system_files, fix_checkpoints, score_answers, score_systems

    truth = read_answers(references)
    files = find_system_files(predictions, None if setting == "all" else setting, answers)
    _check_output(output, references, *(file.path for file in files))
    tools = _tools(wheels, affectgpt, common, judge, base_url, offline, cache, grouping, extraction, merge)
    with tools as (chat, grouper, options):
        rule = None if checkpoints is None else checkpoints.value
        scores = None
        if rule is not None and rule != "last":
            # On the test set, or on the dev split: the files of the same names there.
            folder, truth_of_choice = _place_of_choice(rule, truth, dev_predictions, dev_references)
            paths = {file.path: file.path if folder is None else folder / file.path.name for file in files}
            scores = {
                name: score_answers(truth_of_choice, read_answers(path), grouper, **options).summary()["EW/f"]
                for name, path in paths.items()
            }
        files = fix_checkpoints(files, rule, scores, allow_test_selection)
        merger = chat if merge is Merge.judge else None
        systems = score_systems(truth, files, grouper, combination or (), merger, **options)
    headings = [heading.strip() for heading in columns.split(",")]
    result = result_table(systems, against, read_published(table=number), headings, draws)
    _emit(result.render(form.value), output)
    if plot is not None:
        from ..evaluation.result_plots import plot_intervals

        errors.print(f"{plot_intervals(result, plot_column, plot)}")


def _place_of_choice(rule: str, truth, dev_predictions: Path | None, dev_references: Path | None):
    """Returns the folder of the answers that choose a checkpoint (`None` for the test set), and the truth for them."""
    from ..evaluation.prediction_files import read_answers

    if rule == "best-on-test":
        return None, truth
    if dev_predictions is None or dev_references is None:
        raise ValueError("best-on-dev needs --dev-predictions and --dev-references")
    return dev_predictions, read_answers(dev_references)


@app.command()
def plot(
    predictions: Annotated[Path, typer.Argument(help="The answer file.", show_default=False)],
    references: References,
    folder: Annotated[Path, typer.Option("--output", "-o", help="The folder for the pictures.")] = Path("plots"),
    wheels: Wheels = None,
    common: Common = False,
):
    """Draw the confusion of a system on level 1 of the first wheel, and its recall of each emotion."""
    check_files(predictions, references)
    from ..evaluation.prediction_files import read_answers
    from ..evaluation.result_plots import emotion_recall, plot_confusion, plot_emotion_recall, wheel_confusion

    vocabulary = _vocabulary(wheels)
    _, true_labels, predicted_labels = _labels(read_answers(references), read_answers(predictions), common)
    title = f"{predictions.parent.name}/{predictions.stem}"
    names, matrix = wheel_confusion(true_labels, predicted_labels, vocabulary)
    print(plot_confusion(names, matrix, title, folder / f"{predictions.stem}-confusion.png"))
    recall = emotion_recall(true_labels, predicted_labels, vocabulary)
    print(plot_emotion_recall(recall, title, folder / f"{predictions.stem}-recall.png"))


@app.command("combine")
def combine_command(
    audio: Annotated[Path, typer.Argument(help="The answers of an audio-only system.", show_default=False)],
    video: Annotated[Path, typer.Argument(help="The answers of a video-only system.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="The JSONL file to write.", show_default=False)],
    merge: Annotated[
        Merge, typer.Option(help="The way to merge: the union of the labels (offline), or texts by the judge.")
    ] = (Merge.union),
    judge: Judge = None,
    base_url: BaseUrl = None,
    offline: Offline = False,
    cache: Cache = CACHE,
):
    """Merge two systems into one (the "A + B" rows of Table 1)."""
    check_files(audio, video)
    _check_output(output, audio, video)
    from ..evaluation.combination import combine
    from ..evaluation.prediction_files import read_answers
    from ..utils.files import write_json_lines

    with _chat(judge, base_url, offline, cache, merge is Merge.judge) as chat:
        combined, notes = combine(read_answers(audio), read_answers(video), chat)
    key = "labels" if combined.kind == "labels" else "answer"
    write_json_lines(output, ({"name": name, key: answer} for name, answer in combined.items.items()))
    print(f"{output}: {len(combined.items)} answers, {notes['combination']}; {len(notes['unreadable'])} unreadable")


@app.command()
def extract(
    texts: Annotated[Path, typer.Argument(help="The file of free-text answers.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="The JSONL file to write.", show_default=False)],
    by: Extraction = How.rule,
    judge: Judge = None,
    base_url: BaseUrl = None,
    offline: Offline = False,
    cache: Cache = CACHE,
):
    """Find the emotion labels in free-text answers."""
    check_files(texts)
    _check_output(output, texts)
    from ..evaluation.label_extraction import labels_of
    from ..evaluation.prediction_files import read_answers
    from ..utils.files import write_json_lines

    with _chat(judge, base_url, offline, cache, by is How.judge) as chat:
        labels, notes = labels_of(read_answers(texts), chat)
    write_json_lines(output, ({"name": name, "labels": found_labels} for name, found_labels in labels.items()))
    empty = sum(not found_labels for found_labels in labels.values())
    unreadable = len(notes.get("unreadable", ()))
    print(f"{output}: {len(labels)} answers ({notes['extraction']}), {empty} without a label, {unreadable} unreadable")


@app.command()
def run(
    model: Annotated[str, typer.Argument(help="The Hub id or folder of a checkpoint.", show_default=False)],
    data: Annotated[
        Path, typer.Argument(help="The JSONL or CSV file with a video (or audio) in each row.", show_default=False)
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The JSONL file to write. An unfinished one is continued.")
    ],
    name: Annotated[
        str | None, typer.Option(help="The name of the system. By default that of the checkpoint.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="The number of clips that are answered together.", min=1)] = 1,
    subtitles: Annotated[bool, typer.Option(help="Pass the subtitle sentence of each clip to the model.")] = True,
    asr: Asr = None,
    keep_utterances: KeepUtterances = False,
    skip_errors: Annotated[
        bool, typer.Option("--skip-errors", help="Leave out clips that fail, and list them.")
    ] = False,
    device: Annotated[
        str | None,
        typer.Option(help="The device, such as cpu or cuda:0. By default the GPUs, or the CPU if there is none."),
    ] = None,
    max_new_tokens: Tokens = 256,
):
    """Run MicroEmo or a zero-shot baseline over a data set. A run that was stopped can be resumed."""
    check_sources(model, asr)
    check_files(data)
    if not subtitles and asr is not None:
        raise ValueError("--asr gives clips subtitles, --no-subtitles takes them away: leave out one of the two")
    load_libraries()
    from transformers import AutoConfig

    from ..inference.baselines import load_baseline
    from ..inference.emotion_pipeline import EmotionPipeline
    from ..inference.run_dataset import Answerer, WithSpeech, open_answers, read_samples, run_dataset

    samples = read_samples(data)
    system = name or model.rstrip("/").split("/")[-1]
    if output.exists():  # a file that is not this run's is refused before the model is loaded
        open_answers(output, system).close()
    is_ours = AutoConfig.from_pretrained(model).model_type == "microemo"
    load = EmotionPipeline.from_pretrained if is_ours else load_baseline
    options = {"max_new_tokens": max_new_tokens, "use_subtitle": subtitles}
    speech = speech_reader(asr, keep_utterances, device, progress=False) if asr or keep_utterances else None
    answerer: Answerer = load(model, name=system, device=device, **options)
    if speech is not None:
        answerer = WithSpeech(answerer, speech)
    report = run_dataset(answerer, samples, output, batch_size, skip_errors)
    print(f"{output}: {len(report.answered)} answered, {report.resumed} already there, {len(report.failed)} failed")
    for clip, error in report.failed.items():
        errors.print(f"{clip}: {error}", markup=False)
    if report.failed:
        raise typer.Exit(1)


def _check_output(output: Path | None, *inputs: Path | str) -> None:
    for path in inputs:
        if output is not None and output.exists() and Path(path).exists() and output.samefile(path):
            raise ValueError(f"{output}: is read here, and would be overwritten; name another output")


def _emit(text: str, output: Path | None) -> None:
    if output is None:
        print(text, end="")
    else:
        from ..utils.atomic_files import write_text

        errors.print(f"{write_text(output, text)}")
