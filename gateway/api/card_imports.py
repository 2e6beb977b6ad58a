"""Cards by file: a thousand made, or given to merchants, with a result for each row."""

from typing import Any

from gateway.blueprint import Blueprint
from gateway.rpc import call
from gateway.schemas.card_imports import CardImportQuery, CardImportSchema
from gateway.terms import needs, within
from gateway.uploads import csv_text, takes_csv

IMPORT_SECONDS_MAX = 60
EXAMPLE = (
    "number,bin,holder_name,currency,expiry,merchant_id,card_id\n"
    ",411111,Ada Lovelace,CNY,2029-05,mer_1,\n"
    ",,,,,mer_1,car_1\n"
)

blueprint = Blueprint("card_imports", __name__, description="Cards by file.")


@blueprint.post("/cards/import")
@needs("cards:operate")
@within(seconds=IMPORT_SECONDS_MAX)
@takes_csv(blueprint, example=EXAMPLE)
@blueprint.arguments(CardImportQuery, location="query")
@blueprint.response(200, CardImportSchema)
def import_cards(query: dict[str, Any]) -> Any:
    """Take in a CSV file of up to 1 000 cards to make, or to give to merchants; each row stands for itself."""
    return call("cards", "import_cards", text=csv_text(), **query)
