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


def suggestion(word: str, choices: Iterable[str]) -> str:
    """Names the choice that is most similar to a word.

    Args:
        word (`str`): The word.
        choices (`Iterable[str]`): The words that are known.

    Returns:
        `str`: A hint in parentheses after a space, or an empty string if no choice is similar.

    Example:

    ```python
    >>> from microemo.utils.keywords import suggestion

    >>> suggestion("subtitels", ["video", "subtitles"])
    " (did you mean 'subtitles'?)"
    ```"""
    near = difflib.get_close_matches(word, list(choices), 1)
    return f" (did you mean {near[0]!r}?)" if near else ""


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
        alternative = (alternatives or {}).get(word)
        if alternative is None:
            hint = suggestion(word, accepted)
        else:
            hint = f" ({alternative})" if " " in alternative else f" (did you mean {alternative!r}?)"
        messages.append(f"{word!r}{hint}")
        hints.append(hint)
    listing = "" if any(hints) else f"; it takes {', '.join(sorted(accepted))}"
    raise TypeError(f"{owner} takes no {', '.join(messages)}{listing}")
