"""Who and where this code is: ids of the job, node, worker and task that it runs in."""

from __future__ import annotations

from typing import Any, NoReturn

from detray.ids import node_name
from detray.options import UNIT
from detray.startup import node_labels, require


class RuntimeContext:
    """The job, node, worker and task of the code that asks. Ids are strings of hex digits."""

    def __init__(self, client: Any) -> None:  # Any: the client's class lives in the runtime
        self._client = client

    def get_job_id(self) -> str:
        """The number of the job, eight hex digits."""
        return f"{self._client.job:08x}"

    def get_node_id(self) -> str:
        """The node that this process is on."""
        return node_name(self._client.node)

    def get_worker_id(self) -> str:
        """This process: its number at the node, as 56 hex digits."""
        return f"{self._client.books.client & ((1 << 64) - 1):056x}"

    def get_task_id(self) -> str | None:
        """The task that runs here, None in a driver."""
        return self._client.current.task.hex() if self._client.is_worker else None

    def get_task_name(self) -> str | None:
        """The name of the task that runs here: its function's, or the option `name`."""
        return self._client.current.name if self._client.is_worker else None

    def get_task_function_name(self) -> str | None:
        """The same as `get_task_name` (detray names tasks after their functions)."""
        return self.get_task_name()

    def get_attempt_number(self) -> int:
        """How often the task that runs here was begun before."""
        return int(self._client.current.attempt)

    def get_actor_id(self) -> None:
        """None: actors come with a later version."""

    def get_actor_name(self) -> None:
        """None: actors come with a later version."""

    def get_placement_group_id(self) -> None:
        """None: placement groups come with a later version."""

    def get_assigned_resources(self) -> dict[str, float]:
        """What the task that runs here holds, by name; empty in a driver."""
        demand = getattr(self._client.current, "demand", ())
        return {name: amount / UNIT for name, amount in demand}

    def get_resource_ids(self) -> dict[str, list[str]]:
        """The same as `get_accelerator_ids`."""
        return self.get_accelerator_ids()

    def get_accelerator_ids(self) -> dict[str, list[str]]:
        """The devices that the task that runs here holds."""
        found: dict[str, list[str]] = {"GPU": []}
        for name, ids in self._client.current.units:
            found[name] = [str(number) for number in ids]
        return found

    def get_node_labels(self) -> dict[str, str]:
        """The labels of this node."""
        return node_labels(self._client.node)

    def get_runtime_env_string(self) -> str:
        """The environment of the task that runs here: none, as JSON."""
        return "{}"

    @property
    def runtime_env(self) -> dict[str, Any]:
        """The environment of the task that runs here: none."""
        return {}

    @property
    def namespace(self) -> str:
        """The namespace of the job."""
        from detray import startup

        here = startup._running
        return here.settings.namespace if here is not None else ""

    @property
    def gcs_address(self) -> str:
        """host:port of the cluster's head; "local" in a session of its own, and in a task."""
        from detray import startup

        here = startup._running
        return str(here.context["address"]) if here is not None else "local"

    @property
    def was_current_actor_reconstructed(self) -> bool:
        """False: actors come with a later version."""
        return False

    @property
    def should_capture_child_tasks_in_placement_group(self) -> bool:
        """False: placement groups come with a later version."""
        return False

    @property
    def current_actor(self) -> NoReturn:
        """Actors come with a later version."""
        raise RuntimeError("This method is only available in an actor.")

    @property
    def job_id(self) -> str:
        """As `get_job_id`."""
        return self.get_job_id()

    @property
    def node_id(self) -> str:
        """As `get_node_id`."""
        return self.get_node_id()

    @property
    def task_id(self) -> str | None:
        """As `get_task_id`."""
        return self.get_task_id()

    def get(self) -> dict[str, Any]:
        """The ids as a dict."""
        found: dict[str, Any] = {
            "job_id": self.get_job_id(),
            "node_id": self.get_node_id(),
            "namespace": self.namespace,
        }
        if self._client.is_worker:
            found["task_id"] = self.get_task_id()
        return found


def get_runtime_context() -> RuntimeContext:
    """The context of the code that calls. Starts a session if there is none."""
    return RuntimeContext(require())


def get_gpu_ids() -> list[int]:
    """Numbers of the GPUs that the task that runs here may use; in a driver, none."""
    client = require()
    return [int(number) for number in dict(client.current.units).get("GPU", ())]
