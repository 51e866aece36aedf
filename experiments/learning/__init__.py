"""Real data, a small net, and what trains it."""
