"""Sample data for `up --demo`: what `simulators.sample_data` writes through the gateway's HTTP API."""

from operations.system import System


def fill(system: System) -> None:
    """Fill in the sample data, once."""
