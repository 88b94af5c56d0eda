"""THE transition tables: what may happen to each resource, and what an unreachable agent means for an operation."""
