// What the chat page does in the browser alone: stay at the end or hold the place, upload files,
// dress code blocks, keys. Pieces are told to the server by `emit` and `emitEvent`.
(() => {
  // Only a person lets go of the end: growing and shrinking content scrolls too, and tells late.
  let stuck = true;
  let handAt = -Infinity;
  let anchor = null;
  const KEYS = ["PageUp", "ArrowUp", "Home", "k"];
  const page = document.documentElement;
  const turns = () => document.querySelectorAll(".thread > .turn");
  const cut = () => !!document.querySelector(".edge.newer:not(.hidden)");
  const nearEnd = () => window.innerHeight + window.scrollY >= page.scrollHeight - 120;
  const toEnd = () => window.scrollTo(0, page.scrollHeight);
  const hand = (is) => (event) => is(event) && (handAt = performance.now());
  const watch = (name, is) => window.addEventListener(name, hand(is), { passive: true });
  watch("wheel", (event) => event.deltaY < 0);
  watch("touchmove", () => true);
  watch("keydown", (event) => KEYS.includes(event.key) && event.target.tagName !== "TEXTAREA");
  watch("pointerdown", (event) => event.target === page);
  // The first turn in view keeps its place, whatever comes and goes above it.
  const remember = () => {
    anchor = null;
    for (const turn of turns()) {
      const { top, bottom } = turn.getBoundingClientRect();
      if (bottom > 70) { anchor = { turn, top }; break; }
    }
  };
  const hold = () => {
    if (stuck) toEnd();
    else if (anchor?.turn.isConnected) {
      const moved = anchor.turn.getBoundingClientRect().top - anchor.top;
      if (Math.abs(moved) > 0.5) window.scrollBy(0, moved);
    }
  };
  const showNewest = () => {
    const button = document.querySelector("button.newest");
    if (button) button.hidden = stuck || (nearEnd() && !cut());
  };
  const scrolled = () => {
    if (nearEnd() && !cut()) stuck = true;
    else if (performance.now() - handAt < 1000) stuck = false;
    remember();
    showNewest();
  };
  window.addEventListener("scroll", scrolled, { passive: true });
  new ResizeObserver(hold).observe(page);
  window.aiStick = (force) => {
    if (force) stuck = true;
    requestAnimationFrame(() => { hold(); remember(); showNewest(); });
  };

  // Older turns above, newer ones below, when their edge comes near.
  const edges = new IntersectionObserver(
    (seen) => seen.forEach((one) => {
      if (one.isIntersecting && !one.target.classList.contains("hidden"))
        window.emitEvent(one.target.classList.contains("older") ? "chat_older" : "chat_newer", {});
    }),
    { rootMargin: "900px 0px" },
  );
  window.aiEdges = () => requestAnimationFrame(() => {
    edges.disconnect();
    document.querySelectorAll(".edge").forEach((edge) => edges.observe(edge));
    showNewest();
  });

  // The box.
  const box = () => document.querySelector(".composer textarea");
  window.aiFill = (text) => {
    box().value = text;
    box().dispatchEvent(new Event("input", { bubbles: true }));
    box().focus();
  };
  const said = (text, type = "warning") => window.Quasar.Notify.create({ message: text, type, position: "top" });
  window.aiCopy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = Object.assign(document.createElement("textarea"), { value: text });
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    said("Copied", "positive");
  };

  // Files: chosen, dropped or pasted; uploaded at once, sent with the message.
  const files = [];
  const limits = () => document.querySelector(".composer").dataset;
  const size = (bytes) => (bytes < 1048576 ? `${Math.ceil(bytes / 1024)} KB` : `${(bytes / 1048576).toFixed(1)} MB`);
  const draw = () => {
    const list = document.querySelector(".composer .chips");
    list.replaceChildren(...files.map((one) => {
      const chip = document.createElement("li");
      chip.className = `chip ${one.error ? "bad" : one.id ? "ready" : "busy"}`;
      if (one.kind === "image") chip.append(Object.assign(document.createElement("img"), { src: `/api/attachments/${one.id}`, alt: "" }));
      const name = Object.assign(document.createElement("span"), { textContent: one.name });
      const more = one.error || (one.id ? size(one.bytes) : `${Math.round(one.part * 100)} %`);
      const off = Object.assign(document.createElement("button"), { textContent: "×", title: "Remove" });
      off.setAttribute("aria-label", `Remove ${one.name}`);
      off.onclick = () => remove(one);
      chip.append(name, Object.assign(document.createElement("small"), { textContent: more }), off);
      return chip;
    }));
  };
  const forget = (one) => {
    files.splice(files.indexOf(one), 1);
    draw();
  };
  const remove = (one) => {
    one.request?.abort();
    if (one.id) fetch(`/api/attachments/${one.id}`, { method: "DELETE" });
    forget(one);
    box().focus();
  };
  const upload = (file) => {
    const name = file.name || "pasted.png";
    const one = { name, bytes: file.size, part: 0 };
    if (files.length >= Number(limits().files)) return said(`Files of one message, at most: ${limits().files}.`);
    files.push(one);
    if (file.size > Number(limits().fileBytes)) {
      one.error = `larger than ${size(Number(limits().fileBytes))}`;
      return draw();
    }
    const request = (one.request = new XMLHttpRequest());
    request.open("POST", `/api/attachments?name=${encodeURIComponent(name)}`);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.responseType = "json";
    request.upload.onprogress = (event) => { one.part = event.loaded / event.total; draw(); };
    request.onload = () => {
      if (request.status === 201) Object.assign(one, request.response);
      else one.error = request.response?.detail || "not taken";
      draw();
    };
    request.onerror = () => { one.error = "the connection broke; remove it and try again"; draw(); };
    request.send(file);
    draw();
  };
  window.aiFiles = {
    add: (found) => [...found].forEach(upload),
    clear: () => [...files].forEach(forget),
    pick: () => {
      const input = Object.assign(document.createElement("input"), { type: "file", multiple: true });
      input.onchange = () => window.aiFiles.add(input.files);
      input.click();
    },
  };
  window.aiSend = (emit) => {
    const text = box().value;
    if (files.some((one) => one.error)) return said("Remove the files that were not taken first.");
    if (files.some((one) => !one.id)) return said("The files are still being uploaded.");
    if (!text.trim()) return files.length ? said("Say what is to be done with the files.") : undefined;
    window.aiVoice?.stop?.();
    emit({ text, files: files.map((one) => one.id) });
  };
  const brings = (event) => [...(event.dataTransfer?.types || [])].includes("Files");
  let over = 0;
  const dropping = (on) => document.body.classList.toggle("dropping", on);
  window.addEventListener("dragenter", (event) => brings(event) && (over++, dropping(true)));
  window.addEventListener("dragleave", (event) => brings(event) && --over <= 0 && ((over = 0), dropping(false)));
  window.addEventListener("dragover", (event) => brings(event) && event.preventDefault());
  window.addEventListener("drop", (event) => {
    if (!brings(event)) return;
    event.preventDefault();
    over = 0;
    dropping(false);
    window.aiFiles.add(event.dataTransfer.files);
  });
  window.addEventListener("paste", (event) => {
    const found = [...(event.clipboardData?.files || [])];
    if (!found.length || event.target.closest?.("dialog, .q-dialog, .editor")) return;
    event.preventDefault();
    window.aiFiles.add(found);
  });

  // Code blocks: which language, wrap or not, copy.
  const small = (text, name, act) => {
    const button = Object.assign(document.createElement("button"), { textContent: text });
    button.setAttribute("aria-label", name);
    button.onclick = () => act(button);
    return button;
  };
  const dress = (root) => root.querySelectorAll(".prose pre:not(.dressed)").forEach((pre) => {
    pre.classList.add("dressed");
    const code = pre.querySelector("code");
    const bar = document.createElement("div");
    bar.className = "code-bar";
    const language = [...code.classList].find((one) => one.startsWith("language-"));
    bar.append(Object.assign(document.createElement("span"), { textContent: language ? language.slice(9) : "text" }));
    const wrap = small("Wrap", "Wrap long lines", () => {
      wrap.setAttribute("aria-pressed", pre.classList.toggle("wrapped"));
    });
    wrap.setAttribute("aria-pressed", false);
    const copy = small("Copy", "Copy code", async () => {
      await window.aiCopy(code.innerText);
      copy.textContent = "Copied";
      setTimeout(() => (copy.textContent = "Copy"), 1500);
    });
    bar.append(wrap, copy);
    pre.before(bar);
  });
  new MutationObserver((changes) => {
    let ours = false;
    for (const change of changes) {
      if (change.target.nodeType !== 1 || !change.target.closest(".body")) continue;
      ours = true;
      for (const node of change.addedNodes) if (node.nodeType === 1) dress(node.parentElement || node);
    }
    if (ours) hold();
  }).observe(document.documentElement, { childList: true, subtree: true });

  // Keys.
  const step = (by) => () => {
    const all = [...turns()];
    const now = all.indexOf(document.activeElement.closest?.(".turn"));
    const at = now < 0 ? all.findLastIndex((one) => one.getBoundingClientRect().top < window.innerHeight / 2) : now + by;
    const next = all[Math.max(0, Math.min(all.length - 1, at))];
    next?.focus({ preventScroll: true });
    next?.scrollIntoView({ block: "start" });
  };
  window.aiKeys = Object.assign(window.aiKeys || {}, {
    n: ["New conversation", () => document.querySelector(".side .new")?.click()],
    j: ["The next message", step(1)],
    k: ["The message before", step(-1)],
    e: ["To the newest message", () => window.aiNewest()],
    Esc: ["Stop speaking", () => {}],
  });
  window.addEventListener("keydown", (event) => event.key === "Escape" && window.aiVoice?.stop?.());
  window.aiNewest = () => {
    if (cut()) window.emitEvent("chat_newest", {});
    else { stuck = true; toEnd(); showNewest(); }
  };
  document.addEventListener("click", (event) => event.target.closest("button.newest") && window.aiNewest());

  // The on-screen keyboard of a phone: the box stays above it.
  const seen = window.visualViewport;
  const lift = () => {
    const covered = Math.max(0, window.innerHeight - seen.height - seen.offsetTop);
    const foot = document.querySelector(".nicegui-footer.bottom");
    if (foot) foot.style.transform = covered > 60 ? `translateY(-${covered}px)` : "";
  };
  seen?.addEventListener("resize", lift);
  seen?.addEventListener("scroll", lift);
})();
