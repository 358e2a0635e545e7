// Markdown that still grows, as sentences to be spoken. Pure: no page, no clock, no state.
// aiSentences(text, whole) -> the finished sentences so far. More text only ever adds to them, so
// whoever spoke the first n goes on with the next; `whole` finishes what stands at the end.
(() => {
  "use strict";
  const LONGEST_CHARS = 280;
  const END = /[.!?…؟।。！？]/u;
  const FULL_WIDTH = /[。！？]/u;
  const CLOSING = /["'”’»)\]）」』】*_]/u;
  const SHORT = new Set(
    ("mr mrs ms dr prof st sr jr vs etc e.g i.e eg ie cf al approx no nos vol fig ca inc ltd co corp " +
      "a.m p.m u.s u.k jan feb mar apr jun jul aug sep sept oct nov dec " +
      "z.b d.h u.a usw bzw ggf evtl inkl nr abs str bsp vgl z d u o s.o s.u o.ä i.d.r " +
      "p.ex c.-à-d env m mme mlle p sra srta dña ud uds ej pág núm art sig sig.ra dott dr.ssa ecc es " +
      "т.е т.д т.п г ул стр рис").split(" "),
  );
  const MONTHS =
    /^(januar|jänner|februar|märz|april|mai|juni|juli|august|september|oktober|november|dezember)\b/iu;
  const BEFORE_ORDINAL = /(^|\s)(der|die|das|den|dem|des|am|im|zum|zur|vom|beim|ein|eine|einen|ab|bis|seit)\s+\d{1,2}$/iu;
  const ENTITIES = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: " ", "#39": "'" };

  // Blocks --------------------------------------------------------------------------------

  // [{text, done}]: paragraphs, list items, headings, rows of tables; code is left out.
  function blocks(text, whole) {
    const found = [];
    const lines = text.split("\n");
    let open = null;
    let fence = null;
    const close = () => {
      if (open !== null) found.push({ text: open, done: true });
      open = null;
    };
    lines.forEach((raw, at) => {
      const last = at === lines.length - 1 && !whole;
      let line = raw.replace(/\r$/, "").replace(/^(\s{0,3}>\s?)+/, "");
      const mark = line.match(/^\s*(`{3,}|~{3,})/);
      if (fence) {
        if (mark && mark[1][0] === fence[0] && mark[1].length >= fence.length) fence = null;
        return;
      }
      if (mark) {
        close();
        fence = mark[1];
        return;
      }
      if (!line.trim()) {
        if (!last) close();
        return;
      }
      if (open === null && /^( {4}|\t)/.test(line) && !/^\s*([-*+]|\d{1,3}[.)])\s/.test(line)) return;
      if (/^\s*([-*_])(\s*\1){2,}\s*$/.test(line) || /^\s*=+\s*$/.test(line)) return close();
      if (/^[\s|:-]+$/.test(line) && line.includes("-")) return; // a table's rule, or a marker so far
      if (/^\s*\|/.test(line)) {
        close();
        const cells = line.trim().replace(/^\||\|$/g, "").split("|");
        const row = cells.map((cell) => cell.trim()).filter(Boolean).join(", ");
        if (row && !last) found.push({ text: row, done: true, row: true });
        return;
      }
      if (/^\s*\[[^\]]+\]:\s/.test(line)) return; // where a link leads
      const head = line.match(/^\s{0,3}#{1,6}\s+(.*?)\s*#*\s*$/);
      const item = line.match(/^\s*(?:[-*+]|\d{1,3}[.)])\s+(?:\[[ xX]\]\s+)?(.*)$/);
      if (head || item) close();
      if (head) {
        found.push({ text: head[1], done: !last });
        return;
      }
      line = item ? item[1] : line.trim();
      open = open === null ? line : `${open} ${line}`;
      if (last && open !== null) {
        found.push({ text: open, done: false });
        open = null;
      }
    });
    if (open !== null) found.push({ text: open, done: whole || text.endsWith("\n\n") });
    return found;
  }

  // Inline --------------------------------------------------------------------------------

  // What is certain of a block that still grows: nothing from a mark on that is still open.
  function certain(text) {
    let end = text.length;
    const ticks = [...text.matchAll(/`+/g)];
    for (let at = 0; at < ticks.length; at += 1) {
      const pair = ticks.findIndex((one, other) => other > at && one[0].length === ticks[at][0].length);
      if (pair < 0) {
        end = Math.min(end, ticks[at].index);
        break;
      }
      at = pair;
    }
    for (const open of text.matchAll(/!?\[/g)) {
      const rest = text.slice(open.index);
      if (!/^!?\[[^\]]*\](\([^)]*\)|\[[^\]]*\]|[^([])/.test(rest)) {
        end = Math.min(end, open.index);
        break;
      }
    }
    const tag = text.match(/<[a-z/!][^>]*$/i);
    return tag ? text.slice(0, Math.min(end, tag.index)) : text.slice(0, end);
  }

  function plain(text) {
    const codes = [];
    const keep = (said) => `\uE000${codes.push(said) - 1}\uE001`;
    return text
      .replace(/\\([\\`*_{}[\]()#+.!|>~-])|(`+)(.+?)\2(?!`)/g, (_, sign, ticks, code) => keep(sign ?? code.trim()))
      .replace(/!\[[^\]]*\](\([^)]*\)|\[[^\]]*\])/g, " ")
      .replace(/\[\^[^\]]+\]/g, "")
      .replace(/\[([^\]]*)\](\([^)]*\)|\[[^\]]*\])/g, "$1")
      .replace(/<(https?:\/\/[^>\s]+)>/gi, "$1")
      .replace(/<!--.*?-->|<\/?(?:br|p|div|li|td|th|tr|h\d)\b[^>]*>/gi, " ")
      .replace(/<\/?[a-z][^>]*>/gi, "")
      .replace(/https?:\/\/(?:www\.)?([^\s/?#)\]"'<>]+)[^\s)\]"'<>]*?(?=[.,;:!?…]*(?:[\s)\]"'<>]|$))/gi, "$1")
      .replace(/&(#39|[a-z]+);/gi, (all, name) => ENTITIES[name.toLowerCase()] ?? all)
      .replace(/~~/g, "")
      .replace(/(?<![\p{L}\p{N}])[*_]+(?=\S)|(?<=\S)[*_]+(?![\p{L}\p{N}])/gu, "")
      .replace(/\uE000(\d+)\uE001/g, (_, at) => codes[at])
      .replace(/\s*(?![©®™])[\p{Extended_Pictographic}\uFE0F\u200D]+/gu, "")
      .replace(/\s+/g, " ")
      .trim();
  }

  // Sentences -----------------------------------------------------------------------------

  // Whether the sentence ends at the mark before `next`; null: more text has to tell.
  function ends(before, mark, rest, done) {
    const gap = rest.match(/^\s*/)[0].length;
    const next = rest.slice(gap);
    if (!next) return done ? true : null;
    if (FULL_WIDTH.test(mark)) return true;
    if (!gap) return false;
    const lower = /^\p{Ll}/u.test(next);
    if (mark !== ".") return !lower;
    if (lower) return false;
    const word = before.match(/(\S*)$/)[1].replace(/^[("'“«[]+/, "");
    if (SHORT.has(word.toLowerCase()) || /^\p{Lu}$/u.test(word)) return false;
    if (/^\d{1,2}$/.test(word)) {
      if (BEFORE_ORDINAL.test(before)) return false;
      if (!done && !/^\p{L}*[^\p{L}]/u.test(next)) return null;
      if (MONTHS.test(next)) return false;
    }
    return true;
  }

  function cut(text, done, into) {
    let start = 0;
    let at = 0;
    const add = (end) => {
      const said = text.slice(start, end).trim();
      if (/[\p{L}\p{N}]/u.test(said)) into.push(said);
      start = end;
      at = end;
    };
    while (at < text.length) {
      if (at - start >= LONGEST_CHARS) {
        const piece = text.slice(start, at);
        const comma = Math.max(...[", ", "; ", ": ", "、", "，", "；"].map((sign) => piece.lastIndexOf(sign)));
        const space = piece.lastIndexOf(" ");
        add(start + (comma > 40 ? comma + 1 : space > 40 ? space + 1 : piece.length));
        continue;
      }
      if (!END.test(text[at])) {
        at += 1;
        continue;
      }
      const mark = text[at];
      const first = at;
      while (at < text.length && END.test(text[at])) at += 1;
      while (at < text.length && CLOSING.test(text[at])) at += 1;
      const verdict = ends(text.slice(start, first), at - first > 1 && mark === "." && text[first + 1] === "." ? "…" : mark, text.slice(at), done);
      if (verdict === null) return;
      if (verdict) add(at);
    }
    if (done) add(text.length);
  }

  function aiSentences(text, whole) {
    const found = [];
    for (const block of blocks(text, whole)) {
      cut(plain(block.done ? block.text : certain(block.text)), block.done, found);
      if (!block.done) break; // nothing after it is certain, and there is nothing
    }
    return found;
  }

  if (typeof window === "undefined") module.exports = aiSentences;
  else window.aiSentences = aiSentences;
})();
