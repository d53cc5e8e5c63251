"""Clips whose frames are image files, as many data sets have them: one folder of frames for each clip."""

import os
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any
from urllib.parse import urlparse

import numpy as np

from .decoding.container import MediaError, Source, open_source, source_name

try:
    from PIL import Image, ImageOps, UnidentifiedImageError
except ImportError:
    Image = None  # type: ignore[assignment]  # the error names what to install

# By these a list of frames is told from a list of clips.
IMAGE_SUFFIXES = (".bmp", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


class FrameFiles:
    """Shows image files as a sequence of pictures, each of which is read when it is asked for.

    Args:
        paths (`Sequence[str | os.PathLike]`): The paths or URLs of the frames in order of time.

    Attributes:
        name (`str`): The number of files and the first of them, for messages.
    """

    def __init__(self, paths: Sequence[str | os.PathLike]) -> None:
        self.paths = list(paths)
        self.name = f"<{len(self.paths)} image files from {self.paths[0]}>"

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        return read_picture(self.paths[index])


def as_frame_files(clip: Any) -> Any:
    """Makes frames of a list of image files.

    Args:
        clip (`Any`): A clip as [`MicroEmoVideoProcessor`] takes it.

    Returns:
        `Any`: [`FrameFiles`] for a list of paths or URLs that all end as those of images do; another clip as it is.
    """
    is_list = isinstance(clip, (list, tuple)) and len(clip) > 0
    return FrameFiles(clip) if is_list and all(map(_is_image_file, clip)) else clip


def read_picture(source: Source) -> np.ndarray:
    """Reads an image file, turned upright as its EXIF data say.

    Args:
        source (`str`, `os.PathLike`, `bytes` or `BinaryIO`): The file, as [`Clip`] takes it.

    Returns:
        `np.ndarray` of shape `(H, W, 3)`: The uint8 RGB image.

    Raises:
        ImportError: If Pillow is not installed.
        MediaError: If the file is missing or empty, or is no image or a damaged one.
    """
    if Image is None:
        raise ImportError("MicroEmo reads image files with Pillow: pip install pillow", name="PIL")
    name = source_name(source)
    try:
        with open_source(source) as file, Image.open(file) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I"):  # Pillow would clip the 16 bits of a grey value to its lowest 8
                grey = np.asarray(upright).astype(np.int64) >> 8
                return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, -1)
            return np.array(upright.convert("RGB"))
    except MediaError:
        raise
    except UnidentifiedImageError as error:
        raise MediaError(f"{name} is not an image") from error
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MediaError(f"{name} cannot be read as an image: {reason}") from error


def _is_image_file(item: Any) -> bool:
    if not isinstance(item, (str, os.PathLike)):
        return False
    path = urlparse(str(item)).path if "://" in str(item) else item
    return PurePath(path).suffix.lower() in IMAGE_SUFFIXES
