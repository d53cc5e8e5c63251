"""`microemo predict`: an answer about a clip, or its analysis as a table, as files for other tools and as a picture."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import Progress

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

if TYPE_CHECKING:
    from ..inference.emotion_analysis import EmotionAnalysis


def predict(
    clip: Clip,
    subtitles: Subtitles = None,
    audio: Audio = None,
    audio_track: AudioTrack = None,
    question: Annotated[
        str | None, typer.Option(help="The question. By default what the speaker feels, and why.")
    ] = None,
    by_utterance: Annotated[bool, typer.Option(help="Ask about each utterance separately.")] = False,
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "--output",
            "-o",
            help="A file for the analysis of all utterances, by its suffix: .json, .csv, .srt, .vtt, .TextGrid (Praat), .eaf "
            "(ELAN), .emotionml, .html (a report), .png or .svg (the time line). May be repeated.",
        ),
    ] = None,
    output_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="Print the analysis as json, csv, srt, vtt, textgrid, eaf, emotionml or html; with one --output, write it so.",
        ),
    ] = None,
    evidence: Annotated[
        bool, typer.Option("--evidence", help="Find what moved each answer, and check its claims.")
    ] = False,
    observations_only: Annotated[
        bool,
        typer.Option("--observations-only", help="Clues, times and measures of the voice, without emotion words."),
    ] = False,
    vocabulary: Annotated[
        str | None, typer.Option(help="The emotion words to score, with commas. By default those of the checkpoint.")
    ] = None,
    asr: Asr = None,
    keep_utterances: KeepUtterances = False,
    model: Model = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    max_new_tokens: Tokens = 256,
):
    """Say what the speaker of CLIP feels, and why."""
    check_files(clip, subtitles, audio)
    check_sources(model, asr)
    check_speech(subtitles, asr, keep_utterances)
    is_analysis = bool(output or output_format or evidence or observations_only or vocabulary is not None)
    if is_analysis and as_json:
        raise ValueError("--json is for one answer; for an analysis of all utterances take --format json")
    load_libraries()
    if is_analysis:
        _check_formats(output or [], output_format)
    speech = speech_reader(asr, keep_utterances)  # before a larger model: an error comes at once
    pipeline = load_pipeline(model)
    question_argument: dict[str, Any] = {} if question is None else {"question": question}
    arguments: dict[str, Any] = {"audio": audio, "audio_track": audio_track, "asr": speech}
    arguments |= {"max_new_tokens": max_new_tokens, **question_argument}
    if is_analysis:
        if vocabulary is not None:
            arguments["vocabulary"] = vocabulary.split(",")
        stream = pipeline.stream_analysis(
            clip, subtitles, evidence=evidence, observations_only=observations_only, **arguments
        )
        with Progress(console=errors, transient=True, disable=not errors.is_terminal) as progress:
            bar = progress.add_task("Utterances", total=None)
            for analysis in stream:
                progress.update(bar, total=analysis.utterances_found, completed=len(analysis.utterances))
        _write(analysis, clip, output or [], output_format)
        return
    if by_utterance:
        answer = pipeline.by_utterance(clip, subtitles, **arguments)
        lines = [line_of(entry) for entry in answer]
    else:
        answer = pipeline(clip, utterances=subtitles, **arguments)
        lines = [answer["description"]]
    print(json.dumps(answer, ensure_ascii=False) if as_json else "\n".join(lines))


def line_of(entry: dict) -> str:
    """Formats an utterance and the answer about it.

    Args:
        entry (`dict`): An entry of [`EmotionPipeline.by_utterance`].

    Returns:
        `str`: One line.
    """
    words = f' "{entry["text"]}"' if entry["text"] else ""
    return f"{entry['start']:.1f}-{entry['end']:.1f}s{words} {' '.join(entry['description'].split())}"


def _check_formats(output: list[Path], output_format: str | None) -> None:
    """Refuses formats and files before the model is loaded."""
    from ..inference.figure_parts import SUFFIXES
    from ..inference.formats.analysis_files import FORMATS

    if output_format is not None and output_format not in FORMATS:
        raise ValueError(f"--format {output_format}: expected one of {', '.join(FORMATS)}")
    if output_format is not None and len(output) > 1:
        raise ValueError(
            f"--format {output_format} is for one --output, got {len(output)}; their suffixes say the formats"
        )
    known = {suffix.lower() for suffix, _ in FORMATS.values()} | set(SUFFIXES)
    for path in output:
        if path.is_dir():
            raise IsADirectoryError(f"{path}: is a directory, not a file")
        if output_format is None and path.suffix.lower() not in known:
            raise ValueError(f"{path}: expected one of the suffixes {', '.join(sorted(known))}, or --format")


def _write(analysis: "EmotionAnalysis", clip: str, output: list[Path], output_format: str | None) -> None:
    """Writes the files, or prints the analysis where none is asked for."""
    from ..inference.figure_parts import SUFFIXES
    from ..inference.formats.analysis_files import format_analysis, write_analysis

    for path in output:
        path.parent.mkdir(parents=True, exist_ok=True)
        if output_format is None and path.suffix.lower() in SUFFIXES:
            analysis.plot(path, clip)
        else:
            write_analysis(analysis, path, output_format)
        print(path)
    if not output and output_format is not None:
        print(format_analysis(analysis, output_format), end="")
    elif not output:
        _print(analysis)


def _print(analysis: "EmotionAnalysis") -> None:
    console = Console(highlight=False)
    for of in analysis.utterances:
        speaker = f"{of.speaker}: " if of.speaker else ""
        words = f' {speaker}"{of.text}"' if of.text else ""
        console.print(f"[bold]{of.number}  {of.start:.1f}-{of.end:.1f} s[/]{escape(words)}")
        lines = [", ".join(f"{one.label} {100 * one.score:.0f} %" for one in of.labels[:3] if one.score >= 0.005)]
        lines.append(" ".join(of.description.split()))
        moved = [one for one in of.evidence if one.kind != "window" and one.weight > 0]
        moved.sort(key=lambda one: -one.weight)
        if moved:
            lines.append(f"moved by: {', '.join(f'{one.name} {one.weight:.1f}' for one in moved[:5])}")
        lines += [f"{'supported' if one.supported else 'not supported'}: {one.text}" for one in of.claims]
        for line in filter(None, lines):
            console.print(Padding(escape(line), (0, 0, 0, 3)))
    console.print(f"[bold]The whole clip[/]  {escape(' '.join(analysis.description.split()))}")
    for warning in analysis.warnings:
        console.print(escape(f"Note: {warning}"))
