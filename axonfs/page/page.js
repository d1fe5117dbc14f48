// What is shown follows the part of the URL after `#`:
//   #/ all models · #?words a search · #/NAMESPACE · #/NAMESPACE/NAME · #/NAMESPACE/NAME@VERSION

const main = document.getElementById("main");
const search = document.getElementById("search");
const announced = document.getElementById("status");
let index = { models: new Map(), yanked: new Map() };
let shown = null; // the request of what is shown, which another one ends
const scrolled = new Map(); // by URL: how far a list was scrolled

function problem(error) {
  return error instanceof Problem
    ? error.message
    : "an unexpected fault: " + printable(String(error), 200);
}

function route() {
  let path = location.hash.slice(1);
  try {
    path = decodeURIComponent(path);
  } catch {
    // A malformed escape names no model.
  }
  if (path.startsWith("?")) return { query: path.slice(1).trim() };
  const [name, version] = path.replace(/^\/|\/$/g, "").split("@", 2);
  return { name, version: version === "latest" ? undefined : version };
}

function view(signal) {
  const { models, yanked } = index;
  const { query, name, version } = route();
  if (query !== undefined || !name) return listView(models, { query });
  const namespaces = [...models.values()].map(({ namespace }) => namespace);
  if (namespaces.includes(name)) return listView(models, { namespace: name });
  const model = models.get(name) ?? { name, namespace: name.split("/")[0], entries: [] };
  const named = model.entries.find((one) => one.version === version);
  const entry = version === undefined ? model.latest : (named ?? yanked.get(name + "@" + version));
  return entry ? versionView(model, entry, signal) : missing(name, version);
}

function missing(name, version) {
  const what = printable(name + (version === undefined ? "" : "@" + version), 300);
  return {
    title: "Not found",
    said: "Not found",
    content: [
      element("h1", { tabindex: "-1" }, "Not found"),
      element(
        "p",
        { class: "notice" },
        "The registry's index has no ",
        element("bdi", {}, what),
        ". ",
        element("a", { href: "#/" }, "All models"),
      ),
    ],
  };
}

function show() {
  shown?.abort();
  shown = new AbortController();
  const { signal } = shown;
  const { title, said, content, loaded } = view(signal);
  document.title = (title ? title + " · " : "") + "Model registry";
  main.replaceChildren(...content);
  announced.textContent = said;
  busy(true);
  Promise.resolve(loaded).finally(() => signal.aborted || busy(false));
}

function busy(now) {
  main.setAttribute("aria-busy", String(now));
}

function navigate(event) {
  const query = route().query ?? "";
  if (document.activeElement !== search) search.value = query;
  show();
  window.scrollTo(0, scrolled.get(location.hash) ?? 0);
  if (document.activeElement !== search) main.querySelector("h1")?.focus({ preventScroll: true });
}

function typed() {
  const query = search.value.trim();
  history.replaceState(null, "", query ? "#?" + encodeURIComponent(query) : "#/");
  show();
}

function pressed(event) {
  const writing = /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement?.tagName);
  if (event.key === "/" && !writing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    search.focus();
  } else if (event.key === "Escape" && document.activeElement === search) {
    search.value = "";
    typed();
  }
}

async function start() {
  search.addEventListener("input", typed);
  document.getElementById("searching").addEventListener("submit", (event) => {
    event.preventDefault();
    main.querySelector("a.row")?.focus();
  });
  document.getElementById("skip").addEventListener("click", (event) => {
    event.preventDefault();
    main.focus();
  });
  document.addEventListener("keydown", pressed);
  document.addEventListener("scroll", () => scrolled.set(location.hash, window.scrollY), {
    passive: true,
  });
  try {
    if (location.protocol === "file:")
      throw new Problem(
        "A browser does not let a page read files beside it. Run: axonfs registry serve with this directory.",
      );
    index = await readIndex();
  } catch (error) {
    main.replaceChildren(
      element("h1", {}, "Models"),
      element("p", { class: "notice" }, problem(error)),
    );
    return busy(false);
  }
  window.addEventListener("hashchange", navigate);
  search.value = route().query ?? "";
  show();
}

start();
