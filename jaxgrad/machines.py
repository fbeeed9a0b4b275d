"""A run shared by several processes, on one machine or many, by JAX's distributed runtime.

The first process listens at HOST:PORT. The others report there, are told where JAX's own coordinator is, and keep the
connection open for as long as they live: it is by its closing that a lost process is noticed at once, where the runtime would wait
for a collective that never ends. The survivors then say which process was lost, and end with the status `LOST`.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

LOST = 4
"""Exit status where another process of the run was lost."""
TIMEOUT = 60.0
"""Seconds within which all processes must have come."""
SILENCE = 40
"""Seconds after which a machine that answers nothing counts as lost."""


@dataclass(frozen=True)
class Place:
    """Where a process stands in a run of several.

    Attributes:
        coordinator: HOST:PORT of the first process.
        count: number of processes.
        index: number of this process, from 0.
    """

    coordinator: str
    count: int
    index: int


def place(coordinator: str | None, count: int | None, index: int | None, environment: Mapping[str, str] = os.environ) -> Place | None:
    """Return the place that the options, or SLURM, give this process; None for a run of one process.

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
        raise ValueError(f"`{there}` asks for a run of several processes, but {' and '.join(missing)} is missing; give all three")
    assert coordinator is not None and count is not None and index is not None
    host, colon, port = coordinator.rpartition(":")
    if not (colon and host and port.isdecimal() and 0 < int(port) < 2**16):
        raise ValueError(f"`--coordinator` must be HOST:PORT, such as node1:4000, but is {coordinator!r}")
    if not 0 <= index < count:
        raise ValueError(f"`--process-id` must be at least 0 and less than `--num-processes` {count}, but is {index}")
    return Place(coordinator, count, index) if count > 1 else None


def _slurm(environment: Mapping[str, str]) -> Place | None:
    """Read the step's variables as `jax.distributed` does: the first node, and a port that follows from the job's number."""
    names = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
    if any(name not in environment for name in names):
        return None
    for name in ("SLURM_JOB_ID", "SLURM_NTASKS", "SLURM_PROCID"):
        if not environment[name].isdecimal():
            raise ValueError(
                f"{name} is {environment[name]!r} in the environment, but must be a whole number; start with srun, or unset it"
            )
    if int(environment["SLURM_NTASKS"]) < 2:
        return None
    nodes = environment["SLURM_STEP_NODELIST"]
    prefix, bracket, numbers = nodes.partition("[")
    first = nodes.split(",")[0] if not bracket or "," in prefix else prefix + numbers.replace("]", ",").replace("-", ",").split(",")[0]
    port = int(environment["SLURM_JOB_ID"]) % 2**12 + 2**16 - 2**12
    return Place(f"{first}:{port}", int(environment["SLURM_NTASKS"]), int(environment["SLURM_PROCID"]))


class _Line:
    """A connection over which messages go, one JSON object a line."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (("TCP_KEEPIDLE", SILENCE // 4), ("TCP_KEEPINTVL", SILENCE // 8), ("TCP_KEEPCNT", 6)):
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self.connection, self.lines = connection, connection.makefile("r", encoding="utf-8", errors="replace")

    def send(self, message: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError):
            self.connection.sendall((json.dumps(message) + "\n").encode())

    def close(self) -> None:
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


class Membership:
    """This process's part in a run of several; joins, and watches over the others until it leaves.

    Args:
        where: its place.
        timeout: seconds within which all must have come.

    Raises:
        ValueError: when the coordinator does not answer, processes do not come or do not fit together, or there are more
            processes than devices.
    """

    def __init__(self, where: Place, timeout: float = TIMEOUT) -> None:
        """Meet the others, start JAX's runtime, and watch."""
        self.where, self.leaving, self.gone = where, False, set[int]()
        deadline = time.monotonic() + timeout
        host, _, port = where.coordinator.rpartition(":")
        self.peers = _gather(where, host, int(port), deadline) if where.index == 0 else _report(where, host, int(port), deadline)
        address, rank, beside = self.peers.pop(-1)
        with _no_output():
            self._start(address, local_device_ids=[rank] if beside > 1 else None, timeout=timeout)
            agree(b"here")  # connects all with all
        for peer, stream in self.peers.items():
            threading.Thread(target=self._watch, args=(peer, stream), daemon=True).start()
        global _current
        _current = self

    def _start(self, address: str, local_device_ids: list[int] | None, timeout: float) -> None:
        where = self.where
        jax.distributed.initialize(
            address, where.count, where.index, local_device_ids=local_device_ids, cluster_detection_method="deactivate",
            initialization_timeout=max(10, int(timeout)), heartbeat_timeout_seconds=SILENCE,
        )  # fmt: skip
        try:
            missing = jax.local_device_count() == 0
        except RuntimeError as error:
            raise ValueError(_too_many(where, f" ({str(error).splitlines()[0]})")) from None
        if missing or jax.device_count() < where.count:
            raise ValueError(_too_many(where, ""))

    def _watch(self, peer: int, stream: _Line) -> None:
        with contextlib.suppress(OSError, ValueError):
            for line in stream.lines:
                message = json.loads(line)
                if message.get("bye"):
                    self.gone.add(peer)
                elif "lost" in message:
                    self._end(message["lost"])
        if peer not in self.gone and not self.leaving:
            self._end(peer)

    def _end(self, peer: int) -> None:
        if self.leaving:
            return
        self.leaving = True
        kept = " What was checkpointed is kept: start all processes again with the same options." if self.where.index == 0 else ""
        print(
            f"jaxgrad: process {peer} of {self.where.count} was lost, so process {self.where.index} ends.{kept}",
            file=sys.stderr,
            flush=True,
        )
        for other, stream in self.peers.items():
            if other != peer:
                stream.send({"lost": peer})
        os._exit(LOST)

    def leave(self) -> None:
        """Part from the others, who may still be at work."""
        self.leaving = True
        for stream in self.peers.values():
            stream.send({"bye": True})
        jax.distributed.shutdown()

    def desert(self) -> None:
        """End the part without a word."""
        self.leaving = True
        for stream in self.peers.values():
            with contextlib.suppress(OSError):
                stream.connection.shutdown(socket.SHUT_RDWR)


_current: Membership | None = None


@contextlib.contextmanager
def part(where: Place) -> Iterator[bool]:
    """Take part in a run for as long as the context lasts; yields whether this is the first process.

    Where the context ends by an exception the others are not told that all is well, so they end too.
    """
    member = Membership(where)
    try:
        yield where.index == 0
    except BaseException:
        member.desert()
        raise
    member.leave()


@contextlib.contextmanager
def _no_output() -> Iterator[None]:
    """Keep what gloo writes of its connections out of the standard output, where the report goes."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _too_many(where: Place, why: str) -> str:
    return f"`--num-processes` {where.count} is more than there are devices{why}; start at most one process for each device"


def _gather(where: Place, host: str, port: int, deadline: float) -> dict[int, Any]:
    """Wait for the others; tell each where JAX's coordinator is going to be, and its rank on its machine."""
    streams: dict[int, _Line] = {}
    machines: dict[int, Any] = {0: socket.gethostname()}
    refused = ""
    try:
        server = socket.create_server((host, port)) if _is_local(host) else socket.create_server(("", port))
    except OSError as error:
        raise ValueError(f"`--coordinator` {where.coordinator} cannot be listened at: {error.strerror}; choose another port") from None
    with server:
        while len(streams) < where.count - 1 and not refused:
            server.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                connection, _ = server.accept()
            except TimeoutError:
                away = ", ".join(str(i) for i in range(1, where.count) if i not in streams)
                refused = f"of {where.count} processes {away} did not come in time; start them, or lower `--num-processes`"
                break
            stream = _Line(connection)
            hello = stream.receive(deadline)
            index = hello.get("index")
            if not isinstance(index, int):
                stream.close()  # not one of us
                continue
            if hello.get("count") != where.count:
                refused = (
                    f"`--num-processes` is {where.count} for process 0, but {hello.get('count')} for process {index}; make them equal"
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


def _report(where: Place, host: str, port: int, deadline: float) -> dict[int, Any]:
    """Report to the first process, and learn where JAX's coordinator is."""
    reason = "no answer"
    while time.monotonic() < deadline:
        try:
            stream = _Line(socket.create_connection((host, port), timeout=max(deadline - time.monotonic(), 0.1)))
            break
        except OSError as error:
            reason = error.strerror or str(error)
            time.sleep(0.2)
    else:
        raise ValueError(
            f"`--coordinator` {where.coordinator} does not answer ({reason}); is process 0 running there, and is the port open?"
        )
    stream.send({"index": where.index, "count": where.count, "machine": socket.gethostname()})
    told = stream.receive(deadline + 5)
    if "address" not in told:
        stream.close()
        foreign = f"`--coordinator` {where.coordinator} does not answer as jaxgrad does; is it another program?"
        raise ValueError(told.get("refused") or foreign)
    return {0: stream, -1: (told["address"], told["rank"], told["beside"])}


def _is_local(host: str) -> bool:
    return host in ("localhost", "127.0.0.1", "::1")


def is_first() -> bool:
    """Say whether this is the process that reads and writes files."""
    return jax.process_index() == 0


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Around what all processes do together: where it fails since one was lost, the watch has time to say so."""
    try:
        yield
    except Exception:
        if _current is not None and not _current.leaving:
            time.sleep(5)
        raise


def agree(message: bytes) -> bytes:
    """Return the first process's message in every process."""
    if jax.process_count() == 1:
        return message
    from jax.experimental import multihost_utils

    with together():
        length = int(multihost_utils.broadcast_one_to_all(np.int32(len(message))))
        buffer = np.zeros(length, np.uint8)
        if is_first():
            buffer[:] = np.frombuffer(message, np.uint8)
        return np.asarray(multihost_utils.broadcast_one_to_all(buffer)).astype(np.uint8).tobytes() if length else b""
