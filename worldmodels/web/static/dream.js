"use strict";
// One dream, and the pictures of it.

// V's decoder: z to a picture.
class Decoder {
  constructor(kernel, blob, facts, z) {
    Object.assign(this, { kernel });
    this.mean = facts.mean && blob.read(facts.mean);
    this.std = facts.std;
    let side = 1, patches = 0, pixels = 0;
    this.layers = facts.layers.map(({ w, b, kernel: size }, number) => {
      const [k, n] = w.shape, bias = blob.read(b);
      const layer = { size, side, w: kernel.matrix(blob.read(w), k, n), last: number === facts.layers.length - 1 };
      patches = Math.max(patches, side * side * layer.w.wide);
      side = 2 * side - 2 + size;
      layer.channels = n / (size * size);
      layer.bias = number ? kernel.put(bias) : bias;
      pixels = Math.max(pixels, side * side * layer.channels);
      return layer;
    });
    this.z = kernel.room(z);
    this.patches = kernel.room(patches);
    this.pixels = kernel.room(pixels);
  }

  // The picture of z as bytes, red, green, blue and 255 for every pixel.
  paint(z, picture = new Uint8ClampedArray(4 * SIDE * SIDE)) {
    const out = this.values(z);
    for (let i = 0, j = 0; i < out.length; i += 3, j += 4) {
      for (let colour = 0; colour < 3; colour++) picture[j + colour] = 255 * out[i + colour];
      picture[j + 3] = 255;
    }
    return picture;
  }

  // The picture of z in [0, 1].
  values(z) {
    const { kernel, layers } = this, { run } = kernel;
    kernel.at(this.z, z.length).set(z);
    kernel.multiply(this.z, layers[0].w, this.patches);
    const first = kernel.at(this.patches, layers[0].w.n), into = kernel.at(this.pixels, first.length);
    for (let i = 0; i < first.length; i++) into[i] = Math.max(first[i] + layers[0].bias[i], 0);
    for (const { w, bias, side, size, channels, last } of layers.slice(1)) {
      kernel.multiply(this.pixels, w, this.patches, side * side);
      run.spread(this.patches, bias, this.pixels, side, size, channels, w.wide, last ? 0 : 1);
    }
    const out = kernel.at(this.pixels, 3 * SIDE * SIDE);
    if (!this.mean) return out.map(sigmoid);
    return out.map((x, i) => clamp(this.mean[i] + this.std * x, 0, 1));
  }
}

class Dream {
  static async load(model, blobText, kernelText) {
    return new Dream(model, new Blob16(blobText), await Kernel.load(kernelText));
  }

  constructor(model, blob, kernel) {
    this.model = model;
    this.decoder = new Decoder(kernel, blob, model.decoder, model.sizes.z);
    this.memories = model.memories.map((facts) => new Memory(kernel, blob, facts, model));
    this.policy = new Policy(kernel, blob, model.policy, model.action);
    const { count, z, h, c } = model.starts;
    this.starts = { count, z: blob.read(z), h: blob.read(h), c: blob.read(c) };
    this.dreamer = 0; // the memory whose predictions come true
    this.begin(0);
  }

  // Begin at a recorded state.
  begin(start) {
    const { count, z, h, c } = this.starts, sizes = this.model.sizes;
    this.z = z.slice(start * sizes.z, (start + 1) * sizes.z);
    this.memories.forEach((memory, m) => {
      const row = (m * count + start) * sizes.h;
      memory.begin(h.subarray(row, row + sizes.h), c.subarray(row, row + sizes.h));
    });
    this.restart();
  }

  // Begin at a frame of an episode, its latents mu and actions given from the first on.
  beginAfter(mu, actions) {
    const zeros = new Float32Array(this.model.sizes.h);
    for (const memory of this.memories) {
      memory.begin(zeros, zeros);
      actions.forEach((action, t) => memory.advance(mu[t], action));
    }
    this.z = Float32Array.from(mu[actions.length]);
    this.restart();
  }

  restart() {
    Object.assign(this, { steps: 0, total: 0, over: false, before: this.z, told: null });
  }

  // What C does here.
  act() {
    const { h, c } = this.memories[0].state;
    return this.policy.act(this.z, h, c);
  }

  // Dream one step; the noise is of `Random.noise`, tau the temperature.
  step(action, noise, tau = 1) {
    const k = this.model.mixtures, z = this.z;
    const outputs = this.memories.map((memory) => {
      memory.advance(z, action);
      return memory.predict(z);
    });
    const out = outputs[this.dreamer], predicted = outputs.map((each) => moments(each, k));
    this.before = z;
    this.z = sample(out, k, noise, tau);
    const reward = this.reward(out.reward), { rule, threshold } = this.model.ends;
    const limit = rule === "sampled" ? noise.uniform[z.length + 1] : threshold;
    this.over = rule !== "off" && out.end > limit;
    this.steps += 1;
    this.total += reward;
    const { variance } = predicted[this.dreamer];
    const spread = Math.sqrt(variance.reduce((a, b) => a + b, 0) / variance.length);
    this.told = { reward, end: out.end, spread, disagreement: disagreement(predicted) };
    return this.told;
  }

  // Expected reward, from the output of the reward head.
  reward(out) {
    const { kind, base, event, most, scale, shift, gain, bins } = this.model.reward;
    if (kind === "raw") return scale * out[0] + shift;
    if (kind === "event") return base + event * sigmoid(out[0]);
    if (kind === "count") return base + event * Math.min(softplus(out[0]), most ?? Infinity);
    const top = Math.max(...out), weights = out.map((x) => Math.exp(gain * (x - top)));
    const total = weights.reduce((a, b) => a + b, 0);
    return weights.reduce((sum, weight, i) => sum + weight * bins[i], 0) / total;
  }

  // The picture between the last two steps: 0 is the one before, 1 the newest.
  paint(between = 1, picture = undefined) {
    const { z, before } = this;
    if (between >= 1) return this.decoder.paint(z, picture);
    return this.decoder.paint(z.map((x, i) => before[i] + between * (x - before[i])), picture);
  }
}

// Standard deviation of the memories' means of z; null where one dreams alone.
function disagreement(predicted) {
  const count = predicted.length;
  if (count < 2) return null;
  const size = predicted[0].mean.length;
  let total = 0;
  for (let i = 0; i < size; i++) {
    const mean = predicted.reduce((sum, each) => sum + each.mean[i], 0) / count;
    total += predicted.reduce((sum, each) => sum + (each.mean[i] - mean) ** 2, 0) / count;
  }
  return Math.sqrt(total / size);
}
