// @ts-check
/** JSON without loss: a number that JavaScript would change, such as 9007199254740993, stays as it is written. */

const engine = /** @type {any} */ (JSON);
/** Longest line of a list or an object before it is broken into several. */
const WIDTH = 76;

/** @typedef {{ yes: string, no: string, none: string }} Words The words of a language for true, false and null. */
/** @type {Words} */
export const JSON_WORDS = { yes: "true", no: "false", none: "null" };
/** @type {Words} */
export const PYTHON_WORDS = { yes: "True", no: "False", none: "None" };

/**
 * Reads a text.
 *
 * @param {string} text
 * @returns {any}
 */
export function parse(text) {
  if (!engine.rawJSON) return JSON.parse(text);
  const keep = (/** @type {string} */ _, /** @type {any} */ value, /** @type {any} */ context) =>
    typeof value === "number" && String(value) !== context.source ? engine.rawJSON(context.source) : value;
  return JSON.parse(text, /** @type {any} */ (keep));
}

/**
 * Returns the number of a text that is one in JSON, as it is written if that is possible.
 *
 * @param {string} text
 * @returns {any}
 */
export function number(text) {
  const isJson = /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/.test(text);
  return isJson ? parse(text) : Number(text);
}

/**
 * Whether a value is a number, also one that is kept as it is written.
 *
 * @param {any} value
 */
export function isNumber(value) {
  return typeof value === "number" || Boolean(engine.isRawJSON?.(value));
}

/**
 * Whether a value is a list or an object.
 *
 * @param {any} value
 */
export function isContainer(value) {
  return typeof value === "object" && value !== null && !isNumber(value);
}

/**
 * Whether JavaScript's own numbers lose nothing of a value.
 *
 * @param {any} value
 * @returns {boolean}
 */
export function isExact(value) {
  if (isContainer(value)) return Object.values(value).every(isExact);
  if (typeof value === "number" || !isNumber(value)) return true;
  // 1.0 and 1e3 are only other notations. Integers beyond 2^53 are not.
  const known = Number(value.rawJSON);
  return Number.isFinite(known) && (Math.abs(known) <= Number.MAX_SAFE_INTEGER || !/^-?\d+$/.test(value.rawJSON));
}

/**
 * Writes a value in lines that can be read.
 *
 * @param {any} value
 * @param {{ words?: Words, step?: string, indent?: string }} [style]
 * @returns {string}
 */
export function format(value, style = {}) {
  const { words = JSON_WORDS, step = "  ", indent = "" } = style;
  const line = inline(value, words);
  const isShort = indent.length + line.length <= WIDTH;
  // A row of numbers is easier to read in one line, even in a long one.
  const isRow = Array.isArray(value) && !value.some(isContainer);
  if (isShort || isRow || !isContainer(value)) return line;
  const inner = indent + step;
  const nested = (/** @type {any} */ item) => format(item, { words, step, indent: inner });
  const [open, items, close] = Array.isArray(value)
    ? ["[", value.map(nested), "]"]
    : ["{", Object.entries(value).map(([key, item]) => `${JSON.stringify(key)}: ${nested(item)}`), "}"];
  return `${open}\n${items.map((item) => inner + item).join(",\n")}\n${indent}${close}`;
}

/**
 * Writes a value in one line.
 *
 * @param {any} value
 * @param {Words} [words]
 * @returns {string}
 */
export function inline(value, words = JSON_WORDS) {
  if (value === null || value === undefined) return words.none;
  if (typeof value === "boolean") return value ? words.yes : words.no;
  if (Array.isArray(value)) return `[${value.map((item) => inline(item, words)).join(", ")}]`;
  if (!isContainer(value)) return JSON.stringify(value);
  const entries = Object.entries(value).map(([key, item]) => `${JSON.stringify(key)}: ${inline(item, words)}`);
  return `{${entries.join(", ")}}`;
}
