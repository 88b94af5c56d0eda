"""Run by alembic: applies migrations on the connection that the caller gave, in the caller's transaction."""

from alembic import context

from coordinator.state.tables import load_all

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=load_all(),
    render_as_batch=True,
    transactional_ddl=False,
    compare_type=True,
    on_version_apply=context.config.attributes.get("applied"),
)
with context.begin_transaction():
    context.run_migrations()
