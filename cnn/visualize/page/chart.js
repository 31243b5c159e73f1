"use strict";
/* Curves that a reader looks into: the values at a place, shown or hidden lines, two
scales, smoothing. The data are of `draw/chart.py`. */
(() => {
  const LEFT = 56, RIGHT = 12, TOP = 10, BOTTOM = 36, MOST_SMOOTHED = 0.95;
  const SHARES = [0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 1];

  function make(tag, values = {}, ...children) {
    const isDrawn = ["svg", "path", "line", "text", "circle"].includes(tag);
    const made = isDrawn ? document.createElementNS("http://www.w3.org/2000/svg", tag)
      : document.createElement(tag);
    for (const [name, value] of Object.entries(values)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  /* Means of what came before, that weigh less the longer ago it was; the first ones are
  not drawn towards 0. */
  function smooth(values, weight) {
    let sum = 0, total = 0;
    return values.map((value) => {
      if (!Number.isFinite(value)) return NaN;
      sum = weight * sum + (1 - weight) * value;
      total = weight * total + 1 - weight;
      return sum / total;
    });
  }

  function findTransform(panel, isStretched) {
    if (!isStretched || panel.scale === "linear") return (y) => y;
    if (panel.scale === "log") return (y) => Math.log10(Math.max(y, 1e-12));
    return (y) => -Math.log10(1 - y + panel.least);
  }

  function listTicks(low, high, panel, isStretched, least = 0) {
    const within = (list) => list.filter((y) => y >= low && y <= high);
    if (isStretched && panel.scale === "share" && within(SHARES).length > 2) return within(SHARES);
    if (isStretched && panel.scale === "log") {
      const found = [];
      for (let power = Math.floor(Math.log10(low)); 10 ** power <= high; power++) {
        found.push(...[1, 2, 5].map((digit) => Number(`${digit}e${power}`)));
      }
      if (within(found).length > 2) return within(found);
    }
    const step = 10 ** Math.floor(Math.log10((high - low) / 4 || 1));
    const wide = Math.max(least, [1, 2, 5, 10].map((n) => n * step).find((n) => (high - low) / n <= 6));
    const first = Math.ceil(low / wide - 1e-9), count = Math.floor(high / wide + 1e-9) - first;
    return Array.from({ length: count + 1 }, (_, i) => (first + i) * wide);
  }

  function write(value, panel) {
    if (panel.scale === "share") return `${(100 * value).toFixed(2).replace(/\.?0+$/, "")} %`;
    const isLarge = Math.abs(value) >= 1000;
    return isLarge ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(4)));
  }

  function findNearest(sorted, x) {
    let best = 0;
    sorted.forEach((own, i) => { if (Math.abs(own - x) < Math.abs(sorted[best] - x)) best = i; });
    return best;
  }

  class Chart {
    constructor(home, data) {
      this.data = data;
      this.hidden = { group: new Set(), name: new Set() };
      this.isStretched = true;
      this.weight = 0;
      const places = data.lines.filter((line) => !line.thin).flatMap((line) => line.x);
      this.places = [...new Set(places)].sort((a, b) => a - b);
      this.at = this.places.length - 1;
      this.panels = data.panels.map((panel) => {
        const svg = make("svg", { role: "img", "aria-label": `${panel.label} over ${data.x}` });
        svg.addEventListener("pointermove", (event) => this.point(svg, event));
        return { ...panel, svg };
      });
      this.body = make("tbody");
      home.append(this.makeControls(), ...this.makeChoices(),
        make("div", { class: "panels" }, ...this.panels.map((panel) => panel.svg)), this.makeTable());
      home.hidden = false;
      new ResizeObserver(() => this.draw()).observe(home);
      this.draw();
    }

    makeControls() {
      const log = make("input", { type: "checkbox", checked: "", class: "log", autocomplete: "off" });
      log.addEventListener("change", () => { this.isStretched = log.checked; this.draw(); });
      const smoothing = make("input", { type: "range", class: "smoothing", min: 0, max: MOST_SMOOTHED, step: 0.05, value: 0, autocomplete: "off" });
      const weight = make("output", {}, "0");
      smoothing.addEventListener("input", () => {
        weight.value = this.weight = Number(smoothing.value);
        this.draw();
      });
      this.slider = make("input", { type: "range", class: "place", min: 0, max: this.at, value: this.at, autocomplete: "off" });
      this.slider.addEventListener("input", () => this.move(Number(this.slider.value)));
      this.place = make("output");
      return make("div", { class: "controls" },
        make("label", {}, log, " Logarithmic"),
        make("label", {}, "Smoothing ", smoothing, " ", weight),
        make("label", {}, `Values at (${this.data.x}) `, this.slider, " ", this.place));
    }

    makeChoices() {
      return [["group", this.data.groups], ["name", this.data.names]].map(([kind, legend]) => {
        const first = new Map(this.data.lines.map((line) => [line[kind], line]).reverse());
        const names = [...new Set(this.data.lines.map((line) => line[kind]))];
        if (names.length < 2) return "";
        const isColoured = kind === "group" || !this.hasGroups();
        return make("fieldset", {}, make("legend", {}, legend), ...names.map((name) => {
          const box = make("input", { type: "checkbox", checked: "", autocomplete: "off" });
          box.addEventListener("change", () => {
            this.hidden[kind][box.checked ? "delete" : "add"](name);
            this.draw();
          });
          const colour = isColoured ? first.get(name).colour : "currentColor";
          const isDashed = kind === "name" && first.get(name).dashed;
          const swatch = make("span", { class: isDashed ? "swatch dashed" : "swatch" });
          swatch.style.borderColor = colour;
          return make("label", {}, box, " ", swatch, name);
        }));
      });
    }

    hasGroups() {
      return new Set(this.data.lines.map((line) => line.group)).size > 1;
    }

    makeTable() {
      const heads = ["line", ...this.panels.map((panel) => panel.label)];
      const row = make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)));
      const table = make("table", {}, make("thead", {}, row), this.body);
      return make("div", { class: "table", tabindex: 0, role: "group", "aria-label": "Values" }, table);
    }

    listShown() {
      return this.data.lines.filter((line) =>
        !this.hidden.group.has(line.group) && !this.hidden.name.has(line.name));
    }

    draw() {
      for (const panel of this.panels) this.drawPanel(panel);
      this.move(this.at);
    }

    drawPanel(panel) {
      const { svg } = panel, width = svg.clientWidth || 400, height = svg.clientHeight || 272;
      const lines = this.listShown().filter((line) => line.panel === panel.name);
      const transform = findTransform(panel, this.isStretched);
      const drawn = lines.map((line) => ({ ...line, smoothed: smooth(line.y, this.weight) }));
      const values = drawn.flatMap((line) => (this.weight ? line.smoothed : line.y)).filter(Number.isFinite);
      const isFromZero = panel.scale === "linear";
      const low = Math.min(...values, ...(isFromZero ? [0] : [])), high = Math.max(...values);
      let [bottom, top] = [transform(low), transform(high)];
      const margin = (top - bottom || Math.abs(top) || 1) * 0.05;
      bottom -= isFromZero ? 0 : margin;
      top += margin;
      const last = Math.max(...this.places, 0), first = Math.min(...this.places, 0);
      const toX = (x) => LEFT + (width - LEFT - RIGHT) * (x - first) / (last - first || 1);
      const toY = (y) => height - BOTTOM - (height - TOP - BOTTOM) * (transform(y) - bottom) / (top - bottom);
      Object.assign(panel, { toX, toY, first, last, width, height, drawn });
      svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
      svg.replaceChildren(
        make("text", { x: LEFT, y: height - 5 }, this.data.x),
        make("text", { x: width - RIGHT, y: height - 5, "text-anchor": "end" }, panel.label));
      if (!values.length) return;
      let free = Infinity;
      for (const y of listTicks(low, high, panel, this.isStretched)) {
        const place = toY(y);
        if (place > free - 13) continue;
        free = place;
        svg.append(make("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: place, y2: place }));
        svg.append(make("text", { x: LEFT - 6, y: place + 4, "text-anchor": "end" }, write(y, panel)));
      }
      for (const x of listTicks(first, last, { scale: "linear" }, false, last - first < 2 ? 0 : 1)) {
        svg.append(make("text", { x: toX(x), y: height - 21, "text-anchor": "middle" }, String(Number(x.toPrecision(6)))));
      }
      for (const line of drawn) {
        if (this.weight) this.trace(panel, line, line.y, "raw");
        const kind = (line.dashed ? "dashed " : "") + (line.thin ? "thin" : "");
        this.trace(panel, line, this.weight ? line.smoothed : line.y, kind);
      }
    }

    trace(panel, line, values, kind) {
      let d = "", isOpen = false;
      line.x.forEach((x, i) => {
        if (!Number.isFinite(values[i])) { isOpen = false; return; }
        d += `${isOpen ? "L" : "M"}${panel.toX(x).toFixed(1)} ${panel.toY(values[i]).toFixed(1)}`;
        isOpen = true;
      });
      panel.svg.append(make("path", { class: kind, d, stroke: line.colour }));
    }

    point(svg, event) {
      const panel = this.panels.find((own) => own.svg === svg);
      const share = (event.offsetX - LEFT) / (panel.width - LEFT - RIGHT);
      this.move(findNearest(this.places, panel.first + share * (panel.last - panel.first)));
    }

    /* Show the values at a place, in every panel and in the table. */
    move(at) {
      this.at = at;
      const x = this.places[at];
      if (x === undefined) return;
      this.slider.value = at;
      this.place.value = Number(x.toPrecision(6));
      const rows = new Map();
      for (const panel of this.panels) {
        panel.svg.querySelectorAll(".cursor").forEach((old) => old.remove());
        const place = panel.toX(x);
        panel.svg.append(make("line", { class: "cursor", x1: place, x2: place, y1: TOP, y2: panel.height - BOTTOM }));
        for (const line of panel.drawn) {
          const i = findNearest(line.x, x), value = (this.weight ? line.smoothed : line.y)[i];
          if (!Number.isFinite(value)) continue;
          panel.svg.append(make("circle", { class: "cursor", cx: panel.toX(line.x[i]), cy: panel.toY(value), r: 3.5, fill: line.colour }));
          const name = [line.group, line.name].filter(Boolean).join(", ");
          if (!rows.has(name)) rows.set(name, {});
          rows.get(name)[panel.name] = write(value, panel);
        }
      }
      this.body.replaceChildren(...[...rows].map(([name, own]) => make("tr", {}, make("td", {}, name),
        ...this.panels.map((panel) => make("td", {}, own[panel.name] ?? "–")))));
    }
  }

  for (const home of document.querySelectorAll(".chart")) {
    const data = JSON.parse(home.querySelector("script").textContent);
    home.closest("figure").querySelector(".zoom").hidden = true;
    home.chart = new Chart(home, data);
  }
})();
