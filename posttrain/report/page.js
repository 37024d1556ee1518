// Everything a model wrote reaches the screen through textContent, never as markup.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);

  function make(tag, className, text) {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined && text !== null) node.textContent = text;
    return node;
  }

  // Control characters are shown as signs; halves of a character and marks that turn the direction of text by their code.
  function visible(text) {
    return text
      .replace(/[\u0000-\u0008\u000b\u000c\u000d-\u001f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)))
      .replace(/[\ud800-\udfff]/gu, (c) => "⟦U+" + c.charCodeAt(0).toString(16).toUpperCase() + "⟧")
      .replace(/[\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, (c) => "⟦U+" + c.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0") + "⟧");
  }

  function say(value, digits = 4) {
    if (value === null || value === undefined) return "–";
    if (Number.isInteger(value)) return value.toLocaleString("en-US");
    return String(Number(value.toPrecision(digits)));
  }

  // -- light and dark

  const root = document.documentElement;
  const theme = byId("theme");
  const remembered = (() => {
    try { return localStorage.getItem("posttrain-theme"); } catch { return null; }
  })();
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");

  function isDark() {
    return root.dataset.theme ? root.dataset.theme === "dark" : prefersDark.matches;
  }
  function showTheme() {
    theme.setAttribute("aria-pressed", String(isDark()));
    byId("theme-name").textContent = isDark() ? "dark" : "light";
  }
  if (remembered === "dark" || remembered === "light") root.dataset.theme = remembered;
  theme.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("posttrain-theme", root.dataset.theme); } catch { /* a page opened from a file may have none */ }
    showTheme();
  });
  prefersDark.addEventListener("change", showTheme);
  showTheme();

  // -- charts: the values at the pointer, or at the arrow keys

  pointers(data.charts, make);

  // -- rollouts

  const body = byId("rows");
  if (!body) return;

  function promptText(prompt) {
    return typeof prompt === "string" ? prompt : prompt.map((message) => message.content).join("\n");
  }
  const prompts = data.prompts.map((prompt) => ({ prompt, text: promptText(prompt), asked: typeof prompt === "string" ? prompt : (prompt.at(-1) || { content: "" }).content }));
  for (const prompt of prompts) prompt.lower = prompt.text.toLowerCase();
  const rows = data.rows.map((row, index) => ({ ...row, index, of: prompts[row.prompt], lower: row.completion.toLowerCase(), open: false }));

  let order = { key: "step", down: false };
  let group = null;
  let page = 0;
  let shown = [];

  for (const [id, values] of [["f-source", rows.map((r) => r.source)], ["f-finish", rows.map((r) => r.finish).filter(Boolean)]]) {
    const select = byId(id);
    for (const value of new Set(values)) {
      const option = make("option", null, visible(value));
      option.value = value;
      select.append(option);
    }
    if (select.options.length < 3) select.closest("label").hidden = true;
  }

  const rubric = rubrics(data.criteria, { make, visible, say, pairs });
  byId("f-undecided").closest("label").hidden = !rows.some(rubric.undecided);
  byId("f-faults").closest("label").hidden = !rows.some((row) => row.faults.length);

  function bound(id) {
    const value = byId(id).value.trim();
    return value === "" || Number.isNaN(Number(value)) ? null : Number(value);
  }
  function within(value, low, high) {
    if (low === null && high === null) return true;
    return value !== null && value !== undefined && (low === null || value >= low) && (high === null || value <= high);
  }
  function verdict(row) {
    return row.right === true ? "right" : row.right === false ? "wrong" : "none";
  }
  function value(row, key) {
    return key === "right" ? { right: 1, wrong: 0, none: null }[verdict(row)] : row[key];
  }

  function select() {
    const text = byId("f-text").value.toLowerCase();
    const source = byId("f-source").value, right = byId("f-right").value, finish = byId("f-finish").value;
    const steps = [bound("f-step-min"), bound("f-step-max")], rewards = [bound("f-reward-min"), bound("f-reward-max")];
    const faulty = byId("f-faults").checked, undecided = byId("f-undecided").checked;
    shown = rows.filter((row) =>
      (!source || row.source === source) && (!right || verdict(row) === right) && (!finish || row.finish === finish) && (!faulty || row.faults.length) && (!undecided || rubric.undecided(row)) &&
      within(row.step, ...steps) && within(row.reward, ...rewards) &&
      (!group || (row.source === group.source && row.step === group.step && row.row_id === group.row_id)) &&
      (!text || row.lower.includes(text) || row.of.lower.includes(text)));
    const sign = order.down ? -1 : 1;
    shown.sort((a, b) => {
      const x = value(a, order.key), y = value(b, order.key);
      const gone = (x === null || x === undefined) - (y === null || y === undefined);  // what has no value is last either way
      if (gone) return gone;
      return (x < y ? -sign : x > y ? sign : 0) || a.index - b.index;
    });
  }

  function cell(row, className, text) {
    row.append(make("td", className, text));
  }

  function snippet(text) {
    return visible(text.slice(0, 300).replace(/\s+/g, " ").trim());
  }

  function draw(row) {
    const line = make("tr", row.open ? "row open-row" : "row");
    const first = make("td", "open");
    const toggle = make("button", "toggle");
    toggle.type = "button";
    toggle.setAttribute("aria-expanded", String(row.open));
    toggle.setAttribute("aria-label", `rollout of step ${row.step ?? "?"}, row ${visible(row.row_id)}, sample ${row.sample ?? "?"}`);
    first.append(toggle);
    line.append(first);
    cell(line, "num", say(row.step));
    cell(line, "num", say(row.reward, 3));
    cell(line, "num narrow-hide", say(row.advantage, 3));
    const words = { right: "✓ right", wrong: "✕ wrong", none: "–" };
    cell(line, `mark-${verdict(row)}`, words[verdict(row)]);
    cell(line, "narrow-hide", visible(row.finish || "–"));
    cell(line, "num narrow-hide", say(row.tokens));
    const texts = make("td", "text");
    for (const [className, text] of [["snip asked", row.of.asked], ["snip said", row.completion]]) {
      const piece = make("div", className, snippet(text) || "(empty)");
      piece.dir = "auto";
      texts.append(piece);
    }
    if (row.faults.length) texts.append(make("div", "fault-mark", `⚠ ${row.faults.length === 1 ? "a fault" : row.faults.length + " faults"}`));
    texts.append(...rubric.short(row));
    line.append(texts);
    line.addEventListener("click", (event) => {
      if (event.target !== toggle && String(getSelection())) return;  // text was selected, not clicked
      flip(row, line, toggle);
    });
    return line;
  }

  function flip(row, line, toggle) {
    row.open = !row.open;
    line.classList.toggle("open-row", row.open);
    toggle.setAttribute("aria-expanded", String(row.open));
    if (row.open) line.after(sheet(row));
    else if (line.nextElementSibling && line.nextElementSibling.classList.contains("detail")) line.nextElementSibling.remove();
  }

  function block(title, text, className) {
    const node = make("pre", className, visible(text));
    node.dir = "auto";
    node.tabIndex = 0;
    node.setAttribute("aria-label", title);
    return node;
  }

  function pairs(list) {
    const table = make("table");
    const inside = make("tbody");
    for (const [name, text, className] of list) {
      const line = make("tr", className);
      const head = make("th", null, name);
      head.scope = "row";
      const what = make("td", "num", text);
      what.dir = "auto";
      line.append(head, what);
      inside.append(line);
    }
    table.append(inside);
    return table;
  }

  function sheet(row) {
    const line = make("tr", "detail");
    const box = make("td");
    box.colSpan = 8;
    const grid = make("div", "sheet");
    const texts = make("div");
    texts.append(make("h4", null, "Prompt"));
    if (typeof row.of.prompt === "string") texts.append(block("prompt", row.of.prompt));
    else for (const message of row.of.prompt) texts.append(make("div", "role", visible(message.role)), block(`prompt, ${message.role}`, message.content));
    texts.append(make("h4", null, "Completion"), block("completion", row.completion, "answer"), ...rubric.whole(row));

    const side = make("div");
    const parts = Object.entries(row.rewards);
    if (parts.length) {
      const weighted = data.weights.length === parts.length;
      side.append(make("h4", null, weighted ? "Reward = Σ weight × part" : "Reward"));
      side.append(pairs([
        ...parts.map(([name, number], i) => [visible(name), number === null ? "not judged" : (weighted && data.weights[i] !== null ? `${say(data.weights[i])} × ` : "") + say(number)]),
        ["reward", row.reward === null ? "not judged" : say(row.reward), "sum"],
      ]));
    }
    const facts = [];
    if (row.verdict) facts.push(["verdict", visible(row.verdict)], ["score", say(row.reward)]);
    for (const [name, text] of Object.entries(row.facts || {})) facts.push([visible(name), visible(text)]);
    if (row.advantage !== null) facts.push(["advantage", say(row.advantage)]);
    facts.push(["from", visible(row.source)], ["step", say(row.step)], ["row", visible(row.row_id)], ["sample", say(row.sample)]);
    if (row.version !== null) facts.push(["policy version", say(row.version)]);
    facts.push(["finish", visible(row.finish || "–")], ["prompt tokens", say(row.prompt_tokens)], ["completion tokens", say(row.tokens)], ["file", visible(row.file)]);
    side.append(make("h4", null, "Facts"), pairs(facts));
    side.append(...rubric.also(row));
    if (row.faults.length) side.append(make("h4", null, "Faults"), ...row.faults.map((fault) => make("p", "warn", visible(fault))));
    const same = make("button", "quiet", "all samples of this prompt and step");
    same.type = "button";
    same.addEventListener("click", () => {
      byId("filters").reset();
      group = { source: row.source, step: row.step, row_id: row.row_id };
      again();
      byId("group-chip").focus();
    });
    side.append(same);
    grid.append(texts, side);
    box.append(grid);
    line.append(box);
    return line;
  }

  function render() {
    const size = Number(byId("per-page").value);
    const pages = Math.max(1, Math.ceil(shown.length / size));
    page = Math.max(0, Math.min(page, pages - 1));
    const lines = [];
    for (const row of shown.slice(page * size, (page + 1) * size)) {
      lines.push(draw(row));
      if (row.open) lines.push(sheet(row));
    }
    body.replaceChildren(...lines);
    byId("count").textContent = shown.length === rows.length ? `${say(rows.length)} rows` : `${say(shown.length)} of ${say(rows.length)} rows`;
    byId("page").textContent = `page ${page + 1} of ${say(pages)}`;
    byId("no-rows").hidden = shown.length > 0;
    for (const id of ["first", "previous"]) byId(id).disabled = page === 0;
    for (const id of ["next", "last"]) byId(id).disabled = page === pages - 1;
    const chip = byId("group-chip");
    chip.hidden = !group;
    if (group) chip.textContent = `one group: step ${group.step ?? "?"}, row ${visible(group.row_id)}  ✕`;
    for (const head of document.querySelectorAll("#table th[aria-sort]")) {
      const mine = head.querySelector("button").dataset.sort === order.key;
      head.setAttribute("aria-sort", mine ? (order.down ? "descending" : "ascending") : "none");
    }
  }

  function again() {
    page = 0;
    select();
    render();
  }

  let waiting = 0;
  for (const event of ["input", "change"]) {
    byId("filters").addEventListener(event, () => {
      clearTimeout(waiting);
      waiting = setTimeout(again, 120);
    });
  }
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("filters").addEventListener("reset", () => {
    group = null;
    setTimeout(again);  // the fields are empty only after this event
  });
  byId("group-chip").addEventListener("click", () => { group = null; again(); byId("f-text").focus(); });
  byId("per-page").addEventListener("change", again);
  for (const button of document.querySelectorAll("#table th button")) {
    button.addEventListener("click", () => {
      order = { key: button.dataset.sort, down: order.key === button.dataset.sort ? !order.down : button.dataset.sort !== "step" };
      again();
    });
  }
  byId("first").addEventListener("click", () => { page = 0; render(); });
  byId("previous").addEventListener("click", () => { page -= 1; render(); });
  byId("next").addEventListener("click", () => { page += 1; render(); });
  byId("last").addEventListener("click", () => { page = Infinity; render(); });
  again();
})();
