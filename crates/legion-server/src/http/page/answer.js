// @ts-check
/** What the server answered. */

import { element, table } from "./dom.js";
import { format, inline, isContainer, parse } from "./json.js";

/**
 * @typedef {{
 *   status: number, statusText: string, text: string, milliseconds: number,
 *   timing: string | null, id: string | null,
 * }} Outcome
 */

/** Most rows in the table of an answer. */
const MAX_ROWS = 200;
/** Most characters of an answer that are shown. */
const MAX_TEXT = 200_000;

/**
 * Sends a body and measures the time until the whole answer is there.
 *
 * @param {string} url
 * @param {string} body
 * @returns {Promise<Outcome>}
 */
export async function send(url, body) {
  const began = performance.now();
  const headers = { "Content-Type": "application/json", Accept: "application/json" };
  const response = await fetch(url, { method: "POST", headers, body });
  const text = await response.text();
  return {
    status: response.status,
    statusText: response.statusText,
    text,
    milliseconds: performance.now() - began,
    timing: response.headers.get("Server-Timing"),
    id: response.headers.get("Legion-Prediction-Id"),
  };
}

/**
 * Returns the message of an error.
 *
 * @param {Outcome} outcome
 * @returns {string}
 */
export function problem(outcome) {
  try {
    const { message, error } = JSON.parse(outcome.text);
    return String(message ?? error ?? outcome.text);
  } catch {
    return outcome.text || `The server answered ${outcome.status}.`;
  }
}

/**
 * Returns the elements that show an answer.
 *
 * @param {Outcome} outcome
 * @param {string[]} names The names of the outputs in the signature.
 * @returns {HTMLElement[]}
 */
export function show(outcome, names) {
  const isGood = outcome.status === 200;
  const main = isGood ? predictions(outcome.text, names) : [element("p", { class: "problem" }, problem(outcome))];
  return [facts(outcome), ...main, raw(outcome.text, isGood)];
}

/**
 * Returns what a screen reader says about an answer. A whole table would take too long.
 *
 * @param {Outcome} outcome
 * @returns {string}
 */
export function summary(outcome) {
  const took = duration(outcome.milliseconds);
  if (outcome.status !== 200) return `Status ${outcome.status} after ${took}. ${problem(outcome)}`;
  const value = predicted(outcome.text);
  if (!Array.isArray(value)) return `There is an answer after ${took}.`;
  const content = value.length === 1 && !isContainer(value[0]) ? cell(value[0]) : `${value.length} rows`;
  return `Prediction after ${took}: ${content}.`;
}

/** @param {Outcome} outcome */
function facts(outcome) {
  const isGood = outcome.status === 200;
  const state = `${outcome.status} ${outcome.statusText}`.trim();
  const list = element("dl", { class: "facts" });
  const add = (/** @type {string} */ name, /** @type {string} */ value, /** @type {string} */ kind = "") =>
    list.append(element("div", {}, element("dt", {}, name), element("dd", { class: kind }, value)));
  add("Status", state, isGood ? "good" : "bad");
  add("Latency", duration(outcome.milliseconds), "latency");
  for (const { name, milliseconds } of timings(outcome.timing)) add(`Server: ${name}`, duration(milliseconds));
  if (outcome.id) add("Prediction id", outcome.id, "id");
  return list;
}

/** @param {number} milliseconds */
function duration(milliseconds) {
  return `${milliseconds.toFixed(milliseconds < 10 ? 2 : milliseconds < 100 ? 1 : 0)} ms`;
}

/**
 * Reads the durations of a Server-Timing header.
 *
 * @param {string | null} header
 */
function timings(header) {
  const found = [];
  for (const entry of header?.split(",") ?? []) {
    const [name, ...parameters] = entry.split(";").map((part) => part.trim());
    const value = (/** @type {string} */ key) =>
      parameters.find((parameter) => parameter.startsWith(`${key}=`))?.slice(key.length + 1);
    const milliseconds = Number(value("dur") ?? NaN);
    if (!Number.isNaN(milliseconds)) found.push({ name: value("desc")?.replaceAll('"', "") || name, milliseconds });
  }
  return found;
}

/**
 * @param {string} text
 * @param {string[]} names
 * @returns {HTMLElement[]}
 */
function predictions(text, names) {
  const value = predicted(text);
  if (Array.isArray(value) && value.length === 1 && !isContainer(value[0])) {
    const name = names.length === 1 ? names[0] : "Prediction";
    return [element("p", { class: "value" }, element("span", {}, name), element("strong", {}, cell(value[0])))];
  }
  const content = columns(value, names);
  if (!content) return [];
  const rows = content.rows.slice(0, MAX_ROWS).map((row, index) => [String(index + 1), ...row.map(cell)]);
  const shown = table("Predictions", ["Row", ...content.head], rows);
  const more = content.rows.length - rows.length;
  return more > 0 ? [shown, element("p", { class: "quiet" }, `${more} more rows are in the JSON.`)] : [shown];
}

/**
 * Returns the predictions of an answer, or nothing if it is not JSON.
 *
 * @param {string} text
 * @returns {any}
 */
function predicted(text) {
  try {
    return parse(text).predictions;
  } catch {
    return undefined;
  }
}

/** @param {any} value */
function cell(value) {
  return typeof value === "string" ? value : inline(value);
}

/**
 * Returns predictions as a table: a list of scalars, of records or of lists, or an object of columns.
 *
 * @param {any} value
 * @param {string[]} names
 * @returns {{ head: string[], rows: any[][] } | undefined}
 */
function columns(value, names) {
  if (!isContainer(value)) return undefined;
  if (!Array.isArray(value)) {
    const lists = Object.values(value);
    const areAlike = lists.every((list) => Array.isArray(list) && list.length === lists[0].length);
    if (!lists.length || !areAlike) return undefined;
    const rows = lists[0].map((/** @type {any} */ _, /** @type {number} */ row) => lists.map((list) => list[row]));
    return { head: Object.keys(value), rows };
  }
  if (!value.length) return undefined;
  if (value.every((row) => !isContainer(row))) {
    return { head: [names.length === 1 ? names[0] : "Prediction"], rows: value.map((row) => [row]) };
  }
  if (value.every(Array.isArray)) {
    const width = Math.max(...value.map((row) => row.length));
    const head = Array.from({ length: width }, (_, index) => (names.length === width ? names[index] : `${index + 1}`));
    return { head, rows: value };
  }
  if (!value.every((row) => isContainer(row) && !Array.isArray(row))) return undefined;
  const head = [...new Set(value.flatMap(Object.keys))];
  return { head, rows: value.map((row) => head.map((name) => row[name])) };
}

/**
 * @param {string} text
 * @param {boolean} open
 */
function raw(text, open) {
  let shown = text;
  try {
    shown = text.length > MAX_TEXT ? text : format(parse(text));
  } catch {
    // A gateway may answer with anything.
  }
  if (shown.length > MAX_TEXT) shown = `${shown.slice(0, MAX_TEXT)}\n… ${shown.length - MAX_TEXT} more characters`;
  const content = element("pre", { tabindex: 0, "aria-label": "JSON of the answer" }, shown);
  return element("details", { open, class: "raw" }, element("summary", {}, "JSON"), content);
}
