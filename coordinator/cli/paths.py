"""Where the configuration lies; apart from the settings, whose models take a while to import."""

from __future__ import annotations

from pathlib import Path

DEFAULT_CONFIG = Path("/etc/brickyard/coordinator.toml")
