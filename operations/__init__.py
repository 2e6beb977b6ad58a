"""Everything that makes and runs an instance: servers, databases, keys, migrations, processes, commands.

`cli` is what `./countinghouse` hands over to. `system.System` is the same thing for programs and tests.
Nothing here is imported by a service or by the gateway.
"""
