"""Registries that mean ill, in a real browser: names and texts stay text."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from axonfs.formats.layout import INDEX
from axonfs.formats.manifest import MANIFEST_NAME, FileEntry, Manifest, render_manifest
from axonfs.formats.safe_yaml import parse_yaml
from axonfs.names import parse_spec
from axonfs.publish import publish
from tests.support.browser import Browser, Page
from tests.support.registry import RegistryServer

SPEC = parse_spec("nlp/tiny@1.0.0")
EVIL = "<script>window.pwned = 1</script><img src=x onerror='window.pwned = 2'>\u202egpj.exe"
README = f"""\
{EVIL}

[one](javascript:window.pwned=3) [two](JaVaScRiPt&#58;alert(1)) [three](data:text/html,x)
[four]( javascript:alert(1)) [five](//example.org) [six](vbscript:x) <javascript:alert(1)>
[seven](https://example.org/"onmouseover="alert(1)) ![eight](https://example.org/x.png)
[nine](https://user:word@example.org/\u202ex) [ten](<https://example.org/ok>)

# {EVIL}
- {EVIL}
- [in [two](https://example.org/2) one](https://example.org/1)

| {EVIL} |
|---|
| <iframe src="https://example.org"></iframe> |

```
{EVIL}
```
<svg onload="window.pwned=4"><style>* {{ display: none }}</style><base href="//example.org">
<a href="javascript:window.pwned=5">eleven</a>
"""
FOREIGN = "main :is(script, img, iframe, style, svg, base, object, embed, form, input, link, meta)"
LINKS = "Array.from(document.querySelectorAll('.readme a'), (a) => [a.href, a.rel])"


def test_texts_stay_texts(tab: Page, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    names = [EVIL.replace("/", ""), "a\nb", "n" * 250, "'; rm -rf ~ #", "\u2067right"]
    for name in names:
        (model / name).write_bytes(b"x")
    (model / "README.md").write_text(README)
    registry = tmp_path / "registry"
    publish(model, SPEC, registry, description=EVIL, license=EVIL, framework=EVIL, tags=[EVIL])
    # Other programs write an index without any care.
    index = json.loads((registry / INDEX).read_bytes())
    (entry,) = index["models"]
    entry.update(description=EVIL, license=EVIL + "x" * 9000, tags=[EVIL, 3, None])
    odd = [{"name": "<b>"}, None, 3, {**entry, "name": "a/../b"}, {**entry, "version": "1@2"}]
    long = {**entry, "namespace": "n" * 255, "name": "m" * 255, "version": "1." + "0" * 250}
    constructor = {**entry, "name": "constructor/__proto__", "version": "__proto__"}
    index["models"] += [*odd, long, constructor]
    (registry / INDEX).write_text(json.dumps(index))
    with RegistryServer(registry) as server:
        tab.resize(320, 700)
        for fragment in ("#/", "#?tiny", "#/nlp/tiny", "#/" + EVIL, "#/%E0%A4", f"#?{EVIL}"):
            tab.open(f"{server.url}/{fragment}")
            assert not tab.run("'pwned' in window"), fragment
            assert tab.run(f"document.querySelectorAll({json.dumps(FOREIGN)}).length") == 0
            assert "\u202e" not in tab.run("document.body.textContent"), fragment
            assert tab.run("document.scrollingElement.scrollWidth <= innerWidth"), fragment
        tab.open(f"{server.url}/")
        assert tab.texts(".head .quiet") == ["3 models, 3 versions"]
        tab.open(f"{server.url}/#/nlp/tiny")
        assert "<script>window.pwned = 1</script>" in tab.text(".readme p")
        shown = tab.texts(".files .name")
        assert {"a\ufffdb", "n" * 250, "'; rm -rf ~ #", "\ufffdright"} < set(shown)
        links = tab.run(LINKS)
        assert all(rel == "noreferrer nofollow" for _, rel in links)
        places = ("", "1", "2", "ok", "%22onmouseover=%22alert(1)")
        assert {href for href, _ in links} == {f"https://example.org/{place}" for place in places}
        assert all(url.startswith((server.url, "data:", "about:")) for url in tab.urls)
        tab.go("#/nlp/constructor/__proto__@__proto__")
        assert tab.text("h1").startswith("constructor/__proto__ __proto__")
    tab.faults.clear()  # the browser complains of manifests that do not exist


def test_a_long_hostile_readme_is_no_work(tab: Page) -> None:
    """Texts that make careless patterns slow. `run` fails if the browser is busy for a minute."""
    tab.run(scripts("text.js", "markdown.js"))
    for piece in (
        "[",
        "![",
        "*a ",
        "**",
        "`",
        "``a`",
        "<",
        "<a ",
        "> ",
        "- ",
        "_",
        "\\",
        "|",
        "# ",
    ):
        for separator in ("", "\n"):
            text = json.dumps((piece + separator) * (200_000 // len(piece + separator)))
            tab.run(f"renderMarkdown({text}).childElementCount")


def scripts(*names: str) -> str:
    """Parts of the page, so that their functions can be called alone."""
    return "\n".join(files("axonfs.page").joinpath(name).read_text("utf-8") for name in names)


@pytest.fixture(scope="module")
def reader(browser: Browser) -> Page:
    """A tab with the page's functions that read texts."""
    page = browser.page()
    page.run(scripts("text.js", "manifest.js"))
    return page


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


def _fits(path: str) -> bool:
    """Whether a manifest may list the path."""
    parts = path.split("/")
    return not {"", ".", ".."} & set(parts) and parts[0] != MANIFEST_NAME and len(path) < 60


PATHS = st.lists(
    TEXTS.filter(lambda text: _fits(text)),
    min_size=1,
    max_size=8,
    unique_by=lambda path: path.partition("/")[0],
)


def read_by(reader: Page, raw: bytes) -> object:
    return reader.run(f"parseManifest({json.dumps(raw.decode())})")


def as_text(node: object) -> object:
    """The tree with whole numbers and null as texts, as the page has them."""
    if isinstance(node, dict):
        return {key: as_text(value) for key, value in node.items()}
    if isinstance(node, list):
        return [as_text(value) for value in node]
    return "" if node is None else str(node)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(paths=PATHS, text=TEXTS)
def test_the_page_reads_a_manifest_as_mounts_do(reader: Page, paths: list[str], text: str) -> None:
    entries = tuple(
        FileEntry(path, number, f"{number:064x}") for number, path in enumerate(sorted(paths))
    )
    made = Manifest(SPEC, entries, description=text, license=text, tags=(text,))
    raw = render_manifest(made)
    assert read_by(reader, raw) == as_text(parse_yaml(raw, limit=1 << 20))


def test_manifests_of_other_programs(reader: Page) -> None:
    tree = {
        "apiVersion": "axon.mlos.io/v1",
        "spec": {"format": {"type": "onnx", "files": [{"path": "a: b # c", "size": 3}], "x": []}},
    }
    styles = (
        json.dumps(tree, indent=1),
        yaml.safe_dump(tree, indent=4, sort_keys=False),
        "# made by hand\n---\n" + yaml.safe_dump(tree).replace("\n", "\r\n"),
        "apiVersion: axon.mlos.io/v1 # yes\nspec:\n\n    format:\n        type: 'onnx'\n"
        '        files:\n            - path: "a: b # c"\n\n              size: 3\n        x: []\n',
    )
    for raw in styles:
        found = read_by(reader, raw.encode())
        assert as_text(found) == as_text(tree), raw
