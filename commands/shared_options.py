"""Options and checks that the commands share. The checks run before any large library is imported."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from ..inference.emotion_pipeline import EmotionPipeline
    from ..processing.speech import SpeechReader

errors = Console(stderr=True, soft_wrap=True)

NumWorkers = Annotated[int, typer.Option("--num-workers", help="The number of processes that decode.", min=0)]
Tokens = Annotated[int, typer.Option(help="The maximum length of an answer, in tokens.", min=1)]
Asr = Annotated[
    str | None,
    typer.Option(
        help="A model for Transformers' speech recognition (folder or Hub id, such as openai/whisper-tiny.en), for clips "
        "without subtitles. By default their utterances have no words."
    ),
]
KeepUtterances = Annotated[
    bool,
    typer.Option(
        "--keep-utterances",
        help="Keep the recognised utterances beside the clip, in CLIP.utterances.json, for the next time.",
    ),
]
Clip = Annotated[str, typer.Argument(help="The video or sound file.", show_default=False)]
Subtitles = Annotated[
    str | None, typer.Option(help="The subtitles: SRT, WebVTT, ASS, LRC ... or the JSON of a speech recogniser.")
]
Audio = Annotated[str | None, typer.Option(help="A sound file in place of the clip's own sound.")]
AudioTrack = Annotated[
    str | None,
    typer.Option(help="The sound track to read: its number, from 0, or its language (eng). `inspect` lists them."),
]
Model = Annotated[
    str | None,
    typer.Option(
        help="The checkpoint folder or Hub id. By default the package's microemo-small, for non-commercial use."
    ),
]
Token = Annotated[str | None, typer.Option(help="The access token. By default HF_TOKEN or that of `hf auth login`.")]
# Of the commands that make a model out of original weights.
Dtype = Annotated[str, typer.Option(help="The type of the weights: float32, float16 or bfloat16.")]
MaxFrames = Annotated[
    int | None,
    typer.Option(help="The number of frame positions, resized if needed. By default that of the file.", min=1),
]
LoraAlpha = Annotated[
    float | None, typer.Option(help="The alpha of LoRA weights whose checkpoint does not hold it. By default 32.")
]
BaseConfig = Annotated[str | None, typer.Option(help="A config.json with other sizes than those of the paper.")]
MaxShardSize = Annotated[float, typer.Option(help="The maximum size of a shard in gigabytes.")]
Seed = Annotated[int, typer.Option(help="The seed of the new parameters.")]


def check_files(*names: str | Path | None) -> None:
    """Checks that files exist. Other sources than local files (`None`, a URL) pass.

    Args:
        names (`str`, `Path` or `None`): The files.

    Raises:
        FileNotFoundError: if a file does not exist, or is a folder.
    """
    for name in names:
        if name is not None and "://" not in str(name) and not Path(name).is_file():
            raise FileNotFoundError(
                f"{name}: " + ("is a directory, not a file" if Path(name).is_dir() else "no such file")
            )


def check_sources(*names: str | None) -> None:
    """Checks that files and folders exist. Names that may be a Hub id pass.

    Args:
        names (`str` or `None`): The files, folders or Hub ids.

    Raises:
        FileNotFoundError: if a file or folder does not exist.
    """
    for name in names:
        if name is None or "://" in name:
            continue
        is_hub_id = re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?", name) and not _ends_like_a_file(name)
        if not is_hub_id and not Path(name).exists():
            raise FileNotFoundError(f"{name}: no such file or folder")


def check_folders(*names: str | Path | None) -> None:
    """Checks that folders exist. `None` passes.

    Args:
        names (`str`, `Path` or `None`): The folders.

    Raises:
        FileNotFoundError: if a folder does not exist, or is a file.
    """
    for name in names:
        if name is not None and not Path(name).is_dir():
            raise FileNotFoundError(
                f"{name}: " + ("is a file, not a folder" if Path(name).exists() else "no such folder")
            )


def _ends_like_a_file(name: str) -> bool:
    suffixes = (".pth", ".pt", ".bin", ".safetensors", ".json", ".jsonl", ".csv", ".parquet", ".xlsx", ".yaml", ".npz")
    return name.lower().endswith(suffixes)


def speech_reader(
    asr: str | None, keep: bool = False, device: str | None = None, progress: bool = True
) -> "SpeechReader":
    """Loads what makes the utterances of clips without subtitles.

    Args:
        asr (`str` or `None`): The model of the speech recogniser. Without one utterances have no words.
        keep (`bool`, *optional*, defaults to `False`): Whether they are kept beside the clips. Those that are there are read.
        device (`str`, *optional*): The device of the recogniser. By default the first GPU, or the CPU.
        progress (`bool`, *optional*, defaults to `True`): Whether a bar shows the progress with long sounds.

    Returns:
        [`SpeechReader`]: The reader.

    Raises:
        ValueError: If the model cannot be loaded.
    """
    from ..processing.kept_utterances import UtterancesBesideClips
    from ..processing.speech import SpeechReader

    return SpeechReader.from_pretrained(asr, device, store=UtterancesBesideClips(keep), progress=progress)


def load_libraries() -> None:
    """Imports the libraries that a command with a model needs, and registers MicroEmo's classes with Transformers."""
    from transformers.utils import logging

    from ..publishing.auto_classes import register_auto_classes

    logging.disable_progress_bar()
    register_auto_classes()


def load_pipeline(model: str | None) -> "EmotionPipeline":
    """Loads the emotion pipeline.

    Args:
        model (`str` or `None`): The checkpoint folder or Hub id. Without one the shipped microemo-small, and a note says so.

    Returns:
        [`EmotionPipeline`]: The pipeline.
    """
    load_libraries()
    from ..inference.emotion_pipeline import EmotionPipeline

    if model is None:
        errors.print(
            "No --model given: the shipped microemo-small answers. It learned from [bold]photographs that act and acted "
            "speech[/], never from people who felt what they showed; its weights are for non-commercial use."
        )
        return EmotionPipeline.from_pretrained()
    return EmotionPipeline.from_pretrained(model)


def check_speech(subtitles: str | None, asr: str | None, keep_utterances: bool) -> None:
    """Refuses options for clips without subtitles where there are some.

    Args:
        subtitles (`str` or `None`): The subtitles.
        asr (`str` or `None`): The model of the speech recogniser.
        keep_utterances (`bool`): Whether recognised utterances are kept.

    Raises:
        ValueError: if there are subtitles and one of the others.
    """
    if subtitles is not None and (asr is not None or keep_utterances):
        option = "--keep-utterances" if asr is None else "--asr"
        raise ValueError(f"{option} is for clips without subtitles; leave out {option} or --subtitles")
