"""The control socket's events: an error keeps its class, its parts and its exit code."""

from __future__ import annotations

import pytest

from axonfs.call import error_event, error_of
from axonfs.errors import AxonError, BusyError, NotFoundError, UsageError


@pytest.mark.parametrize("kind", [AxonError, NotFoundError, BusyError, UsageError])
def test_an_error_survives_the_socket(kind: type[AxonError]) -> None:
    sent = kind("it failed", spec="nlp/a@1", path="w.bin", source="http://a", hint="try again")
    received = error_of(error_event(sent))
    assert type(received) is kind
    assert str(received) == str(sent)
    assert received.facts() == sent.facts()
    assert received.exit_code == sent.exit_code


@pytest.mark.parametrize("kind", [None, "NoSuchError", "errno", "Self", "naming"])
def test_an_error_of_an_unknown_class_is_an_axon_error(kind: str | None) -> None:
    received = error_of({"event": "error", "kind": kind, "message": "it failed"})
    assert type(received) is AxonError
    assert (str(received), received.exit_code) == ("it failed", 1)
