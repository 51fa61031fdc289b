"""Who owns TileDB contexts. Forks: ``test_fork.py``."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable

import pytest

from radioloader import ReadConfig, S3Config, StorageConfig, WriteConfig, configure
from radioloader.config import get_config
from radioloader.storage import context
from radioloader.storage.context import context_for, get_context


def test_equal_settings_share_one_context() -> None:
    assert get_context(StorageConfig()) is get_context(StorageConfig())
    assert get_context(StorageConfig(write=WriteConfig(max_workers=3))) is get_context(StorageConfig())
    other = StorageConfig(read=ReadConfig(concurrency=2))
    assert get_context(other) is not get_context(StorageConfig())
    assert get_context(other).config()["sm.compute_concurrency_level"] == "2"
    assert context._leases[os.getpid(), other.hash()].context is get_context(other)


def test_object_stores_have_their_own_settings() -> None:
    config = StorageConfig(s3=S3Config(endpoint="http://host:9000", access_key_id="key", max_parallel_ops=5))
    local, remote = context_for("/data", config), context_for("s3://bucket/store", config)
    assert local is not remote
    assert local is context_for("/data", StorageConfig()), "where data lie locally, access to S3 makes no difference"
    settings = remote.config()
    assert settings["vfs.s3.endpoint_override"] == "host:9000"
    assert settings["vfs.s3.scheme"] == "http"
    assert settings["vfs.s3.use_virtual_addressing"] == "false"
    assert settings["sm.io_concurrency_level"] == "5"


def test_none_takes_the_defaults_of_the_process() -> None:
    before = get_config()
    try:
        configure(read=ReadConfig(concurrency=3))
        assert get_context().config()["sm.io_concurrency_level"] == "3"
    finally:
        configure(read=before.read)
    assert get_config() == before


def test_threads_that_ask_at_once_get_the_same() -> None:
    config = StorageConfig(read=ReadConfig(concurrency=7))
    barrier, found = threading.Barrier(8), []

    def ask() -> None:
        barrier.wait()
        found.append(get_context(config))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len({id(one) for one in found}) == 1


def test_a_context_is_never_finalised_by_accident() -> None:
    """One reference is held by nobody, so that not even clearing the table would run the destructor."""
    config = StorageConfig(read=ReadConfig(concurrency=6))
    key = (os.getpid(), config.hash())
    mine = get_context(config)
    lease = context._leases.pop(key)
    held = sys.getrefcount(mine)
    del lease
    assert sys.getrefcount(mine) == held - 1
    # what is left: `mine`, the argument of getrefcount, and the reference on purpose
    assert sys.getrefcount(mine) == 3


def test_forking_prints_no_warning() -> None:
    fork = os.fork
    get_context(StorageConfig(read=ReadConfig(concurrency=5)))
    assert os.fork is fork


def test_our_own_calls_never_make_tiledbs_default_context(
    run_script: Callable[..., str], store_uri: str, cohort: object
) -> None:
    """It would be one for each thread, outside the fork rules."""
    run_script(
        """
import os, sys
import tiledb, tiledb.ctx

def refuse(config=None):
    try:
        return tiledb.ctx._ctx_var.get()  # one of ours, in place of it
    except LookupError:
        raise SystemExit("the default context was made")

fork = os.fork

for module in list(sys.modules.values()):
    if getattr(module, "default_ctx", None) is not None and module.__name__.startswith("tiledb"):
        module.default_ctx = refuse

import radioloader as rl

store = rl.open(sys.argv[1])
assert store.T1w.iloc[0].to_numpy().any()
assert len(store.obs_meta.read()) == 4 and len(store.history()) == 1 and len(store.T1w.obs.read()) == 4
report = rl.ingest(sys.argv[3], {"T1w": sys.argv[2] + "/images", "seg": sys.argv[2] + "/labels"},
                   obs_meta=sys.argv[2] + "/participants.tsv", workers=1)
assert report.ok
again = rl.ingest(sys.argv[3], {"T1w": sys.argv[2] + "/images"}, obs_meta=sys.argv[2] + "/participants.tsv", workers=1)
rl.open(sys.argv[3]).snapshot.store.table("obs_meta").consolidate(force=True)
assert os.fork is fork, "tiledb-py's fork, which warns, was left in place"
print("done")
""",
        store_uri,
        cohort,
        f"{store_uri}-default-ctx",
    )


@pytest.mark.parametrize("remote", [False, True])
def test_signal_handlers_stay_pythons(remote: bool) -> None:
    assert get_context(remote=remote).config()["sm.enable_signal_handlers"] == "false"
