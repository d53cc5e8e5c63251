"""The result of an analysis: a clip's utterances with emotions, evidence and warnings, as a table, as JSON and as pictures.

```python
analysis = EmotionPipeline.from_pretrained().analyze("clip.mp4", utterances="clip.srt", evidence=True)
analysis.utterances[0].labels[0]
analysis.to_pandas()
analysis.plot("clip.png")
```
"""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..utils.atomic_files import write_text

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = Path(__file__).with_name("emotion_analysis.schema.json")


@dataclass
class LabelScore:
    """An emotion and how probable the model finds it.

    Attributes:
        label (`str`): The emotion word.
        score (`float`):
            Its share of the probability of all words of the vocabulary, after calibration; from 0 to 1, all of an
            utterance's add up to 1 over the whole vocabulary. `nan` is never used: without scores there are no labels.
        said (`bool`): Whether the answer names it.
    """

    label: str
    score: float
    said: bool = False


@dataclass
class Evidence:
    """What one part of the input contributed to the emotion words of an answer.

    Attributes:
        kind (`str`): `"region"` (of the face), `"window"` (the frames and sound of an utterance) or `"modality"`.
        name (`str`):
            The name of the clue region, the number of the utterance whose window it is (from 1, as text), or `"picture"`,
            `"sound"` or `"words"`.
        weight (`float`):
            By how much the log-probability of the emotion words falls, in nats, when this part is taken away. Negative
            where the words become more probable without it.
    """

    kind: Literal["region", "window", "modality"]
    name: str
    weight: float


@dataclass
class Claim:
    """A statement of the answer about a clue, and whether the evidence bears it out.

    Attributes:
        text (`str`): The words of the answer.
        about (`str`): What they are about: the name of a clue region, `"picture"`, `"sound"` or `"words"`.
        supported (`bool`): Whether the words become less probable when that part is taken away.
        weight (`float`): By how much the log-probability of the claim's words falls, in nats.
    """

    text: str
    about: str
    supported: bool
    weight: float


@dataclass
class UtteranceAnalysis:
    """One utterance and what is found in it.

    Attributes:
        number (`int`): The number of the utterance, from 1.
        start (`float`): The start in seconds.
        end (`float`): The end in seconds.
        text (`str`): The words, empty where they are not known.
        speaker (`str`, *optional*): The speaker, where the subtitles name one.
        description (`str`): The answer about this utterance. With observations only, its sentences without emotions.
        observation (`str`): What is seen in the face, in the model's words, without emotions.
        labels (`list[LabelScore]`): The most probable emotions, best first; empty with observations only.
        frames (`int`): The number of frames that the model reads in it.
        faces (`int`): In how many of them a face is found.
        voice (`dict[str, float]`):
            Measures of the sound: `loudness` (dBFS), `pitch` (median, Hz; absent where none is found),
            `pitch_range` (semitones between the 10th and the 90th percentile), `words_per_second` (where words are known).
            Empty without sound.
        evidence (`list[Evidence]`): What moved the answer; empty unless it was asked for.
        claims (`list[Claim]`): The statements of the answer, checked; empty unless evidence was asked for.
    """

    number: int
    start: float
    end: float
    text: str = ""
    speaker: str | None = None
    description: str = ""
    observation: str = ""
    labels: list[LabelScore] = field(default_factory=list)
    frames: int = 0
    faces: int = 0
    voice: dict[str, float] = field(default_factory=dict)
    evidence: list[Evidence] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)

    @property
    def emotions(self) -> list[str]:
        """The emotions that the answer names, or where it names none the most probable one."""
        said = [label.label for label in self.labels if label.said]
        return said or [label.label for label in self.labels[:1]]


@dataclass
class FrameFacts:
    """A frame that the model reads.

    Attributes:
        time (`float`): Its time in seconds.
        faces (`int`): The number of faces found in it.
    """

    time: float
    faces: int


@dataclass
class EmotionAnalysis:
    """What MicroEmo finds in a clip.

    Attributes:
        clip (`str`): The path or URL of the clip.
        model (`str`): The folder or Hub id of the model.
        version (`str`): The version of this package.
        duration (`float`, *optional*): The length in seconds.
        has_video (`bool`): Whether there are pictures.
        has_audio (`bool`): Whether there is sound.
        size (`list[int]`, *optional*): Width and height of the pictures in pixels.
        fps (`float`, *optional*): The frames per second of the file.
        question (`str`): The question about each utterance.
        description (`str`): The answer about the whole clip. With observations only, what is seen, without emotions.
        labels (`list[LabelScore]`): The most probable emotions of the whole clip.
        utterances (`list[UtteranceAnalysis]`): The utterances in order of time; while an analysis runs, those that are done.
        frames (`list[FrameFacts]`): The frames that the model reads.
        warnings (`list[str]`): What a reader must know: no face, no sound, words not known, utterances merged ...
        observations_only (`bool`): Whether emotions were left out.
        vocabulary (`list[str]`): The emotion words whose probabilities were compared.
        calibrated (`bool`): Whether the scores are calibrated on people of a dev split.
        utterances_found (`int`): The number of utterances to analyse; more than there are while an analysis runs.
    """

    clip: str
    model: str
    version: str
    duration: float | None = None
    has_video: bool = False
    has_audio: bool = False
    size: list[int] | None = None
    fps: float | None = None
    question: str = ""
    description: str = ""
    labels: list[LabelScore] = field(default_factory=list)
    utterances: list[UtteranceAnalysis] = field(default_factory=list)
    frames: list[FrameFacts] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    observations_only: bool = False
    vocabulary: list[str] = field(default_factory=list)
    calibrated: bool = False
    utterances_found: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether every utterance that was found is analysed."""
        return len(self.utterances) == self.utterances_found

    def to_dict(self) -> dict[str, Any]:
        """Returns plain numbers, texts, lists and dictionaries, as in the JSON.

        Returns:
            `dict`: The analysis, by the schema in `inference/emotion_analysis.schema.json`.
        """
        return dataclasses.asdict(self)

    def to_json(self, path: str | Path | None = None) -> str:
        """Writes the analysis as JSON.

        Args:
            path (`str` or `Path`, *optional*): The file to write.

        Returns:
            `str`: The JSON text.
        """
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        if path is not None:
            write_text(Path(path), text)
        return text

    @classmethod
    def from_json(cls, source: str | Path) -> "EmotionAnalysis":
        """Reads what [`~EmotionAnalysis.to_json`] wrote.

        Args:
            source (`str` or `Path`): The JSON text, or the file.

        Returns:
            [`EmotionAnalysis`]: The analysis.

        Raises:
            ValueError: if it is no analysis. The message names the field.
        """
        text = (
            source if isinstance(source, str) and source.lstrip().startswith("{") else Path(source).read_text("utf-8")
        )
        where = "the JSON text" if text is source else str(source)
        try:
            return _read(cls, json.loads(text))
        except (json.JSONDecodeError, TypeError, AttributeError) as error:
            raise ValueError(f"{where}: no analysis of MicroEmo: {error}") from error

    def to_pandas(self) -> "pd.DataFrame":
        """Makes a table with a row for each utterance.

        Returns:
            `pandas.DataFrame`: The columns of [`~EmotionAnalysis.rows`].

        Raises:
            ImportError: if pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError("a table needs pandas: pip install pandas", name="pandas") from error

        return pd.DataFrame(self.rows())

    def rows(self) -> list[dict[str, Any]]:
        """Lists the utterances as rows of a table, which all have the same columns.

        Returns:
            `list[dict]`: `clip`, `number`, `start`, `end`, `speaker`, `text`, `emotions` (those the answer names, joined by
            `"; "`), `top_label` and `top_score`, `observation`, `description`, `faces`, `frames`, the measures of the voice
            (`loudness`, `pitch`, `pitch_range`, `words_per_second`; `None` where unknown), and with evidence
            `evidence_KIND_NAME` for each part and `claims_supported` and `claims`, their numbers.
        """
        parts = dict.fromkeys(
            (one.kind, one.name) for of in self.utterances for one in of.evidence if one.kind != "window"
        )
        rows = []
        for of in self.utterances:
            best = of.labels[0] if of.labels else None
            row: dict[str, Any] = {"clip": self.clip, "number": of.number, "start": of.start, "end": of.end}
            row |= {"speaker": of.speaker, "text": of.text, "emotions": "; ".join(of.emotions)}
            row |= {"top_label": best and best.label, "top_score": best and best.score}
            row |= {"observation": of.observation, "description": of.description}
            row |= {"faces": of.faces, "frames": of.frames}
            row |= {name: of.voice.get(name) for name in ("loudness", "pitch", "pitch_range", "words_per_second")}
            weights = {(one.kind, one.name): one.weight for one in of.evidence}
            row |= {f"evidence_{kind}_{name}": weights.get((kind, name)) for kind, name in parts}
            if any(other.claims for other in self.utterances):
                row |= {"claims": len(of.claims), "claims_supported": sum(claim.supported for claim in of.claims)}
            rows.append(row)
        return rows

    def plot(self, path: str | Path | None = None, clip: Any = None) -> Any:
        """Draws the time line: frames, utterances coloured by emotion, evidence, wave form and facial actions.

        Args:
            path (`str` or `Path`, *optional*): The picture to write: PNG or SVG by its name.
            clip (`Any`, *optional*): The clip, where it no longer lies at `clip`. Without it frames and sound are left out.

        Returns:
            `matplotlib.figure.Figure`: The figure.

        Raises:
            ImportError: if matplotlib is not installed.
        """
        from .time_line import draw_time_line

        return draw_time_line(self, clip=clip, path=path)


_ITEMS = {
    "labels": LabelScore,
    "evidence": Evidence,
    "claims": Claim,
    "frames": FrameFacts,
    "utterances": UtteranceAnalysis,
}


def _read(kind: type, fields: dict[str, Any]) -> Any:
    """Makes a data class out of what JSON holds of it."""
    values = dict(fields)
    for name, item in _ITEMS.items():
        if isinstance(values.get(name), list):
            values[name] = [_read(item, one) for one in values[name]]
    return kind(**values)
