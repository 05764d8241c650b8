"""An application that takes every connection, reads the head of its request and never answers one that asks for a
WebSocket. All else gets 200.

The one line of standard output says where it listens.
"""

import socket

listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
print("listens on %s:%d" % listener.getsockname())
kept = []
while True:
    connection, _ = listener.accept()
    head = b""
    while b"\r\n\r\n" not in head:
        read = connection.recv(4096)
        if not read:
            break
        head += read
    if b"upgrade: websocket" in head.lower():
        kept.append(connection)
        continue
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
    connection.close()
