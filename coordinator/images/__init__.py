"""Image services: the built-in catalog behind the one interface that volumes use."""
