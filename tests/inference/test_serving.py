"""`microemo serve`: OpenAI's client asks over loopback about clips, with and without utterances, at once, and wrongly."""

import base64
import http.server
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers.models.auto.modeling_auto import MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES
from typer.testing import CliRunner

from microemo.commands.main import app
from microemo.inference import emotion_pipeline
from microemo.inference.request_media import ClipFetcher, ClipTooLarge
from microemo.processing.media import MediaError
from microemo.publishing.initialize import SHIPPED

openai = pytest.importorskip("openai", reason="the client of the server, of the extra `serve`")
uvicorn = pytest.importorskip("uvicorn", reason="the server needs the extra `serve`")
serving = pytest.importorskip("microemo.inference.serving", reason="the server needs the extra `serve`")

PAGE = Path(__file__).parents[2] / "docs" / "serving.md"
QUESTION = {"type": "text", "text": "What does the speaker feel, and why?"}
UTTERANCES = [
    {"start": 0.0, "end": 0.4, "text": "I had no idea."},
    {"start": 0.5, "end": 0.9, "text": "Is it for me?"},
]
TOKENS = 6
LIMIT = 3 << 20


class Recogniser:
    """A speech recogniser that hears one word, in any sound."""

    feature_extractor = SimpleNamespace(sampling_rate=16000)

    def __call__(self, inputs, return_timestamps):
        return {"text": "Hello.", "chunks": [{"text": "Hello.", "timestamp": (0.1, 0.6)}]}


@pytest.fixture(scope="module")
def clips(make_clip):
    times = np.arange(5) / 5
    return {
        "spoken": make_clip("spoken.mp4", times),
        "turned": make_clip("turned.mp4", times, size=(240, 320)),
        "silent": make_clip("silent.mp4", times, sound=None),
        "sound": make_clip("sound.m4a", times=[]),
    }


@pytest.fixture(scope="module")
def manager():
    before = dict(MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES)
    yield serving.OneModelManager(str(SHIPPED), device="cpu")
    MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES.clear()
    MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES.update(before)


@pytest.fixture(scope="module")
def serve(manager):
    """Starts a server in a thread: `serve(build_app's arguments)` returns its address."""
    running = []

    def start(**arguments) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(
            uvicorn.Config(serving.build_app(manager, **arguments), log_level="error", lifespan="off")
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        running.append((server, thread))
        while not server.started:
            time.sleep(0.01)
        return f"http://127.0.0.1:{listener.getsockname()[1]}/v1"

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def address(serve):
    return serve(max_bytes=LIMIT)


@pytest.fixture(scope="module")
def client(address):
    return openai.OpenAI(base_url=address, api_key="none", max_retries=0)


def data_url(path, kind="video/mp4") -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def video(url) -> dict:
    return {"type": "video_url", "video_url": {"url": url if isinstance(url, str) else data_url(url)}}


def ask(client, *content, **kwargs):
    about_clip = {name: kwargs.pop(name) for name in ("utterances", "num_frames", "audio_track") if name in kwargs}
    arguments = {"model": "microemo-tiny", "max_tokens": TOKENS} | kwargs
    if about_clip:
        arguments["extra_body"] = {"chat_template_kwargs": about_clip}
    return client.chat.completions.create(messages=[{"role": "user", "content": list(content)}], **arguments)


def text(completion) -> str:
    return completion.choices[0].message.content


def warnings_of(completion) -> list[str]:
    return (completion.model_extra or {}).get("warnings", [])


@pytest.fixture(scope="module")
def expected(manager):
    """What the model itself answers: `expected(media items, **arguments of the template)` gives text and prompt length."""
    _, loaded = next(iter(manager.loaded_models.items()))

    known = {}

    def answer(*content, **kwargs) -> tuple[str, int]:
        key = json.dumps([content, kwargs])
        if key not in known:
            known[key] = compute(*content, **kwargs)
        return known[key]

    @torch.inference_mode()
    def compute(*content, **kwargs) -> tuple[str, int]:
        inputs = loaded.processor.apply_chat_template(
            [{"role": "user", "content": list(content)}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            **kwargs,
        )
        tokens = loaded.model.generate(**inputs, max_new_tokens=TOKENS)
        length = inputs["input_ids"].shape[1]
        return loaded.processor.decode(tokens[0, length:], skip_special_tokens=True), length

    return answer


def test_the_served_model_is_listed_alone(client):
    assert [model.id for model in client.models.list()] == ["microemo-tiny"]


def test_other_addresses_of_the_server_of_transformers_do_not_answer(client):
    for path in ("/load_model", "/reset", "/v1/completions", "/v1/responses", "/v1/audio/transcriptions"):
        with pytest.raises(openai.NotFoundError) as refused:
            client.post(str(client.base_url).replace("/v1/", path), body={"model": "other"}, cast_to=object)
        assert refused.value.code is None and refused.value.body["type"] == "invalid_request_error"


def test_a_clip_is_seen_and_heard_as_in_python(client, clips, expected):
    completion = ask(client, video(clips["spoken"]), QUESTION)
    in_python, length = expected({"type": "video", "path": str(clips["spoken"])}, QUESTION)
    without_sound = expected({"type": "video", "path": str(clips["spoken"])}, QUESTION, load_audio_from_video=False)
    assert (text(completion), completion.usage.prompt_tokens) == (in_python, length)
    assert length > without_sound[1] and not warnings_of(completion)
    assert completion.usage.completion_tokens == TOKENS and completion.choices[0].finish_reason == "length"


def test_utterances_come_as_a_list_or_as_the_text_of_subtitles(client, clips, expected):
    subtitles = "1\n00:00:00,000 --> 00:00:00,400\nI had no idea.\n\n2\n00:00:00,500 --> 00:00:00,900\nIs it for me?"
    path = str(clips["spoken"])
    in_python = expected({"type": "video", "path": path}, QUESTION, utterances=UTTERANCES)
    assert in_python[1] > expected({"type": "video", "path": path}, QUESTION)[1]
    for utterances in (UTTERANCES, subtitles):
        completion = ask(client, video(clips["spoken"]), QUESTION, utterances=utterances)
        assert (text(completion), completion.usage.prompt_tokens) == in_python


def test_an_utterance_is_cited(client, clips, expected):
    cited = {"type": "utterance", "index": 2}
    question = {"type": "text", "text": "What is felt here?"}
    in_python = expected({"type": "video", "path": str(clips["spoken"])}, cited, question, utterances=UTTERANCES)
    completion = ask(client, video(clips["spoken"]), cited, question, utterances=UTTERANCES)
    assert (text(completion), completion.usage.prompt_tokens) == in_python


def test_a_stream_says_the_same_and_begins_with_the_warnings(client, clips):
    whole = ask(client, video(clips["silent"]), QUESTION, utterances=UTTERANCES)
    pieces = list(ask(client, video(clips["silent"]), QUESTION, utterances=UTTERANCES, stream=True))
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces).strip() == text(whole).strip()
    assert len(pieces) > 5 and pieces[-1].usage == whole.usage
    assert "no sound" in warnings_of(whole)[0] and warnings_of(pieces[0]) == warnings_of(whole)


def test_two_requests_at_once_are_both_right(client, clips, expected):
    questions = [(clips["spoken"], {"utterances": UTTERANCES}), (clips["turned"], {})] * 2
    in_python = [expected({"type": "video", "path": str(path)}, QUESTION, **kwargs) for path, kwargs in questions]
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda pair: ask(client, video(pair[0]), QUESTION, **pair[1]), questions))
    assert [(text(answer), answer.usage.prompt_tokens) for answer in answers] == in_python


def test_a_sound_file_is_a_clip(client, clips, expected):
    data = base64.b64encode(clips["sound"].read_bytes()).decode()
    in_python, _ = expected({"type": "audio", "path": str(clips["sound"])}, QUESTION)
    heard = {"type": "input_audio", "input_audio": {"data": data, "format": "m4a"}}
    linked = {"type": "audio_url", "audio_url": {"url": f"data:audio/mp4;base64,{data}"}}
    for item in (heard, linked):
        completion = ask(client, item, QUESTION)
        assert text(completion) == in_python and not warnings_of(completion)
    instead = ask(client, video(clips["silent"]), linked, QUESTION)  # a sound of its own for a silent clip
    assert not warnings_of(instead)


def test_what_has_no_effect_is_said_and_what_has_works(client, clips):
    completion = ask(
        client, QUESTION, n=2, response_format={"type": "json_object"}, stop=["e"], temperature=0.1, seed=3
    )
    assert warnings_of(completion) == ["n has no effect here", "response_format has no effect here"]
    assert completion.choices[0].finish_reason == "stop" and completion.usage.completion_tokens < TOKENS
    answers = {text(ask(client, QUESTION, temperature=2.0, seed=seed)) for seed in range(4)}
    assert len(answers) > 1  # it is sampled
    assert text(ask(client, QUESTION, temperature=0)) == text(ask(client, QUESTION))


PLAY_LIST = "data:video/mp4;base64," + base64.b64encode(b"ffconcat version 1.0\nfile spoken.mp4\n").decode()
REFUSED = [
    ([video("data:video/mp4;base64,AAAA"), QUESTION], {}, "<3 bytes> is not a media file"),
    ([video("data:video/mp4;base64,A*"), QUESTION], {}, "not base64"),
    ([video("data:video/mp4,AAAA"), QUESTION], {}, "expected a data URL with base64"),
    ([video(PLAY_LIST), QUESTION], {}, "is not a media file"),
    ([video("spoken.mp4"), QUESTION], {}, "no files"),
    ([video("file:///etc/hosts"), QUESTION], {}, "no files"),
    ([video("http://127.0.0.1:1/clip.mp4"), QUESTION], {}, "127.0.0.1 is not in the public network"),
    ([{"type": "video_url", "video_url": "data:"}, QUESTION], {}, "'video_url' has another form"),
    ([{"type": "video", "video": "spoken.mp4"}, QUESTION], {}, "got 'video'"),
    ([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}, QUESTION], {}, "got 'image_url'"),
    (["a word"], {}, "a part of type None has another form"),
    ([QUESTION], {"chat_template_kwargs": {"chat_template": "{{ 1 }}"}}, "chat_template unknown, expected utterances"),
    ([QUESTION], {"chat_template_kwargs": {"asr": "x"}}, "asr unknown"),
    ([QUESTION], {"chat_template_kwargs": [1]}, "chat_template_kwargs is an object"),
    ([QUESTION], {"utterances": UTTERANCES}, "utterances: chat_template_kwargs has"),
    ([QUESTION], {"utterance": UTTERANCES}, "utterance"),
    ([QUESTION], {"chat_template_kwargs": {"utterances": UTTERANCES}}, "belong"),
    ([QUESTION], {"temperature": -1}, "temperature"),
    ([QUESTION], {"temperature": "hot"}, "hot"),
    ([QUESTION], {"max_tokens": 0}, "max_new_tokens"),
]


@pytest.mark.parametrize(("content", "extra", "message"), REFUSED, ids=[message for *_, message in REFUSED])
def test_what_cannot_be_answered_is_the_fault_of_the_request(client, content, extra, message):
    with pytest.raises((openai.BadRequestError, openai.UnprocessableEntityError), match=re.escape(message)) as refused:
        ask(client, *content, extra_body=extra)
    assert refused.value.body["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("utterances", "message"),
    [
        ([{"start": "x", "end": 1, "text": "a"}], "x"),
        (str(Path(__file__)), "utterances"),  # a file of the server
        ("/etc/passwd", "utterances"),
        ([{"start": 0, "end": 1, "words": "a", "nope": 1}], "nope"),
        (7, "utterances"),
    ],
)
def test_wrong_utterances_are_refused_and_no_file_is_read_for_them(client, clips, utterances, message):
    with pytest.raises(openai.BadRequestError, match=message) as refused:
        ask(client, video(clips["spoken"]), QUESTION, utterances=utterances)
    assert "root:" not in str(refused.value)


@pytest.mark.parametrize(
    "setting",
    [
        *({"num_frames": value} for value in (10**9, 0, "x", 1.5, [3])),
        *({"fps": value} for value in (0, -1, "x")),
        *({"audio_track": value} for value in (99, [1], {"a": 1}, 1.5, "/etc/passwd")),
    ],
    ids=str,
)
def test_wrong_settings_are_refused(client, clips, setting):
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(
            model="microemo-tiny",
            messages=[{"role": "user", "content": [video(clips["spoken"]), QUESTION]}],
            max_tokens=TOKENS,
            extra_body={"chat_template_kwargs": setting},
        )
    assert refused.value.body["message"]


def test_a_broken_stream_request_is_refused_before_it_begins(client):
    with pytest.raises(openai.BadRequestError, match="is not a media file"):
        ask(client, video("data:video/mp4;base64,AAAA"), QUESTION, stream=True)


def test_an_error_within_a_stream_reaches_the_client(client):
    with pytest.raises(openai.APIError, match="strictly positive float"):
        list(ask(client, QUESTION, temperature=-1, stream=True))


def test_another_model_is_unknown(client):
    with pytest.raises(openai.NotFoundError, match="this server has 'microemo-tiny'") as unknown:
        ask(client, QUESTION, model="gpt-4o")
    assert unknown.value.code == "model_not_found"


def test_a_request_that_is_too_large_is_refused_and_the_next_one_answered(client, address):
    large = video("data:video/mp4;base64," + "A" * (LIMIT + 1))
    with pytest.raises(openai.APIStatusError, match="a request has at most 3 MiB") as refused:
        ask(client, large, QUESTION)
    assert refused.value.status_code == 413
    host, port = address.removeprefix("http://").removesuffix("/v1").split(":")
    with socket.create_connection((host, int(port))) as connection:  # without a length, in pieces
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n" + b"100000\r\n" + b" " * (1 << 20) + b"\r\n"
        )
        connection.sendall((b"100000\r\n" + b" " * (1 << 20) + b"\r\n") * 3 + b"0\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")
    with socket.create_connection((host, int(port))) as connection:  # who asks first need not send it
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 999999999\r\nExpect: 100-continue\r\n\r\n"
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")
    assert text(ask(client, QUESTION))


def test_a_request_that_is_no_json_is_refused(address):
    for content in (b"{", b"[]", b'"x"', b"\xff"):
        request = urllib.request.Request(
            f"{address}/chat/completions", content, {"Content-Type": "application/json"}, method="POST"
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request)
        assert refused.value.code == 400
        assert re.search("not a JSON object|parsing the body", json.load(refused.value)["error"]["message"])


@pytest.mark.parametrize("messages", [None, [], "Hi", [1], [{"content": "Hi"}], [{"role": "user", "content": 3}]])
def test_messages_of_another_form_are_refused(client, messages):
    with pytest.raises((openai.BadRequestError, openai.UnprocessableEntityError), match="message"):
        client.post("/chat/completions", body={"model": "microemo-tiny", "messages": messages}, cast_to=object)


def test_clips_without_utterances_are_transcribed_where_there_is_a_recogniser(serve, clips, expected):
    client = openai.OpenAI(base_url=serve(asr=Recogniser()), api_key="none", max_retries=0)
    path = str(clips["spoken"])
    heard = [{"start": 0.1, "end": 0.6, "text": "Hello."}]
    for given, utterances in ((None, heard), (UTTERANCES, UTTERANCES), ([], [])):
        completion = ask(client, video(clips["spoken"]), QUESTION, utterances=given)
        in_python = expected({"type": "video", "path": path}, QUESTION, utterances=utterances)
        assert (text(completion), completion.usage.prompt_tokens) == in_python


def test_other_requests_are_answered_while_a_clip_is_read(serve, clips):
    entered, answered = threading.Event(), threading.Event()

    class SlowRecogniser(Recogniser):
        def __call__(self, inputs, return_timestamps):
            entered.set()
            assert answered.wait(60)
            return super().__call__(inputs, return_timestamps)

    client = openai.OpenAI(base_url=serve(asr=SlowRecogniser()), api_key="none", max_retries=0, timeout=60)
    with ThreadPoolExecutor(1) as thread:
        completion = thread.submit(ask, client, video(clips["spoken"]), QUESTION)
        assert entered.wait(60)
        assert len(list(client.models.list())) == 1
        answered.set()
        assert text(completion.result())


# --- where clips come from -----------------------------------------------------------------------------------------


def test_files_are_read_from_the_allowed_folder_alone(tmp_path):
    allowed = tmp_path / "clips"
    allowed.mkdir()
    (allowed / "a #1%20.mp4").write_bytes(b"clip")
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    (allowed / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    (allowed / "inner.mp4").symlink_to(allowed / "a #1%20.mp4")
    fetch = ClipFetcher(allowed)
    plain = allowed / "a #1%20.mp4"
    for url in (plain.as_uri(), str(plain), plain.name, f"../clips/{plain.name}", (allowed / "inner.mp4").as_uri()):
        assert fetch(url) == plain
    for url in ("../secret.mp4", str(tmp_path / "secret.mp4"), (tmp_path / "secret.mp4").as_uri(), "link.mp4", "."):
        with pytest.raises(MediaError, match="is no file in the folder"):
            fetch(url)
    for url in ("nope.mp4", "\0", "x" * 5000, f"{allowed.as_uri()}/%2e%2e/secret.mp4"):
        with pytest.raises(MediaError, match="is no file in the folder"):
            fetch(url)
    with pytest.raises(MediaError, match="expected a data:, http:, https: or file: URL"):
        fetch("ftp://host/a.mp4")
    with pytest.raises(ClipTooLarge):
        ClipFetcher(allowed, max_bytes=3)(plain.name)


class Pages(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        places = {
            "/local": "file:///etc/hosts",
            "/on": "/clip",
            "/private": f"http://127.0.0.2:{self.server.server_port}/clip",
        }
        if self.path in places:
            self.send_response(302)
            self.send_header("Location", places[self.path])
            self.end_headers()
        elif self.path == "/clip":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"clip" * 1000)
        else:
            self.send_error(404)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def pages():
    with http.server.ThreadingHTTPServer(("0.0.0.0", 0), Pages) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_clips_are_fetched_from_allowed_hosts_and_from_no_other_that_they_lead_to(pages):
    fetch = ClipFetcher(private_hosts=["127.0.0.1"])
    assert fetch(f"{pages}/clip").read() == b"clip" * 1000
    assert fetch(f"{pages}/on").name == f"{pages}/on"
    for path, message in (("/private", "127.0.0.2 is not in the public network"), ("/local", "302"), ("/nope", "404")):
        with pytest.raises(MediaError, match=message):
            fetch(pages + path)
    with pytest.raises(ClipTooLarge, match="more than 0 MiB"):
        ClipFetcher(private_hosts=["127.0.0.1"], max_bytes=3999)(f"{pages}/clip")


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "0x7f000001", "127.1", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]"]
)
def test_private_addresses_are_found_however_they_are_written(pages, host):
    with pytest.raises(MediaError, match="public network|cannot be fetched: .*(?:not known|address|resolution)"):
        ClipFetcher()(f"http://{host}:{pages.rpartition(':')[2]}/clip")


@pytest.mark.parametrize("url", ["http://", "http://host:port/", "https://[", "http://a b/", 5, "", None])
def test_what_is_no_url_is_refused(url):
    with pytest.raises(MediaError):
        ClipFetcher()(url)


# --- the command ---------------------------------------------------------------------------------------------------


def test_a_folder_with_a_name_that_means_a_revision_is_refused(tmp_path):
    (tmp_path / "a@b").mkdir()
    with pytest.raises(ValueError, match="rename the folder"):
        serving.OneModelManager(str(tmp_path / "a@b"))


@pytest.mark.filterwarnings("ignore")
def test_a_quantised_model_answers_or_is_refused_before_a_request(manager, clips):
    """The rows of its layers are no whole blocks, which in 4 bit some CPUs need."""
    from starlette.testclient import TestClient

    functional = pytest.importorskip("bitsandbytes.functional")
    question = {"max_tokens": 1, "messages": [{"role": "user", "content": [video(clips["spoken"]), QUESTION]}]}
    for quantization in ("bnb-8bit", "bnb-4bit"):
        if quantization == "bnb-4bit" and functional.has_avx512bf16():
            with pytest.raises(
                ValueError, match=r"microemo-tiny: .* reads 96 numbers, .* a multiple of 64; .*bnb-8bit"
            ):
                serving.OneModelManager(str(SHIPPED), device="cpu", quantization=quantization)
            continue
        quantised = serving.OneModelManager(str(SHIPPED), device="cpu", quantization=quantization)
        with TestClient(serving.build_app(quantised)) as asker:
            assert asker.post("/v1/chat/completions", json=question).json()["choices"][0]["message"]["content"]


def test_an_adapter_is_refused_with_the_command_that_merges_it(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"is an adapter; merge it first: microemo merge "):
        serving.OneModelManager(str(tmp_path))


def test_a_port_that_is_taken_is_named_before_anything_is_loaded():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = CliRunner().invoke(app, ["serve", "--host", "127.0.0.1", "--port", str(port)])
    assert f"cannot listen on 127.0.0.1, port {port}: " in str(done.exception)


def test_the_blocks_of_the_page_run(address, client, clips, tmp_path, monkeypatch, capfd):
    """Against this server instead of the one on the page's port."""
    (tmp_path / "clip.mp4").write_bytes(clips["spoken"].read_bytes())
    monkeypatch.chdir(tmp_path)
    found = re.findall(r"^```(bash|python)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    names, answered = {}, 0
    for language, code in found:
        assert "localhost:8000" in code or "microemo serve" in code or names
        code = code.replace("http://localhost:8000/v1", address).replace("microemo-small", SHIPPED.name)
        code = re.sub(r'(max_tokens(?:": |=))100\b', rf"\g<1>{TOKENS}", code)
        if language == "python":
            exec(compile(code, "serving.md", "exec"), names)
            answered += 1
        elif "curl" in code:
            done = subprocess.run(["bash", "-c", code], capture_output=True, text=True)
            assert json.loads(done.stdout)["choices"][0]["message"]["content"], done
            answered += 1
    assert answered >= 3


@pytest.mark.slow
def test_the_command_serves_until_it_is_interrupted():
    process = subprocess.Popen(
        [sys.executable, "-m", "microemo.commands.main", "serve", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    address = re.search(r"http://localhost:\d+/v1", process.stdout.readline())[0]
    client = openai.OpenAI(base_url=address, api_key="none")  # which tries again until the server answers
    assert [model.id for model in client.models.list()] == [emotion_pipeline.SHIPPED.name]
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and "Traceback" not in errors, errors
