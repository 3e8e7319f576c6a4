"""Calls handlers: listeners, signatures, hooks, middleware, tasks, threads and time limits."""
