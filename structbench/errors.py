"""Errors for the user: each message is one line that says what to do; and the exit code of a gate.

StructbenchError
├── BadInput     exit code 2: nothing was sent, nothing was changed
└── RunFailed    exit code 1: the run started and could not go on; what was measured is kept
Anything else that escapes is a bug and keeps its traceback.
"""

GATE_FAILED = 99
"""Exit code: everything was measured, and a condition (--slo, --fail-on) was not met."""


class StructbenchError(Exception):
    exit_code = 1


class BadInput(StructbenchError):
    exit_code = 2


class RunFailed(StructbenchError):
    exit_code = 1
