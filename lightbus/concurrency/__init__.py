"""Event loops in threads, and the threads that must not wait for them."""
