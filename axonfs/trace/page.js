const timeline = document.querySelector(".timeline");
const pieces = JSON.parse(timeline.dataset.axis);
const moment = document.querySelector(".moment");
const plots = [...timeline.querySelectorAll(".plot")];
const cursors = plots.map((plot) => {
  const cursor = document.createElement("div");
  cursor.className = "cursor";
  cursor.hidden = true;
  plot.append(cursor);
  return cursor;
});

// The seconds since the first read or request at a place of the axis; null in a pause.
function secondsAt(place) {
  for (const [left, right, start, stop] of pieces) {
    if (place >= left && place <= right) {
      return start - pieces[0][2] + ((stop - start) * (place - left)) / (right - left);
    }
  }
  return null;
}

function bytes(count) {
  for (const unit of ["B", "KiB", "MiB", "GiB", "TiB"]) {
    if (count < 1000 || unit === "TiB") {
      return `${count < 9.95 && unit !== "B" ? count.toFixed(1) : Math.round(count)} ${unit}`;
    }
    count /= 1024;
  }
}

// The part of the axis that is shown, and where a drag began.
let view = [0, 1];
let begun = null;

function said(plot, place, part) {
  const seconds = secondsAt(place);
  const when = seconds === null ? "a pause" : `${seconds.toFixed(3)} s`;
  const size = plot.dataset.size;
  return size === undefined ? when : `${when}, byte ${bytes(part * Number(size))}`;
}

// The place on the axis under the pointer.
function placeOf(plot, event) {
  const box = plot.getBoundingClientRect();
  const part = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
  return view[0] + part * (view[1] - view[0]);
}

function percent(place) {
  return `${(100 * (place - view[0])) / (view[1] - view[0])}%`;
}

const axis = timeline.querySelector(".axis");
const ticks = [...axis.children];

// Show a part of the axis: all charts, and texts for its times.
function look(left, right) {
  view = [left, right];
  for (const plot of plots) {
    const drawing = plot.querySelector("svg");
    const [, , , high] = drawing.getAttribute("viewBox").split(" ");
    const wide = Number(drawing.dataset.width);
    drawing.setAttribute("viewBox", `${left * wide} 0 ${(right - left) * wide} ${high}`);
  }
  if (left === 0 && right === 1) {
    axis.replaceChildren(...ticks);
    return;
  }
  const digits = Math.min(Math.max(Math.ceil(2 - Math.log10((right - left) * span)), 0), 3);
  const places = [0.1, 0.3, 0.5, 0.7, 0.9].map((part) => left + part * (right - left));
  axis.replaceChildren(
    ...places.map((place) => {
      const tick = document.createElement("span");
      const seconds = secondsAt(place);
      tick.textContent = seconds === null ? "\u22ef" : `${seconds.toFixed(digits)} s`;
      tick.style.left = percent(place);
      return tick;
    }),
  );
}

const span = pieces.reduce((sum, [, , start, stop]) => sum + stop - start, 0);

timeline.addEventListener("pointermove", (event) => {
  const plot = event.target.closest(".plot");
  moment.hidden = plot === null;
  for (const cursor of cursors) cursor.hidden = plot === null;
  if (plot === null) return;
  const box = plot.getBoundingClientRect();
  const place = placeOf(plot, event);
  const [from, to] =
    begun === null ? [place, place] : [begun, place].sort((one, other) => one - other);
  for (const cursor of cursors) {
    cursor.style.left = percent(from);
    cursor.style.width = begun === null ? "" : `calc(${percent(to)} - ${percent(from)})`;
  }
  moment.textContent = said(plot, place, (event.clientY - box.top) / box.height);
  const wide = moment.offsetWidth + 24;
  const left = event.clientX + wide > innerWidth ? event.clientX - wide + 8 : event.clientX + 14;
  moment.style.left = `${left}px`;
  moment.style.top = `${Math.min(event.clientY + 16, innerHeight - 30)}px`;
});

timeline.addEventListener("pointerdown", (event) => {
  const plot = event.target.closest(".plot");
  if (plot === null || event.pointerType !== "mouse" || event.button !== 0) return;
  event.preventDefault();
  begun = placeOf(plot, event);
});

addEventListener("pointerup", (event) => {
  const plot = event.target.closest ? event.target.closest(".plot") : null;
  const from = begun;
  begun = null;
  for (const cursor of cursors) cursor.style.width = "";
  if (from === null || plot === null) return;
  const to = placeOf(plot, event);
  if (Math.abs(to - from) > 0.01 * (view[1] - view[0]))
    look(Math.min(from, to), Math.max(from, to));
});

timeline.addEventListener("dblclick", () => look(0, 1));

timeline.addEventListener("pointerleave", () => {
  moment.hidden = true;
  for (const cursor of cursors) cursor.hidden = true;
});

const filter = document.querySelector(".filter input");
filter.addEventListener("input", () => {
  const wanted = filter.value.toLowerCase();
  for (const row of timeline.querySelectorAll(".row.file")) {
    row.hidden = !row.querySelector(".name").textContent.toLowerCase().includes(wanted);
  }
});

document.querySelector("main").ariaBusy = "false";
