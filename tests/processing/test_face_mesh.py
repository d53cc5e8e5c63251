"""The face mesh on real pictures, in threads, workers and forks."""

import os
import pickle
import sys
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import mediapipe
import numpy as np
import pytest
from PIL import Image

from microemo.processing.faces import face_mesh, face_mesh_backends
from microemo.processing.faces.face_mesh import MODEL_FILE, FaceMesh, largest_face
from microemo.training.synthetic.media_writer import astronaut

pytest.importorskip("skimage", reason="the face is in scikit-image's photograph")

# Tip of the astronaut's nose as a fraction of the photograph, read off the picture.
NOSE_TIP, NOSE = 4, np.array([0.436, 0.255])


def scene(side: int, left: int, top: int) -> np.ndarray:
    """The photograph, `side` pixels wide, in a grey picture of 640 x 360."""
    canvas = np.full((360, 640, 3), 128, np.uint8)
    photograph = Image.fromarray(astronaut()).resize((side, side), Image.Resampling.BILINEAR)
    canvas[top : top + side, left : left + side] = photograph
    return canvas


class TestLandmarks:
    def test_a_face(self):
        faces = FaceMesh().landmarks(astronaut())
        assert faces.shape == (1, 478, 3) and faces.dtype == np.float32
        np.testing.assert_allclose(faces[0, NOSE_TIP, :2], NOSE, atol=0.02)

    def test_no_face(self):
        assert FaceMesh().landmarks(np.zeros((120, 160, 3), np.uint8)).shape == (0, 478, 3)

    def test_a_frame_does_not_depend_on_the_frames_before(self):
        mesh = FaceMesh()
        first = mesh.landmarks(astronaut())
        for other in (np.zeros((50, 60, 3), np.uint8), astronaut()[:, ::-1], scene(300, 20, 30)):
            mesh.landmarks(other)
        np.testing.assert_array_equal(mesh.landmarks(astronaut()), first)

    def test_small_face_by_a_second_look(self):
        small = scene(190, 400, 100)
        mesh = FaceMesh()
        assert len([face for face in mesh._backend().look(small) if face.score >= face_mesh.SURE]) == 0, (
            "the first look finds it: the test is void"
        )
        faces = mesh.landmarks(small)
        assert len(faces) == 1
        expected = (NOSE * 190 + (400, 100)) / (640, 360)
        np.testing.assert_allclose(faces[0, NOSE_TIP, :2], expected, atol=0.01)

    def test_largest_face(self):
        two = scene(340, 10, 10)
        two[50:300, 380:630] = np.asarray(Image.fromarray(astronaut()).resize((250, 250)))
        faces = FaceMesh().landmarks(two)
        assert len(faces) == 2
        expected = (NOSE * 340 + 10) / (640, 360)
        np.testing.assert_allclose(largest_face(faces)[NOSE_TIP, :2], expected, atol=0.02)
        np.testing.assert_array_equal(largest_face(faces[::-1]), largest_face(faces))
        assert largest_face(faces[:0]) is None

    @pytest.mark.parametrize(
        "picture", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((3, 4, 4), np.uint8)]
    )
    def test_bad_picture(self, picture):
        with pytest.raises(ValueError, match=r"\(H, W, 3\) uint8"):
            FaceMesh().landmarks(picture)


class TestProcesses:
    def test_threads_and_pickle(self):
        mesh = pickle.loads(pickle.dumps(FaceMesh()))
        expected = mesh.landmarks(astronaut())
        found = [None] * 4

        def look(index):
            found[index] = mesh.landmarks(astronaut())

        threads = [threading.Thread(target=look, args=(index,)) for index in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for faces in found:
            np.testing.assert_array_equal(faces, expected)

    def test_nothing_on_stderr(self, run_fresh):
        done = run_fresh(
            "from microemo.processing.faces.face_mesh import FaceMesh\n"
            "from microemo.training.synthetic.media_writer import astronaut\n"
            "import numpy, sys\n"
            "mesh = FaceMesh()\n"
            "print(len(mesh.landmarks(numpy.zeros((90, 90, 3), 'uint8'))), len(mesh.landmarks(astronaut())))\n"
            "print('still open', file=sys.stderr)\n"
        )
        assert (done.stdout, done.stderr) == ("0 1\n", "still open\n")

    def test_a_fork_after_use_is_refused(self, run_fresh):
        done = run_fresh(
            "import os\n"
            "from microemo.processing.faces.face_mesh import FaceMesh\n"
            "from microemo.training.synthetic.media_writer import astronaut\n"
            "FaceMesh().landmarks(astronaut())\n"
            "if os.fork() == 0:\n"
            "    try:\n"
            "        FaceMesh().landmarks(astronaut())\n"
            "    except RuntimeError as error:\n"
            "        print(error, flush=True)\n"
            "    os._exit(0)\n"
            "os.wait()\n"
        )
        assert done.returncode == 0, done.stderr
        assert "before the fork" in done.stdout and 'multiprocessing_context="spawn"' in done.stdout

    @pytest.mark.slow  # test_processing.py has workers of a processor that holds a face mesh
    def test_workers_of_a_parent_that_never_used_it(self, run_fresh):
        done = run_fresh(
            "import numpy as np\n"
            "from datasets import Dataset\n"
            "from torch.utils.data import DataLoader\n"
            "from microemo.processing.faces.face_mesh import FaceMesh\n"
            "from microemo.training.synthetic.media_writer import astronaut\n"
            "class Faces(list):\n"
            "    mesh = FaceMesh()\n"
            "    def __getitem__(self, index):\n"
            "        return len(self.mesh.landmarks(astronaut()))\n"
            "print(np.concatenate(list(DataLoader(Faces(range(6)), num_workers=2))).tolist())\n"
            "mesh = FaceMesh()\n"
            "count = lambda row: {'faces': len(mesh.landmarks(astronaut()))}\n"
            "print(Dataset.from_list([{'x': x} for x in range(4)]).map(count, num_proc=2)['faces'][:])\n"
        )
        assert done.stdout == "[1, 1, 1, 1, 1, 1]\n[1, 1, 1, 1]\n", done.stderr


@pytest.fixture
def own_task(tmp_path) -> Path:
    """A `face_landmarker.task` out of the models in MediaPipe's wheel.

    The official file cannot be had offline. Its mesh has another layout than the wheel's, of which the Tasks API reads
    the first landmark rightly and the others wrongly; all that stands between the file and the landmarks is real.
    """
    modules = Path(mediapipe.__file__).parent / "modules"
    path = tmp_path / MODEL_FILE
    with zipfile.ZipFile(path, "w") as bundle:
        bundle.write(modules / "face_detection" / "face_detection_short_range.tflite", "face_detector.tflite")
        bundle.write(modules / "face_landmark" / "face_landmark.tflite", "face_landmarks_detector.tflite")
    return path


class TestTasksBackend:
    def check(self, mesh: FaceMesh):
        faces = mesh.landmarks(astronaut())
        assert faces.shape == (1, 478, 3)
        np.testing.assert_allclose(faces[0, 0, :2], FaceMesh().landmarks(astronaut())[0, 0, :2], atol=0.005)
        assert mesh.landmarks(np.zeros((50, 50, 3), np.uint8)).shape == (0, 478, 3)

    def test_path(self, own_task):
        self.check(FaceMesh(own_task))

    def test_beside_the_checkpoint(self, own_task, monkeypatch):
        self.check(FaceMesh(MODEL_FILE, checkpoint=own_task.parent))
        monkeypatch.setattr(face_mesh, "bundled_models", lambda: None)  # as in MediaPipe 1.0
        mesh = FaceMesh(checkpoint=str(own_task.parent))
        assert mesh._find_model() == str(own_task)

    def test_another_file(self, tmp_path):
        (tmp_path / MODEL_FILE).write_text("no bundle")
        with pytest.raises(ValueError, match=r"face_landmarker\.task is not a face_landmarker\.task of MediaPipe"):
            FaceMesh(tmp_path / MODEL_FILE).landmarks(astronaut())

    def test_missing_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"face_mesh_model 'no\.task'"):
            FaceMesh("no.task").landmarks(astronaut())
        with pytest.raises(FileNotFoundError, match=r"face_mesh_model 'no\.task'"):
            FaceMesh("no.task", checkpoint=tmp_path).landmarks(astronaut())

    def test_download_once(self, own_task, tmp_path, monkeypatch):
        handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
        monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
        monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "cache"))
        monkeypatch.setattr(face_mesh, "bundled_models", lambda: None)
        monkeypatch.setattr(face_mesh_backends, "is_offline_mode", lambda: False)
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            monkeypatch.setattr(face_mesh_backends, "MODEL_URL", f"http://127.0.0.1:{server.server_port}/{MODEL_FILE}")
            found = FaceMesh()._find_model()
            server.shutdown()
        assert Path(found).read_bytes() == own_task.read_bytes()
        monkeypatch.setattr(face_mesh_backends, "MODEL_URL", "http://127.0.0.1:9/gone")
        assert FaceMesh()._find_model() == found
        assert os.listdir(Path(found).parent) == [MODEL_FILE]

    def test_offline_error_names_three_ways(self, tmp_path, monkeypatch):
        monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path))
        monkeypatch.setattr(face_mesh, "bundled_models", lambda: None)
        monkeypatch.setattr(face_mesh_backends, "is_offline_mode", lambda: True)
        with pytest.raises(OSError) as error:
            FaceMesh(checkpoint=None)._build()
        for way in ("face_mesh_model=PATH", "beside the checkpoint", "mediapipe==0.10.21"):
            assert way in str(error.value)


def test_opencv_without_libgl_names_the_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "mediapipe", None)  # any ImportError that is not "no mediapipe"
    explained = face_mesh_backends.explained(ImportError("libGL.so.1: cannot open shared object file"))
    assert "libGL.so.1" in str(explained) and "pip install" in str(explained) and "headless" in str(explained)
    assert "pip install mediapipe" in str(face_mesh_backends.explained(ModuleNotFoundError(name="mediapipe")))
