(() => {
  "use strict";
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const make = (name, attributes, text = "") => {
    const element = Object.assign(document.createElement(name), attributes);
    element.textContent = text;
    return element;
  };

  // Sorting: by a column, within every group of rows.
  const value = (row, column) => {
    const text = row.cells[column].textContent.trim();
    const number = parseFloat(text.replace(/[,\u00a0]/g, "").replace(/\u2212/g, "-"));
    return text === "\u2013" ? null : Number.isNaN(number) ? text : number;
  };
  const compare = (a, b) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return typeof a === typeof b && typeof a === "number" ? a - b : String(a).localeCompare(String(b), "en");
  };
  for (const table of all("table.data")) {
    const heads = all("thead th", table);
    heads.forEach((head, column) => {
      const button = make("button", { type: "button", className: "sort", title: "Sort" }, "\u2195");
      button.setAttribute("aria-label", "Sort by " + head.textContent.trim());
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        for (const body of table.tBodies) {
          const rows = all("tr:not(.group)", body);
          const keyed = rows.map((row) => [value(row, column), row]);
          keyed.sort(([a], [b]) => (down && a !== null && b !== null ? compare(b, a) : compare(a, b)));
          body.append(...keyed.map(([, row]) => row));
        }
      });
      head.append(button);
    });
  }

  // Filter: rows of one task, in every table that has tasks.
  const tasks = new Set(all("[data-t]").flatMap((row) => row.dataset.t.split(" ")).filter((task) => /^[a-z0-9]+(_[a-z0-9]+)?$/.test(task)));
  const names = all("#tasks dt").map((name) => name.textContent).filter((name) => tasks.has(name));
  if (names.length > 1) {
    const select = make("select", { id: "task-filter" });
    select.append(make("option", { value: "" }, "all tasks"), ...names.map((name) => make("option", { value: name }, name)));
    const label = make("label", { htmlFor: "task-filter" }, "Show ");
    const item = make("li", { className: "filter" });
    item.append(label, select);
    document.querySelector("nav ul").append(item);
    select.addEventListener("change", () => {
      const wanted = select.value;
      for (const row of all("[data-t]")) {
        const of = row.dataset.t.split(" ");
        row.hidden = wanted !== "" && of.some((task) => names.includes(task)) && !of.includes(wanted);
      }
    });
  }

  // Values: what a mark says on hover is also said below the drawing, on touch and by keyboard.
  for (const figure of all("figure")) {
    const output = make("output", { className: "value-line" }, "");
    figure.querySelector("figcaption").before(output);
    const say = (event) => {
      const title = event.target.querySelector && event.target.closest("svg") && event.target.querySelector(":scope > title");
      if (title) output.textContent = title.textContent;
    };
    figure.addEventListener("pointerover", say);
    figure.addEventListener("click", say);
  }

  // Links into folded parts, and paper, open them.
  const reveal = () => {
    const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let fold = target && target.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
  };
  addEventListener("hashchange", reveal);
  reveal();
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = all("details:not([open])");
    folded.forEach((fold) => (fold.open = true));
  });
  addEventListener("afterprint", () => folded.forEach((fold) => (fold.open = false)));
})();
