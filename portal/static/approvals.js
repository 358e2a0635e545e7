// Approvals by keyboard, and their time running out.
(() => {
  const all = () => [...document.querySelectorAll(".ask")];
  const chosen = () => document.querySelector(".ask[aria-current]") || null;
  let last = 0;
  const choose = (one) => {
    for (const other of all()) if (other !== one) other.removeAttribute("aria-current");
    if (!one) return;
    last = Math.max(0, all().indexOf(one));
    one.setAttribute("aria-current", "true");
    if (document.activeElement !== one) one.focus({ preventScroll: true });
    one.scrollIntoView({ block: "nearest" });
  };
  const step = (by) => {
    const rows = all();
    if (!rows.length) return;
    const here = rows.indexOf(chosen());
    choose(rows[here < 0 ? Math.min(last, rows.length - 1) : Math.min(Math.max(here + by, 0), rows.length - 1)]);
  };
  // Acts on what is marked and nothing else: a row that was answered meanwhile leaves nobody chosen.
  const press = (what) => () => chosen()?.querySelector(`[data-do=${what}]:not([disabled])`)?.click();
  window.aiKeys = window.aiKeys || {};
  window.aiKeys["j"] = ["Next approval", () => step(1)];
  window.aiKeys["k"] = ["Approval before", () => step(-1)];
  window.aiKeys["a"] = ["Approve it", press("approve")];
  window.aiKeys["d"] = ["Deny it", press("deny")];
  window.aiKeys["r"] = ["Write a reason", () => chosen()?.querySelector(".answer input")?.focus()];
  document.addEventListener("keydown", (event) => {
    const row = event.target.closest?.(".ask");
    if (!row) return;
    if (event.key === "Enter" && event.target === row) {
      const more = row.querySelector("details");
      more.open = !more.open;
      event.preventDefault();
    } else if (event.key === "Escape" && event.target !== row) choose(row);
  });
  document.addEventListener("focusin", (event) => {
    const row = event.target.closest?.(".ask");
    if (row && row !== chosen()) choose(row === event.target ? row : mark(row));
  });
  const mark = (row) => { for (const other of all()) other.removeAttribute("aria-current"); row.setAttribute("aria-current", "true"); last = all().indexOf(row); };
  const clock = () => document.querySelectorAll(".left[data-until]").forEach((one) => {
    const left = Math.max(0, Math.round((new Date(one.dataset.until) - Date.now()) / 1000));
    const hours = Math.floor(left / 3600), minutes = Math.floor(left / 60) % 60;
    const text = left ? `${hours ? `${hours}:${String(minutes).padStart(2, "0")}` : minutes}:${String(left % 60).padStart(2, "0")} left` : "expired";
    if (one.textContent !== text) one.textContent = text;
    one.classList.toggle("soon", left < 60);
  });
  setInterval(clock, 1000);
})();
