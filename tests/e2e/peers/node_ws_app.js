// An application on Debian's node-ws: an echo that tells what it saw. Paths and lines are those of
// websockets_app.py.

const { WebSocketServer } = require("ws");

const server = new WebSocketServer({ host: "127.0.0.1", port: 0, perMessageDeflate: true });

server.on("listening", () => console.log("listening on", server.address().port));

server.on("connection", (socket, request) => {
  const path = request.url;
  if (path === "/whoami") socket.send(JSON.stringify(request.headers));
  socket.on("message", (data, isBinary) => {
    if (path === "/close-4001") socket.close(4001, "the application ends it");
    else socket.send(data, { binary: isBinary });
  });
  socket.on("close", (code, reason) => {
    console.log(`ended path=${path} code=${code} reason='${reason}' ` +
      `extensions=${socket.extensions || "none"}`);
  });
});
