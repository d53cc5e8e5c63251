"""Zero-shot baselines: one adapter for each model that Transformers has a class for.

`load_baseline("LanguageBind/Video-LLaVA-7B-hf")` chooses the adapter by the model type of the checkpoint, and
[`run_dataset`] runs it over a data set. Clips are decoded with
PyAV and frames prepared by Transformers' PIL image processors, so that neither torchvision nor torchcodec is needed.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoTokenizer,
    BlipImageProcessorPil,
    CLIPImageProcessorPil,
    InstructBlipVideoForConditionalGeneration,
    LlavaNextVideoForConditionalGeneration,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2AudioForConditionalGeneration,
    Qwen2VLImageProcessorPil,
    VideoLlavaForConditionalGeneration,
)

from ..processing.feature_extraction_microemo import resample
from ..processing.media import Clip, MediaError, load_audio, shown_size

INSTRUCTION = (
    "As an expert in the field of emotions, please focus on the facial expressions, body movements, tone of voice and "
    "words of the person to discern clues related to their emotions. Describe the clues in detail, then name the "
    "emotions that the person feels."
)
"""The question to a sample without an instruction of its own."""

Segment = str | tuple[int, int] | list[int]
"""A piece of a prompt: the text of an adapter, in which special tokens count; a token id and how often it stands; or the
token ids of a user's text."""


class Baseline:
    """Base class of the adapters: it assembles prompts, pads them on the left, and generates with greedy decoding.

    Args:
        name (`str`): The name of the system, for tables and output files.
        model (`PreTrainedModel`): The model.
        tokenizer (`PreTrainedTokenizerBase`): The tokenizer of the model.
        processors (`Sequence`, *optional*): An instance of each class in `processor_classes`, in that order.
        num_frames (`int`, *optional*): The number of frames sampled uniformly from a clip. By default the adapter's own.
        max_new_tokens (`int`, *optional*, defaults to 256): The length of the longest answer, in tokens.
        use_subtitle (`bool`, *optional*, defaults to `True`):
            Whether the sentence in a sample's `subtitle` is put before the instruction (the published setting "subtitle").
            Otherwise the model does not read it ("nosubtitle", "nosubtitle-addsub").

    Attributes:
        model_class (`type[PreTrainedModel]`): The class of the model.
        processor_classes (`Sequence[type]`): The classes of the preprocessors.
    """

    model_class: Any
    processor_classes: Sequence[Any] = ()
    num_frames = 8

    def __init__(
        self,
        name: str,
        model: Any,
        tokenizer: Any,
        processors: Sequence[Any] = (),
        num_frames: int | None = None,
        max_new_tokens: int = 256,
        use_subtitle: bool = True,
    ):
        self.name, self.model, self.tokenizer, self.processors = name, model.eval(), tokenizer, list(processors)
        self.num_frames = num_frames or self.num_frames
        self.max_new_tokens, self.use_subtitle = max_new_tokens, use_subtitle

    @classmethod
    def from_pretrained(
        cls, checkpoint: str, name: str | None = None, device: str | None = None, **options: Any
    ) -> "Baseline":
        """Loads model, tokenizer and preprocessors.

        Args:
            checkpoint (`str`): A Hub id or a folder.
            name (`str`, *optional*): The name of the system. By default the last part of `checkpoint`.
            device (`str`, *optional*):
                The device of the model. By default the model is spread over the GPUs, or uses the CPU if there is none.
            options (`Any`, *optional*): Further arguments of the constructor.

        Returns:
            [`Baseline`]: The baseline.

        Raises:
            OSError: if there is no such checkpoint.
        """
        device_map = device or ("auto" if torch.cuda.is_available() else None)
        model = cls.model_class.from_pretrained(checkpoint, dtype="auto", device_map=device_map)
        processors = [kind.from_pretrained(checkpoint) for kind in cls.processor_classes]
        return cls(
            name or checkpoint.rstrip("/").split("/")[-1], model, cls._tokenizers(checkpoint), processors, **options
        )

    @classmethod
    def _tokenizers(cls, checkpoint: str) -> Any:
        return AutoTokenizer.from_pretrained(checkpoint)

    def prepare(self, sample: dict) -> tuple[list[int], dict[str, torch.Tensor]]:
        """Prepares the inputs of one sample.

        Args:
            sample (`dict`): A row of the data set.

        Returns:
            `tuple[list[int], dict[str, torch.Tensor]]`: The token ids of the prompt, and the media tensors with a batch
            dimension of 1.

        Raises:
            MediaError: if the sample lacks the video or the sound that the model needs, or if it cannot be read.
        """
        raise NotImplementedError

    @torch.inference_mode()
    def answer(self, samples: list[dict]) -> list[str]:
        """Answers a batch of samples.

        Args:
            samples (`list[dict]`): N rows of the data set; see [`Answerer`].

        Returns:
            `list[str]`: N answers, in the order of the samples.

        Raises:
            MediaError: if a sample lacks the video or the sound that the model needs, or if it cannot be read.
        """
        prepared = [self.prepare(sample) for sample in samples]
        prompts = [ids for ids, _ in prepared]
        longest = max(map(len, prompts))
        pad = self.tokenizer.pad_token_id
        if pad is None:
            pad = self.tokenizer.eos_token_id
        inputs = {
            "input_ids": torch.tensor([[pad] * (longest - len(ids)) + ids for ids in prompts]),
            "attention_mask": torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts]),
        }
        for key in dict.fromkeys(key for _, media in prepared for key in media):
            inputs[key] = self.stack(key, [media[key] for _, media in prepared if key in media])
        inputs = {key: self._place(value) for key, value in inputs.items()}
        output = self.model.generate(**inputs, max_new_tokens=self.max_new_tokens, do_sample=False, pad_token_id=pad)
        if not self.model.config.is_encoder_decoder and not self._answers_alone():
            output = output[:, longest:]
        return [text.strip() for text in self.tokenizer.batch_decode(output, skip_special_tokens=True)]

    def _answers_alone(self) -> bool:
        """Returns whether `generate` gives the answer without the prompt."""
        return False

    def stack(self, key: str, tensors: list[torch.Tensor]) -> torch.Tensor:
        """Joins the tensors that the samples have under one key.

        Args:
            key (`str`): The name of the model's input.
            tensors (`list[torch.Tensor]`): The tensor of each sample, with a batch dimension of 1.

        Returns:
            `torch.Tensor`: The tensors along the batch dimension.
        """
        return torch.cat(tensors)

    def _place(self, tensor: torch.Tensor) -> torch.Tensor:
        media = tensor.is_floating_point() and tensor.dim() > 1  # pixels and mels, not seconds
        return tensor.to(self.model.device, self.model.dtype if media else None)

    def ids(self, segments: Sequence[Segment]) -> list[int]:
        """Joins the segments of a prompt into token ids, after the tokens with which the tokenizer begins a text.

        Args:
            segments (`Sequence[Segment]`): The segments of the prompt.

        Returns:
            `list[int]`: The token ids.
        """
        ids = self.tokenizer("").input_ids
        ids = ids[:-1] if ids and ids[-1] == self.tokenizer.eos_token_id else ids
        for segment in segments:
            if isinstance(segment, str):
                ids = ids + self.tokenizer(segment, add_special_tokens=False).input_ids
            elif isinstance(segment, tuple):
                ids = ids + [segment[0]] * segment[1]
            else:
                ids = ids + segment
        return ids

    def question(self, sample: dict) -> list[int]:
        """Returns the token ids of the instruction and the subtitle, in which special tokens are plain text.

        Args:
            sample (`dict`): A row of the data set.

        Returns:
            `list[int]`: The token ids.
        """
        instruction = sample.get("instruction") or INSTRUCTION
        if self.use_subtitle and sample.get("subtitle"):
            instruction = f'The subtitle of the clip is: "{sample["subtitle"]}". {instruction}'
        return self.tokenizer(instruction, add_special_tokens=False, split_special_tokens=True).input_ids


class VideoLlavaBaseline(Baseline):
    """Runs Video-LLaVA (Lin et al., 2023) on 8 frames, with every patch and the class token of each in the prompt."""

    model_class = VideoLlavaForConditionalGeneration
    processor_classes = (CLIPImageProcessorPil,)

    def prepare(self, sample: dict) -> tuple[list[int], dict[str, torch.Tensor]]:
        pixels = self.processors[0](uniform_frames(sample, self.num_frames), return_tensors="pt").pixel_values
        vision = self.model.config.vision_config
        tokens = len(pixels) * ((vision.image_size // vision.patch_size) ** 2 + 1)
        ids = self.ids(
            ["USER: ", (self.model.config.video_token_id, tokens), "\n", self.question(sample), " ASSISTANT:"]
        )
        return ids, {"pixel_values_videos": pixels[None]}


class LlavaNextVideoBaseline(Baseline):
    """Runs LLaVA-NeXT-Video (Zhang et al., 2024), which pools the patches of a frame by `spatial_pool_stride`."""

    model_class = LlavaNextVideoForConditionalGeneration
    processor_classes = (CLIPImageProcessorPil,)

    def prepare(self, sample: dict) -> tuple[list[int], dict[str, torch.Tensor]]:
        pixels = self.processors[0](uniform_frames(sample, self.num_frames), return_tensors="pt").pixel_values
        config = self.model.config
        side = config.vision_config.image_size // config.vision_config.patch_size
        # the model pools with a stride that leaves a last odd row and column out
        tokens = len(pixels) * (side // config.spatial_pool_stride) ** 2
        ids = self.ids(["USER: ", (config.video_token_id, tokens), "\n", self.question(sample), " ASSISTANT:"])
        return ids, {"pixel_values_videos": pixels[None]}


class InstructBlipVideoBaseline(Baseline):
    """Runs InstructBLIP (Dai et al., 2023) on four frames. Its Q-Former reads the instruction, too."""

    model_class = InstructBlipVideoForConditionalGeneration
    processor_classes = (BlipImageProcessorPil,)
    num_frames = 4

    def __init__(self, name: str, model: Any, tokenizer: Any, processors: Sequence[Any] = (), **options: Any):
        tokenizer, self.qformer_tokenizer = tokenizer
        super().__init__(name, model, tokenizer, processors, **options)
        if self.num_frames != 4:
            raise ValueError(f"num_frames={self.num_frames}: InstructBLIP's video model takes exactly 4 frames")
        if model.config.video_token_id is None:  # the published checkpoints, made for pictures, know no such token
            tokenizer.add_tokens(["<video>"], special_tokens=True)
            model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=64)
            model.config.video_token_id = tokenizer.convert_tokens_to_ids("<video>")

    @classmethod
    def _tokenizers(cls, checkpoint: str) -> tuple[Any, Any]:
        qformer = AutoTokenizer.from_pretrained(checkpoint, subfolder="qformer_tokenizer")
        return AutoTokenizer.from_pretrained(checkpoint), qformer

    def prepare(self, sample: dict) -> tuple[list[int], dict[str, torch.Tensor]]:
        pixels = self.processors[0](uniform_frames(sample, 4), return_tensors="pt").pixel_values
        question = self.question(sample)
        text = self.tokenizer.decode(question, skip_special_tokens=False)
        qformer = self.qformer_tokenizer(
            text, return_tensors="pt", truncation=True, max_length=512, split_special_tokens=True
        )
        # the model expects the video before the token that begins a text
        video = [self.model.config.video_token_id] * (self.model.config.num_query_tokens * 4)
        ids = video + self.ids([question])
        media = {
            "pixel_values": pixels[None],
            "qformer_input_ids": qformer.input_ids,
            "qformer_attention_mask": qformer.attention_mask,
        }
        return ids, media

    def stack(self, key: str, tensors: list[torch.Tensor]) -> torch.Tensor:
        if key.startswith("qformer"):
            pad = self.qformer_tokenizer.pad_token_id if key == "qformer_input_ids" else 0
            rows = [tensor[0] for tensor in tensors]
            return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad)
        return super().stack(key, tensors)

    def _answers_alone(self) -> bool:
        return self.model.config.text_config.is_encoder_decoder


class Qwen2AudioBaseline(Baseline):
    """Runs Qwen2-Audio (Chu et al., 2024) on the sound alone, of which it takes 30 s at most."""

    model_class = Qwen2AudioForConditionalGeneration
    processor_classes = (AutoFeatureExtractor,)

    def prepare(self, sample: dict) -> tuple[list[int], dict[str, torch.Tensor]]:
        media = audio_features(self.processors[0], sample)
        if media is None:
            raise MediaError(
                f"{sample.get('audio') or sample['video']}: has no sound, which is all that {self.name} takes"
            )
        audio = (self.model.config.audio_token_id, audio_tokens(media))
        ids = self.ids(
            [
                "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nAudio 1: <|audio_bos|>",
                audio,
                "<|audio_eos|>\n",
                self.question(sample),
                "<|im_end|>\n<|im_start|>assistant\n",
            ]
        )
        return ids, media


class Qwen2_5OmniBaseline(Baseline):
    """Runs the thinker of Qwen2.5-Omni (Xu et al., 2025) on the frames and the sound."""

    model_class = Qwen2_5OmniThinkerForConditionalGeneration
    processor_classes = (Qwen2VLImageProcessorPil, AutoFeatureExtractor)
    max_pixels = 256 * 28 * 28
    """The number of pixels of a resized frame. The checkpoint's limit for single pictures would fill the context."""

    def prepare(self, sample: dict) -> tuple[list[int], dict[str, torch.Tensor]]:
        config = self.model.config
        media: dict[str, torch.Tensor] = {}
        segments: list[Segment] = []
        system = "You are Qwen, a virtual human, capable of perceiving auditory and visual inputs."
        segments.append(f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n")
        if sample.get("video"):
            frames, seconds = timed_frames(sample, self.num_frames)
            pixels, grid = self._patches(frames)
            merge = config.vision_config.spatial_merge_size
            segments += ["<|vision_bos|>", (config.video_token_id, int(grid.prod()) // merge**2), "<|vision_eos|>"]
            media = {
                "pixel_values_videos": pixels,
                "video_grid_thw": grid,
                "video_second_per_grid": torch.tensor([seconds * config.vision_config.temporal_patch_size]),
            }
        sound = audio_features(self.processors[1], sample)
        if sound is not None:
            segments += ["<|audio_bos|>", (config.audio_token_id, audio_tokens(sound)), "<|audio_eos|>"]
            media |= sound
        segments += [self.question(sample), "<|im_end|>\n<|im_start|>assistant\n"]
        return self.ids(segments), media

    def _patches(self, frames: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the patches (T·h·w, 3·2·p·p) of pairs of frames, and their grid (1, 3).

        The image processor repeats each frame in its patches; a patch of a video holds two successive frames instead.
        """
        processor, vision = self.processors[0], self.model.config.vision_config
        frames = frames + frames[-1:] * (-len(frames) % vision.temporal_patch_size)
        size = {"shortest_edge": processor.size["shortest_edge"], "longest_edge": self.max_pixels}
        encoded = processor(frames, size=size, return_tensors="pt")
        _, height, width = encoded.image_grid_thw[0].tolist()
        patches = encoded.pixel_values.view(
            len(frames) // vision.temporal_patch_size, vision.temporal_patch_size, height * width, -1,
            vision.temporal_patch_size, vision.patch_size**2,
        )  # fmt: skip
        successive = [patches[:, i, :, :, i] for i in range(vision.temporal_patch_size)]
        pixels = torch.stack(successive, dim=3).flatten(0, 1).flatten(1)
        return pixels, torch.tensor([[len(frames) // vision.temporal_patch_size, height, width]])


BASELINES: dict[str, type[Baseline]] = {
    "video_llava": VideoLlavaBaseline,
    "llava_next_video": LlavaNextVideoBaseline,
    "instructblip": InstructBlipVideoBaseline,
    "instructblipvideo": InstructBlipVideoBaseline,
    "qwen2_audio": Qwen2AudioBaseline,
    "qwen2_5_omni": Qwen2_5OmniBaseline,
    "qwen2_5_omni_thinker": Qwen2_5OmniBaseline,
}
"""The adapter of each model type."""


def load_baseline(checkpoint: str, **options: Any) -> Baseline:
    """Loads a baseline with the adapter for its model type.

    Args:
        checkpoint (`str`): A Hub id or a folder.
        options (`Any`, *optional*): Further arguments of [`Baseline.from_pretrained`].

    Returns:
        [`Baseline`]: The baseline.

    Raises:
        OSError: if there is no such checkpoint.
        ValueError: if there is no adapter for its model type.
    """
    model_type = AutoConfig.from_pretrained(checkpoint).model_type
    if model_type not in BASELINES:
        raise ValueError(f"{checkpoint}: model type {model_type!r} has no adapter; there are {', '.join(BASELINES)}")
    return BASELINES[model_type].from_pretrained(checkpoint, **options)


def uniform_frames(sample: dict, num_frames: int) -> list[np.ndarray]:
    """Reads evenly spaced frames of a sample's video. A clip with fewer frames gives some of them more than once.

    Args:
        sample (`dict`): A row of the data set with the key `video`.
        num_frames (`int`): The number of frames T.

    Returns:
        `list[np.ndarray]`: T upright RGB frames of shape `(height, width, 3)` and type uint8.

    Raises:
        MediaError: if the sample has no video, or if it cannot be read.
    """
    return timed_frames(sample, num_frames)[0]


def timed_frames(sample: dict, num_frames: int) -> tuple[list[np.ndarray], float]:
    """Reads evenly spaced frames of a sample's video, and the time between them.

    Args:
        sample (`dict`): A row of the data set with the key `video`.
        num_frames (`int`): The number of frames T.

    Returns:
        `tuple[list[np.ndarray], float]`: T upright RGB frames of shape `(height, width, 3)` and type uint8, and the time
        from one frame to the next, in seconds.

    Raises:
        MediaError: if the sample has no video, or if it cannot be read.
    """
    if not sample.get("video"):
        raise MediaError(f"{sample.get('name')}: this baseline needs a video")

    def middles(times: np.ndarray) -> np.ndarray:
        return np.unique(((np.arange(num_frames) + 0.5) * len(times) / num_frames).astype(int))

    with Clip(sample["video"]) as clip:
        indices, _, frames = clip.read(middles, lambda frame: _as_shown(frame, clip.info.pixel_aspect))
        count, duration = len(clip.info.frame_times), clip.info.duration
    chosen = ((np.arange(num_frames) + 0.5) * count / num_frames).astype(int)
    return [np.ascontiguousarray(frames[i]) for i in np.searchsorted(indices, chosen)], duration / num_frames


def _as_shown(frame: Any, pixel_aspect: float) -> np.ndarray:
    width, height, turns = shown_size(frame, pixel_aspect)
    stored = (height, width) if turns % 2 else (width, height)
    return np.rot90(frame.reformat(*stored, "rgb24").to_ndarray(), turns)


def audio_features(extractor: Any, sample: dict) -> dict[str, torch.Tensor] | None:
    """Computes the Whisper features of a sample's `audio`, or of the sound of its `video`.

    Args:
        extractor (`WhisperFeatureExtractor`): The feature extractor of the model.
        sample (`dict`): A row of the data set.

    Returns:
        `dict[str, torch.Tensor]` or `None`: `input_features` of shape `(1, bins, frames)` and `feature_attention_mask` of
        shape `(1, frames)`; `None` if there is no sound.

    Raises:
        MediaError: if the file cannot be read.
    """
    track = load_audio(sample.get("audio") or sample["video"])
    if track is None:
        return None
    sound = resample(torch.from_numpy(track.samples).mean(0, keepdim=True), track.rate, extractor.sampling_rate)
    features = extractor(
        sound[0].numpy(),
        sampling_rate=extractor.sampling_rate,
        padding="max_length",
        return_attention_mask=True,
        return_tensors="pt",
    )
    return {"input_features": features.input_features, "feature_attention_mask": features.attention_mask}


def audio_tokens(media: dict[str, torch.Tensor]) -> int:
    """Returns the number of tokens that the audio encoder makes of the features, whose length it halves twice.

    Args:
        media (`dict[str, torch.Tensor]`): The tensors that [`audio_features`] returns.

    Returns:
        `int`: The number of tokens.
    """
    frames = int(media["feature_attention_mask"].sum())
    return ((frames - 1) // 2 + 1 - 2) // 2 + 1
