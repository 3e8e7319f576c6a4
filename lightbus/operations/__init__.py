"""What an operator does with a running system, and what describes it."""
