// Adds sorting and filtering to tables that are complete without it.
(() => {
  "use strict";
  const live = document.getElementById("live");
  const say = (text) => { live.textContent = text; };

  const keyOf = (row, column) => {
    const cell = row.cells[column];
    if (!cell) return null; // a cell without numbers has its reason in one wide column
    if (!("sort" in cell.dataset)) return cell.textContent.trim().toLowerCase();
    if (cell.dataset.sort === "" || cell.dataset.sort === "nan") return null;
    return cell.dataset.sort === "inf" ? Infinity : cell.dataset.sort === "-inf" ? -Infinity : Number(cell.dataset.sort);
  };

  const sortBy = (table, header, column) => {
    const descending = header.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const rows = [...table.tBodies[0].rows].map((row, place) => ({ row, place, key: keyOf(row, column) }));
    rows.sort((a, b) => {
      // Rows without a value stay last in both directions.
      if (a.key === null || b.key === null) return (a.key === null) - (b.key === null) || a.place - b.place;
      const order = a.key < b.key ? -1 : a.key > b.key ? 1 : 0;
      return (descending ? -order : order) || a.place - b.place;
    });
    table.tBodies[0].append(...rows.map((entry) => entry.row));
    const label = header.querySelector("button").textContent;
    say(`${table.dataset.name} sorted by ${label}, ${descending ? "descending" : "ascending"}`);
  };

  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((header, column) => {
      const label = header.querySelector(".label");
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = label.textContent;
      label.replaceChildren(button);
      button.addEventListener("click", () => sortBy(table, header, column));
    });
  }

  const rows = [...document.querySelectorAll("tr[data-cell]")];
  const keysOf = (row) => row.dataset.keys.split(" ");
  const cells = new Set(rows.flatMap(keysOf));
  if (cells.size < 3) return;
  const controls = document.getElementById("controls");
  const label = document.createElement("label");
  const search = document.createElement("input");
  search.type = "search";
  label.append("Show cells named", search);
  const group = document.createElement("fieldset");
  const legend = document.createElement("legend");
  legend.className = "visually-hidden";
  legend.textContent = "Show cells executed as";
  group.append(legend);
  const boxes = [...new Set(rows.flatMap((row) => row.dataset.execution.split(" ")))].map((execution) => {
    const box = document.createElement("input");
    box.type = "checkbox";
    box.checked = true;
    box.value = execution;
    const caption = document.createElement("label");
    caption.append(box, execution.replace("-", " "));
    group.append(caption);
    return box;
  });
  controls.append(label, group);
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
    const shown = new Set();
    for (const row of rows) {
      const name = row.dataset.cell.toLowerCase();
      const executed = row.dataset.execution.split(" ").some((execution) => wanted.has(execution));
      row.hidden = !(executed && words.every((word) => name.includes(word)));
      if (!row.hidden) keysOf(row).forEach((key) => shown.add(key));
    }
    say(`${shown.size} of ${cells.size} cells shown`);
  };
  search.addEventListener("input", filter);
  group.addEventListener("change", filter);
})();
