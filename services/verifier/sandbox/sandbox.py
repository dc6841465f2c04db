"""Places for programs that nobody trusts.

The service's side of `isolation/`: one zygote per slot, started by exec; per program a supervisor that the zygote forks
into namespaces of the program's own; per test a fresh, confined process. Used by `programs/` and `canaries.py`.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Sequence

from prime.errors import NotReady, SandboxError
from services.verifier.sandbox import folders
from services.verifier.sandbox.cgroups import ControlGroup, remove_leftovers
from services.verifier.sandbox.executions import Program
from services.verifier.sandbox.zygotes import UNPRIVILEGED_ID, Tier, Zygote, end_supervisor

_RECYCLE_AFTER = 5000
# Of a slot as a whole, zygote, supervisor and compiler included: outside what a single process may ever have.
_GROUP_MEMORY_MIB = 5120
_GROUP_PROCESSES = 128


class Sandbox:
    """`slots` programs at a time; call `start` before, and `close` after.

    `libraries` may be imported by programs, those of them that are installed.
    """

    def __init__(
        self,
        slots: int,
        tier: Tier,
        *,
        first_identity: int = UNPRIVILEGED_ID,
        recycle_after: int = _RECYCLE_AFTER,
        group_memory_mib: int = _GROUP_MEMORY_MIB,
        libraries: Sequence[str] = folders.LIBRARIES,
    ) -> None:
        self.tier = tier
        self.layers: tuple[str, ...] = ()
        """Isolation in force."""
        remove_leftovers()
        folders.remove_leftovers()
        found = folders.find_libraries(libraries)
        self.libraries = tuple(found.places)
        """Those that programs can import."""
        self._slots = [
            _Slot(tier, first_identity - index, recycle_after, group_memory_mib, found) for index in range(slots)
        ]
        self._free: asyncio.Queue[_Slot] = asyncio.Queue()
        self._closed = False

    async def start(self) -> None:
        """Start the zygotes.

        Raises:
            SandboxError: a layer of the tier cannot be had here; names it and what to change.
        """
        try:
            await asyncio.gather(*(slot.start() for slot in self._slots))
        except BaseException:
            self.close()
            raise
        self.layers = self._slots[0].layers
        for slot in self._slots:
            self._free.put_nowait(slot)

    @contextlib.asynccontextmanager
    async def program(
        self, source: bytes, *, profile: str = "python", with_box: bool = False
    ) -> AsyncIterator[Program]:
        """A program, held for as many runs as wanted. Waits for a free slot, first come first served.

        Leaving, also by cancellation, kills whatever of it still runs.

        Raises:
            NotReady: the sandbox is closed.
            SandboxError: no supervisor could be had.
        """
        slot = await self._free.get()
        try:
            if self._closed:
                raise NotReady("the verifier is stopping; ask again when it is back")
            async with slot.open(with_box) as connection:
                if slot.group is not None:
                    slot.group.ran_out_of_memory()  # what happened before is not this program's doing
                program = Program(connection, slot.group)
                await program.load(profile, source, with_box)
                yield program
        finally:
            self._free.put_nowait(slot)

    @contextlib.asynccontextmanager
    async def pair(self, source: bytes, runs: int) -> AsyncIterator[tuple[Program, Program]]:
        """A program, and in the same place an empty one that can talk with it but sees nothing else of it.

        For so many runs of each, always one of both at the same time: of the modes `answer` and `examine`.

        Raises:
            NotReady: the sandbox is closed.
            SandboxError: no supervisor could be had.
        """
        slot = await self._free.get()
        try:
            if self._closed:
                raise NotReady("the verifier is stopping; ask again when it is back")
            async with slot.open_pair(runs) as connections:
                if slot.group is not None:
                    slot.group.ran_out_of_memory()  # what happened before is not this program's doing
                programs = [Program(connection, slot.group) for connection in connections]
                for program, content in zip(programs, (source, b""), strict=True):
                    await program.load("python", content, with_box=False)
                yield programs[0], programs[1]
        finally:
            self._free.put_nowait(slot)

    @property
    def restarts(self) -> int:
        """How often a zygote was started anew since `start`."""
        return sum(slot.starts for slot in self._slots) - len(self._slots)

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the zygotes that live."""
        return tuple(slot.pid for slot in self._slots if slot.pid)

    def close(self) -> None:
        """End the zygotes and everything of theirs. Who waits for a place, or comes later, is told `NotReady`."""
        self._closed = True
        for slot in self._slots:
            slot.close()


def _channel(stack: contextlib.ExitStack) -> tuple[socket.socket, socket.socket]:
    try:
        one, other = socket.socketpair()
    except OSError as error:
        raise SandboxError(f"no channel between two programs can be made ({error.strerror})") from None
    return stack.enter_context(one), stack.enter_context(other)


_EVERY_TEST_HAS = ("session", "rlimits", "no_new_privs", "landlock", "seccomp")


class _Slot:
    """A place for one program at a time, with a zygote of its own."""

    def __init__(
        self, tier: Tier, identity: int, recycle_after: int, group_memory_mib: int, libraries: folders.Found
    ) -> None:
        self._libraries = libraries
        self._recycle_after = recycle_after
        self._group_memory_mib = group_memory_mib
        self._tier = tier
        self._identity = identity
        self._zygote: Zygote | None = None
        self._served = 0
        self.starts = 0
        self._closed = False
        self.group: ControlGroup | None = None
        self.layers: tuple[str, ...] = ()

    @property
    def pid(self) -> int:
        """Of the zygote; 0 when there is none."""
        return self._zygote.process.pid if self._zygote else 0

    async def start(self) -> "Zygote":
        """A fresh zygote."""
        self.stop()
        try:
            zygote = await asyncio.to_thread(Zygote, self._tier, self._identity, found=self._libraries)
        except OSError as error:
            raise SandboxError(f"a zygote cannot be started here and now ({error.strerror})") from None
        if self._closed:
            zygote.end()
            raise NotReady("the verifier is stopping; ask again when it is back")
        self._zygote = zygote
        self._served = 0
        self.starts += 1
        self.group = self.group or ControlGroup.create(
            str(self._identity), memory_mib=self._group_memory_mib, processes=_GROUP_PROCESSES
        )
        if self.group is not None and not self.group.add(zygote.process.pid):
            self.group = None  # an extra layer; the limits of each process hold without it
        self.layers = (*self._zygote.layers, *_EVERY_TEST_HAS, *(["cgroup"] if self.group else []))
        return self._zygote

    def stop(self) -> None:
        """End the zygote."""
        if self._zygote is not None:
            self._zygote.end()
        self._zygote = None

    def close(self) -> None:
        """End the zygote, and have no other."""
        self._closed = True
        self.stop()
        if self.group is not None:
            self.group.remove()

    @contextlib.asynccontextmanager
    async def open_pair(self, runs: int) -> AsyncIterator[tuple[socket.socket, socket.socket]]:
        """Connections to two new supervisors whose programs can talk with each other."""
        async with contextlib.AsyncExitStack() as stack:
            with contextlib.ExitStack() as ours:  # the supervisors have their own of each channel
                pairs = [_channel(ours) for _ in range(runs)]
                first = await stack.enter_async_context(self.open(False, [one for one, _ in pairs]))
                second = await stack.enter_async_context(self.open(False, [other for _, other in pairs]))
            yield first, second

    @contextlib.asynccontextmanager
    async def open(self, with_box: bool, channels: Sequence[socket.socket] = ()) -> AsyncIterator[socket.socket]:
        """A connection to a new supervisor, which is dead when the context is left."""
        zygote = self._zygote
        if zygote is None or self._served >= self._recycle_after:
            zygote = await self.start()
        self._served += 1
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            raise SandboxError(f"no connection to a supervisor can be made ({error.strerror})") from None
        ours.setblocking(False)
        pidfd = -1
        try:
            with theirs:
                pidfd = await self._fork(zygote, theirs, with_box, channels)
            yield ours
        except SandboxError:
            # Whose fault it was is not known; a fresh zygote costs little.
            self.stop()
            raise
        finally:
            ours.close()
            if pidfd >= 0:
                await end_supervisor(pidfd)

    async def _fork(
        self, zygote: Zygote, connection: socket.socket, with_box: bool, channels: Sequence[socket.socket]
    ) -> int:
        try:
            return await zygote.fork(connection, with_box, channels)
        except BaseException:
            # Cancelled half-way, too: its answer would be taken for the next one.
            self.stop()
            raise
