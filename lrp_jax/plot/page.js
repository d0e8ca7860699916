"use strict";
// Everything can be read without this script: it adds sliders, arrow keys and a line that says
// what is under the pointer.
const all = (where, what) => [...where.querySelectorAll(what)];

function oneTabStop(items, step, shown) {
  items.forEach((item, i) => {
    item.tabIndex = i ? -1 : 0;
    item.addEventListener("focus", () => {
      items.forEach((other) => { other.tabIndex = -1; });
      item.tabIndex = 0;
      shown(item);
    });
    item.addEventListener("mouseenter", () => shown(item));
    item.addEventListener("keydown", (event) => {
      const there = step(i, event.key);
      if (there === undefined) return;
      event.preventDefault();
      const next = items[there];
      if (next) next.focus();
    });
  });
}

for (const text of all(document, ".text")) {
  const move = { ArrowLeft: -1, ArrowRight: 1 };
  oneTabStop(all(text, ".v"), (i, key) => (key in move ? i + move[key] : undefined), () => {});
}

for (const map of all(document, ".map")) {
  const heads = all(map, "thead th").slice(1);
  const columns = heads.length;
  const said = map.closest("figure").querySelector("output");
  const cells = all(map, "td");
  const move = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
  const step = (i, key) => {
    if (!(key in move)) return undefined;
    const there = i + move[key];
    const inside = Math.abs(move[key]) > 1 || Math.floor(there / columns) === Math.floor(i / columns);
    return inside ? there : i;
  };
  oneTabStop(cells, step, (cell) => {
    heads.forEach((head) => head.classList.remove("here"));
    const head = heads[cell.cellIndex - 1];
    head.classList.add("here");
    const row = cell.parentNode.firstElementChild;
    said.textContent = `${row.textContent.trim()} ← ${head.textContent.trim()}: ${cell.textContent}`;
  });
}

for (const slides of all(document, ".slides")) {
  const [slider, said] = [slides.querySelector("[type=range]"), slides.querySelector("output")];
  const figures = all(slides, "figure");
  const show = () => {
    figures.forEach((figure, i) => { figure.hidden = i !== Number(slider.value); });
    said.textContent = slider.ariaValueText = figures[slider.value].dataset.name;
  };
  slider.closest("p").hidden = false;
  slider.addEventListener("input", show);
  show();
}

for (const graph of all(document, "svg.graph")) {
  const said = graph.closest("figure").querySelector("output");
  const nodes = all(graph, ".node");
  const edges = all(graph, ".edge");
  const pick = (node) => {
    const was = node.getAttribute("aria-pressed") === "true";
    nodes.forEach((other) => other.setAttribute("aria-pressed", String(other === node && !was)));
    graph.classList.toggle("picked", !was);
    const touching = edges.filter((e) => [e.dataset.from, e.dataset.to].includes(node.id));
    edges.forEach((edge) => edge.classList.toggle("on", touching.includes(edge)));
    const told = [node, ...touching].map((one) => one.querySelector("title").textContent);
    said.textContent = was ? "" : told.join("; ");
  };
  const step = (i, key) => ({ ArrowRight: i + 1, ArrowDown: i + 1, ArrowLeft: i - 1, ArrowUp: i - 1 })[key];
  oneTabStop(nodes, step, () => {});
  nodes.forEach((node) => {
    node.addEventListener("click", () => pick(node));
    node.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); pick(node); }
    });
  });
}
