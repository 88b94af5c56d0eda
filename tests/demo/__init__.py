"""`make demo`: from nothing to an encrypted volume on this host, with real processes."""
