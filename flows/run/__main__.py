"""Entry of make's recipes and of the served deployments: `python -m flows.run demo | up | down | serve`."""

import sys

from flows.run.signals import ending_by_signal, saying_interruption


def main(action: str, options: list[str]) -> None:
    """Run one of them. Ctrl-C and signals have their words before the modules are imported, which takes long."""
    kept = "finished partitions are kept" if action == "demo" else "what was started or ended so far stays so"
    with saying_interruption(f"{kept}\ngo on with: make {action}"), ending_by_signal():
        from flows.mistakes import saying_mistakes

        with saying_mistakes():
            if action == "demo":
                from flows.run.demo import main as demo

                demo(options)
            else:
                from flows.run.server import main as serve

                serve([action, *options])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
