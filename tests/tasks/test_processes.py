"""A port for a server that is started a moment later."""

import random
import socket

from tasks.processes import PORTS, free_port


def test_the_preferred_port_is_taken_if_it_is_free_and_else_one_that_no_connection_is_given() -> None:
    preferred = free_port()
    assert free_port(preferred) == preferred
    with socket.create_server(("127.0.0.1", preferred)):
        assert free_port(preferred) in set(PORTS) - {preferred}


def test_processes_of_one_seed_get_ports_of_their_own() -> None:
    found = []
    for _ in range(2):
        random.seed(0)
        found.append(free_port())
    assert found[0] != found[1]
