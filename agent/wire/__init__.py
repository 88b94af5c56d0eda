"""The HTTP API of the agent: models, client, TLS, the transport behind one interface."""
