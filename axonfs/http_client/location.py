"""Where an object's bytes are: the parameters of its requests.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Location:
    """Where an object's bytes are.

    Args:
        headers: credentials, sent to this URL's origin only.
        etag: the ETag that every answer must have, if any.
        signed: `url` redirects to a signed URL on another host, as on hubs. The signed URL is used
            until its host refuses it; then `url` is requested again. ETags are ignored.
        access: the hint for the user where access is denied.
        spread: whether any address of the host will do. False where nothing but the ETag ties the
            answers together: each server of the host may have another one.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    etag: str | None = None
    signed: bool = False
    access: str | None = None
    spread: bool = True
