"""Errors: what they also are, how they read, that they cross processes."""

from __future__ import annotations

import pickle

import pytest

from radioloader import errors
from radioloader.errors import RadioloaderError

ALSO: dict[str, type[Exception]] = {
    "CatalogError": ValueError,
    "ConfigError": ValueError,
    "EvaluationError": RuntimeError,
    "ExportError": OSError,
    "FormatError": ValueError,
    "GridMismatchError": ValueError,
    "IngestError": RuntimeError,
    "KeyNotFoundError": KeyError,
    "MissingDependencyError": ImportError,
    "NotAStoreError": ValueError,
    "RadioloaderError": Exception,
    "ReadError": OSError,
    "ShapeError": ValueError,
    "StoreLockedError": BlockingIOError,
    "StoreNotFoundError": FileNotFoundError,
    "StoreVersionError": ValueError,
    "StoreWriteError": OSError,
    "WorkerError": RuntimeError,
}


def test_every_error_is_listed() -> None:
    defined = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert defined == set(errors.__all__) == set(ALSO)


@pytest.mark.parametrize("name", sorted(ALSO))
def test_each_is_also_the_error_that_a_caller_would_expect(name: str) -> None:
    kind = getattr(errors, name)
    assert issubclass(kind, RadioloaderError)
    assert issubclass(kind, ALSO[name])
    message = "there is no collection 'T2w';\nit has 'T1w'"
    with pytest.raises(ALSO[name]) as caught:
        raise kind(message)
    assert str(caught.value) == message, "readable, also for KeyError, which would show the repr"


@pytest.mark.parametrize("name", sorted(ALSO))
def test_they_cross_processes(name: str) -> None:
    copy = pickle.loads(pickle.dumps(getattr(errors, name)("what happened")))
    assert type(copy) is getattr(errors, name)
    assert str(copy) == "what happened"
    assert str(type(copy)()) == ""


def test_a_dataloader_worker_can_rebuild_them() -> None:
    """torch makes the error anew from its type and one message, the traceback."""
    from torch._utils import ExceptionWrapper

    for name in sorted(ALSO):
        try:
            raise getattr(errors, name)("what happened")
        except RadioloaderError as error:
            wrapped = ExceptionWrapper((type(error), error, error.__traceback__), where="in worker 0")
        with pytest.raises(getattr(errors, name), match=r"(?s)in worker 0.*what happened") as caught:
            wrapped.reraise()
        assert "\\n" not in str(caught.value)


def test_the_report_of_an_ingest_error_is_optional() -> None:
    assert errors.IngestError("stopped").report is None
