
// --- One tunnel, and its end ------------------------------------------------------------------

const detail = { id: null, last: null, timer: 0, fields: new Map() };
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
  Object.assign(detail, { id, last: null });
  show(byId("detail-title"), "Tunnel " + id);
  show(byId("detail-note"), "");
  byId("detail-fields").replaceChildren();
  detail.fields.clear();
  byId("detail-close").disabled = true;
  byId("detail").showModal();
  lookAtTunnel(id);
}

async function lookAtTunnel(id) {
  clearTimeout(detail.timer);
  if (detail.id !== id) return;
  try {
    if (!isStill() || !detail.last) {
      const tunnel = await ask("/api/tunnels/" + encodeURIComponent(id));
      if (detail.id !== id) return;
      if (!isStill() || !detail.last) showTunnel(tunnel);
    }
  } catch (error) {
    if (detail.id !== id) return;
    if (error.status === 404) {
      show(byId("detail-note"), "It has ended, or moved to another process. This is what was known of it last.");
      byId("detail-close").disabled = true;
      return;
    }
    // The status says that nobody answers.
  }
  detail.timer = setTimeout(() => lookAtTunnel(id), 1000);
}

function showTunnel(tunnel) {
  const rates = ratesOf(tunnel, detail.last);
  show(byId("detail-title"), "Tunnel of " + tunnel.client);
  for (const [name, text] of fieldsOf(tunnel, rates)) {
    if (!detail.fields.has(name)) {
      const value = make("dd");
      byId("detail-fields").append(make("dt", name), value);
      detail.fields.set(name, value);
    }
    show(detail.fields.get(name), text);
  }
  byId("detail-close").disabled = tunnel.state === "closing";
  detail.last = tunnel;
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
  byId("token-part").hidden = token !== "";
  byId("closing").showModal();
}

async function closeTunnel() {
  const { id } = detail;
  if (token === "") token = byId("token").value;
  const how = { code: byId("code").value, reason: byId("reason").value };
  const query = new URLSearchParams(Object.entries(how).filter(([, value]) => value !== ""));
  const button = byId("closing-do");
  button.disabled = true;
  try {
    const headers = { Authorization: "Bearer " + token };
    const closed = await ask(`/api/tunnels/${encodeURIComponent(id)}/close?${query}`, { method: "POST", headers });
    byId("closing").close();
    const reason = closed.reason === "" ? "" : ` “${closed.reason}”`;
    show(byId("detail-note"), `Its client is being told ${closed.code}${reason}.`);
    byId("detail-close").disabled = true;
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

byId("detail-back").addEventListener("click", () => byId("detail").close());
byId("detail").addEventListener("close", () => {
  detail.id = null;
  clearTimeout(detail.timer);
});
byId("detail-close").addEventListener("click", askToClose);
byId("reason").addEventListener("input", countReason);
byId("closing-keep").addEventListener("click", () => byId("closing").close());
byId("closing").addEventListener("close", () => { byId("token").value = ""; });
byId("closing-form").addEventListener("submit", (event) => {
  event.preventDefault();
  closeTunnel();
});

// --- It begins --------------------------------------------------------------------------------

makeHead();
sortBy(table.sort);
follow();
showEndpoints();
