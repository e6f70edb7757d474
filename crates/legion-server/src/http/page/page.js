// @ts-check
/** The page of a model: a request, its answer, and the code for it. */

import { problem, send, show, summary } from "./page/answer.js";
import { code } from "./page/code.js";
import { byId, element } from "./page/dom.js";
import { InvalidField, MAX_ROWS, TableForm, rowsOf } from "./page/form.js";
import { format, parse } from "./page/json.js";
import { describe, isTable } from "./page/schema.js";

/**
 * @typedef {{
 *   name: string, version: string, loader: string, mlflow_version: string, server_version: string, ready: boolean,
 *   signature: import("./page/schema.js").Signature | null,
 *   sample: { file: string | null, request: any },
 * }} Description
 */

/** Milliseconds until the page asks again whether the model is loaded. */
const PATIENCE = 2000;
/** Longest body that is shown as code. A browser needs too long for a longer one after each key. */
const MAX_CODE = 100_000;
/** The address of predictions. It is relative to the page, so a prefix in front of both does not matter. */
const URL_OF_PREDICTIONS = new URL("invocations", document.baseURI).href;

/** @returns {Promise<Description>} */
async function describeModel() {
  const response = await fetch("page.json");
  const text = await response.text();
  if (!response.ok) throw new Error(`page.json: ${response.status} ${text}`);
  return parse(text);
}

/** @param {Description} model */
function showModel(model) {
  document.title = `${model.name} · Legion`;
  byId("name").textContent = model.name;
  const versions = [
    model.version && `Version ${model.version}`,
    model.mlflow_version && `MLflow ${model.mlflow_version}`,
    `legion-server ${model.server_version}`,
  ];
  const chips = versions.filter(Boolean).map((text) => element("li", {}, text));
  byId("facts").replaceChildren(...chips);
  byId("schema").replaceChildren(...describe(model.signature));
  const { file } = model.sample;
  const origin = file ? `Filled in from ${file}.` : "The model has no sample, so the values are empty.";
  const rule = isTable(model.signature?.inputs) ? " Values are required unless marked optional." : "";
  byId("origin").textContent = origin + rule;
  showReady(model);
}

/** @param {Description} model */
function showReady(model) {
  const state = byId("ready");
  state.textContent = model.ready ? "Ready" : "Loading the model";
  state.className = model.ready ? "ready good" : "ready";
  if (!model.ready) askAgain();
}

function askAgain() {
  setTimeout(() => describeModel().then(showReady, (error) => (showFailure(error), askAgain())), PATIENCE);
}

/** @param {any} error */
function showFailure(error) {
  const state = byId("ready");
  state.textContent = `Not reachable: ${error.message}`;
  state.className = "ready bad";
}

/** The request: as a form, if the model takes a table, and as JSON. */
class Request {
  /** @param {Description} model */
  constructor(model) {
    this.sample = model.sample.request;
    this.names = (model.signature?.outputs ?? []).map((spec) => spec.name ?? "").filter(Boolean);
    this.text = byId("json");
    const columns = model.signature?.inputs;
    const params = model.signature?.params ?? [];
    this.form = isTable(columns) ? new TableForm(byId("fields"), columns, params, () => this.changed()) : undefined;
    /** @type {"form" | "json"} */
    this.view = "json";
    this.language = /** @type {import("./page/code.js").Language} */ ("curl");
    this.listen();
    this.reset();
  }

  listen() {
    byId("form").addEventListener("submit", (/** @type {Event} */ event) => {
      event.preventDefault();
      this.predict();
    });
    byId("form").addEventListener("input", () => this.changed());
    byId("form").addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      const isOrder = event.key === "Enter" && (event.ctrlKey || event.metaKey);
      if (isOrder && event.target instanceof HTMLTextAreaElement) this.predict();
    });
    byId("add").addEventListener("click", () => this.addRow());
    byId("reset").addEventListener("click", () => this.reset());
    byId("view-form").addEventListener("change", () => this.toForm());
    byId("view-json").addEventListener("change", () => this.toJson());
    byId("copy").addEventListener("click", () => this.copy());
    listenToTabs((language) => {
      this.language = language;
      this.showCode();
    });
  }

  /** Shows the sample. The form begins with its first row. */
  reset() {
    this.text.value = format(this.sample);
    const why = this.form?.fill(this.sample, 1);
    this.show(this.form && why === undefined ? "form" : "json");
    this.note("");
  }

  /** @param {"form" | "json"} view */
  show(view) {
    this.view = view;
    const isForm = view === "form";
    byId("switch").hidden = !this.form;
    byId("fields").hidden = byId("add").hidden = !isForm;
    byId("json-view").hidden = isForm;
    byId(isForm ? "view-form" : "view-json").checked = true;
    this.changed();
  }

  toJson() {
    try {
      this.text.value = format(this.form?.request());
      this.show("json");
      this.note("");
    } catch (error) {
      this.refuse(error);
      byId("view-form").checked = true;
    }
  }

  toForm() {
    let why;
    try {
      why = this.form?.fill(parse(this.text.value));
    } catch (error) {
      why = `This is not JSON: ${/** @type {Error} */ (error).message}`;
    }
    this.show(why === undefined ? "form" : "json");
    this.note(why ?? "");
  }

  /** Adds the next row of the sample, or another one of the last row. */
  addRow() {
    const { form } = this;
    if (!form || form.rows.length >= MAX_ROWS) {
      this.note(`The form shows at most ${MAX_ROWS} rows. JSON can have more.`);
      return;
    }
    const rows = rowsOf(this.sample, form.columns) ?? [];
    form.add(rows.length ? rows[form.rows.length % rows.length] : []);
    form.rows[form.rows.length - 1].fields[0].control.focus();
    this.changed();
  }

  /** Returns the body. What is not JSON is sent as it is, because only the server decides. */
  body() {
    return this.form && this.view === "form" ? format(this.form.request()) : this.text.value;
  }

  changed() {
    this.text.removeAttribute("aria-invalid");
    this.showCode();
  }

  showCode() {
    const place = byId("code");
    try {
      const body = this.body();
      const isShort = body.length <= MAX_CODE;
      place.textContent = isShort
        ? code(this.language, URL_OF_PREDICTIONS, body)
        : `The request is longer than ${MAX_CODE} characters, so there is no code for it here.`;
    } catch (error) {
      place.textContent = error instanceof InvalidField ? "There is no code while a value is wrong." : String(error);
    }
  }

  async predict() {
    const place = byId("answer");
    // The answers of two requests could come in another order.
    if (place.hasAttribute("aria-busy")) return;
    this.form?.clear();
    this.note("");
    let body;
    try {
      body = this.body();
    } catch (error) {
      this.refuse(error);
      return;
    }
    byId("predict").setAttribute("aria-disabled", "true");
    place.setAttribute("aria-busy", "true");
    try {
      const outcome = await send(URL_OF_PREDICTIONS, body);
      place.replaceChildren(...show(outcome, this.names));
      byId("summary").textContent = summary(outcome);
      if (outcome.status !== 200) this.mark(problem(outcome));
    } catch (error) {
      const text = `There is no answer: ${/** @type {Error} */ (error).message}`;
      place.replaceChildren(element("p", { class: "problem" }, text));
      byId("summary").textContent = text;
    } finally {
      byId("predict").removeAttribute("aria-disabled");
      place.removeAttribute("aria-busy");
    }
  }

  /**
   * Marks what a message of the server is about.
   *
   * @param {string} message
   */
  mark(message) {
    if (this.view === "form") {
      this.form?.mark(message);
    } else if (/^(body|params|inputs|instances|dataframe_(split|records))\b[^ ]*: /.test(message)) {
      this.text.setAttribute("aria-invalid", "true");
      this.text.focus();
    }
  }

  /** @param {any} error */
  refuse(error) {
    if (!(error instanceof InvalidField)) throw error;
    error.field.mark(error.message);
  }

  /** @param {string} text */
  note(text) {
    byId("note").textContent = text;
  }

  async copy() {
    const place = byId("code");
    try {
      await navigator.clipboard.writeText(place.textContent);
    } catch {
      // Without TLS there is no clipboard. The selected text can be copied with the keyboard.
      getSelection()?.selectAllChildren(place);
      document.execCommand("copy");
    }
    byId("copied").textContent = "Copied";
    setTimeout(() => (byId("copied").textContent = ""), PATIENCE);
  }
}

/**
 * Makes the tabs reachable: Tab goes to the chosen one, and the arrows go to the others.
 *
 * @param {(language: import("./page/code.js").Language) => void} choose
 */
function listenToTabs(choose) {
  const tabs = /** @type {HTMLElement[]} */ ([...byId("tabs").querySelectorAll("[role=tab]")]);
  const select = (/** @type {HTMLElement} */ tab) => {
    for (const other of tabs) {
      other.setAttribute("aria-selected", String(other === tab));
      other.tabIndex = other === tab ? 0 : -1;
    }
    byId("panel").setAttribute("aria-labelledby", tab.id);
    choose(/** @type {any} */ (tab.dataset.language));
  };
  for (const [index, tab] of tabs.entries()) {
    tab.addEventListener("click", () => select(tab));
    tab.addEventListener("keydown", (event) => {
      const places = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: tabs.length - 1 };
      const place = places[/** @type {keyof typeof places} */ (event.key)];
      if (place === undefined) return;
      event.preventDefault();
      const next = tabs[(place + tabs.length) % tabs.length];
      next.focus();
      select(next);
    });
  }
}

try {
  const model = await describeModel();
  showModel(model);
  new Request(model);
  byId("main").hidden = false;
} catch (error) {
  showFailure(error);
}
