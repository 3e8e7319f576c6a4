"""The exit codes of the commands."""

SUCCEEDED = 0
FAILED = 1
WRONG_USAGE = 2
