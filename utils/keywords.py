"""Errors for unknown keywords, which would otherwise be ignored."""

import difflib
from collections.abc import Collection, Iterable, Mapping

# What any `from_pretrained` of Transformers takes, and hands on.
LOADING_KEYWORDS: frozenset[str] = frozenset(
    (
        *(
            "cache_dir",
            "force_download",
            "proxies",
            "token",
            "local_files_only",
            "revision",
            "subfolder",
            "user_agent",
        ),
        *("trust_remote_code", "code_revision", "return_unused_kwargs", "backend", "use_fast"),
        *("_from_auto", "_from_pipeline", "_commit_hash", "_is_local", "_raise_exceptions_for_missing_entries"),
    )
)


def refuse_unknown(
    keywords: Iterable[str], accepted: Collection[str], owner: str, alternatives: Mapping[str, str] | None = None
) -> None:
    """Raises an error if there are keywords that nothing reads.

    Args:
        keywords (`Iterable[str]`): The keywords of a call, or the keys of a dictionary that the user wrote.
        accepted (`Collection[str]`): The keywords that are read.
        owner (`str`): The name of what takes the keywords, for the message, such as `"MicroEmoProcessor"`.
        alternatives (`Mapping[str, str]`, *optional*):
            What to suggest for words that other libraries use: an accepted keyword, or a sentence.

    Raises:
        TypeError: if a keyword is not accepted. The message names every such keyword, the accepted one that is nearest to
            it, and the owner.

    Example:

    ```python
    >>> from microemo.utils.keywords import refuse_unknown

    >>> refuse_unknown(["video"], ["videos", "audio"], "MicroEmoProcessor")
    Traceback (most recent call last):
    TypeError: MicroEmoProcessor takes no 'video' (did you mean 'videos'?)
    ```"""
    unknown = [word for word in keywords if word not in accepted]
    if not unknown:
        return
    messages, hints = [], []
    for word in unknown:
        near = (alternatives or {}).get(word) or next(iter(difflib.get_close_matches(word, list(accepted), 1)), None)
        if near is None:
            hint = ""
        elif " " in near:
            hint = f" ({near})"
        else:
            hint = f" (did you mean {near!r}?)"
        messages.append(f"{word!r}{hint}")
        hints.append(hint)
    listing = "" if any(hints) else f"; it takes {', '.join(sorted(accepted))}"
    raise TypeError(f"{owner} takes no {', '.join(messages)}{listing}")
