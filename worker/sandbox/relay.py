"""Runs in a box before a program that has a way out: 127.0.0.1:3128 in front of the proxy's socket, for any client.

Handed as text to `python3 -I -S -c` inside the container, by `egress.through`; the worker never runs it. Standard
library only. Arguments: the command line of the program, which this process becomes when the relay listens.
"""

import os
import selectors
import signal
import socket
import sys

PORT = 3128
PROXY = "/run/egress/proxy"
CHUNK = 65536


class End:
    """One end of a relayed connection: what waits to be written to it, and whether it will say more."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.other = self
        self.waiting = bytearray()
        self.said_all = False
        self.told_all = False


class Relay:
    """127.0.0.1:PORT in front of the proxy's socket, for clients that only know proxies by host and port."""

    def __init__(self) -> None:
        self.choose = selectors.DefaultSelector()
        self.door = socket.socket()
        self.door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.door.bind(("127.0.0.1", PORT))
        self.door.listen(64)
        self.door.setblocking(False)

    def serve(self) -> None:
        """For ever; the box's end is its end."""
        self.choose.register(self.door, selectors.EVENT_READ)
        while True:
            for key, events in self.choose.select():
                if key.data is None:
                    self.accept()
                    continue
                end: End = key.data
                try:
                    if events & selectors.EVENT_READ:
                        self.read(end)
                    if events & selectors.EVENT_WRITE:
                        del end.waiting[: end.sock.send(end.waiting[:CHUNK])]
                    self.settle(end)
                except BlockingIOError:
                    continue
                except OSError:
                    self.drop(end)

    def accept(self) -> None:
        """Connect a new client with the proxy."""
        try:
            near = self.door.accept()[0]
        except OSError:
            return
        far = socket.socket(socket.AF_UNIX)
        try:
            far.connect(PROXY)
        except OSError:
            near.close()
            far.close()
            return
        ends = End(near), End(far)
        for end, other in (ends, ends[::-1]):
            end.other = other
            end.sock.setblocking(False)
            self.choose.register(end.sock, selectors.EVENT_READ, end)

    def read(self, end: End) -> None:
        """Take what an end says for the other one."""
        data = end.sock.recv(CHUNK)
        end.other.waiting += data
        end.said_all = not data

    def settle(self, end: End) -> None:
        """Wait for what either end can do next; close when both have said all."""
        for one in (end, end.other):
            if one.other.said_all and not one.waiting and not one.told_all:
                one.told_all = True
                one.sock.shutdown(socket.SHUT_WR)
        if end.told_all and end.other.told_all:
            self.drop(end)
            return
        for one in (end, end.other):
            read = 0 if one.said_all or len(one.other.waiting) > CHUNK else selectors.EVENT_READ
            events = read | (selectors.EVENT_WRITE if one.waiting else 0)
            known = one.sock in self.choose.get_map()
            if events and known:
                self.choose.modify(one.sock, events, one)
            elif events:
                self.choose.register(one.sock, events, one)
            elif known:
                self.choose.unregister(one.sock)

    def drop(self, end: End) -> None:
        """Close both ends."""
        for one in (end, end.other):
            if one.sock.fileno() >= 0:
                if one.sock in self.choose.get_map():
                    self.choose.unregister(one.sock)
                one.sock.close()


def start_relay() -> None:
    """Somebody listens when this returns; the relay is a process of its own."""
    relay = Relay()
    if os.fork():
        relay.door.close()
        return
    os.setsid()
    # The call's output must not stay open because the relay lives.
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    relay.serve()


def main() -> None:
    """Start the relay, then become the program of the arguments."""
    start_relay()
    # An interpreter ignores these two, and programs inherit that.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - it is the program
    except OSError as error:
        os.write(2, f"cannot start {sys.argv[1]}: {error}\n".encode())
        os._exit(127)


if __name__ == "__main__":
    main()
