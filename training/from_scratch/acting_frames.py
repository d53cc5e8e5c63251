"""Training of an image encoder on single frames of people who act, see `make_frames` in `synthetic/acting_people.py`.

The image encoder of `microemo-small` sees hundreds of people here before it sees a dialogue. As for the towers of
`microemo-tiny`, heads over all its patches predict the amplitude of each facial action ([`PatchProbe`]); further outputs of
the same heads predict the blendshapes that a face landmarker read in the frame, which also tell real smiles.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch.utils.data import Dataset
from transformers import EvalPrediction, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from ...configuration.configuration_microemo import MicroEmoVisionConfig
from ...configuration.tower_table import vision_row
from ...modeling_microemo.towers import MicroEmoVisionModel
from ...processing.faces.face_mesh_backends import BLENDSHAPE_NAMES
from ...utils.atomic_files import atomic_folder, write_text
from ..synthetic.acting_people import read_frames
from ..synthetic.face_acting import ACTIONS
from .probes import PatchProbe

# The arguments of the Trainer.
RECIPE: dict[str, Any] = {
    "max_steps": 2000,
    "per_device_train_batch_size": 64,
    "per_device_eval_batch_size": 64,
    "learning_rate": 1.0e-3,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 60,
    "weight_decay": 0.05,
    "adam_beta2": 0.98,
    "eval_strategy": "steps",
    "eval_steps": 250,
    "save_strategy": "steps",
    "save_steps": 250,
    "save_total_limit": 1,
    "logging_steps": 25,
    "report_to": "none",
}
TOWER, HEADS, SCORES = "image_encoder", "heads.safetensors", "scores.json"  # in the output folder
# Patches are made smaller before the heads, whose weights grow in proportion: with thousands of inputs a step of the
# optimizer would change the outputs by many times what they are.
_SCALE = 0.1
_FRAMES_OF_CROPS = 0.25  # The whole frame is seen with a quarter of the crops: the crop shows the face larger.
# The weight of the blendshapes: their variance is 1, that of an amplitude less than a tenth.
_TEACHER = 0.03
_FLIPPED = [
    BLENDSHAPE_NAMES.index(name.replace("Left", "#").replace("Right", "Left").replace("#", "Right"))
    for name in BLENDSHAPE_NAMES
]


class FramesOfPeople(Dataset):
    """Frames of people who act.

    Args:
        files (`Sequence[Path]`): The files of [`make_frames`].
    """

    def __init__(self, files: Sequence[Path]):
        arrays = read_frames(list(files))
        names = ("frames", "faces", "amplitudes", "blendshapes")
        self.arrays = {name: torch.from_numpy(arrays[name]) for name in names}

    def __len__(self) -> int:
        return len(self.arrays["faces"])

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {name: array[index] for name, array in self.arrays.items()}


class ActingProbe(PatchProbe):
    """Predicts facial actions and blendshapes from the image encoder's patches of frames and of face crops.

    While it is trained it varies the pictures at random, and flips them with the blendshapes of left and right.

    Args:
        vision_model ([`MicroEmoVisionModel`]): The image encoder.
        blendshapes (`torch.Tensor` of shape `(F, 52)`, *optional*):
            The blendshapes to learn from, whose means and scales are kept. NaN where there are none.
    """

    def __init__(self, vision_model: MicroEmoVisionModel, blendshapes: torch.Tensor | None = None):
        super().__init__(vision_model, len(ACTIONS) + len(BLENDSHAPE_NAMES))
        known = torch.zeros(0) if blendshapes is None else blendshapes[~blendshapes.isnan().any(dim=1)]
        if not len(known):
            known = torch.zeros(2, len(BLENDSHAPE_NAMES))
        self.register_buffer("shape_means", known.mean(dim=0))
        # Blendshapes that hardly ever change hold more noise than motion.
        self.register_buffer("shape_scales", known.std(dim=0).clamp(min=0.05))
        mean, std = vision_row(vision_model.config).statistics
        self.register_buffer("pixel_mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("pixel_std", torch.tensor(std)[:, None, None], persistent=False)

    def forward(  # type: ignore[override]  # frames as they are stored, not as the processor gives them
        self, frames: torch.Tensor, faces: torch.Tensor, amplitudes: torch.Tensor, blendshapes: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Computes the loss of the amplitudes and of the blendshapes.

        Args:
            frames (`torch.Tensor` of shape `(F, H, W, 3)`): The uint8 frames.
            faces (`torch.Tensor` of shape `(F, H, W, 3)`): The uint8 face crops.
            amplitudes (`torch.Tensor` of shape `(F, A)`): The amplitude of each action in each frame.
            blendshapes (`torch.Tensor` of shape `(F, 52)`): The blendshapes in each frame, NaN where there are none.

        Returns:
            `dict[str, torch.Tensor]`: `loss`, the mean squared error summed over the views, and `logits` of shape
            `(F, A + 52)`, the amplitudes and the blendshapes predicted from the crops.
        """
        if self.training:
            frames = frames[: max(1, round(len(frames) * _FRAMES_OF_CROPS))]
        views, flips = torch.cat([faces, frames]), None
        if self.training:
            flips = torch.rand(len(faces), device=faces.device) < 0.5
            blendshapes = torch.where(flips[:, None], blendshapes[:, _FLIPPED], blendshapes)
            flips = torch.cat([flips, flips[: len(frames)]])
        of_frames, of_faces = self.read(self.normalize(views, flips), len(faces))
        aims = torch.cat([amplitudes, (blendshapes - self.shape_means) / self.shape_scales], dim=1)
        loss = _distance(of_faces, aims) + _distance(of_frames, aims[: len(of_frames)])
        predicted, shapes = of_faces.split([len(ACTIONS), len(BLENDSHAPE_NAMES)], dim=1)
        return {"loss": loss, "logits": torch.cat([predicted, shapes * self.shape_scales + self.shape_means], dim=1)}

    def normalize(self, pictures: torch.Tensor, flips: torch.Tensor | None = None) -> torch.Tensor:
        """Turns pictures into what the image encoder sees, as the processor does.

        Args:
            pictures (`torch.Tensor` of shape `(N, H, W, 3)`): The uint8 pictures.
            flips (`torch.BoolTensor` of shape `(N,)`, *optional*): Which ones to mirror. Given, all are varied.

        Returns:
            `torch.Tensor` of shape `(N, 3, H, W)`: The pixel values.
        """
        pictures = pictures.permute(0, 3, 1, 2) / 255
        if flips is not None:
            pictures = vary(pictures, flips)
        return (pictures - self.pixel_mean) / self.pixel_std

    def read(self, pixel_values: torch.Tensor, num_faces: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Predicts from pictures as the processor gives them.

        Args:
            pixel_values (`torch.Tensor` of shape `(N, 3, H, W)`): The face crops, and the frames behind them.
            num_faces (`int`): The number of face crops.

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: The outputs for the frames and for the crops, of shape `(*, A + 52)`.
            The blendshapes are in units of their scales.
        """
        patches = self.vision_model(pixel_values).last_hidden_state[:, 1:].flatten(1) * _SCALE
        return self.heads[0](patches[num_faces:]), self.heads[1](patches[:num_faces])


def _distance(predicted: torch.Tensor, aims: torch.Tensor) -> torch.Tensor:
    """Computes the mean squared error of the amplitudes and, with a smaller weight, of the blendshapes."""
    known = aims.nan_to_num()
    errors = torch.where(aims.isnan(), 0, (predicted.float() - known).square()).mean(dim=0)
    return errors[: len(ACTIONS)].mean() + _TEACHER * errors[len(ACTIONS) :].mean()


@torch.no_grad()
def vary(pictures: torch.Tensor, flips: torch.Tensor) -> torch.Tensor:
    """Varies pictures: a small motion of the crop, flips, light, colour, blur and noise.

    The motion is small, since the processor places crops by landmarks: of crops that move by 6 % and turn by 8 degrees the
    image encoder learns nothing in hundreds of steps.

    Args:
        pictures (`torch.Tensor` of shape `(N, 3, H, W)`): The pictures from 0 to 1.
        flips (`torch.BoolTensor` of shape `(N,)`): Which ones to mirror.

    Returns:
        `torch.Tensor` of shape `(N, 3, H, W)`: The varied pictures from 0 to 1.
    """
    count, device = len(pictures), pictures.device

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return torch.empty(count, *shape, device=device).uniform_(low, high)

    def often(share: float) -> torch.Tensor:
        return (torch.rand(count, 1, 1, 1, device=device) < share).float()

    roll, scale = uniform(-0.04, 0.04), uniform(0.96, 1.04)
    across = torch.where(flips, -1.0, 1.0)
    views = torch.stack(
        [
            torch.stack([scale * roll.cos() * across, -scale * roll.sin(), uniform(-0.03, 0.03)], dim=1),
            torch.stack([scale * roll.sin() * across, scale * roll.cos(), uniform(-0.03, 0.03)], dim=1),
        ],
        dim=1,
    )
    varied = F.grid_sample(pictures, F.affine_grid(views, list(pictures.shape), False), align_corners=False)
    blurred = F.avg_pool2d(varied, 5, 1, 2, count_include_pad=False)
    varied.lerp_(blurred, often(0.4) * uniform(0, 1, 1, 1, 1))
    varied.lerp_(varied.mean(dim=1, keepdim=True), often(0.15))
    means = varied.mean(dim=(1, 2, 3), keepdim=True)
    contrast = torch.randn(count, 1, 1, 1, device=device).mul_(0.2).exp_()
    colour = torch.randn(count, 3, 1, 1, device=device).mul_(0.08).exp_()
    brightness = torch.randn(count, 1, 1, 1, device=device).mul_(0.2).exp_()
    varied.sub_(means).mul_(contrast).add_(means * brightness).mul_(colour)
    sideways = torch.linspace(-1, 1, pictures.shape[-1], device=device)
    varied.mul_(1 + often(0.4) * uniform(-0.4, 0.4, 1, 1, 1) * sideways)
    varied.addcmul_(torch.randn_like(varied), often(0.5) * uniform(0, 0.06, 1, 1, 1))
    return varied.clamp_(0, 1)


def correlations(predicted: np.ndarray, aims: np.ndarray) -> np.ndarray:
    """Computes the correlation of each column.

    Args:
        predicted (`np.ndarray` of shape `(F, A)`): Predictions.
        aims (`np.ndarray` of shape `(F, A)`): What they should be.

    Returns:
        `np.ndarray` of shape `(A,)`: The correlations, NaN where a column never changes.
    """
    predicted, aims = predicted - predicted.mean(axis=0), aims - aims.mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (predicted * aims).sum(0) / np.sqrt((predicted**2).sum(0) * (aims**2).sum(0))


def _score(prediction: EvalPrediction) -> dict[str, float]:
    amplitudes, _ = prediction.label_ids
    of_actions = correlations(prediction.predictions[:, : len(ACTIONS)].astype(np.float64), amplitudes)
    return {name: round(float(value), 3) for name, value in zip(ACTIONS, of_actions, strict=True)}


def keep(probe: ActingProbe, folder: Path, scores: dict[str, float]) -> Path:
    """Writes an image encoder with the heads of its probe.

    Args:
        probe ([`ActingProbe`]): The probe.
        folder (`Path`): The folder to make.
        scores (`dict[str, float]`): The scores.

    Returns:
        `Path`: The folder.
    """
    with atomic_folder(folder) as part:
        probe.vision_model.save_pretrained(part / TOWER)
        others = {name: value for name, value in probe.state_dict().items() if not name.startswith("vision_model.")}
        save_file(others, part / HEADS)
        write_text(part / SCORES, json.dumps(scores, indent=1) + "\n")
    return folder


class KeepEarly(TrainerCallback):
    """Writes the image encoder after each evaluation, for whoever goes on with an early one.

    Args:
        probe ([`ActingProbe`]): The probe.
        folder (`Path`): The folder in which each step gets a folder.
    """

    def __init__(self, probe: ActingProbe, folder: Path):
        self._probe, self._folder = probe, folder

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Writes it with its scores.

        Args:
            args (`TrainingArguments`): The arguments of the `Trainer`.
            state (`TrainerState`): Its state.
            control (`TrainerControl`): What it does next.
            kwargs (`Any`, *optional*): What else it passes; `metrics` are the scores.
        """
        folder = self._folder / f"after-{state.global_step:05}"
        if not folder.exists():  # the evaluation of a run that was stopped before it saved the step
            keep(self._probe, folder, {"step": state.global_step, **kwargs["metrics"]})


def learn_image_encoder(
    frames: Sequence[Path],
    dev_frames: Sequence[Path],
    output: str | Path,
    vision_config: MicroEmoVisionConfig,
    **arguments: Any,
) -> Path:
    """Trains an image encoder on frames of people who act. A run that was stopped goes on at its last saved step.

    Args:
        frames (`Sequence[Path]`): The files of frames to learn from, see [`make_frames`].
        dev_frames (`Sequence[Path]`): Those of other people, for the evaluation.
        output (`str` or `Path`):
            The folder. Each evaluation makes a folder `after-STEP` in it, which holds the image encoder in Transformers'
            format (`image_encoder/`, which `microemo init --vision` takes), the heads of the probe (`heads.safetensors`) and
            the correlations on the people of the evaluation (`scores.json`).
        vision_config ([`MicroEmoVisionConfig`]): The configuration of the image encoder.
        arguments (`Any`, *optional*): Arguments of the `Trainer` in place of those of `RECIPE`.

    Returns:
        `Path`: The folder of the last step.
    """
    output = Path(output)
    data, dev_data = FramesOfPeople(frames), FramesOfPeople(dev_frames)
    settings = TrainingArguments(
        output_dir=str(output / "steps"), label_names=["amplitudes", "blendshapes"], **{**RECIPE, **arguments}
    )
    torch.manual_seed(settings.seed)
    probe = ActingProbe(MicroEmoVisionModel(vision_config), data.arrays["blendshapes"])
    trainer = Trainer(
        model=probe,
        args=settings,
        train_dataset=data,
        eval_dataset=dev_data,
        compute_metrics=_score,
        callbacks=[KeepEarly(probe, output)],
    )
    steps = output / "steps"
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(steps)) if steps.is_dir() else None)
    last = output / f"after-{trainer.state.global_step:05}"
    if not last.exists():
        trainer.evaluate()
    return last
