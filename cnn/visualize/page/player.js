"use strict";
/* Plays, steps and scrubs the drawings that player.py puts into a page, and computes
   them from the reader's own numbers, as cnn/visualize/lecture/svg.py writes them.
   Nothing is asked for, and nothing is kept. */
(() => {
  const LARGEST = 1e6;
  const motion = matchMedia("(prefers-reduced-motion: reduce)");

  /* Two decimals as Python rounds them: ties, which are odd eighths, to the even digit;
     toFixed takes the larger. */
  function round(value) {
    const size = Math.abs(value);
    if ((size * 8) % 2 !== 1) return value.toFixed(2);
    const below = Math.floor(size * 100);
    return (Math.sign(value) * (below + (below % 2)) / 100).toFixed(2);
  }
  function format(value) {
    const text = round(value).replace(/\.?0+$/, "");
    return text === "-0" ? "0" : text.replace("-", "\u2212");
  }
  const enclose = (value) => (value < 0 ? `(${format(value)})` : format(value));
  const add = (values) => values.reduce((total, value) => total + value, 0);

  const OPERATIONS = {
    dot: (values, taps) => add(values.map((value, i) => value * taps[i])),
    sum: add,
    mean: (values) => add(values) / values.length,
    max: (values) => Math.max(...values),
    best: (before, [value, ...after]) =>
      Number(before.every((x) => x < value) && after.every((x) => x <= value)),
  };
  const LINES = {
    dot: (values, taps) => {
      const terms = values.map((x, i) => `${enclose(x)}·${enclose(taps[i])}`);
      return terms.filter((_, i) => taps[i] !== 0).join(" + ") || "0";
    },
    sum: (values) => values.map(enclose).join(" + "),
    mean: (values) => `(${values.map(enclose).join(" + ")}) / ${values.length}`,
    max: (values) => `max(${values.map(format).join(", ")})`,
  };
  const WRITERS = {
    number: ({ value }) => format(value),
    tap: ({ value }) => `×${format(value)}`,
    line: ({ value, operation, lists }) =>
      `${LINES[operation](...lists)} = ${format(value)}`,
    best: ({ value }) => (value ? "← the best match" : ""),
  };

  class Player {
    constructor(root, place) {
      const find = (name) => root.querySelector(`.${name}`);
      this.paper = find("paper");
      this.line = find("line");
      this.button = find("play");
      this.slider = root.querySelector("input[type=range]");
      this.speed = root.querySelector("select");
      this.steps = Number(root.dataset.steps);
      this.seconds = Number(root.dataset.seconds);
      this.rest = Number(root.dataset.rest);
      this.moving = [...this.paper.querySelectorAll("[data-steps]")].map((element) => ({
        element,
        during: element.dataset.steps.split(" ").map(Number),
      }));
      this.step = this.steps - 1;
      this.timer = null;
      this.loops = false;
      this.button.addEventListener("click", () => {
        this.loops = true;
        this.timer ? this.pause() : this.play();
      });
      find("previous").addEventListener("click", () => this.go(this.step - 1));
      find("next").addEventListener("click", () => this.go(this.step + 1));
      this.slider.addEventListener("input", () => {
        this.pause();
        this.show(this.slider.value - 1, false);
        this.scroll();
      });
      const form = root.querySelector("form");
      if (form) new Sheet(this, form, root.querySelector("script"), `player${place}`);
      for (const part of root.querySelectorAll("[hidden]")) part.hidden = false;
      this.show(this.step, false);
      this.watch();
    }

    /* Play once when first seen, stop when out of sight, and rest where motion is not
       wanted. */
    watch() {
      let begun = motion.matches;
      const seen = (entries) => {
        const { isIntersecting, intersectionRatio } = entries[entries.length - 1];
        if (!isIntersecting) this.pause();
        if (begun || intersectionRatio < 0.6) return;
        begun = true;
        this.play();
      };
      new IntersectionObserver(seen, { threshold: [0, 0.6] }).observe(this.paper);
      motion.addEventListener("change", () => {
        this.pause();
        if (motion.matches) this.show(this.steps - 1, false);
      });
      new ResizeObserver(() => {
        if (this.paper.scrollWidth > this.paper.clientWidth) this.paper.tabIndex = 0;
        else this.paper.removeAttribute("tabindex");
      }).observe(this.paper);
    }

    play() {
      this.button.textContent = "Pause";
      this.wait(this.step < this.steps - 1 ? this.step + 1 : 0, 0);
    }
    wait(step, steps) {
      const milliseconds = (1000 * this.seconds * steps) / Number(this.speed.value);
      this.timer = setTimeout(() => {
        this.show(step, false);
        this.scroll();
        if (step < this.steps - 1) this.wait(step + 1, 1);
        else if (this.loops) this.wait(0, 1 + this.rest);
        else this.pause();
      }, milliseconds);
    }
    pause() {
      clearTimeout(this.timer);
      this.timer = null;
      this.button.textContent = "Play";
    }
    go(step) {
      this.pause();
      this.show((step + this.steps) % this.steps, true);
      this.scroll();
    }

    /* A slider speaks for itself, and a playing drawing would never be quiet. */
    show(step, aloud) {
      this.step = Number(step);
      for (const { element, during } of this.moving) {
        const [first, end] = during;
        element.classList.toggle("unseen", this.step < first || this.step >= end);
      }
      const place = `${this.step + 1} of ${this.steps}`, what = this.explain();
      this.slider.value = this.step + 1;
      this.slider.setAttribute("aria-valuetext", what ? `${place}: ${what}` : place);
      this.line.setAttribute("aria-live", aloud ? "polite" : "off");
      this.line.textContent = `Step ${place}${what && `: ${what}`}`;
    }
    /* What is written along a step, or else the numbers that come up in it. */
    explain() {
      const texts = this.moving.filter(({ element }) => element.textContent &&
        element.tagName === "text" && !element.classList.contains("unseen"));
      const lines = texts.filter(({ element }) => element.classList.contains("left"));
      const fresh = texts.filter(({ during }) => during[0] === this.step);
      const read = (chosen) => chosen.map(({ element }) => element.textContent);
      return read(lines).join("; ") || read(fresh).join(", ");
    }
    /* Bring what a step is about into sight where the drawing is wider than its place. */
    scroll() {
      const wide = this.paper.getBoundingClientRect();
      const framed = this.moving.filter(({ element }) =>
        element.matches(".window, .new") && !element.classList.contains("unseen"));
      for (const { element } of framed) {
        const { left, right } = element.getBoundingClientRect();
        if (right > wide.right) this.paper.scrollLeft += right - wide.right + 16;
        if (left < wide.left) this.paper.scrollLeft -= wide.left - left + 16;
      }
    }
  }

  class Sheet {
    constructor(player, form, script, name) {
      this.player = player;
      this.numbers = JSON.parse(script.textContent);
      this.inputs = [...form.querySelectorAll("input")];
      this.texts = [...player.paper.querySelectorAll("[data-number]")];
      this.message = form.querySelector(".message");
      this.message.id = `${name}-message`;
      form.addEventListener("input", () => this.refuse().length || this.compute());
      form.addEventListener("change", () => this.complain());
      form.addEventListener("submit", (event) => {
        event.preventDefault();
        this.complain();
      });
      form.addEventListener("reset", () => setTimeout(() => {
        this.complain();
        this.compute();
      }));
      if (this.inputs.some((x) => x.value !== x.defaultValue)) form.reset();
    }

    /* Return the fields that hold no number of ours. */
    refuse() {
      return this.inputs.filter((x) => !(Math.abs(x.valueAsNumber) <= LARGEST));
    }
    complain() {
      const bad = this.refuse();
      for (const input of this.inputs) {
        input.removeAttribute("aria-invalid");
        input.removeAttribute("aria-describedby");
      }
      for (const input of bad) {
        input.setAttribute("aria-invalid", "true");
        input.setAttribute("aria-describedby", this.message.id);
      }
      this.message.textContent = bad.length
        ? `${bad[0].getAttribute("aria-label")}: a number is needed, such as −1.5, from ` +
          "−1000000 to 1000000. The drawing waits for it."
        : "";
    }

    /* Compute every number from the fields, and write it wherever it is shown. */
    compute() {
      const computed = [];
      for (const [place, number] of this.numbers.entries()) {
        const [operation, ...reads] = Array.isArray(number) ? number : [""];
        const lists = reads.map((read) => read.map((one) => computed[one].value));
        const given = this.inputs[place]?.valueAsNumber ?? number;
        const value = operation ? OPERATIONS[operation](...lists) : given;
        computed.push({ value, operation, lists });
      }
      for (const text of this.texts) {
        const { number, writer } = text.dataset;
        text.style.fontSize = "";
        text.textContent = WRITERS[writer](computed[number]);
      }
      const lengths = this.texts.map((text) => text.getComputedTextLength());
      for (const [i, text] of this.texts.entries()) {
        const share = Number(text.dataset.room) / lengths[i];
        const size = parseFloat(getComputedStyle(text).fontSize);
        if (share < 1) text.style.fontSize = `${size * share}px`;
      }
      this.player.pause();
      this.player.show(this.player.step, true);
    }
  }

  document.querySelectorAll(".player").forEach((root, place) => new Player(root, place));
})();
