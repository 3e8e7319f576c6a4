"""Runs the command ``lightbus`` as ``python -m lightbus.cli``."""

from lightbus.cli import main

main()
