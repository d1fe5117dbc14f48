// A manifest: JSON, or the part of YAML in which manifests are written. That part has block
// mappings and sequences, plain and quoted scalars, and empty collections. Scalars stay text.

const MAX_DEPTH = 32;
const KEY =
  /(?:"(?:[^"\\\n]|\\.){0,200}"|'(?:[^'\n]|''){0,200}'|[^\s"'#&*!|>%@`\[\]{},-][^\n:#]{0,200}):(?=[ \n]|$)/y;
const ESCAPES = {
  0: "\0",
  a: "\x07",
  b: "\b",
  t: "\t",
  n: "\n",
  v: "\v",
  f: "\f",
  r: "\r",
  e: "\x1b",
  N: "\x85",
  _: "\xa0",
  L: "\u2028",
  P: "\u2029",
};

function parseManifest(text) {
  if (text.startsWith("{")) return JSON.parse(text);
  const reader = new YamlReader(text.replace(/\r\n/g, "\n"));
  const root = reader.block(reader.indent(), 0);
  if (reader.indent() !== -1) throw new Problem("the manifest has YAML that this page cannot read");
  return root;
}

class YamlReader {
  constructor(text) {
    this.text = text;
    this.at = 0;
    this.start = 0; // of the line
  }

  // Moves to the next line with content; returns its indentation, -1 at the end.
  indent() {
    const blank = /[ ]*(?:#[^\n]*|---[ ]*|\.\.\.[ ]*)?(?:\n|$)/y;
    while (this.at < this.text.length) {
      if (this.at === this.start) {
        blank.lastIndex = this.at;
        const found = blank.exec(this.text);
        if (!found) {
          while (this.text[this.at] === " ") this.at += 1;
          return this.at - this.start;
        }
        this.at = this.start = blank.lastIndex;
      } else return this.at - this.start;
    }
    return -1;
  }

  block(indent, depth) {
    if (depth > MAX_DEPTH) throw new Problem("the manifest is nested too deeply");
    return this.dash() ? this.sequence(indent, depth) : this.mapping(indent, depth);
  }

  dash() {
    return this.text[this.at] === "-" && /[ \n]|^$/.test(this.text[this.at + 1] ?? "");
  }

  sequence(indent, depth) {
    const items = [];
    while (this.indent() === indent && this.dash()) {
      this.at += 1;
      this.blanks();
      const nested = this.dash() || this.key(false) !== null;
      items.push(
        nested ? this.block(this.at - this.start, depth + 1) : this.value(indent, depth, false),
      );
    }
    return items;
  }

  mapping(indent, depth) {
    const found = Object.create(null);
    while (this.indent() === indent && !this.dash()) {
      const key = this.key(true);
      if (key === null) throw new Problem("the manifest has YAML that this page cannot read");
      found[key] = this.value(indent, depth, true);
    }
    return found;
  }

  // The key at this place without its quotes, null if there is no key.
  key(take) {
    KEY.lastIndex = this.at;
    const match = KEY.exec(this.text);
    if (!match) return null;
    if (take) this.at = KEY.lastIndex;
    return match[0].slice(0, -1).replace(/^(["'])(.*)\1$/, "$2");
  }

  value(indent, depth, inMapping) {
    this.blanks();
    if (this.text[this.at] === "#" || this.text[this.at] === "\n" || this.at >= this.text.length) {
      this.endLine();
      const next = this.indent();
      const below = next > indent || (inMapping && next === indent && this.dash());
      return below ? this.block(next, depth + 1) : "";
    }
    const quote = this.text[this.at];
    const found = quote === '"' || quote === "'" ? this.quoted(quote) : this.plain();
    this.endLine();
    return found;
  }

  plain() {
    const end = this.lineEnd();
    const text = this.text
      .slice(this.at, end)
      .replace(/[ \t]#[^]*$/, "")
      .replace(/[ \t]+$/, "");
    if (/^[|>&*!]/.test(text))
      throw new Problem("the manifest has YAML that this page cannot read");
    this.at = end;
    return text === "[]" ? [] : text;
  }

  quoted(quote) {
    const pattern = quote === "'" ? /'((?:[^']|'')*)'/y : /"((?:[^"\\]|\\[^])*)"/y;
    pattern.lastIndex = this.at;
    const match = pattern.exec(this.text);
    if (!match) throw new Problem("the manifest has a text without an end");
    const lines = match[1].lastIndexOf("\n");
    if (lines >= 0) this.start = this.at + 1 + lines + 1;
    this.at = pattern.lastIndex;
    return quote === "'" ? folded(match[1]).replaceAll("''", "'") : unescaped(match[1]);
  }

  blanks() {
    while (this.text[this.at] === " ") this.at += 1;
  }

  lineEnd() {
    const end = this.text.indexOf("\n", this.at);
    return end < 0 ? this.text.length : end;
  }

  endLine() {
    const end = this.lineEnd();
    if (!/^[ ]*(?:#.*)?$/.test(this.text.slice(this.at, end))) {
      throw new Problem("the manifest has YAML that this page cannot read");
    }
    this.at = this.start = Math.min(end + 1, this.text.length);
  }
}

// One line break in a quoted text is a blank; of several, one is left out.
function folded(text) {
  return text.replace(
    /[ ]*\n[ \n]*/g,
    (breaks) => "\n".repeat(breaks.split("\n").length - 2) || " ",
  );
}

function unescaped(text) {
  const joined = folded(text.replace(/\\\n[ ]*/g, ""));
  return joined.replace(
    /\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|([^]))/g,
    (_, x, u, U, one) => {
      if (one !== undefined) return ESCAPES[one] ?? one;
      const code = parseInt(x ?? u ?? U, 16);
      return code <= 0x10ffff ? String.fromCodePoint(code) : "\ufffd";
    },
  );
}
