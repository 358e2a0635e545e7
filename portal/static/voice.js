// Voice in the browser: the microphone into the message box, answers out of the loudspeaker.
// The page has: [data-voice=talk], [data-voice=speak], [data-voice=bar] and in it meter, said,
// at-once, retry, discard, hush, close. `window.aiVoice.feed(answerId, textSoFar, whole)` speaks.
(() => {
  "use strict";
  const TICK_MS = 50;
  const TAP_MS = 350; // shorter than this is no holding
  const TAIL_MS = 150; // people let go of the button with the last syllable
  const PIECE_MS = 2000;
  const SILENCE_MS = 1200;
  const WAIT_MS = 20000; // so much silence before speech is thrown away
  const LOUD = 0.012; // below this nothing is speech, however quiet the room
  const SPEECH_TICKS = 3;
  const MIC_HELP = {
    NotAllowedError:
      "The browser refused the microphone. Allow it for this page (the sign beside the address), then try again.",
    NotFoundError: "There is no microphone on this device.",
    NotReadableError: "The microphone is in use by another program.",
  };
  const INSECURE = "Browsers give the microphone to pages on https or on localhost only. Open the portal by one of those.";
  const RECOGNISER_HELP = {
    "not-allowed": MIC_HELP.NotAllowedError,
    "audio-capture": MIC_HELP.NotFoundError,
    network: "This browser's own recogniser cannot be reached.",
    "service-not-allowed": "This browser's own recogniser is not allowed here.",
  };

  const part = (name) => document.querySelector(`[data-voice="${name}"]`);
  const box = () => document.querySelector('textarea[aria-label="Message"]');
  const tell = (kind, more) =>
    document.dispatchEvent(new CustomEvent("ai-voice", { detail: { kind, at: performance.now(), ...more } }));
  const later = (wait_ms) => new Promise((done) => setTimeout(done, wait_ms));

  // Asking the server -------------------------------------------------------------------

  let offers = null;
  const reason = async (answer) => {
    try {
      return (await answer.json()).detail;
    } catch {
      return `the portal answered ${answer.status}`;
    }
  };
  async function ask(method, path, body, signal) {
    const json = body && !(body instanceof Blob);
    const headers = json ? { "content-type": "application/json" } : {};
    const answer = await fetch(path, { method, headers, body: json ? JSON.stringify(body) : body, signal });
    if (!answer.ok) throw Object.assign(new Error(await reason(answer)), { status: answer.status });
    return answer;
  }
  const words = (error) =>
    error instanceof TypeError ? "The portal cannot be reached." : error.message || String(error);

  async function learn() {
    try {
      offers = await (await ask("GET", "/api/voice")).json();
    } catch {
      return; // asked again when somebody presses
    }
    name();
  }
  function name() {
    const talk = part("talk");
    const speak = part("speak");
    if (!offers || !talk || !speak) return;
    const hears = offers.speech_to_text;
    const keys = "hold to talk (or hold Alt+M), press once for hands-free";
    const label = usable() ? `Talk: ${keys}. Heard by ${hears.title}` : `Talk: not set up. ${lack()}`;
    talk.setAttribute("aria-label", label);
    talk.title = label;
    const by = offers.text_to_speech;
    const aloud = by.ready ? `Read answers aloud. Spoken by ${by.title}` : `Read answers aloud: not set up. ${by.note}`;
    speak.setAttribute("aria-label", aloud);
    speak.title = aloud;
    talk.dataset.provider = hears.provider;
    speak.dataset.provider = by.provider;
  }
  const Recogniser = window.SpeechRecognition || window.webkitSpeechRecognition;
  const usable = () => offers?.speech_to_text.ready && (offers.speech_to_text.provider !== "browser" || !!Recogniser);
  const lack = () =>
    offers.speech_to_text.provider === "browser"
      ? `This browser has no recogniser of its own, and ${offers.speech_to_text.note}.`
      : `${offers.speech_to_text.note}.`;

  // The bar -----------------------------------------------------------------------------

  function show(text, shown = {}) {
    const bar = part("bar");
    if (!bar) return;
    bar.hidden = !text;
    bar.dataset.state = shown.state || "";
    part("said").textContent = text || "";
    part("meter").hidden = !shown.meter;
    part("at-once").closest("label").hidden = !shown.atOnce;
    part("retry").hidden = part("discard").hidden = !shown.again;
    part("hush").hidden = !shown.hush;
    part("close").hidden = !shown.close;
    part("talk")?.setAttribute("aria-pressed", String(ear.mode !== "off"));
  }
  function refresh() {
    const by = offers?.speech_to_text.title;
    const failed = ear.kept[0]?.fault;
    if (ear.mode === "held") show(`Listening; let go to end. ${by} hears you.`, { meter: true, state: "listening" });
    else if (ear.mode === "free") {
      const said = ear.writing ? "Writing down; go on." : ear.spoke ? "Listening." : "Waiting for you to speak.";
      show(`${said} Press again or Escape to end. ${by} hears you.`, { meter: true, atOnce: true, state: "listening" });
    } else if (ear.writing) show(`${by} is writing down what you said.`, { state: "writing" });
    else if (failed) show(`${failed} Your recording is kept.`, { again: true, state: "failed" });
    else if (ear.trouble) show(ear.trouble, { close: true, state: "trouble" });
    else if (mouth.busy) show("Speaking. Escape ends it.", { hush: true, state: "speaking" });
    else show("");
  }

  // Hearing -----------------------------------------------------------------------------

  // mode: off, held (push to talk), free (hands-free). kept: recordings that failed, with why.
  const ear = { mode: "off", stream: null, take: null, kept: [], writing: 0, trouble: "", spoke: false, pressedAt: 0 };

  class Take {
    // One recording: its pieces are sent while it lasts and kept until it is written down.
    constructor(stream) {
      const type = ["audio/webm;codecs=opus", "audio/ogg;codecs=opus", "audio/mp4"].find((one) =>
        MediaRecorder.isTypeSupported(one),
      );
      this.id = crypto.randomUUID();
      this.pieces = [];
      this.sent = 0;
      this.size = 0;
      this.streaming = true;
      this.sending = Promise.resolve();
      this.began = performance.now();
      this.atOnce = false;
      this.recorder = new MediaRecorder(stream, { ...(type ? { mimeType: type } : {}), audioBitsPerSecond: 48000 });
      this.recorder.ondataavailable = (event) => {
        if (!event.data.size) return;
        this.pieces.push(event.data);
        this.size += event.data.size;
        if (this.live) this.send();
      };
      this.stopped = new Promise((done) => (this.recorder.onstop = done));
      this.live = false;
      this.recorder.start(PIECE_MS);
    }
    send() {
      this.live = true;
      this.sending = this.sending.then(async () => {
        while (this.streaming && this.sent < this.pieces.length) {
          const at = this.pieces.slice(0, this.sent).reduce((sum, one) => sum + one.size, 0);
          try {
            await ask("PUT", `/api/voice/recordings/${this.id}?at=${at}`, this.pieces[this.sent]);
            this.sent += 1;
          } catch {
            this.streaming = false; // all of it goes in one request at the end
          }
        }
      });
      return this.sending;
    }
    async stop() {
      if (this.recorder.state !== "inactive") this.recorder.stop();
      await this.stopped;
    }
    async drop() {
      await this.stop();
      if (this.sent) ask("DELETE", `/api/voice/recordings/${this.id}`).catch(() => {});
    }
    async text() {
      await this.send();
      if (this.streaming) {
        try {
          return (await (await ask("POST", `/api/voice/recordings/${this.id}/transcription`)).json()).text;
        } catch (error) {
          if (error.status !== 404) throw error;
          this.streaming = false; // the portal was restarted, or it took too long
        }
      }
      const whole = new Blob(this.pieces, { type: this.recorder.mimeType });
      return (await (await ask("POST", "/api/voice/transcriptions", whole)).json()).text;
    }
  }

  async function microphone() {
    if (!navigator.mediaDevices?.getUserMedia) throw new Error(INSECURE);
    try {
      return await navigator.mediaDevices.getUserMedia({
        audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 },
      });
    } catch (error) {
      throw new Error(MIC_HELP[error.name] || `The microphone cannot be used: ${error.message}`);
    }
  }

  async function begin(mode) {
    ear.trouble = "";
    ear.mode = mode;
    ear.spoke = false;
    if (!offers) await learn();
    if (!offers) return fail("The portal cannot be reached.");
    if (!usable()) return fail(`Nobody can hear you yet. ${lack()}`);
    if (offers.speech_to_text.provider === "browser") return recognise();
    refresh();
    try {
      if (!ear.stream) {
        ear.opening ??= microphone().finally(() => (ear.opening = null));
        ear.stream = await ear.opening;
      }
    } catch (error) {
      return fail(error.message);
    }
    if (ear.mode === "off") return release(); // let go before the browser gave it
    ear.take = new Take(ear.stream);
    if (ear.mode === "held") ear.take.send();
    watch();
    tell("listening", { mode: ear.mode });
    refresh();
  }
  function fail(text) {
    ear.mode = "off";
    ear.own = null;
    ear.trouble = text;
    release();
    refresh();
  }
  function release() {
    clearInterval(ear.ticking);
    ear.stream?.getTracks().forEach((track) => track.stop());
    ear.audio?.close();
    ear.stream = ear.audio = ear.take = null;
  }

  // The level, and whether it is speech: louder than the quietest moment of the last seconds.
  function watch() {
    if (ear.audio) return;
    ear.audio = new AudioContext();
    const analyser = ear.audio.createAnalyser();
    analyser.fftSize = 1024;
    ear.audio.createMediaStreamSource(ear.stream).connect(analyser);
    const wave = new Float32Array(analyser.fftSize);
    const levels = [];
    let loud = 0;
    let heardAt = performance.now();
    ear.ticking = setInterval(() => {
      analyser.getFloatTimeDomainData(wave);
      const level = Math.sqrt(wave.reduce((sum, one) => sum + one * one, 0) / wave.length);
      levels.push(level);
      if (levels.length > 60) levels.shift();
      const floor = Math.min(...levels) * 2.5;
      const bar = Math.max(LOUD, floor) * (mouth.busy ? 2 : 1);
      const needle = part("meter")?.firstElementChild;
      if (needle) needle.style.transform = `scaleX(${Math.min(1, Math.max(0, 1 + Math.log10(level + 1e-4) / 2.5)).toFixed(3)})`;
      loud = level > bar ? loud + 1 : 0;
      const now = performance.now();
      if (loud >= SPEECH_TICKS * (mouth.busy ? 2 : 1)) {
        heardAt = now;
        if (mouth.busy) hush();
        if (!ear.spoke) {
          ear.spoke = true;
          ear.take?.send();
          refresh();
        }
      }
      const take = ear.take;
      if (!take) return;
      const long = now - take.began > offers.longest_s * 1000 - 3000 || take.size > offers.largest_bytes * 0.9;
      if (ear.mode === "held" && long) finish();
      if (ear.mode !== "free") return;
      if (ear.spoke && (now - heardAt > SILENCE_MS || long)) next();
      else if (!ear.spoke && !loud && now - take.began > WAIT_MS) next(true);
    }, TICK_MS);
  }
  // Hands-free: this recording is done, the next begins at once.
  function next(quiet) {
    const take = ear.take;
    ear.take = new Take(ear.stream);
    ear.spoke = false;
    if (quiet) take.drop();
    else write(take, part("at-once").checked);
    refresh();
  }
  async function finish() {
    const take = ear.take;
    const wanted = ear.mode === "held" || ear.spoke;
    const atOnce = ear.mode === "free" && part("at-once").checked;
    ear.mode = "off";
    if (!take) return release();
    await later(TAIL_MS);
    await take.stop();
    release();
    if (wanted) await write(take, atOnce);
    else {
      take.drop();
      refresh();
    }
  }
  async function write(take, atOnce) {
    await take.stop();
    ear.writing += 1;
    refresh();
    tell("writing");
    try {
      const text = await take.text();
      ear.trouble = text ? "" : "Nothing was understood.";
      if (text) insert(text, atOnce);
      tell("written", { text });
    } catch (error) {
      take.fault = `Not written down: ${words(error)}`.replace(/\.?$/, ".");
      take.atOnce = atOnce;
      ear.kept.push(take);
      tell("failed", { text: take.fault });
    }
    ear.writing -= 1;
    refresh();
  }
  async function retry() {
    const kept = ear.kept.splice(0);
    for (const take of kept) await write(take, take.atOnce);
  }
  function settle() {
    if (!ear.trouble) return;
    ear.trouble = "";
    refresh();
  }
  function discard() {
    ear.kept.splice(0).forEach((take) => take.drop());
    refresh();
  }
  function insert(text, atOnce) {
    const field = box();
    const before = field.value.trimEnd();
    field.value = before ? `${before} ${text}` : text;
    field.dispatchEvent(new Event("input", { bubbles: true }));
    if (atOnce) setTimeout(() => document.querySelector('button[aria-label="Send"]')?.click(), TICK_MS);
    else field.focus();
  }

  // The browser's own recogniser, where there is no other.
  function recognise() {
    const own = new Recogniser();
    const mode = ear.mode;
    own.continuous = true;
    own.interimResults = true;
    own.lang = navigator.language;
    own.onresult = (event) => {
      for (let at = event.resultIndex; at < event.results.length; at += 1) {
        const said = event.results[at][0].transcript.trim();
        if (event.results[at].isFinal && said) insert(said, mode === "free" && part("at-once").checked);
        else if (said) part("said").textContent = said;
      }
    };
    own.onerror = (event) => {
      if (event.error === "no-speech" || event.error === "aborted") return;
      const help = RECOGNISER_HELP[event.error] || `This browser's own recogniser failed (${event.error}).`;
      fail(`${help} ${offers.speech_to_text.note}.`);
    };
    own.onend = () => {
      if (ear.own === own && ear.mode === "free") own.start();
    };
    ear.own = own;
    own.start();
    refresh();
  }

  function end() {
    if (!ear.own) return finish();
    const own = ear.own;
    ear.mode = "off";
    ear.own = null;
    own.stop();
    return refresh();
  }
  function cancel() {
    const take = ear.take;
    ear.mode = "off";
    ear.own?.abort();
    ear.own = null;
    release();
    take?.drop();
    refresh();
  }

  // Holding is push to talk; a short press is hands-free until the next.
  function press() {
    hush();
    if (ear.mode === "free") {
      ear.pressedAt = 0;
      return end();
    }
    if (ear.mode !== "off") return undefined;
    ear.pressedAt = performance.now();
    return begin("held");
  }
  function letGo() {
    if (ear.mode !== "held") return;
    if (performance.now() - ear.pressedAt >= TAP_MS) end();
    else {
      ear.mode = "free";
      refresh();
    }
  }

  // Speaking ----------------------------------------------------------------------------

  // said: the sentences of the answer that were queued; turn: raised to end all that goes on.
  const mouth = { on: false, id: null, said: [], queue: [], turn: 0, busy: false, running: false, gone: new Set() };

  function feed(id, text, whole) {
    if (!mouth.on || mouth.gone.has(id)) return;
    if (id !== mouth.id) {
      if (mouth.id !== null) mouth.gone.add(mouth.id);
      quiet();
      mouth.id = id;
      mouth.path = location.pathname;
    }
    const found = window.aiSentences(text, whole);
    if (mouth.said.some((one, at) => one !== found[at])) quiet(); // another attempt at the answer
    for (const sentence of found.slice(mouth.said.length)) {
      mouth.said.push(sentence);
      mouth.queue.push({ sentence });
      tell("queued", { sentence });
    }
    run();
  }
  // Its sound, asked for once.
  function load(item) {
    item.sound ??= ask("POST", "/api/voice/speech", { text: item.sentence }, mouth.abort.signal)
      .then((answer) => answer.arrayBuffer())
      .then((bytes) => mouth.audio.decodeAudioData(bytes));
    item.sound.catch(() => {}); // told where it is awaited
  }
  async function run() {
    if (mouth.running || !mouth.queue.length) return;
    const turn = mouth.turn;
    mouth.running = true;
    mouth.busy = true;
    refresh();
    try {
      if (!offers) await learn();
      const by = offers?.text_to_speech;
      if (!by?.ready) throw new Error(by?.note || "the portal cannot be reached");
      const own = by.provider === "browser";
      while (turn === mouth.turn && mouth.queue.length) {
        if (location.pathname !== mouth.path) return hush(); // they went elsewhere
        const item = mouth.queue.shift();
        if (own) await utter(item.sentence);
        else {
          load(item);
          if (mouth.queue.length) load(mouth.queue[0]);
          const sound = await item.sound;
          if (turn === mouth.turn) await play(sound, item.sentence, turn);
        }
      }
    } catch (error) {
      if (turn === mouth.turn && error.name !== "AbortError") {
        if (mouth.id !== null) mouth.gone.add(mouth.id);
        quiet();
        ear.trouble = `Not spoken: ${words(error)}`.replace(/\.?$/, ".");
        tell("mute", { text: ear.trouble });
        refresh();
      }
    }
    if (turn !== mouth.turn) return; // quiet() has cleared up, and another may run
    mouth.running = false;
    mouth.busy = false;
    tell("idle");
    refresh();
  }
  function play(sound, sentence, turn) {
    return new Promise((done) => {
      const source = mouth.audio.createBufferSource();
      source.buffer = sound;
      source.connect(mouth.audio.destination);
      source.onended = done;
      mouth.source = source;
      mouth.audio.resume();
      source.start();
      tell("sound", { sentence, seconds_s: sound.duration, turn });
    });
  }
  function utter(sentence) {
    return new Promise((done, failed) => {
      if (!window.speechSynthesis?.getVoices) return failed(new Error("this browser cannot speak"));
      const own = new SpeechSynthesisUtterance(sentence);
      own.lang = document.documentElement.lang || navigator.language;
      own.onend = done;
      own.onerror = (event) =>
        ["canceled", "interrupted"].includes(event.error) ? done() : failed(new Error(`this browser's own voice failed (${event.error})`));
      mouth.own = own;
      tell("sound", { sentence });
      return window.speechSynthesis.speak(own);
    });
  }
  // End what is spoken and forget what was to be; the answer itself may go on.
  function quiet() {
    mouth.turn += 1;
    mouth.abort?.abort();
    mouth.abort = new AbortController();
    mouth.source?.stop();
    if (mouth.own) window.speechSynthesis.cancel();
    mouth.source = mouth.own = null;
    mouth.queue = [];
    mouth.said = [];
    mouth.running = mouth.busy = false;
  }
  // A person ends it: of this answer no more is spoken.
  function hush() {
    if (!mouth.busy && !mouth.queue.length) return;
    if (mouth.id !== null) mouth.gone.add(mouth.id);
    quiet();
    tell("hushed");
    refresh();
  }
  function speaking(on) {
    const button = part("speak");
    mouth.on = on;
    mouth.audio ??= on ? new AudioContext() : null;
    if (on) mouth.audio.resume();
    else hush();
    button.setAttribute("aria-pressed", String(on));
    button.dispatchEvent(new CustomEvent("speaking", { detail: on }));
    localStorage.setItem("ai-voice-speak", on ? "1" : "");
    if (on && offers && !offers.text_to_speech.ready) {
      ear.trouble = `Nobody can speak yet. ${offers.text_to_speech.note}.`;
      refresh();
    }
  }
  mouth.abort = new AbortController();

  // What people do ----------------------------------------------------------------------

  const over = (event, name) => event.target.closest?.(`[data-voice="${name}"]`);
  let pressed = false;
  document.addEventListener("pointerdown", (event) => {
    if (mouth.on) mouth.audio?.resume();
    if (event.button !== 0 || !over(event, "talk")) return;
    pressed = true;
    event.preventDefault(); // a long press on a phone would select or open a menu
    part("talk").focus({ preventScroll: true });
    press();
  });
  for (const kind of ["pointerup", "pointercancel"])
    document.addEventListener(kind, () => {
      if (!pressed) return;
      pressed = false;
      letGo();
    });
  document.addEventListener("contextmenu", (event) => over(event, "talk") && event.preventDefault());
  const holds = (event) =>
    (event.altKey && event.code === "KeyM") || ((event.code === "Space" || event.code === "Enter") && over(event, "talk"));
  let key = null;
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      if (ear.mode !== "off") cancel();
      hush();
      settle();
      return;
    }
    if (!holds(event) || !part("talk")) return;
    event.preventDefault();
    if (event.repeat || key) return;
    key = event.code;
    press();
  });
  document.addEventListener("keyup", (event) => {
    if (event.code !== key) return;
    event.preventDefault();
    key = null;
    letGo();
  });
  window.addEventListener("blur", () => {
    if (pressed || key) letGo();
    pressed = false;
    key = null;
  });
  document.addEventListener("click", (event) => {
    if (over(event, "talk") && event.detail === 0) {
      // A screen reader presses without a pointer or a key.
      press();
      letGo();
    } else if (over(event, "speak")) speaking(!mouth.on);
    else if (over(event, "retry")) retry();
    else if (over(event, "discard")) discard();
    else if (over(event, "close")) settle();
    else if (over(event, "hush") || event.target.closest?.('button[aria-label="Stop"]')) hush();
  });
  window.addEventListener("pagehide", cancel);

  window.aiVoice = { feed, stop: hush, press, letGo };
  const arrive = setInterval(() => {
    if (!part("talk") || !part("speak")) return;
    clearInterval(arrive);
    name();
    if (localStorage.getItem("ai-voice-speak")) speaking(true);
  }, 100);
  learn();
})();
