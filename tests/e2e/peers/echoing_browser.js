// A browser that echoes each message: see echoing_client.py. WebDriver runs this as the body of a function;
// its arguments are the URL and what to call with the CloseEvent's code and wasClean.

const [url, done] = arguments;

const socket = new WebSocket(url);
socket.binaryType = "arraybuffer";
socket.onmessage = ({ data }) => socket.send(data);
socket.onclose = ({ code, wasClean }) => done({ code, wasClean });
