// The registry's files, by URLs relative to this page, and its models.

const MAX_INDEX_BYTES = 64 * 2 ** 20;
const MAX_MANIFEST_BYTES = 16 * 2 ** 20;
const TIMEOUT = 60000; // milliseconds
const RELEASE = /^v?[0-9]{1,18}(?:\.[0-9]{1,18}){0,2}(?:\+.*)?$/;

// The URL of this page without its file name: the registry's URL.
function home() {
  const url = new URL(".", location.href);
  url.username = url.password = "";
  return url;
}

// The bytes of a file of the registry; null if it does not exist.
async function read(path, limit, signal) {
  const signals = [AbortSignal.timeout(TIMEOUT), ...(signal ? [signal] : [])];
  let response;
  try {
    response = await fetch(new URL(path, home()), {
      cache: "no-cache",
      signal: AbortSignal.any(signals),
    });
    if (response.ok) return await body(response, path, limit);
  } catch (error) {
    if (error instanceof Problem || signal?.aborted) throw error;
    throw new Problem(
      path + " cannot be read: the registry does not answer. Reload the page to try again.",
    );
  }
  if (response.status === 404 || response.status === 410) return null;
  const denied = response.status === 401 || response.status === 403;
  throw new Problem(
    path +
      " cannot be read: " +
      (denied ? "the registry does not allow it" : "the registry has a fault") +
      " (HTTP " +
      response.status +
      ").",
  );
}

async function body(response, path, limit) {
  const pieces = [];
  let count = 0;
  for (const reader = response.body.getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) return new Uint8Array(await new Blob(pieces).arrayBuffer());
    pieces.push(value);
    if ((count += value.length) > limit) {
      reader.cancel();
      throw new Problem(path + " has more than " + size(limit) + ".");
    }
  }
}

const decoded = (bytes) => new TextDecoder().decode(bytes);

// All models by name, and the yanked versions by name and version: no list has these. A malformed
// entry is skipped.
async function readIndex() {
  const raw = await read("api/v1/index.json", MAX_INDEX_BYTES);
  const root = raw ? parseIndex(decoded(raw)) : { models: [] };
  const models = new Map();
  for (const entry of root.models.map(entryOf).filter(Boolean)) {
    const name = entry.namespace + "/" + entry.name;
    if (!models.has(name)) models.set(name, { name, namespace: entry.namespace, entries: [] });
    models.get(name).entries.push(entry);
  }
  for (const model of models.values()) complete(model);
  const hidden = Array.isArray(root.yanked) ? root.yanked.map(entryOf).filter(Boolean) : [];
  return {
    models: new Map([...models].sort(([one], [other]) => (one < other ? -1 : 1))),
    yanked: new Map(hidden.map((entry) => [specOf(entry), { ...entry, yanked: true }])),
  };
}

function specOf(entry) {
  return entry.namespace + "/" + entry.name + "@" + entry.version;
}

function parseIndex(text) {
  try {
    const root = JSON.parse(text);
    if (Array.isArray(root.models)) return root;
  } catch {
    // The message below says it.
  }
  throw new Problem(
    "api/v1/index.json is not an index of models. Is this the directory of a registry?",
  );
}

function entryOf(item) {
  if (item === null || typeof item !== "object") return null;
  const { namespace, name, version } = item;
  const valid = (text) => typeof text === "string" && SEGMENT.test(text);
  if (
    !valid(namespace) ||
    typeof name !== "string" ||
    !name.split("/").every(valid) ||
    !valid(version)
  )
    return null;
  const text = (value) => (typeof value === "string" ? printable(value) : "");
  const number = (value) => (Number.isFinite(value) && value >= 0 ? value : 0);
  return {
    namespace,
    name,
    version,
    description: text(item.description),
    framework: text(item.framework),
    license: text(item.license),
    tags: Array.isArray(item.tags) ? item.tags.slice(0, 100).map(text).filter(Boolean) : [],
    size: number(item.size),
    published: number(item.published),
  };
}

// An index has the versions of a model in their order, the oldest first.
function complete(model) {
  const releases = model.entries.filter((entry) => RELEASE.test(entry.version));
  model.latest = releases.at(-1) ?? model.entries.at(-1);
  const texts = new Set(
    model.entries.map((entry) =>
      [model.name, entry.description, entry.framework, ...entry.tags].join("\n").toLowerCase(),
    ),
  );
  model.texts = [...texts];
}

// The models that have every word of `query` in one version; exact names first, as `axonfs search`.
function matching(models, query) {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  const hit = (model) => model.texts.some((text) => words.every((word) => text.includes(word)));
  const rank = (model) => {
    const name = model.name.toLowerCase();
    const [asked, short] = [words.join(" "), name.slice(name.indexOf("/") + 1)];
    if ([name, short, name.slice(name.lastIndexOf("/") + 1)].includes(asked)) return 0;
    return words.every((word) => name.includes(word)) ? 1 : 2;
  };
  const ranked = [...models.values()].filter(hit).map((model) => [rank(model), model]);
  return ranked.sort(([one], [other]) => one - other).map(([, model]) => model);
}

// What the manifest of a version says of its files; null if it does not exist.
async function readFiles(entry, signal) {
  const path = versionHome(entry) + "manifest.yaml";
  const raw = await read(path, MAX_MANIFEST_BYTES, signal);
  if (!raw) return null;
  try {
    const format = parseManifest(decoded(raw)).spec.format;
    return {
      format: typeof format.type === "string" ? printable(format.type) : "",
      files: filesOf(format.files),
    };
  } catch (error) {
    throw error instanceof Problem ? error : new Problem("the manifest is malformed");
  }
}

function filesOf(items) {
  const files = [];
  for (const item of Array.isArray(items) ? items : []) {
    const bytes = Number(item.size);
    if (typeof item.path !== "string" || !item.path || !Number.isFinite(bytes))
      throw new Problem("the manifest is malformed");
    const digest = /^[0-9a-f]{64}$/.test(item.sha256) ? item.sha256 : null;
    files.push({ path: item.path, size: bytes, digest });
  }
  return files;
}

function versionHome(entry) {
  return "api/v1/models/" + [entry.namespace, entry.name, entry.version].join("/") + "/";
}

function objectPath(digest) {
  return "objects/sha256/" + digest.slice(0, 2) + "/" + digest;
}

// The bytes of an object. They are compared with its digest where the browser can do that: on
// pages from https and from this machine.
async function readObject(file, limit, signal) {
  const raw = await read(objectPath(file.digest), limit, signal);
  if (!raw) throw new Problem(printable(file.path) + " is missing in the registry.");
  if (globalThis.crypto?.subtle) {
    const found = new Uint8Array(await crypto.subtle.digest("SHA-256", raw));
    const hex = Array.from(found, (byte) => byte.toString(16).padStart(2, "0")).join("");
    if (hex !== file.digest)
      throw new Problem(
        printable(file.path) + " does not match its digest: the registry's copy is damaged.",
      );
  }
  return raw;
}
