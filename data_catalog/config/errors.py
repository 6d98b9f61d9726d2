"""Exception for mistakes that a user can fix; the command line prints it and exits 1."""

from __future__ import annotations

from functools import partial


class UserError(Exception):
    """Mistake that the user can fix.

    `fields` are shown one a line below the message, `hint` is the next step; each may have several lines::

        error: shard 12 of edit/bronze-statue is not the file its record describes
          file      data/store/edit/bronze-statue/0012/71aa0be3/00012.tar
          hint      stillroom repair    (makes this shard again)
    """

    def __init__(self, message: str, *, hint: str | None = None, **fields: object) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.fields = {name: str(value) for name, value in fields.items()}

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions pickle by their positional arguments; a worker process must not lose fields and hint.
        return (partial(type(self), hint=self.hint, **self.fields), (self.message,))

    def __str__(self) -> str:
        rows = list(self.fields.items()) + ([("hint", self.hint)] if self.hint else [])
        width = max([8, *(len(name) for name, _ in rows)])
        below = "\n" + " " * (width + 4)
        told = (f"  {name:<{width}}  {value}".replace("\n", below) for name, value in rows)
        return "\n".join([self.message, *told])
