// The curves of the claims over layers: choose a quantity, point at a layer (or use the arrow keys) to read all values.
{
  const chosen = document.getElementById("curve");
  const place = document.getElementById("curve-chart");
  const about = document.getElementById("curve-claim");

  function show() {
    const { claim, title, quantity, curves } = data.curves[Number(chosen.value)];
    const width = Math.max(300, Math.min(720, place.clientWidth || 720));
    const { svg, layers, x, y, height } = lineChart(curves, { width, height: 320, label: `${title} ${quantity}, by layer. Left and right arrow keys choose a layer; the table below has its values.` });
    const cursor = draw("line", { class: "cursor", y1: 10, y2: height });
    const dots = curves.map((_, i) => draw("circle", { class: `dot k${i % 8}`, r: 4 }));
    svg.append(cursor, ...dots);
    svg.setAttribute("tabindex", "0");
    const caption = make("caption", { "aria-live": "polite" });
    const cells = curves.map(() => make("td"));
    const rows = curves.map((curve, i) => {
      const line = draw("line", { class: `k${i % 8}`, x1: 0, x2: 30, y1: 6, y2: 6, "stroke-dasharray": DASHES[i % 8] });
      const sample = draw("svg", { class: "legend", width: 34, height: 12, "aria-hidden": "true" }, line);
      return make("tr", {}, make("th", { scope: "row" }, sample, ` ${curve.name}`), cells[i]);
    });
    const head = make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "Curve"), make("th", { scope: "col" }, "Value [95 % interval]")));
    const table = make("table", {}, caption, head, make("tbody", {}, ...rows));
    let at = layers.length - 1;

    function read(next) {
      at = Math.max(0, Math.min(layers.length - 1, next));
      const layer = layers[at];
      caption.textContent = `${quantity}, layer ${layer}`;
      cursor.setAttribute("x1", x(layer));
      cursor.setAttribute("x2", x(layer));
      curves.forEach((curve, i) => {
        const found = curve.layers.indexOf(layer);
        const value = found < 0 ? null : curve.estimate[found];
        const ends = found >= 0 && curve.low[found] !== null && curve.high[found] !== null ? ` [${short(curve.low[found])}, ${short(curve.high[found])}]` : "";
        cells[i].textContent = short(value) + ends;
        dots[i].setAttribute("visibility", value === null ? "hidden" : "visible");
        if (value !== null) {
          dots[i].setAttribute("cx", x(layer));
          dots[i].setAttribute("cy", y(value));
        }
      });
    }
    svg.addEventListener("pointermove", (event) => {
      const at = ((event.clientX - svg.getBoundingClientRect().left) * width) / svg.getBoundingClientRect().width;
      read(layers.reduce((best, layer, i) => (Math.abs(x(layer) - at) < Math.abs(x(layers[best]) - at) ? i : best), 0));
    });
    svg.addEventListener("keydown", (event) => {
      const next = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: layers.length - 1 }[event.key];
      if (next === undefined) return;
      event.preventDefault();
      read(next);
    });
    const csv = make("button", { type: "button" }, "CSV");
    csv.addEventListener("click", () => {
      const text = (value) => (value === null ? "" : String(value));
      const rows = curves.flatMap((curve) => curve.layers.map((layer, i) => [quantity, curve.name, String(layer), text(curve.estimate[i]), text(curve.low[i]), text(curve.high[i])]));
      save(`${claim}_by_layer.csv`, [["quantity", "name", "layer", "estimate", "low", "high"], ...rows]);
    });
    about.textContent = title;
    about.href = `#${claim}`;
    place.replaceChildren(svg, make("div", {}, table, csv));
    read(at);
  }

  let group;
  data.curves.forEach((curve, i) => {
    if (!i || data.curves[i - 1].claim !== curve.claim) {
      group = make("optgroup", { label: curve.title });
      chosen.append(group);
    }
    group.append(make("option", { value: i }, curve.quantity));
  });
  if (data.curves.length) {
    // The claim that all others rest on comes first.
    chosen.value = Math.max(0, data.curves.findIndex(({ quantity }) => quantity === "norm"));
    chosen.addEventListener("change", show);
    addEventListener("resize", show);
    show();
  } else {
    place.textContent = "No claim of this run has curves over layers.";
  }
}
