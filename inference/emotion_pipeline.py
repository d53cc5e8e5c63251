"""The emotion pipeline: `pipeline("video-emotion-recognition")`, the class behind `microemo predict`.

```python
from transformers import pipeline
import microemo

ask = pipeline("video-emotion-recognition", model="ORG/microemo-7b")
ask("clip.mp4", utterances="clip.srt")["description"]
ask([{"video": "a.mp4", "subtitles": "a.srt"}, {"video": "b.mp4", "question": "Is she glad?"}], batch_size=2)
```
"""

import os
import sys
import time
from collections.abc import Iterator, Sequence, Sized
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import AutoModelForMultimodalLM, BatchFeature
from transformers.pipelines import PIPELINE_REGISTRY, Pipeline
from transformers.pipelines.pt_utils import PipelineDataset, PipelineIterator
from transformers.utils import logging

from ..modeling_microemo.modeling_microemo import MicroEmoForConditionalGeneration
from ..processing.media import probe
from ..processing.processing_microemo import MicroEmoProcessor
from ..processing.speech import SpeechReader, as_speech_reader
from ..processing.utterances import merge_utterances, read_utterances
from .pipeline_inputs import QUESTION, UTTERANCE_QUESTION, QueryCollator, QueryReader, as_queries, first_of

logger = logging.get_logger(__name__)

SHIPPED = Path(__file__).parents[1] / "checkpoints" / "microemo-small"
EXAMPLE = SHIPPED.parent / "example" / "two_people.mp4"
TASK = "video-emotion-recognition"


class EmotionPipeline(Pipeline):
    """Answers questions about clips with a MicroEmo model: Transformers' pipeline for the task
    `"video-emotion-recognition"`. It is also an [`Answerer`] of [`run_dataset`].

    Args:
        model ([`MicroEmoForConditionalGeneration`]): The model.
        processor ([`MicroEmoProcessor`]): The processor of the model.
        name (`str`, *optional*, defaults to `"MicroEmo"`): The name of the system in tables.
        max_new_tokens (`int`, *optional*, defaults to 256): The maximum length of an answer, in tokens.
        use_subtitle (`bool`, *optional*, defaults to `True`):
            Whether [`~EmotionPipeline.answer`] passes subtitles to the model.
        task (`str`, *optional*, defaults to `"video-emotion-recognition"`): The name of the task.
        kwargs (`Any`, *optional*):
            `device`, `batch_size` and `num_workers` as any pipeline takes them, and arguments of the calls to come.

    Raises:
        ValueError: if model and processor have different settings.

    Example:

    ```python
    >>> pipeline = EmotionPipeline.from_pretrained("ORG/microemo-7b")
    >>> pipeline("clip.mp4", utterances="clip.srt")["description"]
    ```"""

    _load_processor = True
    _load_tokenizer = False
    _load_feature_extractor = False
    _load_image_processor = False
    _load_video_processor = False

    def __init__(
        self,
        model: MicroEmoForConditionalGeneration,
        processor: MicroEmoProcessor,
        name: str = "MicroEmo",
        max_new_tokens: int = 256,
        use_subtitle: bool = True,
        task: str = TASK,
        **kwargs: Any,
    ):
        processor.check_config(model.config)
        super().__init__(model=model.eval(), processor=processor, task=task, **kwargs)
        self.name = name
        self.max_new_tokens = max_new_tokens
        self.use_subtitle = use_subtitle
        self.asr = kwargs.get("asr")

    @classmethod
    def from_pretrained(
        cls, checkpoint: str | Path = SHIPPED, device: str | None = None, **options: Any
    ) -> "EmotionPipeline":
        """Loads model and processor of a folder or Hub id.

        Args:
            checkpoint (`str` or `Path`, *optional*):
                The folder or Hub id. By default the microemo-small that comes with this package, which is trained on
                photographs of real people that act and on recordings of acted speech, for non-commercial use.
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

    def __call__(
        self,
        inputs: Any,
        question: str | None = None,
        utterances: Any = None,
        audio: Any = None,
        asr: Any = None,
        audio_track: int | str | list | None = None,
        num_workers: int | None = None,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """Answers a question about a clip, or about each of several clips.

        Args:
            inputs (`Any`):
                A clip as [`MicroEmoProcessor`] takes it (path, URL, bytes, file object, decoded frames) or a sound file; a
                dictionary with `video` or `audio` or both, and maybe `utterances` (or `subtitles`, a file, or `subtitle`,
                one sentence), `question`, `audio_track`, `sampling_rate`, `landmarks` and `video_metadata`; a list of
                such inputs; a generator or a data set of them. Rows of the library `datasets` are such dictionaries.
            question (`str`, *optional*, defaults to `"What does the speaker feel, and why?"`):
                The question about clips that have none of their own.
            utterances (`Any`, *optional*):
                The subtitles, as [`MicroEmoProcessor`] takes them, or a list with those of each clip.
            audio (`Any`, *optional*): A sound file in place of the clip's own sound, or a list with one for each clip.
            asr (`SpeechReader`, `Callable`, `str` or `False`, *optional*):
                A [`SpeechReader`], a speech-recognition pipeline or the name of a model for clips without subtitles. By
                default their utterances are where somebody speaks, without words; `False` makes none.
            audio_track (`int` or `str`, *optional*):
                The sound track that is read, as [`MicroEmoProcessor`] takes it, or a list with that of each clip.
            num_workers (`int`, *optional*, defaults to 0):
                The number of processes that read the clips of a list or data set. They are forks, or where a face mesh has
                run in this process, processes that start afresh: a script then needs `if __name__ == "__main__"`.
            batch_size (`int`, *optional*, defaults to 1): The number of clips that the model answers at once.
            kwargs (`Any`, *optional*):
                `return_prompt` adds the text that the model reads to the answers, `return_tensors` the tokens of the
                answer. All else goes to `generate`.

        Returns:
            `dict`, or of several clips a `list[dict]`, or of a generator or data set an iterator: For each clip a dictionary
            that `json` can write, by the schema in `inference/video_emotion_recognition.schema.json`: `clip`, `question`,
            `description` (the answer), `duration` in seconds, `utterances` (`start`, `end`, `text`, `speaker`,
            and `words` if they have times), `frames` (`time`, `faces`), `faces_found` (the number of frames with a face), `has_video`, `has_audio`, `new_tokens` (the
            length of the answer), and `timings` in seconds.

        Raises:
            TypeError: if a dictionary has an unknown key.
            ValueError: if the input cannot be used (see [`MicroEmoProcessor`]). Of several clips the message names the one.
        """
        queries = as_queries(inputs, utterances=utterances, audio=audio, audio_track=audio_track)
        if isinstance(queries, list) and not queries:
            return []
        return super().__call__(
            queries, num_workers=num_workers, batch_size=batch_size, question=question, asr=asr, **kwargs
        )

    def _sanitize_parameters(
        self,
        question: str | None = None,
        asr: Any = None,
        return_prompt: bool | None = None,
        return_tensors: bool | None = None,
        generate_kwargs: dict | None = None,
        **kwargs: Any,
    ) -> tuple[dict, dict, dict]:
        reading = {"question": question, "asr": asr}
        writing = {"return_prompt": return_prompt, "return_tensors": return_tensors}
        return _given(reading), {**(generate_kwargs or {}), **kwargs}, _given(writing)

    def preprocess(self, input_: Any, **kwargs: Any) -> dict[str, Any]:
        """Reads one clip, see [`QueryReader`].

        Args:
            input_ (`Any`): The clip.
            kwargs (`Any`, *optional*): `question` and `asr`.

        Returns:
            `dict`: `inputs`, the tensors for `generate`, and `about`, what was found in the clip.
        """
        return QueryReader(self.processor)(input_, **kwargs)

    def _forward(self, input_tensors: dict[str, Any], **generate_kwargs: Any) -> dict[str, Any]:
        started = time.perf_counter()
        answers = self._generate(BatchFeature(input_tensors["inputs"]), **generate_kwargs)
        rows = len(input_tensors["inputs"]["input_ids"])
        if len(answers) != rows:
            raise ValueError(
                f"expected one answer for each clip, got {len(answers)} for {rows}: num_return_sequences is 1"
            )
        seconds, about = round(time.perf_counter() - started, 3), input_tensors["about"]
        timed = [of_clip | {"generate": seconds} for of_clip in (about if isinstance(about, list) else [about])]
        return {"answers": answers, "about": timed if isinstance(about, list) else timed[0]}

    def postprocess(
        self, model_outputs: dict[str, Any], return_prompt: bool = False, return_tensors: bool = False
    ) -> dict[str, Any]:
        """Writes the answer about one clip.

        Args:
            model_outputs (`dict`): `answers` of shape `(1, tokens)`, and `about`, what was found in the clip.
            return_prompt (`bool`, *optional*, defaults to `False`): Whether to add `prompt`.
            return_tensors (`bool`, *optional*, defaults to `False`): Whether to add `generated_token_ids`.

        Returns:
            `dict`: The answer, see [`EmotionPipeline.__call__`].
        """
        about, tokens = dict(model_outputs["about"]), self._without_padding(model_outputs["answers"][0])
        prompt = about.pop("prompt")
        timings = {"processor": about.pop("seconds"), "generate": about.pop("generate")}
        answer = {
            "clip": about.pop("clip"),
            "question": about.pop("question"),
            "description": self.processor.decode(tokens, skip_special_tokens=True).strip(),
            **about,
            "new_tokens": len(tokens),
            "timings": timings,
        }
        if return_prompt:
            answer["prompt"] = prompt
        if return_tensors:
            answer["generated_token_ids"] = tokens.tolist()
        return answer

    def get_iterator(
        self,
        inputs: Any,
        num_workers: int,
        batch_size: int,
        preprocess_params: dict,
        forward_params: dict,
        postprocess_params: dict,
    ) -> PipelineIterator:
        """Reads the clips in workers, in batches that hold what the clips have: sound, pictures, utterances.

        Args:
            inputs (`Any`): The queries: a list, a data set or a generator.
            num_workers (`int`): The number of processes that read clips. A generator is read in this process.
            batch_size (`int`): The number of clips in a batch.
            preprocess_params (`dict`): The arguments of `preprocess`.
            forward_params (`dict`): The arguments of `generate`.
            postprocess_params (`dict`): The arguments of `postprocess`.

        Returns:
            `PipelineIterator`: The answers, in the order of the inputs.
        """
        # The workers get the processor alone, not the pipeline with its model.
        reader, is_generator = QueryReader(self.processor), not isinstance(inputs, Sized)
        if is_generator and num_workers:
            logger.warning("A generator cannot be shared by processes: its clips are read in this one.")
            num_workers = 0
        if num_workers:
            os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # which the tokenizers ask for before a fork
        loader = DataLoader(
            (PipelineIterator if is_generator else PipelineDataset)(inputs, reader, preprocess_params),
            num_workers=num_workers,
            batch_size=batch_size,
            collate_fn=first_of if batch_size == 1 else QueryCollator(self.processor.tokenizer.pad_token_id),
            # MediaPipe hangs in the fork of a process that has used it. It is imported when it is.
            multiprocessing_context="spawn" if num_workers and "mediapipe" in sys.modules else None,
        )
        answers = PipelineIterator(loader, self.forward, forward_params, loader_batch_size=batch_size)
        return PipelineIterator(answers, self.postprocess, postprocess_params)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Saves model and processor, and where Transformers loaded this class from beside a checkpoint, the code too.

        Args:
            save_directory (`str` or `os.PathLike`): The folder.
            kwargs (`Any`, *optional*): Further arguments of the model's `save_pretrained`.
        """
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory)

    @torch.inference_mode()
    def by_utterance(
        self,
        clip: str | Path,
        utterances: Any = None,
        question: str = UTTERANCE_QUESTION,
        audio: str | Path | None = None,
        audio_track: int | str | None = None,
        asr: Any = None,
        **generate_kwargs: Any,
    ) -> list[dict]:
        """Asks the same question about each utterance.

        The question cites the utterance, so that the tokens of its windows stand in the question once more.

        Args:
            clip (`str` or `Path`): A video file.
            utterances (`Any`, *optional*): The subtitles, as [`MicroEmoProcessor`] takes them.
            question (`str`, *optional*, defaults to `"What does the speaker feel in this utterance, and why?"`):
                The question.
            audio (`str` or `Path`, *optional*): A sound file in place of the clip's own sound.
            audio_track (`int` or `str`, *optional*): The sound track that is read, as [`MicroEmoProcessor`] takes it.
            asr (`SpeechReader`, `Callable` or `str`, *optional*):
                What makes the utterances without subtitles, as for [`~EmotionPipeline.__call__`].
            generate_kwargs (`Any`, *optional*): Further arguments of `generate`.

        Returns:
            `list[dict]`: For each utterance `start`, `end`, `text`, `speaker`, `words` if they have times, and `description`
            (the answer).

        Raises:
            ValueError: if the input cannot be used, if no utterance lies within the clip, or if the windows of the
                model are not utterances.
        """
        duration = probe(clip, audio_track if audio is None else None).duration
        if utterances is None:
            found = as_speech_reader(asr or SpeechReader()).read_file(audio or clip, audio_track, duration)
        else:
            found = read_utterances(utterances, duration)
        merged = merge_utterances(found, self.processor.max_utterances)
        if not merged:
            source = (
                utterances if isinstance(utterances, (str, Path)) and "\n" not in str(utterances) else "utterances"
            )
            if utterances is None:
                raise ValueError(f"{audio or clip}: nobody speaks in it, so that there is no utterance to ask about")
            raise ValueError(f"{source}: no utterance in the clip {clip} (0 to {duration:.1f} s) to ask about")
        entries = [
            {name: value for name, value in vars(entry).items() if name != "words" or value} for entry in merged
        ]
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
        answers = self.generate_texts(inputs, **generate_kwargs)
        return [{**entry, "description": answer} for entry, answer in zip(entries, answers, strict=True)]

    @torch.inference_mode()
    def answer(self, samples: list[dict]) -> list[str]:
        """Answers a batch of samples. Several samples about one clip share its arrays.

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
            asr=SpeechReader() if self.asr is None else self.asr,
            return_tensors="pt",
        )
        return self.generate_texts(inputs, do_sample=False)

    def _utterances(self, sample: dict) -> Any:
        if not self.use_subtitle:
            return None
        if sample.get("subtitle") and not (sample.get("utterances") or sample.get("subtitles")):
            duration = probe(sample.get("video") or sample["audio"]).duration
            return [{"start": 0.0, "end": duration, "text": sample["subtitle"]}]
        return sample.get("utterances") or sample.get("subtitles")

    def analyze(
        self,
        clip: Any,
        utterances: Any = None,
        audio: Any = None,
        audio_track: int | str | None = None,
        asr: Any = None,
        question: str | None = None,
        evidence: bool = False,
        observations_only: bool = False,
        vocabulary: Sequence[str] | None = None,
        **generate_kwargs: Any,
    ) -> Any:
        """Analyses a clip utterance by utterance.

        A clip of more than 12 utterances or 60 seconds of them is read in stretches, so that each utterance has frames of
        its own however long the clip is.

        Args:
            clip (`Any`): A video or sound file: path, URL, bytes or file object.
            utterances (`Any`, *optional*): The subtitles, as [`MicroEmoProcessor`] takes them.
            audio (`Any`, *optional*): A sound file in place of the clip's own sound.
            audio_track (`int` or `str`, *optional*): The sound track that is read, as [`MicroEmoProcessor`] takes it.
            asr (`SpeechReader`, `Callable`, `str` or `False`, *optional*):
                What makes the utterances without subtitles, as for [`~EmotionPipeline.__call__`].
            question (`str`, *optional*):
                The question about each utterance, and about a clip in which there is none, in place of "What does the speaker
                feel in this utterance, and why?".
            evidence (`bool`, *optional*, defaults to `False`):
                Whether to find what moved each answer, and to check its claims ([`find_evidence`]).
            observations_only (`bool`, *optional*, defaults to `False`):
                Whether to leave emotions out: facial clues, times and measures of the voice are left.
            vocabulary (`Sequence[str]`, *optional*):
                The emotion words whose scores are compared. By default those of the checkpoint's calibration, or where it
                has none the words of the emotion wheels.
            generate_kwargs (`Any`, *optional*): Further arguments of `generate`, which is greedy by default.

        Returns:
            [`EmotionAnalysis`]: What was found.

        Raises:
            ValueError: if the input cannot be used (see [`MicroEmoProcessor`]).
        """
        *_, analysis = self.stream_analysis(
            clip,
            utterances,
            audio,
            audio_track,
            asr,
            question,
            evidence,
            observations_only,
            vocabulary,
            **generate_kwargs,
        )
        return analysis

    def stream_analysis(self, clip: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Analyses a clip as [`~EmotionPipeline.analyze`] does, and gives the analysis while it grows.

        Args:
            clip (`Any`): The clip.
            args (`Any`): The other arguments of [`~EmotionPipeline.analyze`].
            kwargs (`Any`, *optional*): Likewise.

        Yields:
            [`EmotionAnalysis`]: The same object each time, with one more utterance; the last one is complete.

        Raises:
            ImportError: if this code came with a checkpoint, without the package.
        """
        try:  # a published checkpoint brings the pipeline, and not all that an analysis is made with
            analysis = import_module(".analysis", __package__)
        except ModuleNotFoundError as error:
            if error.name != f"{__package__}.analysis":
                raise
            raise ImportError("an analysis needs the package: pip install microemo", name="microemo") from error
        yield from analysis.stream_analysis(self, clip, *args, **kwargs)

    def generate_texts(self, inputs: BatchFeature, **generate_kwargs: Any) -> list[str]:
        """Answers prompts.

        Args:
            inputs (`BatchFeature`): What the processor made of them.
            generate_kwargs (`Any`, *optional*): Arguments of `generate`.

        Returns:
            `list[str]`: The answers, without space around them.
        """
        answers = self.processor.batch_decode(self._generate(inputs, **generate_kwargs), skip_special_tokens=True)
        return [answer.strip() for answer in answers]

    def _generate(self, inputs: BatchFeature, **generate_kwargs: Any) -> torch.Tensor:
        """Returns the token ids of the answers, of shape `(B, new tokens)`."""
        if not generate_kwargs.keys() & {"max_length", "generation_config"}:  # which say it themselves
            generate_kwargs = {"max_new_tokens": self.max_new_tokens, **generate_kwargs}
        output = self.model.generate(**inputs.to(self.model.device, self.model.dtype), **generate_kwargs)
        return output[:, inputs["input_ids"].shape[1] :]

    def _without_padding(self, tokens: torch.Tensor) -> torch.Tensor:
        """The tokens of an answer up to its end token: in a batch shorter answers are filled up behind it."""
        ends = self.model.generation_config.eos_token_id
        is_end = torch.isin(tokens, torch.tensor([] if ends is None else ends, dtype=tokens.dtype))
        return tokens[: int(is_end.nonzero()[0]) + 1] if is_end.any() else tokens


def register_emotion_pipeline() -> None:
    """Makes `pipeline("video-emotion-recognition", model=...)` of Transformers return an [`EmotionPipeline`]."""
    if TASK not in PIPELINE_REGISTRY.get_supported_tasks():
        PIPELINE_REGISTRY.register_pipeline(
            TASK, EmotionPipeline, pt_model=AutoModelForMultimodalLM, type="multimodal"
        )


def _text(question: str) -> dict:
    return {"type": "text", "text": f"{question}\n"}


def _given(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}
