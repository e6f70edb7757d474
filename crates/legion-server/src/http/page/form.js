// @ts-check
/** The form of a table: a labelled control for each value of each row, and for each parameter. */

import { element } from "./dom.js";
import { format, isContainer, isNumber, number, parse } from "./json.js";
import { isRequired, typeName } from "./schema.js";

/** @typedef {import("./schema.js").Spec} Spec */

/** Most rows in a form. A longer table is edited as JSON. */
export const MAX_ROWS = 50;

/** A value in a control that is not of its type. */
export class InvalidField extends Error {
  /**
   * @param {Field} field
   * @param {string} message
   */
  constructor(field, message) {
    super(message);
    this.field = field;
  }
}

/** One value: a label, its control, and a place for what is wrong with it. */
export class Field {
  /**
   * @param {string} id
   * @param {string} name
   * @param {Spec} spec
   * @param {boolean} required
   */
  constructor(id, name, spec, required) {
    this.spec = spec;
    this.required = required;
    this.kind = kindOf(spec, required);
    this.control = control(this.kind);
    this.control.id = id;
    this.control.setAttribute("aria-required", String(required));
    this.control.setAttribute("aria-describedby", `${id}-type ${id}-problem`);
    this.problem = element("p", { id: `${id}-problem`, class: "problem" });
    const type = required ? typeName(spec) : `${typeName(spec)}, optional`;
    this.node = element(
      "div",
      { class: `field ${this.kind}` },
      element("label", { for: id }, name),
      element("span", { id: `${id}-type`, class: "quiet" }, type),
      this.control,
      this.problem,
    );
    this.control.addEventListener("input", () => this.clear());
  }

  /**
   * Shows a value. Returns whether the control can hold it.
   *
   * @param {any} value
   */
  set(value) {
    const { control, kind } = this;
    if (kind === "check") {
      control.checked = value === true || value === 1;
      return typeof value === "boolean" || value === undefined || value === null || value === 0 || value === 1;
    }
    if (value === undefined || value === null) {
      control.value = "";
      return true;
    }
    if (kind === "json") {
      control.value = format(value);
      return true;
    }
    const text = isNumber(value) ? (value.rawJSON ?? String(value)) : String(value);
    control.value = text;
    if (kind === "time" && control.value === "") {
      // The browser's control knows neither time zones nor nanoseconds.
      control.type = "text";
      control.value = text;
    }
    return !isContainer(value) && (text === "" || control.value !== "");
  }

  /**
   * Returns the value of the control, and `undefined` if it is empty.
   *
   * @returns {any}
   */
  read() {
    const { control, kind } = this;
    if (kind === "check") return control.checked;
    if (control.validity.badInput) throw new InvalidField(this, `This is not a value of type ${this.spec.type}.`);
    const text = control.value;
    if (kind === "text") return text === "" && !this.required ? undefined : text;
    if (text.trim() === "") return undefined;
    if (kind === "choice") return text === "true";
    if (kind === "number") return ["integer", "long"].includes(this.spec.type) ? number(text) : Number(text);
    if (kind === "time") return text;
    try {
      return parse(text);
    } catch (error) {
      throw new InvalidField(this, `This is not JSON: ${/** @type {Error} */ (error).message}`);
    }
  }

  /**
   * Marks the control as wrong and moves the focus to it.
   *
   * @param {string} message
   */
  mark(message) {
    this.problem.textContent = message;
    this.control.setAttribute("aria-invalid", "true");
    this.control.focus();
  }

  clear() {
    this.problem.textContent = "";
    this.control.removeAttribute("aria-invalid");
  }
}

/**
 * @param {Spec} spec
 * @param {boolean} required
 */
function kindOf(spec, required) {
  if (spec.shape) return "json";
  switch (spec.type) {
    case "boolean":
      return required ? "check" : "choice";
    case "integer":
    case "long":
    case "float":
    case "double":
      return "number";
    case "datetime":
      return "time";
    case "string":
    case "binary":
      return "text";
    default:
      return "json";
  }
}

/**
 * @param {string} kind
 * @returns {any}
 */
function control(kind) {
  switch (kind) {
    case "check":
      return element("input", { type: "checkbox" });
    case "choice": {
      const options = [["", "not given"], ["true", "true"], ["false", "false"]];
      return element("select", {}, ...options.map(([value, text]) => element("option", { value }, text)));
    }
    case "number":
      return element("input", { type: "number", step: "any", autocomplete: "off" });
    case "time":
      return element("input", { type: "datetime-local", step: 1 });
    case "text":
      return element("input", { type: "text", autocomplete: "off", spellcheck: "false" });
    default:
      return element("textarea", { rows: 2, spellcheck: "false" });
  }
}

/** @typedef {{ fields: Field[], node: HTMLElement, title: HTMLElement, remove: HTMLElement }} Row */

/** Rows of a table and parameters. */
export class TableForm {
  /**
   * @param {HTMLElement} place
   * @param {Spec[]} columns
   * @param {Spec[]} params
   * @param {() => void} changed Called after a row was added or removed.
   */
  constructor(place, columns, params, changed) {
    this.columns = columns;
    this.params = params.map((spec, index) => new Field(`param-${index}`, spec.name ?? "", spec, false));
    this.changed = changed;
    this.place = element("div", { class: "rows" });
    /** @type {Row[]} */
    this.rows = [];
    /** Makes ids that are never used twice. */
    this.made = 0;
    /** @type {number[]} The columns of the last request, in its order. */
    this.sent = [];
    const more = this.params.length ? [this.fieldset("Parameters", this.params).node] : [];
    place.replaceChildren(this.place, ...more);
  }

  /**
   * Shows a request. Returns why that is not possible.
   *
   * @param {any} request
   * @param {number} [most] Rows to show.
   * @returns {string | undefined}
   */
  fill(request, most = MAX_ROWS) {
    const rows = rowsOf(request, this.columns);
    if (!rows?.length) return "The form shows only tables with the columns of the signature.";
    const unknown = Object.keys(request.params ?? {}).find(
      (name) => !this.params.some((field) => field.spec.name === name),
    );
    if (unknown !== undefined) return `The signature has no parameter ${unknown}.`;
    const shown = rows.slice(0, most);
    if (shown.length > MAX_ROWS) return `The form shows at most ${MAX_ROWS} rows.`;
    this.rows = [];
    this.place.replaceChildren();
    const fits = shown.map((row) => this.add(row)).every(Boolean);
    for (const field of this.params) {
      const given = request.params?.[field.spec.name ?? ""];
      if (!field.set(given === undefined ? field.spec.default : given)) return "The form cannot show a parameter.";
    }
    return fits ? undefined : "The form cannot show a value.";
  }

  /**
   * Adds a row. Returns whether the controls can hold its values.
   *
   * @param {any[]} values
   */
  add(values) {
    const number = this.made++;
    const fields = this.columns.map((spec, index) => {
      const name = spec.name ?? `Column ${index + 1}`;
      return new Field(`cell-${number}-${index}`, name, spec, isRequired(spec));
    });
    const fits = fields.map((field, index) => field.set(values[index])).every(Boolean);
    const remove = element("button", { type: "button", class: "small" }, "Remove");
    const row = { fields, remove, ...this.fieldset("", fields, remove) };
    remove.addEventListener("click", () => this.remove(row));
    this.rows.push(row);
    this.place.append(row.node);
    this.number();
    return fits;
  }

  /** @param {Row} row */
  remove(row) {
    const index = this.rows.indexOf(row);
    this.rows.splice(index, 1);
    row.node.remove();
    this.number();
    // The focus must not be lost with the button.
    this.rows[Math.min(index, this.rows.length - 1)].fields[0].control.focus();
    this.changed();
  }

  /** Names the rows. The only row has no number, and cannot be removed. */
  number() {
    const several = this.rows.length > 1;
    for (const [index, { title, remove }] of this.rows.entries()) {
      title.textContent = several ? `Row ${index + 1}` : "Input";
      remove.hidden = !several;
      remove.setAttribute("aria-label", `Remove row ${index + 1}`);
    }
  }

  /**
   * @param {string} name
   * @param {Field[]} fields
   * @param {...HTMLElement} buttons
   */
  fieldset(name, fields, ...buttons) {
    const title = element("legend", {}, name);
    const grid = element("div", { class: "grid" }, ...fields.map((field) => field.node));
    return { title, node: element("fieldset", { class: "row" }, title, ...buttons, grid) };
  }

  /**
   * Returns the request.
   *
   * @returns {any}
   * @throws {InvalidField}
   */
  request() {
    const values = this.rows.map((row) => row.fields.map((field) => field.read()));
    const indexes = this.columns.map((_, index) => index);
    // An optional column without any value is left out.
    const isGiven = (/** @type {number} */ index) => values.some((row) => row[index] !== undefined);
    this.sent = indexes.filter((index) => isRequired(this.columns[index]) || isGiven(index));
    const data = values.map((row) => this.sent.map((index) => row[index] ?? null));
    const names = this.sent.map((index) => this.columns[index].name);
    const hasNames = names.every((name) => name !== undefined);
    const params = this.params
      .map((field) => [field.spec.name, field.read()])
      .filter(([, value]) => value !== undefined);
    return {
      dataframe_split: hasNames ? { columns: names, data } : { data },
      ...(params.length ? { params: Object.fromEntries(params) } : {}),
    };
  }

  /**
   * Marks the field that a message of the server begins with. Returns whether there is one.
   *
   * @param {string} message
   */
  mark(message) {
    const found = /^dataframe_split\.data\[(\d+)\](?:\[(\d+)\])?: /.exec(message);
    const row = found && this.rows[Number(found[1])];
    if (!row) return false;
    const field = row.fields[this.sent[Number(found[2] ?? 0)]];
    field?.mark(message.slice(found[0].length));
    return Boolean(field);
  }

  clear() {
    for (const field of [...this.rows.flatMap((row) => row.fields), ...this.params]) field.clear();
  }
}

/**
 * Returns the rows of a request in the order of the signature, or nothing if it is no table.
 *
 * @param {any} request
 * @param {Spec[]} columns
 * @returns {any[][] | undefined}
 */
export function rowsOf(request, columns) {
  const isRecords = (/** @type {any} */ rows) =>
    Array.isArray(rows) && rows.every((row) => isContainer(row) && !Array.isArray(row));
  const ofRecords = (/** @type {any[]} */ rows) => rows.map((row) => columns.map((column) => row[column.name ?? ""]));
  const keys = Object.keys(isContainer(request) ? request : {}).filter((key) => key !== "params");
  if (keys.length !== 1) return undefined;
  const content = request[keys[0]];
  switch (keys[0]) {
    case "dataframe_split": {
      if (!isContainer(content) || !Array.isArray(content.data) || !content.data.every(Array.isArray)) return undefined;
      const names = Array.isArray(content.columns) ? content.columns : columns.map((column) => column.name);
      const positions = columns.map(({ name }, index) => (name === undefined ? index : names.indexOf(name)));
      return content.data.map((/** @type {any[]} */ row) => positions.map((position) => row[position]));
    }
    case "dataframe_records":
    case "instances":
      return isRecords(content) ? ofRecords(content) : undefined;
    case "inputs": {
      if (isRecords(content)) return ofRecords(content);
      const lists = columns.map((column) => (isContainer(content) ? content[column.name ?? ""] : undefined));
      const first = lists.find(Array.isArray);
      if (!first || !lists.every((list) => list === undefined || Array.isArray(list))) return undefined;
      return first.map((/** @type {any} */ _, /** @type {number} */ row) => lists.map((list) => list?.[row]));
    }
    default:
      return undefined;
  }
}
