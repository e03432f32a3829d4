"""The commands, a module each: its ``Options`` (whose docstring is the help) and ``run(options) -> exit code``.

Invariant: a command module imports nothing heavy before ``run``, so that --help comes at once.
"""

import sys


def complain(text: str) -> None:
    """One line on stderr, in the command's name."""
    print(f"structbench: {text}", file=sys.stderr, flush=True)


def print_json(value: object) -> None:
    """The value on stdout, for programs."""
    import json

    print(json.dumps(value, indent=2), flush=True)
