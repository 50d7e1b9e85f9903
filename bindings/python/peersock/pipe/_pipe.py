"""The common base of all pipes."""

from __future__ import annotations

import asyncio
import math
import socket as _std
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Literal, TypeAlias, overload

from ..identity import PeerIdentity
from ..interfaces import Route
from ._addresses import UDP, Tup, tup_of
from ._callbacks import Runner, call, checked, finish, is_within
from ._errors import PipeClosedError
from ._options import Options
from ._queue import Message, MessageQueue, log
from ._subscriptions import SUB_ALL, Source, Subscription, Subscriptions

#: ``msg_cb(msg, client_tup, pipe)``, plain or asynchronous.
MsgCallback: TypeAlias = Callable[[bytes, Tup, "Pipe"], Any]
#: ``end_cb(None, client_tup, pipe)``, plain or asynchronous; those for pipes that are up are the same.
StateCallback: TypeAlias = Callable[[None, Tup, "Pipe"], Any]

#: Datagrams that asynchronous callbacks of one pipe may work on at the same time.
_DATAGRAMS_AT_ONCE = 64
#: Longest time that closing waits for sent data to leave, and for the callbacks of the end, seconds.
CLOSE_PATIENCE = 5.0


class Pipe(ABC):
    """A connection, a server of connections, or a socket of datagrams. `pipe_open` makes it.

    Messages that come in go to callbacks, to the queues of subscriptions and to other pipes, as far as there are any.
    A message is a datagram, or a piece of a stream as it came. In an ``async with`` statement the pipe is closed at the
    end of the block. It belongs to the event loop in which it was opened.
    """

    def __init__(self, proto: int, sock: _std.socket, route: Route | None, options: Options) -> None:
        #: TCP or UDP.
        self.proto = proto
        #: Its socket. What is sent or received there by other ways is missing here.
        self.sock = sock
        #: The route that it was opened with.
        self.route = route
        #: Its options.
        self.conf = options
        #: The other end: where messages come from and go to if nothing else is said. None for servers.
        self.dest_tup: Tup | None = None
        self._parent: Pipe | None = None
        self._loop = asyncio.get_running_loop()
        self._msg_cbs: list[MsgCallback] = []
        self._up_cbs: list[StateCallback] = []
        self._end_cbs: list[StateCallback] = []
        self._pipes: list[Pipe] = []
        self._feeders: list[Pipe] = []
        self._subs = Subscriptions(options.max_qsize, options.max_qbytes)
        queue = MessageQueue(options.max_qsize, options.max_qbytes, "the queue of the callbacks")
        at_once = _DATAGRAMS_AT_ONCE if proto == UDP else 1
        self._runner = Runner(self, at_once, queue, self._begin, self._flow)
        self._has_default = False
        self._is_closing = False
        self._ended: Exception | None = None
        self._is_over = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._gone = asyncio.Event()

    def __repr__(self) -> str:
        kind = "UDP" if self.proto == UDP else "TCP"
        return f"<{type(self).__name__} {kind}{'' if self.is_running else ' [closed]'}>"

    async def __aenter__(self) -> Pipe:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __await__(self) -> Generator[Any, None, Pipe]:
        return self._next_client().__await__()

    async def _next_client(self) -> Pipe:
        # There is one pipe for all.
        return self

    # Properties.

    @property
    def is_running(self) -> bool:
        """True if messages can be sent."""
        return self._ended is None and not self._is_closing

    @property
    def client_tup(self) -> Tup:
        """The other end, or without one the own address and port."""
        return self.dest_tup or self.local_tup

    @property
    def local_tup(self) -> Tup:
        """The own address and port, as long as the pipe is open."""
        return tup_of(self.sock.getsockname())

    def peer(self) -> PeerIdentity | None:
        """Who is at the other end of a connection over the overlay, also after the end.

        None for all others, for servers and for datagrams."""
        return None

    @property
    def clients(self) -> list[Pipe]:
        """The pipes of the clients that are connected to a TCP server. Other pipes have none."""
        return []

    @property
    def dropped(self) -> int:
        """Messages that were dropped for want of room: by each queue that had none, its oldest ones."""
        return self._runner.dropped + self._subs.dropped

    # Sending and receiving.

    async def send(self, data: bytes | bytearray | memoryview, dest_tup: Any = None) -> int:
        """Sends a message, and gives its length in bytes.

        It waits while earlier ones have not left: for TCP in the order of the calls.

        Args:
            data: The message.
            dest_tup: Where to, as an address or name and a port. A connection has one destination, `dest_tup`; a server
                needs to be told, as callbacks are, one of its clients.

        Raises:
            PipeClosedError: The pipe is closed.
            ValueError: There is no destination, or a connection leads elsewhere.
            LookupError: The server has no such client.
            OSError: The network does not take the message.
        """
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"a message is bytes, not {type(data).__name__}")
        if not self.is_running:
            raise self._closed()
        return await self._send(data if isinstance(data, bytes) else bytes(data), dest_tup)

    @abstractmethod
    async def _send(self, data: bytes, dest_tup: Any) -> int:
        """Sends a message, once the network has room."""

    @overload
    async def recv(self, sub: Any = ..., timeout: float | None = ..., full: Literal[False] = ...) -> bytes | None: ...
    @overload
    async def recv(self, sub: Any, timeout: float | None, full: Literal[True]) -> tuple[Tup, bytes] | None: ...
    @overload
    async def recv(
        self, sub: Any = ..., timeout: float | None = ..., *, full: Literal[True]
    ) -> tuple[Tup, bytes] | None: ...
    async def recv(
        self, sub: Any = SUB_ALL, timeout: float | None = None, full: bool = False
    ) -> bytes | tuple[Tup, bytes] | None:
        """The next message of a subscription; None if the time is over.

        A call that is cancelled takes no message. Messages that came before the end of the pipe are still to be had
        after it.

        Args:
            sub: The subscription, as `subscribe` gave it or took it.
            timeout: Seconds, `math.inf` for ever; 0 takes what is there. None is the option ``recv_timeout``.
            full: Whether to say who sent it: ``(client_tup, message)``.

        Raises:
            LookupError: There is no such subscription, or it was removed.
            PipeClosedError: The pipe is closed, and no message is left.
        """
        if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, (int, float))):
            raise TypeError(f"timeout is a number of seconds, not {timeout!r} ({type(timeout).__name__})")
        if timeout is not None and (timeout < 0 or math.isnan(timeout)):
            raise ValueError(f"timeout is a number of seconds from 0 on, not {timeout!r}")
        queue = self._subs.find(sub)._queue
        message = await queue.receive(self.conf.recv_timeout if timeout is None else timeout, self._flow)
        self._flow()
        if message is None:
            return None
        return message if full else message[1]

    def subscribe(self, sub: Any = SUB_ALL, addr: Source = None) -> Subscription:
        """Has messages that match queued for `recv`, from now on. A message goes to every queue that it matches.

        Subscribing again gives the queue that there is.

        Args:
            sub: A regular expression that is to be found in the message, or a pair of it and of a source; see `Sub`.
            addr: The source.

        Raises:
            TypeError, ValueError: The pattern or the source is none.
        """
        subscription = self._subs.add(sub, addr)
        if subscription.sub == SUB_ALL:
            # Now it is wanted.
            self._has_default = False
        return subscription

    def unsubscribe(self, sub: Any, addr: Source = None) -> Pipe:
        """Ends a subscription and throws away its queue. Who waits there has LookupError. It may be none."""
        self._subs.remove(sub, addr)
        self._flow()
        return self

    def _subscribe_by_default(self) -> None:
        self._subs.add(SUB_ALL)
        self._has_default = True

    # Callbacks and other pipes.

    def add_msg_cb(self, msg_cb: MsgCallback) -> Pipe:
        """Has ``msg_cb(msg, client_tup, pipe)`` called for each message from now on.

        It may be asynchronous. Of a connection, one message after the other is worked on; of datagrams, up to 64 at
        once, begun in their order. What it raises is logged, and the pipe goes on. A server's are called for the
        messages of all clients, with the client's pipe.
        """
        self._msg_cbs.append(checked(msg_cb))
        return self

    def del_msg_cb(self, msg_cb: MsgCallback) -> Pipe:
        """Takes a callback away. It may be none."""
        return self._remove(self._msg_cbs, msg_cb)

    def add_end_cb(self, end_cb: StateCallback) -> Pipe:
        """Has ``end_cb(None, client_tup, pipe)`` called when the pipe is closed, by either end: once, after the
        callbacks for the messages before. If that was so already, it is called now.
        """
        self._end_cbs.append(checked(end_cb))
        if self._is_over:
            self._run([end_cb])
        return self

    def del_end_cb(self, end_cb: StateCallback) -> Pipe:
        """Takes a callback away. It may be none."""
        return self._remove(self._end_cbs, end_cb)

    def add_up_cb(self, up_cb: StateCallback) -> Pipe:
        """Has ``up_cb(None, client_tup, pipe)`` called for each client that connects to a server."""
        self._up_cbs.append(checked(up_cb))
        return self

    def del_up_cb(self, up_cb: StateCallback) -> Pipe:
        """Takes a callback away. It may be none."""
        return self._remove(self._up_cbs, up_cb)

    def add_pipe(self, pipe: Pipe) -> Pipe:
        """Sends what comes in here to another pipe, too, until one of them is closed or `del_pipe` is called.

        Both ways make a relay: ``a.add_pipe(b)`` and ``b.add_pipe(a)``. A stream is read no faster than the other pipe
        takes it. Messages that the subscription of `pipe_open` itself has queued go first, and it ends. The
        other pipe needs a destination.

        Raises:
            ValueError: The other pipe has no destination.
            PipeClosedError: The other pipe is closed.
        """
        if not isinstance(pipe, Pipe):
            raise TypeError(f"a pipe is wanted, not {pipe!r} ({type(pipe).__name__})")
        if pipe.dest_tup is None:
            raise ValueError("the pipe has no destination: nothing can be sent there")
        if not pipe.is_running:
            raise pipe._closed()
        if pipe in self._pipes:
            return self
        self._pipes.append(pipe)
        pipe._feeders.append(self)
        if self._has_default:
            waiting = self._subs.find(SUB_ALL)._queue
            while len(waiting):
                self._runner.put(waiting.popleft(), False)
            self._subs.remove(SUB_ALL)
            self._flow()
        return self

    def del_pipe(self, pipe: Pipe) -> Pipe:
        """Sends nothing to the other pipe any more. Messages are queued as before it was added."""
        if pipe in self._pipes:
            self._pipes.remove(pipe)
            pipe._feeders.remove(self)
            if self._has_default and not self._pipes:
                self._subs.add(SUB_ALL)
        return self

    @property
    def pipes(self) -> list[Pipe]:
        """The pipes to which messages are sent."""
        return list(self._pipes)

    def _remove(self, callbacks: list[Any], callback: Any) -> Pipe:
        if callback in callbacks:
            callbacks.remove(callback)
        return self

    # Messages on their way in.

    def _receive(self, messages: list[Message]) -> None:
        """Takes what has come in at once."""
        if self._is_closing:
            return
        parents = [self] if self._parent is None else [self, self._parent]
        is_datagram = self.proto == UDP
        # Of a stream nothing is left out, unless those who do not read would stop those who do.
        stuck = self._is_pushed or any(pipe._subs.is_awaited for pipe in parents)
        full = {one for pipe in parents for one in pipe._subs.full()} if stuck else set()
        for message in messages:
            if self._is_pushed:
                self._runner.put(message, is_datagram)
            for pipe in parents:
                pipe._subs.deliver(message, lambda one: is_datagram or one in full)
        self._flow()

    @property
    def _is_pushed(self) -> bool:
        """Returns true if messages go anywhere else than to the queues of subscriptions."""
        parent = self._parent
        return bool(self._msg_cbs or self._pipes or (parent is not None and (parent._msg_cbs or parent._pipes)))

    @property
    def _wants_pause(self) -> bool:
        """Returns true if reading of a stream has to pause."""
        if self._runner.is_full:
            return True
        parents = [self] if self._parent is None else [self, self._parent]
        if self._is_pushed or any(pipe._subs.is_awaited for pipe in parents):
            return False
        return any(pipe._subs.full() for pipe in parents)

    @abstractmethod
    def _flow(self) -> None:
        """Stops reading or goes on, as there is room."""

    def _begin(self, message: Message) -> list[Awaitable[Any]]:
        """Gives a message to all callbacks and pipes."""
        tup, data = message
        both = [self] if self._parent is None else [self._parent, self]
        awaited = call([callback for pipe in both for callback in pipe._msg_cbs], data, tup, self)
        return awaited + [pipe._forward(other, data) for pipe in both for other in pipe._pipes]

    async def _forward(self, other: Pipe, data: bytes) -> None:
        try:
            await other.send(data)
        except (PipeClosedError, LookupError):
            self.del_pipe(other)
        except OSError as error:
            log.warning("a message was not sent to the other pipe: %s", error)

    # The end.

    async def close(self) -> None:
        """Closes the pipe; a server's clients, too. What was sent is delivered first, for up to five seconds.

        Messages that callbacks have not begun with are dropped. Calling it again, also from a callback, does no harm.
        """
        if not self._is_closing:
            self._is_closing = True
            self._runner.clear()
            await self._close()
        await self._gone.wait()
        if self._tasks and not is_within(self):
            await asyncio.wait(set(self._tasks), timeout=CLOSE_PATIENCE)

    @abstractmethod
    async def _close(self) -> None:
        """Closes the socket, and calls `_end`."""

    def _closed(self) -> PipeClosedError:
        return PipeClosedError(*(self._ended.args if self._ended is not None else ("the pipe is closed",)))

    def _end(self, error: BaseException | None) -> None:
        """The pipe is closed: has everybody know who waits."""
        if self._ended is not None:
            return
        what = "the pipe is closed" if self._is_closing else "the other end has closed the pipe"
        self._ended = PipeClosedError(what if error is None else f"the pipe has failed: {error}")
        self._ended.__cause__ = error
        self._subs.end(self._ended)
        for feeder in list(self._feeders):
            feeder.del_pipe(self)
        self._gone.set()
        self._runner.when_idle(self._finish)

    def _finish(self) -> None:
        for pipe in list(self._pipes):
            pipe._feeders.remove(self)
        self._pipes.clear()
        self._is_over = True
        self._run([*(self._parent._end_cbs if self._parent is not None else ()), *self._end_cbs])

    def _run(self, callbacks: list[StateCallback]) -> None:
        """Calls callbacks that get no message."""
        self._await(call(callbacks, None, self._end_tup(), self))

    def _end_tup(self) -> Tup:
        return self.dest_tup or ("", 0)

    def _await(self, awaited: list[Awaitable[Any]]) -> None:
        if awaited:
            task = self._loop.create_task(finish(self, awaited))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
