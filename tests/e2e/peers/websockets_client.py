"""A client on Python's `websockets`: holds the conversation of the tests with an application.

    websockets_client.py URL SOURCE [CA CERTIFICATE]
    PAUSE=SECONDS websockets_client.py ...

URL is the balancer's, SOURCE the address to connect from. With CA, the balancer's certificate is checked
against it, and CERTIFICATE (with its key) is shown to the balancer. With PAUSE it is silent for so long
before each of its first messages to the echo. The last line of standard output is what
/whoami said, as one line of JSON behind the word "done".
"""

import asyncio
import json
import os
import ssl
import sys
from urllib.parse import urlsplit

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

LARGEST = 2 << 20
SMALL_MESSAGES = 1000
PAUSE = float(os.environ.get("PAUSE", "0"))


def tls(ca, certificate):
    context = ssl.create_default_context(cafile=ca)
    context.load_cert_chain(certificate)
    context.set_alpn_protocols(["http/1.1"])
    return context


async def main(url, source, *files):
    extra = {"ssl": tls(*files)} if files else {}

    def web_socket(path):
        # The name in the URL is for TLS and Host; the balancer is on this machine.
        return connect(url + path, host="127.0.0.1", port=urlsplit(url).port, local_addr=(source, 0),
                       max_size=LARGEST, proxy=None, **extra)

    async with web_socket("/whoami") as socket:
        who = json.loads(await socket.recv())

    async with web_socket("/echo") as socket:
        extensions = [extension.name for extension in socket.protocol.extensions]
        assert extensions == ["permessage-deflate"], extensions
        random = bytes(range(256)) * 16
        for message in ["", "grüße", b"", bytes(range(256)), "x" * (1 << 20), random * 256]:
            await asyncio.sleep(PAUSE)
            await socket.send(message)
            echo = await socket.recv()
            assert echo == message, (type(echo), len(echo))
        await socket.send(["in ", "three ", "frames"])
        assert await socket.recv() == "in three frames"

        async def send_many():
            for number in range(SMALL_MESSAGES):
                await socket.send(str(number))

        sending = asyncio.create_task(send_many())
        for number in range(SMALL_MESSAGES):
            assert await socket.recv() == str(number), number
        await sending
        await (await socket.ping())
        await socket.close(4002, "the client ends it")

    async with web_socket("/close-4001") as socket:
        await socket.send("end it")
        try:
            message = await socket.recv()
            raise AssertionError(message)
        except ConnectionClosed as closed:
            assert closed.rcvd.code == 4001, closed
            assert closed.rcvd.reason == "the application ends it", closed

    print("done", json.dumps(who))


asyncio.run(asyncio.wait_for(main(*sys.argv[1:]), 50))
