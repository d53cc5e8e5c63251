"""Language models that answer questions, with every answer kept in a cache file.

Grouping, label extraction, sentiment and merging all ask through [`ask_json`]. The model is an OpenAI-compatible endpoint
(a vendor's, `transformers serve`, vLLM, ...) or a local Transformers model. Both keep every answer in a cache file keyed
by model and prompt, so that a run can be stopped, resumed, and replayed offline.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from ..utils.files import JsonLinesLog
from .raw_output import final_answer

Message = dict[str, str]
T = TypeVar("T")


class Chat(Protocol):
    """A model that answers conversations: an [`EndpointChat`], a [`LocalChat`], or a class of your own.

    Attributes:
        model (`str`): The name of the model, for tables and for the cache.
    """

    model: str

    def complete(self, conversations: Sequence[list[Message]]) -> list[str]:
        """Answers each conversation at temperature 0.

        Args:
            conversations (`Sequence[list[dict[str, str]]]`): N conversations, each a list of messages with the keys
                `role` and `content`.

        Returns:
            `list[str]`: N answers, in the order of the conversations.
        """
        ...


class ChatError(OSError):
    """Raised when a model cannot be reached or does not answer. The answers received before it are in the cache."""


class AnswerCache:
    """Keeps the answers of language models on the disk, one JSON object a line.

    The key of an answer is the SHA-256 of the model's name and the conversation.

    Args:
        path (`str` or `Path` or `None`):
            A .jsonl file, made if it is not there. `None` keeps the answers in memory only.

    Raises:
        ValueError: if the file holds anything but such answers; it is left as it is.
        OSError: if another process has the file open.

    Example:

    ```python
    >>> from microemo.evaluation.chat import AnswerCache

    >>> cache = AnswerCache("answers.jsonl")
    >>> conversation = [{"role": "user", "content": "Which emotion is joy?"}]
    >>> cache.put("my-model", conversation, "happy")
    >>> cache.get("my-model", conversation)
    'happy'
    >>> cache.close()
    ```"""

    def __init__(self, path: str | Path | None):
        self._log = JsonLinesLog(path, ("key", "model", "messages", "answer")) if path is not None else None
        self._answers = {row["key"]: row["answer"] for row in self._log.rows} if self._log else {}

    @staticmethod
    def key(model: str, conversation: list[Message]) -> str:
        """Returns the key under which an answer is kept.

        Args:
            model (`str`): The name of the model.
            conversation (`list[dict[str, str]]`): The messages that it is asked.

        Returns:
            `str`: 64 hexadecimal digits.
        """
        return hashlib.sha256(json.dumps([model, conversation], ensure_ascii=False).encode()).hexdigest()

    def get(self, model: str, conversation: list[Message]) -> str | None:
        """Returns the answer that is kept for a conversation.

        Args:
            model (`str`): The name of the model.
            conversation (`list[dict[str, str]]`): The messages that it was asked.

        Returns:
            `str` or `None`: The answer; `None` if the cache has none.
        """
        return self._answers.get(self.key(model, conversation))

    def put(self, model: str, conversation: list[Message], answer: str) -> None:
        """Adds an answer, which is on the disk when this returns.

        Args:
            model (`str`): The name of the model.
            conversation (`list[dict[str, str]]`): The messages that it was asked.
            answer (`str`): Its answer.
        """
        key = self.key(model, conversation)
        self._answers[key] = answer
        if self._log:
            self._log.append([{"key": key, "model": model, "messages": conversation, "answer": answer}])

    def close(self) -> None:
        """Closes the cache file, so that another process may open it."""
        if self._log:
            self._log.close()


class _CachedChat:
    """Answers from the cache where it can, and asks the model for the rest, once per distinct conversation."""

    model: str
    cache: AnswerCache

    def complete(self, conversations: Sequence[list[Message]]) -> list[str]:
        """Answers each conversation, from the cache where it holds the answer.

        Args:
            conversations (`Sequence[list[dict[str, str]]]`): N conversations, each a list of messages with the keys
                `role` and `content`.

        Returns:
            `list[str]`: N answers, in the order of the conversations.

        Raises:
            ChatError: if the model cannot be reached or does not answer.
        """
        unanswered = {
            self.cache.key(self.model, conversation): conversation
            for conversation in conversations
            if self.cache.get(self.model, conversation) is None
        }
        if unanswered:
            self._ask(list(unanswered.values()))
        answers = [self.cache.get(self.model, conversation) for conversation in conversations]
        return cast("list[str]", answers)  # `_ask` has put every missing one, or raised

    def _ask(self, conversations: list[list[Message]]) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Closes the cache file, so that another process may open it."""
        self.cache.close()


class EndpointChat(_CachedChat):
    """Asks a language model behind an OpenAI-compatible HTTP endpoint.

    Args:
        model (`str`): The name of the model at the endpoint.
        base_url (`str` or `None`):
            The address of the endpoint, for example `"http://localhost:8000/v1"`. `None` is offline: only the cache
            answers.
        cache (`str` or `Path`, *optional*): A .jsonl file that keeps every answer.
        api_key (`str`, *optional*): The key of the endpoint. By default the environment variable `OPENAI_API_KEY`.
        timeout (`float`, *optional*, defaults to 60.0): The longest time of one request, in seconds.
        retries (`int`, *optional*, defaults to 5):
            The number of further attempts after a timeout, a lost connection, a status of 408, 409, 429 or 5xx, or a
            body that is no chat completion. The server's `Retry-After` is respected; otherwise the wait doubles.
        concurrency (`int`, *optional*, defaults to 4): The number of requests sent at the same time.

    Raises:
        ImportError: if a `base_url` is given and the package openai is not installed.
    """

    def __init__(
        self,
        model: str,
        base_url: str | None,
        cache: str | Path | None = None,
        api_key: str | None = None,
        timeout: float = 60.0,
        retries: int = 5,
        concurrency: int = 4,
    ):
        self.model, self.base_url, self.retries, self.concurrency = model, base_url, retries, concurrency
        self._client: Any = None  # an `openai.OpenAI`; openai is optional
        if base_url is not None:
            from openai import OpenAI

            key = api_key or os.environ.get("OPENAI_API_KEY") or "none"
            self._client = OpenAI(base_url=base_url, api_key=key, timeout=timeout, max_retries=retries)
        self.cache = AnswerCache(cache)

    def _ask(self, conversations: list[list[Message]]) -> None:
        if self._client is None:
            raise ChatError(
                f"offline, and the cache lacks {len(conversations)} answers of {self.model!r}; "
                f"the first: {conversations[0][-1]['content'][:120]!r}"
            )
        pool = ThreadPoolExecutor(self.concurrency)
        try:
            # each answer is on the disk before its thread takes the next question
            list(
                pool.map(
                    lambda conversation: self.cache.put(self.model, conversation, self._request(conversation)),
                    conversations,
                )
            )
        finally:
            pool.shutdown(cancel_futures=True)

    def _request(self, conversation: list[Message]) -> str:
        import openai

        for attempt in range(self.retries + 1):
            try:
                completion = self._client.chat.completions.create(
                    model=self.model, messages=conversation, temperature=0
                )
                content = completion.choices[0].message.content
                if isinstance(content, str):
                    return content
                problem = f"an answer without text: {completion!r:.200}"
            except (openai.APITimeoutError, openai.APIConnectionError) as error:
                raise ChatError(f"{self.base_url}: {error} (after {self.retries + 1} attempts)") from error
            except openai.APIStatusError as error:
                raise ChatError(
                    f"{self.base_url}: HTTP {error.status_code} for model {self.model!r}: {error.message:.300}"
                    f"{self._models() if error.status_code in (400, 404) else ''}"
                ) from error
            except (openai.APIResponseValidationError, ValueError, TypeError, AttributeError, IndexError) as error:
                problem = f"a body that is no chat completion ({type(error).__name__}: {error})"
            if attempt < self.retries:
                time.sleep(min(0.1 * 2**attempt, 8.0))
        raise ChatError(f"{self.base_url}: model {self.model!r} sent {problem} (after {self.retries + 1} attempts)")

    def _models(self) -> str:
        import openai

        try:
            return f"; it offers {', '.join(model.id for model in self._client.models.list())}"
        except (openai.OpenAIError, ValueError, TypeError, AttributeError):
            return ""


class LocalChat(_CachedChat):
    """Runs a causal language model on this machine with Transformers, with greedy decoding.

    The model is loaded when the cache first lacks an answer.

    Args:
        model (`str`): The Hub id or the folder of the model, which must have a chat template.
        cache (`str` or `Path`, *optional*): A .jsonl file that keeps every answer.
        max_new_tokens (`int`, *optional*, defaults to 256): The length of the longest answer, in tokens.
        batch_size (`int`, *optional*, defaults to 8): The number of conversations generated together.
        device (`str`, *optional*): The device of the model. By default Transformers chooses it.
    """

    def __init__(
        self,
        model: str,
        cache: str | Path | None = None,
        max_new_tokens: int = 256,
        batch_size: int = 8,
        device: str | None = None,
    ):
        self.model, self.max_new_tokens, self.batch_size, self.device = str(model), max_new_tokens, batch_size, device
        self.cache = AnswerCache(cache)
        self._pipeline: Any = None

    def _ask(self, conversations: list[list[Message]]) -> None:
        if self._pipeline is None:  # loaded when the cache first lacks an answer, so that a replay needs no weights
            from transformers import pipeline

            self._pipeline = pipeline("text-generation", model=self.model, device=self.device, dtype="auto")
            tokenizer = self._pipeline.tokenizer
            if tokenizer.chat_template is None:
                raise ChatError(f"{self.model}: its tokenizer has no chat template; name an instruction-tuned model")
            tokenizer.padding_side = "left"
            tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        for start in range(0, len(conversations), self.batch_size):
            batch = conversations[start : start + self.batch_size]
            outputs = self._pipeline(
                batch,
                max_new_tokens=self.max_new_tokens,
                do_sample=False,
                return_full_text=False,
                batch_size=self.batch_size,
            )
            for conversation, output in zip(batch, outputs, strict=True):
                self.cache.put(self.model, conversation, output[0]["generated_text"])


def ask_json(chat: Chat, questions: Sequence[tuple[str, Callable[[str], T]]], attempts: int = 3) -> list[T | None]:
    """Asks each question until its answer can be read.

    Args:
        chat ([`Chat`]): The model to ask.
        questions (`Sequence[tuple[str, Callable[[str], T]]]`):
            N prompts, each with a function that turns the answer into a value, or raises a `ValueError` that says what
            it expected. That message goes back to the model with the refused answer, since at temperature 0 the bare
            prompt would only be answered the same way.
        attempts (`int`, *optional*, defaults to 3): The largest number of times that each question is asked.

    Returns:
        `list[T | None]`: N values; `None` where no answer could be read, for the caller to count and report.

    Raises:
        ChatError: if the model cannot be reached or does not answer.

    Example:

    ```python
    >>> import json
    >>> from microemo.evaluation.chat import ask_json

    >>> class Echo:
    ...     model = "echo"
    ...
    ...     def complete(self, conversations):
    ...         return [conversation[-1]["content"] for conversation in conversations]

    >>> ask_json(Echo(), [('["sad"]', json.loads)])
    [['sad']]
    ```"""
    conversations = [[{"role": "user", "content": prompt}] for prompt, _ in questions]
    values: list[T | None] = [None] * len(questions)
    pending = list(range(len(questions)))
    for _ in range(attempts):
        answers = chat.complete([conversations[index] for index in pending])
        refused = []
        for index, answer in zip(pending, answers, strict=True):
            try:
                values[index] = questions[index][1](final_answer(answer))
            except ValueError as error:
                refused.append(index)
                conversations[index] = [
                    *conversations[index],
                    {"role": "assistant", "content": answer},
                    {"role": "user", "content": f"That could not be read: {error}. Reply again, with the JSON alone."},
                ]
        pending = refused
        if not pending:
            break
    return values
