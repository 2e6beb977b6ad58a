"""Settings owns the parameters: what can be set while the system runs, and every version of each value.

RPC: list_parameters, get_parameter, preview_parameter, list_parameter_versions, change_parameter,
roll_back_parameter.
Emits: ParameterChanged. Hears: nothing.
The registry of parameters stands in `shared/contracts/settings.py`.
"""
