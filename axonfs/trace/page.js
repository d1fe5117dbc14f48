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

function said(plot, place, part) {
  const seconds = secondsAt(place);
  const when = seconds === null ? "a pause" : `${seconds.toFixed(3)} s`;
  const size = plot.dataset.size;
  return size === undefined ? when : `${when}, byte ${bytes(part * Number(size))}`;
}

timeline.addEventListener("pointermove", (event) => {
  const plot = event.target.closest(".plot");
  moment.hidden = plot === null;
  for (const cursor of cursors) cursor.hidden = plot === null;
  if (plot === null) return;
  const box = plot.getBoundingClientRect();
  const place = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
  for (const cursor of cursors) cursor.style.left = `${100 * place}%`;
  moment.textContent = said(plot, place, (event.clientY - box.top) / box.height);
  const wide = moment.offsetWidth + 24;
  const left = event.clientX + wide > innerWidth ? event.clientX - wide + 8 : event.clientX + 14;
  moment.style.left = `${left}px`;
  moment.style.top = `${Math.min(event.clientY + 16, innerHeight - 30)}px`;
});

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
