// Line charts as SVG: axes with round ticks, curves with bands, told apart by colour and by dashes.
const DASHES = ["", "7 3", "2 3", "8 3 2 3", "4 2", "1 3", "10 4", "5 2 1 2"];

function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// About `n` round numbers from low to high.
function ticks(low, high, n) {
  const rough = (high - low) / n || 1;
  const magnitude = 10 ** Math.floor(Math.log10(rough));
  const step = magnitude * [1, 2, 2.5, 5, 10].find((factor) => factor * magnitude >= rough);
  const found = [];
  for (let tick = Math.ceil(low / step - 1e-9); tick * step <= high + step * 1e-9; tick++) found.push(Number((tick * step).toPrecision(12)));
  return found;
}

// A chart of `curves` ({name, layers, estimate, low, high}): the element, and where a layer lies in it.
function lineChart(curves, { width, height, label }) {
  const [left, right, top, bottom] = [56, 10, 10, 34];
  const layers = [...new Set(curves.flatMap((curve) => curve.layers))].sort((a, b) => a - b);
  const values = curves.flatMap((curve) => [...curve.estimate, ...(curve.low ?? []), ...(curve.high ?? [])]).filter((value) => value !== null && Number.isFinite(value));
  let [low, high] = [Math.min(...values), Math.max(...values)];
  if (low === high) [low, high] = [low - 0.5, high + 0.5];
  const pad = 0.04 * (high - low);
  [low, high] = [low - pad, high + pad];
  const [first, last] = [layers[0], layers.at(-1)];
  const x = (layer) => left + ((layer - first) / (last - first || 1)) * (width - left - right);
  const y = (value) => top + ((high - value) / (high - low)) * (height - top - bottom);
  const svg = draw("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label });
  for (const tick of ticks(low, high, 6)) {
    svg.append(draw("line", { class: "grid", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }));
    svg.append(draw("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, String(tick)));
  }
  for (const tick of ticks(first, last, Math.min(last - first, width / 70)).filter(Number.isInteger)) {
    svg.append(draw("text", { x: x(tick), y: height - bottom + 16, "text-anchor": "middle" }, String(tick)));
  }
  svg.append(draw("text", { class: "minor", x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, "layer"));
  curves.forEach((curve, place) => {
    const points = curve.layers.map((layer, i) => [layer, curve.estimate[i], curve.low?.[i], curve.high?.[i]]).filter((point) => Number.isFinite(point[1]) && point[1] !== null);
    const banded = points.filter((point) => Number.isFinite(point[2]) && Number.isFinite(point[3]));
    if (banded.length > 1) {
      const upper = banded.map((point) => `${x(point[0])},${y(point[3])}`);
      const lower = banded.map((point) => `${x(point[0])},${y(point[2])}`).reverse();
      svg.append(draw("polygon", { class: `band k${place % 8}`, points: [...upper, ...lower].join(" ") }));
    }
    svg.append(draw("polyline", { class: `curve k${place % 8}`, "stroke-dasharray": DASHES[place % 8], points: points.map((point) => `${x(point[0])},${y(point[1])}`).join(" ") }));
  });
  return { svg, layers, x, y, height: height - bottom };
}
