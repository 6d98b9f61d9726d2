"""Lines of a message at a terminal: they break between words."""

import re
import shutil
import sys
import textwrap

_FIELD = re.compile(r"  \w+ {2,}")  # of an error: its name, then its value
_COMMAND = re.compile(r"  hint +(stillroom|make|pip) ")  # stays one line, to be copied


def fitted(text: str, width: int | None = None) -> str:
    """Wrap the lines of a message between words, further ones below the first word of a field's value.

    width: characters of a line; None for those of stderr if that is a terminal, and no wrapping elsewhere.
    """
    if width is None:
        if not sys.stderr.isatty():
            return text
        width = shutil.get_terminal_size().columns
    return "\n".join(_fitted_line(line, width) for line in text.split("\n"))


def _fitted_line(line: str, width: int) -> str:
    field = _FIELD.match(line)
    is_one_word = field is not None and " " not in line[field.end() :]
    if len(line) <= width or is_one_word or _COMMAND.match(line):
        return line
    indent = " " * (field.end() if field else len(line) - len(line.lstrip()) + 2)
    whole = textwrap.TextWrapper(width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return "\n".join(whole.wrap(line))
