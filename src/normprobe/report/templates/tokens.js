// Responses token by token, shaded by a signal in a layer: think, no_think and filler side by side.
if (data.tokens) {
  const SHADES = 16;
  const MISSING = 0xffff;
  const { n_layers: nLayers, signals, segments, roles, problems } = data.tokens;
  const at = (id) => document.getElementById(id);
  const [problem, mode, signal, layer, maps, panel] = ["problem", "mode", "signal", "layer", "maps", "token"].map(at);

  // Values of a response and signal: `value(row, token)`, null where not measured.
  const read = new Map();
  function values(response, kind) {
    const key = response.values[kind.key];
    if (!read.has(key)) {
      const bytes = Uint8Array.from(atob(key), (character) => character.charCodeAt(0));
      read.set(key, new DataView(bytes.buffer));
    }
    const view = read.get(key);
    const n = response.tokens.length;
    return (row, token) => {
      const step = row < 0 ? MISSING : view.getUint16(2 * (row * n + token), true);
      return step === MISSING ? null : kind.low[row] + (step / (MISSING - 1)) * (kind.high[row] - kind.low[row]);
    };
  }
  // A value without digits that are finer than its coding.
  function rounded(kind, row, value) {
    const grain = 10 ** Math.floor(Math.log10((kind.high[row] - kind.low[row]) / MISSING || 1));
    return value === null ? null : Number((Math.round(value / grain) * grain).toPrecision(6));
  }
  const shown = (kind, row, value) => short(rounded(kind, row, value));
  const rowOf = (kind, chosen) => (kind.layers ? kind.layers.indexOf(chosen) : 0);
  const responsesOf = () => problems[Number(problem.value)].responses.filter((response) => !mode.value || response.mode === mode.value);
  const kindOf = () => signals[Number(signal.value)];

  // The 2nd and the 98th percentile of what is shown: one scale for all modes.
  function scale(responses, kind, row) {
    const found = responses.flatMap((response) => {
      const value = values(response, kind);
      return response.tokens.map((_, i) => value(row, i)).filter((one) => one !== null);
    });
    found.sort((a, b) => a - b);
    const quantile = (share) => found[Math.round(share * (found.length - 1))];
    return found.length ? [quantile(0.02), quantile(0.98)] : [0, 0];
  }

  function describe(response, i) {
    const chosen = Number(layer.value);
    const name = [segments[response.segments[i]], roles[response.roles[i]]].filter(Boolean).join(", role: ");
    const list = make("dl");
    for (const kind of signals) {
      const value = values(response, kind)(rowOf(kind, chosen), i);
      list.append(make("dt", {}, kind.name), make("dd", {}, value === null ? "not measured" : `${shown(kind, rowOf(kind, chosen), value)} ${kind.unit}`));
    }
    const kind = kindOf().layers ? kindOf() : signals[0];
    const value = values(response, kind);
    const curve = { layers: kind.layers, estimate: kind.layers.map((_, row) => value(row, i)) };
    const title = make("div", {}, make("code", {}, response.tokens[i]), ` · ${response.mode}, place ${response.start + i} · ${[name, `after layer ${chosen}`].filter(Boolean).join(" · ")}`);
    const parts = [title, list];
    if (curve.estimate.some((one) => one !== null)) {
      const { svg, x, y } = lineChart([curve], { width: 300, height: 150, label: `${kind.name} of this token by layer` });
      if (curve.estimate[rowOf(kind, chosen)] != null) svg.append(draw("circle", { class: "dot k0", r: 4, cx: x(chosen), cy: y(curve.estimate[rowOf(kind, chosen)]) }));
      parts.push(make("div", {}, `${kind.name} of this token by layer`, svg));
    }
    panel.replaceChildren(...parts);
  }

  // One response as a list of tokens, of which one at a time can be reached by the Tab key and the others by arrows.
  function map(response, kind, row, low, high) {
    const value = values(response, kind);
    const name = `${response.mode}, shaded by ${kind.name}`;
    const box = make("div", { role: "listbox", "aria-label": name, "aria-orientation": "horizontal" });
    const cells = response.tokens.map((token, i) => {
      const one = value(row, i);
      const shade = Math.round(Math.min(1, Math.max(0, (one - low) / (high - low || 1))) * (SHADES - 1));
      const label = `${token} ${shown(kind, row, one)} ${roles[response.roles[i]] ?? ""}`;
      return make("span", { role: "option", tabindex: i ? -1 : 0, "aria-selected": "false", "aria-label": label, class: one === null ? "none" : `t${shade}` }, token);
    });
    function select(i) {
      for (const other of maps.querySelectorAll('[aria-selected="true"]')) other.setAttribute("aria-selected", "false");
      cells.forEach((cell, k) => cell.setAttribute("tabindex", k === i ? 0 : -1));
      cells[i].setAttribute("aria-selected", "true");
      selected = [response, i];
      describe(response, i);
    }
    cells.forEach((cell, i) => {
      cell.addEventListener("pointerenter", () => select(i));
      cell.addEventListener("focus", () => select(i));
    });
    box.addEventListener("keydown", (event) => {
      const i = cells.indexOf(event.target);
      const next = { ArrowLeft: i - 1, ArrowRight: i + 1, Home: 0, End: cells.length - 1 }[event.key];
      if (next === undefined) return;
      event.preventDefault();
      cells[Math.max(0, Math.min(cells.length - 1, next))].focus();
    });
    box.append(...cells);
    const outcome = response.truncated ? "its thought never ended" : { true: "right", false: "wrong" }[response.correct] ?? "not judged";
    const cut = response.cut ? `; its last ${response.cut} tokens are left out` : "";
    return make("section", { class: "map", "aria-label": name }, make("h3", {}, `${response.mode} `, make("span", { class: "soft" }, `${response.tokens.length} tokens, ${outcome}${cut}`)), box);
  }

  let selected = null;
  function show() {
    const kind = kindOf();
    const row = rowOf(kind, Number(layer.value));
    const responses = responsesOf();
    const [low, high] = scale(responses, kind, row);
    layer.disabled = !kind.layers;
    at("layer-shown").textContent = kind.layers ? `${layer.value} of 0…${nLayers - 1}` : "(has none)";
    const { question, answer, domain, difficulty } = problems[Number(problem.value)];
    const about = [domain, difficulty === null ? null : `difficulty ${difficulty}`].filter(Boolean).join(", ");
    at("question").replaceChildren(make("b", {}, "Question "), make("bdi", {}, question), ...(answer === null ? [] : [make("b", {}, " Gold answer "), make("bdi", {}, answer)]), ...(about ? [make("span", { class: "soft" }, ` (${about})`)] : []));
    const steps = Array.from({ length: SHADES }, (_, i) => make("span", { class: `t${i}` }));
    at("scale").replaceChildren(row < 0 ? `${kind.name} was not measured after this layer.` : `${kind.name}: ${short(low)} `, ...(row < 0 ? [] : [...steps, ` ${short(high)} ${kind.unit} (2nd to 98th percentile of what is shown)`]));
    maps.replaceChildren(...responses.map((response) => map(response, kind, row, low, high)));
    panel.replaceChildren();
    if (selected && responses.includes(selected[0])) {
      const cells = maps.querySelectorAll('[role="listbox"]')[responses.indexOf(selected[0])].children;
      cells[selected[1]].setAttribute("aria-selected", "true");
      describe(...selected);
    }
  }

  // What is shown, a row per token, with its values of all signals in the layer.
  at("tokens-csv").addEventListener("click", () => {
    const { id } = problems[Number(problem.value)];
    const chosen = Number(layer.value);
    const rows = responsesOf().flatMap((response) => {
      const columns = signals.map((kind) => [kind, rowOf(kind, chosen), values(response, kind)]);
      return response.tokens.map((token, i) => {
        const measured = columns.map(([kind, row, value]) => String(rounded(kind, row, value(row, i)) ?? ""));
        return [id, response.mode, String(response.start + i), token, segments[response.segments[i]] ?? "", roles[response.roles[i]] ?? "", String(chosen), ...measured];
      });
    });
    save("tokens.csv", [["problem", "mode", "place", "token", "segment", "role", "layer", ...signals.map((kind) => kind.name)], ...rows]);
  });

  problems.forEach(({ id, domain, difficulty }, i) => {
    const about = [domain, difficulty].filter((one) => one !== null).join(", ");
    problem.append(make("option", { value: i }, about ? `${id} (${about})` : id));
  });
  for (const one of new Set(problems.flatMap(({ responses }) => responses.map((response) => response.mode)))) mode.append(make("option", { value: one }, one));
  signals.forEach((kind, i) => signal.append(make("option", { value: i }, kind.name)));
  layer.max = nLayers - 1;
  layer.value = Math.max(0, nLayers - 2);
  for (const control of [problem, mode, signal, layer]) control.addEventListener("input", show);
  at("excerpt").hidden = true;
  show();
}
reveal();
