"""Lines of a message at a terminal."""

from data_catalog.config.errors import UserError
from flows.lines import fitted


def test_a_message_is_wrapped_between_words_and_a_command_and_a_path_stay_whole() -> None:
    path, command = "/data/" + "long/" * 20 + "file.png", "stillroom build " + "--set a.b=1 " * 8
    error = UserError("the stage stopped, and " * 5 + "so on", places="one two three " * 8, file=path, hint=command)
    lines = fitted(f"error: {error}", width=60).splitlines()
    assert [line for line in lines if len(line) > 60] == [f"  file      {path}", f"  hint      {command}"]
    assert lines[1].startswith("  ")
    place = next(number for number, each in enumerate(lines) if each.startswith("  places"))
    assert lines[place + 1].startswith("            ")
    assert " ".join(" ".join(lines).split()) == " ".join(f"error: {error}".split())  # nothing is lost
    assert fitted("short\nlines") == "short\nlines"
    assert fitted("x " * 200) == "x " * 200  # not at a terminal
