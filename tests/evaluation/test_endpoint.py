"""The endpoint path against a real HTTP server on loopback that also plays the faults."""

import json
import multiprocessing
import os
import re
import signal
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from microemo.evaluation.chat import ChatError, EndpointChat
from microemo.evaluation.language_model_judge import ChatGrouper, extract_labels, judge_sentiment, merge_descriptions
from microemo.evaluation.set_level import set_level_scores

MODEL = "judge-1"


def completion(content) -> dict:
    message = {"role": "assistant", "content": content}
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
    }


def well_behaved(messages: list[dict]) -> str:
    """Answers each kind of question; groups labels by their first letter."""
    prompt = messages[0]["content"]
    if prompt.startswith("Below is a list"):
        groups: dict[str, list[str]] = {}
        for label in json.loads(prompt.split("Labels: ")[1]):
            groups.setdefault(label[0], []).append(label)
        return f"```json\n{json.dumps(list(groups.values()), ensure_ascii=False)}\n```"
    if prompt.startswith("Below is a description"):
        return json.dumps([word for word in ("worried", "sad") if word in prompt.split("Description: ")[1]])
    if prompt.startswith("A person feels"):
        return json.dumps({"sentiment": "negative" if "sad" in prompt else "positive"})
    return json.dumps({"description": " / ".join(re.findall(r"(?:Heard|Watched): (.*)", prompt))})


class Server:
    """An OpenAI-compatible server: `answer` makes the reply, `faults` are played first, one a request."""

    def __init__(self):
        self.answer, self.faults, self.delay = well_behaved, [], 0.0
        self.requests: list[list[dict]] = []
        self.temperatures = set()
        lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def reply(self, status: int, body, headers=()):
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                for name, value in headers:
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self):
                model = {"id": MODEL, "object": "model", "created": 0, "owned_by": "test"}
                self.reply(200, {"object": "list", "data": [model]})

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with lock:
                    server.requests.append(body["messages"])
                    server.temperatures.add(body["temperature"])
                    fault = server.faults.pop(0) if server.faults else None
                if body["model"] != MODEL:
                    return self.reply(404, {"error": {"message": f"no model {body['model']}"}})
                time.sleep(server.delay)
                if isinstance(fault, int):
                    return self.reply(fault, {"error": {"message": "fault"}}, [("retry-after-ms", "10")])
                if fault == "timeout":
                    time.sleep(2.0)
                    return None
                if fault is not None:
                    return self.reply(200, fault)
                return self.reply(200, completion(server.answer(body["messages"])))

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


def chat(server, cache=None, **options):
    return EndpointChat(MODEL, server.url, cache, **({"timeout": 5.0} | options))


LABELS = [["happy", "hopeful", "sad"], ["angry", "annoyed"], ["calm"]]
GROUPS = [[["happy", "hopeful"], ["sad"]], [["angry", "annoyed"]], [["calm"]]]


def test_grouping_asks_once_at_temperature_zero(server, tmp_path):
    grouper = ChatGrouper(chat(server, tmp_path / "cache.jsonl"))
    names = ["a", "b", "c"]
    assert grouper.group(names, LABELS) == GROUPS
    assert grouper.group(names, [list(reversed(labels)) for labels in LABELS]) == GROUPS
    assert len(server.requests) == 2  # one label needs no question, another order is the same question
    assert server.temperatures == {0}


def test_cache_replays_offline_and_is_keyed_by_model(server, tmp_path):
    cache = tmp_path / "cache.jsonl"
    online = chat(server, cache)
    ChatGrouper(online).group("abc", LABELS)
    online.close()
    offline = EndpointChat(MODEL, None, cache)
    assert ChatGrouper(offline).group("abc", LABELS) == GROUPS
    with pytest.raises(ChatError, match="lacks 1 answers"):
        ChatGrouper(offline).group("a", [["new", "labels"]])
    offline.close()
    other = EndpointChat("judge-2", None, cache)
    with pytest.raises(ChatError, match="lacks 2 answers of 'judge-2'"):
        ChatGrouper(other).group("abc", LABELS)
    other.close()
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "fault",
    [429, 500, 503, "timeout", b"{not json", {"object": "error"}, completion(None), {"choices": []}],
    ids=["429", "500", "503", "timeout", "broken body", "no choices", "no text", "empty choices"],
)
def test_faults_are_survived(server, tmp_path, fault):
    server.faults = [fault, fault]
    timeout = 1.0 if fault == "timeout" else 10.0
    judge = chat(server, tmp_path / "cache.jsonl", timeout=timeout, concurrency=1)
    assert ChatGrouper(judge).group("abc", LABELS) == GROUPS
    assert len(server.requests) == 2 + 2


def test_a_fault_that_stays_is_an_error_and_loses_no_answer(server, tmp_path):
    def answer_then_break(messages):
        if "bold" in messages[0]["content"]:
            server.faults = [500] * 10
        return well_behaved(messages)

    server.answer = answer_then_break
    cache = tmp_path / "cache.jsonl"
    judge = chat(server, cache, retries=1, concurrency=1)
    # asked in sorted order: awed + angry and bold + brave are answered, then the server breaks for calm + cold
    questions = [["calm", "cold"], ["awed", "angry"], ["bold", "brave"]]
    with pytest.raises(ChatError, match=r"HTTP 500 for model 'judge-1'"):
        ChatGrouper(judge).group("abc", questions)
    assert len(cache.read_text().splitlines()) == 2
    server.faults, server.answer = [], well_behaved
    before = len(server.requests)
    assert ChatGrouper(judge).group("abc", questions) == [[["calm", "cold"]], [["angry", "awed"]], [["bold", "brave"]]]
    assert len(server.requests) == before + 1


def test_wrong_model_names_the_models_there_are(server, tmp_path):
    judge = EndpointChat("judge-9", server.url, tmp_path / "cache.jsonl", timeout=5.0)
    with pytest.raises(ChatError, match=r"HTTP 404 for model 'judge-9'.*it offers judge-1"):
        ChatGrouper(judge).group("a", [["sad", "happy"]])
    assert len(server.requests) == 1  # not retried


def test_no_server_is_an_error_that_names_the_address(tmp_path):
    judge = EndpointChat(MODEL, "http://127.0.0.1:9/v1", tmp_path / "cache.jsonl", retries=0)
    with pytest.raises(ChatError, match=r"http://127.0.0.1:9/v1: .*after 1 attempts"):
        ChatGrouper(judge).group("a", [["sad", "happy"]])


def test_unreadable_answer_is_asked_again_with_the_complaint(server):
    server.answer = lambda messages: "They all mean joy." if len(messages) == 1 else well_behaved(messages)
    assert ChatGrouper(chat(server)).group("a", [LABELS[0]]) == [GROUPS[0]]
    assert [len(messages) for messages in server.requests] == [1, 3]
    assert "expected a list of lists" in server.requests[1][-1]["content"]


def test_answer_about_other_labels_is_refused(server):
    server.answer = lambda messages: '[["spring", "summer"]]' if len(messages) == 1 else well_behaved(messages)
    assert ChatGrouper(chat(server)).group("a", [LABELS[0]]) == [GROUPS[0]]


def test_never_readable_is_counted_and_the_sample_still_scored(server, tmp_path):
    server.answer = lambda messages: "no" if "sad" in messages[0]["content"] else well_behaved(messages)
    truth, predicted = [["happy", "sad"], ["angry"]], [["hopeful", "sad"], ["annoyed"]]
    grouper = ChatGrouper(chat(server, tmp_path / "cache.jsonl"))
    sheet = set_level_scores(["one", "two"], truth, predicted, grouper)
    assert sheet.notes["ungrouped"] == ("one",)
    # one: {happy, sad} against {hopeful, sad} without groups: 1 of 2 both ways; two: angry = annoyed: 1 and 1
    assert sheet.precision[:, 0].tolist() == [0.5, 1.0]
    published = set_level_scores(["one", "two"], truth, predicted, grouper, compat="affectgpt")
    assert published.summary()["S/avg"] == 1.0  # the published code drops sample one
    assert len(server.requests) == 3 + 1  # three attempts and one; the second scoring came from the cache


def test_extraction_sentiment_and_merging(server):
    judge = chat(server)
    assert extract_labels(judge, ["He looks worried and sad.", "Nothing."]) == [["worried", "sad"], []]
    assert judge_sentiment(judge, [["sad"], ["glad"], []]) == ["negative", "positive", "positive"]
    assert merge_descriptions(judge, ["a sigh"], ["a frown"]) == ["a sigh / a frown"]
    server.answer = lambda messages: '{"sentiment": "splendid"}'
    assert judge_sentiment(judge, [["odd"]]) == [None]


def group_twenty(url, cache):
    judge = EndpointChat(MODEL, url, cache, concurrency=2)
    groups = ChatGrouper(judge).group(list(range(20)), [[f"a{i}", f"b{i}"] for i in range(20)])
    judge.close()
    return groups


def test_kill_in_the_middle_and_resume(server, tmp_path):
    """No answer that reached the disk is asked for again, at most the two in flight are, and none is lost."""
    cache, server.delay = tmp_path / "cache.jsonl", 0.2
    process = multiprocessing.get_context("fork").Process(target=group_twenty, args=(server.url, cache))
    process.start()
    deadline = time.monotonic() + 60
    while (not cache.exists() or cache.read_bytes().count(b"\n") < 6) and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    kept = cache.read_bytes().count(b"\n")
    assert 6 <= kept < 20
    with cache.open("ab") as file:
        file.write(b'{"key": "half a li')  # what a kill inside a write leaves
    time.sleep(0.3)  # what was under way has arrived
    before = len(server.requests)
    server.delay = 0.0
    assert group_twenty(server.url, cache) == [[[f"a{i}"], [f"b{i}"]] for i in range(20)]
    assert len(server.requests) - before == 20 - kept
    asked = Counter(messages[0]["content"] for messages in server.requests)
    assert len(asked) == 20
    assert sum(asked.values()) <= 20 + 2
    assert group_twenty(None, cache) == [[[f"a{i}"], [f"b{i}"]] for i in range(20)]  # offline, for ever


def test_two_runs_cannot_share_a_cache(server, tmp_path):
    first = chat(server, tmp_path / "cache.jsonl")
    with pytest.raises(OSError, match="another process is writing"):
        chat(server, tmp_path / "cache.jsonl")
    first.close()
    chat(server, tmp_path / "cache.jsonl").close()
