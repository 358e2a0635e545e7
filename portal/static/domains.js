/* Sends the files of a site to the portal: a folder, or files. Everything is said by `emit`. */
(() => {
  const TICK_MS = 250;
  window.aiDeploy = (id, folder, emit) => {
    const input = Object.assign(document.createElement("input"), { type: "file", multiple: true });
    if (folder) input.webkitdirectory = true;
    input.className = "deploy-files";
    input.hidden = true;
    input.onchange = () => {
      send(id, [...input.files], folder, emit);
      input.remove();
    };
    document.querySelectorAll("input.deploy-files").forEach((old) => old.remove());
    document.body.append(input);
    input.click();
  };
  // Without the name of the chosen folder: what is in it is the site.
  const named = (file, folder) => {
    const path = file.webkitRelativePath || file.name;
    return folder && path.includes("/") ? path.slice(path.indexOf("/") + 1) : path;
  };
  const send = (id, files, folder, emit) => {
    if (!files.length) return;
    const form = new FormData();
    files.forEach((file) => form.append("files", file, named(file, folder)));
    const request = new XMLHttpRequest();
    request.open("POST", `/api/domains/${encodeURIComponent(id)}/deploy`);
    request.responseType = "json";
    let told = 0;
    request.upload.onprogress = (event) => {
      const now = Date.now();
      if (now - told < TICK_MS && event.loaded < event.total) return;
      told = now;
      const whole = event.loaded >= event.total;
      emit({ part: event.loaded / event.total, said: whole ? "The server makes the release …" : "Sending …" });
    };
    request.onload = () => {
      if (request.status === 200) return emit({ part: 1, done: true });
      emit({ part: 0, fault: request.response?.detail || `The portal answered ${request.status}.` });
    };
    request.onerror = () => emit({ part: 0, fault: "The connection broke; try again." });
    emit({ part: 0, said: "Sending …" });
    request.send(form);
  };
})();
