"""Zero-shot baselines that Transformers has classes for, one adapter each, all `run_dataset.Answerer`s.

`load_baseline("LanguageBind/Video-LLaVA-7B-hf")` picks the adapter by the checkpoint's model type. Clips are decoded with
PyAV and frames prepared by Transformers' PIL image processors, so that neither torchvision nor torchcodec is needed.
"""

from collections.abc import Sequence

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

Segment = str | tuple[int, int] | list[int]
"""A piece of a prompt: text of ours (its special tokens count), (token id, how often), or ids of a user's text."""


class Baseline:
    """What the adapters share: prompt assembly, left padding, greedy generation.

    Args:
        name: for tables and output files.
        model: the loaded model.
        tokenizer: its tokenizer.
        processors: the preprocessors that the adapter's `processor_classes` name, in that order.
        num_frames: frames sampled uniformly from a clip.
        max_new_tokens: longest answer, tokens.
        use_subtitle: whether a sample's "subtitle" sentence is put before the instruction (the published "subtitle"
            setting) or kept from the model ("nosubtitle", "nosubtitle-addsub").
    """

    model_class: type
    processor_classes: Sequence[type] = ()
    num_frames = 8

    def __init__(
        self,
        name: str,
        model,
        tokenizer,
        processors: Sequence = (),
        num_frames: int | None = None,
        max_new_tokens: int = 256,
        use_subtitle: bool = True,
    ):
        self.name, self.model, self.tokenizer, self.processors = name, model.eval(), tokenizer, list(processors)
        self.num_frames = num_frames or self.num_frames
        self.max_new_tokens, self.use_subtitle = max_new_tokens, use_subtitle

    @classmethod
    def from_pretrained(
        cls, checkpoint: str, name: str | None = None, device: str | None = None, **options
    ) -> "Baseline":
        """Load model, tokenizer and preprocessors from a Hub id or folder.

        Args:
            device: where it runs; None spreads it over the GPUs there are, or uses the CPU.
            options: of the constructor.
        """
        device_map = device or ("auto" if torch.cuda.is_available() else None)
        model = cls.model_class.from_pretrained(checkpoint, dtype="auto", device_map=device_map)
        processors = [kind.from_pretrained(checkpoint) for kind in cls.processor_classes]
        return cls(
            name or checkpoint.rstrip("/").split("/")[-1], model, cls._tokenizers(checkpoint), processors, **options
        )

    @classmethod
    def _tokenizers(cls, checkpoint: str):
        return AutoTokenizer.from_pretrained(checkpoint)

    def prepare(self, sample: dict) -> tuple[list[int], dict[str, torch.Tensor]]:
        """Token ids and media tensors (with a batch dimension of one) of one sample."""
        raise NotImplementedError

    @torch.inference_mode()
    def answer(self, samples: list[dict]) -> list[str]:
        """Answer a batch; see `run_dataset.Answerer`."""
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
        """Whether `generate` gives the answer without the prompt."""
        return False

    def stack(self, key: str, tensors: list[torch.Tensor]) -> torch.Tensor:
        """Join the samples' tensors under one key."""
        return torch.cat(tensors)

    def _place(self, tensor: torch.Tensor) -> torch.Tensor:
        media = tensor.is_floating_point() and tensor.dim() > 1  # pixels and mels, not seconds
        return tensor.to(self.model.device, self.model.dtype if media else None)

    def ids(self, segments: Sequence[Segment]) -> list[int]:
        """Join prompt segments into token ids; the first is begun as the tokenizer begins a text."""
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
        """Ids of the instruction and the subtitle; special tokens in them are plain text."""
        instruction = sample.get("instruction") or INSTRUCTION
        if self.use_subtitle and sample.get("subtitle"):
            instruction = f'The subtitle of the clip is: "{sample["subtitle"]}". {instruction}'
        return self.tokenizer(instruction, add_special_tokens=False, split_special_tokens=True).input_ids


class VideoLlavaBaseline(Baseline):
    """Video-LLaVA (Lin et al., 2023): 8 frames, every patch and the class token of each in the prompt."""

    model_class = VideoLlavaForConditionalGeneration
    processor_classes = (CLIPImageProcessorPil,)

    def prepare(self, sample):
        pixels = self.processors[0](uniform_frames(sample, self.num_frames), return_tensors="pt").pixel_values
        vision = self.model.config.vision_config
        tokens = len(pixels) * ((vision.image_size // vision.patch_size) ** 2 + 1)
        ids = self.ids(
            ["USER: ", (self.model.config.video_token_id, tokens), "\n", self.question(sample), " ASSISTANT:"]
        )
        return ids, {"pixel_values_videos": pixels[None]}


class LlavaNextVideoBaseline(Baseline):
    """LLaVA-NeXT-Video (Zhang et al., 2024): frames pooled by `spatial_pool_stride`."""

    model_class = LlavaNextVideoForConditionalGeneration
    processor_classes = (CLIPImageProcessorPil,)

    def prepare(self, sample):
        pixels = self.processors[0](uniform_frames(sample, self.num_frames), return_tensors="pt").pixel_values
        config = self.model.config
        side = config.vision_config.image_size // config.vision_config.patch_size
        # the model pools with a stride that leaves a last odd row and column out
        tokens = len(pixels) * (side // config.spatial_pool_stride) ** 2
        ids = self.ids(["USER: ", (config.video_token_id, tokens), "\n", self.question(sample), " ASSISTANT:"])
        return ids, {"pixel_values_videos": pixels[None]}


class InstructBlipVideoBaseline(Baseline):
    """InstructBLIP on four frames (Dai et al., 2023), whose Q-Former reads the instruction too."""

    model_class = InstructBlipVideoForConditionalGeneration
    processor_classes = (BlipImageProcessorPil,)
    num_frames = 4

    def __init__(self, name, model, tokenizer, processors=(), **options):
        tokenizer, self.qformer_tokenizer = tokenizer
        super().__init__(name, model, tokenizer, processors, **options)
        if self.num_frames != 4:
            raise ValueError(f"num_frames={self.num_frames}: InstructBLIP's video model takes exactly 4 frames")
        if model.config.video_token_id is None:  # the published checkpoints, made for pictures, know no such token
            tokenizer.add_tokens(["<video>"], special_tokens=True)
            model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=64)
            model.config.video_token_id = tokenizer.convert_tokens_to_ids("<video>")

    @classmethod
    def _tokenizers(cls, checkpoint):
        qformer = AutoTokenizer.from_pretrained(checkpoint, subfolder="qformer_tokenizer")
        return AutoTokenizer.from_pretrained(checkpoint), qformer

    def prepare(self, sample):
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

    def stack(self, key, tensors):
        if key.startswith("qformer"):
            pad = self.qformer_tokenizer.pad_token_id if key == "qformer_input_ids" else 0
            rows = [tensor[0] for tensor in tensors]
            return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad)
        return super().stack(key, tensors)

    def _answers_alone(self):
        return self.model.config.text_config.is_encoder_decoder


class Qwen2AudioBaseline(Baseline):
    """Qwen2-Audio (Chu et al., 2024): the sound alone, at most 30 s."""

    model_class = Qwen2AudioForConditionalGeneration
    processor_classes = (AutoFeatureExtractor,)

    def prepare(self, sample):
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
    """Qwen2.5-Omni's thinker (Xu et al., 2025): frames, then the sound."""

    model_class = Qwen2_5OmniThinkerForConditionalGeneration
    processor_classes = (Qwen2VLImageProcessorPil, AutoFeatureExtractor)
    max_pixels = 256 * 28 * 28
    """Pixels of a frame after resizing; the checkpoint's limit for single pictures would fill the context."""

    def prepare(self, sample):
        config, media, segments = self.model.config, {}, []
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
        """(T·h·w, 3·2·p·p) patches of frame pairs and their (1, 3) grid.

        The picture processor gives each frame's patches with the frame standing twice; a video's patch holds two
        successive frames instead.
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
"""Adapter of each model type."""


def load_baseline(checkpoint: str, **options) -> Baseline:
    """The baseline of a Hub id or folder, by its model type.

    Args:
        options: of `Baseline.from_pretrained`.
    Raises:
        ValueError: no adapter for its model type.
    """
    model_type = AutoConfig.from_pretrained(checkpoint).model_type
    if model_type not in BASELINES:
        raise ValueError(f"{checkpoint}: model type {model_type!r} has no adapter; there are {', '.join(BASELINES)}")
    return BASELINES[model_type].from_pretrained(checkpoint, **options)


def uniform_frames(sample: dict, num_frames: int) -> list[np.ndarray]:
    """`num_frames` upright RGB frames (height, width, 3) uint8 of the sample's "video", evenly spaced.

    A clip with fewer frames gives some of them more than once.
    """
    return timed_frames(sample, num_frames)[0]


def timed_frames(sample: dict, num_frames: int) -> tuple[list[np.ndarray], float]:
    """`uniform_frames`, and the seconds from one to the next."""
    if not sample.get("video"):
        raise MediaError(f"{sample.get('name')}: this baseline needs a video")

    def middles(times: np.ndarray) -> np.ndarray:
        return np.unique(((np.arange(num_frames) + 0.5) * len(times) / num_frames).astype(int))

    with Clip(sample["video"]) as clip:
        indices, _, frames = clip.read(middles, lambda frame: _as_shown(frame, clip.info.pixel_aspect))
        count, duration = len(clip.info.frame_times), clip.info.duration
    wanted = ((np.arange(num_frames) + 0.5) * count / num_frames).astype(int)
    return [np.ascontiguousarray(frames[i]) for i in np.searchsorted(indices, wanted)], duration / num_frames


def _as_shown(frame, pixel_aspect: float) -> np.ndarray:
    width, height, turns = shown_size(frame, pixel_aspect)
    stored = (height, width) if turns % 2 else (width, height)
    return np.rot90(frame.reformat(*stored, "rgb24").to_ndarray(), turns)


def audio_features(extractor, sample: dict) -> dict[str, torch.Tensor] | None:
    """Whisper-style features of the sample's "audio", or of its video's sound; None without sound."""
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
    """Tokens that the audio encoder (two halvings) makes of the features."""
    frames = int(media["feature_attention_mask"].sum())
    return ((frames - 1) // 2 + 1 - 2) // 2 + 1
