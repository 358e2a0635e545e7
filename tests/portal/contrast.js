() => {
  // Every text that can be seen, with what stands behind it, by WCAG's formula. What is turned off
  // need not be read.
  const pen = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
  const known = new Map();
  const rgba = (colour) => {
    if (!known.has(colour)) {
      pen.clearRect(0, 0, 1, 1);
      pen.fillStyle = colour;
      pen.fillRect(0, 0, 1, 1);
      const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data;
      known.set(colour, [r, g, b, a / 255]);
    }
    return known.get(colour);
  };
  const over = (top, below) => {
    const a = top[3];
    return [0, 1, 2].map((at) => top[at] * a + below[at] * (1 - a)).concat(1);
  };
  const light = (colour) => {
    const [r, g, b] = colour.map((c) => {
      c /= 255;
      return c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
    });
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const behind = (node) => {
    const layers = [];
    let at = node;
    for (; at; at = at.parentElement) {
      const found = rgba(getComputedStyle(at).backgroundColor);
      layers.push(found);
      if (found[3] === 1) break;
    }
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1]);
  };
  const faint = (node) => {
    let part = 1;
    for (let at = node; at; at = at.parentElement) part *= Number(getComputedStyle(at).opacity);
    return part;
  };
  const found = [];
  const look = (node, style, text) => {
    const part = faint(node);
    const box = node.getBoundingClientRect();
    const seen = box.width > 1 && box.height > 1 && part > 0 && style.visibility === 'visible';
    if (!seen || node.closest('[disabled], [aria-disabled=true], .disabled, .q-tabs__arrow--faded, [aria-hidden=true]:not(.q-icon)')) return;
    const ground = behind(node);
    const [r, g, b, a] = rgba(style.color);
    const ink = over([r, g, b, a * part], ground);
    const [one, other] = [light(ink), light(ground)];
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const icon = node.matches('.q-icon');
    const ratio = (Math.max(one, other) + .05) / (Math.min(one, other) + .05);
    const needed = large || icon ? 3 : 4.5;
    found.push({ ratio, needed, what: `${node.tagName}.${node.className} "${text.trim().slice(0, 40)}"` });
  };
  for (const node of document.body.querySelectorAll('*')) {
    if (node.closest('svg, script, style, noscript')) continue;
    const own = [...node.childNodes].filter((one) => one.nodeType === 3 && one.data.trim());
    if (own.length) look(node, getComputedStyle(node), own[0].data);
    if (node.matches('input, textarea')) {
      if (node.value) look(node, getComputedStyle(node), node.value);
      else if (node.placeholder) look(node, getComputedStyle(node, '::placeholder'), node.placeholder);
    }
  }
  const faults = found.filter((one) => one.ratio < one.needed)
    .map((one) => `${one.ratio.toFixed(2)} of ${one.needed}: ${one.what}`);
  return { texts: found.length, faults: [...new Set(faults)] };
}
