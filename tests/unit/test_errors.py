"""What is added to an error on its way up, and what is found in the groups that nurseries raise."""

from __future__ import annotations

import pytest

from axonfs.errors import AccessDeniedError, AxonError, NotFoundError, find, naming


def test_naming_adds_what_an_error_does_not_say() -> None:
    with pytest.raises(AxonError) as caught, naming(spec="nlp/a@1", path="x", source="http://r"):
        raise NotFoundError("gone", path="y")
    assert str(caught.value) == "nlp/a@1 y: gone (from http://r)"
    assert isinstance(caught.value, NotFoundError)
    assert isinstance(caught.value.__cause__, NotFoundError)


def test_each_reader_of_a_shared_error_names_its_own_file() -> None:
    shared = AxonError("gone")
    for path in ("x", "y"):
        with pytest.raises(AxonError) as caught, naming(spec="nlp/a@1", path=path):
            raise shared
        assert caught.value.path == path
    assert shared.path is None


def test_a_path_without_a_spec_gives_way_to_a_model() -> None:
    with pytest.raises(AxonError) as caught, naming(path="nlp"):
        raise AxonError("gone", spec="nlp/a@1")
    assert str(caught.value) == "nlp/a@1: gone"


@pytest.mark.parametrize(
    ("error", "hint"),
    [(AccessDeniedError("no", hint="old"), "log in"), (AxonError("no", hint="old"), "old")],
)
def test_the_hint_for_denied_access(error: AxonError, hint: str) -> None:
    with pytest.raises(AxonError) as caught, naming(denied="log in"):
        raise error
    assert caught.value.hint == hint


def test_other_exceptions_pass() -> None:
    with pytest.raises(OSError, match="gone"), naming(spec="nlp/a@1"):
        raise OSError("gone")


def test_find_looks_into_groups() -> None:
    inner = AxonError("deep")
    group = BaseExceptionGroup("g", [ValueError(), ExceptionGroup("h", [OSError(), inner])])
    assert find(group, AxonError) is inner
    assert isinstance(find(group, Exception), ValueError)  # never a group
    assert find(group, KeyboardInterrupt) is None
    assert find(inner, AxonError) is inner
