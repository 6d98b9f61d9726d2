"""Reading of what a program shows on a terminal or writes into a pipe."""

import os
from collections.abc import Iterator


def pieces(reader: int) -> Iterator[bytes]:
    """Yield what arrives until nobody can write any more; closes the reader. A piece may end anywhere."""
    try:
        while piece := os.read(reader, 1 << 12):
            yield piece
    except OSError:  # how Linux ends a terminal
        pass
    finally:
        os.close(reader)
