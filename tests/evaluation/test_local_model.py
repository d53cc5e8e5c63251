"""The local judge: a real causal model, small enough to be taught one answer in the test."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from microemo.evaluation.chat import ChatError, LocalChat
from microemo.evaluation.language_model_judge import GROUPING_PROMPT, ChatGrouper

ANSWER = '[["happy", "joyful"], ["sad"]]'
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}A: {% endif %}"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A byte-level Llama of 60,000 weights that answers any grouping question with ANSWER."""
    torch.manual_seed(0)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({character: i for i, character in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", pad_token="<pad>")
    tokenizer.chat_template = TEMPLATE
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=2048,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    prompt = GROUPING_PROMPT.format(labels='["happy", "joyful", "sad"]')
    conversation = [{"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    question = tokenizer(text, return_tensors="pt").input_ids
    answer = tokenizer(ANSWER, return_tensors="pt").input_ids
    ids = torch.cat([question, answer, torch.tensor([[tokenizer.eos_token_id]])], dim=1)
    labels = ids.clone()
    labels[:, : question.shape[1]] = -100
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(150):
        loss = model(input_ids=ids, labels=labels).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if loss < 0.01:
            break
    folder = tmp_path_factory.mktemp("judge")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_groups_and_replays_without_the_weights(checkpoint, tmp_path):
    judge = LocalChat(str(checkpoint), tmp_path / "cache.jsonl", max_new_tokens=48)
    labels = [["sad", "happy", "joyful"]]
    assert ChatGrouper(judge).group(["a"], labels) == [[["happy", "joyful"], ["sad"]]]
    judge.close()
    moved = checkpoint.rename(checkpoint.with_name("elsewhere"))
    replay = LocalChat(str(checkpoint), tmp_path / "cache.jsonl", max_new_tokens=48)
    assert ChatGrouper(replay).group(["a"], labels) == [[["happy", "joyful"], ["sad"]]]
    replay.close()
    moved.rename(checkpoint)


def test_unreadable_answers_are_counted(checkpoint):
    """Taught one question only, it groups labels that were not asked about, or babbles: refused three times."""
    judge = LocalChat(str(checkpoint), max_new_tokens=8)
    assert ChatGrouper(judge).group(["a"], [["bored", "tired"]]) == [None]


def test_a_model_without_a_chat_template_is_refused(checkpoint, tmp_path):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(checkpoint)
    tokenizer.chat_template = None
    LlamaForCausalLM.from_pretrained(checkpoint).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ChatError, match="its tokenizer has no chat template"):
        ChatGrouper(LocalChat(str(tmp_path))).group(["a"], [["bored", "tired"]])
