"""Makes ``python -m lightbus.cli`` the command ``lightbus``."""

from lightbus.cli import main

main()
