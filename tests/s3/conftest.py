"""A real HTTP server that speaks S3 (moto), and the shared cohort in it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import radioloader as rl

KEY_ID, SECRET, TOKEN = "the-access-key", "the-secret-key", "the-session-token"


@dataclass
class Server:
    """The server.

    Attributes:
        port: Where it listens on 127.0.0.1.
        log: File with a line for each request.
        client: boto3's client.
        orders: Where it takes orders.
        secrets: What must be seen nowhere.
    """

    port: int
    log: Path
    client: Any
    orders: Any
    secrets: tuple[str, ...] = (SECRET, TOKEN, KEY_ID)
    _numbers: Any = field(default_factory=lambda: count(1))

    def config(self, **changes: Any) -> rl.StorageConfig:
        """Access to it, with small tiles; ``changes`` are arguments of S3Config."""
        s3 = {
            "endpoint": f"http://127.0.0.1:{self.port}",
            "region": "us-east-1",
            "access_key_id": KEY_ID,
            "secret_access_key": SECRET,
            "session_token": TOKEN,
        }
        return rl.StorageConfig(write=rl.WriteConfig(tile=rl.TileConfig(extent=8)), s3=rl.S3Config(**{**s3, **changes}))

    @contextmanager
    def slow(self, delay_s: float) -> Iterator[None]:
        """In the block it waits before it answers a request."""
        print(delay_s, file=self.orders, flush=True)
        try:
            yield
        finally:
            print(0, file=self.orders, flush=True)

    def uri(self) -> str:
        """A place that nobody has used."""
        return f"s3://cohorts/test-{next(self._numbers)}/store"

    def requests(self) -> list[str]:
        """All requests so far."""
        return self.log.read_text().splitlines()

    def keys(self, uri: str) -> list[str]:
        """Names of the objects under ``uri``, relative to it."""
        prefix = uri.removeprefix("s3://cohorts/") + "/"
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket="cohorts", Prefix=prefix)
        return [entry["Key"].removeprefix(prefix) for page in pages for entry in page.get("Contents", [])]


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server with an empty bucket ``cohorts``; reached through S3Config alone, nothing is in the environment."""
    boto3 = pytest.importorskip("boto3")
    pytest.importorskip("moto.server")
    log = tmp_path_factory.mktemp("s3") / "requests.log"
    process = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("server.py"), log],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        port = int(process.stdout.readline())
        client = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{port}",
            region_name="us-east-1",
            aws_access_key_id=KEY_ID,
            aws_secret_access_key=SECRET,
        )
        client.create_bucket(Bucket="cohorts")
        yield Server(port, log, client, process.stdin)
        client.close()
    finally:
        process.stdin.close()
        process.wait(30)
        process.stdout.close()


@pytest.fixture(scope="session")
def bucket(s3: Server) -> str:
    """URI of the bucket."""
    return "s3://cohorts"


@pytest.fixture(scope="session")
def config(s3: Server) -> rl.StorageConfig:
    """Access to it."""
    return s3.config()


@pytest.fixture(scope="session")
def remote(s3: Server, cohort: Path) -> str:
    """The shared cohort, ingested by two worker processes. Do not change it."""
    uri = s3.uri()
    report = rl.ingest(
        uri,
        {"T1w": cohort / "images", "seg": cohort / "labels"},
        obs_meta=cohort / "participants.tsv",
        workers=2,
        config=s3.config(),
    )
    assert report.ok, str(report)
    return uri
