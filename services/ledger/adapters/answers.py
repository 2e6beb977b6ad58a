"""What asking a platform needs and gives."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from services.ledger.domain.channels import ASKABLE_KINDS, CALLBACK_SECRETS
from services.ledger.domain.payments import Payment


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel with its secrets open, as only this process holds it."""

    code: str
    name: str
    kind: str
    config: Mapping[str, Any]
    secrets: Mapping[str, Any] = field(repr=False)

    @property
    def is_askable(self) -> bool:
        """Whether its platform can be asked."""
        return self.kind in ASKABLE_KINDS

    @property
    def statuses(self) -> Mapping[str, str]:
        """The platform's words for statuses, to ours."""
        words: Mapping[str, str] = self.config.get("statuses", {})
        return words

    @property
    def callback_secrets(self) -> list[str]:
        """The secrets that sign callbacks."""
        return list(self.secrets.get(CALLBACK_SECRETS, []))


@dataclass(frozen=True, slots=True)
class Answer:
    """What a platform answered, raw and read. `fault` says why it was not understood, or that there was none."""

    payments: tuple[Payment, ...] = ()
    status_code: int | None = None
    body: bytes = b""
    fault: str | None = None
