(() => {
  "use strict";
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const svg = document.querySelector("#drawing svg");
  const nodes = all(".node", svg);
  // Rows come from the best edge to the worst, curves the other way round.
  const curves = all("path.edge", svg).reverse();
  const edges = all("#edges tbody tr").map((row, i) => {
    const [source, destination] = all("td", row).map((cell) => cell.textContent);
    const { score } = data.edges[source + "->" + destination];
    const input = /<(.)>$/.exec(destination);
    const reads = input ? input[1] : destination === "logits" ? "logits" : "mlp";
    const target = destination.replace(/<.>$/, "");
    return { row, curve: curves[i], source, target, reads, size: score === null ? Infinity : Math.abs(score) };
  });
  const sizes = [0, ...new Set(edges.map(({ size }) => size))].filter((size, i) => Number.isFinite(size) && (i === 0 || size > 0));
  sizes.sort((a, b) => a - b);
  const [from, to, least] = ["from", "to", "least"].map(byId);
  const boxes = all("input[name=reads]");
  const title = byId("list-title");
  let pinned = null;

  const layer = (name) => parseInt(name.slice(1), 10);
  const update = () => {
    const [first, last, bound] = [Number(from.value), Number(to.value), sizes[Number(least.value)]];
    const reads = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
    const within = (name) => name === "input" || name === "logits" || (layer(name) >= first && layer(name) <= last);
    const reached = new Set();
    let count = 0;
    for (const { row, curve, source, target, reads: input, size } of edges) {
      const ofPinned = pinned === null || source === pinned || target === pinned;
      const shown = ofPinned && reads.has(input) && size >= bound && within(source) && within(target);
      row.hidden = !shown;
      curve.classList.toggle("off", !shown);
      if (shown) {
        count += 1;
        reached.add(source).add(target);
      }
    }
    for (const node of nodes) {
      const { name } = node.dataset;
      node.classList.toggle("dim", name !== pinned && !reached.has(name));
      node.setAttribute("aria-pressed", String(name === pinned));
    }
    byId("bound").textContent = Number(bound.toPrecision(3));
    title.textContent = (pinned === null ? "Edges" : "Edges of " + pinned) + ": " + count + (count < edges.length ? " of " + edges.length : "");
  };

  svg.setAttribute("role", "group");
  for (const node of nodes) {
    const pin = () => {
      pinned = pinned === node.dataset.name ? null : node.dataset.name;
      update();
    };
    node.setAttribute("role", "button");
    node.setAttribute("tabindex", "0");
    node.setAttribute("aria-label", node.querySelector("title").textContent);
    node.addEventListener("click", pin);
    node.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      pin();
    });
  }
  const unpin = () => {
    pinned = null;
    update();
  };
  addEventListener("keydown", (event) => event.key === "Escape" && unpin());
  least.max = String(sizes.length - 1);
  for (const control of [from, to, least, ...boxes]) control.addEventListener("input", update);
  byId("reset").addEventListener("click", () => {
    [from.selectedIndex, to.selectedIndex, least.value] = [0, to.options.length - 1, "0"];
    boxes.forEach((box) => (box.checked = true));
    unpin();
  });

  const save = (name, type, text) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  byId("save-json").addEventListener("click", () => save("circuit.json", "application/json", JSON.stringify(data, null, 2) + "\n"));
  byId("save-svg").addEventListener("click", () => {
    const copy = svg.cloneNode(true);
    all(".off", copy).forEach((curve) => curve.remove());
    for (const node of all(".node", copy)) ["role", "tabindex", "aria-label"].forEach((name) => node.removeAttribute(name));
    const style = document.createElementNS(svg.namespaceURI, "style");
    style.textContent = byId("drawing-style").textContent;
    copy.removeAttribute("style");
    copy.setAttribute("role", "img");
    copy.prepend(style);
    save("circuit.svg", "image/svg+xml", new XMLSerializer().serializeToString(copy) + "\n");
  });
  byId("controls").hidden = false;
  update();
})();
