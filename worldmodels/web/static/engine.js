"use strict";
// V's decoder, M and C. Names, shapes and order of operations are those of the Python package;
// products run in the WebAssembly kernel, everything between them here.

const SIDE = 64; // of a frame, in pixels
const EXTRA = 3; // uniform numbers of a step after those of z: reward, end, memory
const PANEL = 8; // columns that the kernel's matrices keep together

// Bytes of a base64 text.
function bytesOf(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

// A float16 as a number.
function half(bits) {
  const exponent = (bits >> 10) & 31, fraction = bits & 1023, sign = bits & 0x8000 ? -1 : 1;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1024 + fraction) * 2 ** (exponent - 25);
}

const HALVES = new Float32Array(65536).map((_, bits) => half(bits));

// Arrays of the page's blob.
class Blob16 {
  constructor(text) {
    this.bytes = bytesOf(text);
  }

  read({ at, shape, half }) {
    const count = shape.reduce((a, b) => a * b, 1);
    if (!half) return new Float32Array(this.bytes.buffer, at, count);
    return Float32Array.from(new Uint16Array(this.bytes.buffer, at, count), (bits) => HALVES[bits]);
  }
}

// The kernel and its memory, which only grows while a model is read.
class Kernel {
  static async load(text) {
    const { instance } = await WebAssembly.instantiate(bytesOf(text), {});
    return new Kernel(instance.exports);
  }

  constructor(exports) {
    this.run = exports;
    this.end = (exports.__heap_base.value + 15) & ~15;
  }

  // Address of room for so many numbers.
  room(count) {
    const address = this.end;
    this.end += (4 * count + 15) & ~15;
    const lacking = this.end - this.run.memory.buffer.byteLength;
    if (lacking > 0) this.run.memory.grow(Math.ceil(lacking / 65536));
    return address;
  }

  // Numbers at an address; taken anew after every `room`.
  at(address, count) {
    return new Float32Array(this.run.memory.buffer, address, count);
  }

  put(array) {
    const address = this.room(array.length);
    this.at(address, array.length).set(array);
    return address;
  }

  // A matrix (k, n) in the kernel's order.
  matrix(array, k, n) {
    const wide = Math.ceil(n / PANEL) * PANEL, address = this.room(k * wide);
    const packed = this.at(address, k * wide);
    for (let row = 0; row < k; row++) {
      for (let column = 0; column < n; column++) {
        const panel = (column / PANEL) | 0;
        packed[(panel * k + row) * PANEL + (column % PANEL)] = array[row * n + column];
      }
    }
    return { address, k, n, wide };
  }

  multiply(input, matrix, output, rows = 1) {
    this.run.multiply(input, matrix.address, output, rows, matrix.wide, matrix.k);
  }
}

const sigmoid = (x) => 1 / (1 + Math.exp(-x));
const softplus = (x) => (x > 20 ? x : Math.log1p(Math.exp(x)));
const clamp = (x, low, high) => Math.min(Math.max(x, low), high);
const roundEven = (x) => (Math.abs(x % 1) === 0.5 ? 2 * Math.round(x / 2) : Math.round(x));

function largest(values) {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i] > values[best]) best = i;
  return best;
}

// Random numbers from a seed: sfc32, and normal ones by Box and Muller.
class Random {
  constructor(seed) {
    this.state = new Uint32Array([seed, seed ^ 0x9e3779b9, 0x243f6a88, 1]);
    for (let i = 0; i < 16; i++) this.uniform();
  }

  uniform() {
    const s = this.state, t = (s[0] + s[1] + s[3]) >>> 0;
    s[3]++;
    s[0] = s[1] ^ (s[1] >>> 9);
    s[1] = s[2] + (s[2] << 3);
    s[2] = ((s[2] << 21) | (s[2] >>> 11)) + t;
    return t / 2 ** 32;
  }

  normal() {
    const radius = Math.sqrt(-2 * Math.log(1 - this.uniform()));
    return radius * Math.cos(2 * Math.PI * this.uniform());
  }

  // The noise of one step of a dream.
  noise(z) {
    return {
      uniform: Float32Array.from({ length: z + EXTRA }, () => this.uniform()),
      normal: Float32Array.from({ length: z }, () => this.normal()),
    };
  }
}

// Layers of numbers to numbers: linear, norm, silu, tanh.
class Net {
  constructor(kernel, blob, layers) {
    this.kernel = kernel;
    this.layers = layers.map((layer) => {
      if (layer.kind === "norm")
        return { ...layer, gain: blob.read(layer.gain), shift: blob.read(layer.shift) };
      if (layer.kind !== "linear") return layer;
      const [k, n] = layer.w.shape, w = kernel.matrix(blob.read(layer.w), k, n);
      return { kind: "linear", w, b: blob.read(layer.b), from: kernel.room(k), to: kernel.room(w.wide) };
    });
  }

  forward(values) {
    let x = Float32Array.from(values);
    for (const layer of this.layers) {
      if (layer.kind === "linear") {
        this.kernel.at(layer.from, x.length).set(x);
        this.kernel.multiply(layer.from, layer.w, layer.to);
        x = this.kernel.at(layer.to, layer.w.n).map((value, i) => value + layer.b[i]);
      } else if (layer.kind === "norm") {
        const mean = x.reduce((a, b) => a + b, 0) / x.length;
        const variance = x.reduce((a, b) => a + (b - mean) ** 2, 0) / x.length;
        const scale = 1 / Math.sqrt(variance + layer.eps);
        x = x.map((value, i) => (value - mean) * scale * layer.gain[i] + layer.shift[i]);
      } else {
        x = x.map(layer.kind === "tanh" ? Math.tanh : (value) => value * sigmoid(value));
      }
    }
    return x;
  }
}

// C, and its residual: from z, h and c to an action as M sees it.
class Policy {
  constructor(kernel, blob, facts, action) {
    Object.assign(this, facts, { action });
    this.controller = new Net(kernel, blob, facts.net);
    this.actors = facts.residual ? facts.residual.nets.map((net) => new Net(kernel, blob, net)) : [];
  }

  act(z, h, c) {
    const carry = this.inputs === "zhc" ? [...h, ...c] : [...h];
    const own = this.choose(this.controller.forward(this.inputs === "z" ? z : [...z, ...carry]));
    return this.residual ? this.change(own, [...z, ...carry]) : own;
  }

  choose(out) {
    if (this.rule === "numbers") {
      const numbers = out.map((x, i) => {
        const [scale, shift, floor] = [0, 1, 2].map((row) => this.edges[row][i]);
        return Math.max(Math.tanh(x) * scale + shift, floor);
      });
      return this.whole ? numbers.map(roundEven) : numbers;
    }
    if (this.rule === "argmax") return oneHot(largest(out), out.length);
    const count = this.choices.length;
    const interval = clamp(Math.trunc((Math.tanh(out[0]) + 1) * (count / 2)), 0, count - 1);
    return oneHot(this.choices[interval], count);
  }

  // A bounded change of C's action; see `Actor.changed`.
  change(own, seen) {
    const { bound, edge, lead, low, high } = this.residual, discrete = this.action.discrete;
    const outputs = this.actors.map((actor) => actor.forward(seen));
    const numbers = Float32Array.from(own, (value, i) => {
      const middle = (high[i] + low[i]) / 2, reach = (high[i] - low[i]) / 2;
      const said = discrete ? (2 * value - 1) * lead : value;
      const u = Math.atanh(clamp((said - middle) / reach, -edge, edge));
      const changes = outputs.map((out) => bound * Math.tanh(out[i] / bound));
      return middle + reach * Math.tanh(u + changes.reduce((a, b) => a + b, 0) / changes.length);
    });
    if (discrete) return oneHot(largest(numbers), numbers.length);
    return this.action.whole ? numbers.map(roundEven) : numbers;
  }
}

function oneHot(choice, count) {
  return Float32Array.from({ length: count }, (_, i) => (i === choice ? 1 : 0));
}

// One M: its state, and what it predicts.
class Memory {
  constructor(kernel, blob, facts, model) {
    Object.assign(this, { kernel, model });
    const { z, action, h } = model.sizes;
    this.inputs = z + action + h;
    this.gates = kernel.matrix(blob.read(facts.gates), this.inputs, 4 * h);
    this.heads = kernel.matrix(blob.read(facts.heads), h, facts.heads.shape[1]);
    this.gatesBias = blob.read(facts.gates_bias);
    this.headsBias = blob.read(facts.heads_bias);
    this.input = kernel.room(this.inputs);
    this.output = kernel.room(Math.max(this.gates.wide, this.heads.wide));
    this.state = { h: new Float32Array(h), c: new Float32Array(h) };
  }

  begin(h, c) {
    this.state = { h: Float32Array.from(h), c: Float32Array.from(c) };
  }

  // The state after z and an action.
  advance(z, action) {
    const { kernel, model, gatesBias: bias } = this, size = model.sizes.h, { h, c } = this.state;
    const input = kernel.at(this.input, this.inputs);
    input.set(z), input.set(action, z.length), input.set(h, z.length + action.length);
    kernel.multiply(this.input, this.gates, this.output);
    const gates = kernel.at(this.output, 4 * size);
    for (let i = 0; i < size; i++) {
      const [a, f, g, o] = [i, size + i, 2 * size + i, 3 * size + i];
      const kept = sigmoid(gates[f] + bias[f]) * c[i];
      c[i] = kept + sigmoid(gates[a] + bias[a]) * Math.tanh(gates[g] + bias[g]);
      h[i] = sigmoid(gates[o] + bias[o]) * Math.tanh(c[i]);
    }
  }

  // From the state: weights, means and standard deviations (z x mixtures), reward and end heads.
  predict(z) {
    const { kernel, model, headsBias: bias } = this, k = model.mixtures, count = z.length * k;
    kernel.at(this.input, model.sizes.h).set(this.state.h);
    kernel.multiply(this.input, this.heads, this.output);
    const out = kernel.at(this.output, this.heads.n).map((value, i) => value + bias[i]);
    const logPi = out.slice(0, count), mu = out.slice(count, 2 * count);
    const ceiling = Math.log(model.ceiling);
    const sigma = out.slice(2 * count, 3 * count)
      .map((raw) => Math.exp(Math.min(raw, ceiling)) + model.floor);
    for (let i = 0; i < count; i += k) {
      const row = logPi.subarray(i, i + k), most = Math.max(...row);
      const total = Math.log(row.reduce((sum, x) => sum + Math.exp(x - most), 0)) + most;
      for (let j = 0; j < k; j++) row[j] -= total;
      if (model.residual) for (let j = 0; j < k; j++) mu[i + j] += z[i / k];
    }
    return { logPi, mu, sigma, reward: out.slice(3 * count, -1), end: sigmoid(out.at(-1)) };
  }
}

// Mean and variance of every dimension's mixture.
function moments({ logPi, mu, sigma }, k) {
  const mean = new Float32Array(mu.length / k), variance = new Float32Array(mean.length);
  for (let i = 0; i < mean.length; i++) {
    for (let j = i * k; j < (i + 1) * k; j++) mean[i] += Math.exp(logPi[j]) * mu[j];
    for (let j = i * k; j < (i + 1) * k; j++)
      variance[i] += Math.exp(logPi[j]) * (sigma[j] ** 2 + (mu[j] - mean[i]) ** 2);
  }
  return { mean, variance };
}

// z from a mixture, as `mixture_from_noise`.
function sample({ logPi, mu, sigma }, k, { uniform, normal }, tau) {
  return Float32Array.from({ length: mu.length / k }, (_, i) => {
    const row = logPi.subarray(i * k, (i + 1) * k), first = i * k;
    if (tau <= 0) return mu[first + largest(row)];
    const most = Math.max(...row), sums = [];
    row.forEach((x, j) => sums.push((sums[j - 1] || 0) + Math.exp((x - most) / tau)));
    const threshold = uniform[i] * sums[k - 1];
    const chosen = sums.slice(0, -1).filter((sum) => sum <= threshold).length;
    return mu[first + chosen] + Math.sqrt(tau) * sigma[first + chosen] * normal[i];
  });
}
