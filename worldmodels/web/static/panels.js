"use strict";
// Below the stage: reality beside the dream, and the numbers that paint.

class Reality {
  constructor(dream, blob, player) {
    const { random } = player, real = facts.real, size = dream.z.length;
    Object.assign(this, { dream, random, real, at: 0, since: 0, drift: [], ready: false });
    const mu = blob.read(real.mu), actions = blob.read(real.actions), wide = dream.model.sizes.action;
    this.rewards = blob.read(real.rewards);
    this.mu = Array.from({ length: real.steps + 1 }, (_, t) => mu.subarray(t * size, (t + 1) * size));
    this.actions = Array.from({ length: real.steps }, (_, t) => actions.subarray(t * wide, (t + 1) * wide));
    this.context = $("real").getContext("2d");
    this.show = screenOf($("dreamt"));
    this.visible = watch($("reality"));
    this.sheet = new Image();
    this.sheet.onload = () => ((this.ready = true), this.draw());
    this.sheet.src = real.frames;
    $("time").max = real.steps;
    $("time").oninput = () => (this.play(false), this.anew(Number($("time").value)));
    $("real-play").onclick = () => this.play(!this.playing);
    $("anew").onclick = () => this.anew(this.at);
    $("enter").onclick = () => this.enter(player);
    this.anew(Math.min(facts.real.begin, real.steps - 1));
    this.play(!calm);
  }

  // Let the dream begin at a decision of the episode, M having seen what came before.
  anew(at) {
    this.at = this.begun = at;
    this.drift.fill(undefined, at);
    this.returns = [0, 0];
    this.over = false;
    this.dream.beginAfter(this.mu, this.actions.slice(0, at));
    this.draw();
  }

  // Let the person go on in the dream of the stage.
  enter(player) {
    this.play(false);
    player.dream.beginAfter(this.mu, this.actions.slice(0, this.at));
    player.begun(-1);
    player.take(true);
    player.pause(false);
    $("stage").scrollIntoView();
  }

  play(playing) {
    if (playing && this.at >= this.real.steps) this.anew(0);
    this.playing = playing;
    say("real-play", playing ? "Pause" : "Play");
  }

  step() {
    const told = this.dream.step(this.actions[this.at], this.random.noise(this.dream.z.length), Number($("temperature").value));
    this.returns = [this.returns[0] + this.rewards[this.at], this.returns[1] + told.reward];
    this.over = this.over || this.dream.over;
    this.at += 1;
    if (this.at >= this.real.steps) this.play(false);
  }

  tick(passed) {
    if (!this.playing || !this.visible.now) return;
    const length = 1000 / Number($("speed").value);
    this.since += Math.min(passed, 250);
    if (this.since < length) return;
    this.since %= length;
    this.step();
    this.draw();
  }

  draw() {
    const { at, real, dream } = this;
    const dreamt = dream.decoder.paint(dream.z), seen = dream.decoder.paint(this.mu[at]);
    this.show(dreamt);
    if (this.ready) {
      const [x, y] = [at % real.columns, Math.floor(at / real.columns)].map((n) => n * SIDE);
      this.context.drawImage(this.sheet, x, y, SIDE, SIDE, 0, 0, SIDE, SIDE);
    }
    this.drift[at] = dreamt.reduce((sum, value, i) => sum + Math.abs(value - seen[i]), 0) / (3 * SIDE * SIDE * 255);
    const ahead = at - this.begun;
    say("ahead", `${ahead} decision${ahead === 1 ? "" : "s"} ahead${this.over ? ", M has seen the end" : ""}`);
    $("time").value = at;
    say("time-value", `${at} of ${real.steps}`);
    say("drift-value", `${(100 * this.drift[at]).toFixed(1)}%`);
    say("real-return", this.returns[0].toFixed(1));
    say("dreamt-return", this.returns[1].toFixed(1));
    this.chart();
  }

  chart() {
    const x = (t) => ((600 * t) / this.real.steps).toFixed(1), most = Math.max(0.1, ...this.drift.filter(Number.isFinite));
    const points = this.drift.map((value, t) => [t, value]).filter(([, value]) => value !== undefined);
    const line = points.map(([t, value], i) => {
      const joined = i && points[i - 1][0] === t - 1 ? "L" : "M";
      return `${joined}${x(t)} ${(88 - (84 * value) / most).toFixed(1)}`;
    });
    const chart = $("drift");
    chart.querySelector(".line").setAttribute("d", line.join(""));
    const bars = points.map(([t, value]) => `M${x(t)} 90V${(88 - (84 * value) / most).toFixed(1)}H${x(t + 1)}V90Z`);
    chart.querySelector(".area").setAttribute("d", bars.join(""));
    for (const side of ["x1", "x2"]) chart.querySelector(".now").setAttribute(side, x(this.at));
  }
}

const REACH = 2; // a tile compares a number 2 above with 2 below
const TINT = [182, 155, 255]; // of what it changes
const DIM = 0.45; // brightness of what a number leaves alone

class Latents {
  constructor(player) {
    Object.assign(this, { player, dream: player.dream, next: 0, saved: null });
    this.show = screenOf($("easel"));
    this.visible = watch($("numbers"));
    const effects = Array.from(this.dream.z, (_, index) => ({ index, effect: this.effect(index) }));
    const total = ({ effect }) => effect.reduce((a, b) => a + b, 0);
    const base = this.dream.paint(1);
    this.tiles = effects.sort((a, b) => total(b) - total(a)).map(({ index, effect }) => {
      const tile = this.tile(index);
      tile.show(tinted(base, effect));
      return tile;
    });
    $("go-on").onclick = () => ((this.saved = null), player.pause(false));
    $("undo").onclick = () => this.undo();
    player.listeners.push(() => this.follow());
    this.follow(true);
  }

  // How much a number changes every pixel.
  effect(index) {
    const [less, more] = [-REACH, REACH].map((by) => {
      const z = Float32Array.from(this.dream.z);
      z[index] += by;
      return this.dream.decoder.paint(z);
    });
    const found = new Float32Array(SIDE * SIDE);
    for (let i = 0; i < 4 * found.length; i++) found[i >> 2] += Math.abs(more[i] - less[i]) / 255;
    return found;
  }

  tile(index) {
    const label = make($("latents"), "label", { className: "latent" });
    const canvas = make(label, "canvas", { width: SIDE, height: SIDE });
    canvas.setAttribute("aria-hidden", "true");
    const said = make(label, "span", {}, `z ${index + 1}`), value = make(said, "output");
    const range = make(label, "input", { type: "range", min: -4, max: 4, step: 0.05, value: 0 });
    range.setAttribute("aria-label", `z ${index + 1}`);
    range.oninput = () => this.set(index, Number(range.value));
    return { index, range, value, show: screenOf(canvas) };
  }

  set(index, value) {
    const { dream, player } = this;
    this.saved = this.saved || Float32Array.from(dream.z);
    dream.z = Float32Array.from(dream.z);
    dream.z[index] = value;
    dream.before = dream.z;
    player.pause(true);
  }

  undo() {
    if (!this.saved) return;
    this.dream.z = this.dream.before = this.saved;
    this.saved = null;
    this.player.changed();
  }

  // Sliders and picture follow the dream.
  follow(always = false) {
    if (!this.player.paused) this.saved = null;
    if (!always && !this.visible.now) return;
    for (const { index, range, value } of this.tiles) {
      range.value = this.dream.z[index];
      value.textContent = this.dream.z[index].toFixed(1).replace("-", "−");
    }
    this.show(this.dream.decoder.paint(this.dream.z));
  }

  // Paint a tile or two anew.
  tick() {
    if (!this.visible.now) return;
    const base = this.dream.decoder.paint(this.dream.z);
    for (let count = 0; count < 2; count++) {
      const { index, show } = this.tiles[this.next++ % this.tiles.length];
      show(tinted(base, this.effect(index)));
    }
  }
}

// A picture in dim grey, with what changes in colour.
function tinted(base, effect) {
  const most = Math.max(0.6, ...effect), picture = new Uint8ClampedArray(base.length);
  effect.forEach((change, i) => {
    const grey = DIM * (0.3 * base[4 * i] + 0.6 * base[4 * i + 1] + 0.1 * base[4 * i + 2]);
    const share = Math.sqrt(change / most);
    TINT.forEach((colour, c) => (picture[4 * i + c] = grey + share * (colour - grey)));
    picture[4 * i + 3] = 255;
  });
  return picture;
}
