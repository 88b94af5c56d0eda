"""The durable operation engine, and one file per workflow."""
