// The curves and the heat map. A move only shifts their markers.

const SVG = "http://www.w3.org/2000/svg";

function shape(tag, attributes, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// Up to about `count` round numbers from 0 to `max`.
function ticks(max, count, whole) {
  if (!(max > 0)) return [0];
  const rough = max / count;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const sizes = [1, 2, 2.5, 5, 10].map((times) => times * unit);
  const step = sizes.find((size) => size >= rough && (!whole || Number.isInteger(size))) ?? 1;
  return Array.from({ length: Math.floor(max / step + 1e-9) + 1 }, (_, i) => i * step);
}

const short = (number) => String(Number(number.toFixed(6)));

// values[i] belongs to state i + from; NaN leaves a gap.
class Curve {
  constructor(svg, jump) {
    this.svg = svg;
    svg.addEventListener("click", (event) => {
      const across = event.clientX - svg.getBoundingClientRect().left;
      const share = (across - this.box.left) / (this.box.right - this.box.left);
      if (this.passes) jump(Math.round(Math.min(Math.max(share, 0), 1) * this.passes));
    });
  }

  draw(values, from, passes, whole) {
    Object.assign(this, { values, from, passes });
    const width = Math.max(this.svg.parentElement.clientWidth - 32, 120);
    const height = 132;
    const most = values.reduce((max, value) => (value > max ? value : max), 0) || 1;
    const [, step] = ticks(most, 4, whole);
    const max = step ? Math.ceil(most / step - 1e-9) * step : most;
    this.box = { left: 40, right: width - 10, top: 8, bottom: height - 34 };
    this.x = (state) => this.box.left + (state / Math.max(passes, 1)) * (this.box.right - this.box.left);
    this.y = (value) => this.box.bottom - (value / max) * (this.box.bottom - this.box.top);
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.setAttribute("width", width);
    this.svg.setAttribute("height", height);
    this.line = shape("line", { class: "now", y1: this.box.top, y2: this.box.bottom });
    this.dot = shape("circle", { class: "dot", r: 4 });
    this.svg.replaceChildren(...this.#axes(max, whole), this.#path(), this.line, this.dot);
  }

  #axes(max, whole) {
    const { left, right, bottom } = this.box;
    const made = [];
    for (const value of ticks(max, 4, whole)) {
      const y = this.y(value);
      made.push(shape("line", { class: "grid", x1: left, x2: right, y1: y, y2: y }));
      made.push(shape("text", { x: left - 6, y: y + 4, "text-anchor": "end" }, short(value)));
    }
    for (const state of ticks(this.passes, 4, true)) {
      made.push(shape("text", { x: this.x(state), y: bottom + 16, "text-anchor": "middle" }, state));
    }
    made.push(shape("text", { x: (left + right) / 2, y: bottom + 31, "text-anchor": "middle" }, "pass"));
    return made;
  }

  #path() {
    let d = "";
    let pen = "M";
    this.values.forEach((value, i) => {
      if (Number.isNaN(value)) pen = "M";
      else {
        d += `${pen}${this.x(i + this.from).toFixed(2)} ${this.y(value).toFixed(2)}`;
        pen = "L";
      }
    });
    // A lone point shows as a dot: its line has no length, but round ends.
    return shape("path", { class: "curve", d: d.replace(/M([^ML]+)(?=M|$)/g, "M$1L$1") });
  }

  mark(state) {
    const value = this.values[state - this.from];
    const known = value !== undefined && !Number.isNaN(value);
    this.line.setAttribute("x1", this.x(state));
    this.line.setAttribute("x2", this.x(state));
    this.dot.setAttribute("visibility", known ? "visible" : "hidden");
    if (!known) return;
    this.dot.setAttribute("cx", this.x(state));
    this.dot.setAttribute("cy", this.y(value));
  }
}

// Positions go across, passes down.
class Heat {
  constructor(canvas, marker) {
    Object.assign(this, { canvas, marker });
  }

  draw(run, quantity) {
    const { length, passes } = run;
    const field = this.canvas.parentElement;
    const width = field.clientWidth;
    const height = Math.round(Math.min(Math.max(passes * Math.min(width / length, 22), 90), 320));
    Object.assign(this, { run, height });
    field.style.height = `${height}px`;
    const max = this.#max(quantity);
    const small = this.#pixels(quantity, max);
    const scale = Math.min(devicePixelRatio || 1, 2);
    Object.assign(this.canvas, { width: Math.round(width * scale), height: Math.round(height * scale) });
    const context = this.canvas.getContext("2d");
    context.imageSmoothingEnabled = width * scale < length;
    if (passes) context.drawImage(small, 0, 0, this.canvas.width, this.canvas.height);
    this.marker.style.height = `${Math.max(height / Math.max(passes, 1), 3)}px`;
    const [ramp, low, high] =
      quantity === "entropy" ? ["entropy", "0", nats(max)] : ["probability", "0 %", "100 %"];
    drawLegend(byId("heat-legend"), ramp, low, high);
    this.#ends(byId("heat-rows"), passes ? [1, passes] : []);
    this.#ends(byId("heat-across"), [0, "position", length - 1]);
    const what = quantity === "entropy" ? "entropy" : "top-1 probability";
    this.canvas.setAttribute("aria-label", `${what} of ${length} positions in ${passes} passes`);
  }

  #ends(root, labels) {
    root.replaceChildren(...labels.map((label) => element("span", "", label)));
  }

  #max(quantity) {
    if (quantity !== "entropy") return 10000;
    let max = 0;
    for (const value of this.run.entropy) if (value !== UNKNOWN.entropy && value > max) max = value;
    return max || 1;
  }

  // One pixel a cell; what is not known stays transparent.
  #pixels(quantity, max) {
    const { run } = this;
    const small = document.createElement("canvas");
    [small.width, small.height] = [run.length, Math.max(run.passes, 1)];
    const values = quantity === "entropy" ? run.entropy : run.p;
    const ramp = quantity === "entropy" ? "entropy" : "probability";
    const colours = Array.from({ length: 256 }, (_, i) => colourAt(ramp, i / 255));
    const context = small.getContext("2d");
    const image = context.createImageData(small.width, small.height);
    run.slots.forEach((slot, cell) => {
      if (slot < 0 || slot >= values.length || values[slot] === 0xffff) return;
      const colour = colours[Math.min(255, Math.round((values[slot] / max) * 255))];
      for (let c = 0; c < 3; c++) image.data[4 * cell + c] = colour[c];
      image.data[4 * cell + 3] = 255;
    });
    context.putImageData(image, 0, 0);
    return small;
  }

  mark(state) {
    const row = Math.max(state - 1, 0);
    this.marker.hidden = state === 0;
    this.marker.style.transform = `translateY(${(row / Math.max(this.run.passes, 1)) * this.height}px)`;
  }

  // The pass and the place below the pointer.
  cell(event) {
    const box = this.canvas.getBoundingClientRect();
    const clamp = (share, count) => Math.min(Math.max(Math.floor(share * count), 0), count - 1);
    return {
      pass: clamp((event.clientY - box.top) / box.height, this.run.passes) + 1,
      place: clamp((event.clientX - box.left) / box.width, this.run.length),
    };
  }
}
