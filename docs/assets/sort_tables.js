// Click on a heading of a table, or press Enter there, to sort by that column; once more turns the
// order round. Verdicts sort from good to bad, numbers by value, everything else as text.
// Part of yarncli, under its licence (Apache-2.0).
"use strict";

const VERDICTS = ["✓", "✓*", "≠", "–", "✗", "·", "?"];

function sortKey(cell) {
  const text = cell ? cell.textContent.trim() : "";
  const verdict = VERDICTS.indexOf(text);
  if (verdict >= 0) return verdict;
  const number = Number(text.replaceAll(",", ""));
  return text && !Number.isNaN(number) ? number : text;
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), "en", { numeric: true });
}

function sortTable(heading) {
  const table = heading.closest("table");
  const body = table.tBodies[0];
  const column = heading.cellIndex;
  const order = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", order === 1 ? "ascending" : "descending");
  const keyed = [...body.rows].map((row) => [sortKey(row.cells[column]), row]);
  keyed.sort((a, b) => order * compare(a[0], b[0]));
  body.append(...keyed.map((pair) => pair[1]));
}

for (const heading of document.querySelectorAll("article table:not([class]) thead th")) {
  heading.tabIndex = 0;
  heading.addEventListener("click", () => sortTable(heading));
  heading.addEventListener("keydown", (event) => {
    if (event.key === "Enter") sortTable(heading);
  });
}
