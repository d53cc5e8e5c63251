"""Any folder of photographs is read, and nobody is in two splits."""

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("cv2", reason="faces act with OpenCV")

from microemo.training.synthetic.photographs import actor_of, read_photographs


def _images(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((24, 16, 3), 90, np.uint8)).save(folder / name)
    return folder


def _ids(folder, split=None):
    return [person.id for person in read_photographs(folder, split)]


ROWS = """file,person,split,kind,gender,group
a1.png,anna,train,neutral,female,x
a2.png,anna,train,smiling,female,x
b.png,ben,test,neutral,,
c.png,cleo,test,smiling,female,
"""


@pytest.fixture
def listed(tmp_path):
    folder = _images(tmp_path / "faces.2", "a1.png", "a2.png", "b.png", "c.png")
    (folder / "faces.csv").write_text(ROWS)
    return folder


def test_a_list_tells_who_is_who(listed):
    (anna,) = read_photographs(listed, "train")
    assert (anna.id, anna.neutral.name, anna.smiling.name) == ("anna", "a1.png", "a2.png")
    assert (anna.gender, anna.group) == ("female", "x")
    (ben,) = read_photographs(listed, "test")  # of cleo no neutral photograph is known
    assert (ben.id, ben.smiling, ben.gender) == ("ben", None, None)
    with pytest.raises(ValueError, match="no neutral photograph of the split 'dev'"):
        read_photographs(listed, "dev")


def test_a_list_may_lie_beside_the_folder(listed):
    (listed / "faces.csv").unlink()
    rows = ROWS.replace("\na1", "\nfaces.2/a1").replace("\na2", "\nfaces.2/a2").replace("\nb", "\nfaces.2/b")
    (listed.parent / "faces.2.csv").write_text(rows.replace("\nc", "\nelsewhere/c"))
    assert _ids(listed) == ["anna", "ben"]


@pytest.mark.parametrize(
    ("old", "new", "error", "message"),
    [
        ("anna,train,smiling", "anna,dev,smiling", ValueError, "anna is in two splits"),
        ("ben,test", "ben,", ValueError, "'ben' has no split, and others have one"),
        ("anna,train,smiling", "anna,train,laughing", ValueError, "the kind of a2.png is 'laughing'"),
        ("a2.png", "a3.png", FileNotFoundError, "a3.png"),
    ],
)
def test_a_list_with_a_fault_is_refused(listed, old, new, error, message):
    (listed / "faces.csv").write_text(ROWS.replace(old, new))
    with pytest.raises(error, match=message):
        read_photographs(listed, "train")


@pytest.mark.parametrize("count", [3, 4, 5, 12, 40])
def test_without_a_list_nobody_is_in_two_splits(tmp_path, count):
    folder = _images(tmp_path, *(f"{number}.{'jpg' if number % 2 else 'png'}" for number in range(count)))
    splits = [set(_ids(folder, split)) for split in ("train", "dev", "test")]
    assert all(splits) and sum(map(len, splits)) == count == len(set.union(*splits))
    assert count < 12 or abs(len(splits[0]) - 2 / 3 * count) < 1


def test_one_person_is_in_all_splits(tmp_path):
    folder = _images(tmp_path, "below/me.JPG", "below/me.png")
    assert _ids(folder, "train") == _ids(folder, "dev") == _ids(folder, "test") == ["below/me.JPG", "below/me.png"]


def test_no_folder_and_no_face(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_photographs(tmp_path / "nowhere")
    (person,) = read_photographs(_images(tmp_path, "wall.png"))
    with pytest.raises(ValueError, match=r"wall\.png: no face in the photograph of 16 x 24 pixels"):
        actor_of(person)
