// A safe subset of Markdown, as elements: headings, paragraphs, lists, quotes, code, tables,
// emphasis, and links to http and https. Everything else stays text. Images are not loaded. The
// patterns have limits, so that no text takes longer than in proportion to its length.

const MAX_SHOWN = 200000; // characters
const MAX_NESTING = 8;
const FENCE = /^ {0,3}(`{3,}|~{3,})/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+|$)/;
const RULE = /^ {0,3}(?:(?:-[ \t]*){3,}|(?:\*[ \t]*){3,}|(?:_[ \t]*){3,})$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,20})([-*+]|[0-9]{1,9}[.)])(?:[ \t]+|$)/;
const TABLE_RULE = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*){0,100}\|?[ \t]*$/;
const COMMENT = "<!--";
const TAG =
  /<\/?(?:a|b|br|center|details|div|em|figure|font|h[1-6]|hr|i|img|kbd|li|ol|p|picture|source|span|strong|sub|summary|sup|table|tbody|td|th|thead|tr|u|ul)(?:[\s/][^<>]{0,1000})?>/iy;
const ENTITIES = { amp: "&", lt: "<", gt: ">", quot: '"', nbsp: "\u00a0" };

function renderMarkdown(text) {
  const body = readable(text.replace(/^\ufeff/, "")).slice(0, MAX_SHOWN);
  const lines = body.split("\n").map((line) => line.replaceAll("\t", "    "));
  return blocks(lines.slice(frontMatterLines(lines)), 0);
}

function frontMatterLines(lines) {
  if (lines[0]?.trimEnd() !== "---") return 0;
  return lines.findIndex((line, number) => number > 0 && line.trimEnd() === "---") + 1;
}

function blocks(lines, depth) {
  const made = document.createDocumentFragment();
  let at = 0;
  while (at < lines.length) {
    const taken = lines[at].trim() ? block(lines, at, depth, made) : 1;
    at += taken;
  }
  return made;
}

// Appends the block that begins at line `at`; returns how many lines it has.
function block(lines, at, depth, made) {
  const line = lines[at];
  if (FENCE.test(line)) return fence(lines, at, made);
  if (line.trimStart().startsWith(COMMENT)) return comment(lines, at);
  if (HEADING.test(line)) return heading(line, made);
  if (RULE.test(line)) return (made.append(element("hr")), 1);
  if (depth < MAX_NESTING && QUOTE.test(line)) return quote(lines, at, depth, made);
  if (depth < MAX_NESTING && ITEM.test(line)) return list(lines, at, depth, made);
  if (line.includes("|") && TABLE_RULE.test(lines[at + 1] ?? "")) return table(lines, at, made);
  return paragraph(lines, at, depth, made);
}

function fence(lines, at, made) {
  const mark = FENCE.exec(lines[at])[1];
  let end = at + 1;
  while (end < lines.length && !closes(lines[end], mark)) end += 1;
  made.append(
    element("pre", { tabindex: "0" }, element("code", {}, lines.slice(at + 1, end).join("\n"))),
  );
  return end + 1 - at;
}

function closes(line, mark) {
  const text = line.trim();
  return text.length >= mark.length && text.startsWith(mark) && !text.replaceAll(mark[0], "");
}

function comment(lines, at) {
  let end = at;
  while (end < lines.length && !lines[end].includes("-->")) end += 1;
  return end + 1 - at;
}

function titled(level, text, made) {
  // The page's own title is the only h1.
  const title = element("h" + Math.min(level + 1, 6));
  inline(text, title, 0);
  made.append(title);
}

function heading(line, made) {
  const [all, marks] = HEADING.exec(line);
  let text = line.slice(all.length).trim();
  if (/(?:^|[ ])#+$/.test(text.slice(-20))) text = text.slice(0, text.lastIndexOf(" ") + 1).trim();
  titled(marks.length, text, made);
  return 1;
}

function quote(lines, at, depth, made) {
  let end = at;
  while (end < lines.length && QUOTE.test(lines[end])) end += 1;
  const inner = lines.slice(at, end).map((line) => line.replace(QUOTE, ""));
  made.append(element("blockquote", {}, blocks(inner, depth + 1)));
  return end - at;
}

function list(lines, at, depth, made) {
  const [, margin, mark] = ITEM.exec(lines[at]);
  const ordered = /[0-9]/.test(mark);
  const found = element(ordered ? "ol" : "ul", ordered ? { start: parseInt(mark, 10) } : {});
  let end = at;
  while (end < lines.length) {
    const item = ITEM.exec(lines[end]);
    if (
      !item ||
      item[1].length > margin.length + 3 ||
      item[1].length < margin.length ||
      /[0-9]/.test(item[2]) !== ordered ||
      RULE.test(lines[end])
    )
      break;
    const taken = itemLines(lines, end, item[1].length + 2);
    const first = lines[end].slice(item[0].length);
    const inner = [
      first,
      ...lines.slice(end + 1, end + taken).map((line) => line.replace(/^ {1,4}/, "")),
    ];
    found.append(listItem(inner, depth));
    end += taken;
    const next = [end + 1, end + 2].find((number) => lines[number]?.trim());
    if (!lines[end]?.trim() && next && ITEM.test(lines[next])) end = next;
  }
  made.append(found);
  return end - at;
}

// How many lines an item has: its own, those below it that are indented, and a paragraph's rest.
function itemLines(lines, at, indent) {
  let end = at + 1;
  for (; end < lines.length; end += 1) {
    const line = lines[end];
    const blank = !line.trim();
    const margin = line.length - line.trimStart().length;
    if (blank) {
      const next = lines[end + 1] ?? "";
      if (!next.trim() || next.length - next.trimStart().length < indent) break;
    } else if (margin < indent && startsBlock(line)) break;
  }
  return end - at;
}

function listItem(lines, depth) {
  const item = element("li");
  const content = blocks(lines, depth + 1);
  const only = content.firstElementChild;
  if (only?.tagName === "P") only.replaceWith(...only.childNodes);
  item.append(content);
  return item;
}

function startsBlock(line) {
  return [FENCE, HEADING, RULE, QUOTE, ITEM].some((pattern) => pattern.test(line));
}

function cells(line) {
  const inner = line.trim().replace(/^\|/, "").replace(/\|$/, "");
  return inner.split("|", 50).map((cell) => cell.trim());
}

function table(lines, at, made) {
  let end = at + 2;
  while (end < lines.length && lines[end].includes("|")) end += 1;
  const row = (line, tag) => {
    const made = element("tr");
    for (const text of cells(line)) {
      const cell = element(tag);
      inline(text, cell, 0);
      made.append(cell);
    }
    return made;
  };
  const head = element("thead", {}, row(lines[at], "th"));
  const body = element("tbody", {}, ...lines.slice(at + 2, end).map((line) => row(line, "td")));
  made.append(element("div", { class: "wide", tabindex: "0" }, element("table", {}, head, body)));
  return end - at;
}

function paragraph(lines, at, depth, made) {
  let end = at + 1;
  while (end < lines.length && lines[end].trim()) {
    const under = /^ {0,3}(=+|-+)[ ]*$/.exec(lines[end]);
    if (under) {
      titled(under[1][0] === "=" ? 1 : 2, lines.slice(at, end).join(" ").trim(), made);
      return end + 1 - at;
    }
    if (depth < MAX_NESTING && startsBlock(lines[end])) break;
    end += 1;
  }
  const text = lines
    .slice(at, end)
    .map((line) => line.trimStart())
    .join("\n");
  const found = element("p");
  inline(text, found, 0);
  if (found.textContent.trim()) made.append(found);
  return end - at;
}

// Each rule is a pattern at the current place, and what it appends.
const RULES = {
  "\\": [[/\\([!-/:-@[-`{-~])/y, (found, parent) => parent.append(found[1])]],
  "`": [
    [/`([^`]{1,1000})`(?!`)/y, code],
    [/``(?!`)([^]{1,1000}?[^`])``(?!`)/y, code],
  ],
  "*": [
    [/\*\*(?=\S)([^]{1,500}?)(?<=\S)\*\*/y, emphasis("strong")],
    [/\*(?=[^\s*])([^*]{1,500}?)(?<=\S)\*/y, emphasis("em")],
  ],
  _: [
    [/(?<!\w)__(?=\S)([^]{1,500}?)(?<=\S)__(?!\w)/y, emphasis("strong")],
    [/(?<!\w)_(?=[^\s_])([^]{1,500}?)(?<=\S)_(?!\w)/y, emphasis("em")],
  ],
  "~": [[/~~(?=\S)([^]{1,500}?)(?<=\S)~~/y, emphasis("del")]],
  "!": [[/!\[([^[\]]{0,300})\]\([^()]{0,1000}\)/y, (found, parent) => parent.append(found[1])]],
  "[": [
    [
      /\[((?:!\[[^[\]]{0,300}\]\([^()]{0,1000}\)|[^[\]]){1,500})\]\([ ]*<?([^()\s<>]{1,1000}(?:\([^()\s]{0,200}\))?)>?(?:\s[^()]{0,300})?\)/y,
      link,
    ],
  ],
  "<": [
    [
      /<(https?:\/\/[^\s<>]{1,1000})>/y,
      (found, parent) => parent.append(linked(found[1]) ?? found[0]),
    ],
    [/<br[ ]*\/?>/iy, (_, parent) => parent.append(element("br"))],
    [TAG, () => undefined],
  ],
  "&": [[/&(amp|lt|gt|quot|nbsp);/y, (found, parent) => parent.append(ENTITIES[found[1]])]],
  h: [
    [
      /(?<![\w/])https?:\/\/[^\s<>()[\]"'`*|]{0,1000}[^\s<>()[\]"'`*|.,:;!?]/y,
      (found, parent) => parent.append(linked(found[0]) ?? found[0]),
    ],
  ],
  "\n": [[/\n/y, (_, parent) => parent.append(" ")]],
};
const ORDINARY = /[^\\`*_~!<&h\n[]+/y;

function inline(text, parent, depth) {
  let at = 0;
  let plain = ""; // one text node for all of it: thousands of small ones are slow
  const made = document.createDocumentFragment();
  while (at < text.length) {
    const found = ordinary(text, at) ?? special(text, at);
    if (found.append) {
      made.append(plain);
      found.append(found.match, made, depth);
      plain = "";
    } else plain += found.match[0];
    at += found.match[0].length;
  }
  made.append(plain);
  parent.append(made);
}

function ordinary(text, at) {
  ORDINARY.lastIndex = at;
  const match = ORDINARY.exec(text);
  return match && { match };
}

// The rule for a special character; a character without one is text.
function special(text, at) {
  for (const [pattern, append] of RULES[text[at]] ?? []) {
    pattern.lastIndex = at;
    const match = pattern.exec(text);
    if (match) return { match, append };
  }
  return { match: [text[at]] };
}

function code(found, parent) {
  parent.append(element("code", {}, found[1].trim()));
}

function emphasis(tag) {
  return (found, parent, depth) => {
    const made = element(tag);
    nested(found[1], made, depth);
    parent.append(made);
  };
}

function nested(text, parent, depth) {
  if (depth < 3) inline(text, parent, depth + 1);
  else parent.append(text);
}

function link(found, parent, depth) {
  const made = linked(found[2]);
  if (made) made.replaceChildren();
  const target = made ?? element("span");
  nested(found[1].replace(/!\[([^[\]]{0,300})\]\([^()]{0,1000}\)/g, "$1"), target, depth + 1);
  // A link within a link is not allowed; its text stays.
  for (const inner of target.querySelectorAll("a")) inner.replaceWith(...inner.childNodes);
  parent.append(target);
}

// A link to a page of the web; null for every other URL.
function linked(address) {
  if (!/^https?:\/\//i.test(address)) return null;
  try {
    const url = new URL(address);
    if (url.username || url.password) return null; // they hide the host
    return element(
      "a",
      { href: url.href, rel: "noreferrer nofollow", title: printable(url.href, 300) },
      printable(address, 300),
    );
  } catch {
    return null;
  }
}
