"""What a model wrote, what of it is its answer, and which labels the answer names."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from microemo.evaluation.chat import ask_json
from microemo.evaluation.emotion_labels import parse_labels
from microemo.evaluation.label_extraction import labels_of, rule_labels
from microemo.evaluation.language_model_judge import extract_labels
from microemo.evaluation.prediction_files import read_answers
from microemo.evaluation.raw_output import final_answer

EXAMPLES = [100, pytest.param(2000, marks=pytest.mark.slow)]


def hold(examples, check, *strategies):
    settings(max_examples=examples, deadline=None)(given(*strategies)(check))()


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("He smiles.", "He smiles."),
        ("<think>angry</think>\n<answer>happy</answer>", "happy"),
        ("<THINK>\nangry\n</THINK>\n\nhappy", "happy"),
        ("<thinking>angry</thinking>happy", "happy"),
        ("<reasoning>angry</reasoning>happy", "happy"),
        ("<seed:think>angry</seed:think>happy", "happy"),
        ("◁think▷angry◁/think▷happy", "happy"),
        ("[THINK]angry[/THINK]happy", "happy"),
        ("&lt;think&gt;angry&lt;/think&gt;happy", "happy"),
        ("I see an angry man.</think>happy", "happy"),  # the opening tag stood in the prompt
        ("<think>angry, and so on", ""),  # cut off while it thought
        ("happy<think>angry", "happy"),
        ("<think>a<think>angry</think>b</think>happy", "happy"),
        ("<think>a<think>angry</think>happy", "happy"),
        ("<think>a</think>hap<think>b</think>py", "hap\npy"),
        ("<think>so <answer>happy</answer>", "happy"),
        ("<think><answer>angry</answer>?</think><answer>happy", "happy"),
        ("<answer>angry</answer> no, <answer>happy</answer>", "happy"),
        ("happy</answer>", "happy"),
        ("<Final_Answer>happy</Final_Answer>", "happy"),
        ("```json\n[1]\n```", "[1]"),
        ("```\nhappy\n```", "happy"),
        ("Sure:\n```json\n[1]\n```\nI hope this helps.", "[1]"),
        ("```json\n[1", "[1"),
        ("~~~\nhappy\n~~~", "happy"),
        ("Answer: happy", "happy"),
        ("**Final Answer:** happy", "happy"),
        ("He frowns.\nAnswer: first\nThe answer is: happy", "happy"),
        ("### Output\nhappy", "happy"),
        ("答案：开心", "开心"),
        ("The answer: a smile", "a smile"),
        ("A good answer to her: none.", "A good answer to her: none."),
        ("He gives an\nanswer\nto her.", "He gives an\nanswer\nto her."),
        (r"so \boxed{\text{happy}}", "happy"),
        ("<s> happy</s>", "happy"),
        ("</s>happy</s>", "happy"),  # OPT begins with it
        ("happy<|im_end|>\n<|im_start|>user\nangry?", "happy"),
        ("<|im_start|>assistant\nhappy<|im_end|>", "happy"),
        ("happy<|endoftext|>angry", "happy"),
        ("happy<|eot_id|>", "happy"),
        ("happy<eos><pad><pad>", "happy"),
        ("happy<end_of_turn>", "happy"),
        ("happy<｜end▁of▁sentence｜>", "happy"),
        ("<|channel|>analysis<|message|>angry?<|end|><|start|>assistant<|channel|>final<|message|>happy<|return|>", "happy"),
        ("</s>", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_the_answer_in_raw_output(text, answer):
    assert final_answer(text) == answer


TWO = ["happy", "sad"]


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("<think>[angry]</think>[happy, sad]", TWO),
        ("<think>angry, worried", []),
        ('```json\n{"emotions": ["happy", "sad"]}\n```', TWO),
        ("Emotions: happy, sad", TWO),
        ("The labels are: happy, sad", TWO),
        ("The emotions are happy and sad.", TWO),
        ("Here are the emotion labels:\n1. happy\n2. sad", TWO),
        ("Based on the video, the emotions are: happy, sad", TWO),
        ("primary emotion: happy; secondary emotion: sad", TWO),
        ("情绪：开心、难过", ["开心", "难过"]),
        ("1) happy 2) sad", TWO),
        ("(1) happy (2) sad", TWO),
        ("1、开心 2、难过", ["开心", "难过"]),
        ("- happy\n- sad", TWO),
        ("* happy\n* sad", TWO),
        ("• happy\r\n• sad", TWO),
        ("happy, sad</s>", TWO),
        ("happy and sad", TWO),
        ("happy & sad", TWO),
        ("happy, and sad", TWO),
        ("[happy and sad]", TWO),
        ("[happy, and sad]", TWO),
        ("[happy, physically and mentally healthy]", ["happy", "physically and mentally healthy"]),
        ('["rough and ready", "sad"]', ["rough and ready", "sad"]),  # quotes say where a label ends
        (["rough and ready"], ["rough and ready"]),
        ("开心和难过", ["开心", "难过"]),
        ("开心与难过", ["开心", "难过"]),
        ("[平和与愤怒，温和、心平气和]", ["平和", "愤怒", "温和", "心平气和"]),
        ("与众不同，参与", ["与众不同", "参与"]),
        ("[['happy'], ['sad']]", TWO),
        ("[[happy], [sad]]", TWO),
        ([["happy"], ["sad", None]], TWO),
        ("('happy', 'sad')", TWO),
        ("(happy, sad)", TWO),
        ("{happy, sad}", TWO),
        ("['happy' 'sad']", TWO),  # as numpy writes an array
        ('"happy" "sad"', TWO),
        ("“happy”, “sad”", TWO),
        ("‘happy’, ‘sad’", TWO),
        ("«happy», «sad»", TWO),
        ("「happy」「sad」", TWO),
        ("`happy`, `sad`", TWO),
        ("happy (0.9), sad (10%)", TWO),
        ("happy: 0.9, sad: 0.1", TWO),
        ("happy (9/10), sad (1/10)", TWO),
        ('{"happy": 0.9, "sad": 0.1, "angry": 0.0}', TWO),
        ('[{"label": "happy", "score": 0.9}, {"label": "sad", "score": 0.1}]', TWO),
        ('{"emotion": "happy", "reason": "She smiles."}', ["happy"]),
        ('So: {"emotion": "happy, sad"}.', TWO),
        ('{"primary": "happy", "secondary": "sad"}', TWO),
        ('{"emotions": ["happy", "sad', TWO),  # cut off
        ("happy。", ["happy"]),
        ("happy. ", ["happy"]),
        ("N/A, happy", ["happy"]),
        ("neutral", ["neutral"]),
        ("[think, empty]", ["think", "empty"]),
    ],
)
def test_labels_of_an_answer(text, labels):
    assert parse_labels(text) == labels


@pytest.mark.parametrize(
    "text",
    [
        *("none", "None.", "N/A", "n/a", "null", "nan", "no", "[]", "[[]]", "{}", "()", "[None]", "['none']", "[null]", "无"),
        *("no emotion", "No emotions detected.", "no clear emotion", "None of the above", "[N/A]", "not applicable"),
        *("Emotions: none", "Answer: N/A", '{"emotions": []}', '{"emotions": null}', "没有明显的情绪", "<think>sad</think>"),
    ],
)  # fmt: skip
def test_no_label_is_no_label(text):
    assert parse_labels(text) == []


def test_the_rule_reads_the_answer_alone():
    text = "<think>One might say she is angry or sad, yet she smiles.</think>\n<answer>She is happy.</answer></s>"
    assert rule_labels(text) == ["happy"]
    assert rule_labels("<think>she is angry") == []
    assert rule_labels("Answer: He is not sad but happy.<|im_end|>") == ["happy"]


def test_raw_output_in_files(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text(
        '{"name": "a", "answer": "<think>[angry]</think>[happy, bittersweet]"}\n{"name": "b", "answer": "[]"}'
    )
    answers = read_answers(path)
    assert answers.kind == "labels"  # lists without exception, though the field is one of texts
    assert labels_of(answers)[0] == {"a": ["happy", "bittersweet"], "b": []}
    path.write_text('{"name": "a", "answer": "<think>angry</think>He is happy."}\n{"name": "b", "answer": "[sad]"}')
    answers = read_answers(path)
    assert answers.kind == "text"
    assert labels_of(answers)[0] == {"a": ["happy"], "b": ["sad"]}


class Reasoner:
    """A judge that thinks aloud before it answers."""

    model = "reasoner"

    def __init__(self):
        self.asked = []

    def complete(self, conversations):
        self.asked += [conversation[0]["content"] for conversation in conversations]
        return ['<think>["angry"]? No.</think>\n```json\n["worried"]\n```' for _ in conversations]


def test_a_judge_that_thinks_aloud_is_understood_and_reads_no_thoughts():
    judge = Reasoner()
    assert extract_labels(judge, ["He frowns."]) == [["worried"]]
    assert ask_json(judge, [("?", str)]) == ['["worried"]']
    path_free = labels_of(type("A", (), {"kind": "text", "items": {"a": "<think>rage</think>He frowns."}})(), judge)
    assert path_free[0] == {"a": ["worried"]} and "rage" not in judge.asked[-1]


# --- for any text ---

WORD = st.sampled_from(["happy", "sad", "don't believe", "in two minds", "naïve", "开心", "平和", "tearful"])
LABELS = st.lists(WORD, min_size=1, max_size=4, unique=True)
LISTS = {
    "commas": ", ".join,
    "semicolons": "; ".join,
    "lines": "\n".join,
    "numbers": lambda words: "\n".join(f"{n}. {word}" for n, word in enumerate(words, start=1)),
    "bullets": lambda words: "\n".join(f"- {word}" for word in words),
    "brackets": lambda words: f"[{', '.join(words)}]",
    "Python": str,
    "curly quotes": lambda words: ", ".join(f"“{word}”" for word in words),
    "chinese": "、".join,
    "and": lambda words: " and ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words),
    "nested": lambda words: str([[word] for word in words]),
    "object": lambda words: f'{{"emotions": {list(words)!r}}}',
}
# of the answer, of the whole message, of the whole sequence
WRAPPINGS = [
    ["{}", "<answer>{}</answer>", "<answer>\n{}", "```\n{}\n```", "Sure!\n```json\n{}\n```\nBye.", "Answer: {}", "**Answer:** {}"],
    ["{}", "<think>angry, [worried]</think>{}", "angry</think>\n{}", "<think>a<think>b</think>angry</think>\n\n{}",
     "◁think▷<answer>angry</answer>◁/think▷{}", "<Thinking>\n- angry\n</Thinking>\n\n{}"],
    ["{}", "{}</s>", "{}<|im_end|>\n", "<s> {}<|endoftext|>angry", "  {}\n", "{}<|eot_id|><|start_header_id|>user"],
]  # fmt: skip


@pytest.mark.parametrize("examples", EXAMPLES)
def test_labels_survive_every_form_of_list_in_every_wrapping(examples):
    def check(words, form, of_answer, of_message, of_sequence):
        text = LISTS[form](words)
        for wrapping in (of_answer, of_message, of_sequence):
            text = wrapping.replace("{}", text)
        assert parse_labels(text) == words

    hold(examples, check, LABELS, st.sampled_from(sorted(LISTS)), *map(st.sampled_from, WRAPPINGS))


PIECES = [
    *("<think>", "</think>", "<answer>", "</answer>", "[", "]", "{", "}", '"', "'", "“", "```", "```json\n", "\n", ", "),
    *("Answer:", "Emotions:", "</s>", "<|im_end|>", "1. ", "- ", " and ", "和", "、", "(0.9)", "none", "N/A", ":", "\\", "[THINK]"),
    *("happy", "\ud83d", "\0", "\\boxed{", "( ", " " * 50),
]  # fmt: skip


@pytest.mark.parametrize("examples", EXAMPLES)
def test_any_text_gives_labels_that_are_read_the_same_again(examples):
    @example("{'a': {1: [b'x']}}")
    @example("[" * 3000)
    @example("(" * 3000 + "'a'")
    def check(text):
        answer, labels = final_answer(text), parse_labels(text)
        assert answer == answer.strip()
        assert all(label == label.lower().strip() and 0 < len(label) <= 60 for label in labels)
        assert len(labels) == len(set(labels)) and parse_labels(labels) == labels
        assert isinstance(rule_labels(text), list)

    hold(examples, check, st.text(max_size=80) | st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
