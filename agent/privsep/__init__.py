"""Privileged verbs, each typed and checked again on the privileged side; the only code that runs as root."""
