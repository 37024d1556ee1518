// What rewards and strategies told about a rollout: rubrics criterion by criterion, what the scaffold showed, and the rest.
function rubrics(table, { make, visible, say, pairs }) {
  const FAILED = 2;

  // The words say it without colour; of an undesirable criterion, unmet is the good end.
  function verdict(points, found) {
    if (found === FAILED) return ["none", "⚠ no verdict"];
    if (points < 0) return found === 0 ? ["wrong", "✕ present"] : ["right", "✓ absent"];
    return found === 0 ? ["right", "✓ met"] : ["wrong", "✕ unmet"];
  }
  function signed(number) {
    return number === null ? "?" : say(number).replace("-", "−");
  }
  function plural(count, one, many) {
    return `${say(count)} ${count === 1 ? one : many}`;
  }
  function isolated(tag, className, text) {
    const node = make(tag, className, visible(text));
    node.dir = "auto";
    return node;
  }

  function undecided(row) {
    return (row.rubrics || []).some((rubric) => rubric.failed > 0);
  }

  // In the row of the table.
  function short(row) {
    return (row.rubrics || []).map((rubric) => {
      const node = make("div", "points", `${signed(rubric.earned)} of ${signed(rubric.possible)} points`);
      if (rubric.failed) node.append(make("span", "warn", ` ⚠ ${say(rubric.failed)} without a verdict`));
      return node;
    });
  }

  function tally(rubric) {
    const node = make("p", "tally");
    const share = rubric.possible > 0 ? rubric.earned / rubric.possible : null;
    node.append(make("b", null, `${signed(rubric.earned)} of ${signed(rubric.possible)} points`));
    if (rubric.score === null) node.append(rubric.failed ? ": no score, for want of verdicts" : ": no score");
    else if (share !== null && Math.abs(share - rubric.score) < 1e-6) node.append(` = ${signed(rubric.score)}`);
    else node.append(`; score ${signed(rubric.score)}`);
    node.append(` · ${say(rubric.met)} of ${plural(rubric.wanted, "wanted criterion", "wanted criteria")} met`);
    if (rubric.present) node.append(`, ${say(rubric.present)} undesirable present`);
    if (rubric.failed) {
      const left = rubric.score === null ? "" : ", in neither sum";
      node.append(" · ", make("span", "warn", `⚠ ${plural(rubric.failed, "criterion", "criteria")} without a verdict${left}`));
    }
    return node;
  }

  function scaffolding(row) {
    const given = row.scaffold;
    if (!given) return [];
    const ratio = given.ratio === null ? "" : `ratio ${say(given.ratio, 3)}`;
    const what = given.same ? "criteria" : "items";
    const told = [ratio, given.shown.length && given.tokens !== null ? `${say(given.tokens)} tokens` : "", given.dropped ? `${say(given.dropped)} left out for want of room` : ""].filter(Boolean).join(", ");
    const which = given.same || !given.shown.length ? "" : `: number ${given.shown.slice(0, 20).map((i) => say(i + 1)).join(", ")}${given.shown.length > 20 ? ", …" : ""}`;
    const head = given.shown.length ? `Scaffold: ${plural(given.shown.length, what === "items" ? "item" : "criterion", what)} shown to the sampler${which}` : "Scaffold: nothing was shown to the sampler";
    return [make("p", "tally", told ? `${head} (${told})` : head)];
  }

  function line(rubric, entry, place, seen) {
    const [index, found, why, agreement] = entry;
    const [text, points, tags, by] = table[index];
    const [mark, word] = verdict(points, found);
    const row = make("tr", found === FAILED ? "undecided" : "");
    row.append(make("td", `verdict-cell mark-${mark}`, word));
    const worth = make("td", "num points-cell");
    worth.append(make("b", null, found === FAILED ? "–" : signed(found === 0 ? points : 0)), make("small", null, ` of ${signed(points)}`));
    row.append(worth);
    const what = make("td", "criterion");
    what.append(isolated("div", "criterion-text", text || "(empty)"));
    const reason = make("div", found === FAILED ? "why warn" : "why");
    reason.append(make("span", "why-by", `${found === FAILED ? "not decided " : ""}by ${by}${why ? ": " : ""}`), isolated("bdi", null, why));
    what.append(reason);
    const chips = make("div", "chips");
    if (seen.has(place)) chips.append(make("span", "tag seen", "shown in the scaffold"));
    if (agreement !== null) chips.append(make("span", "tag", `agreement ${say(100 * agreement, 3)} %`));
    for (const tag of tags) chips.append(isolated("span", "tag plain-tag", tag));
    if (chips.childElementCount) what.append(chips);
    row.append(what);
    return row;
  }

  // Below the completion.
  function whole(row) {
    const out = [];
    const all = row.rubrics || [];
    if (all.length || row.scaffold) out.push(make("h4", null, all.length > 1 ? "Rubrics" : all.length ? "Rubric" : "Scaffold"));
    out.push(...scaffolding(row));
    if (row.left_out) out.push(make("p", "hint", "Its rubric, and what else was told, is left out of this page for its size: see the file."));
    for (const rubric of all) {
      if (all.length > 1) out.push(isolated("h5", null, rubric.name));
      out.push(tally(rubric));
      const seen = new Set(row.scaffold && row.scaffold.same ? row.scaffold.shown : []);
      const lines = make("table", "criteria");
      const head = make("tr");
      for (const [name, className] of [["verdict", ""], ["points", "num"], ["criterion", ""]]) {
        const cell = make("th", className, name);
        cell.scope = "col";
        head.append(cell);
      }
      const top = make("thead"), inside = make("tbody");
      top.append(head);
      inside.append(...rubric.criteria.map((entry, place) => line(rubric, entry, place, seen)));
      lines.append(top, inside);
      const box = make("div", "criteria-box");
      box.tabIndex = 0;
      box.setAttribute("role", "region");
      box.setAttribute("aria-label", `criteria of ${visible(rubric.name)}`);
      box.append(lines);
      out.push(box);
      if (rubric.more) out.push(make("p", "hint", `and ${plural(rubric.more, "criterion", "criteria")} more, in the file; the points are of all`));
    }
    return out;
  }

  // Beside the facts.
  function also(row) {
    const told = row.also || [];
    return told.length ? [make("h4", null, "Told by rewards and strategy"), pairs(told.map(([name, text]) => [visible(name), visible(text)]))] : [];
  }

  return { undecided, short, whole, also };
}
