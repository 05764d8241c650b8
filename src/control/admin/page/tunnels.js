
// --- The table of tunnels ---------------------------------------------------------------------

// elbows sorts, searches and pages; here are the rows of one page, asked for every two seconds.
const PAGE = 200, EVERY = 2000, SLOWEST = 10_000;

// A column: what it is sorted by, its heading, the heading of its group, the class of its width, and what it shows of a
// tunnel: text, and a second line where there is one. `wide` ones are left out on a phone.
const COLUMNS = [
  { by: "client", name: "client", width: "client" },
  { by: "path", name: "path", width: "path", text: (tunnel) => tunnel.path, hasTitle: true },
  { by: "subprotocol", name: "subprotocol", width: "subprotocol", wide: true, text: (tunnel) => tunnel.subprotocol ?? "–", hasTitle: true },
  { by: "state", name: "state", width: "state", wide: true, text: (tunnel) => tunnel.state.replace("_", " ") },
  { by: "age", name: "age", width: "age", number: true, text: (tunnel) => time(tunnel.age) },
  { by: "idle", name: "idle", width: "idle", wide: true, number: true, text: (tunnel) => time(tunnel.idle) },
  ...["client", "upstream"].map((side) => counted("messages_from_" + side, "messages", "messages from", side, count, each)),
  ...["client", "upstream"].map((side) => counted("from_" + side, "bytes", "bytes from", side, bytes, bytesEach)),
  ...["client", "upstream"].map((side) => ({
    by: "waiting_for_" + side, name: side, group: "waiting for", width: "waiting", wide: true, number: true,
    text: (tunnel) => bytes(tunnel["waiting_for_" + side]),
  })),
  { by: "ping_rtt", name: "Ping", width: "ping", wide: true, number: true, text: (tunnel) => milliseconds(tunnel.ping_rtt) },
];

function counted(by, width, group, side, format, rate) {
  return {
    by, name: side, group, width, wide: true, number: true,
    text: (tunnel) => format(tunnel[by]),
    second: (tunnel, rates) => (rates ? rate(rates[by]) : ""),
  };
}

// What changes of a tunnel between two looks, a second.
const COUNTED = ["messages_from_client", "messages_from_upstream", "from_client", "from_upstream"];

function ratesOf(tunnel, last) {
  const passed = last ? tunnel.age - last.age : 0;
  if (passed < 0.2) return null;
  return Object.fromEntries(COUNTED.map((name) => [name, Math.max(0, tunnel[name] - last[name]) / passed]));
}

const table = {
  sort: "-age",
  // The endpoint whose tunnels are asked for, where it is only one.
  upstream: "",
  // The cursors of the pages before this one, and its own.
  cursors: [""],
  rows: new Map(),
  // Which look is the newest: answers to older ones are nobody's.
  look: 0,
  timer: 0,
  stop: null,
  silence: new Silence(),
};

function makeHead() {
  const groups = [], columns = [];
  COLUMNS.forEach((column, at) => {
    const isWide = column.wide ? " wide" : "";
    byId("tunnel-widths").append(make("col", "", { className: "w-" + column.width + isWide }));
    const isSecond = column.group && COLUMNS[at - 1].group === column.group;
    if (!isSecond) {
      const group = make(column.group ? "th" : "td", column.group ?? "", { className: "number" + isWide });
      if (column.group) Object.assign(group, { scope: "colgroup", colSpan: 2 });
      groups.push(group);
    }
    const head = make("th", "", { scope: "col", className: (column.number ? "number" : "") + isWide });
    const button = make("button", column.name, { type: "button" });
    if (column.group) button.ariaLabel = `${column.group} ${column.name}`;
    button.addEventListener("click", () => {
      // Numbers are looked at from the greatest, names from the first.
      const first = column.number ? "-" + column.by : column.by;
      const other = column.number ? column.by : "-" + column.by;
      sortBy(table.sort === first ? other : first);
    });
    head.append(button);
    head.dataset.by = column.by;
    columns.push(head);
  });
  byId("tunnel-groups").append(...groups);
  byId("tunnel-columns").append(...columns);
}

function sortBy(sort) {
  table.sort = sort;
  const order = byId("order");
  order.value = [...order.options].some(({ value }) => value === sort) ? sort : "";
  for (const head of byId("tunnel-columns").children) {
    head.ariaSort = head.dataset.by === sort ? "ascending" : "-" + head.dataset.by === sort ? "descending" : null;
  }
  turnTo([""]);
}

// Shows the page with the last of these cursors, from its top.
function turnTo(cursors) {
  table.cursors = cursors;
  byId("tunnels").scrollTop = 0;
  lookAtTunnels(true);
}

// Another process has other places: from the first page.
function beginAnew() {
  if (table.cursors.length === 1) return;
  table.cursors = [""];
  if (!isStill()) turnTo(table.cursors);
}

// Shows the tunnels of an endpoint, or of all of them.
function showTunnelsOf(upstream) {
  table.upstream = upstream;
  byId("search").value = "";
  const button = byId("upstream");
  button.hidden = upstream === "";
  show(button, `only of ${upstream} ×`);
  turnTo([""]);
}

// Asks for the page, now and then every two seconds. What somebody asks for is shown on a page that is paused too.
async function lookAtTunnels(isAsked = false) {
  clearTimeout(table.timer);
  const look = (table.look += 1);
  if (isStill() && !isAsked) {
    table.silence.end();
    table.timer = setTimeout(lookAtTunnels, EVERY);
    return;
  }
  table.stop?.abort();
  table.stop = new AbortController();
  const asked = {
    limit: PAGE, sort: table.sort, search: byId("search").value.trim(), state: byId("state").value,
    upstream: table.upstream, cursor: table.cursors.at(-1),
  };
  const query = new URLSearchParams(Object.entries(asked).filter(([, value]) => value !== ""));
  const began = performance.now();
  let wait = EVERY;
  table.silence.begin();
  try {
    const answer = await ask("/api/tunnels?" + query, { signal: AbortSignal.any([table.stop.signal, AbortSignal.timeout(10_000)]) });
    if (look !== table.look) return;
    table.silence.end();
    // A machine that is slow is asked less often; one that stood still for a while is not waited for as long again.
    wait = Math.min(SLOWEST, Math.max(EVERY, 4 * (performance.now() - began)));
    // The page has ended: the one before is the last one now.
    if (!answer.tunnels.length && table.cursors.length > 1) return turnTo(table.cursors.slice(0, -1));
    // It may have been paused meanwhile.
    if (isAsked || !isStill()) {
      show(byId("tunnels-fault"), "");
      showTunnels(answer, isAsked);
    }
  } catch (error) {
    if (look !== table.look) return;
    if (error.status) table.silence.end();
    // The cursor is of a process that was there before.
    if (error.status === 410 && table.cursors.length > 1) return turnTo([""]);
    if (error.status) show(byId("tunnels-fault"), error.message);
  }
  table.timer = setTimeout(lookAtTunnels, wait);
}

// Whoever asks and gets no answer sees nothing new: it is told.
setInterval(() => {
  if (!document.hidden && table.silence.isLong()) show(byId("tunnels-fault"), NO_ANSWER);
  if (!document.hidden && detail.silence.isLong()) show(byId("detail-fault"), NO_ANSWER);
}, 1000);

function showTunnels({ tunnels, matched, open, next }, isAsked) {
  const isFirst = table.next === undefined;
  table.next = next;
  showRows(tunnels);
  const page = table.cursors.length, pages = Math.max(page, Math.ceil(matched / PAGE));
  const all = tunnelsOf(open);
  const which = matched === open ? all : `${count(matched)} of ${all}`;
  const told = which + (pages > 1 ? `; page ${count(page)} of ${count(pages)}` : "");
  show(byId("matched"), told);
  // Read aloud where somebody has searched, sorted or turned a page, and not every two seconds.
  if (isAsked && !isFirst) {
    const order = table.sort.startsWith("-") ? table.sort.slice(1) + ", descending" : table.sort + ", ascending";
    show(byId("told"), `${told}; by ${order.replaceAll("_", " ")}`);
  }
  byId("first").disabled = byId("previous").disabled = page === 1;
  byId("next").disabled = !next;
}

// Fills the rows. A tunnel keeps its row as long as it is on the page; rows are moved only where the order changed.
function showRows(tunnels) {
  const { rows } = table, body = byId("tunnel-rows"), focused = document.activeElement;
  const ids = new Set(tunnels.map(({ id }) => id));
  const focusedRow = body.contains(focused) ? focused.closest("tr") : null;
  const focusedPlace = [...body.children].indexOf(focusedRow);
  const focusedTunnel = focusedRow && rows.get(focusedRow.dataset.id).last;
  for (const [id, row] of rows) {
    if (!ids.has(id)) {
      row.element.remove();
      rows.delete(id);
    }
  }
  let place = body.firstElementChild;
  for (const tunnel of tunnels) {
    let row = rows.get(tunnel.id);
    if (!row) rows.set(tunnel.id, (row = makeRow(tunnel)));
    fill(row, tunnel);
    // The one at this place went down: the others stay where they are.
    if (place && place !== row.element && place.nextElementSibling === row.element) {
      place.remove();
      place = row.element;
    }
    if (place === row.element) place = place.nextElementSibling;
    else body.insertBefore(row.element, place);
  }
  if (!focusedRow || focused === document.activeElement) return;
  // A row that is moved loses the focus, and so does one that goes: to itself with another id, or to the next one.
  const same = ids.has(focusedTunnel.id) ? focusedTunnel : tunnels.find((tunnel) => isSameTunnel(tunnel, focusedTunnel));
  if (same) rows.get(same.id).element.querySelector("button").focus({ preventScroll: true });
  else focusRow(focusedPlace);
}

// The same tunnel has another id in another process.
const isSameTunnel = (one, other) =>
  ["request_id", "client", "balancer"].every((name) => one[name] === other[name]);

// Gives the focus to the row at this place, to the last one where there are fewer, or to the table.
function focusRow(place) {
  const { children } = byId("tunnel-rows");
  const row = children[Math.min(Math.max(place, 0), children.length - 1)];
  (row?.querySelector("button") ?? byId("tunnels")).focus({ preventScroll: true });
}

function makeRow(tunnel) {
  const element = make("tr"), client = make("th", "", { scope: "row" });
  element.dataset.id = tunnel.id;
  client.append(make("button", tunnel.client, { type: "button" }));
  const shown = COLUMNS.slice(1).map((column) => {
    const cell = make("td", "", { className: (column.number ? "number" : "") + (column.wide ? " wide" : "") });
    const text = document.createTextNode(""), second = column.second && make("small");
    cell.append(text, ...(second ? [second] : []));
    return { column, cell, text, second };
  });
  element.append(client, ...shown.map(({ cell }) => cell));
  return { element, shown, last: null };
}

function fill(row, tunnel) {
  const rates = ratesOf(tunnel, row.last);
  for (const { column, cell, text, second } of row.shown) {
    const now = plain(column.text(tunnel));
    if (text.data !== now) {
      text.data = now;
      if (column.hasTitle) cell.title = now;
    }
    if (second) show(second, column.second(tunnel, rates));
  }
  row.last = tunnel;
}

byId("tunnel-rows").addEventListener("click", ({ target }) => {
  const row = target.closest("tr");
  if (row) openDetail(row.dataset.id);
});
byId("upstream").addEventListener("click", () => {
  showTunnelsOf("");
  byId("search").focus();
});
let typing = 0;
byId("search").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => turnTo([""]), 250);
});
byId("find").addEventListener("submit", (event) => {
  event.preventDefault();
  turnTo([""]);
});
byId("state").addEventListener("change", () => turnTo([""]));
byId("order").addEventListener("change", ({ currentTarget }) => sortBy(currentTarget.value));
byId("first").addEventListener("click", () => turnTo([""]));
byId("previous").addEventListener("click", () => turnTo(table.cursors.slice(0, -1)));
byId("next").addEventListener("click", () => turnTo([...table.cursors, table.next]));
