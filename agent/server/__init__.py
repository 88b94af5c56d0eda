"""The agent process: settings, HTTP application, wiring, start order."""
