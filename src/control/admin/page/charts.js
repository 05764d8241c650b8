
// --- Charts -----------------------------------------------------------------------------------

// How far back they go, in seconds, and how high they are, in units of their own.
const SPAN = 120, HEIGHT = 40;

// Lines over the last two minutes. Their newest values stand above them as text, and the range is told to those who do
// not see them.
class Chart {
  constructor(title, names, format) {
    this.format = format;
    this.title = title;
    this.points = [];
    this.values = names.map((name, at) => {
      const value = make("span", "", { className: "value " + ["first", "second"][at] });
      const number = make("span", "–");
      value.append(number, make("small", name && " " + name));
      return { value, number };
    });
    const caption = make("figcaption"), heading = make("p");
    this.most = make("span");
    heading.append(make("span", title), this.most);
    caption.append(heading, ...this.values.map(({ value }) => value));
    // A little more, so that no line is cut in half.
    const viewBox = `0 0 ${SPAN} ${HEIGHT + 1}`;
    this.picture = svg("svg", { viewBox, preserveAspectRatio: "none", role: "img", class: "plot" });
    this.lines = names.map((_, at) => svg("path", { class: ["first", "second"][at] }));
    this.picture.append(svg("path", { class: "ground", d: `M0 ${HEIGHT}H${SPAN}` }), ...this.lines);
    this.figure = make("figure", "", { className: "card" });
    this.figure.append(caption, this.picture);
    this.describe();
  }

  // A moment in seconds and its values; null is a gap.
  add(at, values) {
    this.points.push({ at, values });
    while (this.points[0].at < at - SPAN - 5) this.points.shift();
  }

  draw() {
    const newest = this.points.at(-1);
    if (!newest) return;
    const known = this.points.filter(({ values }) => values).flatMap(({ values }) => values);
    const most = Math.max(...known, 0);
    const scale = (HEIGHT - 2) / (most || 1);
    this.values.forEach(({ number }, line) => {
      show(number, newest.values ? this.format(newest.values[line]) : "–");
    });
    this.lines.forEach((path, line) => {
      let pen = "M", d = "";
      for (const { at, values } of this.points) {
        if (!values) {
          pen = "M";
          continue;
        }
        d += pen + (SPAN - (newest.at - at)).toFixed(1) + " " + (HEIGHT - values[line] * scale).toFixed(2);
        pen = "L";
      }
      path.setAttribute("d", d);
    });
    show(this.most, known.length ? "most " + this.format(most) : "");
    this.describe(known.length ? `from ${this.format(Math.min(...known))} to ${this.format(most)}` : "nothing yet");
  }

  describe(range = "nothing yet") {
    const text = `${this.title}, the last two minutes: ${range}`;
    if (this.picture.getAttribute("aria-label") !== text) this.picture.setAttribute("aria-label", text);
  }
}

function svg(name, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}
