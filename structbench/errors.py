"""Errors for the user: each message is one line that says what to do.

StructbenchError
├── BadInput     exit code 2: nothing was sent, nothing was changed
└── RunFailed    exit code 1: the run started and could not go on; what was measured is kept
Anything else that escapes is a bug and keeps its traceback.
"""


class StructbenchError(Exception):
    exit_code = 1


class BadInput(StructbenchError):
    exit_code = 2


class RunFailed(StructbenchError):
    exit_code = 1
