"""Image services: the built-in catalog, and one client interface for it and others."""
