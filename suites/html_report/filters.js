/* Filters of the whole page: machine, model, sequence length, precisions, backends, and how lines are grouped. */

const workloadsOf = (machine) => report.data.workloads.filter((workload) => workload.machine === machine);

function machines() {
  const {workloads, switching, serving, layers, kernels, without_result, records} = report.data;
  const others = [...layers, ...kernels, ...without_result].map((item) => records[item.record].machine);
  return unique([...workloads, ...switching, ...serving].map((item) => item.machine).concat(others));
}

function startState() {
  const size = (machine) => workloadsOf(machine).reduce((sum, workload) => sum + workload.rows.length, 0);
  const listed = machines();
  const state = report.state;
  state.machine = listed.reduce((best, machine) => (size(machine) > size(best) ? machine : best), listed[0]);
  state.lines = "kinds";
  state.off = {precision: new Set(), backend: new Set()};
  chooseMachine(state.machine);
}

function chooseMachine(machine) {
  report.state.machine = machine;
  const workloads = workloadsOf(machine);
  const largest = workloads.reduce((best, one) => (best && best.rows.length >= one.rows.length ? best : one), null);
  chooseWorkload(largest);
}

function chooseWorkload(workload) {
  const state = report.state;
  state.workload = workload;
  const lengths = workload ? unique(workload.rows.map((row) => row.sequence)) : [];
  const points = (length) => unique(workload.rows.filter((row) => row.sequence === length).map((row) => row.batch)).length;
  state.sequence = lengths.reduce((best, length) => (best !== null && points(best) >= points(length) ? best : length), null);
  state.shown = {};
  state.measure = state.batch = undefined;
}

/* Rows of latency that pass the filters. Invalid rows are in the tables only. */
function filteredRows() {
  const {workload, sequence} = report.state;
  return workload ? workload.rows.filter((row) => row.sequence === sequence && passes(row.record)) : [];
}

function passes(record) {
  const {precision, backend} = report.data.records[record];
  return !report.state.off.precision.has(precision) && !report.state.off.backend.has(backend);
}

function onThisMachine(record) {
  return report.data.records[record].machine === report.state.machine;
}

function drawFilters() {
  const {state, data} = report;
  const update = (change) => (value) => { change(value); drawAll(); };
  const workloads = workloadsOf(state.machine);
  const here = unique(data.records.filter((entry) => entry.machine === state.machine).map((entry) => entry.precision)).sort();
  const backends = unique(data.records.filter((entry) => entry.machine === state.machine).map((entry) => entry.backend)).sort();
  const focused = document.activeElement;
  const place = focused && byId("filters").contains(focused) ? [...byId("filters").querySelectorAll("select,button")].indexOf(focused) : -1;
  const parts = [select("Machine", machines().map((name) => [name, name]), state.machine, update(chooseMachine))];
  if (workloads.length) {
    parts.push(select("Model", workloads.map((one, index) => [index, one.name]), workloads.indexOf(state.workload),
      update((index) => chooseWorkload(workloads[Number(index)]))));
    const lengths = unique(state.workload.rows.map((row) => row.sequence));
    parts.push(select("Sequence length", lengths.map((length) => [length, `${length} tokens`]), state.sequence,
      update((length) => { state.sequence = Number(length); state.shown = {}; })));
    parts.push(select("Lines", [["kinds", "best of each backend and precision"], ["all", "every configuration"]], state.lines,
      update((lines) => { state.lines = lines; state.shown = {}; })));
  }
  const toggle = (kind) => update((key) => {
    const off = state.off[kind];
    if (!off.delete(key)) off.add(key);
    state.shown = {};
  });
  const on = (keys, off) => new Set(keys.filter((key) => !off.has(key)));
  parts.push(toggles("Precision", here, on(here, state.off.precision), toggle("precision")));
  parts.push(toggles("Backend", backends, on(backends, state.off.backend), toggle("backend")));
  byId("filters").replaceChildren(...parts);
  byId("choice").textContent = [state.machine, state.workload?.name, state.sequence && `${state.sequence} tokens`].filter(Boolean).join("; ");
  if (place >= 0) byId("filters").querySelectorAll("select,button")[place]?.focus();
}
