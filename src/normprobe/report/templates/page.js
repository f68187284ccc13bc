"use strict";
// What all parts share: the embedded data, elements, files to save; and the folds of the page.
const data = JSON.parse(document.getElementById("data").textContent);

// An element with attributes and children; text is text, never markup.
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// Three significant digits, as the tables have them; a dash for what was not measured.
function short(value) {
  if (value === null || !Number.isFinite(value)) return "–";
  return value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e5) ? value.toExponential(2) : value.toLocaleString("en-US", { maximumSignificantDigits: 3 });
}

// Text that a spreadsheet would run as a formula begins with an apostrophe; numbers stay (csv_link.py does the same).
function asText(cell) {
  return /^[=+\-@\t\r]/.test(cell) && !/^[+-]?[\d.,]+(e[+-]?\d+)?%?( \[[\d.,e+ -]*\])?$/i.test(cell) ? `'${cell}` : cell;
}

function save(name, rows) {
  const quoted = (cell) => (/[",\n\r]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell);
  const text = rows.map((row) => row.map((cell) => quoted(asText(cell))).join(",") + "\n").join("");
  const link = make("a", { download: name, href: URL.createObjectURL(new Blob([text], { type: "text/csv" })) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// A link into a fold opens it.
function reveal() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  for (let fold = target.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
  target.scrollIntoView();
}

for (const button of document.querySelectorAll("[data-folds]")) {
  button.addEventListener("click", () => {
    for (const fold of document.querySelectorAll("#claims > details")) fold.open = button.dataset.folds === "open";
  });
}
// What is folded is not printed, so it is opened for it, but for long lists, and folded again.
let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll(".claim, .section, .printed")].filter((fold) => !fold.open);
  for (const fold of folded) fold.open = true;
});
addEventListener("afterprint", () => {
  for (const fold of folded) fold.open = false;
});
addEventListener("hashchange", reveal);
document.body.classList.add("scripted");
