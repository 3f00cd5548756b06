// Play a video while it is on the screen, unless the reader asked for less motion.
const calm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
if (!calm && "IntersectionObserver" in window) {
  const watch = new IntersectionObserver((seen) => {
    for (const { target, isIntersecting } of seen) {
      if (isIntersecting) target.play().catch(() => {});
      else target.pause();
    }
  }, { threshold: 0.4 });
  document.querySelectorAll("video").forEach((video) => watch.observe(video));
}
// Show what a run has written since, as long as it lasts.
const { reload } = document.body.dataset;
if (reload) setInterval(() => { if (!document.hidden) location.reload(); }, 1000 * reload);
