"""The fixed-checkpoint protocol: a checkpoint is chosen before the test set is looked at.

The published protocol reports the best of seven checkpoints on the test set, which scores the luck of the choice too.
Here that is refused unless asked for, and then the row says so.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

RULES = ("last", "best-on-dev", "best-on-test")

_CHECKPOINT = re.compile(r"checkpoint[-_]?(\d+)")


class TestSetSelectionError(ValueError):
    """Picking the best checkpoint by its test score was asked for without saying that this is meant."""

    __test__ = False  # not a pytest class, whatever its name begins with


@dataclass(frozen=True)
class Choice:
    """A checkpoint and the words that its table row carries."""

    checkpoint: Path
    mark: str


def checkpoint_step(path: str | Path) -> int | None:
    """The step in a name such as "checkpoint_000050_loss_0.527-openset.npz" or "checkpoint-50"; None without one."""
    found = _CHECKPOINT.search(Path(path).name)
    return int(found.group(1)) if found else None


def choose_checkpoint(
    candidates: Sequence[str | Path],
    rule: str = "last",
    scores: Sequence[float] | None = None,
    allow_test_selection: bool = False,
) -> Choice:
    """Choose one of several checkpoints of one run.

    Args:
        candidates: their files or folders, each with its step in the name.
        rule: "last", "best-on-dev", or "best-on-test".
        scores: for the "best" rules, one score a candidate on the named split; of equals the earlier step wins.
        allow_test_selection: "best-on-test" needs it, and its row is marked.
    Raises:
        TestSetSelectionError: "best-on-test" without `allow_test_selection`.
        ValueError: an unknown rule, a candidate without a step, or scores that do not fit.
    """
    if rule not in RULES:
        raise ValueError(f"rule {rule!r}: expected one of {', '.join(RULES)}")
    steps = {Path(candidate): checkpoint_step(candidate) for candidate in candidates}
    if not steps or None in steps.values():
        without = [str(path) for path, step in steps.items() if step is None]
        raise ValueError(f"expected checkpoints with a step in their names, found {', '.join(without) or 'none'}")
    ordered = sorted(steps, key=steps.get)
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
    best = max(ordered, key=by_path.get)
    if rule == "best-on-dev":
        return Choice(best, f"best of {len(ordered)} checkpoints on the dev split")
    return Choice(best, f"BEST OF {len(ordered)} CHECKPOINTS ON THE TEST SET")
