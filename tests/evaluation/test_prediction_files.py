"""Every file form, and what is said of files that cannot be used."""

import csv
import json

import numpy as np
import pytest

from microemo.evaluation.emotion_wheel import wheel_scores
from microemo.evaluation.label_extraction import labels_of
from microemo.evaluation.prediction_files import Answers, NameMismatchError, match, read_answers
from microemo.utils.files import write_json_lines


def test_forms_of_labels(tmp_path):
    wanted = {"a": "[happy, sad]", "b": "[]"}
    (tmp_path / "x.csv").write_bytes(b'\xef\xbb\xbfname,openset\na,"[happy, sad]"\nb,[]\n')
    (tmp_path / "x.jsonl").write_text('{"name": "a", "labels": "[happy, sad]"}\n\n{"name": "b", "labels": "[]"}\n')
    (tmp_path / "x.json").write_text(json.dumps(wanted))
    np.savez(tmp_path / "x.npz", filenames=np.array(["a", "b"]), fileitems=np.array(list(wanted.values())))
    for suffix in ("csv", "jsonl", "json", "npz"):
        answers = read_answers(tmp_path / f"x.{suffix}")
        assert (answers.kind, answers.items) == ("labels", wanted), suffix


def test_forms_of_text(tmp_path):
    (tmp_path / "x.json").write_text('{"a": "He smiles.", "b": ""}')
    (tmp_path / "x.csv").write_text('names,chi_reasons\na,"他很开心，也有些意外。"\nb,\n')
    (tmp_path / "x.jsonl").write_text('{"name": "a", "answer": "He smiles.", "system": "s"}\n')
    assert read_answers(tmp_path / "x.json").kind == "text"
    assert read_answers(tmp_path / "x.csv").items == {"a": "他很开心，也有些意外。", "b": ""}
    assert read_answers(tmp_path / "x.jsonl").items == {"a": "He smiles."}


def test_a_field_can_be_chosen(tmp_path):
    (tmp_path / "x.csv").write_text("name,emo,val\na,happy,2.25\n")
    assert read_answers(tmp_path / "x.csv").items == {"a": "happy"}
    assert read_answers(tmp_path / "x.csv", "val").items == {"a": "2.25"}
    with pytest.raises(ValueError, match=r"x\.csv: has no field 'mood', only name, emo, val"):
        read_answers(tmp_path / "x.csv", "mood")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "name,colour\na,red\n", "expected a field among labels, openset"),
        ("x.csv", "who,labels\na,red\n", "expected a field among name, names"),
        ("x.csv", "name,labels\n", "holds no row"),
        ("x.csv", "name,labels\na,x\n,y\n", "row 2: expected 'name' and 'labels'"),
        ("x.csv", "name,labels\na,x\na,y\n", "1 names come more than once: a"),
        ("x.json", "{", "not JSON"),
        ("x.json", "3", "expected an object name -> answer, found int"),
        ("x.json", '{"a": {"b": 1}}', "x.json, a: expected a text or a list of labels, found dict"),
        ("x.jsonl", "{}\nno\n", "line 2: not JSON"),
        ("x.jsonl", "[1]\n", "line 1: expected a JSON object"),
        (
            "x.jsonl",
            '{"name": "a", "labels": 3}',
            "x.jsonl, row 1, labels: expected a text or a list of labels, found int 3",
        ),
        (
            "x.jsonl",
            '{"name": "a", "labels": ["b", 3]}',
            "row 1, labels: expected a text or a list of labels, found list",
        ),
        ("x.jsonl", '{"name": ["a"], "labels": "b"}', "row 1: expected 'name' and 'labels'"),
        ("x.jsonl", '{"name": true, "labels": "b"}', "row 1: expected 'name' and 'labels'"),
        (
            "x.jsonl",
            '{"name": "a", "answer": {"b": 1}}',
            "row 1, answer: expected a text or a list of labels, found dict",
        ),
        ("x.json", '["a"]', "x.json, row 1: expected an object, found 'a'"),
        ("x.json", '{"a": "x", "a": "y"}', "key 'a' comes twice"),
        ("x.csv", "name,labels\na,sad, anxious\n", "x.csv, line 2: 3 cells for 2 columns"),
        ("x.npz", "no archive", "x.npz: "),
        ("x.txt", "a", "expected one of .jsonl, .csv"),
    ],
)
def test_unusable_files_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        read_answers(tmp_path / name)


def test_npz_is_never_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    trap = np.array([Trap()], dtype=object)
    np.savez(tmp_path / "x.npz", filenames=trap, fileitems=trap)
    with pytest.raises(ValueError, match=r"x\.npz: Object arrays cannot be loaded"):
        read_answers(tmp_path / "x.npz")
    assert not (tmp_path / "sprung").exists()
    np.savez(tmp_path / "y.npz", other=np.zeros(1))
    with pytest.raises(ValueError, match="expected the arrays filenames and fileitems, found other"):
        read_answers(tmp_path / "y.npz")
    np.savez(tmp_path / "z.npz", filenames=np.array(["a", "b"]), fileitems=np.array(["x"]))
    with pytest.raises(ValueError, match="2 filenames and 1 fileitems"):
        read_answers(tmp_path / "z.npz")


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.csv: no such file"):
        read_answers(tmp_path / "nothing.csv")


def test_matching_by_name(tmp_path):
    (tmp_path / "truth.csv").write_text("name,labels\na,[x]\nb,[y]\nc,[z]\n")
    (tmp_path / "answers.csv").write_text("name,labels\nb,[2]\nd,[4]\na,[1]\n")
    truth, answers = read_answers(tmp_path / "truth.csv"), read_answers(tmp_path / "answers.csv")
    with pytest.raises(NameMismatchError, match=r"without a prediction: 1 \(c\); without a reference: 1 \(d\)"):
        match(truth, answers)
    assert match(truth, answers, common=True) == (["a", "b"], ["[x]", "[y]"], ["[1]", "[2]"])
    (tmp_path / "others.csv").write_text("name,labels\nq,[2]\n")
    with pytest.raises(NameMismatchError, match="no name in common"):
        match(truth, read_answers(tmp_path / "others.csv"), common=True)
    many = "".join(f"n{i},[x]\n" for i in range(40))
    (tmp_path / "many.csv").write_text(f"name,labels\n{many}")
    with pytest.raises(NameMismatchError, match=r"without a prediction: 40 \(n0, .*n9, \.\.\.\)"):
        match(read_answers(tmp_path / "many.csv"), answers)


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """`data` after one to three accidents: flipped bits, a cut, a piece put elsewhere, a strange block."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        start, end = sorted(rng.integers(0, len(data) + 1, size=2).tolist())
        match rng.integers(4):
            case 0:
                for position in rng.integers(0, max(len(data), 1), size=5).tolist():
                    if position < len(data):
                        data[position] ^= 1 << int(rng.integers(8))
            case 1:
                del data[start : min(end, start + 40)]
            case 2:
                data[start:start] = data[end : end + 30]
            case 3:
                data[start:start] = rng.choice(np.frombuffer(b'\0\xff",;[]{}\n\r\t\\', "u1"), size=6).tobytes()
    return bytes(data)


@pytest.mark.parametrize("seeds", [range(20), pytest.param(range(20, 520), marks=pytest.mark.slow)], ids=len)
def test_damaged_files_are_read_or_refused(tmp_path, seeds):
    """Six kinds of files for every seed; whatever is read goes on to scores."""
    names = [f"clip_{i}" for i in range(6)]
    labels = ["[happy, sad]", "['angry']", '["calm"]', "[]", "开心、难过", "none"]
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in [("name", "labels"), *zip(names, labels, strict=True)]:
        book.active.append(row)
    book.save(tmp_path / "good.xlsx")
    np.savez(tmp_path / "good.npz", filenames=np.array(names), fileitems=np.array(labels))
    rows = [{"name": name, "labels": text} for name, text in zip(names, labels, strict=True)]
    write_json_lines(tmp_path / "good.jsonl", rows)
    (tmp_path / "good.json").write_text(json.dumps(dict(zip(names, labels, strict=True))))
    with open(tmp_path / "good.csv", "w", newline="") as file:
        csv.writer(file).writerows([("name", "labels"), *zip(names, labels, strict=True)])
    (tmp_path / "text.json").write_text(json.dumps([{"name": name, "answer": f"He is {name}."} for name in names]))
    truth = read_answers(tmp_path / "good.csv")
    for seed in seeds:
        for good in sorted(tmp_path.glob("*.*")):
            if good.stem == "bad":
                continue
            path = tmp_path / f"bad{good.suffix}"
            path.write_bytes(damaged(good.read_bytes(), np.random.default_rng(seed)))
            try:
                answers = read_answers(path)
                found, _ = labels_of(answers)
                paired = match(truth, Answers(path, "labels", found), common=True)
            except ValueError as error:
                assert str(error).startswith(str(path)), (seed, good.name)
            else:
                assert 0 <= wheel_scores(*paired).summary()["labels"] < 10
