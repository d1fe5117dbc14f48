"""`axonfs __complete SHELL WORDS…`: prints what may stand in place of the last word.

The first line is `files` or `dirs` if the shell shall add its own, else `none`. Each further line
is a candidate, a tab and a description. For bash the words are one text, the line up to the cursor,
and what bash takes for earlier words of its own (COMP_WORDBREAKS) is cut off.
"""

from __future__ import annotations

import os
import re
import sys

from axonfs.cli.completing import known

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TABLE = os.path.join(os.path.dirname(__file__), "table.json")
# Where a word of a line of bash ends; quotes and backslashes are taken out of it.
_WORD = re.compile(r"""(?:\\.|'[^']*'?|"(?:\\.|[^"\\])*"?|[^\s'"\\])+|\\$""")
_QUOTES = re.compile(r"""\\(.)|'([^']*)'?|"((?:\\.|[^"\\])*)"?""")


def main(argv: list[str]) -> int:
    """Print the candidates; nothing fails, since no message could be read at a prompt."""
    shell, *words = argv or [""]
    if shell == "bash":
        words = split(words[0] if words else "")
    found, add = candidates(words[1:] or [""])
    word = words[-1] if words else ""
    lines = [add]
    cut = _cut(word) if shell == "bash" else 0
    for name, about in found:
        if name.startswith(word):
            lines.append(name[cut:] if shell == "bash" else f"{name}\t{about}")
    sys.stdout.buffer.write("\n".join(lines).encode("utf-8", "surrogateescape") + b"\n")
    return 0


def split(line: str) -> list[str]:
    """The words of a line of bash; the last one is empty behind a blank."""
    words = [
        _QUOTES.sub(lambda match: match[1] or match[2] or match[3] or "", word)
        for word in _WORD.findall(line)
    ]
    return [*words, ""] if not line or line[-1] in " \t" else words


def _cut(word: str) -> int:
    """How much of the word bash takes for words of their own."""
    breaks = os.environ.get("COMP_WORDBREAKS", "@:=")
    return max((word.rfind(sign) + 1 for sign in "@:=" if sign in breaks), default=0)


def candidates(words: list[str]) -> tuple[list[tuple[str, str]], str]:
    """Candidates with descriptions for the last word, and what the shell adds.

    Args:
        words: the command line without the program; the last word is the one to complete.
    """
    import json

    with open(TABLE, encoding="utf-8") as file:
        table = json.load(file)
    node, given, option = _place(table["program"], words[:-1])
    word = words[-1]
    if option is None and word.startswith("--") and "=" in word:
        name = word.partition("=")[0]
        if (described := node["options"].get(name)) and described["takes"]:
            found, add = _values(table, described, words, word.partition("=")[2], given)
            return [(f"{name}={value}", about) for value, about in found], add
    if option is not None:
        return _values(table, option, words, word, given)
    if word.startswith("-"):
        return [(name, one["help"]) for name, one in node["options"].items()], "none"
    if node["commands"]:
        return [(name, one["help"]) for name, one in node["commands"].items()], "none"
    arguments = node["arguments"]
    if not arguments:
        return [], "none"
    at = min(len(given), len(arguments) - 1)
    if len(given) > at and not arguments[at]["many"]:
        return [], "none"
    return _values(table, arguments[at], words, word, given)


def _place(node: Any, words: list[str]) -> tuple[Any, list[str], Any]:
    """The command that the words lead to, its arguments so far, and the option that waits for a
    value."""
    given: list[str] = []
    option = None
    for word in words:
        if option is not None:
            option = None
        elif word.startswith("-") and word != "-":
            described = node["options"].get(word)
            option = described if described and described["takes"] else None
        elif word in node["commands"]:
            node = node["commands"][word]
        else:
            given.append(word)
    return node, given, option


def _values(
    table: Any, item: Any, words: list[str], word: str, given: list[str]
) -> tuple[list[tuple[str, str]], str]:
    """Candidates for the value of an option or an argument."""
    kind, settings = item["takes"], table["settings"]
    if kind in ("files", "dirs"):
        return [], kind
    if kind == "key":
        return [(name, one["help"]) for name, one in settings.items()], "none"
    if kind == "value":
        named = settings.get(given[0] if given else "", {})
        return [(value, "") for value in (*named.get("choices", ()), "default")], "none"
    if kind == "options":
        before = word[: word.rfind(",") + 1]
        return [(before + name, one["help"]) for name, one in settings.items()], "none"
    if kind == "choice":
        return [(value, "") for value in item["choices"]], "none"
    found, add = _local(kind, words, word, given)
    return [(name, "") for name in found], add


def _local(kind: str, words: list[str], word: str, given: list[str]) -> tuple[list[str], str]:
    """What this machine knows of."""
    if kind == "spec":
        return known.specs(known.cache_of(words), word), "none"
    if kind == "model":
        found = known.specs(known.cache_of(words), word)
        return [name for name in found if "@" not in name], "none"
    if kind == "members":
        return known.files(known.cache_of(words), given), "none"
    if kind == "mountpoint":
        found = known.mountpoints()
        return found, "none" if any(name.startswith(word) for name in found) else "dirs"
    if kind == "registry":
        found = [] if word.startswith(("/", ".", "~")) else known.registries()
        return found, "none" if found else "dirs"
    return [], "none"
