"""What everything may import: errors, configuration, logs, metrics, ids; nothing of ours is below it."""
