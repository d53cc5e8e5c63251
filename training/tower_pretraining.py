"""Before a small model learns to talk, its eyes learn to see facial actions and its ears to hear prosody.

The paper's towers come pretrained (EVA-CLIP, ImageBind). Those of `microemo-tiny` learn on synthetic dialogues, whose truth
says how far each facial action had gone in every frame, and how each moment was spoken.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import Dataset

from ..modeling_microemo.audio_branch import MicroEmoAudioModel
from ..modeling_microemo.visual_encoder import GlobalLocalVisualEncoder, MicroEmoVisionModel
from ..processing.processing_microemo import MicroEmoProcessor
from .face_acting import ACTIONS
from .feature_cache import pad_together
from .synthetic_dialogues import read_truth
from .voice import PROSODIES

# The visual encoder's arguments, as the processor names them.
_FRAME_INPUTS = {
    "pixel_values": "pixel_values_videos",
    "pixel_values_faces": "pixel_values_faces",
    "vision_features": "vision_features",
    "face_features": "face_features",
    "region_masks": "region_masks",
    "qformer_input_ids": "qformer_input_ids",
    "qformer_attention_mask": "qformer_attention_mask",
}


class FacialActionReader(nn.Module):
    """Reads off the frame tokens how far each facial action has gone: off each view's alone, and off both together.

    Without a head of its own the local view learns late or never: behind the fusion it begins as the weaker part.

    Args:
        visual_encoder ([`GlobalLocalVisualEncoder`]): Of the model; its tokens are all that the heads see.
    """

    def __init__(self, visual_encoder: GlobalLocalVisualEncoder):
        super().__init__()
        config = visual_encoder.config
        self.visual_encoder = visual_encoder
        width = config.num_query_tokens * config.image_qformer_config.hidden_size
        views = ("global", "local", "frame") if config.use_local_clue_attention else ("frame",)
        self.heads = nn.ModuleDict({view: nn.Linear(width, len(ACTIONS)) for view in views})

    def forward(self, amplitudes: torch.Tensor, **frames: torch.Tensor) -> dict[str, torch.Tensor]:
        """
        Args:
            amplitudes (`torch.Tensor` of shape `(F, A)`): Of each action in each frame; 1 is its full motion.
            frames: The visual encoder's arguments.

        Returns:
            `dict`: `loss`, the mean squared error summed over the views, and `logits` `(F, A)`, the amplitudes read off
            the frame tokens.
        """
        global_tokens, local_tokens = self.visual_encoder.views(**frames)
        tokens = {"frame": global_tokens}
        if local_tokens is not None:
            fused = self.visual_encoder.fusion(global_tokens, local_tokens)
            tokens = {"global": global_tokens, "local": local_tokens, "frame": fused}
        read = {view: self.heads[view](of_view.flatten(1)) for view, of_view in tokens.items()}
        return {"loss": sum(F.mse_loss(one, amplitudes) for one in read.values()), "logits": read["frame"]}


class PatchReader(nn.Module):
    """Reads facial actions off the image encoder's patches, of frames and of face crops, each with a head of its own.

    A head that weighs every patch asks for no attention that has yet to be learned: the way from the amplitudes to the
    patches is short, and the image encoder begins to learn at once.
    """

    def __init__(self, vision_model: MicroEmoVisionModel):
        super().__init__()
        config = vision_model.config
        self.vision_model = vision_model
        self.heads = nn.ModuleList(
            nn.Linear(config.num_patches * config.hidden_size, len(ACTIONS)) for _ in ("frames", "faces")
        )
        for head in self.heads:
            nn.init.zeros_(head.weight)

    def forward(
        self, amplitudes: torch.Tensor, pixel_values: torch.Tensor, pixel_values_faces: torch.Tensor, **inputs
    ) -> dict[str, torch.Tensor]:
        """
        Args:
            amplitudes (`torch.Tensor` of shape `(F, A)`): Of each action in each frame; 1 is its full motion.
            pixel_values, pixel_values_faces (`torch.Tensor` of shape `(F, 3, H, W)`): Frames and face crops.
            inputs: What else there is of frames is not read.

        Returns:
            `dict`: `loss`, the mean squared error summed over the views, and `logits` `(F, A)`, read off the crops.
        """
        views = torch.cat([pixel_values, pixel_values_faces])
        patches = self.vision_model(views).last_hidden_state[:, 1:].flatten(1).chunk(2)
        read = [head(view) for head, view in zip(self.heads, patches, strict=True)]
        return {"loss": sum(F.mse_loss(one, amplitudes) for one in read), "logits": read[1]}


class ProsodyReader(nn.Module):
    """Reads off a mel clip's feature what share of it was spoken in which way, and what share was silent."""

    def __init__(self, audio_tower: MicroEmoAudioModel):
        super().__init__()
        self.audio_tower = audio_tower
        self.head = nn.Linear(audio_tower.config.projection_dim, len(PROSODIES) + 1)

    def forward(self, shares: torch.Tensor, input_features: torch.Tensor) -> dict[str, torch.Tensor]:
        """
        Args:
            shares (`torch.Tensor` of shape `(clips, 3)`): Of each prosody, and of silence; they add up to 1.
            input_features (`torch.Tensor` of shape `(clips, 1, num_mel_bins, num_mel_frames)`): Mel clips.

        Returns:
            `dict`: `loss`, the cross-entropy, and `logits` `(clips, 3)`.
        """
        read = self.head(self.audio_tower(input_features).pooler_output)
        return {"loss": F.cross_entropy(read, shares), "logits": read}


class ActingFrames(Dataset):
    """Some frames of each synthetic clip, drawn anew every time, with the amplitudes of the facial actions in them.

    Args:
        rows: Of the table of dialogues.
        processor ([`MicroEmoProcessor`]): Of the model, or the reader of a [`FeatureCache`].
        num_frames (`int`): Drawn from a clip.
    """

    def __init__(self, rows, processor: MicroEmoProcessor, num_frames: int):
        self.rows, self.processor, self.num_frames = list(rows), processor, num_frames
        self.truth = truth_of(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        row = self.rows[index]
        inputs = _process(self.processor, row)
        times = np.array(inputs["video_metadata"][0].frame_times)
        frames = torch.randint(len(times), (self.num_frames,))
        given = {name: inputs[key][:, frames] for name, key in _FRAME_INPUTS.items() if key in inputs}
        amplitudes = amplitudes_at(self.truth[row["name"]], times[frames.numpy()])
        return given | {"amplitudes": torch.tensor(amplitudes, dtype=torch.float32)[None]}


class SpokenClips(Dataset):
    """All mel clips of each synthetic clip, with the shares of each prosody and of silence in them."""

    def __init__(self, rows, processor: MicroEmoProcessor):
        self.rows, self.processor = list(rows), processor
        self.truth = truth_of(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        row = self.rows[index]
        inputs = _process(self.processor, row)
        shares = prosody_shares(self.truth[row["name"]], np.array(inputs["audio_clip_times"][0]))
        return {
            "input_features": inputs["input_features"],
            "shares": torch.tensor(shares, dtype=torch.float32)[None],
        }


def _process(processor: MicroEmoProcessor, row: dict):
    return processor(videos=[row["video"]], utterances=[row["subtitles"]], return_tensors="pt", return_metadata=True)


def put_together(items: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Frames, or mel clips, of several clips in one batch."""
    return {name: value.flatten(0, 1) for name, value in pad_together(items).items()}


def truth_of(rows) -> dict[str, dict]:
    """What is known of the rows' clips, by name; see [`dialogue_truth`]."""
    folders = {Path(row["video"]).parent for row in rows}
    return {name: truth for folder in folders for name, truth in read_truth(folder).items()}


def amplitudes_at(truth: dict, times: np.ndarray) -> np.ndarray:
    """(T, A) of each facial action at `times` in seconds."""
    known = np.array(truth["times"])
    nearest = np.abs(known[None] - times[:, None]).argmin(axis=1)
    return np.array([truth["amplitudes"][action] for action in ACTIONS]).T[nearest]


def prosody_shares(truth: dict, clip_times: np.ndarray) -> np.ndarray:
    """(C, 3): what share of each stretch of time (C, 2) in seconds was spoken in which way, and what share was not."""
    start, end = clip_times.T
    shares = np.zeros((len(clip_times), len(PROSODIES) + 1))
    for said in truth["utterances"]:
        common = np.minimum(end, said["end"]) - np.maximum(start, said["start"])
        shares[:, list(PROSODIES).index(said["prosody"])] += common.clip(0) / (end - start)
    shares[:, -1] = (1 - shares.sum(axis=1)).clip(0)
    return shares / shares.sum(axis=1, keepdims=True)
