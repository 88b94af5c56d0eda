"""The coordinator as a service: settings, wiring, main."""
