"""The built-in identity service: domains, projects, users, roles, who has which, and tokens taken back."""

from sqlalchemy import Boolean, Column, Double, ForeignKey, String, Table, Text, UniqueConstraint, true

from coordinator.state.tables import metadata
from coordinator.state.tables.columns import times

identity_domains = Table(
    "identity_domains",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("description", Text, nullable=False, default=""),
    Column("enabled", Boolean, nullable=False, default=True, server_default=true()),
    *times(),
)

identity_projects = Table(
    "identity_projects",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("domain_id", String(64), ForeignKey("identity_domains.id"), nullable=False),
    Column("name", String(64), nullable=False),
    Column("description", Text, nullable=False, default=""),
    Column("enabled", Boolean, nullable=False, default=True, server_default=true()),
    *times(),
    UniqueConstraint("domain_id", "name"),
)

identity_users = Table(
    "identity_users",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("domain_id", String(64), ForeignKey("identity_domains.id"), nullable=False),
    Column("name", String(255), nullable=False),
    Column("description", Text, nullable=False, default=""),
    Column("email", String(255)),
    Column("password_hash", String(255)),
    Column("default_project_id", String(64)),
    Column("enabled", Boolean, nullable=False, default=True, server_default=true()),
    Column("tokens_valid_after", Double, nullable=False, default=0.0),
    *times(),
    UniqueConstraint("domain_id", "name"),
)
"""`tokens_valid_after`: seconds since 1970; tokens issued up to then are refused (password changed, user disabled)."""

identity_roles = Table(
    "identity_roles",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", String(255), nullable=False, unique=True),
    Column("description", Text, nullable=False, default=""),
    *times(),
)

identity_assignments = Table(
    "identity_assignments",
    metadata,
    Column("user_id", String(64), ForeignKey("identity_users.id", ondelete="CASCADE"), primary_key=True),
    Column("target_kind", String(16), primary_key=True),
    Column("target_id", String(64), primary_key=True),
    Column("role_id", String(64), ForeignKey("identity_roles.id", ondelete="CASCADE"), primary_key=True),
)
"""`target_kind` is project, domain or system (whose target_id is `all`)."""

identity_revoked = Table(
    "identity_revoked",
    metadata,
    Column("token_id", String(64), primary_key=True),
    Column("expires", Double, nullable=False, index=True),
)
