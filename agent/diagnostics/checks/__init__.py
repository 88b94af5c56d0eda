"""One check a module: `check(place)` yields findings. The table stands in `agent.diagnostics.table`."""
