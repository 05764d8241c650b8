
// --- One tunnel, and its end ------------------------------------------------------------------

const detail = { id: null, last: null, place: 0, look: 0, timer: 0, fields: new Map(), silence: new Silence() };
// In memory only.
let token = "";

// Names and texts of all that is known of a tunnel.
function fieldsOf(tunnel, rates) {
  const passed = (name, format, rate) => format(tunnel[name]) + (rates ? ", " + rate(rates[name]) : "");
  const close = tunnel.close_code === null ? "–" : `${nameOf(tunnel.close_code)}, by ${tunnel.close_by}`;
  return [
    ["State", tunnel.state.replace("_", " ")],
    ["Close", close],
    ["Client", tunnel.client],
    ["Load balancer", tunnel.balancer],
    ["Upstream", tunnel.upstream],
    ["Request", tunnel.request],
    ["Host", tunnel.host ?? "–"],
    ["User agent", tunnel.user_agent ?? "–"],
    ["Subprotocol", tunnel.subprotocol ?? "–"],
    ["Protocol", tunnel.protocol],
    ["Request id", tunnel.request_id],
    ["Age", time(tunnel.age)],
    ["Idle", time(tunnel.idle)],
    ["Messages from the client", passed("messages_from_client", count, each)],
    ["Messages from the upstream", passed("messages_from_upstream", count, each)],
    ["Bytes from the client", passed("from_client", bytes, bytesEach)],
    ["Bytes from the upstream", passed("from_upstream", bytes, bytesEach)],
    ["Payload from the client", bytes(tunnel.payload_from_client)],
    ["Payload from the upstream", bytes(tunnel.payload_from_upstream)],
    ["Waiting for the client", bytes(tunnel.waiting_for_client)],
    ["Waiting for the upstream", bytes(tunnel.waiting_for_upstream)],
    ["Ping round trip", milliseconds(tunnel.ping_rtt)],
    ["Ping round trip, worst", milliseconds(tunnel.ping_rtt_worst)],
    ["Handoffs", count(tunnel.handoffs)],
  ];
}

function openDetail(id) {
  const rows = [...byId("tunnel-rows").children];
  Object.assign(detail, { id, last: null, place: rows.findIndex(({ dataset }) => dataset.id === id) });
  detail.silence.end();
  show(byId("detail-title"), "Tunnel " + id);
  show(byId("detail-note"), "");
  show(byId("detail-fault"), "");
  byId("detail-fields").replaceChildren();
  detail.fields.clear();
  letClose(false);
  byId("detail").showModal();
  lookAtTunnel(id);
}

async function lookAtTunnel(id) {
  if (detail.id !== id || id === null) return;
  clearTimeout(detail.timer);
  const look = (detail.look += 1);
  let wait = 1000;
  if (isStill() && detail.last) {
    detail.silence.end();
  } else {
    detail.silence.begin();
    try {
      const tunnel = (await ofId(id)) ?? (await moved());
      if (look !== detail.look) return;
      detail.silence.end();
      if (!isStill() || !detail.last) {
        show(byId("detail-fault"), "");
        if (tunnel) showTunnel(tunnel);
        else showEnd();
      }
      // It may be on its way to another process.
      if (!tunnel) wait = EVERY;
    } catch (error) {
      if (look !== detail.look) return;
      if (error.status) {
        detail.silence.end();
        show(byId("detail-fault"), error.message);
      }
    }
  }
  detail.timer = setTimeout(() => lookAtTunnel(detail.id), wait);
}

// The tunnel with this id; none where there is none.
async function ofId(id) {
  try {
    return await ask("/api/tunnels/" + encodeURIComponent(id));
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

// The tunnel that was looked at last, with the id that it has in the process that answers now.
async function moved() {
  if (!detail.last) return null;
  const { last } = detail;
  const { tunnels } = await ask("/api/tunnels?" + new URLSearchParams({ client: last.client }));
  return tunnels.find((tunnel) => isSameTunnel(tunnel, last)) ?? null;
}

const ENDED = "It has ended, or moved to another process. This is what was known of it last.";

function showEnd() {
  show(byId("detail-note"), ENDED);
  letClose(false);
}

// What cannot be pressed any more does not keep the focus.
function letClose(may) {
  const button = byId("detail-close"), hadFocus = document.activeElement === button;
  button.disabled = !may;
  if (!may && hadFocus) byId("detail-back").focus();
}

function showTunnel(tunnel) {
  const rates = ratesOf(tunnel, detail.last);
  if (byId("detail-note").textContent === ENDED) show(byId("detail-note"), "");
  show(byId("detail-title"), "Tunnel of " + tunnel.client);
  for (const [name, text] of fieldsOf(tunnel, rates)) {
    if (!detail.fields.has(name)) {
      const value = make("dd");
      byId("detail-fields").append(make("dt", name), value);
      detail.fields.set(name, value);
    }
    show(detail.fields.get(name), plain(text));
  }
  letClose(tunnel.state !== "closing");
  Object.assign(detail, { id: tunnel.id, last: tunnel });
}

// What a Close has room for, in bytes of UTF-8 (RFC 6455, section 5.5).
const MOST_REASON = 123;

function countReason() {
  const field = byId("reason");
  const left = MOST_REASON - new TextEncoder().encode(field.value).length;
  const bytesOf = (number) => count(number) + (number === 1 ? " byte" : " bytes");
  const text = left < 0 ? `${bytesOf(-left)} too many: a Close has room for ${MOST_REASON}.` : `${bytesOf(left)} left.`;
  show(byId("reason-left"), text);
  // The browser says it, and closes nothing.
  field.setCustomValidity(left < 0 ? text : "");
}

function askToClose() {
  countReason();
  show(byId("closing-title"), `Close the tunnel of ${detail.last.client}?`);
  show(byId("closing-fault"), "");
  const isWebSocket = detail.last.protocol === "websocket";
  byId("closing-close").hidden = byId("code").disabled = byId("reason").disabled = !isWebSocket;
  const what = isWebSocket ? "Its client gets a Close with this code and reason." : "It is no WebSocket: it is ended in both directions, without a Close.";
  show(byId("closing-what"), what + " It cannot be taken back.");
  byId("token-part").hidden = token !== "";
  byId("closing").showModal();
}

async function closeTunnel() {
  const { id } = detail;
  if (token === "") token = byId("token").value;
  // What ends without a Close has no code and no reason.
  const hasClose = !byId("closing-close").hidden;
  const how = hasClose ? { code: byId("code").value, reason: byId("reason").value } : {};
  const query = new URLSearchParams(Object.entries(how).filter(([, value]) => value !== ""));
  const button = byId("closing-do");
  button.disabled = true;
  try {
    if (!/^[\w.~+/=-]*$/.test(token)) throw new Error("a token has letters (A to Z), digits and -._~+/ alone.");
    const headers = { Authorization: "Bearer " + token };
    const closed = await ask(`/api/tunnels/${encodeURIComponent(id)}/close?${query}`, { method: "POST", headers });
    byId("closing").close();
    const reason = closed.reason === "" ? "" : ` “${closed.reason}”`;
    const told = closed.code === null ? "It is being ended, without a Close: it is no WebSocket." : `Its client is being told ${closed.code}${reason}.`;
    show(byId("detail-note"), told);
    letClose(false);
  } catch (error) {
    // What is wrong with the token is another one's next time.
    if (error.status === 401 || error.status === 403 || !error.status) token = "";
    byId("token-part").hidden = token !== "";
    show(byId("closing-fault"), error.status ? error.message : `Not done: ${error.message}`);
  } finally {
    button.disabled = false;
    byId("token").value = "";
  }
}

// A dialog that closes gives the focus back to what had it. Where that is gone, a browser leaves it inside for a moment.
const isFocusLost = (dialog) =>
  document.activeElement === document.body || byId(dialog).contains(document.activeElement);

byId("detail-back").addEventListener("click", () => byId("detail").close());
byId("detail").addEventListener("close", () => {
  detail.id = null;
  detail.look += 1;
  clearTimeout(detail.timer);
  detail.silence.end();
  // The row that it was opened from may have gone meanwhile.
  if (isFocusLost("detail")) focusRow(detail.place);
});
byId("detail-close").addEventListener("click", askToClose);
byId("reason").addEventListener("input", countReason);
byId("closing-keep").addEventListener("click", () => byId("closing").close());
byId("closing").addEventListener("close", () => {
  byId("token").value = "";
  // The button that asked for it may be one that cannot be pressed any more.
  if (isFocusLost("closing")) byId("detail-back").focus();
});
byId("closing-form").addEventListener("submit", (event) => {
  event.preventDefault();
  closeTunnel();
});

// --- It begins --------------------------------------------------------------------------------

makeHead();
sortBy(table.sort);
follow();
showEndpoints();
