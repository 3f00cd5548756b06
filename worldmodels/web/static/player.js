"use strict";
// The stage: who acts, the clock, keys and touch, and what M says of itself.

const $ = (id) => document.getElementById(id);
const facts = JSON.parse($("facts").textContent);
const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;

function make(parent, tag, properties = {}, text = "") {
  const element = document.createElement(tag);
  Object.assign(element, properties);
  element.append(text);
  parent.append(element);
  return element;
}

// Set a text where it differs, so that screen readers tell changes alone.
function say(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text;
}

// A function that shows bytes of `Decoder.paint` on a canvas.
function screenOf(canvas) {
  const context = canvas.getContext("2d");
  return (bytes) => context.putImageData(new ImageData(bytes, SIDE, SIDE), 0, 0);
}

// A range that holds all values, and not only noise.
function rangeOf(values) {
  const [least, most] = [Math.min(...values), Math.max(...values)];
  return [0.95 * least - 1e-6, 1.05 * most + 1e-6];
}

// Whether an element is on the screen. A busy page gets several changes at once, the newest last.
function watch(element) {
  const seen = { now: true };
  new IntersectionObserver((changes) => (seen.now = changes.at(-1).isIntersecting)).observe(element);
  return seen;
}

const PAUSE = 2500; // milliseconds between two dreams of the agent

// A person's keys and thumbs, as an action.
class Hands {
  constructor(controls, rest, action) {
    Object.assign(this, { action, down: new Set(), tapped: new Set() });
    this.rest = Float32Array.from(rest || controls[0].action);
    this.stays = !rest; // without an idle choice the last one stays
    this.value = Float32Array.from(this.rest);
  }

  press(control, is) {
    this.down.delete(control);
    if (is) this.down.add(control), this.tapped.add(control);
  }

  // Numbers move half of the way in each decision, so that a key steers softly.
  act() {
    const held = [...new Set([...this.down, ...this.tapped])]; // short taps count once
    this.tapped.clear();
    if (this.action.discrete) {
      if (held.length) this.value = Float32Array.from(held.at(-1).action);
      else if (!this.stays) this.value = Float32Array.from(this.rest);
      return this.value;
    }
    const { low, high, whole } = this.action;
    this.value = this.value.map((value, i) => {
      const aim = clamp(held.reduce((sum, one) => sum + one.action[i], this.rest[i]), low[i], high[i]);
      return Math.abs(aim - value) < 1e-3 * (high[i] - low[i]) ? aim : (value + aim) / 2;
    });
    return whole ? this.value.map(roundEven) : this.value;
  }
}

class Player {
  constructor(dream) {
    this.dream = dream;
    this.random = new Random((Math.random() * 2 ** 32) >>> 0);
    this.hands = new Hands(facts.controls, facts.rest, facts.model.action);
    this.you = false;
    this.paused = calm;
    this.start = facts.first;
    this.since = 0; // milliseconds since the last decision
    this.show = screenOf($("dream"));
    this.visible = watch($("dream"));
    this.listeners = []; // called after every decision and every change by hand
    this.history = { spread: [], end: [], disagreement: [] };
    this.picture = new Uint8ClampedArray(4 * SIDE * SIDE);
    this.build();
    this.begin(this.start);
  }

  begin(start) {
    this.dream.begin(start);
    this.begun(start);
  }

  // A dream begins at a recorded start, or elsewhere (-1).
  begun(start) {
    this.start = start;
    this.since = 0;
    Object.values(this.history).forEach((values) => (values.length = 0));
    [...$("starts").children].forEach((one, i) => one.setAttribute("aria-pressed", String(i === start)));
    this.changed();
  }

  step() {
    const { dream } = this, action = this.you ? this.hands.act() : dream.act();
    const noise = this.random.noise(dream.z.length);
    const told = dream.step(action, noise, Number($("temperature").value));
    for (const [name, values] of Object.entries(this.history)) {
      if (told[name] === null) continue;
      values.push(told[name]);
      if (values.length > 120) values.shift();
    }
    this.tell(action);
    this.changed();
  }

  // Show the dream as it stands.
  changed() {
    const { dream } = this;
    $("over").hidden = !dream.over;
    say("return", dream.total.toFixed(Math.abs(dream.total) < 10 ? 1 : 0).replace("-", "−"));
    say("mode", this.you ? `You ${facts.words.verb}` : `The ${facts.words.agent} ${facts.words.acts}`);
    for (const id of ["mode", "screen", "actions"]) $(id).classList.toggle("you", this.you);
    say("take-label", this.you ? "Give back" : "Take over");
    say("pause-label", this.paused ? "Go on" : "Pause");
    if (this.paused || dream.steps === 0) this.draw(1);
    this.listeners.forEach((listen) => listen());
  }

  draw(between) {
    this.show(this.dream.paint(between, this.picture));
  }

  // The clock: decisions at the chosen speed, pictures between two of them at the screen's.
  tick(passed) {
    if (this.paused || !this.visible.now) return;
    if (this.dream.over) return this.wait(passed);
    const length = 1000 / Number($("speed").value);
    this.since += Math.min(passed, 250);
    for (let most = 4; this.since >= length && most && !this.dream.over; most--) {
      this.since -= length;
      this.step();
    }
    this.draw(calm ? 1 : Math.min(this.since / length, 1));
  }

  // A dream of the agent that has ended is followed by another one.
  wait(passed) {
    this.since += passed;
    if (!this.you && this.since > PAUSE) this.another();
  }

  take(you) {
    this.you = you;
    this.changed();
  }

  pause(paused) {
    this.paused = paused;
    this.changed();
  }

  tell(action) {
    facts.bars.forEach(({ low, high }, i) => {
      const zero = clamp(0, low, high), [a, b] = [zero, action[i]].map((x) => (x - low) / (high - low));
      Object.assign(this.fills[i].style, { left: `${100 * Math.min(a, b)}%`, width: `${100 * Math.abs(b - a)}%` });
    });
    for (const [name, values] of Object.entries(this.history)) {
      const meter = $(name), now = values.at(-1);
      if (!meter || now === undefined) continue;
      const [least, most] = name === "end" ? [0, Math.max(0.02, ...values)] : rangeOf(values);
      meter.querySelector("output").textContent = name === "end" ? `${(100 * now).toFixed(1)}%` : now.toFixed(3);
      meter.setAttribute("aria-valuenow", now.toFixed(4));
      meter.setAttribute("aria-valuemax", most.toFixed(4));
      const points = values.map((value, i) => `${i},${(23 - (22 * (value - least)) / (most - least)).toFixed(1)}`);
      meter.querySelector("polyline").setAttribute("points", points.join(" "));
    }
  }

  build() {
    this.fills = facts.bars.map(({ label }) => {
      const row = make($("actions"), "div", { className: "action" });
      make(row, "span", {}, label);
      return make(make(row, "div", { className: "track" }), "div", { className: "fill" });
    });
    for (let start = 0; start < this.dream.starts.count; start++) {
      const button = make($("starts"), "button", { type: "button", onclick: () => this.begin(start) });
      button.setAttribute("aria-label", `Recorded start ${start + 1}`);
      const size = this.dream.z.length, canvas = make(button, "canvas", { width: SIDE, height: SIDE });
      const z = this.dream.starts.z.subarray(start * size, (start + 1) * size);
      setTimeout(() => screenOf(canvas)(this.dream.decoder.paint(z)), 30 * (start + 1));
    }
    this.buildPad();
    this.buildKeys();
    $("take").onclick = () => this.take(!this.you);
    $("pause").onclick = () => this.pause(!this.paused);
    $("new").onclick = $("again").onclick = () => this.another();
    const show = () => {
      say("temperature-value", Number($("temperature").value).toFixed(2));
      say("speed-value", Number($("speed").value).toFixed(1));
    };
    $("temperature").oninput = $("speed").oninput = show;
    show();
    if ($("memory")) $("memory").onchange = (event) => (this.dream.dreamer = Number(event.target.value));
  }

  another() {
    const { count } = this.dream.starts;
    const other = (this.start + 1 + Math.floor(this.random.uniform() * (count - 1))) % count;
    this.paused = false;
    this.begin(other);
  }

  buildPad() {
    // One group for each thumb; two keys are one for each.
    const named = [...new Set(facts.controls.map(({ side }) => side))];
    const groups = facts.controls.length === 2 && named.length === 1
      ? facts.controls.map((control) => [control])
      : named.map((side) => facts.controls.filter((control) => control.side === side));
    for (const controls of groups) {
      const group = make($("pad"), "div");
      for (const control of controls) {
        const button = make(group, "button", { type: "button" });
        make(button, "b", {}, control.sign);
        button.append(control.label);
        const hold = (is) => (event) => {
          event.preventDefault();
          if (is) button.setPointerCapture(event.pointerId);
          button.classList.toggle("down", is);
          this.hold(control, is);
        };
        button.onpointerdown = hold(true);
        button.onpointerup = button.onpointercancel = hold(false);
        button.oncontextmenu = (event) => event.preventDefault();
        button.onkeydown = (event) => event.key === "Enter" && this.hold(control, true);
        button.onkeyup = (event) => event.key === "Enter" && this.hold(control, false);
      }
    }
  }

  hold(control, is) {
    this.hands.press(control, is);
    if (is && !this.you) this.take(true);
  }

  buildKeys() {
    const commands = { " ": () => this.take(!this.you), p: () => this.pause(!this.paused), n: () => this.another() };
    const controls = new Map(facts.controls.map((control) => [control.key, control]));
    const name = (event) => (event.key.length === 1 ? event.key.toLowerCase() : event.key);
    addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const key = name(event), { target } = event;
      if (target.matches("input, select") || (key === " " && target.matches("button, a"))) return;
      if (controls.has(key)) this.hold(controls.get(key), true);
      else if (key in commands && !event.repeat) commands[key]();
      else return;
      event.preventDefault();
    });
    addEventListener("keyup", (event) => {
      if (controls.has(name(event))) this.hands.press(controls.get(name(event)), false);
    });
    addEventListener("blur", () => this.hands.down.clear());
    // Whoever used a mouse goes on with the keys.
    addEventListener("pointerup", () => document.activeElement.matches("input, button") && document.activeElement.blur());
    const shown = [...facts.controls.map(({ sign, label }) => [sign, label]), ["space", "take over, give back"], ["P", "pause"], ["N", "new dream"]];
    for (const [key, label] of shown) {
      const row = make($("keys"), "div");
      make(make(row, "dt"), "kbd", {}, key);
      make(row, "dd", {}, label);
    }
  }
}
