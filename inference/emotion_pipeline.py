"""From a clip to an answer: what `microemo predict` does, as a class."""

import time
from pathlib import Path

import torch

from ..modeling_microemo.modeling_microemo import MicroEmoForConditionalGeneration
from ..processing.media import probe
from ..processing.processing_microemo import MicroEmoProcessor
from ..processing.utterances import merge_utterances, read_utterances

SHIPPED = Path(__file__).parents[1] / "checkpoints" / "microemo-tiny"
QUESTION = "What does the speaker feel, and why?"
UTTERANCE_QUESTION = "What does the speaker feel in this utterance, and why?"


class EmotionPipeline:
    """Asks a MicroEmo model about clips; an `Answerer` of `run_dataset` too.

    Args:
        model ([`MicroEmoForConditionalGeneration`]): The model.
        processor ([`MicroEmoProcessor`]): Its processor.
        name (`str`, *optional*, defaults to `"MicroEmo"`): What tables call it.
        max_new_tokens (`int`, *optional*, defaults to 256): Longest answer.
        use_subtitle (`bool`, *optional*, defaults to `True`): Whether [`~EmotionPipeline.answer`] shows subtitles.

    Raises:
        ValueError: if the two were made with different switches.

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
        cls, checkpoint: str | Path = SHIPPED, device: str | None = None, **options
    ) -> "EmotionPipeline":
        """Model and processor of a folder or Hub id.

        Args:
            checkpoint (`str` or `Path`, *optional*):
                The folder or Hub id; by default the microemo-tiny that comes with this package. It learned from
                synthetic dialogues of one photograph and knows nothing about real people.
            device (`str`, *optional*): Where it runs; by default it is spread over the GPUs there are, else the CPU.
            options: Of the class.
        """
        device_map = device or ("auto" if torch.cuda.is_available() else None)
        model = MicroEmoForConditionalGeneration.from_pretrained(checkpoint, dtype="auto", device_map=device_map)
        return cls(model, MicroEmoProcessor.from_pretrained(checkpoint), **options)

    @torch.inference_mode()
    def __call__(
        self,
        clip,
        question: str = QUESTION,
        utterances=None,
        audio=None,
        asr=None,
        audio_track: int | str | None = None,
        **generate_kwargs,
    ) -> dict:
        """
        Args:
            clip: Whatever [`MicroEmoProcessor`] takes as a video; a sound file too.
            question (`str`, *optional*): What to ask.
            utterances, audio, asr, audio_track (*optional*): As for [`MicroEmoProcessor`].
            generate_kwargs: For `generate`.

        Returns:
            `dict` that `json` can write: `description` (the answer), `question`, `duration` in seconds, `utterances`
            (`start`, `end`, `text`, `speaker`), `frames` (`time`, `faces`), `faces_found` (frames with a face),
            `has_video`, `has_audio`, and `timings` in seconds.

        Raises:
            ValueError: for input that cannot be used (see [`MicroEmoProcessor`]).
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
        clip,
        utterances,
        question: str = UTTERANCE_QUESTION,
        audio=None,
        audio_track: int | str | None = None,
        **generate_kwargs,
    ) -> list[dict]:
        """The same question about each utterance, which it cites: its windows' tokens stand in the question once more.

        Args:
            clip: A video file.
            utterances: As for [`MicroEmoProcessor`].
            question (`str`, *optional*): What to ask.
            audio (*optional*): A sound file in place of the clip's own.
            audio_track (`int` or `str`, *optional*): Which sound track is heard, as for [`MicroEmoProcessor`].
            generate_kwargs: For `generate`.

        Returns:
            `list[dict]`: For each utterance `start`, `end`, `text`, `speaker`, `description` (the answer).

        Raises:
            ValueError: for input that cannot be used, no utterance within the clip, or a model whose windows are no
                utterances.
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
        """One answer a sample, see `run_dataset.Answerer`: `video` or `audio` or both, perhaps `utterances`, `subtitles`
        (a file) or `subtitle` (a sentence, taken to last as long as the clip), and `instruction`."""
        inputs = self.processor(
            text=[sample.get("instruction", QUESTION) for sample in samples],
            videos=[sample.get("video") or sample["audio"] for sample in samples],
            audio=[sample.get("audio") if sample.get("video") else None for sample in samples],
            utterances=[self._utterances(sample) for sample in samples],
            return_tensors="pt",
        )
        answers = self._generate(inputs, do_sample=False)
        return [text.strip() for text in self.processor.batch_decode(answers, skip_special_tokens=True)]

    def _utterances(self, sample: dict):
        if not self.use_subtitle:
            return None
        if sample.get("subtitle") and not (sample.get("utterances") or sample.get("subtitles")):
            duration = probe(sample.get("video") or sample["audio"]).duration
            return [{"start": 0.0, "end": duration, "text": sample["subtitle"]}]
        return sample.get("utterances") or sample.get("subtitles")

    def _generate(self, inputs, **generate_kwargs) -> torch.Tensor:
        """Token ids of the answers `(B, new tokens)`."""
        generate_kwargs = {"max_new_tokens": self.max_new_tokens, **generate_kwargs}
        output = self.model.generate(**inputs.to(self.model.device, self.model.dtype), **generate_kwargs)
        return output[:, inputs["input_ids"].shape[1] :]


def _text(question: str) -> dict:
    return {"type": "text", "text": f"{question}\n"}
