"""The emotion pipeline: the class behind `microemo predict`, which answers questions about a clip."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import BatchFeature

from ..modeling_microemo.modeling_microemo import MicroEmoForConditionalGeneration
from ..processing.media import probe
from ..processing.processing_microemo import MicroEmoProcessor
from ..processing.utterances import merge_utterances, read_utterances

SHIPPED = Path(__file__).parents[1] / "checkpoints" / "microemo-tiny"
QUESTION = "What does the speaker feel, and why?"
UTTERANCE_QUESTION = "What does the speaker feel in this utterance, and why?"


class EmotionPipeline:
    """Answers questions about clips with a MicroEmo model. It is also an [`Answerer`] of [`run_dataset`].

    Args:
        model ([`MicroEmoForConditionalGeneration`]): The model.
        processor ([`MicroEmoProcessor`]): The processor of the model.
        name (`str`, *optional*, defaults to `"MicroEmo"`): The name of the system in tables.
        max_new_tokens (`int`, *optional*, defaults to 256): The maximum length of an answer, in tokens.
        use_subtitle (`bool`, *optional*, defaults to `True`):
            Whether [`~EmotionPipeline.answer`] passes subtitles to the model.

    Raises:
        ValueError: if model and processor have different settings.

    Example:

    ```python
    >>> pipeline = EmotionPipeline.from_pretrained("ORG/microemo-7b")
    >>> pipeline("clip.mp4", utterances="clip.srt")["description"]
    ```"""

    def __init__(
        self,
        model: MicroEmoForConditionalGeneration,
        processor: MicroEmoProcessor,
        name: str = "MicroEmo",
        max_new_tokens: int = 256,
        use_subtitle: bool = True,
    ):
        processor.check_config(model.config)
        self.model = model.eval()
        self.processor = processor
        self.name = name
        self.max_new_tokens = max_new_tokens
        self.use_subtitle = use_subtitle

    @classmethod
    def from_pretrained(
        cls, checkpoint: str | Path = SHIPPED, device: str | None = None, **options: Any
    ) -> "EmotionPipeline":
        """Loads model and processor of a folder or Hub id.

        Args:
            checkpoint (`str` or `Path`, *optional*):
                The folder or Hub id. By default the microemo-tiny that comes with this package, which is trained on
                synthetic dialogues of one photograph and knows nothing about real people.
            device (`str`, *optional*):
                The device of the model. By default the model is spread over the GPUs, or uses the CPU if there is
                none.
            options (`Any`, *optional*): Further arguments of the constructor.

        Returns:
            [`EmotionPipeline`]: The pipeline.

        Raises:
            OSError: if there is no such checkpoint.
        """
        device_map = device or ("auto" if torch.cuda.is_available() else None)
        model = MicroEmoForConditionalGeneration.from_pretrained(checkpoint, dtype="auto", device_map=device_map)
        return cls(model, MicroEmoProcessor.from_pretrained(checkpoint), **options)

    @torch.inference_mode()
    def __call__(
        self,
        clip: Any,
        question: str = QUESTION,
        utterances: Any = None,
        audio: Any = None,
        asr: Callable | None = None,
        audio_track: int | str | None = None,
        **generate_kwargs: Any,
    ) -> dict:
        """Answers a question about a clip.

        Args:
            clip (`Any`): A video as [`MicroEmoProcessor`] takes it, or a sound file.
            question (`str`, *optional*, defaults to `"What does the speaker feel, and why?"`): The question.
            utterances (`Any`, *optional*): The subtitles, as [`MicroEmoProcessor`] takes them.
            audio (`Any`, *optional*): A sound file in place of the clip's own sound.
            asr (`Callable`, *optional*):
                A speech recogniser for a clip without subtitles, as [`MicroEmoProcessor`] takes it.
            audio_track (`int` or `str`, *optional*): The sound track that is read, as [`MicroEmoProcessor`] takes it.
            generate_kwargs (`Any`, *optional*): Further arguments of `generate`.

        Returns:
            `dict`: A dictionary that `json` can write: `clip`, `description` (the answer), `question`, `duration` in
            seconds, `utterances` (`start`, `end`, `text`, `speaker`), `frames` (`time`, `faces`), `faces_found` (the
            number of frames with a face), `has_video`, `has_audio`, `new_tokens` (the length of the answer), and
            `timings` in seconds.

        Raises:
            ValueError: if the input cannot be used (see [`MicroEmoProcessor`]).
        """
        started = time.perf_counter()
        inputs = self.processor(
            text=[question],
            videos=[clip],
            utterances=None if utterances is None else [utterances],
            audio=None if audio is None else [audio],
            audio_track=audio_track,
            asr=asr,
            return_tensors="pt",
            return_metadata=True,
        )
        metadata, utterances_of_clip = inputs.pop("video_metadata")[0], inputs.pop("utterances")[0]
        for name in ("audio_segment_times", "prompts"):
            inputs.pop(name)
        processed = time.perf_counter()
        answer = self._generate(inputs, **generate_kwargs)[0]
        generated = time.perf_counter()
        frames = []
        if metadata is not None:
            frames = [
                {"time": round(float(seconds), 3), "faces": int(faces)}
                for seconds, faces in zip(metadata.frame_times, metadata.faces_found, strict=True)
            ]
        return {
            "clip": str(clip),
            "question": question,
            "description": self.processor.decode(answer, skip_special_tokens=True).strip(),
            "duration": None if metadata is None else round(float(metadata.duration), 3),
            "utterances": [
                {
                    "start": round(utterance.start, 3),
                    "end": round(utterance.end, 3),
                    "text": utterance.text,
                    "speaker": utterance.speaker,
                }
                for utterance in utterances_of_clip
            ],
            "frames": frames,
            "faces_found": sum(frame["faces"] > 0 for frame in frames),
            "has_video": metadata is not None,
            "has_audio": "input_features" in inputs,
            "new_tokens": len(answer),
            "timings": {"processor": round(processed - started, 3), "generate": round(generated - processed, 3)},
        }

    @torch.inference_mode()
    def by_utterance(
        self,
        clip: str | Path,
        utterances: Any,
        question: str = UTTERANCE_QUESTION,
        audio: str | Path | None = None,
        audio_track: int | str | None = None,
        **generate_kwargs: Any,
    ) -> list[dict]:
        """Asks the same question about each utterance.

        The question cites the utterance, so that the tokens of its windows stand in the question once more.

        Args:
            clip (`str` or `Path`): A video file.
            utterances (`Any`): The subtitles, as [`MicroEmoProcessor`] takes them.
            question (`str`, *optional*, defaults to `"What does the speaker feel in this utterance, and why?"`):
                The question.
            audio (`str` or `Path`, *optional*): A sound file in place of the clip's own sound.
            audio_track (`int` or `str`, *optional*): The sound track that is read, as [`MicroEmoProcessor`] takes it.
            generate_kwargs (`Any`, *optional*): Further arguments of `generate`.

        Returns:
            `list[dict]`: For each utterance `start`, `end`, `text`, `speaker` and `description` (the answer).

        Raises:
            ValueError: if the input cannot be used, if no utterance lies within the clip, or if the windows of the
                model are not utterances.
        """
        duration = probe(clip, audio_track if audio is None else None).duration
        merged = merge_utterances(read_utterances(utterances, duration), self.processor.max_utterances)
        if not merged:
            source = (
                utterances if isinstance(utterances, (str, Path)) and "\n" not in str(utterances) else "utterances"
            )
            raise ValueError(f"{source}: no utterance in the clip {clip} (0 to {duration:.1f} s) to ask about")
        entries = [vars(entry) for entry in merged]
        media: list[dict] = [{"type": "video", "path": str(clip), "utterances": entries}]
        media += [] if audio is None else [{"type": "audio", "path": str(audio)}]
        media[-1]["audio_track"] = audio_track
        questions = [
            [{"role": "user", "content": [*media, _text(question), {"type": "utterance", "index": index}]}]
            for index in range(1, len(merged) + 1)
        ]
        inputs = self.processor.apply_chat_template(
            questions, tokenize=True, return_dict=True, add_generation_prompt=True, return_tensors="pt"
        )
        inputs = inputs.to(self.model.device, self.model.dtype)
        answers = self.processor.batch_decode(self._generate(inputs, **generate_kwargs), skip_special_tokens=True)
        return [{**entry, "description": answer.strip()} for entry, answer in zip(entries, answers, strict=True)]

    @torch.inference_mode()
    def answer(self, samples: list[dict]) -> list[str]:
        """Answers a batch of samples.

        Args:
            samples (`list[dict]`):
                N rows of the data set: `video` or `audio` or both, optionally `utterances`, `subtitles` (a file) or
                `subtitle` (a sentence, taken to last as long as the clip), and `instruction`; see [`Answerer`].

        Returns:
            `list[str]`: N answers, in the order of the samples.

        Raises:
            ValueError: if a sample cannot be used (see [`MicroEmoProcessor`]).
        """
        inputs = self.processor(
            text=[sample.get("instruction", QUESTION) for sample in samples],
            videos=[sample.get("video") or sample["audio"] for sample in samples],
            audio=[sample.get("audio") if sample.get("video") else None for sample in samples],
            utterances=[self._utterances(sample) for sample in samples],
            return_tensors="pt",
        )
        answers = self._generate(inputs, do_sample=False)
        return [text.strip() for text in self.processor.batch_decode(answers, skip_special_tokens=True)]

    def _utterances(self, sample: dict) -> Any:
        if not self.use_subtitle:
            return None
        if sample.get("subtitle") and not (sample.get("utterances") or sample.get("subtitles")):
            duration = probe(sample.get("video") or sample["audio"]).duration
            return [{"start": 0.0, "end": duration, "text": sample["subtitle"]}]
        return sample.get("utterances") or sample.get("subtitles")

    def _generate(self, inputs: BatchFeature, **generate_kwargs: Any) -> torch.Tensor:
        """Returns the token ids of the answers, of shape `(B, new tokens)`."""
        generate_kwargs = {"max_new_tokens": self.max_new_tokens, **generate_kwargs}
        output = self.model.generate(**inputs.to(self.model.device, self.model.dtype), **generate_kwargs)
        return output[:, inputs["input_ids"].shape[1] :]


def _text(question: str) -> dict:
    return {"type": "text", "text": f"{question}\n"}
