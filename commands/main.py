"""The `microemo` command.

microemo demo
microemo predict clip.mp4 --subtitles clip.srt --model ORG/microemo-7b
microemo inspect clip.mp4 --output what-the-model-sees
microemo init microemo-tiny ./tiny

Libraries are imported inside the commands, after the checks of the arguments, so that help, completion and errors need
little time.
"""

import json
import shutil
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperGroup

from ..utils.news import show_news
from .actions_command import actions
from .app_command import open_page
from .assemble_command import assemble
from .calibrate_command import calibrate
from .convert_command import convert
from .evaluate_command import app as evaluate_app
from .from_scratch_command import ablation, from_scratch, score_dialogues, score_people
from .predict_command import line_of, predict
from .publish_command import card, publish
from .serve_command import serve
from .shared_options import (
    Asr,
    Audio,
    AudioTrack,
    Clip,
    KeepUtterances,
    Model,
    Subtitles,
    Tokens,
    check_files,
    check_sources,
    check_speech,
    errors,
    load_libraries,
    load_pipeline,
    speech_reader,
)
from .synthesize_command import synthesize
from .train_command import TRAIN_CONTEXT, merge, precompute, train

# Old names, kept for one version.
OLD_COMMANDS = {"score": "score-dialogues"}
OLD_OPTIONS = {"--num-proc": "--num-workers", "--out": "--output"}


class CommandsWithOldNames(TyperGroup):
    """Accepts the old names of commands and options, with a warning that names the new ones."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in ("train", "evaluate"):  # which had none of them
            first, *rest = args
            args = [self._current(first, OLD_COMMANDS), *(self._current(word, OLD_OPTIONS) for word in rest)]
        return super().parse_args(ctx, args)

    @staticmethod
    def _current(word: str, names: dict[str, str]) -> str:
        name, equals, value = word.partition("=")
        if name not in names:
            return word
        errors.print(
            f"[yellow]Warning:[/] {name} is now called {names[name]}; the old name goes with the next version."
        )
        return f"{names[name]}{equals}{value}"


app = typer.Typer(
    cls=CommandsWithOldNames,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="MicroEmo: open, explainable emotion recognition from video dialogue.",
)
app.command()(predict)
app.command()(assemble)
app.command()(convert)
app.command()(calibrate)
app.command()(synthesize)
app.command()(precompute)
app.command(context_settings=TRAIN_CONTEXT)(train)
app.command()(merge)
app.command()(serve)
app.command("app")(open_page)
app.command()(actions)
app.command()(publish)
app.command()(card)
app.command()(from_scratch)
app.command()(ablation)
app.command()(score_dialogues)
app.command()(score_people)
app.add_typer(evaluate_app, name="evaluate")


def _print_version(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import version

        print(f"microemo {version('microemo')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
):
    """MicroEmo: open, explainable emotion recognition from video dialogue."""


@app.command()
def inspect(
    clip: Clip,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder for the pictures and the JSON.")],
    subtitles: Subtitles = None,
    audio: Audio = None,
    audio_track: AudioTrack = None,
    asr: Asr = None,
    keep_utterances: KeepUtterances = False,
    model: Model = None,
):
    """Draw the inputs of the model for CLIP: frames, face mesh, clue regions, windows, mel."""
    check_files(clip, subtitles, audio)
    check_sources(model, asr)
    check_speech(subtitles, asr, keep_utterances)
    load_libraries()
    from ..inference.emotion_pipeline import SHIPPED
    from ..inference.inspection import inspect_clip
    from ..processing.decoding.container import SoundTrack
    from ..processing.processing_microemo import MicroEmoProcessor

    speech = speech_reader(asr, keep_utterances)
    processor = MicroEmoProcessor.from_pretrained(SHIPPED if model is None else model)
    report = inspect_clip(
        processor, clip, utterances=subtitles, audio=audio, audio_track=audio_track, output=output, asr=speech
    )
    for track in report.get("sound_tracks", []):
        mark = " (heard)" if track["index"] == report["audio_track"] else ""
        print(f"sound track {SoundTrack(**track)}{mark}")
    for path in report["files"]:
        print(path)


@app.command()
def init(
    preset: Annotated[
        str,
        typer.Argument(
            help="The preset: microemo-tiny, microemo-small, microemo-modern or microemo-7b.", show_default=False
        ),
    ],
    folder: Annotated[Path, typer.Argument(help="The new checkpoint folder.", show_default=False)],
    llm_tokenizer: Annotated[
        str | None, typer.Option(help="The folder or Hub id of the language model's tokenizer.")
    ] = None,
    qformer_tokenizer: Annotated[
        str | None, typer.Option(help="The folder or Hub id of the image Q-Former's tokenizer.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The seed of the random weights.")] = 0,
    vision: Annotated[
        str | None,
        typer.Option(help="The folder or Hub id of a pretrained image encoder, such as SigLIP 2 or DINOv2."),
    ] = None,
    audio: Annotated[
        str | None,
        typer.Option(help="The folder or Hub id of a pretrained audio encoder, such as openai/whisper-tiny.en."),
    ] = None,
    llm: Annotated[str | None, typer.Option(help="The folder or Hub id of a pretrained language model.")] = None,
):
    """Make a checkpoint folder of PRESET, which all other commands accept. What no option names has random weights."""
    check_sources(llm_tokenizer, qformer_tokenizer, vision, audio, llm)
    load_libraries()
    from ..publishing.initialize import initialize

    print(initialize(preset, folder, llm_tokenizer, qformer_tokenizer, seed, vision=vision, audio=audio, llm=llm))


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder for the clip and the pictures.")] = Path(
        "demo"
    ),
    model: Model = None,
    max_new_tokens: Tokens = 256,
):
    """Ask what two people feel in an example dialogue, and draw the inputs of the model.

    The dialogue is synthetic: photographs of two people that no training has seen act, and two recordings speak.
    """
    check_sources(model)
    load_libraries()
    from ..inference.emotion_pipeline import EXAMPLE, UTTERANCE_QUESTION
    from ..inference.inspection import inspect_clip

    output.mkdir(parents=True, exist_ok=True)
    clip, subtitles = (Path(shutil.copy(EXAMPLE.with_suffix(suffix), output)) for suffix in (".mp4", ".srt"))
    played = json.loads(EXAMPLE.with_suffix(".json").read_text(encoding="utf-8"))
    print(f"Photographs that act and recordings that speak, no real dialogue: {clip}, {subtitles}")
    pipeline = load_pipeline(model)
    answer = pipeline(str(clip), utterances=str(subtitles), max_new_tokens=max_new_tokens)
    print(f"Question: {answer['question']}\nMicroEmo: {answer['description']}")
    answers = pipeline.by_utterance(str(clip), str(subtitles), max_new_tokens=max_new_tokens)
    print(f"Question: {UTTERANCE_QUESTION} (of each)")
    for entry, plays in zip(answers, played["utterances"], strict=True):
        print(f"{line_of(entry)}   [it plays: {plays['clue']}, {plays['voice']}]")
    report = inspect_clip(pipeline.processor, str(clip), utterances=str(subtitles), output=output)
    print("What the model saw: " + ", ".join(str(path) for path in report["files"]))


# The extra of the package that installs a module.
EXTRAS = {
    **dict.fromkeys(("datasets", "peft", "pyarrow", "trl"), "training"),
    **dict.fromkeys(("evaluate", "openai", "openpyxl"), "evaluation"),
    **dict.fromkeys(("fastapi", "uvicorn"), "serve"),
    "gradio": "app",
    "matplotlib": "plots",
    "pympi": "formats",
    "skimage": "demo",
}


def main() -> None:
    """Runs the command line.

    Input that cannot be used and packages that are not installed give one line on stderr and exit code 2, no traceback.
    """
    show_news()
    warnings.showwarning = lambda message, *_: errors.print(f"[yellow]Warning:[/] {escape(str(message))}")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        app()
    except ImportError as error:
        module = (error.name or "").partition(".")[0]
        if module in EXTRAS:
            message = f'this needs {module}, which is not installed: pip install "microemo[{EXTRAS[module]}]"'
        elif error.name is None:  # ours, and it says what to install
            message = str(error)
        else:
            raise
        errors.print(f"[red]Error:[/] {escape(message)}")
        sys.exit(2)
    except (ValueError, OSError) as error:
        errors.print(f"[red]Error:[/] {escape(str(error))}")
        sys.exit(2)


if __name__ == "__main__":
    main()
