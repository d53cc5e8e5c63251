"""The server behind `microemo serve`: Transformers' own (`transformers serve`, OpenAI's protocol) with MicroEmo in it.

```python
from openai import OpenAI

client = OpenAI(base_url="http://localhost:8000/v1", api_key="none")
clip = {"type": "video_url", "video_url": {"url": "https://example.org/clip.mp4"}}
question = {"type": "text", "text": "What does the speaker feel, and why?"}
client.chat.completions.create(
    model="microemo-7b",
    messages=[{"role": "user", "content": [clip, question]}],
    extra_body={"chat_template_kwargs": {"utterances": [{"start": 0.5, "end": 2.0, "text": "I had no idea."}]}},
)
```
"""

import asyncio
import copy
import json
import time
import warnings
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.middleware import Middleware
from transformers import BatchFeature, GenerationConfig
from transformers.cli.serving.chat_completion import ChatCompletionHandler
from transformers.cli.serving.model_manager import ModelManager
from transformers.cli.serving.server import build_server
from transformers.cli.serving.utils import GenerationState, Modality
from transformers.models.auto.modeling_auto import MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES
from transformers.utils import CONFIG_NAME

from ..processing.processing_microemo import MicroEmoProcessor
from ..processing.speech import SpeechReader
from ..utils.checkpoint_files import ADAPTER_CONFIG
from .request_media import ClipFetcher, ClipTooLarge

# The addresses of Transformers' server that answer. The others load any model, drop the model, or read no clips.
ROUTES = ("/v1/chat/completions", "/v1/models", "/health")
# What a request may say in `chat_template_kwargs`. A chat template is none of it: it is a program.
TEMPLATE_KWARGS = ("utterances", "audio_track", "num_frames", "fps")
# What OpenAI's protocol has and this server passes over. Answers say so.
WITHOUT_EFFECT = frozenset(("tools", "tool_choice", "n", "response_format", "logprobs", "top_logprobs"))


def register_with_server() -> None:
    """Enters MicroEmo in the table of names by which Transformers' server tells which models hear and see."""
    MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES["microemo"] = "MicroEmoForConditionalGeneration"


class OneModelManager(ModelManager):
    """Holds the one model that is served.

    Args:
        model (`str`): The checkpoint folder or Hub id.
        options (`Any`, *optional*): `device`, `dtype`, `quantization` and `attn_implementation`, as `ModelManager` takes them.

    Attributes:
        name (`str`): The name of the model in requests: the name of the folder, or the Hub id.

    Raises:
        OSError: If there is no such checkpoint.
        ValueError: If the checkpoint is not one of MicroEmo, or is an adapter, or an option has a wrong value.
    """

    def __init__(self, model: str, **options: Any) -> None:
        is_folder = Path(model).is_dir()
        if is_folder and "@" in model:
            raise ValueError(f"{model}: Transformers' server reads a revision behind the @; rename the folder")
        if is_folder and (Path(model) / ADAPTER_CONFIG).is_file() and not (Path(model) / CONFIG_NAME).is_file():
            raise ValueError(f"{model} is an adapter; merge it first: microemo merge {model} MERGED, and serve MERGED")
        self.name = Path(model).resolve().name if is_folder else model
        self.created = int(time.time())
        register_with_server()
        super().__init__(force_model=model, **options)
        found, processor = self.load_model_and_processor(self.process_model_name(model))
        if not isinstance(processor, MicroEmoProcessor):
            raise ValueError(f"{model} is a checkpoint of {type(found).__name__}, expected one of MicroEmo")
        processor.check_config(found.config)
        _check_widths(model, found)

    def get_gen_models(self, cache_dir: str | None = None) -> list[dict[str, Any]]:
        """Lists the model that is served, and not all that the cache of this machine holds.

        Args:
            cache_dir (`str`, *optional*): Has no effect.

        Returns:
            `list[dict]`: The entry of the model, as OpenAI's protocol has it.
        """
        return [{"id": self.name, "object": "model", "created": self.created, "owned_by": "microemo"}]


class EmotionHandler(ChatCompletionHandler):
    """Answers requests about clips.

    Clips are fetched side by side, read one after another in one thread, which keeps one face mesh, and answered one after
    another in the thread of Transformers' server.

    Args:
        model_manager ([`OneModelManager`]): The model.
        generation_state (`GenerationState`): The thread in which the model runs, of Transformers' server.
        fetch_clip (`Callable`): A function from the URL in a request to a clip, such as a [`ClipFetcher`].
        asr (`SpeechReader`, `Callable` or `str`, *optional*):
            What makes the utterances of clips that come without, as [`MicroEmoProcessor`] takes it. By default they have no
            words.
    """

    def __init__(
        self,
        model_manager: OneModelManager,
        generation_state: GenerationState,
        fetch_clip: Callable[[str], Any],
        asr: Any = None,
    ) -> None:
        super().__init__(model_manager, generation_state)
        self.fetch_clip = fetch_clip
        self.asr = SpeechReader() if asr is None else asr
        self.notes: list[str] = []
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="clip-reader")

    async def handle_request(self, body: dict, request_id: str) -> Response:
        """Answers a request.

        Args:
            body (`dict`): The request, in the form of OpenAI's chat completions.
            request_id (`str`): The id of the request.

        Returns:
            `Response`: The answer, whole or as a stream. Its field `warnings` lists what the asker should know.

        Raises:
            HTTPException: If the request cannot be answered.
        """
        misplaced = [field for field in (*TEMPLATE_KWARGS, "generation_config") if field in body]
        if misplaced:
            raise HTTPException(400, f"{', '.join(misplaced)}: chat_template_kwargs has {', '.join(TEMPLATE_KWARGS)}")
        self._validate_request(body)
        name, model, processor = self._resolve_model(body)
        try:
            messages = self.get_processor_inputs_from_messages(body.get("messages"), Modality.MULTIMODAL)
            options = read_template_kwargs(body.get("chat_template_kwargs"))
            generation_config = self._build_generation_config(body, model.generation_config)
            await asyncio.to_thread(self._fetch_clips, messages)
            running = asyncio.get_running_loop()
            inputs, notes = await running.run_in_executor(self._reader, self._read, processor, messages, options)
        except ClipTooLarge as error:
            raise HTTPException(413, str(error)) from error
        except (ValueError, TypeError, OverflowError) as error:  # what users give: the rest is a fault of the server
            raise HTTPException(400, str(error)) from error
        without_effect = sorted(WITHOUT_EFFECT & {key for key, value in body.items() if value not in (None, [], 1)})
        answering = copy.copy(self)
        answering.notes = notes + [f"{field} has no effect here" for field in without_effect]
        inputs = inputs.to(model.device, model.dtype)
        manager = self.generation_state.get_manager(name)
        # Of the processor the rest needs the tokenizer alone, and `stop` needs a tokenizer.
        arguments = (request_id, model, processor.tokenizer, name, inputs, generation_config)
        if not body.get("stream"):
            try:
                return await answering._non_streaming(*arguments, gen_manager=manager)
            except ValueError as error:  # about the temperature and the like: the inputs are checked
                raise HTTPException(400, str(error)) from error
        response = answering._streaming(*arguments, gen_manager=manager)
        response.body_iterator = with_readable_errors(response.body_iterator)
        return response

    def _resolve_model(self, body: dict) -> tuple[str, Any, Any]:
        name = self.model_manager.name
        if body.get("model") not in (None, name):
            message = f"the model {body['model']!r} does not exist here; this server has {name!r}"
            raise HTTPException(404, {"message": message, "code": "model_not_found"})
        _, model, processor = super()._resolve_model({})
        return name, model, processor

    @staticmethod
    def get_processor_inputs_from_messages(messages: Any, modality: Modality) -> list[dict]:
        """Turns the messages of OpenAI's protocol into those of Transformers.

        What Transformers' server would pass over is refused, and `{"type": "utterance", "index": 1}` is taken, too.

        Args:
            messages (`list[dict]`): The messages of the request.
            modality (`Modality`): The modality of the model.

        Returns:
            `list[dict]`: The messages with `role` and `content`.

        Raises:
            ValueError: If messages have another form.
        """
        if not isinstance(messages, list) or not messages:
            raise ValueError(f"messages: expected a list with a message, got {messages!r:.100}")
        return [_convert_message(number, message, modality) for number, message in enumerate(messages)]

    def _build_generation_config(
        self, body: dict, model_generation_config: GenerationConfig, use_cb: bool = False
    ) -> GenerationConfig:
        config = super()._build_generation_config(body, model_generation_config, use_cb=use_cb)
        # Without it the temperature of a request would have no effect.
        if body.get("temperature") or (body.get("top_p") is not None and body.get("temperature") is None):
            config.do_sample = True
        return config

    def _fetch_clips(self, messages: list[dict]) -> None:
        """Puts clips in the place of their URLs."""
        for item in (item for message in messages for item in message["content"] if "url" in item):
            item[item["type"]] = self.fetch_clip(item.pop("url"))

    def _read(self, processor: Any, messages: list[dict], options: dict) -> tuple[BatchFeature, list[str]]:
        """Makes the inputs of the model, and what the asker should know of the clip."""
        with warnings.catch_warnings(record=True) as found:  # of this thread alone: no other reads clips
            warnings.simplefilter("always")
            inputs = processor.apply_chat_template(
                messages,
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                return_metadata=True,
                asr=self.asr,
                **options,
            )
        for name in ("prompts", "utterances", "video_metadata"):
            inputs.pop(name)
        notes = [str(warning.message) for warning in found if issubclass(warning.category, UserWarning)]
        times = inputs.pop("audio_segment_times")
        is_about_clip = any(item["type"] in ("video", "audio") for message in messages for item in message["content"])
        if is_about_clip and any(of_clip is None for of_clip in times):
            notes.append("the clip has no sound that can be heard: the answer is about its pictures alone")
        return inputs, notes

    def _build_completion(self, *args: Any, **kwargs: Any) -> dict:
        completion = super()._build_completion(*args, **kwargs)
        return completion | ({"warnings": self.notes} if self.notes else {})

    def chunk_to_sse(self, chunk: Any) -> str:
        """Writes a piece of a streamed answer; the first one has the warnings.

        Args:
            chunk (`str` or `ChatCompletionChunk`): The piece.

        Returns:
            `str`: The line of the stream.
        """
        if self.notes and not isinstance(chunk, str) and chunk.choices and chunk.choices[0].delta.role:
            chunk.warnings = self.notes  # which OpenAI's classes let through
        return super().chunk_to_sse(chunk)


class BodyLimit:
    """Refuses requests that are larger than `max_bytes` while they arrive.

    Args:
        app (`Callable`): The application behind it.
        max_bytes (`int`): The largest size of the body of a request.
    """

    def __init__(self, app: Callable, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Any, receive: Callable, send: Callable) -> None:
        """Passes a request on.

        Args:
            scope (`dict`): The request, as ASGI has it.
            receive (`Callable`): What gives the pieces of its body.
            send (`Callable`): What takes the pieces of the answer.
        """
        received = 0
        headers = dict(scope.get("headers", ()))

        async def receive_some() -> dict:
            nonlocal received
            # Who waits to be told to continue sends nothing before.
            if b"expect" not in headers or int(headers.get(b"content-length", 0)) <= self.max_bytes:
                message = await receive()
                received += len(message.get("body", b""))
                if received <= self.max_bytes:
                    return message
                while message.get("more_body"):  # read on: most clients look for an answer when they have sent all
                    message = await receive()
            raise HTTPException(413, f"a request has at most {self.max_bytes >> 20} MiB")

        await self.app(scope, receive_some, send)


def build_app(
    model_manager: OneModelManager,
    fetch_clip: Callable[[str], Any] | None = None,
    asr: Any = None,
    max_bytes: int = 256 << 20,
) -> FastAPI:
    """Makes the application: Transformers' server with our handler, OpenAI's form of errors, and a limit.

    Args:
        model_manager ([`OneModelManager`]): The model.
        fetch_clip (`Callable`, *optional*): A function from the URL in a request to a clip; by default a [`ClipFetcher`].
        asr (`SpeechReader`, `Callable` or `str`, *optional*):
            What makes the utterances of clips that come without, as [`MicroEmoProcessor`] takes it. By default they have no
            words.
        max_bytes (`int`, *optional*, defaults to 268435456): The largest size of the body of a request, 256 MiB.

    Returns:
        `FastAPI`: The application.
    """
    state = GenerationState()
    handler = EmotionHandler(model_manager, state, fetch_clip or ClipFetcher(max_bytes=max_bytes), asr)
    others = dict.fromkeys(
        ("completion_handler", "response_handler", "transcription_handler", "systemone_handler"), handler
    )
    app = build_server(model_manager, handler, generation_state=state, **others)
    app.router.routes[:] = [route for route in app.router.routes if getattr(route, "path", None) in ROUTES]
    app.user_middleware.append(Middleware(BodyLimit, max_bytes=max_bytes))
    app.add_exception_handler(AnyHTTPException, _answer_refused)
    app.add_exception_handler(RequestValidationError, _answer_unreadable)
    app.add_exception_handler(Exception, _answer_failed)
    return app


def _check_widths(name: str, model: Any) -> None:
    """Refuses layers in 4 bit that bitsandbytes cannot multiply on this CPU, before a request meets them."""
    for layer, module in model.named_modules():
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        # Where a CPU has this instruction set, bitsandbytes packs the weights in another way, by whole blocks.
        if state is None or module.weight.device.type != "cpu" or not module.support_avx512bf16_for_cpu:
            continue
        if state.shape[-1] % state.blocksize:
            raise ValueError(
                f"{name}: {layer} reads {state.shape[-1]} numbers, and in 4 bit on this CPU bitsandbytes needs a multiple "
                f"of {state.blocksize}; load it in 8 bit (--quantization bnb-8bit), or on a GPU"
            )


def read_template_kwargs(kwargs: Any) -> dict[str, Any]:
    """Checks what a request says about its clip.

    Args:
        kwargs (`dict` or `None`): The `chat_template_kwargs` of the request.

    Returns:
        `dict[str, Any]`: Arguments of [`~MicroEmoProcessor.apply_chat_template`].

    Raises:
        ValueError: If something else is in it.
    """
    if not isinstance(kwargs, dict | None):
        raise ValueError(f"chat_template_kwargs is an object, got {kwargs!r:.100}")
    given = {name: value for name, value in (kwargs or {}).items() if value is not None}
    unknown = sorted(given.keys() - set(TEMPLATE_KWARGS))
    if unknown:
        raise ValueError(f"chat_template_kwargs: {', '.join(unknown)} unknown, expected {', '.join(TEMPLATE_KWARGS)}")
    if isinstance(given.get("utterances"), str):
        given["utterances"] += "\n"  # the text of subtitles, never the name of a file
    return given


def _convert_message(number: int, message: Any, modality: Modality) -> dict[str, Any]:
    where = f"messages[{number}]"
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise ValueError(f"{where}: expected an object with a role, got {message!r:.100}")
    if message.get("tool_calls"):
        raise ValueError(f"{where}: tool_calls are not read")
    content = message.get("content") or []
    if not isinstance(content, str | list):
        raise ValueError(f"{where}: content is a text or a list of parts, got {content!r:.100}")
    items = []
    for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "utterance":
            items.append(part)
            continue
        alone = [{"role": message["role"], "content": [part]}]
        try:
            converted = ChatCompletionHandler.get_processor_inputs_from_messages(alone, modality)[0]["content"]
        except (KeyError, TypeError, AttributeError, IndexError):
            raise ValueError(f"{where}: a part of type {kind!r} has another form in OpenAI's protocol") from None
        if not converted or converted[0]["type"] == "image":
            raise ValueError(
                f"{where}: expected parts of type text, video_url, audio_url, input_audio or utterance, got {kind!r}"
            )
        items += converted
    return {"role": message["role"], "content": items}


async def with_readable_errors(stream: AsyncIterator[Any]) -> AsyncIterator[str]:
    """Gives errors in a stream OpenAI's form. Transformers' server writes their text into JSON as it is.

    Args:
        stream (`AsyncIterator[str]`): The pieces of an answer.

    Returns:
        `AsyncIterator[str]`: The same, with errors as objects.
    """
    start, end = 'data: {"error": "', '"}\n\n'
    async for piece in stream:
        before, found, text = piece.partition(start)
        if found:
            piece = f"{before}data: {json.dumps(_error(500, text.removesuffix(end)))}\n\n"
        yield piece


def _error(status: int, detail: Any) -> dict[str, Any]:
    kind = "invalid_request_error" if status < 500 else "server_error"
    detail = detail if isinstance(detail, dict) else {"message": str(detail)}
    return {"error": {"type": kind, "param": None, "code": None, **detail}}


async def _answer_refused(_: Request, error: Any) -> JSONResponse:
    return JSONResponse(_error(error.status_code, error.detail), error.status_code, error.headers)


async def _answer_unreadable(_: Request, error: Any) -> JSONResponse:
    found: Sequence[dict] = error.errors()
    return JSONResponse(_error(400, f"the request is not a JSON object: {found[0]['msg']}"), 400)


async def _answer_failed(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse(_error(500, f"the server failed ({type(error).__name__}), its log says why"), 500)
