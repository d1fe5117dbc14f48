"""Bodies against an origin that redirects: where credentials go, and the ETag that is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from axonfs.errors import AccessDeniedError, ChangedError, UnavailableError
from axonfs.http_client import Bodies, Location
from tests.integration.http_client.conftest import DATA, UNIT, read
from tests.support import faulty
from tests.support.faulty_origin import FaultyOrigin


def test_if_range_notices_a_change(bodies: Bodies, origin: FaultyOrigin) -> None:
    location = Location(origin.url + "object", etag='"old"')
    with pytest.raises(ChangedError, match="ETag"):
        read(bodies, origin, 0, UNIT, location=location)
    assert origin.requests[0].headers["if-range"] == '"old"'


def test_a_redirect_loop_ends(bodies: Bodies, origin: FaultyOrigin) -> None:
    origin.always(faulty.redirect("/object"))
    with pytest.raises(UnavailableError, match="redirects") as caught:
        read(bodies, origin)
    assert not caught.value.transient
    assert len(origin.requests) == 6


def test_credentials_do_not_cross_origins(
    bodies: Bodies, origin: FaultyOrigin, tmp_path: Path
) -> None:
    location = Location(origin.url + "object", {"Authorization": "Bearer secret"})
    with FaultyOrigin(tmp_path / "www") as other:
        origin.plan(faulty.redirect("/here"), faulty.redirect(other.url + "there"))
        other.plan(faulty.redirect(origin.url + "object"))
        assert read(bodies, origin, location=location).bytes == DATA
        sent = ["authorization" in seen.headers for seen in origin.requests]
        # After one redirect elsewhere even the origin gets none: the other host chose the target.
        assert sent == [True, True, False]
        assert ["authorization" in seen.headers for seen in other.requests] == [False]


def test_userinfo_is_sent_as_basic_credentials(bodies: Bodies, origin: FaultyOrigin) -> None:
    url = origin.url.replace("//", "//me:pw@") + "object"
    origin.plan(faulty.behave, faulty.status(403))
    read(bodies, origin, location=Location(url))
    assert origin.requests[0].headers["authorization"] == "Basic bWU6cHc="
    with pytest.raises(AccessDeniedError) as caught:
        read(bodies, origin, location=Location(url))
    assert "pw" not in str(caught.value)
