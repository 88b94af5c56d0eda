"""Images: inspected by rule before any tool opens them, kept in a store, turned into volumes."""
