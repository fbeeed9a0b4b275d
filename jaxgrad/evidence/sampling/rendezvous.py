"""How the processes of a run find each other.

The first listens at HOST:PORT, and the others report there.
"""

import contextlib
import json
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PATIENCE = 5.0
"""Seconds within which who connects must say who it is, lest a stranger that says nothing keep the
others out.
"""


@dataclass(frozen=True)
class Place:
    """Where a process stands in a run of several.

    Attributes:
        coordinator: HOST:PORT of the first process.
        count: number of processes.
        index: number of this process, from 0.
        task: hash of what the process is going to do, which must be the same in all.
    """

    coordinator: str
    count: int
    index: int
    task: str = field(default="", repr=False)


def place(
    coordinator: str | None,
    count: int | None,
    index: int | None,
    environment: Mapping[str, str] = os.environ,
) -> Place | None:
    """Return the place that the options, or SLURM, give this process; None if it runs alone.

    Raises:
        ValueError: when only some of the options are given, or one is out of range.

    >>> place("node1:4000", 2, 1, {})
    Place(coordinator='node1:4000', count=2, index=1)
    """
    given = {"--coordinator": coordinator, "--num-processes": count, "--process-id": index}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == 3:
        return _slurm(environment)
    if missing:
        there = " and ".join(name for name in given if name not in missing)
        raise ValueError(
            f"`{there}` asks for a run of several processes, but {' and '.join(missing)} is "
            f"missing; give all three"
        )
    assert coordinator is not None and count is not None and index is not None
    host, colon, port = coordinator.rpartition(":")
    if not (colon and host and port.isdecimal() and 0 < int(port) < 2**16):
        raise ValueError(
            f"`--coordinator` must be HOST:PORT, such as node1:4000, but is {coordinator!r}"
        )
    if not 0 <= index < count:
        raise ValueError(
            f"`--process-id` must be at least 0 and less than `--num-processes` {count}, but is "
            f"{index}"
        )
    return Place(coordinator, count, index) if count > 1 else None


def _slurm(environment: Mapping[str, str]) -> Place | None:
    """Read SLURM's variables: the first node, and a port that follows from the job's number."""
    names = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
    if any(name not in environment for name in names):
        return None
    for name in ("SLURM_JOB_ID", "SLURM_NTASKS", "SLURM_PROCID"):
        if not environment[name].isdecimal():
            raise ValueError(
                f"{name} is {environment[name]!r} in the environment, but must be a whole number; "
                f"start with srun, or unset it"
            )
    if int(environment["SLURM_NTASKS"]) < 2:
        return None
    nodes = environment["SLURM_STEP_NODELIST"]
    prefix, bracket, numbers = nodes.partition("[")
    first = (
        nodes.split(",")[0]
        if not bracket or "," in prefix
        else prefix + numbers.replace("]", ",").replace("-", ",").split(",")[0]
    )
    port = int(environment["SLURM_JOB_ID"]) % 2**12 + 2**16 - 2**12
    return Place(
        f"{first}:{port}", int(environment["SLURM_NTASKS"]), int(environment["SLURM_PROCID"])
    )


class Line:
    """A connection over which messages go, one JSON object a line."""

    def __init__(self, connection: socket.socket) -> None:
        """Take over an open connection."""
        self.connection, self.lines = (
            connection,
            connection.makefile("r", encoding="utf-8", errors="replace"),
        )

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message, to whom may be there no more."""
        with contextlib.suppress(OSError):
            self.connection.sendall((json.dumps(message) + "\n").encode())

    def close(self) -> None:
        """Close the connection."""
        self.lines.close()
        self.connection.close()

    def receive(self, deadline: float) -> dict[str, Any]:
        """Return the next message, or an empty one."""
        self.connection.settimeout(max(deadline - time.monotonic(), 0.1))
        try:
            message = json.loads(self.lines.readline(4096))
        except (OSError, ValueError):
            return {}
        self.connection.settimeout(None)
        return message if isinstance(message, dict) else {}


def gather(where: Place, host: str, port: int, deadline: float) -> dict[int, Any]:
    """Wait for the others; tell each where JAX's coordinator will be, and its rank there."""
    streams: dict[int, Line] = {}
    machines: dict[int, Any] = {0: socket.gethostname()}
    refused = ""
    try:
        server = (
            socket.create_server((host, port))
            if _is_local(host)
            else socket.create_server(("", port))
        )
    except OSError as error:
        raise ValueError(
            f"`--coordinator` {where.coordinator} cannot be listened at: {error.strerror}; choose "
            f"another port"
        ) from None
    with server:
        while len(streams) < where.count - 1 and not refused:
            server.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                connection, _ = server.accept()
            except TimeoutError:
                away = ", ".join(str(i) for i in range(1, where.count) if i not in streams)
                refused = (
                    f"of {where.count} processes {away} did not come in time; start them, "
                    f"or lower `--num-processes`"
                )
                break
            stream = Line(connection)
            hello = stream.receive(min(deadline, time.monotonic() + PATIENCE))
            index = hello.get("index")
            if not isinstance(index, int):
                stream.close()  # not one of us
                continue
            if hello.get("count") != where.count:
                refused = (
                    f"`--num-processes` is {where.count} for process 0, but "
                    f"{hello.get('count')} for process {index}; make them equal"
                )
            elif hello.get("task") != where.task:
                refused = (
                    f"process {index} was started with other derivations, options or "
                    f"versions than process 0; make them equal"
                )
            elif index in machines:
                refused = f"`--process-id` {index} was given to two processes; give each its own"
                index = -index - 2  # answered too
            streams[index], machines[index] = stream, hello.get("machine")
    with socket.create_server((host if _is_local(host) else "", 0)) as probe:
        address = f"{host}:{probe.getsockname()[1]}"
    ranks = {i: [j for j in sorted(machines) if machines[j] == machines[i]] for i in machines}
    for index, stream in streams.items():
        told = {"address": address, "rank": ranks[index].index(index), "beside": len(ranks[index])}
        stream.send({"refused": refused} if refused else told)
    if refused:
        for stream in streams.values():
            stream.close()
        raise ValueError(refused)
    return {**streams, -1: (address, 0, len(ranks[0]))}


def report(where: Place, host: str, port: int, deadline: float) -> dict[int, Any]:
    """Report to the first process, and learn where JAX's coordinator is."""
    reason = "no answer"
    while time.monotonic() < deadline:
        try:
            stream = Line(
                socket.create_connection(
                    (host, port), timeout=max(deadline - time.monotonic(), 0.1)
                )
            )
            break
        except OSError as error:
            reason = error.strerror or str(error)
            time.sleep(0.2)
    else:
        raise ValueError(
            f"`--coordinator` {where.coordinator} does not answer ({reason}); is process 0 "
            f"running there, and is the port open?"
        )
    stream.send(
        {
            "index": where.index,
            "count": where.count,
            "machine": socket.gethostname(),
            "task": where.task,
        }
    )
    told = stream.receive(deadline + 5)
    if "address" not in told:
        stream.close()
        foreign = (
            f"`--coordinator` {where.coordinator} does not answer as jaxgrad does; is it "
            f"another program?"
        )
        raise ValueError(told.get("refused") or foreign)
    return {0: stream, -1: (told["address"], told["rank"], told["beside"])}


def _is_local(host: str) -> bool:
    return host in ("localhost", "127.0.0.1", "::1")
