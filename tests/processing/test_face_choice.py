"""Which faces are found in real clips and photographs, and which person is followed."""

import csv
from collections import defaultdict
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from microemo.processing.faces.face_choice import follow_person
from microemo.processing.faces.face_mesh import FaceMesh
from microemo.processing.faces.face_mesh_backends import BLENDSHAPE_NAMES, Face
from microemo.processing.frame_sampling import uniform_indices
from microemo.processing.media import Clip
from microemo.processing.video_processing_microemo import MicroEmoVideoProcessor

skimage = pytest.importorskip("skimage", reason="pictures with and without a face")

# Faces of some frames, read off contact sheets: a line for each face, a line without a box for a frame without one.
BOXES = Path(__file__).with_name("face_boxes.csv")


@cache
def checked_boxes() -> dict[str, dict[int, np.ndarray]]:
    """The boxes (faces, 4) of each clip's checked frames, as fractions."""
    lines = defaultdict(lambda: defaultdict(list))
    with BOXES.open(newline="") as file:
        for row in csv.DictReader(file):
            box = [row[side] for side in ("left", "top", "right", "bottom")]
            lines[row["clip"]][int(row["frame"])] += [[float(side) for side in box]] if row["left"] else []
    return {clip: {n: np.reshape(boxes, (-1, 4)) for n, boxes in frames.items()} for clip, frames in lines.items()}


def clips() -> list[str]:
    return list(checked_boxes())


def is_on(face: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Which of the boxes a face (478, 3) is the face of: its middle lies inside, its height fits."""
    low, high = face[:, :2].min(0), face[:, :2].max(0)
    middle, height = (low + high) / 2, (high - low)[1]
    tall = boxes[:, 3] - boxes[:, 1]
    is_inside = ((boxes[:, :2] <= middle) & (middle <= boxes[:, 2:])).all(1)
    return is_inside & (0.5 * tall < height) & (height < 2 * tall)


def upright(frame) -> np.ndarray:
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90) % 4))


def small_copy(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    size = (max(1, round(width * min(1, 360 / height))), min(height, 360))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))


def look(mesh: FaceMesh, picture: np.ndarray) -> list[Face]:
    return mesh.faces(small_copy(picture), lambda: picture)


@pytest.fixture
def bundle(shared) -> Path:
    """MediaPipe's official `face_landmarker.task`."""
    path = shared / "models" / "face_landmarker.task"
    if not path.is_file():
        pytest.skip(f"no {path}")
    return path


class TestSharedClips:
    @pytest.mark.parametrize("clip", clips())
    def test_faces_are_those_of_the_checked_boxes(self, shared, clip):
        frames = checked_boxes()[clip]
        with Clip(shared / "data" / "clips" / clip) as file:
            _, _, pictures = file.read(lambda _: np.array(sorted(frames)), upright)
        mesh, found, wanted = FaceMesh(), 0, sum(map(len, frames.values()))
        for number, picture in zip(sorted(frames), pictures, strict=True):
            faces = look(mesh, picture)
            hits = [is_on(face.landmarks, frames[number]) for face in faces]
            assert all(hit.any() for hit in hits), f"frame {number}: {[face.box for face in faces]} is no face"
            found += sum(hits).astype(bool).sum() if hits else 0
        assert found == wanted

    def test_the_official_bundle_finds_them_too(self, shared, bundle):
        mesh, found, wanted = FaceMesh(bundle), 0, 0
        for clip in ("free/intel_asl_again.mkv", "free/intel_two_faces.mp4", "derived/small_face_in_720p.mp4"):
            frames = checked_boxes()[clip]
            with Clip(shared / "data" / "clips" / clip) as file:
                _, _, pictures = file.read(lambda _, of=frames: np.array(sorted(of)), upright)
            for number, picture in zip(sorted(frames), pictures, strict=True):
                hits = [is_on(face.landmarks, frames[number]) for face in look(mesh, picture)]
                assert all(hit.any() for hit in hits), (clip, number)
                found, wanted = found + len(hits), wanted + len(frames[number])
        assert found == wanted

    @pytest.mark.parametrize("view", ["frame", "face_crop"])
    def test_the_shirt_is_not_followed(self, shared, view):
        clip = "free/intel_asl_again.mkv"
        processor = MicroEmoVideoProcessor(num_frames=24, local_view=view)
        seen = processor(shared / "data" / "clips" / clip)["video_metadata"][0]
        boxes = np.concatenate(list(checked_boxes()[clip].values()))
        assert all(is_on(face, boxes).any() for face in seen.landmarks)

    @pytest.mark.parametrize("clip", ["free/intel_two_faces.mp4", "free/intel_three_people_walk_in.mp4"])
    def test_the_same_person_in_all_frames(self, shared, clip):
        for num_frames in (8, 24):
            seen = MicroEmoVideoProcessor(num_frames=num_frames)(shared / "data" / "clips" / clip)["video_metadata"][0]
            middles = (seen.landmarks[..., 0].min(1) + seen.landmarks[..., 0].max(1)) / 2
            assert np.isfinite(middles).all()
            assert np.abs(np.diff(middles)).max() < 0.15  # the next person is 0.3 of the width away
            assert min(seen.faces_found) >= 2

    def test_blendshapes_of_the_followed_face(self, shared, bundle):
        clip = shared / "data" / "clips" / "free" / "pf_face_noface.mov"
        seen = MicroEmoVideoProcessor(num_frames=8, face_mesh_model=str(bundle))(clip)["video_metadata"][0]
        assert seen.blendshapes.shape == (8, 52) and seen.blendshapes.dtype == np.float32
        has_face = np.array(seen.faces_found) > 0
        np.testing.assert_array_equal(np.isnan(seen.blendshapes).any(1), ~has_face)
        smile = seen.blendshapes[:, BLENDSHAPE_NAMES.index("mouthSmileLeft")]
        assert smile[0] < 0.2 < 0.6 < np.nanmax(smile)  # he smiles later on
        assert MicroEmoVideoProcessor(num_frames=2)(clip)["video_metadata"][0].blendshapes is None


class TestBlendshapes:
    def test_names_are_the_models(self, bundle):
        mesh = FaceMesh(bundle)
        result = mesh._backend()._landmarker.detect(mesh._backend()._image(skimage.data.astronaut()))
        assert tuple(shape.category_name for shape in result.face_blendshapes[0]) == BLENDSHAPE_NAMES
        shapes = mesh.blendshapes(skimage.data.astronaut())
        assert shapes.shape == (1, 52) and shapes[0, BLENDSHAPE_NAMES.index("mouthSmileRight")] > 0.5
        assert mesh.blendshapes(np.zeros((60, 60, 3), np.uint8)).shape == (0, 52)

    def test_the_wheels_model_has_none(self):
        with pytest.raises(ValueError, match=r"has no blendshapes.*face_landmarker\.task"):
            FaceMesh().blendshapes(skimage.data.astronaut())


class TestNoFaces:
    @pytest.mark.parametrize("name", ["brick", "grass", "gravel", "coffee", "cat", "rocket", "coins", "page", "text"])
    @pytest.mark.parametrize("size", [None, (640, 360), (1280, 720), (1920, 1080)])
    def test_pictures_without_a_face(self, name, size):
        try:
            picture = Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
        except Exception:  # a release of scikit-image that downloads this one
            pytest.skip(f"skimage.data.{name} is not in the wheel")
        picture = np.asarray(picture if size is None else picture.resize(size))
        assert look(FaceMesh(), picture) == []

    def test_parts_of_pictures(self):
        """What the mesh alone takes for a face in 7 of these 216 crops."""
        rng, mesh = np.random.default_rng(0), FaceMesh()
        for name in ("coffee", "cat", "rocket", "brick", "cell", "colorwheel"):
            picture = np.asarray(Image.fromarray(getattr(skimage.data, name)()).convert("RGB"))
            for _ in range(36):
                side = int(rng.uniform(0.15, 1) * min(picture.shape[:2]))
                top, left = (rng.integers(0, length - side + 1) for length in picture.shape[:2])
                crop = Image.fromarray(picture[top : top + side, left : left + side]).resize((256, 256))
                assert look(mesh, np.asarray(crop)) == [], name


class TestSmallFaces:
    @pytest.mark.parametrize("size", [(640, 360), (1280, 720), (1920, 1080)])
    def test_what_is_found_depends_on_pixels_not_on_the_frame(self, size):
        """A face of 60 pixels at 12 places of a busy picture; a copy of 360 lines shows it to the mesh at none."""
        head = Image.fromarray(skimage.data.astronaut()).crop((120, 0, 330, 220))  # its face is 106 pixels high
        head = head.resize((119, 124), Image.Resampling.LANCZOS)
        background = Image.fromarray(skimage.data.coffee()).resize(size)
        rng, mesh, found = np.random.default_rng(1), FaceMesh(), 0
        for _ in range(12):
            left, top = (int(rng.integers(0, side - length)) for side, length in zip(size, head.size, strict=True))
            picture = background.copy()
            picture.paste(head, (left, top))
            faces = look(mesh, np.asarray(picture))
            middles = [face.box.reshape(2, 2).mean(0) * size for face in faces]
            assert all(np.abs(middle - [left + 60, top + 70]).max() < 25 for middle in middles)
            found += len(faces)
        assert found >= 9

    def test_a_frame_is_asked_for_only_where_the_first_look_does_not_do(self):
        asked = []
        FaceMesh().faces(skimage.data.astronaut(), lambda: asked.append(1))
        assert not asked


def a_face(x: float, y: float, side: float, score: float = 0.9) -> Face:
    """A face whose box is a square round (x, y) of a picture as wide as high."""
    corners = np.array([[x - side / 2, y - side / 2, 0], [x + side / 2, y + side / 2, 0]], np.float32)
    return Face(np.resize(corners, (478, 3)), score)


def who(frames: list[list[Face]]) -> list[float | None]:
    """Where the followed person is: the middle's x in each frame."""
    chosen = follow_person(frames, (100, 100))
    return [
        None if i is None else round(float(faces[i].box[[0, 2]].mean()), 2)
        for i, faces in zip(chosen, frames, strict=True)
    ]


class TestFollowPerson:
    def test_two_people_side_by_side_of_whom_now_one_now_the_other_is_larger(self):
        frames = [[a_face(0.2, 0.5, 0.2 + 0.02 * (t % 2)), a_face(0.7, 0.5, 0.215)] for t in range(8)]
        assert who(frames) == [0.7] * 8
        assert who([faces[::-1] for faces in frames]) == [0.7] * 8
        assert who(frames[::-1]) == [0.7] * 8

    def test_the_other_does_not_step_in(self):
        frames = [[a_face(0.2, 0.5, 0.5), a_face(0.8, 0.5, 0.2)] for _ in range(6)]
        for absent in (0, 3, 5):
            del frames[absent][0]
        assert who(frames) == [None, 0.2, 0.2, None, 0.2, None]

    def test_a_large_thing_for_a_moment(self):
        frames = [[a_face(0.5, 0.2, 0.1)] for _ in range(6)]
        frames[2].append(a_face(0.5, 0.6, 0.4))
        assert who(frames) == [0.5] * 6

    def test_one_person_who_walks_fast_and_a_cut(self):
        walk = [[a_face(0.1 + 0.2 * t, 0.5, 0.1)] for t in range(4)]
        assert who(walk) == [0.1, 0.3, 0.5, 0.7]
        assert who([[a_face(0.2, 0.3, 0.1)], [a_face(0.6, 0.5, 0.5)], [], [a_face(0.6, 0.5, 0.5)]]) == [
            *(0.2, 0.6, None, 0.6),
        ]

    def test_people_who_come_nearer_are_not_confused(self):
        frames = [[a_face(0.3 - 0.02 * t, 0.5, 0.1 + 0.01 * t), a_face(0.5, 0.5, 0.1 + 0.02 * t)] for t in range(6)]
        assert who(frames) == [0.5] * 6

    def test_nobody(self):
        assert who([[], []]) == [None, None] and who([]) == []


def test_frames_in_another_order_hold_the_same_faces(shared):
    with Clip(shared / "data" / "clips" / "free" / "intel_asl_again.mkv") as file:
        _, _, pictures = file.read(lambda times: uniform_indices(len(times), 6), upright)
    mesh = FaceMesh()
    forth = [look(mesh, picture) for picture in pictures]
    back = [look(mesh, picture) for picture in pictures[::-1]][::-1]
    for ours, theirs in zip(forth, back, strict=True):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one.landmarks, other.landmarks)
