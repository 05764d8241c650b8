"""An application on Python's `websockets`: an echo that tells what it saw.

/echo sends each message back, /pinging does so when its Ping was answered, /whoami sends the request's header fields
as JSON, /close-4001 ends with that code at the first message, and so for each other code. Standard output: the port, then
a line for each connection that ended.
"""

import asyncio
import json

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosedError

LARGEST = 2 << 20


async def talk(socket):
    path = socket.request.path
    messages = 0
    if path == "/whoami":
        fields = {name.lower(): value for name, value in socket.request.headers.raw_items()}
        await socket.send(json.dumps(fields))
    try:
        async for message in socket:
            messages += 1
            if path.startswith("/close-"):
                await socket.close(int(path.removeprefix("/close-")), "the application ends it")
                break
            if path == "/pinging":
                await (await socket.ping(str(messages)))
            await socket.send(message)
    except ConnectionClosedError:
        pass  # Any code but 1000 and 1001 counts as an error.
    extensions = socket.response.headers.get("Sec-WebSocket-Extensions", "none")
    print(f"ended path={path} code={socket.close_code} reason={socket.close_reason!r} "
          f"extensions={extensions} messages={messages}")


async def main():
    async with serve(talk, "127.0.0.1", 0, max_size=LARGEST) as server:
        print("listening on", server.sockets[0].getsockname()[1])
        await asyncio.get_running_loop().create_future()


asyncio.run(main())
