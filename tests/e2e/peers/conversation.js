// The conversation of the tests, held by a browser: see applications.rs. WebDriver runs this as the body of a
// function; its arguments are the balancer's URL, for how many milliseconds it is silent before each of the
// first messages to the echo, and what to call with the result: what /whoami said, or the fault as text.

const [url, pause, done] = arguments;

const open = (path) => new Promise((resolve, reject) => {
  const socket = new WebSocket(url + path);
  socket.binaryType = "arraybuffer";
  const came = [];
  const waiting = [];
  const tell = (event) => waiting.length ? waiting.shift()(event) : came.push(event);
  socket.onmessage = tell;
  socket.onclose = tell;
  socket.onopen = () => resolve({
    socket,
    next: () => came.length ? Promise.resolve(came.shift()) : new Promise((told) => waiting.push(told)),
  });
  socket.onerror = () => reject(new Error(`no WebSocket at ${path}`));
});

const same = (echo, message) => {
  if (typeof message === "string") return echo === message;
  if (!(echo instanceof ArrayBuffer) || echo.byteLength !== message.byteLength) return false;
  const bytes = new Uint8Array(echo);
  return message.every((byte, at) => byte === bytes[at]);
};

const check = (is, what) => { if (!is) throw new Error(what); };

const talk = async () => {
  const asked = await open("/whoami");
  const who = JSON.parse((await asked.next()).data);
  asked.socket.close();
  await asked.next();

  const { socket, next } = await open("/echo");
  check(socket.extensions.startsWith("permessage-deflate"), `extensions: ${socket.extensions}`);
  const bytes = Uint8Array.from({ length: 1 << 20 }, (_, at) => (at * 7) ^ (at >> 8));
  for (const message of ["", "grüße", new Uint8Array(0), bytes.slice(0, 256), "x".repeat(1 << 20), bytes]) {
    await new Promise((over) => setTimeout(over, Number(pause)));
    socket.send(message);
    const { data } = await next();
    check(same(data, message), `${message.length} sent, ${data && (data.length ?? data.byteLength)} came`);
  }
  for (let number = 0; number < 1000; number += 1) socket.send(String(number));
  for (let number = 0; number < 1000; number += 1) check((await next()).data === String(number), number);
  socket.close(4002, "the client ends it");
  const answer = await next();
  check(answer.type === "close" && answer.code === 4002 && answer.wasClean, `close ${answer.code}`);

  const closed = await open("/close-4001");
  closed.socket.send("end it");
  const { type, code, reason, wasClean } = await closed.next();
  check(type === "close" && code === 4001 && wasClean, `close ${type} ${code} ${wasClean}`);
  check(reason === "the application ends it", reason);
  return who;
};

talk().then(done, (fault) => done(String(fault)));
