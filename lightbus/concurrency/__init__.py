"""Runs event loops in threads, supports gevent, and keeps threads from waiting for themselves."""
