"""Facial actions over time: their signs, the pose of the head, frames without a face, and the file."""

import csv

import numpy as np
import pytest
from typer.testing import CliRunner

from microemo.commands.main import app
from microemo.inference.facial_actions import (
    ACTION_NAMES,
    BLENDSHAPES_OF,
    FacialActions,
    _from_geometry,
    _steady_points,
    check_csv,
    face_front,
    facial_actions,
    write_facial_actions,
)
from microemo.processing.faces.face_mesh_backends import BLENDSHAPE_NAMES
from microemo.processing.media import MediaError

STEADY, _, CANONICAL = _steady_points()
COLUMNS = ["frame", "face_id", "timestamp", "confidence", "success", "pose_Rx", "pose_Ry", "pose_Rz", "source"]


def rotation(x: float, y: float, z: float) -> np.ndarray:
    """R = Rx Ry Rz, as OpenFace's `Euler2RotationMatrix`."""
    cos, sin = np.cos([x, y, z]), np.sin([x, y, z])
    about_x = np.array([[1, 0, 0], [0, cos[0], -sin[0]], [0, sin[0], cos[0]]])
    about_y = np.array([[cos[1], 0, sin[1]], [0, 1, 0], [-sin[1], 0, cos[1]]])
    about_z = np.array([[cos[2], -sin[2], 0], [sin[2], cos[2], 0], [0, 0, 1]])
    return about_x @ about_y @ about_z


def head(angles: tuple[float, float, float], scale: float = 20.0) -> np.ndarray:
    """Landmarks of a turned head in pixels, `(1, 478, 3)`: the canonical points, and random ones in place of the others."""
    face = np.random.default_rng(0).normal(size=(478, 3))
    face[STEADY] = CANONICAL
    return (scale * face @ rotation(*angles).T + [320, 180, 5])[None]


@pytest.mark.parametrize("angles", [(0, 0, 0), (0.3, 0, 0), (0, -0.5, 0), (0, 0, 0.7), (-0.2, 0.4, -0.3)])
def test_the_pose_is_the_rotation_of_the_head_and_the_face_is_turned_back(angles):
    turned, pose = face_front(head(angles))
    np.testing.assert_allclose(pose[0], angles, atol=1e-9)
    front, _ = face_front(head((0, 0, 0), scale=35))
    np.testing.assert_allclose(turned, front, atol=1e-9)
    assert np.linalg.norm(turned[0, 33] - turned[0, 263]) == pytest.approx(1)


def test_directions_of_the_pose_are_those_of_openface():
    """The tip of the nose moves down with a positive rotation about x, and to the left with one about y."""
    straight = head((0, 0, 0))[0, 4]
    assert head((0.3, 0, 0))[0, 4, 1] > straight[1]
    assert head((0, 0.3, 0))[0, 4, 0] < straight[0]
    eyes = head((0, 0, 0.3))[0][[33, 263]]
    assert eyes[1, 1] > eyes[0, 1], "the eye on the right of the picture sinks: clockwise"


def test_actions_have_their_signs():
    """Of two faces the second one smiles, opens its mouth, raises its brows, and closes its eyes."""
    faces, _ = face_front(np.repeat(head((0, 0, 0)), 3, axis=0))
    up, right = np.array([0, -0.05, 0]), np.array([0.05, 0, 0])
    # Points that the actions are measured between, where they lie in a face.
    for point, place in {13: (0, 0.4), 14: (0, 0.42), 0: (0, 0.35), 17: (0, 0.5), 152: (0, 1.05)}.items():
        faces[:, point, :2] = place
    faces[:, 61], faces[:, 291] = [-0.28, 0.4, 0], [0.28, 0.4, 0]
    changed = {
        "AU01": {55: up, 285: up},
        "AU02": {105: up, 334: up},
        "AU12": {61: up - right, 291: up + right},
        "AU26": {14: -up, 17: -up, 152: -up},
    }
    for name, moves in changed.items():
        moved = faces.copy()
        for point, move in moves.items():
            moved[2, point] += move
        strength = _from_geometry(moved)[name]
        assert strength[:2] == pytest.approx([0, 0]) and strength[2] > 0.04, name


def test_blendshapes_of_the_action_units_exist():
    assert {name for names in BLENDSHAPES_OF.values() for name in names} <= set(BLENDSHAPE_NAMES)
    assert set(BLENDSHAPES_OF) == set(ACTION_NAMES) >= set(_from_geometry(np.zeros((1, 478, 3))))


def test_every_frame_and_a_rate(demo_clip):
    every, some = facial_actions(demo_clip), facial_actions(demo_clip, fps=2)
    assert every.source == "geometry" and every.success.all()
    assert len(every.times) == len(every.frames) > 3 * len(some.times)
    np.testing.assert_array_equal(some.times, every.times[np.isin(every.frames, some.frames)])
    for name, strength in every.actions.items():
        assert strength.shape == every.times.shape
        assert np.median(strength) == pytest.approx(0, abs=1e-9), f"{name} is relative to the person's median"
    assert np.abs(every.pose).max() < np.pi / 2


def test_frames_without_a_face_are_empty_cells(make_clip, tmp_path):
    grey = make_clip("grey.mp4", picture=np.full((240, 320, 3), 128, np.uint8))
    actions = facial_actions(grey, fps=5)
    assert not actions.success.any() and np.isnan(actions.pose).all()
    path = write_facial_actions(actions, tmp_path / "new" / "grey.csv")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 and list(rows[0])[: len(COLUMNS)] == COLUMNS
    for row in rows:
        assert row["success"] == "0" and float(row["confidence"]) == 0
        assert {row[name] for name in row if name.startswith(("pose_", "AU"))} == {""}


def test_the_file_reads_as_numbers(demo_clip, tmp_path):
    pd = pytest.importorskip("pandas")
    actions = facial_actions(demo_clip, fps=3)
    table = pd.read_csv(write_facial_actions(actions, tmp_path / "Zoë, 'take 1'.csv"))
    assert list(table) == [name.strip() for name in table] == list(actions.columns())
    assert list(table.columns[: len(COLUMNS)]) == COLUMNS
    assert table.drop(columns="source").dtypes.map(lambda kind: kind.kind in "if").all()
    assert table["frame"].iloc[0] == 1 and (table["source"] == "geometry").all()
    np.testing.assert_allclose(table["AU12_geo"], actions.actions["AU12"], atol=1e-4)


def test_decoded_frames_keep_their_places(make_clip):
    pictures = np.full((4, 240, 320, 3), 128, np.uint8)
    assert facial_actions(pictures).frames.tolist() == [0, 1, 2, 3]


def test_what_cannot_be_used_is_refused(make_clip, tmp_path):
    with pytest.raises(ValueError, match="fps must be positive, got 0"):
        facial_actions("clip.mp4", fps=0)
    with pytest.raises(MediaError, match="tone.m4a has no video stream"):
        facial_actions(make_clip("tone.m4a", []))
    with pytest.raises(ValueError, match=r"actions\.txt: facial actions are written as a \.csv file"):
        check_csv("actions.txt")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.task"):
        facial_actions(make_clip("one.mp4"), face_mesh_model="nowhere.task")


def test_the_command(make_clip, tmp_path):
    clip, output = make_clip("one.mp4"), tmp_path / "one.csv"
    result = CliRunner().invoke(app, ["actions", str(clip), "--output", str(output), "--fps", "5"])
    assert result.exit_code == 0, result.output
    assert f"{output}: 5 frames, 5 with the face; actions from geometry" in result.stdout
    result = CliRunner().invoke(app, ["actions", str(clip), "--output", str(tmp_path / "one.xlsx")])
    assert isinstance(result.exception, ValueError) and not (tmp_path / "one.xlsx").exists()


def test_blendshapes_and_geometry_agree(shared, tmp_path):
    """A man who goes from neutral to a smile and back."""
    model = shared / "models" / "face_landmarker.task"
    clip = shared / "data" / "clips" / "free" / "pf_single_face.mp4"
    if not model.is_file():
        pytest.skip(f"no {model}")
    measured: FacialActions = facial_actions(clip, fps=15)
    learned = facial_actions(clip, fps=15, face_mesh_model=model)
    assert learned.source == "blendshapes" and "AU12_bs" in learned.columns()
    for name, least in {"AU01": 0.7, "AU12": 0.9, "AU26": 0.8, "AU45": 0.8}.items():
        assert np.corrcoef(measured.actions[name], learned.actions[name])[0, 1] > least, name
    assert all(strength.min() >= 0 and strength.max() <= 1 for strength in learned.actions.values())
    np.testing.assert_allclose(measured.pose, learned.pose, atol=0.1)
