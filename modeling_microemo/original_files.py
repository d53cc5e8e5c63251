"""The originals' weight files, in torch's and safetensors' formats, read without running their code."""

import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from .original_names import LORA


class ConversionError(ValueError):
    """A source or a target folder that cannot be used; the message names it."""


@dataclass
class WeightFile:
    """One file of weights.

    Attributes:
        path (`Path`): Where it lies.
        name (`str`): Its name in messages and in the report, without the rest of the machine's folders.
        options (`set[str]`): The options that name it or its folder, see `PARTS`; "checkpoint" for a fine-tuned one.
        shapes (`dict[str, torch.Size]`): The shapes of its tensors.
        beside (`dict`): What else the file holds. Of it only the run's "config" is read.
    """

    path: Path
    name: str
    options: set[str]
    shapes: dict[str, torch.Size] = field(default_factory=dict)
    beside: dict = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, name: str, options: set[str]) -> "WeightFile":
        """Reads names and shapes of a .pth, .bin or .safetensors file; the content decides, not the ending.

        Args:
            path (`Path`): Where the file lies.
            name (`str`): Its name in messages and in the report.
            options (`set[str]`): The options that name it or its folder.

        Returns:
            `WeightFile`: The file, without the values of its tensors.

        Raises:
            ConversionError: If the file is damaged, is no checkpoint, or has Python code in it.
        """
        file = cls(path, name, options)
        with file.open() as tensors:
            file.shapes = (
                tensors.shapes() if isinstance(tensors, _Safetensors) else {k: t.shape for k, t in tensors.items()}
            )
        return file

    @cached_property
    def is_fine_tuned(self) -> bool:
        """Whether it lies over the other files: named so, or known by LoRA keys or by both kinds of Q-Former."""
        return (
            "checkpoint" in self.options
            or any(LORA.fullmatch(key) for key in self.shapes)
            or {"query_tokens", "video_query_tokens"} <= self.shapes.keys()
        )

    @contextmanager
    def open(self) -> Iterator[Mapping[str, torch.Tensor]]:
        """Opens the tensors, mapped from the disk: only what is read takes memory, until the end of the context.

        Returns:
            `Iterator[Mapping[str, torch.Tensor]]`: The tensors by their keys, as a context manager.

        Raises:
            ConversionError: If the file is damaged, is no checkpoint, or has Python code in it.
        """
        if _starts_like_safetensors(self.path):
            try:
                with safe_open(self.path, framework="pt") as handle:
                    yield _Safetensors(handle)
            except SafetensorError as error:
                raise ConversionError(f"{self.path}: damaged or cut off: {error}") from error
        else:
            yield self._unpickle()

    def _unpickle(self) -> dict[str, torch.Tensor]:
        with self.path.open("rb") as stream:
            is_zip_start = stream.read(4) == b"PK\x03\x04"
        is_zip = zipfile.is_zipfile(self.path)
        if is_zip_start and not is_zip:
            raise ConversionError(f"{self.path}: cut off, its table of contents is missing; download it again")
        try:
            # Only zip files, torch's format since 1.6, can be mapped.
            content = torch.load(self.path, map_location="cpu", weights_only=True, mmap=is_zip)
        except pickle.UnpicklingError as error:
            reason = str(error)
            if match := re.search(r"GLOBAL ([\w.]+)|class (\S+)", reason):
                name = (match[1] or match[2]).rstrip(".")
                raise ConversionError(
                    f"{self.path}: asks to run Python code ({name}) when loaded, which is refused; "
                    "a file of weights needs none"
                ) from error
            raise ConversionError(f"{self.path}: no checkpoint, or a damaged one") from error
        except (RuntimeError, EOFError, OSError, KeyError, ValueError, TypeError) as error:
            raise ConversionError(f"{self.path}: no checkpoint, or a damaged one: {error}") from error
        if not isinstance(content, dict):
            raise ConversionError(f"{self.path}: holds a {type(content).__name__}, not a dictionary of tensors")
        weights = content
        for container in ("model", "state_dict"):
            if isinstance(content.get(container), dict):
                weights = content[container]
                # An optimizer's state, say, is not kept in memory.
                self.beside = {key: value if key == "config" else None for key, value in content.items()}
                del self.beside[container]
                break
        tensors = {key: value for key, value in weights.items() if isinstance(value, torch.Tensor)}
        if not tensors:
            raise ConversionError(f"{self.path}: holds no tensors, only {', '.join(map(str, list(weights)[:8]))}")
        return tensors


class _Safetensors(Mapping):
    """An open safetensors file as a mapping."""

    def __init__(self, handle: Any):
        self.handle = handle
        self.names = list(handle.keys())

    def shapes(self) -> dict[str, torch.Size]:
        return {name: torch.Size(self.handle.get_slice(name).get_shape()) for name in self.names}

    def __getitem__(self, key: str) -> torch.Tensor:
        return self.handle.get_tensor(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def _starts_like_safetensors(path: Path) -> bool:
    """Eight bytes of length, then a JSON object."""
    with path.open("rb") as stream:
        return stream.read(9)[8:] == b"{"


def open_sources(**options: Mapping[Path, str] | None) -> list[WeightFile]:
    """Opens all files of weights behind the options of `microemo convert`.

    Args:
        options (`Mapping[Path, str]`, *optional*): For each option its files, each with its name in messages.

    Returns:
        `list[WeightFile]`: The files, each once, with the options that name it.

    Raises:
        ConversionError: If a file cannot be read.
    """
    files: dict[Path, WeightFile] = {}
    for option, paths in options.items():
        for path, name in (paths or {}).items():
            if path in files:
                files[path].options.add(option)
            else:
                files[path] = WeightFile.read(path, name, {option})
    return list(files.values())
