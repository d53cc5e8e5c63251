"""The final answer in the raw output of a model: without its reasoning, end tokens, code fences and "Answer:"."""

import re

# Names that models give the part that is not the answer; Kimi-VL writes ◁think▷, Seed-OSS <seed:think>.
_THINKING = r"(?:\w+:)?(?:think(?:ing)?|thoughts?|reasoning|reflection|analysis|scratchpad)"
_THINKING_TAG = re.compile(
    rf"(?:<|◁|&lt;) ?(?P<close>[/\\]?) ?{_THINKING}\b[^<>◁▷&]{{0,40}}(?:>|▷|&gt;)|\[(?P<bracket>/?)THINK\]",
    re.IGNORECASE,
)
_ANSWER = r"(?:final[ _-]?answer|answer|output|response|solution)"
_ANSWER_OPEN = re.compile(rf"(?:<|&lt;) ?{_ANSWER} ?(?:>|&gt;)", re.IGNORECASE)
_ANSWER_CLOSE = re.compile(rf"(?:<|&lt;) ?[/\\] ?{_ANSWER} ?(?:>|&gt;)", re.IGNORECASE)
_HARMONY_FINAL = re.compile(r"<\|channel\|>\s*final\b[^<]{0,40}<\|message\|>")
# what a decoded answer may begin with: the first token of the sequence, padding, the head of the assistant's turn
_START_TOKENS = re.compile(
    r"(?:\s*(?:<s>|</s>|<bos>|<\|begin_of_text\|>|<\|endoftext\|>|<｜begin▁of▁sentence｜>|<pad>|\[PAD\]"
    r"|(?:<\|im_start\|>|<start_of_turn>|<\|start\|>)(?:assistant|model)?|<\|start_header_id\|>assistant<\|end_header_id\|>))+"
)
_END_TOKENS = re.compile(
    r"</s>|<eos>|<pad>|\[PAD\]|\[EOS\]|<(?:start|end)_of_turn>|<end_of_utterance>|<｜[^｜<>]{1,40}｜>"
    r"|<\|(?:im_start|im_end|endoftext|end_of_text|start_header_id|eot_id|eom_id|eot|eos|start|end|return|user|endofturn)\|>"
)
_FENCE = re.compile(r"(?:```|~~~)[ \t]*[\w+-]*[ \t]*(?:\n|(?=[\[{\"']))(.*?)(?:```|~~~|\Z)", re.DOTALL)
_BOXED = re.compile(r"\\boxed\{\s*(?:\\text\w*\{([^{}]*)\}|([^{}]*))\s*\}")
# "Answer:", "**Final answer:**", "### Output", "答案：", at the beginning of a line
_MARKER = re.compile(
    r"^[ \t>#*_-]*(?:the )?(?:(?:final|my) )?(?:answer|output|response|最终答案|答案|输出|回答)(?: is)?"
    r"[*_]{0,3}[ \t]?[:：][*_]*|^#+ *\**(?:final )?(?:answer|output)\**[ \t]*\n",
    re.IGNORECASE | re.MULTILINE,
)


def final_answer(text: str) -> str:
    r"""Returns the final answer in the raw output of a model.

    What stands in thinking tags is left out, also where the opening or the closing tag is missing (reasoning without an
    end has no answer after it). Of the rest, the last `<answer>` counts, then the last code fence, then what follows the
    last "Answer:" or "Output:" at the beginning of a line, each where there is one. Start tokens are removed, and the
    answer ends before its first end token. From text without any of these only the space around it is removed.

    Args:
        text (`str`): The text that the model generated, special tokens included.

    Returns:
        `str`: The answer; empty if there is none.

    Example:

    ```python
    >>> from microemo.evaluation.raw_output import final_answer

    >>> final_answer("<think>One might say she is sad.</think>\n<answer>happy</answer></s>")
    'happy'
    ```"""
    if finals := list(_HARMONY_FINAL.finditer(text)):
        text = text[finals[-1].end() :]
    text = _without_thinking(text)
    if start := _START_TOKENS.match(text):
        text = text[start.end() :]
    text = _END_TOKENS.split(text, maxsplit=1)[0]
    if openings := list(_ANSWER_OPEN.finditer(text)):
        text = text[openings[-1].end() :]
    text = _ANSWER_CLOSE.split(text, maxsplit=1)[0]
    fenced = [inside for inside in _FENCE.findall(text) if inside.strip()]
    text = fenced[-1] if fenced else text
    if boxed := _BOXED.findall(text):
        text = ", ".join(plain or worded for worded, plain in boxed)
    if markers := list(_MARKER.finditer(text)):
        text = text[markers[-1].end() :]
    return text.strip()


def _without_thinking(text: str) -> str:
    tags = [tag for tag in _THINKING_TAG.finditer(text) if tag["bracket"] is None or "[/THINK]" in text.upper()]
    kept, depth, position = "", 0, 0
    for tag in tags:
        if depth == 0:
            kept += f"{text[position : tag.start()]}\n"
        if not (tag["close"] or tag["bracket"]):
            depth += 1
        elif depth:
            depth -= 1
        else:  # the opening tag stood in the prompt: all until here was thinking
            kept = ""
        position = tag.end()
    if depth == 0:
        return kept + text[position:]
    if tags[-1]["close"] or tags[-1]["bracket"]:  # opened twice, closed once
        return text[position:]
    # never closed: an answer in its own tags is one all the same
    answer = _ANSWER_OPEN.search(text, position)
    return kept + (text[answer.start() :] if answer else "")
