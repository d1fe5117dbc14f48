// One version of a model: what it is, how to use it, its files, its README, the other versions.

const MAX_README_BYTES = 2 ** 20;
const YANKED = "Its publisher has withdrawn this version. Choose another one, unless you know why.";
const FILES_AT_FIRST = 12;
const FILES_AT_ONCE = 500;
const VERSIONS_AT_FIRST = 12;
const VERSIONS_AT_ONCE = 200;

function versionView(model, entry, signal) {
  const files = element(
    "section",
    { "aria-labelledby": "files" },
    element("h2", { id: "files" }, "Files"),
    element("p", { class: "quiet" }, "Reading the manifest…"),
  );
  const readme = element("section", { class: "readme", hidden: "" });
  const facts = element("dl", { class: "about" }, ...factsOf(entry));
  const head = element(
    "div",
    { class: "head" },
    ...versionHead(model, entry),
    facts,
    tagList(entry),
  );
  const columns = element(
    "div",
    { class: "columns" },
    commands(entry),
    files,
    versionList(model, entry),
    readme,
  );
  const loaded = load(entry, { files, readme, facts }, signal);
  const name = model.name + " " + entry.version;
  return { title: name, said: name, content: [head, columns], loaded };
}

function versionHead(model, entry) {
  const up = element("a", { href: "#/" + model.namespace }, model.namespace);
  const path = element(
    "nav",
    { "aria-label": "Path", class: "path" },
    element("a", { href: "#/" }, "All models"),
    " / ",
    up,
  );
  const mark = entry.yanked ? "yanked" : entry === model.latest ? "latest" : "";
  const title = element(
    "h1",
    { tabindex: "-1" },
    entry.name,
    " ",
    element("span", { class: "version" }, entry.version),
    " ",
    mark ? element("span", { class: "badge" }, mark) : null,
  );
  return [
    path,
    title,
    entry.yanked ? element("p", { class: "notice" }, YANKED) : null,
    entry.description ? element("p", { class: "lead", dir: "auto" }, entry.description) : null,
  ];
}

function factsOf(entry) {
  const facts = [
    ["Size", entry.size ? size(entry.size) : ""],
    ["License", entry.license],
    ["Framework", entry.framework],
    ["Published", day(entry.published)],
  ];
  return facts.filter(([, value]) => value).map(([name, value]) => fact(name, value));
}

function fact(name, value) {
  return element("div", {}, element("dt", {}, name), element("dd", { dir: "auto" }, value));
}

function tagList(entry) {
  const tags = entry.tags.map((tag) => element("li", { dir: "auto" }, tag));
  return tags.length ? element("ul", { class: "tags", "aria-label": "Tags" }, ...tags) : null;
}

function commands(entry) {
  const url = quoted(home().href.replace(/\/$/, ""));
  const spec = specOf(entry);
  const directory = ["models", entry.namespace, entry.name, entry.version].join("/");
  const lines = [
    ["Mount the registry", "axonfs mount models --registry " + url],
    ["Serve the model from the mount", "vllm serve " + directory],
    ["Keep it on this machine", "axonfs pin " + spec + " --registry " + url],
  ];
  return element(
    "section",
    { "aria-labelledby": "use" },
    element("h2", { id: "use" }, "Use it"),
    ...lines.map(([name, line]) => command(name, line)),
  );
}

// A word for a shell.
function quoted(text) {
  return /^[A-Za-z0-9_.:/@%+=-]+$/.test(text) ? text : "'" + text.replaceAll("'", "'\\''") + "'";
}

function command(name, line) {
  // Lines break between words, not within an option.
  const words = line.split(" ").flatMap((word) => [" ", element("span", {}, word)]);
  const code = element("code", {}, ...words.slice(1));
  const button = element(
    "button",
    { type: "button", "aria-label": "Copy: " + name, onclick: () => copy(code, button) },
    "Copy",
  );
  return element(
    "div",
    { class: "command" },
    element("p", { class: "quiet" }, name),
    element("div", { class: "line" }, element("pre", { tabindex: "0" }, code), button),
  );
}

// Without https a browser has no clipboard for pages: the text is selected instead.
async function copy(code, button) {
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(code);
    button.textContent = "Selected";
  }
  setTimeout(() => (button.textContent = "Copy"), 2000);
}

function versionList(model, entry) {
  const items = [...model.entries].reverse();
  const list = element("ul", { class: "versions" });
  const place = (other) => list.appendChild(versionItem(model, other, other === entry));
  const more = placeGradually(items, place, VERSIONS_AT_ONCE, VERSIONS_AT_FIRST);
  return element(
    "aside",
    { "aria-labelledby": "versions" },
    element(
      "h2",
      { id: "versions" },
      items.length ? counted(items.length, "version") : "No other version",
    ),
    list,
    more,
  );
}

function versionItem(model, entry, current) {
  const href = "#/" + model.name + "@" + entry.version;
  const name = element("span", { class: "name" }, entry.version);
  return element(
    "li",
    {},
    element(
      "a",
      { href, "aria-current": current ? "page" : null },
      name,
      factList([day(entry.published)]),
    ),
  );
}

async function load(entry, { files, readme, facts }, signal) {
  const link = element("a", { href: versionHome(entry) + "manifest.yaml" }, "manifest.yaml");
  let found;
  try {
    found = await readFiles(entry, signal);
    if (!found) throw new Problem("the registry has no manifest of this version");
  } catch (error) {
    files.lastChild.replaceWith(
      element("p", { class: "notice" }, "The files cannot be shown: " + problem(error) + " ", link),
    );
    return;
  }
  files.firstChild.textContent = counted(found.files.length, "file");
  files.lastChild.replaceWith(
    fileList(found.files),
    element("p", { class: "quiet" }, "From ", link),
  );
  if (found.format) facts.append(fact("Format", found.format));
  await loadReadme(found.files, readme, signal);
}

function fileList(files) {
  const list = element("ul", { class: "files" });
  const place = (file) => list.appendChild(fileItem(file));
  return element("div", {}, list, placeGradually(files, place, FILES_AT_ONCE, FILES_AT_FIRST));
}

function fileItem(file) {
  const shown = printable(file.path);
  const name = shown.slice(shown.lastIndexOf("/") + 1);
  const path = file.digest
    ? element(
        "a",
        { href: objectPath(file.digest), download: name, title: "sha256 " + file.digest },
        shown,
      )
    : element("span", {}, shown);
  return element(
    "li",
    {},
    element("bdi", { class: "name" }, path),
    element("span", { class: "size" }, size(file.size)),
  );
}

async function loadReadme(files, section, signal) {
  const file = files.find(({ path, digest }) => path === "README.md" && digest);
  if (!file || !file.size) return;
  section.hidden = false;
  section.append(element("h2", { class: "label" }, "README.md"));
  try {
    const text = decoded(await readObject(file, MAX_README_BYTES, signal));
    section.append(renderMarkdown(text));
    if (text.length > MAX_SHOWN)
      section.append(
        element(
          "p",
          { class: "notice" },
          "The rest is not shown: the text has " + counted(text.length, "character") + ".",
        ),
      );
  } catch (error) {
    section.append(element("p", { class: "notice" }, problem(error)));
  }
}
