"""The `microemo` command.

microemo demo
microemo predict clip.mp4 --subtitles clip.srt --model ORG/microemo-7b
microemo inspect clip.mp4 --out what-the-model-sees
microemo init microemo-tiny ./tiny
"""

import json
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from .convert_command import convert
from .evaluate_command import app as evaluate_app
from .from_scratch_command import ablation, from_scratch, score
from .synthesize_command import synthesize
from .train_command import TRAIN_CONTEXT, merge, precompute, train

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="MicroEmo: open, explainable emotion recognition from video dialogue.",
)
app.command()(convert)
app.command()(synthesize)
app.command()(precompute)
app.command(context_settings=TRAIN_CONTEXT)(train)
app.command()(merge)
app.command()(from_scratch)
app.command()(ablation)
app.command()(score)
app.add_typer(evaluate_app, name="evaluate")
errors = Console(stderr=True, soft_wrap=True)

Clip = Annotated[str, typer.Argument(help="Video file, or a sound file.", show_default=False)]
Subtitles = Annotated[str | None, typer.Option(help="SRT, WebVTT, ASS, LRC ... or a recogniser's JSON.")]
Audio = Annotated[str | None, typer.Option(help="Sound in place of the clip's own.")]
AudioTrack = Annotated[
    str | None,
    typer.Option(help="Which sound track is heard: its number, from 0, or its language (eng). `inspect` lists them."),
]
Model = Annotated[
    str | None,
    typer.Option(help="Checkpoint folder or Hub id. Without it the shipped microemo-tiny, which knows one face."),
]
Tokens = Annotated[int, typer.Option(help="Longest answer, in tokens.", min=1)]


def _pipeline(model: str | None):
    from ..inference.emotion_pipeline import EmotionPipeline

    if model is None:
        errors.print(
            "No --model given: the shipped microemo-tiny answers. It learned from [bold]synthetic dialogues of one "
            "photograph[/] and knows nothing about real people."
        )
        return EmotionPipeline.from_pretrained()
    return EmotionPipeline.from_pretrained(model)


def _check_files(*names: str | None) -> None:
    """A clear word before any model loads."""
    for name in names:
        if name is not None and "://" not in name and not Path(name).is_file():
            raise ValueError(f"{name}: " + ("is a directory, not a file" if Path(name).is_dir() else "no such file"))


@app.command()
def predict(
    clip: Clip,
    subtitles: Subtitles = None,
    audio: Audio = None,
    audio_track: AudioTrack = None,
    question: Annotated[str | None, typer.Option(help="What to ask, if not what the speaker feels, and why.")] = None,
    by_utterance: Annotated[bool, typer.Option(help="Ask about each utterance of the subtitles, one by one.")] = False,
    model: Model = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    max_new_tokens: Tokens = 256,
):
    """Say what the speaker of CLIP feels, and why."""
    _check_files(clip, subtitles, audio)
    if by_utterance and subtitles is None:
        raise ValueError("--by-utterance needs --subtitles: they say when somebody speaks")
    asked = {} if question is None else {"question": question}
    pipeline = _pipeline(model)
    if by_utterance:
        answer = pipeline.by_utterance(
            clip, subtitles, audio=audio, audio_track=audio_track, max_new_tokens=max_new_tokens, **asked
        )
        lines = [_line(one) for one in answer]
    else:
        answer = pipeline(
            clip, utterances=subtitles, audio=audio, audio_track=audio_track, max_new_tokens=max_new_tokens, **asked
        )
        lines = [answer["description"]]
    print(json.dumps(answer, ensure_ascii=False) if as_json else "\n".join(lines))


def _line(one: dict) -> str:
    """An utterance and the answer about it."""
    return f'{one["start"]:.1f}-{one["end"]:.1f}s "{one["text"]}" {" ".join(one["description"].split())}'


@app.command()
def inspect(
    clip: Clip,
    out: Annotated[Path, typer.Option(help="Folder for the pictures and the JSON.")],
    subtitles: Subtitles = None,
    audio: Audio = None,
    audio_track: AudioTrack = None,
    model: Model = None,
):
    """Draw what the model sees of CLIP: frames, face mesh, clue regions, windows, mel."""
    from ..inference.emotion_pipeline import SHIPPED
    from ..inference.inspection import inspect_clip
    from ..processing.media import SoundTrack
    from ..processing.processing_microemo import MicroEmoProcessor

    _check_files(clip, subtitles, audio)
    processor = MicroEmoProcessor.from_pretrained(SHIPPED if model is None else model)
    report = inspect_clip(processor, clip, utterances=subtitles, audio=audio, audio_track=audio_track, out=out)
    for track in report.get("sound_tracks", []):
        heard = " (heard)" if track["index"] == report["audio_track"] else ""
        print(f"sound track {SoundTrack(**track)}{heard}")
    for path in report["files"]:
        print(path)


@app.command()
def init(
    preset: Annotated[str, typer.Argument(help="microemo-tiny or microemo-7b.", show_default=False)],
    folder: Annotated[Path, typer.Argument(help="New checkpoint folder.", show_default=False)],
    llm_tokenizer: Annotated[
        str | None, typer.Option(help="Folder or Hub id of the language model's tokenizer.")
    ] = None,
    qformer_tokenizer: Annotated[
        str | None, typer.Option(help="Folder or Hub id of the image Q-Former's tokenizer.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the random weights.")] = 0,
):
    """Make a checkpoint folder of PRESET with random weights, which everything else accepts."""
    from ..publishing.initialize import initialize

    print(initialize(preset, folder, llm_tokenizer, qformer_tokenizer, seed))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the clip and the pictures.")] = Path("demo"),
    model: Model = None,
    max_new_tokens: Tokens = 256,
):
    """Make a dialogue of a photograph that acts and speaks, ask what it feels, and draw what the model saw."""
    from ..inference.emotion_pipeline import UTTERANCE_QUESTION
    from ..inference.inspection import inspect_clip
    from ..training.synthetic.synthetic_dialogues import write_demo

    clip, felt = write_demo(out)
    subtitles = clip.with_suffix(".srt")
    print(f"Made from the astronaut photograph of scikit-image, no real dialogue: {clip}, {subtitles}")
    pipeline = _pipeline(model)
    answer = pipeline(str(clip), utterances=str(subtitles), max_new_tokens=max_new_tokens)
    print(f"Question: {answer['question']}\nMicroEmo: {answer['description']}")
    answers = pipeline.by_utterance(str(clip), str(subtitles), max_new_tokens=max_new_tokens)
    print(f"Question: {UTTERANCE_QUESTION} (of each)")
    for one, emotion in zip(answers, felt, strict=True):
        print(f"{_line(one)}   [it plays: {emotion}]")
    report = inspect_clip(pipeline.processor, str(clip), utterances=str(subtitles), out=out)
    print("What the model saw: " + ", ".join(str(path) for path in report["files"]))


# The extra of the package that brings a module.
EXTRAS = {
    **dict.fromkeys(("datasets", "peft", "pyarrow", "trl"), "training"),
    **dict.fromkeys(("evaluate", "openai", "openpyxl"), "evaluation"),
    "matplotlib": "plots",
    "skimage": "demo",
}


def main() -> None:
    """Entry point: input that cannot be used, and a package that is not installed, end in one line on stderr and exit
    code 2, not in a traceback."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    warnings.showwarning = lambda message, *_: errors.print(f"[yellow]Warning:[/] {escape(str(message))}")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        app()
    except ImportError as error:
        module = (error.name or "").partition(".")[0]
        if module in EXTRAS:
            told = f'this needs {module}, which is not installed: pip install "microemo[{EXTRAS[module]}]"'
        elif error.name is None:  # ours, and it says what to install
            told = str(error)
        else:
            raise
        errors.print(f"[red]Error:[/] {escape(told)}")
        sys.exit(2)
    except (ValueError, OSError) as error:
        errors.print(f"[red]Error:[/] {escape(str(error))}")
        sys.exit(2)


if __name__ == "__main__":
    main()
