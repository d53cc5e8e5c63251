"""The command `microemo app`: a web page on which clips are dropped or recorded, and their utterances described.

microemo app
microemo app --model ORG/microemo-7b --asr openai/whisper-small
microemo app --observations-only --port 8080
"""

import signal
from typing import Annotated

import typer

from .shared_options import check_sources, load_libraries


def open_page(
    model: Annotated[
        str | None,
        typer.Option(
            help="The checkpoint folder or Hub id. By default the package's microemo-small, for non-commercial use."
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(help="The address to listen on. By default that of this computer alone; others let others in."),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(help="The port to listen on. By default the first free one from 7860.", min=1, max=65535),
    ] = None,
    asr: Annotated[
        list[str] | None,
        typer.Option(
            help="A speech recogniser to choose on the page, for clips without subtitles (folder or Hub id); may be repeated."
        ),
    ] = None,
    observations_only: Annotated[
        bool, typer.Option("--observations-only", help="Name no emotions, whatever is chosen on the page.")
    ] = False,
    share: Annotated[
        bool,
        typer.Option("--share", help="Make a public address by way of Gradio's servers, which then see the clips."),
    ] = False,
    max_size: Annotated[int, typer.Option(help="The largest clip, in MiB.", min=1)] = 500,
    device: Annotated[str | None, typer.Option(help="The device of the model, such as cuda:0 or cpu.")] = None,
):
    """Open a web page on which clips are dropped or recorded, and their utterances described."""
    check_sources(model, *(asr or ()))
    import gradio  # noqa: F401  # before the model is loaded: an error comes at once

    load_libraries()
    from ..inference.page.emotion_page import run_page

    # Whoever ends the program with a signal has the visitors' files deleted, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run_page(
        model,
        asr=asr or (),
        host=host,
        port=port,
        share=share,
        observations_only=observations_only,
        max_size=max_size << 20,
        device=device,
    )
