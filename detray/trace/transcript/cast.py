"""Who is who in a transcript: names of clients, tasks, objects and functions, and back from ids."""

from __future__ import annotations

from hashlib import blake2b

from detray.core.payloads import error_key, template_key
from detray.core.streams import Stream
from detray.ids import (
    OBJECT_ID_BYTES,
    TASK_ID_BYTES,
    ClientID,
    FunctionID,
    NodeID,
    ObjectID,
    TaskID,
    child_task,
    function_id,
    is_put,
    job_of,
    node_name,
    put_object,
    return_object,
)
from detray.trace.transcript.script import ScriptError

Attempt = tuple[TaskID, int]
GHOST = "f" * 56
"""The id of a node that never was."""


class Cast:
    """Two-way tables of names; `streams` mint the ids that real clients would."""

    def __init__(self) -> None:
        self.tasks: dict[str, TaskID] = {}
        self.objects: dict[str, ObjectID] = {}
        self.functions: dict[str, FunctionID] = {}
        self.streams: dict[Attempt, Stream] = {}
        self._names: dict[bytes, str] = {}
        self._keys: dict[bytes, str] = {}
        self._nodes: dict[NodeID, str] = {}

    # -------------------------------------------------------------- nodes

    def name_node(self, number: NodeID, name: str) -> None:
        """Remember a node; a later life of the same machine gets a prime."""
        while name in self._nodes.values():
            name += "'"
        self._nodes[number] = name

    def node_number(self, name: str) -> NodeID:
        """The number of a node by its name."""
        for number, known in self._nodes.items():
            if known == name:
                return number
        raise ScriptError(f"{name}: no such node")

    def has_node(self, number: NodeID) -> bool:
        """True if the node of this number has a name."""
        return number in self._nodes

    def node_name(self, number: NodeID) -> str:
        """a, b, and b' for what came after b; numbers where nobody has names."""
        return self._nodes.get(number, str(number))

    # -------------------------------------------------------------- clients

    def client(self, name: str) -> ClientID:
        """Workers w1, w2 count up; drivers d1 and observers o2 count down."""
        kind, digits = name[:1], name[1:]
        if kind not in "wdo" or not digits.isdigit():
            raise ScriptError(f"{name}: not a client (w1, d1, o2)")
        return ClientID(int(digits) if kind == "w" else -int(digits))

    def name_client(self, name: str) -> ClientID:
        """Remember how a driver or observer is called."""
        client = self.client(name)
        self._names[b"client%d" % client] = name
        return client

    def client_name(self, client: ClientID) -> str:
        """w1, d1, o2."""
        if client > 0:
            return f"w{client}"
        return self._names.get(b"client%d" % client, f"d{-client}")

    # -------------------------------------------------------------- tasks and objects

    def stream(self, parent: TaskID, attempt: int, depth: int) -> Stream:
        """The counters of what this attempt creates on its executing thread."""
        key = (parent, attempt)
        if key not in self.streams:
            self.streams[key] = Stream(parent, attempt, 0, depth)
        return self.streams[key]

    def new_task(self, name: str, stream: Stream, returns: int) -> TaskID:
        """Name the next child of a stream, and its returns: a, a.1, a.2."""
        task = child_task(stream.prefix or stream.name(), stream.tasks)
        stream.tasks += 1
        self._new(name, task)
        self.tasks[name] = task
        self._keys[task] = f"arguments of {name}"
        for index in range(max(1, returns)):
            self._new_object(f"{name}.{index}" if index else name, return_object(task, index))
        for attempt in range(8):
            mark = f", attempt {attempt}" if attempt else ""
            self._keys[error_key(task, attempt)] = f"the error of {name}{mark}"
        return task

    def new_put(self, name: str, stream: Stream) -> ObjectID:
        """Name the next put of a stream."""
        item = stream.next_put()
        self._new_object(name, item)
        return item

    def new_function(self, name: str, stream: Stream) -> FunctionID:
        """Name the next exported definition of a stream."""
        function = self.functions[name] = stream.next_export()
        self._new(f"function {name}", function)
        return function

    def note_template(self, number: int, name: str) -> None:
        """Remember a template's payload key."""
        self._keys[template_key(number)] = f"the exceptions of {name}"

    def _new(self, name: str, item: bytes) -> None:
        if item in self._names or name in self.tasks or name in self.objects:
            raise ScriptError(f"{name}: the name, or the id, is taken")
        self._names[item] = name

    def _new_object(self, name: str, item: ObjectID) -> None:
        if name in self.objects:
            raise ScriptError(f"{name}: the name is taken")
        self._names[item] = name
        self.objects[name] = item

    # -------------------------------------------------------------- what others made

    def foreign_task(self, name: str) -> TaskID:
        """A task that a core is told of and nobody here submits: its id comes from its name.

        `x@2` is one of job 2.
        """
        task = child_task(_foreign_prefix(name), 0)
        self._new(name, task)
        self.tasks[name] = task
        self._keys[task] = f"arguments of {name}"
        if name not in self.objects:
            self._new_object(name, return_object(task, 0))
        for attempt in range(8):
            mark = f", attempt {attempt}" if attempt else ""
            self._keys[error_key(task, attempt)] = f"the error of {name}{mark}"
        return task

    def foreign_object(self, name: str) -> ObjectID:
        """A return (`x`, `x.1`) or a put (`x.put`) of nobody here, or another return of a task."""
        base, _, index = name.rpartition(".")
        if index == "put":
            item = put_object(_foreign_prefix(name), 0)
            self._new_object(name, item)
            return item
        if not index.isdigit() or not base:
            base, index = name, "0"
        if base not in self.tasks:
            self.foreign_task(base)
        item = return_object(self.tasks[base], int(index))
        if name not in self.objects:
            self._new_object(name, item)
        return item

    def foreign_function(self, name: str) -> FunctionID:
        """A function of nobody here."""
        function = self.functions[name] = function_id(_foreign_prefix(name), 0)
        self._new(f"function {name}", function)
        return function

    # -------------------------------------------------------------- looking up

    def task(self, name: str) -> TaskID:
        """The task of this name."""
        if name not in self.tasks:
            raise ScriptError(f"{name}: no such task")
        return self.tasks[name]

    def object(self, name: str) -> ObjectID:
        """The object of this name; `unknown` was never heard of."""
        if name == "unknown":
            return ObjectID(bytes(20))
        if name not in self.objects and not self.is_return(name):
            raise ScriptError(f"{name}: no such object")
        return self.objects.get(name) or self.foreign_object(name)

    def is_return(self, name: str) -> bool:
        """True for what a task that is known returns: `a.2`."""
        base, _, index = name.rpartition(".")
        return base in self.tasks and index.isdigit()

    def all_objects(self, names: list[str]) -> tuple[ObjectID, ...]:
        """The objects of these names."""
        return tuple(self.object(name) for name in names)

    def name(self, item: bytes) -> str:
        """What a task, object or function is called."""
        known = self._names.get(item)
        if known is None and len(item) == OBJECT_ID_BYTES and not is_put(ObjectID(item)):
            known = self._names.get(item[:TASK_ID_BYTES])
            known = known and f"{known}.{int.from_bytes(item[TASK_ID_BYTES:], 'big')}"
        return known or ("unknown" if not any(item) else item.hex())

    def task_name(self, item: TaskID) -> str:
        """A task; "root" is the program of job 1 itself, "root@2" that of job 2."""
        if item and not any(item[4:]):
            job = job_of(item)
            return "root" if job == 1 else f"root@{job}"
        return self.name(item) if item else "none"

    def object_name(self, item: ObjectID) -> str:
        """An object."""
        return self.name(item) if item else "none"

    def function_name(self, item: FunctionID) -> str:
        """A function, by the name that it has here."""
        found = (name for name, known in self.functions.items() if known == item)
        return next(found, item.hex())

    def knows(self, item: bytes) -> bool:
        """True if something has been given a name."""
        return item in self._names

    def learn(self, name: str, item: bytes) -> None:
        """Remember an id that was made elsewhere."""
        if len(item) == OBJECT_ID_BYTES:
            self.objects[name] = ObjectID(item)
        else:
            self.tasks[name] = TaskID(item)
        self._names[item] = name

    def key_name(self, key: bytes) -> str:
        """What payload bytes kept under `key` are."""
        if key in self._keys:
            return self._keys[key]
        if key in self._names:
            return self._names[key]
        if key[:1] == b"T" and len(key) < 16:
            return self._shipped_name(key)
        attempt = int.from_bytes(key[20:24], "big")
        return f"{self.name(key[:20])} of attempt {attempt}"

    def _shipped_name(self, key: bytes) -> str:
        """The key of another node's template: as it arrives there, and as it is kept."""
        if len(key) == 9:
            return f"the exceptions of shipped template {int.from_bytes(key[1:], 'big') & 0xFFFF}"
        number = f"the exceptions of template {int.from_bytes(key[5:], 'big') & 0xFFFF}"
        shipped = self._keys.get(key[:1] + key[5:], number)
        return f"{shipped} of {self.node_name(NodeID(key[4]))}"

    def symbolic(self, text: str) -> str:
        """A text of the core with names where it has ids in hexadecimal."""
        for number, name in self._nodes.items():
            text = text.replace(node_name(number), name)
        for item, name in sorted(self._names.items(), key=lambda entry: -len(entry[0])):
            text = text.replace(item.hex(), name)
        return text.replace(GHOST, "ghost")


def _foreign_prefix(name: str) -> bytes:
    """The first twelve bytes of the ids of what is called so."""
    job = name.partition(".")[0].partition("@")[2]
    number = int(job) if job.isdigit() else 1
    return number.to_bytes(4, "big") + blake2b(b"told " + name.encode(), digest_size=8).digest()
