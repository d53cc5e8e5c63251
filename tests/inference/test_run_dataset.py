"""Running an answerer over a data set, killed and resumed."""

import json
import multiprocessing
import os
import signal
import time
from collections import Counter

import pytest

from microemo.evaluation.prediction_files import read_answers
from microemo.inference.run_dataset import read_samples, run_dataset


class Echo:
    """Answers with the clip's name; remembers its batches; fails for the names in `broken`."""

    name = "echo"

    def __init__(self, broken=()):
        self.broken, self.batches = set(broken), []

    def answer(self, samples):
        names = [sample["name"] for sample in samples]
        self.batches.append(names)
        if bad := self.broken & set(names):
            raise ValueError(f"cannot decode {sorted(bad)[0]}")
        return [f"feels like {name} 😀\nreally" for name in names]


def samples(n):
    return [{"name": f"clip_{i}", "video": f"clip_{i}.mp4"} for i in range(n)]


def run(answerer, n, path, **options):
    return run_dataset(answerer, samples(n), path, progress=False, **options)


def test_one_line_a_clip_that_reads_as_a_prediction_file(tmp_path):
    echo, path = Echo(), tmp_path / "new" / "out.jsonl"
    report = run(echo, 5, path, batch_size=2)
    assert echo.batches == [["clip_0", "clip_1"], ["clip_2", "clip_3"], ["clip_4"]]
    assert len(path.read_text().splitlines()) == 5
    answers = read_answers(path)
    assert answers.kind == "text"
    assert answers.items["clip_3"] == "feels like clip_3 😀\nreally"
    assert (len(report.answered), report.resumed, report.failed) == (5, 0, {})


def test_resume_answers_only_what_is_missing_and_drops_a_half_line(tmp_path):
    path = tmp_path / "out.jsonl"
    run(Echo(), 3, path)
    with path.open("ab") as file:
        file.write(b'{"name": "clip_3", "answer": "feels li')
    with pytest.raises(ValueError, match=r"out\.jsonl, line 4: not JSON"):
        read_answers(path)  # the run is not at its end, and a file is read in full or not at all
    echo = Echo()
    report = run(echo, 5, path, batch_size=4)
    assert echo.batches == [["clip_3", "clip_4"]]
    assert (report.answered, report.resumed) == (["clip_3", "clip_4"], 3)
    assert list(read_answers(path).items) == [f"clip_{i}" for i in range(5)]
    assert run(Echo(), 5, path).answered == []


def test_an_error_ends_the_run_and_names_the_batch(tmp_path):
    path = tmp_path / "out.jsonl"
    with pytest.raises(ValueError, match="cannot decode clip_3") as error:
        run(Echo(["clip_3"]), 6, path, batch_size=2)
    assert error.value.__notes__ == ["in the batch clip_2, clip_3"]
    assert list(read_answers(path).items) == ["clip_0", "clip_1"]


def test_skipped_errors_are_reported_and_tried_again(tmp_path):
    path = tmp_path / "out.jsonl"
    report = run(Echo(["clip_1", "clip_3"]), 5, path, batch_size=3, skip_errors=True)
    assert report.failed == {name: f"ValueError: cannot decode {name}" for name in ("clip_1", "clip_3")}
    assert list(read_answers(path).items) == ["clip_0", "clip_2", "clip_4"]
    assert run(Echo(), 5, path).answered == ["clip_1", "clip_3"]


def test_a_wrong_number_of_answers_is_an_error(tmp_path):
    echo = Echo()
    echo.answer = lambda samples: ["one"]
    with pytest.raises(RuntimeError, match="1 answers for 2 samples"):
        run(echo, 2, tmp_path / "out.jsonl", batch_size=2)


def test_names_and_systems_are_not_mixed(tmp_path):
    with pytest.raises(ValueError, match="1 names come more than once: clip_0"):
        run_dataset(Echo(), [*samples(2), *samples(1)], tmp_path / "out.jsonl", progress=False)
    run(Echo(), 2, tmp_path / "out.jsonl")
    other = Echo()
    other.name = "other"
    with pytest.raises(ValueError, match="holds answers of echo, not of other"):
        run(other, 3, tmp_path / "out.jsonl")


def test_a_damaged_line_is_an_error_not_a_loss(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text('{"name": "clip_0", "answer": "x", "system": "echo"}\nnot json\n')
    with pytest.raises(ValueError, match=r"out\.jsonl, line 2: not JSON"):
        run(Echo(), 2, path)


@pytest.mark.parametrize(
    "content",
    [
        b'{"important": "my only copy"}',
        b"name,video\none,1.mp4\n",
        b'{"name": "clip_0", "labels": ["happy"]}\n',
        b'{"name": "clip_0", "answer": "x"}\n{"name": "cl',
        b'{"name": "clip_0", "answer": "x", "system": "other"}\n{"name": "cl',  # ours, but another system's
    ],
)
def test_an_output_that_is_not_this_runs_is_left_as_it_is(tmp_path, content):
    path = tmp_path / "out.jsonl"
    path.write_bytes(content)
    echo = Echo()
    with pytest.raises(ValueError, match=r"out\.jsonl.*(left as it is|holds answers of other, not of echo)"):
        run(echo, 2, path)
    assert path.read_bytes() == content and echo.batches == []


def test_the_last_answer_counts_without_its_newline(tmp_path):
    path = tmp_path / "out.jsonl"
    run(Echo(), 2, path)
    path.write_bytes(path.read_bytes().rstrip())
    assert run(Echo(), 3, path).answered == ["clip_2"]
    assert list(read_answers(path).items) == ["clip_0", "clip_1", "clip_2"]


class Slow:
    """Notes what it is asked, then takes its time."""

    name = "slow"

    def __init__(self, asked, seconds):
        self.asked, self.seconds = asked, seconds

    def answer(self, samples):
        with self.asked.open("a") as file:
            file.writelines(f"{sample['name']}\n" for sample in samples)
        time.sleep(self.seconds)
        return ["x" * 20000 for _ in samples]


def test_a_kill_loses_at_most_the_batch_under_way(tmp_path):
    path, asked = tmp_path / "out.jsonl", tmp_path / "asked.txt"
    arguments = (Slow(asked, 0.15), 30, path)
    process = multiprocessing.get_context("fork").Process(target=run, args=arguments, kwargs={"batch_size": 2})
    process.start()
    deadline = time.monotonic() + 60
    while (not path.exists() or path.read_bytes().count(b"\n") < 8) and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    kept = path.read_bytes().count(b"\n")
    assert 8 <= kept < 30
    run(Slow(asked, 0.0), 30, path, batch_size=2)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["name"] for row in rows] == [f"clip_{i}" for i in range(30)]
    twice = [name for name, count in Counter(asked.read_text().split()).items() if count > 1]
    assert len(twice) <= 2  # the batch that was under way


def test_data_sets_are_read_relative_to_their_folder(tmp_path):
    (tmp_path / "data.jsonl").write_text(
        '{"video": "a/one.mp4", "subtitle": "Hi."}\n{"name": "two", "audio": "/x/2.wav"}\n'
    )
    assert read_samples(tmp_path / "data.jsonl") == [
        {"name": "one", "video": str(tmp_path / "a/one.mp4"), "subtitle": "Hi."},
        {"name": "two", "audio": "/x/2.wav"},
    ]
    (tmp_path / "data.csv").write_text("name,video,audio\none,1.mp4,\n")
    assert read_samples(tmp_path / "data.csv") == [{"name": "one", "video": str(tmp_path / "1.mp4")}]
    (tmp_path / "bad.csv").write_text("name,video\none,\n")
    with pytest.raises(ValueError, match=r"bad\.csv, row 1: expected a video or an audio, found name"):
        read_samples(tmp_path / "bad.csv")
    with pytest.raises(ValueError, match=r"expected \.jsonl or \.csv, found '\.txt'"):
        read_samples(tmp_path / "data.txt")
    (tmp_path / "last.jsonl").write_text('{"video": "1.mp4"}\n{"video": "2.mp4"}')
    assert [sample["name"] for sample in read_samples(tmp_path / "last.jsonl")] == ["1", "2"]
    for row in ({"video": 3}, {"video": ["1.mp4"]}, {"video": "1.mp4", "name": ["a"]}, {"audio": True}):
        (tmp_path / "odd.jsonl").write_text(json.dumps(row))
        with pytest.raises(ValueError, match=r"odd\.jsonl, row 1, \w+: expected text, found"):
            read_samples(tmp_path / "odd.jsonl")
    (tmp_path / "said.csv").write_text('video,utterances\n1.mp4,"[{""start"": 0, ""end"": 1, ""text"": ""Hi""}]"\n')
    assert read_samples(tmp_path / "said.csv")[0]["utterances"].startswith("[")  # JSON in a cell is no file name
