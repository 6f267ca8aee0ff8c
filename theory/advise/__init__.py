"""Advice for one's own nodes: which local step, K, clients and outer step, and what theory says of it."""
