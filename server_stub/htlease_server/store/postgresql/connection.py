"""Connections to the database: how they are made, what is wrong with them, and the schema."""

from __future__ import annotations

import pkgutil
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from htlease.errors import BadConfig
from htlease_server.store.base import StoreFailed

#: Migrations in order; the table `schema_version` says how many of them a database has seen.
MIGRATIONS = (
    "0001_first.sql",
    "0002_flags.sql",
    "0003_deeds.sql",
    "0004_held.sql",
    "0005_place.sql",
)
_MIGRATION_LOCK = 0x68746C65617365  # "htlease"

#: A dead host is noticed within about this time, also one that sends no goodbye.
_PARAMETERS: dict[str, Any] = {
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "5",
    "keepalives_count": "2",
    "tcp_user_timeout": "15000",
    "application_name": "htlease",
    # Of several hosts in the URL the one that is the primary now.
    "target_session_attrs": "read-write",
}


class Database:
    """Where the database is; makes connections. Raises BadConfig when the URL cannot be used."""

    def __init__(self, url: str) -> None:
        try:
            given = conninfo_to_dict(url)
        except psycopg.ProgrammingError as problem:
            raise BadConfig(f"--store is no PostgreSQL URL: {problem}") from None
        if given.get("password") or given.get("sslpassword"):
            raise BadConfig(
                "--store holds a password, which everybody on this machine could read in the list"
                " of processes; put it into ~/.pgpass (or PGPASSFILE), and leave it out of the URL"
            )
        self._conninfo = make_conninfo(**{**_PARAMETERS, **given})
        #: What a person calls this store; holds no secret.
        self.name = url if "://" in url else f"postgresql: {url}"

    def connect(self, **settings: str) -> psycopg.Connection[Any]:
        """Return a connection in autocommit mode; raises psycopg.OperationalError."""
        connection = psycopg.connect(self._conninfo, autocommit=True)
        try:
            for name, value in settings.items():
                connection.execute("SELECT set_config(%s, %s, false)", (name, value))
        except BaseException:
            connection.close()
            raise
        return connection

    def connect_first(self) -> psycopg.Connection[Any]:
        """Return a connection to a database of this version.

        Raises BadConfig, or StoreFailed when the database may only be away.
        """
        try:
            connection = self.connect()
        except psycopg.Error as problem:
            kind = BadConfig if _mistake(_told(problem)) else StoreFailed
            raise kind(f"store {self.name} {why_not(problem)}") from None
        try:
            self._migrate(connection)
        except psycopg.OperationalError as problem:
            connection.close()
            raise StoreFailed(f"store {self.name} {why_not(problem)}") from None
        except psycopg.Error as problem:
            connection.close()
            raise BadConfig(
                f"store {self.name} cannot be set up: {_told(problem)}; the user has to own the"
                " tables, and to make them it needs GRANT CREATE ON SCHEMA public TO the user"
            ) from None
        except BaseException:
            connection.close()
            raise
        return connection

    def _migrate(self, connection: psycopg.Connection[Any]) -> None:
        encoding = connection.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            raise BadConfig(
                f"store {self.name} is a database in {encoding}; make one with"
                " `createdb --encoding=UTF8 --template=template0 NAME`"
            )
        with connection.transaction():
            # Servers that start together do this one after the other.
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_MIGRATION_LOCK,))
            version = self._version(connection)
            if version > len(MIGRATIONS):
                raise BadConfig(
                    f"store {self.name} has schema version {version}, written by a newer htlease;"
                    f" this one knows version {len(MIGRATIONS)}: upgrade htlease, or name another"
                    " store with --store"
                )
            for name in MIGRATIONS[version:]:
                script = pkgutil.get_data("htlease_server", f"store/postgresql/schema/{name}")
                assert script is not None, (
                    f"store/postgresql/schema/{name} is missing from the package"
                )
                connection.execute(script, prepare=False)
            if version < len(MIGRATIONS):
                connection.execute("UPDATE schema_version SET version = %s", (len(MIGRATIONS),))

    def _version(self, connection: psycopg.Connection[Any]) -> int:
        found = connection.execute("SELECT to_regclass('schema_version')").fetchone()
        if found is None or found[0] is None:
            connection.execute("CREATE TABLE schema_version (version integer NOT NULL)")
            connection.execute("INSERT INTO schema_version VALUES (0)")
        row = connection.execute("SELECT version FROM schema_version").fetchone()
        return int(row[0]) if row else 0


def why_not(problem: psycopg.Error) -> str:
    """Say what keeps us from connecting, and what to do; of several hosts the last one counts."""
    text = _told(problem)
    return _mistake(text) or (
        f"cannot be reached: {text}; start the database, or name another store with --store"
    )


def _mistake(text: str) -> str | None:
    """Say what a person has to mend, where waiting for the database would not help."""
    if "does not exist" in text and "database" in text:
        return f"is not there: {text}; make it with `createdb`, or name another with --store"
    if "password" in text:
        return (
            f"lets us not in: {text}; put the password into ~/.pgpass (mode 0600), the file that"
            " PGPASSFILE names, or a service file"
        )
    if "pg_hba" in text or "authentication failed" in text or "role" in text:
        return f"lets us not in: {text}; check user and database in --store, and pg_hba.conf"
    return None


def _told(problem: psycopg.Error) -> str:
    lines = [line.strip() for line in str(problem).strip().splitlines() if line.strip()]
    fatal = [line.partition("FATAL:")[2].strip() for line in lines if "FATAL:" in line]
    return fatal[-1] if fatal else "; ".join(lines[:2]) or type(problem).__name__
