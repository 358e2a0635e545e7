// What every page does in the browser alone: times in the reader's zone, keys, light or dark.
(() => {
  const at = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short", timeZone: window.aiZone });
  const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });
  const STEPS = [[60, "second"], [60, "minute"], [24, "hour"], [30, "day"], [12, "month"], [Infinity, "year"]];
  const ago = (date) => {
    let amount = (date - Date.now()) / 1000;
    for (const [size, unit] of STEPS) {
      if (Math.abs(amount) < size) return relative.format(Math.round(amount), unit);
      amount /= size;
    }
  };
  const write = (element) => {
    const date = new Date(element.dateTime);
    const text = element.dataset.as === "ago" ? ago(date) : at.format(date);
    if (element.textContent !== text) element.textContent = text;
    if (!element.title) element.title = at.format(date);
  };
  const times = (root) => root.querySelectorAll("time[datetime]").forEach(write);
  new MutationObserver((changes) => {
    for (const change of changes) for (const node of change.addedNodes) if (node.nodeType === 1) {
      if (node.matches("time[datetime]")) write(node);
      else times(node);
    }
  }).observe(document.documentElement, { childList: true, subtree: true });
  setInterval(() => times(document), 20000);

  window.aiTheme = () => {
    const dark = !document.body.classList.contains("body--dark");
    document.cookie = `ai-theme=${dark ? "dark" : "light"}; path=/; max-age=31536000; samesite=lax`;
    window.Quasar.Dark.set(dark);
  };

  // Keys. A page adds its own: window.aiKeys["x"] = ["what it does", function].
  window.aiKeys = window.aiKeys || {};
  const names = () => {
    const rows = [["?", "This sheet"], ["/", "Go to the search or message box"]];
    document.querySelectorAll(".rail a.place").forEach((link) => {
      const key = Object.keys(window.aiPlaces).find((one) => window.aiPlaces[one] === link.getAttribute("href"));
      if (key) rows.push([`g ${key}`, link.innerText.trim().split("\n").pop()]);
    });
    return rows.concat(Object.entries(window.aiKeys).map(([key, [what]]) => [key, what]));
  };
  window.aiHelp = () => {
    document.querySelector("dialog.help")?.remove();
    const sheet = document.createElement("dialog");
    sheet.className = "help";
    sheet.setAttribute("aria-label", "Keyboard shortcuts");
    const title = document.createElement("h2");
    title.textContent = "Keyboard shortcuts";
    const list = document.createElement("dl");
    for (const [keys, what] of names()) {
      const name = document.createElement("dt");
      for (const key of keys.split(" ")) name.append(Object.assign(document.createElement("kbd"), { textContent: key }), " ");
      list.append(name, Object.assign(document.createElement("dd"), { textContent: what }));
    }
    sheet.append(title, list);
    sheet.addEventListener("click", (event) => event.target === sheet && sheet.close());
    document.body.append(sheet);
    sheet.showModal();
  };
  const typing = (target) => target.closest?.("input, textarea, select, [contenteditable], .xterm, dialog[open], .q-dialog");
  let going = 0;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || typing(event.target)) return;
    const key = event.key;
    if (Date.now() < going && window.aiPlaces[key]) location.assign(window.aiPlaces[key]);
    else if (key === "g") { going = Date.now() + 1200; return; }
    else if (key === "?") window.aiHelp();
    else if (key === "/") document.querySelector("[data-search] input, [data-search] textarea, input[data-search], .composer textarea")?.focus();
    else if (window.aiKeys[key]) window.aiKeys[key][1](event);
    else return;
    going = 0;
    event.preventDefault();
  });
})();
