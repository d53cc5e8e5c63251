"""Presets of sources: which repositories, files and licences a model is assembled from (`source_manifest.json`)."""

from dataclasses import dataclass, field
from pathlib import Path

from ..modeling_microemo.convert_original import SOURCE_PRESETS, ConversionError
from ..utils.files import read_json

MANIFEST = Path(__file__).with_name("source_manifest.json")


@dataclass(frozen=True)
class ManifestEntry:
    """One source of a preset.

    Attributes:
        repository (`str`): The id on the Hub.
        path (`str`, *optional*): The file in it, or the folder (which ends in a slash).
        revision (`str`, *optional*): The commit. With `None` it is the newest one of the main branch.
        sha256 (`dict[str, str]`, *optional*):
            The SHA-256 of files by their names, without their folder. A file whose hash is `None` or missing is held to
            the one that the Hub states.
        licence (`str`, *optional*): The licence, in words.
    """

    repository: str
    path: str | None = None
    revision: str | None = None
    sha256: dict[str, str | None] = field(default_factory=dict)
    licence: str | None = None

    @property
    def address(self) -> str:
        """The source as an option takes it."""
        return (
            self.repository + (f"@{self.revision}" if self.revision else "") + (f":{self.path}" if self.path else "")
        )


@dataclass(frozen=True)
class Preset:
    """A named set of sources.

    Attributes:
        family (`str`): A name of `SOURCE_PRESETS`: how the model runs.
        sources (`dict[str, ManifestEntry]`): The sources by option. What is missing has to be named.
    """

    family: str
    sources: dict[str, ManifestEntry]


def read_preset(name: str, manifest: str | Path = MANIFEST) -> Preset:
    """Reads a preset of sources.

    Args:
        name (`str`): Its name.
        manifest (`str` or `Path`, *optional*): A file in the format of the package's own, which is the default.

    Returns:
        [`Preset`]: The preset.

    Raises:
        ConversionError: if there is no such preset, or if its entry is not understood.
    """
    presets = read_json(manifest)
    if name not in presets:
        raise ConversionError(f"no preset of sources named {name!r}; there are: {', '.join(presets)}")
    try:
        sources = {option: ManifestEntry(**entry) for option, entry in presets[name]["sources"].items()}
        preset = Preset(presets[name]["family"], sources)
    except (TypeError, KeyError) as error:
        raise ConversionError(f"{manifest}: the preset {name!r} is not understood: {error}") from error
    if preset.family not in SOURCE_PRESETS:
        raise ConversionError(
            f"{manifest}: {name!r} names the family {preset.family!r}; there is {list(SOURCE_PRESETS)}"
        )
    return preset
