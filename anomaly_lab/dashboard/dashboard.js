"use strict";
// Everything a run says is text to this script: it becomes textContent or an attribute, never markup.
const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const PER_PAGE = 50;
const ticked = new Set();
let version = data.version;
let groups = new Map();
let runs = [];
let sorted = { key: "started", down: true };
let page = 0;
const open = new Set();
let kept = null;
let settings = null;

const named = (names, values) => Object.fromEntries(names.map((name, i) => [name, values[i] ?? null]));
const asGroups = (rows, names) => new Map(rows.map((row) => named(names, row)).map((group) => [group.id, group]));
const known = (...values) => values.every((value) => typeof value === "number");

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

function drawing(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// Numbers ----------------------------------------------------------------------------------------------------------

function rate(value, digits = 3) {
  if (!known(value)) return "–";
  return (value < 0 ? "−" : "") + Math.abs(value).toFixed(digits).replace(/^0\./, ".");
}
const signed = (value, digits = 3) => (value > 0 ? "+" : "") + rate(value, digits);
const short = (value) => (known(value) ? String(Number(value.toPrecision(4))).replace("-", "−") : "–");
const pValue = (p) => (!known(p) ? "–" : p < 0.001 ? "< .001" : rate(p));
const millions = (n) => (!known(n) ? "–" : n >= 1e6 ? `${(n / 1e6).toFixed(1)} M` : n >= 1e3 ? `${(n / 1e3).toFixed(0)} k` : `${n}`);
const hours = (value) => (!known(value) ? "–" : value < 1 / 60 ? `${(value * 3600).toFixed(0)} s` : value < 0.1 ? `${(value * 60).toFixed(1)} min` : `${value.toFixed(value < 10 ? 2 : 0)} h`);
const day = (text) => (text ? text.slice(0, 16).replace("T", " ") : "–");
const spaced = (n) => String(n).replace(/\B(?=(\d{3})+$)/g, "\u202f");

// Columns ----------------------------------------------------------------------------------------------------------

const SIGNS = { running: "●", stopped: "■", finished: "✓", unreadable: "!" };
const COLUMNS = [
  { key: "state", title: "State", choices: true, cell: stateCell },
  { key: "experiment", title: "Experiment", cell: nameCell, wide: true },
  { key: "detector", title: "Detector", choices: true },
  { key: "data", title: "Data", choices: true },
  { key: "source", title: "Source", choices: true },
  { key: "budget", title: "Budget", choices: true },
  { key: "seed", title: "Seed", number: true, cell: (run) => [short(run.seed)] },
  { key: "auroc", title: "AUROC", number: true, cell: (run) => interval(rate, run.auroc, run.low, run.high) },
  { key: "gain", title: "− best baseline", number: true,
    cell: (run) => [...interval(signed, run.gain, run.gain_low, run.gain_high), run.best ? element("small", {}, baseline(run.best)) : null] },
  { key: "hours", title: "Time", number: true, cell: (run) => [hours(run.hours)] },
  { key: "parameters", title: "Weights", number: true, cell: (run) => [millions(run.parameters)] },
  { key: "started", title: "Start", cell: (run) => [day(run.started).slice(0, 10), run.started ? element("small", {}, day(run.started).slice(11)) : null] },
];
const byKey = new Map(COLUMNS.map((column) => [column.key, column]));
const baseline = (name) => (Object.hasOwn(data.baselines, name) ? data.baselines[name] : name);
const text = (run, column) => (run[column.key] === null ? "" : String(run[column.key]));

function interval(format, value, low, high) {
  if (!known(value)) return ["–"];
  return [element("b", {}, format(value)), known(low, high) ? element("small", {}, `[${format(low, 2)}, ${format(high, 2)}]`) : null];
}

function stateCell(run) {
  const parts = [element("i", { "aria-hidden": "true" }, SIGNS[run.state] ?? "?"), run.state];
  if (run.state === "unreadable") return [element("span", { class: "state unreadable" }, ...parts)];
  const progress = run.state !== "finished" && known(run.done) ? `${spaced(run.done)}${known(run.of) ? ` of ${spaced(run.of)}` : ""}` : "";
  return [element("span", { class: `state ${run.state}` }, ...parts, run.state === "finished" ? null : spark(run.live)), progress ? element("small", {}, progress) : null];
}

function spark(values) {
  if (!Array.isArray(values) || values.length < 2 || !known(...values)) return null;
  const low = Math.min(...values), high = Math.max(...values), span = high - low || 1;
  const points = values.map((value, i) => `${(1 + (i / (values.length - 1)) * 70).toFixed(1)},${(17 - ((value - low) / span) * 15).toFixed(1)}`);
  const drawn = drawing("svg", { width: 72, height: 18, viewBox: "0 0 72 18", role: "img", "aria-label": `curve from ${short(values[0])} to ${short(values.at(-1))}` });
  drawn.append(drawing("polyline", { class: "spark", points: points.join(" ") }));
  return drawn;
}

function report(run) {
  return `./${run.path.split("/").map(encodeURIComponent).join("/")}/report.html`;
}

function nameCell(run) {
  const name = run.experiment ?? run.path.split("/").at(-2) ?? run.path;
  const linked = run.report && run.path.isWellFormed?.() !== false;
  return [linked ? element("a", { href: report(run) }, name) : name, element("small", {}, run.path.split("/").at(-1)),
    run.why ? element("small", {}, `unreadable: ${run.why}`) : null,
    run.caveats ? element("small", {}, `read with care: ${run.caveats} warning${run.caveats > 1 ? "s" : ""}`) : null];
}

// Which runs are shown, and in which order --------------------------------------------------------------------------

const filters = new Map();
const collator = new Intl.Collator("en", { numeric: true });

// By the place of a text among all different ones: there are few, where comparing thousands of texts takes its time.
function places(items, key) {
  const texts = [...new Set(items.map((item) => item[key]))].filter((value) => value !== null);
  texts.sort(key === "started" ? undefined : collator.compare); // dates are in one form
  return new Map(texts.map((value, place) => [value, place]));
}

function inOrder(items, { key, down }) {
  const at = byKey.get(key).number ? null : places(items, key), turn = down ? -1 : 1;
  const keyed = items.map((item) => [item[key] === null ? NaN : at ? at.get(item[key]) : item[key], item]);
  keyed.sort(([a], [b]) => (a !== a || b !== b ? (a !== a) - (b !== b) : turn * (a - b))); // the unknown stands last, either way
  return keyed.map(([, item]) => item);
}

function condition(column, words) {
  const written = words.trim().toLowerCase();
  if (!column.number) return (run) => text(run, column).toLowerCase().includes(written);
  const range = /^(-?[\d.]*?\d*)\s*\.\.\s*(-?[\d.]+)$/.exec(written.replace("−", "-"));
  const bound = /^([<>]=?|=)?\s*(-?[\d.]+(?:e-?\d+)?)$/.exec(written.replace("−", "-"));
  if (range && known(Number(range[1]), Number(range[2])) && !Number.isNaN(Number(range[1]))) {
    return (run) => known(run[column.key]) && run[column.key] >= Number(range[1]) && run[column.key] <= Number(range[2]);
  }
  if (!bound) return () => true;
  const limit = Number(bound[2]);
  const holds = { "<": (v) => v < limit, "<=": (v) => v <= limit, ">": (v) => v > limit, ">=": (v) => v >= limit }[bound[1]] ?? ((v) => v === limit);
  return (run) => known(run[column.key]) && holds(run[column.key]);
}

function shown() {
  const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const conditions = [...filters].map(([key, value]) => (byKey.get(key).choices ? (run) => text(run, byKey.get(key)) === value : condition(byKey.get(key), value)));
  return runs.filter((run) => words.every((word) => run.haystack.includes(word)) && conditions.every((holds) => holds(run)));
}

function take(rows) {
  const before = new Map(runs.map((run) => [run.path, run]));
  for (const row of rows) {
    const run = named(data.columns, row);
    run.place = before.get(run.path)?.place ?? -1;
    run.haystack = [run.path, run.why, ...COLUMNS.map((column) => text(run, column)), run.best && baseline(run.best)].join(" ").toLowerCase();
    before.set(run.path, run);
  }
  runs = [...before.values()];
}

// The table ---------------------------------------------------------------------------------------------------------

let order = []; // runs, or groups with their runs, as they are shown

function arrange() {
  const found = inOrder(shown(), sorted);
  $("count").textContent = `${spaced(found.length)} of ${spaced(runs.length)} run${runs.length === 1 ? "" : "s"}${ticked.size ? `, ${ticked.size} ticked` : ""}`;
  if (!$("grouped").checked) order = found;
  else {
    const members = new Map();
    for (const run of found) {
      const id = run.group ?? run.path;
      if (!members.has(id)) members.set(id, []);
      members.get(id).push(run);
    }
    order = inOrder([...members].map(([id, of]) => groupOf(id, of)), sorted);
  }
  page = Math.min(page, Math.max(0, Math.ceil(order.length / PER_PAGE) - 1));
  draw();
}

function groupOf(id, members) {
  const [first] = members, info = groups.get(id) ?? {};
  const sum = members.reduce((total, run) => total + (run.hours ?? 0), 0);
  const group = { ...first, seed: members.length, auroc: null, gain: null, best: null, hours: sum || null, ...info, members, id };
  group.started = members.reduce((last, run) => (run.started > last ? run.started : last), first.started);
  return group;
}

function draw() {
  const from = page * PER_PAGE, rows = [];
  for (const item of order.slice(from, from + PER_PAGE)) {
    if (!item.members) rows.push(runRow(item));
    else {
      rows.push(groupRow(item));
      if (open.has(item.id)) rows.push(...item.members.map(runRow));
    }
  }
  if (!rows.length) rows.push(element("tr", {}, element("td", { colspan: COLUMNS.length + 1, class: "wide words" }, runs.length ? "No run is like that." : "There are no runs here yet.")));
  $("body").replaceChildren(...rows);
  const pages = Math.max(1, Math.ceil(order.length / PER_PAGE));
  $("page").textContent = `Page ${page + 1} of ${pages}`;
  $("back").disabled = page === 0;
  $("on").disabled = page + 1 >= pages;
  for (const cell of $("head").children) {
    if (cell.dataset.key) cell.setAttribute("aria-sort", cell.dataset.key !== sorted.key ? "none" : sorted.down ? "descending" : "ascending");
  }
  $("sort").value = sorted.key;
  $("start").disabled = ticked.size < 2 || ticked.size > data.most;
  $("start").textContent = ticked.size > data.most ? `Compare (at most ${data.most})` : "Compare";
  $("clear").disabled = !ticked.size;
}

function cells(item) {
  return COLUMNS.map((column) => {
    const parts = (column.cell ? column.cell(item) : [item[column.key] ?? "–"]).filter((part) => part !== null);
    const kind = `${column.number ? "number" : "words"}${column.wide ? " wide" : ""}${parts[0] === "–" ? " nothing" : ""}`;
    return element("td", { class: kind, "data-label": column.wide || column.key === "state" ? null : column.title }, ...parts);
  });
}

function runRow(run) {
  const box = element("input", { type: "checkbox", "aria-label": `Tick ${run.path}`, "data-path": run.path, disabled: run.state === "unreadable" });
  box.checked = ticked.has(run.path);
  return element("tr", { class: box.checked ? "ticked" : null }, element("td", {}, box), ...cells(run));
}

function groupRow(group) {
  const row = element("tr", { class: "group" }, element("td", {}));
  const isOpen = open.has(group.id);
  const toggle = element("button", { type: "button", "aria-expanded": String(isOpen), "data-group": group.id }, `${isOpen ? "▾" : "▸"} ${group.experiment ?? group.path}`);
  const why = group.why && known(group.auroc) ? element("small", {}, group.why) : null;
  for (const [i, cell] of cells(group).entries()) {
    const { key } = COLUMNS[i];
    if (key === "experiment") cell.replaceChildren(toggle, group.differs ? element("small", {}, group.differs) : "", why ?? "");
    if (key === "state") cell.replaceChildren(`${group.members.length} run${group.members.length > 1 ? "s" : ""}`);
    if (key === "seed") cell.replaceChildren(known(group.repeats) ? `×${group.repeats}` : "–");
    row.append(cell);
  }
  return row;
}

function sortBy(key, down = null) {
  const column = byKey.get(key);
  sorted = { key, down: down ?? (sorted.key === key ? !sorted.down : Boolean(column.number && key !== "seed") || key === "started") };
  page = 0;
  arrange();
}

function tick(path, on) {
  if (on) ticked.add(path);
  else ticked.delete(path);
}

// Comparison --------------------------------------------------------------------------------------------------------

async function unpacked(id) {
  const letters = atob($(id).textContent);
  const stream = new Blob([Uint8Array.from(letters, (letter) => letter.charCodeAt(0))]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

async function asked(paths) {
  const words = paths.map((path) => `run=${encodeURIComponent(path)}`).join("&");
  const answer = await fetch(`./.api/compare?${words}`);
  if (!answer.ok) throw new Error(`the server answers ${answer.status}`);
  return answer.json();
}

async function compare() {
  const chosen = [...ticked].map((path) => runs.find((run) => run.path === path)).filter(Boolean);
  $("all").hidden = true;
  $("compare").hidden = false;
  $("comparing").textContent = "Reading …";
  $("result").replaceChildren();
  try {
    if (!data.served) settings ??= await unpacked("settings");
    const found = data.served ? await asked(chosen.map((run) => run.path)) : (kept ??= await unpacked("kept"));
    const parts = [overview(chosen), differences(chosen, found.configs), curvesOf(chosen, found), testsOf(chosen, found), picturesOf(chosen, found)];
    $("result").replaceChildren(...parts);
    $("comparing").textContent = `${chosen.length} runs`;
  } catch (error) {
    $("comparing").textContent = `The comparison failed: ${error.message}`;
  }
  scrollTo(0, 0);
  $("comparing").focus();
}

function close() {
  $("compare").hidden = true;
  $("all").hidden = false;
  $("start").focus();
}

const label = (run, i) => `${"ABCDEFGHIJKLMNOPQRSTUVWXYZ"[i]}`;
const scroller = (content) => element("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": "wide, scrolls sideways" }, content);
const section = (title, ...parts) => element("section", {}, element("h2", {}, title), ...parts);

function overview(chosen) {
  const head = element("tr", {}, element("th", {}, "Run"), ...["Experiment", "Seed", "AUROC", "− best baseline", "Time"].map((title) => element("th", { class: title === "Experiment" ? "words" : null }, title)));
  const rows = chosen.map((run, i) => element("tr", {}, element("th", {}, swatch(i), label(run, i)), element("td", { class: "words" }, ...nameCell(run).filter(Boolean)),
    ...["seed", "auroc", "gain", "hours"].map((key) => element("td", { class: "number" }, ...byKey.get(key).cell(run).filter(Boolean)))));
  return section("Runs", scroller(element("table", { class: "plain" }, element("thead", {}, head), element("tbody", {}, ...rows))));
}

function settingOf(run, key, configs) {
  if (configs) return configs[run.path]?.[key] ?? null;
  const [values, of] = settings[key];
  const place = of.length ? of[run.place] : 0;
  return place >= 0 ? values[place] : null;
}

function differences(chosen, configs) {
  const keys = configs ? [...new Set(chosen.flatMap((run) => Object.keys(configs[run.path] ?? {})))].sort() : Object.keys(settings);
  const rows = keys.map((key) => [key, chosen.map((run) => settingOf(run, key, configs))]).filter(([, values]) => new Set(values).size > 1);
  if (!rows.length) return section("Settings that differ", element("p", {}, "None: the configurations are the same."));
  const head = element("tr", {}, element("th", {}, "Setting"), ...chosen.map((run, i) => element("th", {}, label(run, i))));
  return section("Settings that differ", scroller(element("table", { class: "differs" }, element("thead", {}, head),
    element("tbody", {}, ...rows.map(([key, values]) => element("tr", {}, element("th", {}, key), ...values.map((value) => element("td", {}, value === null ? "–" : value === "" ? "“”" : value))))))));
}

const style = (i) => `c${i % 6} d${Math.floor(i / 6) % 2}`;

function swatch(i) {
  const drawn = drawing("svg", { width: 28, height: 10, "aria-hidden": "true" });
  drawn.append(drawing("line", { class: `curve ${style(i)}`, x1: 0, x2: 28, y1: 5, y2: 5 }));
  return drawn;
}

function curvesOf(chosen, found) {
  const of = chosen.map((run) => found.curves[run.path] ?? {});
  const times = new Map();
  for (const curves of of) for (const name of Object.keys(curves)) times.set(name, (times.get(name) ?? 0) + 1);
  const names = [...times.keys()].sort((a, b) => times.get(b) - times.get(a) || b.startsWith("val/") - a.startsWith("val/") || a.includes("/grad_") - b.includes("/grad_") || (a < b ? -1 : 1));
  const absent = chosen.map((run, i) => (found.curves[run.path] ? null : label(run, i))).filter(Boolean);
  const note = absent.length ? element("p", { class: "caption" }, `Not in this file, which has the curves of the newest runs: ${absent.join(", ")}. make dashboard shows them.`) : null;
  if (!names.length) return section("Curves", note ?? element("p", {}, "Nothing was tracked."));
  const choice = element("select", { id: "curve" }, ...names.map((name) => element("option", { value: name }, name)));
  const log = element("input", { type: "checkbox", id: "log" });
  const place = element("div", {});
  const paint = () => place.replaceChildren(...chart(chosen, of.map((curves) => curves[choice.value]), log.checked));
  choice.addEventListener("change", paint);
  log.addEventListener("change", paint);
  paint();
  return section("Curves", element("div", { class: "tools" }, element("label", {}, "Tracked ", choice), element("label", {}, log, "logarithmic")), place, note);
}

function ticks(low, high) {
  const step = 10 ** Math.floor(Math.log10((high - low) / 4 || 1));
  const wide = [1, 2, 5, 10].map((times) => times * step).find((size) => (high - low) / size <= 5) ?? step;
  const found = [];
  for (let at = Math.ceil(low / wide) * wide; at <= high + wide * 1e-9; at += wide) found.push(at);
  return found;
}

function chart(chosen, curves, logarithmic) {
  const usable = curves.map((curve) => (curve ? curve[0].map((x, i) => [x, curve[1][i]]).filter(([, y]) => !logarithmic || y > 0).map(([x, y]) => [x, logarithmic ? Math.log10(y) : y]) : []));
  const all = usable.flat();
  if (!all.length) return [element("p", {}, "No value can be drawn.")];
  const range = (i) => all.reduce(([low, high], point) => [Math.min(low, point[i]), Math.max(high, point[i])], [Infinity, -Infinity]);
  let [left, right] = range(0), [low, high] = range(1);
  if (left === right) right = left + 1;
  if (low === high) [low, high] = [low - 0.5, high + 0.5];
  const W = 720, H = 320, L = 64, R = 16, T = 12, B = 42;
  const x = (value) => L + ((value - left) / (right - left)) * (W - L - R), y = (value) => H - B - ((value - low) / (high - low)) * (H - T - B);
  const drawn = drawing("svg", { class: "chart", viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": "Curves of the ticked runs over iterations" });
  for (const value of ticks(low, high)) {
    drawn.append(drawing("line", { class: "grid", x1: L, x2: W - R, y1: y(value), y2: y(value) }), drawing("text", { class: "muted end", x: L - 8, y: y(value) + 4 }, short(logarithmic ? 10 ** value : value)));
  }
  for (const value of ticks(left, right)) drawn.append(drawing("text", { class: "muted middle", x: x(value), y: H - B + 18 }, spaced(Math.round(value))));
  drawn.append(drawing("line", { class: "axis", x1: L, x2: W - R, y1: H - B, y2: H - B }), drawing("text", { class: "muted middle", x: (L + W - R) / 2, y: H - 6 }, "iterations"));
  usable.forEach((points, i) => points.length && drawn.append(drawing("polyline", { class: `curve ${style(i)}`, points: points.map(([a, b]) => `${x(a).toFixed(1)},${y(b).toFixed(1)}`).join(" ") })));
  const legend = element("ul", { class: "legend" }, ...chosen.map((run, i) => element("li", {}, swatch(i), `${label(run, i)} ${run.experiment ?? run.path}, seed ${short(run.seed)}: `,
    curves[i]?.[1].length ? `${short(curves[i][1].at(-1))} at ${spaced(curves[i][0].at(-1))}` : "not tracked")));
  return [scroller(drawn), legend];
}

function holm(values) {
  const by = values.map((p, i) => [p, i]).filter(([p]) => known(p)).sort(([a], [b]) => a - b), found = values.map(() => null);
  let highest = 0;
  by.forEach(([p, i], rank) => { found[i] = highest = Math.max(highest, Math.min(1, (by.length - rank) * p)); });
  return found;
}

function testsOf(chosen, found) {
  const tests = found.tests.map((test) => named(data.tested, test));
  const pairs = [], unknown = [];
  chosen.forEach((a, i) => chosen.slice(i + 1).forEach((b, j) => {
    const as = tests.find((test) => test.a === a.path && test.b === b.path), turned = tests.find((test) => test.a === b.path && test.b === a.path);
    const names = `${label(a, i)} − ${label(b, i + 1 + j)}`;
    if (as) pairs.push({ names, cases: as.cases, one: as.auroc_a, other: as.auroc_b, low: as.low, high: as.high, p: as.p });
    else if (turned) pairs.push({ names, cases: turned.cases, one: turned.auroc_b, other: turned.auroc_a, low: known(turned.high) ? -turned.high : null, high: known(turned.low) ? -turned.low : null, p: turned.p });
    else unknown.push([names, !found.newest || [a, b].every((run) => found.newest.includes(run.path))]);
  }));
  const corrected = holm(pairs.map((pair) => pair.p));
  const head = element("tr", {}, ...["Difference", "Cases", "AUROC", "AUROC", "Difference", "p", ...(pairs.length > 1 ? ["p, Holm"] : [])].map((title) => element("th", {}, title)));
  const rows = pairs.map((pair, i) => element("tr", {}, element("th", {}, pair.names), element("td", {}, spaced(pair.cases)), element("td", {}, rate(pair.one)), element("td", {}, rate(pair.other)),
    element("td", { class: "number" }, ...interval(signed, known(pair.one, pair.other) ? pair.one - pair.other : null, pair.low, pair.high).filter(Boolean)), element("td", {}, pValue(pair.p)), pairs.length > 1 ? element("td", {}, pValue(corrected[i])) : null));
  const parts = [];
  if (rows.length) parts.push(scroller(element("table", { class: "plain tests" }, element("thead", {}, head), element("tbody", {}, ...rows))),
    element("p", { class: "caption" }, "DeLong’s test by patient on the test cases that both runs judged, for these two trained models; a method is judged over its repeats (Group repeats)."));
  const without = unknown.filter(([, is]) => is).map(([names]) => names), absent = unknown.filter(([, is]) => !is).map(([names]) => names);
  if (without.length) parts.push(element("p", {}, `No case in common, or not evaluated: ${without.join(", ")}.`));
  if (absent.length) parts.push(element("p", { class: "caption" }, `Not in this file, which has the tests of the newest ${found.newest.length} finished runs: ${absent.join(", ")}. make dashboard computes them.`));
  return section("Paired test on common cases", ...parts);
}

function picture(source, title, of) {
  if (typeof source !== "string" || !source.startsWith("data:image/")) return element("span", {}, "–");
  const made = element("div", { class: "picture" }, element("img", { src: source, alt: title }));
  if (of.outline && known(...of.size)) made.append(drawing("svg", { viewBox: `0 0 ${of.size[1]} ${of.size[0]}`, preserveAspectRatio: "none", "aria-hidden": "true" }, drawing("path", { class: "halo", d: of.outline }), drawing("path", { class: "lesion", d: of.outline })));
  return made;
}

function picturesOf(chosen, found) {
  const parts = [];
  for (const { cases, strips } of found.galleries) {
    const have = chosen.map((run, i) => [run, i]).filter(([run]) => Object.hasOwn(strips, run.path) && Object.keys(strips[run.path].parts).length);
    const common = cases.filter(({ id }) => have.every(([run]) => Object.values(strips[run.path].parts).every((by) => Object.hasOwn(by, id))));
    if (have.length < 2 || !common.length) continue;
    const head = element("tr", {}, element("th", {}, ""), ...common.map((of) => element("th", {}, of.id, element("small", {}, of.anomalous ? "anomalous" : "normal"))));
    const rows = [element("tr", {}, element("th", {}, "Input"), ...common.map((of) => element("td", {}, picture(of.image, `Input, ${of.id}`, of))))];
    for (const [run, i] of have) {
      for (const [part, title] of [["reconstruction", "reconstruction"], ["anomaly_map", "anomaly map"]]) {
        const by = strips[run.path].parts[part];
        if (by) rows.push(element("tr", {}, element("th", {}, swatch(i), ` ${label(run, i)} ${title}`), ...common.map((of) => element("td", {}, picture(by[of.id], `${label(run, i)}, ${title}, ${of.id}`, part === "anomaly_map" ? of : {})))));
      }
    }
    parts.push(scroller(element("table", { class: "same" }, element("thead", {}, head), element("tbody", {}, ...rows))));
  }
  if (parts.length) parts.push(element("p", { class: "caption" }, "The brightness of maps is each run’s own. Blue line: the known lesion."));
  else parts.push(element("p", {}, found.newest ? "These runs kept no pictures of the same cases, or are not among the newest ones, whose pictures are in this file; make dashboard shows those of any." : "These runs kept no pictures of the same cases."));
  return section("Pictures of the same cases", ...parts);
}

// What people do ----------------------------------------------------------------------------------------------------

function head() {
  $("head").append(element("th", {}, element("span", { class: "quiet" }, "Tick")));
  for (const column of COLUMNS) {
    $("head").append(element("th", { scope: "col", "data-key": column.key, "aria-sort": "none", class: column.number ? null : "words" }, element("button", { type: "button", onclick: () => sortBy(column.key) }, column.title)));
    $("sort").append(element("option", { value: column.key }, column.title));
  }
}

function fields() {
  const before = new Map(filters);
  $("fields").replaceChildren(...COLUMNS.map((column) => {
    const values = column.choices ? [...new Set(runs.map((run) => text(run, column)))].filter(Boolean).sort(collator.compare) : [];
    const field = column.choices
      ? element("select", {}, element("option", { value: "" }, "all"), ...values.map((value) => element("option", { value }, value)))
      : element("input", { type: "text", autocomplete: "off", spellcheck: "false" });
    field.value = before.get(column.key) ?? "";
    field.dataset.filter = column.key;
    field.addEventListener(column.choices ? "change" : "input", () => {
      if (field.value.trim()) filters.set(column.key, field.value);
      else filters.delete(column.key);
      refilter();
    });
    return element("label", {}, column.title, field);
  }));
}

function refilter() {
  $("active").textContent = filters.size ? `(${filters.size} in use)` : "";
  page = 0;
  arrange();
}

function turnPage(by) {
  page += by;
  draw();
  $("all").scrollIntoView();
}

let waiting = 0;
$("search").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(refilter, 60); });
$("grouped").addEventListener("change", () => { page = 0; arrange(); });
$("sort").addEventListener("change", () => sortBy($("sort").value, sorted.down));
$("turn").addEventListener("click", () => sortBy(sorted.key, !sorted.down));
$("reset").addEventListener("click", () => { filters.clear(); $("search").value = ""; fields(); refilter(); });
$("back").addEventListener("click", () => turnPage(-1));
$("on").addEventListener("click", () => turnPage(1));
$("start").addEventListener("click", compare);
$("clear").addEventListener("click", () => { ticked.clear(); arrange(); });
$("return").addEventListener("click", close);
$("body").addEventListener("change", ({ target }) => {
  if (!target.dataset.path) return;
  tick(target.dataset.path, target.checked);
  target.closest("tr").classList.toggle("ticked", target.checked);
  $("count").textContent = $("count").textContent.replace(/(, \d+ ticked)?$/, ticked.size ? `, ${ticked.size} ticked` : "");
  $("start").disabled = ticked.size < 2 || ticked.size > data.most;
  $("start").textContent = ticked.size > data.most ? `Compare (at most ${data.most})` : "Compare";
  $("clear").disabled = !ticked.size;
});
$("body").addEventListener("click", ({ target }) => {
  const id = target.closest("button")?.dataset.group;
  if (id === undefined) return;
  if (!open.delete(id)) open.add(id);
  draw();
  [...$("body").querySelectorAll("button[data-group]")].find((button) => button.dataset.group === id)?.focus();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !$("compare").hidden) close();
  const box = event.target;
  if (box.dataset?.path && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
    const boxes = [...$("body").querySelectorAll("input[data-path]:not(:disabled)")];
    boxes[boxes.indexOf(box) + (event.key === "ArrowDown" ? 1 : -1)]?.focus();
    event.preventDefault();
  }
});

// Served: what has changed since ------------------------------------------------------------------------------------

async function poll() {
  try {
    const answer = await fetch(`./.api/changes?since=${version}`);
    if (!answer.ok) return;
    const news = await answer.json();
    version = news.version;
    if (news.groups) groups = asGroups(news.groups, data.grouped);
    if (!news.rows.length && !news.gone.length) return;
    const gone = new Set(news.gone);
    runs = news.whole ? [] : runs.filter((run) => !gone.has(run.path));
    for (const path of gone) ticked.delete(path);
    take(news.rows);
    const focused = document.activeElement?.dataset?.path;
    arrange();
    if (focused) [...$("body").querySelectorAll("input[data-path]")].find((box) => box.dataset.path === focused)?.focus();
  } catch {
    // The server has ended; the page stays as it is.
  } finally {
    setTimeout(poll, 5000);
  }
}

groups = asGroups(data.groups, data.grouped);
take(data.rows);
runs.forEach((run, place) => { run.place = place; });
head();
fields();
arrange();
if (data.served) setTimeout(poll, 5000);
