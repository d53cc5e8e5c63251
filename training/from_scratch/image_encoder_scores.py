"""Figures of an image encoder that learned from frames of people who act: on unseen people, real smiles and real clips.

What it knows is read by the heads that it was trained with, see `acting_frames.py`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from transformers.video_utils import VideoMetadata

from ...modeling_microemo.towers import MicroEmoVisionModel
from ...processing.faces.face_mesh_backends import BLENDSHAPE_NAMES
from ...processing.frame_files import read_picture
from ...processing.video_processing_microemo import MicroEmoVideoProcessor
from ..synthetic.acting_people import read_frames
from ..synthetic.face_acting import ACTIONS
from ..synthetic.photographs import read_photographs
from .acting_frames import HEADS, TOWER, ActingProbe, correlations

# What a face landmarker calls an action.
BLENDSHAPES_OF = {
    "smile": ("mouthSmileLeft", "mouthSmileRight"),
    "jaw": ("jawOpen",),
    "brow_raise": ("browInnerUp",),
}
_BATCH = 64


def load_probe(folder: str | Path) -> ActingProbe:
    """Loads an image encoder with its heads.

    Args:
        folder (`str` or `Path`): A folder `after-STEP` of [`learn_image_encoder`].

    Returns:
        [`ActingProbe`]: The probe, in evaluation mode.
    """
    folder = Path(folder)
    probe = ActingProbe(MicroEmoVisionModel.from_pretrained(folder / TOWER, dtype=torch.float32))
    left_out = probe.load_state_dict(load_file(folder / HEADS), strict=False)
    wrong = [name for name in left_out.missing_keys if not name.startswith("vision_model.")]
    if wrong or left_out.unexpected_keys:
        raise ValueError(f"{folder / HEADS}: expected {wrong}, found {left_out.unexpected_keys}")
    return probe.eval()


@torch.no_grad()
def read_faces(probe: ActingProbe, pixel_values: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Reads facial actions and blendshapes in face crops.

    Args:
        probe ([`ActingProbe`]): The probe.
        pixel_values (`torch.Tensor` of shape `(F, 3, H, W)`): The face crops, as the processor gives them.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: The amplitudes `(F, A)` and the blendshapes `(F, 52)`.
    """
    outputs = torch.cat([probe.read(batch, len(batch))[1] for batch in pixel_values.split(_BATCH)])
    amplitudes, shapes = outputs.split([len(ACTIONS), len(BLENDSHAPE_NAMES)], dim=1)
    return amplitudes.numpy(), (shapes * probe.shape_scales + probe.shape_means).numpy()


def order_of(larger: np.ndarray, smaller: np.ndarray) -> float:
    """Computes the share of pairs in which a value that should be larger is larger: the area under the ROC curve.

    Args:
        larger (`np.ndarray` of shape `(N,)`): The values that should be larger.
        smaller (`np.ndarray` of shape `(M,)`): The others.

    Returns:
        `float`: The share. A tie counts half.
    """
    differences = np.sign(np.asarray(larger)[:, None] - np.asarray(smaller)[None])
    return float((differences.mean() + 1) / 2)


def score_frames(probe: ActingProbe, files: Sequence[Path]) -> dict[str, dict[str, float]]:
    """Computes the correlation with the amplitude of each action.

    Args:
        probe ([`ActingProbe`]): The probe.
        files (`Sequence[Path]`): The files of [`make_frames`].

    Returns:
        `dict[str, dict[str, float]]`: The correlation for each action over the frames of all people (`all`), and with the
        mean of each person taken off (`of_a_person`): brows that are high by nature count in the first alone.
    """
    arrays = read_frames(list(files))
    batches = torch.from_numpy(arrays["faces"]).split(_BATCH)
    read = np.concatenate([read_faces(probe, probe.normalize(batch))[0] for batch in batches]).astype(np.float64)
    aims = arrays["amplitudes"].astype(np.float64)
    found = {"all": correlations(read, aims)}
    for person in set(arrays["people"]):
        frames = arrays["people"] == person
        for values in (read, aims):
            values[frames] -= values[frames].mean(axis=0)
    found["of_a_person"] = correlations(read, aims)
    return {name: dict(zip(ACTIONS, values.tolist(), strict=True)) for name, values in found.items()}


def score_smiles(
    probe: ActingProbe, photographs: str | Path, processor: MicroEmoVideoProcessor, split: str | None = None
) -> dict[str, float]:
    """Tells how well the smile of the probe tells smiling photographs of people from neutral ones.

    Args:
        probe ([`ActingProbe`]): The probe.
        photographs (`str` or `Path`): The folder of the photographs, see [`read_photographs`].
        processor ([`MicroEmoVideoProcessor`]): The video processor.
        split (`str`, *optional*): The split of the people, by default all of them.

    Returns:
        `dict[str, float]`: The number of `people`; `auc`, the share of pairs of a smiling and a neutral photograph that the
        probe puts in the right order; and where the processor reads blendshapes, `blendshape_auc`, that of the mean of
        their smiles.

    Raises:
        ValueError: If no person of the split has a smiling photograph, or if no face is found in a photograph.
    """
    people = [person for person in read_photographs(photographs, split) if person.smiling is not None]
    if not people:
        raise ValueError(f"{photographs}: nobody of the split {split!r} has a smiling photograph")
    smiles: list[list[float]] = []
    shapes: list[list[float]] = []
    for kind in ("smiling", "neutral"):
        smiles.append([])
        shapes.append([])
        for person in people:
            path = getattr(person, kind)
            amplitudes, _, seen = _look(probe, read_picture(path)[None], processor)
            if not len(amplitudes):
                raise ValueError(f"{path}: no face found")
            smiles[-1].append(amplitudes[0, list(ACTIONS).index("smile")])
            shapes[-1].append(_blendshape(seen, "smile")[0] if seen is not None else np.nan)
    scores = {"people": len(people), "auc": order_of(*map(np.array, smiles))}
    if not np.isnan(shapes).any():
        scores["blendshape_auc"] = order_of(*map(np.array, shapes))
    return scores


def score_clip(probe: ActingProbe, clip: Any, processor: MicroEmoVideoProcessor) -> dict[str, float]:
    """Compares what the probe reads in every frame of a real clip with the blendshapes of a face landmarker.

    Args:
        probe ([`ActingProbe`]): The probe.
        clip (`str`, `Path` or `np.ndarray`): The clip, a file or its frames `(T, H, W, 3)`.
        processor ([`MicroEmoVideoProcessor`]): The video processor, with a face mesh that reads blendshapes.

    Returns:
        `dict[str, float]`: The number of `frames` with a face, and for each action of `BLENDSHAPES_OF` the correlation of
        its amplitude (`smile`) and of the probe's own blendshape (`smile_blendshape`).

    Raises:
        ValueError: If the face mesh reads no blendshapes, or if no face is found.
    """
    amplitudes, shapes, seen = _look(probe, clip, processor)
    if seen is None or not len(amplitudes):
        title = f"{len(clip)} frames" if isinstance(clip, np.ndarray) else clip
        raise ValueError(f"{title}: no face or no blendshapes found; face_mesh_model must be a face_landmarker.task")
    scores: dict[str, float] = {"frames": len(amplitudes)}
    for action in BLENDSHAPES_OF:
        aims = _blendshape(seen, action)[:, None].astype(np.float64)
        read = amplitudes[:, [list(ACTIONS).index(action)]].astype(np.float64)
        scores[action] = float(correlations(read, aims)[0])
        scores[f"{action}_blendshape"] = float(correlations(_blendshape(shapes, action)[:, None], aims)[0])
    return scores


def _look(
    probe: ActingProbe, source: Any, processor: MicroEmoVideoProcessor
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Reads the frames with a face: amplitudes, blendshapes, and the face mesh's own blendshapes."""
    # Times do not matter here, but decoded frames have some.
    times = VideoMetadata(total_num_frames=len(source), fps=24) if isinstance(source, np.ndarray) else None
    features = processor(source, video_metadata=times, do_sample_frames=False, return_tensors="pt")
    metadata = features["video_metadata"][0]
    has_face = ~np.isnan(metadata.landmarks).any(axis=(1, 2))
    crops = features["pixel_values_faces"][0][torch.from_numpy(has_face)]
    seen = None if metadata.blendshapes is None else metadata.blendshapes[has_face]
    return *read_faces(probe, crops), seen


def _blendshape(shapes: np.ndarray, action: str) -> np.ndarray:
    columns = [BLENDSHAPE_NAMES.index(name) for name in BLENDSHAPES_OF[action]]
    return shapes[:, columns].mean(axis=1)


def score_image_encoder(
    folder: str | Path,
    frames: Sequence[Path] = (),
    photographs: str | Path | None = None,
    split: str | None = "test",
    clips: Sequence[str | Path] = (),
    face_mesh_model: str | Path | None = None,
    upright: bool = True,
) -> dict[str, Any]:
    """Computes all figures of an image encoder.

    Args:
        folder (`str` or `Path`): A folder `after-STEP` of [`learn_image_encoder`].
        frames (`Sequence[Path]`, *optional*): Files of [`make_frames`] with people who were not learned from.
        photographs (`str` or `Path`, *optional*): The folder of photographs with real smiles, see [`read_photographs`].
        split (`str`, *optional*, defaults to `"test"`): The split of the people in the photographs.
        clips (`Sequence[str | Path]`, *optional*): Clips of real faces.
        face_mesh_model (`str` or `Path`, *optional*): The path of a `face_landmarker.task`, which clips need.
        upright (`bool`, *optional*, defaults to `True`): Whether face crops turn with the head, as in the frames.

    Returns:
        `dict[str, Any]`: What was asked for of `frames` ([`score_frames`]), `photographs` ([`score_smiles`]) and `clips`
        ([`score_clip`], by the names of the files).
    """
    probe = load_probe(folder)
    config = probe.vision_model.config
    processor = MicroEmoVideoProcessor(
        size={"height": config.image_size, "width": config.image_size},
        patch_size=config.patch_size,
        max_frames=100_000,
        local_view="face_crop",
        face_crop_upright=upright,
        face_mesh_model=None if face_mesh_model is None else str(face_mesh_model),
        return_metadata=True,
    )
    scores: dict[str, Any] = {}
    if frames:
        scores["frames"] = score_frames(probe, list(frames))
    if photographs is not None:
        scores["photographs"] = score_smiles(probe, photographs, processor, split)
    if clips:
        scores["clips"] = {Path(clip).name: score_clip(probe, clip, processor) for clip in clips}
    return scores
