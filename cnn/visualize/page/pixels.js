"use strict";
/* Images in the page: strokes, moves and files as the run sees them.

An image is {height, width, channels, data}, whole numbers 0 … 255 as [H, W, C]. */
const Pixels = (() => {
  const FINE = 4; // fine pixels along a pixel's side, so that it has 17 levels
  const make = (height, width, channels) =>
    ({ height, width, channels, data: new Uint8ClampedArray(height * width * channels) });

  /* A pen's mark, of fine pixels that are covered or not: as the digits of scikit-learn
  were made, whose levels are counts of 4 × 4 pixels of a bitmap. */
  class Ink {
    constructor({ height, width }) {
      Object.assign(this, { height, width, fine: new Uint8Array(height * width * FINE * FINE) });
      this.counts = new Uint8Array(height * width);
    }

    /* Cover all within `radius` of the line from (x0, y0) to (x1, y1), in pixels. */
    draw(x0, y0, x1, y1, radius) {
      const across = this.width * FINE, down = this.height * FINE;
      const [dx, dy] = [x1 - x0, y1 - y0], length = dx * dx + dy * dy;
      const low = (a, b) => Math.max(0, Math.floor((Math.min(a, b) - radius) * FINE));
      const high = (a, b, most) => Math.min(most, Math.ceil((Math.max(a, b) + radius) * FINE));
      for (let j = low(y0, y1); j < high(y0, y1, down); j++) {
        for (let i = low(x0, x1); i < high(x0, x1, across); i++) {
          if (this.fine[j * across + i]) continue;
          const [x, y] = [(i + 0.5) / FINE - x0, (j + 0.5) / FINE - y0];
          const along = length ? Math.max(0, Math.min(1, (x * dx + y * dy) / length)) : 0;
          if ((x - along * dx) ** 2 + (y - along * dy) ** 2 > radius * radius) continue;
          this.fine[j * across + i] = 1;
          this.counts[Math.floor(j / FINE) * this.width + Math.floor(i / FINE)]++;
        }
      }
    }

    /* The image with the mark on it in a colour, one number a channel. */
    layOn(image, colour) {
      const result = { ...image, data: image.data.slice() }, all = FINE * FINE;
      this.counts.forEach((n, i) => {
        for (let c = 0; n && c < image.channels; c++) {
          const p = i * image.channels + c, value = image.data[p];
          result.data[p] = Math.floor((value * all + (colour[c] - value) * n + all / 2) / all);
        }
      });
      return result;
    }
  }

  /* Where a place (x, y) of the turned and shifted image lies in the image. */
  function undo({ height, width }, { degrees, right, down }, x, y) {
    const angle = degrees * Math.PI / 180, cos = Math.cos(angle), sin = Math.sin(angle);
    const [u, v] = [x - right - width / 2, y - down - height / 2];
    return [cos * u + sin * v + width / 2, -sin * u + cos * v + height / 2];
  }

  /* Turn clockwise about the centre, then shift; black comes in from outside. */
  function move(image, change) {
    const { height, width, channels, data } = image, result = make(height, width, channels);
    const read = (x, y, c) =>
      (x < 0 || y < 0 || x >= width || y >= height ? 0 : data[(y * width + x) * channels + c]);
    for (let y = 0, i = 0; y < height; y++) for (let x = 0; x < width; x++) {
      let [u, v] = undo(image, change, x + 0.5, y + 0.5);
      [u, v] = [u - 0.5, v - 0.5];
      const [left, top] = [Math.floor(u + 1e-9), Math.floor(v + 1e-9)], [p, q] = [u - left, v - top];
      for (let c = 0; c < channels; c++) {
        const above = read(left, top, c) * (1 - p) + read(left + 1, top, c) * p;
        const below = read(left, top + 1, c) * (1 - p) + read(left + 1, top + 1, c) * p;
        result.data[i++] = Math.round(above * (1 - q) + below * q);
      }
    }
    return result;
  }

  const filters = {
    bilinear: [1, (x) => Math.max(0, 1 - Math.abs(x))],
    bicubic: [2, (x) => {
      const t = Math.abs(x);
      if (t < 1) return (1.5 * t - 2.5) * t * t + 1;
      return t < 2 ? ((-0.5 * t + 2.5) * t - 4) * t + 2 : 0;
    }],
  };
  const ONE = 2 ** 22; // what a weight of 1 is in Pillow's whole numbers

  /* For each output pixel: the first input pixel it reads, and the weights of these. */
  function findWeights(from, to, name) {
    const scale = from / to, wide = Math.max(scale, 1), [support, weigh] = filters[name];
    return Array.from({ length: to }, (_, i) => {
      const centre = (i + 0.5) * scale;
      const first = Math.max(0, Math.trunc(centre - support * wide + 0.5));
      const last = Math.min(from, Math.trunc(centre + support * wide + 0.5));
      const weights = Array.from({ length: last - first }, (_, k) =>
        weigh((k + first - centre + 0.5) / wide));
      const total = weights.reduce((a, b) => a + b, 0);
      return [first, weights.map((w) => Math.round(w / total * ONE))];
    });
  }

  /* Resize along one axis as Pillow does, to the bit. Across comes first; since version
  13 Pillow may begin with the other axis, which rounds otherwise. */
  function resizeAxis(image, to, isDown, name) {
    const { height, width, channels, data } = image;
    const result = isDown ? make(to, width, channels) : make(height, to, channels);
    const step = (isDown ? width : 1) * channels, other = isDown ? width : height;
    findWeights(isDown ? height : width, to, name).forEach(([first, weights], i) => {
      for (let j = 0; j < other; j++) for (let c = 0; c < channels; c++) {
        let p = (isDown ? first * width + j : j * width + first) * channels + c, sum = ONE / 2;
        for (const weight of weights) { sum += data[p] * weight; p += step; }
        const place = isDown ? i * width + j : j * to + i;
        result.data[place * channels + c] = Math.floor(sum / ONE);
      }
    });
    return result;
  }

  function resize(image, width, height, name) {
    if (name === "nearest") {
      const result = make(height, width, image.channels);
      for (let y = 0, i = 0; y < height; y++) for (let x = 0; x < width; x++) {
        const row = Math.floor((y + 0.5) * image.height / height);
        const p = row * image.width + Math.floor((x + 0.5) * image.width / width);
        for (let c = 0; c < image.channels; c++) result.data[i++] = image.data[p * image.channels + c];
      }
      return result;
    }
    if (image.width !== width) image = resizeAxis(image, width, false, name);
    return image.height === height ? image : resizeAxis(image, height, true, name);
  }

  const roundEven = (x) => (Math.abs(x % 1) === 0.5 ? 2 * Math.round(x / 2) : Math.round(x));

  /* The (width, height) that a file is resized to before it is cut or framed. */
  function findSize(width, height, { size, mode, resize_size: shorter }) {
    if (mode === "squash") return [size, size];
    const other = (long, short) => Math.max(1, roundEven(short / long * size));
    if (mode === "pad") return width >= height ? [size, other(width, height)] : [other(height, width), size];
    const side = shorter || size;
    if (width <= height) return [side, Math.trunc(side * height / width)];
    return [Math.trunc(side * width / height), side];
  }

  /* Bring an image to the run's size as its files are brought: resized, then cut in the
  middle or framed in black. */
  function fit(image, layout) {
    const { size } = layout, { channels } = image;
    const [width, height] = findSize(image.width, image.height, layout);
    const found = resize(image, width, height, layout.interpolation);
    if (width === size && height === size) return found;
    const [left, top] = [width, height].map((side) => roundEven((size - side) / 2));
    const result = make(size, size, channels);
    for (let y = Math.max(0, top); y < Math.min(size, top + height); y++) {
      for (let x = Math.max(0, left); x < Math.min(size, left + width); x++) {
        for (let c = 0; c < channels; c++) {
          const p = ((y - top) * width + x - left) * channels + c;
          result.data[(y * size + x) * channels + c] = found.data[p];
        }
      }
    }
    return result;
  }

  /* A canvas's RGBA as grey or RGB, laid on white; grey is ITU-R 601-2 luma. */
  function flatten({ width, height, data }, channels) {
    const result = make(height, width, channels);
    for (let i = 0; i < width * height; i++) {
      const alpha = data[4 * i + 3] / 255;
      const [r, g, b] = [0, 1, 2].map((c) => Math.round(data[4 * i + c] * alpha + 255 * (1 - alpha)));
      if (channels === 3) result.data.set([r, g, b], 3 * i);
      else result.data[i] = (r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16;
    }
    return result;
  }

  return { Ink, fit, flatten, make, move, undo };
})();
