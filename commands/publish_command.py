"""The commands `microemo publish` and `microemo card`: a checkpoint on the Hub, and its model card.

microemo publish run/merged --repo-id ORG/NAME --license apache-2.0 --dry-run
microemo publish run --repo-id ORG/NAME-adapter --base-model ORG/microemo-7b
microemo publish run --repo-id ORG/NAME --merge --private
microemo publish run/merged --repo-id ORG/NAME --space ORG/PAGE
microemo card run/merged --repo-id ORG/NAME --evaluation scores.jsonl
"""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..utils.checkpoint_files import ADAPTER_CONFIG, CARD
from .shared_options import Token, check_files, check_folders, load_libraries

if TYPE_CHECKING:
    from ..publishing.publish import Published, PublishPlan

Folder = Annotated[Path, typer.Argument(help="The folder of a checkpoint or of an adapter.", show_default=False)]
RepoId = Annotated[
    str, typer.Option("--repo-id", help="The name of the repository on the Hub, ORG/NAME.", show_default=False)
]
License = Annotated[
    str | None,
    typer.Option(
        "--license", help="The licence of the weights, such as apache-2.0. By default that of the model card."
    ),
]
BaseModel = Annotated[
    str | None,
    typer.Option(help="The Hub id of the base model. By default the one that the folder names."),
]
Evaluation = Annotated[
    list[str] | None,
    typer.Option(help="A file of `evaluate score --json` for the model card; may be repeated."),
]


def publish(
    folder: Folder,
    repo_id: RepoId,
    private: Annotated[bool, typer.Option("--private", help="Create the repository as a private one.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be sent, without network and token.")
    ] = False,
    adapter: Annotated[
        bool, typer.Option("--adapter", help="Send an adapter as it is, without its base. The default for an adapter.")
    ] = False,
    merge: Annotated[
        bool, typer.Option("--merge", help="Merge an adapter into its base, and send the whole model.")
    ] = False,
    revision: Annotated[
        str | None, typer.Option(help="The branch, which is created if there is none. By default main.")
    ] = None,
    token: Token = None,
    license: License = None,
    base_model: BaseModel = None,
    evaluation: Evaluation = None,
    include: Annotated[
        list[str] | None, typer.Option(help="A pattern of further files to send, such as 'images/*'; may be repeated.")
    ] = None,
    space: Annotated[
        str | None,
        typer.Option(
            help="Send in place of the model a Space with the page of `microemo app` for it, ORG/NAME, or write it to a new "
            "folder, ./NAME. The model has to be on the Hub."
        ),
    ] = None,
):
    """Publish the checkpoint in FOLDER on the Hub.

    The folder is checked before anything is sent. It is sent in one commit with its code and a model card, and its hashes
    are compared afterwards. A run that broke off can be started again: large files that have arrived are not sent twice.
    """
    check_folders(folder)
    check_files(*(evaluation or ()))
    is_adapter = (folder / ADAPTER_CONFIG).is_file()
    if adapter and merge:
        raise ValueError("--adapter and --merge exclude each other")
    if (adapter or merge) and not is_adapter:
        raise ValueError(f"{folder}: no adapter_config.json in it, so no adapter; leave out --adapter and --merge")
    if space is not None and (merge or base_model or evaluation or include):
        raise ValueError("--space sends no model: leave out --merge, --base-model, --evaluation and --include")
    load_libraries()
    if space is not None:
        _publish_space(folder, repo_id, space, license, private, dry_run, revision, token)
        return
    from ..publishing.completeness import read_folder
    from ..publishing.model_card_file import base_of
    from ..publishing.publish import make_plan, merged_folder
    from ..publishing.publish import publish as send

    if merge:
        from ..training.adapter import merge_adapter

        base_model = base_model or base_of(read_folder(folder))
    with merged_folder(folder, merge_adapter) if merge else nullcontext(folder) as source:
        plan = make_plan(source, repo_id, license, base_model, evaluation or (), include or ())
        _print_plan(plan)
        if dry_run:
            print(f"Nothing was sent to {repo_id}: this was a dry run.")
            return
        _print_published(send(plan, token, private, revision))


def _publish_space(
    folder: Path,
    model: str,
    space: str,
    license: str | None,
    private: bool,
    dry_run: bool,
    revision: str | None,
    token: str | None,
) -> None:
    """Sends or writes the page for a model."""
    from ..publishing.model_card_file import HUB_ID
    from ..publishing.publish import publish as send
    from ..publishing.space import make_space_plan, write_space

    plan = make_space_plan(folder, model, space, license)
    _print_plan(plan)
    if dry_run:
        print(f"Nothing was sent to {space}: this was a dry run.")
    elif HUB_ID.fullmatch(space) and not Path(space).parent.is_dir():
        _print_published(send(plan, token, private, revision))
    else:
        print(write_space(plan, space))


def _print_published(published: "Published") -> None:
    visibility = "private" if published.is_private else "public"
    print(f"Published and compared by hash, commit {published.commit} ({visibility}):\n{published.address}")


def card(
    folder: Folder,
    repo_id: RepoId,
    license: License = None,
    base_model: BaseModel = None,
    evaluation: Evaluation = None,
):
    """Write the model card of FOLDER, README.md, or bring its marked parts up to date."""
    check_folders(folder)
    check_files(*(evaluation or ()))
    load_libraries()
    from ..publishing.completeness import read_folder
    from ..publishing.model_card_file import make_card
    from ..utils.atomic_files import write_text

    print(write_text(folder / CARD, make_card(read_folder(folder), repo_id, license, base_model, evaluation or ())))


def _print_plan(plan: "PublishPlan") -> None:
    sizes = plan.sizes()
    for name, size in sizes.items():
        print(f"{_megabytes(size)}  {name}")
    kind = {"adapter": "an adapter", "model": "a whole model", "page": "a page"}[plan.kind]
    print(f"{_megabytes(sum(sizes.values()))}  {kind} in {len(sizes)} files for {plan.repo_id}")
    if plan.kind != "model":
        print(f"{'Base model' if plan.is_adapter else 'Model'}, which is not sent: {plan.base_model}")
    for name, reason in plan.left_out.items():
        print(f"Left out: {name} ({reason})")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:12,.3f} MB"
