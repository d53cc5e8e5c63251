"""Sends a checkpoint folder to the Hub: what `microemo publish` does.

[`make_plan`] decides what is sent, without any network; [`publish`] sends it in one commit, and compares what has arrived with
what is here. Nothing is written in the folder.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelInfo, SpaceInfo
from huggingface_hub.constants import REPO_TYPES_URL_PREFIXES
from huggingface_hub.errors import (
    HfHubHTTPError,
    HTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import HFValidationError, validate_repo_id
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME

from ..utils.checkpoint_files import ADAPTER_CONFIG, CARD, CONVERSION_REPORT, RUN_FACTS
from ..utils.files import read_json
from .code_bundle import write_code_bundle
from .completeness import FolderContent, read_folder
from .model_card_file import HUB_ID, base_of, card_problems, make_card

logger = logging.getLogger(__name__)

TOKENS_PAGE = "https://huggingface.co/settings/tokens"
AGAIN = "Run the same command again: large files that have arrived are not sent twice"


class IncompleteFolderError(ValueError):
    """Raised when a folder lacks something that a published checkpoint needs. The message names all of it."""


class PublishError(OSError):
    """Raised when the Hub cannot be reached, or does not take a checkpoint. The message says what to do."""


@dataclass
class PublishPlan:
    """What is sent to which repository.

    Attributes:
        repo_id (`str`): The name of the repository.
        is_adapter (`bool`): Whether an adapter is sent, and not a whole model.
        base_model (`str`, *optional*): The Hub id of the base model, if it is known.
        files (`dict[str, Path | bytes]`):
            The files by their names in the repository; the content of those that are made for publishing.
        left_out (`dict[str, str]`): The other files and folders, with the reason why they are not sent.
        repo_type (`str`, *optional*, defaults to `"model"`): The kind of the repository: `"model"` or `"space"`.
    """

    repo_id: str
    is_adapter: bool
    base_model: str | None
    files: dict[str, Path | bytes]
    left_out: dict[str, str]
    repo_type: str = "model"

    @property
    def kind(self) -> str:
        """What is sent, in a word."""
        return "page" if self.repo_type == "space" else "adapter" if self.is_adapter else "model"

    def sizes(self) -> dict[str, int]:
        """Returns the number of bytes of each file.

        Returns:
            `dict[str, int]`: The sizes, by the names in the repository.
        """
        return {
            name: len(source) if isinstance(source, bytes) else source.stat().st_size
            for name, source in self.files.items()
        }


@dataclass
class Published:
    """What has arrived.

    Attributes:
        address (`str`): The web address of the repository.
        commit (`str`): The id of the commit.
        is_private (`bool`): Whether the repository is private.
    """

    address: str
    commit: str
    is_private: bool


# --- what is sent --------------------------------------------------------------------------------------------------


def make_plan(
    folder: str | os.PathLike,
    repo_id: str,
    license: str | None = None,
    base_model: str | None = None,
    evaluations: Iterable[str | Path] = (),
    include: Iterable[str] = (),
) -> PublishPlan:
    """Decides what of a folder is sent, and makes the files that publishing adds: the model card and the code.

    Args:
        folder (`str` or `Path`): The folder of a checkpoint, or of an adapter.
        repo_id (`str`): The name of the repository, `"ORG/NAME"`.
        license (`str`, *optional*): The licence of the weights, as the Hub names it. By default that of the card.
        base_model (`str`, *optional*): The Hub id of the base model. By default the one that the folder names.
        evaluations (`Iterable[str | Path]`, *optional*): Files of `microemo evaluate score --json` for the card.
        include (`Iterable[str]`, *optional*): Patterns of the names of further files to send.

    Returns:
        [`PublishPlan`]: The files to send and those left out.

    Raises:
        FileNotFoundError: if there is no such folder.
        IncompleteFolderError: if the folder lacks something. The message names all of it.
        ValueError: if `repo_id` or `base_model` is no name of a repository.
    """
    for option, name in (("repo_id", repo_id), ("base_model", base_model)):
        if name is not None:
            _check_name(option, name)
    content = read_folder(folder, include)
    files: dict[str, Path | bytes] = dict(content.files)
    problems = list(content.problems)
    if content.is_adapter:
        _name_base(content, base_model, files, problems)
    try:
        card = make_card(content, repo_id, license, base_model, evaluations)
        problems += card_problems(card, content.is_adapter)
        files[CARD] = card.encode()
    except ValueError as error:
        problems.append(str(error))
    if problems:
        listed = "\n".join(f"- {problem}" for problem in dict.fromkeys(problems))
        raise IncompleteFolderError(f"{content.folder} cannot be published yet:\n{listed}")
    if not content.is_adapter:
        files |= _code(content.folder)
    left_out = {name: reason for name, reason in content.left_out.items() if name not in files}
    return PublishPlan(
        repo_id, content.is_adapter, base_model or base_of(content), dict(sorted(files.items())), left_out
    )


def _check_name(option: str, name: str) -> None:
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ValueError(f"{option} {name!r} is no name of a repository: {error}") from None
    if not HUB_ID.fullmatch(name):
        raise ValueError(f"{option} {name!r}: expected ORG/NAME or USER/NAME")


def _name_base(
    content: FolderContent, base_model: str | None, files: dict[str, Path | bytes], problems: list[str]
) -> None:
    """Makes an adapter's configuration name its base by a Hub id."""
    if ADAPTER_CONFIG not in content.files:
        return
    config = read_json(content.folder / ADAPTER_CONFIG)
    if base_model is not None and config.get("base_model_name_or_path") != base_model:
        files[ADAPTER_CONFIG] = (
            json.dumps(config | {"base_model_name_or_path": base_model}, indent=2) + "\n"
        ).encode()
    elif base_of(content) is None:
        problems.append(
            f"{ADAPTER_CONFIG} names the base model by {config.get('base_model_name_or_path')!r}, which nobody else has; "
            "publish the base first and pass --base-model ORG/NAME, or pass --merge"
        )


def _code(folder: Path) -> dict[str, bytes]:
    """The code that travels with a checkpoint, and the configurations that name it."""
    with tempfile.TemporaryDirectory() as stage:
        for name in ("config.json", "processor_config.json"):
            shutil.copyfile(folder / name, Path(stage, name))
        write_code_bundle(stage)
        return {path.name: path.read_bytes() for path in Path(stage).iterdir()}


@contextmanager
def merged_folder(folder: str | os.PathLike, merge: Callable[[Path, Path], Path]) -> Iterator[Path]:
    """Merges an adapter into its base model for the time of the block.

    Args:
        folder (`str` or `Path`): The folder of the adapter.
        merge (`Callable`): `microemo.training.adapter.merge_adapter`. It belongs to a room above this one.

    Yields:
        `Path`: A folder beside that of the adapter with the whole model, the adapter's card, licence, and the facts of its
        training and evaluation. It is removed when the block ends.

    Raises:
        FileNotFoundError: if the folder holds no adapter.
        NoSpaceError: if there is no room for the merged model.
    """
    folder = Path(folder)
    if not (folder / ADAPTER_CONFIG).is_file():
        raise FileNotFoundError(f"{folder}: no {ADAPTER_CONFIG} in it, so no adapter to merge")
    with tempfile.TemporaryDirectory(dir=folder.resolve().parent, prefix=f".{folder.resolve().name}.") as place:
        merged = merge(folder, Path(place, "merged"))
        for pattern in (CARD, "LICEN[CS]E*", "NOTICE*", RUN_FACTS, CONVERSION_REPORT, "evaluation*.json*"):
            for path in folder.glob(pattern):
                shutil.copyfile(path, merged / path.name)
        yield merged


# --- sending -------------------------------------------------------------------------------------------------------


def publish(
    plan: PublishPlan, token: str | None = None, private: bool = False, revision: str | None = None
) -> Published:
    """Sends a checkpoint to the Hub in one commit, and compares the hashes of what has arrived with what is here.

    A repository that does not exist is created. Large files that arrived before a run broke off are not sent again. Weights
    in the repository that do not belong to the new ones are removed by the same commit.

    Args:
        plan ([`PublishPlan`]): What is sent where.
        token (`str`, *optional*): The access token. By default that of HF_TOKEN or of `hf auth login`.
        private (`bool`, *optional*, defaults to `False`): Whether the repository is to be private.
        revision (`str`, *optional*): The branch, which is created if it does not exist. By default `"main"`.

    Returns:
        [`Published`]: The address and the commit.

    Raises:
        PublishError: if the Hub cannot be reached or does not take the files, or if what has arrived differs.
        ValueError: if the Hub refuses the metadata of the model card.
    """
    api = HfApi(token=token)
    with _plain_errors(plan.repo_id, api.endpoint):
        _check_token(api)
        if plan.kind != "model":
            _check_base(api, plan)
        info = _open_repository(api, plan, private, revision)
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationAdd(name, source) for name, source in plan.files.items()
        ]
        operations += [CommitOperationDelete(name) for name in _stale_files(info, plan)]
        commit = api.create_commit(
            plan.repo_id,
            operations,
            commit_message=f"Upload a MicroEmo {plan.kind}",
            repo_type=plan.repo_type,
            revision=revision,
            parent_commit=info.sha,
        )
        _verify(api, plan, commit.oid)
    prefix = REPO_TYPES_URL_PREFIXES.get(plan.repo_type, "")
    return Published(f"{api.endpoint}/{prefix}{plan.repo_id}", commit.oid, bool(info.private))


def _check_token(api: HfApi) -> None:
    role = (api.whoami().get("auth") or {}).get("accessToken", {}).get("role")
    if role == "read":
        raise PublishError(f"the access token may only read; make one that may write at {TOKENS_PAGE}")


def _check_base(api: HfApi, plan: PublishPlan) -> None:
    try:
        api.model_info(str(plan.base_model))
    except RepositoryNotFoundError:
        raise PublishError(
            f"{plan.base_model}, the {'base ' if plan.is_adapter else ''}model of the {plan.kind}, is not on the Hub, or not "
            "for this token; publish it first, or name another"
        ) from None


def _open_repository(api: HfApi, plan: PublishPlan, private: bool, revision: str | None) -> ModelInfo | SpaceInfo:
    """Creates the repository and the branch where they do not exist, and checks that an existing one may be written to."""
    repo_id, kind = plan.repo_id, plan.repo_type
    try:
        info = _info(api, plan)
    except RepositoryNotFoundError:
        sdk = "gradio" if kind == "space" else None
        api.create_repo(repo_id, private=private or None, exist_ok=True, repo_type=kind, space_sdk=sdk)
        info = _info(api, plan)
    if private and not info.private:
        raise PublishError(
            f"{repo_id} exists and is public; nothing was sent. Make it private in its settings, or leave out --private"
        )
    if (other := _other_content(info, plan)) is not None:
        raise PublishError(f"{repo_id} exists and holds {other}; nothing was sent. Name another repository")
    if revision is None:
        return info
    try:
        return _info(api, plan, revision)
    except RevisionNotFoundError:
        api.create_branch(repo_id, branch=revision, repo_type=kind)
        return _info(api, plan, revision)


def _info(api: HfApi, plan: PublishPlan, revision: str | None = None) -> ModelInfo | SpaceInfo:
    info = api.repo_info(plan.repo_id, repo_type=plan.repo_type, revision=revision)
    assert isinstance(info, ModelInfo | SpaceInfo)
    return info


def _other_content(info: ModelInfo | SpaceInfo, plan: PublishPlan) -> str | None:
    """What a repository holds that is not of the kind to send."""
    names = {sibling.rfilename for sibling in info.siblings or ()}
    if isinstance(info, SpaceInfo):
        return "another Space" if "app.py" in names and "microemo/__init__.py" not in names else None
    model_type = (info.config or {}).get("model_type")
    if model_type not in (None, "microemo"):
        return f"a model of type {model_type}"
    other = "an adapter" if ADAPTER_CONFIG in names else "a whole model" if "config.json" in names else None
    return None if other == ("an adapter" if plan.is_adapter else "a whole model") else other


def _stale_files(info: ModelInfo | SpaceInfo, plan: PublishPlan) -> list[str]:
    """Files of an earlier commit that would lie beside the new ones: weights that `from_pretrained` might take, code of a page."""
    names = [sibling.rfilename for sibling in info.siblings or () if sibling.rfilename not in plan.files]
    if isinstance(info, SpaceInfo):
        return [name for name in names if name.startswith("microemo/")]
    weights = (".safetensors", SAFE_WEIGHTS_INDEX_NAME)
    return [name for name in names if "/" not in name and name.endswith(weights)]


def _verify(api: HfApi, plan: PublishPlan, commit: str) -> None:
    there = {
        entry.path: entry
        for entry in api.list_repo_tree(plan.repo_id, recursive=True, revision=commit, repo_type=plan.repo_type)
        if isinstance(entry, RepoFile)
    }
    wrong = [name for name, source in plan.files.items() if name not in there or not _is_same(source, there[name])]
    if wrong:
        raise PublishError(
            f"{plan.repo_id}, commit {commit}: {', '.join(wrong)} did not arrive as on this disk. {AGAIN}. If it stays so, "
            "a .gitignore in the repository may leave files out"
        )


def _is_same(source: Path | bytes, entry: RepoFile) -> bool:
    """Compares a file with what the Hub says of it: the SHA-256 of a large one, the git id of a small one."""
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    digest = hashlib.sha256() if entry.lfs is not None else hashlib.sha1(b"blob %d\0" % size)
    if isinstance(source, bytes):
        digest.update(source)
    else:
        with source.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest() == (entry.lfs.sha256 if entry.lfs is not None else entry.blob_id)


@contextmanager
def _plain_errors(repo_id: str, endpoint: str) -> Iterator[None]:
    """Turns what the client raises into one sentence that says what to do."""
    try:
        yield
    except KeyboardInterrupt:
        logger.warning(f"Interrupted. The commit to {repo_id} is made as a whole or not at all. {AGAIN}.")
        raise
    except LocalTokenNotFoundError:
        raise PublishError(
            f"no access token: run `hf auth login`, set HF_TOKEN, or pass --token. Tokens are made at {TOKENS_PAGE}"
        ) from None
    except OfflineModeIsEnabled:
        raise PublishError("HF_HUB_OFFLINE is set, so nothing can be sent; unset it, or pass --dry-run") from None
    except HfHubHTTPError as error:
        raise PublishError(_meaning(error, repo_id)) from error
    except (HTTPError, ConnectionError, TimeoutError, RuntimeError) as error:  # the last three of Xet, or of an upload
        reason = _reason(error) if error.__cause__ is None else f"{_reason(error)} {_reason(error.__cause__)}"
        hint = ". If the server has no Xet store, set HF_HUB_DISABLE_XET=1" if "xet-" in reason else ""
        raise PublishError(f"{endpoint} cannot be reached, or broke off ({reason}). {AGAIN}{hint}") from error


def _meaning(error: HfHubHTTPError, repo_id: str) -> str:
    status = error.response.status_code
    said = (error.server_message or error.response.headers.get("X-Error-Message") or "").strip().rstrip(".")
    if status == 401:
        return f"the Hub refused the access token ({said}); it is wrong or expired. Make a new one at {TOKENS_PAGE}"
    if status == 403:
        return (
            f"the access token has no right to write to {repo_id} ({said}). Name a repository of yours or of an organisation "
            f"in which you may write, or give the token that right at {TOKENS_PAGE}"
        )
    if status == 412:
        return f"{repo_id} was changed by somebody else in the meantime; nothing was committed. {AGAIN}"
    if status == 429:
        return f"the Hub asks for a pause ({said}). {AGAIN} later"
    return f"the Hub answered {status} for {repo_id} ({said or _reason(error)}). {AGAIN}"


def _reason(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
