"""Before a small model learns to talk, its eyes learn to see facial actions and its ears to hear prosody.

The paper's towers come pretrained (EVA-CLIP, ImageBind). Those of `microemo-tiny` learn on synthetic dialogues, whose truth
says how far each facial action had gone in every frame, and how each moment was spoken.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import Dataset
from transformers import BatchFeature

from ...modeling_microemo.modeling_microemo import MicroEmoModel
from ...modeling_microemo.towers import MicroEmoAudioModel, MicroEmoVisionModel
from ...modeling_microemo.visual_encoder import GlobalLocalVisualEncoder
from ...processing.processing_microemo import MicroEmoProcessor
from ..feature_cache import FRAME_INPUTS, pad_together
from ..synthetic.dialogue_plan import CLUES
from ..synthetic.face_acting import ACTIONS
from ..synthetic.synthetic_dialogues import read_truth
from ..synthetic.voice import PROSODIES

PARTS = 8  # of a clip, of which the tokens of the whole video are to tell


class FacialActionProbe(nn.Module):
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
        predictions = {view: self.heads[view](of_view.flatten(1)) for view, of_view in tokens.items()}
        return {
            "loss": sum(F.mse_loss(prediction, amplitudes) for prediction in predictions.values()),
            "logits": predictions["frame"],
        }


class WindowProbe(nn.Module):
    """Reads off the tokens of every window what was seen, and said how, while it lasted: off a window of frames the mean
    amplitude of each facial action, off an utterance's window of sound its prosody; and off the tokens of the whole
    video the amplitudes in each part of it.

    Projected, the tokens are drawn to the language model's embeddings of the words for it. What a frozen language model
    knows from dialogues in words, it then finds in them. Answers alone teach it too, from some seeds within 60 steps and
    from others not within 240.

    Args:
        model ([`MicroEmoModel`]): Whose video and audio Q-Formers and projections are to learn.
    """

    def __init__(self, model: MicroEmoModel):
        super().__init__()
        config = model.config
        self.model = model
        video_width = config.num_video_query_tokens * config.video_qformer_config.hidden_size
        audio_width = config.num_audio_query_tokens * config.audio_qformer_config.hidden_size
        self.of_clip = nn.Linear(video_width, PARTS * len(ACTIONS))
        self.of_window = nn.Linear(video_width, len(ACTIONS))
        self.of_sound = nn.Linear(audio_width, len(PROSODIES))

    def forward(
        self,
        of_parts: torch.Tensor,
        of_windows: torch.Tensor,
        prosodies: torch.Tensor,
        video_words: torch.Tensor,
        audio_words: torch.Tensor,
        **media: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """
        Args:
            of_parts (`torch.Tensor` of shape `(B, PARTS, A)`): Mean amplitudes in each part of the clip.
            of_windows (`torch.Tensor` of shape `(B, K, A)`): Mean amplitudes in each window of frames.
            prosodies (`torch.LongTensor` of shape `(B, K')`): Of each utterance.
            video_words (`torch.LongTensor` of shape `(B, 1 + K, n, W)`):
                Ids of the words that each token of a window of frames stands for, the mean of their embeddings; the
                whole video is first. 0 is no word.
            audio_words (`torch.LongTensor` of shape `(B, 1 + K', m, W')`): Of the tokens of a window of sound.
            media: What the model reads of clips with pictures and sound.

        Returns:
            `dict`: `loss`, the sum of the squared errors, of those of embeddings as a tenth of their share, and of the
            cross-entropy of prosodies; `amplitudes` (windows, A) and `logits` (utterances, 2) of the real windows.
        """
        encoded = self.model.encode_media(**media)
        video, audio = encoded["video"].last_hidden_state, encoded["audio"].last_hidden_state
        losses = [
            self._distance(self.model.video_projection(video), video_words),
            self._distance(self.model.audio_projection(audio), audio_words),
        ]
        video, audio = video.flatten(2), audio.flatten(2)
        losses.append(F.mse_loss(self.of_clip(video[:, 0]).unflatten(1, (PARTS, -1)), of_parts))
        output = {}
        if self.model.config.windows != "none":
            real = media["utterance_windows"][..., 1] > media["utterance_windows"][..., 0]
            output["amplitudes"] = self.of_window(video[:, 1:][real])
            losses.append(F.mse_loss(output["amplitudes"], of_windows[real]))
        real = media["audio_windows"][..., 1] > media["audio_windows"][..., 0]
        output["logits"] = self.of_sound(audio[:, 1:][real])
        losses.append(F.cross_entropy(output["logits"], prosodies[real]))
        return {"loss": sum(losses), **output}

    def _distance(self, tokens: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """What is left of the words' embeddings; a tenth of it, or it would drown the other losses."""
        has_words = (words > 0).any(dim=-1)
        is_word = (words[has_words] > 0)[..., None]
        embedded = self.model.get_input_embeddings()(words[has_words]) * is_word
        aims = embedded.sum(dim=-2) / is_word.sum(dim=-2)
        return 0.1 * F.mse_loss(tokens[has_words], aims) / aims.square().mean()


class PatchProbe(nn.Module):
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
        predictions = [head(view) for head, view in zip(self.heads, patches, strict=True)]
        return {
            "loss": sum(F.mse_loss(prediction, amplitudes) for prediction in predictions),
            "logits": predictions[1],
        }


class ProsodyProbe(nn.Module):
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
        logits = self.head(self.audio_tower(input_features).pooler_output)
        return {"loss": F.cross_entropy(logits, shares), "logits": logits}


class _KnownClips(Dataset):
    """Synthetic clips, processed, and what is known of them.

    Args:
        rows: Of the table of dialogues.
        processor ([`MicroEmoProcessor`]): Of the model, or the reader of a [`FeatureCache`].
    """

    def __init__(self, rows, processor: MicroEmoProcessor):
        self.rows, self.processor = list(rows), processor
        self.truth = truth_of(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def look_up(self, index: int) -> tuple[BatchFeature, dict]:
        """What the processor gives for a clip, and its truth."""
        row = self.rows[index]
        inputs = self.processor(
            videos=[row["video"]], utterances=[row["subtitles"]], return_tensors="pt", return_metadata=True
        )
        return inputs, self.truth[row["name"]]


class ActingFrames(_KnownClips):
    """Some frames of each synthetic clip, drawn anew every time, with the amplitudes of the facial actions in them.

    Args:
        rows, processor: Of clips in general.
        num_frames (`int`): Drawn from a clip.
    """

    def __init__(self, rows, processor: MicroEmoProcessor, num_frames: int):
        super().__init__(rows, processor)
        self.num_frames = num_frames

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        inputs, truth = self.look_up(index)
        times = np.array(inputs["video_metadata"][0].frame_times)
        frames = torch.randint(len(times), (self.num_frames,))
        frame_inputs = {name: inputs[key][:, frames] for name, key in FRAME_INPUTS.items() if key in inputs}
        amplitudes = amplitudes_at(truth, times[frames.numpy()])
        return frame_inputs | {"amplitudes": torch.tensor(amplitudes, dtype=torch.float32)[None]}


class AlignmentClips(_KnownClips):
    """Synthetic clips whole, with what [`WindowProbe`] is to read off them. They are small and always the same, so each is
    read once."""

    def __init__(self, rows, processor: MicroEmoProcessor):
        super().__init__(rows, processor)
        self._read: dict[int, dict[str, torch.Tensor]] = {}

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if index not in self._read:
            self._read[index] = self._watch(index)
        return self._read[index]

    def _watch(self, index: int) -> dict[str, torch.Tensor]:
        inputs, truth = self.look_up(index)
        times, utterances = np.array(inputs["video_metadata"][0].frame_times), truth["utterances"]
        amplitudes = amplitudes_at(truth, times)
        bounds = inputs["utterance_windows"][0].tolist()
        windows = [amplitudes[start:end].mean(axis=0) for start, end in bounds]
        # Repeated, so that there are enough frames for all parts.
        parts = [part.mean(axis=0) for part in np.split(amplitudes.repeat(PARTS, axis=0), PARTS)]
        prosodies = [list(PROSODIES).index(utterance["prosody"]) for utterance in utterances]
        clues = [self._ids(CLUES[utterance["clue"]][1]) for utterance in utterances]
        voices = [self._ids(utterance["prosody"]) for utterance in utterances]
        during = [(utterance["start"] <= times) & (times < utterance["end"]) for utterance in utterances]
        clues_in_windows = [
            [clue for clue, lasts in zip(clues, during, strict=True) if lasts[start:end].any()]
            for start, end in [(0, len(times)), *bounds]
        ]
        video_words = words_of_tokens(clues_in_windows, self.processor.num_video_query_tokens)
        audio_words = words_of_tokens([voices, *([voice] for voice in voices)], self.processor.num_audio_query_tokens)
        return {name: value for name, value in inputs.items() if isinstance(value, torch.Tensor)} | {
            "video_words": video_words[None],
            "audio_words": audio_words[None],
            "of_parts": torch.tensor(np.array(parts), dtype=torch.float32)[None],
            "of_windows": torch.tensor(np.reshape(windows, (1, -1, len(ACTIONS))), dtype=torch.float32),
            "prosodies": torch.tensor([prosodies]),
        }

    def _ids(self, words: str) -> list[int]:
        return self.processor.tokenizer(f" {words}", add_special_tokens=False)["input_ids"]


def words_of_tokens(windows: Sequence[Sequence[Sequence[int]]], num_tokens: int) -> torch.Tensor:
    """Which words the tokens of a window stand for: each utterance in it has a share of them, one after another, and in
    it the words that tell of it, likewise. Where there are more tokens than words, some have none.

    Args:
        windows: The ids of the words, for each utterance in each window.
        num_tokens (`int`): n, of a window.

    Returns:
        `torch.LongTensor` of shape `(windows, n, W)`: 0 where there are no more.
    """
    longest = max(len(line) for lines in windows for line in lines)
    words = torch.zeros(len(windows), num_tokens, longest, dtype=torch.long)
    for window, lines in enumerate(windows):
        shares = np.array_split(np.arange(num_tokens), max(len(lines), 1))
        for share, line in zip(shares, lines, strict=False):
            for token, ids in zip(share, np.array_split(line, max(len(share), 1)), strict=False):
                words[window, token, : len(ids)] = torch.as_tensor(ids)
    return words


class SpokenClips(_KnownClips):
    """All mel clips of each synthetic clip, with the shares of each prosody and of silence in them."""

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        inputs, truth = self.look_up(index)
        shares = prosody_shares(truth, np.array(inputs["audio_segment_times"][0]))
        return {
            "input_features": inputs["input_features"],
            "shares": torch.tensor(shares, dtype=torch.float32)[None],
        }


def put_together(items: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Frames, or mel clips, of several clips in one batch."""
    return {name: value.flatten(0, 1) for name, value in pad_together(items).items()}


def truth_of(rows) -> dict[str, dict]:
    """What is known of the rows' clips, by name; see [`dialogue_truth`]."""
    folders = {Path(row["video"]).parent for row in rows}
    return {name: truth for folder in folders for name, truth in read_truth(folder).items()}


def amplitudes_at(truth: dict, times: np.ndarray) -> np.ndarray:
    """(T, A) of each facial action at `times` in seconds."""
    frame_times = np.array(truth["times"])
    nearest = np.abs(frame_times[None] - times[:, None]).argmin(axis=1)
    return np.array([truth["amplitudes"][action] for action in ACTIONS]).T[nearest]


def prosody_shares(truth: dict, segment_times: np.ndarray) -> np.ndarray:
    """(C, 3): what share of each stretch of time (C, 2) in seconds was spoken in which way, and what share was not."""
    start, end = segment_times.T
    shares = np.zeros((len(segment_times), len(PROSODIES) + 1))
    for utterance in truth["utterances"]:
        common = np.minimum(end, utterance["end"]) - np.maximum(start, utterance["start"])
        shares[:, list(PROSODIES).index(utterance["prosody"])] += common.clip(0) / (end - start)
    shares[:, -1] = (1 - shares.sum(axis=1)).clip(0)
    return shares / shares.sum(axis=1, keepdims=True)
