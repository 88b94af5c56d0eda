"""Schema migrations (alembic): expand first, contract a release later; loaded only by the commands that need them."""
