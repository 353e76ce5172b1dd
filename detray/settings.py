"""The keywords of `init`: which there are, what they may be, and the boot order made of them.

Programs written for Ray pass many: each has a meaning, is accepted because nothing follows from it
here, or is refused by an error that names it and says what to do.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from detray import machine, options

PROCESSES = "processes"
"""The engine that nobody has to ask for."""
_KEEPING_PAYLOADS = (PROCESSES, "sim")
AUTO, LOCAL = "auto", "local"
"""Addresses that are none: whatever cluster runs here; a session of its own."""
DEFAULTS: dict[str, Any] = {
    "num_cpus": None,
    "num_gpus": None,
    "resources": None,
    "labels": None,
    "memory": None,
    "object_store_memory": None,
    "namespace": None,
    "log_to_driver": None,
    "ignore_reinit_error": False,
    "infeasible": "wait",
    "record": None,
    "record_payloads": False,
    "engine": None,
    "local_mode": False,
    "runtime_env": None,
    "configure_logging": True,
    "logging_level": None,
    "logging_format": None,
    "logging_config": None,
    "include_dashboard": None,
    "dashboard_host": "127.0.0.1",
    "dashboard_port": None,
    "job_config": None,
    "enable_resource_isolation": False,
    "object_spilling_directory": None,
    "_temp_dir": None,
    "_memory": None,
    "_node_name": None,
    "_node_ip_address": None,
    "_system_config": None,
    "_driver_object_store_memory": None,
    "_enable_object_reconstruction": False,
    "_metrics_export_port": None,
    "_redis_password": None,
    "_redis_username": None,
    "_tracing_startup_hook": None,
    "_plasma_directory": None,
}
"""Every keyword and its default; None: found out, or nothing."""

_OF_NODES = (
    "num_cpus",
    "num_gpus",
    "resources",
    "labels",
    "memory",
    "_memory",
    "object_store_memory",
    "infeasible",
    "record",
    "record_payloads",
)
"""Keywords that describe a node, and make no sense where one is joined."""


class Settings:
    """What `init` was told, checked, with the machine's facts filled in."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.ignore_reinit_error: bool = values["ignore_reinit_error"]
        self.namespace: str = values["namespace"] or ""
        self.infeasible: str = values["infeasible"]
        self.record: str = os.fspath(values["record"]) if values["record"] else ""
        self.record_payloads: bool = values["record_payloads"]
        self.log_to_driver = _log_to_driver(values["log_to_driver"])
        self.node_name: str = values["_node_name"] or ""
        self.address: str = values["address"]
        """host:port, "auto", "local", or "": what runs here, else a session of its own."""
        self.labels: dict[str, str] = values["labels"] or {}
        self.sys_path = [os.path.abspath(path) if path else os.getcwd() for path in sys.path]
        self.engine, self.engine_options = _engine(values)
        self._values = values

    def totals(
        self, host: str = "127.0.0.1", is_beside_head: bool = True
    ) -> tuple[tuple[str, int], ...]:
        """The node's resources in 1/10,000 units, sorted by name; `host` is where it is."""
        values = self._values
        total = machine.memory_bytes()
        cpus, gpus = values["num_cpus"], values["num_gpus"]
        amounts: dict[str, float] = dict(values["resources"] or {})
        amounts["CPU"] = machine.count_cpus() if cpus is None else cpus
        amounts["GPU"] = machine.count_gpus() if gpus is None else gpus
        memory = values["memory"] or values["_memory"]
        amounts["memory"] = int(memory) if memory else max(0, total - self.store_bytes())
        amounts[f"node:{host}"] = 1
        if is_beside_head:
            amounts["node:__internal_head__"] = 1
        return tuple(
            sorted(
                (name, options.units(name, amount)) for name, amount in amounts.items() if amount
            )
        )

    def store_bytes(self) -> int:
        """Size of the object store, in bytes: whole pages."""
        wanted = self._values["object_store_memory"]
        if wanted is None:
            return machine.default_store_bytes(machine.memory_bytes())
        return int(wanted) & -4096

    def check_joining(self, where: str) -> None:
        """Refuse what describes a node, now that one is joined which runs already.

        Raises ValueError, as Ray does.
        """
        given = [name for name in _OF_NODES if self._values[name] != DEFAULTS[name]]
        if given:
            raise ValueError(
                "When connecting to an existing cluster, num_cpus, num_gpus, resources and what "
                f"else belongs to a node must not be provided: {', '.join(given)}. They are given "
                f"to `detray start`, and the node at {where} runs already. Leave them out, or say "
                "address='local' for a session of your own"
            )

    def configure_logging(self) -> None:
        """Set level and format of the logger "detray", if the program asked for either."""
        level, style = self._values["logging_level"], self._values["logging_format"]
        if not self._values["configure_logging"] or (level is None and style is None):
            return
        import logging

        logger = logging.getLogger("detray")
        if level is not None:
            logger.setLevel(level.upper() if isinstance(level, str) else level)
        if style is not None:
            handler = logging.StreamHandler()
            handler.setFormatter(logging.Formatter(style))
            logger.handlers = [handler]

    def whole_cpus(self) -> int:
        """How many tasks of one CPU may run at once."""
        return dict(self.totals()).get("CPU", 0) // options.UNIT


def read_settings(address: str | None, given: dict[str, Any]) -> Settings:
    """Check what `init` was called with. Raises as `init` says."""
    values = {**DEFAULTS, **given}
    unknown = sorted(set(given) - set(DEFAULTS))
    if unknown and _engine(values)[0] == PROCESSES:  # Others take keywords of their own.
        raise RuntimeError(
            f"Unknown keyword argument(s): {', '.join(unknown)}. "
            f"{options.meant(unknown[0], DEFAULTS)}Valid ones are {options.public(DEFAULTS)}"
        )
    values["address"] = _address(address, _engine(values)[0])
    for name, refuse in _REFUSED.items():
        refuse(name, values[name])
    for name in ("num_cpus", "num_gpus", "memory", "_memory", "object_store_memory"):
        _check_amount(name, values[name])
    if values["resources"] is not None:
        options.check_resources(values["resources"])
    store = values["object_store_memory"]
    if store is not None and store < machine.STORE_MIN_BYTES:
        raise ValueError(
            f"object_store_memory={store} is too small: the least is {machine.STORE_MIN_BYTES} "
            "bytes (75 MiB)"
        )
    _check_labels(values["labels"])
    _check_record(values["record"])
    _check_payloads(values["record_payloads"], _engine(values)[0])
    if values["include_dashboard"]:
        import warnings

        warnings.warn(
            "detray has no dashboard. `detray status` in another terminal, detray.timeline() and "
            "detray.graph() show what happens",
            stacklevel=3,
        )
    if values["namespace"] is not None and not isinstance(values["namespace"], str):
        raise TypeError(f"namespace must be a str, not {values['namespace']!r}")
    if values["infeasible"] not in ("wait", "raise"):
        raise ValueError(f"infeasible must be 'wait' or 'raise', not {values['infeasible']!r}")
    return Settings(values)


def _engine(values: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name of the engine, and the keywords that only it knows.

    `local_mode` is the simulator's plainest case: one node, nothing left to chance.
    """
    name = values["engine"] or os.environ.get("DETRAY_ENGINE") or PROCESSES
    if not isinstance(name, str):
        raise TypeError(f"engine must be the name of one, not {name!r}")
    known = {*DEFAULTS, "address"}
    own = {key: value for key, value in values.items() if key not in known}
    if values["local_mode"]:
        return "sim", {"nodes": 1, "jitter_ns": 0, **own}
    return name, own


def _address(given: str | None, engine: str) -> str:
    """Where to go, from the argument or the environment; "" if nobody says."""
    if given is not None and not isinstance(given, str):
        raise TypeError(f"address must be a str, not {given!r}")
    address = given
    if not address and engine == PROCESSES:
        address = os.environ.get("DETRAY_ADDRESS") or os.environ.get("RAY_ADDRESS")
    address = address or ""
    if "://" in address:
        raise NotImplementedError(
            f"address={address!r}: detray has no client that works from outside of a cluster. Run "
            "the program on one of its machines, with address='auto' or HOST:PORT"
        )
    if engine != PROCESSES and address not in ("", LOCAL):
        raise NotImplementedError(
            f"address={address!r}: the engine {engine!r} joins no cluster. Leave the address out"
        )
    return address


def _check_amount(name: str, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, not {value!r}")
    if not 0 <= value < 1 << 50:
        raise ValueError(f"{name} must be 0 or more, not {value!r}")
    if name in ("num_cpus", "num_gpus") and value != int(value):
        raise ValueError(f"{name} must be whole: the node has {name[4:]} or has not, not {value!r}")


def _check_labels(labels: Any) -> None:
    if labels is None:
        return
    if not isinstance(labels, dict):
        raise TypeError(f"labels must be a dict of str to str, not {labels!r}")
    for key, value in labels.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"labels must be a dict of str to str, not with {key!r}: {value!r}")
        if key.startswith("ray.io/"):
            raise ValueError(f"label {key!r}: the prefix 'ray.io/' is reserved")


def _check_record(record: Any) -> None:
    """Refuse now what the service could only report later: a run that was not recorded."""
    if not record:
        return
    if not isinstance(record, str | os.PathLike):
        raise TypeError(f"record must be the path of a file, not {record!r}")
    path = os.path.abspath(os.fspath(record))
    directory = os.path.dirname(path)
    if os.path.isdir(path):
        raise IsADirectoryError(f"record={record!r} is a directory: name a file, such as run.trace")
    if not os.path.isdir(directory):
        raise FileNotFoundError(
            f"record={record!r}: there is no directory {directory!r}. Make it first"
        )
    if not os.access(path if os.path.exists(path) else directory, os.W_OK):
        raise PermissionError(f"record={record!r}: you may not write there. Name another path")


def _check_payloads(wanted: Any, engine: str) -> None:
    """Refuse what would be kept by nobody: engines of others write no payloads."""
    if not isinstance(wanted, bool):
        raise TypeError(f"record_payloads must be True or False, not {wanted!r}")
    if wanted and engine not in _KEEPING_PAYLOADS:
        raise NotImplementedError(
            f"record_payloads=True: the engine {engine!r} keeps no arguments and values. Leave it "
            f"out, or name one that does: {', '.join(_KEEPING_PAYLOADS)}"
        )


def _log_to_driver(value: bool | None) -> bool:
    if value is not None:
        return bool(value)
    for name in ("DETRAY_LOG_TO_DRIVER", "RAY_LOG_TO_DRIVER"):
        if name in os.environ:
            return os.environ[name] not in ("0", "false", "False", "")
    return True


def _later(what: str) -> Callable[[str, Any], None]:
    def refuse(name: str, value: Any) -> None:
        if value:
            raise NotImplementedError(f"init({name}={value!r}): {what}")

    return refuse


_REFUSED: dict[str, Callable[[str, Any], None]] = {
    "runtime_env": _later(
        "runtime environments come with a later version of detray. Set environment variables and "
        "sys.path before detray.init(): workers inherit both"
    ),
    "enable_resource_isolation": _later("cgroups are not used by this version of detray"),
}
