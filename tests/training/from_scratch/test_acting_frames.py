"""An image encoder learns from frames of people who act, goes on where it stopped, and is read again."""

import copy
import json

import numpy as np
import pytest
import torch

pytest.importorskip("skimage", reason="the photograph comes with scikit-image")
pytest.importorskip("cv2", reason="faces act with OpenCV")

from PIL import Image

from microemo import MicroEmoConfig
from microemo.modeling_microemo.towers import MicroEmoVisionModel
from microemo.processing.faces.face_mesh_backends import BLENDSHAPE_NAMES
from microemo.processing.video_processing_microemo import MicroEmoVideoProcessor
from microemo.training.from_scratch.acting_frames import (
    _FLIPPED,
    HEADS,
    SCORES,
    TOWER,
    ActingProbe,
    FramesOfPeople,
    correlations,
    learn_image_encoder,
    vary,
)
from microemo.training.from_scratch.image_encoder_scores import (
    BLENDSHAPES_OF,
    load_probe,
    order_of,
    read_faces,
    score_clip,
    score_image_encoder,
)
from microemo.training.synthetic.acting_people import make_frames
from microemo.training.synthetic.face_acting import ACTIONS, TO_REST, FaceActor
from microemo.training.synthetic.media_writer import astronaut

STEPS = 40  # ends between two evaluations
QUICK = {
    "max_steps": STEPS,
    "warmup_steps": 5,
    "per_device_train_batch_size": 20,
    "logging_steps": 15,
    "eval_steps": 15,
    "save_steps": 15,
    "learning_rate": 2e-3,
    "use_cpu": True,
}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """The astronaut at rest and in motion, as a neutral and a smiling photograph."""
    folder = tmp_path_factory.mktemp("photographs")
    picture = Image.fromarray(astronaut()).crop((96, 0, 352, 256))
    picture.save(folder / "smiling.png")
    picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "neutral.png")
    (folder / "faces.csv").write_text(
        "file,person,split,kind\nneutral.png,she,test,neutral\nsmiling.png,she,test,smiling\n"
    )
    return folder


@pytest.fixture(scope="module")
def files(photographs, tmp_path_factory):
    return make_frames(tmp_path_factory.mktemp("frames"), photographs, "test", 40, progress=False)


@pytest.fixture(scope="module")
def config():
    config = copy.deepcopy(MicroEmoConfig.from_preset("microemo-small").vision_config)
    config.num_hidden_layers, config.hidden_size, config.intermediate_size = 1, 64, 64
    return config


@pytest.fixture(scope="module")
def learned(files, config, tmp_path_factory):
    """The output of a run that was stopped after 30 steps."""
    output = tmp_path_factory.mktemp("learned")
    first = learn_image_encoder(files, files, output, config, **{**QUICK, "max_steps": 30})
    assert first == output / "after-00030"
    learn_image_encoder(files, files, output, config, **QUICK)
    return output


def test_it_learns_and_goes_on_where_it_stopped(learned):
    assert sorted(path.name for path in learned.glob("after-*")) == ["after-00015", "after-00030", "after-00040"]
    scores = [json.loads((path / SCORES).read_text()) for path in sorted(learned.glob("after-*"))]
    assert [of_step["step"] for of_step in scores] == [15, 30, 40]
    assert scores[0]["eval_loss"] > scores[-1]["eval_loss"]
    assert scores[-1]["eval_jaw"] > 0.5
    steps = json.loads((learned / "steps" / f"checkpoint-{STEPS}" / "trainer_state.json").read_text())["log_history"]
    assert [entry["step"] for entry in steps if "loss" in entry] == [15, 30]


def test_a_run_that_has_ended_is_not_run_again(learned, files, config):
    folder = learned / f"after-{STEPS:05}"
    written = (folder / HEADS).stat().st_mtime_ns
    assert learn_image_encoder(files, files, learned, config, **QUICK) == folder
    assert (folder / HEADS).stat().st_mtime_ns == written


def test_what_was_kept_is_what_was_learned(learned, files, config):
    folder = learned / f"after-{STEPS:05}"
    assert {path.name for path in folder.iterdir()} == {TOWER, HEADS, SCORES}
    probe, fresh = load_probe(folder), ActingProbe(MicroEmoVisionModel(config))
    kept, new = MicroEmoVisionModel.from_pretrained(folder / TOWER).state_dict(), fresh.vision_model.state_dict()
    assert kept.keys() == new.keys() and all(kept[name].shape == new[name].shape for name in kept)
    found = score_image_encoder(folder, frames=files)["frames"]
    evaluated = json.loads((folder / SCORES).read_text())
    assert found["all"] == pytest.approx({name: evaluated[f"eval_{name}"] for name in ACTIONS}, abs=2e-3)
    assert found["of_a_person"] == pytest.approx(found["all"])  # of one person
    arrays = FramesOfPeople(files).arrays
    whole = probe(**{name: array[:8] for name, array in arrays.items()})["logits"].detach().numpy()
    np.testing.assert_allclose(
        np.concatenate(read_faces(probe, probe.normalize(arrays["faces"][:8])), axis=1), whole, atol=1e-5
    )


def test_photographs_are_scored_through_the_processor(learned, photographs):
    scores = score_image_encoder(learned / f"after-{STEPS:05}", photographs=photographs)["photographs"]
    assert scores["people"] == 1 and scores["auc"] in (0.0, 0.5, 1.0) and "blendshape_auc" not in scores


def _processor(**fields):
    return MicroEmoVideoProcessor(
        size={"height": 112, "width": 112}, local_view="face_crop", return_metadata=True, **fields
    )


def test_a_clip_needs_blendshapes(learned):
    with pytest.raises(ValueError, match=r"2 frames: no face or no blendshapes found; face_mesh_model must be"):
        score_clip(load_probe(learned / f"after-{STEPS:05}"), astronaut()[None].repeat(2, 0), _processor())


def test_a_clip_is_compared_with_the_landmarker(learned, shared):
    model = shared / "models" / "face_landmarker.task"
    if not model.is_file():
        pytest.skip("no face landmarker")
    actor, openings = FaceActor(astronaut(), rest=TO_REST), np.tile([0, 0.5, 1], 4)
    amplitudes = openings[:, None] * np.eye(len(ACTIONS))[list(ACTIONS).index("jaw")]
    view = actor.camera((256, 256), face_width=0.5)
    pictures = np.stack(list(actor.act(amplitudes, [view] * len(openings), (256, 256))))
    probe = load_probe(learned / f"after-{STEPS:05}")
    scores = score_clip(probe, pictures, _processor(face_mesh_model=str(model)))
    assert scores["frames"] == len(openings) and scores["jaw"] > 0.5
    assert scores.keys() == {"frames", *BLENDSHAPES_OF, *(f"{action}_blendshape" for action in BLENDSHAPES_OF)}


def test_flips_exchange_left_and_right(config):
    for index, name in enumerate(BLENDSHAPE_NAMES):
        other = BLENDSHAPE_NAMES[_FLIPPED[index]]
        assert _FLIPPED[_FLIPPED[index]] == index
        assert (name == other) == (not name.endswith(("Left", "Right")))
    flips = torch.tensor([True, False])
    pictures = torch.zeros(2, 3, 32, 32)
    pictures[:, :, :, :16] = 1
    torch.manual_seed(0)
    left = vary(pictures, flips)[:, :, :, :16].mean(dim=(1, 2, 3))
    torch.manual_seed(0)
    right = vary(pictures, flips)[:, :, :, 16:].mean(dim=(1, 2, 3))
    assert left[0] < right[0] and left[1] > right[1]


def test_unknown_blendshapes_teach_nothing(config):
    probe = ActingProbe(MicroEmoVisionModel(config), torch.rand(6, len(BLENDSHAPE_NAMES)))
    pictures = torch.randint(256, (4, 112, 112, 3), dtype=torch.uint8)
    probe(pictures, pictures, torch.rand(4, len(ACTIONS)), torch.full((4, len(BLENDSHAPE_NAMES)), np.nan))[
        "loss"
    ].backward()
    for head in probe.heads:
        assert head.weight.grad[: len(ACTIONS)].abs().sum() > 0 and head.weight.grad.isfinite().all()
        assert not head.weight.grad[len(ACTIONS) :].any()


def test_orders_and_correlations():
    assert order_of(np.array([2, 3]), np.array([0, 1])) == 1
    assert order_of(np.array([0, 3]), np.array([1, 3])) == pytest.approx(0.375)
    rng = np.random.default_rng(0)
    aims = rng.random((50, 3))
    predicted = np.column_stack([aims[:, 0] * 3 + 1, -aims[:, 1], rng.random(50)])
    expected = [np.corrcoef(a, b)[0, 1] for a, b in zip(predicted.T, aims.T, strict=True)]
    np.testing.assert_allclose(correlations(predicted, aims), expected)
    assert np.isnan(correlations(predicted, np.ones_like(aims))).all()
