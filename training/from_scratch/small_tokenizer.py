"""The tokenizer of a small language model that is trained from scratch on dialogues of people: `microemo-small`.

It is a byte-level BPE, which encodes any text. Its merges are learned from the questions and answers, sentences in
English and German and the words of the emotion wheels.
"""

from collections.abc import Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from ...evaluation.emotion_wheel import EmotionWheels
from ...processing.prompt_microemo import SYSTEM_TEXT
from ..synthetic.described_people import SPOKEN, DescribedPeople

SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<video>", "<audio>")
VOCABULARY = 2048
NUMBERED = 99  # Each of "utterance 1" to "utterance 99" is one token.
# As the tokenizer of microemo-tiny: digits one by one, since times are copied and compared digit by digit.
_PATTERN = r"utterance \d+| (?=utterance \d)|\d| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+"
_CONTEXT = 4096


def train_tokenizer(folder: Path, dialogues: int = 3000) -> None:
    """Trains the tokenizer, and saves it.

    Args:
        folder (`Path`): The folder.
        dialogues (`int`, *optional*, defaults to 3000): The number of dialogues in words that are read.
    """
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(_PATTERN), "isolated")
    by_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, by_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(dialogues), trainer)
    pad, bos, eos, *media = SPECIAL_TOKENS
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        bos_token=bos,
        eos_token=eos,
        extra_special_tokens=media,
        padding_side="left",
        model_max_length=_CONTEXT,
        clean_up_tokenization_spaces=False,
    ).save_pretrained(folder)


def _texts(dialogues: int) -> Iterator[str]:
    yield SYSTEM_TEXT
    for row in DescribedPeople(dialogues):
        yield from (item["text"] for message in row["messages"] for item in message["content"])
    words = sorted({word for wheel in EmotionWheels.default().wheels for row in wheel for word in row})
    # Often enough that numbers and words become one token each.
    yield from [f"utterance {number}" for number in range(1, NUMBERED + 1)] * 500
    yield from [f" {word}" for word in words] * 20
    yield from [*SPOKEN, *(f" {sentence}" for sentence in SPOKEN)] * 5
