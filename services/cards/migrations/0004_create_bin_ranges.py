"""Create the BIN ranges under which cards are made."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_BIN_RANGES = """
create table bin_ranges (
    id bigint generated always as identity,
    bin text not null,
    brand text not null,
    length smallint not null,
    status text not null,
    merchant_id text,
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    constraint pk_bin_ranges primary key (id),
    constraint uq_bin_ranges_bin unique (bin),
    constraint ck_bin_ranges_bin check (bin ~ '^[1-9][0-9]{5,7}$'),
    constraint ck_bin_ranges_length check (length between 13 and 19),
    constraint ck_bin_ranges_status check (status in ('active', 'disabled'))
);
"""


def upgrade() -> None:
    op.execute(_BIN_RANGES)
