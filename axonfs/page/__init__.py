"""The web page of a registry: one HTML document that any web server can serve beside the files.

Its parts are package data: page.html, page.css and the scripts. The page reads the registry's files
by relative URLs, so it works wherever a registry is copied to. All names and texts in a registry
are foreign to it: they reach the document as text nodes only, and the policy in the document allows
no script but its own, and requests to its own origin only. Any thread.
"""

from __future__ import annotations

import functools
import re
from importlib.resources import files
from string import Template

from axonfs._version import __version__
from axonfs.names import version_key
from axonfs.page.policy import policy

CONTENT_TYPE = "text/html; charset=utf-8"
MAX_PAGE_BYTES = 1 << 20
_ALLOWED = ("connect-src 'self'", "img-src data:")  # the registry's files, and the icon
# A later script uses the functions of the earlier ones.
_SCRIPTS = ("text.js", "manifest.js", "markdown.js", "index.js", "list.js", "version.js", "page.js")
_GENERATOR = re.compile(rb'<meta name="generator" content="axonfs ([^" ]{1,100}) registry page">')


@functools.cache
def page() -> bytes:
    """The document. It is the same for every registry."""
    parts = files(__name__)
    style = parts.joinpath("page.css").read_text("utf-8")
    bodies = [parts.joinpath(name).read_text("utf-8") for name in _SCRIPTS]
    script = '"use strict";\n(() => {\n' + "\n".join(bodies) + "})();\n"
    text = Template(parts.joinpath("page.html").read_text("utf-8")).substitute(
        version=__version__, policy=policy(style, script, *_ALLOWED), style=style, script=script
    )
    return text.encode()


def may_replace(body: bytes) -> bool:
    """Whether `page()` may replace the document `body`: an axonfs that is not newer wrote it."""
    found = _GENERATOR.search(body)
    return found is not None and version_key(found[1].decode("ascii", "replace")) <= version_key(
        __version__
    )
