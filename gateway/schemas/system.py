"""How the gateway and the services say that they are well."""

from gateway.schemas import fields
from gateway.schemas.base import Schema


class HealthSchema(Schema):
    """This process is alive."""

    status = fields.Word(["ok"], required=True)


class ReadinessSchema(Schema):
    """Whether the bus and each service answer."""

    is_ready = fields.Boolean(required=True)
    bus = fields.Boolean(required=True, metadata={"description": "Whether the message bus answers."})
    services = fields.Dict(
        keys=fields.Text(),
        values=fields.Dict(),
        required=True,
        metadata={"description": "By service: `is_ready`, and what it says of its database and its outbox."},
    )


class OperationSchema(Schema):
    """One thing that a level opens."""

    operation_id = fields.Text(required=True)
    method = fields.Text(required=True)
    path = fields.Text(required=True)
    summary = fields.Text(required=True)


class LevelSchema(Schema):
    """A level of a module, and the operations that it opens beyond the level below."""

    level = fields.Text(required=True)
    operations = fields.List(fields.Nested(OperationSchema), required=True)


class ModuleSchema(Schema):
    """A module and its levels, from the least to the most."""

    module = fields.Text(required=True)
    levels = fields.List(fields.Nested(LevelSchema), required=True)


class PermissionCatalogueSchema(Schema):
    """Every permission that there is."""

    items = fields.List(fields.Nested(ModuleSchema), required=True)
