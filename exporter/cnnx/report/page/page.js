"use strict";
// Draws the charts, sorts and searches tables, and filters the flipped images.
(() => {
  const specs = JSON.parse(document.getElementById("specs").textContent);
  // An interpreter evaluates Vega's expressions, so that the page needs no unsafe-eval.
  const options = { ast: true, renderer: "svg", actions: false, defaultStyle: false };
  for (const place of document.querySelectorAll("[data-chart]")) {
    window.cnnxEmbed(place, specs[Number(place.dataset.chart)], options).then(
      () => place.classList.add("drawn"),
      (error) => { place.textContent = `This chart cannot be drawn: ${error}`; },
    );
  }

  const number = (text) => {
    const found = text.replaceAll(",", "").match(/^[<>=\s]*(-?\d+(?:\.\d+)?(?:e-?\d+)?)/i);
    return found ? Number(found[1]) : null;
  };
  const compare = (a, b) => {
    const [x, y] = [number(a), number(b)];
    if (x !== null && y !== null) return x - y;
    if (x !== null || y !== null) return x !== null ? -1 : 1; // what has no figure comes last
    return a.localeCompare(b);
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      head.querySelector("button").addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...body.rows].sort((a, b) => {
          const order = compare(a.cells[column].innerText, b.cells[column].innerText);
          return down ? -order : order;
        });
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
