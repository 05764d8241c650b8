"""A name server that says what a file says, read anew for each question.

    name_server.py FILE

The file is JSON: a name (without the last dot) has records by type, and how they are told:

    {"app.test": {"A": ["10.0.0.1"], "AAAA": [], "SRV": [[10, 1, 80, "a.test"]],
                  "ttl": 1, "pick": 8, "rcode": "SERVFAIL", "silent": true, "truncate": true}}

"pick" is how many of the records an answer has, at random. A truncated answer is empty, and only by UDP. It listens at
an address of 127.0.0.0/8 of its own, port 53, and writes it down, and then each question: name, type, transport.
"""

import json
import random
import socket
import socketserver
import sys
import threading

from dnslib import AAAA, QTYPE, RCODE, RR, SRV, A, DNSRecord

writing = threading.Lock()

MAKE = {"A": A, "AAAA": AAAA, "SRV": lambda record: SRV(*record)}


def answer(question, transport):
    record = DNSRecord.parse(question)
    name = str(record.q.qname).rstrip(".").lower()
    kind = QTYPE[record.q.qtype]
    with writing:
        print("asked", name, kind, transport, flush=True)
    reply = record.reply()
    with open(sys.argv[1], encoding="utf-8") as file:
        known = json.load(file).get(name)
    if known is None:
        reply.header.rcode = RCODE.NXDOMAIN
        return reply.pack()
    if known.get("silent"):
        return None
    if "rcode" in known:
        reply.header.rcode = getattr(RCODE, known["rcode"])
        return reply.pack()
    if known.get("truncate") and transport == "udp":
        reply.header.tc = 1
        return reply.pack()
    records = known.get(kind, [])
    records = random.sample(records, min(known.get("pick", len(records)), len(records)))
    for one in records:
        data = MAKE[kind](one)
        reply.add_answer(RR(record.q.qname, record.q.qtype, ttl=known.get("ttl", 1), rdata=data))
    return reply.pack()


class ByUdp(socketserver.BaseRequestHandler):
    def handle(self):
        question, sock = self.request
        reply = answer(question, "udp")
        if reply is not None:
            sock.sendto(reply, self.client_address)


class ByTcp(socketserver.StreamRequestHandler):
    def handle(self):
        while len(length := self.rfile.read(2)) == 2:
            reply = answer(self.rfile.read(int.from_bytes(length, "big")), "tcp")
            if reply is not None:
                self.wfile.write(len(reply).to_bytes(2, "big") + reply)


class Udp(socketserver.ThreadingUDPServer):
    daemon_threads = True


class Tcp(socketserver.ThreadingTCPServer):
    daemon_threads = True


def listen():
    while True:
        place = "127.{}.{}.{}".format(random.randint(64, 254), random.randint(1, 254), random.randint(1, 254))
        try:
            udp = Udp((place, 53), ByUdp)
        except OSError as error:
            if error.errno != 98:
                raise
            continue
        try:
            return place, udp, Tcp((place, 53), ByTcp)
        except OSError:
            udp.server_close()


place, udp, tcp = listen()
threading.Thread(target=tcp.serve_forever, daemon=True).start()
print("name server at", place, flush=True)
udp.serve_forever()
