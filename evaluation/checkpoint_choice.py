"""The fixed-checkpoint protocol: a checkpoint is chosen before the test set is scored.

The published protocol reports the best of seven checkpoints on the test set, so its scores are biased upwards by the
choice. Here that is refused unless it is asked for, and then the row of the table says so.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

RULES = ("last", "best-on-dev", "best-on-test")

_CHECKPOINT = re.compile(r"checkpoint[-_]?(\d+)")


class TestSetSelectionError(ValueError):
    """Raised when the best checkpoint on the test set is asked for without `allow_test_selection`."""

    __test__ = False  # not a pytest class, whatever its name begins with


@dataclass(frozen=True)
class Choice:
    """A checkpoint that was chosen.

    Attributes:
        checkpoint (`Path`): Its file or folder.
        mark (`str`): How it was chosen, which its row of a table shows.
    """

    checkpoint: Path
    mark: str


def checkpoint_step(path: str | Path) -> int | None:
    """Returns the training step that the name of a checkpoint states.

    Args:
        path (`str` or `Path`): A file or folder, such as `checkpoint_000050_loss_0.527-openset.npz` or `checkpoint-50`.

    Returns:
        `int` or `None`: The step; `None` if the name states none.

    Example:

    ```python
    >>> from microemo.evaluation.checkpoint_choice import checkpoint_step

    >>> checkpoint_step("runs/checkpoint-50")
    50
    ```"""
    match = _CHECKPOINT.search(Path(path).name)
    return int(match.group(1)) if match else None


def choose_checkpoint(
    candidates: Sequence[str | Path],
    rule: str = "last",
    scores: Sequence[float] | None = None,
    allow_test_selection: bool = False,
) -> Choice:
    """Chooses one of several checkpoints of one run.

    Args:
        candidates (`Sequence[str | Path]`): N files or folders, each with its step in the name.
        rule (`str`, *optional*, defaults to `"last"`): One of `"last"`, `"best-on-dev"` and `"best-on-test"`.
        scores (`Sequence[float]`, *optional*):
            N scores on the named split, which the two "best" rules need. Of equal scores the earlier step wins.
        allow_test_selection (`bool`, *optional*, defaults to `False`):
            Whether `"best-on-test"` is allowed. The mark of the choice then says so.

    Returns:
        [`Choice`]: The checkpoint and how it was chosen.

    Raises:
        TestSetSelectionError: if the rule is `"best-on-test"` and `allow_test_selection` is not set.
        ValueError: if the rule is unknown, if a candidate has no step in its name or there is none, or if a "best" rule
            has not one score for each candidate.

    Example:

    ```python
    >>> from microemo.evaluation.checkpoint_choice import choose_checkpoint

    >>> choice = choose_checkpoint(["checkpoint-50", "checkpoint-100"])
    >>> choice.checkpoint.name, choice.mark
    ('checkpoint-100', 'last of 2 checkpoints')
    ```"""
    if rule not in RULES:
        raise ValueError(f"rule {rule!r}: expected one of {', '.join(RULES)}")
    steps = {Path(candidate): checkpoint_step(candidate) for candidate in candidates}
    if not steps or None in steps.values():
        without = [str(path) for path, step in steps.items() if step is None]
        raise ValueError(f"expected checkpoints with a step in their names, found {', '.join(without) or 'none'}")
    ordered = sorted(steps, key=lambda path: steps[path] or 0)
    if rule == "last":
        return Choice(ordered[-1], f"last of {len(ordered)} checkpoints")
    if rule == "best-on-test" and not allow_test_selection:
        raise TestSetSelectionError(
            f"refusing to pick the best of {len(ordered)} checkpoints by its score on the test set; choose the last, or "
            "the best on a dev split, or allow the selection on the test set and have the row marked"
        )
    if scores is None or len(scores) != len(candidates):
        raise ValueError(f"{rule} needs one score a checkpoint: {len(candidates)} and {scores and len(scores)}")
    by_path = dict(zip(map(Path, candidates), scores, strict=True))
    best = max(ordered, key=by_path.__getitem__)
    if rule == "best-on-dev":
        return Choice(best, f"best of {len(ordered)} checkpoints on the dev split")
    return Choice(best, f"BEST OF {len(ordered)} CHECKPOINTS ON THE TEST SET")
