"""Lightbus beside other ways to fire and handle events, on the same broker, in one run.

`scripts/bench` makes what it needs and starts it. One file a topic says what is measured; each way
is one script in `contenders/`, which runs in an environment of its own.
"""
