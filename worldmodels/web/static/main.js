"use strict";
// Put the page together. `dreamPlayer` is for tests and for whoever opens the console.

async function main() {
  const [blob, kernel] = [$("blob").textContent, $("kernel").textContent];
  const dream = await Dream.load(facts.model, blob, kernel);
  const player = new Player(dream);
  window.dreamPlayer = { dream, player, frames: 0, follow: followed, speed: speedOf };
  performance.mark("first-frame");
  const parts = [player];
  const more = async () => {
    if (facts.real) {
      const own = await Dream.load(facts.model, blob, kernel);
      dreamPlayer.reality = new Reality(own, new Blob16(blob), player);
      parts.push(dreamPlayer.reality);
    }
    dreamPlayer.latents = new Latents(player);
    parts.push(dreamPlayer.latents);
    dreamPlayer.whole = true;
  };
  setTimeout(more, 50);
  let last = performance.now();
  const frame = (now) => {
    parts.forEach((part) => part.tick(now - last));
    last = now;
    dreamPlayer.frames += 1;
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
}

// The dream from a start under given noise, (T, Z + 3) and (T, Z), and given actions or C's: what
// each step brought.
function followed(start, uniform, normal, actions = null, tau = 1) {
  const { dream } = dreamPlayer;
  dream.begin(start);
  const steps = uniform.map((row, t) => {
    const action = actions ? actions[t] : dream.act(), told = dream.step(action, { uniform: row, normal: normal[t] }, tau);
    return { action: [...action], z: [...dream.z], ...told };
  });
  return { steps, picture: [...dream.paint(1)] };
}

// Dream frames a second: C acts, M predicts, V paints.
function speedOf(milliseconds = 1000) {
  const { dream, player } = dreamPlayer, began = performance.now();
  let frames = 0;
  dream.begin(0);
  for (; performance.now() - began < milliseconds; frames++) {
    dream.step(dream.act(), player.random.noise(dream.z.length), 1);
    dream.paint(1, player.picture);
    if (frames % 100 === 99) dream.begin(0);
  }
  return (1000 * frames) / (performance.now() - began);
}

main().catch((error) => {
  $("mode").textContent = "This browser cannot compute the dream: " + error.message;
  throw error;
});
