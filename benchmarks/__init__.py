"""Compares Lightbus with other libraries on the same broker, in one run.

`scripts/bench` sets up and starts the benchmarks. Each topic has a file. Each contender is a script
in `contenders/`, which runs in its own virtual environment.
"""
