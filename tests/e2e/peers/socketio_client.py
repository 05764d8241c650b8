"""A Socket.IO client, `python-socketio`.

    socketio_client.py URL TRANSPORT[,TRANSPORT]

With "polling,websocket" it begins with long polls and upgrades, as browsers do. The last line of standard
output is what "whoami" answered, as one line of JSON behind the word "done".
"""

import asyncio
import json
import os
import sys

import aiohttp
import socketio

# A client takes 16 packets from one poll at most.
PUSHED = {"polling": 10, "websocket": 200}

# python-engineio's part for aiohttp takes a post that comes in several segments for cut, even without a proxy.
LARGEST = {"polling": 4 << 10, "websocket": 1 << 20}


async def main(url, transports):
    transports = transports.split(",")
    count = PUSHED[transports[-1]]
    # Of addresses, too, cookies are kept.
    session = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))
    client = socketio.AsyncClient(reconnection=False, http_session=session)
    pushed = []
    complete = asyncio.Event()

    @client.event
    async def pushed_number(number):
        pushed.append(number)
        if len(pushed) == count:
            complete.set()

    client.on("pushed", pushed_number)
    await client.connect(url, transports=transports)
    assert client.transport() == transports[-1], client.transport()
    for data in ["grüße", bytes(range(256)), {"deep": [1, b"two", None]}, "x" * LARGEST[client.transport()]]:
        assert await client.call("echo", data) == data
    await client.emit("push", count)
    await complete.wait()
    assert pushed == list(range(count)), pushed
    who = await client.call("whoami")
    if client.transport() == "websocket":
        await client.disconnect()
    print("done", json.dumps(who), flush=True)
    # With a poll under way, a session takes half a minute to end, even without a proxy: it is cut.
    os._exit(0)


asyncio.run(asyncio.wait_for(main(*sys.argv[1:]), 50))
