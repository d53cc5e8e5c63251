"""Users' files read without loss, and the log that writes to nothing but its own."""

import csv
import io
import json
import os
import string

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from microemo.utils.files import (
    JsonLinesLog,
    read_json,
    read_json_lines,
    read_table,
    read_text,
    write_json_lines,
)

EXAMPLES = [60, pytest.param(2000, marks=pytest.mark.slow)]
KEYS = ("name", "answer", "system")


def hold(examples, check, *strategies):
    quiet = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    settings(max_examples=examples, deadline=None, suppress_health_check=quiet)(given(*strategies)(check))()


# --- JSON ---

ROWS = [{"name": "c1", "labels": ["happy"]}, {"name": "ünï\u2028", "labels": []}]
LINES = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)


@pytest.mark.parametrize(
    "data",
    [
        LINES.encode(),  # no final newline: the last row counts
        f"{LINES}\n".encode(),
        f"\ufeff{LINES}\n".encode(),
        LINES.replace("\n", "\r\n").encode(),
        f"\n\n{LINES}\n  \n".encode(),
        f"{LINES}\n".encode("utf-16"),
    ],
)
def test_every_form_of_a_json_lines_file_is_read_in_full(tmp_path, data):
    (tmp_path / "x.jsonl").write_bytes(data)
    assert read_json_lines(tmp_path / "x.jsonl") == ROWS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1}\n{"a": 2', r"x\.jsonl, line 2: not JSON .*: '\{\"a\": 2'"),
        ('{"a": 1}\n[1]\n', "line 2: expected a JSON object, found '\\[1\\]'"),
        ('[{"a": 1},\n {"a": 2}]\n', "line 1: .*; the file is one JSON document: name it .json"),
        ('[{"a": 1}, {"a": 2}]', "line 1: .*; the file is one JSON document: name it .json"),
        ('{\n"a": 1\n}\n', "line 1: .*; the file is one JSON document: name it .json"),
        ('{"a": 1, "a": 2}\n', "line 1: not JSON \\(key 'a' comes twice\\)"),
        ('{"a": Infinity}\n', "line 1: not JSON \\(Infinity is no value\\)"),
        ('{"a": "\\ud83d"}\n', "line 1: not JSON \\(half of a surrogate pair"),
        ('{"a": 1}{"a": 2}\n', "line 1: not JSON"),
        ("[" * 100000, "line 1: not JSON \\(nested too deep\\)"),
        ("null\n", "line 1: expected a JSON object, found 'null'"),
    ],
)
def test_what_a_json_lines_file_cannot_hold_is_named_with_its_line(tmp_path, text, message):
    (tmp_path / "x.jsonl").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_json_lines(tmp_path / "x.jsonl")


def test_json_documents(tmp_path):
    (tmp_path / "x.json").write_text('\ufeff{"a": NaN, "b": "\\ud83d\\ude00"}', encoding="utf-8")
    assert read_json(tmp_path / "x.json") == {"a": None, "b": "😀"}
    (tmp_path / "x.json").write_text('{"a": "[x]", "a": "[y]"}')  # an answer would be lost
    with pytest.raises(ValueError, match=r"x\.json: not JSON \(key 'a' comes twice\)"):
        read_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_text('{"a": 1}\n{"a": 2}\n')
    with pytest.raises(ValueError, match="a file with an object a line is named .jsonl"):
        read_json(tmp_path / "x.json")


def test_text_in_another_encoding_is_named(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes("one\ntwo caf\xe9".encode("cp1252"))
    with pytest.raises(ValueError, match=r"x\.txt, line 2: not UTF-8 text \(byte 0xe9\); save it as UTF-8"):
        read_text(path)
    path.write_bytes("one\ntwo".encode("utf-16-le"))  # without its mark
    with pytest.raises(ValueError, match=r"x\.txt, line 1: a NUL character"):
        read_text(path)
    path.write_bytes("one".encode("utf-16")[:-1])
    with pytest.raises(ValueError, match="not UTF-16 text"):
        read_text(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_written_json_lines_read_back(tmp_path, examples):
    def check(rows, final):
        write_json_lines(tmp_path / "x.jsonl", rows)
        if not final:
            os.truncate(tmp_path / "x.jsonl", max(0, (tmp_path / "x.jsonl").stat().st_size - 1))
        assert read_json_lines(tmp_path / "x.jsonl") == rows

    rows = st.lists(st.dictionaries(st.text(max_size=5), JSON, max_size=4), max_size=5)
    hold(examples, check, rows, st.booleans())


# --- tables ---


@pytest.mark.parametrize(
    "data",
    [
        b'name,labels\nc1,"happy, sad"\nc2,\n',
        b'\xef\xbb\xbfname,labels\r\nc1,"happy, sad"\r\nc2,\r\n',
        b'name;labels\nc1;"happy, sad"\nc2;',
        b"name\tlabels\nc1\thappy, sad\nc2\t\n",
        b"sep=;\r\nname;labels\r\nc1;happy, sad\r\nc2;\r\n",  # as Excel writes it
        'name\tlabels\nc1\t"happy, sad"\nc2\t\n'.encode("utf-16"),  # "Unicode text" of Excel
        b'\n name , labels \n\nc1,"happy, sad"\n,\nc2,\n\n',
        b'name,labels\rc1,"happy, sad"\rc2,\r',
        b'name,labels,\nc1,"happy, sad",\nc2,,\n',  # a column without a name and without content is none
    ],
)
def test_every_form_of_a_table_is_read_in_full(tmp_path, data):
    (tmp_path / "x.csv").write_bytes(data)
    assert read_table(tmp_path / "x.csv") == [{"name": "c1", "labels": "happy, sad"}, {"name": "c2", "labels": ""}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "name,labels\nc1,happy\nc2,sad, anxious\n",
            r"x\.csv, line 3: 3 cells for 2 columns \(name, labels\): .*anxious",
        ),
        ('name,labels\n"c\n1",happy\nc2\n', r"x\.csv, line 4: 1 cells for 2 columns \(name, labels\): \['c2'\]"),
        ("name;labels\nc1;happy;sad\n", "line 2: 3 cells for 2 columns"),
        (",name,labels\n0,c1,happy\n", r"column 1 has no name \(''\); .* to_csv\(index=False\)"),
        ("Unnamed: 0,name,labels\n0,c1,happy\n", r"column 1 has no name \('Unnamed: 0'\); .* to_csv\(index=False\)"),
        ("name,labels,labels\nc1,happy,sad\n", "column 'labels' comes twice"),
        ("", "no header"),
        ("\n\n", "no header"),
        (",,\n", "no header"),
        ('name,labels\nc1,"happy\nc2,sad\n', r"x\.csv, line 2: a row that cannot be read, perhaps for a quote"),
        ('name,labels\nc1,"happy"ness\n', "line 2: a row that cannot be read, perhaps for a quote"),
        ("name,labels\nc1,a\0b\n", "line 2: a NUL character"),
        ("name,labels\nc1," + "x" * 200_000 + "\n", "line 2: a row that cannot be read"),
    ],
)
def test_what_a_table_cannot_hold_is_named_with_its_line(tmp_path, text, message):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_table(tmp_path / "x.csv")


def test_xlsx_tables_follow_the_same_rules(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")

    def read(*rows):
        book = openpyxl.Workbook()
        for row in rows:
            book.active.append(row)
        book.save(tmp_path / "x.xlsx")
        return read_table(tmp_path / "x.xlsx")

    assert read(["name", "val"], ["c1", 3], [None, None], ["c2", None]) == [
        {"name": "c1", "val": "3"},
        {"name": "c2", "val": ""},
    ]
    with pytest.raises(ValueError, match="column 3 has no name"):
        read(["name", "val"], ["c1", 3, "beyond the header"])
    with pytest.raises(ValueError, match="column 'name' comes twice"):
        read(["name", "name"], ["c1", 3])
    with pytest.raises(ValueError, match="no header"):
        read()
    (tmp_path / "x.xlsx").write_bytes(b"PK\3\4 no workbook")
    with pytest.raises(ValueError, match=r"x\.xlsx: not an \.xlsx file that can be read"):
        read_table(tmp_path / "x.xlsx")


CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
NAME = st.text(string.ascii_letters + "_é中 ", min_size=1, max_size=8).map(str.strip).filter(bool)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_written_tables_read_back(tmp_path, examples):
    def check(table, separator, end, encoding):
        header, rows = table
        text = io.StringIO(newline="")
        writer = csv.writer(text, delimiter=separator, lineterminator=end, quoting=csv.QUOTE_ALL)
        writer.writerows([header, *rows])
        (tmp_path / "x.csv").write_bytes(text.getvalue().encode(encoding))
        wanted = [dict(zip(header, row, strict=True)) for row in rows if any(cell.strip() for cell in row)]
        assert read_table(tmp_path / "x.csv") == wanted

    tables = st.lists(NAME, min_size=2, max_size=4, unique=True).flatmap(
        lambda header: st.tuples(
            st.just(header), st.lists(st.lists(CELL, min_size=len(header), max_size=len(header)), max_size=4)
        )
    )
    forms = [st.sampled_from(one) for one in (",;\t", ["\n", "\r\n"], ["utf-8", "utf-8-sig", "utf-16"])]
    hold(examples, check, tables, *forms)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_any_bytes_are_read_or_refused_by_name(tmp_path, examples):
    def check(data):
        for suffix, read in (("csv", read_table), ("jsonl", read_json_lines), ("json", read_json)):
            path = tmp_path / f"x.{suffix}"
            path.write_bytes(data)
            try:
                read(path)
            except ValueError as error:
                assert str(error).startswith(str(path))

    pieces = [
        b"name,labels\n",
        b'"',
        b",",
        b"\n",
        b"\r",
        b"c1,happy",
        b'{"a": 1}',
        b"{",
        b"[",
        b"]",
        b"\xff\xfe",
        b"\0",
    ]
    noisy = st.lists(st.sampled_from(pieces) | st.binary(max_size=4), max_size=10).map(b"".join)
    hold(examples, check, st.binary(max_size=60) | noisy)


# --- our own log ---

LINE = b'{"name": "c1", "answer": "h\xc3\xa4ppy", "system": "s"}\n'
FOREIGN = {
    "notes.json": b'{"important": "my only copy"}',
    "indented.json": b'{\n  "a": 1\n}\n',
    "table.csv": b"name,labels\nc1,happy\n",
    "notes.txt": b"my only copy",
    "others.jsonl": b'{"name": "c1", "labels": ["happy"]}\n',
    "data.jsonl": b'{"name": "c1", "video": "a.mp4"}\n{"name": "c2", "video": "b',
    "mixed.jsonl": LINE + b'{"name": "c2", "answer": "x"}\n',
    "more.jsonl": b'{"name": "c1", "answer": "x", "system": "s", "rating": 5}\n',
    "remark.jsonl": LINE + b"to do: look at this",
    "half.jsonl": LINE + b'{"video": "a',
    "picture.png": b"\x89PNG\r\n\x1a\n\0\0",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_that_is_not_ours_is_refused_and_not_touched(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(FOREIGN[name])
    before = path.stat()
    with pytest.raises(ValueError, match=f"{name}, line .* the file is left as it is"):
        JsonLinesLog(path, KEYS)
    assert path.read_bytes() == FOREIGN[name] and path.stat().st_mtime_ns == before.st_mtime_ns
    with pytest.raises(ValueError, match="no ordinary file"):
        JsonLinesLog(tmp_path, KEYS)


def test_without_keys_a_log_keeps_to_those_it_finds(tmp_path):
    path = tmp_path / "notes.json"
    path.write_bytes(FOREIGN["notes.json"])
    with (
        JsonLinesLog(path) as log,
        pytest.raises(ValueError, match="rows have important; cannot append one with name"),
    ):
        log.append([{"name": "c1"}])
    assert path.read_bytes() == FOREIGN["notes.json"]


@pytest.mark.parametrize("cut", range(len(LINE) + 1))
def test_a_line_cut_anywhere_is_finished_or_cut_off_with_the_next_append(tmp_path, cut):
    """Also in the middle of a character, and for the first line of all."""
    for whole in (b"", LINE):
        path = tmp_path / "log.jsonl"
        path.write_bytes(whole + LINE[:cut])
        complete = cut >= len(LINE) - 1
        with JsonLinesLog(path, KEYS) as log:
            assert len(log.rows) == len(whole.splitlines()) + complete
            assert path.read_bytes() == whole + LINE[:cut]  # opening changes nothing
            log.append([{"name": "c2", "answer": "x", "system": "s"}])
        assert path.read_bytes() == whole + complete * LINE + LINE.replace(b"c1", b"c2").replace(
            "häppy".encode(), b"x"
        )
        assert len(read_json_lines(path)) == len(log.rows)


def test_a_log_has_one_writer_and_takes_any_text(tmp_path):
    path = tmp_path / "new" / "log.jsonl"
    with JsonLinesLog(path, KEYS) as log:
        with pytest.raises(OSError, match="another process is writing to it"):
            JsonLinesLog(path, KEYS)
        log.append([{"name": "c1", "answer": "half a pair: \ud83d", "system": "s"}])
    assert read_json_lines(path)[0]["answer"] == "half a pair: ?"
    path.write_bytes(b"\xef\xbb\xbf" + LINE.replace(b"\n", b"\r\n"))  # saved by an editor
    with JsonLinesLog(path, KEYS) as log:
        assert log.rows[0]["answer"] == "häppy"


@pytest.mark.parametrize("examples", EXAMPLES)
def test_no_bytes_are_lost_but_those_of_a_half_line(tmp_path, examples):
    def check(pieces):
        path, data = tmp_path / "log.jsonl", b"".join(pieces)
        path.write_bytes(data)
        try:
            with JsonLinesLog(path, KEYS) as log:
                log.append([{"name": "new", "answer": "", "system": "s"}])
        except ValueError:
            assert path.read_bytes() == data
        else:
            kept, half = data[: data.rfind(b"\n") + 1], data[data.rfind(b"\n") + 1 :]
            assert path.read_bytes().startswith(kept) and (b'{"name": '.startswith(half[:9]) or not half.strip())

    pieces = st.sampled_from([LINE, LINE, b"\n", LINE[:20], LINE[:-1], *FOREIGN.values()]) | st.binary(max_size=3)
    hold(examples, check, st.lists(pieces, max_size=5))
