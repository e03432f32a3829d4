// Draws the charts and filters the page. Every text from outside reaches the page as a text node or an attribute of
// SVG that Plot sets; nothing is ever parsed as HTML.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const lines = new Map(data.lines.map((line) => [line.id, line]));
  const models = [...new Set(data.lines.map((line) => line.model))];
  const loads = [...new Set(data.lines.map((line) => line.load))];
  const COLOURS = [1, 2, 3, 4, 5, 6, 7, 8].map((i) => `var(--c${i})`);
  const DASHES = [null, "7 3", "2 3", "9 3 2 3", "4 2", "1 4"];
  const PERCENTILES = [["p50", "circle"], ["p90", "triangle"], ["p95", "square"], ["p99", "diamond"]];
  const MAX_TIMELINES = 12;
  const colourOf = (line) => COLOURS[models.indexOf(line.model) % COLOURS.length];
  const dashOf = (line) => DASHES[loads.indexOf(line.load) % DASHES.length];
  let active = data.lines;
  // Key -> words: what the table of metrics calls them.
  const METRICS = data.latencies;
  const SHARES = Object.entries(data.scores);
  let metric = Object.keys(METRICS)[0];

  // How figures are written

  function seconds(value) {
    if (value === null || value === undefined) return "–";
    if (value === 0) return "0";
    const ms = value * 1000;
    return value < 0.9995 ? `${+ms.toPrecision(2)} ms` : `${value < 99.5 ? +value.toPrecision(2) : value.toFixed(0)} s`;
  }
  const percent = (share) => share === null ? "–" : `${(share * 100).toFixed(share === 0 || share === 1 || (share >= 0.095 && share <= 0.905) ? 0 : 1)} %`;
  const perSecond = (value) => (value === null ? "–" : value < 99.5 ? `${+value.toPrecision(2)}` : value.toFixed(0));

  // Building blocks

  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }
  function swatch(colour, kind, detail) {
    const sample = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    sample.setAttribute("width", "26");
    sample.setAttribute("height", "12");
    sample.setAttribute("aria-hidden", "true");
    const shape = document.createElementNS("http://www.w3.org/2000/svg", "path");
    if (kind === "line") {
      shape.setAttribute("d", "M1 6H25");
      shape.setAttribute("stroke", colour);
      shape.setAttribute("stroke-width", "2");
      if (detail) shape.setAttribute("stroke-dasharray", detail);
    } else if (kind === "symbol") {
      shape.setAttribute("d", d3.symbol(detail, 60)());
      shape.setAttribute("transform", "translate(13 6)");
      shape.setAttribute(detail === d3.symbolTimes ? "stroke" : "fill", colour);
    } else {
      shape.setAttribute("d", "M7 0H19V12H7Z");
      shape.setAttribute("fill", colour);
    }
    sample.append(shape);
    return sample;
  }
  const legend = (entries) =>
    element("ul", { class: "legend" }, ...entries.map(([text, ...how]) => element("li", {}, swatch(...how), text)));
  const shown = (key, of) => [...new Set(of.map((line) => line[key]))];
  const modelLegend = () => shown("model", active).map((model) => [model, colourOf({ model }), "line", null]);
  const loadLegend = () => shown("load", active).map((load) => [load, "currentColor", "line", dashOf({ load })]);
  const SYMBOLS = { circle: d3.symbolCircle, triangle: d3.symbolTriangle, square: d3.symbolSquare, diamond: d3.symbolDiamond2, times: d3.symbolTimes };

  function plot(label, options) {
    // Plot leaves out labels of a logarithmic scale as D3 does, 5 before 2; ours are those that have room.
    const own = ["x", "y"].filter((name) => options[name]?.written);
    const axes = own.map((name) => Plot[name === "x" ? "axisX" : "axisY"](options[name].ticks, { text: options[name].written, label: options[name].label, labelArrow: "none" }));
    const scales = Object.fromEntries(own.map((name) => [name, { ...options[name], axis: null }]));
    const drawn = Plot.plot({ marginTop: 24, marginLeft: 48, ...options, ...scales, marks: [...axes, ...options.marks] });
    drawn.setAttribute("role", "img");
    // Plot names the groups inside, which an image with one name must not have.
    for (const group of drawn.querySelectorAll("g[aria-label]")) group.removeAttribute("aria-label");
    drawn.setAttribute("aria-label", `${label}; the table below has the figures`);
    return drawn;
  }
  // One chart for each suite (or other key), as many beside each other as there is room for.
  function panels(place, key, draw) {
    const grid = element("div", { class: "charts" });
    place.append(grid);
    const groups = d3.groups(active, key);
    const columns = Math.min(groups.length, Math.max(1, Math.floor(place.clientWidth / 430)));
    const width = Math.max(300, Math.min(place.clientWidth / columns - 24, columns === 1 ? 1160 : 760));
    for (const [name, group] of groups) {
      const made = draw(group, width, name);
      if (made) grid.append(element("div", {}, ...(name ? [element("h4", {}, name)] : []), made));
    }
    if (!grid.children.length) grid.append(element("p", { class: "soft" }, "Nothing to draw: there are too few requests, or none of the run groups shown has these figures."));
  }
  const suiteOf = (line) => line.suite;
  // A chart whose rows are lines has each name above its row, on as many lines as it needs: no name is ever cut.
  const rowName = (line) => line.short;
  const LETTER = 6.3;
  function rows(group, width, height) {
    const above = 14 * Math.max(...group.map((line) => Math.ceil((rowName(line).length * LETTER) / (width - 36)))) + 2;
    const each = above + height;
    return {
      shift: above / 2,
      above,
      named: Plot.text(group, { y: rowName, text: rowName, frameAnchor: "left", textAnchor: "start", lineAnchor: "top", dx: -10, dy: -each / 2 + 1, lineWidth: (width - 36) / 11, fontWeight: 600 }),
      scales: { width, height: 64 + group.length * each, marginLeft: 14, marginRight: 22, y: { type: "band", axis: null, domain: group.map(rowName), padding: 0 } },
    };
  }
  // Round values for the axis of a latency, as many as there is room for: even ones where it spans little, else 1, 2, 5, 10.
  function logTime(label, values, room) {
    const [low, high] = d3.extent(values.filter((value) => value > 0));
    const decades = d3.range(Math.floor(Math.log10(low)), Math.ceil(Math.log10(high)) + 1);
    const within = (ticks) => ticks.filter((tick) => tick >= low / 1.08 && tick <= high * 1.08);
    const all = within(decades.flatMap((decade) => [1, 2, 5].map((step) => step * 10 ** decade)));
    const tens = within(decades.map((decade) => 10 ** decade));
    const round = high / low < 4 ? d3.ticks(low, high, Math.min(5, room)) : all.length <= room || tens.length < 2 ? all : tens;
    // Each has its 50 px, on a narrow page too.
    const place = (tick) => ((room * 55 - 60) * Math.log(tick / low)) / Math.log((high / low) * 1.08 ** 2);
    const ticks = round.reduce((kept, tick) => (kept.length && place(tick) - place(kept.at(-1)) < 50 ? kept : [...kept, tick]), []);
    return { type: "log", domain: [low / 1.08, high * 1.08], label: `${label}, log scale →`, written: seconds, grid: true, ticks };
  }

  // The charts

  function tradeoff(place) {
    place.append(legend(shown("model", active).map((model) => [model, colourOf({ model }), "symbol", d3.symbolCircle])));
    const { latency, limit, points } = data.tradeoff;
    const goal = data.limit_correct;
    panels(place, suiteOf, (group, width, name) => {
      const ids = new Set(group.map((line) => line.id));
      const own = points.filter((point) => ids.has(point.line) && point.x.value > 0);
      if (!own.length) return null;
      const which = own.every((point) => point.which === own[0].which) ? own[0].which : `${latency}, or ${own.find((point) => point.which !== latency).which}`;
      const scale = logTime(which, [...own.flatMap(({ x }) => [x.low ?? x.value, x.value, x.high ?? x.value]), ...(limit === null ? [] : [limit])], width / 55);
      const line = (point) => lines.get(point.line);
      const title = (point) => `${line(point).name}\n${percent(point.y.value)} correct (${percent(point.y.low)} – ${percent(point.y.high)})\n${point.which} ${seconds(point.x.value)}${point.x.low === null || point.x.high === null ? "" : ` (${seconds(point.x.low)} – ${seconds(point.x.high)})`}`;
      const region = limit !== null && goal !== null ? [Plot.rect([0], { x1: scale.domain[0], x2: limit, y1: goal, y2: 1, fill: "var(--good)", fillOpacity: 0.13 })] : [];
      const rules = [
        ...(limit === null ? [] : [Plot.ruleX([limit], { stroke: "var(--good)", strokeDasharray: "3 3" }), Plot.text([limit], { x: (at) => at, text: (at) => `rule: ${seconds(at)}`, frameAnchor: "top", textAnchor: limit > Math.sqrt(scale.domain[0] * scale.domain[1]) ? "end" : "start", dy: -10, fill: "var(--good)" })]),
        ...(goal === null ? [] : [Plot.ruleY([goal], { stroke: "var(--good)", strokeDasharray: "3 3" }), Plot.text([goal], { y: (at) => at, text: (at) => `rule: ${percent(at)}`, frameAnchor: "right", textAnchor: "end", dy: 8, fill: "var(--good)", stroke: "var(--paper)", strokeWidth: 4 })]),
      ];
      const several = new Set(own.map((point) => line(point).load)).size > 1;
      const across = d3.scaleLog(scale.domain, [0, width - 66]);
      const told = [];
      for (const point of several ? own : []) {
        const apart = (other) => Math.abs(across(point.x.value) - across(other.x.value)) > 8 + 7 * line(point).load.length || Math.abs(point.y.value - other.y.value) > 0.06;
        if (told.every(apart)) told.push(point); // else the two would be written over each other; the tip has both
      }
      return plot(`correct against latency, ${name}`, {
        width, height: 280, marginLeft: 44, marginRight: 22, x: scale, y: { label: "↑ correct", domain: [0, 1], tickFormat: "%", grid: true },
        marks: [
          ...region, ...rules,
          Plot.ruleX(own, { x: (point) => point.x.value, y1: (point) => point.y.low, y2: (point) => point.y.high, stroke: (point) => colourOf(line(point)), strokeOpacity: 0.6 }),
          Plot.ruleY(own.filter((point) => point.x.low !== null && point.x.high !== null), { y: (point) => point.y.value, x1: (point) => point.x.low, x2: (point) => point.x.high, stroke: (point) => colourOf(line(point)), strokeOpacity: 0.6 }),
          Plot.dot(own, { x: (point) => point.x.value, y: (point) => point.y.value, fill: (point) => colourOf(line(point)), r: 4.5, title, tip: true }),
          ...(told.length ? [Plot.text(told, { x: (point) => point.x.value, y: (point) => point.y.value, text: (point) => line(point).load, dy: 12, dx: 4, textAnchor: "start", fill: (point) => colourOf(line(point)), stroke: "var(--paper)", strokeWidth: 3 })] : []),
        ],
      });
    });
  }

  function load(place) {
    place.append(legend([...modelLegend(), ["TTFT p50", "currentColor", "line", null], ["whole answer (e2e) p50", "currentColor", "line", "2 4"]]));
    const kinds = new Set(data.lines.map((line) => line.kind));
    panels(place, (line) => line.suite + (kinds.size > 1 ? ` · ${line.kind} loop` : ""), (group, width, name) => {
      const ids = new Set(group.map((line) => line.id));
      const own = data.by_load.filter((each) => ids.has(each.line) && each.value > 0).map((each) => ({ ...each, at: lines.get(each.line) })).filter((each) => each.at.level !== null);
      if (!own.length) return null;
      const x = (each) => each.at.level;
      const by = d3.groups(own, (each) => each.latency + each.at.model + each.at.variant).map(([, points]) => points.toSorted((a, b) => x(a) - x(b)));
      const { domain, ticks } = logTime("", own.flatMap((each) => [each.low ?? each.value, each.high ?? each.value]), 9);
      return plot(`latency against load, ${name}`, {
        width, height: 250, marginLeft: 52, x: { type: "point", domain: d3.sort(new Set(own.map(x))), label: own[0].at.kind === "closed" ? "requests in flight →" : "requests sent/s →" },
        y: { type: "log", domain, ticks, label: "↑ latency, log scale", written: seconds, grid: true },
        marks: [
          ...by.map((points) => Plot.line(points, { x, y: "value", stroke: colourOf(points[0].at), strokeDasharray: points[0].latency === "e2e" ? "2 4" : null, strokeWidth: 2 })),
          Plot.ruleX(own.filter((each) => each.low !== null && each.high !== null), { x, y1: "low", y2: "high", stroke: (each) => colourOf(each.at) }),
          Plot.dot(own, { x, y: "value", fill: (each) => (each.latency === "e2e" ? "var(--paper)" : colourOf(each.at)), stroke: (each) => colourOf(each.at), r: 3.5, tip: true, title: (each) => `${each.at.name}\n${each.latency === "e2e" ? "e2e" : "TTFT"} p50 ${seconds(each.value)}` }),
        ],
      });
    });
  }

  function percentiles(place) {
    const found = data.percentiles[metric].filter((each) => each.value > 0 && active.some((line) => line.id === each.line));
    const known = new Set(found.map((each) => each.p));
    place.append(legend(PERCENTILES.flatMap(([p, symbol], i) => (known.has(p) ? [[p, COLOURS[i], "symbol", SYMBOLS[symbol]]] : []))));
    panels(place, suiteOf, (group, width, name) => {
      const ids = new Set(group.map((line) => line.id));
      const own = found.filter((each) => ids.has(each.line));
      if (!own.length) return null;
      const table = rows(group, width, 30);
      const marks = PERCENTILES.flatMap(([p, symbol], i) => {
        const here = own.filter((each) => each.p === p);
        const at = { dy: (i - 1.5) * 7 + table.shift, y: (each) => rowName(lines.get(each.line)) };
        return [
          Plot.ruleY(here, { ...at, x1: "low", x2: "high", stroke: COLOURS[i], strokeWidth: 2 }),
          Plot.dot(here, { ...at, x: "value", fill: COLOURS[i], symbol, r: 4, tip: true, title: (each) => `${lines.get(each.line).name}\n${p} ${seconds(each.value)} (${seconds(each.low)} – ${seconds(each.high)}), n ${each.n}` }),
        ];
      });
      return plot(`${METRICS[metric]}, ${name}: percentiles with intervals`, { ...table.scales, x: logTime(METRICS[metric], own.flatMap((each) => [each.low ?? each.value, each.high ?? each.value]), width / 55), marks: [table.named, ...marks] });
    });
  }

  function curves(place) {
    place.append(legend(modelLegend()), legend(loadLegend()));
    panels(place, suiteOf, (group, width, name) => {
      const ids = new Set(group.map((line) => line.id));
      const own = data.curves[metric].filter((curve) => ids.has(curve.line));
      if (!own.length) return null;
      const points = own.flatMap((curve) => curve.values.map((x, i) => ({ line: lines.get(curve.line), x, y: (i / 100) * curve.share })).filter((point) => point.x > 0));
      return plot(`${METRICS[metric]}, ${name}: share of requests that took at most this long`, {
        width, height: 260, x: logTime(METRICS[metric], points.map((point) => point.x), width / 55), y: { label: "↑ share of requests", domain: [0, 1], tickFormat: "%", grid: true },
        marks: [
          ...group.map((line) => Plot.line(points.filter((point) => point.line === line), { x: "x", y: "y", stroke: colourOf(line), strokeDasharray: dashOf(line), strokeWidth: 1.8 })),
          Plot.tip(points, Plot.pointer({ x: "x", y: "y", title: (point) => `${point.line.name}\n${percent(point.y)} within ${seconds(point.x)}` })),
        ],
      });
    });
  }

  function positions(place) {
    place.append(legend([...modelLegend(), ["p95", "currentColor", "line", "1 3"]]), legend(loadLegend()));
    panels(place, suiteOf, (group, width, name) => {
      const ids = new Set(group.map((line) => line.id));
      const own = data.positions.filter((bin) => ids.has(bin.line) && bin.p50);
      if (!own.length) return null;
      const at = (bin) => Math.sqrt(bin.from * bin.to);
      const bins = (line) => own.filter((bin) => bin.line === line.id);
      return plot(`gap between chunks along the answer, ${name}`, {
        width, height: 250, x: { type: "log", base: 2, label: "position in the answer, chunks, log scale →", labelArrow: "none", tickFormat: "d", ticks: 6 },
        y: { label: "↑ gap", tickFormat: seconds, grid: true, zero: true },
        marks: group.flatMap((line) => [
          Plot.areaY(bins(line), { x: at, y1: (bin) => bin.p50.low, y2: (bin) => bin.p50.high, fill: colourOf(line), fillOpacity: 0.18 }),
          Plot.line(bins(line), { x: at, y: (bin) => bin.p50.value, stroke: colourOf(line), strokeDasharray: dashOf(line), strokeWidth: 1.8 }),
          Plot.line(bins(line).filter((bin) => bin.p95), { x: at, y: (bin) => bin.p95.value, stroke: colourOf(line), strokeDasharray: "1 3" }),
        ]).concat(Plot.tip(own, Plot.pointer({ x: at, y: (bin) => bin.p50.value, title: (bin) => `${lines.get(bin.line).name}\nchunks ${bin.from} to ${bin.to}: p50 ${seconds(bin.p50.value)}${bin.p95 ? `, p95 ${seconds(bin.p95.value)}` : ""}, n ${bin.n}` }))),
      });
    });
  }

  function throughput(place) {
    place.append(legend([...modelLegend(), ["correct answers", "currentColor", "line", null], ["all completed", "currentColor", "line", "2 4"]]));
    const kinds = new Set(data.lines.map((line) => line.kind));
    panels(place, (line) => line.suite + (kinds.size > 1 ? ` · ${line.kind} loop` : ""), (group, width, name) => {
      const own = group.map((line) => ({ line, ...data.throughput[line.id] })).filter((each) => each.requests_per_s !== null && each.line.level !== null);
      if (!own.length) return null;
      const x = (each) => each.line.level;
      const scored = own.filter((each) => each.correct.value !== null);
      const by = (points) => d3.groups(points, (each) => each.line.model + each.line.variant).map(([, group]) => group.toSorted((a, b) => x(a) - x(b)));
      const title = (each) => `${each.line.name}\n${perSecond(each.requests_per_s)} completed/s${each.correct.value === null ? "" : `, ${perSecond(each.correct.value)} correct/s (${perSecond(each.correct.low)} – ${perSecond(each.correct.high)})`}`;
      return plot(`requests/s against load, ${name}`, {
        width, height: 250, x: { type: "point", domain: d3.sort(new Set(own.map(x))), label: own[0].line.kind === "closed" ? "requests in flight →" : "requests sent/s →" },
        y: { label: "↑ requests/s", grid: true, zero: true },
        marks: [
          ...by(own).map((points) => Plot.line(points, { x, y: "requests_per_s", stroke: colourOf(points[0].line), strokeDasharray: "2 4" })),
          ...by(scored).map((points) => Plot.line(points, { x, y: (each) => each.correct.value, stroke: colourOf(points[0].line), strokeWidth: 2 })),
          Plot.dot(own, { x, y: "requests_per_s", stroke: (each) => colourOf(each.line), r: 3.5, title, tip: true }),
          Plot.ruleX(scored, { x, y1: (each) => each.correct.low, y2: (each) => each.correct.high, stroke: (each) => colourOf(each.line) }),
          Plot.dot(scored, { x, y: (each) => each.correct.value, fill: (each) => colourOf(each.line), r: 4, title, tip: true }),
        ],
      });
    });
  }

  function shares(place) {
    const found = data.shares.filter((each) => active.some((line) => line.id === each.line));
    const known = SHARES.map(([key, text], i) => ({ key, text, symbol: Object.keys(SYMBOLS)[i % 5], colour: COLOURS[i % COLOURS.length] })).filter(({ key }) => found.some((each) => each.share === key));
    place.append(legend(known.map(({ text, symbol, colour }) => [text, colour, "symbol", SYMBOLS[symbol]])));
    panels(place, suiteOf, (group, width, name) => {
      const ids = new Set(group.map((line) => line.id));
      const own = found.filter((each) => ids.has(each.line));
      if (!own.length) return null;
      const table = rows(group, width, Math.max(24, known.length * 8 + 4));
      const marks = known.flatMap(({ key, text, symbol, colour }, i) => {
        const here = own.filter((each) => each.share === key);
        const at = { dy: (i - (known.length - 1) / 2) * 7 + table.shift, y: (each) => rowName(lines.get(each.line)) };
        return [
          Plot.ruleY(here, { ...at, x1: "low", x2: "high", stroke: colour, strokeWidth: 2 }),
          Plot.dot(here, { ...at, x: "value", [symbol === "times" ? "stroke" : "fill"]: colour, symbol, r: 4, tip: true, title: (each) => `${lines.get(each.line).name}\n${text} ${percent(each.value)} (${percent(each.low)} – ${percent(each.high)}) of ${each.n}` }),
        ];
      });
      const limit = data.limit_correct === null ? [] : [
        Plot.ruleX([data.limit_correct], { stroke: "currentColor", strokeDasharray: "3 3" }),
        Plot.text([data.limit_correct], { x: (at) => at, text: (at) => `rule: correct ${percent(at)}`, frameAnchor: "top", textAnchor: data.limit_correct > 0.5 ? "end" : "start", dy: -10 }),
      ];
      return plot(`shares of right answers with intervals, ${name}`, { ...table.scales, x: { domain: [0, 1], tickFormat: "%", grid: true, label: "share of answers →" }, marks: [table.named, ...limit, ...marks] });
    });
  }

  // Answers from blue (right) over greys and yellows; failed requests red and hatched by their order at the end.
  const WRONG = ["var(--c2)", "var(--c5)", "var(--c4)", "var(--c7)", "var(--c8)"];
  function outcomeColours(found) {
    const wrong = [...new Set(found.filter((each) => !each.failed && !["correct", "completed"].includes(each.outcome)).map((each) => each.outcome))];
    const failed = [...new Set(found.filter((each) => each.failed).map((each) => each.outcome))];
    return new Map([["correct", "var(--c1)"], ["completed", "var(--c3)"], ...wrong.map((name, i) => [name, i < WRONG.length ? WRONG[i] : `color-mix(in srgb, ${WRONG[i % WRONG.length]} 50%, var(--paper))`]), ...failed.map((name) => [name, "var(--c6)"])]);
  }
  function stacked(place, label, found, colours, { x, tip, normalise, axis, order }) {
    place.append(legend([...colours].filter(([name]) => found.some((each) => each.part === name)).map(([name, colour]) => [name, colour, "box"])));
    panels(place, suiteOf, (group, width, name) => {
      const ids = new Set(group.map((line) => line.id));
      const own = found.filter((each) => ids.has(each.line));
      if (!own.length) return null;
      const how = { y: (each) => rowName(lines.get(each.line)), x, order, ...(normalise ? { offset: "normalize" } : {}) };
      const table = rows(group, width, 20);
      return plot(`${label}, ${name}`, {
        ...table.scales, x: axis,
        marks: [table.named, Plot.barX(own, Plot.stackX({ ...how, fill: (each) => colours.get(each.part), stroke: "var(--paper)", strokeWidth: 1, insetTop: table.above, insetBottom: 4, title: (each) => `${lines.get(each.line).name}\n${tip(each)}`, tip: true }))],
      });
    });
  }
  function outcomes(place) {
    const found = data.outcomes.filter((each) => active.some((line) => line.id === each.line)).map((each) => ({ ...each, part: each.outcome }));
    const colours = outcomeColours(data.outcomes);
    stacked(place, "how requests ended", found, colours, { x: "count", normalise: true, axis: { label: "share of requests →", tickFormat: "%", grid: true }, order: (each) => [...colours.keys()].indexOf(each.part), tip: (each) => `${each.part}: ${each.count} of ${each.of} (${percent(each.count / each.of)})` });
  }
  const PARTS = [["send_lag_s", "send lag (this client)"], ["connect_s", "connect"], ["load_s", "model load"], ["prompt_eval_s", "prompt evaluation"], ["rest_s", "rest: queue, network, first decode"]];
  function parts(place) {
    const colours = new Map(PARTS.map(([, text], i) => [text, [COLOURS[5], COLOURS[3], COLOURS[4], COLOURS[0], COLOURS[6]][i]]));
    const found = data.parts.filter((each) => active.some((line) => line.id === each.line)).flatMap((each) => PARTS.map(([key, part]) => ({ line: each.line, part, value: Math.max(each[key], 0), n: each.n })));
    stacked(place, "breakdown of the mean time to first token", found, colours, { x: "value", axis: { label: "mean time from due →", tickFormat: seconds, grid: true }, order: null, tip: (each) => `${each.part}: ${seconds(each.value)} (mean of ${each.n})` });
  }

  const ENDS = [["right", "circle", "var(--c1)"], ["not scored", "circle", "var(--c3)"], ["wrong", "triangle", "var(--c2)"], ["failed", "times", "var(--c6)"]];
  const endOf = (outcome, failed) => (failed ? "failed" : outcome === "correct" ? "right" : outcome === "completed" ? "not scored" : "wrong");
  function timeline(place) {
    const own = data.timeline.filter((each) => active.some((line) => line.id === each.line) && each.shown);
    const first = new Set(own.slice(0, MAX_TIMELINES).map((each) => each.line));
    const points = new Map(own.map((each) => [each.line, each.t_s.map((t, i) => ({ t, ttft: each.ttft_s[i], took: each.took_s[i], outcome: each.outcome[i], end: endOf(each.outcome[i], each.failed[i]) }))]));
    const ends = new Set([...points.values()].flat().map((point) => point.end));
    place.append(legend(ENDS.filter(([end]) => ends.has(end)).map(([end, symbol, colour]) => [end, colour, "symbol", SYMBOLS[symbol]])));
    if (own.length > first.size) place.append(element("p", { class: "soft" }, `The first ${first.size} of ${own.length} run groups; use the filter to see others.`));
    panels(place, (line) => (first.has(line.id) ? line.name : null), (group, width, name) => {
      if (!name) return null;
      const here = points.get(group[0].id).map((point) => ({ ...point, y: metric === "ttft_s" ? point.ttft ?? point.took : point.took }));
      const drawn = here.filter((point) => point.y !== null);
      return plot(`requests over time, ${name}`, {
        width, height: 190, x: { label: "sent, seconds after the start →" }, y: { label: metric === "ttft_s" ? "↑ TTFT" : "↑ whole answer", tickFormat: seconds, grid: true, zero: true },
        marks: [
          ...ENDS.map(([end, symbol, colour]) => Plot.dot(drawn.filter((point) => point.end === end), { x: "t", y: "y", symbol, [symbol === "times" ? "stroke" : "fill"]: colour, fillOpacity: 0.75, r: end === "failed" ? 4 : 2.5 })),
          Plot.tickX(here.filter((point) => point.y === null), { x: "t", stroke: "var(--c6)" }),
          Plot.tip(drawn, Plot.pointer({ x: "t", y: "y", title: (point) => `${point.outcome}\nsent at ${point.t.toFixed(1)} s, TTFT ${seconds(point.ttft)}, ended after ${seconds(point.took)}` })),
        ],
      });
    });
  }

  // Sorting: a button in each heading; figures by their values, other cells as text with its numbers in order

  const numbers = new Intl.Collator("en", { numeric: true });
  const plainOf = (cell) => cell.firstChild?.textContent.trim() ?? "";
  function key(cell) {
    if (cell.dataset.sort !== undefined) return Number(cell.dataset.sort);
    const text = plainOf(cell).replaceAll(",", "");
    return text === "" || text === "–" ? null : Number.isFinite(Number(text)) ? Number(text) : text;
  }
  function inOrder(a, b) {
    if (a === null || b === null) return (a === null) - (b === null);
    return typeof a === "number" && typeof b === "number" ? a - b : numbers.compare(a, b);
  }
  function sortBy(heading, column) {
    const turn = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of heading.parentNode.children) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", turn === 1 ? "ascending" : "descending");
    const body = heading.closest("table").tBodies[0];
    const found = [...body.rows].map((row) => [key(row.cells[column]), row]);
    found.sort(([a], [b]) => (a === null || b === null ? inOrder(a, b) : turn * inOrder(a, b)));
    body.append(...found.map(([, row]) => row));
  }
  for (const row of document.querySelectorAll("thead tr")) {
    [...row.cells].forEach((heading, column) => {
      const button = element("button", { type: "button" }, ...heading.childNodes);
      button.addEventListener("click", () => sortBy(heading, column));
      heading.append(button);
    });
  }

  // Filter and drawing

  const CHARTS = { tradeoff, load, percentiles, curves, positions, throughput, shares, outcomes, parts, timeline };
  const form = document.getElementById("filter");
  const chosen = (name) => new Set([...form.querySelectorAll(`input[name="${name}"]:checked`)].map((box) => box.value));

  function draw(only = Object.keys(CHARTS)) {
    for (const name of only) {
      const place = document.querySelector(`[data-chart="${name}"]`);
      place.replaceChildren();
      CHARTS[name](place);
    }
  }
  function filter() {
    const wanted = ["model", "suite", "load", "server"].map((name) => [name, chosen(name)]);
    active = data.lines.filter((line) => wanted.every(([name, values]) => values.has(line[name])));
    const ids = new Set(active.map((line) => String(line.id)));
    for (const each of document.querySelectorAll("[data-line]")) each.hidden = !ids.has(each.dataset.line);
    for (const each of document.querySelectorAll(".case")) each.hidden = [...each.querySelectorAll(".answered")].every((answer) => answer.hidden);
    document.getElementById("shown").textContent = `${active.length} of ${data.lines.length} run groups shown`;
    draw();
  }
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", filter);
  form.addEventListener("reset", () => setTimeout(filter));
  for (const select of document.querySelectorAll("select.metric")) {
    select.addEventListener("change", () => {
      metric = select.value;
      for (const other of document.querySelectorAll("select.metric")) other.value = metric;
      draw(["percentiles", "curves", "timeline"]);
    });
  }
  for (const each of document.querySelectorAll(".needs-script")) each.hidden = false;
  let width = 0;
  new ResizeObserver(() => {
    const now = document.body.clientWidth;
    if (Math.abs(now - width) > 8) {
      width = now;
      draw();
    }
    document.documentElement.dataset.ready = "true";
  }).observe(document.body);
})();
