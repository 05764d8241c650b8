"""A client on Python's `websockets` that goes on until it is told to end.

    lasting_client.py URL [SOURCE]

SOURCE is the address to connect from. Three kinds of WebSockets are open at once, and none of them is opened anew:

- one to /pinging, on which messages go there and back: in frames that are sent one by one, text and bytes, small and large,
  compressed, with a Ping of the client's under way that has to be answered;
- one to /ends-CODE for each code, which the client ends with it;
- one to /close-CODE for each code, which the application ends with it.

It says "open" when all are, and goes on until standard input ends. Its last line is what it did, as one line of JSON
behind the word "done".
"""

import asyncio
import json
import random
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

CODES = [1000, 1001, 1003, 1007, 1008, 1009, 1011, 1012, 1013, 1014, 3000, 4999]
LARGEST = 2 << 20
SIZES = [4, 90, 1_000, 3_000, 70_000, 300_000]
FRAMES = 4


def message(number):
    """Text that can be compressed, or bytes that cannot."""
    turn, at = divmod(number, len(SIZES))
    size = SIZES[at]
    if (turn + at) % 2:
        return random.Random(number).randbytes(size)
    return (f"{number} grüße " * size)[:size]


async def in_frames(whole):
    step = len(whole) // FRAMES
    for at in range(FRAMES):
        yield whole[at * step:(at + 1) * step if at + 1 < FRAMES else None]
        # The proxy may change between two frames.
        await asyncio.sleep(0.005)


async def converse(socket, is_over):
    number = 0
    while number < len(SIZES) or not is_over.done():
        whole = message(number)
        pong = await socket.ping()
        await socket.send(in_frames(whole))
        echo = await socket.recv()
        assert echo == whole, f"{number}: {type(echo)} {len(echo)} for {type(whole)} {len(whole)}"
        await pong
        number += 1
    await socket.close(4003, "the client ends it")
    return number


async def is_ended_with(socket, code):
    await socket.send("end it")
    try:
        raise AssertionError(await socket.recv())
    except ConnectionClosed as closed:
        came = (closed.rcvd.code, closed.rcvd.reason)
        assert came == (code, "the application ends it"), closed


async def main(url, *source):
    extra = {"local_addr": (source[0], 0)} if source else {}

    async def web_socket(path):
        return await connect(url + path, max_size=LARGEST, proxy=None, ping_interval=None, **extra)

    pinging = await web_socket("/pinging")
    ours = {code: await web_socket(f"/ends-{code}") for code in CODES}
    theirs = {code: await web_socket(f"/close-{code}") for code in CODES}
    print("open")
    is_over = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    messages = await converse(pinging, is_over)
    for code, socket in ours.items():
        await socket.close(code, "the client ends it")
        assert socket.close_code == code, (socket.close_code, code)
    for code, socket in theirs.items():
        await is_ended_with(socket, code)
    extensions = [extension.name for extension in pinging.protocol.extensions]
    print("done", json.dumps({"messages": messages, "codes": CODES, "extensions": extensions}))


asyncio.run(asyncio.wait_for(main(*sys.argv[1:]), 110))
