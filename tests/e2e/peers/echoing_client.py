"""A client on Python's `websockets` that echoes each message and says nothing else, no ping either.

    echoing_client.py URL

The last line of standard output is "closed", the code of the Close that came, and whether the closing handshake
was complete.
"""

import asyncio
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

LARGEST = 8 << 20


async def main(url):
    async with connect(url, ping_interval=None, max_size=LARGEST, proxy=None) as socket:
        try:
            while True:
                await socket.send(await socket.recv())
        except ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd else 1006
            print("closed", code, closed.rcvd is not None and closed.sent is not None)


asyncio.run(asyncio.wait_for(main(sys.argv[1]), 50))
