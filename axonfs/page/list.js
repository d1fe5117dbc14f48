// The list of models: by namespace, or what a search finds.

const MODELS_AT_ONCE = 100;
const NOT_FOUND = "No model has all these words in its name, description, framework or tags.";

function listView(models, { namespace, query }) {
  const found = query ? matching(models, query) : [...models.values()];
  const chosen = namespace ? found.filter((model) => model.namespace === namespace) : found;
  const versions = chosen.reduce((count, model) => count + model.entries.length, 0);
  const said = counted(chosen.length, "model") + ", " + counted(versions, "version");
  return {
    title: namespace ?? "",
    said,
    content: [...listHead(namespace, query, said), ...listBody(chosen, query)],
  };
}

function listHead(namespace, query, said) {
  const name = namespace ?? (query ? "Found" : "Models");
  const up = namespace
    ? [
        element(
          "nav",
          { "aria-label": "Path", class: "path" },
          element("a", { href: "#/" }, "All models"),
        ),
      ]
    : [];
  return [
    ...up,
    element(
      "div",
      { class: "head" },
      element("h1", { tabindex: "-1" }, name),
      element("p", { class: "quiet" }, said),
    ),
  ];
}

function listBody(models, query) {
  if (!models.length)
    return [
      element(
        "p",
        { class: "notice" },
        query ? NOT_FOUND : "This registry has no models yet. axonfs publish adds one.",
      ),
    ];
  const box = element("div");
  const groups = new Map(); // a search has one group, in the order of the results
  const group = (namespace) => {
    const rows = element("ul", { class: "rows" });
    box.append(query ? rows : element("section", {}, namespaceHead(namespace), rows));
    return rows;
  };
  const place = (model) => {
    const name = query ? "" : model.namespace;
    if (!groups.has(name)) groups.set(name, group(name));
    const item = modelItem(model, query ? model.name : model.latest.name);
    groups.get(name).append(item);
    return item;
  };
  return [box, placeGradually(models, place, MODELS_AT_ONCE)];
}

function namespaceHead(namespace) {
  return element("h2", {}, element("a", { href: "#/" + namespace }, namespace));
}

function modelItem(model, name) {
  const { latest } = model;
  const facts = [latest.version, size(latest.size), latest.framework, latest.license];
  if (model.entries.length > 1) facts.push(counted(model.entries.length, "version"));
  return element(
    "li",
    {},
    element(
      "a",
      { class: "row", href: "#/" + model.name },
      element("span", { class: "name" }, name),
      factList(facts),
      latest.description
        ? element("span", { class: "description", dir: "auto" }, latest.description)
        : null,
    ),
  );
}

function factList(facts) {
  return element(
    "span",
    { class: "facts" },
    ...facts.filter(Boolean).map((fact) => element("bdi", {}, fact)),
  );
}
