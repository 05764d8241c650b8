"""Listens, and becomes a program that is passed the listeners, as systemd does it (sd_listen_fds(3)).

socket_activation.py ADDRESS:PORT[,ADDRESS:PORT...] PROGRAM
"""

import fcntl
import os
import socket
import sys

FIRST = 3

addresses, program = sys.argv[1:]
listeners = []
for address in addresses.split(","):
    host, port = address.rsplit(":", 1)
    listeners.append(socket.create_server((host, int(port))))
# First out of the way of the numbers that they get.
copies = [fcntl.fcntl(listener, fcntl.F_DUPFD, 100) for listener in listeners]
for number, copy in enumerate(copies, FIRST):
    os.dup2(copy, number)
    os.close(copy)
passed = {"LISTEN_FDS": str(len(copies)), "LISTEN_PID": str(os.getpid())}
os.execve(program, [program], os.environ | passed)
