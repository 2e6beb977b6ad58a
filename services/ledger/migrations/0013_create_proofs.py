"""Create proofs: when the ledger was last proved, and how long that took."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        create table proofs (
            mode text not null,
            ok boolean not null,
            seconds double precision not null,
            finished_at timestamptz not null default clock_timestamp(),
            constraint pk_proofs primary key (mode),
            constraint ck_proofs_mode check (mode in ('full', 'incremental'))
        )
        """
    )
