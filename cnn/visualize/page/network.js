"use strict";
/* A run's network in the page: operations of ONNX on the arrays of one image.

`Network.load(description)` makes every array once; `run(image)` fills them, and
`differentiate(k)` gives the gradient of logit k with respect to the image. Maps are
[1, C, H, W]. An operator is made of a node and its inputs, {shape, data}, and has the
shape of its output, `forward(y)`, which fills it, and `backward(g, into, y)`, which adds
to the gradients `into` of those inputs that depend on the image; others are null. Where
an element of the output is made of one element of an input, `origin(i, which)` says of
which; else it is negative. */
const Network = (() => {
  const count = (shape) => shape.reduce((a, b) => a * b, 1);

  function findStrides(shape) {
    const strides = new Array(shape.length).fill(1);
    for (let i = shape.length - 2; i >= 0; i--) strides[i] = strides[i + 1] * shape[i + 1];
    return strides;
  }

  const itself = (i) => i;
  const range = (n, map = (i) => i) => Array.from({ length: n }, (_, i) => map(i));

  /* Sum one number of each axis's list, for every place: where each element lies. */
  function addUp(lists) {
    let found = Int32Array.of(0);
    for (const list of lists) {
      const next = new Int32Array(found.length * list.length);
      let i = 0;
      for (const start of found) for (const step of list) next[i++] = start + step;
      found = next;
    }
    return found;
  }

  /* Where each element of a broadcast array lies in the array; null: at its own place. */
  function spread(shape, target) {
    if (String(shape) === String(target)) return null;
    const missing = target.length - shape.length, strides = findStrides(shape);
    return addUp(target.map((n, axis) => {
      const own = axis - missing;
      return range(n, (i) => (own < 0 || shape[own] === 1 ? 0 : i * strides[own]));
    }));
  }

  function broadcast(shapes) {
    const rank = Math.max(...shapes.map((s) => s.length));
    return range(rank, (i) => Math.max(...shapes.map((s) => s[i - rank + s.length] ?? 1)));
  }

  /* out[m, n] = start[m] + Σ a[m, k] · b[n, k]; rows lie one behind the other. */
  function multiply(a, b, out, rows, columns, depth, from = [0, 0, 0], start = null) {
    const [fromA, fromB, fromOut] = from;
    for (let m = 0; m < rows; m += 4) {
      const a0 = fromA + m * depth, tall = Math.min(4, rows - m);
      for (let n = 0; n < columns; n += 4) {
        const b0 = fromB + n * depth, o = fromOut + m * columns + n;
        const wide = Math.min(4, columns - n);
        if (tall === 4 && wide === 4) {
          multiplyBlock(a, a0, b, b0, out, o, columns, depth);
        } else {
          for (let i = 0; i < tall; i++) for (let j = 0; j < wide; j++) {
            let sum = 0;
            for (let k = 0, p = a0 + i * depth, q = b0 + j * depth; k < depth; k++) {
              sum += a[p + k] * b[q + k];
            }
            out[o + i * columns + j] = sum;
          }
        }
        if (start === null) continue;
        for (let i = 0; i < tall; i++) for (let j = 0; j < wide; j++) {
          out[o + i * columns + j] += start[m + i];
        }
      }
    }
  }

  /* Four rows by four: sixteen sums of eight numbers that are read once. */
  function multiplyBlock(a, a0, b, b0, out, o, columns, depth) {
    const a1 = a0 + depth, a2 = a1 + depth, a3 = a2 + depth;
    const b1 = b0 + depth, b2 = b1 + depth, b3 = b2 + depth;
    let s00 = 0, s01 = 0, s02 = 0, s03 = 0, s10 = 0, s11 = 0, s12 = 0, s13 = 0;
    let s20 = 0, s21 = 0, s22 = 0, s23 = 0, s30 = 0, s31 = 0, s32 = 0, s33 = 0;
    for (let k = 0; k < depth; k++) {
      const p = a[a0 + k], q = a[a1 + k], r = a[a2 + k], s = a[a3 + k];
      const t = b[b0 + k], u = b[b1 + k], v = b[b2 + k], w = b[b3 + k];
      s00 += p * t; s01 += p * u; s02 += p * v; s03 += p * w;
      s10 += q * t; s11 += q * u; s12 += q * v; s13 += q * w;
      s20 += r * t; s21 += r * u; s22 += r * v; s23 += r * w;
      s30 += s * t; s31 += s * u; s32 += s * v; s33 += s * w;
    }
    out[o] = s00; out[o + 1] = s01; out[o + 2] = s02; out[o + 3] = s03;
    o += columns;
    out[o] = s10; out[o + 1] = s11; out[o + 2] = s12; out[o + 3] = s13;
    o += columns;
    out[o] = s20; out[o + 1] = s21; out[o + 2] = s22; out[o + 3] = s23;
    o += columns;
    out[o] = s30; out[o + 1] = s31; out[o + 2] = s32; out[o + 3] = s33;
  }

  /* Copy a matrix so that its columns lie one behind the other. */
  function turn(a, from, rows, columns, out) {
    for (let i = 0; i < rows; i++) for (let j = 0, p = from + i * columns; j < columns; j++) {
      out[j * rows + i] = a[p + j];
    }
    return out;
  }

  /* The windows of a convolution or pooling: for each output row and tap, which rows. */
  function findWindows(node, [, channels, height, width]) {
    const { kernel_shape: size, strides: stride, pads, dilations = [1, 1] } = node.attributes;
    const reach = size.map((n, i) => (n - 1) * dilations[i] + 1);
    const out = [height, width].map((n, i) =>
      Math.floor((n + pads[i] + pads[i + 2] - reach[i]) / stride[i]) + 1);
    return { channels, height, width, size, stride, pads, dilations, out };
  }

  /* Call `visit(first, last, from, step)` for each run of a row that one tap reads:
  output pixels first … last - 1 read from, from + step, … of a channel. */
  function* listRuns(w, ky, kx) {
    const shift = kx * w.dilations[1] - w.pads[1];
    const first = Math.max(0, Math.ceil(-shift / w.stride[1]));
    const last = Math.min(w.out[1], Math.floor((w.width - 1 - shift) / w.stride[1]) + 1);
    for (let y = 0; y < w.out[0]; y++) {
      const row = y * w.stride[0] - w.pads[0] + ky * w.dilations[0];
      if (row < 0 || row >= w.height || first >= last) continue;
      const from = row * w.width + first * w.stride[1] + shift;
      yield [y * w.out[1] + first, y * w.out[1] + last, from];
    }
  }

  /* The runs of every tap, as one array of four numbers each: tap, first, last, from. */
  function listAllRuns(w) {
    const found = [];
    for (let ky = 0, tap = 0; ky < w.size[0]; ky++) for (let kx = 0; kx < w.size[1]; kx++, tap++) {
      for (const one of listRuns(w, ky, kx)) found.push(tap, ...one);
    }
    return Int32Array.from(found);
  }

  function conv(node, [x, kernel, bias]) {
    const w = findWindows(node, x.shape), groups = node.attributes.group;
    const runs = listAllRuns(w), step = w.stride[1], taps = w.size[0] * w.size[1];
    const outputs = kernel.shape[0] / groups, inputs = kernel.shape[1];
    const places = w.out[0] * w.out[1], area = w.height * w.width, depth = inputs * taps;
    const shape = [1, kernel.shape[0], ...w.out], isAlone = outputs === 1 && inputs === 1;
    const windows = isAlone ? null : new Float32Array(places * depth);
    let turned = null, slopes = null, across = null;

    function forwardAlone(y) {
      const data = x.data;
      for (let c = 0; c < groups; c++) {
        const o = c * places, from = c * area;
        y.fill(bias ? bias.data[c] : 0, o, o + places);
        for (let i = 0; i < runs.length; i += 4) {
          const weight = kernel.data[c * taps + runs[i]], last = o + runs[i + 2];
          let p = from + runs[i + 3];
          for (let q = o + runs[i + 1]; q < last; q++, p += step) y[q] += weight * data[p];
        }
      }
    }

    function gather(group) {
      const data = x.data;
      for (let c = 0; c < inputs; c++) {
        const from = (group * inputs + c) * area, column = c * taps;
        for (let i = 0; i < runs.length; i += 4) {
          let p = from + runs[i + 3], q = runs[i + 1] * depth + column + runs[i];
          for (let n = runs[i + 2] - runs[i + 1]; n > 0; n--, p += step, q += depth) {
            windows[q] = data[p];
          }
        }
      }
    }

    function forward(y) {
      if (isAlone) return forwardAlone(y);
      for (let group = 0; group < groups; group++) {
        gather(group);
        const from = [group * outputs * depth, 0, group * outputs * places];
        const start = bias && bias.data.subarray(group * outputs, (group + 1) * outputs);
        multiply(kernel.data, windows, y, outputs, places, depth, from, start ?? null);
      }
    }

    function backwardAlone(g, into) {
      for (let c = 0; c < groups; c++) {
        for (let i = 0; i < runs.length; i += 4) {
          const weight = kernel.data[c * taps + runs[i]], last = c * places + runs[i + 2];
          let p = c * area + runs[i + 3];
          for (let q = c * places + runs[i + 1]; q < last; q++, p += step) into[p] += weight * g[q];
        }
      }
    }

    function backward(g, [into]) {
      if (isAlone) return backwardAlone(g, into);
      if (turned === null) {
        turned = new Float32Array(kernel.data.length);
        for (let i = 0; i < groups; i++) {
          const part = turned.subarray(i * outputs * depth);
          turn(kernel.data, i * outputs * depth, outputs, depth, part);
        }
        slopes = new Float32Array(depth * places);
        across = new Float32Array(outputs * places);
      }
      for (let group = 0; group < groups; group++) {
        turn(g, group * outputs * places, outputs, places, across);
        multiply(turned, across, slopes, depth, places, outputs, [group * outputs * depth, 0, 0]);
        for (let c = 0; c < inputs; c++) {
          const from = (group * inputs + c) * area;
          for (let i = 0; i < runs.length; i += 4) {
            let p = from + runs[i + 3];
            const row = (c * taps + runs[i]) * places, last = row + runs[i + 2];
            for (let q = row + runs[i + 1]; q < last; q++, p += step) into[p] += slopes[q];
          }
        }
      }
    }
    /* What one output is the sum of: a window, a kernel and the values of the rest. */
    function explain(channel, row, column, input) {
      const first = Math.floor(channel / outputs) * inputs, [rows, columns] = w.size;
      const part = (c) => range(rows, (ky) => range(columns, (kx) => {
        const y = row * w.stride[0] - w.pads[0] + ky * w.dilations[0];
        const z = column * w.stride[1] - w.pads[1] + kx * w.dilations[1];
        const isOutside = y < 0 || z < 0 || y >= w.height || z >= w.width;
        const weight = kernel.data[(channel * inputs + c) * taps + ky * columns + kx];
        const value = isOutside ? 0 : x.data[(first + c) * area + y * w.width + z];
        return { value, weight, isOutside };
      }));
      const add = (cells) => cells.flat().reduce((sum, cell) => sum + cell.value * cell.weight, 0);
      const sums = range(inputs, (c) => add(part(c)));
      return { cells: part(input), sums, bias: bias ? bias.data[channel] : null };
    }
    return { shape, forward, backward, explain };
  }

  function maxPool(node, [x]) {
    const w = findWindows(node, x.shape), runs = listAllRuns(w), step = w.stride[1];
    const places = w.out[0] * w.out[1], area = w.height * w.width;
    const shape = [1, w.channels, ...w.out], best = new Int32Array(count(shape));
    function forward(y) {
      const data = x.data;
      y.fill(-Infinity);
      for (let c = 0; c < w.channels; c++) for (let i = 0; i < runs.length; i += 4) {
        let p = c * area + runs[i + 3];
        const last = c * places + runs[i + 2];
        for (let q = c * places + runs[i + 1]; q < last; q++, p += step) {
          if (data[p] > y[q]) { y[q] = data[p]; best[q] = p; }
        }
      }
    }
    function backward(g, [into]) {
      for (let q = 0; q < g.length; q++) into[best[q]] += g[q];
    }
    return { shape, forward, backward, origin: (i) => best[i] };
  }

  function averagePool(node, [x]) {
    const w = findWindows(node, x.shape), runs = listAllRuns(w), step = w.stride[1];
    const places = w.out[0] * w.out[1], area = w.height * w.width;
    const shares = new Float32Array(places);
    for (let i = 0; i < runs.length; i += 4) {
      for (let q = runs[i + 1]; q < runs[i + 2]; q++) shares[q]++;
    }
    const all = w.size[0] * w.size[1], isPadCounted = node.attributes.count_include_pad;
    for (let q = 0; q < places; q++) shares[q] = 1 / (isPadCounted ? all : shares[q]);
    function visit(move) {
      for (let c = 0; c < w.channels; c++) for (let i = 0; i < runs.length; i += 4) {
        let p = c * area + runs[i + 3];
        for (let q = runs[i + 1]; q < runs[i + 2]; q++, p += step) move(p, c * places + q, shares[q]);
      }
    }
    return {
      shape: [1, w.channels, ...w.out],
      forward(y) {
        y.fill(0);
        visit((p, q, share) => { y[q] += share * x.data[p]; });
      },
      backward(g, [into]) {
        visit((p, q, share) => { into[p] += share * g[q]; });
      },
    };
  }

  /* A product of matrices, or of stacks of them. */
  function matMul(node, [left, right, bias]) {
    const rows = left.shape.at(-2), depth = left.shape.at(-1), columns = right.shape.at(-1);
    const stack = broadcast([left.shape.slice(0, -2), right.shape.slice(0, -2)]);
    const own = (x) => spread(x.shape.slice(0, -2), stack) ?? range(count(stack));
    const [ofLeft, ofRight] = [own(left), own(right)], shape = [...stack, rows, columns];
    const starts = range(count(stack), (i) =>
      [ofLeft[i] * rows * depth, ofRight[i] * depth * columns, i * rows * columns]);
    const across = new Float32Array(depth * columns), sum = new Float32Array(Math.max(rows, columns) * depth);
    const turnedG = new Float32Array(rows * columns), turnedLeft = new Float32Array(rows * depth);
    const add = (into, from, size) => { for (let i = 0; i < size; i++) into[from + i] += sum[i]; };
    return {
      shape,
      forward(y) {
        for (const [a, b, o] of starts) {
          turn(right.data, b, depth, columns, across);
          multiply(left.data, across, y, rows, columns, depth, [a, 0, o]);
        }
        if (bias) for (let i = 0; i < y.length; i++) y[i] += bias.data[i % columns];
      },
      backward(g, [intoLeft, intoRight]) {
        for (const [a, b, o] of starts) {
          if (intoLeft) {
            multiply(g, right.data, sum, rows, depth, columns, [o, b, 0]);
            add(intoLeft, a, rows * depth);
          }
          if (intoRight) {
            turn(left.data, a, rows, depth, turnedLeft);
            turn(g, o, rows, columns, turnedG);
            multiply(turnedLeft, turnedG, sum, depth, columns, rows);
            add(intoRight, b, depth * columns);
          }
        }
      },
    };
  }

  function batchNormalization(node, [x, scale, bias, mean, variance]) {
    const channels = x.shape[1], area = count(x.shape.slice(2));
    const factor = scale.data.map((s, c) => s / Math.sqrt(variance.data[c] + node.attributes.epsilon));
    const offset = bias.data.map((b, c) => b - mean.data[c] * factor[c]);
    return {
      shape: x.shape,
      origin: itself,
      forward(y) {
        const data = x.data;
        for (let c = 0, i = 0; c < channels; c++) {
          for (const last = i + area; i < last; i++) y[i] = data[i] * factor[c] + offset[c];
        }
      },
      backward(g, [into]) {
        for (let c = 0, i = 0; c < channels; c++) {
          for (const last = i + area; i < last; i++) into[i] += g[i] * factor[c];
        }
      },
    };
  }

  function layerNormalization(node, [x, scale, bias]) {
    const n = x.shape.at(-1), rows = count(x.shape) / n;
    const normal = new Float32Array(count(x.shape)), inverse = new Float32Array(rows);
    return {
      shape: x.shape,
      forward(y) {
        for (let row = 0; row < rows; row++) {
          const from = row * n;
          let mean = 0, variance = 0;
          for (let i = 0; i < n; i++) mean += x.data[from + i] / n;
          for (let i = 0; i < n; i++) variance += (x.data[from + i] - mean) ** 2 / n;
          inverse[row] = 1 / Math.sqrt(variance + node.attributes.epsilon);
          for (let i = 0; i < n; i++) {
            normal[from + i] = (x.data[from + i] - mean) * inverse[row];
            y[from + i] = normal[from + i] * scale.data[i] + bias.data[i];
          }
        }
      },
      backward(g, [into]) {
        for (let row = 0; row < rows; row++) {
          const from = row * n;
          let sum = 0, along = 0;
          for (let i = 0; i < n; i++) {
            const slope = g[from + i] * scale.data[i];
            sum += slope / n;
            along += slope * normal[from + i] / n;
          }
          for (let i = 0; i < n; i++) {
            const slope = g[from + i] * scale.data[i];
            into[from + i] += inverse[row] * (slope - sum - normal[from + i] * along);
          }
        }
      },
    };
  }

  /* An operator that moves elements: `make` says where each element of the output lies
  in the input, and its shape; a negative place is outside and has the value `fill`. */
  const move = (make) => (node, inputs) => {
    const [x] = inputs, { shape, places, fill = 0 } = make(node, inputs);
    return {
      shape,
      origin: (i) => (places === null ? i : places[i]),
      forward(y) {
        if (places === null) { y.set(x.data); return; }
        for (let i = 0; i < y.length; i++) y[i] = places[i] < 0 ? fill : x.data[places[i]];
      },
      backward(g, [into]) {
        for (let i = 0; i < g.length; i++) {
          const p = places === null ? i : places[i];
          if (p >= 0) into[p] += g[i];
        }
      },
    };
  };

  /* Where the elements lie that lists of places along each axis choose. */
  function choose(shape, lists) {
    const strides = findStrides(shape);
    return {
      shape: lists.map((list) => list.length),
      places: addUp(lists.map((list, axis) => list.map((i) => i * strides[axis]))),
    };
  }

  function reshape(node, [x, wanted]) {
    const shape = [...wanted.data], known = -count(shape);
    const free = shape.indexOf(-1);
    if (free >= 0) shape[free] = count(x.shape) / known;
    return { shape, places: null };
  }

  function unsqueeze(node, [x, axes]) {
    const rank = x.shape.length + axes.data.length, rest = [...x.shape];
    return { shape: range(rank, (i) => (axes.data.includes(i) ? 1 : rest.shift())), places: null };
  }

  function transpose(node, [x]) {
    const { perm } = node.attributes, strides = findStrides(x.shape);
    const lists = perm.map((axis) => range(x.shape[axis], (i) => i * strides[axis]));
    return { shape: perm.map((axis) => x.shape[axis]), places: addUp(lists) };
  }

  function slice(node, [x, starts, ends, axes, steps]) {
    const lists = x.shape.map((n) => range(n));
    axes.data.forEach((axis, i) => {
      const n = x.shape[axis], step = steps.data[i], found = [];
      const clip = (p) => Math.max(step < 0 ? -1 : 0, Math.min(n - (step < 0), p < 0 ? p + n : p));
      for (let p = clip(starts.data[i]), end = clip(ends.data[i]); step < 0 ? p > end : p < end; p += step) {
        found.push(p);
      }
      lists[axis] = found;
    });
    return choose(x.shape, lists);
  }

  function gather(node, [x, indices]) {
    const lists = x.shape.map((n) => range(n));
    lists[node.attributes.axis] = [...indices.data];
    return choose(x.shape, lists);
  }

  function expand(node, [x, wanted]) {
    const shape = broadcast([x.shape, [...wanted.data]]);
    return { shape, places: spread(x.shape, shape) };
  }

  function pad(node, [x, pads, value]) {
    const rank = x.shape.length, outside = -(2 ** 26), strides = findStrides(x.shape);
    const lists = x.shape.map((n, axis) => range(pads.data[axis] + n + pads.data[axis + rank], (i) => {
      const place = i - pads.data[axis];
      return place >= 0 && place < n ? place * strides[axis] : outside;
    }));
    return { shape: lists.map((list) => list.length), places: addUp(lists), fill: value.data[0] };
  }

  function concat(node, inputs) {
    const { axis } = node.attributes, shape = [...inputs[0].shape];
    shape[axis] = inputs.reduce((sum, x) => sum + x.shape[axis], 0);
    const strides = findStrides(shape);
    let before = 0;
    const targets = inputs.map((x) => {
      const first = before;
      before += x.shape[axis];
      return addUp(x.shape.map((n, a) => range(n, (i) => (i + (a === axis ? first : 0)) * strides[a])));
    });
    return {
      shape,
      forward(y) {
        inputs.forEach((x, part) => targets[part].forEach((p, i) => { y[p] = x.data[i]; }));
      },
      backward(g, into) {
        into.forEach((one, part) => one && targets[part].forEach((p, i) => { one[i] += g[p]; }));
      },
    };
  }

  /* An operator that reduces axes: where the result of each element stands. */
  const reduce = (forward, backward) => (node, [x]) => {
    const { axes, keepdims } = node.attributes;
    const kept = x.shape.map((n, axis) => (axes.includes(axis) ? 1 : n));
    const targets = spread(kept, x.shape) ?? Int32Array.from(range(count(kept)));
    const shape = keepdims ? kept : kept.filter((_, axis) => !axes.includes(axis));
    const share = count(kept) / count(x.shape);
    return {
      shape,
      forward: (y) => forward(x.data, targets, share, y),
      backward: (g, [into], y) => backward(g, targets, share, into, x.data, y),
    };
  };

  const reduceMean = reduce(
    (x, targets, share, y) => {
      y.fill(0);
      for (let i = 0; i < x.length; i++) y[targets[i]] += x[i] * share;
    },
    (g, targets, share, into) => {
      for (let i = 0; i < into.length; i++) into[i] += g[targets[i]] * share;
    },
  );

  /* Equal maxima share the gradient. */
  const reduceMax = reduce(
    (x, targets, share, y) => {
      y.fill(-Infinity);
      for (let i = 0; i < x.length; i++) if (x[i] > y[targets[i]]) y[targets[i]] = x[i];
    },
    (g, targets, share, into, x, y) => {
      const equal = new Float32Array(g.length);
      for (let i = 0; i < x.length; i++) if (x[i] === y[targets[i]]) equal[targets[i]]++;
      for (let i = 0; i < x.length; i++) {
        if (x[i] === y[targets[i]]) into[i] += g[targets[i]] / equal[targets[i]];
      }
    },
  );

  /* An operator of one array, element by element: its value, and its slope at x, y. */
  const each = (value, slope) => (node, [x, ...bounds]) => {
    const numbers = bounds.map((bound) => bound.data[0]);
    return {
      shape: x.shape,
      origin: itself,
      forward(y) {
        const data = x.data;
        for (let i = 0; i < y.length; i++) y[i] = value(data[i], ...numbers);
      },
      backward(g, [into], y) {
        for (let i = 0; i < g.length; i++) into[i] += g[i] * slope(x.data[i], y[i], ...numbers);
      },
    };
  };

  /* Written out, as it is most of what is not convolution. */
  function relu(node, [x]) {
    return {
      shape: x.shape,
      origin: itself,
      forward(y) {
        const data = x.data;
        for (let i = 0; i < y.length; i++) y[i] = data[i] > 0 ? data[i] : 0;
      },
      backward(g, [into]) {
        const data = x.data;
        for (let i = 0; i < g.length; i++) if (data[i] > 0) into[i] += g[i];
      },
    };
  }

  /* An operator of two or three arrays that are stretched to one shape; the slopes are
  by each of them, null where there is none. */
  const join = (value, ...slopes) => (node, inputs) => {
    const shape = broadcast(inputs.map((x) => x.shape)), n = count(shape);
    const own = range(n), zero = Float32Array.of(0);
    const places = inputs.map((x) => spread(x.shape, shape));
    const [a, b, c = { data: zero }] = inputs;
    const isPlain = places.length === 2 && !places[0] && !places[1];
    const [p, q, r] = range(3, (i) => (i < inputs.length ? places[i] ?? Int32Array.from(own) : new Int32Array(n)));
    return {
      shape,
      origin: (i, which) => (places[which] ? -1 : i),
      forward(y) {
        const [left, right] = [a.data, b.data];
        if (isPlain) for (let i = 0; i < n; i++) y[i] = value(left[i], right[i], 0);
        else for (let i = 0; i < n; i++) y[i] = value(left[p[i]], right[q[i]], c.data[r[i]]);
      },
      backward(g, into, y) {
        [p, q, r].forEach((place, which) => {
          const one = into[which], slope = slopes[which];
          if (!one || !slope) return;
          for (let i = 0; i < n; i++) {
            one[place[i]] += g[i] * slope(a.data[p[i]], b.data[q[i]], c.data[r[i]], y[i]);
          }
        });
      },
    };
  };

  /* Within 1.5e-7: Abramowitz and Stegun 1964, 7.1.26. */
  function erf(x) {
    const t = 1 / (1 + 0.3275911 * Math.abs(x));
    const terms = [1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592];
    const sum = terms.reduce((total, term) => (total + term) * t, 0);
    return Math.sign(x) * (1 - sum * Math.exp(-x * x));
  }

  const operators = {
    Add: join((a, b) => a + b, () => 1, () => 1),
    AveragePool: averagePool,
    BatchNormalization: batchNormalization,
    Clip: each((x, low, high = Infinity) => Math.min(Math.max(x, low), high),
      (x, y, low, high = Infinity) => (x > low && x < high ? 1 : 0)),
    Concat: concat,
    Conv: conv,
    Div: join((a, b) => a / b, (a, b) => 1 / b, (a, b) => -a / (b * b)),
    Erf: each(erf, (x) => 2 / Math.sqrt(Math.PI) * Math.exp(-x * x)),
    Exp: each(Math.exp, (x, y) => y),
    Expand: move(expand),
    Gather: move(gather),
    Gemm: matMul,
    Greater: join((a, b) => (a > b ? 1 : 0)),
    LayerNormalization: layerNormalization,
    MatMul: matMul,
    MaxPool: maxPool,
    Mul: join((a, b) => a * b, (a, b) => b, (a) => a),
    Pad: move(pad),
    Pow: join((a, b) => a ** b, (a, b) => b * a ** (b - 1)),
    Reciprocal: each((x) => 1 / x, (x, y) => -y * y),
    ReduceMax: reduceMax,
    ReduceMean: reduceMean,
    Relu: relu,
    Reshape: move(reshape),
    Sigmoid: each((x) => 1 / (1 + Math.exp(-x)), (x, y) => y * (1 - y)),
    Slice: move(slice),
    Sqrt: each(Math.sqrt, (x, y) => 0.5 / y),
    Sub: join((a, b) => a - b, () => 1, () => -1),
    Tanh: each(Math.tanh, (x, y) => 1 - y * y),
    Transpose: move(transpose),
    Unsqueeze: move(unsqueeze),
    Where: join((a, b, c) => (a ? b : c), null, (a) => (a ? 1 : 0), (a) => (a ? 0 : 1)),
  };

  function decode(text) {
    const found = atob(text), bytes = new Uint8Array(found.length);
    for (let i = 0; i < bytes.length; i++) bytes[i] = found.charCodeAt(i);
    return bytes.buffer;
  }

  function readHalves(halves) {
    return Float32Array.from(halves, (bits) => {
      const exponent = bits >> 10 & 31, rest = bits & 1023, sign = bits >> 15 ? -1 : 1;
      return sign * (exponent ? (1 + rest / 1024) * 2 ** (exponent - 15) : rest * 2 ** -24);
    });
  }

  function readConstants(description) {
    const buffer = decode(description.weights), values = new Map();
    for (const { name, shape, type, start, numbers } of description.constants) {
      const n = count(shape);
      let data = numbers;
      if (type === "float32") data = new Float32Array(buffer, start, n);
      if (type === "float16") data = readHalves(new Uint16Array(buffer, start, n));
      values.set(name, { shape, data });
    }
    return values;
  }

  class Loaded {
    constructor(description) {
      this.values = readConstants(description);
      const image = [1, ...description.image_shape];
      this.image = { shape: image, data: new Float32Array(count(image)) };
      this.values.set(description.input, this.image);
      this.logits = null;
      this.steps = [];
      const depending = new Set([description.input]);
      for (const node of description.operations) {
        const inputs = node.inputs.map((name) => this.values.get(name));
        const made = operators[node.op](node, inputs);
        const output = { shape: made.shape, data: new Float32Array(count(made.shape)) };
        const read = node.inputs.map((name) => depending.has(name));
        if (read.includes(true)) depending.add(node.output);
        this.values.set(node.output, output);
        this.steps.push({ node, inputs, output, read, ...made });
      }
      this.logits = this.values.get(description.logits);
    }

    /* Compute everything of an image [H, W, C] of 0 … 255. */
    run(image) {
      this.image.data.set(image);
      for (const step of this.steps) step.forward(step.output.data);
      return this.logits.data;
    }

    /* Follow an element of a value back to the convolution that made it, the shortest
    way: [{step, index}, …] from the value to the convolution; null where none did. */
    follow(name, index) {
      const makers = new Map(this.steps.map((step) => [step.node.output, step]));
      const ways = [{ name, index, way: [] }], seen = new Set();
      for (const { name, index, way } of ways) {
        const step = makers.get(name);
        if (!step || seen.has(name)) continue;
        seen.add(name);
        const here = [...way, { step, index }];
        if (step.explain) return here;
        step.node.inputs.forEach((input, which) => {
          const origin = step.read[which] && step.origin ? step.origin(index, which) : -1;
          if (origin >= 0) ways.push({ name: input, index: origin, way: here });
        });
      }
      return null;
    }

    /* The gradient [H, W, C] of a logit of the last image, by its pixels. */
    differentiate(k) {
      if (!this.gradients) {
        const values = [this.image, ...this.steps.map((step) => step.output)];
        this.gradients = new Map(values.map((x) => [x, new Float32Array(x.data.length)]));
      }
      for (const gradient of this.gradients.values()) gradient.fill(0);
      this.gradients.get(this.logits)[k] = 1;
      for (const { inputs, output, read, backward } of [...this.steps].reverse()) {
        const into = inputs.map((x, i) => (read[i] ? this.gradients.get(x) : null));
        if (into.some((x) => x)) backward(this.gradients.get(output), into, output.data);
      }
      return this.gradients.get(this.image);
    }
  }

  return { load: (description) => new Loaded(description), operators: Object.keys(operators) };
})();
