"use strict";
/* Elements of the page. Text from records is always set as text, never as HTML. */

const report = {data: null, state: {}, sections: []};

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const byId = (id) => document.getElementById(id);

/* Text for plotly, which reads some HTML tags in its labels. */
function plain(text) {
  return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

function number(value, digits = 3) {
  if (value === null || value === undefined) return "";
  const size = Math.abs(value);
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  if (size > 0 && size < 0.001) return value.toExponential(digits - 1).replace(/\.?0+e/, "e");
  return String(Number(value.toPrecision(digits)));
}

function unique(values) {
  return [...new Set(values)];
}

function announce(text) {
  byId("announcement").textContent = text;
}

/* A select with a label. Options are [value, text] pairs. */
function select(label, options, value, onChange) {
  const box = element("select", {"aria-label": label, onchange: (event) => onChange(event.target.value)},
    ...options.map(([key, text]) => element("option", {value: key, selected: String(key) === String(value)}, text)));
  return element("label", {class: "field"}, label, box);
}

/* Toggle buttons. `pressed` is a Set of keys; a change calls onChange with the key. */
function toggles(label, keys, pressed, onChange) {
  const buttons = keys.map((key) => element("button",
    {type: "button", "aria-pressed": String(pressed.has(key)), "data-key": key, onclick: () => onChange(key)}, key));
  return element("fieldset", {}, element("legend", {}, label), element("div", {class: "choices"}, ...buttons));
}

/* A table. Columns are [heading, isNumber]; a row is {cells, record, best}. The last column has a button. */
function table(caption, columns, rows) {
  const headings = [...columns.map(([name, isNumber]) => element("th", {scope: "col", class: isNumber && "number"}, name)),
    element("th", {scope: "col"}, "record")];
  const body = rows.map((row) => element("tr", {class: row.best && "best"},
    ...row.cells.map((cell, index) => element(index ? "td" : "th",
      {class: columns[index][1] ? "number" : String(cell).length > 40 && "long", scope: index ? null : "row"}, cell === null ? "" : String(cell))),
    element("td", {}, row.record === null ? "" : commandButton(row.record, row.cells[0]))));
  return element("div", {class: "scroll", tabindex: 0, role: "region", "aria-label": caption},
    element("table", {}, element("caption", {class: "visually-hidden"}, caption),
      element("thead", {}, element("tr", {}, ...headings)), element("tbody", {}, ...body)));
}

function commandButton(record, of) {
  const entry = report.data.records[record];
  return element("button", {type: "button", "aria-label": `Command of ${entry.id}, ${of}`,
    onclick: () => showRecord(record)}, "Command");
}

/* The panel at the bottom with the command of a record. */
function showRecord(index, facts = "") {
  const entry = report.data.records[index];
  byId("record-title").textContent = entry.id;
  byId("record-facts").textContent = [facts, entry.machine, facts.includes(entry.release) ? "" : entry.release, entry.measured && `measured ${entry.measured}`,
    entry.reason].filter(Boolean).join("; ");
  byId("record-command").textContent = entry.command || "The record has no command.";
  byId("record-copy").textContent = "Copy command";
  byId("record").hidden = false;
  document.body.style.paddingBottom = `${byId("record").offsetHeight + 16}px`;
  announce(`${entry.id}. ${facts}. The command is at the end of the page.`);
}

function hideRecord() {
  byId("record").hidden = true;
  document.body.style.paddingBottom = "";
}

async function copyCommand() {
  const command = byId("record-command");
  try {
    await navigator.clipboard.writeText(command.textContent);
  } catch {
    getSelection().selectAllChildren(command);  // A browser without the clipboard in local files: copy the selection.
    document.execCommand("copy");
  }
  byId("record-copy").textContent = "Copied";
  announce("The command is copied.");
}
