"""Handlers and what is around them: signatures, hooks, middleware, tasks, threads, time limits."""
