"""`axonfs.Client` where nothing is mounted: what its methods return and raise."""

from __future__ import annotations

import errno
import os
import pickle
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

import axonfs
from axonfs import errors
from axonfs.call import Event
from axonfs.client import sessions, transport
from axonfs.rundir import prepare, take_lock
from tests.integration.client.conftest import MakeClient
from tests.support.locks import is_free, owned, wait_until_free
from tests.support.registry import CONFIG, SIZES, SPEC, RegistryServer, published

TOTAL = sum(SIZES.values()) + len(CONFIG)
IN_USE = f"in use by process {os.getpid()}"


@pytest.fixture
def pinned(client: axonfs.Client, tmp_path: Path) -> Path:
    """The cache, with `nlp/tiny@1.0.0` pinned; no process owns it."""
    client.pin(SPEC)
    sessions.close_all()
    return tmp_path / "cache"


def test_search_returns_listings(client: axonfs.Client) -> None:
    (found,) = client.search("tiny")
    assert found.spec == SPEC
    assert (found.namespace, found.name, found.version) == ("nlp", "tiny", "1.0.0")
    assert found.size == TOTAL
    assert found.published is not None
    assert abs(found.published - datetime.now(UTC)) < timedelta(minutes=10)
    assert client.search("nothing-like-it") == []
    assert [item.spec for item in client.search("")] == [SPEC]


def test_info_has_the_files_and_what_is_local(client: axonfs.Client) -> None:
    found = client.info("nlp/tiny")
    assert (found.spec, found.size, found.local, found.path) == (SPEC, TOTAL, 0, None)
    assert [file.path for file in found.files] == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert {file.verified_by for file in found.files} == {"sha256"}
    assert all(file.digest and len(file.digest) == 64 for file in found.files)
    assert client.info("nlp/tiny@^1").spec == SPEC


def test_versions_are_in_order(
    client: axonfs.Client, tmp_path: Path, registry: RegistryServer
) -> None:
    published(tmp_path, spec="nlp/tiny@1.10.0", seed=1)
    published(tmp_path, spec="nlp/tiny@1.9.0", seed=2)
    found = client.versions("nlp/tiny")
    assert found.model == "nlp/tiny"
    assert found.latest == "1.10.0"
    assert [item.version for item in found.versions] == ["1.0.0", "1.9.0", "1.10.0"]


def test_pin_reports_progress_in_the_caller_s_thread(client: axonfs.Client) -> None:
    seen: list[axonfs.Progress] = []
    threads = set()

    def progress(event: axonfs.Progress) -> None:
        seen.append(event)
        threads.add(threading.current_thread())

    result = client.pin(SPEC, progress=progress)
    assert (result.spec, result.files, result.size, result.fetched) == (SPEC, 3, TOTAL, TOTAL)
    assert result.chunks == 6
    assert result.unverified == 0
    assert result.path is None
    assert threads == {threading.current_thread()}
    fetching = [event for event in seen if event.fetched is not None]
    assert (fetching[-1].spec, fetching[-1].done, fetching[-1].total) == (SPEC, TOTAL, TOTAL)
    assert client.info(SPEC).pinned == "complete"
    assert client.status().pins == 1


def test_pin_takes_globs(client: axonfs.Client) -> None:
    assert client.pin(SPEC, include="*.json", exclude="tok*").files == 1


def test_what_progress_raises_stops_the_pin(client: axonfs.Client) -> None:
    def progress(event: axonfs.Progress) -> None:
        raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        client.pin(SPEC, progress=progress)
    assert client.info(SPEC).pinned != "complete"
    assert client.pin(SPEC).size == TOTAL


def test_status_of_a_cache_without_a_mount(client: axonfs.Client, tmp_path: Path) -> None:
    status = client.status()
    assert (status.mountpoint, status.pid, status.cache) == (None, None, tmp_path / "cache")
    assert status.cache_used == 0
    assert status.cache_limit > 0
    assert status.details["version"] == axonfs.__version__
    assert "details" not in repr(status)


def test_errors_have_their_class_and_their_parts(client: axonfs.Client) -> None:
    with pytest.raises(errors.NotFoundError, match="no such version") as caught:
        client.info("nlp/tiny@9")
    assert caught.value.spec == "nlp/tiny@9"
    assert caught.value.hint == "see axonfs versions nlp/tiny"
    with pytest.raises(errors.NotFoundError):
        client.versions("nlp/other")
    with pytest.raises(errors.UsageError, match="is not a model"):
        client.info("not a spec")
    with pytest.raises(errors.AxonError, match="nothing is mounted"):
        client.path(SPEC, mounted=True)
    with pytest.raises(errors.NotFoundError, match="is not pinned"):
        client.path(SPEC)


def test_a_registry_that_is_down_is_an_error(make_client: MakeClient) -> None:
    client = make_client(registries="http://127.0.0.1:9")
    with pytest.raises(errors.UnavailableError, match="Connection refused") as caught:
        client.info(SPEC)
    assert str(caught.value.source).startswith("http://127.0.0.1:9/")


def test_settings_are_those_of_commands(make_client: MakeClient, tmp_path: Path) -> None:
    with pytest.raises(errors.UsageError, match="cache_size"):
        make_client(cache_size="much")
    with pytest.raises(errors.UsageError, match="registries"):
        make_client(registries=["not a url"])
    client = make_client(offline=True, cache_size="1G", tokens={"http://127.0.0.1": "s3cret"})
    assert client.status().offline
    assert client.status().cache_limit == 1 << 30
    assert "s3cret" not in repr(client)
    with pytest.raises(errors.OfflineError):
        client.info(SPEC)


def test_an_invalid_argument_is_not_called_a_flag(make_client: MakeClient) -> None:
    with pytest.raises(errors.UsageError, match=r"from an argument of axonfs\.Client"):
        make_client(deadline=-1)


def test_arguments_of_another_type_are_refused(client: axonfs.Client) -> None:
    unknown: Any = None
    for call in (client.info, client.versions, client.search, client.pin, client.path):
        with pytest.raises(TypeError, match="must be a str, not NoneType"):
            call(unknown)
    with pytest.raises(TypeError, match="path must be a str, not bytes"):
        client.open(SPEC, cast(Any, b"config.json"))


def test_one_source_is_named_without_a_list(client: axonfs.Client) -> None:
    assert client.search("tiny", sources="registry") == client.search("tiny")


def test_a_cache_that_is_a_file_is_an_error(make_client: MakeClient, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    client = make_client(cache=tmp_path / "file")
    assert client.info(SPEC).spec == SPEC  # no cache is needed to look
    with pytest.raises(errors.UnsupportedError, match="the cache directory cannot be used"):
        client.status()


def test_a_mount_that_ends_while_it_is_asked_is_an_error(
    client: axonfs.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Reset(Iterator[Event]):
        def __next__(self) -> Event:
            raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")

    monkeypatch.setattr(transport, "call", lambda cache, request: Reset())
    with pytest.raises(errors.AxonError, match="the mount went away"):
        client.status()


def test_a_closed_client_takes_no_calls(make_client: MakeClient) -> None:
    with make_client() as client:
        states = [client.closed]
    assert [*states, client.closed] == [False, True]
    for call in (client.status, client.__enter__, lambda: client.open(SPEC, "config.json")):
        with pytest.raises(ValueError, match="the client is closed"):
            call()
    client.close()


def test_a_client_can_be_pickled(client: axonfs.Client) -> None:
    twin = pickle.loads(pickle.dumps(client))
    assert repr(twin) == repr(client)
    with twin:
        assert twin.info(SPEC).spec == SPEC


def test_results_and_errors_go_between_processes(client: axonfs.Client) -> None:
    for result in (client.info(SPEC), client.status(), client.pin(SPEC)):
        twin = pickle.loads(pickle.dumps(result))
        assert (twin, hash(twin)) == (result, hash(result))
    fault = errors.ReadError.of(errors.DeadlineError("no progress", spec=SPEC, hint="wait"))
    copied = pickle.loads(pickle.dumps(fault))
    assert str(copied) == str(fault)
    assert (copied.errno, copied.strerror) == (errno.ETIMEDOUT, "no progress")


def test_threads_share_a_client(client: axonfs.Client, weights: bytes) -> None:
    failures: list[BaseException] = []

    def use() -> None:
        try:
            assert client.info(SPEC).size == TOTAL
            with client.open(SPEC, "model.safetensors") as file:
                assert file.read() == weights
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_an_idle_client_keeps_no_cache_from_others(client: axonfs.Client, tmp_path: Path) -> None:
    client.info(SPEC)
    assert not is_free(tmp_path / "cache")
    wait_until_free(tmp_path / "cache")
    assert client.info(SPEC).spec == SPEC  # and takes it again


def test_a_cache_that_another_process_owns_is_read(client: axonfs.Client, pinned: Path) -> None:
    with owned(pinned):
        assert client.info(SPEC).pinned == "complete"
        with pytest.raises(errors.BusyError, match=IN_USE) as caught:
            client.pin(SPEC)
        assert caught.value.hint == "wait until that process is done, or use another cache"
    assert client.pin(SPEC).fetched == 0


def test_a_directory_is_made_once_the_cache_is_free(
    client: axonfs.Client, pinned: Path, weights: bytes
) -> None:
    threading.Timer(0.5, os.close, [take_lock(pinned)]).start()
    assert client.info(SPEC).pinned == "complete"  # read beside the owner, which then ends
    assert (client.path(SPEC) / "model.safetensors").read_bytes() == weights


def test_a_directory_that_another_process_made_is_found_beside_it(
    client: axonfs.Client, pinned: Path, weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the processes of one load do not wait for each other."""
    monkeypatch.setattr(transport, "PATIENCE", 0.0)
    made = client.path(SPEC)
    sessions.close_all()
    with owned(pinned):
        assert client.path(SPEC) == made
        (made / "model.safetensors").unlink()
        with pytest.raises(errors.BusyError, match=f"is not up to date, and the cache is {IN_USE}"):
            client.path(SPEC)
    assert (client.path(SPEC) / "model.safetensors").read_bytes() == weights


def test_a_cache_that_another_process_is_setting_up(
    client: axonfs.Client, weights: bytes, tmp_path: Path
) -> None:
    prepare(tmp_path / "cache")
    with owned(tmp_path / "cache"):
        assert client.info(SPEC).size == TOTAL
        with client.open(SPEC, "model.safetensors") as file:
            assert file.read() == weights
            with pytest.raises(errors.BusyError, match=IN_USE):
                client.pin(SPEC)
        with pytest.raises(errors.BusyError, match=IN_USE):
            client.pin(SPEC)
    assert client.pin(SPEC).fetched == TOTAL


def test_without_a_cache_that_can_be_used_models_are_looked_up(make_client: MakeClient) -> None:
    client = make_client(cache="/proc/none")
    assert client.info(SPEC).size == TOTAL
    assert [item.spec for item in client.search("tiny")] == [SPEC]
    with pytest.raises(errors.UnsupportedError, match="the cache directory cannot be used"):
        client.open(SPEC, "config.json")
    with pytest.raises(errors.UnsupportedError):
        client.pin(SPEC)


def test_two_clients_with_other_settings_wait_for_each_other(make_client: MakeClient) -> None:
    one, other = make_client(), make_client(offline=True)
    with (
        one.open(SPEC, "config.json"),
        pytest.raises(errors.BusyError, match="with other settings"),
    ):
        other.info(SPEC)
    assert other.info(SPEC).spec == SPEC
