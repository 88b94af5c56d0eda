"""The schema, one module per noun, in SQLAlchemy Core; the same on SQLite and PostgreSQL."""

from sqlalchemy import MetaData

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def load_all() -> MetaData:
    """Import every table module, so that `metadata` is complete."""
    from importlib import import_module

    for name in MODULES:
        import_module(f"{__name__}.{name}")
    return metadata


MODULES = (
    "archive",
    "attachments",
    "coordinators",
    "enrolment",
    "events",
    "fleet",
    "identity",
    "image_cache",
    "images",
    "keys",
    "messages",
    "operations",
    "qos",
    "quotas",
    "registered_images",
    "site",
    "snapshots",
    "transfers",
    "types",
    "volumes",
)
