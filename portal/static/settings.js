// The settings: theme and zone of this browser, copying what is shown once.
(() => {
  window.aiThemeSet = (mode) => {
    if (mode === "system") document.cookie = "ai-theme=; path=/; max-age=0; samesite=lax";
    else document.cookie = `ai-theme=${mode}; path=/; max-age=31536000; samesite=lax`;
    window.Quasar.Dark.set(mode === "system" ? "auto" : mode === "dark");
  };
  // The clock of every page is made when it loads, so this one loads again.
  window.aiZoneSet = (zone) => {
    if ((window.aiZone || null) !== zone) setTimeout(() => location.reload(), 400);
  };
  window.aiCopy = async (what) => {
    const input = document.querySelector(what);
    input.select();
    try {
      await navigator.clipboard.writeText(input.value);
    } catch {
      document.execCommand("copy"); // not over https: the old way still works there
    }
  };
  // The part that is open is in sight on a phone.
  const here = () => document.querySelector(".settings .parts [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
  requestAnimationFrame(here);
  setTimeout(here, 300);
})();
