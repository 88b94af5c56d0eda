"""Looking at a host: checks with remedies, what the journal holds, where a volume is, a bundle for support."""
