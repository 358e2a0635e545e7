// What the browser does alone: stay at the end, fill the box, copy code, light or dark.
(() => {
  // Only a person lets go of the end: growing and shrinking content scrolls too, and tells late.
  let stuck = true;
  let handAt = -Infinity;
  const KEYS = ["PageUp", "ArrowUp", "Home"];
  const page = document.documentElement;
  const nearEnd = () => window.innerHeight + window.scrollY >= page.scrollHeight - 120;
  const toEnd = () => window.scrollTo(0, page.scrollHeight);
  const hand = (is) => (event) => is(event) && (handAt = performance.now());
  const watch = (name, is) => window.addEventListener(name, hand(is), { passive: true });
  watch("wheel", (event) => event.deltaY < 0);
  watch("touchmove", () => true);
  watch("keydown", (event) => KEYS.includes(event.key) && event.target.tagName !== "TEXTAREA");
  watch("pointerdown", (event) => event.target === page);
  const scrolled = () => {
    if (nearEnd()) stuck = true;
    else if (performance.now() - handAt < 1000) stuck = false;
  };
  window.addEventListener("scroll", scrolled, { passive: true });
  new ResizeObserver(() => stuck && toEnd()).observe(page);
  window.aiStick = (force) => {
    if (force) stuck = true;
    requestAnimationFrame(() => stuck && toEnd());
  };
  window.aiFill = (text) => {
    const box = document.querySelector(".composer textarea");
    box.value = text;
    box.dispatchEvent(new Event("input", { bubbles: true }));
    box.focus();
  };
  window.aiTheme = () => {
    const dark = !document.body.classList.contains("body--dark");
    document.cookie = `ai-theme=${dark ? "dark" : "light"}; path=/; max-age=31536000; samesite=lax`;
    window.Quasar.Dark.set(dark);
  };
  const copyable = (root) =>
    root.querySelectorAll(".prose pre:not(.has-copy)").forEach((pre) => {
      pre.classList.add("has-copy");
      const button = document.createElement("button");
      button.className = "copy";
      button.textContent = "Copy";
      button.onclick = async () => {
        await navigator.clipboard.writeText(pre.querySelector("code").innerText);
        button.textContent = "Copied";
        setTimeout(() => (button.textContent = "Copy"), 1500);
      };
      pre.append(button);
    });
  new MutationObserver(() => {
    copyable(document.body);
    window.aiStick(false);
  }).observe(document.documentElement, { childList: true, subtree: true });
})();
