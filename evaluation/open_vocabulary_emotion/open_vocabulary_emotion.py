"""Open-vocabulary emotion scores as an `evaluate` module; needs the `microemo` package.

>>> import evaluate
>>> metric = evaluate.load("evaluation/open_vocabulary_emotion")
>>> metric.compute(predictions=[["joyful"]], references=[["happy", "proud"]])["accuracy_s"]
1.0
"""

import datasets
import evaluate

from microemo.evaluation.emotion_wheel import EmotionWheels, wheel_scores
from microemo.evaluation.set_level import ReplayGrouper, WheelGrouper, set_level_scores

_DESCRIPTION = """Set-level Accuracy_S and Recall_S of EMER and MicroEmo (arXiv 2407.16552), and the emotion-wheel (EW)
metrics of OV-MER and AffectGPT (arXiv 2410.01495, 2501.16566), between lists of free emotion labels."""

_INPUTS = """
Args:
    predictions (`list[list[str]]` or `list[str]`): The predicted labels of each sample, or their text ("[happy, sad]").
    references (`list[list[str]]` or `list[str]`): The true labels of each sample, or their text.
    names (`list[str]`, *optional*): The names of the samples, needed with `groups`. By default their positions.
    wheels (`str`, *optional*):
        The folder of a vocabulary in the layout of AffectGPT. By default the vocabulary of the package.
    groups (`str`, *optional*):
        A JSON file of synonym groups to replay for the set-level metric. By default the synonyms of the vocabulary (M2).
    compat (`str`, *optional*): `"affectgpt"` reproduces the published code.

Returns:
    `dict[str, float]`: `accuracy_s`, `recall_s`, `avg_s`, `f_s`, `m_avg` and `ew` (from 0 to 1), `labels_per_answer`,
    `out_of_vocabulary` (the share of the predicted labels), `ungrouped` (the number of samples without groups), and
    precision, recall and f of every wheel metric.
"""

_CITATION = """@inproceedings{zhang2024microemo,
  title={MicroEmo: Time-Sensitive Multimodal Emotion Recognition with Subtle Clue Dynamics in Video Dialogues},
  author={Zhang, Liyun and others}, booktitle={MRAC}, year={2024}}"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _INPUTS)
class OpenVocabularyEmotion(evaluate.Metric):
    """Computes open-vocabulary emotion scores; `compute` takes the arguments that `inputs_description` lists."""

    def _info(self) -> evaluate.MetricInfo:
        labels = datasets.Sequence(datasets.Value("string"))
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=[
                datasets.Features({"predictions": labels, "references": labels}),
                datasets.Features({"predictions": text, "references": text}),
                datasets.Features({"predictions": text, "references": labels}),
            ],
        )

    def _compute(
        self,
        predictions: list,
        references: list,
        names: list[str] | None = None,
        wheels: str | None = None,
        groups: str | None = None,
        compat: str | None = None,
    ) -> dict[str, float]:
        names = [str(index) for index in range(len(predictions))] if names is None else [str(name) for name in names]
        vocabulary = EmotionWheels.default() if wheels is None else EmotionWheels.from_folder(wheels)
        grouper = WheelGrouper(vocabulary) if groups is None else ReplayGrouper.from_file(groups)
        set_level = set_level_scores(names, references, predictions, grouper, compat)
        sheet = set_level.join(wheel_scores(names, references, predictions, vocabulary, compat))
        summary = sheet.summary()
        scores = {
            "accuracy_s": summary.pop("S/precision"),
            "recall_s": summary.pop("S/recall"),
            "avg_s": summary.pop("S/avg"),
            "f_s": summary.pop("S/f"),
            "m_avg": summary.pop("M-avg"),
            "ew": summary.pop("EW/f"),
            "labels_per_answer": summary.pop("labels"),
            "out_of_vocabulary": sheet.notes["out_of_vocabulary_predicted"],
            "ungrouped": len(sheet.notes["ungrouped"]),
        }
        return scores | {name.replace("/", " "): value for name, value in summary.items()}
