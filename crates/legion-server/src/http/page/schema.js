// @ts-check
/** The signature of a model, in MLflow's notation. */

import { element, table } from "./dom.js";
import { inline } from "./json.js";

/**
 * @typedef {{
 *   name?: string, type: string, required?: boolean, optional?: boolean,
 *   items?: Spec, values?: Spec, properties?: Record<string, Spec>,
 *   "tensor-spec"?: { dtype: string, shape: number[] },
 *   default?: any, shape?: number[] | null,
 * }} Spec A column, a tensor or a parameter.
 * @typedef {{ inputs: Spec[] | null, outputs: Spec[] | null, params: Spec[] | null }} Signature
 */

/**
 * Whether a schema has columns.
 *
 * @param {Spec[] | null | undefined} specs
 * @returns {specs is Spec[]}
 */
export function isTable(specs) {
  return Boolean(specs?.length) && !specs?.every((spec) => spec.type === "tensor");
}

/**
 * Whether a request must have a column. MLflow before 2.10 wrote `optional`.
 *
 * @param {Spec} spec
 */
export function isRequired(spec) {
  return spec.required ?? !spec.optional;
}

/**
 * Returns a type in words.
 *
 * @param {Spec} spec
 * @returns {string}
 */
export function typeName(spec) {
  const tensor = spec["tensor-spec"];
  if (tensor) return `${tensor.dtype} [${tensor.shape.map((length) => (length < 0 ? "any" : length)).join(", ")}]`;
  switch (spec.type) {
    case "array":
      return `list of ${spec.items ? typeName(spec.items) : "any"}`;
    case "map":
      return `map of ${spec.values ? typeName(spec.values) : "any"}`;
    case "object": {
      const entries = Object.entries(spec.properties ?? {});
      return `object {${entries.map(([name, property]) => `${name}: ${typeName(property)}`).join(", ")}}`;
    }
    default:
      return spec.shape ? `list of ${spec.type}` : spec.type;
  }
}

/**
 * Shows a signature.
 *
 * @param {Signature | null} signature
 * @returns {HTMLElement[]}
 */
export function describe(signature) {
  if (!signature) return [element("p", { class: "quiet" }, "The model was saved without a signature.")];
  const parts = [part("Inputs", signature.inputs), part("Outputs", signature.outputs)];
  if (signature.params?.length) parts.push(params(signature.params));
  return parts;
}

/**
 * @param {string} title
 * @param {Spec[] | null} specs
 */
function part(title, specs) {
  const heading = element("h3", {}, title);
  if (!specs?.length) return element("div", {}, heading, element("p", { class: "quiet" }, "Not in the signature."));
  const rows = specs.map((spec, index) => {
    const place = spec.type === "tensor" ? "unnamed" : String(index + 1);
    const presence = isRequired(spec) ? ["required"] : ["optional"];
    return [spec.name || place, typeName(spec), ...(title === "Inputs" ? presence : [])];
  });
  const head = title === "Inputs" ? ["Name", "Type", "Presence"] : ["Name", "Type"];
  return element("div", {}, heading, table(title, head, rows));
}

/** @param {Spec[]} specs */
function params(specs) {
  const rows = specs.map((spec) => [spec.name ?? "", typeName(spec), inline(spec.default)]);
  return element("div", {}, element("h3", {}, "Parameters"), table("Parameters", ["Name", "Type", "Default"], rows));
}
