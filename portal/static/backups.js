/* While a backup is restored the portal stops. What stands here goes on: it says so, and loads the
   page anew once a portal answers, which may then ask for a log-in first. */
(() => {
  const ASK_MS = 2000, LATE_S = 300;
  let on = false, away = 0;
  const cover = (about) => {
    if (document.querySelector(".restoring")) return;
    const made = document.createElement("div");
    made.className = "restoring";
    made.setAttribute("role", "alert");
    const title = Object.assign(document.createElement("h2"), { textContent: `${about} is being restored` });
    const more = Object.assign(document.createElement("p"), {
      textContent: "The portal has stopped for it. This page comes back by itself and says how it ended;"
        + " you may have to log in again, with the password of then.",
    });
    const since = document.createElement("small");
    made.append(document.createElement("i"), title, more, since);
    document.body.append(made);
    setInterval(() => {
      const gone = Math.round((Date.now() - away) / 1000);
      since.textContent = `stopped for ${gone} s` + (gone < LATE_S ? "" : "; on the server: ai-infra status");
    }, 1000);
  };
  const look = async (about) => {
    if (!on) return;
    let status = 0;
    try {
      const answer = await fetch("/api/backups/progress", { cache: "no-store", signal: AbortSignal.timeout(5000) });
      status = answer.status;
    } catch { /* nobody answers */ }
    const there = status > 0 && status < 500;
    if (there && (away || status === 401)) return location.reload();
    if (!there && !away) {
      away = Date.now();
      cover(about);
    }
    setTimeout(look, ASK_MS, about);
  };
  window.aiRestoring = (about) => {
    if (on) return;
    on = true;
    look(about);
  };
  window.aiRestored = () => { on = false; };
})();
