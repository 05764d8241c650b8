// A page that holds one WebSocket and counts. WebDriver runs this as the body of a function; its arguments are the URL and
// what to call when the WebSocket is open. From then on the page sends a message every few milliseconds; an echo has to come
// of each, in order. What it has counted is `told`, and `finish` ends it.

const [url, done] = arguments;

const told = window.told = { opened: 0, sent: 0, came: 0, closed: null, fault: null };
const text = (number) => `${number} ` + "of many ".repeat(number % 500);

const socket = new WebSocket(url);
let timer;

socket.onopen = () => {
  told.opened += 1;
  timer = setInterval(() => {
    socket.send(text(told.sent));
    told.sent += 1;
  }, 5);
  done();
};

socket.onmessage = ({ data }) => {
  if (data !== text(told.came)) told.fault ??= `${data.slice(0, 20)} came for ${told.came}`;
  told.came += 1;
};

socket.onerror = () => { told.fault ??= "an error"; };
socket.onclose = ({ code, wasClean }) => {
  told.closed = { code, wasClean };
  // Nobody waits for one that has been open.
  done();
};

// Waits for the echoes that are under way, closes, and tells what was counted.
window.finish = (tell) => {
  clearInterval(timer);
  const end = () => {
    socket.onclose = ({ code, wasClean }) => tell({ ...told, closed: { code, wasClean } });
    socket.close(4002, "the client ends it");
  };
  const look = setInterval(() => {
    if (told.closed) tell(told);
    else if (told.came === told.sent) end();
    else return;
    clearInterval(look);
  }, 5);
};
