"""`microemo evaluate` through its command line, on small files laid out as the published ones."""

import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from typer.testing import CliRunner

from microemo.commands.evaluate_command import app
from microemo.evaluation.checkpoint_choice import TestSetSelectionError
from microemo.evaluation.emotion_wheel import DEFAULT_FOLDER
from microemo.evaluation.prediction_files import read_answers

NAMES = [f"clip_{i}" for i in range(12)]


def evaluate(*arguments) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def write(path, answers):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, filenames=np.array(NAMES), fileitems=np.array(answers))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    truth = ["[happy, calm]", "[angry]"] * 6
    (tmp_path / "truth.csv").write_text(
        "name,openset\n" + "".join(f'{n},"{t}"\n' for n, t in zip(NAMES, truth, strict=True))
    )
    write(tmp_path / "runs/Hear/nosubtitle-addsub-openset.npz", ["[joyful]", "[mad]"] * 6)
    write(tmp_path / "runs/See/nosubtitle-addsub-openset.npz", ["[serene]", "[sad]"] * 6)
    for name, text in (("Hear", "I hear joy."), ("See", "I see calm, no anger.")):
        reasons = tmp_path / f"runs/{name}/nosubtitle-addsub-reason.json"
        reasons.write_text(json.dumps(dict.fromkeys(NAMES, text)))
    for step, answer in ((1, "[happy]"), (2, "[angry]")):
        write(tmp_path / f"runs/affectgpt_predictions/checkpoint_{step}-openset.npz", [answer] * 12)
        write(tmp_path / f"dev/checkpoint_{step}-openset.npz", ["[happy]" if step == 2 else "[sad]"] * 12)
    (tmp_path / "dev.csv").write_text("name,openset\n" + "".join(f"{n},[happy]\n" for n in NAMES))
    return tmp_path


@pytest.fixture
def judge_url():
    """An endpoint that merges into a fixed text and finds "worried" in every description."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            prompt = body["messages"][0]["content"]
            merged = prompt.startswith("Two observers")
            content = '{"description": "Heard joy, saw calm."}' if merged else '["worried"]'
            message = {"role": "assistant", "content": content}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            reply = {"id": "x", "object": "chat.completion", "created": 0, "model": body["model"], "choices": [choice]}
            data = json.dumps(reply).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    server.server_close()


def test_score_as_json(folder):
    found = json.loads(evaluate("score", "runs/Hear", "-r", "truth.csv", "--json", "--draws", "50"))
    # every other clip finds one of two labels, the others all: accuracy 1, recall (1/2 + 1) / 2
    assert found["scores"]["S/precision"] == [1.0, 1.0, 1.0]
    assert found["scores"]["S/recall"][0] == 0.75
    assert found["n"] == 12
    assert found["notes"]["grouping"] == "wheels vocabulary M2"


def test_score_as_a_table_with_replayed_groups(folder):
    (folder / "groups.json").write_text(json.dumps({name: [["calm", "joyful"], ["mad"]] for name in NAMES}))
    shown = evaluate("score", "runs/Hear", "-r", "truth.csv", "--grouping", "groups.json", "--draws", "20")
    # [happy, calm] / [joyful]: 1, 1/2; [angry] / [mad]: mad stands alone: 0, 0
    assert "50.00" in shown
    assert "25.00" in shown
    assert "replay groups.json" in shown
    assert "M3-W5-L2" in shown


def test_table_one_from_the_raw_files(folder):
    out = evaluate(
        "table", "runs", "-r", "truth.csv", "--against", "See", "--combine", "Hear + See", "--draws", "50", "-f", "csv",
        "--plot", "plots/ew.png",
    )  # fmt: skip
    lines = out.splitlines()
    values = {tuple(line.split(",")[:1] + line.split(",")[2:3]): line for line in lines}
    assert "100.000000" in values["Hear + See", "Recall_S"]
    assert "union of labels as listed" in values["Hear + See", "Recall_S"]
    assert "one of 2 checkpoints" in out
    assert "66.21" in values["MicroEmo", "Avg"]
    assert "other split and grouper" in values["MicroEmo", "Avg"]
    assert (folder / "plots/ew.png").stat().st_size > 1000


def test_table_two_puts_the_ablations_beside_the_paper(folder):
    hear, see = (f"runs/{name}/nosubtitle-addsub-openset.npz" for name in ("Hear", "See"))
    out = evaluate("table", "--table", "2", f"MicroEmo={hear}", f"w/o all={see}", "-r", "truth.csv", "--draws", "10")
    full, without = (
        next(line for line in out.splitlines() if line.startswith(f"| {row} |")) for row in ("MicroEmo", "w/o all")
    )
    assert "66.21 other split and grouper" in full
    assert "46.21 other split and grouper" in without
    assert "does not add up" in out


def test_table_of_texts_merged_by_the_judge(folder, judge_url):
    common = ["table", "runs/Hear", "runs/See", "-r", "truth.csv", "--answers", "reason", "--draws", "20", "-f", "csv"]
    merged = [*common, "--combine", "Hear + See", "--merge", "judge", "--judge", "m", "--cache", "cache.jsonl"]
    online = evaluate(*merged, "--base-url", judge_url)
    assert "merged by m" in online
    row = next(line for line in online.splitlines() if line.startswith("Hear + See") and ",Recall_S," in line)
    assert "50.000000" in row  # "Heard joy, saw calm." has happy and calm in half of the clips, nothing of the others
    assert evaluate(*merged, "--offline") == online
    judged = evaluate(
        *common, "--extraction", "judge", "--judge", "m", "--cache", "cache.jsonl", "--base-url", judge_url
    )
    assert "labels by model m" in judged


def test_checkpoints_are_chosen_by_rule_only(folder):
    arguments = ["table", "runs/affectgpt_predictions", "-r", "truth.csv", "--draws", "10", "--columns", "EW"]
    assert "AffectGPT checkpoint 2 (last of 2 checkpoints)" in evaluate(*arguments, "--checkpoints", "last")
    with pytest.raises(TestSetSelectionError, match="refusing to pick the best of 2 checkpoints"):
        evaluate(*arguments, "--checkpoints", "best-on-test")
    marked = evaluate(*arguments, "--checkpoints", "best-on-test", "--allow-test-selection")
    assert "(BEST OF 2 CHECKPOINTS ON THE TEST SET)" in marked
    with pytest.raises(ValueError, match="best-on-dev needs --dev-predictions and --dev-references"):
        evaluate(*arguments, "--checkpoints", "best-on-dev")
    dev = ["--checkpoints", "best-on-dev", "--dev-predictions", "dev", "--dev-references", "dev.csv"]
    assert "AffectGPT checkpoint 2 (best of 2 checkpoints on the dev split)" in evaluate(*arguments, *dev)


def test_combine_and_extract_write_files_that_score(folder, judge_url):
    hear, see = (f"runs/{name}/nosubtitle-addsub-openset.npz" for name in ("Hear", "See"))
    assert "12 answers, union of labels as listed; 0 unreadable" in evaluate("combine", hear, see, "-o", "both.jsonl")
    assert read_answers("both.jsonl").items["clip_0"] == ["joyful", "serene"]
    reasons = [path.replace("openset.npz", "reason.json") for path in (hear, see)]
    judge = ["--judge", "m", "--base-url", judge_url]
    evaluate("combine", *reasons, "-o", "merged.jsonl", "--merge", "judge", *judge)
    assert read_answers("merged.jsonl").items["clip_0"] == "Heard joy, saw calm."
    assert "12 answers (rule), 0 without a label" in evaluate("extract", reasons[1], "-o", "labels.jsonl")
    assert read_answers("labels.jsonl").items["clip_3"] == ["calm"]
    evaluate("extract", reasons[1], "-o", "labels.jsonl", "--by", "judge", *judge)
    assert read_answers("labels.jsonl").items["clip_3"] == ["worried"]
    assert (folder / "judge-answers.jsonl").exists()
    assert "both.jsonl" in evaluate("score", "both.jsonl", "-r", "truth.csv", "--draws", "10")


def test_hit_rate_and_sentiment(folder):
    rows = "".join(
        f"{name},{'happy' if i % 2 == 0 else 'sad'},{1.5 if i % 2 == 0 else -2}\n" for i, name in enumerate(NAMES)
    )
    (folder / "basic.csv").write_text(f"name,emo,val\n{rows}")
    # Hear says joyful (right) and mad (wrong on every wheel but those that put anger with sadness: none)
    assert "hit rate 50.00 (12 clips)" in evaluate("hit-rate", "runs/Hear", "-r", "basic.csv")
    # joyful is positive, mad negative: all right
    assert "WAF 100.00, ACC 100.00 (12 of 12 clips" in evaluate("sentiment", "runs/Hear", "-r", "basic.csv")


def test_plot(folder):
    shown = evaluate("plot", "runs/Hear/nosubtitle-addsub-openset.npz", "-r", "truth.csv", "-o", "pictures")
    pictures = sorted((folder / "pictures").iterdir())
    assert [path.name for path in pictures] == [
        "nosubtitle-addsub-openset-confusion.png",
        "nosubtitle-addsub-openset-recall.png",
    ]
    assert shown.count(".png") == 2


def test_what_cannot_be_compared_with_published_figures_is_said(folder):
    def differences(*options):
        arguments = ["score", "runs/Hear", "-r", "truth.csv", "--json", "--draws", "5", *options]
        return " ".join(json.loads(evaluate(*arguments))["notes"]["differs"])

    assert "--grouping openset-synonym.json" in differences() and "--wheels FOLDER --affectgpt" in differences()
    groups = {name: [["calm", "joyful", "happy"], ["mad", "angry"]] for name in NAMES}
    (folder / "groups.json").write_text(json.dumps(groups))
    shutil.copytree(DEFAULT_FOLDER, folder / "wheels")
    published = ["--wheels", "wheels", "--affectgpt", "--grouping", "groups.json"]
    assert differences(*published) == ""
    assert "--grouping" in differences(*published[:3]) and "--affectgpt" not in differences(*published[:3])
    (folder / "groups.json").write_text(json.dumps({name: [["calm", "joyful", "happy"]] for name in NAMES}))
    # angry and mad in half of the clips, happy, calm and joyful in the others: 12 of 30 labels
    assert "40.0% of the labels are in no replayed group" in differences(*published)
    (folder / "less.csv").write_text("name,openset\nclip_0,[happy]\n")
    result = CliRunner().invoke(app, ["score", "runs/Hear", "-r", "less.csv", "--common", "--draws", "5"])
    assert "11 clips that only one of the two files holds are left out" in result.stderr
    shown = evaluate("table", "runs/Hear", "runs/See", "-r", "truth.csv", "--draws", "5")
    assert shown.count("synonyms by wheels vocabulary M2, published figures by GPT-3.5's groups") == 1


@pytest.mark.parametrize("content", [b'{"important": "my only copy"}', b"name,labels\nclip_0,happy\n"])
def test_run_writes_to_no_file_but_its_own(folder, content):
    (folder / "data.jsonl").write_text('{"video": "1.mp4"}')
    (folder / "mine").write_bytes(content)
    with pytest.raises(ValueError, match="mine, line 1: .* the file is left as it is"):  # before a model is looked for
        evaluate("run", "nobody/nothing", "data.jsonl", "-o", "mine")
    with pytest.raises(ValueError, match=r"data\.jsonl, line 1: .* the file is left as it is"):
        evaluate("run", "nobody/nothing", "data.jsonl", "-o", "data.jsonl")
    assert (folder / "mine").read_bytes() == content and (folder / "data.jsonl").read_text() == '{"video": "1.mp4"}'


def test_a_file_that_is_read_is_not_written(folder):
    reasons = "runs/See/nosubtitle-addsub-reason.json"
    before = (folder / reasons).read_bytes()
    with pytest.raises(ValueError, match="is read here, and would be overwritten"):
        evaluate("extract", reasons, "-o", reasons)
    with pytest.raises(ValueError, match="is read here, and would be overwritten"):
        evaluate("combine", reasons, reasons.replace("See", "Hear"), "-o", reasons)
    with pytest.raises(ValueError, match="is read here, and would be overwritten"):
        evaluate("table", reasons, "-r", "truth.csv", "-o", "truth.csv")
    assert (folder / reasons).read_bytes() == before


def test_the_judges_cache_is_no_file_of_others(folder, judge_url):
    reasons = "runs/See/nosubtitle-addsub-reason.json"
    (folder / "notes.txt").write_text("my only copy")
    judge = ["--by", "judge", "--judge", "m", "--base-url", judge_url, "--cache"]
    with pytest.raises(ValueError, match=r"notes\.txt, line 1: .* the file is left as it is"):
        evaluate("extract", reasons, "-o", "labels.jsonl", *judge, "notes.txt")
    assert (folder / "notes.txt").read_text() == "my only copy"
    evaluate("extract", reasons, "-o", "labels.jsonl", *judge, "cache.jsonl")
    kept = (folder / "cache.jsonl").read_bytes()
    (folder / "cache.jsonl").write_bytes(kept + kept[:50])  # killed while it wrote
    evaluate("extract", reasons, "-o", "again.jsonl", *judge, "cache.jsonl")
    assert (folder / "again.jsonl").read_bytes() == (folder / "labels.jsonl").read_bytes()


def test_mistakes_are_said_plainly(folder):
    with pytest.raises(ValueError, match="a judge was asked for: name its model with --judge"):
        evaluate("score", "runs/Hear", "-r", "truth.csv", "--grouping", "judge")
    with pytest.raises(FileNotFoundError, match=r"groups\.json"):
        evaluate("score", "runs/Hear", "-r", "truth.csv", "--grouping", "groups.json")
    (folder / "less.csv").write_text("name,openset\nclip_0,[happy]\n")
    with pytest.raises(ValueError, match=r"without a reference: 11 \(clip_1"):
        evaluate("score", "runs/Hear", "-r", "less.csv")
    assert "(1 clips)" in evaluate("score", "runs/Hear", "-r", "less.csv", "--common", "--draws", "10")
