// Sorts a table by the head of a column: a click, or Enter; again for the other direction, and again for the first order.
// Numbers count as numbers, and what is missing comes last either way. A row of the class "last" stays at the end.
const NUMBER = /^[<>≤≥×+]?\s*([-−]?(?:\d+(?:[\u202f\u00a0]\d{3})*)?(?:\.\d+)?(?:e[-−+]?\d+)?)(?=$|[\s%[×])/;

function valueOf(cell) {
  const text = (cell?.dataset.value ?? cell?.textContent ?? "").trim();
  if (text === "" || text === "–") return null;
  const digits = text.match(NUMBER)?.[1].replace(/[\u202f\u00a0]/g, "").replaceAll("−", "-");
  return digits && !isNaN(digits) ? Number(digits) : text;
}

function ordered(rows, column, direction) {
  const keys = new Map(rows.map((row) => [row, valueOf(row.children[column])]));
  return [...rows].sort((one, other) => {
    const [a, b] = [keys.get(one), keys.get(other)];
    if (a === null || b === null) return (a === null) - (b === null);
    const words = typeof a === "string" || typeof b === "string";
    return direction * (words ? String(a).localeCompare(String(b), "en", { numeric: true }) : a - b);
  });
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...(table.tHead?.rows[0]?.children ?? [])], body = table.tBodies[0];
  const all = [...body.rows], last = all.filter((row) => row.classList.contains("last"));
  const rows = all.filter((row) => !last.includes(row));
  if (rows.length < 2) continue;
  table.classList.add("live");
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    Object.assign(button, { type: "button", title: "Sort" });
    button.append(...(head.textContent.trim() ? head.childNodes : ["name"]));
    head.append(button);
    button.addEventListener("click", () => {
      const numeric = rows.every((row) => typeof valueOf(row.children[column]) !== "string");
      const order = numeric ? ["descending", "ascending"] : ["ascending", "descending"];
      const next = [...order, ""][order.indexOf(head.getAttribute("aria-sort") ?? "") + 1];
      for (const other of heads) other.removeAttribute("aria-sort");
      if (next) head.setAttribute("aria-sort", next);
      body.append(...(next ? ordered(rows, column, next === "ascending" ? 1 : -1) : rows), ...last);
    });
  });
}
