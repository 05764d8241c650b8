// An application on Debian's node-ws: an echo that tells what it saw. Paths and lines are those of
// websockets_app.py.

const { WebSocketServer } = require("ws");

const server = new WebSocketServer({ host: "127.0.0.1", port: 0, perMessageDeflate: true });

server.on("listening", () => console.log("listening on", server.address().port));

server.on("connection", (socket, request) => {
  const path = request.url;
  // Echoes that wait for the Pong of their Ping.
  const waiting = [];
  let messages = 0;
  if (path === "/whoami") socket.send(JSON.stringify(request.headers));
  socket.on("message", (data, isBinary) => {
    messages += 1;
    const echo = () => socket.send(data, { binary: isBinary });
    if (path.startsWith("/close-")) {
      socket.close(Number(path.slice("/close-".length)), "the application ends it");
    } else if (path === "/pinging") {
      waiting.push([String(messages), echo]);
      socket.ping(String(messages));
    } else echo();
  });
  socket.on("pong", (payload) => {
    const [expected, echo] = waiting.shift();
    if (String(payload) !== expected) throw new Error(`Pong ${payload}, not ${expected}`);
    echo();
  });
  socket.on("close", (code, reason) => {
    console.log(`ended path=${path} code=${code} reason='${reason}' ` +
      `extensions=${socket.extensions || "none"} messages=${messages}`);
  });
});
