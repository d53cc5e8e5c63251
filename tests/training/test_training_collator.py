"""Where labels are, and that padding does not count."""

import pytest
import torch

from microemo.training.collator import IGNORED, MicroEmoCollator, PromptCollator, question_of
from microemo.training.data import to_conversation

TURNS = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "What is felt?"},
    {"role": "assistant", "content": "Joy <video> at first."},
    {"role": "user", "content": [{"type": "text", "text": "And in "}, {"type": "utterance", "index": 1}]},
    {"role": "assistant", "content": "Doubt."},
]


@pytest.fixture(scope="module")
def reader(world):
    return world.cache.reader()


def answers_of(world, labels: torch.Tensor) -> list[str]:
    """The texts of the stretches of a row that have labels."""
    runs, run = [], []
    for token in [*labels.tolist(), IGNORED]:
        if token != IGNORED:
            run.append(token)
        elif run:
            runs.append(world.processor.tokenizer.decode(run))
            run = []
    return runs


def test_labels_stand_on_all_answers_and_nowhere_else(world, reader):
    row = {"video": world.rows[0]["video"], "utterances": world.rows[0]["utterances"], "messages": TURNS}
    batch = MicroEmoCollator(reader)([row, world.rows[1]])
    eos = world.processor.tokenizer.eos_token
    assert answers_of(world, batch["labels"][0]) == [f"Joy < video> at first.{eos}", f"Doubt.{eos}"]
    assert answers_of(world, batch["labels"][1]) == [f"The speaker feels sad.{eos}"]
    here = batch["labels"] != IGNORED
    assert torch.equal(batch["labels"][here], batch["input_ids"][here])
    assert not here[:, 0].any()
    assert "assistant_masks" not in batch


def test_padding_comes_last_and_has_no_label(world, reader):
    """What makes a mask needless: nothing before a row's end looks at what follows it."""
    batch = MicroEmoCollator(reader, return_attention_mask=False)(world.rows)
    assert "attention_mask" not in batch
    lengths = [MicroEmoCollator(reader)([row])["input_ids"].shape[1] for row in world.rows]
    assert len(set(lengths)) > 1
    for ids, labels, length in zip(batch["input_ids"], batch["labels"], lengths, strict=True):
        assert (ids[length:] == world.processor.tokenizer.pad_token_id).all() and (
            ids[:length] != world.processor.tokenizer.pad_token_id
        ).all()
        assert (labels[length:] == IGNORED).all() and labels[length - 2] == world.processor.tokenizer.eos_token_id
    padded = batch["input_ids"] == world.processor.tokenizer.pad_token_id
    with torch.no_grad():
        with_mask = MicroEmoCollator(reader)(world.rows)
        assert torch.equal(with_mask["attention_mask"], (~padded).long())
        masked = world.model(**with_mask)
        torch.testing.assert_close(world.model(**batch).loss, masked.loss)


def test_padding_changes_no_loss(world, reader):
    """Rows of different length, with and without sound, faces, utterances: alone as in a batch."""
    collator = MicroEmoCollator(reader)
    together = collator(world.rows)
    with torch.no_grad():
        logits = world.model(**together).logits
        for number, row in enumerate(world.rows):
            alone = collator([row])
            length = alone["input_ids"].shape[1]
            expected = world.model(**alone).logits[0]
            torch.testing.assert_close(logits[number, :length], expected, atol=1e-4, rtol=1e-4)


def test_a_template_must_mark_its_answers(world, reader, monkeypatch):
    template = reader.chat_template.replace("{%- generation -%}", "").replace("{%- endgeneration -%}", "")
    monkeypatch.setattr(reader, "chat_template", template)
    with pytest.raises(ValueError, match="marks no answer"):
        MicroEmoCollator(reader)(world.rows[:1])


def test_prompts_end_before_the_first_answer(world, reader):
    row = {"video": world.rows[0]["video"], "utterances": world.rows[0]["utterances"], "messages": TURNS}
    assert [message["role"] for message in question_of(to_conversation(row))] == ["system", "user"]
    prompt = PromptCollator(reader)([row])
    text = world.processor.tokenizer.decode(prompt["input_ids"][0])
    assert text.endswith("What is felt?\nAssistant:\n") and "Joy" not in text
