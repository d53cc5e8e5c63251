"""The difference between code that came with a checkpoint and the installed package."""

from typing import Any

IS_REMOTE_CODE: bool = __name__.startswith("transformers_modules.")
"""Whether Transformers loaded this module from beside a checkpoint (`trust_remote_code=True`)."""

CODE_REFERENCES: tuple[str, ...] = ("auto_map", "custom_pipelines")
"""The fields of a saved configuration that name modules beside it."""


class _PipelineOfPackage(dict[str, dict]):
    """The task that `pipeline(model=...)` takes where none is named.

    `pipeline` reads the task from the first key of the configuration's `custom_pipelines`, and the class from beside the
    checkpoint where that holds the task. The package has registered a class of its own for it, so the task is named here,
    and not held.
    """

    def __contains__(self, task: object) -> bool:
        return False


PACKAGE_PIPELINE = _PipelineOfPackage({"video-emotion-recognition": {}})


def drop_code_references(fields: dict[str, Any]) -> dict[str, Any]:
    """Leaves out the fields that name modules beside a checkpoint, unless this code is one of these modules.

    The classes of the package run their own code and save none. If these fields stayed, they would name files that a folder
    saved by the package does not have, and `pipeline` would ask for permission to run code that it does not need.

    Args:
        fields (`dict[str, Any]`): The fields of a saved configuration.

    Returns:
        `dict[str, Any]`: The fields without the references, or all of them in code that came with a checkpoint.
    """
    if IS_REMOTE_CODE:
        return fields
    return {name: value for name, value in fields.items() if name not in CODE_REFERENCES}
