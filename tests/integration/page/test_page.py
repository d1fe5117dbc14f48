"""The web page of a registry in a real browser: what it shows, by keyboard and on a phone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from axonfs.formats.layout import INDEX, manifest_key, object_key
from axonfs.formats.listing import Listing, render_index
from axonfs.formats.manifest import parse_manifest
from axonfs.names import parse_spec
from axonfs.publish import publish
from axonfs.publish.registry import Registry
from axonfs.serve import Access, Tokens
from axonfs.storage import Directory
from tests.integration.serve.test_access import running_with, token
from tests.support.browser import Page
from tests.support.nginx import nginx
from tests.support.registry import RegistryServer, make_model

SPEC = parse_spec("nlp/acme/tiny@1.10.0")
README = """\
---
license: apache-2.0
tags: [chat]
---
# Tiny *Llama*

A **small** model; see [the paper](https://arxiv.org/abs/2307.09288) and `a  <b>`.
Second line<br>third line.

<p align="center">
  <img src="https://example.org/logo.png">
</p>

1. one
2. two
   - nested

> quoted

```sh
echo *hi* <b>
```

| a | b |
|---|--:|
| 1 | **2** |

Title
-----
snake_case_name 2 * 3 * 4 \\*plain\\* https://example.org/x_y_z.
"""
READ = """\
<h2>Tiny <em>Llama</em></h2>\
<p>A <strong>small</strong> model; see <a>the paper</a> and <code>a  &lt;b&gt;</code>. \
Second line<br>third line.</p>\
<ol><li>one</li><li>two<ul><li>nested</li></ul></li></ol>\
<blockquote><p>quoted</p></blockquote>\
<pre><code>echo *hi* &lt;b&gt;</code></pre>\
<div><table><thead><tr><th>a</th><th>b</th></tr></thead>\
<tbody><tr><td>1</td><td><strong>2</strong></td></tr></tbody></table></div>\
<h3>Title</h3>\
<p>snake_case_name 2 * 3 * 4 *plain* <a>https://example.org/x_y_z</a>.</p>"""
SHOWN = """Array.from(document.querySelectorAll(".readme > :not(.label)"), (one) => {
  const copy = one.cloneNode(true);
  for (const each of [copy, ...copy.querySelectorAll("*")])
    for (const name of each.getAttributeNames()) each.removeAttribute(name);
  return copy.outerHTML.replaceAll("&nbsp;", " ");
}).join("")"""
NARROW = "document.scrollingElement.scrollWidth <= innerWidth"


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """Three versions of one model, the last with a README, and a model of another namespace."""
    registry = tmp_path / "registry"
    model = make_model(tmp_path / "model", {"model.safetensors": 3 << 20, "a/b.json": 17})
    for version in ("1.9.0", "2.0.0-rc1"):
        publish(model, parse_spec(f"nlp/acme/tiny@{version}"), registry)
    (model / "README.md").write_text(README)
    publish(model, SPEC, registry)
    onnx = make_model(tmp_path / "onnx", {"model.onnx": 10})
    publish(onnx, parse_spec("vision/net@1"), registry, description="finds cats", license="MIT")
    return registry


def test_a_copied_registry_below_any_path_of_any_server(
    tab: Page, registry: Path, tmp_path: Path
) -> None:
    """publish wrote the page; nginx knows nothing of registries."""
    shutil.copytree(registry, tmp_path / "www/our models")
    with nginx(tmp_path / "www", tmp_path / "nginx") as url:
        tab.open(f"{url}/our%20models/")
        assert tab.texts("h2") == ["nlp", "vision"]
        assert tab.texts(".row .name") == ["acme/tiny", "net"]
        facts = ["1.10.0", "3.0 MiB", "transformers", "apache-2.0", "3 versions"]
        assert tab.texts("section:first-child .facts bdi") == facts
        tab.go("#/nlp/acme/tiny")
        assert tab.texts(".line code") == [
            f"axonfs mount models --registry {url}/our%20models",
            "vllm serve models/nlp/acme/tiny/1.10.0",
            f"axonfs pin nlp/acme/tiny@1.10.0 --registry {url}/our%20models",
        ]
        assert tab.run(SHOWN) == READ
        assert all(asked.startswith((url, "data:", "about:")) for asked in tab.urls)


def test_a_version_has_its_facts_files_and_other_versions(tab: Page, registry: Path) -> None:
    with RegistryServer(registry) as server:
        tab.open(f"{server.url}/#/nlp/acme/tiny")
        assert tab.text("h1") == "acme/tiny 1.10.0 latest"
        facts = dict(zip(tab.texts("dt"), tab.texts("dd"), strict=True))
        assert facts.pop("Published").startswith("20")
        assert facts == {
            "Size": "3.0 MiB",
            "License": "apache-2.0",
            "Framework": "transformers",
            "Format": "safetensors",
        }
        assert tab.texts(".tags li") == ["chat", "llama", "LlamaForCausalLM"]
        files = parse_manifest((registry / manifest_key(SPEC)).read_bytes()).files
        assert tab.texts(".files .name") == [entry.path for entry in files]
        assert tab.texts(".files .size")[-1] == "3.0 MiB"
        paths = tab.run("Array.from(document.querySelectorAll('.files a'), (a) => a.pathname)")
        assert paths == [f"/{object_key(entry.digest)}" for entry in files]
        assert tab.texts(".versions .name") == ["2.0.0-rc1", "1.10.0", "1.9.0"]
        tab.go("#/nlp/acme/tiny@1.9.0")
        assert tab.text("h1") == "acme/tiny 1.9.0"
        assert tab.run("document.querySelector('.readme').hidden")
        assert tab.text("title") == "nlp/acme/tiny 1.9.0 · Model registry"
        for fragment in ("#/vision", "#/vision/"):
            tab.go(fragment)
            assert tab.texts(".row .name") == ["net"]
        tab.go("#/nlp/acme/tiny@latest")
        assert tab.text("h1") == "acme/tiny 1.10.0 latest"
        tab.go("#/nlp/none@1")
        assert "The registry's index has no nlp/none@1" in tab.text()


def test_a_yanked_version_has_its_page_and_no_list_names_it(tab: Page, registry: Path) -> None:
    for spec in (SPEC, parse_spec("vision/net@1")):
        Registry(Directory(registry)).yank(spec)
    with RegistryServer(registry) as server:
        tab.open(server.url)
        assert tab.texts(".row .name") == ["acme/tiny"]
        tab.go("#/nlp/acme/tiny")
        assert tab.text("h1") == "acme/tiny 1.9.0 latest"
        assert tab.texts(".versions .name") == ["2.0.0-rc1", "1.9.0"]
        for fragment, title in (
            ("#/nlp/acme/tiny@1.10.0", "acme/tiny 1.10.0 yanked"),
            ("#/vision/net@1", "net 1 yanked"),
        ):
            tab.go(fragment)
            assert tab.text("h1") == title
            assert "Its publisher has withdrawn this version." in tab.text(".notice")
            assert "config.json" in tab.texts(".files .name")


def test_search_by_keyboard_and_back(tab: Page, registry: Path) -> None:
    with RegistryServer(registry) as server:
        tab.open(f"{server.url}/index.html")
        tab.press("/", "/")
        tab.type("net CATS")
        tab.wait("document.querySelectorAll('.row').length === 1")
        assert tab.texts(".row .name") == ["vision/net"]
        assert tab.text("#status") == "1 model, 1 version"
        tab.press("Enter", "\r")
        tab.press("Enter", "\r")
        tab.wait("location.hash === '#/vision/net' && document.activeElement.tagName === 'H1'")
        tab.run("history.back()")
        tab.wait("document.querySelectorAll('.row').length === 1")
        assert tab.run("document.querySelector('#search').value") == "net CATS"
        tab.press("/", "/")
        tab.type("zzz")
        assert "No model has all these words" in tab.text()
        tab.press("Escape")
        assert len(tab.texts(".row")) == 2


def test_a_command_is_copied_or_selected(tab: Page, registry: Path) -> None:
    with RegistryServer(registry) as server:
        tab.open(f"{server.url}/#/vision/net")
        tab.run("document.querySelector('.line button').click()")
        tab.wait("document.querySelector('.line button').textContent !== 'Copy'")
        said, selected = tab.text(".line button"), tab.run("getSelection().toString()")
        command = f"axonfs mount models --registry {server.url}"
        assert (said, selected) in (("Copied", ""), ("Selected", command))


def test_a_phone_needs_no_scrolling_to_the_side(tab: Page, registry: Path) -> None:
    tab.resize(320, 600, dark=True)
    with RegistryServer(registry) as server:
        for fragment in ("", "#/nlp/acme/tiny", "#?tiny", "#/nlp/none"):
            tab.open(f"{server.url}/{fragment}")
            assert tab.run(NARROW), fragment
        ground = tab.run("getComputedStyle(document.documentElement).backgroundColor")
    assert ground == "rgb(22, 24, 28)"


def test_ten_thousand_versions(tab: Page, tmp_path: Path) -> None:
    """Few rows are built at once, and a search sees all of them."""
    many = [parse_spec(f"nlp/many@1.0.{number}") for number in range(5000)]
    models = [parse_spec(f"team{n % 40:02}/model-{n:04}@1.0.0") for n in range(5000)]
    index = tmp_path / INDEX
    index.parent.mkdir(parents=True)
    index.write_bytes(render_index(Listing(spec, "a text " * 10) for spec in [*many, *models]))
    with RegistryServer(tmp_path) as server:
        tab.open(server.url)
        assert tab.text(".head .quiet") == "5,001 models, 10,000 versions"
        assert len(tab.texts(".row")) == 100
        tab.run("document.querySelector('.more').click()")
        assert len(tab.texts(".row")) == 200
        assert tab.run("document.activeElement.closest('li').matches('.rows > li')")
        tab.open(f"{server.url}/#?model-4999")
        assert tab.texts(".row .name") == ["team39/model-4999"]
        tab.go("#/nlp/many")
        assert (tab.text("h1"), len(tab.texts(".versions li"))) == ("many 1.0.4999 latest", 12)
        assert "has no manifest of this version" in tab.text("main")
    tab.faults.clear()  # the browser complains of the manifest's 404


def test_a_registry_that_does_not_answer_as_one(tab: Page, tmp_path: Path) -> None:
    with RegistryServer(tmp_path) as server:
        tab.open(server.url)
        assert "This registry has no models yet." in tab.text()
        index = tmp_path / INDEX
        index.parent.mkdir(parents=True)
        for text in ("<html>", "[]", '{"models": 3}', json.dumps(None)):
            index.write_text(text)
            tab.open(server.url)
            assert "api/v1/index.json is not an index of models" in tab.text()
    tab.faults.clear()  # the browser complains of the 404


def test_damaged_files_are_named(tab: Page, registry: Path) -> None:
    manifest = registry / manifest_key(SPEC)
    entry = parse_manifest(manifest.read_bytes()).file("README.md")
    assert entry
    (registry / object_key(entry.digest)).write_bytes(b"x" * entry.size)
    with RegistryServer(registry) as server:
        tab.open(f"{server.url}/#/nlp/acme/tiny")
        assert "README.md does not match its digest" in tab.text(".readme .notice")
        for text in (
            "a: &x 1",
            "spec: {",
            "apiVersion: v1",
            "spec:\n  format:\n    files:\n    - 1",
        ):
            manifest.write_text(text)
            tab.open(f"{server.url}/#/nlp/acme/tiny")
            assert "The files cannot be shown: the manifest" in tab.text(".notice")


def test_a_private_registry_asks_for_the_token(tab: Page, registry: Path, tmp_path: Path) -> None:
    """As the password; the namespaces that the token may not read are not there."""
    tokens = tmp_path / "server-tokens.yaml"
    secret = token(tokens, "reader", read="nlp")
    with running_with(registry, Access(Tokens(tokens), private=True)) as server:
        tab.open(server.url.replace("//", f"//me:{secret}@"))
        assert "1 model, 3 versions" in tab.text()
        assert "acme/tiny" in tab.text()
