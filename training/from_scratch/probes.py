"""Probes: heads that train the encoders of a small model on the known truth of synthetic dialogues.

The paper's towers come pretrained (EVA-CLIP, ImageBind). The towers of `microemo-tiny` are trained on synthetic
dialogues, whose truth holds the amplitude of each facial action in every frame and the prosody of every moment.
"""

from collections.abc import Iterable, Sequence
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
from ..data import to_conversation
from ..feature_cache import FRAME_INPUTS, pad_together
from ..synthetic.dialogue_plan import CLUES
from ..synthetic.face_acting import ACTIONS
from ..synthetic.synthetic_dialogues import read_truth
from ..synthetic.voice import PROSODIES

PARTS = 8  # The number of parts of a clip whose amplitudes are predicted from the tokens of the whole video.


class FacialActionProbe(nn.Module):
    """Predicts the amplitude of each facial action from the frame tokens: from each view alone, and from both
    together.

    Without a head of its own the local view learns late or never, because it starts as the weaker part behind the
    fusion.

    Args:
        visual_encoder ([`GlobalLocalVisualEncoder`]):
            The visual encoder of the model, whose tokens are the only input of the heads.
    """

    def __init__(self, visual_encoder: GlobalLocalVisualEncoder):
        super().__init__()
        config = visual_encoder.config
        self.visual_encoder = visual_encoder
        width = config.num_query_tokens * config.image_qformer_config.hidden_size
        views = ("global", "local", "frame") if config.use_local_clue_attention else ("frame",)
        self.heads = nn.ModuleDict({view: nn.Linear(width, len(ACTIONS)) for view in views})

    def forward(self, amplitudes: torch.Tensor, **frames: torch.Tensor) -> dict[str, torch.Tensor]:
        """Computes the loss of the amplitudes.

        Args:
            amplitudes (`torch.Tensor` of shape `(F, A)`):
                The amplitude of each action in each frame; 1 is its full motion.
            frames (`torch.Tensor`, *optional*): The arguments of the visual encoder.

        Returns:
            `dict[str, torch.Tensor]`: `loss`, the mean squared error summed over the views, and `logits` of shape
            `(F, A)`, the amplitudes predicted from the frame tokens.
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
    """Predicts from the tokens of every window what happens in it.

    The tokens of a window of frames give the mean amplitude of each facial action, those of an utterance's window of
    sound its prosody, and those of the whole video the amplitudes in each part of it.

    The projected tokens are trained towards the language model's embeddings of the words that describe the window, so
    that a frozen language model trained on dialogues in words can read them. Training on answers alone does the same,
    from some seeds within 60 steps and from others not within 240.

    Args:
        model ([`MicroEmoModel`]): The model whose video and audio Q-Formers and projections are trained.
        num_voices (`int`, *optional*): The number of kinds of voices, by default that of the prosodies.
    """

    def __init__(self, model: MicroEmoModel, num_voices: int = len(PROSODIES)):
        super().__init__()
        config = model.config
        self.model = model
        video_width = config.num_video_query_tokens * config.video_qformer_config.hidden_size
        audio_width = config.num_audio_query_tokens * config.audio_qformer_config.hidden_size
        self.of_clip = nn.Linear(video_width, PARTS * len(ACTIONS))
        self.of_window = nn.Linear(video_width, len(ACTIONS))
        self.of_sound = nn.Linear(audio_width, num_voices)

    def forward(
        self,
        of_parts: torch.Tensor,
        of_windows: torch.Tensor,
        prosodies: torch.Tensor,
        video_words: torch.Tensor,
        audio_words: torch.Tensor,
        **media: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Computes the loss of the windows.

        Args:
            of_parts (`torch.Tensor` of shape `(B, PARTS, A)`): The mean amplitudes in each part of the clip.
            of_windows (`torch.Tensor` of shape `(B, K, A)`): The mean amplitudes in each window of frames.
            prosodies (`torch.LongTensor` of shape `(B, K')`): The prosody of each utterance, -100 where there is none.
            video_words (`torch.LongTensor` of shape `(B, 1 + K, n, W)`):
                The ids of the words that each token of a window of frames stands for, as the mean of their embeddings.
                The whole video comes first. 0 is no word.
            audio_words (`torch.LongTensor` of shape `(B, 1 + K', m, W')`):
                The ids of the words of the tokens of a window of sound.
            media (`torch.Tensor`, *optional*): The inputs of the model for clips with frames and sound.

        Returns:
            `dict[str, torch.Tensor]`: `loss`, the sum of the squared errors, of the relative squared errors of the
            embeddings, weighted by 0.1, and of the cross-entropy of the prosodies; `amplitudes` of shape
            `(windows, A)` and `logits` of shape `(utterances, 2)` of the real windows.
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
            if real.any():
                losses.append(F.mse_loss(output["amplitudes"], of_windows[real]))
        real = media["audio_windows"][..., 1] > media["audio_windows"][..., 0]
        output["logits"] = self.of_sound(audio[:, 1:][real])
        if (prosodies[real] >= 0).any():
            losses.append(F.cross_entropy(output["logits"], prosodies[real]))
        return {"loss": sum(losses), **output}

    def _distance(self, tokens: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """Computes the relative distance to the words' embeddings, times 0.1: a larger weight would dominate the other
        losses.
        """
        has_words = (words > 0).any(dim=-1)
        is_word = (words[has_words] > 0)[..., None]
        embedded = self.model.get_input_embeddings()(words[has_words]) * is_word
        aims = embedded.sum(dim=-2) / is_word.sum(dim=-2)
        return 0.1 * F.mse_loss(tokens[has_words], aims) / aims.square().mean()


class PatchProbe(nn.Module):
    """Predicts facial actions from the image encoder's patches of frames and of face crops, with a head for each.

    A head that weighs every patch needs no attention that has yet to be learned: the path from the amplitudes to the
    patches is short, and the image encoder learns from the first step.

    Args:
        vision_model ([`MicroEmoVisionModel`]): The image encoder.
        num_values (`int`, *optional*): The number of values that each head predicts, by default that of the actions.
    """

    def __init__(self, vision_model: MicroEmoVisionModel, num_values: int = len(ACTIONS)):
        super().__init__()
        config = vision_model.config
        self.vision_model = vision_model
        self.heads = nn.ModuleList(
            nn.Linear(config.num_patches * config.hidden_size, num_values) for _ in ("frames", "faces")
        )
        for head in self.heads:
            nn.init.zeros_(head.weight)

    def forward(
        self,
        amplitudes: torch.Tensor,
        pixel_values: torch.Tensor,
        pixel_values_faces: torch.Tensor,
        **inputs: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Computes the loss of the amplitudes.

        Args:
            amplitudes (`torch.Tensor` of shape `(F, A)`):
                The amplitude of each action in each frame; 1 is its full motion.
            pixel_values (`torch.Tensor` of shape `(F, 3, H, W)`): The frames.
            pixel_values_faces (`torch.Tensor` of shape `(F, 3, H, W)`): The face crops.
            inputs (`torch.Tensor`, *optional*): Other inputs of the frames, which are not read.

        Returns:
            `dict[str, torch.Tensor]`: `loss`, the mean squared error summed over the views, and `logits` of shape
            `(F, A)`, predicted from the crops.
        """
        views = torch.cat([pixel_values, pixel_values_faces])
        patches = self.vision_model(views).last_hidden_state[:, 1:].flatten(1).chunk(2)
        predictions = [head(view) for head, view in zip(self.heads, patches, strict=True)]
        return {
            "loss": sum(F.mse_loss(prediction, amplitudes) for prediction in predictions),
            "logits": predictions[1],
        }


class ProsodyProbe(nn.Module):
    """Predicts from the feature of a log-mel segment the share of it with each prosody, and the silent share.

    Args:
        audio_tower ([`MicroEmoAudioModel`]): The audio tower.
    """

    def __init__(self, audio_tower: MicroEmoAudioModel):
        super().__init__()
        self.audio_tower = audio_tower
        self.head = nn.Linear(audio_tower.config.projection_dim, len(PROSODIES) + 1)

    def forward(self, shares: torch.Tensor, input_features: torch.Tensor) -> dict[str, torch.Tensor]:
        """Computes the loss of the shares.

        Args:
            shares (`torch.Tensor` of shape `(C, 3)`): The share of each prosody and of silence; they add up to 1.
            input_features (`torch.Tensor` of shape `(C, 1, num_mel_bins, num_mel_frames)`): The log-mel segments.

        Returns:
            `dict[str, torch.Tensor]`: `loss`, the cross-entropy, and `logits` of shape `(C, 3)`.
        """
        logits = self.head(self.audio_tower(input_features).pooler_output)
        return {"loss": F.cross_entropy(logits, shares), "logits": logits}


class _KnownClips(Dataset):
    """Processed synthetic clips and their truth.

    Args:
        rows (`Iterable[dict]`): Rows of the table of dialogues.
        processor ([`MicroEmoProcessor`]): The processor of the model, or the reader of a [`FeatureCache`].
    """

    def __init__(self, rows: Iterable[dict], processor: MicroEmoProcessor):
        self.rows, self.processor = list(rows), processor
        self.truth = truth_of(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def look_up(self, index: int) -> tuple[BatchFeature, dict]:
        """Processes a clip, and looks up its truth."""
        row = self.rows[index]
        # Rows have a subtitle file, a list of utterances, or neither.
        clip = to_conversation(row)[0]["content"][0]
        inputs = self.processor(
            videos=[row["video"]], utterances=[clip.get("utterances")], return_tensors="pt", return_metadata=True
        )
        return inputs, self.truth[row["name"]]

    def amplitudes(self, truth: dict, times: np.ndarray) -> np.ndarray:
        """Looks up the amplitudes of the facial actions.

        Args:
            truth (`dict`): The truth of a clip.
            times (`np.ndarray` of shape `(T,)`): The times in seconds.

        Returns:
            `np.ndarray` of shape `(T, A)`: The amplitudes.
        """
        return amplitudes_at(truth, times)


class ActingFrames(_KnownClips):
    """Random frames of each synthetic clip, with the amplitudes of the facial actions in them.

    The frames are drawn anew at every access.

    Args:
        rows (`Iterable[dict]`): Rows of the table of dialogues.
        processor ([`MicroEmoProcessor`]): The processor of the model, or the reader of a [`FeatureCache`].
        num_frames (`int`): The number of frames drawn from a clip.
    """

    def __init__(self, rows: Iterable[dict], processor: MicroEmoProcessor, num_frames: int):
        super().__init__(rows, processor)
        self.num_frames = num_frames

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        inputs, truth = self.look_up(index)
        times = np.array(inputs["video_metadata"][0].frame_times)
        frames = torch.randint(len(times), (self.num_frames,))
        frame_inputs = {name: inputs[key][:, frames] for name, key in FRAME_INPUTS.items() if key in inputs}
        amplitudes = self.amplitudes(truth, times[frames.numpy()])
        return frame_inputs | {"amplitudes": torch.tensor(amplitudes, dtype=torch.float32)[None]}


class AlignmentClips(_KnownClips):
    """Whole synthetic clips with the targets of [`WindowProbe`].

    The clips are small and always the same, so that each is read once.

    Args:
        rows (`Iterable[dict]`): Rows of the table of dialogues.
        processor ([`MicroEmoProcessor`]): The processor of the model, or the reader of a [`FeatureCache`].
    """

    def __init__(self, rows: Iterable[dict], processor: MicroEmoProcessor):
        super().__init__(rows, processor)
        self._read: dict[int, dict[str, torch.Tensor]] = {}

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if index not in self._read:
            self._read[index] = self._load(index)
        return self._read[index]

    def describe(self, truth: dict) -> list[tuple[str, str, int]]:
        """Describes the utterances of a clip.

        Args:
            truth (`dict`): The truth of the clip.

        Returns:
            `list[tuple[str, str, int]]`: For each utterance the words for what is seen, those for what is heard, and the
            index of the voice (-100 where there is none).
        """
        return [
            (CLUES[utterance["clue"]][1], utterance["prosody"], list(PROSODIES).index(utterance["prosody"]))
            for utterance in truth["utterances"]
        ]

    def describe_pause(self, truth: dict) -> tuple[str, str] | None:
        """Describes what is seen and heard where no utterance is.

        Args:
            truth (`dict`): The truth of the clip.

        Returns:
            `tuple[str, str]`, *optional*: The words for it. Without them windows without an utterance have none.
        """
        return None

    def _load(self, index: int) -> dict[str, torch.Tensor]:
        inputs, truth = self.look_up(index)
        tensors = {name: value for name, value in inputs.items() if isinstance(value, torch.Tensor)}
        times = np.array(inputs["video_metadata"][0].frame_times)
        amplitudes = self.amplitudes(truth, times)
        bounds = inputs["utterance_windows"][0].tolist()
        windows = [amplitudes[start:end].mean(axis=0) for start, end in bounds]
        # Repeated, so that there are enough frames for all parts.
        parts = [part.mean(axis=0) for part in np.split(amplitudes.repeat(PARTS, axis=0), PARTS)]
        described = [(self._ids(clue), self._ids(voice), kind) for clue, voice, kind in self.describe(truth)]
        pause = [[self._ids(words)] for words in self.describe_pause(truth) or ()] or [[], []]
        during = [(utterance["start"] <= times) & (times < utterance["end"]) for utterance in truth["utterances"]]
        clues_in_windows = [
            [clue for (clue, *_), lasts in zip(described, during, strict=True) if lasts[start:end].any()] or pause[0]
            for start, end in [(0, len(times)), *bounds]
        ]
        tensors |= {
            "video_words": words_of_tokens(clues_in_windows, self.processor.num_video_query_tokens)[None],
            "of_parts": torch.tensor(np.array(parts), dtype=torch.float32)[None],
            "of_windows": torch.tensor(np.reshape(windows, (1, -1, len(ACTIONS))), dtype=torch.float32),
        }
        if "audio_windows" not in tensors:  # no track, no tokens of sound
            return tensors
        voices, count = [voice for _, voice, _ in described] or pause[1], tensors["audio_windows"].shape[1]
        audio_words = [voices, *([voice] for voice in voices[:count])]
        return tensors | {
            "audio_words": words_of_tokens(audio_words, self.processor.num_audio_query_tokens)[None],
            "prosodies": torch.tensor([kind for *_, kind in described][:count], dtype=torch.long)[None],
        }

    def _ids(self, words: str) -> list[int]:
        return self.processor.tokenizer(f" {words}", add_special_tokens=False)["input_ids"]


def words_of_tokens(windows: Sequence[Sequence[Sequence[int]]], num_tokens: int) -> torch.Tensor:
    """Assigns words to the tokens of windows.

    Each utterance in a window has a share of the tokens, one after another, and its words are divided among them in
    the same way. If there are more tokens than words, some tokens have none.

    Args:
        windows (`Sequence[Sequence[Sequence[int]]]`): The ids of the words of each utterance in each window.
        num_tokens (`int`): The number n of tokens of a window.

    Returns:
        `torch.LongTensor` of shape `(windows, n, W)`: The ids of each token's words, padded with 0.
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
    """All log-mel segments of each synthetic clip, with the shares of each prosody and of silence in them.

    Args:
        rows (`Iterable[dict]`): Rows of the table of dialogues.
        processor ([`MicroEmoProcessor`]): The processor of the model, or the reader of a [`FeatureCache`].
    """

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        inputs, truth = self.look_up(index)
        shares = prosody_shares(truth, np.array(inputs["audio_segment_times"][0]))
        return {
            "input_features": inputs["input_features"],
            "shares": torch.tensor(shares, dtype=torch.float32)[None],
        }


def put_together(items: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Joins the frames, or log-mel segments, of several clips in one batch.

    Args:
        items (`list[dict[str, torch.Tensor]]`): The tensors of each clip, of shape `(1, N, ...)`.

    Returns:
        `dict[str, torch.Tensor]`: The tensors of shape `(B * N, ...)`.
    """
    return {name: value.flatten(0, 1) for name, value in pad_together(items).items()}


def truth_of(rows: Iterable[dict]) -> dict[str, dict]:
    """Reads the truth of the rows' clips.

    Args:
        rows (`Iterable[dict]`): Rows of the table of dialogues.

    Returns:
        `dict[str, dict]`: The truth of each clip by name, see [`dialogue_truth`].
    """
    folders = {Path(row["video"]).parent for row in rows}
    return {name: truth for folder in folders for name, truth in read_truth(folder).items()}


def amplitudes_at(truth: dict, times: np.ndarray) -> np.ndarray:
    """Looks up the amplitude of each facial action at given times.

    Args:
        truth (`dict`): The truth of a clip, see [`dialogue_truth`].
        times (`np.ndarray` of shape `(T,)`): The times in seconds.

    Returns:
        `np.ndarray` of shape `(T, A)`: The amplitudes in the nearest frame.
    """
    frame_times = np.array(truth["times"])
    nearest = np.abs(frame_times[None] - times[:, None]).argmin(axis=1)
    return np.array([truth["amplitudes"][action] for action in ACTIONS]).T[nearest]


def prosody_shares(truth: dict, segment_times: np.ndarray) -> np.ndarray:
    """Computes the share of each segment that is spoken with each prosody, and the share that is silent.

    Args:
        truth (`dict`): The truth of a clip, see [`dialogue_truth`].
        segment_times (`np.ndarray` of shape `(C, 2)`): The start and end of each segment in seconds.

    Returns:
        `np.ndarray` of shape `(C, 3)`: The shares, which add up to 1.
    """
    start, end = segment_times.T
    shares = np.zeros((len(segment_times), len(PROSODIES) + 1))
    for utterance in truth["utterances"]:
        common = np.minimum(end, utterance["end"]) - np.maximum(start, utterance["start"])
        shares[:, list(PROSODIES).index(utterance["prosody"])] += common.clip(0) / (end - start)
    shares[:, -1] = (1 - shares.sum(axis=1)).clip(0)
    return shares / shares.sum(axis=1, keepdims=True)
