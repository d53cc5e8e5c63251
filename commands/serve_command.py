"""The command `microemo serve`: a checkpoint behind a server that speaks OpenAI's protocol.

microemo serve
microemo serve ORG/microemo-7b --port 8080 --asr openai/whisper-small
microemo serve run/merged --local-media clips
"""

import importlib.util
import socket
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from .shared_options import Asr, check_folders, check_sources, errors, load_libraries

# What the extra `serve` installs.
NEEDED = ("fastapi", "uvicorn", "openai")
EXAMPLE = """\
printf '{{"messages": [{{"role": "user", "content": [{{"type": "video_url", "video_url": {{"url": "data:video/mp4;base64,%s"}}}}, \
{{"type": "text", "text": "What does the speaker feel, and why?"}}]}}]}}' "$(base64 < clip.mp4 | tr -d '\\n')" | \
curl {address}/chat/completions -H 'Content-Type: application/json' -d @-"""


def serve(
    model: Annotated[
        str | None,
        typer.Argument(
            help="The checkpoint folder or Hub id. By default the package's microemo-small, for non-commercial use.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on. Others than localhost let others ask.")] = (
        "localhost"
    ),
    port: Annotated[int, typer.Option(help="The port to listen on; 0 takes a free one.", min=0, max=65535)] = 8000,
    device: Annotated[str, typer.Option(help="The device of the model, such as cuda:0 or cpu.")] = "auto",
    dtype: Annotated[str, typer.Option(help="The number format of the model, such as bfloat16.")] = "auto",
    quantization: Annotated[str | None, typer.Option(help="bnb-4bit or bnb-8bit.")] = None,
    asr: Asr = None,
    local_media: Annotated[
        Path | None,
        typer.Option(help="A folder whose files requests may name. By default requests name no files."),
    ] = None,
    private_host: Annotated[
        list[str] | None,
        typer.Option(help="A host that clips are fetched from although it is not public; may be repeated."),
    ] = None,
    max_size: Annotated[int, typer.Option(help="The largest request and the largest clip, in MiB.", min=1)] = 256,
):
    """Serve MODEL to clients of OpenAI's protocol, with Transformers' own server."""
    missing = [module for module in NEEDED if importlib.util.find_spec(module) is None]
    if missing:
        raise ImportError(f'serve needs {", ".join(missing)}, which is not installed: pip install "microemo[serve]"')
    check_sources(model, asr)
    check_folders(local_media)
    with _listen(host, port) as listener:  # before the model, which may take minutes, is loaded
        load_libraries()
        import uvicorn

        from ..inference.emotion_pipeline import SHIPPED
        from ..inference.request_media import ClipFetcher
        from ..inference.serving import OneModelManager, build_app
        from ..processing.speech import SpeechReader

        if model is None:
            errors.print(
                "No MODEL given: the shipped microemo-small answers, whose weights are for non-commercial use."
            )
        speech = SpeechReader.from_pretrained(asr, None if device == "auto" else device)
        manager = OneModelManager(str(model or SHIPPED), device=device, dtype=dtype, quantization=quantization)
        fetch_clip = ClipFetcher(local_media, private_host or (), max_size << 20)
        app = build_app(manager, fetch_clip, speech, max_size << 20)
        server = uvicorn.Server(uvicorn.Config(app, log_level="info", timeout_graceful_shutdown=5))
        named = f"[{host}]" if ":" in host else host
        address = f"http://{named}:{listener.getsockname()[1]}/v1"
        print(f"MicroEmo serves {manager.name} at {address} (Ctrl-C ends it). For example:")
        print(EXAMPLE.format(address=address), flush=True)
        with suppress(KeyboardInterrupt):  # which uvicorn raises again when it has ended
            server.run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(place[:2], family=family)
    except OSError as error:
        raise OSError(f"cannot listen on {host}, port {port}: {error.strerror or error}") from error
