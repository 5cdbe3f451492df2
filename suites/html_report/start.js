/* Unpack the library and the data, then draw the page. */

const latencyFigure = (row) => row.time;
const single = (field) => (row) => [row[field]];

const SECTIONS = [
  answers,
  metricSection({id: "latency", title: "Latency", figure: latencyFigure, relative: true,
    hint: () => `Median ${report.data.rank}, with its 95% interval, plain or as a CUDA graph, whichever is faster.`}),
  pareto,
  metricSection({id: "throughput", title: "Throughput", unit: "tokens per second", figure: single("tokens_s"),
    hint: () => "Forward passes back to back. Padding does not count."}),
  metricSection({id: "memory", title: "Memory", unit: "MB", figure: single("memory_mb"),
    hint: () => "Largest memory of the process: device memory, or resident memory on a CPU."}),
  metricSection({id: "energy", title: "Energy", unit: "mJ per sequence", figure: single("energy_mj"),
    hint: () => "Energy of forward passes back to back, from the counter of the GPU."}),
  breakdown, roofline, switching, serving, layers, kernels, withoutResult,
];

function drawSection(section) {
  const {body} = section;
  const focused = body.contains(document.activeElement) ? [...body.querySelectorAll("select,button,summary")].indexOf(document.activeElement) : -1;
  body.querySelectorAll(".plot").forEach((box) => Plotly.purge(box));
  body.replaceChildren();
  const redraw = () => (["latency", "throughput", "memory", "energy", "request", "roofline"].includes(section.id) ? drawAll() : drawSection(section));
  if (!section.render(body, redraw)) body.append(element("p", {class: "hint"}, "There are no such records for this choice."));
  if (focused >= 0) body.querySelectorAll("select,button,summary")[focused]?.focus({preventScroll: true});
}

function drawAll() {
  drawFilters();
  SECTIONS.forEach(drawSection);
}

function buildPage() {
  const {count, records} = report.data;
  byId("summary").textContent = `${count} records of ${machines().length} ${machines().length === 1 ? "machine" : "machines"}. ` +
    "Select a point, or a button of a table, to see the command of its record.";
  for (const section of SECTIONS) {
    section.body = element("div");
    byId("contents").append(element("a", {href: `#${section.id}`}, section.title));
    byId("main").append(element("section", {id: section.id, "aria-labelledby": `${section.id}-title`},
      element("h2", {id: `${section.id}-title`}, section.title), element("p", {class: "hint"}, section.hint()), section.body));
  }
}

function chooseTheme(theme) {
  document.documentElement.dataset.theme = theme;
  document.documentElement.style.colorScheme = theme;
  byId("theme").textContent = theme === "dark" ? "Light colours" : "Dark colours";
}

async function unpacked(id) {
  const bytes = Uint8Array.from(atob(byId(id).textContent.trim()), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

async function start() {
  const system = matchMedia("(prefers-color-scheme: dark)");
  chooseTheme(system.matches ? "dark" : "light");
  if (typeof DecompressionStream === "undefined") {
    byId("summary").textContent = "This browser is too old for the page. Use Chrome 80, Firefox 113, Safari 16.4 or newer.";
    return;
  }
  report.data = JSON.parse(await unpacked("data"));
  document.head.append(element("script", {}, await unpacked("library")));
  startState();
  byId("filter-box").open = !matchMedia("(max-width: 40rem)").matches;
  buildPage();
  drawAll();
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("theme").addEventListener("click", () => { chooseTheme(dark() ? "light" : "dark"); drawAll(); });
  system.addEventListener("change", (event) => { chooseTheme(event.matches ? "dark" : "light"); drawAll(); });
  byId("record-close").addEventListener("click", hideRecord);
  byId("record-copy").addEventListener("click", copyCommand);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hideRecord(); });
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; drawAll(); } });
  document.documentElement.dataset.ready = "yes";
}

start();
