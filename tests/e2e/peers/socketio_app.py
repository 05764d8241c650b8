"""A Socket.IO application, `python-socketio` on `aiohttp`.

It answers the event "echo" with what came, and "whoami" with the address in X-Forwarded-For and the
transport of the moment, and sends "pushed" as often as "push" asks for.
Standard output: the port, and a line when a session begins and ends.

    socketio_app.py [ADDRESS PORT]
"""

import asyncio
import sys

import socketio
from aiohttp import web

server = socketio.AsyncServer(async_mode="aiohttp", max_http_buffer_size=4 << 20)
seen = {}


@server.event
async def connect(session, environ):
    seen[session] = environ.get("HTTP_X_FORWARDED_FOR")
    print(f"connected transport={server.transport(session)}")


@server.event
async def echo(session, data):
    return data


@server.event
async def whoami(session):
    return {"client": seen[session], "transport": server.transport(session)}


@server.event
async def push(session, count):
    for number in range(count):
        await server.emit("pushed", number, to=session)


@server.event
async def disconnect(session, reason):
    print(f"disconnected reason={reason!r}")


async def main(address="127.0.0.1", port="0"):
    application = web.Application()
    server.attach(application)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, address, int(port))
    await site.start()
    print("listening on", runner.addresses[0][1])
    await asyncio.get_running_loop().create_future()


asyncio.run(main(*sys.argv[1:]))
