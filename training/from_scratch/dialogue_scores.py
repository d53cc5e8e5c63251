"""Scores of generated answers: whether they name the emotion of an utterance."""

from collections.abc import Iterator, Sequence

import torch
from tqdm.auto import tqdm

from ...evaluation.label_extraction import labels_of_answer
from ...modeling_microemo.modeling_microemo import MicroEmoForConditionalGeneration
from ...processing.processing_microemo import MicroEmoProcessor
from ..data import to_conversation
from ..synthetic.synthetic_dialogues import cite_as


@torch.inference_mode()
def generate_answers(
    model: MicroEmoForConditionalGeneration,
    processor: MicroEmoProcessor,
    conversations: Sequence[list[dict]],
    max_new_tokens: int,
) -> list[tuple[str, bool]]:
    """Answers the last question of each conversation, with greedy generation.

    Args:
        model ([`MicroEmoForConditionalGeneration`]): The model.
        processor ([`MicroEmoProcessor`]): Its processor, or the reader of a [`FeatureCache`].
        conversations (`Sequence[list[dict]]`): The messages of each prompt.
        max_new_tokens (`int`): The maximum length of an answer.

    Returns:
        `list[tuple[str, bool]]`: Each answer, and whether the model ended it.
    """
    inputs = processor.apply_chat_template(
        list(conversations), tokenize=True, return_dict=True, add_generation_prompt=True, return_tensors="pt"
    ).to(model.device)
    tokens = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    tokens = tokens[:, inputs["input_ids"].shape[1] :]
    answers = processor.batch_decode(tokens, skip_special_tokens=True)
    ended = (tokens == processor.tokenizer.eos_token_id).any(dim=1).tolist()
    return [(answer.strip(), has_ended) for answer, has_ended in zip(answers, ended, strict=True)]


def answer_utterance_questions(
    model: MicroEmoForConditionalGeneration,
    processor: MicroEmoProcessor,
    rows: Sequence[dict],
    truth: dict[str, dict],
    citation: str = "tokens",
    clips_at_once: int = 8,
    max_new_tokens: int = 64,
    progress: bool = True,
) -> list[dict]:
    """Asks about each utterance of synthetic dialogues, with a prompt for each question and greedy generation.

    Args:
        model ([`MicroEmoForConditionalGeneration`]): The model.
        processor ([`MicroEmoProcessor`]): Its processor, or the reader of a [`FeatureCache`].
        rows (`Sequence[dict]`): Rows of the table of dialogues.
        truth (`dict[str, dict]`): The truth of each clip by name, see [`read_truth`].
        citation (`str`, *optional*, defaults to `"tokens"`): How a question names its utterance, see [`cite_as`].
        clips_at_once (`int`, *optional*, defaults to 8): The number of clips whose questions are answered together.
        max_new_tokens (`int`, *optional*, defaults to 64): The maximum length of an answer.
        progress (`bool`, *optional*, defaults to `True`): Whether to show a progress bar.

    Returns:
        `list[dict]`: For each question `clip`, `split`, `utterance` (from 1), `unseen` (whether training never showed
        its pair of clue and prosody), `expected` (the emotion), `answer`, and `right` (whether the answer lists this
        label and no other).
    """
    model.eval()
    records = []
    for first in tqdm(range(0, len(rows), clips_at_once), desc=f"Questions ({citation})", disable=not progress):
        questions = list(_questions(rows[first : first + clips_at_once], truth, citation))
        answers = generate_answers(model, processor, [messages for _, messages in questions], max_new_tokens)
        for (record, _), (answer, _) in zip(questions, answers, strict=True):
            right = labels_of_answer(answer) == [record["expected"]]
            records.append({**record, "answer": answer, "right": right})
    return records


def accuracy(answers: Sequence[dict]) -> float:
    """Computes the share of questions that are answered right.

    Args:
        answers (`Sequence[dict]`): The records that [`answer_utterance_questions`] returns.

    Returns:
        `float`: The share.
    """
    return sum(answer["right"] for answer in answers) / len(answers)


def _questions(rows: Sequence[dict], truth: dict[str, dict], citation: str) -> Iterator[tuple[dict, list[dict]]]:
    for row in rows:
        clip_truth = truth[row["name"]]
        for number, turn in enumerate(clip_truth["turns"]):
            if turn["kind"] != "utterance":
                continue
            question = cite_as(row["messages"][2 * number : 2 * number + 1], clip_truth["utterances"], citation)
            utterance = clip_truth["utterances"][turn["utterance"] - 1]
            about = {"clip": row["name"], "split": row["split"], "utterance": turn["utterance"]}
            about |= {"unseen": utterance["unseen"], "expected": utterance["emotion"]}
            yield about, to_conversation({**row, "messages": question})
