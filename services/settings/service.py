"""The settings service on the bus: each method is one transaction around one use case or query."""

from typing import Any

from sqlalchemy.orm import Session

from services.settings import queries, usecases
from shared.contracts.settings import ParameterPreview, ParameterView
from shared.database import Database
from shared.paging import Page
from shared.passport import Passport
from shared.rpc.entrypoints import command, query


class SettingsService:
    """Parameters, their versions, and what a change would reach."""

    name = "settings"

    database = Database()

    @query("settings:read")
    def list_parameters(self, session: Session, passport: Passport, **page: Any) -> Page:
        return queries.list_parameters(session, **page)

    @query("settings:read")
    def get_parameter(self, session: Session, passport: Passport, *, key: str) -> ParameterView:
        return queries.get_parameter(session, key=key)

    @query("settings:read")
    def preview_parameter(self, session: Session, passport: Passport, *, key: str, value: Any) -> ParameterPreview:
        return queries.preview_parameter(session, key=key, value=value)

    @query("settings:read")
    def list_parameter_versions(
        self, session: Session, passport: Passport, *, key: str, limit: int, cursor: str | None = None
    ) -> Page:
        return queries.list_parameter_versions(session, key=key, limit=limit, cursor=cursor)

    @command("settings:admin")
    def change_parameter(self, session: Session, passport: Passport, **arguments: Any) -> ParameterView:
        return usecases.change_parameter(session, passport, **arguments)

    @command("settings:admin")
    def roll_back_parameter(self, session: Session, passport: Passport, **arguments: Any) -> ParameterView:
        return usecases.roll_back_parameter(session, passport, **arguments)
