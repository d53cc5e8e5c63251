"""Files and folders are written whole or not at all, whatever ends the writing."""

import os
import resource
import signal

import pytest

from microemo.utils.atomic_files import NoSpaceError, atomic_file, atomic_folder, write_text


def test_a_file_is_replaced_in_one_step_or_stays_as_it_was(tmp_path):
    path = tmp_path / "new" / "scores.csv"
    with atomic_file(path) as part:
        assert part.suffix == ".csv" and part.parent == path.parent
        part.write_text("one")
        assert not path.exists()
    assert path.read_text() == "one"
    with pytest.raises(KeyboardInterrupt), atomic_file(path) as part:
        part.write_text("half")
        raise KeyboardInterrupt
    with pytest.raises(FileNotFoundError), atomic_file(path):
        pass  # nothing was written
    assert path.read_text() == "one" and [file.name for file in path.parent.iterdir()] == ["scores.csv"]
    with pytest.raises(IsADirectoryError, match="new is a folder"):
        write_text(path.parent, "x")


def test_a_link_stays_a_link_and_long_names_are_written(tmp_path):
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to("real.txt")
    write_text(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink() and (tmp_path / "real.txt").read_text() == "new"
    long = tmp_path / f"{'é' * 120}.txt"
    assert write_text(long, "x").read_text() == "x"


def test_a_folder_is_made_whole_or_not_at_all(tmp_path):
    with pytest.raises(ValueError, match="no"), atomic_folder(tmp_path / "run") as part:
        (part / "weights").write_text("half")
        raise ValueError("no")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "run").mkdir()  # an empty one may be there
    with atomic_folder(tmp_path / "run") as part:
        (part / "weights").write_text("whole")
        assert not any((tmp_path / "run").iterdir())
    assert (tmp_path / "run" / "weights").read_text() == "whole"
    with pytest.raises(FileExistsError, match="run exists and is not empty"), atomic_folder(tmp_path / "run"):
        raise AssertionError
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def write_on_a_full_disk(folder, kind):
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
    if kind == "file":
        with atomic_file(folder / "scores.csv") as part:
            part.write_bytes(bytes(10_000))
    else:
        with atomic_folder(folder / "run", 10_000) as part:
            (part / "first").write_bytes(bytes(4_000))
            with atomic_file(part / "second") as inner:
                inner.write_bytes(bytes(10_000))


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_full_disk_is_one_kind_of_error_and_leaves_nothing(in_fork, tmp_path, kind):
    """A limit on the size of files stands for the full disk."""
    (tmp_path / "scores.csv").write_text("old")
    code, error = in_fork(write_on_a_full_disk, tmp_path, kind)
    assert code == 1 and error.startswith("NoSpaceError: ") and error.count("Nothing was kept") == 1
    assert ("scores.csv" if kind == "file" else "second") in error
    assert [path.name for path in tmp_path.iterdir()] == ["scores.csv"] and (
        tmp_path / "scores.csv"
    ).read_text() == "old"


def test_too_little_room_is_found_before_anything_is_written(tmp_path):
    with pytest.raises(NoSpaceError, match=r"no space left: 1000000000000 MB are needed, \d+ MB are free"):  # noqa: SIM117
        with atomic_folder(tmp_path / "run", 10**18):
            raise AssertionError
    assert list(tmp_path.iterdir()) == []


def test_errors_of_other_libraries_for_a_full_disk_are_known(tmp_path):
    """safetensors and tokenizers have exceptions of their own; other errors stay what they are."""
    with pytest.raises(NoSpaceError, match="x: no space left"), atomic_file(tmp_path / "x"):
        raise RuntimeError("I/O error: No space left on device (os error 28)")
    with pytest.raises(RuntimeError, match="os error 280"), atomic_file(tmp_path / "x"):
        raise RuntimeError("os error 280")
    with pytest.raises(PermissionError), atomic_file(tmp_path / "x"):
        raise PermissionError(13, "no")


def write_and_be_killed(path):
    with atomic_file(path) as part:
        part.write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_writer_leaves_the_old_file(in_fork, tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("old")
    assert in_fork(write_and_be_killed, path) == (-signal.SIGKILL, "")
    assert path.read_text() == "old"
    write_text(path, "new")
    assert path.read_text() == "new"
