"""Mismatches: what does not fit, closed with a reason or corrected, by one person or two."""

from typing import Any

from gateway.blueprint import Blueprint
from gateway.paging import Listing, listing
from gateway.rpc import call
from gateway.schemas.base import ReasonSchema
from gateway.schemas.mismatches import (
    ApprovalSchema,
    BulkSchema,
    CorrectedMismatchSchema,
    CorrectionQuery,
    CorrectionSchema,
    CorrectMismatchSchema,
    DryRunQuery,
    MismatchDetailSchema,
    MismatchGroupSchema,
    MismatchPageQuery,
    MismatchSchema,
    NewBulkActSchema,
)
from gateway.terms import moves_money, needs, within

BULK_SECONDS = 60

blueprint = Blueprint("mismatches", __name__, description="What our orders and a payment platform's records differ in.")


@blueprint.get("/mismatches")
@needs("mismatches:read")
@blueprint.arguments(MismatchPageQuery, location="query")
@blueprint.listing(MismatchSchema)
def list_mismatches(query: dict[str, Any]) -> Listing:
    """List mismatches, the last opened first."""
    return listing("ledger", "list_mismatches", **query)


@blueprint.get("/mismatches/groups")
@needs("mismatches:read")
@blueprint.arguments(MismatchPageQuery, location="query")
@blueprint.listing(MismatchGroupSchema)
def list_mismatch_groups(query: dict[str, Any]) -> Listing:
    """List groups of alike mismatches, the largest first."""
    return listing("ledger", "list_mismatch_groups", **query)


@blueprint.get("/mismatches/<mismatch_id>")
@needs("mismatches:read")
@blueprint.response(200, MismatchDetailSchema)
def get_mismatch(mismatch_id: str) -> Any:
    """Show a mismatch with both sides, its history and its corrections."""
    return call("ledger", "get_mismatch", mismatch_id=mismatch_id)


@blueprint.post("/mismatches/<mismatch_id>/reconcile")
@needs("mismatches:operate")
@blueprint.arguments(ReasonSchema)
@blueprint.response(200, MismatchDetailSchema)
def reconcile_mismatch(body: dict[str, Any], mismatch_id: str) -> Any:
    """State that both sides agree, or why they may differ; no money moves."""
    return call("ledger", "reconcile_mismatch", mismatch_id=mismatch_id, **body)


@blueprint.post("/mismatches/<mismatch_id>/ignore")
@needs("mismatches:operate")
@blueprint.arguments(ReasonSchema)
@blueprint.response(200, MismatchDetailSchema)
def ignore_mismatch(body: dict[str, Any], mismatch_id: str) -> Any:
    """Leave a mismatch alone, and say why."""
    return call("ledger", "ignore_mismatch", mismatch_id=mismatch_id, **body)


@blueprint.post("/mismatches/<mismatch_id>/reopen")
@needs("mismatches:operate")
@blueprint.arguments(ReasonSchema)
@blueprint.response(200, MismatchDetailSchema)
def reopen_mismatch(body: dict[str, Any], mismatch_id: str) -> Any:
    """Open a closed mismatch again, or take back the proposal that waits."""
    return call("ledger", "reopen_mismatch", mismatch_id=mismatch_id, **body)


@blueprint.post("/mismatches/bulk")
@needs("mismatches:operate")
@moves_money
@within(seconds=BULK_SECONDS)
@blueprint.arguments(NewBulkActSchema)
@blueprint.response(200, BulkSchema)
def act_on_mismatches(body: dict[str, Any]) -> Any:
    """Do the same to many mismatches, each by itself; correct, approve and reject need `mismatches:admin`."""
    return call("ledger", "act_on_mismatches", **body)


@blueprint.post("/mismatches/<mismatch_id>/correct")
@needs("mismatches:admin")
@moves_money
@blueprint.arguments(DryRunQuery, location="query")
@blueprint.arguments(CorrectMismatchSchema)
@blueprint.response(200, CorrectedMismatchSchema)
def correct_mismatch(query: dict[str, Any], body: dict[str, Any], mismatch_id: str) -> Any:
    """Correct a mismatch, or propose to where a second person is needed; `dry_run` only says what would change."""
    if query["dry_run"]:
        preview = call("ledger", "preview_correction", mismatch_id=mismatch_id, **body)
        return call("ledger", "get_mismatch", mismatch_id=mismatch_id) | {"preview": preview}
    return call("ledger", "correct_mismatch", mismatch_id=mismatch_id, **body)


@blueprint.post("/mismatches/<mismatch_id>/approve")
@needs("mismatches:admin")
@moves_money
@blueprint.arguments(ApprovalSchema)
@blueprint.response(200, MismatchDetailSchema)
def approve_correction(body: dict[str, Any], mismatch_id: str) -> Any:
    """Approve what somebody else proposed, which is thereby applied, once."""
    return call("ledger", "approve_correction", mismatch_id=mismatch_id, **body)


@blueprint.post("/mismatches/<mismatch_id>/reject")
@needs("mismatches:admin")
@blueprint.arguments(ReasonSchema)
@blueprint.response(200, MismatchDetailSchema)
def reject_correction(body: dict[str, Any], mismatch_id: str) -> Any:
    """Reject what somebody else proposed."""
    return call("ledger", "reject_correction", mismatch_id=mismatch_id, **body)


@blueprint.get("/corrections")
@needs("mismatches:read")
@blueprint.arguments(CorrectionQuery, location="query")
@blueprint.listing(CorrectionSchema)
def list_corrections(query: dict[str, Any]) -> Listing:
    """List corrections, newest first."""
    return listing("ledger", "list_corrections", **query)


@blueprint.get("/corrections/<correction_id>")
@needs("mismatches:read")
@blueprint.response(200, CorrectionSchema)
def get_correction(correction_id: str) -> Any:
    """Show a correction: what it changes, who proposed it and who decided."""
    return call("ledger", "get_correction", correction_id=correction_id)


@blueprint.post("/corrections/<correction_id>/reverse")
@needs("mismatches:admin")
@moves_money
@blueprint.arguments(ReasonSchema)
@blueprint.response(200, CorrectionSchema)
def reverse_correction(body: dict[str, Any], correction_id: str) -> Any:
    """Take a correction back by new entries, at once or when a second person approves."""
    return call("ledger", "reverse_correction", correction_id=correction_id, **body)
