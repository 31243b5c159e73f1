"use strict";
/* The playground: the run's network on an image that the reader draws, moves, covers.

Everything is computed in one call of requestAnimationFrame after a change; nothing moves
by itself. */
(() => {
  const VIRIDIS = ["440154", "472d7b", "3b528b", "2c728e", "21918c", "28ae80", "5ec962", "addc30", "fde725"];
  const SIGNED = ["2166ac", "67a9cf", "d1e5f0", "f7f7f7", "fddbc7", "ef8a62", "b2182b"];
  const MOST_MAPS = 64, MOST_BARS = 10, SLOW = 60, REST = 700; // maps, classes, ms, ms
  const GAP = 3, WANTED = 44, LARGEST = 16; // pixels between maps, of a map, of a pixel

  /* 256 colours between given ones, as [R, G, B]. */
  function blend(stops) {
    const colours = stops.map((text) => [0, 2, 4].map((i) => parseInt(text.slice(i, i + 2), 16)));
    return Array.from({ length: 256 }, (_, i) => {
      const place = i / 255 * (colours.length - 1), low = Math.min(Math.floor(place), colours.length - 2);
      return colours[low].map((value, c) => value + (colours[low + 1][c] - value) * (place - low));
    });
  }
  const signed = blend(SIGNED), BLACK = 255 << 24;
  const viridis = Int32Array.from(blend(VIRIDIS), ([r, g, b]) => BLACK | b << 16 | g << 8 | r); // a pixel

  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else if (name in made && name !== "list") made[name] = value;
      else made.setAttribute(name, value);
    }
    made.append(...children);
    return made;
  }

  function write(node, text) {
    if (node.textContent !== text) node.textContent = text;
  }

  let labels = 0;
  function label(text, control) {
    control.id ||= `playground-control-${++labels}`;
    const shown = element("output", { htmlFor: control.id });
    const show = () => { shown.value = control.type === "range" ? control.value : ""; };
    control.addEventListener("input", show);
    control.show = show;
    show();
    return element("p", { className: "control" }, element("label", { htmlFor: control.id }, text), control, shown);
  }

  /* The layer that an operation is of, without methods of the model's class. */
  const nameLayer = (node) => node.name.split("/").filter((part) => !part.includes(".")).join("/");
  const slider = (min, max, value, step = 1) => element("input", { type: "range", min, max, step, value });
  const format = (x) => (Math.abs(x) >= 1e4 || (x && Math.abs(x) < 1e-3) ? x.toExponential(2) : x.toFixed(3)).replace("-", "−");
  const formatShare = (p) => `${(100 * p).toFixed(1)} %`;

  function toProbabilities(logits, { several, temperature }) {
    const scaled = Array.from(logits, (x) => x / (temperature ?? 1));
    if (several) return scaled.map((x) => 1 / (1 + Math.exp(-x)));
    const most = Math.max(...scaled), powers = scaled.map((x) => Math.exp(x - most));
    const total = powers.reduce((a, b) => a + b, 0);
    return powers.map((x) => x / total);
  }

  function decode(text) {
    return Uint8ClampedArray.from(atob(text), (x) => x.charCodeAt(0));
  }

  /* Fill a canvas with an image of 0 … 255, grey or RGB. */
  function show(canvas, { height, width, channels, data }) {
    const context = canvas.getContext("2d"), pixels = context.createImageData(width, height);
    for (let i = 0; i < height * width; i++) {
      for (let c = 0; c < 3; c++) pixels.data[4 * i + c] = data[i * channels + (channels === 3 ? c : 0)];
      pixels.data[4 * i + 3] = 255;
    }
    context.putImageData(pixels, 0, 0);
  }

  class Playground {
    constructor(root, data) {
      this.root = root;
      this.data = data;
      [this.height, this.width, this.channels] = data.network.image_shape;
      this.network = Network.load(data.network);
      this.explained = null; // a class; null: the most probable one
      this.spot = { stage: 0, channel: 0, row: 0, column: 0, input: 0 };
      this.samples = data.samples.map((sample) => ({ ...sample, image: this.wrap(decode(sample.pixels)) }));
      this.stages = data.network.stages.map((stage) => this.makeStage(stage));
      this.build();
      this.choose(this.samples.length ? this.samples[0].image : Pixels.make(this.height, this.width, this.channels));
      new ResizeObserver(() => this.layOut()).observe(this.maps);
    }

    wrap(data) {
      return { height: this.height, width: this.width, channels: this.channels, data };
    }

    makeStage({ name, value }) {
      const { shape, data } = this.network.values.get(value);
      const [, channels, height = 1, width = 1] = shape, shown = Math.min(channels, MOST_MAPS);
      const chosen = Array.from({ length: shown }, (_, i) => Math.floor(i * channels / shown));
      return { name, value, data, channels, height, width, chosen };
    }

    /* Controls on one side, what the network says on the other, its maps below. */
    build() {
      this.status = element("p", { className: "answer", role: "status" });
      this.speed = element("p", { className: "dim" });
      this.maps = element("div", { className: "stages" }, ...this.stages.map((stage, i) => this.buildStage(stage, i)));
      this.inspector = element("section", { ariaLabel: "One kernel over one window" });
      this.root.append(
        element("div", { className: "side" }, ...this.buildPads(),
          element("div", {}, this.status, this.buildBars(), this.speed)),
        element("div", { className: "side" }, this.buildPen(), this.buildMoves(), this.buildSamples()),
        ...(this.stages.length ? [element("h4", {}, "What each stage makes of it"),
          element("p", { className: "dim" }, "A click on a pixel of a map shows the window and the kernel behind it."),
          this.maps, element("h4", {}, "One kernel over one window"), this.buildPlace(), this.inspector] : []),
      );
      this.root.addEventListener("dragover", (event) => event.preventDefault());
      this.root.addEventListener("drop", (event) => {
        event.preventDefault();
        if (event.dataTransfer.files.length) this.open(event.dataTransfer.files[0]);
      });
    }

    buildPads() {
      const size = { width: this.width, height: this.height };
      this.pad = element("canvas", { ...size, className: "pad", tabIndex: 0, role: "application",
        ariaLabel: `The image, ${this.width}×${this.height} pixels: draw with the pointer, move it with the arrow keys` });
      this.heat = element("canvas", { ...size, className: "pad", role: "img", ariaLabel: "Saliency of the pixels" });
      this.why = element("figcaption");
      let last = null;
      const draw = (event) => {
        const place = this.locate(event);
        const [x, y] = last ?? place;
        this.ink.draw(x, y, ...place, this.pen.value / 2);
        last = place;
        this.change();
      };
      this.pad.addEventListener("pointerdown", (event) => {
        if (event.button) return;
        this.pad.setPointerCapture?.(event.pointerId);
        if (this.tool.value === "cover") this.coverAt(event);
        else draw(event);
        event.preventDefault();
        this.pad.focus();
      });
      this.pad.addEventListener("pointermove", (event) => {
        if (!event.buttons) return;
        if (this.tool.value === "cover") this.coverAt(event);
        else if (last) for (const one of event.getCoalescedEvents?.().concat(event) ?? [event]) draw(one);
      });
      for (const end of ["pointerup", "pointercancel"]) this.pad.addEventListener(end, () => { last = null; });
      this.pad.addEventListener("keydown", (event) => this.step(event));
      return [element("div", { className: "pads" },
        element("figure", {}, this.pad, element("figcaption", {}, "What the network sees: draw here, or drop an image file")),
        element("figure", {}, this.heat, this.why))];
    }

    buildPen() {
      const most = Math.max(3, this.width / 5), usual = Math.max(1.25, 0.09 * this.width);
      this.pen = slider(0.5, most.toFixed(2), usual.toFixed(2), 0.05);
      this.tool = element("select", {}, new Option("draws", "pen"), new Option("moves the cover", "cover"));
      this.colour = this.channels === 3 ? element("input", { type: "color", value: "#ffffff" })
        : element("select", {}, new Option("white", "#ffffff"), new Option("grey", "#808080"), new Option("black", "#000000"));
      this.colour.addEventListener("change", () => this.dry());
      const file = element("input", { type: "file", accept: "image/*" });
      file.addEventListener("change", () => file.files.length && this.open(file.files[0]));
      this.problem = element("p", { className: "note", role: "alert", hidden: true });
      const clear = element("button", { type: "button", onclick: () => this.choose(Pixels.make(this.height, this.width, this.channels)) }, "Clear");
      return element("fieldset", {}, element("legend", {}, "Pen"), label("The pointer", this.tool), label("Width, pixels", this.pen),
        label("Colour", this.colour), label("Image file", file), this.problem, clear);
    }

    buildSamples() {
      const buttons = this.samples.map(({ name, image }) => {
        const canvas = element("canvas", { width: this.width, height: this.height, ariaHidden: "true" });
        show(canvas, image);
        return element("button", { type: "button", onclick: () => this.choose(image) }, canvas, name);
      });
      return element("fieldset", { className: "samples" }, element("legend", {}, "Images of the run's data"), ...buttons);
    }

    buildMoves() {
      const [w, h] = [this.width, this.height], most = Math.min(w, h);
      this.moves = {
        right: slider(-w, w, 0), down: slider(-h, h, 0), degrees: slider(-180, 180, 0),
        size: slider(0, most, 0), row: slider(0, h - 1, 0), column: slider(0, w - 1, 0),
      };
      for (const one of Object.values(this.moves)) one.addEventListener("input", () => this.change());
      const reset = element("button", { type: "button", onclick: () => this.reset() }, "Put back");
      const names = ["Shift right, pixels", "Shift down, pixels", "Turn clockwise, degrees", "Cover: side, pixels", "Cover: row", "Cover: column"];
      return element("fieldset", {}, element("legend", {}, "Shift, turn, cover"),
        ...Object.values(this.moves).map((one, i) => label(names[i], one)), reset);
    }

    buildBars() {
      this.bars = Array.from({ length: Math.min(this.data.classes.length, MOST_BARS) }, (_, i) => {
        const bar = { name: element("span"), fill: element("i"), share: element("span", { className: "share" }), k: i };
        bar.button = element("button", { type: "button", ariaPressed: "false", onclick: () => {
          this.explained = this.explained === bar.k ? null : bar.k;
          this.change();
        } }, bar.name, element("span", { className: "bar", ariaHidden: "true" }, bar.fill), bar.share);
        return bar;
      });
      return element("div", { className: "bars", role: "group", ariaLabel: "Classes; a pressed one is explained by saliency" },
        ...this.bars.map((bar) => bar.button));
    }

    buildStage(stage, place) {
      const { name, channels, height, width, chosen } = stage;
      const some = chosen.length < channels ? `, ${chosen.length} of them shown` : "";
      stage.range = element("span", { className: "dim" });
      stage.canvas = element("canvas", { role: "img", ariaLabel: `Maps of ${name}` });
      stage.spot = element("div", { className: "spot", hidden: true });
      stage.canvas.addEventListener("click", (event) => this.pick(stage, place, event));
      return element("div", { className: "stage" },
        element("h5", {}, `${name}: ${height}×${width}, ${channels} channels${some} `, stage.range),
        element("div", { className: "sheet" }, stage.canvas, stage.spot));
    }

    buildPlace() {
      const number = () => element("input", { type: "number", min: 0, value: 0 });
      this.place = { stage: element("select", {}, ...this.stages.map((stage, i) => new Option(stage.name, i))),
        channel: number(), row: number(), column: number(), input: number() };
      for (const [name, control] of Object.entries(this.place)) {
        control.addEventListener("change", () => { this.spot[name] = Number(control.value) || 0; this.change(); });
      }
      const names = ["Stage", "Channel", "Row", "Column", "Input channel"];
      return element("div", { className: "place" }, ...Object.values(this.place).map((one, i) => label(names[i], one)));
    }

    /* Begin with an image, in its place and without a mark. */
    choose(image) {
      this.base = image;
      this.ink = new Pixels.Ink(image);
      this.problem.hidden = true;
      this.reset();
    }

    /* Make what was drawn part of the image; another colour begins. */
    dry() {
      this.base = this.ink.layOn(this.base, this.drawn ?? [255, 255, 255]);
      this.ink = new Pixels.Ink(this.base);
      this.drawn = this.readColour();
      this.change();
    }

    readColour() {
      return [1, 3, 5].map((i) => parseInt(this.colour.value.slice(i, i + 2), 16));
    }

    reset() {
      for (const one of Object.values(this.moves)) { one.value = 0; one.show(); }
      this.change();
    }

    set(name, value) {
      this.moves[name].value = value;
      this.moves[name].show();
      this.change();
    }

    read(name) {
      return Number(this.moves[name].value);
    }

    getMoves() {
      return { degrees: this.read("degrees"), right: this.read("right"), down: this.read("down") };
    }

    /* Where on the image as it was drawn the pointer is, in pixels. */
    locate(event) {
      const box = this.pad.getBoundingClientRect(), edge = this.pad.clientLeft;
      const x = (event.clientX - box.left - edge) / this.pad.clientWidth * this.width;
      const y = (event.clientY - box.top - edge) / this.pad.clientHeight * this.height;
      return Pixels.undo(this.base, this.getMoves(), x, y);
    }

    coverAt(event) {
      const box = this.pad.getBoundingClientRect();
      if (!this.read("size")) this.set("size", Math.ceil(this.width / 4));
      const half = this.read("size") / 2;
      this.set("row", Math.round((event.clientY - box.top) / box.height * this.height - half));
      this.set("column", Math.round((event.clientX - box.left) / box.width * this.width - half));
    }

    step(event) {
      const [name, by] = { ArrowRight: ["right", 1], ArrowLeft: ["right", -1], ArrowDown: ["down", 1], ArrowUp: ["down", -1] }[event.key] ?? [];
      if (!name) return;
      event.preventDefault();
      this.set(name, this.read(name) + by);
    }

    /* Take an image file as the run's own files are taken. */
    async open(file) {
      try {
        const options = { imageOrientation: "from-image", colorSpaceConversion: "none", premultiplyAlpha: "none" };
        const bitmap = await createImageBitmap(file, options);
        const canvas = element("canvas", { width: bitmap.width, height: bitmap.height });
        const context = canvas.getContext("2d", { willReadFrequently: true });
        context.drawImage(bitmap, 0, 0);
        const image = Pixels.flatten(context.getImageData(0, 0, canvas.width, canvas.height), this.channels);
        const isRight = image.width === this.width && image.height === this.height;
        if (!this.data.layout.size && !isRight) throw new Error(`it is ${image.width}×${image.height} pixels, and the run takes ${this.width}×${this.height} alone`);
        this.choose(this.data.layout.size ? Pixels.fit(image, this.data.layout) : image);
      } catch (error) {
        this.problem.textContent = `${file.name} cannot be taken: ${error.message}`;
        this.problem.hidden = false;
      }
    }

    change() {
      this.isChanged = true;
      this.frame ??= requestAnimationFrame(() => { this.frame = null; this.update(); });
    }

    /* The image that the network sees: with the mark, moved, covered by the mean. */
    compose() {
      this.drawn ??= this.readColour();
      let image = this.ink.layOn(this.base, this.drawn);
      const moves = this.getMoves(), [size, row, column] = ["size", "row", "column"].map((name) => this.read(name));
      if (moves.degrees || moves.right || moves.down) image = Pixels.move(image, moves);
      const input = Float32Array.from(image.data);
      for (let y = row; y < Math.min(row + size, this.height); y++) {
        for (let x = column; x < Math.min(column + size, this.width); x++) {
          for (let c = 0; c < this.channels; c++) {
            const p = (y * this.width + x) * this.channels + c;
            input[p] = 255 * this.data.mean[c];
            image.data[p] = Math.round(input[p]);
          }
        }
      }
      return { image, input };
    }

    update() {
      this.isChanged = false;
      const start = performance.now(), { image, input } = this.compose();
      this.logits = this.network.run(input);
      const cost = performance.now() - start;
      this.updates = (this.updates ?? 0) + 1;
      show(this.pad, image);
      this.showBars();
      for (const stage of this.stages) this.showMaps(stage);
      if (this.stages.length) this.explain();
      if (cost < SLOW) this.showSaliency();
      else setTimeout(() => this.isChanged || this.showSaliency());
      this.cost = cost;
      clearTimeout(this.rest);
      this.rest = setTimeout(() => this.say(), REST);
    }

    showBars() {
      const probabilities = toProbabilities(this.logits, this.data);
      this.probabilities = probabilities;
      this.best = probabilities.indexOf(Math.max(...probabilities));
      let order = probabilities.map((_, k) => k);
      if (order.length > MOST_BARS) order = order.sort((a, b) => probabilities[b] - probabilities[a]);
      this.bars.forEach((bar, i) => {
        bar.k = order[i];
        write(bar.name, this.data.classes[bar.k]);
        bar.fill.style.transform = `scaleX(${probabilities[bar.k]})`;
        write(bar.share, formatShare(probabilities[bar.k]));
        bar.button.ariaPressed = String(this.explained === bar.k);
        bar.button.classList.toggle("best", bar.k === this.best);
      });
    }

    /* Say what is read in peace, or read out: not while the image changes. */
    say() {
      write(this.speed, `One image takes ${this.cost.toFixed(1)} ms here. ${this.data.about}`);
      write(this.status, `${this.data.classes[this.best]}, ${formatShare(this.probabilities[this.best])}`);
    }

    showSaliency() {
      const k = this.explained ?? this.best, slopes = this.network.differentiate(k);
      const sums = new Float32Array(this.width * this.height);
      slopes.forEach((slope, i) => { sums[Math.floor(i / this.channels)] += slope; });
      const most = sums.reduce((a, b) => Math.max(a, Math.abs(b)), 1e-30);
      const context = this.heat.getContext("2d"), pixels = context.createImageData(this.width, this.height);
      sums.forEach((sum, i) => {
        pixels.data.set(signed[Math.round(127.5 + 127.5 * sum / most)], 4 * i);
        pixels.data[4 * i + 3] = 255;
      });
      context.putImageData(pixels, 0, 0);
      const text = `Saliency of ${this.data.classes[k]}: the logit rises if a red pixel brightens, and falls if a blue one does; most by ${format(most)} a level`;
      write(this.why, text);
    }

    /* Lay a stage's maps out in rows that fit; done when the page changes its width. */
    layOut() {
      const room = this.maps.clientWidth - 2;
      for (const stage of this.stages) {
        const { width, height, chosen, canvas } = stage;
        stage.zoom = Math.max(1, Math.min(LARGEST, Math.floor(WANTED / width)));
        stage.across = width * stage.zoom + GAP;
        stage.along = height * stage.zoom + GAP;
        stage.columns = Math.max(1, Math.min(chosen.length, Math.floor((room + GAP) / stage.across)));
        canvas.width = stage.columns * stage.across - GAP;
        canvas.height = Math.ceil(chosen.length / stage.columns) * stage.along - GAP;
        stage.pixels = canvas.getContext("2d").createImageData(canvas.width, canvas.height);
      }
      // A map that is wider than the page is shrunk; asked once, as the page is laid out.
      for (const stage of this.stages) stage.scale = stage.canvas.clientWidth / stage.canvas.width;
      this.change();
    }

    showMaps(stage) {
      const { data, width, height, chosen, columns, pixels, zoom, across, along } = stage;
      if (!pixels) return;
      const sheet = new Int32Array(pixels.data.buffer), row = pixels.width;
      let [low, high] = [Infinity, -Infinity];
      for (const value of data) { if (value < low) low = value; if (value > high) high = value; }
      const factor = high > low ? 255 / (high - low) : 0;
      chosen.forEach((channel, i) => {
        let q = Math.floor(i / columns) * along * row + i % columns * across;
        for (let y = 0, p = channel * width * height; y < height; y++, q += zoom * row) {
          for (let x = 0, r = q; x < width; x++, p++) {
            const colour = viridis[Math.round((data[p] - low) * factor)];
            for (let n = 0; n < zoom; n++) sheet[r++] = colour;
          }
          for (let n = 1; n < zoom; n++) sheet.copyWithin(q + n * row, q, q + width * zoom);
        }
      });
      stage.canvas.getContext("2d").putImageData(pixels, 0, 0);
      const text = `from ${format(low)} (dark) to ${format(high)}`;
      write(stage.range, text);
    }

    pick(stage, place, event) {
      const box = stage.canvas.getBoundingClientRect(), { width, height, zoom, across, along } = stage;
      const x = Math.floor((event.clientX - box.left) / box.width * stage.canvas.width);
      const y = Math.floor((event.clientY - box.top) / box.height * stage.canvas.height);
      const tile = Math.floor(y / along) * stage.columns + Math.floor(x / across);
      if (tile >= stage.chosen.length) return;
      const row = Math.min(Math.floor(y % along / zoom), height - 1);
      const column = Math.min(Math.floor(x % across / zoom), width - 1);
      this.spot = { stage: place, channel: stage.chosen[tile], row, column, input: 0 };
      this.change();
    }

    /* Mark the chosen pixel on its map, if that is shown. */
    mark(chosen) {
      this.stages.forEach((stage, i) => {
        const { zoom, across, along, columns, scale } = stage, tile = stage.chosen.indexOf(this.spot.channel);
        stage.spot.hidden = i !== this.spot.stage || tile < 0 || !columns;
        if (stage.spot.hidden) return;
        stage.spot.style.left = `${(tile % columns * across + this.spot.column * zoom) * scale}px`;
        stage.spot.style.top = `${(Math.floor(tile / columns) * along + this.spot.row * zoom) * scale}px`;
        stage.spot.style.width = stage.spot.style.height = `${Math.max(zoom * scale, 3)}px`;
      });
    }

    /* Show the numbers behind the chosen pixel: window, kernel, products, what follows. */
    explain() {
      const stage = this.stages[this.spot.stage], limits = { channel: stage.channels, row: stage.height, column: stage.width };
      for (const [name, n] of Object.entries(limits)) {
        this.spot[name] = Math.max(0, Math.min(n - 1, this.spot[name]));
        this.place[name].max = n - 1;
      }
      const { channel, row, column } = this.spot;
      const way = this.network.follow(stage.value, (channel * stage.height + row) * stage.width + column);
      const last = way?.at(-1), shape = last?.step.output.shape;
      const area = shape ? shape[2] * shape[3] : 1, place = last ? last.index % area : 0;
      const at = last && [Math.floor(last.index / area), Math.floor(place / shape[3]), place % shape[3]];
      const inputs = last ? last.step.inputs[1].shape[1] : 1;
      this.spot.input = Math.max(0, Math.min(inputs - 1, this.spot.input));
      this.place.input.max = inputs - 1;
      for (const [name, control] of Object.entries(this.place)) {
        if (document.activeElement !== control) control.value = this.spot[name];
      }
      this.mark();
      const key = String([...(way ?? []).map(({ step }) => step.node.name), at, this.spot.input, inputs]);
      if (key !== this.shown) {
        this.shown = key;
        this.write = way ? this.buildExplanation(way, at, inputs) : this.buildNothing(stage);
      }
      this.write();
    }

    buildNothing(stage) {
      this.inspector.replaceChildren(element("p", {}, `No convolution's window stands alone behind a value of ${stage.name}: each is made of the whole layer before it.`));
      return () => {};
    }

    /* Make tables whose numbers change with the image; return what writes them. */
    buildExplanation(way, at, inputs) {
      const { step } = way.at(-1), [, first, height, width] = [step, ...step.inputs[1].shape.slice(1)];
      const read = () => step.explain(...at, this.spot.input);
      const table = (name, get) => {
        const cells = Array.from({ length: height }, () => Array.from({ length: width }, () => element("td")));
        const made = element("table", {}, element("caption", {}, name), ...cells.map((row) => element("tr", {}, ...row)));
        const fill = (found) => cells.forEach((row, y) => row.forEach((cell, x) => {
          write(cell, format(get(found.cells[y][x])));
          cell.className = found.cells[y][x].isOutside ? "outside" : "";
        }));
        return { made, fill };
      };
      const tables = [table("window", (cell) => cell.value), table("kernel", (cell) => cell.weight), table("products", (cell) => cell.value * cell.weight)];
      const [sums, after] = [element("p"), element("ol")];
      const signs = ["×", "="].map((sign) => element("span", { className: "sign", ariaHidden: "true" }, sign));
      const layer = nameLayer(step.node).replace(/\/Conv(_\d+)?$/, "");
      this.inspector.replaceChildren(
        element("p", {}, `${layer}: channel ${at[0]}, row ${at[1]}, column ${at[2]}; the kernel of input channel ${this.spot.input} of ${inputs} over what enters the layer. Slanted numbers are padding.`),
        element("div", { className: "numbers", tabIndex: 0, role: "region", ariaLabel: "Window, kernel and products" },
          tables[0].made, signs[0], tables[1].made, signs[1], tables[2].made), sums, after);
      after.append(...way.slice(0, -1).map(() => element("li")));
      return () => {
        const found = read(), own = found.sums[this.spot.input], total = found.sums.reduce((a, b) => a + b, 0);
        for (const one of tables) one.fill(found);
        const all = inputs > 1 ? `; of all ${inputs} input channels ${format(total)}` : "";
        const bias = found.bias === null ? "" : `; with the bias ${format(found.bias)}: ${format(total + found.bias)}`;
        write(sums, `The products' sum is ${format(own)}${all}${bias}.`);
        way.slice(0, -1).reverse().forEach(({ step, index }, i) => {
          write(after.children[i], `${nameLayer(step.node)} makes ${format(step.output.data[index])} of it`);
        });
      };
    }
  }

  for (const root of document.querySelectorAll(".playground")) {
    root.playground = new Playground(root, JSON.parse(root.querySelector("script").textContent));
  }
})();
