"""What the platform that is being asked consists of."""

from flask import Flask, current_app

from simulators.payment_platform.delivery import Courier
from simulators.payment_platform.faults import Fault, Faults
from simulators.payment_platform.state import Platform

_EXTENSION = "platform"


def install(app: Flask, secret: str) -> None:
    """Make an app a platform that signs and checks by this secret."""
    parts = {"secret": secret, "state": Platform(), "faults": Faults(), "courier": Courier(secret)}
    app.extensions[_EXTENSION] = parts


def state() -> Platform:
    """Return what this platform knows."""
    known: Platform = current_app.extensions[_EXTENSION]["state"]
    return known


def faults() -> Faults:
    """Return the faults in force."""
    in_force: Faults = current_app.extensions[_EXTENSION]["faults"]
    return in_force


def faults_of_callbacks(account: str) -> dict[str, Fault]:
    """Use up what was ordered for the next callback of an account."""
    return faults().take("callback", account)


def courier() -> Courier:
    """Return who delivers callbacks."""
    known: Courier = current_app.extensions[_EXTENSION]["courier"]
    return known


def secret() -> str:
    """Return the secret of this platform."""
    return str(current_app.extensions[_EXTENSION]["secret"])
