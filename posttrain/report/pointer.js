"use strict";
// Charts tell their values at the pointer, and to the arrow keys.
function pointers(charts, make) {
  for (const frame of document.querySelectorAll(".frame")) {
    const chart = charts[frame.dataset.chart];
    const plot = frame.querySelector(".plot");
    const cross = frame.querySelector(".cross");
    const tip = frame.querySelector(".tip");
    const spoken = frame.getAttribute("aria-label");
    let at = null;

    function hide() {
      at = null;
      tip.hidden = true;
      cross.setAttribute("d", "");
      frame.setAttribute("aria-label", spoken);
    }
    function show(index) {
      at = Math.max(0, Math.min(chart.x.length - 1, index));
      const x = chart.at[at] * 1000;
      cross.setAttribute("d", `M${x} 0V1000`);
      const where = chart.heads ? chart.heads[at] : `step ${chart.x[at].toLocaleString("en-US")}`;
      const head = make("div", "head", where);
      const lines = chart.curves.filter((curve) => curve.texts[at] !== null).map((curve) => {
        const line = make("div");
        const label = make("span");
        label.append(make("span", `key ${curve.colour}`), curve.label);
        line.append(label, make("b", null, curve.texts[at]));
        return line;
      });
      tip.replaceChildren(head, ...lines);
      tip.hidden = false;
      const box = frame.getBoundingClientRect();
      const area = plot.getBoundingClientRect();
      const place = area.left - box.left + chart.at[at] * area.width;
      const width = tip.offsetWidth;
      const left = place + 12 + width > box.width ? place - 12 - width : place + 12;
      tip.style.left = `${Math.max(0, Math.min(left, box.width - width))}px`;
      frame.setAttribute("aria-label", `${where}: ` + chart.curves.filter((c) => c.texts[at] !== null).map((c) => `${c.label} ${c.texts[at]}`).join(", "));
    }
    function nearest(event) {
      const area = plot.getBoundingClientRect();
      const share = (event.clientX - area.left) / area.width;
      let low = 0, high = chart.at.length - 1;
      while (high - low > 1) {
        const middle = (low + high) >> 1;
        if (chart.at[middle] < share) low = middle; else high = middle;
      }
      return share - chart.at[low] <= chart.at[high] - share ? low : high;
    }
    frame.addEventListener("pointermove", (event) => show(nearest(event)));
    frame.addEventListener("pointerdown", (event) => show(nearest(event)));
    frame.addEventListener("pointerleave", hide);
    frame.addEventListener("blur", hide);
    frame.addEventListener("keydown", (event) => {
      const to = { ArrowLeft: at === null ? chart.x.length - 1 : at - 1, ArrowRight: at === null ? 0 : at + 1, Home: 0, End: chart.x.length - 1 }[event.key];
      if (event.key === "Escape") hide();
      if (to === undefined) return;
      event.preventDefault();
      show(to);
    });
  }
}
