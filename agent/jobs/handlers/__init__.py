"""One file per job kind; the only code that composes back ends, images, headers and connectors."""
