"""Refusing the words that a caller wrote and nothing reads."""

import difflib
from collections.abc import Collection, Iterable, Mapping

# What any `from_pretrained` of Transformers takes, and hands on.
LOADING_KEYWORDS = frozenset(
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
    given: Iterable[str], known: Collection[str], owner: str, instead: Mapping[str, str] | None = None
) -> None:
    """Raise an error for keywords that nobody would read.

    Args:
        given (`Iterable[str]`): The keywords of a call, or the keys of a dictionary that the user wrote.
        known (`Collection[str]`): Those that are read.
        owner (`str`): Whose keywords they are, for the message, as in "MicroEmoProcessor".
        instead (`Mapping[str, str]`, *optional*):
            What to say of words that other libraries use: the known word, or a sentence with a space in it.

    Raises:
        TypeError: naming every unknown keyword, the known one that is nearest to it, and the owner.

    Example:

    ```python
    >>> refuse_unknown(["video"], ["videos", "audio"], "MicroEmoProcessor")
    TypeError: MicroEmoProcessor takes no 'video' (did you mean 'videos'?)
    ```"""
    unknown = [word for word in given if word not in known]
    if not unknown:
        return
    told = []
    for word in unknown:
        near = (instead or {}).get(word) or next(iter(difflib.get_close_matches(word, list(known), 1)), None)
        if near is None:
            hint = ""
        elif " " in near:
            hint = f" ({near})"
        else:
            hint = f" (did you mean {near!r}?)"
        told.append(f"{word!r}{hint}")
    listing = "" if any("(" in one for one in told) else f"; it takes {', '.join(sorted(known))}"
    raise TypeError(f"{owner} takes no {', '.join(told)}{listing}")
