"""Training of `microemo-small` on dialogues of people: real photographs that act, and recordings of emotional speech.

The way is that of `stages.py`. What differs: the language model learns the words of `people_answers.py`.
"""

from pathlib import Path

import torch
from torch.utils.data import ConcatDataset

from ..synthetic.described_dialogues import Dictations, RepeatedLines
from ..synthetic.described_people import DescribedPeople, dictated_utterances
from ..train import ModelArguments, load_model_and_processor
from .stages import Run, begin_with_copying, learn_from_words, single_words


def learn_people_language(run: Run, start: Path, folder: Path) -> None:
    """Trains the language model on dialogues of people in words.

    Args:
        run ([`Run`]): The run.
        start (`Path`): A checkpoint with a language model of random weights.
        folder (`Path`): The folder of the stage.
    """
    model, processor = load_model_and_processor(ModelArguments(model_name_or_path=str(start)))
    torch.manual_seed(0)
    begin_with_copying(model.model.language_model)
    words = single_words(processor.tokenizer)

    def dialogues(length: int) -> ConcatDataset:
        dictations = length // 4
        return ConcatDataset(
            [
                DescribedPeople(length - dictations, shuffled_words=words),
                Dictations(dictations, words, utterances=dictated_utterances, voice="the voice sounds"),
            ]
        )

    lessons = {"copying": lambda length: RepeatedLines(length, words), "language": dialogues}
    learn_from_words(run, model, processor, lessons, folder)
