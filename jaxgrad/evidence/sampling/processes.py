"""A run shared by several processes, on one machine or many, by JAX's distributed runtime.

The first process listens at HOST:PORT. The others report there, are told where JAX's own
coordinator is, and keep the connection open for as long as they live: it is by its closing, or by
its silence, that a lost process is noticed, where the runtime would wait for a collective that
never ends, or abort. The survivors then say which process was lost, and end with the status `LOST`.
"""

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from jaxgrad.evidence.sampling.rendezvous import Line, Place, gather, report

LOST = 4
"""Exit status where another process of the run was lost."""
TIMEOUT = 60.0
"""Seconds within which all processes must have come."""
BEAT = 1.0
"""Seconds between two signs of life."""
SILENCE = 40
"""Signs of life that may fail to come before a process counts as lost."""
GRACE = 3.0
"""Seconds for which process 0, with which JAX's service ends, waits for the others to end first."""


class Membership:
    """This process's part in a run of several; joins, and watches over the others until it leaves.

    Args:
        where: its place.
        timeout: seconds within which all must have come.

    Raises:
        ValueError: when the coordinator does not answer, processes do not come or do not fit
            together, or there are more processes than devices.
    """

    def __init__(self, where: Place, timeout: float = TIMEOUT) -> None:
        """Meet the others, start JAX's runtime, and watch."""
        self.where, self.leaving = where, False
        deadline = time.monotonic() + timeout
        host, _, port = where.coordinator.rpartition(":")
        self.peers = (
            gather(where, host, int(port), deadline)
            if where.index == 0
            else report(where, host, int(port), deadline)
        )
        address, rank, beside = self.peers.pop(-1)
        self._attend()
        with _no_output():
            self._start(address, local_device_ids=[rank] if beside > 1 else None, timeout=timeout)
            agree(b"here")  # connects all with all

    def _attend(self) -> None:
        """Watch over the others, and let them know that this process lives."""
        global _current
        _current = self
        self.silent = dict.fromkeys(self.peers, 0)
        self.gone = {peer: threading.Event() for peer in self.peers}
        self.closed = {peer: threading.Event() for peer in self.peers}
        for peer, stream in self.peers.items():
            threading.Thread(target=self._watch, args=(peer, stream), daemon=True).start()
        threading.Thread(target=self._beat, daemon=True).start()

    def _start(self, address: str, local_device_ids: list[int] | None, timeout: float) -> None:
        where = self.where
        jax.distributed.initialize(
            address,
            where.count,
            where.index,
            local_device_ids=local_device_ids,
            cluster_detection_method="deactivate",
            initialization_timeout=max(10, int(timeout)),
            heartbeat_timeout_seconds=100 * SILENCE,
        )
        try:
            missing = jax.local_device_count() == 0
        except RuntimeError as error:
            raise ValueError(_too_many(where, f" ({str(error).splitlines()[0]})")) from None
        if missing or jax.device_count() < where.count:
            raise ValueError(_too_many(where, ""))

    def _watch(self, peer: int, stream: Line) -> None:
        with contextlib.suppress(OSError, ValueError):
            for line in stream.lines:
                self.silent[peer] = 0
                message = json.loads(line)
                if message.get("bye"):
                    self.gone[peer].set()
                elif "lost" in message:
                    self._end(message["lost"])
        self.closed[peer].set()
        if not self.gone[peer].is_set():
            self._end(peer)

    def _beat(self) -> None:
        """Give a sign of life to all, and count how many of theirs fail to come.

        They are counted in signs of one's own, so that a process that was stopped itself, or waits
        for a busy machine, blames nobody.
        """
        while not self.leaving:
            self._send({})
            time.sleep(BEAT)
            for peer in self.peers:
                self.silent[peer] += 1
                if self.silent[peer] > SILENCE and not self.gone[peer].is_set():
                    self._end(peer)

    def _send(self, message: Mapping[str, Any], but: int | None = None) -> None:
        for peer, stream in self.peers.items():
            if peer != but:
                stream.send(message)

    def settle(self) -> None:
        """Wait until all others have been heard of, or one is known to be lost."""
        time.sleep(5 * BEAT)
        while max(self.silent.values()) > 3:
            time.sleep(BEAT)

    def _end(self, peer: int) -> None:
        if self.leaving:
            return
        self.leaving = True
        kept = (
            " What was checkpointed is kept: start all processes again with the same options."
            if self.where.index == 0
            else ""
        )
        print(
            f"jaxgrad: process {peer} of {self.where.count} was lost, so process "
            f"{self.where.index} ends.{kept}",
            file=sys.stderr,
            flush=True,
        )
        self.tell_lost(peer)
        os._exit(LOST)

    def tell_lost(self, lost: int) -> None:
        """Tell the others that a process is lost, which may be this one.

        JAX aborts what outlives its service, in many lines that name no reason. The service ends
        with process 0, so that waits a little for the others to say the reason and end.
        """
        self._send({"lost": lost}, but=lost)
        if self.where.index == 0:
            deadline = time.monotonic() + GRACE
            for peer, closed in self.closed.items():
                if peer != lost:
                    closed.wait(max(0.0, deadline - time.monotonic()))

    def leave(self) -> None:
        """Part from the others as soon as they are done too."""
        if self.where.index:
            self._send({"bye": True})
        for gone in self.gone.values():
            gone.wait()
        if not self.where.index:
            self._send({"bye": True})
        jax.distributed.shutdown()
        self.leaving = True
        global _current
        _current = None


_current: Membership | None = None


@contextlib.contextmanager
def part(where: Place) -> Iterator[bool]:
    """Take part in a run while the context lasts; yield whether this is the first process.

    Where the context ends by an exception the others are not told that all is well, so they end
    too.
    """
    try:
        member = Membership(where)
        yield where.index == 0
    except BaseException:
        if _current is not None:
            _current.leaving = True  # the others are told when what went wrong has been said
        raise
    member.leave()


def deserted() -> bool:
    """Say whether this process left a run by an exception, and tell the others if so.

    Then it has to end without JAX's clean-up, which waits for the others.
    """
    if _current is None or not _current.leaving:
        return False
    _current.tell_lost(_current.where.index)
    return True


@contextlib.contextmanager
def _no_output() -> Iterator[None]:
    """Keep what gloo writes out of the standard output, where the report goes."""
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
    return (
        f"`--num-processes` {where.count} is more than there are devices{why}; start at most "
        f"one process for each device"
    )


def is_first() -> bool:
    """Say whether this is the process that reads and writes files."""
    return jax.process_index() == 0


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Surround what all processes do together.

    Where it fails since one was lost, the watch has time to say so.
    """
    try:
        yield
    except Exception:
        if _current is not None and not _current.leaving:
            _current.settle()
        raise


def same(problem: str) -> None:
    """Refuse in all processes to share the sampling of what is not the same problem in all.

    Args:
        problem: a hash, in hexadecimal digits.

    Raises:
        ValueError: when it is another in some process.
    """
    if jax.process_count() == 1:
        return
    from jax.experimental import multihost_utils

    with together():
        hashes = np.asarray(
            multihost_utils.process_allgather(np.frombuffer(bytes.fromhex(problem), np.uint8))
        )
    others = [index for index, found in enumerate(hashes) if np.any(found != hashes[0])]
    if others:
        raise ValueError(
            f"what process {others[0]} is to sample is not what process 0 is to; give all the "
            f"same files and data"
        )


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
        return (
            np.asarray(multihost_utils.broadcast_one_to_all(buffer)).astype(np.uint8).tobytes()
            if length
            else b""
        )


def unanimous(yes: bool) -> bool:
    """Say whether all processes say yes."""
    if jax.process_count() == 1:
        return yes
    from jax.experimental import multihost_utils

    with together():
        return bool(np.all(multihost_utils.process_allgather(np.uint8(yes))))
