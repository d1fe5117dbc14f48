"""A load as a picture: what a mount did over time, in a file, and what it tells.

`recorder.py` writes the file while a mount works, told by fetch (its watcher), by the operations of
fuse and by the waits. `trace show` reads it: `reading.py` makes a `Trace` of a file that anybody
may have written, `figures.py` and `advice.py` say what it means, `picture.py` draws, and `page.py`
and `png.py` write the drawing. Imports fetch and what is below it. The recorder runs on the trio
thread, its file in worker threads; the rest is blocking.
"""
