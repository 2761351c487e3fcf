"use strict";
(() => {
  const data = JSON.parse(document.getElementById("questions").textContent);
  const $ = (id) => document.getElementById(id);
  if (!data.length) return;
  const STEPS = 400;
  const COLOURS = ["#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#56b4e9", "#949494"];
  const NAMES = { max_flops: "FLOPs", max_params: "parameters", max_params_non_embedding: "parameters outside the embedding" };
  const isTime = (cost) => cost.startsWith("max_latency.");
  const nameOf = (cost) => NAMES[cost] || "latency on " + cost.slice("max_latency.".length);

  // As methods.budget.format_quantity writes it.
  const plain = (x) => String(Number(x.toPrecision(4)));
  const quantity = (x) => {
    for (const [size, letter] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "K"]]) if (Math.abs(x) >= size) return plain(x / size) + letter;
    return plain(x);
  };
  const amount = (cost, x) => (isTime(cost) ? plain(1000 * x) + "ms" : quantity(x));
  // Four digits, never below x: what is shown can be given to `elastibench query`.
  const roundedUp = (x) => {
    const unit = 10 ** (Math.floor(Math.log10(x)) - 3);
    return Number((Math.ceil(x / unit - 1e-9) * unit).toPrecision(12));
  };

  const place = () => data[Number($("task").value)];
  const ofMethod = (found) => found.filter((c) => !$("method").value || c.method === $("method").value);
  const known = (kind) => ofMethod(place()[kind]);
  const used = (c, cost) => (cost in c.costs ? c.costs[cost] : Infinity);
  const quality = (c) => (c.quality === null ? -Infinity : c.quality);

  // As search.query does it: means over common seeds, to 12 decimals; what is no finite number is the worst.
  const seedsOf = (c) => Object.keys(c.scores);
  const measuredIn = (found, seeds) => found.filter((c) => seeds.every((seed) => seed in c.scores));
  const over = (c, seeds) => {
    const scores = seeds.map((seed) => c.scores[seed]);
    return scores.includes(null) ? -Infinity : Math.round((1e12 * scores.reduce((sum, x) => sum + x, 0)) / seeds.length) / 1e12;
  };
  const sooner = (a, b) =>
    a.flops - b.flops || a.parameters - b.parameters || seedsOf(b).length - seedsOf(a).length || (a.id < b.id ? -1 : 1);
  const top = (found, worth) => {
    const ranked = found.map((c) => [worth(c), c]);
    return ranked.reduce((a, b) => (b[0] > a[0] || (b[0] === a[0] && sooner(b[1], a[1]) < 0) ? b : a))[1];
  };
  const firstIn = (found, seeds) => top(measuredIn(found, seeds), (c) => over(c, seeds));
  const most = (found, count) => found.filter((c) => count(c) === Math.max(...found.map(count)));

  // As _Field.first: of what nothing beats on common seeds what most seeds name.
  function first(found) {
    const sets = [...new Map(found.map((c) => [seedsOf(c).join(), seedsOf(c)])).values()];
    const unbeaten = sets.map((seeds) => [firstIn(found, seeds), seeds]).filter(([c, seeds]) => seedsOf(c).length === seeds.length).map(([c]) => c);
    const named = [...new Set(sets.flat())].map((seed) => firstIn(unbeaten, [seed]));
    return top(most(most(unbeaten, (c) => named.filter((d) => d === c).length), (c) => seedsOf(c).length), quality);
  }

  // As _stands: whether the networks that a method finished stand for all.
  function stands(finished, shared) {
    if (!finished.length || !shared.length) return finished.length > 0;
    const best = first(shared), seeds = seedsOf(best).join();
    if (finished.some((c) => c.id === best.id) && finished.every((c) => seedsOf(c).join() === seeds)) return true;
    const all = [...new Set(shared.flatMap(seedsOf))];
    return all.every((seed) => measuredIn(finished, [seed]).some((c) => c.id === firstIn(shared, [seed]).id));
  }

  function best(cost, limit) {
    const [finished, shared] = ["finished", "shared"].map((kind) => known(kind).filter((c) => used(c, cost) <= limit));
    const methods = [...new Set([...finished, ...shared].map((c) => c.method))];
    if (!methods.length) return null;
    const of = (found, method) => found.filter((c) => c.method === method);
    const kind = methods.every((method) => stands(of(finished, method), of(shared, method))) ? "finished" : "shared";
    return { kind, first: first(kind === "finished" ? finished : shared) };
  }

  function fill(select, entries) {
    const chosen = select.value;
    select.replaceChildren(...entries.map(([value, text]) => Object.assign(document.createElement("option"), { value, textContent: text })));
    if (entries.some(([value]) => value === chosen)) select.value = chosen;
  }

  function range(cost) {
    const values = [...known("finished"), ...known("shared")].map((c) => used(c, cost)).filter(Number.isFinite);
    return [Math.min(...values), Math.max(...values)];
  }

  function limitOf(cost) {
    const [low, high] = range(cost);
    const share = Number($("limit").value) / STEPS;
    return roundedUp(Math.exp(Math.log(0.9 * low) + share * (Math.log(high) - Math.log(0.9 * low))));
  }

  function choose() {
    const all = [...place().finished, ...place().shared];
    const methods = [...new Set(all.map((c) => c.method))];
    fill($("method"), [["", "all"], ...methods.map((m) => [m, m])]);
    const costs = [...new Set([...known("finished"), ...known("shared")].flatMap((c) => Object.keys(c.costs)))];
    costs.sort((a, b) => (b === "max_flops") - (a === "max_flops"));
    fill($("cost"), costs.map((cost) => [cost, nameOf(cost)]));
    answer();
  }

  function line(list, term, text) {
    list.append(Object.assign(document.createElement("dt"), { textContent: term }), Object.assign(document.createElement("dd"), { textContent: text }));
  }

  function answer() {
    const cost = $("cost").value, limit = limitOf(cost), found = best(cost, limit), { metric, folder } = place();
    $("shown").textContent = `${amount(cost, limit)} ${isTime(cost) ? "" : nameOf(cost)}`;
    const box = $("answer"), list = document.createElement("dl");
    box.dataset.id = found ? found.first.id : "";
    box.dataset.limit = String(limit);
    if (found) {
      const c = found.first;
      line(list, "sub-network", `${c.method} ${c.id.slice(0, 8)}: ${c.text}`);
      line(list, `${metric} on search`, `${c.quality === null ? "no number" : c.quality.toFixed(4)} (${found.kind}; ${seedsOf(c).length} seed${seedsOf(c).length > 1 ? "s" : ""}; this chose it)`);
      const there = c.validation === null ? "no number" : c.validation.toFixed(4);
      line(list, `${metric} on validation`, c.validation_kind === null ? "not measured" : `${there} (${c.validation_kind})`);
      for (const [name, value] of Object.entries(c.costs)) line(list, nameOf(name), amount(name, value));
    } else {
      const smallest = amount(cost, range(cost)[0]);
      line(list, "nothing fits", `the smallest that exists has ${smallest}${isTime(cost) ? "" : " " + nameOf(cost)}`);
    }
    const device = isTime(cost) ? cost.slice("max_latency.".length) + "=" : "";
    const option = isTime(cost) ? "--max-latency" : "--" + cost.replaceAll("_", "-");
    const method = $("method").value ? ` --method ${$("method").value}` : "";
    line(list, "the same by", `elastibench query ${folder} --task ${place().task} ${option} ${device}${amount(cost, limit)}${method}`);
    box.replaceChildren(list);
    draw(cost, limit, found);
  }

  function draw(cost, limit, found) {
    const kind = found ? found.kind : known("shared").length ? "shared" : "finished";
    const points = known(kind).filter((c) => c.quality !== null && Number.isFinite(used(c, cost)));
    const methods = [...new Set([...place().finished, ...place().shared].map((c) => c.method))];
    const width = $("chart").clientWidth || 720, height = 230, left = 52, bottom = 26, top = 10, right = 12;
    $("chart").setAttribute("viewBox", `0 0 ${width} ${height}`);
    const [low, high] = range(cost), from = Math.log(0.9 * low), to = Math.log(1.05 * high);
    const values = points.map(quality), floor = Math.min(...values), ceiling = Math.max(...values), span = ceiling - floor || 1;
    const x = (v) => left + ((Math.log(v) - from) / (to - from)) * (width - left - right);
    const y = (v) => height - bottom - 8 - ((v - floor) / span) * (height - bottom - top - 16);
    const make = (tag, attributes, text) => {
      const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
      for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
      if (text !== undefined) node.textContent = text;
      return node;
    };
    const nodes = [make("line", { class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom })];
    for (const v of [floor, ceiling]) nodes.push(make("text", { x: left - 8, y: y(v) + 4, "text-anchor": "end" }, v.toFixed(3)));
    nodes.push(make("text", { x: left, y: height - 8 }, amount(cost, low)));
    nodes.push(make("text", { x: width - right, y: height - 8, "text-anchor": "end" }, amount(cost, high)));
    nodes.push(make("text", { x: (left + width - right) / 2, y: height - 8, "text-anchor": "middle" }, width < 520 ? nameOf(cost) : `${nameOf(cost)} (logarithmic); ${kind} on search`));
    for (const c of points) {
      const fits = used(c, cost) <= limit;
      const dot = make("circle", { cx: x(used(c, cost)), cy: y(quality(c)), r: 4, fill: COLOURS[methods.indexOf(c.method) % COLOURS.length], opacity: fits ? 0.75 : 0.15 });
      dot.append(make("title", {}, `${c.method} ${c.id.slice(0, 8)}: ${quality(c).toFixed(4)}, ${amount(cost, used(c, cost))}`));
      nodes.push(dot);
    }
    const at = Math.min(x(limit), width - right);
    nodes.push(make("line", { class: "limit", x1: at, x2: at, y1: top, y2: height - bottom }));
    if (found) nodes.push(make("circle", { class: "answer", cx: x(used(found.first, cost)), cy: y(quality(found.first)), r: 8 }));
    $("chart").replaceChildren(...nodes);
  }

  fill($("task"), data.map((entry, i) => [String(i), data.some((other) => other.run !== entry.run) ? `${entry.run}: ${entry.task}` : entry.task]));
  for (const id of ["task", "method", "cost"]) $(id).addEventListener("change", choose);
  $("limit").addEventListener("input", answer);
  window.addEventListener("resize", answer);
  choose();
  // Where the experiment's first budget is.
  const [cost, limit] = Object.entries(place().budgets[0] || {})[0] || [];
  if (cost && [...$("cost").options].some((option) => option.value === cost)) {
    $("cost").value = cost;
    const [low, high] = range(cost);
    $("limit").value = String(Math.floor((STEPS * (Math.log(limit) - Math.log(0.9 * low))) / (Math.log(high) - Math.log(0.9 * low)) + 1e-6));
    answer();
  }
})();
