
"use strict";
// What clients send (paths, user agents, subprotocols) is hostile text. It becomes text nodes and the values of
// `title`, and never HTML: nothing here parses any, and the page's policy has browsers refuse to.

const byId = (id) => document.getElementById(id);

// Shows text where it is not shown already: what does not change costs no layout.
function show(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// A new element with text and properties.
function make(name, text = "", properties = {}) {
  const element = document.createElement(name);
  element.textContent = text;
  return Object.assign(element, properties);
}

// --- Numbers for people -----------------------------------------------------------------------

const count = new Intl.NumberFormat("en").format;

function bytes(number) {
  if (number < 1024) return count(number) + " B";
  let unit = -1;
  do {
    number /= 1024;
    unit += 1;
  } while (number >= 1023.95 && unit < 4);
  return number.toFixed(number < 99.95 ? 1 : 0) + " " + ["KiB", "MiB", "GiB", "TiB", "PiB"][unit];
}

const tunnelsOf = (number) => (number === 1 ? "1 tunnel" : count(number) + " tunnels");
const small = (number) => (number > 0 && number < 9.95 ? number.toFixed(1) : count(Math.round(number)));
const each = (number) => small(number) + "/s";
const bytesEach = (number) => bytes(Math.round(number)) + "/s";

// A time in seconds, by its two greatest units.
function time(seconds) {
  const whole = Math.floor(seconds);
  if (whole < 60) return whole + "s";
  if (whole < 3600) return Math.floor(whole / 60) + "m " + (whole % 60) + "s";
  if (whole < 86400) return Math.floor(whole / 3600) + "h " + Math.floor((whole % 3600) / 60) + "m";
  return Math.floor(whole / 86400) + "d " + Math.floor((whole % 86400) / 3600) + "h";
}

function milliseconds(seconds) {
  if (seconds === null) return "–";
  const number = seconds * 1000;
  return number.toFixed(number < 10 ? 2 : number < 100 ? 1 : 0) + " ms";
}

// --- Asking -----------------------------------------------------------------------------------

// Text of clients without what would turn its direction, or break its line, or be seen by nobody: as `elbows top` has it.
const plain = (text) => text.replace(/[\p{Cc}\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/gu, "\ufffd");

// The JSON of an answer; a fault has the sentence that the server said.
async function ask(target, options = {}) {
  const response = await fetch(target, { cache: "no-store", signal: AbortSignal.timeout(10_000), ...options });
  const answer = await response.json();
  if (!response.ok) throw Object.assign(new Error(answer.error), { status: response.status });
  return answer;
}

// How long one waits for an answer, in milliseconds, until what is shown may be old.
const SILENCE = 6000;
const NO_ANSWER = "No answer for some seconds: this is as it was before. Asking again.";

// How long nobody has answered.
class Silence {
  since = null;

  begin() {
    this.since ??= performance.now();
  }

  end() {
    this.since = null;
  }

  isLong() {
    return this.since !== null && performance.now() - this.since > SILENCE;
  }
}

// Whether somebody holds the page still.
let isPaused = false;

// Nobody looks at a page that is hidden, and who pauses it wants it to stay as it is.
const isStill = () => isPaused || document.hidden;
