// Elements and texts. Foreign text enters the document here only, as text nodes.

class Problem extends Error {}

const SEGMENT = /^[A-Za-z0-9_][A-Za-z0-9._+-]{0,254}$/;
const INVISIBLE = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}]/gu;
const MISLEADING = /[\u202a-\u202e\u2066-\u2069\u200e\u200f\u061c]|(?![\n\t])\p{Cc}/gu;

// A name or a one-line text: characters that nobody sees become visible.
function printable(text, limit = 4000) {
  const line = text.length > limit ? text.slice(0, limit - 1) + "…" : text;
  return line.replace(INVISIBLE, "\ufffd");
}

// A text of several lines: characters that change the direction of other text become visible.
function readable(text) {
  return text.replace(/\r\n?/g, "\n").replace(MISLEADING, "\ufffd");
}

function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function size(bytes) {
  let [value, unit] = [bytes, 0];
  while (value >= 1024 && unit < 6) [value, unit] = [value / 1024, unit + 1];
  const names = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
  return (unit ? value.toFixed(1) : String(value)) + " " + names[unit];
}

function counted(count, word) {
  return count.toLocaleString("en") + " " + word + (count === 1 ? "" : "s");
}

function day(seconds) {
  const moment = new Date(seconds * 1000);
  return seconds > 0 && !Number.isNaN(moment.getTime()) ? moment.toISOString().slice(0, 10) : "";
}

// Places `items` a few at a time: thousands of elements would make the page slow. `place` makes the
// element of an item and appends it. Returns the button that shows more.
function placeGradually(items, place, step, first = step) {
  let shown = 0;
  const add = (count) => {
    const made = items.slice(shown, shown + count).map(place);
    shown += made.length;
    more.hidden = shown >= items.length;
    more.textContent =
      "Show more (" + shown.toLocaleString("en") + " of " + items.length.toLocaleString("en") + ")";
    return made[0];
  };
  const next = () => add(step).querySelector("a")?.focus({ preventScroll: true });
  const more = element("button", { type: "button", class: "more", onclick: next });
  add(first);
  return more;
}
