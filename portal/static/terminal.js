// One window of the agents, live: xterm.js on the WebSocket of portal/screens.py. The window keeps
// its own size; the letters are made to fit. Links are not followed.
import { Terminal } from "nicegui-xterm";
import { loadResource } from "../../static/utils/resources.js";

const LETTER_PX = 13, WAITS_MS = [300, 700, 1500, 3000, 5000], FINAL = [4401, 4403, 4404, 4429];
const THEME = { background: "#10121a", foreground: "#e8e9f1", cursor: "#7f8af5", selectionBackground: "#3d4a8f" };
const OTHER_SCREEN = [47, 1047, 1049];

export default {
  template: `<section class="live-window" :class="{ typing, close: wide, small }" :aria-label="'Window ' + window">
    <div class="term-bar"><b :class="'light ' + state" aria-hidden="true"></b><a v-if="small" :href="'/agents/' + window">{{ window }}</a>
      <span role="status">{{ said }}</span><i></i>
      <button v-if="!small" type="button" :aria-pressed="wide" @click="zoom">Zoom</button>
      <button v-if="!small && canType" type="button" ref="typer" :aria-pressed="typing" @click="type">{{ typing ? "Stop typing" : "Type" }}</button>
      <button v-if="state === 'off'" type="button" @click="again">Connect</button></div>
    <div ref="place" class="term-place"><div ref="screen" class="term-screen"></div></div></section>`,
  props: { window: String, canType: Boolean, small: Boolean, resourcePath: String },
  data: () => ({ state: "wait", said: "connecting", typing: false, wide: false }),
  async mounted() {
    this.tries = 0;
    await this.$nextTick();
    await loadResource((window.path_prefix || "") + `${this.resourcePath}/xterm.css`);
    if (this.gone) return;
    const terminal = (this.terminal = new Terminal({
      fontSize: LETTER_PX, scrollback: 3000, theme: THEME, disableStdin: true, cursorBlink: false,
      fontFamily: 'ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace',
      linkHandler: { activate() {}, allowNonHttpProtocols: false },
    }));
    // tmux draws on the other screen, which scrolls nothing back; ours keeps what went by.
    for (const final of ["h", "l"])
      terminal.parser.registerCsiHandler({ prefix: "?", final }, (given) => OTHER_SCREEN.includes(given[0]));
    terminal.attachCustomKeyEventHandler((event) => {
      if (!this.typing) return false;
      if (event.type === "keydown" && event.ctrlKey && event.shiftKey && event.code === "KeyX") {
        this.type();
        this.$refs.typer.focus();
        return false;
      }
      return !(event.ctrlKey && event.code === "KeyC" && terminal.hasSelection());
    });
    terminal.onData((text) => this.typing && this.send({ type: "type", text }));
    terminal.open(this.$refs.screen);
    this.sized = new ResizeObserver(() => this.fit());
    this.sized.observe(this.$refs.place);
    this.connect();
  },
  beforeUnmount() {
    this.gone = true;
    clearTimeout(this.timer);
    this.sized?.disconnect();
    this.socket?.close();
    this.terminal?.dispose();
  },
  methods: {
    connect() {
      const place = (window.path_prefix || "") + `/ws/terminals/${encodeURIComponent(this.window)}`;
      const scheme = location.protocol === "https:" ? "wss" : "ws";
      const socket = new WebSocket(`${scheme}://${location.host}${place}${this.typing ? "?typing=true" : ""}`);
      socket.binaryType = "arraybuffer";
      this.socket = socket;
      let why = "";
      socket.onmessage = ({ data }) => {
        if (socket !== this.socket) return;
        if (typeof data !== "string") {
          const count = data.byteLength;
          this.terminal.write(new Uint8Array(data), () => socket === this.socket && this.send({ type: "seen", bytes: count }));
          return;
        }
        const told = JSON.parse(data);
        if (told.type === "lost") why = told.why;
        else if (told.type === "size") this.take(told);
      };
      socket.onclose = ({ code }) => {
        if (this.gone || socket !== this.socket) return;
        this.fresh = true;
        if (FINAL.includes(code) || (code === 1006 && this.tries >= 20)) {
          this.state = "off";
          this.said = why || "not connected";
          return;
        }
        this.state = "wait";
        this.said = why ? `${why}; looking again` : "connection lost; connecting again";
        this.timer = setTimeout(() => this.connect(), WAITS_MS[Math.min(this.tries++, WAITS_MS.length - 1)]);
      };
      this.fresh = true;
    },
    take({ columns, rows, typing, dead }) {
      if (this.fresh) this.terminal.reset();
      this.fresh = false;
      this.tries = 0;
      this.state = dead ? "dead" : "live";
      this.said = dead ? "its program has ended" : typing ? "you type into this window; Ctrl+Shift+X stops" : "live, read only";
      this.terminal.options.disableStdin = !typing;
      this.terminal.options.cursorBlink = typing;
      this.terminal.resize(columns, rows);
      this.fit();
      if (typing) this.terminal.focus();
    },
    fit() {
      const screen = this.$refs.screen?.querySelector(".xterm-screen"), options = this.terminal?.options;
      if (!screen || !screen.offsetWidth) return;
      const room = this.$refs.place.clientWidth - 14;
      const whole = (options.fontSize * room) / screen.offsetWidth;
      const size = this.wide ? LETTER_PX : Math.max(2, Math.min(LETTER_PX, Math.floor(whole * 10) / 10));
      if (Math.abs(size - options.fontSize) >= 0.1) options.fontSize = size;
    },
    send(frame) { if (this.socket?.readyState === 1) this.socket.send(JSON.stringify(frame)); },
    zoom() { this.wide = !this.wide; this.$nextTick(() => this.fit()); },
    type() { this.typing = !this.typing; this.again(); },
    again() {
      clearTimeout(this.timer);
      const old = this.socket;
      this.state = "wait";
      this.said = "connecting";
      this.connect();
      old?.close();
    },
  },
};
