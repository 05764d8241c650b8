// A client on Debian's node-ws that goes on until it is told to end: see lasting_client.py.
//
// node lasting_client.js URL

const WebSocket = require("ws");

const [url] = process.argv.slice(2);
const CODES = [1000, 1001, 1003, 1007, 1008, 1009, 1011, 1012, 1013, 1014, 3000, 4999];
const SIZES = [4, 90, 1000, 3000, 70000, 300000];
const FRAMES = 4;

const check = (is, what) => { if (!is) throw new Error(what); };
const pause = (time) => new Promise((over) => setTimeout(over, time));

let isOver = false;
process.stdin.on("end", () => { isOver = true; }).resume();

const open = async (path) => {
  const socket = new WebSocket(url + path, { maxPayload: 2 << 20, perMessageDeflate: { threshold: 0 } });
  const came = [];
  const waiting = [];
  const tell = (event) => waiting.length ? waiting.shift()(event) : came.push(event);
  socket.on("message", (data, isBinary) => tell({ type: "message", data, isBinary }));
  socket.on("close", (code, reason) => tell({ type: "close", code, reason: String(reason) }));
  const next = () => came.length ? Promise.resolve(came.shift()) : new Promise((told) => waiting.push(told));
  await new Promise((opened, failed) => socket.on("open", opened).on("error", failed));
  return { socket, next };
};

// Text that can be compressed, or bytes that cannot.
const message = (number) => {
  const at = number % SIZES.length;
  const size = SIZES[at];
  if (((number - at) / SIZES.length + at) % 2 === 0) return `${number} words `.repeat(size).slice(0, size);
  let state = number + 1;
  return Buffer.from({ length: size }, () => (state = (state * 48271) % 0x7fffffff) & 0xff);
};

const ping = (socket, payload) => new Promise((answered, failed) => {
  socket.once("pong", (came) => String(came) === payload ? answered() : failed(new Error(`Pong ${came}, not ${payload}`)));
  socket.ping(payload);
});

const inFrames = async (socket, whole) => {
  const step = Math.floor(whole.length / FRAMES);
  for (let at = 0; at < FRAMES; at += 1) {
    const fin = at + 1 === FRAMES;
    socket.send(whole.slice(at * step, fin ? undefined : (at + 1) * step), { fin });
    // The proxy may change between two frames.
    await pause(5);
  }
};

const converse = async ({ socket, next }) => {
  let number = 0;
  for (; number < SIZES.length || !isOver; number += 1) {
    const whole = message(number);
    const pong = ping(socket, `of ${number}`);
    await inFrames(socket, whole);
    const { type, data, isBinary } = await next();
    check(type === "message" && isBinary === (typeof whole !== "string"), `${number}: ${type} ${isBinary}`);
    check(data.equals(Buffer.from(whole)), `${number}: ${data.length} came of ${whole.length}`);
    await pong;
  }
  socket.close(4003, "the client ends it");
  const { type, code } = await next();
  check(type === "close" && code === 4003, `${type} ${code}`);
  return number;
};

const main = async () => {
  const pinging = await open("/pinging");
  const ours = [];
  const theirs = [];
  for (const code of CODES) {
    ours.push([code, await open(`/ends-${code}`)]);
    theirs.push([code, await open(`/close-${code}`)]);
  }
  console.log("open");
  const messages = await converse(pinging);
  for (const [expected, { socket, next }] of ours) {
    socket.close(expected, "the client ends it");
    const { type, code } = await next();
    check(type === "close" && code === expected, `${type} ${code}, not ${expected}`);
  }
  for (const [expected, { socket, next }] of theirs) {
    socket.send("end it");
    const { type, code, reason } = await next();
    check(type === "close" && code === expected, `${type} ${code}, not ${expected}`);
    check(reason === "the application ends it", reason);
  }
  const extensions = pinging.socket.extensions.split(",");
  console.log("done", JSON.stringify({ messages, codes: CODES, extensions }));
};

main().catch((fault) => { console.error(fault); process.exit(1); });
