// A client on Debian's node-ws: see echoing_client.py.

const WebSocket = require("ws");

const socket = new WebSocket(process.argv[2], { maxPayload: 8 << 20 });

socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary }));
socket.on("error", (fault) => console.error(String(fault)));
socket.addEventListener("close", ({ code, wasClean }) => console.log("closed", code, wasClean));
