from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from db import instance_types, migration
from db.errors import DatabaseError, SchemaVersionError
from db.models import metadata
from db.session import Database
from tests.unit.db.db_builders import counted

BROKEN = """
import sqlalchemy as sa
from alembic import op
revision, down_revision = "0002", "0001"
def upgrade():
    op.create_table("half", sa.Column("id", sa.Integer))
    raise RuntimeError("power cut")
"""


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'empty.sqlite'}")
    yield database
    database.dispose()


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the revisions, for tests that add one."""
    with resources.as_file(resources.files("db") / "migrations") as origin:
        copy = Path(shutil.copytree(origin, tmp_path / "scripts"))
    monkeypatch.setattr(migration, "SCRIPTS", str(copy))
    return copy


def tables(database: Database) -> set[str]:
    return set(sa.inspect(database.engine).get_table_names()) - {"alembic_version"}


def test_head_is_the_newest_revision() -> None:
    config = Config()
    config.set_main_option("script_location", "db:migrations")
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_heads() == [migration.HEAD]


def test_the_migrated_schema_is_the_one_the_code_uses(database: Database) -> None:
    with database.read() as tx:
        assert compare_metadata(MigrationContext.configure(tx), metadata) == []
    assert tables(database) == set(metadata.tables)


def test_a_database_goes_up_down_and_up_again(empty: Database) -> None:
    migration.sync(empty)
    migration.downgrade(empty, "base")
    assert tables(empty) == set()
    assert migration.version(empty) is None
    migration.sync(empty)
    assert len(empty.query(instance_types.list_all)) == 5


def test_a_sync_of_a_current_database_changes_nothing(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "db.migration")
    migration.sync(database)
    assert len(database.query(instance_types.list_all)) == 5
    assert "database: revision 0001, was 0001" in caplog.text


def test_a_current_database_passes_the_check_in_one_statement(database: Database) -> None:
    with counted(database) as sent:
        migration.check(database)
    assert len(sent) == 1


def test_a_database_never_synced_is_refused_with_both_revisions(empty: Database) -> None:
    assert migration.version(empty) is None
    with pytest.raises(SchemaVersionError, match="at revision none, this code needs 0001: run nova-manage db sync"):
        migration.check(empty)


def test_a_database_of_a_newer_release_is_refused(database: Database) -> None:
    with database.transaction() as tx:
        tx.execute(sa.text("UPDATE alembic_version SET version_num = '0042'"))
    with pytest.raises(SchemaVersionError, match="at revision 0042, this code needs 0001"):
        migration.check(database)
    with pytest.raises(SchemaVersionError, match="cannot upgrade the database from revision 0042"):
        migration.sync(database)


def test_an_error_that_is_not_a_missing_table_is_not_taken_for_one(tmp_path: Path) -> None:
    (tmp_path / "garbage.sqlite").write_bytes(b"not a database, for longer than a page header" * 9)
    garbage = Database(f"sqlite:///{tmp_path / 'garbage.sqlite'}")
    with pytest.raises(DatabaseError, match="not a database"):
        migration.version(garbage)


def test_the_check_does_not_import_alembic() -> None:
    code = "import sys, db.migration; sys.exit('alembic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_two_syncs_at_once_take_turns(empty: Database) -> None:
    others = [Database(str(empty.url)) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(migration.sync, others))
    for other in others:
        other.dispose()
    assert migration.version(empty) == migration.HEAD


def test_a_migration_that_fails_leaves_nothing_behind(database: Database, scripts: Path) -> None:
    (scripts / "versions/0002_broken.py").write_text(BROKEN)
    with pytest.raises(RuntimeError, match="power cut"):
        migration.sync(database)
    assert (migration.version(database), "half" in tables(database)) == ("0001", False)


def test_a_migration_that_would_leave_dangling_references_is_refused(database: Database, scripts: Path) -> None:
    orphan = "op.execute('INSERT INTO fixed_ips (network_id, address) VALUES (9, 1)')"
    (scripts / "versions/0002_broken.py").write_text(BROKEN.replace('raise RuntimeError("power cut")', orphan))
    with pytest.raises(SchemaVersionError, match="1 dangling references"):
        migration.sync(database)
    assert migration.version(database) == "0001"


def test_foreign_keys_hold_again_after_a_migration(database: Database) -> None:
    migration.sync(database)
    with pytest.raises(sa.exc.IntegrityError), database.transaction() as tx:
        tx.execute(sa.text("INSERT INTO fixed_ips (network_id, address) VALUES (9, 'x')"))


def test_a_draft_holds_what_the_tables_have_and_the_database_lacks(database: Database, scripts: Path) -> None:
    with database.transaction() as tx:
        tx.execute(sa.text("ALTER TABLE quotas DROP COLUMN hard_limit"))
    written = Path(migration.draft(database, "Give quotas a limit"))
    assert written.name == "0002_give_quotas_a_limit.py"
    assert "batch_op.add_column(sa.Column('hard_limit'" in written.read_text()
    compile(written.read_text(), str(written), "exec")
