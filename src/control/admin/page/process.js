
// --- The process: its numbers each second -----------------------------------------------------

const charts = {
  open: new Chart("Open tunnels", [""], count),
  turnover: new Chart("Tunnels a second", ["opened", "ended"], each),
  messages: new Chart("Messages a second", ["from clients", "from upstream"], each),
  payload: new Chart("Payload a second", ["from clients", "from upstream"], bytesEach),
};
byId("charts").append(...Object.values(charts).map(({ figure }) => figure));

let before = null;
// The most tunnels that were open since it began to drain.
let drainOf = null;

// What an answer of /api/summary, or an event of that name, says.
function tellSummary(summary) {
  const at = performance.now() / 1000;
  const isSame = before && before.pid === summary.pid && before.started === summary.started;
  // Time as elbows counts it: an answer that came late is not taken for a rate that fell.
  const passed = isSame ? summary.uptime - before.uptime : 0;
  const rates = (...names) =>
    passed > 0.1 ? names.map((name) => Math.max(0, summary[name] - before[name]) / passed) : null;
  charts.open.add(at, [summary.tunnels_open]);
  charts.turnover.add(at, rates("tunnels_opened", "tunnels_closed"));
  charts.messages.add(at, rates("messages_from_client", "messages_from_upstream"));
  charts.payload.add(at, rates("payload_from_client", "payload_from_upstream"));
  if (!isSame) drainOf = null;
  if (before && !isSame) beginAnew();
  before = summary;
  showState(summary.draining ? "draining" : "live");
  if (isStill()) return;
  Object.values(charts).forEach((chart) => chart.draw());
  showProcess(summary);
  showDrain(summary);
  showNumbers("ends", summary.ends, ({ why, by, during }) => [why, by, during]);
  showNumbers("closes", summary.closes, ({ code, by }) => [nameOf(code), by]);
}

function showProcess(summary) {
  const parts = [
    summary.version, "process " + summary.pid, "up " + time(summary.uptime),
    summary.workers + (summary.workers === 1 ? " worker" : " workers"),
    bytes(summary.resident_memory_bytes) + " of memory",
    count(summary.open_fds) + (summary.max_fds ? " of " + count(summary.max_fds) : "") + " descriptors",
  ];
  if (summary.panics) parts.push(count(summary.panics) + (summary.panics === 1 ? " mistake" : " mistakes") + " of elbows (see its log)");
  if (summary.handed_in) parts.push(tunnelsOf(summary.handed_in) + " taken over");
  if (summary.handed_out) parts.push(tunnelsOf(summary.handed_out) + " handed over");
  show(byId("process"), parts.join(" · "));
}

function showDrain({ draining, tunnels_open: open, drain }) {
  byId("drain").hidden = !draining;
  if (!draining) return;
  const { answered, unanswered, cut } = drain;
  // Some end by themselves meanwhile.
  drainOf = Math.max(drainOf ?? 0, open, open + answered + unanswered);
  const ended = drainOf - open;
  const progress = byId("drain-progress");
  progress.max = Math.max(1, drainOf);
  progress.value = ended;
  const of = `${count(ended)} of ${count(drainOf)} tunnels have ended`;
  const how = `${count(answered)} answered their Close, ${count(unanswered)} did not in time, ${count(cut)} were cut`;
  const others = ended - answered - unanswered - cut;
  show(byId("drain-text"), `${of}: ${how}${others > 0 ? `, ${count(others)} ended otherwise` : ""}.`);
}

const CODES = {
  1000: "normal", 1001: "going away", 1002: "protocol error", 1003: "unsupported data", 1005: "none given",
  1007: "invalid data", 1008: "policy", 1009: "too big", 1010: "extension missing", 1011: "internal error",
  1012: "service restarts", 1013: "try again later", 1014: "bad gateway", "3xxx": "framework's",
  "4xxx": "application's",
};
const nameOf = (code) => (CODES[code] ? code + " " + CODES[code] : code);

// Rows of words and a number, the greatest first. A row stays the same element as long as its words are there.
const numbered = { ends: new Map(), closes: new Map() };

function showNumbers(id, all, words) {
  const rows = numbered[id], body = byId(id);
  const sorted = [...all].sort((one, other) => other.number - one.number);
  const wanted = sorted.map((entry) => {
    const cells = words(entry), key = cells.join(" ");
    if (!rows.has(key)) {
      const row = make("tr"), number = make("td", "", { className: "number" });
      row.append(...cells.map((text) => make("td", text)), number);
      rows.set(key, { row, number });
    }
    const { row, number } = rows.get(key);
    show(number, count(entry.number));
    return row;
  });
  const isAsItWas = wanted.length === body.children.length && wanted.every((row, at) => row === body.children[at]);
  if (!isAsItWas) body.replaceChildren(...wanted);
}

// --- Following it -----------------------------------------------------------------------------

const AGAIN = 1000;
let events = null, heardAt = 0, following = 0;

function showState(state) {
  const element = byId("status");
  const words = {
    live: "live", draining: "draining", gone: "no answer from elbows; asking again each second",
  };
  const text = words[state] + (isPaused ? "; this page is paused" : "");
  element.dataset.state = state;
  show(element, text);
}

// The stream ends with its process, or where that hands over: whoever answers then is asked.
function follow() {
  clearTimeout(following);
  // A browser has six connections to one place for all of its pages together: one that nobody sees takes none of them.
  if (events || document.hidden) return;
  heardAt = performance.now();
  events = new EventSource("/api/events");
  events.addEventListener("summary", ({ data }) => {
    heardAt = performance.now();
    tellSummary(JSON.parse(data));
  });
  events.addEventListener("error", again);
}

function leave() {
  events?.close();
  events = null;
}

async function again() {
  if (!events) return;
  leave();
  try {
    // As many may follow as there are places for. Who has none can ask.
    tellSummary(await ask("/api/summary", { signal: AbortSignal.timeout(3000) }));
  } catch {
    addGap();
    showState("gone");
  }
  clearTimeout(following);
  following = setTimeout(follow, AGAIN * (0.75 + Math.random() / 2));
}

function addGap() {
  for (const chart of Object.values(charts)) chart.add(performance.now() / 1000, null);
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    leave();
    addGap();
    return;
  }
  // Nobody was asked meanwhile.
  table.silence.end();
  detail.silence.end();
  follow();
  lookAtTunnels();
  lookAtTunnel(detail.id);
});

// A stream that is silent has lost its other end.
setInterval(() => {
  if (events && performance.now() - heardAt > SILENCE) again();
}, 1000);

async function showEndpoints() {
  if (!isStill()) {
    try {
      const { endpoints, fault } = await ask("/api/endpoints");
      const known = [...byId("endpoints").children].map(({ textContent }) => textContent);
      const told = endpoints.map(({ address, state }) => address + (state === "up" ? "" : " " + state));
      if (known.join() !== told.join()) {
        byId("endpoints").replaceChildren(...endpoints.map(({ address, state }) => {
          const entry = make("li"), button = make("button", address, { type: "button", title: "Show its tunnels" });
          button.addEventListener("click", () => showTunnelsOf(address));
          entry.append(button);
          const isOut = ["failed", "ejected", "down"].includes(state);
          if (state !== "up") entry.append(" ", make("span", state, { className: isOut ? "bad" : "" }));
          return entry;
        }));
      }
      show(byId("endpoints-fault"), fault ?? (endpoints.length ? "" : "None is known yet."));
    } catch {
      // The status says it.
    }
  }
  setTimeout(showEndpoints, 5000);
}

byId("pause").addEventListener("click", ({ currentTarget }) => {
  isPaused = !isPaused;
  currentTarget.ariaPressed = String(isPaused);
  showState(byId("status").dataset.state);
});
