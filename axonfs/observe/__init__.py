"""How others watch a mount or a registry server: metrics for Prometheus and OTLP, and its health.

Above the parts, which count for themselves and show it by `statistics()`; below daemon and serve,
which say what is watched. `families` and `health` are pure: the state that `status --json` shows
goes in. `prometheus` and `otlp` write families in the words of their libraries, which are extras
and imported only there. `listener` answers HTTP in threads of its own, and `observer` puts all of
it together for a mount.

Imports nothing by itself: commands use `health` without the rest.
"""
