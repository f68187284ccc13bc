// Tables that are sorted by a click on a column's head, filtered by a text, and saved as CSV.
{
  const FEWEST = 4; // rows, from which on a table is sorted; with fewer it is read at a glance

  // The number that a cell begins with, NaN for text: "0.42 [0.31, 0.53]", "1,234 problems", "12 %".
  const numberOf = (text) => {
    const found = /^[−-]?[\d,]*\.?\d+(e[+-]?\d+)?/i.exec(text);
    return found ? Number(found[0].replace("−", "-").replaceAll(",", "")) : NaN;
  };
  const textOf = (cell) => (cell ? cell.textContent.trim().replace(/\s+/g, " ") : "");

  function compare(a, b) {
    const [x, y] = [numberOf(a), numberOf(b)];
    if (!Number.isNaN(x) && !Number.isNaN(y)) return x - y;
    // What is no number comes last.
    if (Number.isNaN(x) !== Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1;
    return a.localeCompare(b);
  }

  function equip(table) {
    const bodies = [...table.tBodies];
    const heads = [...table.tHead.rows[0].cells];
    const names = heads.map(textOf);
    const cells = (body) => [...body.rows[0].cells].map(textOf);
    const about = textOf(table.caption) || table.closest("details, section")?.querySelector("h2, h3")?.textContent || "table";

    const tools = make("div", { class: "tools" });
    if (bodies.length >= FEWEST) {
      const input = make("input", { type: "search", placeholder: "Filter rows", "aria-label": `Filter the rows of: ${about}` });
      const shown = make("span", { role: "status" });
      input.addEventListener("input", () => {
        const wanted = input.value.toLowerCase();
        for (const body of bodies) body.hidden = !textOf(body).toLowerCase().includes(wanted);
        shown.textContent = wanted ? `${bodies.filter((body) => !body.hidden).length} of ${bodies.length} rows` : "";
      });
      tools.append(input, shown);
      heads.forEach((head, column) => {
        if (!names[column]) return;
        const button = make("button", { type: "button", title: "Sort" }, ...head.childNodes);
        head.append(button);
        button.addEventListener("click", () => {
          const turn = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
          for (const other of heads) other.removeAttribute("aria-sort");
          head.setAttribute("aria-sort", turn === 1 ? "ascending" : "descending");
          const keyed = [...table.tBodies].map((body) => [cells(body)[column] ?? "", body]);
          keyed.sort((one, other) => turn * compare(one[0], other[0]));
          table.append(...keyed.map(([, body]) => body));
        });
      });
    }
    const csv = make("button", { type: "button", "aria-label": `Save as CSV: ${about}` }, "CSV");
    csv.addEventListener("click", () => {
      const rows = [...table.tBodies].filter((body) => !body.hidden).map(cells);
      save(`${table.dataset.name}.csv`, [names, ...rows]);
    });
    tools.append(csv);
    const place = table.parentElement.classList.contains("scroll") ? table.parentElement : table;
    if (bodies.length >= FEWEST) place.before(tools);
    else place.after(tools);
  }

  for (const table of document.querySelectorAll("table[data-name]")) equip(table);
}
