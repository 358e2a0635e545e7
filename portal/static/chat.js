// What the browser does alone: stay at the end, fill the box, copy code, light or dark.
(() => {
  let stuck = true;
  const nearEnd = () =>
    window.innerHeight + window.scrollY >= document.documentElement.scrollHeight - 120;
  const toEnd = () => window.scrollTo(0, document.documentElement.scrollHeight);
  window.addEventListener("scroll", () => (stuck = nearEnd()), { passive: true });
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
