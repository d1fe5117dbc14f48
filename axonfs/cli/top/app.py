"""The live view of `axonfs top`: keys, and a screen of which only changed lines are drawn again.

Only this module imports textual. Event loop of textual; the mount is asked by poller.py.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence
from functools import partial
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets import Input

from axonfs.cli.mount_state import LiveState
from axonfs.cli.top.figures import Figures, Moment
from axonfs.cli.top.layout import Line
from axonfs.cli.top.poller import Answer, Details, Poller
from axonfs.cli.top.sections import LOADS
from axonfs.cli.top.views import (
    HELP,
    ORDER,
    Frame,
    View,
    alone,
    chosen,
    details,
    footer,
    header,
    overview,
    scrolled,
)

_LOOK = 0.25  # seconds between two looks for an answer
_STYLES = {
    "": Style(),
    "title": Style(bold=True),
    "dim": Style(dim=True),
    "warn": Style(color="yellow"),
    "bad": Style(color="red"),
    "alarm": Style(color="red", bold=True, reverse=True),
}


def run(source: LiveState, interval: float) -> None:
    """Show the mount until the user quits. SIGTERM ends it, too, with the terminal as it was."""
    app = Top(source, interval)
    app.run(mouse=False)
    if app.return_code:
        sys.exit(app.return_code)


class Lines(Widget):
    """The lines of the screen; `show` draws those that differ."""

    DEFAULT_CSS = "Lines { width: 100%; height: 100%; background: ansi_default; }"

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[Line] = []
        self.drawn = 0  # lines, since the start

    def show(self, lines: Sequence[Line]) -> None:
        """Replace the lines."""
        before, self.lines = self.lines, list(lines)
        for number in range(max(len(before), len(lines))):
            old = before[number] if number < len(before) else Line("")
            new = lines[number] if number < len(lines) else Line("")
            if (old.text, old.style) != (new.text, new.style):
                self.drawn += 1
                self.refresh(Region(0, number, self.size.width, 1))

    def render_line(self, y: int) -> Strip:
        line = self.lines[y] if y < len(self.lines) else Line("")
        style = _STYLES[line.style.removesuffix(" chosen")]
        if line.style.endswith(" chosen"):
            style += Style(reverse=True)
        strip = Strip([Segment(line.text, style)])
        return strip.adjust_cell_length(self.size.width, Style())


class Top(App[None]):
    """The view: one page of lines, and below it a line for the filter while it is typed."""

    ENABLE_COMMAND_PALETTE = False
    AUTO_FOCUS = None
    CSS = """
    Screen { background: ansi_default; color: ansi_default; }
    Input { dock: bottom; display: none; height: 1; border: none; padding: 0;
            background: ansi_default; color: ansi_default; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,ctrl+c", "quit"),
        Binding("question_mark,h,f1", "toggle_help"),
        Binding("space,p", "pause"),
        Binding("s", "sort"),
        Binding("slash", "filter"),
        Binding("escape", "leave", priority=True),
        Binding("enter", "details"),
        Binding("0", "table(0)"),
        *(Binding(str(number), f"table({number})") for number in range(1, len(ORDER) + 1)),
        *(
            Binding(keys, f"move({step})")
            for keys, step in (("up,k", -1), ("down,j", 1), ("pageup", -10), ("pagedown", 10))
        ),
        Binding("home,g", "move(-1000000)"),
        Binding("end,G", "move(1000000)"),
    ]

    def __init__(self, source: LiveState, interval: float = 1.0) -> None:
        super().__init__(ansi_color=True)
        self._source = source
        self._poller = Poller(source, interval)
        self._figures = Figures()
        self._answer = Answer()
        self._moment: Moment | None = None
        self._view = View()
        self._details: Details | None = None
        self._helping = False
        self._cursor = ""
        self._offset = 0
        self._page: list[Line] = []

    def compose(self) -> ComposeResult:
        self.screen_lines = Lines()
        yield self.screen_lines
        field = Input(placeholder="a text; Enter applies it, Escape ends it", select_on_focus=False)
        field.cursor_blink = False
        yield field

    def on_mount(self) -> None:
        self._poller.start()
        code = 128 + signal.SIGTERM
        quit_ = partial(self.exit, return_code=code)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, quit_)
        self.set_interval(_LOOK, self._look)

    def on_unmount(self) -> None:
        self._poller.stop()
        self._end_details()

    def on_resize(self) -> None:
        self._draw()

    def _look(self) -> None:
        """Take the newest answer, and draw what differs."""
        answer = self._poller.answer
        if answer.state is not None and answer.time != self._answer.time:
            self._moment = self._figures.moment(answer.state, answer.time)
        self._answer = answer
        self._draw()

    def _draw(self) -> None:
        columns, lines = self.size.width, self.size.height
        if columns < 4 or lines < 4:
            return
        frame = Frame(str(self._source.mountpoint), self._source.owner, self._poller.trouble())
        above = header(self._moment, frame, columns)[: lines - 2]
        room = lines - len(above) - 2
        self._page = self._make_page(columns, room)
        self._keep_cursor()
        self._offset = scrolled(self._page, self._cursor, self._offset, room)
        shown = [self._marked(line) for line in self._page[self._offset :][:room]]
        blank = [Line("")] * (room - len(shown))
        inside = bool(self._helping or self._details)
        below = footer(self._view, self._sorted(), columns, inside=inside)
        self.screen_lines.show([*above, chosen(self._view, columns), *shown, *blank, below])

    def _make_page(self, columns: int, room: int) -> list[Line]:
        if self._helping:
            return [Line(line[: columns - 1]) for line in HELP.splitlines()]
        if self._moment is None:
            return [Line("waiting for the mount's first answer …", "dim")]
        if self._details is not None:
            wanted = self._details
            return details(self._moment, wanted.spec, wanted.info, wanted.why, columns)
        if self._view.table is not None:
            return alone(self._moment, self._view.table, self._view, columns)
        return overview(self._moment, self._view, columns, room)

    def _rows(self) -> list[str]:
        """The keys of the rows on the page, each once."""
        return list(dict.fromkeys(line.key for line in self._page if line.key))

    def _keep_cursor(self) -> None:
        rows = self._rows()
        if self._cursor not in rows:
            self._cursor = ""

    def _marked(self, line: Line) -> Line:
        if not line.key or line.key != self._cursor:
            return line
        return Line(line.text, f"{line.style} chosen", line.key, line.spec)

    def action_move(self, step: int) -> None:
        rows = self._rows()
        if not rows or self._helping:
            self._offset = max(self._offset + step, 0)
        elif self._cursor:
            at = rows.index(self._cursor) + step
            self._cursor = rows[max(min(at, len(rows) - 1), 0)]
        else:
            self._cursor = rows[0 if step > 0 else -1]
        self._draw()

    def action_table(self, number: int) -> None:
        self._leave()
        self._view.table = ORDER[number - 1] if number else None
        self._draw()

    def action_leave(self) -> None:
        field = self.query_one(Input)
        if field.display:
            self._close_filter("")
        elif self._helping or self._details:
            self._leave()
        elif self._view.needle:
            self._view.needle = ""
        else:
            self._view.table = None
        self._draw()

    def action_details(self) -> None:
        spec = next((line.spec for line in self._page if line.key == self._cursor), "")
        if self._cursor and spec and not self._details:
            self._leave()
            self._details = Details(self._source, spec)
            self._details.start()
            self._draw()

    def action_toggle_help(self) -> None:
        helping = not self._helping
        self._leave()
        self._helping = helping
        self._draw()

    def action_pause(self) -> None:
        self._view.paused = self._poller.paused = not self._view.paused
        self._draw()

    def action_sort(self) -> None:
        self._view.sort(self._sorted())
        self._draw()

    def _sorted(self) -> str:
        """The table that is sorted: the one that is shown alone, or has the cursor."""
        of_cursor = self._cursor.partition(":")[0]
        return self._view.table or (of_cursor if of_cursor in ORDER else LOADS)

    def action_filter(self) -> None:
        self._leave()  # a filter is for tables
        field = self.query_one(Input)
        field.display = True
        field.value = self._view.needle
        field.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        if self.query_one(Input).display:
            self._view.needle = event.value
            self._draw()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self._close_filter(event.value)

    def _close_filter(self, needle: str) -> None:
        self._view.needle = needle
        field = self.query_one(Input)
        field.display = False
        self.set_focus(None)
        self._draw()

    def _leave(self) -> None:
        """Leave the help and the details."""
        self._helping = False
        self._end_details()
        self._offset = 0

    def _end_details(self) -> None:
        if self._details is not None:
            self._details.stop()
            self._details = None
