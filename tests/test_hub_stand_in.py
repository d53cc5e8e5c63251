"""The stand-in of the Hub answers the real client as the Hub does."""

from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

WEIGHTS = bytes(range(256)) * 800  # 200 kB


def additions(files: dict[str, bytes]) -> list[CommitOperationAdd]:
    return [CommitOperationAdd(path, content) for path, content in files.items()]


def contents(folder: str | Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("part_size", [None, 60_000], ids=["in one piece", "in parts"])
def test_what_is_committed_comes_back_byte_for_byte(hub, part_size):
    hub.part_size, hub.page_size = part_size, 2
    api = HfApi(token=hub.token)
    files = {"config.json": b"{}", "sub/model.safetensors": WEIGHTS, "sub/notes.txt": b"one\r\ntwo", "empty": b""}
    api.create_repo("ada/mine")
    api.create_commit("ada/mine", additions(files), commit_message="Add all")
    assert {name: data for name, data in contents(snapshot_download("ada/mine")).items() if name in files} == files
    assert {path: data for path, data in hub.files("ada/mine").items() if path != ".gitattributes"} == files
    assert hub.commits("ada/mine") == ["Add all", "initial commit"]
    assert {file.path for file in api.list_repo_tree("ada/mine", recursive=True)} == {*files, ".gitattributes", "sub"}
    api.create_commit("ada/mine", [CommitOperationDelete("empty")], commit_message="Remove one")
    assert "empty" not in hub.files("ada/mine")


def test_a_download_that_breaks_off_goes_on_where_it_stopped(hub):
    hub.add_repo("lab/towers", {"weights.bin": WEIGHTS})
    hub.cut_downloads_after = 90_000
    assert Path(hf_hub_download("lab/towers", "weights.bin")).read_bytes() == WEIGHTS
    ranges = [headers.get("Range") for method, path, headers, _ in hub.requests if path.startswith("/store/")]
    assert ranges == [None, "bytes=90000-", "bytes=180000-"]


def test_an_upload_that_breaks_off_raises_and_what_has_come_is_kept(hub):
    api = HfApi(token=hub.token)
    api.create_repo("ada/mine")
    files = {"a.safetensors": WEIGHTS, "b.safetensors": WEIGHTS[::-1]}
    first = additions(files)[:1]
    api.preupload_lfs_files("ada/mine", first)
    hub.cut_uploads_after = 50_000
    with pytest.raises(Exception, match=r"Error while uploading"):
        api.create_commit("ada/mine", additions(files), commit_message="Add")
    hub.cut_uploads_after = None
    before = hub.received[first[0].upload_info.sha256.hex()]
    api.create_commit("ada/mine", additions(files), commit_message="Add")
    assert hub.received[first[0].upload_info.sha256.hex()] == before == len(WEIGHTS)


def test_errors_are_those_that_the_client_raises_for_the_hub(hub):
    hub.add_repo("ada/secret", {"config.json": b"{}"}, private=True)
    hub.add_repo("lab/llama", {"config.json": b"{}"}, gated=True)
    hub.add_repo("meta/open", {"config.json": b"{}"})
    with pytest.raises(RepositoryNotFoundError):
        snapshot_download("ada/secret")
    with pytest.raises(GatedRepoError):
        hf_hub_download("lab/llama", "config.json", token=hub.token)
    hub.grant("lab/llama")
    hf_hub_download("lab/llama", "config.json", token=hub.token)
    hf_hub_download("ada/secret", "config.json", token=hub.token)
    with pytest.raises(EntryNotFoundError):
        hf_hub_download("meta/open", "nothing.json")
    with pytest.raises(RevisionNotFoundError):
        snapshot_download("meta/open", revision="v9")
    for token, repo_id, status in (
        ("hf_wrong", "ada/new", 401),
        (hub.read_token, "ada/new", 403),
        (hub.token, "meta/new", 403),
        (hub.token, "ada/secret", 409),
    ):
        with pytest.raises(HfHubHTTPError) as raised:
            HfApi(token=token).create_repo(repo_id)
        assert raised.value.response.status_code == status
    with pytest.raises(ValueError, match="base_model"):
        card = additions({"README.md": b"---\nbase_model: /tmp/base\n---\n"})
        HfApi(token=hub.token).create_commit("ada/secret", card, commit_message="Card")


def test_a_request_can_be_refused_a_number_of_times(hub):
    hub.add_repo("lab/towers", {"config.json": b"{}"})
    hub.refuse("GET /api/models/lab/towers/tree", 503, "Service Unavailable", times=2)
    assert [file.path for file in HfApi().list_repo_tree("lab/towers")] == ["config.json"]
    hub.refuse("GET /api/models/lab/towers", 500, "Broken")
    with pytest.raises(HfHubHTTPError):
        HfApi().repo_info("lab/towers")


def test_branches_stand_apart(hub):
    api = HfApi(token=hub.token)
    api.create_repo("ada/mine")
    api.create_branch("ada/mine", branch="v1")
    api.create_commit("ada/mine", additions({"a.txt": b"a"}), commit_message="Add", revision="v1")
    assert "a.txt" in hub.files("ada/mine", "v1")
    assert "a.txt" not in hub.files("ada/mine")
