"""Archives: months of entries that left the balance log, and can be read back."""

from typing import Any

from gateway.blueprint import Blueprint
from gateway.paging import Listing, listing
from gateway.rpc import call
from gateway.schemas.archives import ArchivedEntryQuery, ArchiveProofSchema, ArchiveSchema, NewArchiveSchema
from gateway.schemas.base import PageQuery
from gateway.schemas.ledger import EntrySchema
from gateway.terms import needs, within

ARCHIVING_SECONDS = 300

blueprint = Blueprint("archives", __name__, description="Months of entries that left the balance log.")


@blueprint.get("/archives")
@needs("ledger:read")
@blueprint.arguments(PageQuery, location="query")
@blueprint.listing(ArchiveSchema)
def list_archives(query: dict[str, Any]) -> Listing:
    """List archives, the newest first; for callers who see all merchants."""
    return listing("ledger", "list_archives", **query)


@blueprint.post("/archives")
@needs("ledger:admin")
@within(seconds=ARCHIVING_SECONDS)
@blueprint.arguments(NewArchiveSchema)
@blueprint.response(201, ArchiveSchema)
def archive_entries(body: dict[str, Any]) -> Any:
    """Move the entries of a month that is over, and before which none are left, from the log into an archive."""
    return call("ledger", "archive_entries", **body)


@blueprint.get("/archives/<archive_id>")
@needs("ledger:read")
@blueprint.response(200, ArchiveSchema)
def get_archive(archive_id: str) -> Any:
    """Show an archive."""
    return call("ledger", "get_archive", archive_id=archive_id)


@blueprint.get("/archives/<archive_id>/verify")
@needs("ledger:read")
@within(seconds=ARCHIVING_SECONDS)
@blueprint.response(200, ArchiveProofSchema)
def verify_archive(archive_id: str) -> Any:
    """Read an archive back from end to end, and say whether it is what was archived."""
    return call("ledger", "verify_archive", archive_id=archive_id)


@blueprint.get("/archived-entries")
@needs("ledger:read")
@blueprint.arguments(ArchivedEntryQuery, location="query")
@blueprint.listing(EntrySchema)
def list_archived_entries(query: dict[str, Any]) -> Listing:
    """List a month's archived entries, by account and version; a page may be short and not the last."""
    return listing("ledger", "list_archived_entries", **query)
