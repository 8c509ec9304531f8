"""The other ends of the network measurements, each a process to be started inside a namespace.

peers.py accept PORT                    takes connections and ends each at once
peers.py connect ADDRESS PORT SECONDS   connects one by one; prints how many it did in a second
peers.py answer ADDRESS                 a name server that has 203.0.113.1 for every name
"""

# The module below `socket`: a class less around each call of a short loop.
import _socket
import socket
import struct
import sys
import time

# The name server's one answer.
EVERYWHERE = "203.0.113.1"


def accept(port):
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("", port))
    listener.listen(1024)
    take, end = _socket.socket._accept, _socket.close
    while True:
        # This side closes first: TIME_WAIT is its own, and the other has its port back.
        descriptor, _ = take(listener)
        end(descriptor)


def connect(address, port, seconds):
    count, there = 0, (address, port)
    begin = time.perf_counter()
    while (now := time.perf_counter()) - begin < seconds:
        client = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
        client.connect(there)
        if client.recv(1):
            sys.exit("the other side is not the one that was meant")
        client.close()
        count += 1
    print(count / (now - begin))


def answer(address):
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((address, 53))
    while True:
        query, sender = server.recvfrom(4096)
        server.sendto(reply(query), sender)


def question(number, name):
    """A query for the IPv4 address of `name` (RFC 1035, section 4.1)."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack(">HHHHHH", number, 0x0100, 1, 0, 0, 0) + labels + struct.pack(">BHH", 0, 1, 1)


def reply(query):
    """The one address for whatever is asked; of additional records (EDNS) none comes back."""
    end = query.index(0, 12) + 5
    head = query[:2] + struct.pack(">HHHHH", 0x8180, 1, 1, 0, 0)
    return head + query[12:end] + struct.pack(">HHHIH", 0xC00C, 1, 1, 60, 4) + socket.inet_aton(EVERYWHERE)


if __name__ == "__main__":
    what, *words = sys.argv[1:]
    if what == "accept":
        accept(int(words[0]))
    elif what == "connect":
        connect(words[0], int(words[1]), float(words[2]))
    else:
        answer(words[0])
