"""The output of the video processor and of the feature extractor, as arrays or as tensors on a device."""

from collections.abc import Collection
from typing import Any

import torch
from transformers import BatchFeature


def as_features(
    data: dict[str, Any],
    return_tensors: str | None = None,
    device: "str | torch.device | None" = None,
    kept: Collection[str] = (),
) -> BatchFeature:
    """Makes a `BatchFeature` whose tensors are on a device.

    Args:
        data (`dict[str, Any]`): The numpy arrays of a batch.
        return_tensors (`str`, *optional*): `"pt"` or `"np"`. The arrays stay as they are by default.
        device (`str` or `torch.device`, *optional*): The device of the tensors.
        kept (`Collection[str]`, *optional*, defaults to `()`): The names of what is never converted to a tensor.

    Returns:
        `BatchFeature`: The batch.

    Raises:
        ValueError: If a device other than the CPU is given for numpy arrays.
    """
    features = BatchFeature(data, tensor_type=return_tensors, skip_tensor_conversion=list(kept))
    if device is None:
        return features
    if return_tensors == "pt":
        return features.to(device)
    if torch.device(device).type != "cpu":
        raise ValueError(f'device={str(device)!r} needs return_tensors="pt", got {return_tensors!r}')
    return features
