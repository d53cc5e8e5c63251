"""Where weights come from: files and folders of this machine, and repositories of the Hub.

A source is written as a file, a folder in Transformers' format, `ORG/NAME`, `ORG/NAME:FILE` or `ORG/NAME:FOLDER/`; a revision
stands behind the name, as in `ORG/NAME@REVISION:FILE`. Nothing large is read or downloaded before [`Source.fetch`].
"""

import errno
import hashlib
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from huggingface_hub import HfApi, constants, get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, WEIGHTS_INDEX_NAME, WEIGHTS_NAME

from ..modeling_microemo.convert_original import ConversionError
from ..modeling_microemo.original_names import INSTRUCTBLIP_KEYS
from ..utils.atomic_files import NoSpaceError
from ..utils.files import read_json

logger = logging.getLogger(__name__)

ADDRESS = re.compile(r"(?P<repository>[\w-][\w.-]*/[\w.-]+)(@(?P<revision>[\w./-]+))?(:(?P<path>[^:]+))?")
WEIGHTS = ((SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME), (WEIGHTS_NAME, WEIGHTS_INDEX_NAME))
WEIGHT_SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")
# Configurations and tokenizers, which are read before the weights.
SMALL_SUFFIXES = (".json", ".txt", ".model", ".jinja", ".tiktoken")


class LocalFolder:
    """A folder of this machine.

    Args:
        path (`Path`): The folder.
    """

    address: str | None = None
    repo_id: str | None = None
    commit: str | None = None
    licence: str | None = None

    def __init__(self, path: Path):
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    @cached_property
    def names(self) -> list[str]:
        """The files that lie directly in it."""
        return sorted(entry.name for entry in self.path.iterdir() if entry.is_file())

    def title(self, name: str) -> str:
        """Returns the name of a file in messages and reports, without the rest of the machine's folders.

        Args:
            name (`str`): The file.

        Returns:
            `str`: The name.
        """
        return f"{self.path.resolve().name}/{name}"

    def size(self, name: str) -> int:
        """Returns the size of a file in bytes.

        Args:
            name (`str`): The file.

        Returns:
            `int`: The size.
        """
        return (self.path / name).stat().st_size

    def is_here(self, name: str) -> bool:
        """Returns whether a file needs no download.

        Args:
            name (`str`): The file.

        Returns:
            `bool`: `True`.
        """
        return True

    def stated_sha256(self, name: str) -> str | None:
        """Returns the SHA-256 of a file as its place states it.

        Args:
            name (`str`): The file.

        Returns:
            `None`: A folder states none.
        """
        return None

    def fetch(self, name: str) -> Path:
        """Returns the path of a file on this machine.

        Args:
            name (`str`): The file.

        Returns:
            `Path`: The path.
        """
        return self.path / name

    def subfolder(self, name: str) -> "LocalFolder | None":
        """Returns a folder in it, if it exists.

        Args:
            name (`str`): The folder.

        Returns:
            [`LocalFolder`], [`HubFolder`] or `None`: The folder.
        """
        return LocalFolder(self.path / name) if (self.path / name).is_dir() else None

    def check_access(self, name: str) -> None:
        """Checks that a file may be downloaded.

        Args:
            name (`str`): The file.
        """


class Repository:
    """A repository of the Hub at one commit.

    Where the Hub cannot be reached it is what lies in the cache of `huggingface_hub`.

    Args:
        repo_id (`str`): Its id.
        revision (`str`, *optional*): A branch, tag or commit, by default the main branch.
        token (`str`, *optional*): The access token, by default that of `hf auth login`.

    Raises:
        ConversionError: if it cannot be read.
    """

    def __init__(self, repo_id: str, revision: str | None = None, token: str | None = None):
        self.repo_id, self.token = repo_id, token
        self.licence: str | None = None
        self.is_gated = False
        self.files: dict[str, tuple[int, str | None]] = {}
        with plain_errors(repo_id, revision):
            try:
                info = HfApi(token=token).model_info(repo_id, revision=revision, files_metadata=True)
            except (HTTPError, OfflineModeIsEnabled) as error:
                if isinstance(error, HfHubHTTPError) or not self._open_cache(revision):
                    raise
                return
        self.commit = info.sha
        self.is_gated = bool(info.gated)
        licence = info.card_data.get("license") if info.card_data else None
        if licence:
            self.licence = f"{licence} (as the card of {repo_id} says)"
        for file in info.siblings or ():
            self.files[file.rfilename] = (file.size or 0, file.lfs.sha256 if file.lfs else None)

    def _open_cache(self, revision: str | None) -> bool:
        folder = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=self.repo_id, repo_type="model"))
        reference = folder / "refs" / (revision or "main")
        commit = reference.read_text().strip() if reference.is_file() else revision
        snapshots = sorted((folder / "snapshots").glob(commit or "*"), key=lambda path: path.stat().st_mtime)
        if not snapshots:
            return False
        snapshot = snapshots[-1]
        self.commit = snapshot.name
        for path in snapshot.rglob("*"):
            if path.is_file():
                self.files[path.relative_to(snapshot).as_posix()] = (path.stat().st_size, None)
        logger.warning(f"{self.repo_id}: the Hub cannot be reached; its commit {self.commit} in the cache is read.")
        return True


class HubFolder:
    """A folder of a repository of the Hub, or the whole repository.

    Args:
        repository ([`Repository`]): The repository.
        prefix (`str`, *optional*, defaults to `""`): The folder, with a slash at its end.
    """

    def __init__(self, repository: Repository, prefix: str = ""):
        self.repository, self.prefix = repository, prefix
        self.repo_id: str | None = repository.repo_id
        self.commit: str | None = repository.commit
        self.licence = repository.licence

    def __str__(self) -> str:
        return self.repository.repo_id + (f":{self.prefix}" if self.prefix else "")

    @property
    def address(self) -> str:
        """The folder with its commit, as an option takes it."""
        return f"{self.repository.repo_id}@{self.commit}" + (f":{self.prefix}" if self.prefix else "")

    @cached_property
    def names(self) -> list[str]:
        """The files that lie directly in it."""
        names = [path.removeprefix(self.prefix) for path in self.repository.files if path.startswith(self.prefix)]
        return sorted(name for name in names if "/" not in name)

    def title(self, name: str) -> str:
        """Returns the name of a file in messages and reports.

        Args:
            name (`str`): The file.

        Returns:
            `str`: The name.
        """
        return f"{self.repository.repo_id}/{self.prefix}{name}"

    def size(self, name: str) -> int:
        """Returns the size of a file in bytes, as the Hub states it.

        Args:
            name (`str`): The file.

        Returns:
            `int`: The size.
        """
        return self.repository.files[self.prefix + name][0]

    def is_here(self, name: str) -> bool:
        """Returns whether a file needs no download, since it lies in the cache.

        Args:
            name (`str`): The file.

        Returns:
            `bool`: Whether it lies there.
        """
        found = try_to_load_from_cache(self.repository.repo_id, self.prefix + name, revision=self.commit)
        return isinstance(found, str)

    def stated_sha256(self, name: str) -> str | None:
        """Returns the SHA-256 of a file as the Hub states it, which it does for large ones.

        Args:
            name (`str`): The file.

        Returns:
            `str` or `None`: The hash in hexadecimal digits.
        """
        return self.repository.files[self.prefix + name][1]

    def fetch(self, name: str) -> Path:
        """Downloads a file to the cache of `huggingface_hub`, if it is not there, and returns its path.

        Args:
            name (`str`): The file.

        Returns:
            `Path`: The path in the cache.

        Raises:
            ConversionError: if it cannot be downloaded.
            NoSpaceError: if the disk is full.
        """
        repository = self.repository
        with plain_errors(self.title(name), self.commit):
            path = hf_hub_download(
                repository.repo_id, self.prefix + name, revision=self.commit, token=repository.token
            )
        return Path(path)

    def subfolder(self, name: str) -> "HubFolder | None":
        """Returns a folder in it, if it exists.

        Args:
            name (`str`): The folder.

        Returns:
            [`LocalFolder`], [`HubFolder`] or `None`: The folder.
        """
        prefix = f"{self.prefix}{name}".rstrip("/") + "/"
        exists = any(path.startswith(prefix) for path in self.repository.files)
        return HubFolder(self.repository, prefix) if exists else None

    def check_access(self, name: str) -> None:
        """Checks that a file of a gated repository may be downloaded, whose list of files is open to everybody.

        Args:
            name (`str`): The file.

        Raises:
            ConversionError: if it may not.
        """
        if self.repository.is_gated and not self.is_here(name):
            url = hf_hub_url(self.repository.repo_id, self.prefix + name, revision=self.commit)
            with plain_errors(self.title(name), self.commit):
                get_hf_file_metadata(url, token=self.repository.token)


@dataclass
class Source:
    """What an option names.

    Attributes:
        option (`str`): The option, such as `"video_branch"`.
        place ([`LocalFolder`] or [`HubFolder`]): The folder.
        file (`str`, *optional*): The file in it. With `None` the folder is in Transformers' format.
    """

    option: str
    place: LocalFolder | HubFolder
    file: str | None = None

    def __str__(self) -> str:
        return f"{self.place}{f'/{self.file}' if self.file else ''} (--{self.option.replace('_', '-')})"

    def weights(self) -> list[str]:
        """Lists the files of weights that the option needs. Of a sharded checkpoint it reads the index for that.

        Returns:
            `list[str]`: Their names in the folder.

        Raises:
            ConversionError: if there are none, or if the index lists one that is not there.
        """
        if self.file is not None:
            return [self.file]
        names = self.place.names
        for single, index in WEIGHTS:
            if index in names:
                shards = self._wanted_shards(index)
                if missing := [shard for shard in shards if shard not in names]:
                    raise ConversionError(f"{self}: {index} lists {', '.join(missing)}, which is not there")
                return shards
            if single in names:
                return [single]
        others = [name for name in names if name.endswith(WEIGHT_SUFFIXES)]
        hint = f". It holds {', '.join(others)}: name the file, not the folder" if others else ""
        raise ConversionError(f"{self}: holds no weights ({SAFE_WEIGHTS_NAME}, {WEIGHTS_NAME}, or their index){hint}")

    def _wanted_shards(self, index: str) -> list[str]:
        content = read_json(self.place.fetch(index))
        weight_map = content.get("weight_map") if isinstance(content, dict) else None
        if not isinstance(weight_map, dict) or not weight_map:
            raise ConversionError(f"{self}: {index} holds no weight_map")
        pattern = INSTRUCTBLIP_KEYS.get(self.option)
        wanted = {shard for key, shard in weight_map.items() if pattern and pattern.fullmatch(key)}
        return sorted(wanted or set(weight_map.values()))

    def folder(self) -> Path:
        """Fetches the configuration and the tokenizer.

        Returns:
            `Path`: The folder of this machine that they lie in.

        Raises:
            ConversionError: if the source is a file, or if the Hub does not give them.
        """
        if self.file is not None:
            raise ConversionError(f"{self}: is a file; expected a folder or a Hub id with configuration and tokenizer")
        if isinstance(self.place, LocalFolder):
            return self.place.path
        names = [n for n in self.place.names if n.endswith(SMALL_SUFFIXES) and not n.endswith(".index.json")]
        if not names:
            raise ConversionError(f"{self}: holds neither a configuration nor a tokenizer")
        paths = [self.place.fetch(name) for name in names]
        return paths[0].parent


def locate(option: str, source: str | Path, token: str | None, repositories: dict[str, Repository]) -> Source:
    """Finds what an option names.

    Args:
        option (`str`): The option.
        source (`str` or `Path`): A file, a folder, or the address of something on the Hub.
        token (`str` or `None`): The access token.
        repositories (`dict[str, Repository]`): The repositories that were looked at before; new ones are added.

    Returns:
        [`Source`]: The source.

    Raises:
        ConversionError: if there is nothing of that name.
    """
    path = Path(source)
    flag = f"--{option.replace('_', '-')}"
    if path.is_file():
        return Source(option, LocalFolder(path.parent), path.name)
    if path.is_dir():
        return Source(option, LocalFolder(path))
    match = ADDRESS.fullmatch(str(source))
    if match is None:
        raise ConversionError(f"{source}: no such file or folder, and no id of a repository on the Hub ({flag})")
    repo_id, revision, inside = match["repository"], match["revision"], match["path"]
    key = f"{repo_id}@{revision}"
    if key not in repositories:
        try:
            repositories[key] = Repository(repo_id, revision, token)
        except ConversionError as error:
            raise ConversionError(f"{source} ({flag}): no such file or folder here. {error}") from error
    root = HubFolder(repositories[key])
    if inside is None:
        return Source(option, root)
    if inside in root.repository.files:
        folder, slash, name = inside.rpartition("/")
        return Source(option, HubFolder(root.repository, folder + slash), name)
    if place := root.subfolder(inside):
        return Source(option, place)
    others = [name for name in root.repository.files if name.endswith(WEIGHT_SUFFIXES)]
    raise ConversionError(
        f"{source} ({flag}): the repository {repo_id} has no {inside} at commit {root.commit}"
        + (f"; its files of weights are {', '.join(others[:12])}" if others else "")
    )


def sha256_of(path: Path) -> str:
    """Computes the SHA-256 of a file.

    Args:
        path (`Path`): The file.

    Returns:
        `str`: The hash in hexadecimal digits.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def plain_errors(name: str, revision: str | None = None) -> Iterator[None]:
    """Turns what the client of the Hub raises into one sentence that names the source and says what to do.

    Args:
        name (`str`): The repository or file.
        revision (`str`, *optional*): The revision that is looked for.

    Returns:
        `Iterator[None]`: A context manager.

    Raises:
        ConversionError: if the Hub cannot be reached, or does not give what is asked for.
        NoSpaceError: if the disk is full.
    """
    again = "Run the same command again: files that have arrived are not downloaded twice"
    try:
        yield
    except GatedRepoError as error:
        repo_id = "/".join(name.split("/")[:2])
        raise ConversionError(
            f"{name}: access is restricted. Ask for it at {constants.ENDPOINT}/{repo_id}, and log in with `hf auth login`, "
            "HF_TOKEN or --token"
        ) from error
    except RevisionNotFoundError as error:
        raise ConversionError(f"{name}: the Hub knows no revision {revision!r} of it") from error
    except RepositoryNotFoundError as error:
        raise ConversionError(
            f"{name}: the Hub knows no such repository, or it is private and needs another token (`hf auth login`, "
            "HF_TOKEN or --token)"
        ) from error
    except OfflineModeIsEnabled as error:
        raise ConversionError(f"{name}: not in the cache, and HF_HUB_OFFLINE is set") from error
    except HfHubHTTPError as error:
        if error.response.status_code == 401:
            raise ConversionError(f"{name}: the Hub refused the access token; it is wrong or expired") from error
        raise ConversionError(f"{name}: the Hub answered {error.response.status_code}. {again}") from error
    except EntryNotFoundError as error:  # also what is not in the cache
        raise ConversionError(f"{name}: neither in the cache nor to be had from the Hub. {again}") from error
    except (HTTPError, ConnectionError, TimeoutError, RuntimeError) as error:  # the last three of Xet
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise ConversionError(
            f"{name}: {constants.ENDPOINT} cannot be reached, or broke off ({reason}). {again}"
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise NoSpaceError(f"{name}: no space left in {constants.HF_HUB_CACHE} to download it. {again}") from error
        raise ConversionError(f"{name}: it could not be downloaded ({error}). {again}") from error
