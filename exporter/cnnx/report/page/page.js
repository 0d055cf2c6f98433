"use strict";
// Draws the charts, sorts and searches tables, and filters the flipped images.
(() => {
  const specs = JSON.parse(document.getElementById("specs").textContent);
  // An interpreter evaluates Vega's expressions, so that the page needs no unsafe-eval.
  const options = { ast: true, renderer: "svg", actions: false, defaultStyle: false };
  for (const place of document.querySelectorAll("[data-chart]")) {
    const spec = specs[Number(place.dataset.chart)];
    if (spec === null) {
      place.textContent = "This version of cnnx cannot draw this chart.";
      continue;
    }
    window.cnnxEmbed(place, spec, options).then(
      () => place.classList.add("drawn"),
      (error) => { place.textContent = `This chart cannot be drawn: ${error}`; },
    );
  }

  const number = (text) => {
    const found = text.replaceAll(",", "").match(/^[<>=\s]*(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?![-\d])/i);
    return found ? Number(found[1]) : null;
  };
  const compare = (a, b, down) => {
    const [x, y] = [number(a), number(b)];
    if ((x === null) !== (y === null)) return x === null ? 1 : -1; // what has no figure comes last
    const order = x === null ? a.localeCompare(b) : x - y; // dates are text
    return down ? -order : order;
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      head.querySelector("button").addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const text = (row) => row.cells[column].innerText;
        const rows = [...body.rows].sort((a, b) => compare(text(a), text(b), down));
        body.append(...rows);
      });
    });
  }

  const filter = (input, items, count) => {
    const apply = () => {
      const wanted = input.value.trim().toLowerCase();
      let shown = 0;
      for (const item of items) {
        item.hidden = wanted !== "" && !item.textContent.toLowerCase().includes(wanted);
        shown += item.hidden ? 0 : 1;
      }
      count.textContent = `${shown} of ${items.length} shown`;
    };
    input.addEventListener("input", apply);
    apply();
  };
  for (const box of document.querySelectorAll(".filter")) {
    const target = document.getElementById(box.dataset.of);
    const items = target.tBodies ? [...target.tBodies[0].rows] : [...target.children];
    filter(box.querySelector("input"), items, box.querySelector("output"));
  }
})();
